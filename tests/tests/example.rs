//! The example app, used as its clients would: the page and its form, the JSON API, and what of it
//! outlives a restart and the master.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::thread;

use app_host_tests::{App, Connection, Host, said};
use nix::fcntl::{FcntlArg, fcntl};
use serde_json::{Value, json};

fn guestbook() -> Host {
    Host::new(&App::build().example())
}

/// Sends a request and reads the answer, which the connection then knows; returns the status.
fn ask(connection: &mut Connection, method: &str, path: &str, headers: &str, body: &str) -> u16 {
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}content-length: {length}\r\n\r\n{body}");
    connection.send(request.as_bytes()).unwrap();
    connection.receive().unwrap()
}

fn body_json(connection: &Connection) -> Value {
    serde_json::from_slice(connection.body()).unwrap_or_else(|error| panic!("{error}: {}", connection.text()))
}

/// Writes an entry by the API; gives it back as the API does.
fn write(connection: &mut Connection, name: &str, text: &str) -> Value {
    let body = json!({ "name": name, "text": text }).to_string();
    assert_eq!(ask(connection, "POST", "/api/entries", "", &body), 201, "{}", connection.text());
    body_json(connection)
}

fn path_of(entry: &Value) -> String {
    format!("/api/entries/{}", entry["id"].as_str().unwrap())
}

fn visits(host: &Host) -> i64 {
    serde_json::from_str::<Value>(&host.get("/api/visits")).unwrap()["visits"].as_i64().unwrap()
}

/// The page's text between two marks.
fn between<'a>(page: &'a str, start: &str, end: &str) -> &'a str {
    page.split_once(start).and_then(|(_, rest)| rest.split_once(end)).unwrap_or_else(|| panic!("{start}: {page}")).0
}

#[test]
fn form_is_posted_redirected_and_shown_escaped() {
    let host = guestbook().start();
    let mut client = host.connect();
    let form = "name=M%C3%BCller+%26+Sohn+%3Cb%3E&text=%3Cscript%3Ealert(1)%3C%2Fscript%3E%0D%0Atwo+%2B+%27two%27";
    let headers = "content-type: application/x-www-form-urlencoded\r\n";
    assert_eq!(ask(&mut client, "POST", "/", headers, form), 303, "{}", client.text());
    assert_eq!(client.header("location"), Some("/"));
    assert_eq!(client.get("/").unwrap(), 200);
    let page = client.text();
    assert!(page.contains("Müller &amp; Sohn &lt;b&gt;"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;\ntwo + &#39;two&#39;"), "{page}");
    assert!(!page.contains("<script>alert"), "{page}");
    let policy = client.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(client.header("content-type"), Some("text/html; charset=utf-8"));
    // What is stored is what was written.
    let entry = &serde_json::from_str::<Value>(&host.get("/api/entries")).unwrap()["entries"][0];
    assert_eq!(entry["name"], "Müller & Sohn <b>");
    assert_eq!(entry["text"], "<script>alert(1)</script>\ntwo + 'two'");
}

#[test]
fn form_that_is_refused_comes_back_with_the_reason_and_what_was_written() {
    let host = guestbook().start();
    let mut client = host.connect();
    let long = "x".repeat(81);
    for (form, problem) in [
        ("name=&text=something+to+%22keep%22".to_owned(), "the name is empty"),
        ("name=A&text=+%0D%0A+".to_owned(), "the text is empty"),
        (format!("name={long}&text=b"), "the name has 81 characters, 80 are the most"),
        (format!("name=a&text={}", "%C3%BC".repeat(2001)), "the text has 2001 characters, 2000 are the most"),
        ("name=a%1B&text=b".to_owned(), "the name has characters that can&#39;t be shown"),
    ] {
        assert_eq!(ask(&mut client, "POST", "/", "", &form), 400, "{form}");
        assert_eq!(between(&client.text(), "role=\"alert\" >", "</p>"), problem);
    }
    assert_eq!(ask(&mut client, "POST", "/", "", "name=&text=%3C%2Ftextarea%3E+%22keep%22"), 400);
    assert!(client.text().contains("&lt;/textarea&gt; &quot;keep&quot;</textarea>"), "{}", client.text());
    assert_eq!(ask(&mut client, "POST", "/", "", &"x".repeat(40_000)), 413);
    let list: Value = serde_json::from_str(&host.get("/api/entries")).unwrap();
    assert_eq!(list, json!({ "entries": [], "next": null }));
}

#[test]
fn visits_and_entries_outlive_restarts_and_the_master() {
    let host = guestbook().start();
    let generation = |page: &str| between(page, "id=\"generation\">", "<").to_owned();
    let counted = |page: &str| between(page, "id=\"visits\">", "<").parse::<i64>().unwrap();
    assert_eq!(visits(&host), 0);
    let page = host.get("/");
    assert_eq!((counted(&page), generation(&page)), (1, "1".to_owned()));
    let entry = write(&mut host.connect(), "Ada", "still here");
    host.restart_completes();
    let page = host.get("/");
    assert_eq!((counted(&page), generation(&page)), (2, "2".to_owned()));
    assert!(page.contains("still here"));
    host.stop();
    let mark = host.mark();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    let page = host.get("/");
    assert_eq!((counted(&page), generation(&page)), (3, "1".to_owned()));
    assert!(page.contains("still here"));
    assert_eq!(serde_json::from_str::<Value>(&host.get(&path_of(&entry))).unwrap(), entry);
    assert_eq!(visits(&host), 3);
    // Where README says that it lies.
    assert!(fs::exists(host.path("state/data/databank.sqlite")).unwrap());
}

#[test]
fn visits_of_many_at_once_are_all_counted_while_a_restart_comes() {
    let host = guestbook().start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|_| drop(host.get("/"))));
        }
        host.restart_completes();
    });
    assert_eq!(visits(&host), 200);
}

#[test]
fn entry_is_written_read_replaced_and_removed_by_the_api() {
    let host = guestbook().start();
    let mut client = host.connect();
    let entry = write(&mut client, " Ada ", "first\r\nsecond");
    assert_eq!((&entry["name"], &entry["text"]), (&json!("Ada"), &json!("first\nsecond")));
    assert_eq!(client.header("location"), Some(path_of(&entry).as_str()));
    let revision = entry["revision"].as_str().unwrap().to_owned();
    assert_eq!(client.header("etag"), Some(format!("\"{revision}\"").as_str()));
    let path = path_of(&entry);
    assert_eq!(client.get(&path).unwrap(), 200);
    assert_eq!(body_json(&client), entry);
    let etag = client.header("etag").unwrap().to_owned();
    let change = json!({ "name": "Ada", "text": "changed" }).to_string();
    assert_eq!(ask(&mut client, "PUT", &path, &format!("if-match: {etag}\r\n"), &change), 200, "{}", client.text());
    let changed = body_json(&client);
    assert_eq!((&changed["id"], &changed["at"], &changed["text"]), (&entry["id"], &entry["at"], &json!("changed")));
    assert_ne!(changed["revision"], entry["revision"]);
    assert_eq!(ask(&mut client, "DELETE", &path, "", ""), 204);
    assert_eq!(client.get(&path).unwrap(), 404);
    assert_eq!(ask(&mut client, "DELETE", &path, "", ""), 404);
    assert_eq!(ask(&mut client, "PUT", &path, &format!("if-match: {etag}\r\n"), &change), 404);
}

#[test]
fn of_two_who_change_the_same_revision_one_is_told_of_the_conflict() {
    let host = guestbook().start();
    let mut client = host.connect();
    let entry = write(&mut client, "Ada", "first");
    let path = path_of(&entry);
    let change = |text: &str| json!({ "name": "Ada", "text": text }).to_string();
    // Without quotes, it is taken as well.
    let if_match = format!("if-match: {}\r\n", entry["revision"].as_str().unwrap());
    let statuses: Vec<u16> = thread::scope(|scope| {
        let change_it = |text| ask(&mut host.connect(), "PUT", &path, &if_match, &change(text));
        let racers = ["second", "third", "fourth"].map(|text| scope.spawn(move || change_it(text)));
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 2, "{statuses:?}");
    assert_eq!(ask(&mut client, "PUT", &path, "", &change("unasked")), 428);
    for other in ["\"\"", "*", "\"x\"", "W/\"1\"", "99999999999999999999999"] {
        assert_eq!(ask(&mut client, "PUT", &path, &format!("if-match: {other}\r\n"), &change("no")), 412, "{other}");
    }
}

#[test]
fn errors_of_the_api_are_json_with_their_status() {
    let host = guestbook().start();
    let long = json!({ "name": "a", "text": "ü".repeat(2001) }).to_string();
    let huge = json!({ "name": "a", "text": "x".repeat(40_000) }).to_string();
    let endless_id = format!("/api/entries/{}", "x".repeat(513));
    for (method, path, body, status, text) in [
        ("POST", "/api/entries", "", 400, "the body is not as expected"),
        ("POST", "/api/entries", "{", 400, "the body is not as expected"),
        ("POST", "/api/entries", r#"{"name":"a"}"#, 400, "missing field `text`"),
        ("POST", "/api/entries", r#"{"name":"a","text":7}"#, 400, "expected a string"),
        ("POST", "/api/entries", r#"{"name":"a","text":"b","$where":"1"}"#, 400, "unknown field `$where`"),
        ("POST", "/api/entries", r#"{"name":" ","text":"b"}"#, 400, "the name is empty"),
        ("POST", "/api/entries", &long, 400, "2001 characters"),
        ("POST", "/api/entries", &huge, 413, "longer than"),
        ("GET", "/api/entries?limit=0", "", 400, "limit"),
        ("GET", "/api/entries?limit=1001", "", 400, "limit"),
        ("GET", "/api/entries?limit=-1", "", 400, "limit"),
        ("GET", "/api/entries?page=2", "", 400, "page"),
        ("GET", "/api/entries/none", "", 404, "entry/none is not there"),
        ("GET", "/api/entries/", "", 400, "id"),
        ("GET", &endless_id, "", 400, "id"),
        ("GET", "/no-such-page", "", 404, "nothing here"),
        ("GET", "/api/entries2", "", 404, "nothing here"),
        ("GET", "/echo", "", 405, "only POST"),
        ("PATCH", "/api/entries/none", "", 405, "only GET, HEAD, PUT, DELETE"),
        ("DELETE", "/api/entries", "", 405, "only GET, HEAD, POST"),
        ("POST", "/api/visits", "", 405, "only GET, HEAD"),
        ("POST", "/live", "", 405, "only GET, HEAD"),
        ("PUT", "/", "", 405, "only GET, HEAD, POST"),
    ] {
        // On a connection of its own: one whose body isn't read to its end is closed.
        let mut client = host.connect();
        assert_eq!(ask(&mut client, method, path, "", body), status, "{method} {path} {body}");
        let error = body_json(&client);
        assert!(error["error"].as_str().unwrap().contains(text), "{method} {path} {body}: {error}");
        assert_eq!(client.header("allow").is_some(), status == 405, "{method} {path}");
    }
    // The longest that may be fits, escaped as long as it can be.
    let body = format!(r#"{{"name":"{0}","text":"{1}"}}"#, r"\ud83d\ude00".repeat(80), r"\ud83d\ude00".repeat(2000));
    let mut client = host.connect();
    assert_eq!(ask(&mut client, "POST", "/api/entries", "", &body), 201, "{}", client.text());
}

#[test]
fn list_is_newest_first_in_pages_and_exported_as_a_whole() {
    let host = guestbook().start();
    let mut client = host.connect();
    let mut written: Vec<Value> = (0..25).map(|number| write(&mut client, "Ada", &number.to_string())).collect();
    written.reverse();
    let mut page = |query: &str| {
        assert_eq!(client.get(&format!("/api/entries{query}")).unwrap(), 200, "{}", client.text());
        body_json(&client)
    };
    let newest = page("");
    assert_eq!(newest["entries"].as_array().unwrap()[..], written[..20]);
    let (mut listed, mut next) = (Vec::new(), String::new());
    loop {
        let answer = page(&format!("?limit=10{next}"));
        listed.extend(answer["entries"].as_array().unwrap().clone());
        let Some(after) = answer["next"].as_str() else { break };
        next = format!("&after={after}");
    }
    assert_eq!(listed, written);
    let exported = host.get("/api/export");
    let exported: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported, written);
    // The page shows as many as the list.
    assert_eq!(host.get("/").matches("<li ").count(), 20);
}

#[test]
fn entries_of_many_at_once_all_get_an_id_of_their_own() {
    let host = guestbook().start();
    let ids: Vec<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = host.connect();
                    let mut id = |_| write(&mut client, "Ada", "at once")["id"].as_str().unwrap().to_owned();
                    (0..25).map(&mut id).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let written: BTreeSet<_> = ids.iter().collect();
    assert_eq!(written.len(), 200);
    let list: Value = serde_json::from_str(&host.get("/api/entries?limit=1000")).unwrap();
    let listed = list["entries"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap());
    assert!(listed.eq(written.iter().map(|id| id.as_str())));
}

#[test]
fn databank_that_is_away_is_503_with_retry_after_and_comes_back_by_itself() {
    let host = guestbook().with("/databank", json!({ "timeout": "1s" })).start();
    let mut client = host.connect();
    let entry = write(&mut client, "Ada", "before");
    // What a writer does that was stopped in the middle: it holds the write lock of the log, byte
    // 120 of the index (https://sqlite.org/walformat.html, section 2.3.2).
    let index = OpenOptions::new().read(true).write(true).open(host.path("state/data/databank.sqlite-shm")).unwrap();
    let lock = |kind: i32| {
        let kind = i16::try_from(kind).unwrap();
        let lock = nix::libc::flock { l_type: kind, l_whence: 0, l_start: 120, l_len: 1, l_pid: 0 };
        fcntl(&index, FcntlArg::F_SETLK(&lock)).unwrap();
    };
    lock(nix::libc::F_WRLCK);
    let body = json!({ "name": "Ada", "text": "meanwhile" }).to_string();
    assert_eq!(ask(&mut client, "POST", "/api/entries", "", &body), 503, "{}", client.text());
    assert_eq!(client.header("retry-after"), Some("1"));
    assert_eq!(body_json(&client), json!({ "error": "the guestbook is away, try again in a moment" }));
    host.wait_for("the databank is away", |line| !line.str("cause").is_empty());
    // The page keeps what was written in the form.
    assert_eq!(ask(&mut client, "POST", "/", "", "name=Ada&text=to+keep"), 503);
    assert!(client.text().contains("to keep</textarea>"), "{}", client.text());
    assert_eq!(client.get("/").unwrap(), 503);
    lock(nix::libc::F_UNLCK);
    write(&mut client, "Ada", "after");
    assert_eq!(client.get("/").unwrap(), 200);
    assert_eq!(client.get(&path_of(&entry)).unwrap(), 200);
}

/// The next entry of a stream of events; `None` at its end.
fn event(stream: &mut Connection) -> Option<Value> {
    let event = String::from_utf8(stream.chunk().unwrap()?).unwrap();
    let data = event.strip_prefix("data: ").and_then(|event| event.strip_suffix("\n\n"));
    Some(serde_json::from_str(data.unwrap_or_else(|| panic!("no event: {event}"))).unwrap())
}

/// Opens the live stream of one worker.
fn live(host: &Host, worker: u32) -> Connection {
    let mut stream = host.connect_to(worker);
    assert_eq!(stream.open("/live").unwrap(), 200);
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.chunk().unwrap().unwrap(), b"retry: 250\n\n");
    stream
}

#[test]
fn entry_that_one_worker_received_shows_at_once_where_another_streams_over_a_restart() {
    let host = guestbook().start();
    let [first, second] = host.serving()[..] else { panic!("two workers") };
    let mut streams = [live(&host, first), live(&host, second)];
    let by_api = write(&mut host.connect_to(first), "Ada", "by the API\nin two lines");
    let form = ask(&mut host.connect_to(second), "POST", "/", "", "name=Grace&text=by+the+form");
    assert_eq!(form, 303);
    for stream in &mut streams {
        assert_eq!(event(stream).unwrap(), by_api);
        assert_eq!(event(stream).unwrap()["text"], "by the form");
    }
    host.restart_completes();
    for stream in &mut streams {
        assert_eq!(event(stream), None, "one that was not asked for as such ends with its worker's drain");
    }
    for exited in host.lines_with(said::WORKER_EXITED) {
        assert_eq!((exited.str("status"), exited.number("cut")), ("exit 0", Some(0)), "{}", exited.text());
    }
    // Who comes back misses nothing: the newest come first, then what is new.
    let mut stream = live(&host, host.serving()[0]);
    assert_eq!(event(&mut stream).unwrap(), by_api);
    assert_eq!(event(&mut stream).unwrap()["text"], "by the form");
    let later = write(&mut host.connect_to(host.serving()[1]), "Ada", "later");
    assert_eq!(event(&mut stream).unwrap(), later);
}

#[test]
fn hello_whoami_and_echo_need_no_databank() {
    let host = guestbook().with("/app/config", json!({ "name": "tester" })).start();
    let hello = host.get("/hello");
    let answer: Value = serde_json::from_str(&host.get("/whoami")).unwrap();
    assert!(host.workers().iter().any(|pid| answer["pid"] == *pid), "{answer}");
    assert!(hello.starts_with("Hello from app-host, tester! (slot "), "{hello}");
    assert!(hello.ends_with(")\n") && hello.contains(", generation 1, pid "), "{hello}");
    let mut client = host.connect();
    assert_eq!(client.post("/echo", b"said and done").unwrap(), 200);
    assert_eq!(client.body(), b"said and done");
    assert_eq!(ask(&mut client, "POST", "/echo", "", "<script>"), 200);
    // No browser may take what others say for a page of ours.
    assert_eq!(client.header("content-type"), Some("application/octet-stream"));
    assert_eq!(client.header("x-content-type-options"), Some("nosniff"));
}
