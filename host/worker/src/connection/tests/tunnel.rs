//! Connections that the app upgrades.

use super::*;

impl Rig {
    /// Upgrades the connection, with these bytes right behind the head, and reads the head of the answer.
    async fn upgrade(&mut self, early: &str) {
        self.send(&format!(
            "GET /tunnel HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n{early}"
        ))
        .await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.client.read_u8().await.expect("the connection ended in a response's head"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    }

    async fn echo(&mut self, text: &str) {
        self.send(text).await;
        self.receive(text).await;
    }

    async fn receive(&mut self, text: &str) {
        let mut received = vec![0; text.len()];
        self.client.read_exact(&mut received).await.unwrap();
        assert_eq!(received, text.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_has_no_time_outs_and_is_in_flight_until_its_end() {
    let mut rig = Rig::new();
    assert_eq!(rig.get("/first").await, kept("/first"));
    rig.upgrade("early").await;
    rig.receive("early").await;
    tokio::time::sleep(HEAD_TIMEOUT * 100).await;
    rig.echo("late").await;
    assert_eq!(rig.figures().in_flight, 1);
    // The client's end of stream is the app's, which drops the tunnel.
    rig.client.shutdown().await.unwrap();
    rig.end().await;
    rig.served.await.unwrap();
    let figures = rig.stats.snapshot();
    assert_eq!((figures.in_flight, figures.connections, figures.requests, figures.cut), (0, 0, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_outlives_the_linger_and_is_cut_and_counted() {
    let mut rig = Rig::new();
    rig.upgrade("").await;
    rig.drain();
    tokio::time::sleep(LINGER * 10).await;
    rig.echo("still here").await;
    rig.control.begin(Phase::Cut);
    rig.end().await;
    rig.served.await.unwrap();
    let figures = rig.stats.snapshot();
    assert_eq!((figures.in_flight, figures.connections, figures.cut), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_was_not_asked_for_is_a_failure() {
    let mut rig = Rig::new();
    rig.send(&get("/tunnel")).await;
    assert_eq!(rig.answer().await.status, 500);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asked_in_vain_for_an_upgrade_is_closed_properly() {
    let mut rig = Rig::new();
    rig.send("GET /asked HTTP/1.1\r\nhost: test\r\nconnection: upgrade, close\r\nupgrade: h2c\r\n\r\n").await;
    assert_eq!(rig.answer().await, closing("/asked"));
    rig.end().await;
    // The end of the stream has been sent, and bytes on their way are read for a little.
    rig.settle().await;
    assert!(!rig.served.is_finished());
    rig.client.shutdown().await.unwrap();
    rig.served.await.unwrap();
}
