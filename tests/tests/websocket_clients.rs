//! WebSockets that survive restarts, as the clients of others see it: python's `websockets` and node's `ws`, each with
//! what it does by itself, compression offered and pings included.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use app_host_tests::{App, Host};

const PYTHON: &str = r"
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], ping_interval=0.05) as socket:
    own = socket.socket.getsockname()[1]
    for line in sys.stdin:
        socket.send(line.strip())
        print(own, socket.recv(timeout=30), flush=True)
";

const NODE: &str = r#"
const WebSocket = require("ws");
const socket = new WebSocket(process.argv[1]);
socket.on("open", () => {
    const own = socket._socket.localPort;
    setInterval(() => socket.ping(), 50).unref();
    socket.on("message", (message) => console.log(own, message.toString()));
    require("readline").createInterface({ input: process.stdin }).on("line", (line) => socket.send(line));
});
socket.on("close", (code) => process.exit(code === 1000 ? 0 : 1));
"#;

/// A client that sends each line that it is given, and prints its port and what has come back.
fn stays_connected(command: &mut Command) {
    const RESTARTS: u64 = 10;
    let host = Host::new(&App::build().app("axum_site")).with("/admin", "127.0.0.1:0").start();
    let address = format!("ws://{}/resumable", host.address().tcp());
    let mut child = command.arg(address).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is installed");
    let (mut asks, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut says = |number: u64| {
        writeln!(asks, "{number}").unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        let mut next = || words.next().unwrap_or_else(|| panic!("{number}: {line:?}"));
        let (port, generation, said) = (next(), next(), next());
        assert_eq!(said, number.to_string());
        (port, generation.parse::<u64>().unwrap())
    };
    let (port, first) = says(0);
    for restart in 1..=RESTARTS {
        host.restart_completes();
        assert_eq!(says(restart), (port.clone(), first + restart));
    }
    assert_eq!(host.metrics().count("websockets_resumed_total"), RESTARTS);
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn pythons_websockets_stays_connected_over_ten_restarts() {
    let packages = std::env::var("PYTHON_WEBSOCKETS").expect("PYTHON_WEBSOCKETS leads to the package websockets");
    stays_connected(Command::new("python3").args(["-c", PYTHON]).env("PYTHONPATH", packages));
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn nodes_ws_stays_connected_over_ten_restarts() {
    let packages = std::env::var("NODE_WS").expect("NODE_WS leads to the package ws");
    stays_connected(Command::new("node").args(["-e", NODE]).env("NODE_PATH", packages));
}
