//! A Router with a job that every worker begins and that must run once in the whole service. The job takes a lock of the
//! kernel's as well, which tells if it ever ran twice at once.
//!
//! `app.config`: `file`, which it locks; `slow_ms`, for how long it goes on when its worker drains.

use std::fs::File;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use app_abi::{Host, Level, serde_json};
use axum::{Router, routing::get};
use tokio::task::JoinHandle;

/// What the last moment waits for.
static JOB: Mutex<Option<JoinHandle<()>>> = Mutex::new(None);

async fn finish() {
    let job = JOB.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(job) = job {
        let _ = job.await;
    }
}

fn router(host: Host) -> Router {
    let config: serde_json::Value = host.config().unwrap_or_default();
    let worker = tokio::spawn(async move {
        while let Ok(_only_one) = host.only_one("job").await {
            job(host, &config).await;
        }
        host.log(Level::Info, "no job any more");
    });
    *JOB.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker);
    Router::new().route(
        "/whoami",
        get(move || async move {
            serde_json::json!({ "pid": host.worker_pid(), "slot": host.slot(), "generation": host.generation() })
                .to_string()
        }),
    )
}

async fn job(host: Host, config: &serde_json::Value) {
    let file = config["file"].as_str().and_then(|path| File::options().create(true).append(true).open(path).ok());
    if file.as_ref().is_none_or(|file| file.try_lock().is_err()) {
        host.log(Level::Error, "the job runs twice");
        return;
    }
    let slot = host.slot().to_string();
    host.log_with(Level::Info, "job begins", &[("slot", &slot), ("generation", &host.generation().to_string())]);
    host.draining().await;
    tokio::time::sleep(Duration::from_millis(config["slow_ms"].as_u64().unwrap_or(0))).await;
    host.log_with(Level::Info, "job ends", &[("slot", &slot)]);
}

app_abi::export_axum!(router, stop = finish);
