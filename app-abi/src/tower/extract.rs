//! What handlers of axum may take of a request that a host has sent.

use crate::{ClientInfo, ConnectionInfo, Host, Resume, StatusCode};
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use std::convert::Infallible;

impl<S: Sync> FromRequestParts<S> for Host {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let missing = (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request comes from no host; in a test, `app_abi::testing::start_service!` plays one",
        );
        parts.extensions.get().copied().ok_or(missing)
    }
}

impl<S: Sync> FromRequestParts<S> for ClientInfo {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let connection = || parts.extensions.get::<ConnectionInfo>().copied().map(Self::from);
        let missing = (StatusCode::INTERNAL_SERVER_ERROR, "the request comes from no host");
        parts.extensions.get().cloned().or_else(connection).ok_or(missing)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Resume {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned())
    }
}
