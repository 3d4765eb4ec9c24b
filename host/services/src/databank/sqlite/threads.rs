//! The threads of the SQLite driver, which wait for the disk: one that writes, one that reads.
//!
//! Owns their queues and connections. A job whose caller has gone before it begins is skipped; a job that has begun is
//! finished. Jobs that wait when the writer has its lock share one transaction, because the disk is what takes time. Their
//! callers are answered after the commit.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::file::{Failure, File, Opened, begin, is_busy};
use crate::databank::{Fault, Reply};

/// How many jobs may wait for a thread.
const QUEUE: usize = 1024;

/// How many jobs may share a transaction, and after how long it is committed: other processes wait for it.
const SHARED_JOBS: usize = 64;
const SHARED_TIME: Duration = Duration::from_millis(10);

/// A thread with a connection of its own.
pub struct Thread {
    jobs: SyncSender<Box<dyn Work>>,
    file: Arc<File>,
    timeout: Duration,
}

/// A job of any type, as the queue holds it.
trait Work: Send {
    fn deadline(&self) -> Instant;
    /// Whether the caller has gone.
    fn is_abandoned(&self) -> bool;
    /// Runs the job, once. If it fails, the caller must roll the transaction back.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    /// Answers with the result of `run`, or with the fault that has undone it.
    fn answer(self: Box<Self>, outcome: Result<(), Fault>);
}

struct Job<T, F> {
    deadline: Instant,
    work: Option<F>,
    done: Option<Result<T, Fault>>,
    reply: oneshot::Sender<Result<T, Fault>>,
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T, Failure> + Send> Work for Job<T, F> {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.done = Some(match work(connection) {
                Ok(done) => Ok(done),
                Err(Failure::Fault(fault)) => Err(fault),
                Err(Failure::Store(error)) => return Err(error),
            });
        }
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Fault>) {
        let Self { done, reply, .. } = *self;
        if let Some(answer) = outcome.map_or_else(|fault| Some(Err(fault)), |()| done) {
            // The caller may have gone.
            let _ = reply.send(answer);
        }
    }
}

impl Thread {
    /// # Errors
    /// When no thread can be made.
    pub fn writer(file: &Arc<File>, timeout: Duration) -> io::Result<Self> {
        Self::new("databank write", file, timeout, |file, jobs| {
            let mut opened = None;
            while let Ok(job) = jobs.recv() {
                opened = write(&file, &jobs, job, opened);
            }
        })
    }

    /// # Errors
    /// When no thread can be made.
    pub fn reader(file: &Arc<File>, timeout: Duration) -> io::Result<Self> {
        Self::new("databank read", file, timeout, |file, jobs| {
            let mut opened = None;
            while let Ok(job) = jobs.recv() {
                opened = read(&file, job, opened);
            }
        })
    }

    fn new(
        name: &str,
        file: &Arc<File>,
        timeout: Duration,
        run: impl FnOnce(Arc<File>, Receiver<Box<dyn Work>>) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let of_thread = Arc::clone(file);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(of_thread, queue))?;
        Ok(Self { jobs, file: Arc::clone(file), timeout })
    }

    /// Queues a job. If it fails, nothing is written.
    pub fn run<T, F>(&self, work: F) -> Reply<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + self.timeout;
        let sent = self.jobs.try_send(Box::new(Job { deadline, work: Some(work), done: None, reply }));
        let file = Arc::clone(&self.file);
        Box::pin(async move {
            match sent {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => return Err(file.unavailable(&"too many calls are waiting")),
                Err(TrySendError::Disconnected(_)) => return Err(file.unavailable(&"its thread has ended")),
            }
            answer.await.unwrap_or_else(|_| Err(file.unavailable(&"its thread has ended")))
        })
    }
}

/// Runs the job and those that wait behind it. Returns the connection if it can be used again.
fn write(file: &File, jobs: &Receiver<Box<dyn Work>>, first: Box<dyn Work>, opened: Option<Opened>) -> Option<Opened> {
    if first.is_abandoned() {
        return opened;
    }
    let opened = match file.if_current(opened).map_or_else(|| file.open(first.deadline()), Ok) {
        Ok(opened) => opened,
        Err(fault) => {
            first.answer(Err(fault));
            return None;
        }
    };
    let deadline = first.deadline();
    let mut batch = vec![first];
    let written = share(&opened.connection, jobs, deadline, &mut batch);
    let outcome = written.as_ref().copied().map_err(|error| file.fault(error));
    for job in batch {
        job.answer(outcome.clone());
    }
    still_good(opened, &written)
}

/// Runs the batch in one transaction, and adds the jobs that wait.
fn share(
    connection: &Connection,
    jobs: &Receiver<Box<dyn Work>>,
    deadline: Instant,
    batch: &mut Vec<Box<dyn Work>>,
) -> rusqlite::Result<()> {
    let transaction = begin(connection, deadline)?;
    let began = Instant::now();
    while let Some(job) = batch.last_mut() {
        // If the store fails for one of them, all are undone.
        job.run(&transaction)?;
        if batch.len() == SHARED_JOBS || began.elapsed() > SHARED_TIME {
            break;
        }
        let Some(next) = jobs.try_iter().find(|job| !job.is_abandoned()) else { break };
        batch.push(next);
    }
    transaction.commit()
}

fn read(file: &File, mut job: Box<dyn Work>, opened: Option<Opened>) -> Option<Opened> {
    if job.is_abandoned() {
        return opened;
    }
    let opened = match file.if_current(opened).map_or_else(|| file.open(job.deadline()), Ok) {
        Ok(opened) => opened,
        Err(fault) => {
            job.answer(Err(fault));
            return None;
        }
    };
    // Readers are kept waiting only while the log is being recovered.
    let left = job.deadline().saturating_duration_since(Instant::now());
    let done = opened.connection.busy_timeout(left).and_then(|()| job.run(&opened.connection));
    job.answer(done.as_ref().copied().map_err(|error| file.fault(error)));
    still_good(opened, &done)
}

/// The connection, unless it has failed by more than a lock.
fn still_good(opened: Opened, done: &rusqlite::Result<()>) -> Option<Opened> {
    done.as_ref().err().is_none_or(is_busy).then_some(opened)
}
