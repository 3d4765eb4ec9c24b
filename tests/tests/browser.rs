//! The second ring: the example app's page, and the one for operators, in a real browser, headless Chromium (Debian's package
//! `chromium`; `CHROMIUM` is its path where it isn't on the PATH). Run with `-- --ignored`.
//!
//! The browser is driven over Chrome's developer tools' protocol: JSON texts with a NUL behind each, on the
//! descriptors 3 and 4 (<https://chromedevtools.github.io/devtools-protocol/>).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use app_host_tests::dev::Dev;
use app_host_tests::host::{DEADLINE, wait_until};
use app_host_tests::{App, Host, process};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

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
    let host = Host::new(&App::build().example()).start();
    let mut browser = Browser::start();
    browser.open(&host);
    browser.evaluate("window.stays = true");
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
    host.restart_completes();
    write_from_each("after");
    // The stream has ended with its worker, and the browser has opened it anew.
    browser.wait_for("document.querySelectorAll('li').length == 4");
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

/// A browser with one page. Ended on drop.
struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// What the browser complained of: scripts that broke, and what the page's policy forbids.
    complaints: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("app-host-browser-").tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null"#, "sh"])
            .arg(std::env::var_os("CHROMIUM").unwrap_or_else(|| "chromium".into()))
            .args(["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-proxy-server"])
            // Chromium's sandbox refuses to be root's, and containers have little shared memory.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let commands = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, messages) = mpsc::channel();
        // Ends with the browser, or when nobody asks for its messages any more.
        thread::spawn(move || {
            for message in answers.split(0) {
                let message = serde_json::from_slice(&message?).expect("the browser speaks JSON");
                if sender.send(message).is_err() {
                    break;
                }
            }
            Ok::<_, std::io::Error>(())
        });
        let (session, complaints) = (None, Vec::new());
        let mut browser = Self { child, commands, messages, session, calls: 0, complaints, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].take();
        let session = browser.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for method in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(method, &json!({}));
        }
        browser
    }

    /// Calls a method of the protocol and gives its result.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method of the protocol and gives its result, or the error that the browser answers with.
    fn try_call(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        // Where the browser is gone, the answer says it.
        let _ = self.commands.write_all(format!("{message}\0").as_bytes());
        loop {
            let Ok(mut answer) = self.messages.recv_timeout(DEADLINE) else {
                panic!("{method}: no answer; Debian's package chromium is needed: {:?}", self.child.try_wait());
            };
            let is_complaint = match answer["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Log.entryAdded") => answer["params"]["entry"]["level"] == "error",
                _ => false,
            };
            if is_complaint {
                self.complaints.push(answer);
            } else if answer["id"] == self.calls {
                return match answer.get_mut("error") {
                    Some(error) => Err(error.take()),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }

    /// Shows pages on a screen of this size, in light or dark.
    fn screen(&mut self, width: u32, height: u32, scheme: &str) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", &screen);
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &media);
    }

    /// Opens the page and waits until all of it is there.
    fn open(&mut self, host: &Host) {
        self.open_at(&host.address().tcp().to_string());
    }

    fn open_at(&mut self, address: &str) {
        self.call("Page.navigate", &json!({ "url": format!("http://{address}/") }));
        self.wait_for("location.protocol == 'http:' && document.readyState == 'complete'");
    }

    /// The value of an expression of JavaScript.
    fn evaluate(&mut self, expression: &str) -> Value {
        // A page that reloads by itself goes away under the question (the protocol's server errors, whose texts
        // differ): then it is asked of the next one.
        const GONE: i64 = -32000;
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let mut refused = None;
        let evaluated = wait_until(|| match self.try_call("Runtime.evaluate", &parameters) {
            Err(error) if error["code"] == GONE => {
                refused = Some(error);
                None
            }
            answer => Some(answer.unwrap_or_else(|error| panic!("{expression}: {error}"))),
        });
        let mut answer = evaluated.unwrap_or_else(|| panic!("{expression}: {refused:?}"));
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    fn wait_for(&mut self, condition: &str) {
        let mut is_so = || (self.evaluate(&format!("Boolean({condition})")) == true).then_some(());
        assert!(
            wait_until(&mut is_so).is_some(),
            "waited in vain for {condition}: {}",
            self.evaluate("document.body.innerText")
        );
    }

    /// The text of an element, as it is shown.
    fn text(&mut self, selector: &str) -> String {
        self.evaluate(&format!("document.querySelector('{selector}').innerText")).as_str().unwrap().to_owned()
    }

    /// Types a text into a field.
    fn fill(&mut self, selector: &str, text: &str) {
        self.evaluate(&format!("document.querySelector('{selector}').focus()"));
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Clicks where an element is.
    fn click(&mut self, selector: &str) {
        let element = format!("document.querySelector('{selector}')");
        self.evaluate(&format!("{element}.scrollIntoView()"));
        let place = self.evaluate(&format!(
            "(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])({element}.getBoundingClientRect())"
        ));
        for event in ["mousePressed", "mouseReleased"] {
            let [x, y] = [&place[0], &place[1]];
            let click = json!({ "type": event, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &click);
        }
    }

    fn assert_no_complaints(&self) {
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // In order, so that its processes end before it does.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        wait_until(|| self.child.try_wait().ok().flatten());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
