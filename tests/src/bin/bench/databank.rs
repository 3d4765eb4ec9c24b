//! The databank through the host against the bare crate.
//!
//! On the one side the app of `apps/databank.rs` does the operations by itself, in one worker of one
//! thread, so that no HTTP is measured. On the other the same operations are done with the same options by the
//! driver's crate alone, in tasks of a runtime of one thread as a plain server has it: [`Bare`].
//!
//! A round is short, and both sides have a turn in it, so that whatever else the machine does meets both alike;
//! what counts is the median of the rounds' ratios.

use std::time::{Duration, Instant};

use app_host_tests::databank::{Client, Driver};
use app_host_tests::mongo::Mongo;
use app_host_tests::{App, Host};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use mongodb::Collection;
use mongodb::bson::doc;
use mongodb::options::{Acknowledgment, ClientOptions, ReturnDocument, WriteConcern};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::Result;

/// The length of a document's text.
const BYTES: usize = 500;

/// What is done, and how often a round. A search is over [`STORED`] documents, of which it finds ten.
const OPERATIONS: [(&str, u64); 4] = [("create", 100), ("read", 250), ("search", 20), ("increment", 100)];
const STORED: u64 = 2_000;

/// Rounds that warm up and don't count.
const WARM_UP: u64 = 3;

/// One after the other, and so many at once.
const IN_FLIGHT: [u64; 2] = [1, 16];

/// The host's `databank.timeout`, which its client's settings follow.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The types: of what is read and searched, of what is created, and of the counter.
const BASE: &str = "base";
const CREATED: &str = "created";

/// One document; the app has its like.
#[derive(Clone, Serialize, Deserialize)]
struct Note {
    author: String,
    number: u64,
    text: String,
}

impl Note {
    fn new(number: u64) -> Self {
        Self { author: author(number), number, text: "x".repeat(BYTES) }
    }
}

fn author(number: u64) -> String {
    format!("author-{}", number % 100)
}

/// What one side took for an operation, in microseconds.
#[derive(Clone, Copy)]
struct Took {
    elapsed: f64,
    cpu: f64,
}

pub fn run(rounds: u64) -> Result<()> {
    for driver in [Driver::Sqlite, Driver::MongodbStandalone] {
        let section = driver.section();
        let mut host = Host::new(&App::build().app("databank")).with("/workers", 1).with("/log/level", "info");
        host.set("/databank", section.clone());
        let host = host.start();
        let mut client = Client::new(&host);
        let bare = match driver {
            Driver::Sqlite => Bare::Sqlite(sqlite(&host)?),
            _ => Bare::mongodb(&section)?,
        };
        through_host(&mut client, "create", BASE, "", STORED, 16)?;
        bare.perform("create", BASE, "", STORED, 16)?;
        println!("{driver:?}, {rounds} rounds, documents of {BYTES} bytes, µs an operation:");
        println!(
            "  operation  in flight  through the host    bare    ratio of time (middle half)             ratio of CPU"
        );
        for (operation, count) in OPERATIONS {
            for in_flight in IN_FLIGHT {
                let kind = if operation == "create" { CREATED } else { BASE };
                let (mut times, mut cpus, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
                for round in 0..rounds + WARM_UP {
                    let prefix = if operation == "create" { format!("{round}-{in_flight}-") } else { String::new() };
                    let mut host_side = || through_host(&mut client, operation, kind, &prefix, count, in_flight);
                    let bare_side = || bare.perform(operation, kind, &prefix, count, in_flight);
                    // Whoever goes first has a warmer or a colder machine: take turns.
                    let (host_took, bare_took) = if round.is_multiple_of(2) {
                        let first = host_side()?;
                        (first, bare_side()?)
                    } else {
                        let first = bare_side()?;
                        (host_side()?, first)
                    };
                    if round >= WARM_UP {
                        times.push(host_took.elapsed / bare_took.elapsed);
                        cpus.push(host_took.cpu / bare_took.cpu);
                        ours.push(host_took.elapsed);
                        theirs.push(bare_took.elapsed);
                    }
                }
                println!(
                    "  {operation:9}  {in_flight:9}  {:16.1}  {:6.1}  {:>28}  {:>28}",
                    median(&mut ours),
                    median(&mut theirs),
                    middle(&mut times),
                    middle(&mut cpus),
                );
            }
        }
        host.stop();
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median, and between what half of the values lie.
fn middle(values: &mut [f64]) -> String {
    let median = median(values);
    let quarter = values.len() / 4;
    format!("{median:.3} ({:.3} to {:.3})", values[quarter], values[values.len() - 1 - quarter])
}

#[expect(clippy::cast_precision_loss, reason = "times of less than 2^52 ns")]
fn through_host(
    client: &mut Client,
    operation: &str,
    kind: &str,
    prefix: &str,
    count: u64,
    in_flight: u64,
) -> Result<Took> {
    let answer = client.ask(
        "perform",
        json!({ "name": operation, "type": kind, "id": prefix, "count": count, "in_flight": in_flight, "bytes": BYTES }),
    );
    if answer.status != 200 {
        return Err(format!("{operation}: {answer}").into());
    }
    let micros = |key: &str| answer.body[key].as_u64().map_or(f64::NAN, |nanos| nanos as f64 / 1e3 / count as f64);
    Ok(Took { elapsed: micros("elapsed_ns"), cpu: micros("cpu_ns") })
}

/// The crate of a driver without the host.
enum Bare {
    /// One connection, used by one thread.
    Sqlite(Connection),
    /// With a runtime of one thread.
    Mongodb { runtime: Runtime, database: mongodb::Database },
}

impl Bare {
    fn mongodb(section: &Value) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let database = runtime.block_on(async {
            let uri = section["uri"].as_str().unwrap_or_default();
            let mut options = ClientOptions::parse(uri).await?;
            let mut concern = WriteConcern::default();
            concern.w = Some(Acknowledgment::Majority);
            concern.journal = Some(true);
            concern.w_timeout = Some(TIMEOUT);
            options.write_concern = Some(concern);
            options.heartbeat_freq = Some(TIMEOUT);
            options.max_pool_size = Some(16);
            let client = mongodb::Client::with_options(options)?;
            Ok::<_, mongodb::error::Error>(client.database(&Mongo::shared_standalone().database()))
        })?;
        Ok(Self::Mongodb { runtime, database })
    }

    #[expect(clippy::cast_precision_loss, reason = "times of less than 2^52 ns")]
    fn perform(&self, operation: &str, kind: &str, prefix: &str, count: u64, in_flight: u64) -> Result<Took> {
        let (began, before) = (Instant::now(), cpu_time()?);
        match self {
            Self::Sqlite(connection) => {
                for number in 0..count {
                    sqlite_operation(connection, operation, kind, prefix, number)?;
                }
            }
            Self::Mongodb { runtime, database } => {
                let strands = (0..in_flight).map(|strand| {
                    let (operation, prefix) = (operation.to_owned(), prefix.to_owned());
                    let (notes, counters) = (database.collection(kind), database.collection(kind));
                    runtime.spawn(async move {
                        let mut number = strand;
                        while number < count {
                            mongodb_operation(&notes, &counters, &operation, &prefix, number).await?;
                            number += in_flight;
                        }
                        Ok::<_, mongodb::error::Error>(())
                    })
                });
                let strands: Vec<_> = strands.collect();
                for strand in runtime.block_on(try_join_all(strands))? {
                    strand?;
                }
            }
        }
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6 / count as f64;
        Ok(Took { elapsed: micros(began.elapsed()), cpu: micros(cpu_time()?.saturating_sub(before)) })
    }
}

/// The CPU time of the whole process so far.
fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// A file beside that of the host, with the same settings and an equal table.
fn sqlite(host: &Host) -> Result<Connection> {
    let connection = Connection::open(host.path("bare.sqlite"))?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute_batch(
        "CREATE TABLE documents (
            kind TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL, document TEXT NOT NULL,
            PRIMARY KEY (kind, id)
        ) STRICT",
    )?;
    Ok(connection)
}

fn sqlite_operation(connection: &Connection, operation: &str, kind: &str, prefix: &str, number: u64) -> Result<()> {
    let id = format!("{prefix}{number:08}");
    match operation {
        "create" => {
            let document = serde_json::to_string(&Note::new(number))?;
            let mut statement = connection
                .prepare_cached("INSERT INTO documents (kind, id, revision, document) VALUES (?1, ?2, random(), ?3)")?;
            statement.execute((kind, &id, &document))?;
        }
        "read" => {
            let mut statement = connection
                .prepare_cached("SELECT id, revision, document FROM documents WHERE kind = ?1 AND id = ?2")?;
            let found = statement.query_row((kind, &id), columns).optional()?;
            let (_, _, document) = found.ok_or("the document is gone")?;
            let note: Note = serde_json::from_str(&document)?;
            if note.number != number {
                return Err("another document".into());
            }
        }
        "search" => {
            let mut statement = connection.prepare_cached(
                "SELECT id, revision, document FROM documents
                WHERE kind = ?1 AND json_extract(document, '$.author') = ?2 ORDER BY id LIMIT 10",
            )?;
            for row in statement.query_map((kind, author(number)), columns)? {
                let _: Note = serde_json::from_str(&row?.2)?;
            }
        }
        _ => {
            let mut statement = connection.prepare_cached(
                "INSERT INTO documents (kind, id, revision, document)
                VALUES (?1, 'counter', random(), json_object('total', 1))
                ON CONFLICT DO UPDATE SET revision = excluded.revision,
                    document = json_set(document, '$.total', json_extract(document, '$.total') + 1)
                RETURNING json_extract(document, '$.total')",
            )?;
            statement.query_row([kind], |row| row.get::<_, i64>(0))?;
        }
    }
    Ok(())
}

fn columns(row: &rusqlite::Row<'_>) -> rusqlite::Result<(String, i64, String)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// A document as the driver of the host keeps it.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    #[serde(rename = "_id")]
    id: String,
    r: i64,
    d: T,
}

#[derive(Serialize, Deserialize)]
struct Counter {
    total: i64,
}

async fn mongodb_operation(
    notes: &Collection<Kept<Note>>,
    counters: &Collection<Kept<Counter>>,
    operation: &str,
    prefix: &str,
    number: u64,
) -> mongodb::error::Result<()> {
    let id = format!("{prefix}{number:08}");
    match operation {
        "create" => {
            notes.insert_one(Kept { id, r: number.cast_signed(), d: Note::new(number) }).await?;
        }
        "read" => {
            let found = notes.find_one(doc! { "_id": &id }).await?;
            if found.is_none_or(|found| found.d.number != number) {
                return Err(mongodb::error::Error::custom("another document"));
            }
        }
        "search" => {
            let found = notes.find(doc! { "d.author": author(number) }).sort(doc! { "_id": 1 }).limit(10).await?;
            let _: Vec<Kept<Note>> = found.try_collect().await?;
        }
        _ => {
            let change = doc! { "$inc": { "d.total": 1_i64 }, "$set": { "r": number.cast_signed() } };
            let changed = counters.find_one_and_update(doc! { "_id": "counter" }, change);
            changed.upsert(true).return_document(ReturnDocument::After).await?;
        }
    }
    Ok(())
}
