//! What the compiler says to somebody who gives `export_axum!` the wrong function: each mistake has its own words, and
//! each form that is right compiles.
//!
//! All of them are targets of one crate, which is checked once, offline and with the workspace's own lock file.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use app_host_tests::build::workspace;
use app_host_tests::dev::{shell_cargo, target_directory};
use serde_json::Value;

/// Right: what stands before the macro, and its arguments.
const RIGHT: [(&str, &str, &str); 15] = [
    ("plain", "fn router() -> Router { Router::new() }", "router"),
    ("of_host", "fn router(_: Host) -> Router { Router::new() }", "router"),
    ("waits", "async fn router() -> Router { tokio::task::yield_now().await; Router::new() }", "router"),
    (
        "boxed",
        "async fn router() -> Result<Router, Box<dyn Error>> { tokio::fs::read(\"x\").await?; Ok(Router::new()) }",
        "router",
    ),
    ("boxed_sync", "async fn router() -> Result<Router, Box<dyn Error + Send + Sync>> { Ok(Router::new()) }", "router"),
    ("boxed_send", "fn router(_: Host) -> Result<Router, Box<dyn Error + Send>> { Ok(Router::new()) }", "router"),
    ("boxed_now", "fn router() -> Result<Router, Box<dyn Error>> { Ok(Router::new()) }", "router"),
    ("io", "async fn router(_: Host) -> std::io::Result<Router> { Ok(Router::new()) }", "router"),
    ("text", "fn router() -> Result<Router, String> { Ok(Router::new()) }", "router"),
    ("start_error", "fn router() -> Result<Router, app_abi::StartError> { Ok(Router::new()) }", "router"),
    (
        "middleware",
        "fn router() -> axum::routing::MethodRouter { axum::routing::get(|| async { \"hello\" }) }",
        "router",
    ),
    ("closure", "", "|| Router::new()"),
    (
        "options",
        "fn router() -> Router { Router::new() } async fn flush() {}",
        "router, stop = flush, threads = 2, epoch = 3,",
    ),
    (
        "fallible_stop",
        "fn router() -> Router { Router::new() } async fn flush(_: Host) -> Result<(), Box<dyn Error>> { tokio::fs::read(\"x\").await?; Ok(()) }",
        "router, epoch = 3, stop = flush",
    ),
    ("stop_now", "fn router() -> Router { Router::new() } fn flush() {}", "router, stop = flush"),
];

/// Wrong: what stands before the macro, its arguments, and what must be said of it.
const WRONG: [(&str, &str, &str, &[&str]); 12] = [
    (
        "state",
        "#[derive(Clone)] struct Shop; fn router() -> Router<Shop> { Router::new() }",
        "router",
        &["the Router still waits for its state, a `Shop`", ".with_state(state)"],
    ),
    (
        "state_later",
        "#[derive(Clone)] struct Shop; async fn router(_: Host) -> Result<Router<Shop>, Box<dyn Error>> { Ok(Router::new()) }",
        "router",
        &["the Router still waits for its state, a `Shop`", ".with_state(state)"],
    ),
    (
        "not_send",
        "async fn router() -> Router { let count = std::rc::Rc::new(1); tokio::task::yield_now().await; drop(count); Router::new() }",
        "router",
        &["future cannot be sent between threads safely", "Rc<i32>", "awaited"],
    ),
    (
        "make_service",
        "fn router() -> axum::routing::IntoMakeService<Router> { Router::new().into_make_service() }",
        "router",
        &["makes a service a connection", "leave `.into_make_service()` out"],
    ),
    (
        "connect_info",
        "fn router() -> axum::extract::connect_info::IntoMakeServiceWithConnectInfo<Router, std::net::SocketAddr> { \
         Router::new().into_make_service_with_connect_info() }",
        "router",
        &["makes a service a connection", "`ConnectInfo<SocketAddr>` is there anyway"],
    ),
    (
        "argument",
        "struct Pool; fn router(_: Pool) -> Router { Router::new() }",
        "router",
        &["neither without arguments nor with a `Host` alone", "host.config()"],
    ),
    (
        "arguments",
        "fn router(_: Host, _: u16) -> Router { Router::new() }",
        "router",
        &["neither without arguments nor with a `Host` alone"],
    ),
    ("called", "const fn router() -> u8 { 1 }", "router()", &["neither without arguments nor", "without calling it"]),
    ("nothing", "fn router() { Router::<()>::new(); }", "router", &["`()` is no tower service of HTTP requests"]),
    (
        "error",
        "struct Broken; fn router() -> Result<Router, Broken> { Ok(Router::new()) }",
        "router",
        &["`Broken` can't say why the app doesn't start", "std::error::Error"],
    ),
    (
        "option",
        "fn router() -> Router { Router::new() }",
        "router, thread = 2",
        &["there is no option `thread`: there are `epoch`, `threads`, `stop` and `state`"],
    ),
    (
        "stop",
        "fn router() -> Router { Router::new() } async fn flush() -> u8 { 1 }",
        "router, stop = flush",
        &["is nothing that a `stop` function may return"],
    ),
];

/// What cargo says of each target: the errors, rendered.
fn checked() -> &'static BTreeMap<String, Vec<String>> {
    static CHECKED: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
    CHECKED.get_or_init(|| {
        let directory = tempfile::Builder::new().prefix("app-host-mistakes-").tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let manifest = format!(
            "[package]\nname = \"mistakes\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
             app-abi = {{ path = \"{}\", features = [\"axum\"] }}\n\
             axum = {{ version = \"0.8\", default-features = false, features = [\"http1\", \"tokio\"] }}\n\
             tokio = {{ version = \"1\", features = [\"fs\", \"rt\"] }}\n",
            workspace().join("app-abi").display()
        );
        fs::create_dir_all(path("src/bin")).unwrap();
        fs::write(path("Cargo.toml"), manifest).unwrap();
        fs::copy(workspace().join("Cargo.lock"), path("Cargo.lock")).unwrap();
        let write = |kind: &str, name: &str, before: &str, arguments: &str| {
            let text = format!(
                "#![allow(unused)]\nuse app_abi::Host;\nuse axum::Router;\nuse std::error::Error;\n{before}\n\
                 app_abi::export_axum!({arguments});\nfn main() {{}}\n"
            );
            fs::write(path(&format!("src/bin/{kind}_{name}.rs")), text).unwrap();
        };
        for (name, before, arguments) in RIGHT {
            write("right", name, before, arguments);
        }
        for (name, before, arguments, _) in WRONG {
            write("wrong", name, before, arguments);
        }
        let mut command: Command = shell_cargo();
        command.args(["check", "--offline", "--keep-going", "--bins", "--message-format=json"]);
        command.current_dir(directory.path()).env("CARGO_TARGET_DIR", target_directory());
        let output = command.output().expect("cargo can be run");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut checked = BTreeMap::new();
        for message in
            String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str::<Value>(line).ok())
        {
            let said: &mut Vec<String> = match message["target"]["name"].as_str() {
                Some(target) if target.starts_with("right_") || target.starts_with("wrong_") => {
                    checked.entry(target.to_owned()).or_default()
                }
                _ => continue,
            };
            let is_error = message["message"]["level"] == "error"
                && !message["message"]["spans"].as_array().is_none_or(Vec::is_empty);
            if is_error {
                said.push(message["message"]["rendered"].as_str().unwrap_or_default().to_owned());
            }
        }
        assert_eq!(checked.len(), RIGHT.len() + WRONG.len(), "every target was checked: {errors}");
        checked
    })
}

#[test]
fn every_form_that_an_axum_function_may_have_compiles() {
    for (name, ..) in RIGHT {
        let said = &checked()[&format!("right_{name}")];
        assert!(said.is_empty(), "{name}:\n{}", said.join("\n"));
    }
}

#[test]
fn each_mistake_with_an_axum_function_is_told_in_its_own_words() {
    for (name, _, _, expected) in WRONG {
        let said = checked()[&format!("wrong_{name}")].join("\n");
        for words in expected {
            assert!(said.contains(words), "{name}: {words:?} is missing in\n{said}");
        }
    }
}

#[test]
fn a_mistake_with_an_axum_function_is_told_once() {
    // A call in the macro's argument can't stand in a static either, whatever it returns.
    for (name, ..) in WRONG.iter().filter(|(name, ..)| *name != "called") {
        let said = &checked()[&format!("wrong_{name}")];
        assert_eq!(said.len(), 1, "{name}:\n{}", said.join("\n"));
    }
}
