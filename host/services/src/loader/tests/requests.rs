//! Requests and responses across the ABI.

use app_host_core::proxied::ProxiedTls;

use super::*;

#[tokio::test]
async fn every_part_of_a_head_reaches_the_app() {
    let app = app().await;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::from_bytes(b"PROPFIND").unwrap();
    *request.uri_mut() = "https://example.org:1/head?q=%20".parse().unwrap();
    *request.version_mut() = Version::HTTP_2;
    for (name, value) in [("host", "a"), ("x-own", "b"), ("x-own", "c"), ("accept", "")] {
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let mut secret = HeaderValue::from_static("s3cret");
    secret.set_sensitive(true);
    request.headers_mut().insert("authorization", secret);
    let expected = format!(
        "PROPFIND https://example.org:1/head?q=%20 HTTP/2.0 {:?} true {:?}",
        request.headers(),
        Some(app_abi::ConnectionInfo {
            peer: connection().peer,
            local: Address::Unix,
            listener: "127.0.0.1:8080",
            scheme: "http",
        })
    );
    assert!(expected.contains("Sensitive"));
    assert_eq!(text(app.call(request, connection(), Offers::default()).await.unwrap()).await, expected);
}

#[tokio::test]
async fn a_head_with_more_headers_than_fit_on_the_stack_reaches_the_app() {
    let mut request = get("/head");
    for index in 0..100_u32 {
        let name: http::HeaderName = format!("x-{index}").parse().unwrap();
        request.headers_mut().insert(name, index.into());
    }
    let headers = format!("{:?}", request.headers());
    assert!(text(app().await.call(request, connection(), Offers::default()).await.unwrap()).await.contains(&headers));
}

#[tokio::test]
async fn a_request_lets_go_of_what_it_was_read_into_before_the_app_is_asked() {
    let app = app().await;
    let read = Bytes::from(b"/greet".to_vec());
    let mut request = get("/");
    *request.uri_mut() = Uri::from_maybe_shared(read.clone()).unwrap();
    request.headers_mut().insert("x-own", HeaderValue::from_maybe_shared(read.slice(1..)).unwrap());
    assert!(!read.is_unique());
    let answer = app.call(request, connection(), Offers::default());
    assert!(read.is_unique());
    assert_eq!(text(answer.await.unwrap()).await, "hello from 3");
}

#[tokio::test]
async fn every_form_of_a_target_reaches_the_app() {
    let app = app().await;
    for target in ["*", "example.org:443"] {
        let mut request = get("/");
        *request.uri_mut() = target.parse().unwrap();
        let response = app.call(request, connection(), Offers::default()).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{target}");
    }
}

#[tokio::test]
async fn headers_of_an_answer_keep_their_repetitions() {
    let response = app().await.call(get("/nowhere"), connection(), Offers::default()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers().get_all("x-twice").iter().count(), 2);
}

#[tokio::test]
async fn bodies_stream_both_ways_frame_by_frame_with_trailers_and_backpressure() {
    let asked = Arc::new(AtomicUsize::new(0));
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let body = Frames {
        queue: [Frame::data(chunk.clone()), Frame::data(chunk.clone()), Frame::trailers(trailers.clone())].into(),
        asked: Arc::clone(&asked),
        fail: false,
    };
    let request = Request::post("/echo").body(body).unwrap();
    let mut body = app().await.call(request, connection(), Offers::default()).await.unwrap().into_body();
    assert_eq!(body.size_hint().lower(), 7, "the hint crosses twice");
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nothing is read ahead");
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(data.as_ptr(), chunk.as_ptr(), "no byte is copied");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), chunk);
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_on_the_other_side() {
    let body = Frames { fail: true, ..Frames::default() };
    let request = Request::post("/echo").body(body).unwrap();
    let response = app().await.call(request, connection(), Offers::default()).await.unwrap();
    let error = response.into_body().collect().await.err().unwrap();
    assert!(error.to_string().contains("the client has gone"), "{error}");
}

#[tokio::test]
async fn an_app_reads_json_up_to_its_limit() {
    let app = app().await;
    for (sent, answer) in
        [("[1, 2, 3]", "Ok([1, 2, 3])"), ("[1, 2, 3, 4, 5, 6, 7, 8, 9]", "Err(TooLarge { limit: 20 })")]
    {
        let (first, second) = sent.split_at(4);
        let frames = [first, second].map(|part| Frame::data(Bytes::copy_from_slice(part.as_bytes())));
        let body = Frames { queue: frames.into(), ..Frames::default() };
        let request = Request::post("/json").body(body).unwrap();
        assert_eq!(text(app.call(request, connection(), Offers::default()).await.unwrap()).await, answer);
    }
}

#[tokio::test]
async fn a_dropped_call_releases_the_request() {
    let app = app().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let body = || Frames { asked: Arc::clone(&asked), ..Frames::default() };
    let connection = connection();

    // Before its first poll, and in the middle.
    drop(app.call(Request::post("/hang").body(body()).unwrap(), Arc::clone(&connection), Offers::default()));
    assert_eq!((Arc::strong_count(&asked), Arc::strong_count(&connection)), (1, 1));
    let mut call =
        Box::pin(app.call(Request::post("/hang").body(body()).unwrap(), Arc::clone(&connection), Offers::default()));
    assert!(futures_poll(call.as_mut()).is_pending());
    assert_eq!((Arc::strong_count(&asked), Arc::strong_count(&connection)), (2, 2));
    drop(call);
    assert_eq!((Arc::strong_count(&asked), Arc::strong_count(&connection)), (1, 1));

    // And a response that is not read.
    let echo = Request::post("/echo").body(body()).unwrap();
    let response = app.call(echo, Arc::clone(&connection), Offers::default()).await.unwrap();
    assert_eq!(Arc::strong_count(&asked), 2);
    drop(response);
    assert_eq!((Arc::strong_count(&asked), Arc::strong_count(&connection)), (1, 1));
}

#[test]
fn an_answer_that_is_not_valid_is_an_error() {
    let decode = |status, headers| {
        let answer = FfiResponse { status, headers, body: FfiBody::Empty };
        response::decode(answer).err().map(|error| error.to_string())
    };
    let none = || arena::encode(&HeaderMap::new());
    assert_eq!(decode(200, none()), None);
    assert_eq!(decode(42, none()).unwrap(), "the app answered with status 42, expected 100 to 999");
    let cut = FfiHeaders { count: 1, arena: vec![1, 0].into() };
    assert_eq!(decode(200, cut).unwrap(), "the app's headers are not valid");
}

#[tokio::test]
async fn a_client_is_who_the_request_says_then_who_the_connection_says_then_its_peer() {
    let app = app().await;
    let client = |address: &str, host: Option<&str>| {
        let address = Address::Tcp(address.parse().unwrap());
        let told = ProxiedTls {
            ends_there: true,
            version: Some("TLSv1.2".into()),
            server_name: Some("shop.example".into()),
            alpn: Some(b"h2"[..].into()),
            client_name: Some("Ann".into()),
        };
        Arc::new(Client { address, encrypted: true, host: host.map(Into::into), tls: Some(Arc::new(told)) })
    };
    let asked = text(app.call(get("/client"), connection(), Offers::default()).await.unwrap()).await;
    let mut expected = app_abi::ClientInfo::new(connection().peer, "http");
    assert_eq!(asked, format!("{:?}", Some(&expected)));

    let told = Connection { client: Some(client("198.51.100.1:1", None)), ..Connection::clone(&connection()) };
    let told = Arc::new(told);
    let asked = text(app.call(get("/client"), Arc::clone(&told), Offers::default()).await.unwrap()).await;
    assert!(asked.contains("198.51.100.1:1") && asked.contains("host: None"), "{asked}");
    for part in ["\"https\"", "Tls12", "\"shop.example\"", "b\"h2\"", "\"Ann\""] {
        assert!(asked.contains(part), "{part} in {asked}");
    }

    let mut request = get("/client");
    let address = Address::Tcp("[2001:db8::1]:0".parse().unwrap());
    let host = Some("shop.example:1".into());
    request.extensions_mut().insert(Arc::new(Client { address, encrypted: false, host, tls: None }));
    expected.address = address;
    expected.host = Some("shop.example:1".to_owned());
    assert_eq!(text(app.call(request, told, Offers::default()).await.unwrap()).await, format!("{:?}", Some(&expected)));
}
