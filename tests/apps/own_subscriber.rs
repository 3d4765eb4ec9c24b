//! An app with a subscriber of its own, or none, as `app.config` says: `set` is `none`, `layers` (a layer that writes to the
//! file `own`, beside the host's log) or `fmt` (what prints with colours).

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;

use app_abi::tracing::field::{Field, Visit};
use app_abi::tracing::{Event, Subscriber, info, info_span};
use app_abi::{App, Body, Host, HostLog, Request, Response, StartError};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

#[derive(app_abi::serde::Deserialize)]
#[serde(crate = "app_abi::serde", deny_unknown_fields)]
struct Config {
    set: String,
    own: PathBuf,
}

/// Writes what each event says.
struct Own(Mutex<File>);

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}\n");
        }
    }
}

impl<S: Subscriber> Layer<S> for Own {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        if let Ok(mut file) = self.0.lock() {
            let _ = file.write_all(message.0.as_bytes());
        }
    }
}

struct Subscribed;

impl App for Subscribed {
    async fn start(host: Host) -> Result<Self, StartError> {
        let config: Config = host.config()?;
        info!("at the beginning of the start");
        tokio::spawn(async { info!("in a task of the start") }).await?;
        match config.set.as_str() {
            "layers" => {
                let file = File::options().create(true).append(true).open(config.own)?;
                tracing_subscriber::registry().with(HostLog).with(Own(Mutex::new(file))).init();
            }
            "fmt" => tracing_subscriber::fmt().with_ansi(true).init(),
            _ => {}
        }
        tokio::task::yield_now().await;
        info!("at the end of the start");
        Ok(Self)
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let span = info_span!("request", path = request.uri().path());
        span.in_scope(|| info!(items = 3, "served"));
        // On a thread of the runtime.
        let span = info_span!("outer");
        let task = tokio::spawn(async move { span.in_scope(|| info!("served by a task")) });
        Response::new(format!("{}\n", task.await.is_ok()).into())
    }
}

app_abi::export_tokio!(Subscribed);
