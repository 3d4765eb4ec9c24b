//! Searches that are long, slowly read, left alone, or overtaken by writes.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use app_host_tests::client::Connection;
use app_host_tests::databank::{Client, found};
use app_host_tests::process;
use serde_json::json;

use super::Bank;

/// How many documents, and how long the text in each is.
const COUNT: u64 = 10_000;
const BYTES: u64 = 4_000;

/// How much more memory a search may take at its peak: a small part of the 40 MB that are found.
const MOST_KIB: u64 = 8 * 1024;

/// Fills the store through one worker.
fn fill(client: &mut Client, kind: &str, count: u64, bytes: u64) {
    let question = json!({ "type": kind, "name": "create", "count": count, "bytes": bytes, "in_flight": 32 });
    client.ask("perform", question).done();
}

/// How many documents searches have given this worker, once no more come.
fn pulled_at_rest(client: &mut Client) -> u64 {
    const REST: Duration = Duration::from_millis(400);
    let (mut pulled, mut since) = (0, Instant::now());
    loop {
        let now = client.get("/pulled").done()["pulled"].as_u64().expect("a number");
        if now != pulled {
            (pulled, since) = (now, Instant::now());
        } else if pulled > 0 && since.elapsed() > REST {
            return pulled;
        }
        app_host_tests::host::pause();
    }
}

/// The ids of an answer of a search that is read to its end.
fn ids_of(connection: &mut Connection) -> Vec<String> {
    assert_eq!(connection.receive().expect("the whole answer"), 200);
    let text = connection.text();
    text.lines().map(|line| found(line).unwrap_or_else(|error| panic!("{error}")).id).collect()
}

pub fn ten_thousand_documents_are_streamed_in_bounded_memory(bank: &Bank) {
    // A host of its own: nothing else may take memory there.
    let host = bank.driver.host();
    let mut clients: Vec<_> = Client::of_each_worker(&host).into_iter().collect();
    fill(&mut clients[0].1, bank.kind, COUNT, BYTES);
    // Another worker searches, where there is one, whose memory the filling hasn't stretched.
    let (pid, mut watcher) = clients.pop().expect("a worker");
    let expected: Vec<_> = (0..COUNT).map(|number| format!("{number:08}")).collect();
    for sort in ["", r#","sort":[["number","ascending"]]"#] {
        let before = watcher.get("/pulled").done()["pulled"].as_u64().expect("a number");
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak can be reset");
        let resident = process::peak_resident_kib(pid).expect("the worker lives");
        let client = loop {
            let mut client = Client::new(&host);
            if client.worker() == pid {
                break client;
            }
        };
        let mut connection = client.begin_search(&format!(r#"{{"type":"{}"{sort}}}"#, bank.kind));
        // As long as nobody reads, nothing is fetched but what the buffers on the way take.
        let ahead = pulled_at_rest(&mut watcher) - before;
        assert!(ahead < COUNT * 3 / 4, "{ahead} documents were fetched for nobody");
        assert_eq!(ids_of(&mut connection), expected);
        let peak = process::peak_resident_kib(pid).expect("the worker lives");
        println!("{:?}{sort}: {ahead} ahead, {resident} KiB before, {peak} KiB at the peak", bank.driver);
        assert!(peak <= resident + MOST_KIB, "{sort}: from {resident} KiB to {peak} KiB");
    }
}

pub fn search_that_nobody_reads_on_harms_nobody(bank: &Bank) {
    let mut client = bank.client();
    fill(&mut client, bank.kind, 400, 50_000);
    let question = format!(r#"{{"type":"{}"}}"#, bank.kind);
    let waiting: Vec<_> = (0..20).map(|_| bank.client().begin_search(&question)).collect();
    for _ in 0..50 {
        // Asked and gone.
        drop(bank.client().begin_search(&question));
    }
    client.increment(bank.kind, "00000007", "number", 1).done();
    assert_eq!(client.search(bank.kind, r#""equals":[["number",8]]"#), ["00000007", "00000008"]);
    client.remove(bank.kind, "00000399").done();
    for mut connection in waiting {
        let ids = ids_of(&mut connection);
        assert!(ids.len() == 399 || ids.len() == 400, "{} documents", ids.len());
    }
}

pub fn search_gives_each_document_once_while_others_are_written(bank: &Bank) {
    let mut client = bank.client();
    fill(&mut client, bank.kind, 1_000, 20_000);
    // Written to while the search is under way: every tenth.
    let is_written = |id: &str| id.ends_with('5');
    for sort in ["", r#","sort":[["author","ascending"]]"#, r#","sort":[["number","descending"]]"#] {
        let mut connection = bank.client().begin_search(&format!(r#"{{"type":"{}"{sort}}}"#, bank.kind));
        for number in (5..1_000).step_by(10) {
            let id = format!("{number:08}");
            client.increment(bank.kind, &id, "number", 10_000).done();
            client.save(bank.kind, &format!("{id}-new"), r#"{"author":"author-50","number":500}"#).revision();
            client.remove(bank.kind, &format!("{id}-new")).done();
        }
        let mut seen = BTreeSet::new();
        for id in ids_of(&mut connection) {
            assert!(seen.insert(id.clone()) || is_written(&id) || id.ends_with("-new"), "{sort}: {id} came twice");
        }
        let missing = (0..1_000).map(|number| format!("{number:08}")).find(|id| !is_written(id) && !seen.contains(id));
        assert_eq!(missing, None, "{sort}");
        for number in (5..1_000).step_by(10) {
            client.increment(bank.kind, &format!("{number:08}"), "number", -10_000).done();
        }
    }
}
