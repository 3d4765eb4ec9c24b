//! Nobody waits for a log: with one that nobody reads the service serves, restarts, answers and ends as ever, and
//! what couldn't be written is counted and told later.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use app_host_tests::{Address, App, Connection, Host, Line, process, said};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::json;

/// A service whose log is a FIFO that the test has open and doesn't read, and its address.
fn serving_with_a_stalled_log(host: Host) -> (Host, File, Address) {
    let host = host.with("/log/file", "fifo").with("/log/level", "debug").with("/listen", json!(["unix:socket"]));
    nix::unistd::mkfifo(&host.path("fifo"), Mode::S_IRWXU).unwrap();
    let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(host.path("fifo")).unwrap();
    // A page: full before the first worker is ready.
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    host.spawn();
    host.wait("the control socket", || host.ctl(&["status"]).status.success().then_some(()));
    host.wait("the workers to serve", || (host.control().ask_json("STATUS")["phase"] == "serving").then_some(()));
    let address = Address::parse(&format!("unix:{}", host.path("socket").display())).unwrap();
    (host, reader, address)
}

fn telling() -> Host {
    Host::new(&App::build().app("telling"))
}

/// Reads until `text` has come.
fn read_until(host: &Host, reader: &mut File, text: &str) -> String {
    let mut read = Vec::new();
    host.wait(text, || {
        let _ = reader.read_to_end(&mut read);
        String::from_utf8_lossy(&read).contains(text).then_some(())
    });
    String::from_utf8(read).unwrap()
}

#[test]
fn service_restarts_answers_and_ends_and_tells_what_was_lost() {
    let (host, mut reader, address) = serving_with_a_stalled_log(telling());
    let mut kept = Connection::connect(&address).unwrap();
    for _ in 0..5 {
        host.install_fresh(&App::build().app("telling"));
        let output = host.ctl(&["restart", "--wait"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(kept.get("/print").unwrap(), 200);
        assert_eq!(Connection::connect(&address).unwrap().get("/event").unwrap(), 200);
    }
    // More than any memory of a writer holds.
    for _ in 0..3 {
        assert_eq!(Connection::connect(&address).unwrap().get("/flood/3000").unwrap(), 200);
    }
    let text = read_until(&host, &mut reader, "lines lost");
    for line in text.lines().filter(|line| line.contains("lines lost")) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["lines"].as_u64() > Some(0), "{line}");
    }
    // It stalls again, and the end is bounded all the same.
    let workers = host.workers();
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait_exit().code(), Some(0));
    assert!(workers.iter().all(|pid| !process::is_alive(*pid)));
}

#[test]
fn an_app_that_prints_to_either_stream_is_not_taken_for_hung() {
    let (host, _reader, address) = serving_with_a_stalled_log(telling().with("/hang_timeout", "10s"));
    let before = host.workers();
    for route in ["/complain/3000", "/flood/3000", "/event"] {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let address = address.clone();
                std::thread::spawn(move || Connection::connect(&address).unwrap().get(route).unwrap())
            })
            .collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), 200, "{route}");
        }
    }
    assert_eq!(host.workers(), before, "none was replaced");
}

#[test]
fn what_an_app_prints_to_standard_error_is_a_line_of_bunyans() {
    let host = telling().start();
    host.get("/complain/2");
    let is_its = |line: &Line| line.msg().starts_with("complaint 1 ");
    let line = host.wait("the app's line", || host.lines().into_iter().find(is_its));
    assert_eq!((line.str("target"), line.number("level")), ("stderr", Some(30)));
    assert!(host.workers().contains(&line.pid()), "{}", line.text());
}

#[test]
fn a_panic_that_can_only_abort_is_in_the_log_with_its_message_and_place() {
    let host = telling().start();
    let _ = host.connect().get("/callback");
    let message = "app panicked where it can't unwind, and aborts";
    let line = host.wait_for(message, |line| line.str("panic") == "the callback found no row");
    assert!(line.str("place").contains("telling.rs:"), "{}", line.text());
    host.wait_for(message, |line| line.str("panic") == "panic in a function that cannot unwind");
    let exited = host.wait_for(said::WORKER_EXITED, |line| line.str("status").starts_with("signal 6"));
    assert!(exited.str("routes").contains("/callback"), "{}", exited.text());
}

#[test]
fn the_last_error_of_a_worker_that_aborts_is_in_the_log() {
    let host = telling().start();
    for _ in 0..5 {
        let mark = host.mark();
        let _ = host.connect().get("/last-error");
        host.wait_after(mark, "the last error", |line| line.number("level") == Some(50));
        host.wait_after(mark, said::WORKER_READY, |_| true);
    }
}
