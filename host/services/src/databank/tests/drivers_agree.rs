//! SQLite and memory, side by side: the same random steps have the same outcomes.

use super::*;

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
