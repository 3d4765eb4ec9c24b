//! An app that hands HTTP through to the databank, so that a test can ask a driver anything through
//! the real host.
//!
//! Each method of [`app_abi::Databank`] is a path; what it takes is the JSON body of a POST, the
//! keys of [`Ask`]. Documents and values go through as the text that they are. The answer is JSON: 200,
//! or the status of [`fault`] with the kind of error and its text. The header `worker` says who answered.
//!
//! `/read_blocking` waits for its answer without giving its thread back, `/read_elsewhere` does so on a
//! thread of the app's own. `/search` streams a document a line. `/burst` increments or appends many times by itself, `/perform`
//! is for the benchmark and fills the store, `/typed` writes numbers as Rust has them, `/pulled` tells
//! how many documents searches have given this worker, `/whoami` answers JSON.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use app_abi::http_body::Frame;
use app_abi::serde::{Deserialize, Serialize};
use app_abi::serde_json::value::RawValue;
use app_abi::serde_json::{Value, json};
use app_abi::{
    App, Body, Bytes, Databank, DatabankError, Document, Documents, Host, Order, Request, Response, Revision,
    StartError, StatusCode, header,
};
use futures_util::TryStreamExt;
use futures_util::stream::{self, FuturesUnordered};
use http_body_util::StreamBody;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// The longest body of a request: more than any document may be long, so that the host says so.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// What is asked for; each method takes some of it.
#[derive(Default, Deserialize)]
#[serde(crate = "app_abi::serde", default, deny_unknown_fields)]
struct Ask {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    ids: Vec<String>,
    document: Box<RawValue>,
    revision: u64,
    path: String,
    by: i64,
    value: Box<RawValue>,
    equals: Vec<(String, Box<RawValue>)>,
    sort: Vec<(String, String)>,
    skip: u64,
    limit: Option<u64>,
    /// Of `/burst`: who appends. Of `/perform`: `create`, `read`, `search` or `increment`.
    name: String,
    count: u64,
    in_flight: u64,
    bytes: usize,
}

/// What `/perform` writes and reads.
#[derive(Serialize, Deserialize)]
#[serde(crate = "app_abi::serde")]
struct Note {
    author: String,
    number: u64,
    text: String,
}

/// Numbers as Rust has them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(crate = "app_abi::serde")]
struct Numbers {
    least: i64,
    most: i64,
    unsigned: u64,
    tiny: f64,
    huge: f64,
    whole: f64,
    negative_zero: f64,
    absent: Option<f64>,
    text: String,
}

struct Bridge {
    host: Host,
    databank: Databank,
}

/// How many documents searches have given this worker.
static PULLED: AtomicU64 = AtomicU64::new(0);

impl App for Bridge {
    async fn start(host: Host) -> Result<Self, StartError> {
        Ok(Self { databank: host.databank(), host })
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let ask = match head.uri.path() {
            "/whoami" => return self.answer(StatusCode::OK, &self.whoami()),
            "/pulled" => return self.answer(StatusCode::OK, &json!({ "pulled": PULLED.load(Ordering::Relaxed) })),
            _ => match body.json::<Ask>(MAX_BODY).await {
                Ok(ask) => ask,
                Err(error) => {
                    return self.answer(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": error.to_string() }));
                }
            },
        };
        let outcome = match head.uri.path() {
            "/search" => match self.search(ask).await {
                Ok(body) => return self.with_body(StatusCode::OK, body),
                Err(error) => Err(error),
            },
            method => self.perform(method, ask).await,
        };
        match outcome {
            Ok(Some(answer)) => self.answer(StatusCode::OK, &answer),
            Ok(None) => self.answer(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": "there is no such method" })),
            Err(error) => {
                let (status, kind) = fault(&error);
                self.answer(status, &json!({ "error": kind, "text": error.to_string() }))
            }
        }
    }
}

/// What a client is told of an error of the databank.
fn fault(error: &DatabankError) -> (StatusCode, &'static str) {
    match error {
        DatabankError::NotFound(_) => (StatusCode::NOT_FOUND, "not found"),
        DatabankError::AlreadyExists(_) => (StatusCode::CONFLICT, "already exists"),
        DatabankError::Conflict(_) => (StatusCode::PRECONDITION_FAILED, "conflict"),
        DatabankError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        DatabankError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
    }
}

impl Bridge {
    fn whoami(&self) -> Value {
        json!({ "pid": self.host.worker_pid(), "slot": self.host.slot(), "generation": self.host.generation() })
    }

    fn answer(&self, status: StatusCode, answer: &Value) -> Response<Body> {
        self.with_body(status, answer.to_string().into())
    }

    fn with_body(&self, status: StatusCode, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert("worker", self.host.worker_pid().into());
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response
    }

    /// `None` when there is no such method.
    async fn perform(&self, method: &str, ask: Ask) -> Result<Option<Value>, DatabankError> {
        let databank = &self.databank;
        let (kind, id) = (ask.kind.as_str(), ask.id.as_str());
        Ok(Some(match method {
            "/create" => written(databank.create(kind, id, &ask.document).await?),
            "/update" => written(databank.update(kind, id, &ask.document).await?),
            "/save" => written(databank.save(kind, id, &ask.document).await?),
            "/compare" => {
                let was = Revision::from_number(ask.revision);
                written(databank.compare_and_save(kind, id, was, &ask.document).await?)
            }
            "/read" => shown(&databank.read(kind, id).await?),
            "/remove" => {
                databank.remove(kind, id).await?;
                json!({})
            }
            "/increment" => json!({ "sum": databank.increment(kind, id, &ask.path, ask.by).await? }),
            "/append" => written(databank.append(kind, id, &ask.path, &ask.value).await?),
            "/read_many" => {
                let ids: Vec<&str> = ask.ids.iter().map(String::as_str).collect();
                let documents = databank.read_many(kind, &ids).await?;
                json!({ "documents": documents.iter().map(shown).collect::<Vec<_>>() })
            }
            "/burst" => self.burst(&ask).await?,
            "/typed" => self.typed(&ask).await?,
            "/perform" => self.measured(&ask).await?,
            "/read_blocking" => shown(&read_blocking(*databank, kind, id)?),
            "/read_elsewhere" => {
                let (databank, kind, id) = (*databank, kind.to_owned(), id.to_owned());
                let (answer, read) = tokio::sync::oneshot::channel();
                std::thread::spawn(move || answer.send(read_blocking(databank, &kind, &id)));
                shown(&read.await.map_err(|_| DatabankError::Invalid("the thread has panicked".to_owned()))??)
            }
            _ => return Ok(None),
        }))
    }

    /// A line a document. What goes wrong with the first one is an error, later ones are lines.
    async fn search(&self, ask: Ask) -> Result<Body, DatabankError> {
        let mut search = self.databank.search(&ask.kind).skip(ask.skip);
        for (path, value) in ask.equals {
            search = search.equals(&path, value);
        }
        for (path, order) in &ask.sort {
            search = search.sort(path, if order == "descending" { Order::Descending } else { Order::Ascending });
        }
        if let Some(limit) = ask.limit {
            search = search.limit(limit);
        }
        let mut documents: Documents<Box<RawValue>> = search.run();
        let first = match documents.next().await {
            None => return Ok(Body::empty()),
            Some(first) => line(Ok(first?)),
        };
        let lines = stream::unfold((Some(first), documents), |(first, mut documents)| async {
            let next = match first {
                Some(first) => first,
                None => line(documents.next().await?),
            };
            Some((Ok::<_, Infallible>(Frame::data(next)), (None, documents)))
        });
        Ok(Body::stream(StreamBody::new(lines)))
    }

    /// Increments by 1 at `path`, or appends `[name, 0]`, `[name, 1]` … if there is a name.
    async fn burst(&self, ask: &Ask) -> Result<Value, DatabankError> {
        let mut sums = Vec::new();
        for number in 0..ask.count {
            if ask.name.is_empty() {
                sums.push(self.databank.increment(&ask.kind, &ask.id, &ask.path, 1).await?);
            } else {
                self.databank.append(&ask.kind, &ask.id, &ask.path, &json!([ask.name, number])).await?;
            }
        }
        Ok(json!({ "sums": sums }))
    }

    /// Writes numbers of Rust's types and reads them back as these types, and as any JSON.
    async fn typed(&self, ask: &Ask) -> Result<Value, DatabankError> {
        let numbers = Numbers {
            least: i64::MIN,
            most: i64::MAX,
            unsigned: i64::MAX.unsigned_abs(),
            tiny: f64::from_bits(1),
            huge: f64::MAX,
            whole: 1.0,
            negative_zero: -0.0,
            absent: None,
            text: "\u{1F9ED} text".to_owned(),
        };
        self.databank.create(&ask.kind, &ask.id, &numbers).await?;
        let read: Document<Numbers> = self.databank.read(&ask.kind, &ask.id).await?;
        let same = read.value == numbers && read.value.negative_zero.is_sign_negative();
        let any: Document<Value> = self.databank.read(&ask.kind, &ask.id).await?;
        // A document that isn't of the app's type is an error that names it.
        let other: Result<Document<Note>, _> = self.databank.read(&ask.kind, &ask.id).await;
        let other = other.err().map(|error| (fault(&error).1, error.to_string()));
        // What is no JSON object never gets to the host's driver.
        let too_large = self.databank.save(&ask.kind, &ask.id, &json!({ "unsigned": u64::MAX })).await;
        let too_large = too_large.err().map(|error| fault(&error).1);
        Ok(json!({ "same": same, "any": any.value, "other": other, "too_large": too_large }))
    }

    /// Does `count` operations, `in_flight` at once, and says how long that took.
    async fn measured(&self, ask: &Ask) -> Result<Value, DatabankError> {
        let (in_flight, count) = (ask.in_flight.max(1), ask.count);
        let (began, before) = (Instant::now(), cpu_time());
        let strands = (0..in_flight).map(|strand| async move {
            let mut number = strand;
            while number < count {
                self.operation(ask, number).await?;
                number += in_flight;
            }
            Ok::<_, DatabankError>(())
        });
        // Each is polled when it is woken itself, like a handler that a connection waits for.
        strands.collect::<FuturesUnordered<_>>().try_collect::<()>().await?;
        let (elapsed, cpu) = (began.elapsed(), cpu_time().saturating_sub(before));
        Ok(json!({ "elapsed_ns": nanos(elapsed), "cpu_ns": nanos(cpu) }))
    }

    /// One operation of the benchmark; `bench/databank.rs` has its like without the host.
    async fn operation(&self, ask: &Ask, number: u64) -> Result<(), DatabankError> {
        let databank = &self.databank;
        let id = format!("{}{number:08}", ask.id);
        match ask.name.as_str() {
            "create" => {
                let note = Note { author: format!("author-{}", number % 100), number, text: "x".repeat(ask.bytes) };
                databank.create(&ask.kind, &id, &note).await?;
            }
            "read" => {
                let read: Document<Note> = databank.read(&ask.kind, &id).await?;
                if read.value.number != number {
                    return Err(DatabankError::Invalid(format!("{id} is another document")));
                }
            }
            "search" => {
                let author = format!("author-{}", number % 100);
                databank.search(&ask.kind).equals("author", author).limit(10).run::<Note>().collect().await?;
            }
            "increment" => {
                databank.increment(&ask.kind, "counter", "total", 1).await?;
            }
            other => return Err(DatabankError::Invalid(format!("unknown operation {other}"))),
        }
        Ok(())
    }
}

/// Lets no one else use this thread until the answer is there.
fn read_blocking(databank: Databank, kind: &str, id: &str) -> Result<Document<Box<RawValue>>, DatabankError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| DatabankError::Invalid(error.to_string()))?;
    runtime.block_on(databank.read(kind, id))
}

fn written(revision: Revision) -> Value {
    json!({ "revision": revision.get() })
}

/// The text of a document as it came is what tells whether its numbers are those that were written.
fn shown(document: &Document<Box<RawValue>>) -> Value {
    json!({ "id": document.id, "revision": document.revision.get(), "text": document.value.get() })
}

fn line(next: Result<Document<Box<RawValue>>, DatabankError>) -> Bytes {
    let line = match next {
        Ok(document) => {
            PULLED.fetch_add(1, Ordering::Relaxed);
            shown(&document)
        }
        Err(error) => json!({ "error": fault(&error).1, "text": error.to_string() }),
    };
    format!("{line}\n").into()
}

/// The CPU time of the whole process so far.
fn cpu_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

app_abi::export_app!(Bridge);
