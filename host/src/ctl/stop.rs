//! `ctl stop`, and `--wait`: until the master's process has gone, so that the next one can be started.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use app_host_core::status::{Status, millis};

use super::client::{Client, ClientError};
use super::{ANSWER, CtlError, Wait};

/// How long a master may take from the end of its control socket to its own.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// Has the master stop; who waits doesn't hurry one that is stopping.
///
/// # Errors
/// With [`Wait::UntilGone`] also when it isn't gone within the time that was given, or doesn't answer any more while
/// it is waited for.
pub(super) fn stop(client: &mut Client, socket: &Path, wait: Wait) -> Result<(), CtlError> {
    // Before the order: until it is answered, the process is the one that we talk to.
    let process = client.process();
    // Who waits again, after a time-out for instance, doesn't want it to go any faster.
    if wait == Wait::Not || !is_stopping(client)? {
        client.order("STOP", ANSWER)?;
    }
    match wait {
        Wait::Not => Ok(()),
        Wait::UntilGone(limit) => until_gone(client, process.as_ref(), socket, limit),
    }
}

fn is_stopping(client: &mut Client) -> Result<bool, CtlError> {
    match client.ask_for("STATUS", ANSWER) {
        Ok(status) => Ok(serde_json::from_str::<Status>(&status).is_ok_and(|status| status.phase == "stopping")),
        // It starts, and has no status yet.
        Err(CtlError::No(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn until_gone(
    client: &mut Client,
    process: Option<&OwnedFd>,
    socket: &Path,
    limit: Option<Duration>,
) -> Result<(), CtlError> {
    let begin = Instant::now();
    // Since when nothing listens at the socket any more.
    let mut closed: Option<Instant> = None;
    loop {
        let left = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
        let pause = left.map_or(ANSWER, |left| left.min(ANSWER));
        let gone = if let Some(process) = process {
            has_ended(process, pause)
        } else {
            // Its connections end with it, but for its last steps.
            client.hear_within(pause).is_err()
        };
        if gone {
            return Ok(());
        }
        let closed_for = closed.map(|since| since.elapsed());
        if left.is_some_and(|left| left.is_zero()) || closed_for.is_some_and(|it| it > LAST_STEPS) {
            return Err(ClientError::Stays {
                path: socket.to_owned(),
                waited: Duration::from_millis(millis(begin.elapsed())),
            }
            .into());
        }
        // How long its workers take is its business; whether it is still there is another question.
        match Client::connect(socket, ANSWER) {
            Ok(mut client) => match client.ask_for("STATUS", ANSWER) {
                Err(CtlError::Client(error @ ClientError::Silent { .. })) => return Err(error.into()),
                // In its start it has no status, and at its end no answer.
                _ => closed = None,
            },
            Err(ClientError::Connect { .. }) => drop(closed.get_or_insert_with(Instant::now)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the process has ended, which is waited for.
fn has_ended(process: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap_or_default();
    let mut ends = [PollFd::new(process, PollFlags::IN)];
    // Interrupted is as good as late: the caller looks again.
    poll(&mut ends, Some(&limit)).is_ok_and(|ended| ended > 0)
}
