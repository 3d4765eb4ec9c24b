//! `ctl restart` and `ctl rollback`: asked for, followed to their beginning or to their verdict, and what became of them.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use app_host_core::command::Answer;
use app_host_core::foreign;
use app_host_core::ids::RequestId;
use app_host_core::restart::{By, Phase, RefusalReason};
use app_host_core::status::{Status, VerdictRecord, millis};
use app_host_platform::console;

use super::client::{Client, ClientError};
use super::lines::Line;
use super::progress::Progress;
use super::{ANSWER, CtlError, Form, Outcome, Until, print, table};

/// Listens until an answer comes, or `limit` is over. How long that takes is the restart's business; whether the master is
/// still there is another question.
fn await_answer(
    client: &mut Client,
    socket: &Path,
    limit: Option<Duration>,
    mut on_event: impl FnMut(&Value),
) -> Result<Answer, CtlError> {
    let begin = Instant::now();
    loop {
        let left = limit.map_or(ANSWER, |limit| limit.saturating_sub(begin.elapsed()));
        if left.is_zero() {
            let waited = Duration::from_millis(millis(begin.elapsed()));
            return Err(ClientError::NoVerdict { path: socket.to_owned(), waited }.into());
        }
        match client.hear_within(left.min(ANSWER))? {
            Some(Line::Event(event)) => on_event(&event),
            Some(Line::Answer(answer)) => return Ok(answer),
            None => drop(Client::connect(socket, ANSWER)?.ask_for("STATUS", ANSWER)?),
        }
    }
}

/// Asks for a restart by these words, and follows it as far as is wanted.
pub(super) fn restart(
    client: &mut Client,
    socket: &Path,
    words: &str,
    until: Until,
    form: Form,
) -> Result<Outcome, CtlError> {
    match until {
        Until::Accepted => restart_to_begin(client, socket, words, form),
        Until::Verdict(limit) => restart_to_verdict(client, socket, words, limit, form),
    }
}

fn restart_to_begin(client: &mut Client, socket: &Path, words: &str, form: Form) -> Result<Outcome, CtlError> {
    client.say(words)?;
    let Answer::Nack(reason) = await_answer(client, socket, None, |_| {})? else {
        match form {
            Form::Json => drop(print(&format!("{}\n", json!({ "accepted": true, "reason": null })))?),
            Form::Text => drop(print("restart accepted\n")?),
        }
        return Ok(Outcome::Done);
    };
    // The answer has the reason only.
    let by = if words.starts_with("ROLLBACK") { By::Rollback } else { By::Control }.as_str();
    let record = last_verdicts(socket).into_iter().rev().find(|it| it.by == by && it.reason.as_ref() == Some(&reason));
    let detail = record.and_then(|record| record.detail);
    match form {
        Form::Json => {
            print(&format!("{}\n", json!({ "accepted": false, "reason": reason, "detail": detail })))?;
        }
        Form::Text => {
            let detail = foreign::printable(detail.as_ref().unwrap_or(&reason)).into_owned();
            console::error(&format!("app-host: restart refused: {detail}{}", hint(&reason, by)));
        }
    }
    Ok(Outcome::Refused)
}

/// The master's last verdicts; none if it doesn't say.
fn last_verdicts(socket: &Path) -> Vec<VerdictRecord> {
    status(socket).map(|status| status.verdicts).unwrap_or_default()
}

/// How the master stands, for what is said beside a verdict: nothing depends on it.
fn status(socket: &Path) -> Option<Status> {
    let status = Client::connect(socket, ANSWER).ok()?.ask_for("STATUS", ANSWER).ok()?;
    serde_json::from_str(&status).ok()
}

/// What a failure has led to.
fn aftermath(socket: &Path) -> String {
    let Some(status) = status(socket) else { return String::new() };
    if status.phase == Phase::Locked.as_str() {
        // A start takes what lies on disk, which is what has failed.
        return "; hint: the master is locked, and respawns no worker: put back what worked, and restart it as soon as possible"
            .to_owned();
    }
    if status.phase == Phase::Stopping.as_str() {
        return String::new();
    }
    format!("; every slot is back at version {}", table::short(&status.version))
}

/// What to do about a reason of a refusal, where that is urgent.
fn hint(reason: &str, by: &str) -> &'static str {
    // A newer master may have reasons that this program doesn't know.
    let Some(reason) = RefusalReason::from_word(reason) else { return "" };
    match reason {
        RefusalReason::AbortedRestart => "; hint: an earlier restart failed: restart the master as soon as possible",
        RefusalReason::RestartInFlight => {
            "; hint: wait for its verdict; while nothing is left of it but workers that drain, a rollback may begin, up to four former generations"
        }
        RefusalReason::NoWorkers => "; hint: set workers to 2 or more (or restart.single), and restart the master",
        // A start takes what lies on disk.
        RefusalReason::Incompatibility if by == By::Rollback.as_str() => {
            "; hint: put its configuration and library in place, then restart the master"
        }
        RefusalReason::Incompatibility => "; hint: restart the master to bring it in",
        RefusalReason::Starting
        | RefusalReason::Stopping
        | RefusalReason::BadDriver
        | RefusalReason::BadConfig
        | RefusalReason::BadArtifact
        | RefusalReason::CannotBind
        | RefusalReason::DatabankUnreachable
        | RefusalReason::Unchanged => "",
    }
}

fn restart_to_verdict(
    client: &mut Client,
    socket: &Path,
    words: &str,
    limit: Option<Duration>,
    form: Form,
) -> Result<Outcome, CtlError> {
    client.order("EVENTS", ANSWER)?;
    client.say(&format!("{words} WAIT"))?;
    let mut progress = Progress::default();
    let shows = form == Form::Text && io::stderr().is_terminal();
    let mut verdicts: Vec<VerdictRecord> = Vec::new();
    let mut on_event = |event: &Value| {
        if event["event"] == "verdict" {
            verdicts.extend(serde_json::from_value::<VerdictRecord>(event.clone()));
        } else if let Some(text) = progress.line(event).filter(|_| shows) {
            console::note(&foreign::printable(&text));
        }
    };
    let text = match await_answer(client, socket, limit, &mut on_event)? {
        Answer::Data(text) => text,
        // A verdict as well, or a master that is on its way out.
        Answer::Nack(text) if text.starts_with(|c: char| c.is_ascii_digit()) => text,
        Answer::Nack(reason) => return Err(CtlError::No(reason)),
        Answer::Ack => return Err(CtlError::Answer("ACK".to_owned())),
    };
    let number = text.split_once(' ').and_then(|(number, _)| number.parse().ok()).map(RequestId);
    let is_ours = |verdict: &VerdictRecord| Some(verdict.request) == number;
    if let Some(verdict) = verdicts.into_iter().find(is_ours) {
        return judge(&verdict, socket, form);
    }
    // The event was lost: this terminal was too slow.
    let verdict = last_verdicts(socket).into_iter().find(is_ours).ok_or(CtlError::Answer(text))?;
    judge(&verdict, socket, form)
}

/// Says what became of a restart.
fn judge(verdict: &VerdictRecord, socket: &Path, form: Form) -> Result<Outcome, CtlError> {
    let outcome = match &verdict.reason {
        None => Outcome::Done,
        Some(_) if verdict.verdict.starts_with("refused") => Outcome::Refused,
        Some(_) => Outcome::Failed,
    };
    if form == Form::Json {
        let text = serde_json::to_string(verdict).map_err(|error| CtlError::Answer(error.to_string()))?;
        print(&format!("{text}\n"))?;
        return Ok(outcome);
    }
    let (number, took) = (verdict.request, Duration::from_millis(verdict.took_ms));
    if !verdict.listeners_down.is_empty() {
        let names = foreign::printable(&verdict.listeners_down.join(", ")).into_owned();
        console::note(&format!("app-host: clients of these listeners can't connect: {names}; the log says why"));
    }
    match (&verdict.reason, &verdict.detail) {
        (Some(reason), detail) => {
            let (kind, what_then) = match outcome {
                Outcome::Refused => ("refused", hint(reason, &verdict.by).to_owned()),
                _ => ("failed", aftermath(socket)),
            };
            let detail = foreign::printable(detail.as_ref().unwrap_or(reason));
            console::error(&format!("app-host: restart {number} {kind}: {detail}{what_then}"));
        }
        (None, _) => drop(print(&format!(
            "restart {number} complete: generation {}, {}{}{}\n",
            verdict.generation,
            table::duration(took),
            match verdict.draining {
                0 => String::new(),
                1 => ", 1 former worker still drains".to_owned(),
                draining => format!(", {draining} former workers still drain"),
            },
            if verdict.unchanged { ", unchanged=true (library and configuration are what they were)" } else { "" }
        ))?),
    }
    Ok(outcome)
}
