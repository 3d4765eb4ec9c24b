use super::*;
use crate::{DatabankError, Host, Level, RequestExt};
use http::Version;
use serde_json::{Value, json};
use std::future::poll_fn;

struct Sample(Host);

impl App for Sample {
    async fn start(host: Host) -> Result<Self, StartError> {
        match host.config_json() {
            "\"refuse\"" => Err(StartError::new("refused")),
            "\"panic\"" => panic!("no start today"),
            _ => Ok(Self(host)),
        }
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        match request.uri().path() {
            "/head" => {
                let text =
                    format!("{} {} {:?} {:?}", request.method(), request.uri(), request.headers(), request.version());
                Response::new(text.into())
            }
            "/echo" => Response::new(request.into_body()),
            "/peer" => Response::new(format!("{:?}", request.connection()).into()),
            "/place" => Response::new(format!("{} {}", self.0.slot(), self.0.generation()).into()),
            "/panic" => panic!("gave up"),
            "/wake" => {
                let mut woken = false;
                poll_fn(|context| {
                    let waker = context.waker().clone();
                    thread::spawn(move || waker.wake());
                    if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                Response::new("woken".into())
            }
            _ => {
                self.0.log_with(Level::Debug, "counted", &[("by", "one")]);
                let sum = self.0.databank().increment("counter", "a", "n", 1).await;
                Response::new(format!("{sum:?}").into())
            }
        }
    }

    fn drain(&self) {
        self.0.log(Level::Info, "draining");
    }

    async fn stop(&self) {
        self.0.log(Level::Info, "stopped");
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().bytes(1 << 20).await.unwrap().to_vec()).unwrap()
}

fn start() -> TestApp<Sample> {
    block_on(TestApp::start(json!({}))).unwrap()
}

#[test]
fn requests_and_answers_cross_the_line_whole() {
    block_on(async {
        let mut app = start();
        let mut request = Request::builder().method("PROPFIND").uri("http://there/head?a=b");
        request = request.header("x-a", "1").header("x-a", "2").version(Version::HTTP_2);
        let answer = text(app.call(request.body(Body::empty()).unwrap()).await).await;
        assert_eq!(answer, "PROPFIND http://there/head?a=b {\"x-a\": \"1\", \"x-a\": \"2\"} HTTP/2.0");
        let echo = Request::post("/echo").body("a body".into()).unwrap();
        assert_eq!(text(app.call(echo).await).await, "a body");
        assert!(text(app.call(get("/peer")).await).await.contains("listener: \"test\""));
        let peer = Address::Tcp("192.0.2.1:4711".parse().unwrap());
        app.set_connection(ConnectionInfo { peer, ..TEST_CONNECTION });
        assert!(text(app.call(get("/peer")).await).await.contains("192.0.2.1:4711"));
        assert_eq!(text(app.call(get("/wake")).await).await, "woken");
    });
}

#[test]
fn a_panic_is_a_500_and_a_line_of_its_own_app() {
    block_on(async {
        let (app, other) = (start(), start());
        assert_eq!(app.call(get("/panic")).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
        // The first app that a process starts also hears of the threads that are in none: other tests of this crate.
        let of_a_request = |app: &TestApp<Sample>| -> Vec<_> {
            app.events().into_iter().filter(|event| event.field("path").is_some()).collect()
        };
        let [event] = &of_a_request(&app)[..] else { panic!("{:?}", app.events()) };
        assert_eq!((event.level, &*event.message), (Level::Error, "app panicked"));
        assert_eq!(event.field("panic"), Some(&json!("gave up")));
        assert_eq!(of_a_request(&other), []);
    });
}

#[test]
fn why_an_assertion_failed_beside_an_app_is_printed() {
    const FAILS: &str = "APP_ABI_TEST_FAILS";
    if std::env::var_os(FAILS).is_some() {
        let _app = start();
        panic!("as it should");
    }
    let mut test = std::process::Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "testing::tests::why_an_assertion_failed_beside_an_app_is_printed"]).env(FAILS, "1");
    let output = test.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && told.contains("as it should"), "{told}");
}

#[test]
fn start_drain_and_stop_are_the_apps_own() {
    block_on(async {
        let failure = async |config: Value| TestApp::<Sample>::start(config).await.err().unwrap().to_string();
        assert_eq!(failure(json!("refuse")).await, "refused");
        assert!(failure(json!("panic")).await.starts_with("the app panicked in its start: no start today ("));
        let app = TestHost::new(&json!(null)).slot(3).generation(7).start::<Sample>().await.unwrap();
        assert_eq!(text(app.call(get("/place")).await).await, "3 7");
        app.drain();
        app.stop().await;
        let messages: Vec<_> = app.events().into_iter().map(|event| event.message).collect();
        assert_eq!(messages, ["draining", "stopped"]);
    });
}

#[test]
fn the_databank_is_the_tests_own_and_has_the_limits_of_the_hosts() {
    block_on(async {
        let host = TestHost::new(&json!({}));
        host.databank().create("counter", "a", &json!({ "n": 40 })).await.unwrap();
        let (old, new) =
            (host.clone().start::<Sample>().await.unwrap(), host.generation(2).start::<Sample>().await.unwrap());
        assert_eq!(text(old.call(get("/")).await).await, "Ok(41)");
        assert_eq!(text(new.call(get("/")).await).await, "Ok(42)");
        assert_eq!(old.databank().read::<Value>("counter", "a").await.unwrap().value["n"], 42);
        assert!(start().databank().read::<Value>("counter", "a").await.is_err());
        assert_eq!(old.events()[0].field("by"), Some(&json!("one")));
        let deep = (0..90).fold(json!(1), |inner, _| json!([inner]));
        let databank = new.databank();
        for outcome in [
            databank.create("no kind", "a", &json!({})).await.map(drop),
            databank.create("note", "a", &json!({ "$where": 1 })).await.map(drop),
            databank.create("note", "a", &json!([])).await.map(drop),
            databank.append("note", "a", "list", &deep).await.map(drop),
            databank.append("note", "a", "a.b", &json!([[deep]])).await.map(drop),
        ] {
            assert!(matches!(outcome, Err(DatabankError::Invalid(_))), "{outcome:?}");
        }
    });
}

#[cfg(feature = "tracing")]
#[test]
fn events_of_tracing_are_seen_with_their_spans() {
    struct Traced;
    impl App for Traced {
        async fn start(_: Host) -> Result<Self, StartError> {
            Ok(Self)
        }
        async fn call(&self, request: Request<Body>) -> Response<Body> {
            let _span = tracing::info_span!("request", path = request.uri().path()).entered();
            tracing::trace!(n = 1, "seen");
            Response::default()
        }
    }
    // Two at a time: each sees its own.
    let (one, other) = block_on(async {
        (TestApp::<Traced>::start(json!({})).await.unwrap(), TestApp::<Traced>::start(json!({})).await.unwrap())
    });
    block_on(async { (one.call(get("/a")).await, other.call(get("/b")).await) });
    let [event] = &other.events()[..] else { panic!("{:?}", other.events()) };
    assert_eq!((event.level, &*event.message, event.field("n")), (Level::Trace, "seen", Some(&json!(1))));
    assert_eq!(event.spans, [("request".to_owned(), vec![("path".to_owned(), json!("/b"))])]);
}

#[test]
fn one_of_the_apps_of_a_test_host_holds_a_lock_and_the_next_one_gets_it() {
    block_on(async {
        let host = TestHost::new(&json!({}));
        let connect = || Host::connect(TestWorker::leak(host.clone()).ffi()).unwrap();
        let (first, second) = (connect(), connect());
        let held = first.only_one("job").await.unwrap();
        assert_eq!(held.name(), "job");
        drop(second.only_one("another").await.unwrap());
        let mut waits = pin!(second.only_one("job"));
        let mut gives_up = Box::pin(second.only_one("job"));
        let is_pending = poll_fn(|context| {
            let pending = waits.as_mut().poll(context).is_pending() && gives_up.as_mut().poll(context).is_pending();
            Poll::Ready(pending)
        });
        assert!(is_pending.await);
        drop(gives_up);
        thread::spawn(move || drop(held));
        assert_eq!(waits.await.unwrap().name(), "job");
        let error = first.only_one("").await.unwrap_err();
        assert!(matches!(error, crate::OnlyOneError::Invalid(_)), "{error}");
    });
}

#[test]
fn a_configuration_that_the_app_does_not_expect_is_told_by_its_key_alone() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its form is asked for")]
    struct Config {
        mail: Mail,
    }
    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only its form is asked for")]
    struct Mail {
        port: u16,
    }
    let told = |config: Value| {
        let host = Host::connect(TestWorker::leak(TestHost::new(&config)).ffi()).unwrap();
        StartError::from(host.config::<Config>().unwrap_err()).to_string()
    };
    for (config, expected) in [
        (
            json!({ "mail": { "port": 70_000 } }),
            "app.config.mail.port is not as the app expects it: invalid value: integer `70000`, expected u16",
        ),
        (json!({ "mail": {} }), "app.config.mail is not as the app expects it: missing field `port`"),
        (
            json!({ "mail": { "port": 1 }, "mial": 1 }),
            "app.config.mial is not as the app expects it: unknown field `mial`, expected `mail`",
        ),
        (json!(null), "app.config is not as the app expects it: invalid type: null, expected struct Config"),
    ] {
        assert_eq!(told(config), expected);
    }
}

#[cfg(feature = "axum")]
mod services {
    use super::*;
    use crate::testing::start_service;
    use axum::{Router, routing::get};

    async fn visit(host: Host) -> String {
        host.log(Level::Info, "a visit");
        host.databank().increment("counter", "page", "visits", 1).await.unwrap().to_string()
    }

    fn plain() -> Router {
        Router::new().route("/visit", get(visit)).route("/panic", get(fails))
    }

    async fn fails() -> String {
        panic!("gave up")
    }

    async fn configured(host: Host) -> Result<Router, Box<dyn std::error::Error>> {
        let greeting: String = host.config()?;
        Ok(plain().route("/", get(async move || greeting)))
    }

    async fn flush(host: Host) {
        host.log(Level::Info, "flushed");
    }

    fn logged(app: &TestApp<impl App>, message: &str) -> bool {
        app.events().iter().any(|event| event.message == message)
    }

    #[test]
    fn a_router_in_any_form_is_started_as_its_host_would() {
        block_on(async {
            let host = TestHost::new(&json!("hello"));
            let first = start_service!(host.clone(), plain).await.unwrap();
            let second = start_service!(host, configured, stop = flush).await.unwrap();
            assert_eq!(text(second.call(super::get("/")).await).await, "hello");
            assert_eq!(text(first.call(super::get("/visit")).await).await, "1");
            assert_eq!(text(second.call(super::get("/visit")).await).await, "2");
            assert!(logged(&first, "a visit"));
            assert_eq!(first.call(super::get("/panic")).await.status(), 500);
            assert!(!logged(&second, "flushed"));
            second.stop().await;
            assert!(logged(&second, "flushed"));
        });
    }

    #[test]
    fn a_router_that_cannot_be_made_fails_the_start() {
        let error = block_on(start_service!(TestHost::new(&json!(3)), configured)).err().unwrap();
        let expected = "app.config is not as the app expects it: invalid type: integer `3`, expected a string";
        assert_eq!(error.to_string(), expected);
    }
}

/// Keeps a text, which it hands on.
struct Keeps(std::sync::Mutex<Vec<u8>>);

impl App for Keeps {
    const KEEPS_STATE: bool = true;

    async fn start(host: Host) -> Result<Self, StartError> {
        Ok(Self(std::sync::Mutex::new(host.config_json().as_bytes().to_vec())))
    }

    async fn call(&self, _request: Request<Body>) -> Response<Body> {
        Response::new(self.0.lock().unwrap().clone().into())
    }

    async fn leave(&self, state: &mut crate::StateWriter) -> Result<(), crate::BoxError> {
        use std::io::Write;
        let kept = self.0.lock().unwrap();
        assert!(!kept.starts_with(b"3"), "three is nothing to leave");
        // Small writes and one that is larger than what is gathered.
        for byte in &*kept {
            state.write_all(&[*byte])?;
        }
        state.write_all(&vec![7; if kept.starts_with(b"2") { 100_000 } else { 0 }])?;
        Ok(())
    }

    async fn inherit(&self, state: crate::LeftState) -> Result<(), crate::BoxError> {
        if state.version() != "1.0.0" {
            return Err(format!("version {} isn't known", state.version()).into());
        }
        *self.0.lock().unwrap() = state.bytes().to_vec();
        Ok(())
    }
}

#[test]
fn what_one_app_leaves_another_inherits() {
    block_on(async {
        let one = TestHost::new(&json!(1)).generation(5).start::<Keeps>().await.unwrap();
        let two = TestApp::<Keeps>::start(json!(2)).await.unwrap();
        let left = two.leave(200_000).await.unwrap().unwrap();
        assert_eq!((left.bytes().len(), left.version(), left.generation()), (100_001, "1.0.0", 1));
        one.inherit(left.clone()).await.unwrap();
        let body = one.call(Request::get("/").body(Body::empty()).unwrap()).await.into_body();
        assert_eq!(body.bytes(200_000).await.unwrap(), left.bytes());
        assert_eq!(one.leave(300_000).await.unwrap().unwrap().generation(), 5);

        let error = two.leave(99_999).await.unwrap_err().to_string();
        assert_eq!(error, "more than 99999 bytes of state");
        let newer = crate::LeftState::new("x", "2.0.0", 9);
        assert_eq!(one.inherit(newer).await.unwrap_err().to_string(), "version 2.0.0 isn't known");
        let three = TestApp::<Keeps>::start(json!(3)).await.unwrap();
        let error = three.leave(10).await.unwrap_err().to_string();
        assert!(error.starts_with("the app panicked: three is nothing to leave ("), "{error}");
    });
}

#[test]
#[should_panic(expected = "`KEEPS_STATE` is false")]
fn an_app_that_does_not_say_that_it_leaves_something_is_not_asked() {
    block_on(async {
        let plain = TestApp::<Sample>::start(json!({ "greeting": "hello" })).await.unwrap();
        drop(plain.leave(10));
    });
}
