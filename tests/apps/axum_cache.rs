//! A cache in memory that is handed on from worker to worker.
//!
//! `app.config` has `format`, which the app writes and the only one that it reads; `fail_in`, a slot whose start fails;
//! `leave` and `inherit`, each of which may `fail`, `panic`, `abort`, `wait` for ever, `block` a thread for a minute, or
//! `wait and block`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, OnceLock};
use std::time::Duration;

use app_abi::{BoxError, Host, KeepsState, LeftState, Level, StateWriter, serde, serde_json};
use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};

#[derive(Debug, Default, serde::Deserialize)]
#[serde(crate = "app_abi::serde", default)]
struct Config {
    format: u32,
    fail_in: Option<u16>,
    leave: String,
    inherit: String,
}

#[derive(Default)]
struct Cache {
    config: OnceLock<(Host, Config)>,
    entries: Mutex<HashMap<String, String>>,
    hits: AtomicU64,
    misses: AtomicU64,
    inherited: Mutex<Option<String>>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(crate = "app_abi::serde")]
struct Left {
    format: u32,
    entries: HashMap<String, String>,
}

static CACHE: LazyLock<Cache> = LazyLock::new(Cache::default);

fn cache() -> &'static Cache {
    &CACHE
}

#[expect(clippy::disallowed_methods, reason = "a blocking call is what is tried")]
fn block() {
    std::thread::sleep(Duration::from_mins(1));
}

async fn go_wrong(host: Host, how: &str) -> Result<(), BoxError> {
    if !how.is_empty() {
        host.log(Level::Info, "it goes wrong");
    }
    match how {
        "fail" => return Err("the secret key says no".into()),
        "panic" => panic!("it panics"),
        "wait" => std::future::pending::<()>().await,
        "block" => block(),
        // After it has had to wait once, as whoever waits for a lock.
        "wait and block" => {
            tokio::time::sleep(Duration::from_millis(5)).await;
            block();
        }
        "abort" => std::process::abort(),
        _ => {}
    }
    Ok(())
}

impl Cache {
    fn config(&self) -> &Config {
        &self.config.get().expect("the app has started").1
    }

    fn host(&self) -> Host {
        self.config.get().expect("the app has started").0
    }

    fn value(&self, key: &str) -> &'static str {
        let mut entries = self.entries.lock().unwrap();
        if entries.contains_key(key) {
            self.hits.fetch_add(1, Relaxed);
            return "hit";
        }
        // What takes long to find out.
        entries.insert(key.to_owned(), key.repeat(4096 / key.len().max(1)));
        self.misses.fetch_add(1, Relaxed);
        "miss"
    }
}

impl KeepsState for Cache {
    async fn leave(&self, state: &mut StateWriter) -> Result<(), BoxError> {
        go_wrong(self.host(), &self.config().leave).await?;
        let entries = self.entries.lock().unwrap();
        if !entries.is_empty() {
            let left = Left { format: self.config().format, entries: entries.clone() };
            serde_json::to_writer(state, &left)?;
        }
        Ok(())
    }

    async fn inherit(&self, state: LeftState) -> Result<(), BoxError> {
        go_wrong(self.host(), &self.config().inherit).await?;
        let left: Left = serde_json::from_slice(state.bytes())?;
        if left.format != self.config().format {
            return Err(format!("it has format {}, and only {} is read", left.format, self.config().format).into());
        }
        *self.inherited.lock().unwrap() = Some(format!("{} of {}", state.version(), state.generation()));
        let mut entries = self.entries.lock().unwrap();
        for (key, value) in left.entries {
            entries.entry(key).or_insert(value);
        }
        Ok(())
    }
}

async fn router(host: Host) -> Result<Router, BoxError> {
    let config: Config = host.config()?;
    if config.fail_in == Some(host.slot()) {
        // Not before others have been replaced.
        tokio::time::sleep(Duration::from_secs(1)).await;
        return Err("this slot has no luck".into());
    }
    cache().config.set((host, config)).map_err(|_| "made twice")?;
    let seen = move || async move {
        Json(serde_json::json!({
            "slot": host.slot(),
            "generation": host.generation(),
            "entries": cache().entries.lock().unwrap().len(),
            "hits": cache().hits.load(Relaxed),
            "misses": cache().misses.load(Relaxed),
            "inherited": *cache().inherited.lock().unwrap(),
        }))
    };
    let value = async |Path(key): Path<String>| Ok::<_, Infallible>(cache().value(&key));
    let sleep = async || {
        tokio::time::sleep(Duration::from_millis(5)).await;
        "slept"
    };
    let fill = async |Path(count): Path<u32>| {
        for number in 0..count {
            cache().value(&format!("key{number:05}"));
        }
        "filled"
    };
    let whoami = move || async move { Json(serde_json::json!({ "pid": host.worker_pid() })) };
    Ok(Router::new()
        .route("/", get(seen))
        .route("/whoami", get(whoami))
        .route("/sleep", get(sleep))
        .route("/value/{key}", get(value))
        .route("/fill/{count}", get(fill)))
}

app_abi::export_axum!(router, state = cache);
