//! What every driver that needs no server does alike, seen through [`Databank`].
//!
//! The suite that runs against all drivers is in the crate of the tests, through the real host. This
//! one is quick, and compares the two with each other on whatever comes to proptest's mind.

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

/// What is done to both drivers.
#[derive(Clone, Debug)]
enum Step {
    Write { id: usize, mode: Way, document: Json },
    Remove { id: usize },
    Increment { id: usize, at: String, by: i64 },
    Append { id: usize, at: String, item: Json },
    Read { id: usize },
    ReadMany { ids: Vec<usize> },
    Search { equals: Vec<(String, Json)>, sort: Vec<(String, bool)>, skip: u64, limit: Option<u64> },
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Create,
    Update,
    Save,
    /// With the revision that it had last, or one before.
    Compare {
        stale: bool,
    },
}

const IDS: [&str; 5] = ["a", "b", "é", "\u{ffff}", "\u{1f600}"];

fn scalars() -> impl Strategy<Value = Json> {
    let whole = prop_oneof![-2_i64..3, Just(i64::MAX), Just(i64::MIN), Just((1 << 53) + 1)];
    let floats = prop_oneof![
        Just(0.0),
        Just(-0.0),
        Just(1.0),
        Just(1.5),
        Just(9_007_199_254_740_992.0),
        Just(9_223_372_036_854_775_808.0),
        Just(-9_223_372_036_854_775_808.0),
        any::<f64>().prop_filter("JSON has no other floats", |float| float.is_finite()),
    ];
    let texts = prop_oneof![Just(String::new()), "[aé\u{ffff}\u{1f600}\0]{0,2}"];
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        whole.prop_map(Json::from),
        floats.prop_map(Json::from),
        texts.prop_map(Json::from),
    ]
}

fn values() -> impl Strategy<Value = Json> {
    scalars().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::btree_map("[abc]|0", inner, 0..3)
                .prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    })
}

fn documents() -> impl Strategy<Value = Json> {
    prop::collection::btree_map("[abc]|0", values(), 0..4).prop_map(|fields| Json::Object(fields.into_iter().collect()))
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]|0", 1..3).prop_map(|keys| keys.join("."))
}

fn steps() -> impl Strategy<Value = Step> {
    let ways = prop_oneof![
        Just(Way::Create),
        Just(Way::Update),
        Just(Way::Save),
        any::<bool>().prop_map(|stale| Way::Compare { stale }),
    ];
    let id = || 0..IDS.len();
    prop_oneof![
        4 => (id(), ways, documents()).prop_map(|(id, mode, document)| Step::Write { id, mode, document }),
        1 => id().prop_map(|id| Step::Remove { id }),
        3 => (id(), paths(), prop_oneof![-3_i64..4, Just(i64::MAX)])
            .prop_map(|(id, at, by)| Step::Increment { id, at, by }),
        3 => (id(), paths(), values()).prop_map(|(id, at, item)| Step::Append { id, at, item }),
        1 => id().prop_map(|id| Step::Read { id }),
        1 => prop::collection::vec(id(), 0..5).prop_map(|ids| Step::ReadMany { ids }),
        4 => (
            prop::collection::vec((paths(), scalars()), 0..2),
            prop::collection::vec((paths(), any::<bool>()), 0..3),
            0_u64..3,
            prop::option::of(0_u64..5),
        )
            .prop_map(|(equals, sort, skip, limit)| Step::Search { equals, sort, skip, limit }),
    ]
}

/// One of the two, and the revisions that it gave: they are random, and only their places compare.
struct Side {
    databank: Databank,
    kind: String,
    revisions: Vec<Vec<u64>>,
}

/// What came of a step, where it must be the same on both sides.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done(Result<(), Fault>),
    Sum(Result<i64, Fault>),
    /// Id, text and whether the revision is the one that was given last.
    Found(Vec<Result<(String, Bytes, bool), Fault>>),
}

impl Side {
    fn new(databank: Databank, case: u64) -> Self {
        Self { databank, kind: format!("case-{case}"), revisions: vec![vec![1]; IDS.len()] }
    }

    fn key(&self, id: usize) -> Key {
        Key::new(&self.kind, IDS[id]).unwrap()
    }

    fn written(&mut self, id: usize, outcome: Result<u64, Fault>) -> Outcome {
        Outcome::Done(outcome.map(|revision| self.revisions[id].push(revision)))
    }

    async fn all(&self, documents: Documents) -> Outcome {
        Outcome::Found(documents.map(|found| self.found(found)).collect().await)
    }

    fn found(&self, found: Result<Stored, Fault>) -> Result<(String, Bytes, bool), Fault> {
        let Stored { id, revision, text } = found?;
        let place = IDS.iter().position(|known| *known == id).unwrap();
        let last = self.revisions[place].last() == Some(&revision);
        Ok((id, text, last))
    }

    async fn take(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Write { id, mode, document: value } => {
                let known = &self.revisions[*id];
                let mode = match mode {
                    Way::Create => Mode::Create,
                    Way::Update => Mode::Update,
                    Way::Save => Mode::Save,
                    Way::Compare { stale: false } => Mode::Compare(known[known.len() - 1]),
                    Way::Compare { stale: true } => Mode::Compare(known[known.len().saturating_sub(2)]),
                };
                let outcome = self.databank.write(self.key(*id), mode, document(value)).await;
                self.written(*id, outcome)
            }
            Step::Remove { id } => Outcome::Done(self.databank.remove(self.key(*id)).await),
            Step::Increment { id, at, by } => {
                let sum = self.databank.increment(self.key(*id), path(at), *by).await;
                if sum.is_ok() {
                    let stored = self.databank.read(self.key(*id)).await.unwrap();
                    assert_ne!(Some(&stored.revision), self.revisions[*id].last());
                    self.revisions[*id].push(stored.revision);
                }
                Outcome::Sum(sum)
            }
            Step::Append { id, at, item } => {
                let outcome = self.databank.append(self.key(*id), path(at), value(item)).await;
                self.written(*id, outcome)
            }
            Step::Read { id } => Outcome::Found(vec![self.found(self.databank.read(self.key(*id)).await)]),
            Step::ReadMany { ids } => {
                let ids = super::query::ids(ids.iter().map(|id| IDS[*id])).unwrap();
                self.all(self.databank.read_many(Kind::new(&self.kind).unwrap(), ids)).await
            }
            Step::Search { equals, sort, skip, limit } => {
                let equals: Vec<_> = equals.iter().map(|(at, value)| (at.as_str(), value.clone())).collect();
                let sort: Vec<_> = sort.iter().map(|(at, descending)| (at.as_str(), *descending)).collect();
                let search = Query { kind: Kind::new(&self.kind).unwrap(), ..query(&equals, &sort, *skip, *limit) };
                self.all(self.databank.search(search)).await
            }
        }
    }
}

#[test]
fn both_drivers_do_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stores = [sqlite(&directory.path().join("databank"), TIMEOUT), memory()];
    let case = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 150, ..ProptestConfig::default() });
    let outcome = runner.run(&prop::collection::vec(steps(), 1..25), |steps| {
        case.set(case.get() + 1);
        let [mut one, mut other] = stores.each_ref().map(|databank| Side::new(databank.clone(), case.get()));
        runtime.block_on(async {
            for step in &steps {
                let (one, other) = (one.take(step).await, other.take(step).await);
                prop_assert_eq!(one, other, "{:?}", step);
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

fn in_directory() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data/databank.sqlite");
    (directory, path)
}

/// Each driver has connections of its own, so two of them stand for two processes.
mod two_processes {
    use super::*;

    #[tokio::test]
    async fn increments_and_appends_lose_nothing() {
        let (_directory, file) = in_directory();
        let (one, other) = (sqlite(&file, TIMEOUT), sqlite(&file, TIMEOUT));
        let rounds = (0..150).flat_map(|round| [(&one, round), (&other, round)]);
        let (sums, appended): (Vec<_>, Vec<_>) = rounds
            .map(|(databank, round)| {
                let sum = databank.increment(key("a"), path("n"), 1);
                (sum, databank.append(key("a"), path("l"), value(&json!(round))))
            })
            .unzip();
        let (sums, appended) = tokio::join!(join_all(sums), join_all(appended));
        assert!(appended.iter().all(Result::is_ok), "{appended:?}");
        assert_eq!(sums.into_iter().map(Result::unwrap).collect::<BTreeSet<_>>(), (1..=300).collect());
        let stored = read(&one, "a").await;
        assert_eq!(stored["n"], 300);
        let mut listed: Vec<_> = stored["l"].as_array().unwrap().iter().map(|item| item.as_i64().unwrap()).collect();
        listed.sort_unstable();
        assert_eq!(listed, (0..300).map(|number| number / 2).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn of_two_that_compare_one_wins() {
        let (_directory, file) = in_directory();
        let (one, other) = (sqlite(&file, TIMEOUT), sqlite(&file, TIMEOUT));
        let mut revision = save(&one, "a", &json!({})).await;
        for _ in 0..30 {
            let write = |databank: &Databank| databank.write(key("a"), Mode::Compare(revision), document(&json!({})));
            revision = match tokio::join!(write(&one), write(&other)) {
                (Ok(revision), Err(Fault::Conflict(_))) | (Err(Fault::Conflict(_)), Ok(revision)) => revision,
                both => panic!("{both:?}"),
            };
        }
    }

    #[tokio::test]
    async fn they_may_begin_at_once() {
        for _ in 0..10 {
            let (_directory, file) = in_directory();
            let all: Vec<_> = (0..6).map(|_| sqlite(&file, TIMEOUT)).collect();
            let begun = join_all(all.iter().enumerate().map(|(number, databank)| async move {
                if number % 2 == 0 { databank.prepare().await } else { databank.read(key("a")).await.map(drop) }
            }));
            for outcome in begun.await {
                assert!(matches!(outcome, Ok(()) | Err(Fault::NotFound(_))), "{outcome:?}");
            }
        }
    }
}
