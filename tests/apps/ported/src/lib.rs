//! A small axum service that was a `main.rs` and is an app for app-host now. `docs/guide/bringing-an-app.md` tells what
//! was changed and why; `src/main.rs` serves it without app-host, from the same code.

use std::error::Error;
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use app_abi::serde::Deserialize;
use app_abi::{Databank, Host};
use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::{Router, routing::get};
use axum_extra::extract::cookie::{Cookie, Key, SignedCookieJar};
use tokio::task::JoinHandle;

/// What the handlers share.
#[derive(Clone)]
pub struct Shared {
    /// Counts who comes.
    pub visits: Visits,
    /// Signs cookies.
    pub key: Key,
}

impl FromRef<Shared> for Key {
    fn from_ref(shared: &Shared) -> Self {
        shared.key.clone()
    }
}

/// How often somebody came.
#[derive(Clone)]
pub enum Visits {
    /// In this process, which is the only one.
    Alone(Arc<AtomicI64>),
    /// In the store that all workers of all generations share.
    Stored(Databank),
}

impl Visits {
    async fn add(&self, more: i64) -> Result<i64, StatusCode> {
        match self {
            Self::Alone(count) => Ok(count.fetch_add(more, Ordering::Relaxed) + more),
            Self::Stored(databank) => {
                let stored = databank.increment("counter", "visits", "count", more).await;
                stored.map_err(|error| {
                    tracing::warn!(%error, "visits can't be counted");
                    StatusCode::SERVICE_UNAVAILABLE
                })
            }
        }
    }
}

/// The routes, whoever serves them.
pub fn routes(shared: Shared) -> Router {
    Router::new().route("/", get(visit)).route("/login/{name}", get(login)).route("/me", get(me)).with_state(shared)
}

async fn visit(State(shared): State<Shared>) -> Result<String, StatusCode> {
    Ok(format!("{} visits\n", shared.visits.add(1).await?))
}

async fn login(Path(name): Path<String>, jar: SignedCookieJar) -> (SignedCookieJar, &'static str) {
    (jar.add(Cookie::build(("name", name)).path("/").http_only(true)), "hello\n")
}

async fn me(jar: SignedCookieJar) -> Result<String, StatusCode> {
    jar.get("name").map(|cookie| format!("{}\n", cookie.value())).ok_or(StatusCode::UNAUTHORIZED)
}

/// The job: reports every so often, until `end`.
pub async fn report(visits: Visits, end: impl Future<Output = ()>) {
    tracing::info!("reporting");
    let mut end = std::pin::pin!(end);
    let mut pause = tokio::time::interval(Duration::from_mins(1));
    loop {
        tokio::select! {
            () = &mut end => return tracing::info!("reporting ends"),
            _ = pause.tick() => {
                if let Ok(count) = visits.add(0).await {
                    tracing::info!(count, "visits so far");
                }
            }
        }
    }
}

/// `app.config`.
#[derive(Deserialize)]
#[serde(crate = "app_abi::serde", deny_unknown_fields)]
struct Config {
    /// At least 64 bytes, the same for all workers; in a file: `{"file": "cookie.key"}`.
    cookie_key: String,
}

/// What the end waits for.
static REPORT: Mutex<Option<JoinHandle<()>>> = Mutex::new(None);

/// The app, made by each worker in its start.
fn router(host: Host) -> Result<Router, Box<dyn Error>> {
    let config: Config = host.config()?;
    let key = Key::try_from(config.cookie_key.as_bytes())?;
    let visits = Visits::Stored(host.databank());
    let counted = visits.clone();
    let job = tokio::spawn(async move {
        if let Ok(_only_one) = host.only_one("report").await {
            report(counted, host.draining()).await;
        }
    });
    *REPORT.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
    Ok(routes(Shared { visits, key }))
}

/// The last moment.
async fn finish() {
    let job = REPORT.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(job) = job {
        // One that panicked has told so.
        let _ = job.await;
    }
}

app_abi::export_axum!(router, stop = finish);
