//! The taking end of a link: what comes is given a place here, or is its sender's still.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;

use super::outbox::Answer;
use super::wire::{self, MAX_PACKET, Word};
use super::{Harbour, NoBerth};
use app_host_core::error::chain;
use app_host_platform::sys::packet::Socket;

/// How long connections that have arrived wait for room.
const ROOM: Duration = Duration::from_millis(20);

/// Takes what comes on a link, until its end.
pub(super) async fn take<H: Harbour>(socket: Rc<Socket>, harbour: Rc<H>, takes: Rc<Cell<bool>>) {
    let mut buffer = vec![0; MAX_PACKET];
    let mut word = Word { held: harbour.holds(), answers: Vec::new() };
    // Whoever can't be told is gone, which the next read says.
    let _ = socket.send(&word.write(), &[]).await;
    loop {
        let (length, descriptors) = match socket.receive(&mut buffer).await {
            Ok((0, _)) => return,
            Ok(received) => received,
            Err(error) => {
                if !app_host_platform::sys::packet::is_the_end(&error) {
                    tracing::warn!(error = chain(&error), "connections of another worker can't be received");
                }
                return;
            }
        };
        let papers = || wire::unpack(&buffer[..length]);
        for descriptor in &descriptors {
            // Those that get no place are closed here, which must not wait for their clients. What is no socket doesn't.
            let _ = SockRef::from(descriptor).set_linger(None);
        }
        word.answers.clear();
        // Whoever finds no room has to travel once more.
        let room = tokio::time::timeout(ROOM, harbour.room()).await;
        let room = room.ok().filter(|_| takes.get());
        let (answers, settle) = room.map(|room| harbour.berth(room, descriptors.into_iter().zip(papers()))).unzip();
        word.answers.extend(answers.into_iter().flatten().map(|answer| match answer {
            Ok(()) => Answer::Taken,
            Err(NoBerth::Full) => Answer::NoRoom,
            Err(NoBerth::Unknown) => Answer::Unknown,
        }));
        // For those behind the last descriptor there was none free here: they are still their sender's.
        word.answers.resize(papers().count(), Answer::NoRoom);
        word.held = harbour.holds();
        // In this order: nobody else can serve them once it has been said that they are served here, and from
        // then on nobody else does.
        let _ = socket.send(&word.write(), &[]).await;
        if let Some(settle) = settle {
            settle();
        }
    }
}
