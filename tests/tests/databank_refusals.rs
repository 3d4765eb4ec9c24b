//! What a restart may change about the databank, and what it is refused for; and that nobody is ever
//! shown a secret. After each refusal every worker that served before still serves
//! (`restart_is_refused` checks that).

use std::fs;
use std::time::Duration;

use app_host_tests::databank::{Client, Driver, timed};
use app_host_tests::mongo::Mongo;
use app_host_tests::{App, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Of the users that tests make.
const PASSWORDS: [&str; 2] = ["hunter2-first", "hunter2-second"];

fn bridge(databank: Value) -> Host {
    Host::new(&App::build().app("databank")).with("/databank", databank)
}

/// Writes and reads: the store is there, and is the one that it was.
fn assert_writes(host: &Host, expected: u64) {
    for (_, mut client) in Client::of_each_worker(host) {
        client.read("note", "a");
    }
    let sum = Client::new(host).increment("note", "a", "n", 1).done()["sum"].clone();
    assert_eq!(sum, expected, "the store is the one that it was");
}

#[test]
fn store_that_processes_cannot_share_is_refused_as_bad_driver() {
    let mut host = bridge(json!({ "driver": "memory" })).start();
    host.restart_is_refused("bad driver");
    // Also when the new configuration has another one: the active workers have this.
    host.set("/databank", json!({ "driver": "sqlite" }));
    host.restart_is_refused("bad driver");
}

#[test]
fn change_to_a_store_that_processes_cannot_share_is_refused_as_bad_driver() {
    let mut host = bridge(Driver::Sqlite.section()).start();
    assert_writes(&host, 1);
    host.set("/databank", json!({ "driver": "memory" }));
    let detail = host.restart_is_refused("bad driver");
    assert!(detail.contains("memory"), "{detail}");
    host.set("/databank", Driver::Sqlite.section());
    host.restart_completes();
    assert_writes(&host, 2);
}

#[test]
fn another_store_is_refused_as_incompatible_naming_the_key() {
    let (mongo, other) = (Driver::MongodbStandalone.section(), Driver::MongodbReplicaSet.section());
    let sqlite = json!({ "driver": "sqlite", "path": "one.sqlite" });
    let changed = |section: &Value, key: &str, value: Value| {
        let mut section = section.clone();
        section[key] = value;
        section
    };
    for (section, others) in [
        (
            &mongo,
            vec![
                (changed(&mongo, "uri", other["uri"].clone()), "databank.uri"),
                (changed(&mongo, "database", json!("another")), "databank.database"),
                (sqlite.clone(), "databank.driver"),
            ],
        ),
        (
            &sqlite,
            vec![
                (changed(&sqlite, "path", json!("two.sqlite")), "databank.path"),
                (json!({ "driver": "sqlite" }), "databank.path"),
                (mongo.clone(), "databank.driver"),
            ],
        ),
    ] {
        let mut host = bridge(section.clone()).start();
        assert_writes(&host, 1);
        for (other, key) in others {
            host.set("/databank", other);
            let detail = host.restart_is_refused("incompatibility");
            assert!(detail.contains(key), "expected \"{key}\": {detail}");
        }
        assert!(!host.path("two.sqlite").exists(), "nothing is made of what is refused");
        host.set("/databank", section.clone());
        host.restart_completes();
        assert_writes(&host, 2);
    }
}

#[test]
fn store_that_is_away_is_refused_as_databank_unreachable_and_comes_back() {
    let mongo = Mongo::standalone();
    let mut section = mongo.section();
    section["timeout"] = "1s".into();
    let host = bridge(section).start();
    assert_writes(&host, 1);
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        if signal == Signal::SIGKILL {
            mongo.kill();
        } else {
            mongo.signal(signal);
        }
        let (detail, took) = timed(|| host.restart_is_refused("databank unreachable"));
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(!detail.is_empty() && detail.len() < 1_000, "one line for people: {detail}");
        if signal == Signal::SIGKILL { mongo.start_again() } else { mongo.signal(Signal::SIGCONT) }
    }
    host.wait("a restart that completes", || {
        let verdict = host.restart().verdict;
        assert!(["complete", "refused: databank unreachable"].contains(&verdict.as_str()), "{verdict}");
        (verdict == "complete").then_some(())
    });
    assert_writes(&host, 2);
}

#[test]
fn section_that_is_not_valid_is_refused_with_what_is_wrong() {
    let mut host = bridge(json!({ "driver": "sqlite" })).start();
    for (section, expected) in [
        (json!({ "driver": "oracle" }), "databank"),
        (json!({ "driver": "mongodb" }), "uri"),
        (json!({ "driver": "mongodb", "uri": 7 }), "databank"),
        (json!({ "driver": "mongodb", "uri": { "file": "secret", "more": 1 } }), "databank"),
        (json!({ "driver": "sqlite", "uri": "mongodb://h" }), "uri"),
        (json!({ "driver": "sqlite", "timeout": "0s" }), "timeout"),
        (json!({ "driver": "sqlite", "pathh": "x" }), "pathh"),
    ] {
        host.set("/databank", section.clone());
        let detail = host.restart_is_refused("bad config");
        assert!(detail.contains(expected), "{section}, expected \"{expected}\": {detail}");
    }
}

/// The names of the indexes of a type, but for that of the ids.
fn indexes(section: &Value, kind: &str) -> Vec<String> {
    let text = |key: &str| section[key].as_str().expect("a text").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut names = runtime.block_on(async {
        let client = mongodb::Client::with_uri_str(text("uri")).await.expect("the server is there");
        let collection = client.database(&text("database")).collection::<mongodb::bson::Document>(kind);
        collection.list_index_names().await.expect("the collection is there")
    });
    names.retain(|name| name != "_id_");
    names.sort_unstable();
    names
}

#[test]
fn indexes_are_made_at_the_start_and_at_restarts_and_twice_does_no_harm() {
    let mut section = Driver::MongodbReplicaSet.section();
    let by_author = json!({ "type": "note", "paths": ["author.name", "at"] });
    section["indexes"] = json!([by_author]);
    let mut host = bridge(section.clone()).start();
    assert_eq!(indexes(&section, "note").len(), 1, "made before the first document is");
    assert_writes(&host, 1);
    host.restart_completes();
    assert_eq!(indexes(&section, "note").len(), 1);
    section["indexes"] =
        json!([by_author, { "type": "note", "paths": ["rank"] }, { "type": "other", "paths": ["at"] }]);
    host.set("/databank", section.clone());
    host.restart_completes();
    assert_eq!((indexes(&section, "note").len(), indexes(&section, "other").len()), (2, 1));
    let names = indexes(&section, "note").join(" ");
    assert!(names.contains("author.name") && names.contains("rank"), "{names}");
    // What no driver takes as a type or a path is no index either.
    for (kind, path) in [("a b", "x"), ("note", "$x"), ("note", "a..b")] {
        let mut wrong = section.clone();
        wrong["indexes"] = json!([{ "type": kind, "paths": [path] }]);
        host.set("/databank", wrong);
        let before = host.serving();
        let verdict = host.restart();
        assert!(verdict.verdict.starts_with("refused: "), "{kind} {path}: {}", verdict.line.text());
        assert!(verdict.line.str("detail").contains(if path == "x" { kind } else { path }), "{}", verdict.line.text());
        host.assert_all_serve(&before);
    }
    host.set("/databank", section);
    host.restart_completes();
    assert_writes(&host, 2);
}

#[test]
fn first_start_without_its_store_ends_with_1_and_says_why() {
    let mongo = Mongo::standalone();
    let mut section = mongo.section();
    section["timeout"] = "1s".into();
    let host = bridge(section);
    mongo.kill();
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    assert!(host.lines().iter().any(|line| line.text().contains("databank unreachable")), "the log says why");
    assert!(host.lines_with(said::WORKER_SPAWNED).is_empty(), "no worker was made for nothing");
    mongo.start_again();
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert_writes(&host, 1);
}

#[test]
fn file_that_is_no_database_is_unreachable_and_named() {
    let host = bridge(json!({ "driver": "sqlite", "path": "file" }));
    let path = host.path("file");
    let precious = "this is no database, and long enough to be sure of that\n".repeat(100);
    fs::write(&path, &precious).expect("the file can be written");
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let said = |line: &app_host_tests::Line| {
        line.text().contains("databank unreachable") && line.text().contains(&path.display().to_string())
    };
    assert!(host.lines().iter().any(said), "the log names the file");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), precious);
}

/// Checks that nothing of `host` shows a password: neither its log, nor any of its processes.
fn assert_nothing_is_shown(host: &Host) {
    let log = fs::read_to_string(host.path("log")).expect("there is a log");
    for line in log.lines() {
        assert!(!line.contains("hunter2"), "the log shows it: {line}");
    }
    let master = host.master();
    let all = [vec![master], process::children(master)].concat();
    assert!(all.len() > 1);
    for pid in all {
        for file in ["cmdline", "environ", "comm"] {
            let shown = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(!shown.windows(7).any(|bytes| bytes == b"hunter2"), "{pid} shows it in {file}");
        }
    }
}

/// As often as it is asked for, looks whether a process that lives for a short while shows the password.
fn watch_while<T>(host: &Host, act: impl FnOnce() -> T) -> T {
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_nothing_is_shown(host);
                app_host_tests::host::pause();
            }
        });
        let outcome = act();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        watcher.join().expect("nothing is shown");
        outcome
    })
}

#[test]
fn password_may_change_and_a_wrong_one_is_unreachable_and_none_is_ever_shown() {
    let mongo = Mongo::standalone();
    for (user, password) in ["one", "two"].into_iter().zip(PASSWORDS) {
        mongo.create_user(user, password);
    }
    let section = mongo.section();
    let with_login = |login: &str, options: &str| {
        let servers =
            mongo.uri().trim_start_matches("mongodb://").split(['/', '?']).next().unwrap_or_default().to_owned();
        let mut section = section.clone();
        section["uri"] = format!("mongodb://{login}@{servers}/?authSource=admin{options}").into();
        section["timeout"] = "5s".into();
        section
    };
    let [first, second] = PASSWORDS;
    let mut host = bridge(with_login(&format!("one:{first}"), "")).with("/log/level", "trace").start();
    assert_writes(&host, 1);
    for (login, options) in [
        (format!("two:{second}"), ""),
        (format!("two:{second}"), "&connectTimeoutMS=2000&serverSelectionTimeoutMS=3000&maxPoolSize=7&w=1"),
        (format!("one:{first}"), "&appName=another"),
    ] {
        host.set("/databank", with_login(&login, options));
        let verdict = watch_while(&host, || host.restart());
        assert_eq!(verdict.verdict, "complete", "{login}{options}: {}", verdict.line.text());
    }
    assert_writes(&host, 2);
    for login in ["one:hunter2-wrong", "hunter2-nobody:x", "hunter2:hunter2"] {
        host.set("/databank", with_login(login, ""));
        watch_while(&host, || host.restart_is_refused("databank unreachable"));
    }
    // What can't even be read as a URI isn't shown either, wherever it is refused.
    for uri in [
        "mongodb://one:hunter2-%zz@127.0.0.1",
        "mongodb://one:hunter2/@127.0.0.1:x",
        "hunter2",
        "mongodb://hunter2@",
        "mongodb+hunter2://h",
    ] {
        let mut section = with_login("one:x", "");
        section["uri"] = uri.into();
        host.set("/databank", section);
        let before = host.serving();
        let verdict = host.restart();
        assert!(verdict.verdict.starts_with("refused: "), "{uri}: {}", verdict.line.text());
        host.assert_all_serve(&before);
    }
    assert_nothing_is_shown(&host);
    host.set("/databank", with_login(&format!("one:{first}"), ""));
    host.restart_completes();
    // The store goes away: what the workers say of it shows nothing.
    mongo.kill();
    for (_, mut client) in Client::of_each_worker(&host) {
        let answer = client.read("note", "a");
        assert!(!answer.fails_with("unavailable").contains("hunter2"), "{answer}");
    }
    host.restart_is_refused("databank unreachable");
    assert_nothing_is_shown(&host);
    host.stop();
    let log = fs::read_to_string(host.path("log")).expect("there is a log");
    assert!(!log.contains("hunter2"));
}

#[test]
fn first_start_that_fails_shows_no_password() {
    let mongo = Mongo::standalone();
    let servers = mongo.uri().trim_start_matches("mongodb://").to_owned();
    for uri in [format!("mongodb://one:hunter2-wrong@{servers}"), "mongodb://one:hunter2@%zz:1".to_owned()] {
        let mut section = mongo.section();
        section["uri"] = uri.into();
        section["timeout"] = "3s".into();
        let host = bridge(section).with("/log/level", "trace");
        host.spawn();
        assert_eq!(host.wait_exit().code(), Some(1));
        let log = fs::read_to_string(host.path("log")).expect("there is a log");
        assert!(log.contains("databank unreachable") && !log.contains("hunter2"), "{log}");
    }
}

#[test]
fn secret_is_read_from_its_file_again_at_each_restart() {
    let mongo = Mongo::standalone();
    let mut section = mongo.section();
    section["timeout"] = "2s".into();
    section["uri"] = json!({ "file": "secrets/uri" });
    let mut host = bridge(section.clone());
    fs::create_dir(host.path("secrets")).expect("the directory can be made");
    let write =
        |host: &Host, name: &str, text: &str| fs::write(host.path(name), text).expect("the file can be written");
    write(&host, "secrets/uri", &format!("{}\n", mongo.uri()));
    host = host.start();
    assert_writes(&host, 1);
    host.restart_completes();
    // Moved, it is the same secret.
    fs::rename(host.path("secrets/uri"), host.path("secrets/moved")).expect("the file can be moved");
    let detail = host.restart_is_refused("bad config");
    assert!(detail.contains("secrets/uri"), "{detail}");
    section["uri"] = json!({ "file": "secrets/moved" });
    host.set("/databank", section.clone());
    host.restart_completes();
    assert_writes(&host, 2);
    // Said in the configuration itself, it is the same too.
    section["uri"] = mongo.uri().into();
    host.set("/databank", section.clone());
    host.restart_completes();
    assert_writes(&host, 3);
    // What it says by now counts, not what it said.
    section["uri"] = json!({ "file": "secrets/moved" });
    host.set("/databank", section);
    write(&host, "secrets/moved", "mongodb://127.0.0.1:1");
    let detail = host.restart_is_refused("incompatibility");
    assert!(detail.contains("databank.uri"), "{detail}");
    write(&host, "secrets/moved", "");
    let detail = host.restart_is_refused("bad config");
    assert!(detail.contains("secrets/moved"), "{detail}");
    fs::remove_file(host.path("secrets/moved")).expect("the file can be removed");
    fs::create_dir(host.path("secrets/moved")).expect("the directory can be made");
    host.restart_is_refused("bad config");
    fs::remove_dir(host.path("secrets/moved")).expect("the directory can be removed");
    // A worker that crashes meanwhile has the secret of its generation.
    let mark = host.mark();
    process::signal(host.serving()[0], Signal::SIGKILL);
    host.wait_after(mark, said::WORKER_READY, |_| true);
    assert_writes(&host, 4);
    write(&host, "secrets/moved", &mongo.uri());
    host.restart_completes();
    assert_writes(&host, 5);
}
