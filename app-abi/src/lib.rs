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
//! The crate owns the contract and both translations on the app's side of it: [`abi`] is the frozen
//! line, [`manifest`] and [`Magic`] are what a library says about itself without being run. It knows
//! neither the host nor any runtime. What an app needs is exported here at the root; the modules are
//! for the host.

pub mod abi;
mod app;
pub mod arena;
mod body;
mod chunk;
mod databank;
#[doc(hidden)]
pub mod export;
mod host;
mod magic;
pub mod manifest;
mod panics;
mod request;
mod runtime;
#[cfg(feature = "tower")]
mod seam;
#[doc(hidden)]
pub mod stream;
#[cfg(feature = "tower")]
#[doc(hidden)]
pub mod tower;
pub mod upgrade;

pub use app::{App, StartError};
pub use body::{Body, BodyError};
pub use databank::{Databank, DatabankError, Document, Documents, Order, Revision, Search};
pub use host::{ConfigError, Host, Level};
pub use magic::{ABI, ABI_MINOR, Magic, magic};
pub use request::{Address, ConnectionInfo, RequestExt};

pub use bytes::{self, Bytes};
pub use http::{self, HeaderMap, Method, Request, Response, StatusCode, Uri, header};
pub use http_body;
pub use serde;
pub use serde_json;
