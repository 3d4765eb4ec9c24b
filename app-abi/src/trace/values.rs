//! What the fields of an event or a span say, in types that cross the line, and bounded.

use crate::abi::FfiTraceValue;
use abi_stable::std_types::RStr;
use std::{
    error::Error,
    fmt::{self, Write},
};
use tracing::field::{Field as Named, Visit};

/// The most bytes of one text; what is longer is cut and ends in an ellipsis.
pub(super) const MAX_TEXT: usize = 16 * 1024;
const CUT: &str = "…";

/// One field.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) value: FieldValue,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum FieldValue {
    Text(String),
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
}

impl FieldValue {
    pub(super) fn as_ffi(&self) -> FfiTraceValue<'_> {
        match self {
            Self::Text(text) => FfiTraceValue::Text(RStr::from_str(text)),
            Self::Int(number) => FfiTraceValue::Int(*number),
            Self::Uint(number) => FfiTraceValue::Uint(*number),
            Self::Float(number) => FfiTraceValue::Float(*number),
            Self::Bool(truth) => FfiTraceValue::Bool(*truth),
        }
    }
}

/// Gathers the fields of one event or span.
#[derive(Default)]
pub(super) struct Fields {
    /// The field of that name, which is the text of an event.
    pub(super) message: String,
    pub(super) others: Vec<Field>,
}

impl Fields {
    /// The fields as a span keeps them: its message is one like any other.
    pub(super) fn into_span(mut self) -> Vec<Field> {
        if !self.message.is_empty() {
            self.others.push(Field { key: "message", value: FieldValue::Text(self.message) });
        }
        self.others
    }

    fn put(&mut self, field: &Named, value: FieldValue) {
        match value {
            FieldValue::Text(text) if field.name() == "message" => self.message = text,
            value => self.others.push(Field { key: field.name(), value }),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Named, value: f64) {
        self.put(field, FieldValue::Float(value));
    }

    fn record_i64(&mut self, field: &Named, value: i64) {
        self.put(field, FieldValue::Int(value));
    }

    fn record_u64(&mut self, field: &Named, value: u64) {
        self.put(field, FieldValue::Uint(value));
    }

    fn record_i128(&mut self, field: &Named, value: i128) {
        self.put(field, i64::try_from(value).map_or_else(|_| FieldValue::Text(value.to_string()), FieldValue::Int));
    }

    fn record_u128(&mut self, field: &Named, value: u128) {
        self.put(field, u64::try_from(value).map_or_else(|_| FieldValue::Text(value.to_string()), FieldValue::Uint));
    }

    fn record_bool(&mut self, field: &Named, value: bool) {
        self.put(field, FieldValue::Bool(value));
    }

    fn record_str(&mut self, field: &Named, value: &str) {
        self.put(field, FieldValue::Text(text(format_args!("{value}"))));
    }

    fn record_error(&mut self, field: &Named, value: &(dyn Error + 'static)) {
        let mut bounded = Bounded::default();
        let mut whole = write!(bounded, "{value}");
        let mut cause = value.source();
        while let Some(error) = cause.filter(|_| whole.is_ok()) {
            whole = write!(bounded, ": {error}");
            cause = error.source();
        }
        self.put(field, FieldValue::Text(bounded.finish(whole)));
    }

    fn record_debug(&mut self, field: &Named, value: &dyn fmt::Debug) {
        self.put(field, FieldValue::Text(text(format_args!("{value:?}"))));
    }
}

/// What is displayed, or its beginning.
pub(super) fn text(value: impl fmt::Display) -> String {
    let mut bounded = Bounded::default();
    let whole = write!(bounded, "{value}");
    bounded.finish(whole)
}

/// A text that takes no more than its bound: whoever writes it is stopped there.
#[derive(Default)]
struct Bounded {
    text: String,
    full: bool,
}

impl Bounded {
    /// A value may also fail by itself; what it wrote before is kept.
    fn finish(mut self, whole: fmt::Result) -> String {
        if self.full || whole.is_err() {
            self.text.push_str(CUT);
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = MAX_TEXT - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        self.text.push_str(&more[..more.floor_char_boundary(room)]);
        self.full = true;
        Err(fmt::Error)
    }
}
