//! The host's log as one layer among others.
//!
//! Owns the step from the spans of a `tracing_subscriber` registry to those of a line. What is enabled is the app's
//! subscriber to say; what of that the host's log leaves out is decided for each event.

use super::{level, spans::Span, values::Fields, write};
use crate::log;
use std::sync::Arc;
use tracing::{
    Event, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, SpanRef},
};

/// The host's log as a layer of a subscriber of the app's own (feature `subscriber`).
///
/// An app that sets no subscriber needs nothing: the host's log is its subscriber. One that wants another, for
/// OpenTelemetry or Sentry, sets it in its start, with this beside the others:
///
/// ```no_run
/// use app_abi::HostLog;
/// use tracing_subscriber::prelude::*;
///
/// fn subscribe() {
///     tracing_subscriber::registry()
///         .with(HostLog)
///         // .with(tracing_opentelemetry::layer()) …
///         .init();
/// }
/// ```
///
/// Events come with target, level, fields and the spans around them, and are written up to the log's level, also after that
/// has changed. A filter of the app's own goes beside it: `HostLog.with_filter(…)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostLog;

fn known<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> Option<Arc<Span>> {
    span.extensions().get::<Arc<Span>>().cloned()
}

impl<S> Layer<S> for HostLog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        // The nearest that this layer knows: a filter may have left out some.
        let parent = span.scope().skip(1).find_map(|span| known(&span));
        if let Some(new) = Span::new(id.into_u64(), attributes.metadata(), parent, fields.into_span()) {
            span.extensions_mut().insert(Arc::new(new));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id).as_ref().and_then(known) {
            let mut fields = Fields::default();
            values.record(&mut fields);
            span.record(fields.into_span());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let level = level(*metadata.level());
        let Some(log) = log::current().filter(|log| log.enabled_for(level, metadata.target())) else { return };
        let span = context.event_scope(event).and_then(|mut scope| scope.find_map(|span| known(&span)));
        let mut fields = Fields::default();
        event.record(&mut fields);
        write(log, level, metadata.target(), &fields.message, &fields.others, span.as_ref());
    }
}
