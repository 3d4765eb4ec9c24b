//! An app's start, panics, drain, stop and log.

use super::*;

#[tokio::test]
async fn the_app_learns_its_configuration_and_place() {
    let response = app().await.call(get("/greet"), connection(), Offers::default()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.body().size_hint().exact(), Some(12));
    assert_eq!(text(response).await, "hello from 3");
}

#[tokio::test]
async fn a_panic_becomes_a_500_and_one_line_with_its_place() {
    let response = app().await.call(get("/panic"), connection(), Offers::default()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text(response).await, "internal server error\n");
    let [line] = &lines()[..] else { panic!("not that many lines") };
    assert!(line.starts_with("ERROR app: app panicked ["), "{line}");
    assert!(line.contains("the handler gave up") && line.contains("tests/mod.rs:"), "{line}");
}

#[tokio::test]
async fn a_panic_in_a_body_or_its_drop_breaks_only_the_body() {
    let app = app().await;
    let response = app.call(get("/panic-in-body"), connection(), Offers::default()).await.unwrap();
    let error = response.into_body().collect().await.err().unwrap();
    assert!(error.to_string().contains("panicked while it produced the body"), "{error}");
    assert_eq!(app.call(get("/greet"), connection(), Offers::default()).await.unwrap().status(), StatusCode::OK);
    let [body, drop] = &lines()[..] else { panic!("not that many lines") };
    assert!(body.starts_with("ERROR app: app panicked in a body ["), "{body}");
    assert!(drop.starts_with("ERROR app: app panicked in a drop ["), "{drop}");
}

#[tokio::test]
async fn a_failed_start_says_why() {
    let failure = async |info| library().start(info).await.err().unwrap().to_string();
    assert_eq!(failure(info("refuse")).await, "nobody to greet");
    let text = failure(info("panic")).await;
    assert!(text.starts_with("the app panicked in its start: no greeting today ("), "{text}");
    assert!(text.contains("tests/mod.rs:"), "{text}");
    let config = r#"{ "greeting": 7 }"#.to_owned();
    let text = failure(HostInfo { config, ..info("") }).await;
    let expected = "app.config.greeting is not as the app expects it: invalid type: integer `7`, expected a string";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn drain_and_stop_reach_the_app_and_a_panic_there_is_logged() {
    let app = app().await;
    app.drain();
    app.stop().await;
    let [drain, stop] = &lines()[..] else { panic!("not that many lines") };
    assert_eq!(drain, "INFO app: drain noticed, true [] []", "the notice comes first");
    assert!(stop.starts_with("ERROR app: app panicked in its stop ["), "{stop}");
}

#[tokio::test]
async fn drain_notice_ends_what_waits_for_it_and_those_that_come_later_at_once() {
    let app = app().await;
    let mut waiting: Vec<_> =
        (0..10).map(|_| Box::pin(app.call(get("/draining"), connection(), Offers::default()))).collect();
    for call in &mut waiting {
        assert!(futures_poll(call.as_mut()).is_pending());
    }
    // One whose client has gone.
    drop(waiting.pop());
    app.drain();
    let all = async {
        for call in waiting {
            assert_eq!(text(call.await.unwrap()).await, "false true");
        }
        assert_eq!(text(app.call(get("/draining"), connection(), Offers::default()).await.unwrap()).await, "true true");
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("the notice comes soon");
}

#[tokio::test]
async fn lines_of_the_app_keep_level_and_fields() {
    app().await.call(get("/log"), connection(), Offers::default()).await.unwrap();
    let [line] = &lines()[..] else { panic!("not that many lines") };
    let fields = r#"[("tray", Text("2")), ("left", Text("\"3\""))]"#;
    assert_eq!(*line, format!("WARN app: low on paper {fields} []"));
}

#[test]
fn an_app_from_before_the_service_trace_logs_as_it_did() {
    let host = services::host(info(""));
    // SAFETY: the host's own tables, called as such an app calls them.
    unsafe {
        type Fields = <LogServiceRef as PrefixRefTrait>::PrefixFields;
        let table = (host.service)(host.data, SERVICE_LOG, 0).cast::<WithMetadata_<Fields, Fields>>();
        let log = LogServiceRef(PrefixRef::from_raw(table));
        let fields = [FfiField { key: "tray".into(), value: "2".into() }];
        let record =
            FfiRecord { level: 2, target: "".into(), message: "low on paper".into(), fields: fields[..].into() };
        let text = Written::default();
        let writer = text.clone();
        let format = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).without_time();
        tracing::subscriber::with_default(format.finish(), || {
            assert!(log.enabled()(3));
            log.log()(&raw const record);
        });
        let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.trim(), r#"WARN app: low on paper fields="{\"tray\":\"2\"}""#);
    }
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
