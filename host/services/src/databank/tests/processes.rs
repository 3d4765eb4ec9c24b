//! Several processes that share the file of SQLite: each driver has connections of its own, so two drivers stand for two
//! processes.

use super::*;

fn in_directory() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data/databank.sqlite");
    (directory, path)
}

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
