//! Many write at once, from several processes: nothing is lost, and of those of whom one may win one
//! does.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use app_host_tests::client::request;
use app_host_tests::databank::{Answer, Client};
use serde_json::{Value, json};

use super::Bank;

/// So many clients, two or more of each worker.
const CLIENTS: usize = 8;

/// Lets all clients do the same at once; their number says who is who.
fn together<T: Send>(clients: &mut [Client], act: impl Fn(usize, &mut Client) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(clients.len());
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(number, client)| {
                let (barrier, act) = (&barrier, &act);
                scope.spawn(move || {
                    barrier.wait();
                    act(number, client)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("the client fails no claim")).collect()
    })
}

pub fn increments_of_several_workers_lose_nothing(bank: &Bank) {
    let mut clients = bank.spread_clients(CLIENTS);
    // From the first one on, which several make at once. Half is asked for one by one.
    let sums = together(&mut clients, |number, client| {
        if number % 2 == 0 {
            let burst = json!({ "type": bank.kind, "id": "a", "path": "in.n", "count": 100 });
            let body = client.ask("burst", burst).done();
            return body["sums"].as_array().expect("sums").iter().map(|sum| sum.as_u64().expect("a sum")).collect();
        }
        let one = |_| client.increment(bank.kind, "a", "in.n", 1).done()["sum"].as_u64().expect("a sum");
        (0..100).map(one).collect::<Vec<_>>()
    });
    for sums in &sums {
        assert!(sums.is_sorted(), "a client's own sums grow: {sums:?}");
    }
    let mut sums = sums.concat();
    sums.sort_unstable();
    let total = 100 * CLIENTS as u64;
    assert_eq!(sums, (1..=total).collect::<Vec<_>>(), "each sum was told once");
    assert_eq!(clients[0].read(bank.kind, "a").value(), json!({ "in": { "n": total } }));
}

pub fn appends_of_several_workers_lose_nothing(bank: &Bank) {
    let mut clients = bank.spread_clients(CLIENTS);
    together(&mut clients, |number, client| {
        let name = format!("client {number}");
        if number % 2 == 0 {
            let burst = json!({ "type": bank.kind, "id": "a", "path": "in.list", "count": 60, "name": name });
            client.ask("burst", burst).done();
        } else {
            for count in 0..60 {
                client.append(bank.kind, "a", "in.list", &json!([name, count]).to_string()).revision();
            }
        }
    });
    let read = clients[0].read(bank.kind, "a").value();
    let mut of_each: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for entry in read["in"]["list"].as_array().expect("a list") {
        let (name, count) = (entry[0].as_str().expect("a name"), entry[1].as_u64().expect("a number"));
        of_each.entry(name.to_owned()).or_default().push(count);
    }
    assert_eq!(of_each.len(), CLIENTS);
    for (name, counts) in of_each {
        assert_eq!(counts, (0..60).collect::<Vec<_>>(), "what {name} appended, in its order");
    }
}

pub fn increments_and_appends_on_one_document_lose_nothing(bank: &Bank) {
    let mut clients = bank.spread_clients(CLIENTS);
    together(&mut clients, |number, client| {
        for count in 0..60 {
            match number % 4 {
                0 => drop(client.increment(bank.kind, "a", "n", 1).done()),
                1 => drop(client.increment(bank.kind, "a", &format!("of.{number}"), 2).done()),
                2 => drop(client.append(bank.kind, "a", "list", &count.to_string()).done()),
                // Writes a whole document as it should be done: reads it again until nobody was faster.
                _ => loop {
                    let read = client.read(bank.kind, "a");
                    if read.error() == "not found" {
                        client.create(bank.kind, "a", "{}");
                        continue;
                    }
                    let revision = read.clone().revision();
                    let mut document = read.value();
                    let key = format!("saved {number}");
                    document[&key] = json!(document[&key].as_u64().unwrap_or(0) + 1);
                    let answer = client.compare(bank.kind, "a", revision, &document);
                    if answer.status == 200 {
                        break;
                    }
                    answer.fails_with("conflict");
                },
            }
        }
    });
    let read = clients[0].read(bank.kind, "a").value();
    assert_eq!(read["n"], 120, "{read}");
    assert_eq!(read["of"], json!({ "1": 120, "5": 120 }));
    assert_eq!((&read["saved 3"], &read["saved 7"]), (&json!(60), &json!(60)));
    let mut list: Vec<_> = read["list"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    list.sort_unstable();
    assert_eq!(list, (0..120).map(|number| number / 2).collect::<Vec<_>>());
}

/// Checks that one answer is 200 and all others are this; says whose it is.
fn one_wins(answers: &[Answer], others: &str) -> usize {
    let winners: Vec<_> = (0..answers.len()).filter(|number| answers[*number].status == 200).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.fails_with(others);
    }
    winners[0]
}

pub fn compare_and_save_has_one_winner_a_round(bank: &Bank) {
    let mut clients = bank.spread_clients(CLIENTS);
    let mut revision = clients[0].create(bank.kind, "a", "{}").revision();
    for round in 0..30 {
        let answers = together(&mut clients, |number, client| {
            client.compare(bank.kind, "a", revision, &json!({ "round": round, "by": number }))
        });
        let winner = one_wins(&answers, "conflict");
        let read = clients[0].read(bank.kind, "a");
        assert_eq!(read.clone().value(), json!({ "round": round, "by": winner }));
        revision = answers[winner].clone().revision();
        assert_eq!(read.revision(), revision);
    }
}

pub fn create_has_one_winner(bank: &Bank) {
    let mut clients = bank.spread_clients(CLIENTS);
    for round in 0..20 {
        let id = round.to_string();
        let answers = together(&mut clients, |number, client| {
            client.create(bank.kind, &id, &json!({ "by": number }).to_string())
        });
        let winner = one_wins(&answers, "already exists");
        assert_eq!(clients[0].read(bank.kind, &id).value(), json!({ "by": winner }));
    }
    // Of those that save, all win.
    let answers =
        together(&mut clients, |number, client| client.save(bank.kind, "saved", &json!({ "by": number }).to_string()));
    let revisions: Vec<_> = answers.into_iter().map(Answer::revision).collect();
    let read = clients[0].read(bank.kind, "saved");
    let last = read.clone().value()["by"].as_u64().and_then(|by| usize::try_from(by).ok()).expect("a number");
    assert_eq!(read.revision(), revisions[last]);
}

pub fn remove_has_one_winner(bank: &Bank) {
    let mut clients = bank.spread_clients(CLIENTS);
    for _ in 0..20 {
        clients[0].create(bank.kind, "a", "{}").revision();
        let answers = together(&mut clients, |_, client| client.remove(bank.kind, "a"));
        one_wins(&answers, "not found");
    }
}

pub fn what_one_worker_was_told_is_written_every_other_reads(bank: &Bank) {
    let mut clients = bank.spread_clients(CLIENTS);
    for round in 0..40 {
        let writer = round % CLIENTS;
        let revision = clients[writer].save(bank.kind, "a", &json!({ "round": round }).to_string()).revision();
        for client in &mut clients {
            let read = client.read(bank.kind, "a");
            assert_eq!(read.clone().value(), json!({ "round": round }), "{read}");
            assert_eq!(read.revision(), revision);
            assert_eq!(client.search(bank.kind, &format!(r#""equals":[["round",{round}]]"#)), ["a"]);
        }
    }
}

pub fn writes_whose_client_has_gone_harm_nobody(bank: &Bank) {
    let mut clients = bank.spread_clients(CLIENTS);
    for round in 0..60 {
        let body = json!({ "type": bank.kind, "id": "a", "path": "n", "by": 1 }).to_string();
        let mut connection = bank.host.connect();
        let head = request("POST", "/increment", &[&format!("content-length: {}", body.len())]);
        connection.send(format!("{head}{body}").as_bytes()).expect("the request is taken");
        drop(connection);
        clients[round % CLIENTS].increment(bank.kind, "a", "told", 1).done();
    }
    let read = clients[0].read(bank.kind, "a").value();
    assert_eq!(read["told"], 60);
    let untold = read["n"].as_i64().unwrap_or(0);
    assert!((0..=60).contains(&untold), "each at most once: {untold}");
}
