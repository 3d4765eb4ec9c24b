//! Malformed and unusual requests, and how servers answer them: the table `requests.tsv`, its reader, and a client that
//! sends each as it is.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::{Address, Connection};

/// How long a client listens to a server that says nothing and keeps the connection.
const SILENCE: Duration = Duration::from_millis(400);

/// How long a whole answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the request is about.
    pub name: &'static str,
    /// The RFC and its section that decide it.
    pub section: &'static str,
    /// How app-host answers.
    pub expected: &'static str,
    /// What the client sends.
    pub request: Vec<u8>,
}

/// What a client got: the status of each answer, and whether the server closed the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    statuses: Vec<u16>,
    closed: bool,
}

impl fmt::Display for Outcome {
    /// `200`, `200 400 ×`: the statuses, and a cross where the connection was closed; `…` for a server that waits for more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<_> = self.statuses.iter().map(u16::to_string).collect();
        match (self.closed, words.is_empty()) {
            (true, _) => words.push("×".to_owned()),
            (false, true) => words.push("…".to_owned()),
            (false, false) => {}
        }
        f.write_str(&words.join(" "))
    }
}

/// The rows of the table.
///
/// # Panics
/// If a line of it can't be read.
pub fn cases() -> Vec<Case> {
    let lines = include_str!("requests.tsv").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<&'static str> = line.split('\t').collect();
            let [name, section, expected, request] = fields[..] else { panic!("four fields: {line:?}") };
            let request = bytes(request).unwrap_or_else(|| panic!("no such escape: {line:?}"));
            Case { name, section, expected, request }
        })
        .collect()
}

/// The bytes that a field of the table stands for.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut left = text;
    while let Some(first) = left.chars().next() {
        left = &left[first.len_utf8()..];
        match first {
            '\\' => {
                let (code, rest) = left.split_at_checked(1)?;
                left = rest;
                bytes.push(match code {
                    "r" => b'\r',
                    "n" => b'\n',
                    "t" => b'\t',
                    "\\" => b'\\',
                    "x" => {
                        let (digits, rest) = left.split_at_checked(2)?;
                        left = rest;
                        u8::from_str_radix(digits, 16).ok()?
                    }
                    _ => return None,
                });
            }
            '{' => {
                let (times, rest) = left.split_once('}')?;
                left = rest;
                let (of_line, times) = times.strip_prefix('*').map_or((false, times), |times| (true, times));
                let before = &bytes[..bytes.len().checked_sub(1)?];
                let begin = if of_line { before.iter().rposition(|byte| *byte == b'\n')? + 1 } else { before.len() };
                let repeated = bytes.split_off(begin);
                bytes.extend(repeated.repeat(times.parse().ok()?));
            }
            _ => bytes.extend(first.to_string().bytes()),
        }
    }
    Some(bytes)
}

/// Sends a request to a server and reads its answers.
///
/// # Errors
/// When the server can't be reached.
pub fn ask(address: &Address, request: &[u8]) -> io::Result<Outcome> {
    let mut client = Connection::connect(address)?;
    client.set_read_timeout(SILENCE)?;
    // A server that has refused it stops reading.
    let _ = client.send(request);
    let (mut answers, began) = (Vec::new(), Instant::now());
    let mut buffer = [0; 16 * 1024];
    let closed = loop {
        match client.read(&mut buffer) {
            Ok(0) => break true,
            Ok(read) => answers.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break false,
            Err(_) => break true,
        }
        if began.elapsed() > DEADLINE {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the server goes on for ever"));
        }
    };
    let answers = String::from_utf8_lossy(&answers);
    let statuses = answers.split("HTTP/1.").skip(1).filter_map(|answer| answer.get(2..5)?.parse().ok()).collect();
    Ok(Outcome { statuses, closed })
}

/// Asks a server all of them, several at a time. In the order of `cases`.
///
/// # Panics
/// When the server can't be reached.
pub fn ask_all(address: &Address, cases: &[Case]) -> Vec<String> {
    const AT_A_TIME: usize = 16;
    let share = cases.len().div_ceil(AT_A_TIME);
    std::thread::scope(|scope| {
        let workers: Vec<_> = cases
            .chunks(share)
            .map(|cases| {
                scope.spawn(move || {
                    let ask = |case: &Case| match ask(address, &case.request) {
                        Ok(outcome) => outcome.to_string(),
                        Err(error) => panic!("{}: {error}", case.name),
                    };
                    cases.iter().map(ask).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("the server is reached")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stands_for_bytes() {
        assert_eq!(bytes(r"a\r\n\x00\\é").unwrap(), "a\r\n\0\\é".as_bytes());
        assert_eq!(bytes(r"ba{3}c").unwrap(), b"baaac");
        assert_eq!(bytes(r"x\r\nab\r\n{*3}").unwrap(), b"x\r\nab\r\nab\r\nab\r\n");
        for wrong in [r"\q", r"\x0", r"\xzz", "a{b}", "{3}", "a{3"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_row_has_a_name_of_its_own_and_there_are_many() {
        let cases = cases();
        let names: std::collections::BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        assert!(names.len() == cases.len() && cases.len() >= 200, "{}", cases.len());
    }
}
