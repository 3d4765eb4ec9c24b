//! How app-host, nginx, HAProxy and plain hyper answer malformed and unusual requests, in one run:
//! `cargo run --release -p app-host-tests --bin differential`.
//!
//! The requests are `tests/src/differential/requests.tsv`. nginx and HAProxy pass what they take on to the plain hyper
//! server. `NGINX_PROGRAM` and `HAPROXY_PROGRAM` name their programs where those aren't on the PATH; a program that is
//! missing is said and has no column. Fails if app-host doesn't answer as the table expects. With `--all` each request is
//! shown, else those that servers answer differently.

mod servers;

use std::process::ExitCode;

use app_host_tests::differential::{ask_all, cases};
use app_host_tests::{App, Host};
use servers::{Proxy, serve_hyper};

fn main() -> ExitCode {
    let all = std::env::args().any(|argument| argument == "--all");
    let cases = cases();
    let host = Host::new(&App::build().app("answer_a")).with("/listen", serde_json::json!(["127.0.0.1:0"])).start();
    let hyper = serve_hyper();
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let proxies: Vec<_> = [Proxy::nginx(directory.path(), &hyper), Proxy::haproxy(directory.path(), &hyper)]
        .into_iter()
        .filter_map(|proxy| proxy.map_err(|missing| eprintln!("NOT ASKED: {missing}")).ok())
        .collect();
    let mut columns = vec![("app-host", ask_all(&host.address(), &cases)), ("hyper", ask_all(&hyper, &cases))];
    columns.extend(proxies.iter().map(|proxy| (proxy.name, ask_all(&proxy.address, &cases))));
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    println!("| request | RFC | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let (mut different, mut wrong) = (0, Vec::new());
    for (index, case) in cases.iter().enumerate() {
        let answers: Vec<_> = columns.iter().map(|(_, answers)| answers[index].as_str()).collect();
        let differs = answers.iter().any(|answer| *answer != answers[0]);
        different += usize::from(differs);
        if all || differs {
            println!("| {} | {} | {} |", case.name, case.section, answers.join(" | "));
        }
        if answers[0] != case.expected {
            wrong.push(format!("{}\t{}\t{}", case.name, case.expected, answers[0]));
        }
    }
    println!("\n{} requests, {different} answered differently", cases.len());
    if wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("app-host doesn't answer as the table expects (request, expected, answered):\n{}", wrong.join("\n"));
    ExitCode::FAILURE
}
