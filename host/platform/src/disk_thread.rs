//! One thread for work that waits for the disk, so that the master's loop never does.
//!
//! Made once, when the master starts: a machine that has no thread to spare later (`EAGAIN`, a limit
//! on processes) then refuses a restart for what fails, and nothing else. Jobs are done one after
//! the other.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

/// A job that didn't end, or not in time.
#[derive(Debug, thiserror::Error)]
pub enum DiskThreadError {
    #[error("the disk didn't answer within {0:?}")]
    Late(Duration),
    #[error("the work on the disk has panicked, which is a bug in the host")]
    Gone,
}

type Job = Box<dyn FnOnce() + Send>;

/// The way to the thread. It ends with the last clone.
#[derive(Clone, Debug)]
pub struct DiskThread(mpsc::Sender<Job>);

impl DiskThread {
    /// Makes the thread.
    pub fn open() -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let work = move || {
            for job in jobs {
                // A job that panics answers nobody; the hook has said where. The next one has its turn.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        };
        std::thread::Builder::new().name("disk".to_owned()).spawn(work)?;
        Ok(Self(sender))
    }

    /// Has `job` done there when its turn comes; nobody waits for it.
    pub fn post(&self, job: impl FnOnce() + Send + 'static) {
        // Without the thread there is no disk work to be done any more.
        let _ = self.0.send(Box::new(job));
    }

    /// Has `job` done there; waits for it for at most `limit`. A job that is given up goes on, but
    /// its result is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskThreadError> {
        let (answer, result) = oneshot::channel();
        let job = Box::new(move || {
            // Nobody waits any more: the result is of no use.
            let _ = answer.send(job());
        });
        self.0.send(job).map_err(|_| DiskThreadError::Gone)?;
        match tokio::time::timeout(limit, result).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(DiskThreadError::Gone),
            Err(_) => Err(DiskThreadError::Late(limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_has_a_deadline_and_the_next_one_its_turn() {
        let disk = DiskThread::open().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let late = disk.run(Duration::from_millis(10), move || held.recv()).await;
        assert!(matches!(late, Err(DiskThreadError::Late(_))));
        release.send(()).unwrap();
        assert_eq!(disk.run(Duration::from_secs(20), || 7).await.unwrap(), 7);
        let gone = disk.run(Duration::from_secs(20), || panic!("a job that panics")).await;
        assert!(matches!(gone, Err::<(), _>(DiskThreadError::Gone)));
        assert_eq!(disk.run(Duration::from_secs(20), || 8).await.unwrap(), 8);
    }
}
