//! The tutorial app: a greeting, some facts about the worker, and an echo.
//!
//! Change `GREETING`, build with `cargo build --release -p example-app`, send the master SIGUSR2,
//! and the new greeting is served without a single request being lost.

use app_abi::{
    App, Body, Bytes, ConnectionInfo, Host, Level, Method, Request, RequestExt, Response, StartError, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
    serde_json::json,
};

/// What `GET /` answers. Edit me.
const GREETING: &str = "Hello from app-host";

/// What may stand under `app.config` in the host's configuration file.
#[derive(app_abi::serde::Deserialize)]
#[serde(crate = "app_abi::serde", deny_unknown_fields, default)]
struct Config {
    /// Who is greeted.
    name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { name: "world".to_owned() }
    }
}

struct Example {
    host: Host,
    /// Made once: it is the same for every request.
    greeting: Bytes,
}

impl App for Example {
    async fn start(host: Host) -> Result<Self, StartError> {
        let Config { name } = host.config()?;
        let (slot, generation, pid) = (host.slot(), host.generation(), host.worker_pid());
        let greeting = format!("{GREETING}, {name}! (slot {slot}, generation {generation}, pid {pid})\n");
        host.log_with(Level::Info, "example app started", &[("name", &name)]);
        Ok(Self { host, greeting: greeting.into() })
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/") => typed("text/plain; charset=utf-8", self.greeting.clone()),
            (&Method::GET, "/whoami") => self.whoami(request.connection()),
            // The body goes back as it comes in: however long it is, little of it is in memory.
            (&Method::POST, "/echo") => Response::new(request.into_body()),
            _ => {
                let mut response = typed("text/plain; charset=utf-8", "not found\n");
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }
}

impl Example {
    fn whoami(&self, connection: Option<ConnectionInfo>) -> Response<Body> {
        let answer = json!({
            "slot": self.host.slot(),
            "generation": self.host.generation(),
            "pid": self.host.worker_pid(),
            "listener": connection.map(|connection| connection.listener),
            "scheme": connection.map(|connection| connection.scheme),
        });
        typed("application/json", format!("{answer}\n"))
    }
}

/// An answer of this type.
fn typed(content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

app_abi::export_app!(Example);
