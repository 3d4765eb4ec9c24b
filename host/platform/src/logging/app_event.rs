//! An event of an app's log, and where it goes.
//!
//! `tracing` knows only names of fields that were there at compile time, so an app's events can't be the host's own.

use tracing::Level;

/// What is told of a change.
pub type Changed = Box<dyn Fn() + Send + Sync>;

/// Where the events of an app go.
pub trait AppLog: Send + Sync {
    /// The most verbose level that is written for any target.
    fn max_level(&self) -> Level;
    fn enabled(&self, level: Level, target: &str) -> bool;
    /// Has `changed` called after each change of what the two above answer.
    fn on_change(&self, changed: Changed);
    fn write(&self, event: &AppEvent<'_>);
}

/// An event of an app's.
#[derive(Clone, Debug)]
pub struct AppEvent<'a> {
    pub level: Level,
    pub target: &'a str,
    pub message: &'a str,
    pub fields: Vec<AppField<'a>>,
    /// The names and fields of the spans that it is in, the outermost first.
    pub spans: Vec<(&'a str, Vec<AppField<'a>>)>,
}

/// A field's name and value.
pub type AppField<'a> = (&'a str, AppValue<'a>);

/// What a field says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AppValue<'a> {
    Text(&'a str),
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
}
