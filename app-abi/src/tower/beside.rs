//! The functions beside the one that makes the service, and those of an app that has none.

use super::forms::Marker;
use crate::state::SharedState;
use crate::{BoxError, KeepsState, LeftState, StateWriter};

/// The functions beside the one that makes the service: `stop`, and the one that gives what is handed on. The markers say which
/// forms they have.
pub(crate) struct Beside<Z, A, K, T, B>(Marker<(Z, A, K, T, B)>);

/// The `stop` of an app that has none.
pub const fn nothing_to_stop() {}

/// What an app has that hands nothing on.
#[derive(Debug)]
pub struct NothingToLeave;

impl KeepsState for NothingToLeave {
    async fn leave(&self, _state: &mut StateWriter) -> Result<(), BoxError> {
        Ok(())
    }

    async fn inherit(&self, _state: LeftState) -> Result<(), BoxError> {
        Ok(())
    }
}

impl SharedState for NothingToLeave {
    const IS_KEPT: bool = false;
    type Kept = Self;

    fn kept(&self) -> &Self {
        self
    }
}

/// The `state` of an app that has none.
#[must_use]
pub const fn nothing_to_leave() -> NothingToLeave {
    NothingToLeave
}
