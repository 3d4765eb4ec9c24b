//! The driver for SQLite: one file on this machine, which all its processes share.
//!
//! Owns the statements. Two [`threads`] open the [`mod@file`] and wait for the disk and for locks, so that no caller's
//! thread does. A write is acknowledged when it is on the disk: neither the death of a process nor a power failure loses
//! it. Searches are read in pages ([`scan`]), each in a transaction of its own, so that none of them keeps the write-ahead
//! log from being written back.

mod file;
mod threads;

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

use super::query::{FieldPath, Key, Kind, Query};
use super::scan::{self, Look, Scan, Source};
use super::{Document, Documents, Driver, Fault, Making, Mode, Reply, Stored, new_revision};
use file::{Failure, File};
use threads::Thread;

pub use file::is_open_beside_ours;

const READ: &str = "SELECT id, revision, document FROM documents WHERE kind = ?1 AND id = ?2";
const RANGE: &str = "SELECT id, revision, document FROM documents WHERE kind = ?1 AND id > ?2 ORDER BY id";
const CREATE: &str =
    "INSERT INTO documents (kind, id, revision, document) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
const UPDATE: &str = "UPDATE documents SET revision = ?3, document = ?4 WHERE kind = ?1 AND id = ?2";
const SAVE: &str = "INSERT INTO documents (kind, id, revision, document) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT DO UPDATE SET revision = excluded.revision, document = excluded.document";
const COMPARE: &str = "UPDATE documents SET revision = ?3, document = ?4 WHERE kind = ?1 AND id = ?2 AND revision = ?5";
const REMOVE: &str = "DELETE FROM documents WHERE kind = ?1 AND id = ?2";

/// Documents in a file.
pub struct Sqlite {
    writer: Thread,
    reader: Arc<Thread>,
}

impl Sqlite {
    /// Starts the threads; the first call opens the file.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn new(path: &Path, making: Making, timeout: Duration) -> io::Result<Self> {
        // Absolute: SQLite takes names that begin with `file:` or a colon for something else.
        let file = Arc::new(File::new(std::path::absolute(path)?, making));
        Ok(Self { writer: Thread::writer(&file, timeout)?, reader: Arc::new(Thread::reader(&file, timeout)?) })
    }

    /// Changes a document in place, or an empty one if it isn't there. Returns the new revision, too.
    fn change<T: Send + 'static>(
        &self,
        key: Key,
        change: impl FnOnce(&Key, &mut Document) -> Result<T, Fault> + Send + 'static,
    ) -> Reply<(T, u64)> {
        self.writer.run(move |connection| {
            let revision = new_revision()?;
            let mut document = match Table(connection).find(&key.kind, &key.id)? {
                Some(stored) => Document::from_stored(&key.kind, &key.id, &stored.text)?,
                None => Document::empty(),
            };
            let changed = change(&key, &mut document)?;
            replace(connection, SAVE, &key, revision, &document.grown_text(&key)?)?;
            Ok((changed, revision))
        })
    }

    fn documents(&self, scan: Scan) -> Documents {
        let reader = Arc::clone(&self.reader);
        scan::documents(scan, move |mut scan| {
            reader.run(move |connection| {
                let page = scan.page(&Table(connection))?;
                Ok((scan, page))
            })
        })
    }
}

impl Driver for Sqlite {
    fn prepare(&self) -> Reply<()> {
        // An empty job opens the file and takes its lock, and nothing else can fail.
        self.writer.run(|_| Ok(()))
    }

    fn write(&self, key: Key, mode: Mode, document: Document) -> Reply<u64> {
        let text = document.text();
        self.writer.run(move |connection| {
            let revision = new_revision()?;
            let there =
                |connection: &Connection| Table(connection).find(&key.kind, &key.id).map(|found| found.is_some());
            match mode {
                Mode::Create => {
                    if !replace(connection, CREATE, &key, revision, &text)? {
                        return Err(key.already_exists().into());
                    }
                }
                Mode::Update => {
                    if !replace(connection, UPDATE, &key, revision, &text)? {
                        return Err(key.not_found().into());
                    }
                }
                Mode::Save => {
                    replace(connection, SAVE, &key, revision, &text)?;
                }
                Mode::Compare(was) => {
                    let parameters = (key.kind.as_str(), &key.id, signed(revision), &text, signed(was));
                    if connection.prepare_cached(COMPARE)?.execute(parameters)? == 0 {
                        return Err(if there(connection)? { key.conflict() } else { key.not_found() }.into());
                    }
                }
            }
            Ok(revision)
        })
    }

    fn read(&self, key: Key) -> Reply<Stored> {
        self.reader
            .run(move |connection| Ok(Table(connection).find(&key.kind, &key.id)?.ok_or_else(|| key.not_found())?))
    }

    fn remove(&self, key: Key) -> Reply<()> {
        self.writer.run(move |connection| {
            match connection.prepare_cached(REMOVE)?.execute((key.kind.as_str(), &key.id))? {
                0 => Err(key.not_found().into()),
                _ => Ok(()),
            }
        })
    }

    fn increment(&self, key: Key, path: FieldPath, by: i64) -> Reply<i64> {
        let changed = self.change(key, move |key, document| document.increment(key, &path, by));
        Box::pin(async move { changed.await.map(|(sum, _)| sum) })
    }

    fn append(&self, key: Key, path: FieldPath, value: serde_json::Value) -> Reply<u64> {
        let changed = self.change(key, move |key, document| document.append(key, &path, value));
        Box::pin(async move { changed.await.map(|((), revision)| revision) })
    }

    fn read_many(&self, kind: Kind, ids: Vec<String>) -> Documents {
        self.documents(Scan::documents(kind, ids))
    }

    fn search(&self, query: Query) -> Documents {
        self.documents(Scan::search(query))
    }
}

/// Whether a row was written.
fn replace(connection: &Connection, statement: &str, key: &Key, revision: u64, text: &str) -> rusqlite::Result<bool> {
    let parameters = (key.kind.as_str(), &key.id, signed(revision), text);
    Ok(connection.prepare_cached(statement)?.execute(parameters)? > 0)
}

/// A revision as it is stored in the table. A client may send any number; one that was never given matches no row.
const fn signed(revision: u64) -> i64 {
    revision.cast_signed()
}

/// The open file, to be searched.
struct Table<'a>(&'a Connection);

impl Source for Table<'_> {
    type Error = Failure;

    fn range(&self, kind: &Kind, after: &str, look: &mut Look<'_>) -> Result<ControlFlow<()>, Failure> {
        let mut statement = self.0.prepare_cached(RANGE)?;
        let mut rows = statement.query((kind.as_str(), after))?;
        while let Some(row) = rows.next()? {
            let (id, revision, text) = columns(row)?;
            if look(id, revision, text)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn find(&self, kind: &Kind, id: &str) -> Result<Option<Stored>, Failure> {
        let stored = |row: &Row<'_>| {
            let (id, revision, text) = columns(row)?;
            Ok(Stored { id: id.to_owned(), revision, text: Bytes::copy_from_slice(text) })
        };
        Ok(self.0.prepare_cached(READ)?.query_row((kind.as_str(), id), stored).optional()?)
    }
}

fn columns<'row>(row: &'row Row<'_>) -> rusqlite::Result<(&'row str, u64, &'row [u8])> {
    let unlike = |column| move |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error));
    let id = row.get_ref(0)?.as_str().map_err(unlike(0))?;
    let text = row.get_ref(2)?.as_bytes().map_err(unlike(2))?;
    Ok((id, row.get::<_, i64>(1)?.cast_unsigned(), text))
}

#[cfg(test)]
mod tests;
