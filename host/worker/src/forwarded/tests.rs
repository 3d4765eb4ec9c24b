use std::sync::Arc;

use app_host_core::config::{ProxyProtocol, Trusted};
use app_host_core::proxied::ProxiedTls;
use proptest::prelude::*;

use super::*;

fn peers(forwarded: Forwarded) -> Peers {
    let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| Trusted::Network(network.parse().unwrap()));
    let trusted = [&trusted[..], &[Trusted::Unix]].concat();
    Peers { trusted, proxy_protocol: None, forwarded: Some(forwarded) }
}

fn address(text: &str) -> Address {
    text.parse().map_or(Address::Unix, Address::Tcp)
}

fn connection(peer: &str) -> Connection {
    Connection { peer: address(peer), local: Address::Unix, listener: "test", tls: None, client: None }
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let fields =
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
    let mut headers = HeaderMap::new();
    headers.extend(fields);
    headers
}

/// All values of a field, as one list.
fn list(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
    values.join(", ")
}

/// What the lines say of the client of a trusted peer, and what is left of them. The client is the peer where they say nothing.
fn settled(kind: Forwarded, name: &'static str, lines: &[&str]) -> (String, String) {
    let fields: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
    let mut headers = headers(&fields);
    let client = settle(&peers(kind), &connection("10.0.0.1:9"), &mut headers);
    let client = client.map_or_else(
        || "peer".to_owned(),
        |client| match client.address {
            Address::Tcp(address) if address.port() == 0 => address.ip().to_string(),
            Address::Tcp(address) => address.to_string(),
            Address::Unix => "unix".to_owned(),
        },
    );
    (client, list(&headers, name))
}

#[test]
fn the_rightmost_hop_that_is_not_trusted_is_the_client_and_what_it_says_is_cut_off() {
    for (lines, client, left) in [
        (&["192.0.2.1"][..], "192.0.2.1", "192.0.2.1"),
        (&["192.0.2.1:4711"], "192.0.2.1:4711", "192.0.2.1:4711"),
        (&["2001:db8::1"], "2001:db8::1", "2001:db8::1"),
        (&["[2001:db8::1]:80"], "[2001:db8::1]:80", "[2001:db8::1]:80"),
        (&["::ffff:192.0.2.1"], "192.0.2.1", "::ffff:192.0.2.1"),
        // The client says that it is somebody else, also as one whom we trust.
        (&["198.51.100.7, 192.0.2.1"], "192.0.2.1", "192.0.2.1"),
        (&["10.0.0.9, 192.0.2.1"], "192.0.2.1", "192.0.2.1"),
        (&["198.51.100.7", "192.0.2.1"], "192.0.2.1", "192.0.2.1"),
        // Two proxies in a row.
        (&["198.51.100.7, 192.0.2.1, 10.0.0.2,10.0.0.3"], "192.0.2.1", "192.0.2.1, 10.0.0.2,10.0.0.3"),
        (&["198.51.100.7, 192.0.2.1", "10.0.0.2", "fd00::1"], "192.0.2.1", "192.0.2.1, 10.0.0.2, fd00::1"),
        // Nobody but proxies: the first of them.
        (&["10.0.0.3, 10.0.0.2"], "10.0.0.3", "10.0.0.3, 10.0.0.2"),
        // What can't be read ends what is believed.
        (&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2", "10.0.0.2"),
        (&["192.0.2.1, \u{e9}", "10.0.0.2"], "10.0.0.2", "10.0.0.2"),
        (&["192.0.2.1, nonsense"], "peer", ""),
        (&["192.0.2.1:99999"], "peer", ""),
        (&["192.0.2.1:+1"], "peer", ""),
        (&[", ,192.0.2.1 ,, "], "192.0.2.1", "192.0.2.1 ,,"),
        (&["", " "], "peer", ""),
        (&[], "peer", ""),
    ] {
        assert_eq!(settled(Forwarded::XForwarded, "x-forwarded-for", lines), (client.into(), left.into()), "{lines:?}");
    }
}

#[test]
fn the_standards_own_field_is_read_from_the_right_whatever_a_client_has_put_before() {
    for (lines, client, left) in [
        (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60", "for=192.0.2.60;proto=http;by=203.0.113.43"),
        (&["For=\"[2001:db8:cafe::17]:4711\""], "[2001:db8:cafe::17]:4711", "For=\"[2001:db8:cafe::17]:4711\""),
        (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17", "for=198.51.100.17"),
        (&["for=192.0.2.43", "for=10.0.0.7;host=a"], "192.0.2.43", "for=192.0.2.43, for=10.0.0.7;host=a"),
        (&["for=192.0.2.43:80; proto=https"], "192.0.2.43:80", "for=192.0.2.43:80; proto=https"),
        (&["for=\"192.0.2.43:_p\""], "192.0.2.43", "for=\"192.0.2.43:_p\""),
        (&["for=192.0.2.43;"], "192.0.2.43", "for=192.0.2.43;"),
        // A quote that never ends, and commas and quotes within quotes.
        (&["for=\"10.0.0.7, for=192.0.2.43"], "192.0.2.43", "for=192.0.2.43"),
        (&["for=10.0.0.7;x=\"a, for=1.1.1.1\\\", b\""], "10.0.0.7", "for=10.0.0.7;x=\"a, for=1.1.1.1\\\", b\""),
        (&["for=1.1.1.1;x=\"\\\\\", for=192.0.2.43"], "192.0.2.43", "for=192.0.2.43"),
        // Who hides is nobody, and what is said of him counts.
        (&["for=1.1.1.1, for=unknown;proto=https"], "10.0.0.1:9", "for=unknown;proto=https"),
        (&["for=1.1.1.1, for=_hidden, for=10.0.0.2"], "10.0.0.2", "for=10.0.0.2"),
        (&["for=1.1.1.1;for=10.0.0.2"], "peer", ""),
        (&["for=1.1.1.1 for=10.0.0.2"], "peer", ""),
        (&["for"], "peer", ""),
        (&["=1.1.1.1"], "peer", ""),
        (&["for=\"1.1.1.1"], "peer", ""),
    ] {
        assert_eq!(settled(Forwarded::Forwarded, "forwarded", lines), (client.into(), left.into()), "{lines:?}");
    }
}

#[test]
fn scheme_and_host_are_the_clients_own() {
    let ask = |kind, fields: &[(&'static str, &str)]| {
        let mut headers = headers(fields);
        let client = settle(&peers(kind), &connection("unix"), &mut headers);
        let client = client.map(|client| (client.address, client.encrypted, client.host.as_deref().map(str::to_owned)));
        (client, headers)
    };
    let (client, left) = ask(
        Forwarded::XForwarded,
        &[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-proto", "http, HTTPS"),
            ("x-forwarded-host", "evil.example, shop.example:8443"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
        ],
    );
    assert_eq!(client, Some((address("192.0.2.1:0"), true, Some("shop.example:8443".to_owned()))));
    let expected = [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "HTTPS"),
        ("x-forwarded-host", "shop.example:8443"),
    ];
    assert_eq!(left, headers(&expected));

    let (client, left) = ask(Forwarded::XForwarded, &[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b@c")]);
    assert_eq!((client, left.len()), (None, 0));
    let (client, _) = ask(Forwarded::XForwarded, &[("x-forwarded-proto", "wss")]);
    assert_eq!(client, Some((Address::Unix, true, None)), "the peer is the client, and speaks TLS");

    let (client, left) = ask(
        Forwarded::Forwarded,
        &[
            (
                "forwarded",
                "for=6.6.6.6;proto=http, for=192.0.2.1;proto=https;host=\"shop.example:1\", for=10.0.0.2;proto=http",
            ),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-host", "evil.example"),
        ],
    );
    assert_eq!(client, Some((address("192.0.2.1:0"), true, Some("shop.example:1".to_owned()))));
    assert_eq!(left.len(), 1);
}

#[test]
fn nothing_that_an_untrusted_peer_says_reaches_the_app_nor_anything_where_nobody_is_asked() {
    let fields = [
        ("forwarded", "for=10.0.0.2"),
        ("x-forwarded-for", "10.0.0.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-prefix", "/admin"),
        ("x-forwarded-whatever", "1"),
        ("x-real-ip", "10.0.0.2"),
        ("x-forward", "stays"),
        ("host", "shop.example"),
    ];
    for kind in [Forwarded::XForwarded, Forwarded::Forwarded] {
        let mut given = headers(&fields);
        assert_eq!(settle(&peers(kind), &connection("192.0.2.1:4711"), &mut given), None);
        assert_eq!(given, headers(&fields[6..]));
    }
    let mut given = headers(&fields);
    let nobody = Peers { forwarded: None, ..peers(Forwarded::Forwarded) };
    assert_eq!(settle(&nobody, &connection("10.0.0.1:1"), &mut given), None);
    assert_eq!(given, headers(&fields), "what isn't asked for isn't touched");
}

#[test]
fn behind_two_kinds_of_proxies_the_nearest_is_believed_first() {
    let tls = Some(Arc::new(ProxiedTls::default()));
    let told = |client: &str| {
        let client = Client { address: address(client), encrypted: true, host: None, tls: tls.clone() };
        Connection { client: Some(Arc::new(client)), ..connection("10.0.0.1:9") }
    };
    let ask = |connection: &Connection| {
        let mut headers = headers(&[("x-forwarded-for", "192.0.2.1")]);
        settle(&peers(Forwarded::XForwarded), connection, &mut headers)
    };
    // A balancer of TCP has told of a proxy of ours, and that of the client.
    let client = ask(&told("10.0.0.8:1")).unwrap();
    assert_eq!((client.address, client.encrypted, client.tls), (address("192.0.2.1:0"), true, None));
    // Or of the client itself, which may write what it likes.
    assert_eq!(ask(&told("192.0.2.9:1")), None);
}

proptest! {
    #[test]
    fn whatever_a_client_writes_it_is_who_its_proxy_has_seen(
        lines in prop::collection::vec("[ -~]{0,40}", 0..4),
        joined in any::<bool>(),
        two in any::<bool>(),
    ) {
        for (kind, name, seen, next) in [
            (Forwarded::XForwarded, "x-forwarded-for", "192.0.2.1", "10.0.0.5"),
            (Forwarded::Forwarded, "forwarded", "for=192.0.2.1", "for=\"10.0.0.5:80\";by=_x"),
        ] {
            let mut lines = lines.clone();
            // A proxy adds a line, or adds to the last one.
            match lines.last_mut() {
                Some(last) if joined => last.extend([", ", seen]),
                _ => lines.push(seen.to_owned()),
            }
            let mut expected = seen.to_owned();
            if two {
                lines.push(next.to_owned());
                expected = format!("{seen}, {next}");
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(settled(kind, name, &lines), ("192.0.2.1".to_owned(), expected));
        }
    }
}

#[test]
fn a_proxy_of_tcp_that_names_nobody_has_written_no_field() {
    for kind in [Forwarded::XForwarded, Forwarded::Forwarded] {
        let peers = Peers { proxy_protocol: Some(ProxyProtocol::Require), ..peers(kind) };
        let fields = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https"), ("forwarded", "for=192.0.2.1")];
        let mut headers = headers(&fields);
        assert_eq!(settle(&peers, &connection("10.0.0.1:9"), &mut headers), None);
        assert!(headers.is_empty(), "{headers:?}");
    }
}
