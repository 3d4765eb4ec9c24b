use proptest::prelude::*;

use super::*;

fn address(text: &str) -> Address {
    Address::Tcp(text.parse().unwrap())
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// A header of version 2.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

/// One of a client at 192.0.2.1:40000, with these TLVs.
fn with(tlvs: &[u8]) -> Vec<u8> {
    binary(0x21, 0x11, &[&[192, 0, 2, 1, 10, 0, 0, 1, 0x9c, 0x40, 1, 0xbb], tlvs].concat())
}

fn told(tlvs: &[u8]) -> Result<Option<ProxiedTls>, HeaderError> {
    let (header, length) = read(&with(tlvs))?.unwrap();
    assert_eq!((header.client, length), (Some(address("192.0.2.1:40000")), 28 + tlvs.len()));
    Ok(header.tls.map(|tls| *tls))
}

#[test]
fn lines_are_read_as_the_specification_has_them_and_no_others() {
    for (line, client) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n", Some(address("192.0.2.1:56324"))),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some(address("255.255.255.255:65535"))),
        ("PROXY TCP6 2001:db8::1 ::1 0 80\r\n", Some(address("[2001:db8::1]:0"))),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 80\r\n", Some(address("192.0.2.1:1"))),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 ::2 65535 whatever\r\n", None),
    ] {
        let header = Header { client, tls: None };
        assert_eq!(read(line.as_bytes()), Ok(Some((header.clone(), line.len()))), "{line}");
        let followed = format!("{line}GET / HTTP/1.1\r\n");
        assert_eq!(read(followed.as_bytes()), Ok(Some((header, line.len()))), "{line}");
        for end in 0..line.len() {
            assert_eq!(read(&line.as_bytes()[..end]), Ok(None), "{line} {end}");
        }
    }
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.9 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.9 56324 443 1\r\n",
        "PROXY TCP4 192.0.2.1  198.51.100.9 56324 443\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.9 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.9 +6324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.9 056324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.9 65536 443\r\n",
        "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 ::1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 nowhere 1 2\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.9 1 2\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.9 1 \u{e9}\r\n",
    ] {
        assert!(matches!(read(line.as_bytes()), Err(HeaderError::Line(_))), "{line}");
    }
    let endless = [b"PROXY UNKNOWN ", &[b'x'; MAX_LINE][..]].concat();
    assert_eq!(read(&endless[..MAX_LINE - 1]), Ok(None));
    assert_eq!(read(&endless[..MAX_LINE]), Err(HeaderError::TooLong(MAX_LINE)));
}

#[test]
fn what_is_no_header_is_known_by_its_first_byte_that_differs() {
    for bytes in [&b"G"[..], b"\x16\x03\x01", b"proxy ", b"PROXX", b"\r\n\r\n\0\r\nQUIT\r", b"PRI * HTTP/2.0"] {
        assert_eq!(read(bytes), Err(HeaderError::None), "{bytes:?}");
        let same = bytes.len() - 1;
        if LINE.starts_with(&bytes[..same]) || SIGNATURE.starts_with(&bytes[..same]) {
            assert_eq!(read(&bytes[..same]), Ok(None), "{bytes:?}");
        }
    }
}

#[test]
fn a_proxy_speaks_for_itself_or_for_a_client_of_every_family() {
    let ipv6 = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 16], &[0, 80, 1, 187]].concat();
    for (command, family, rest, client) in [
        (0x21, 0x12, &[192, 0, 2, 1, 10, 0, 0, 1, 0, 1, 0, 2][..], Some(address("192.0.2.1:1"))),
        (0x21, 0x21, &ipv6, Some(address("[2001:db8::1]:80"))),
        (0x21, 0x31, &[b'/'; 216], Some(Address::Unix)),
        (0x21, 0x00, &[], None),
        (0x21, 0x00, b"whatever", None),
        // Nothing of it is looked at.
        (0x20, 0xff, b"whatever", None),
        (0x20, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0, 1, 0, 2], None),
    ] {
        let bytes = binary(command, family, rest);
        assert_eq!(read(&bytes), Ok(Some((Header { client, tls: None }, bytes.len()))), "{command} {family}");
    }
    for (command, family, rest, error) in [
        (0x11, 0x11, &[0; 12][..], HeaderError::Command(0x11)),
        (0x22, 0x11, &[0; 12], HeaderError::Command(0x22)),
        (0x21, 0x13, &[0; 12], HeaderError::Family(0x13)),
        (0x21, 0x41, &[0; 12], HeaderError::Family(0x41)),
        (0x21, 0x11, &[0; 11], HeaderError::Addresses),
        (0x21, 0x21, &[0; 35], HeaderError::Addresses),
        (0x21, 0x31, &[0; 215], HeaderError::Addresses),
        (0x21, 0x11, &[0; MAX_HEADER - FIXED + 1], HeaderError::TooLong(MAX_HEADER)),
    ] {
        assert_eq!(read(&binary(command, family, rest)), Err(error), "{command} {family}");
    }
    // A length is believed before what it counts has come.
    assert_eq!(read(&binary(0x21, 0x11, &vec![0; 60_000])[..FIXED]), Err(HeaderError::TooLong(MAX_HEADER)));
}

#[test]
fn a_client_s_tls_is_told_by_tlvs_and_its_name_only_where_it_was_verified() {
    let tls = |flags: u8, verify: u8| {
        let inside = [tlv(0x21, b"TLSv1.3"), tlv(0x22, b"Ann"), tlv(0x23, b"cipher")].concat();
        tlv(0x20, &[&[flags, 0, 0, 0, verify], &inside[..]].concat())
    };
    let spoken = ProxiedTls { ends_there: true, version: Some("TLSv1.3".into()), ..ProxiedTls::default() };
    let name = Some("Ann".into());
    assert_eq!(told(&tls(0b011, 0)), Ok(Some(ProxiedTls { client_name: name.clone(), ..spoken.clone() })));
    assert_eq!(told(&tls(0b101, 0)), Ok(Some(ProxiedTls { client_name: name, ..spoken.clone() })));
    assert_eq!(told(&tls(0b011, 1)), Ok(Some(spoken.clone())), "its verification failed");
    assert_eq!(told(&tls(0b001, 0)), Ok(Some(spoken)), "it has none");
    let named = [tlv(0x02, b"Shop.Example"), tlv(0x01, b"h2"), tlv(0x04, &[0; 9]), tlv(0xee, b"x")].concat();
    let known =
        ProxiedTls { server_name: Some("shop.example".into()), alpn: Some(b"h2"[..].into()), ..ProxiedTls::default() };
    assert_eq!(told(&named), Ok(Some(known)));
    assert_eq!(told(&tlv(0x05, b"id")), Ok(None));
    for (tlvs, kind) in [
        (&[0x04][..], 0x04),
        (&[0x04, 0, 2, 0], 0x04),
        (&tlv(0x02, b"\xff"), 0x02),
        (&tlv(0x02, b"a\nb"), 0x02),
        (&tlv(0x02, &[b'a'; MAX_TEXT + 1]), 0x02),
        (&tlv(0x01, &[b'a'; MAX_TEXT + 1]), 0x01),
        (&tlv(0x03, b"123"), 0x03),
        (&tlv(0x20, b"1234"), 0x20),
        (&tlv(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 1]), 0x21),
    ] {
        assert_eq!(told(tlvs), Err(HeaderError::Tlv(kind)), "{tlvs:?}");
    }
}

#[test]
fn a_checksum_is_verified_where_there_is_one() {
    // The vector of RFC 3720, appendix B.4.
    assert_eq!(crc32c([0; 32].iter()), 0x8a91_36aa);
    let checked = |sum: [u8; 4]| [tlv(0x02, b"a"), tlv(0x03, &sum), tlv(0x04, b"z")].concat();
    let sum = crc32c(with(&checked([0; 4])).iter()).to_be_bytes();
    assert!(told(&checked(sum)).is_ok());
    for bit in 0..32 {
        let wrong = (u32::from_be_bytes(sum) ^ (1 << bit)).to_be_bytes();
        assert_eq!(told(&checked(wrong)), Err(HeaderError::Checksum));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic_and_more_of_them_change_no_answer(
        version in 0..3_usize,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        more in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let begin: &[u8] = [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"][version];
        let bytes = [begin, &bytes].concat();
        let first = read(&bytes);
        let then = read(&[&bytes[..], &more].concat());
        match first {
            Ok(None) => prop_assert!(bytes.len() < MAX_HEADER),
            Ok(Some((header, length))) => {
                prop_assert!((1..=bytes.len()).contains(&length));
                prop_assert_eq!(then, Ok(Some((header.clone(), length))));
                prop_assert_eq!(read(&bytes[..length]), Ok(Some((header, length))));
                prop_assert_eq!(read(&bytes[..length - 1]), Ok(None));
            }
            Err(error) => prop_assert_eq!(then, Err(error)),
        }
    }

    #[test]
    fn headers_of_both_versions_come_back(client: SocketAddr, proxy: SocketAddr, name in "[a-z.]{0,40}") {
        let (client, proxy) = match (client.ip().to_canonical(), proxy.ip().to_canonical()) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => (client, proxy),
            _ => (client, SocketAddr::new(client.ip(), proxy.port())),
        };
        let (from, to) = (client.ip().to_canonical(), proxy.ip().to_canonical());
        let number = if from.is_ipv4() { 4 } else { 6 };
        let line = format!("PROXY TCP{number} {from} {to} {} {}\r\n", client.port(), proxy.port());
        let expected = Some(tcp(from, client.port()));
        let (header, length) = read(line.as_bytes()).unwrap().unwrap();
        prop_assert_eq!((header.client, length), (expected, line.len()));
        let octets = |ip| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ports = [client.port().to_be_bytes(), proxy.port().to_be_bytes()].concat();
        let rest = [octets(from), octets(to), ports, tlv(0x02, name.as_bytes())].concat();
        let bytes = binary(0x21, if from.is_ipv4() { 0x11 } else { 0x21 }, &rest);
        let (header, length) = read(&bytes).unwrap().unwrap();
        prop_assert_eq!((header.client, length), (expected, bytes.len()));
        let told = header.tls.and_then(|tls| tls.server_name);
        prop_assert_eq!(told.as_deref(), Some(&*name));
    }
}
