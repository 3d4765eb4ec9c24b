//! HTTP/2 connections that restarts move, as the HTTP/2 of others sees it: node's own, which is nghttp2, and python's `h2`
//! in `httpx`. Each has a way of its own to give up its table of fields.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use app_host_tests::{App, Host};

const NODE: &str = r#"
const session = require("http2").connect(process.argv[1]);
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
    const body = "x".repeat(line % 300);
    const head = { ":method": "POST", ":path": "/" + line, "x-number": line, "x-again": "again " + (line % 3) };
    const request = session.request(head);
    let answer, text = "";
    request.on("response", (head) => (answer = head));
    request.on("data", (part) => (text += part));
    request.on("end", () => console.log([
        session.socket.localPort, answer["generation"], answer["seen"], answer["x-number"], answer["x-again"], text === body,
    ].join(" ")));
    request.end(body);
});
"#;

const PYTHON: &str = r#"
import sys
import httpx
with httpx.Client(http1=False, http2=True, timeout=60) as client:
    for line in map(str.strip, sys.stdin):
        body = "x" * (int(line) % 300)
        head = {"x-number": line, "x-again": "again %d" % (int(line) % 3)}
        answer = client.post(sys.argv[1] + "/" + line, content=body, headers=head)
        port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
        told = (answer.headers[name] for name in ("generation", "seen", "x-number", "x-again"))
        print(port, *told, "true" if answer.text == body else "false", flush=True)
"#;

/// A client that asks once for each number that it is given, and answers with a line.
struct Client {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    url: String,
}

impl Client {
    fn start(command: &mut Command, host: &Host) -> Self {
        let url = format!("http://{}", host.address().tcp());
        let mut child =
            command.arg(&url).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is installed");
        let (asks, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, asks, answers, url }
    }

    /// Its port, and the generation that has answered.
    fn asks(&mut self, number: u64) -> (u64, u64) {
        writeln!(self.asks, "{number}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let (own, told) = line.trim().split_at(line.match_indices(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).0);
        assert_eq!(told, format!(" POST {}/{number} {number} again {} true", self.url, number % 3));
        let (port, generation) = own.split_once(' ').unwrap();
        (port.parse().unwrap(), generation.parse().unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It asks without a pause while the host is restarted: some clients read nothing between two requests, and so don't know
/// what they are told.
fn does_not_notice_restarts(command: &mut Command) {
    const RESTARTS: u64 = 10;
    let host = Host::new(&App::build().app("axum_mirror"))
        .with("/restart/http2", "move")
        .with("/admin", "127.0.0.1:0")
        .start();
    let mut client = Client::start(command, &host);
    let mut number = 0;
    let (port, first) = client.asks(number);
    for restart in 1..=RESTARTS {
        std::thread::scope(|scope| {
            let restarting = scope.spawn(|| host.restart_completes());
            while !restarting.is_finished() {
                number += 1;
                assert_eq!(client.asks(number).0, port);
            }
        });
        host.wait("an answer of the new worker", || {
            number += 1;
            (client.asks(number) == (port, first + restart)).then_some(())
        });
    }
    assert_eq!(host.metrics().count("http2_connections_moved_total"), RESTARTS);
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn nodes_connection_of_http_2_outlives_ten_restarts() {
    does_not_notice_restarts(Command::new("node").args(["-e", NODE]));
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn pythons_connection_of_http_2_outlives_ten_restarts() {
    let packages = std::env::var("PYTHON_HTTPX").expect("PYTHON_HTTPX leads to the packages of httpx[http2]");
    does_not_notice_restarts(Command::new("python3").args(["-c", PYTHON]).env("PYTHONPATH", packages));
}
