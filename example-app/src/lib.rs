//! The tutorial app: a guestbook. What an app needs of its host is all in it:
//! - configuration, log, routes and a JSON API: here;
//! - documents that outlive every worker, and a stream of them: `guestbook.rs`;
//! - a page for people, with JavaScript or without: `page.rs`;
//! - what one worker receives, shown at once by the others, over restarts: `live.rs`;
//! - what goes wrong, and the status that it becomes: `refusal.rs`.
//!
//! Change `GREETING`, build with `cargo build --release -p example-app`, send the master SIGUSR2,
//! and the new greeting is served without a single request being lost.

mod guestbook;
mod live;
mod page;
mod pieces;
mod refusal;

use app_abi::{
    App, Body, Bytes, ConnectionInfo, DatabankError, Document, HeaderMap, Host, Level, Method, Request, RequestExt,
    Response, Revision, StartError, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, LOCATION,
        X_CONTENT_TYPE_OPTIONS,
    },
    resumable,
    serde_json::{Value, json},
};
use guestbook::{Draft, Entry, Guestbook};
use refusal::Refusal;

/// The heading of the page, and what `GET /hello` begins with. Edit me.
const GREETING: &str = "Hello from app-host";

/// How many bytes of a body are taken into memory: the longest entry fits, however it is escaped.
const LONGEST_BODY: usize = 32 * 1024;

/// How many entries are shown, and how many the API gives at once at the most.
const NEWEST: usize = 20;
const MOST: usize = 1000;

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
    guestbook: Guestbook,
    greeting: String,
    /// Made once: it is the same for every request.
    hello: Bytes,
}

type Answer = Result<Response<Body>, Refusal>;

impl App for Example {
    async fn start(host: Host) -> Result<Self, StartError> {
        let Config { name } = host.config()?;
        host.log_with(Level::Info, "example app started", &[("name", &name)]);
        let greeting = format!("{GREETING}, {name}!");
        let (slot, generation, pid) = (host.slot(), host.generation(), host.worker_pid());
        let hello = format!("{greeting} (slot {slot}, generation {generation}, pid {pid})\n").into();
        Ok(Self { host, guestbook: Guestbook::new(host.databank()), greeting, hello })
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let method = match request.method() {
            // What is answered to HEAD is what GET gets; the host leaves out the body.
            &Method::HEAD => &Method::GET,
            method => method,
        };
        let answer = match (method, request.uri().path()) {
            (&Method::GET, "/hello") => Ok(typed("text/plain; charset=utf-8", self.hello.clone())),
            (&Method::GET, "/whoami") => Ok(self.whoami(request.connection())),
            (&Method::POST, "/echo") => Ok(echo(request.into_body())),
            (&Method::GET, "/") => return self.page(self.guestbook.count_visit(), &Draft::default(), None).await,
            (&Method::POST, "/") => return self.sign(request.into_body()).await,
            (&Method::GET, "/page.css") => Ok(typed("text/css; charset=utf-8", page::STYLE)),
            (&Method::GET, "/page.js") => Ok(typed("text/javascript; charset=utf-8", page::SCRIPT)),
            (&Method::GET, "/live") => self.live().await,
            (&Method::GET, "/api/visits") => self.visits().await,
            (&Method::GET, "/api/export") => Ok(typed("application/x-ndjson", self.guestbook.export())),
            (&Method::GET, "/api/entries") => self.list(request.uri().query().unwrap_or_default()).await,
            (&Method::POST, "/api/entries") => self.create(request.into_body()).await,
            (method, path) => match (method, path.strip_prefix("/api/entries/")) {
                (&Method::GET, Some(id)) => self.read(id).await,
                (&Method::PUT, Some(id)) => self.replace(id.to_owned(), request).await,
                (&Method::DELETE, Some(id)) => self.remove(id).await,
                _ => Err(Refusal::of_path(path)),
            },
        };
        answer.unwrap_or_else(|refusal| self.refused(&refusal))
    }
}

/// The JSON API.
impl Example {
    fn whoami(&self, connection: Option<ConnectionInfo>) -> Response<Body> {
        json_answer(&json!({
            "slot": self.host.slot(),
            "generation": self.host.generation(),
            "pid": self.host.worker_pid(),
            "listener": connection.map(|connection| connection.listener),
            "scheme": connection.map(|connection| connection.scheme),
        }))
    }

    async fn visits(&self) -> Answer {
        Ok(json_answer(&json!({ "visits": self.guestbook.visits().await? })))
    }

    /// The entries as they come, for as long as the client stays, whichever worker has them.
    async fn live(&self) -> Answer {
        let events = live::events(&self.host, self.guestbook, NEWEST).await?;
        Ok(resumable(with(typed("text/event-stream", events), CACHE_CONTROL, "no-store")))
    }

    async fn list(&self, query: &str) -> Answer {
        let (mut limit, mut after) = (NEWEST, None);
        for (name, value) in page::fields(query.as_bytes()) {
            match name.as_str() {
                "limit" => {
                    let number = value.parse().ok().filter(|number| (1..=MOST).contains(number));
                    limit = number.ok_or_else(|| Refusal::Invalid(format!("limit must be 1 to {MOST}")))?;
                }
                "after" => after = Some(value),
                _ => return Err(Refusal::Invalid(format!("there is no parameter {name}"))),
            }
        }
        let entries = self.guestbook.newest(limit, after.as_deref()).await?;
        // Whoever got as many as there may be asks for those after the last one.
        let next = entries.last().filter(|_| entries.len() == limit).map(|last| &last.id);
        let entries: Vec<_> = entries.iter().map(guestbook::to_json).collect();
        Ok(json_answer(&json!({ "entries": entries, "next": next })))
    }

    async fn create(&self, body: Body) -> Answer {
        let entry = self.guestbook.add(&body.json(LONGEST_BODY).await?).await?;
        live::publish(&self.host, &entry);
        let answer = with(entry_answer(&entry), LOCATION, &format!("/api/entries/{}", entry.id));
        Ok(with_status(answer, StatusCode::CREATED))
    }

    async fn read(&self, id: &str) -> Answer {
        Ok(entry_answer(&self.guestbook.read(id).await?))
    }

    async fn replace(&self, id: String, request: Request<Body>) -> Answer {
        let was = revision(request.headers())?;
        let draft: Draft = request.into_body().json(LONGEST_BODY).await?;
        Ok(entry_answer(&self.guestbook.replace(id, was, &draft).await?))
    }

    async fn remove(&self, id: &str) -> Answer {
        self.guestbook.remove(id).await?;
        Ok(with_status(Response::default(), StatusCode::NO_CONTENT))
    }

    fn refused(&self, refusal: &Refusal) -> Response<Body> {
        refusal.apply(json_answer(&json!({ "error": self.explain(refusal) })))
    }
}

/// The page.
impl Example {
    async fn sign(&self, body: Body) -> Response<Body> {
        let mut draft = Draft::default();
        let signed = async {
            for (name, value) in page::fields(&body.bytes(LONGEST_BODY).await?) {
                match name.as_str() {
                    "name" => draft.name = value,
                    "text" => draft.text = value,
                    _ => {}
                }
            }
            self.guestbook.add(&draft).await
        };
        match signed.await {
            // Whoever reloads the page that comes now doesn't sign again.
            Ok(entry) => {
                live::publish(&self.host, &entry);
                with_status(with(Response::default(), LOCATION, "/"), StatusCode::SEE_OTHER)
            }
            Err(refusal) => self.page(self.guestbook.visits(), &draft, Some(refusal)).await,
        }
    }

    /// The page; after a refusal with what was wrong, and with the draft in its form.
    async fn page(
        &self,
        visits: impl Future<Output = Result<i64, DatabankError>> + Send,
        draft: &Draft,
        refusal: Option<Refusal>,
    ) -> Response<Body> {
        let read = async { Ok((Some(visits.await?), self.guestbook.newest(NEWEST, None).await?)) };
        let (visits, entries, refusal) = match read.await {
            Ok((visits, entries)) => (visits, entries, refusal),
            Err(error) => (None, Vec::new(), Some(Refusal::Databank(error))),
        };
        let problem = refusal.as_ref().map(|refusal| self.explain(refusal));
        let html = page::html(&self.host, &self.greeting, visits, &entries, draft, problem.as_deref());
        let answer = typed("text/html; charset=utf-8", html);
        let answer = with(with(answer, CONTENT_SECURITY_POLICY, page::POLICY), CACHE_CONTROL, "no-store");
        match refusal {
            Some(refusal) => refusal.apply(answer),
            None => answer,
        }
    }

    /// What the client is told of a refusal. What it isn't told goes to the log.
    fn explain(&self, refusal: &Refusal) -> String {
        if let Refusal::Databank(DatabankError::Unavailable(cause)) = refusal {
            self.host.log_with(Level::Warn, "the databank is away", &[("cause", cause)]);
        }
        refusal.text()
    }
}

/// The revision that a change is to replace (RFC 9110, section 13.1.1), with quotes or without.
fn revision(headers: &HeaderMap) -> Result<Revision, Refusal> {
    let tag = headers.get(IF_MATCH).ok_or(Refusal::NoRevision)?;
    let number = tag.to_str().ok().and_then(|tag| tag.trim_matches('"').parse().ok());
    let unknown = || DatabankError::Conflict("If-Match is no revision of this entry".to_owned());
    Ok(Revision::from_number(number.ok_or_else(unknown)?))
}

fn entry_answer(entry: &Document<Entry>) -> Response<Body> {
    with(json_answer(&guestbook::to_json(entry)), ETAG, &format!("\"{}\"", entry.revision.get()))
}

fn json_answer(value: &Value) -> Response<Body> {
    typed("application/json", format!("{value}\n"))
}

/// The body goes back as it comes in: however long it is, little of it is in memory. No browser may
/// take what somebody sent for a page of ours.
fn echo(body: Body) -> Response<Body> {
    with(typed("application/octet-stream", body), X_CONTENT_TYPE_OPTIONS, "nosniff")
}

fn typed(content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn with(mut response: Response<Body>, name: HeaderName, value: &str) -> Response<Body> {
    let value = HeaderValue::from_str(value).expect("the app's own values are plain text");
    response.headers_mut().insert(name, value);
    response
}

fn with_status(mut response: Response<Body>, status: StatusCode) -> Response<Body> {
    *response.status_mut() = status;
    response
}

app_abi::export_app!(Example);

#[cfg(test)]
mod tests;
