//! However often a connection moves, its client receives the same bytes.

use proptest::prelude::*;

use super::transfer::Relay;
use super::*;

/// A request that a client sends.
#[derive(Clone, Debug)]
enum Sent {
    Get {
        blank: bool,
    },
    Sized(Vec<u8>),
    Chunked {
        body: Vec<u8>,
        chunk: usize,
        trailer: bool,
    },
    /// A client that says so before it sends its body; it doesn't wait.
    Expects(Vec<u8>),
}

impl Sent {
    fn bytes(&self, number: usize) -> Vec<u8> {
        let head = |rest: &str| format!("POST /echo?{number} HTTP/1.1\r\nhost: a\r\n{rest}\r\n").into_bytes();
        match self {
            Self::Get { blank } => format!("{}{}", if *blank { "\r\n" } else { "" }, get(&format!("/{number}"))).into(),
            Self::Sized(body) => [head(&format!("content-length: {}\r\n", body.len())), body.clone()].concat(),
            Self::Expects(body) => {
                let head = head(&format!("expect: 100-continue\r\ncontent-length: {}\r\n", body.len()));
                [head, body.clone()].concat()
            }
            Self::Chunked { body, chunk, trailer } => {
                let mut sent = head("transfer-encoding: chunked\r\n");
                for chunk in body.chunks(*chunk) {
                    sent.extend_from_slice(format!("{:x};ext\r\n", chunk.len()).as_bytes());
                    sent.extend_from_slice(chunk);
                    sent.extend_from_slice(b"\r\n");
                }
                sent.extend_from_slice(if *trailer { b"0\r\nx: y\r\n\r\n" } else { b"0\r\n\r\n" });
                sent
            }
        }
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    // Bodies that look like requests, and like chunks.
    let body = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            Just(b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
            Just(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n".to_vec()),
            Just(vec![b'x'; 9000]),
        ]
    };
    prop_oneof![
        any::<bool>().prop_map(|blank| Sent::Get { blank }),
        body().prop_map(Sent::Sized),
        body().prop_map(Sent::Expects),
        (body(), 1_usize..5000, any::<bool>()).prop_map(|(body, chunk, trailer)| {
            // hyper takes no more than 16 KiB of extensions in one body.
            let chunk = chunk.max(body.len() / 1000);
            Sent::Chunked { body, chunk, trailer }
        }),
    ]
}

/// All that a client receives that sends `pieces`, reads as it likes, and then ends its side; and how often its connection
/// was transferred. A piece comes with whether the client pauses behind it, and whether the connection is to move there.
async fn received(pieces: &[(Vec<u8>, bool, bool)]) -> (Vec<u8>, usize) {
    let relay = Relay::new(1500);
    let (mut reader, mut writer) = tokio::io::split(relay.client);
    let (control, transfers, served) = (relay.control, relay.transfers, relay.served);
    let reads = tokio::spawn(async move {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        all
    });
    for (piece, pause, transfer) in pieces {
        writer.write_all(piece).await.unwrap();
        if *pause {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if *transfer {
            let phase = Phase::Draining { since: Instant::now().into_std(), linger: LINGER, ending: Ending::HandOver };
            control.lock().unwrap().begin(phase);
        }
    }
    // A client that ends its side while a request is in flight is taken for gone.
    tokio::time::sleep(Duration::from_millis(100)).await;
    writer.shutdown().await.unwrap();
    let all = reads.await.unwrap();
    served.await.unwrap();
    (all, transfers.load(Relaxed))
}

/// Without the lines whose content is the time.
fn undated(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(b"date: ")).flatten().copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// However a client's bytes are cut, and wherever its connection is handed over: what it receives is
    /// what an undisturbed server sends.
    #[test]
    fn a_client_receives_the_same_bytes_however_often_its_connection_moves(
        requests in prop::collection::vec(sent(), 1..8),
        cuts in prop::collection::vec((1_usize..400, any::<bool>(), any::<bool>()), 1..60),
    ) {
        let stream: Vec<u8> = requests.iter().enumerate().flat_map(|(at, request)| request.bytes(at)).collect();
        let mut pieces = Vec::new();
        let mut rest = stream.as_slice();
        for (length, pause, transfer) in cuts {
            let (piece, behind) = rest.split_at(length.min(rest.len()));
            pieces.push((piece.to_vec(), pause, transfer));
            rest = behind;
        }
        pieces.push((rest.to_vec(), true, true));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let calm: Vec<_> = pieces.iter().map(|(piece, pause, _)| (piece.clone(), *pause, false)).collect();
        let (expected, _) = runtime().block_on(received(&calm));
        let (found, transfers) = runtime().block_on(received(&pieces));
        prop_assert!(transfers > 0);
        let (expected, found) = (undated(&expected), undated(&found));
        prop_assert!(
            expected == found,
            "expected {}\nfound {}",
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(&found)
        );
        let answers = found.windows(15).filter(|window| *window == b"HTTP/1.1 200 OK").count();
        prop_assert!(answers >= requests.len(), "{answers} answers to {}", requests.len());
    }
}
