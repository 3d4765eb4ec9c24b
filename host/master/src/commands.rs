//! What the operator wants at the control socket, and what it becomes: events for the machine, words to
//! the workers, and answers.

use serde_json::json;
use tokio::sync::oneshot;

use app_host_core::command::{Answer, Command, Until};
use app_host_core::ids::Time;
use app_host_core::not_resumed::LongLived;
use app_host_core::restart::{By, Event, Machine, Phase, Scale, WorkerView};
use app_host_core::status::{Measured, Status, WorkerStatus, millis};
use app_host_platform::metrics::Snapshot;
use app_host_platform::sys::stats::ThreadSnapshot;

use super::effects::Effects;
use super::requests::Target;
use crate::control::{ControlRequest, Reply};

/// Does what a client asks for; what the machine must know of it is returned.
pub(super) fn handle(asked: ControlRequest, effects: &mut Effects, machine: &Machine, now: Time) -> Option<Event> {
    let ControlRequest { command, answer: reply, .. } = asked;
    let answer = match command {
        Command::Restart(until) => return Some(restart(effects, By::Control, Target::Configured, (until, reply), now)),
        Command::Rollback(until, version) => {
            return Some(restart(effects, By::Rollback, Target::Earlier(version), (until, reply), now));
        }
        Command::Workers(number) => match machine.may_scale() {
            Ok(()) => {
                let _ = reply.send(Reply::Answer(Answer::Ack));
                return Some(Event::Scale(Scale::To(number)));
            }
            Err(refusal) => Answer::nack(refusal.reason()),
        },
        Command::Versions => Answer::Data(json!(effects.versions()).to_string()),
        Command::Wait(request) => {
            effects.answer_when(request, Until::Judged, reply);
            return None;
        }
        Command::Status => {
            // The client may have gone, here and below.
            let _ = reply.send(Reply::Status(Box::new(status(effects, machine, now))));
            return None;
        }
        Command::LogLevel(level) => {
            effects.set_log_level(level);
            Answer::Ack
        }
        // What a stop has announced isn't taken back.
        Command::Drain(_) if machine.phase() == Phase::Stopping => Answer::nack("stopping"),
        Command::Drain(on) => {
            effects.take_out_of_rotation(on);
            Answer::Ack
        }
        Command::ReloadCertificates => {
            effects.reload_certificates(reply);
            return None;
        }
        Command::Stop => {
            // Before the answer, after which a script may start the next master.
            effects.mark_stop();
            let _ = reply.send(Reply::Answer(Answer::Ack));
            return Some(Event::Stop);
        }
        // What the control socket's own thread answers.
        Command::Cmds | Command::Version | Command::Events => Answer::nack("unknown"),
    };
    let _ = reply.send(Reply::Answer(answer));
    None
}

/// Asks for a restart, and has the client wait for what becomes of it.
fn restart(
    effects: &mut Effects,
    by: By,
    target: Target,
    (until, reply): (Until, oneshot::Sender<Reply>),
    now: Time,
) -> Event {
    let event = effects.request(by, target, now);
    effects.answer_when(effects.requests().last(), until, reply);
    event
}

/// What a client is told before there is a machine; whether the master is to stop, which `stops` is called for before
/// the answer.
pub(super) fn too_early(asked: ControlRequest, stops: impl FnOnce()) -> bool {
    let stop = asked.command == Command::Stop;
    if stop {
        stops();
    }
    let answer = if stop { Answer::Ack } else { Answer::nack("starting") };
    let _ = asked.answer.send(Reply::Answer(answer));
    stop
}

/// How things stand, for metrics and the page.
pub(super) fn snapshot(effects: &Effects, machine: &Machine, now: Time) -> Snapshot {
    Snapshot { status: status(effects, machine, now), figures: effects.figures(), versions: json!(effects.versions()) }
}

fn status(effects: &Effects, machine: &Machine, now: Time) -> Status {
    let active = effects.active();
    let manifest = &active.version.manifest;
    Status {
        app_host: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: millis(now),
        phase: machine.phase().to_string(),
        app: manifest.app_name.clone(),
        app_version: manifest.app_version.clone(),
        magic: effects.magic().to_string(),
        generation: effects.active_number(),
        version: active.version.id.to_string(),
        workers_configured: active.config.workers,
        workers_wanted: Some(machine.workers_wanted()),
        log_level: effects.logging().level().to_string(),
        databank: Some(active.databank.place()),
        out_of_rotation: effects.is_out_of_rotation(),
        listeners_down: effects.listeners_down(),
        certificates: effects.certificate_states(),
        workers: machine.workers().map(|view| worker(effects, &view)).collect(),
        verdicts: effects.requests().verdicts(),
    }
}

fn worker(effects: &Effects, view: &WorkerView) -> WorkerStatus {
    let figures = effects.workers().figures(view.id);
    let sum = |what: fn(&ThreadSnapshot) -> u64| figures.as_ref().map_or(0, |figures| figures.stats.sum(what));
    WorkerStatus {
        slot: view.slot,
        generation: view.generation,
        version: effects.generations().get(&view.generation).map(|it| it.version.id.to_string()).unwrap_or_default(),
        pid: figures.as_ref().map_or(0, |figures| figures.pid),
        state: view.state.to_string(),
        uptime_ms: figures.as_ref().map_or(0, |figures| millis(figures.uptime)),
        connections: sum(|thread| thread.connections),
        in_flight: sum(|thread| thread.in_flight),
        requests: sum(|thread| thread.requests),
        handed_over: sum(|thread| thread.handed_over),
        received: sum(|thread| thread.taken_over),
        closed: sum(|thread| thread.dismissed),
        cut: sum(|thread| thread.cut),
        websockets_resumed: sum(|thread| thread.resumed(LongLived::WebSocket)),
        websockets_ended: sum(|thread| thread.ended(LongLived::WebSocket)),
        event_streams_resumed: sum(|thread| thread.resumed(LongLived::EventStream)),
        event_streams_ended: sum(|thread| thread.ended(LongLived::EventStream)),
        http2_moved: sum(|thread| thread.moved_http2),
        http2_not_moved: sum(ThreadSnapshot::http2_not_moved),
        measured: Measured::default(),
    }
}
