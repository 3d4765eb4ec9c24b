//! The file: what is made, what is refused, what happens when it is locked or goes away.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use futures_util::{FutureExt, StreamExt};
use serde_json::json;

use super::super::tests::{document, key, sqlite};
use super::super::{Databank, FieldPath};
use super::*;

const TIMEOUT: Duration = Duration::from_secs(20);

struct Room {
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
    databank: Databank,
}

/// A databank with this time limit for a call.
fn room(timeout: Duration) -> Room {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data/more/databank.sqlite");
    let databank = sqlite(&path, timeout);
    Room { _directory: directory, path, databank }
}

async fn save(databank: &Databank, id: &str) -> Result<u64, Fault> {
    databank.write(key(id), Mode::Save, document(&json!({"text": "x".repeat(1000)}))).await
}

impl Room {
    async fn save(&self, id: &str) -> Result<u64, Fault> {
        save(&self.databank, id).await
    }

    /// Another process, as it were.
    fn other(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    async fn unavailable(&self) -> String {
        let prepared = self.databank.prepare().await;
        let read = self.databank.read(key("a")).await;
        match (prepared, read) {
            (Err(Fault::Unavailable(cause)), Err(Fault::Unavailable(_))) => {
                assert!(cause.starts_with(&format!("{}: ", self.path.display())), "{cause}");
                cause
            }
            both => panic!("{both:?}"),
        }
    }
}

#[tokio::test]
async fn directory_and_file_are_made_for_nobody_else() {
    let room = room(TIMEOUT);
    assert!(!room.path.parent().unwrap().exists());
    room.save("a").await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(room.path.parent().unwrap()), 0o700);
    assert_eq!(mode(room.path.parent().unwrap().parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(Path::new(&format!("{}{suffix}", room.path.display()))), 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_on_the_disk() {
    let room = room(TIMEOUT);
    let file = File::new(room.path.clone(), Making::IfMissing);
    let opened = file.open(std::time::Instant::now() + TIMEOUT).unwrap();
    let setting = |name| opened.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    // 2 is FULL.
    assert_eq!(setting("synchronous"), 2);
    let mode: String = opened.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn the_statements_go_by_the_key_and_sort_nothing() {
    let room = room(TIMEOUT);
    room.save("a").await.unwrap();
    let other = room.other();
    for statement in [READ, RANGE, UPDATE, REMOVE, COMPARE] {
        let mut plan = other.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
        let steps: Vec<String> = plan.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>().unwrap();
        assert_eq!(steps.len(), 1, "{steps:?}");
        assert!(steps[0].starts_with("SEARCH documents USING INDEX"), "{steps:?}");
        assert!(steps[0].contains("(kind=? AND id"), "{steps:?}");
    }
}

#[tokio::test]
async fn what_is_no_databank_is_refused_and_left_alone() {
    let text = room(TIMEOUT);
    fs::create_dir_all(text.path.parent().unwrap()).unwrap();
    fs::write(&text.path, "no database\n".repeat(100)).unwrap();
    let cause = text.unavailable().await;
    assert!(cause.ends_with("file is not a database"), "{cause}");
    assert_eq!(fs::read_to_string(&text.path).unwrap(), "no database\n".repeat(100));

    let foreign = room(TIMEOUT);
    fs::create_dir_all(foreign.path.parent().unwrap()).unwrap();
    foreign.other().execute_batch("CREATE TABLE documents (mine)").unwrap();
    assert!(foreign.unavailable().await.contains("a database of something else"));

    let newer = room(TIMEOUT);
    newer.save("a").await.unwrap();
    newer.other().pragma_update(None, "user_version", 2).unwrap();
    let later = sqlite(&newer.path, TIMEOUT);
    let Err(Fault::Unavailable(cause)) = later.prepare().await else { panic!("it was taken") };
    assert!(cause.contains("its tables have the number 2"), "{cause}");
}

#[tokio::test]
async fn a_path_that_cannot_be_is_unavailable_until_it_can() {
    let room = room(TIMEOUT);
    let data = room.path.parent().unwrap().parent().unwrap();
    fs::write(data, "in the way").unwrap();
    room.unavailable().await;
    fs::remove_file(data).unwrap();
    fs::create_dir_all(&room.path).unwrap();
    assert!(room.unavailable().await.ends_with("this is no file"));
    fs::remove_dir(&room.path).unwrap();
    room.save("a").await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_gone_is_not_made_again_and_is_found_when_it_is_back() {
    let room = room(TIMEOUT);
    room.save("a").await.unwrap();
    room.databank.read(key("a")).await.unwrap();
    let (directory, away) = (room.path.parent().unwrap(), room.path.parent().unwrap().with_file_name("away"));
    fs::rename(directory, &away).unwrap();
    assert!(room.unavailable().await.contains("No such file"));
    assert!(!directory.exists());
    fs::rename(&away, directory).unwrap();
    room.databank.read(key("a")).await.unwrap();
    room.save("b").await.unwrap();
}

#[tokio::test]
async fn another_file_in_its_place_is_the_store_from_then_on() {
    let (old, new) = (room(TIMEOUT), room(TIMEOUT));
    old.save("old").await.unwrap();
    new.save("new").await.unwrap();
    new.other().pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(())).unwrap();
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", old.path.display())).unwrap();
    }
    fs::rename(&new.path, &old.path).unwrap();
    assert!(old.databank.read(key("new")).await.is_ok());
    assert!(matches!(old.databank.read(key("old")).await, Err(Fault::NotFound(_))));
    old.save("newer").await.unwrap();
    let other = sqlite(&old.path, TIMEOUT);
    assert!(other.read(key("newer")).await.is_ok());
}

#[tokio::test]
async fn a_lock_that_is_kept_too_long_makes_writes_unavailable_and_not_reads() {
    let room = room(TIMEOUT);
    room.save("a").await.unwrap();
    let hasty = sqlite(&room.path, Duration::from_millis(300));
    let other = room.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = std::time::Instant::now();
    assert!(matches!(save(&hasty, "b").await, Err(Fault::Unavailable(_))));
    assert!(began.elapsed() < Duration::from_secs(5));
    room.databank.read(key("a")).await.unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    // A busy disk takes longer than this one's timeout now and then: what counts is that it comes back.
    while let Err(fault) = save(&hasty, "b").await {
        assert!(matches!(fault, Fault::Unavailable(_)), "{fault:?}");
        assert!(began.elapsed() < TIMEOUT, "{fault:?}");
    }
    room.databank.read(key("b")).await.unwrap();
}

#[tokio::test]
async fn a_job_whose_caller_has_gone_before_it_begins_is_left_out() {
    let room = room(TIMEOUT);
    room.save("a").await.unwrap();
    let other = room.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = room.save("waiting");
    let mut waiting = std::pin::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    let gone = room.databank.increment(key("gone"), FieldPath::parse("n").unwrap(), 1);
    drop(gone);
    other.execute_batch("ROLLBACK").unwrap();
    waiting.await.unwrap();
    room.save("later").await.unwrap();
    assert!(matches!(room.databank.read(key("gone")).await, Err(Fault::NotFound(_))));
}

#[tokio::test]
async fn more_calls_than_can_wait_are_turned_away_at_once() {
    let room = room(TIMEOUT);
    room.save("a").await.unwrap();
    let other = room.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let path = || FieldPath::parse("n").unwrap();
    // One may be in hand besides those in the queue.
    let mut waiting: Vec<_> = (0..1026).map(|_| Some(room.databank.increment(key("n"), path(), 1))).collect();
    let mut turned_away = 0;
    for call in &mut waiting {
        if let Some(answer) = call.as_mut().and_then(FutureExt::now_or_never) {
            assert!(matches!(&answer, Err(Fault::Unavailable(cause)) if cause.contains("too many")), "{answer:?}");
            *call = None;
            turned_away += 1;
        }
    }
    assert!((1..=2).contains(&turned_away), "{turned_away}");
    other.execute_batch("ROLLBACK").unwrap();
    for call in waiting.into_iter().flatten() {
        call.await.unwrap();
    }
    assert_eq!(room.databank.increment(key("n"), path(), 0).await, Ok(1026 - turned_away));
}

#[tokio::test]
async fn a_job_that_fails_undoes_none_that_share_its_transaction() {
    let room = room(TIMEOUT);
    room.save("a").await.unwrap();
    let other = room.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writes: Vec<_> = (0..40)
        .map(|number| {
            let mode = if number % 2 == 0 { Mode::Create } else { Mode::Update };
            room.databank.write(key(&number.to_string()), mode, document(&json!({})))
        })
        .collect();
    other.execute_batch("ROLLBACK").unwrap();
    for (number, outcome) in futures_util::future::join_all(writes).await.into_iter().enumerate() {
        assert_eq!(outcome.is_ok(), number % 2 == 0, "{number}: {outcome:?}");
        assert_eq!(room.databank.read(key(&number.to_string())).await.is_ok(), outcome.is_ok());
    }
}

#[tokio::test]
async fn a_search_that_is_not_read_on_keeps_nothing_from_being_written_back() {
    let room = room(TIMEOUT);
    for number in 0..600 {
        room.save(&number.to_string()).await.unwrap();
    }
    for sort in [&[][..], &[("text", true)]] {
        let mut found = room.databank.search(Query::new("note", &[], sort, 0, None).unwrap());
        found.next().await.unwrap().unwrap();
        room.save("more").await.unwrap();
        let busy: i64 = room.other().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
        assert_eq!(fs::metadata(format!("{}-wal", room.path.display())).unwrap().len(), 0);
        let there_all_along = found.filter(|found| std::future::ready(found.as_ref().unwrap().id != "more"));
        assert_eq!(there_all_along.count().await, 599);
        room.databank.remove(key("more")).await.unwrap();
    }
}
