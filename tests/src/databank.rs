//! The client's side of `apps/databank.rs`: every method of the databank, asked for over HTTP.
//!
//! Owns the shape of a question and of an answer, and [`Driver`], the stores that a promise of the
//! databank is held to. What a driver must do is the suites' business.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::build::App;
use crate::client::{Connection, request};
use crate::host::Host;
use crate::machine;
use crate::mongo::Mongo;

/// A store to run the host on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The embedded one.
    Sqlite,
    /// A worker's own.
    Memory,
    /// A real server, alone.
    MongodbStandalone,
    /// A real server that is a replica set of one.
    MongodbReplicaSet,
}

impl Driver {
    /// The section `databank` for it. With MongoDB, the server is the one that this process shares,
    /// and the database a new one.
    pub fn section(self) -> Value {
        match self {
            Self::Sqlite => json!({ "driver": "sqlite" }),
            Self::Memory => json!({ "driver": "memory" }),
            Self::MongodbStandalone => Mongo::shared_standalone().section(),
            Self::MongodbReplicaSet => Mongo::shared_replica_set().section(),
        }
    }

    /// How many workers can share it in a test.
    pub const fn workers(self) -> u64 {
        match self {
            Self::Memory => 1,
            Self::Sqlite | Self::MongodbStandalone | Self::MongodbReplicaSet => 4,
        }
    }

    /// A host with the bridge app on a store of its own.
    pub fn host(self) -> Host {
        let mut host = Host::new(&App::build().app("databank")).with("/workers", self.workers());
        // More than a store needs that shares two cores with everything else that is tested; how long
        // a call may take is tested on its own.
        let mut section = self.section();
        section["timeout"] = "15s".into();
        host.set("/databank", section);
        host.start()
    }

    /// The host that all tests of this process share which run at the same time.
    pub fn shared_host(self) -> Shared {
        static HOSTS: Mutex<[Weak<Host>; 4]> = Mutex::new([const { Weak::new() }; 4]);
        // Before the lock: whoever waits for it may have one.
        let _turn = machine::beside();
        let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut hosts[self as usize];
        let host = place.upgrade().unwrap_or_else(|| {
            let host = Arc::new(self.host());
            *place = Arc::downgrade(&host);
            host
        });
        Shared(host)
    }
}

/// A host that several tests use: the failure of one shows where its log is.
#[derive(Debug)]
pub struct Shared(Arc<Host>);

impl std::ops::Deref for Shared {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.report());
        }
    }
}

/// What a method answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The body, as JSON.
    pub body: Value,
    /// The worker that answered.
    pub worker: u32,
}

impl Answer {
    /// Reads the last answer of a connection.
    pub fn of(status: u16, connection: &Connection) -> Self {
        Self {
            status,
            body: serde_json::from_slice(connection.body()).unwrap_or(Value::Null),
            worker: connection.header("worker").and_then(|pid| pid.parse().ok()).unwrap_or_default(),
        }
    }

    /// The kind of an error, empty for what was done.
    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }

    /// The text of an error.
    pub fn text(&self) -> &str {
        self.body["text"].as_str().unwrap_or_default()
    }

    /// What must have been done.
    pub fn done(self) -> Value {
        assert_eq!(self.status, 200, "{self}");
        self.body
    }

    /// The revision that a write gave.
    pub fn revision(self) -> u64 {
        let body = self.done();
        body["revision"].as_u64().unwrap_or_else(|| panic!("no revision: {body}"))
    }

    /// The text of the document that was read.
    pub fn document(self) -> String {
        let body = self.done();
        body["text"].as_str().unwrap_or_else(|| panic!("no document: {body}")).to_owned()
    }

    /// The document that was read.
    pub fn value(self) -> Value {
        serde_json::from_str(&self.document()).expect("a document is JSON")
    }

    /// Checks that it failed in this way: `not found`, `already exists`, `conflict`, `unavailable` or
    /// `invalid`. Its text says why.
    #[track_caller]
    pub fn fails_with(&self, kind: &str) -> &str {
        assert_eq!(self.error(), kind, "{self}");
        assert!(!self.text().is_empty(), "{self}");
        self.text()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body.to_string();
        write!(f, "{} of worker {}: {:.600}", self.status, self.worker, body)
    }
}

/// A document as a search found it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Its revision.
    pub revision: u64,
    /// Its text.
    pub text: String,
}

/// One connection to the app, so always to the same worker.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// A client of whichever worker takes the connection.
    pub fn new(host: &Host) -> Self {
        Self { connection: host.connect() }
    }

    /// A client of each worker that serves.
    pub fn of_each_worker(host: &Host) -> BTreeMap<u32, Self> {
        let workers = host.serving();
        let mut clients = BTreeMap::new();
        host.wait("a connection to each worker", || {
            // Opened together they are spread; those to a worker that is known already are closed.
            let fresh: Vec<_> = (0..8).map(|_| Self::new(host)).collect();
            for mut client in fresh {
                clients.insert(client.worker(), client);
            }
            workers.iter().all(|pid| clients.contains_key(pid)).then_some(())
        });
        clients.retain(|pid, _| workers.contains(pid));
        clients
    }

    /// The worker at the other end.
    pub fn worker(&mut self) -> u32 {
        self.get("/whoami").worker
    }

    /// Asks for what needs no body.
    pub fn get(&mut self, path: &str) -> Answer {
        let status = self.connection.get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        Answer::of(status, &self.connection)
    }

    /// Asks with this body, which need not be what [`Value`] could hold.
    pub fn ask_text(&mut self, method: &str, body: &str) -> Answer {
        let status = self
            .connection
            .post(&format!("/{method}"), body.as_bytes())
            .unwrap_or_else(|error| panic!("{method} {body:.200}: {error}"));
        Answer::of(status, &self.connection)
    }

    /// Asks with this body.
    #[expect(clippy::needless_pass_by_value, reason = "the body is made for the call")]
    pub fn ask(&mut self, method: &str, body: Value) -> Answer {
        self.ask_text(method, &body.to_string())
    }

    /// One of `create`, `update` and `save`, with the document's text.
    pub fn write(&mut self, method: &str, kind: &str, id: &str, document: &str) -> Answer {
        self.ask_text(method, &format!(r#"{{"type":{},"id":{},"document":{document}}}"#, json!(kind), json!(id)))
    }

    /// Creates a document from its text.
    pub fn create(&mut self, kind: &str, id: &str, document: &str) -> Answer {
        self.write("create", kind, id, document)
    }

    /// Saves a document from its text.
    pub fn save(&mut self, kind: &str, id: &str, document: &str) -> Answer {
        self.write("save", kind, id, document)
    }

    /// Saves a document if it has this revision.
    pub fn compare(&mut self, kind: &str, id: &str, revision: u64, document: &Value) -> Answer {
        self.ask("compare", json!({ "type": kind, "id": id, "revision": revision, "document": document }))
    }

    /// Reads a document.
    pub fn read(&mut self, kind: &str, id: &str) -> Answer {
        self.ask("read", json!({ "type": kind, "id": id }))
    }

    /// Removes a document.
    pub fn remove(&mut self, kind: &str, id: &str) -> Answer {
        self.ask("remove", json!({ "type": kind, "id": id }))
    }

    /// Adds to a number.
    pub fn increment(&mut self, kind: &str, id: &str, path: &str, by: i64) -> Answer {
        self.ask("increment", json!({ "type": kind, "id": id, "path": path, "by": by }))
    }

    /// Appends a value, given as its text.
    pub fn append(&mut self, kind: &str, id: &str, path: &str, value: &str) -> Answer {
        let (kind, id, path) = (json!(kind), json!(id), json!(path));
        self.ask_text("append", &format!(r#"{{"type":{kind},"id":{id},"path":{path},"value":{value}}}"#))
    }

    /// Reads several documents.
    pub fn read_many(&mut self, kind: &str, ids: &[String]) -> Answer {
        self.ask("read_many", json!({ "type": kind, "ids": ids }))
    }

    /// Searches among the documents of a type; `rest` has the other keys of the question. Any error
    /// is the answer.
    pub fn try_search(&mut self, kind: &str, rest: &str) -> Result<Vec<Found>, Answer> {
        let rest = if rest.is_empty() { String::new() } else { format!(",{rest}") };
        let answer = self.ask_text("search", &format!(r#"{{"type":{}{rest}}}"#, json!(kind)));
        if answer.status != 200 {
            return Err(answer);
        }
        let text = self.connection.text();
        text.lines().map(|line| found(line).map_err(|body| Answer { body, ..answer.clone() })).collect()
    }

    /// As [`Self::try_search`], and must succeed; gives the ids.
    #[track_caller]
    pub fn search(&mut self, kind: &str, rest: &str) -> Vec<String> {
        match self.try_search(kind, rest) {
            Ok(found) => found.into_iter().map(|document| document.id).collect(),
            Err(answer) => panic!("search {rest}: {answer}"),
        }
    }

    /// Asks for a search and reads nothing of its answer yet.
    pub fn begin_search(mut self, body: &str) -> Connection {
        let request = request("POST", "/search", &[&format!("content-length: {}", body.len())]) + body;
        self.connection.send(request.as_bytes()).expect("the request is taken");
        self.connection
    }
}

/// Reads a line of a search's answer; an error's line as it is.
pub fn found(line: &str) -> Result<Found, Value> {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:.200}: {error}"));
    match (value["id"].as_str(), value["revision"].as_u64(), value["text"].as_str()) {
        (Some(id), Some(revision), Some(text)) => Ok(Found { id: id.to_owned(), revision, text: text.to_owned() }),
        _ => Err(value),
    }
}

/// How long something took, with what it gave.
pub fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let outcome = what();
    (outcome, began.elapsed())
}
