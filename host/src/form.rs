//! In which form a command prints its answer: for people, or for programs.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
}
