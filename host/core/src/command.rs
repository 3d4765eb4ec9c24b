//! The language of the control socket: a line becomes a [`Command`], and an [`Answer`] a line.
//!
//! Pure. The language is that of pump.io 6's control socket (its manual page `pump.socket(7)`), with
//! more commands: a name, parameters after spaces, a newline; `ACK`, `ACK data` or `NACK reason` and a
//! newline come back. Names are case-insensitive, blank lines are ignored, and a client need not wait for
//! an answer before it says the next line. What a command does is for the master, how lines travel for
//! `control`.
//!
//! A new command is a variant of [`Command`] and a line of [`TABLE`], which `CMDS` is made of.

use std::fmt;

use crate::config::LogLevel;
use crate::ids::RequestId;

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The names of all commands.
    Cmds,
    /// The version of the running master's program.
    Version,
    /// Log otherwise from now on: the master and all workers, those spawned later included.
    LogLevel(Level),
    /// A restart.
    Restart(Until),
    /// A restart to an earlier generation: to the last good one before the active one, or to that whose
    /// version begins with these digits.
    Rollback(Until, Option<String>),
    /// Say that no more clients are to be sent here, or no longer.
    Drain(bool),
    /// So many workers from now on.
    Workers(u16),
    /// The generations that can be gone back to, and those in quarantine, a line of JSON.
    Versions,
    /// The verdict of a request, which may have been given already.
    Wait(RequestId),
    /// Everything that a master knows of itself, a line of JSON.
    Status,
    /// From now on a line of JSON for everything that happens, between the answers.
    Events,
    /// Certificates and keys read anew, without a restart.
    ReloadCertificates,
    /// Stop the service, as SIGTERM does.
    Stop,
}

/// What is logged from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What is urgent up to this level.
    Set(LogLevel),
    /// What the configuration says.
    Restore,
}

/// When a restart that was asked for is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Once nothing can refuse it any more: after the preflight.
    Accepted,
    /// With its verdict.
    Judged,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misunderstood {
    /// No command has this name.
    Unknown,
    /// There is such a command, but not with these parameters.
    Invalid,
}

impl Misunderstood {
    /// The stable reason string.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
        }
    }
}

/// How many workers there can be.
const WORKERS: std::ops::RangeInclusive<u16> = 1..=512;

/// Makes a command of its parameters; `None` when they are not the right ones.
type Maker = fn(&[&str]) -> Option<Command>;

/// Every command: its name, which is also what it is called in `CMDS`, and what its parameters mean.
const TABLE: [(&str, Maker); 13] = [
    ("CMDS", |parameters| alone(parameters, Command::Cmds)),
    ("DRAIN", |parameters| match parameters {
        [on] if on.eq_ignore_ascii_case("ON") => Some(Command::Drain(true)),
        [off] if off.eq_ignore_ascii_case("OFF") => Some(Command::Drain(false)),
        _ => None,
    }),
    ("EVENTS", |parameters| alone(parameters, Command::Events)),
    ("LOGLEVEL", |parameters| match parameters {
        [level] => parse_level(level).map(Command::LogLevel),
        _ => None,
    }),
    ("RELOAD-CERTIFICATES", |parameters| alone(parameters, Command::ReloadCertificates)),
    ("RESTART", |parameters| match parameters {
        [] => Some(Command::Restart(Until::Accepted)),
        [wait] if wait.eq_ignore_ascii_case("WAIT") => Some(Command::Restart(Until::Judged)),
        _ => None,
    }),
    ("ROLLBACK", |parameters| {
        let (wait, digits): (Vec<&str>, Vec<&str>) =
            parameters.iter().partition(|parameter| parameter.eq_ignore_ascii_case("WAIT"));
        let until = match wait[..] {
            [] => Until::Accepted,
            [_] => Until::Judged,
            _ => return None,
        };
        match digits[..] {
            [] => Some(Command::Rollback(until, None)),
            [digits] => parse_version(digits).map(|digits| Command::Rollback(until, Some(digits))),
            _ => None,
        }
    }),
    ("STATUS", |parameters| alone(parameters, Command::Status)),
    ("STOP", |parameters| alone(parameters, Command::Stop)),
    ("VERSION", |parameters| alone(parameters, Command::Version)),
    ("VERSIONS", |parameters| alone(parameters, Command::Versions)),
    ("WAIT", |parameters| match parameters {
        [number] => parse_number(number).map(RequestId).map(Command::Wait),
        _ => None,
    }),
    ("WORKERS", |parameters| match parameters {
        [number] => {
            let number = u16::try_from(parse_number(number)?).ok()?;
            WORKERS.contains(&number).then_some(Command::Workers(number))
        }
        _ => None,
    }),
];

/// The first digits of a version, as it is shown: hexadecimal, in small letters. Those of a configuration may follow after a
/// colon.
fn parse_version(text: &str) -> Option<String> {
    let digits = text.to_ascii_lowercase();
    let is_one = |it: &str| (1..=64).contains(&it.len()) && it.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (version, config) = digits.split_once(':').map_or((digits.as_str(), None), |(it, config)| (it, Some(config)));
    (is_one(version) && config.is_none_or(is_one)).then_some(digits)
}

fn alone(parameters: &[&str], command: Command) -> Option<Command> {
    parameters.is_empty().then_some(command)
}

/// Digits and nothing else: a sign would be read by `parse` as well.
fn parse_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads a level as bunyan calls it, or `restore`. Nothing here is fatal to bunyan's mind, so `fatal` is
/// as quiet as it gets: errors.
pub fn parse_level(text: &str) -> Option<Level> {
    let level = match text.to_ascii_lowercase().as_str() {
        "fatal" | "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        "restore" => return Some(Level::Restore),
        _ => return None,
    };
    Some(Level::Set(level))
}

/// Reads one line, without its newline. `None` for a blank one, which gets no answer.
pub fn parse(line: &[u8]) -> Option<Result<Command, Misunderstood>> {
    let Ok(line) = std::str::from_utf8(line) else { return Some(Err(Misunderstood::Unknown)) };
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    let parameters: Vec<&str> = words.collect();
    let Some((_, make)) = TABLE.iter().find(|(each, _)| each.eq_ignore_ascii_case(name)) else {
        return Some(Err(Misunderstood::Unknown));
    };
    Some(make(&parameters).ok_or(Misunderstood::Invalid))
}

/// The names of all commands, as `CMDS` answers them.
pub fn names() -> String {
    TABLE.map(|(name, _)| name).join(" ")
}

/// The reason for whoever may not speak to the master at all.
pub const NOT_ALLOWED: &str = "not allowed";

/// What a command is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done, or on its way.
    Ack,
    /// It is done, and this is what it was asked for.
    Data(String),
    /// It isn't done, for this reason.
    Nack(String),
}

impl Answer {
    /// A refusal.
    pub fn nack(reason: &str) -> Self {
        Self::Nack(reason.to_owned())
    }

    /// Reads a line, without its newline, that a master has written.
    pub fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None if line == "ACK" => Some(Self::Ack),
            Some(("ACK", data)) => Some(Self::Data(data.to_owned())),
            Some(("NACK", reason)) => Some(Self::Nack(reason.to_owned())),
            _ => None,
        }
    }
}

/// The line, without its newline, whatever is in it: data and reasons come from many places, and a
/// newline in them would be an answer to the next command.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match self {
            Self::Ack => return f.write_str("ACK"),
            Self::Data(data) => ("ACK ", data),
            Self::Nack(reason) => ("NACK ", reason),
        };
        f.write_str(word)?;
        for part in text.split_inclusive(['\n', '\r', '\0']) {
            match part.strip_suffix(['\n', '\r', '\0']) {
                Some(part) => write!(f, "{part} ")?,
                None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_command_is_read_in_any_case_and_with_any_space_around_it() {
        for (line, command) in [
            ("CMDS", Command::Cmds),
            ("cmds", Command::Cmds),
            ("VeRsIoN", Command::Version),
            ("LOGLEVEL fatal", Command::LogLevel(Level::Set(LogLevel::Error))),
            ("LOGLEVEL error", Command::LogLevel(Level::Set(LogLevel::Error))),
            ("loglevel WARN", Command::LogLevel(Level::Set(LogLevel::Warn))),
            ("LOGLEVEL info", Command::LogLevel(Level::Set(LogLevel::Info))),
            ("LOGLEVEL debug", Command::LogLevel(Level::Set(LogLevel::Debug))),
            ("LOGLEVEL trace", Command::LogLevel(Level::Set(LogLevel::Trace))),
            ("LOGLEVEL restore", Command::LogLevel(Level::Restore)),
            ("RESTART", Command::Restart(Until::Accepted)),
            ("RESTART WAIT", Command::Restart(Until::Judged)),
            ("  restart\twait  \r", Command::Restart(Until::Judged)),
            ("WAIT 17", Command::Wait(RequestId(17))),
            ("STATUS", Command::Status),
            ("rollback ABcd wait", Command::Rollback(Until::Judged, Some("abcd".to_owned()))),
            ("ROLLBACK ab:cd", Command::Rollback(Until::Accepted, Some("ab:cd".to_owned()))),
            ("EVENTS", Command::Events),
            ("STOP", Command::Stop),
        ] {
            assert_eq!(parse(line.as_bytes()), Some(Ok(command)), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_command_is_unknown_and_wrong_parameters_are_invalid() {
        for line in
            [&b"RESTARTS"[..], b"REST ART", b"\xff\xfe", b"\0", b"ACK", b"RESTART\0", "RESTART\u{a0}WAIT".as_bytes()]
        {
            assert_eq!(parse(line), Some(Err(Misunderstood::Unknown)), "{line:?}");
        }
        for line in [
            "CMDS all",
            "LOGLEVEL",
            "LOGLEVEL loud",
            "LOGLEVEL warn info",
            "RESTART NOW",
            "RESTART WAIT WAIT",
            "ROLLBACK ab:",
            "ROLLBACK :cd",
            "ROLLBACK ab:cd:ef",
            "WAIT",
            "WAIT one",
            "WAIT +1",
            "WAIT -1",
            "WAIT 18446744073709551616",
            "STOP now",
            "STATUS x",
        ] {
            assert_eq!(parse(line.as_bytes()), Some(Err(Misunderstood::Invalid)), "{line:?}");
        }
        for line in ["", " ", "\r", "\t \r"] {
            assert_eq!(parse(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn names_are_upper_case_and_sorted_and_each_is_known() {
        let names = names();
        let listed: Vec<&str> = names.split(' ').collect();
        assert!(listed.is_sorted(), "{names}");
        assert_eq!(names, names.to_ascii_uppercase());
        assert!(listed.iter().all(|name| parse(name.as_bytes()) != Some(Err(Misunderstood::Unknown))));
    }

    #[test]
    fn an_answer_reads_back_and_an_event_is_none() {
        for answer in [Answer::Ack, Answer::Data("a b".to_owned()), Answer::nack("restart in flight")] {
            assert_eq!(Answer::parse(&answer.to_string()), Some(answer));
        }
        for line in ["", "ACKS", "{\"event\":\"stopping\"}", "NACK", "ack"] {
            assert_eq!(Answer::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics_and_only_blank_ones_get_no_answer(line in proptest::collection::vec(any::<u8>(), 0..64)) {
            let blank = line.iter().all(u8::is_ascii_whitespace);
            prop_assert_eq!(parse(&line).is_none(), blank);
        }

        #[test]
        fn no_words_panic(name in "(?i)(cmds|version|loglevel|restart|wait|status|events|stop)", rest in ".{0,40}") {
            let line = format!("{name} {rest}");
            prop_assert!(parse(line.as_bytes()).is_some());
        }

        #[test]
        fn an_answer_is_one_line_whatever_is_in_it(text in "(.|\n|\r|\0){0,40}") {
            for answer in [Answer::Data(text.clone()), Answer::Nack(text)] {
                prop_assert!(!answer.to_string().contains(['\n', '\r', '\0']));
            }
        }
    }
}
