//! What tools of the system make of app-host: psmisc, bunyan, Prometheus and systemd. `BUNYAN` is the path of bunyan's
//! reader where that isn't on the PATH, `PROMTOOL` that of Prometheus' promtool.
//!
//! `killall` is psmisc's. It runs in a process namespace of its own, because it would reach the
//! masters of other tests as well.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use app_host_tests::build::workspace;
use app_host_tests::{Address, App, Connection, Host, process, said};
use serde_json::{Value, json};

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn killall_of_psmisc_restarts_and_kills_nobody() {
    let host = Host::misbehaving().launched_with(&["--pid-namespace"]).start();
    let workers = host.workers();
    let output = Command::new("nsenter")
        .args(["--target", &host.master().to_string(), "--pid", "--mount"])
        .args(["sh", "-c", "mount -t proc proc /proc && exec killall -USR2 app-host"])
        .output()
        .expect("nsenter (util-linux) is needed");
    assert!(output.status.success(), "killall (psmisc) is needed: {}", String::from_utf8_lossy(&output.stderr));
    for _ in &workers {
        host.wait_for(said::SIGNAL_LEFT, |line| line.str("signal").contains("USR2"));
    }
    assert_eq!(host.verdict(1).verdict, "complete");
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
    host.assert_all_serve(&host.serving());
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn bunyans_own_reader_takes_every_line() {
    let host = Host::misbehaving().start();
    host.restart_completes();
    host.write_config(b"{");
    host.restart_is_refused("bad config");
    host.stop();
    let log = host.path("log");
    let output = Command::new(std::env::var_os("BUNYAN").unwrap_or_else(|| "bunyan".into()))
        // What is no bunyan line to it is left out in this mode.
        .args(["--strict", "-o", "bunyan"])
        .arg(&log)
        .output()
        .expect("bunyan's reader (npm install bunyan) is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap();
    assert_eq!(read.lines().count(), fs::read_to_string(&log).unwrap().lines().count());
    assert!(read.contains("zero-downtime restart complete"));
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn sockets_of_systemds_own_activation_are_served_by_name_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (web, local) = (port.to_string(), path.to_str().unwrap());
    let arguments = ["--", "systemd-socket-activate", "-l", &web, "-l", local, "--fdname=web:local"];
    let listen = json!([{ "name": "local", "address": "unix:elsewhere" }, { "name": "web", "address": "127.0.0.2:0" }]);
    let host = Host::misbehaving().with("/listen", listen).launched_with(&arguments);
    host.spawn();
    // The first client is what the service is started for.
    let address = Address::parse(&web).unwrap();
    let mut first = host.wait("systemd-socket-activate (systemd is needed)", || Connection::connect(&address).ok());
    assert_eq!(first.get("/whoami").unwrap(), 200);
    host.wait_for(said::SERVING, |_| true);
    assert_eq!(host.address_of("web"), address);
    let mut other = Connection::connect(&host.address_of("local")).unwrap();
    assert_eq!(other.get("/whoami").unwrap(), 200);
    for _ in 0..3 {
        host.restart_completes();
        host.assert_all_serve(&host.serving());
    }
    assert_eq!(Connection::connect(&address).unwrap().get("/whoami").unwrap(), 200);
    host.stop();
    assert!(fs::exists(&path).unwrap(), "the file is systemd's");
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn promtool_finds_nothing_to_say_about_the_metrics() {
    let host = Host::misbehaving().with("/admin", "127.0.0.1:0").start();
    host.get("/whoami");
    host.restart_completes();
    host.install_bytes(b"no library");
    host.restart_is_refused("bad artifact");
    let (status, text) = host.ask_admin("/metrics");
    assert_eq!(status, 200);
    let mut promtool = Command::new(std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into()))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian's package prometheus) is needed");
    promtool.stdin.take().expect("it is piped").write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn promtool_understands_the_alerts() {
    let page = fs::read_to_string(app_host_tests::build::workspace().join("docs/operate/metrics.md")).unwrap();
    let (_, alerts) = page.split_once("## What to alert on").expect("the section");
    let expressions: Vec<_> = alerts.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).collect();
    assert!(expressions.len() > 7, "{expressions:?}");
    let rule = |(number, (expression, _)): (usize, &(&str, &str))| json!({ "alert": format!("Alert{number}"), "expr": expression });
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.yml");
    // JSON is YAML as well.
    fs::write(&file, json!({ "groups": [{ "name": "app-host", "rules": rules }] }).to_string()).unwrap();
    let output = Command::new(std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into()))
        .args(["check", "rules"])
        .arg(&file)
        .output()
        .expect("promtool (Debian's package prometheus) is needed");
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains(&format!("SUCCESS: {} rules found", rules.len())), "{said}");
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn unit_files_are_ones_that_systemd_takes_and_calls_safe() {
    let unit = fs::read_to_string(workspace().join("host/systemd/app-host.service")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app-host.service");
    // Where it would be installed, nothing is; and the manual page is installed by whoever packages it.
    let unit = unit.replace("/usr/local/bin/app-host", App::build().host().to_str().unwrap());
    fs::write(&path, unit.replace("Documentation=man:app-host(1)\n", "")).unwrap();
    let socket = directory.path().join("app-host.socket");
    fs::copy(workspace().join("host/systemd/app-host.socket"), &socket).unwrap();
    for (words, unit) in [
        (&["verify", "--man=no"][..], &path),
        (&["verify", "--man=no"], &socket),
        // The master is root for systemd, however few capabilities it has: so that the workers are somebody else.
        (&["security", "--offline=true", "--threshold=30"], &path),
    ] {
        let output = Command::new("systemd-analyze").args(words).arg(unit).output().expect("systemd is needed");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{words:?}: {said}");
        if words[0] == "verify" {
            assert_eq!(said, "");
        }
    }
}
