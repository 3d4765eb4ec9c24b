//! HTTPS connections that survive restarts, as the TLS of others sees it: OpenSSL in curl, python, node and by itself.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use app_host_tests::Host;
use app_host_tests::tls::Authority;
use serde_json::json;

fn site() -> Host {
    let host = Host::misbehaving().with("/restart/probation", "0s");
    let tls = json!({ "certificates": [Authority::new(host.directory()).localhost().config()] });
    host.with("/listen", json!(["127.0.0.1:0", { "address": "127.0.0.2:0", "name": "https", "tls": tls }])).start()
}

/// A client that asks once for each line that it is given, and answers with a line: what it has got, and from which port.
struct Client {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the client is installed");
        let (asks, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, asks, answers }
    }

    fn asks(&mut self) -> String {
        self.asks.write_all(b"\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Over restarts: each is answered by a new worker, on the connection of the first.
fn keeps_its_connection(host: &Host, command: &mut Command, version: &str) {
    let mut client = Client::start(command);
    let first = client.asks();
    let (port, seen) = first.split_once(' ').unwrap_or_else(|| panic!("{first}"));
    assert_eq!(seen, format!("https {version} localhost 0"));
    for _ in 0..5 {
        host.restart_completes();
        assert_eq!(client.asks(), format!("{port} https {version} localhost 0"));
        assert_eq!(client.asks(), format!("{port} https {version} localhost 0"));
    }
}

const PYTHON: &str = r#"
import http.client, socket, ssl, sys
port, authority, version = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=authority)
context.maximum_version = getattr(ssl.TLSVersion, version)
client = http.client.HTTPSConnection("localhost", port, context=context)
# The name is another address's.
client._create_connection = lambda address, *rest: socket.create_connection(("127.0.0.2", port))
for line in sys.stdin:
    client.request("GET", "/tls")
    answer = client.getresponse().read().decode()
    print(client.sock.getsockname()[1], answer, flush=True)
"#;

const NODE: &str = r#"
const [port, authority, version] = process.argv.slice(1);
const https = require("https"), fs = require("fs");
const agent = new https.Agent({ keepAlive: true, maxSockets: 1, maxVersion: version, ca: fs.readFileSync(authority) });
require("readline").createInterface({ input: process.stdin }).on("line", () => {
    https.get({ host: "127.0.0.2", servername: "localhost", port, path: "/tls", agent }, (answer) => {
        let text = "";
        const own = answer.socket.localPort;
        answer.on("data", (part) => (text += part)).on("end", () => console.log(own + " " + text));
    });
});
"#;

fn place(host: &Host) -> (String, String) {
    (host.address_of("https").tcp().port().to_string(), host.path("ca.pem").display().to_string())
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn python_keeps_its_connection() {
    let host = site();
    let (port, authority) = place(&host);
    for (name, version) in [("TLSv1_3", "TLSv1.3"), ("TLSv1_2", "TLSv1.2")] {
        keeps_its_connection(&host, Command::new("python3").args(["-c", PYTHON, &port, &authority, name]), version);
    }
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn node_keeps_its_connection() {
    let host = site();
    let (port, authority) = place(&host);
    for version in ["TLSv1.3", "TLSv1.2"] {
        keeps_its_connection(&host, Command::new("node").args(["-e", NODE, &port, &authority, version]), version);
    }
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn openssl_keeps_its_connection_and_updates_its_keys() {
    let host = site();
    let (port, authority) = place(&host);
    for (flag, version) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &format!("127.0.0.2:{port}"), "-servername", "localhost", "-CAfile"]);
        command.args([&authority, "-verify_return_error", "-quiet", flag]).stderr(Stdio::null());
        // Not `-quiet` alone: that takes no commands, and `K` is to ask for new keys.
        command.arg("-no_ign_eof");
        let mut client = Client::start(&mut command);
        for round in 0..4 {
            client.asks.write_all(b"GET /tls HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
            let (mut line, mut length) = (String::new(), 0);
            loop {
                line.clear();
                assert!(client.answers.read_line(&mut line).unwrap() > 0, "{version}, round {round}: it has ended");
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" && length > 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            std::io::Read::read_exact(&mut client.answers, &mut body).unwrap();
            assert_eq!(String::from_utf8(body).unwrap(), format!("https {version} localhost 0"));
            // New keys are asked for just before the connection moves. What is read with that letter is lost.
            if version == "TLSv1.3" {
                client.asks.write_all(b"K\n").unwrap();
            }
            host.restart_completes();
        }
    }
}

/// curl, with these words before the addresses.
fn curl(host: &Host, words: &[&str], times: usize) -> Vec<String> {
    let (port, authority) = place(host);
    let at = format!("localhost:{port}:127.0.0.2");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--cacert", &authority, "--resolve", &at]).args(words);
    command.args(["--write-out", "%{http_code} %{http_version} %{num_connects}\n", "--output", "/dev/null"]);
    for number in 0..times {
        command.arg(format!("https://localhost:{port}/tls"));
        if number > 0 {
            command.args(["--output", "/dev/null"]);
        }
    }
    let mut child = command.stdout(Stdio::piped()).spawn().expect("curl is installed");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = vec![lines.next().expect("an answer").unwrap()];
    if times > 1 {
        for _ in 0..3 {
            host.restart_completes();
        }
    }
    seen.extend(lines.map(Result::unwrap));
    assert!(child.wait().unwrap().success());
    assert!(Path::new(&authority).exists());
    seen
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn curl_keeps_its_connection_and_speaks_http_2_where_it_may() {
    let host = site();
    // Two a second: the restarts come in between.
    for version in ["--tlsv1.3", "--tls-max"] {
        let words = [&["--http1.1", "--rate", "2/s", version][..], if version == "--tls-max" { &["1.2"] } else { &[] }]
            .concat();
        let seen = curl(&host, &words, 8);
        assert_eq!(seen[0], "200 1.1 1");
        assert!(seen.len() == 8 && seen[1..].iter().all(|line| line == "200 1.1 0"), "{seen:?}");
    }
    assert_eq!(curl(&host, &["--http2"], 1), ["200 2 1"]);
}
