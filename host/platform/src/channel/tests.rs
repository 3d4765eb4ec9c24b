//! Both ends in one process; a test plays the child that says what it shouldn't.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use rustix::event::{EventfdFlags, eventfd};

use super::frames::{MAX_TEXT, frame};
use super::*;
use crate::sys::packet;

/// The master's end and a child's.
fn pair() -> (MasterEnd, Channel) {
    let (ours, theirs) = MasterEnd::pair().unwrap();
    (ours, Channel::from_owned_fd(theirs).unwrap())
}

/// The master's end, and what a child writes on.
fn raw() -> (FromChild, OwnedFd, File) {
    let (ours, socket) = MasterEnd::pair().unwrap();
    let (_, mut descriptors) = packet::receive(socket.as_fd(), &mut [0; 1]).unwrap();
    (ours.from, socket, File::from(descriptors.remove(0)))
}

#[tokio::test]
async fn what_the_master_sends_arrives_at_any_length_with_its_descriptors() {
    let (ours, theirs) = pair();
    for length in [0, MAX_INLINE, 3_000_000] {
        let message = "x".repeat(length);
        let (extra, _) = packet::pair().unwrap();
        ours.to.send_with(&message, &[extra.as_fd()]).await.unwrap();
        let (received, descriptors) = theirs.receive::<String>().await.unwrap().unwrap();
        assert_eq!(received, message);
        assert_eq!(descriptors.len(), 1);
    }
    drop(ours);
    assert!(theirs.receive::<String>().await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_child_says_arrives_and_so_does_its_end() {
    let (mut ours, theirs) = pair();
    let longest = "x".repeat(MAX_TEXT - 2);
    for text in ["", "short", &longest] {
        let (sent, received) = tokio::join!(theirs.send(&text), ours.from.receive::<String>());
        sent.unwrap();
        assert_eq!(received.unwrap().unwrap(), text);
    }
    assert!(matches!(theirs.send(&"x".repeat(MAX_TEXT)).await, Err(ChannelError::TooLong(_))));
    drop(theirs);
    assert!(ours.from.receive::<String>().await.unwrap().is_none());
}

#[tokio::test]
async fn a_message_of_another_kind_is_an_error_to_a_child_and_the_channel_goes_on() {
    let (ours, theirs) = pair();
    ours.to.send(&"text").await.unwrap();
    ours.to.send(&7).await.unwrap();
    assert!(matches!(theirs.receive::<u8>().await, Err(ChannelError::Message(_))));
    assert_eq!(theirs.receive::<u8>().await.unwrap().unwrap().0, 7);
}

#[tokio::test]
async fn whatever_a_child_says_that_is_no_message_is_said_once_and_nothing_more_is_read() {
    let hostile = serde_json::to_string(&format!("\n\u{202e}\u{1b}[2J{}", "x".repeat(5000))).unwrap();
    for (bytes, expected) in [
        (vec![0xff; 200], "a message of 4294967295 bytes, of which at most 32768 are taken"),
        (frame(b"7 8").unwrap(), "a message that is not understood: trailing characters"),
        (frame(b"").unwrap(), "a message that is not understood: EOF"),
        (frame(&[0xff; 30]).unwrap(), "a message that is not understood: expected value"),
        (frame(hostile.as_bytes()).unwrap(), "a message that is not understood: invalid type: string \"\\n"),
        (frame(b"text").unwrap()[..6].to_vec(), "the end comes in the middle of a message"),
    ] {
        let (mut from, _socket, mut pipe) = raw();
        pipe.write_all(&bytes).unwrap();
        if !expected.contains("the middle") {
            pipe.write_all(&frame(b"9").unwrap()).unwrap();
        }
        drop(pipe);
        let text = from.receive::<u8>().await.unwrap_err().to_string();
        assert!(text.starts_with(expected), "{text}");
        assert!(text.len() < 500 && !text.contains(char::is_control) && !text.contains('\u{202e}'), "{text}");
        assert!(from.receive::<u8>().await.unwrap().is_none(), "nothing more is read");
    }
}

#[tokio::test]
async fn no_packet_and_no_descriptor_of_a_child_reaches_the_master() {
    let (_from, socket, _pipe) = raw();
    let event = eventfd(0, EventfdFlags::empty()).unwrap();
    for bytes in [vec![BESIDE], vec![INLINE, b'7'], vec![0; 100_000]] {
        for descriptors in [&[][..], &[event.as_fd()]] {
            let refused = packet::send(socket.as_fd(), &bytes, descriptors).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}

#[tokio::test]
async fn a_text_beside_a_packet_is_read_from_a_sealed_memory_file_alone() {
    // Each is shut before it is read. A blocking eventfd can be rewound, and its read never ends.
    let memory = memfd_create(c"unsealed", MFdFlags::empty()).unwrap();
    let event = eventfd(0, EventfdFlags::empty()).unwrap();
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let zero = OwnedFd::from(File::open("/dev/zero").unwrap());
    for other in [memory, event, file, zero] {
        let (ours, theirs) = packet::pair().unwrap();
        let theirs = FromMaster::new(theirs).unwrap();
        packet::send(ours.as_fd(), &[BESIDE], &[other.as_fd()]).unwrap();
        assert!(matches!(theirs.receive::<String>().await, Err(ChannelError::Unsealed)));
    }
}
