//! What a host would be handed, with a host that keeps it.
#![expect(unsafe_code, reason = "plays the host")]

use super::*;
use crate::abi::{FfiNotice, FfiTraceValue, TraceService, TraceServiceRef};
use abi_stable::{prefix_type::WithMetadata, std_types::RSlice};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker},
};
use tracing::{Instrument, Span as Handle, debug, error, field, info, info_span, instrument, warn};

thread_local! {
    static WRITTEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "C" fn max_level(_: *const ()) -> u8 {
    5
}

unsafe extern "C" fn enabled(_: *const (), _: u8, target: RStr<'_>) -> bool {
    target.as_str() != "silent"
}

unsafe extern "C" fn on_change(_: *const (), _: FfiNotice) {}

unsafe extern "C" fn event(_: *const (), event: *const FfiEvent<'_>) {
    // SAFETY: lent for this call.
    let event = unsafe { &*event };
    let mut text = format!("{} {}", event.level, event.message);
    text.push_str(&show(event.fields));
    for span in event.spans.as_slice() {
        text.extend([" in ", span.name.as_str(), &show(span.fields)]);
    }
    WRITTEN.with_borrow_mut(|written| written.push(text));
}

fn show(fields: RSlice<'_, FfiTraceField<'_>>) -> String {
    let value = |value: &FfiTraceValue<'_>| match value {
        FfiTraceValue::Text(text) => format!("{:?}", text.as_str()),
        FfiTraceValue::Int(number) => format!("{number}i"),
        FfiTraceValue::Uint(number) => format!("{number}u"),
        FfiTraceValue::Float(number) => format!("{number}f"),
        FfiTraceValue::Bool(truth) => truth.to_string(),
    };
    fields
        .iter()
        .flat_map(|field| [" ".to_owned(), field.key.to_string(), "=".to_owned(), value(&field.value)])
        .collect()
}

fn written() -> Vec<String> {
    WRITTEN.take()
}

/// Runs `body` with a subscriber of its own.
fn forwarded<T>(body: impl FnOnce() -> T) -> (T, Vec<String>) {
    static TABLE: &WithMetadata<TraceService> =
        &WithMetadata::new(TraceService { max_level, enabled, on_change, event });
    let log = Log { data: std::ptr::null(), table: TraceServiceRef(TABLE.static_as_prefix()) };
    // Other tests of this process start apps.
    log::within(log, || {
        start::begin(log);
        start::settle();
        let outcome = tracing::subscriber::with_default(Forward::default(), body);
        (outcome, written())
    })
}

fn lines(body: impl FnOnce()) -> Vec<String> {
    forwarded(body).1
}

#[test]
fn fields_keep_their_types() {
    let lines = lines(|| {
        let cause = std::io::Error::other("no paper");
        let wide = (i128::MIN, u128::from(u64::MAX));
        info!(a = 1_i8, b = 2_u64, c = 1.5, d = true, e = "x", f = %"y", g = ?Some("z"), "said {}", 1);
        error!(error = &cause as &dyn std::error::Error, low = wide.0, high = wide.1);
    });
    assert_eq!(lines[0], "3 said 1 a=1i b=2u c=1.5f d=true e=\"x\" f=\"y\" g=\"Some(\\\"z\\\")\"");
    assert_eq!(lines[1], format!("1  error=\"no paper\" low=\"{}\" high={}u", i128::MIN, u64::MAX));
}

#[test]
fn an_event_tells_the_spans_that_it_is_in() {
    let lines = lines(|| {
        let outer = info_span!("outer", order = 7, paid = field::Empty);
        let _in_outer = outer.enter();
        outer.record("paid", true);
        info_span!("inner").in_scope(|| info!("deep"));
        outer.record("paid", false);
        outer.follows_from(Handle::current().id());
        outer.follows_from(tracing::Id::from_u64(1 << 40));
        info!("after");
        info!(parent: None, "alone");
        info!(parent: &info_span!(parent: None, "other"), "elsewhere");
        Handle::current().record("paid", "late");
        info!("current");
    });
    let expected = [
        "3 deep in outer order=7i paid=true in inner",
        "3 after in outer order=7i paid=false",
        "3 alone",
        "3 elsewhere in other",
        "3 current in outer order=7i paid=\"late\"",
    ];
    assert_eq!(lines, expected);
}

/// Pending once.
async fn pause() {
    let mut paused = false;
    poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

#[instrument]
async fn sell(order: u64) {
    info!("begun");
    pause().await;
    info!("done");
}

#[test]
fn spans_stay_with_their_futures_across_awaits_and_threads() {
    let lines = lines(|| {
        let mut context = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (pin!(sell(1)), pin!(sell(2).instrument(info_span!("batch"))));
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        info!("between");
        assert!(first.as_mut().poll(&mut context).is_ready());
        assert!(second.as_mut().poll(&mut context).is_ready());
        let span = info_span!("moved");
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let log = log::current().expect("that of this test");
        let there = std::thread::spawn(move || {
            log::within(log, || {
                tracing::dispatcher::with_default(&dispatch, || span.in_scope(|| info!("there")));
            });
            written()
        });
        assert_eq!(there.join().unwrap(), ["3 there in moved"]);
    });
    let expected = [
        "3 begun in sell order=1u",
        "3 begun in batch in sell order=2u",
        "3 between",
        "3 done in sell order=1u",
        "3 done in batch in sell order=2u",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn what_is_disabled_is_asked_for_once_and_costs_no_evaluation() {
    let lines = lines(|| {
        let mut evaluated = 0;
        for _ in 0..3 {
            debug!(target: "silent", evaluated = {
                    evaluated += 1;
                    evaluated
                },
                "not written"
            );
            warn!(target: "silent", evaluated = { evaluated += 1; evaluated }, "not written");
        }
        tracing::debug_span!(target: "silent", "left out").in_scope(|| info!("in"));
        assert_eq!(evaluated, 0);
    });
    assert_eq!(lines, ["3 in"]);
}

#[test]
fn guards_may_leave_in_any_order_and_a_number_kept_too_long_finds_nothing() {
    let lines = lines(|| {
        let first = info_span!("first").entered();
        let second = info_span!("second").entered();
        drop(first);
        info!("second only, and its parent as it was");
        drop(second);
        let stale = info_span!("stale").id();
        info!(parent: stale.clone(), "none");
        tracing::dispatcher::get_default(|dispatch| {
            let stale = stale.clone().unwrap();
            dispatch.enter(&stale);
            dispatch.exit(&stale);
            assert!(!dispatch.try_close(stale));
        });
        info!("none either");
    });
    assert_eq!(lines, ["3 second only, and its parent as it was in first in second", "3 none", "3 none either"]);
}

#[test]
fn nothing_grows_without_bound() {
    lines(|| {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let spans = &dispatch.downcast_ref::<Forward>().expect("that of this test").spans;
        for _ in 0..1000 {
            info_span!("short").in_scope(|| assert_eq!(spans.count(), 1));
        }
        assert_eq!(spans.count(), 0, "closed spans are gone");
        let chain: Vec<_> = (0..100_000).map(|_| info_span!("deep").entered()).collect();
        assert_eq!(spans.count(), 128);
        drop(chain);
        let many: Vec<_> = (0..100_000).map(|_| info_span!("many")).collect();
        assert_eq!(spans.count(), 65_536);
        drop(many);
        assert_eq!(spans.count(), 0);
    });
    let lines = lines(|| {
        let long = "é".repeat(1 << 20);
        info!(shown = %long, printed = ?long, plain = long, "{long}");
    });
    assert!(lines[0].len() < 5 * values::MAX_TEXT, "{}", lines[0].len());
    assert!(lines[0].contains('…'));
}

#[test]
fn lines_of_the_crate_log_come_with_the_spans_around_them() {
    use ::log::Log as _;
    let lines = lines(|| {
        let _span = info_span!("around", n = 1).entered();
        for target in ["library", "silent"] {
            let mut record = ::log::Record::builder();
            Records.log(&record.level(::log::Level::Warn).target(target).args(format_args!("said")).build());
        }
    });
    assert_eq!(lines, ["2 said in around n=1i"]);
}

#[cfg(feature = "subscriber")]
#[test]
fn the_layer_writes_what_the_subscriber_would_with_late_fields_and_parents() {
    use tracing_subscriber::prelude::*;

    static TABLE: &WithMetadata<TraceService> =
        &WithMetadata::new(TraceService { max_level, enabled, on_change, event });
    let log = Log { data: std::ptr::null(), table: TraceServiceRef(TABLE.static_as_prefix()) };
    let body = || {
        let outer = info_span!("outer", user = field::Empty);
        outer.record("user", 7);
        let inner = info_span!(parent: &outer, "inner", step = 2_u64);
        inner.in_scope(|| warn!(items = 3, "sold"));
        info!(parent: &outer, "told");
        info!(target: "silent", "left out by the host's log");
        info!("alone");
    };
    let seen = log::within(log, || {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(HostLog), body);
        written()
    });
    assert_eq!(seen, lines(body), "as without a subscriber of the app's own");
    assert_eq!(seen, ["2 sold items=3i in outer user=7i in inner step=2u", "3 told in outer user=7i", "3 alone"]);
}
