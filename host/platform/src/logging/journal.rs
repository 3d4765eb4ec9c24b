//! Whether lines go to systemd's journal, and how they begin there.
//!
//! What a service prints has one priority for all unless a line begins with its own, `<3>` for an error, which the
//! journal takes off (`sd-daemon(3)`). A stream is the journal if it is the one that `JOURNAL_STREAM` names by device and
//! inode (`systemd.exec(5)`): who starts us from a shell of a service, with its output elsewhere, passes the variable
//! on. Children are told by their master, because not all variables may be theirs.

use std::env;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::sys::stat::fstat;
use tracing::Level;

use app_host_core::message::JournalStream;

static STREAM: OnceLock<Option<JournalStream>> = OnceLock::new();

/// The journal's stream, if our environment names one or our master has.
pub(super) fn stream() -> Option<JournalStream> {
    *STREAM.get_or_init(|| env::var("JOURNAL_STREAM").ok().as_deref().and_then(parse))
}

/// From now on it is this one. For a child, before anything is logged.
pub(super) fn expect(stream: Option<JournalStream>) {
    let _ = STREAM.set(stream);
}

fn parse(text: &str) -> Option<JournalStream> {
    let (device, inode) = text.split_once(':')?;
    Some(JournalStream { device: device.parse().ok()?, inode: inode.parse().ok()? })
}

/// How lines look in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    #[default]
    Plain,
    /// Each begins with its priority.
    Journal,
}

impl Form {
    pub(super) fn of(log: impl AsFd) -> Self {
        let is_journal = stream().is_some_and(|stream| {
            fstat(log).is_ok_and(|found| JournalStream { device: found.st_dev, inode: found.st_ino } == stream)
        });
        if is_journal { Self::Journal } else { Self::Plain }
    }
}

/// What a line of this level begins with (`syslog(3)`).
pub(super) const fn prefix(level: Level) -> &'static [u8; LENGTH] {
    match level {
        Level::ERROR => b"<3>",
        Level::WARN => b"<4>",
        Level::INFO => b"<6>",
        Level::DEBUG | Level::TRACE => b"<7>",
    }
}

const LENGTH: usize = 3;

/// Takes the beginnings off again, for lines that all have one.
pub(super) fn strip(lines: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        plain.extend_from_slice(line.get(LENGTH..).unwrap_or(line));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_a_device_and_an_inode() {
        assert_eq!(parse("8:123456"), Some(JournalStream { device: 8, inode: 123_456 }));
        for text in ["", "8", "8:", ":8", "8:x", "8:9:10", "-1:2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
