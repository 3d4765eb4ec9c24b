//! Framing of single streams, and of any stream however it is cut into reads.

use proptest::prelude::*;

use super::*;

fn after(bytes: &[u8], body: Option<u64>) -> Framing {
    let mut framing = Framing::new();
    framing.delivered(bytes);
    framing.request(body);
    framing
}

#[test]
fn a_lone_request_has_nothing_behind_it() {
    assert_eq!(after(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Some(0)).behind(), Behind::Nothing);
    assert_eq!(after(b"POST / HTTP/1.1\r\n\r\nbody", Some(4)).behind(), Behind::Nothing);
    assert_eq!(after(b"POST / HTTP/1.1\r\n\r\nbo", Some(4)).behind(), Behind::Nothing);
}

#[test]
fn the_first_byte_of_a_second_request_is_seen() {
    assert_eq!(after(b"GET / HTTP/1.1\r\n\r\nG", Some(0)).behind(), Behind::Something);
    assert_eq!(after(b"POST / HTTP/1.1\n\n\r\n\r\nP", Some(4)).behind(), Behind::Something);
}

#[test]
fn an_empty_line_behind_a_body_is_no_request() {
    assert_eq!(after(b"POST / HTTP/1.1\r\n\r\nbody\r\n", Some(4)).behind(), Behind::Nothing);
}

#[test]
fn the_end_of_a_body_in_chunks_is_found() {
    for body in [
        "4\r\nbody\r\n0\r\n\r\n",
        "0\r\n\r\n",
        "00a \t;name=value\r\n\r\n\r\n0\r\n\r\n!\r\n1\r\n\n\r\n0;x\r\nTrailer: 0\r\nb: c\r\n\r\n",
    ] {
        let sent = format!("POST / HTTP/1.1\r\n\r\n{body}");
        let mut framing = after(sent.as_bytes(), None);
        assert_eq!((framing.behind(), framing.is_clean()), (Behind::Nothing, true), "{body:?}");
        framing.delivered(b"G");
        assert_eq!((framing.behind(), framing.unfinished_head()), (Behind::Something, Some(1)), "{body:?}");
        for end in "POST / HTTP/1.1\r\n\r\n".len()..sent.len() {
            let framing = after(&sent.as_bytes()[..end], None);
            assert_eq!((framing.is_clean(), framing.unfinished_head()), (false, None), "{:?}", &sent[..end]);
        }
    }
}

#[test]
fn behind_chunks_that_hyper_refuses_the_position_is_lost() {
    for body in
        ["\r\n", "g\r\n", "1 1\r\n", "1\n", "1;\n", "1\r\nab", "1\r\na\n", "0\r\n\rX", "0\r\na\rb", "fffffffffffffffff"]
    {
        let mut framing = after(format!("POST / HTTP/1.1\r\n\r\n{body}").as_bytes(), None);
        assert!(framing.is_lost(), "{body:?}");
        framing.delivered(b"\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        framing.request(Some(0));
        assert_eq!((framing.behind(), framing.unfinished_head()), (Behind::Unknown, None), "{body:?}");
    }
}

#[test]
fn a_head_that_comes_slowly_is_noticed() {
    let mut framing = Framing::new();
    assert!(!framing.in_head());
    framing.delivered(b"\r\nGET / HT");
    assert!(framing.in_head() && !framing.is_clean());
    framing.delivered(b"TP/1.1\r\n\r");
    assert!(framing.in_head());
    framing.delivered(b"\n");
    framing.request(Some(0));
    assert!(!framing.in_head() && framing.is_clean());
}

/// One request as a client may send it.
#[derive(Clone, Debug)]
struct Sent {
    blank: usize,
    head: Vec<u8>,
    body: Vec<u8>,
    /// The body comes in chunks, so its length isn't known.
    chunked: bool,
}

prop_compose! {
    fn sent()(
        blank in 0_usize..3,
        lines in prop::collection::vec("[A-Za-z:/ ]{1,20}", 1..5),
        bare in any::<bool>(),
        body in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..30),
        chunk in prop::option::of(1_usize..20),
    ) -> Sent {
        let end = if bare { "\n" } else { "\r\n" };
        let mut head = lines.join(end).into_bytes();
        head.extend_from_slice(end.as_bytes());
        head.extend_from_slice(end.as_bytes());
        let body = chunk.map_or(body.clone(), |length| {
            let mut chunks = Vec::new();
            for chunk in body.chunks(length) {
                chunks.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                chunks.extend_from_slice(chunk);
                chunks.extend_from_slice(b"\r\n");
            }
            chunks.extend_from_slice(b"0\r\n\r\n");
            chunks
        });
        Sent { blank, head, body, chunked: chunk.is_some() }
    }
}

proptest! {
    /// However the bytes are cut into reads, and whenever hyper takes a request, what is
    /// said to lie behind a request is what lies there.
    #[test]
    fn what_lies_behind_is_known_exactly(
        requests in prop::collection::vec(sent(), 1..6),
        cuts in prop::collection::vec(1_usize..40, 1..80),
        eager in any::<bool>(),
    ) {
        let mut stream = Vec::new();
        let mut places = Vec::new();
        for request in &requests {
            for _ in 0..request.blank {
                stream.extend_from_slice(b"\r\n");
            }
            let start = stream.len();
            stream.extend_from_slice(&request.head);
            let head = stream.len();
            stream.extend_from_slice(&request.body);
            places.push((start, head, stream.len()));
        }
        let mut framing = Framing::new();
        let mut delivered = 0;
        let mut taken = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            let read = cut.min(stream.len() - delivered);
            framing.delivered(&stream[delivered..delivered + read]);
            delivered += read;
            // hyper takes a request once its head and all of the one before have been delivered.
            while taken < places.len()
                && delivered >= places[taken].1
                && (eager || delivered >= places[taken].2 || cut % 2 == 0)
                && (taken == 0 || delivered >= places[taken - 1].2)
            {
                let request = &requests[taken];
                framing.request((!request.chunked).then_some(request.body.len() as u64));
                taken += 1;
                let next = places.get(taken).map_or(usize::MAX, |place| place.0);
                let truth = if delivered > next { Behind::Something } else { Behind::Nothing };
                prop_assert_eq!(framing.behind(), truth);
            }
        }
        prop_assert_eq!(taken, places.len());
        prop_assert!(framing.is_clean());
        prop_assert!(framing.tail.is_empty());
    }

    #[test]
    fn any_bytes_are_survived(reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
        let mut framing = Framing::new();
        for (index, read) in reads.iter().enumerate() {
            framing.delivered(read);
            if index % 3 == 0 {
                framing.request((index % 2 == 0).then_some(index as u64));
            }
        }
    }
}
