//! A tower service or an axum `Router` under test, made by the function that the app exports.
//!
//! Owns [`start_service!`](crate::testing::start_service). What it starts is what `export_tower!` would export.

use super::{TestApp, TestHost};
use crate::state::SharedState;
use crate::tower::{self, Beside, Ended, Maker, Makes};
use crate::{App, StartError};

/// Starts what [`export_axum!`](crate::export_axum) or [`export_tower!`](crate::export_tower) makes an app of. Features
/// `testing` and `axum`, or `tower`.
///
/// The first argument is a [`TestHost`](crate::testing::TestHost), the second the function that makes the Router or the
/// service, in any of the forms that the other macros take; `stop = flush` and `state = cache` may follow, in this order. It gives a future of a
/// `Result<TestApp<_>, StartError>`, and does nothing before that is awaited.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use app_abi::serde_json::json;
/// use app_abi::testing::{TestHost, block_on, start_service};
/// use app_abi::{Body, Host, Request, StartError};
/// use axum::{Router, routing::get};
///
/// fn router(host: Host) -> Result<Router, StartError> {
///     let greeting: String = host.config()?;
///     let slot = async |host: Host| host.slot().to_string();
///     Ok(Router::new().route("/", get(move || async move { greeting })).route("/slot", get(slot)))
/// }
///
/// block_on(async {
///     let app = start_service!(TestHost::new(&json!("hello")).slot(3), router).await?;
///     let get = |path| Request::get(path).body(Body::empty()).unwrap();
///     assert_eq!(app.call(get("/")).await.into_body().bytes(1000).await.unwrap(), "hello");
///     assert_eq!(app.call(get("/slot")).await.into_body().bytes(1000).await.unwrap(), "3");
///     Ok::<_, StartError>(())
/// })
/// # .unwrap(); }
/// ```
/// There is no runtime of the app's here: what needs tokio runs in that of the test, for instance of a `#[tokio::test]`.
/// Upgrades, and with them WebSockets, need a host: see `app-host dev`.
#[doc(hidden)]
#[macro_export]
macro_rules! __start_service {
    ($host:expr, $maker:expr $(, stop = $stop:expr)? $(, state = $state:expr)? $(,)?) => {{
        #[allow(unused_imports)]
        use $crate::tower::__told::*;
        $crate::testing::__start(
            $host,
            $maker,
            $crate::__first!($($stop,)? $crate::tower::nothing_to_stop),
            $crate::__first!($($state,)? $crate::tower::nothing_to_leave),
            || (&&&&(&&&&&(&&&(&&&$crate::tower::Given::new(&$maker)).called()).awaited()).unwrapped()).form(),
        )
    }};
}

/// For the macro. `form` is never called: its type says what form the maker has.
pub async fn start<F, M, Z, A, K, T, B, G>(
    host: TestHost,
    maker: F,
    stop: Z,
    state: T,
    form: G,
) -> Result<TestApp<impl App>, StartError>
where
    F: Maker<M>,
    G: Fn() -> M + Copy,
    M: 'static,
    Z: Makes<A, Made: Ended<K>>,
    A: 'static,
    K: 'static,
    T: Makes<B, Made: SharedState>,
    B: 'static,
{
    let _ = (maker, stop, state, form);
    host.start::<tower::Served<F, M, Z, Beside<Z, A, K, T, B>>>().await
}
