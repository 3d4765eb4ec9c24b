//! Certificates and handshakes, with a client of rustls'.

use std::sync::Arc;

use rcgen::{CertificateParams, date_time_ymd};

use app_host_core::secret::Secret;
use app_host_core::tls::{ClientAuth, Identity, TICKET_KEY_BYTES, TlsSettings};

use crate::testing::{Authority, Client, SUITES, server, shake, tickets};
use crate::*;

/// 2026-01-01.
const NOW: i64 = 1_767_225_600;

/// The same with something else in its place.
fn changed(identity: &Identity, change: impl FnOnce(&mut Identity)) -> Identity {
    let mut identity = identity.clone();
    change(&mut identity);
    identity
}

fn with_names(authority: &Authority, names: &[&str], from: i32, to: i32) -> Identity {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    authority.identity_with(&params)
}

#[test]
fn a_certificate_says_whom_it_is_for_and_how_long() {
    let identity = with_names(&Authority::new(), &["Shop.example", "*.shop.example", "127.0.0.1"], 2025, 2027);
    let info = check(&identity, NOW).unwrap();
    assert_eq!(info.names, ["shop.example", "*.shop.example", "127.0.0.1"]);
    assert_eq!((info.not_before, info.not_after), (1_735_689_600, 1_798_761_600));
}

#[test]
fn what_is_wrong_with_a_certificate_or_its_key_is_said() {
    let authority = Authority::new();
    let good = with_names(&authority, &["a.example"], 2025, 2027);
    let other = with_names(&authority, &["a.example"], 2025, 2027);
    let text = |text: &str| text.to_owned();
    let secret = |text: &str| Secret::new(text.to_owned());
    let cut = good.certificates.replacen("MII", "", 1);
    let encrypted = secret("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    for (identity, error) in [
        (changed(&good, |it| it.certificates = text("hello")), CertificateError::NoCertificate),
        (changed(&good, |it| it.certificates = String::new()), CertificateError::NoCertificate),
        (changed(&good, |it| it.certificates = good.key.reveal().to_owned()), CertificateError::NoCertificate),
        (changed(&good, |it| it.key = secret("hello")), CertificateError::NoKey),
        (changed(&good, |it| it.key = secret(&good.certificates)), CertificateError::NoKey),
        (changed(&good, |it| it.key = encrypted), CertificateError::EncryptedKey),
        (changed(&good, |it| it.key = other.key.clone()), CertificateError::KeyMismatch),
        (changed(&good, |it| it.ocsp = Some(b"hello".to_vec())), CertificateError::NoOcsp),
        (changed(&good, |it| it.ocsp = Some(Vec::new())), CertificateError::NoOcsp),
        (with_names(&authority, &["a.example"], 2020, 2021), CertificateError::Expired(1_609_459_200)),
        (with_names(&authority, &["a.example"], 2030, 2031), CertificateError::NotYetValid(1_893_456_000)),
        (with_names(&authority, &[], 2025, 2027), CertificateError::NoName),
    ] {
        assert_eq!(check(&identity, NOW), Err(error));
    }
    let unreadable = check(&changed(&good, |it| it.certificates = cut), NOW);
    assert!(matches!(unreadable, Err(CertificateError::Unreadable(_))), "{unreadable:?}");
    let settings = TlsSettings {
        identities: vec![good.clone(), changed(&good, |it| it.key = other.key.clone())],
        client_auth: None,
    };
    let error = TlsServer::new(&settings, tickets()).unwrap_err();
    assert_eq!(error, (Some(1), CertificateError::KeyMismatch));
}

#[test]
fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let authority = Authority::new();
    let identities = ["first.example", "*.shop.example", "www.shop.example", "last.example"];
    let identities: Vec<_> = identities.iter().map(|name| authority.identity(&[name])).collect();
    let settings = TlsSettings { identities: identities.clone(), client_auth: None };
    let server = TlsServer::new(&settings, tickets()).unwrap();
    let client = authority.client(&[], None);
    for (name, number) in [
        ("first.example", 0),
        ("a.shop.example", 1),
        ("www.shop.example", 2),
        ("WWW.SHOP.example", 2),
        ("last.example", 3),
    ] {
        let mut client = Client::new(&client, name);
        let (_, facts) = shake(&server, &mut client);
        let wanted = crate::certificate::read_certificates(identities[number].certificates.as_bytes()).unwrap();
        assert_eq!(client.tls.peer_certificates().unwrap()[0], wanted[0], "{name}");
        assert_eq!(facts.server_name.as_deref(), Some(name.to_ascii_lowercase().as_str()));
    }
    let names = |name: &str| crate::certificate::Names::of(&check(&identities[1], NOW).unwrap()).covers(name);
    assert!(names("a.shop.example"));
    assert!(!names("shop.example") && !names("a.b.shop.example") && !names(".shop.example") && !names("a.example"));
}

#[test]
fn a_client_that_comes_back_with_a_ticket_of_another_process_is_not_asked_to_prove_itself_again() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let identity = authority.identity(&["test.example"]);
    let proof = clients.identity(&["client"]);
    let auth = ClientAuth { authorities: clients.pem(), required: true };
    let settings = TlsSettings { identities: vec![identity], client_auth: Some(auth) };
    let first = TlsServer::new(&settings, tickets()).unwrap();
    let second = TlsServer::new(&settings, tickets()).unwrap();
    let third = TlsServer::new(&settings, Arc::new(Tickets::new(&[9; TICKET_KEY_BYTES]))).unwrap();
    for suite in [SUITES[0], SUITES[4]] {
        let config = authority.client(&[suite], Some(&proof));
        let mut resumed = Vec::new();
        for server in [&first, &second, &third, &third] {
            let mut client = Client::new(&config, "test.example");
            let (mut records, facts) = shake(server, &mut client);
            let mut out = Vec::new();
            records.seal([b"x".as_slice()].into_iter(), &mut out).unwrap();
            assert_eq!(client.takes(&out).unwrap(), b"x");
            resumed.push(facts.resumed);
            let shown = crate::certificate::read_certificates(proof.certificates.as_bytes()).unwrap();
            assert_eq!(facts.client_certificate.as_deref(), Some(shown[0].as_ref()), "also where it resumes");
        }
        assert_eq!(resumed, [false, true, false, true], "{suite:?}");
    }
}

#[test]
fn who_shows_no_certificate_is_turned_away_where_one_is_required_and_nowhere_else() {
    let (authority, clients) = (Authority::new(), Authority::new());
    for required in [true, false] {
        let auth = ClientAuth { authorities: clients.pem(), required };
        let settings = TlsSettings { identities: vec![authority.identity(&["test.example"])], client_auth: Some(auth) };
        let server = TlsServer::new(&settings, tickets()).unwrap();
        let mut client = Client::new(&authority.client(&[SUITES[4]], None), "test.example");
        if !required {
            assert_eq!(shake(&server, &mut client).1.client_certificate, None);
            continue;
        }
        let mut handshake = Handshake::new(&server).unwrap();
        let error = loop {
            let wire = client.sends();
            let length = Handshake::length(&wire).unwrap().unwrap();
            let mut out = Vec::new();
            match handshake.feed(&wire[..length], &mut out) {
                Ok(_) => drop(client.takes(&out).unwrap()),
                Err(error) => {
                    client.takes(&out).unwrap_err();
                    break error;
                }
            }
        };
        assert!(error.to_string().contains("no certificates"), "{error}");
    }
    let auth = ClientAuth { authorities: "hello".to_owned(), required: true };
    let settings = TlsSettings { identities: vec![authority.identity(&["test.example"])], client_auth: Some(auth) };
    assert_eq!(TlsServer::new(&settings, tickets()).unwrap_err(), (None, CertificateError::NoCertificate));
}

#[test]
fn who_speaks_no_tls_is_noticed_at_the_first_byte() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"P", b"\0"] {
        assert!(Handshake::length(bytes).is_err());
    }
    assert_eq!(Handshake::length(&[22, 3, 1]), Ok(None));
    assert_eq!(Handshake::length(&[]), Ok(None));
    assert!(Handshake::length(&[22, 3, 1, 255, 255]).is_err());
    let server = server(Authority::new().identity(&["test.example"]));
    let mut out = Vec::new();
    let error = Handshake::new(&server).unwrap().feed(&[22, 3, 1, 0, 4, 1, 0, 0, 0], &mut out).unwrap_err();
    assert!(matches!(error, TlsError::Handshake(_)), "{error}");
    assert_eq!(out[0], 21, "an alert");
}

#[test]
fn nothing_secret_is_printed() {
    let authority = Authority::new();
    let identity = authority.identity(&["test.example"]);
    let settings = TlsSettings { identities: vec![identity.clone()], client_auth: None };
    let server = TlsServer::new(&settings, tickets()).unwrap();
    let printed = format!("{identity:?} {settings:?} {server:?} {:?}", Handshake::new(&server).unwrap());
    let key = identity.key.reveal();
    for line in key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!printed.contains(&line[..8]), "{printed}");
    }
    assert!(
        !printed.contains(&format!("{:?}", &identity.key.reveal().as_bytes()[30..38]).replace(['[', ']'], "")),
        "{printed}"
    );
}

/// Bytes as `Debug` would print them.
fn printed(bytes: &[u8]) -> String {
    format!("{bytes:?}").trim_matches(['[', ']']).to_owned()
}

#[test]
fn no_type_prints_a_key_that_it_holds() {
    let authority = Authority::new();
    let identity = authority.identity(&["test.example"]);
    let key = identity.key.reveal().to_owned();
    let settings = TlsSettings { identities: vec![identity], client_auth: None };
    let ticket_key: [u8; TICKET_KEY_BYTES] = std::array::from_fn(|place| u8::try_from(place).unwrap() + 100);
    let tickets = Arc::new(Tickets::new(&ticket_key));
    let server = TlsServer::new(&settings, Arc::clone(&tickets)).unwrap();
    for suite in [SUITES[0], SUITES[4]] {
        let handshake = Handshake::new(&server).unwrap();
        let mut client = Client::new(&authority.client(&[suite], None), "test.example");
        let (records, facts) = shake(&server, &mut client);
        let state = records.suspend().unwrap();
        // Version, and the number of the next record; then what the first key is made of.
        let secret = state.expose()[9..25].to_vec();
        let texts = [
            format!("{settings:#?} {settings:?}"),
            format!("{server:#?} {server:?} {tickets:?} {handshake:?} {facts:?}"),
            format!("{records:#?} {records:?} {state:#?} {state:?}"),
        ];
        for text in texts {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(!key.lines().any(|line| !line.starts_with('-') && text.contains(line)), "{text}");
            assert!(!text.contains(&printed(&ticket_key[8..24])) && !text.contains(&printed(&secret)), "{text}");
        }
    }
}
