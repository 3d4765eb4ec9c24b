//! What another worker leaves, and what an app writes.

use std::fs::File;

use super::*;

const LIMIT: u64 = 10;

fn file(bytes: &[u8]) -> OwnedFd {
    let mut writing = Writing::new(FILE, 100);
    writing.add(bytes).unwrap();
    writing.seal().unwrap().unwrap().0
}

fn header(version: &str) -> Vec<u8> {
    postcard::to_stdvec(&Some(StateHeader { version: version.to_owned(), generation: 7 })).unwrap()
}

/// What is made of a packet of another worker's, which may be in a stranger's hands.
async fn received(packet: &[u8], files: &[OwnedFd]) -> Result<Option<Received>, StateError> {
    let (theirs, ours) = packet::pair().unwrap();
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    packet::send(theirs.as_fd(), packet, &files).unwrap();
    receive(&Socket::new(ours).unwrap(), LIMIT).await
}

#[tokio::test]
async fn what_another_worker_leaves_is_read_and_what_is_no_state_is_not() {
    let good = received(&header("1.2.3"), &[file(b"1234567890")]).await.unwrap().unwrap();
    assert_eq!((good.header.version.as_str(), good.header.generation), ("1.2.3", 7));
    assert_eq!(good.bytes.as_ref(), b"1234567890");
    let long = received(&header(&format!("1\n{}", "2".repeat(3000))), &[file(b"1")]).await.unwrap().unwrap();
    assert!(long.header.version.len() <= foreign::MAX_NAME + 8 && !long.header.version.contains('\n'));

    assert!(matches!(received(&header("1"), &[]).await, Err(StateError::Garbage)));
    assert!(matches!(received(b"\xff\xff\xff", &[file(b"1")]).await, Err(StateError::Garbage)));
    assert!(matches!(received(&header("1"), &[file(b"12345678901")]).await, Err(StateError::File(_))), "too long");
    let open = OwnedFd::from(File::open("/dev/null").unwrap());
    assert!(matches!(received(&header("1"), &[open]).await, Err(StateError::File(_))), "not sealed");
    assert!(matches!(received(&[0; 5000], &[file(b"1")]).await, Err(StateError::Link(_))), "a packet too long");

    assert!(received(&[0], &[]).await.unwrap().is_none(), "nothing is left");
    let (theirs, ours) = packet::pair().unwrap();
    drop(theirs);
    assert!(receive(&Socket::new(ours).unwrap(), LIMIT).await.unwrap().is_none(), "nobody is there");
}

#[test]
fn a_write_that_fails_spoils_all_of_it() {
    let written = Arc::new(Mutex::new(Written::Whole(Writing::new(FILE, LIMIT))));
    let mut sink = Sink { written: Arc::clone(&written), limit: LIMIT };
    sink.take(b"123").unwrap();
    let error = sink.take(b"45678901").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(error.to_string(), "more than 10 bytes (restart.state_limit)");
    assert!(sink.take(b"4").is_err(), "there would be a hole");
    assert!(matches!(&*lock(&written), Written::Broken(error) if error.contains("10 bytes")));
}

#[tokio::test]
async fn an_app_that_keeps_nothing_lets_nobody_wait() {
    let (state, mut handed_on) = AppState::new(watch::channel(None).1, "1", 1, AppConfig::empty());
    let (link, other) = packet::pair().unwrap();
    let limits = StateLimits { bytes: LIMIT, timeout: Duration::from_mins(1) };
    state.leave(WorkerId(7), link, limits);
    assert_eq!(handed_on.recv().await, Some(WorkerId(7)));
    state.inherit(other, limits);
    state.rests(Instant::now() + Duration::from_mins(1)).await;
    assert!(!state.is_kept());
}
