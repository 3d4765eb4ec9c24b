//! The JSON schema of a configuration, for editors and for the reference: what `app-host schema` prints.
//!
//! Written by hand, because descriptions and bounds are for people; held to the reader by tests that put the same values
//! to both. Beside the words of JSON Schema it has some of its own: `x-changes`, what brings a changed value in (`restart`,
//! or `start`: only a start of the master); `x-default`, a default that depends on something; `x-least` and `x-most`,
//! the bounds of a duration.

/// The schema, draft 7.
pub const SCHEMA: &str = include_str!("../schema.json");

#[cfg(test)]
mod tests;
