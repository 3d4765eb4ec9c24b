//! The file of the SQLite driver: creates it, opens it, and reports what is wrong with it.
//!
//! Owns the schema and the settings of a connection. The statements are the driver's.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknod};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use tracing::warn;

use app_host_core::foreign::printable;

use crate::databank::{Fault, Making};

/// The `user_version` of a databank's file. A change of the tables raises it, and [`prepare`] must then make the new tables
/// out of the old ones.
const SCHEMA: i64 = 1;

/// Rows are up to megabytes long. In a table `WITHOUT ROWID` they would lie in the index of the keys, and make it deep and
/// slow.
const TABLES: &str = "CREATE TABLE documents (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT";

/// The size to which the write-ahead log is cut back after it has grown.
const LOG_BYTES: i64 = 16 << 20;

/// How long to wait before a lock is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// The file, for all connections of this process.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    /// Whether this process, or its master, has seen the file: from then on it isn't created again. A file that was moved
    /// away may come back; an empty one in its place would look as if nothing had ever been written.
    seen: AtomicBool,
}

/// A connection, and the identity of its file.
pub struct Opened {
    pub connection: Connection,
    identity: Identity,
    /// After the connection, which is closed first.
    _counted: Counted,
}

/// Not fewer connections than this process has: a connection is counted before it is opened, and until it is closed.
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

struct Counted;

impl Counted {
    fn new() -> Self {
        CONNECTIONS.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        CONNECTIONS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether this process has the file at `path` open beside the connections of this driver, as an app with a SQLite of its
/// own would. Closing that one drops all locks that this process has on the file (`fcntl(2)`), and what was committed since
/// is overwritten.
pub fn is_open_beside_ours(path: &Path) -> io::Result<bool> {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let ours = identity(fs::metadata(path)?);
    let mut open = 0;
    for entry in fs::read_dir("/proc/self/fd")? {
        // A descriptor may have been closed since it was listed.
        open += usize::from(fs::metadata(entry?.path()).is_ok_and(|found| identity(found) == ours));
    }
    Ok(open > CONNECTIONS.load(Ordering::SeqCst))
}

/// Device and inode.
type Identity = (u64, u64);

/// Why a job on a connection failed.
pub enum Failure {
    /// The job itself; the store is well.
    Fault(Fault),
    /// The store.
    Store(rusqlite::Error),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error)
    }
}

impl File {
    pub fn new(path: PathBuf, making: Making) -> Self {
        Self { path, seen: AtomicBool::new(making == Making::Never) }
    }

    /// Opens a connection. The tables are there.
    ///
    /// # Errors
    /// `Unavailable` with the path and the cause.
    pub fn open(&self, deadline: Instant) -> Result<Opened, Fault> {
        if !self.seen.load(Ordering::Acquire) {
            self.make().map_err(|error| self.unavailable(&error))?;
        }
        let identity = self.identity()?;
        let counted = Counted::new();
        let connect = || {
            // No `CREATE`: see `seen`. No mutex: a connection stays on its thread.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(Duration::ZERO)?;
            // Closing would remove the log by its name, which may be another file's then.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            Ok::<_, rusqlite::Error>(connection)
        };
        let connection = connect().map_err(|error| self.fault(&error))?;
        match prepare(&connection, deadline) {
            Ok(()) => {}
            Err(Failure::Fault(fault)) => return Err(self.unavailable(&fault)),
            Err(Failure::Store(error)) => return Err(self.fault(&error)),
        }
        self.seen.store(true, Ordering::Release);
        Ok(Opened { connection, identity, _counted: counted })
    }

    /// The connection, if the file at the path is still the same.
    pub fn if_current(&self, opened: Option<Opened>) -> Option<Opened> {
        opened.filter(|opened| self.identity().is_ok_and(|identity| identity == opened.identity))
    }

    /// Creates the directory and the file, readable for this user only.
    fn make(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        // Not by opening it: closing a file drops all locks that this process has on it, those of a connection that
        // another thread has just opened included (fcntl(2)).
        match mknod(&self.path, SFlag::S_IFREG, Mode::S_IRUSR | Mode::S_IWUSR, 0) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn identity(&self) -> Result<Identity, Fault> {
        let metadata = fs::metadata(&self.path).map_err(|error| self.unavailable(&error))?;
        if !metadata.is_file() {
            return Err(self.unavailable(&"this is no file"));
        }
        Ok((metadata.dev(), metadata.ino()))
    }

    pub fn unavailable(&self, cause: &dyn std::fmt::Display) -> Fault {
        Fault::Unavailable(format!("{}: {cause}", self.path.display()))
    }

    /// The fault that the app gets for an error of the store.
    pub fn fault(&self, error: &rusqlite::Error) -> Fault {
        if is_busy(error) {
            return self.unavailable(&"another process kept it locked");
        }
        self.unavailable(error)
    }
}

/// Whether the error says only that another process holds a lock.
pub fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Begins a transaction that writes.
pub fn begin(connection: &Connection, deadline: Instant) -> rusqlite::Result<Transaction<'_>> {
    retry(deadline, || Transaction::new_unchecked(connection, TransactionBehavior::Immediate))
}

/// Tries again while another process holds a lock. SQLite's own busy handler tries ever more rarely: beside a process that
/// writes all the time, it would hardly find the moment in which the lock is free.
fn retry<T>(deadline: Instant, mut ask: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    loop {
        match ask() {
            // No process announces when it releases a lock, so there is nothing to wait for but time.
            Err(error) if is_busy(&error) && Instant::now() < deadline => std::thread::park_timeout(RETRY),
            outcome => return outcome,
        }
    }
}

/// Says that there were no tables, nor a document then. It is no fault of a service that starts for the first time; one
/// whose disk isn't mounted looks the same.
fn created(connection: &Connection) {
    let path = connection.path().unwrap_or_default();
    let advice = "if there should be data here, stop the master: is the disk mounted?";
    warn!(path = %printable(path), advice, "databank created");
}

/// Configures a connection, and creates the tables if they aren't there.
fn prepare(connection: &Connection, deadline: Instant) -> Result<(), Failure> {
    if connection.is_readonly("main")? {
        return Err(Fault::Unavailable("it can't be written to".to_owned()).into());
    }
    // Readers don't block the writer, nor the writer them. The file remembers the mode. Two processes that set it at once
    // collide, hence the retry.
    let mode: String =
        retry(deadline, || connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)))?;
    if mode != "wal" {
        return Err(Fault::Unavailable(format!("it can't keep a log beside it, only one of the kind `{mode}`")).into());
    }
    // What was acknowledged is on the disk, and survives even if the power fails.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
    let schema = || -> rusqlite::Result<i64> {
        retry(deadline, || connection.pragma_query_value(None, "user_version", |row| row.get(0)))
    };
    if schema()? == 0 {
        let transaction = begin(connection, deadline)?;
        // Another process may have done it while this one waited.
        if schema()? == 0 {
            let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables > 0 {
                return Err(Fault::Unavailable("this is a database of something else".to_owned()).into());
            }
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", SCHEMA)?;
            transaction.commit()?;
            created(connection);
        }
    }
    match schema()? {
        SCHEMA => Ok(()),
        other => {
            let cause = format!("its tables have the number {other}, and this app-host knows only {SCHEMA}");
            Err(Fault::Unavailable(cause).into())
        }
    }
}
