//! The layer between a socket and plaintext, with a client of rustls' at the other end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use app_host_core::secret::Secret;
use app_host_core::tls::{Identity, TICKET_KEY_BYTES, TlsSettings};

use super::*;
use crate::connection::{DrainSignal, Ending, Limits, Phase, drain_signal};
use crate::stream::{Left, Stream};

const LIMIT: Duration = Duration::from_secs(20);

struct Site {
    server: TlsServer,
    client: Arc<ClientConfig>,
}

fn site() -> Site {
    site_with(1)
}

/// Whose chain has so many certificates.
fn site_with(certificates: usize) -> Site {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["test.example".to_owned()]).unwrap();
    let key = Secret::new(signing_key.serialize_pem());
    let identities = vec![Identity { certificates: cert.pem().repeat(certificates), key, ocsp: None }];
    let settings = TlsSettings { identities, client_auth: None };
    let server = TlsServer::new(&settings, Arc::new(Tickets::new(&[1; TICKET_KEY_BYTES]))).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Site { server, client: Arc::new(builder.with_root_certificates(roots).with_no_client_auth()) }
}

type Blocking = StreamOwned<ClientConnection, std::os::unix::net::UnixStream>;

/// A client that blocks, for a thread of its own.
fn client(site: &Site, socket: UnixStream) -> Blocking {
    let socket = socket.into_std().unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.set_write_timeout(Some(LIMIT)).unwrap();
    let name = ServerName::try_from("test.example").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(&site.client), name).unwrap(), socket)
}

async fn shaken(site: &Site, socket: UnixStream, drain: &mut DrainSignal) -> Stream<UnixStream> {
    let mut stream = Stream::own(socket);
    let shaken =
        tokio::time::timeout(LIMIT, shake(&mut stream, &site.server, Vec::new(), drain, &Limits::TEST)).await.unwrap();
    let Ok(Shaken { layer, info, .. }) = shaken else { panic!("the handshake fails") };
    assert_eq!((info.version, info.server_name.as_deref()), (0x0304, Some("test.example")));
    stream.encrypted(layer)
}

/// Takes the stream out of its runtime, and into it again, as another worker would.
fn moved(stream: Stream<UnixStream>) -> (Stream<UnixStream>, Vec<u8>) {
    let Left { socket, tls, plain } = stream.leave().unwrap();
    let stream = Stream::shared(socket).unwrap();
    (stream.encrypted(Layer::resume(tls.unwrap()).unwrap()), plain)
}

#[tokio::test]
async fn what_is_written_arrives_whatever_its_length_and_the_sockets_room() {
    let site = site();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = client(&site, theirs);
    let upload: Vec<u8> = (0..700_001_u32).map(|number| (number % 251) as u8).collect();
    let expected = upload.clone();
    let thread = std::thread::spawn(move || {
        use std::io::{Read, Write};
        client.write_all(&upload).unwrap();
        client.flush().unwrap();
        let mut read = Vec::new();
        // Ends by a proper close, or else with an error.
        client.read_to_end(&mut read).unwrap();
        read
    });
    let (_control, mut drain) = drain_signal();
    let mut stream = shaken(&site, ours, &mut drain).await;
    let mut read = vec![0; expected.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert!(read == expected);
    for part in read.chunks(99_999) {
        stream.write_all(part).await.unwrap();
    }
    stream.flush().await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(thread.join().unwrap() == expected);
}

#[tokio::test]
async fn a_connection_moves_with_all_that_was_read_of_it() {
    let site = site();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = client(&site, theirs);
    let thread = std::thread::spawn(move || {
        use std::io::{Read, Write};
        for _ in 0..20 {
            // Three records, and the answer behind them.
            client.write_all(b"first ").unwrap();
            client.write_all(b"second ").unwrap();
            client.write_all(b"third.").unwrap();
            let mut answer = [0; 19];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"first second third.");
        }
        client
    });
    let (_control, mut drain) = drain_signal();
    let mut stream = shaken(&site, ours, &mut drain).await;
    let mut idle = stream;
    for _ in 0..20 {
        let mut read = Vec::new();
        while read.len() < 19 {
            // Less than a record has.
            let mut some = [0; 4];
            let length = idle.read(&mut some).await.unwrap();
            read.extend_from_slice(&some[..length]);
            let (moved, plain) = moved(idle);
            idle = moved;
            read.extend_from_slice(&plain);
        }
        idle.write_all(&read).await.unwrap();
        idle.flush().await.unwrap();
    }
    stream = idle;
    drop(thread.join().unwrap());
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the client has gone");
}

#[tokio::test]
async fn a_client_that_was_answered_nothing_leaves_with_what_it_has_sent() {
    let site = site();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = client(&site, theirs);
    let mut hello = Vec::new();
    client.conn.write_tls(&mut hello).unwrap();
    let (begin, rest) = hello.split_at(100);
    client.sock.set_nonblocking(false).unwrap();
    let (control, mut drain) = drain_signal();
    let mut stream = Stream::own(ours);
    // What was read of it before.
    let (leaves, ()) =
        tokio::join!(shake(&mut stream, &site.server, begin.to_vec(), &mut drain, &Limits::TEST), async {
            tokio::task::yield_now().await;
            control.begin(Phase::Draining {
                since: std::time::Instant::now(),
                ending: Ending::HandOver,
                linger: Duration::ZERO,
            });
        });
    let Err(Unshaken::Leaves(read)) = leaves else { panic!("{leaves:?}") };
    assert_eq!(read, begin);
    let other = super::Travelling::Nothing(read.clone());
    assert!(!other.may_park());
    // Elsewhere it goes on.
    std::io::Write::write_all(&mut client.sock, rest).unwrap();
    let (_control, mut drain) = drain_signal();
    let thread = std::thread::spawn(move || {
        std::io::Write::write_all(&mut client, b"x").unwrap();
        client
    });
    let shaken = shake(&mut stream, &site.server, read, &mut drain, &Limits::TEST).await;
    let Ok(Shaken { layer, .. }) = shaken else { panic!("the handshake fails") };
    let mut stream = stream.encrypted(layer);
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    drop(thread.join().unwrap());
}

/// Another worker would take what it sends next for the beginning of a handshake.
#[tokio::test]
async fn a_client_that_was_told_why_it_failed_does_not_leave() {
    let site = site();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"\0\0").await.unwrap();
    let (control, mut drain) = drain_signal();
    let mut stream = Stream::own(ours);
    let (shaken, ()) = tokio::join!(shake(&mut stream, &site.server, Vec::new(), &mut drain, &Limits::TEST), async {
        assert_eq!(theirs.read_u8().await.unwrap(), 21, "an alert");
        let since = std::time::Instant::now();
        control.begin(Phase::Draining { since, ending: Ending::HandOver, linger: Duration::ZERO });
    });
    assert!(matches!(shaken, Err(Unshaken::Failed(_))), "{shaken:?}");
}

#[tokio::test]
async fn an_answer_that_a_drain_interrupts_is_sent_to_its_end() {
    // More than the socket takes at once.
    let site = site_with(60);
    let (ours, theirs) = UnixStream::pair().unwrap();
    socket2::SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
    let mut client = client(&site, theirs);
    let mut hello = Vec::new();
    client.conn.write_tls(&mut hello).unwrap();
    std::io::Write::write_all(&mut client.sock, &hello).unwrap();
    let (control, mut drain) = drain_signal();
    let mut stream = Stream::own(ours);
    let shaken = async { shake(&mut stream, &site.server, Vec::new(), &mut drain, &Limits::TEST).await };
    let others = async {
        // Until it waits for the client to read.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let since = std::time::Instant::now();
        control.begin(Phase::Draining { since, ending: Ending::Close, linger: Duration::ZERO });
        tokio::task::yield_now().await;
        tokio::task::spawn_blocking(move || {
            client.conn.complete_io(&mut client.sock).unwrap();
            client
        })
        .await
        .unwrap()
    };
    let (shaken, client) = tokio::join!(shaken, others);
    assert!(shaken.is_ok(), "{shaken:?}");
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_its_time_and_less_of_it_while_the_worker_drains() {
    let site = site();
    for (phase, least, most) in [
        (Phase::Serving, 10, 11),
        (Phase::Draining { since: std::time::Instant::now(), ending: Ending::Close, linger: Duration::ZERO }, 5, 6),
        (Phase::Cut, 0, 1),
    ] {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (control, mut drain) = drain_signal();
        control.begin(phase);
        let begin = tokio::time::Instant::now();
        let mut stream = Stream::own(ours);
        let shaken = shake(&mut stream, &site.server, Vec::new(), &mut drain, &Limits::TEST).await;
        let took = begin.elapsed();
        assert!(took >= Duration::from_secs(least) && took < Duration::from_secs(most), "{phase:?}: {took:?}");
        assert_eq!(matches!(shaken, Err(Unshaken::Failed(_))), phase != Phase::Cut);
    }
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_so_and_who_speaks_nothing_gets_an_alert() {
    let site = site();
    for (says, answer) in
        [(&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], "HTTP/1.1 400 "), (b"\0\0", "\u{15}\u{3}\u{1}\0\u{2}")]
    {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(says).await.unwrap();
        let (_control, mut drain) = drain_signal();
        let client = tokio::spawn(async move {
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).await.unwrap();
            String::from_utf8(read).unwrap()
        });
        let mut stream = Stream::own(ours);
        let shaken = shake(&mut stream, &site.server, Vec::new(), &mut drain, &Limits::TEST).await;
        assert!(matches!(shaken, Err(Unshaken::Failed(_))), "{shaken:?}");
        drop(stream);
        let read = client.await.unwrap();
        assert!(read.starts_with(answer), "{read:?}");
        if let Some((head, body)) = read.split_once("\r\n\r\n") {
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        }
    }
}

#[tokio::test]
async fn what_came_with_the_handshake_is_read_however_much_it_is() {
    let site = site();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = client(&site, theirs);
    let upload: Vec<u8> = (0..60_000_u32).map(|number| (number % 251) as u8).collect();
    let sent = upload.clone();
    // Buffered by the client until it has finished, and sent with that.
    let thread = std::thread::spawn(move || {
        std::io::Write::write_all(&mut client.conn.writer(), &sent).unwrap();
        std::io::Write::flush(&mut client).unwrap();
        client
    });
    let (_control, mut drain) = drain_signal();
    let stream = shaken(&site, ours, &mut drain).await;
    let Left { socket, tls, plain } = stream.leave().unwrap();
    let mut tls = tls.unwrap();
    // As if all of it had been read with the last record of the handshake.
    let client = thread.join().unwrap();
    let mut stream = Stream::<UnixStream>::shared(socket).unwrap();
    let mut more = [0; 16 * 1024];
    while tls.raw.len() < 60_000 {
        let read = stream.read(&mut more).await.unwrap();
        tls.raw.extend_from_slice(&more[..read]);
    }
    let mut stream = stream.encrypted(Layer::resume(tls).unwrap());
    let mut read = vec![0; upload.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert!(plain.is_empty() && read == upload);
    drop(client);
}

/// A socket that takes a little at a time.
struct Slow {
    takes: bool,
}

impl AsyncWrite for Slow {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.takes = !self.takes;
        if self.takes { Poll::Ready(Ok(bytes.len().min(20 * 1024))) } else { Poll::Pending }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// It never has taken all that was written to it.
#[tokio::test]
async fn a_slow_client_of_a_large_response_costs_no_more_memory_the_more_it_has_taken() {
    let site = site();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let client = client(&site, theirs);
    let client = std::thread::spawn(move || {
        let mut client = client;
        client.conn.complete_io(&mut client.sock).unwrap();
        client
    });
    let (_control, mut drain) = drain_signal();
    let mut stream = Stream::own(ours);
    let shaken = shake(&mut stream, &site.server, Vec::new(), &mut drain, &Limits::TEST).await;
    let Ok(Shaken { mut layer, .. }) = shaken else { panic!("the handshake fails") };
    let _client = client.join().unwrap();
    let (mut socket, mut written) = (Slow { takes: false }, 0);
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let piece = vec![b'x'; 64 * 1024];
    while written < 16 * 1024 * 1024 {
        if let Poll::Ready(length) = layer.poll_write(&mut socket, cx, &[io::IoSlice::new(&piece)]) {
            written += length.unwrap();
        }
        let capacity = layer.sealed_capacity();
        assert!(capacity <= 256 * 1024, "{capacity} bytes after {written}");
    }
}

#[test]
fn what_has_a_whole_record_is_not_parked() {
    let may_park = |raw: &[u8], out: &[u8]| {
        let state = app_host_tls::State::read(&[&[0][..], &[0; 93]].concat()).unwrap();
        Travelling::Records(SuspendedTls { state, raw: raw.to_vec(), out: out.to_vec() }).may_park()
    };
    assert!(may_park(b"", b""));
    assert!(may_park(&[23, 3, 3, 0], b"") && may_park(&[23, 3, 3, 0, 2, 7], b""));
    assert!(!may_park(&[23, 3, 3, 0, 2, 7, 7], b"") && !may_park(b"", b"x"));
}
