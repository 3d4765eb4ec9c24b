//! The receiving end of a link: accepts each connection that arrives, or leaves it to its sender.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use zeroize::Zeroize;

use app_host_core::error::chain;
use app_host_platform::sys::packet::{Socket, is_the_end};

use super::outbox::Reply;
use super::wire::{self, Ack, MAX_PACKET};
use super::{Receiver, Rejection};

/// How long connections that have arrived wait for room.
const ROOM_TIMEOUT: Duration = Duration::from_millis(20);

/// Receives connections on a link until it ends. While `accepts` is false all of them are left to their sender.
pub(super) async fn receive<R: Receiver>(socket: Rc<Socket>, receiver: Rc<R>, accepts: Rc<Cell<bool>>) {
    let mut buffer = vec![0; MAX_PACKET];
    let mut ack = Ack { connections: receiver.connections(), replies: Vec::new() };
    // If this fails, the sender is gone, and the next read says so.
    let _ = socket.send(&ack.write(), &[]).await;
    loop {
        let (length, descriptors) = match socket.receive(&mut buffer).await {
            Ok((0, _)) => return,
            Ok(packet) => packet,
            Err(error) => {
                if !is_the_end(&error) {
                    tracing::warn!(error = chain(&error), "connections of another worker can't be received");
                }
                return;
            }
        };
        let records = || wire::unpack(&buffer[..length]);
        for descriptor in &descriptors {
            // Rejected ones are closed here, and that must not wait for their clients. What is no socket never does.
            let _ = SockRef::from(descriptor).set_linger(None);
        }
        ack.replies.clear();
        // A connection that finds no room has to travel once more, which costs more than a short wait.
        let reservation = tokio::time::timeout(ROOM_TIMEOUT, receiver.reserve()).await;
        let reservation = reservation.ok().filter(|_| accepts.get());
        let (answers, commit) =
            reservation.map(|reservation| receiver.accept(reservation, descriptors.into_iter().zip(records()))).unzip();
        ack.replies.extend(answers.into_iter().flatten().map(|answer| match answer {
            Ok(()) => Reply::Accepted,
            Err(Rejection::Full) => Reply::NoRoom,
            Err(Rejection::Unknown) => Reply::Unknown,
        }));
        // Records without a descriptor: none was free in this process, so these connections are still their sender's.
        ack.replies.resize(records().count(), Reply::NoRoom);
        // Keys of connections may be in it.
        buffer[..length].zeroize();
        ack.connections = receiver.connections();
        // In this order: once the sender has been told that they are served here, it serves them no more.
        let _ = socket.send(&ack.write(), &[]).await;
        if let Some(commit) = commit {
            commit();
        }
    }
}
