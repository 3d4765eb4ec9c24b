use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{advance, timeout};

use super::*;
use crate::connection::drain_signal;

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n";

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn pair() -> (DuplexStream, DuplexStream) {
    duplex(16 * 1024)
}

#[tokio::test(start_paused = true)]
async fn a_header_that_comes_byte_by_byte_is_read_and_what_is_behind_it_stays() {
    let (mut proxy, mut ours) = pair();
    let (_control, mut drain) = drain_signal();
    let received = async { receive(&mut ours, Vec::new(), now(), &mut drain).await };
    let sent = async {
        for byte in LINE {
            proxy.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (received, ()) = tokio::join!(received, sent);
    let (header, rest) = received.unwrap();
    assert!(header.client.is_some() && rest.is_empty());

    let both = [LINE, b"GET / HTTP/1.1\r\n"].concat();
    proxy.write_all(&both[7..]).await.unwrap();
    let (again, rest) = receive(&mut ours, both[..7].to_vec(), now(), &mut drain).await.unwrap();
    assert_eq!((again, &rest[..]), (header, &b"GET / HTTP/1.1\r\n"[..]));
}

#[tokio::test(start_paused = true)]
async fn no_client_holds_a_connection_for_longer_than_its_deadline_in_whichever_worker() {
    for (age, left) in [(0, 10), (7, 3), (60, 0)] {
        let (mut proxy, mut ours) = pair();
        let (_control, mut drain) = drain_signal();
        let opened = now();
        advance(Duration::from_secs(age)).await;
        let begun = now();
        proxy.write_all(&LINE[..20]).await.unwrap();
        let ended = receive(&mut ours, Vec::new(), opened, &mut drain).await.unwrap_err();
        assert!(matches!(ended, Unannounced::Refused(Refused::Late)), "{ended:?}");
        let took = now() - begun;
        assert!(took >= Duration::from_secs(left) && took < Duration::from_millis(left * 1000 + 10), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_header_leaves_with_its_bytes_and_is_dismissed_where_nobody_takes_it() {
    let (linger, timeouts) = (Duration::from_secs(2), Duration::from_secs(9));
    for ending in [Ending::HandOver, Ending::Close] {
        let (mut proxy, mut ours) = pair();
        let (control, mut drain) = drain_signal();
        proxy.write_all(&LINE[..20]).await.unwrap();
        let waits = receive(&mut ours, Vec::new(), now(), &mut drain);
        let orders = async {
            tokio::task::yield_now().await;
            control.begin(Phase::Draining { since: now(), linger, ending });
        };
        let begun = now();
        let (ended, ()) = timeout(timeouts, async { tokio::join!(waits, orders) }).await.unwrap();
        match (ending, ended.unwrap_err()) {
            (Ending::HandOver, Unannounced::Leaves(read)) => assert_eq!(read, &LINE[..20]),
            (Ending::Close, Unannounced::Dismissed) => assert!(now() - begun >= linger),
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_only_looks_whether_somebody_listens_is_no_fault_and_who_goes_halfway_is() {
    for (sent, fault) in [(0, false), (1, true), (LINE.len() - 1, true)] {
        let (mut proxy, mut ours) = pair();
        let (_control, mut drain) = drain_signal();
        proxy.write_all(&LINE[..sent]).await.unwrap();
        drop(proxy);
        let ended = receive(&mut ours, Vec::new(), now(), &mut drain).await.unwrap_err();
        let refused = matches!(ended, Unannounced::Refused(Refused::Gone));
        assert_eq!((refused, matches!(ended, Unannounced::Gone)), (fault, !fault), "{sent}");
    }
}
