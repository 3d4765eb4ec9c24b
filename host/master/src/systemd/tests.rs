use super::*;

fn pair() -> (tempfile::TempDir, UnixDatagram, Systemd) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let systemd = Systemd::new(Some(connect(path.as_os_str()).unwrap()), None);
    (directory, manager, systemd)
}

fn heard(manager: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 1024];
    std::iter::from_fn(|| manager.recv(&mut buffer).ok().map(|len| String::from_utf8_lossy(&buffer[..len]).into()))
        .collect()
}

#[test]
fn each_reload_is_followed_by_ready_and_nothing_is_ready_behind_stopping() {
    let (_directory, manager, systemd) = pair();
    systemd.serving("two serve");
    systemd.verdict("refused at the gate");
    systemd.reloading();
    systemd.reloading();
    systemd.verdict("complete");
    systemd.reloading();
    systemd.stopping();
    systemd.verdict("failed: stopped");
    systemd.stopping();
    systemd.reloading();
    let heard: Vec<_> =
        heard(&manager).iter().map(|message| message.split(['=', '\n']).next().unwrap().to_owned()).collect();
    assert_eq!(heard, ["READY", "STATUS", "RELOADING", "READY", "RELOADING", "STOPPING"]);
}

#[test]
fn more_time_is_asked_for_while_something_is_under_way_and_then_no_more() {
    let (_directory, manager, systemd) = pair();
    let second = Duration::from_secs(1);
    systemd.extend();
    assert!(heard(&manager).is_empty(), "how long it may take isn't known yet");
    let deadlines = Deadlines {
        preparation: second,
        start: second,
        probation: second,
        state: Duration::ZERO,
        shutdown: second,
        delay: second,
        workers: 2,
    };
    systemd.expect(deadlines);
    systemd.extend();
    assert_eq!(heard(&manager), ["EXTEND_TIMEOUT_USEC=10000000\n"]);
    assert!(systemd.extends_at().is_some_and(|at| at <= Instant::now() + 2 * second));
    systemd.serving("two serve");
    systemd.extend();
    assert_eq!(heard(&manager), ["READY=1\nSTATUS=two serve\n"]);
    assert_eq!(systemd.extends_at(), None);
    systemd.reloading();
    assert!(heard(&manager)[0].ends_with("\nEXTEND_TIMEOUT_USEC=10000000\n"));
    systemd.verdict("complete");
    assert_eq!((heard(&manager).len(), systemd.extends_at()), (1, None));
    systemd.stopping();
    assert_eq!(heard(&manager), ["STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=10000000\n"]);
    // Long past all deadlines the manager is to do what it is for.
    systemd.since.set(Instant::now().checked_sub(100 * second).unwrap());
    systemd.extend();
    assert_eq!((heard(&manager), systemd.extends_at()), (Vec::<String>::new(), None));
}

#[test]
fn a_status_is_one_assignment_whatever_it_says() {
    let (_directory, manager, systemd) = pair();
    systemd.status("a\nREADY=1\r\nb");
    assert_eq!(heard(&manager), ["STATUS=a READY=1  b\n"]);
}

#[test]
fn a_manager_that_does_not_read_is_not_waited_for_and_told_again_later() {
    let (_directory, manager, systemd) = pair();
    for _ in 0..10_000 {
        systemd.status("many");
    }
    systemd.serving("at last");
    assert!(!heard(&manager).iter().any(|message| message.contains("at last")), "there was no room");
    systemd.alive();
    assert_eq!(heard(&manager), ["WATCHDOG=1\nREADY=1\nSTATUS=at last\n"]);
}

#[test]
fn abstract_addresses_are_taken_and_wrong_ones_are_errors() {
    let name = format!("app-host-notify-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
    manager.set_nonblocking(true).unwrap();
    let systemd = Systemd::new(Some(connect(OsStr::new(&format!("@{name}"))).unwrap()), None);
    systemd.stopping();
    assert_eq!(heard(&manager), ["STOPPING=1\nSTATUS=stopping\n"]);
    assert!(connect(OsStr::new("/nowhere/at/all")).is_err());
}

#[test]
fn watchdog_is_that_of_this_process() {
    let given = |pid: Option<&str>, micros: &str| {
        let (pid, micros) = (pid.map(str::to_owned), micros.to_owned());
        watchdog(move |name| if name == "WATCHDOG_PID" { pid.clone() } else { Some(micros.clone()) }, 7)
    };
    assert_eq!(given(None, "3000000"), Some(Duration::from_millis(1500)));
    assert_eq!(given(Some("7"), "2"), Some(Duration::from_micros(1)));
    for (pid, micros) in [(Some("8"), "3000000"), (None, "0"), (None, "soon"), (None, "-1"), (None, "1")] {
        assert_eq!(given(pid, micros), None, "{pid:?} {micros}");
    }
}
