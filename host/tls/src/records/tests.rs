use proptest::prelude::*;

use crate::keys::Material;
use crate::testing::{Authority, Client, ecdsa_suites, open_all, server, shake};
use crate::{Facts, TlsServer};

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// RFC 8448, section 3: the secrets and the first records of application data in both directions.
#[test]
fn the_example_of_rfc_8448_opens_and_is_sealed_to_the_same_bytes() {
    let kind = Kind { version: Version::Tls13, suite: Suite::Aes128Gcm };
    let direction =
        |secret: &str, sequence| Direction::new(kind, Material::new(&[&hex(secret)]).unwrap(), sequence).unwrap();
    let client = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
    let server = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
    let payload: Vec<u8> = (0..50).collect();
    let from_client =
        "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b 98 19
        a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4";
    let from_server =
        "17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc 32 25 d0 5f 82 aa 1b 36 e3 0e fa
        f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2 ab f3 32 54 0d d0 32 e1 67 c2 95 5d";
    // The server has sent a ticket before.
    let mut records = Records::new(direction(client, 0), direction(server, 1));
    let mut out = Vec::new();
    assert_eq!(records.open(&mut hex(from_client), &mut out), Ok(Opened::Data(&payload)));
    records.seal([&payload[..7], &payload[7..]].into_iter(), &mut out).unwrap();
    assert_eq!(out, hex(from_server));
}

struct Pair {
    client: Client,
    records: Records,
}

fn connected(server: &TlsServer, authority: &Authority, suite: usize) -> (Pair, Facts) {
    let mut client = Client::new(&authority.client(&[ecdsa_suites()[suite]], None), "test.example");
    let (records, facts) = shake(server, &mut client);
    (Pair { client, records }, facts)
}

impl Pair {
    fn moves(&mut self) {
        let state = self.records.suspend().unwrap();
        assert!(state.expose().len() <= State::MAX);
        self.records = State::read(state.expose()).unwrap().resume().unwrap();
    }

    /// What the client has sealed is read, and what is answered reaches it.
    fn reads(&mut self, wire: &[u8]) -> Result<Vec<u8>, TlsError> {
        let mut out = Vec::new();
        let plain = open_all(&mut self.records, wire, &mut out);
        assert!(self.client.takes(&out).unwrap().is_empty());
        plain
    }

    fn writes(&mut self, plain: &[u8]) {
        let mut out = Vec::new();
        self.records.seal([plain].into_iter(), &mut out).unwrap();
        assert!(self.client.takes(&out).unwrap() == plain);
    }
}

#[test]
fn every_suite_of_both_versions_goes_on_behind_the_handshake_and_behind_each_move() {
    let authority = Authority::new();
    let server = server(authority.identity(&["test.example"]));
    for suite in 0..ecdsa_suites().len() {
        let (mut pair, facts) = connected(&server, &authority, suite);
        let expected = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305][suite % 3];
        let version = if suite < 3 { Version::Tls13 } else { Version::Tls12 };
        assert_eq!((facts.version, facts.suite, facts.http2, facts.resumed), (version, expected, false, false));
        assert_eq!(facts.server_name.as_deref(), Some("test.example"));
        for round in 0..4 {
            let sealed = pair.client.seals(b"GET / HTTP/1.1\r\n\r\n");
            assert_eq!(pair.reads(&sealed).unwrap(), b"GET / HTTP/1.1\r\n\r\n", "{suite} {round}");
            pair.writes(&vec![b'x'; 100_000]);
            pair.moves();
        }
        let mut out = Vec::new();
        pair.records.close(&mut out);
        pair.records.close(&mut out);
        pair.client.takes(&out).unwrap();
        assert!(pair.client.tls.process_new_packets().unwrap().peer_has_closed());
        assert_eq!(pair.records.seal([b"x".as_slice()].into_iter(), &mut out), Err(TlsError::KeyUsedUp));
        pair.client.tls.send_close_notify();
        let closes = pair.client.sends();
        assert_eq!(pair.records.open(&mut closes.clone(), &mut out), Ok(Opened::Closed));
        assert!(pair.records.is_read_closed() && pair.records.suspend().is_none());
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Client(usize),
    TlsServer(Vec<usize>),
    ClientUpdates,
    Moves,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let lengths = || prop_oneof![0..40_usize, 16_300..16_500_usize, Just(50_000)];
    prop::collection::vec(
        prop_oneof![
            3 => lengths().prop_map(Deed::Client),
            3 => prop::collection::vec(lengths(), 1..4).prop_map(Deed::TlsServer),
            1 => Just(Deed::ClientUpdates),
            1 => Just(Deed::Moves),
        ],
        1..20,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Against rustls' own client: whatever is sent by whom, in whichever pieces, with keys updated and the connection moved
    /// at any moment, every byte arrives.
    #[test]
    fn nothing_is_lost_whatever_happens(suite in 0..6_usize, deeds in deeds(), split in 1..700_usize) {
        let authority = Authority::new();
        let server = server(authority.identity(&["test.example"]));
        let (mut pair, facts) = connected(&server, &authority, suite);
        let (mut wire, mut received, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        let mut number = 0_u8;
        for deed in deeds {
            number = number.wrapping_add(1);
            match deed {
                Deed::Client(length) => {
                    expected.extend(vec![number; length]);
                    wire.extend(pair.client.seals(&vec![number; length]));
                }
                Deed::TlsServer(lengths) => {
                    let pieces: Vec<Vec<u8>> = lengths.iter().map(|length| vec![number; *length]).collect();
                    let mut out = Vec::new();
                    pair.records.seal(pieces.iter().map(Vec::as_slice), &mut out).unwrap();
                    prop_assert!(pair.client.takes(&out).unwrap() == pieces.concat());
                }
                Deed::ClientUpdates if facts.version == Version::Tls13 => {
                    pair.client.tls.refresh_traffic_keys().unwrap();
                    wire.extend(pair.client.sends());
                }
                Deed::ClientUpdates => {}
                Deed::Moves => pair.moves(),
            }
            // Some of what is on its way arrives, and of that the whole records are opened.
            let mut rest = wire.as_slice();
            let mut out = Vec::new();
            while let Some(length) = pair.records.length(&rest[..rest.len().min(split)]).unwrap() {
                let Some((record, later)) = rest.split_at_checked(length) else { break };
                if let Opened::Data(data) = pair.records.open(&mut record.to_vec(), &mut out).unwrap() {
                    received.extend_from_slice(data);
                }
                rest = later;
            }
            wire = rest.to_vec();
            pair.client.takes(&out).unwrap();
        }
        received.extend(pair.reads(&wire).unwrap());
        prop_assert!(received == expected);
        pair.writes(b"done");
    }

    /// Whatever the bytes are, opening them ends without a panic, and what was changed is never taken for data.
    #[test]
    fn any_record_is_opened_without_a_panic(suite in 0..6_usize, mut bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let authority = Authority::new();
        let server = server(authority.identity(&["test.example"]));
        let (mut pair, _) = connected(&server, &authority, suite);
        let mut out = Vec::new();
        prop_assert!(pair.records.open(&mut bytes, &mut out).is_err());
        prop_assert!(!out.is_empty(), "the client is told");
    }

    #[test]
    fn any_state_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..State::MAX + 3)) {
        if let Some(state) = State::read(&bytes) {
            let mut records = state.resume().unwrap();
            let mut out = Vec::new();
            let _ = records.seal([b"x".as_slice()].into_iter(), &mut out);
            let _ = records.open(&mut [23, 3, 3, 0, 0], &mut out);
        }
    }
}

fn pair(suite: usize) -> Pair {
    let authority = Authority::new();
    connected(&server(authority.identity(&["test.example"])), &authority, suite).0
}

/// A record as a client without scruples seals it: with the keys of the server's reading side.
fn forge(records: &Records, sent: u64, kind: u8, plain: &[u8]) -> Vec<u8> {
    let read = &records.read;
    let material = Material::new(&[read.material().bytes()]).unwrap();
    let write = Direction::new(read.kind(), material, read.sequence() + sent).unwrap();
    let material = Material::new(&[read.material().bytes()]).unwrap();
    let mut client = Records::new(Direction::new(read.kind(), material, 0).unwrap(), write);
    let mut out = Vec::new();
    client.send(kind, plain, &mut out).unwrap();
    out
}

fn refused(pair: &mut Pair, kind: u8, plain: &[u8]) -> (&'static str, Alert) {
    let mut record = forge(&pair.records, 0, kind, plain);
    match pair.records.open(&mut record, &mut Vec::new()) {
        Err(TlsError::Broken { what, alert }) => (what, alert),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_has_no_place_is_refused_with_the_right_alert() {
    const CHANGE_CIPHER: u8 = 20;
    for (suite, kind, plain, alert) in [
        (0, CHANGE_CIPHER, &[1][..], Alert::UnexpectedMessage),
        (0, 99, &[1], Alert::UnexpectedMessage),
        (0, HANDSHAKE, &[], Alert::UnexpectedMessage),
        (0, HANDSHAKE, &[1, 0, 0, 0], Alert::UnexpectedMessage),
        (0, HANDSHAKE, &[24, 0, 0, 2, 0, 0], Alert::DecodeError),
        (0, HANDSHAKE, &[24, 0, 0, 1, 2], Alert::IllegalParameter),
        (0, HANDSHAKE, &[24, 0, 0, 1, 0, 24], Alert::UnexpectedMessage),
        (0, ALERT, &[2], Alert::DecodeError),
        (3, CHANGE_CIPHER, &[1], Alert::UnexpectedMessage),
        (3, HANDSHAKE, &[20, 0, 0, 0], Alert::UnexpectedMessage),
        (3, HANDSHAKE, &[1, 0], Alert::DecodeError),
        (3, ALERT, &[2, 0, 0], Alert::DecodeError),
    ] {
        let mut pair = pair(suite);
        let (what, found) = refused(&mut pair, kind, plain);
        assert_eq!(found, alert, "{suite} {kind} {plain:?}: {what}");
    }
}

#[test]
fn records_that_are_too_long_are_refused_before_they_are_read() {
    let header = |length: u16| [&[23, 3, 3][..], &length.to_be_bytes()].concat();
    for (suite, most) in [(0, (1 << 14) + 256), (3, (1 << 14) + 2048)] {
        let records = pair(suite).records;
        assert_eq!(records.length(&header(most)), Ok(Some(usize::from(most) + HEADER)));
        assert!(matches!(
            records.length(&header(most + 1)),
            Err(TlsError::Broken { alert: Alert::RecordOverflow, .. })
        ));
        assert_eq!(records.length(&header(most)[..4]), Ok(None));
    }
    let mut pair = pair(0);
    let (_, alert) = refused(&mut pair, DATA, &vec![1; MAX_PLAINTEXT + 1]);
    assert_eq!(alert, Alert::RecordOverflow);
}

#[test]
fn what_costs_us_something_is_bounded() {
    let update = [24, 0, 0, 1, 1];
    let mut pair = pair(0);
    for round in 0..control::KEY_UPDATES {
        let mut record = forge(&pair.records, 0, HANDSHAKE, &update);
        let mut out = Vec::new();
        assert_eq!(pair.records.open(&mut record, &mut out), Ok(Opened::Control), "{round}");
        pair.client.takes(&out).unwrap();
        if round == 20 {
            pair.moves();
        }
    }
    assert_eq!(refused(&mut pair, HANDSHAKE, &update), ("too many key updates", Alert::UnexpectedMessage));

    for (suite, kind, plain, most, what) in [
        (0, DATA, &[][..], control::EMPTY, "too many empty records"),
        (0, ALERT, &[1, 90], control::WARNINGS, "too many warnings"),
        (3, ALERT, &[1, 100], control::WARNINGS, "too many warnings"),
        (3, HANDSHAKE, &[1, 0, 0, 0], control::RENEGOTIATIONS, "too many requests for another handshake"),
    ] {
        let mut pair = self::pair(suite);
        for _ in 0..most {
            let mut record = forge(&pair.records, 0, kind, plain);
            assert!(pair.records.open(&mut record, &mut Vec::new()).is_ok(), "{what}");
            pair.moves();
        }
        assert_eq!(refused(&mut pair, kind, plain), (what, Alert::UnexpectedMessage));
    }
}

#[test]
fn a_message_in_pieces_is_joined_also_over_a_move_and_nothing_comes_between() {
    let pieces = [&[24][..], &[0, 0], &[1]];
    let mut pair = pair(1);
    for piece in pieces {
        let mut record = forge(&pair.records, 0, HANDSHAKE, piece);
        assert_eq!(pair.records.open(&mut record, &mut Vec::new()), Ok(Opened::Control));
        pair.moves();
    }
    let (what, alert) = refused(&mut pair, DATA, b"x");
    assert_eq!((what, alert), ("a record comes in the middle of a message", Alert::UnexpectedMessage));

    let mut pair = self::pair(1);
    let before = pair.records.read.material().bytes().to_vec();
    for piece in pieces.into_iter().chain([&[0][..]]) {
        let mut record = forge(&pair.records, 0, HANDSHAKE, piece);
        assert_eq!(pair.records.open(&mut record, &mut Vec::new()), Ok(Opened::Control));
    }
    assert_ne!(pair.records.read.material().bytes(), before, "the key was updated");
}

#[test]
fn another_handshake_is_refused_politely_in_tls_1_2() {
    let mut pair = pair(3);
    let mut hello = vec![1, 0, 0, 200];
    hello.resize(4 + 200, 7);
    let (first, second) = hello.split_at(150);
    let mut out = Vec::new();
    for piece in [first, second] {
        let mut record = forge(&pair.records, 0, HANDSHAKE, piece);
        assert_eq!(pair.records.open(&mut record, &mut out), Ok(Opened::Control));
    }
    // rustls takes that warning.
    pair.client.takes(&out).unwrap();
    pair.writes(b"still here");
}

#[test]
fn a_client_that_gives_up_is_answered_nothing() {
    for suite in [0, 3] {
        let mut pair = pair(suite);
        let mut out = Vec::new();
        let mut record = forge(&pair.records, 0, ALERT, &[2, 42]);
        assert_eq!(pair.records.open(&mut record, &mut out), Err(TlsError::AlertReceived(42)));
        pair.records.close(&mut out);
        assert!(out.is_empty() && pair.records.suspend().is_none());
    }
}

#[test]
fn a_key_that_is_used_up_is_updated_or_ends_the_connection() {
    for suite in [0, 3] {
        let mut pair = pair(suite);
        let kind = pair.records.write.kind();
        let aged = |material: &[u8]| {
            Direction::new(kind, Material::new(&[material]).unwrap(), kind.suite.records_per_key()).unwrap()
        };
        let before = pair.records.write.material().bytes().to_vec();
        pair.records.write = aged(&before);
        let mut out = Vec::new();
        let sealed = pair.records.seal([b"x".as_slice()].into_iter(), &mut out);
        if suite == 0 {
            assert_eq!(sealed, Ok(()));
            assert_ne!(pair.records.write.material().bytes(), before);
            assert_eq!(
                pair.records.write.sequence(),
                1,
                "the update was sealed with the old key, the data with the new one"
            );
        } else {
            assert_eq!((sealed, out.len()), (Err(TlsError::KeyUsedUp), 0));
        }
    }
}

#[test]
fn no_key_is_printed() {
    let records = pair(0).records;
    let state = records.suspend().unwrap();
    let printed = format!("{records:?} {state:?}");
    let secret = records.read.material().bytes();
    for window in secret.windows(4) {
        assert!(!printed.contains(&format!("{window:?}").replace(['[', ']'], "")), "{printed}");
    }
    assert!(printed.ends_with("State(…)") && printed.contains("sequence"), "{printed}");
}
