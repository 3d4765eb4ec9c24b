//! What each method does to a document.

use serde_json::{Value, json};

use super::Bank;

pub fn create_writes_what_is_not_there_yet(bank: &Bank) {
    let mut client = bank.client();
    let revision = client.create(bank.kind, "a", r#"{"n":1}"#).revision();
    let read = client.read(bank.kind, "a");
    assert_eq!(read.body["revision"], revision);
    assert_eq!(read.body["id"], "a");
    assert_eq!(read.value(), json!({ "n": 1 }));
    client.create(bank.kind, "a", r#"{"n":2}"#).fails_with("already exists");
    assert_eq!(client.read(bank.kind, "a").value(), json!({ "n": 1 }), "the first one stands");
    client.create(bank.kind, "empty", "{}").revision();
    assert_eq!(client.read(bank.kind, "empty").document(), "{}");
}

pub fn update_writes_what_is_there(bank: &Bank) {
    let mut client = bank.client();
    client.write("update", bank.kind, "a", r#"{"n":1}"#).fails_with("not found");
    client.read(bank.kind, "a").fails_with("not found");
    client.create(bank.kind, "a", r#"{"n":1,"gone":true}"#).revision();
    client.write("update", bank.kind, "a", r#"{"n":2}"#).revision();
    assert_eq!(client.read(bank.kind, "a").value(), json!({ "n": 2 }), "the whole document is replaced");
}

pub fn save_writes_either_way(bank: &Bank) {
    let mut client = bank.client();
    for document in [r#"{"n":1,"gone":true}"#, r#"{"n":2}"#] {
        let revision = client.save(bank.kind, "a", document).revision();
        let read = client.read(bank.kind, "a");
        assert_eq!(read.body["revision"], revision);
        assert_eq!(read.value(), serde_json::from_str::<Value>(document).expect("JSON"));
    }
}

pub fn compare_and_save_writes_what_nobody_has_written_to(bank: &Bank) {
    let mut client = bank.client();
    client.compare(bank.kind, "a", 1, &json!({})).fails_with("not found");
    let first = client.create(bank.kind, "a", r#"{"n":1}"#).revision();
    let second = client.compare(bank.kind, "a", first, &json!({ "n": 2 })).revision();
    client.compare(bank.kind, "a", first, &json!({ "n": 3 })).fails_with("conflict");
    assert_eq!(client.read(bank.kind, "a").value(), json!({ "n": 2 }));
    client.compare(bank.kind, "a", second, &json!({ "n": 4 })).revision();
    client.remove(bank.kind, "a").done();
    client.compare(bank.kind, "a", second, &json!({})).fails_with("not found");
    // A number that no document ever has is a conflict, and no fault of its own.
    client.create(bank.kind, "b", "{}").revision();
    for number in [0, u64::MAX, 1 << 63] {
        client.compare(bank.kind, "b", number, &json!({})).fails_with("conflict");
    }
}

pub fn remove_takes_what_is_there(bank: &Bank) {
    let mut client = bank.client();
    client.remove(bank.kind, "a").fails_with("not found");
    client.create(bank.kind, "a", "{}").revision();
    client.remove(bank.kind, "a").done();
    client.read(bank.kind, "a").fails_with("not found");
    client.remove(bank.kind, "a").fails_with("not found");
}

pub fn each_write_gives_another_revision(bank: &Bank) {
    let mut client = bank.client();
    let mut revisions = vec![client.create(bank.kind, "a", "{}").revision()];
    let mut seen = |revision: u64| {
        assert!(!revisions.contains(&revision), "{revision} again");
        revisions.push(revision);
    };
    seen(client.write("update", bank.kind, "a", "{}").revision());
    let revision = client.save(bank.kind, "a", "{}").revision();
    seen(revision);
    seen(client.compare(bank.kind, "a", revision, &json!({})).revision());
    seen(client.append(bank.kind, "a", "list", "1").revision());
    client.increment(bank.kind, "a", "count", 0).done();
    seen(client.read(bank.kind, "a").revision());
    client.increment(bank.kind, "a", "count", 1).done();
    seen(client.read(bank.kind, "a").revision());
    let unread = client.read(bank.kind, "a").revision();
    assert_eq!(client.read(bank.kind, "a").revision(), unread, "reading is no writing");
}

pub fn document_made_again_has_not_its_old_revision(bank: &Bank) {
    let mut client = bank.client();
    let old = client.create(bank.kind, "a", "{}").revision();
    client.remove(bank.kind, "a").done();
    client.create(bank.kind, "a", "{}").revision();
    client.compare(bank.kind, "a", old, &json!({})).fails_with("conflict");
}

pub fn types_are_apart(bank: &Bank) {
    let mut client = bank.client();
    let (upper, other) = (bank.kind.to_uppercase(), format!("{}-2", bank.kind));
    for kind in [bank.kind, &upper, &other] {
        client.create(kind, "a", &json!({ "kind": kind }).to_string()).revision();
    }
    client.remove(&other, "a").done();
    for kind in [bank.kind, &upper] {
        assert_eq!(client.read(kind, "a").value(), json!({ "kind": kind }));
        assert_eq!(client.search(kind, ""), ["a"]);
    }
}

pub fn read_many_gives_those_that_exist_in_the_order_of_the_ids(bank: &Bank) {
    let mut client = bank.client();
    let id = |number: u64| format!("id-{number:04}");
    for number in 0..30 {
        client.create(bank.kind, &id(number), &json!({ "n": number }).to_string()).revision();
    }
    let mut read = |ids: &[String]| {
        let body = client.read_many(bank.kind, ids).done();
        let documents = body["documents"].as_array().expect("a list").clone();
        for document in &documents {
            let value: Value = serde_json::from_str(document["text"].as_str().expect("a text")).expect("JSON");
            assert_eq!(document["id"], id(value["n"].as_u64().expect("a number")), "the document of this id");
            assert!(document["revision"].is_u64());
        }
        documents.iter().map(|document| document["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert!(read(&[]).is_empty());
    assert!(read(&[id(100)]).is_empty());
    let asked: Vec<_> = (0..1_000).map(|number| id((number * 7 + 3) % 1_000)).collect();
    let there: Vec<_> = asked.iter().filter(|asked| **asked < id(30)).cloned().collect();
    assert_eq!(there.len(), 30);
    assert_eq!(read(&asked), there);
}

pub fn faults_name_the_document(bank: &Bank) {
    let mut client = bank.client();
    client.create(bank.kind, "there", r#"{"text":"x"}"#).revision();
    let there = format!("{}/there", bank.kind);
    let absent = format!("{}/absent", bank.kind);
    for (answer, kind, name) in [
        (client.create(bank.kind, "there", "{}"), "already exists", &there),
        (client.read(bank.kind, "absent"), "not found", &absent),
        (client.write("update", bank.kind, "absent", "{}"), "not found", &absent),
        (client.remove(bank.kind, "absent"), "not found", &absent),
        (client.compare(bank.kind, "absent", 1, &json!({})), "not found", &absent),
        (client.compare(bank.kind, "there", 1, &json!({})), "conflict", &there),
        (client.increment(bank.kind, "there", "text", 1), "invalid", &there),
        (client.append(bank.kind, "there", "text", "1"), "invalid", &there),
    ] {
        let text = answer.fails_with(kind);
        assert!(text.contains(name.as_str()), "expected \"{name}\": {text}");
    }
}
