//! The app's `tracing` events and spans on their way to the host's log.
//!
//! Owns the subscriber that an app with the feature `tracing` has as its global default unless it sets another
//! ([`start`]): the app's copy of `tracing` is its own, so the host's subscriber never sees these events by itself. What
//! is enabled is the host's to say; it is asked once a callsite, and again when its answers have changed.
//! The spans that are open are kept by [`spans`]. For a subscriber of the app's own the same is a [`layer`].

#[cfg(feature = "subscriber")]
mod layer;
mod spans;
mod start;
mod values;

#[cfg(feature = "subscriber")]
pub use layer::HostLog;
pub(crate) use start::{Start, begin};
#[cfg(feature = "tokio")]
pub(crate) use start::{thread_begins, thread_rests};

use crate::abi::{FfiEvent, FfiTraceField, FfiTraceSpan};
use crate::log::{self, Level, Log};
use abi_stable::std_types::RStr;
use spans::{Span, Spans};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tracing::{
    Event, Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_core::span::Current;
use values::{Field, Fields};

/// Whether the crate `log` is ours.
static OURS: AtomicBool = AtomicBool::new(false);

/// Asks again what is enabled.
extern "C" fn changed() {
    let rebuilt = crate::panics::catch(|| {
        if let Some(log) = log::current().filter(|_| OURS.load(Ordering::Relaxed)) {
            ::log::set_max_level(match log.max_level() {
                0 => ::log::LevelFilter::Off,
                1 => ::log::LevelFilter::Error,
                2 => ::log::LevelFilter::Warn,
                3 => ::log::LevelFilter::Info,
                4 => ::log::LevelFilter::Debug,
                _ => ::log::LevelFilter::Trace,
            });
        }
        tracing::callsite::rebuild_interest_cache();
    });
    if let Err(panic) = rebuilt {
        crate::panics::log(&panic, "app panicked when the level of the log changed");
    }
}

/// The subscriber. What is enabled never depends on the spans around, so callsites cache it.
#[derive(Default)]
struct Forward {
    spans: Spans,
}

impl Subscriber for Forward {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        log::current().is_some_and(|log| log.enabled_for(level(*metadata.level()), metadata.target()))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match log::current().map_or(0, Log::max_level) {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let parent = match attributes.parent() {
            Some(parent) => self.spans.get(parent),
            None if attributes.is_contextual() => spans::current(),
            None => None,
        };
        self.spans.open(attributes.metadata(), parent, fields.into_span())
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let Some(span) = self.spans.get(id) else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        span.record(fields.into_span());
    }

    /// Nothing in a line says so.
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(log) = log::current() else { return };
        let span = match event.parent() {
            Some(parent) => self.spans.get(parent),
            None if event.is_contextual() => spans::current(),
            None => None,
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        write(log, level(*metadata.level()), metadata.target(), &fields.message, &fields.others, span.as_ref());
    }

    fn enter(&self, id: &Id) {
        if let Some(span) = self.spans.get(id) {
            spans::enter(span);
        }
    }

    fn exit(&self, id: &Id) {
        spans::exit(id);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.spans.keep(id);
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        self.spans.close(&id)
    }

    fn current_span(&self) -> Current {
        spans::current().map_or_else(Current::none, |span| Current::new(span.id(), span.metadata()))
    }
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

/// Hands an event over, with the spans around it.
fn write(log: Log, level: Level, target: &str, message: &str, fields: &[Field], span: Option<&Arc<Span>>) {
    fn ffi(fields: &[Field]) -> Vec<FfiTraceField<'_>> {
        fields
            .iter()
            .map(|field| FfiTraceField { key: RStr::from_str(field.key), value: field.value.as_ffi() })
            .collect()
    }
    // What a span says at this moment: it may change on another thread meanwhile.
    let mut around: Vec<(&'static str, Arc<Vec<Field>>)> = Vec::new();
    let mut next = span;
    while let Some(span) = next {
        around.push((span.metadata().name(), span.fields()));
        next = span.parent();
    }
    let around_ffi: Vec<_> = around.iter().rev().map(|(name, fields)| (*name, ffi(fields))).collect();
    let spans: Vec<_> = around_ffi
        .iter()
        .map(|(name, fields)| FfiTraceSpan { name: RStr::from_str(name), fields: fields.as_slice().into() })
        .collect();
    let fields = ffi(fields);
    log.event(&FfiEvent {
        level: level as u8,
        target: RStr::from_str(target),
        message: RStr::from_str(message),
        fields: fields.as_slice().into(),
        spans: spans.as_slice().into(),
    });
}

/// Lines of the crate `log`. Dependencies speak it that know no `tracing`.
struct Records;

impl ::log::Log for Records {
    fn enabled(&self, metadata: &::log::Metadata<'_>) -> bool {
        log::current().is_some_and(|log| log.enabled_for(of_record(metadata.level()), metadata.target()))
    }

    fn log(&self, record: &::log::Record<'_>) {
        if let Some(log) = log::current().filter(|_| self.enabled(record.metadata())) {
            let message = values::text(record.args());
            write(log, of_record(record.level()), record.target(), &message, &[], spans::current().as_ref());
        }
    }

    fn flush(&self) {}
}

fn of_record(level: ::log::Level) -> Level {
    match level {
        ::log::Level::Error => Level::Error,
        ::log::Level::Warn => Level::Warn,
        ::log::Level::Info => Level::Info,
        ::log::Level::Debug => Level::Debug,
        ::log::Level::Trace => Level::Trace,
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
