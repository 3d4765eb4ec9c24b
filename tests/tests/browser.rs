//! The second ring: the example app's page, and the one for operators, in a real browser, headless Chromium (Debian's package
//! `chromium`; `CHROMIUM` is its path where it isn't on the PATH). Run with `-- --ignored`.

use app_host_tests::browser::Browser;
use app_host_tests::dev::Dev;
use app_host_tests::tls::Authority;
use app_host_tests::{App, Host, process};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn form_is_filled_in_and_the_page_shows_it_over_a_restart_and_while_it_stays_open() {
    let host = Host::new(&App::build().example()).start();
    let mut browser = Browser::start();
    browser.open(&host);
    assert_eq!(browser.text("#visits"), "1");
    browser.fill("#name", "Ada <Lovelace>");
    browser.fill("#text", "It has no pretensions\nto originate anything.");
    browser.click("form button");
    browser.wait_for("document.querySelector('li') && document.readyState == 'complete'");
    assert_eq!(browser.text("li bdi"), "Ada <Lovelace>");
    assert_eq!(browser.text("li .text"), "It has no pretensions\nto originate anything.");
    // Two visits: the first, and where the form led to.
    assert_eq!(browser.text("#visits"), "2");
    assert_eq!(browser.text("#generation"), "1");
    host.restart_completes();
    // Whoever has the page open sees the new generation without doing anything.
    browser.wait_for("document.querySelector('#generation').textContent == '2'");
    browser.open(&host);
    assert_eq!(browser.text("#visits"), "3");
    assert_eq!(browser.text("li bdi"), "Ada <Lovelace>");
    browser.assert_no_complaints();
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn entry_of_another_worker_shows_at_once_in_an_open_page_over_a_restart() {
    let host = Host::new(&App::build().example()).with("/admin", "127.0.0.1:0").start();
    let mut browser = Browser::start();
    let counts = "opened = 0; EventSource = class extends EventSource {
        constructor(url) { super(url); this.addEventListener('open', () => opened++) }
    }";
    browser.call("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": counts }));
    browser.open(&host);
    browser.evaluate("window.stays = true");
    browser.wait_for("opened == 1");
    // One from each worker: wherever the page's stream is, one of them is another one's.
    let write_from_each = |text: &str| {
        for worker in host.serving() {
            let body = json!({ "name": "Ada <b>", "text": format!("{text} from {worker}") }).to_string();
            assert_eq!(host.connect_to(worker).post("/api/entries", body.as_bytes()).unwrap(), 201);
        }
    };
    write_from_each("before");
    browser.wait_for("document.querySelectorAll('li').length == 2");
    let newest = host.serving()[1];
    assert_eq!(browser.text("li .text"), format!("before from {newest}"), "the newest is the first");
    assert_eq!(browser.text("li bdi"), "Ada <b>", "what others write is text");
    for restarts in 1..=10 {
        host.restart_completes();
        let resumed = || host.metrics().count("event_streams_resumed_total");
        host.wait("the stream to go on", || (resumed() == restarts).then_some(()));
    }
    write_from_each("after");
    browser.wait_for("document.querySelectorAll('li').length == 4");
    assert_eq!(browser.evaluate("opened"), 1, "the browser has opened no stream anew");
    assert_eq!(browser.text("li .text"), format!("after from {}", host.serving()[1]));
    // No more than the page shows, and the oldest go.
    for number in 0..20 {
        let body = json!({ "name": "Grace", "text": number.to_string() }).to_string();
        assert_eq!(host.connect().post("/api/entries", body.as_bytes()).unwrap(), 201);
    }
    browser.wait_for("document.querySelector('li .text').innerText == '19'");
    assert_eq!(browser.evaluate("document.querySelectorAll('li').length"), 20);
    assert_eq!(browser.text("li:last-child .text"), "0");
    assert_eq!(browser.evaluate("window.stays"), true, "the page was never loaded again");
    browser.assert_no_complaints();
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn page_works_without_javascript() {
    let host = Host::new(&App::build().example()).start();
    let mut browser = Browser::start();
    browser.call("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.open(&host);
    browser.fill("#name", "Grace");
    browser.fill("#text", "It works.");
    browser.click("form button");
    browser.wait_for("document.querySelector('li .text')?.innerText == 'It works.'");
    browser.assert_no_complaints();
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn page_fits_a_phone_and_a_desk_in_light_and_dark() {
    let host = Host::new(&App::build().example()).start();
    let word = "x".repeat(80);
    let body = json!({ "name": word, "text": format!("{word} {}", "a long text ".repeat(150)) }).to_string();
    assert_eq!(host.connect().post("/api/entries", body.as_bytes()).unwrap(), 201);
    let mut browser = Browser::start();
    let mut grounds = Vec::new();
    for (width, height) in [(390, 844), (1280, 800)] {
        for scheme in ["light", "dark"] {
            browser.screen(width, height, scheme);
            browser.open(&host);
            let shown = browser.evaluate("[innerWidth, document.documentElement.scrollWidth <= innerWidth]");
            assert_eq!(shown, json!([width, true]), "nothing is wider than the screen");
            grounds.push(browser.evaluate("getComputedStyle(document.body).backgroundColor"));
        }
    }
    assert_ne!(grounds[0], grounds[1], "dark is dark");
    assert_eq!(grounds[..2], grounds[2..]);
    browser.assert_no_complaints();
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn page_for_operators_follows_a_restart_without_being_loaded_again() {
    let mut host = Host::misbehaving()
        .with("/admin", "127.0.0.1:0")
        .with("/restart/probation", "1s")
        .with("/restart/on_failure", "rollback")
        .start();
    let mut browser = Browser::start();
    browser.open_at(&host.admin_address().tcp().to_string());
    let rows = "[...document.querySelectorAll('#workers tbody tr')].map((row) => \
                [row.cells[0], row.cells[2], row.cells[1]].map((cell) => cell.textContent).join(' '))";
    let are = |expected: &Value| format!("JSON.stringify({rows}) == JSON.stringify({expected})");
    browser.wait_for(&are(&json!(["0 1 ready", "1 1 ready"])));
    browser.evaluate("window.stays = document.querySelector('#workers tbody tr:nth-child(2)')");
    host.signal(Signal::SIGUSR2);
    browser.wait_for(&are(&json!(["0 1 ready", "0 2 ready", "1 1 ready"])));
    assert_eq!(browser.text("#phase"), "◐ restart: rolling");
    assert_eq!(browser.evaluate("document.querySelector('#progress').hidden"), false);
    assert_eq!(browser.text("#step"), "A restart is in flight: generation 2 takes over, 1 of 2 workers serve.");
    browser.wait_for(&are(&json!(["0 2 ready", "1 2 ready"])));
    browser.wait_for("document.querySelector('#phase').textContent == '● serving'");
    assert_eq!(browser.text("#restarts li .state"), "1 complete");
    assert_eq!(browser.text("#generation"), "2");
    assert_eq!(browser.evaluate("document.querySelectorAll('#versions tbody tr').length"), 1);
    assert_eq!(
        browser.evaluate("window.stays instanceof HTMLTableRowElement"),
        true,
        "the page was never loaded again"
    );

    // What somebody writes into a configuration is text.
    host.set("/app/config", json!({ "on_start": "<b id=injected>" }));
    assert!(host.restart().verdict.starts_with("failed"));
    browser.wait_for("document.querySelector('#restarts li .state').textContent.startsWith('2 failed')");
    browser.wait_for("document.querySelector('#versions').textContent.includes('quarantined')");
    assert_eq!(browser.evaluate("document.querySelector('#injected')"), Value::Null);
    assert!(browser.text("#restarts li .detail").contains("<b id=injected>"));

    // It says when what it shows is old, and comes back by itself.
    process::signal(host.admin_process().unwrap(), Signal::SIGKILL);
    browser.wait_for("!document.querySelector('#connection').hidden");
    browser.wait_for("document.querySelector('#connection').hidden");
    process::signal(host.master(), Signal::SIGSTOP);
    browser.wait_for("document.querySelector('#connection').textContent.startsWith('The master')");
    process::signal(host.master(), Signal::SIGCONT);
    browser.wait_for("document.querySelector('#connection').hidden");
    // That a connection was refused is in the browser's log, and meant.
    browser.complaints.retain(|complaint| complaint["params"]["entry"]["source"] != "network");
    browser.assert_no_complaints();
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn page_for_operators_fits_a_phone_and_a_desk_in_light_and_dark() {
    let host = Host::misbehaving().with("/admin", "127.0.0.1:0").with("/workers", 5).start();
    host.restart_completes();
    host.install_bytes(b"no library");
    assert_eq!(host.restart().verdict, "refused: bad artifact");
    let mut browser = Browser::start();
    let mut grounds = Vec::new();
    for (width, height) in [(320, 640), (390, 844), (1280, 800)] {
        for scheme in ["light", "dark"] {
            browser.screen(width, height, scheme);
            browser.open_at(&host.admin_address().tcp().to_string());
            browser.wait_for("document.querySelectorAll('#workers tbody tr').length == 5");
            let shown = browser.evaluate("[innerWidth, document.documentElement.scrollWidth <= innerWidth]");
            assert_eq!(shown, json!([width, true]), "nothing is wider than the screen");
            grounds.push(browser.evaluate("getComputedStyle(document.body).backgroundColor"));
        }
    }
    assert_ne!(grounds[0], grounds[1], "dark is dark");
    browser.assert_no_complaints();
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn page_of_dev_reloads_by_itself_when_an_edit_is_live() {
    let dev = Dev::new("dev-browser", &["--open"]);
    dev.wait_after(0, &["live", "version"]);
    let mut browser = Browser::start();
    browser.open_at(&dev.address("page"));
    assert_eq!(browser.text("#answer"), "one");
    for (from, to) in [("one", "two"), ("two", "three")] {
        dev.edit(&format!(">{from}<"), &format!(">{to}<"));
        browser.wait_for(&format!("document.querySelector('#answer')?.innerText == '{to}'"));
    }
    // Also over a new master.
    dev.edit("export_app!(Answer)", "export_app!(Answer, epoch = 2)");
    dev.edit(">three<", ">four<");
    browser.wait_for("document.querySelector('#answer')?.innerText == 'four'");
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn page_s_style_is_loaded_while_the_page_is_made() {
    let host = Host::new(&App::build().app("axum_hints"));
    let tls = json!({ "certificates": [Authority::new(host.directory()).localhost().config()] });
    let host = host.with("/listen", json!([{ "address": "127.0.0.1:0", "tls": tls }])).start();
    let page = format!("https://localhost:{}/styled", host.address().tcp().port());
    let mut browser = Browser::start();
    for round in 0..2 {
        // Chromium does not always do what it is told early, least of all when it has just been started.
        let made = (0..20).find_map(|attempt| {
            let query = format!("?{round}-{attempt}");
            browser.call("Page.navigate", &json!({ "url": format!("{page}{query}") }));
            browser.wait_for(&format!(
                "location.search == '{query}' && document.querySelector('#made') && document.readyState == 'complete'"
            ));
            assert_eq!(browser.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol"), "h2");
            let made = browser.text("#made");
            assert!(made.starts_with("sent: true, "), "{made}");
            made.ends_with("made behind its style").then_some(())
        });
        assert!(made.is_some(), "a style that was hinted at is never loaded early");
        assert_eq!(browser.evaluate("getComputedStyle(document.querySelector('#made')).color"), "rgb(1, 2, 3)");
        host.restart_completes();
        browser.call("Network.clearBrowserCache", &json!({}));
    }
    browser.assert_no_complaints();
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn page_of_the_chat_stays_connected_over_ten_restarts() {
    let host = Host::new(&App::build().profile().join("libwebsocket.so")).start();
    let mut browser = Browser::start();
    browser.open(&host);
    browser.wait_for("socket.readyState == 1");
    for number in 0..10 {
        browser.evaluate(&format!("socket.send('number {number}')"));
        browser.wait_for(&format!("document.querySelector('li:last-child')?.innerText == 'number {number}'"));
        host.restart_completes();
    }
    browser.evaluate("socket.send('the last')");
    browser.wait_for("document.querySelector('li:last-child').innerText == 'the last'");
    assert_eq!(browser.evaluate("[connected, document.querySelectorAll('li').length]"), json!([1, 11]));
    browser.assert_no_complaints();
}
