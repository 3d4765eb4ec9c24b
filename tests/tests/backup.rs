//! The databank's file as operators handle it: a start that makes a new one says so, and a copy that was taken while the
//! service writes, or after its stop, can be put back.

use std::fs;
use std::path::Path;

use app_host_tests::databank::Client;
use app_host_tests::writers::Writers;
use app_host_tests::{App, Host, said};

fn host() -> Host {
    Host::new(&App::build().app("databank"))
        .with("/log/level", "info")
        .with("/databank", serde_json::json!({ "timeout": "15s" }))
}

/// Starts the service again, and returns which files it has made.
fn start_again(host: &Host) -> Vec<String> {
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    let created = |line: &&app_host_tests::Line| line.msg() == said::DATABANK_CREATED;
    host.look(mark, |lines| lines.iter().filter(created).map(|line| line.str("path").to_owned()).collect())
}

#[test]
fn a_start_that_makes_a_new_databank_warns_of_it_and_each_start_says_which_one_it_has() {
    let host = host();
    let file = host.path("state/data/databank.sqlite").display().to_string();
    assert_eq!(start_again(&host), [file.as_str()], "the very first start");
    let warning = host.lines_with(said::DATABANK_CREATED)[0].clone();
    assert!(warning.str("advice").contains("is the disk mounted?"), "{}", warning.text());
    assert_eq!(warning.number("level"), Some(40), "{}", warning.text());
    Client::new(&host).create("kept", "one", "{}").done();
    host.stop();

    assert!(start_again(&host).is_empty(), "its databank is there");
    Client::new(&host).read("kept", "one").document();
    host.stop();

    fs::rename(host.path("state"), host.path("not mounted")).unwrap();
    assert_eq!(start_again(&host), [file.as_str()], "its state is gone");
    Client::new(&host).read("kept", "one").fails_with("not found");

    let used = host.lines_with(said::DATABANK_IN_USE);
    assert_eq!(used.len(), 3, "{used:?}");
    assert!(used.iter().all(|line| (line.str("driver"), line.str("place")) == ("sqlite", &file)), "{used:?}");
    let status = host.control().ask_json("STATUS");
    assert_eq!(status["databank"], serde_json::json!({ "driver": "sqlite", "place": file }));
}

/// As docs/operate/backup.md does it with `sqlite3`.
fn back_up(file: &Path, copy: &Path) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    let copy = rusqlite::Connection::open(copy).unwrap();
    let verdict: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

#[test]
fn a_copy_taken_while_the_service_writes_can_be_put_back() {
    let host = host().start();
    let file = host.path("state/data/databank.sqlite");
    Client::new(&host).create("kept", "one", "{}").done();
    let writers = Writers::start(&host, 2);
    writers.wait_for_more(&host, 100);
    back_up(&file, &host.path("copy"));
    Client::new(&host).remove("kept", "one").done();
    writers.wait_for_more(&host, 100);
    let ledger = writers.stop();
    assert_eq!((ledger.failed, ledger.unavailable), (0, 0), "the copying disturbs nobody: {:#?}", ledger.failures);
    host.stop();

    for beside in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{beside}", file.display()));
    }
    fs::copy(host.path("copy"), &file).unwrap();
    assert!(start_again(&host).is_empty());
    Client::new(&host).read("kept", "one").document();
    host.stop();
}

#[test]
fn after_a_stop_the_log_beside_the_databank_belongs_to_its_copy() {
    let host = host().start();
    Client::new(&host).create("kept", "one", "{}").done();
    host.stop();
    let data = host.path("state/data");
    let wal = fs::metadata(data.join("databank.sqlite-wal")).unwrap().len();
    assert!(wal > 0, "who copies the first file alone would lose nothing: the page says otherwise");
    fs::rename(&data, host.path("old")).unwrap();
    fs::create_dir(&data).unwrap();
    for entry in fs::read_dir(host.path("old")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, data.join(path.file_name().unwrap())).unwrap();
    }
    assert!(start_again(&host).is_empty());
    Client::new(&host).read("kept", "one").document();
    host.stop();
}
