//! What every driver that needs no server does alike, seen through [`Databank`].
//!
//! The suite that runs against all drivers is in the crate of the tests, through the real host. This one is quick, and
//! compares the two drivers with each other on random steps.

mod drivers_agree;
mod processes;

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(20);

pub fn sqlite(path: &Path, timeout: Duration) -> Databank {
    let setup = Setup { store: Store::Sqlite { path: path.to_owned() }, timeout };
    Databank::open(&setup, Making::IfMissing).unwrap()
}

fn memory() -> Databank {
    Databank::open(&Setup { store: Store::Memory, timeout: TIMEOUT }, Making::IfMissing).unwrap()
}

pub fn key(id: &str) -> Key {
    Key::new("note", id).unwrap()
}

pub fn document(value: &Json) -> Document {
    Document::parse(value.to_string().as_bytes()).unwrap()
}

fn path(path: &str) -> FieldPath {
    FieldPath::parse(path).unwrap()
}

fn value(value: &Json) -> Json {
    value.clone()
}

async fn save(databank: &Databank, id: &str, value: &Json) -> u64 {
    databank.write(key(id), Mode::Save, document(value)).await.unwrap()
}

async fn read(databank: &Databank, id: &str) -> Json {
    serde_json::from_slice(&databank.read(key(id)).await.unwrap().text).unwrap()
}

async fn ids(mut documents: Documents) -> Vec<String> {
    let mut ids = Vec::new();
    while let Some(document) = documents.next().await {
        ids.push(document.unwrap().id);
    }
    ids
}

fn query(equals: &[(&str, Json)], sort: &[(&str, bool)], skip: u64, limit: Option<u64>) -> Query {
    let equals: Vec<_> = equals.iter().map(|(path, value)| (*path, value.to_string())).collect();
    let equals: Vec<_> = equals.iter().map(|(path, value)| (*path, value.as_bytes())).collect();
    Query::new("note", &equals, sort, skip, limit).unwrap()
}

macro_rules! claims {
    ($($claim:ident)*) => {
        mod in_sqlite {
            $(#[tokio::test]
            async fn $claim() {
                let directory = tempfile::tempdir().unwrap();
                super::$claim(super::sqlite(&directory.path().join("databank"), super::TIMEOUT)).await;
            })*
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $claim() {
                super::$claim(super::memory()).await;
            })*
        }
    };
}

claims! {
    each_way_of_writing_has_its_outcomes
    of_two_that_compare_one_wins
    increment_makes_what_is_missing_and_keeps_the_rest
    append_makes_what_is_missing_and_keeps_the_rest
    nothing_grows_beyond_what_can_be_read
    read_many_keeps_the_order_of_the_ids
    a_search_finds_what_equals
    a_search_sorts_skips_and_ends
    a_search_goes_on_over_many_pages
    a_document_that_moved_while_it_was_searched_does_not_come_from_its_old_place
    concurrent_increments_lose_nothing
}

async fn each_way_of_writing_has_its_outcomes(databank: Databank) {
    databank.prepare().await.unwrap();
    let write = |mode| databank.write(key("a"), mode, document(&json!({"n": 1})));
    let not_there = Fault::NotFound("note/a is not there".to_owned());
    for missing in [Mode::Update, Mode::Compare(1)] {
        assert_eq!(write(missing).await, Err(not_there.clone()));
    }
    assert_eq!(databank.read(key("a")).await, Err(not_there.clone()));
    assert_eq!(databank.remove(key("a")).await, Err(not_there.clone()));

    let mut revisions = vec![write(Mode::Create).await.unwrap()];
    assert_eq!(write(Mode::Create).await, Err(Fault::AlreadyExists("note/a is there already".to_owned())));
    revisions.push(write(Mode::Update).await.unwrap());
    revisions.push(write(Mode::Save).await.unwrap());
    let conflict = Fault::Conflict("note/a has another revision by now".to_owned());
    for stale in [revisions[0], 0, u64::MAX] {
        assert_eq!(write(Mode::Compare(stale)).await, Err(conflict.clone()));
    }
    revisions.push(write(Mode::Compare(revisions[2])).await.unwrap());
    let stored = databank.read(key("a")).await.unwrap();
    assert_eq!((stored.id.as_str(), &stored.text[..]), ("a", &br#"{"n":1}"#[..]));
    assert_eq!(stored.revision, revisions[3]);
    assert_eq!(revisions.iter().collect::<BTreeSet<_>>().len(), 4);

    databank.remove(key("a")).await.unwrap();
    assert_eq!(databank.read(key("a")).await, Err(not_there));
    // Another type is another document.
    let other = Key::new("other", "b").unwrap();
    databank.write(other, Mode::Create, document(&json!({}))).await.unwrap();
    assert!(databank.read(key("b")).await.is_err());
}

async fn of_two_that_compare_one_wins(databank: Databank) {
    let mut revision = save(&databank, "a", &json!({})).await;
    for round in 0..20 {
        let write = |writer: i32| databank.write(key("a"), Mode::Compare(revision), document(&json!({ "w": writer })));
        let outcomes = join_all((0..4).map(write)).await;
        let winners: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        revision = *winners[0];
    }
}

async fn increment_makes_what_is_missing_and_keeps_the_rest(databank: Databank) {
    let increment = |at: &str, by| databank.increment(key("a"), path(at), by);
    assert_eq!(increment("n.m", 2).await, Ok(2));
    let before = databank.read(key("a")).await.unwrap().revision;
    assert_eq!(increment("n.m", -5).await, Ok(-3));
    assert_eq!(increment("n.o", i64::MAX).await, Ok(i64::MAX));
    assert_ne!(databank.read(key("a")).await.unwrap().revision, before);
    assert!(matches!(increment("n.o", 1).await, Err(Fault::Invalid(_))));
    assert!(matches!(increment("n", 1).await, Err(Fault::Invalid(_))));
    assert!(matches!(increment("x.y.z", 1).await, Ok(1)));
    assert!(matches!(increment("n.m.x", 1).await, Err(Fault::Invalid(_))));
    assert_eq!(read(&databank, "a").await, json!({"n": {"m": -3, "o": i64::MAX}, "x": {"y": {"z": 1}}}));
    save(&databank, "a", &json!({"f": 1.0, "n": null, "l": [1]})).await;
    for at in ["f", "n", "l", "l.0", "n.x"] {
        assert!(matches!(increment(at, 1).await, Err(Fault::Invalid(_))), "{at}");
    }
    assert_eq!(read(&databank, "a").await, json!({"f": 1.0, "n": null, "l": [1]}));
}

async fn append_makes_what_is_missing_and_keeps_the_rest(databank: Databank) {
    let append = |at: &str, item: Json| databank.append(key("a"), path(at), value(&item));
    let first = append("l", json!([1])).await.unwrap();
    let second = append("l", json!({"x": null})).await.unwrap();
    assert_ne!(first, second);
    append("o.l", json!(1.0)).await.unwrap();
    for at in ["o", "o.l.x", "l.0"] {
        assert!(matches!(append(at, json!(1)).await, Err(Fault::Invalid(_))), "{at}");
    }
    assert_eq!(read(&databank, "a").await, json!({"l": [[1], {"x": null}], "o": {"l": [1.0]}}));
}

async fn nothing_grows_beyond_what_can_be_read(databank: Databank) {
    let large = json!("x".repeat(3 << 19 >> 1));
    let mut grown = 0;
    loop {
        match databank.append(key("b"), path("l"), value(&large)).await {
            Ok(_) => grown += 1,
            Err(fault) => break assert!(matches!(fault, Fault::Invalid(_)), "{fault}"),
        }
        assert!(grown < 50);
    }
    assert_eq!(read(&databank, "b").await["l"].as_array().unwrap().len(), grown);
}

async fn read_many_keeps_the_order_of_the_ids(databank: Databank) {
    let large = json!({"text": "x".repeat(10_000)});
    for number in 0..300 {
        save(&databank, &number.to_string(), &large).await;
    }
    let wanted = || (0..600).rev().map(|number: i32| number.to_string());
    let kind = || Kind::new("note").unwrap();
    let found = ids(databank.read_many(kind(), wanted().collect())).await;
    assert_eq!(found, wanted().skip(300).collect::<Vec<_>>());
    assert!(ids(databank.read_many(kind(), Vec::new())).await.is_empty());
}

async fn a_search_finds_what_equals(databank: Databank) {
    let documents = json!({
        "float": {"v": 1.0}, "int": {"v": 1}, "list": {"v": [1]}, "missing": {}, "null": {"v": null},
        "object": {"v": {"v": 1}}, "text": {"v": "1"}, "true": {"v": true}, "nan": {"w": {"x": [{"y": 1}]}},
    });
    for (id, value) in documents.as_object().unwrap() {
        save(&databank, id, value).await;
    }
    for (at, value, found) in [
        ("v", json!(1), vec!["float", "int"]),
        ("v", json!(1.0), vec!["float", "int"]),
        ("v", json!("1"), vec!["text"]),
        ("v", json!(true), vec!["true"]),
        ("v", json!(null), vec!["missing", "nan", "null"]),
        ("v.v", json!(1), vec!["object"]),
        ("w.x.y", json!(1), vec![]),
        ("w.x.0.y", json!(1), vec![]),
        ("v.0", json!(1), vec![]),
        ("v", json!("$exists"), vec![]),
    ] {
        assert_eq!(ids(databank.search(query(&[(at, value.clone())], &[], 0, None))).await, found, "{at} {value}");
    }
    let both = query(&[("v", json!(1)), ("v", json!(2))], &[], 0, None);
    assert!(ids(databank.search(both)).await.is_empty());
}

async fn a_search_sorts_skips_and_ends(databank: Databank) {
    for (id, value) in [("a", json!({"n": 2, "t": "x"})), ("b", json!({"n": 1})), ("c", json!({"n": 2, "t": "w"}))] {
        save(&databank, id, &value).await;
    }
    save(&databank, "d", &json!({})).await;
    for (sort, found) in [
        (vec![], "abcd"),
        (vec![("n", false)], "dbac"),
        (vec![("n", true)], "acbd"),
        (vec![("n", true), ("t", false)], "cabd"),
        (vec![("t", true), ("n", true)], "acbd"),
    ] {
        let found: Vec<_> = found.chars().map(String::from).collect();
        for skip in 0..6 {
            for limit in [None, Some(0), Some(1), Some(2), Some(4), Some(9)] {
                let window = query(&[], &sort, skip, limit);
                let expected = found.iter().skip(usize::try_from(skip).unwrap());
                let expected: Vec<_> =
                    expected.take(limit.map_or(9, |limit| usize::try_from(limit).unwrap())).collect();
                assert_eq!(
                    ids(databank.search(window)).await.iter().collect::<Vec<_>>(),
                    expected,
                    "{sort:?} {skip} {limit:?}"
                );
            }
        }
    }
}

async fn a_search_goes_on_over_many_pages(databank: Databank) {
    // More documents than fit into a page, and more places than are held at once.
    let documents: Vec<_> = (0..700_u32)
        .map(|number| {
            let group = number * 7919 % 10;
            (format!("{number:03}"), json!({"g": group, "t": format!("{}{}", "x".repeat(4000), number % 300)}))
        })
        .collect();
    join_all(documents.iter().map(|(id, value)| save(&databank, id, value))).await;
    let mut by_text: Vec<_> = documents.iter().collect();
    let text = |value: &Json| value["t"].as_str().unwrap().to_owned();
    let names = |documents: &[&(String, Json)]| documents.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(databank.search(query(&[], &[], 0, None))).await, names(&by_text));
    assert_eq!(ids(databank.search(query(&[], &[], 650, Some(40)))).await, names(&by_text[650..690]));
    let group: Vec<_> = documents.iter().filter(|(_, value)| value["g"] == 3).collect();
    assert_eq!(ids(databank.search(query(&[("g", json!(3))], &[], 0, None))).await, names(&group));
    by_text.sort_by(|(a, left), (b, right)| text(right).cmp(&text(left)).then(a.cmp(b)));
    assert_eq!(ids(databank.search(query(&[], &[("t", true)], 0, None))).await, names(&by_text));
    assert_eq!(ids(databank.search(query(&[], &[("t", true)], 600, Some(50)))).await, names(&by_text[600..650]));
}

async fn a_document_that_moved_while_it_was_searched_does_not_come_from_its_old_place(databank: Databank) {
    for number in 0..400 {
        save(&databank, &format!("{number:03}"), &json!({ "n": number })).await;
    }
    let mut found = databank.search(query(&[("x", json!(null))], &[("n", false)], 0, None));
    assert_eq!(found.next().await.unwrap().unwrap().id, "000");
    save(&databank, "390", &json!({"n": -1})).await;
    save(&databank, "391", &json!({"n": 391, "x": 1})).await;
    databank.remove(key("392")).await.unwrap();
    let rest = ids(found).await;
    assert_eq!(rest.len(), 396);
    assert!(["390", "391", "392"].iter().all(|gone| !rest.iter().any(|id| id == gone)));
}

async fn concurrent_increments_lose_nothing(databank: Databank) {
    let sums = join_all((0..200).map(|_| databank.increment(key("a"), path("n"), 1))).await;
    assert_eq!(sums.into_iter().map(Result::unwrap).collect::<BTreeSet<_>>(), (1..=200).collect());
}
