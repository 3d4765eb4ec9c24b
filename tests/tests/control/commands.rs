//! Each command and each refusal, byte for byte.

use app_host_tests::{App, Control, Host};

#[test]
fn every_command_is_answered_byte_for_byte() {
    let host = Host::misbehaving().start();
    let mut control = host.control();
    for (line, answer) in [
        (
            "CMDS",
            "ACK CMDS DRAIN EVENTS LOGLEVEL RELOAD-CERTIFICATES RESTART ROLLBACK STATUS STOP VERSION VERSIONS WAIT WORKERS\n",
        ),
        ("version", concat!("ACK ", env!("CARGO_PKG_VERSION"), "\n")),
        ("LOGLEVEL debug", "ACK\n"),
        ("LogLevel restore", "ACK\n"),
        ("LOGLEVEL loud", "NACK invalid\n"),
        ("LOGLEVEL", "NACK invalid\n"),
        ("PUMP", "NACK unknown\n"),
        ("RELOAD-CERTIFICATES now", "NACK invalid\n"),
        ("reload-certificates", "NACK no listener has TLS\n"),
        ("WAIT 1", "NACK no such request\n"),
        ("WAIT 0", "NACK no such request\n"),
        ("RESTART", "ACK\n"),
        ("WAIT 1", "ACK 1 complete\n"),
        ("RESTART WAIT", "ACK 2 complete\n"),
        ("restart wait\r", "ACK 3 complete\n"),
        ("WAIT 2", "ACK 2 complete\n"),
        ("EVENTS now", "NACK invalid\n"),
    ] {
        assert_eq!(control.ask(line), answer, "{line}");
    }
    host.write_config(b"{");
    assert_eq!(control.ask("RESTART"), "NACK bad config\n");
    assert_eq!(control.ask("RESTART WAIT"), "NACK 5 refused: bad config\n");
    assert_eq!(control.ask("WAIT 4"), "NACK 4 refused: bad config\n");
    for number in 1..=5 {
        let line = host.verdict(number).line;
        assert_eq!(line.str("by"), "control socket", "{}", line.text());
    }
    assert_eq!(control.ask("STOP"), "ACK\n");
    assert_eq!(host.wait_exit().code(), Some(0));
    assert_eq!(control.line(), None);
    assert!(!host.path("state/control.sock").exists(), "its owner has removed it");
}

#[test]
fn lines_may_be_blank_said_ahead_and_ended_by_a_shut_down_half() {
    let host = Host::misbehaving().start();
    let mut control = host.control();
    control.send(b"\n\n  \r\nVERSION\nnonsense\n\nRESTART WAIT\nWAIT 1\nLOGLEVEL");
    control.end_input();
    let version = concat!("ACK ", env!("CARGO_PKG_VERSION"), "\n");
    for line in [version, "NACK unknown\n", "ACK 1 complete\n", "ACK 1 complete\n", "NACK incomplete\n"] {
        assert_eq!(control.line().as_deref(), Some(line));
    }
    assert_eq!(control.line(), None);
}

#[test]
fn pumpctl_of_the_ancestor_sets_a_level_and_goes_without_its_answer() {
    // As `pumpctl loglevel` does: three writes, and the end.
    let host = Host::misbehaving().start();
    let mut control = host.control();
    for part in ["LOGLEVEL ", "warn", "\n"] {
        control.send(part.as_bytes());
    }
    drop(control);
    host.wait("the level", || (host.control().ask_json("STATUS")["log_level"] == "warn").then_some(()));
}

#[test]
fn every_refusal_of_a_restart_is_its_reason() {
    // FAULTS 2: before the first workers are ready.
    let host = Host::misbehaving().with("/app/config", serde_json::json!({ "start_ms": 800 }));
    host.spawn();
    let mut control = host.wait("the control socket", || Control::connect(&host.path("state/control.sock")).ok());
    let answer = control.ask("RESTART");
    assert_eq!(answer, "NACK starting\n");
    drop(host);

    let host = Host::misbehaving().with("/workers", 1).start();
    assert_eq!(host.control().ask("RESTART"), "NACK no workers\n");
    assert_eq!(host.control().ask("RESTART WAIT"), "NACK 2 refused: no workers\n");
    drop(host);

    let host = Host::misbehaving().with("/databank", serde_json::json!({ "driver": "memory" })).start();
    assert_eq!(host.control().ask("RESTART"), "NACK bad driver\n");
    drop(host);

    let host = Host::misbehaving().start();
    host.install(&App::build().app("epoch_two"));
    assert_eq!(host.control().ask("RESTART"), "NACK incompatibility\n");
    host.install_bytes(b"no library");
    assert_eq!(host.control().ask("RESTART"), "NACK bad artifact\n");
}
