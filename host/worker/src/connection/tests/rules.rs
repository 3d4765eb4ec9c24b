//! What HTTP/1.1 wants of requests and responses where hyper is lenient: each row with the section that decides it.

use super::refused::{refusals, status};
use super::*;

use Refused::{BadChunk, BadCoding, BadHost, BadTarget, BareLineFeed, Malformed, MethodNotImplemented};

/// The status of the first answer, and what was refused.
async fn judged(text: &str) -> (u16, Vec<Refused>) {
    let (answer, counted) = refusals(text.as_bytes(), &Limits::TEST).await;
    if !counted.is_empty() {
        assert!(answer.contains("connection: close\r\n"), "{text:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "nothing is answered behind it: {text:?}: {answer}");
    }
    (status(&answer), counted)
}

#[tokio::test(start_paused = true)]
async fn a_request_names_its_host_once_and_well() {
    let rows = [
        // RFC 9112, section 3.2.
        ("GET / HTTP/1.1\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: %zz\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", Some(BadHost)),
        ("GET / HTTP/1.0\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a.b-c_d.example:8080\r\nConnection: close\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\nConnection: close\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\nConnection: close\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a:\r\nConnection: close\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: %41\r\nConnection: close\r\n\r\n", None),
    ];
    for (text, refused) in rows {
        let expected = (if refused.is_some() { 400 } else { 200 }, Vec::from_iter(refused));
        assert_eq!(judged(text).await, expected, "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_has_a_form_that_its_method_has() {
    let close = "Host: a\r\nConnection: close\r\n\r\n";
    let rows = [
        // RFC 9112, sections 3.2.1 to 3.2.4.
        ("GET * HTTP/1.1", 400, Some(BadTarget)),
        ("OPTIONS * HTTP/1.1", 200, None),
        ("GET a HTTP/1.1", 400, Some(BadTarget)),
        ("GET a:80 HTTP/1.1", 400, Some(BadTarget)),
        ("GET http://user@a/ HTTP/1.1", 400, Some(BadTarget)),
        ("GET ftp://a/ HTTP/1.1", 400, Some(BadTarget)),
        ("GET http://a/b HTTP/1.1", 200, None),
        ("GET https://[::1]:80/b HTTP/1.1", 200, None),
        ("GET /\u{e9} HTTP/1.1", 400, Some(BadTarget)),
        ("GET /%C3%A9?a=b&c HTTP/1.1", 200, None),
        // RFC 9110, sections 9.3.6 and 9.3.8.
        ("CONNECT a:80 HTTP/1.1", 501, Some(MethodNotImplemented)),
        ("CONNECT / HTTP/1.1", 501, Some(MethodNotImplemented)),
        ("TRACE / HTTP/1.1", 501, Some(MethodNotImplemented)),
        // RFC 9112, section 3.
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1", 501, Some(MethodNotImplemented)),
        ("UPDATEREDIRECTREF / HTTP/1.1", 200, None),
    ];
    for (line, expected, refused) in rows {
        let judged = judged(&format!("{line}\r\n{close}")).await;
        assert_eq!(judged, (expected, Vec::from_iter(refused)), "{line:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_authority_of_a_target_is_its_host() {
    // RFC 9112, section 3.2.2.
    let mut rig = Rig::new();
    for (host, expected) in [("a", "b.example:81"), ("b.example:81", "b.example:81")] {
        rig.send(&format!("GET http://b.example:81/host HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(rig.answer().await, kept(expected));
    }
    rig.send("GET http://b/host HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!(rig.answer().await.body, "b");
}

#[tokio::test(start_paused = true)]
async fn a_line_ends_with_a_carriage_return() {
    // RFC 9112, section 2.2: wherever the line feed alone stands, and however the bytes come.
    let rows = [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", true),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", true),
        ("GET / HTTP/1.1\nHost: a\n\n", true),
        // Empty lines before a request are skipped.
        ("\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
    ];
    for (text, is_bare) in rows {
        let expected = if is_bare { (400, vec![BareLineFeed]) } else { (200, vec![]) };
        assert_eq!(judged(text).await, expected, "{text:?}");
        let mut rig = Rig::new();
        for byte in text.chars() {
            rig.send(&byte.to_string()).await;
            rig.settle().await;
        }
        assert_eq!(rig.answer().await.status, expected.0, "byte by byte: {text:?}");
    }
    // Each request answers for its own lines.
    let mut rig = Rig::new();
    rig.send(
        "GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\nHost: a\r\n\r\nGET /three HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    assert_eq!(rig.answer().await, kept("/one"));
    rig.refused_with(400, BareLineFeed).await;
}

#[tokio::test(start_paused = true)]
async fn a_chunk_is_formed_as_the_grammar_wants() {
    // RFC 9112, sections 7.1 and 7.1.1.
    let good = [
        "4\r\nbody\r\n0\r\n\r\n",
        "004 \t; a=b;c ;d = \"e;\\\" \"\r\nbody\r\n0\r\n\r\n",
        "4;a=b\r\nbody\r\n0;c\r\nx: y\r\n\r\n",
    ];
    let bad = [
        "4 \r\nbody\r\n0\r\n\r\n",
        "4\t\r\nbody\r\n0\r\n\r\n",
        "4;\r\nbody\r\n0\r\n\r\n",
        "4;=b\r\nbody\r\n0\r\n\r\n",
        "4;a=\r\nbody\r\n0\r\n\r\n",
        "4;a b\r\nbody\r\n0\r\n\r\n",
        "4;a=\"b\r\nbody\r\n0\r\n\r\n",
        "4;a=b \r\nbody\r\n0\r\n\r\n",
        "4\nbody\r\n0\r\n\r\n",
        "4\r\nbody\n0\r\n\r\n",
        "4\r\nbodyX\r\n0\r\n\r\n",
        "4\r\nbody\r\n0\r\nx: y\n\r\n",
        "4\r\nbody\r\n0\r\nx\r\n\r\n",
        "4\r\nbody\r\n0\r\nx: y\r\n z\r\n\r\n",
        "g\r\nbody\r\n0\r\n\r\n",
        "-4\r\nbody\r\n0\r\n\r\n",
        "0x4\r\nbody\r\n0\r\n\r\n",
        " 4\r\nbody\r\n0\r\n\r\n",
        "4\r\nbody\r\n10000000000000004\r\n",
    ];
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in good {
        assert_eq!(judged(&format!("{head}{body}")).await, (200, vec![]), "{body:?}");
    }
    for body in bad {
        assert_eq!(judged(&format!("{head}{body}")).await, (400, vec![BadChunk]), "{body:?}");
        // Behind the head, when the app has the request already.
        let mut rig = Rig::new();
        rig.send(head).await;
        rig.settle().await;
        let _ = rig.client.write_all(body.as_bytes()).await;
        rig.refused_with(400, BadChunk).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_has_no_coding_but_the_chunked_one() {
    // RFC 9112, section 6.1.
    for (coding, status, refused) in [
        ("gzip, chunked", 501, Some(BadCoding)),
        ("chunked, chunked", 501, Some(BadCoding)),
        ("chunked\r\nTransfer-Encoding: chunked", 501, Some(BadCoding)),
        (", Chunked", 200, None),
        ("gzip", 400, Some(Malformed)),
        ("chunked, gzip", 400, Some(Malformed)),
    ] {
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding";
        let judged = judged(&format!("{head}: {coding}\r\n\r\n4\r\nbody\r\n0\r\n\r\n")).await;
        assert_eq!(judged, (status, Vec::from_iter(refused)), "{coding:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http_is_refused_by_hyper() {
    for text in ["GET /\r\n\r\n", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"] {
        assert_eq!(judged(text).await, (400, vec![Malformed]), "{text:?}");
    }
}

/// The head of the answer to `request`, in lower case.
async fn head_of(rig: &mut Rig, request: &str) -> String {
    rig.send(request).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(rig.client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

#[tokio::test(start_paused = true)]
async fn a_response_without_content_says_no_length() {
    let mut rig = Rig::new();
    // RFC 9110, section 8.6.
    let head = head_of(&mut rig, &get("/204")).await;
    assert!(head.starts_with("http/1.1 204") && !head.contains("content-length"), "{head}");
    // Section 15.3.6.
    let head = head_of(&mut rig, &get("/205")).await;
    assert!(head.starts_with("http/1.1 205") && head.contains("content-length: 0\r\n"), "{head}");
    assert_eq!(rig.get("/next").await, kept("/next"));
}

#[tokio::test(start_paused = true)]
async fn a_close_behind_an_answer_is_announced() {
    // RFC 9112, section 9.6.
    let rows = [
        ("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true),
        ("GET /a HTTP/1.1\r\nHost: a\r\nConnection: TE, Close\r\nTE: trailers\r\n\r\n", true),
        ("GET /a HTTP/1.0\r\n\r\n", true),
        ("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
        // Of a body of unknown length only the close tells HTTP/1.0 the end.
        ("GET /endless HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", false),
        // The app answers without the body, of which there is more.
        ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", true),
        ("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n", true),
        ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1", false),
        // The app fails, or has nothing to say.
        ("POST /fail HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", true),
        ("POST /205 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", true),
        // The app still has it.
        ("POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", false),
    ];
    for (request, announced) in rows {
        let mut rig = Rig::new();
        let head = head_of(&mut rig, request).await;
        assert_eq!(head.contains("\r\nconnection: close\r\n"), announced, "{request:?}: {head}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_ended_its_side_gets_its_answer() {
    // RFC 9112, section 9.6.
    for request in [get("/hold"), post("/read", "body"), get("/one") + &get("/hold")] {
        let mut rig = Rig::new();
        rig.send(&request).await;
        rig.client.shutdown().await.unwrap();
        rig.settle().await;
        rig.open_gate();
        if request.contains("/one") {
            assert_eq!(rig.answer().await, kept("/one"));
        }
        assert_eq!(rig.answer().await.status, 200, "{request:?}");
        rig.end().await;
        rig.served.await.unwrap();
        assert_eq!(rig.stats.snapshot().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_ended_its_side_and_never_gets_an_answer_is_taken_for_gone() {
    let mut rig = Rig::new();
    rig.send(&get("/hold")).await;
    rig.client.shutdown().await.unwrap();
    let late = rig.end().await;
    let limit = Limits::TEST.http.half_closed_timeout;
    assert!(late >= limit && late <= limit + Limits::TEST.look(), "{late:?}");
    rig.served.await.unwrap();
    assert_eq!(rig.stats.snapshot().in_flight, 0);
}

#[test]
fn cookies_that_came_apart_on_http_2_are_one_field_and_one_line() {
    // RFC 9113, section 8.2.3.
    let request = |version: http::Version| {
        let mut request = Request::get("http://a/").version(version).header("host", "a").body(String::new()).unwrap();
        for number in 0..200 {
            request.headers_mut().append("cookie", format!("c{number}=1").parse().unwrap());
        }
        request
    };
    let mut multiplexed = request(http::Version::HTTP_2);
    super::super::rules::judge(&mut multiplexed, &Limits::TEST.http).unwrap();
    bounds::check(&multiplexed, &Limits::TEST.http, bounds::InFlightNow::default()).unwrap();
    let cookies: Vec<_> = multiplexed.headers().get_all("cookie").iter().collect();
    assert_eq!(cookies.len(), 1);
    assert!(cookies[0].to_str().unwrap().starts_with("c0=1; c1=1; c2=1; "), "{cookies:?}");
    // On HTTP/1.1 they are lines as others are.
    let plain = request(http::Version::HTTP_11);
    bounds::check(&plain, &Limits::TEST.http, bounds::InFlightNow::default()).unwrap_err();
}
