//! The contract between `app-host` and the apps it serves.
//!
//! An app is a library (`crate-type = ["cdylib"]`) whose only dependency is this crate. This is all
//! of one:
//!
//! ```no_run
//! use app_abi::{App, Body, Host, Request, Response, StartError};
//!
//! struct Hello {
//!     greeting: String,
//! }
//!
//! /// What stands under `app.config` in the host's configuration file.
//! #[derive(app_abi::serde::Deserialize)]
//! #[serde(crate = "app_abi::serde", deny_unknown_fields)]
//! struct Config {
//!     greeting: String,
//! }
//!
//! impl App for Hello {
//!     async fn start(host: Host) -> Result<Self, StartError> {
//!         let Config { greeting } = host.config()?;
//!         Ok(Self { greeting })
//!     }
//!
//!     async fn call(&self, request: Request<Body>) -> Response<Body> {
//!         Response::new(format!("{} from {}\n", self.greeting, request.uri().path()).into())
//!     }
//! }
//!
//! app_abi::export_app!(Hello);
//! # fn main() {}
//! ```
//!
//! # Runtimes and frameworks
//! Nothing more is needed for an app of ordinary `async fn`s. What wants tokio (`reqwest`, `sqlx`,
//! `tokio::spawn`, timers), and whole web frameworks, are behind features, and an app without them links
//! nothing of them:
//!
//! | feature | macro | what becomes an app |
//! |---|---|---|
//! | | `export_app!(Shop)` | a type that implements [`App`] |
//! | `tokio` | `export_tokio!(Shop)` | the same, with a tokio runtime |
//! | `axum` | `export_axum!(router)` | `fn router() -> axum::Router`, unchanged; WebSockets too |
//! | `tower` | `export_tower!(service)` | any [tower](https://docs.rs/tower) service |
//! | `http2` | | adds WebSockets over HTTP/2 to the last two |
//!
//! What a blocking call in a handler costs is said at `export_tokio!`.
//!
//! `serde`'s derive macros need to be told where `serde` is, as above, unless the app depends on
//! `serde` itself.
//!
//! # Logs
//! [`Host::log`] and [`Host::log_with`] write lines to the host's log. With the feature `tracing` (also
//! exported as `app_abi::tracing`) it is the app's events that are written, with level, target, fields
//! as numbers, truth values or texts, and the spans that they are in, with theirs: those of `tracing`
//! and those of the crate `log`. Nothing is to be set up. What the configuration's `log.level` leaves out
//! is decided on the app's side of the line and costs a load and a comparison.
//!
//! An app may set a global subscriber of its own in its start, for OpenTelemetry or Sentry: only where it has set none by
//! the start's end is it the host's log. `HostLog` (feature `subscriber`) is the host's log as a layer of it. Events of
//! the start itself, and of the app's runtime meanwhile, go to the host's log until then (those of the start: until the
//! `.await` behind the app's own subscriber); those of the crate `log`, and of threads that the app makes
//! by itself, from the start's end on.
//!
//! ```
//! # #[cfg(feature = "tracing")] {
//! #[tracing::instrument]
//! fn price(order: u64) -> u64 {
//!     tracing::info!(items = 3, "priced");
//!     12
//! }
//! # price(1); }
//! ```
//! The macros work as `app_abi::tracing::info!`; only `#[instrument]` wants an app that depends on
//! `tracing` itself, any version 0.1, because it writes that name.
//!
//! Bounds: the text of one field is cut after 16 KiB, an event is written up to 64 KiB (it says then how
//! much was left out), a span deeper than 128 is left out of the context, as are those beyond some
//! 65,000 that are open at a time. A field that is called like one of the log's own gets a `_` behind
//! its name.
//!
//! What the app or a child of it prints to standard output comes as lines of the level `info` with the
//! target `stdout`, and of standard error with the target `stderr`, without codes for colours.
//!
//! # Tests
//! With the feature `testing`, for `[dev-dependencies]`, an app is tested in the process of the test, without a
//! host and without a runtime: see `app_abi::testing`.
//!
//! The crate owns the contract and both translations on the app's side of it: [`abi`] is the frozen
//! line, [`manifest`] and [`Magic`] are what a library says about itself without being run. It knows
//! neither the host nor any runtime. What an app needs is exported here at the root; the modules are
//! for the host.

pub mod abi;
mod about;
mod app;
pub mod arena;
mod body;
mod chunk;
mod client;
mod databank;
mod dispatch;
mod drain;
#[doc(hidden)]
pub mod export;
#[doc(hidden)]
pub mod head;
mod host;
mod listener;
mod log;
mod magic;
pub mod manifest;
mod only_one;
mod panics;
mod request;
mod required;
mod runtime;
#[cfg(feature = "tower")]
mod seam;
mod state;
#[cfg(feature = "store")]
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
#[cfg(feature = "tower")]
#[doc(hidden)]
pub mod tower;
#[cfg(feature = "tracing")]
mod trace;
pub mod upgrade;

pub use app::{App, StartError};
pub use body::{Body, BodyError};
pub use client::{ClientInfo, ProxiedTls};
pub use databank::{Databank, DatabankError, Document, Documents, Order, Revision, Search};
pub use dispatch::{Lost, Message, PublishError, SubscribeError, Subscription};
pub use drain::Draining;
pub use host::{ConfigError, Host};
pub use listener::{AppListener, ListenerError};
pub use log::Level;
pub use magic::{ABI, ABI_MINOR, Magic, magic};
pub use only_one::{OnlyOne, OnlyOneError};
pub use request::{Address, ConnectionInfo, EarlyHints, RequestExt, Resume, SaveError};
pub use state::{BoxError, KeepsState, LeftState, StateWriter};
pub use tls::{TlsInfo, TlsVersion};
pub use upgrade::{RESUMABLE, resumable};

pub use bytes::{self, Bytes};
pub use http::{self, HeaderMap, Method, Request, Response, StatusCode, Uri, header};
pub use http_body;
pub use serde;
pub use serde_json;
#[cfg(feature = "subscriber")]
pub use trace::HostLog;
#[cfg(feature = "tracing")]
pub use tracing;

// The code on the pages of the guide compiles, and what is asserted there holds.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/guide/first-app.md")]
    mod first_app {}
    #[doc = include_str!("../../docs/guide/databank.md")]
    mod databank {}
    #[doc = include_str!("../../docs/guide/between-workers.md")]
    mod between_workers {}
    #[cfg(all(feature = "testing", feature = "axum"))]
    #[doc = include_str!("../../docs/guide/testing.md")]
    mod testing {}
    #[cfg(feature = "testing")]
    #[doc = include_str!("../../docs/guide/state.md")]
    mod state {}
    #[cfg(feature = "axum")]
    #[doc = include_str!("../../docs/guide/axum.md")]
    mod axum {}
}
