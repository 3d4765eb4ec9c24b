//! Early hints for services: what puts the way to send them among a request's extensions, and takes it from there.

use crate::{Body, Request, RequestExt};
use std::task::{Context, Poll};
use tower_service::Service;

/// A service whose requests carry [`EarlyHints`](crate::EarlyHints), from [`with_early_hints`].
#[derive(Clone, Debug)]
pub struct WithEarlyHints<S> {
    service: S,
}

/// Has [`EarlyHints`](crate::EarlyHints) be among the extensions of the requests that can have them. It is not done for
/// every service, because it costs each request an allocation.
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # mod app {
/// use app_abi::{EarlyHints, HeaderMap, header::{HeaderValue, LINK}, tower::{WithEarlyHints, with_early_hints}};
/// use axum::{Router, response::Html, routing::get};
///
/// async fn page(hints: Option<EarlyHints>) -> Html<&'static str> {
///     if let Some(hints) = hints {
///         let style = HeaderValue::from_static("</style.css>; rel=preload; as=style");
///         hints.send(&HeaderMap::from_iter([(LINK, style)]));
///     }
///     Html("…")
/// }
///
/// fn router() -> WithEarlyHints<Router> {
///     with_early_hints(Router::new().route("/", get(page)))
/// }
///
/// app_abi::export_axum!(router);
/// # }
/// # fn main() {}
/// ```
pub const fn with_early_hints<S>(service: S) -> WithEarlyHints<S> {
    WithEarlyHints { service }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for WithEarlyHints<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(hints) = request.early_hints() {
            request.extensions_mut().insert(hints);
        }
        self.service.call(request)
    }
}

#[cfg(feature = "axum")]
impl<S: Sync> axum::extract::OptionalFromRequestParts<S> for crate::EarlyHints {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned())
    }
}
