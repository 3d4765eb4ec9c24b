//! How an app is tested without a host.

use super::*;
use app_abi::{
    Databank,
    testing::{TestApp, TestHost, block_on},
};

fn app() -> TestApp<Example> {
    block_on(TestApp::start(json!({ "name": "test" }))).expect("it starts")
}

fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body.into()).expect("a request")
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().bytes(1 << 20).await.expect("a whole body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn the_greeting_is_as_configured() {
    block_on(async {
        let hello = text(app().call(request(Method::GET, "/hello", "")).await).await;
        assert!(hello.starts_with(&format!("{GREETING}, test! (slot 0, generation 1, pid ")), "{hello}");
    });
}

#[test]
fn a_configuration_that_is_not_understood_keeps_it_from_starting() {
    let error = block_on(TestApp::<Example>::start(json!({ "nam": "test" }))).err().expect("an error");
    assert!(error.to_string().contains("unknown field `nam`"), "{error}");
}

#[test]
fn what_one_worker_writes_another_one_reads() {
    block_on(async {
        let host = TestHost::new(&json!({}));
        let one = host.clone().start::<Example>().await.expect("it starts");
        let other = host.slot(1).start::<Example>().await.expect("it starts");
        let entry = json!({ "name": "Ada", "text": "<b>hello</b>" }).to_string();
        let written = one.call(request(Method::POST, "/api/entries", entry)).await;
        assert_eq!(written.status(), StatusCode::CREATED);
        let page = text(other.call(request(Method::GET, "/", "")).await).await;
        assert!(page.contains("Ada") && page.contains("&lt;b&gt;hello"), "{page}");
        let databank: Databank = other.databank();
        let entries = databank.scan::<Value>("entry").collect().await.expect("the entries");
        assert_eq!(entries[0].value["name"], "Ada");
    });
}

#[test]
fn the_start_says_whom_it_greets() {
    let events = app().events();
    assert_eq!(events[0].message, "example app started");
    assert_eq!(events[0].field("name"), Some(&json!("test")));
}
