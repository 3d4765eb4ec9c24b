//! A real browser, headless Chromium (Debian's package `chromium`; `CHROMIUM` is its path where it isn't on the PATH).
//!
//! It is driven over Chrome's developer tools' protocol: JSON texts with a NUL behind each, on the descriptors 3 and 4
//! (<https://chromedevtools.github.io/devtools-protocol/>).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Host;
use crate::host::{DEADLINE, wait_until};

/// A browser with one page. Ended on drop.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// What the browser complained of: scripts that broke, and what the page's policy forbids.
    pub complaints: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one, with an empty page.
    pub fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("app-host-browser-").tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null"#, "sh"])
            .arg(std::env::var_os("CHROMIUM").unwrap_or_else(|| "chromium".into()))
            .args(["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-proxy-server"])
            // Chromium's sandbox refuses to be root's, and containers have little shared memory.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--ignore-certificate-errors"])
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
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
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
    pub fn screen(&mut self, width: u32, height: u32, scheme: &str) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", &screen);
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &media);
    }

    /// Opens the page and waits until all of it is there.
    pub fn open(&mut self, host: &Host) {
        self.open_at(&host.address().tcp().to_string());
    }

    /// Opens the page at `HOST:PORT` and waits until all of it is there.
    pub fn open_at(&mut self, address: &str) {
        self.call("Page.navigate", &json!({ "url": format!("http://{address}/") }));
        self.wait_for("location.protocol == 'http:' && document.readyState == 'complete'");
    }

    /// The value of an expression of JavaScript.
    pub fn evaluate(&mut self, expression: &str) -> Value {
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

    /// Waits until this expression of JavaScript holds.
    pub fn wait_for(&mut self, condition: &str) {
        let mut is_so = || (self.evaluate(&format!("Boolean({condition})")) == true).then_some(());
        assert!(
            wait_until(&mut is_so).is_some(),
            "waited in vain for {condition}: {}",
            self.evaluate("document.body.innerText")
        );
    }

    /// The text of an element, as it is shown.
    pub fn text(&mut self, selector: &str) -> String {
        self.evaluate(&format!("document.querySelector('{selector}').innerText")).as_str().unwrap().to_owned()
    }

    /// Types a text into a field.
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.evaluate(&format!("document.querySelector('{selector}').focus()"));
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Clicks where an element is.
    pub fn click(&mut self, selector: &str) {
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

    /// No script broke, and nothing was asked for that the page's policy forbids.
    pub fn assert_no_complaints(&self) {
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
