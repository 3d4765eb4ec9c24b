//! Where the events of an event stream begin and end, and which of them its client has had last, from the bytes alone (WHATWG
//! HTML Standard, sections 9.2.5 and 9.2.6). Pure.

/// How much of a line about an id is kept: more fits into no head.
const MAX_LINE: usize = 64 * 1024;

/// How much of any other line: enough to see that it is one.
const SHORT: usize = MARK.len() + ID.len();

/// What the first line may begin with.
const MARK: &[u8] = b"\xef\xbb\xbf";

const ID: &[u8] = b"id:";

/// Follows one event stream.
#[derive(Debug)]
pub(super) struct Events {
    /// The begin of the line that has not ended.
    line: Vec<u8>,
    /// Whether lines of an event have come, and the empty line behind them has not.
    in_event: bool,
    /// Whether the last byte was a carriage return: with a line feed behind it that is one end.
    after_return: bool,
    is_first_line: bool,
    /// The id that is named by the event which has not ended.
    named: Option<Vec<u8>>,
    last_id: Vec<u8>,
}

impl Events {
    /// Those for a client that has had the event with this id last, which is empty for none; and nothing of the response yet,
    /// if it `begins`.
    pub(super) const fn after(last_id: Vec<u8>, begins: bool) -> Self {
        Self { line: Vec::new(), in_event: false, after_return: false, is_first_line: begins, named: None, last_id }
    }

    /// Whether the last byte was the last of an event, or none has come.
    pub(super) const fn is_between(&self) -> bool {
        self.line.is_empty() && !self.in_event
    }

    /// The last id of those that the events so far have named.
    pub(super) fn last_id(&self) -> &[u8] {
        &self.last_id
    }

    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_return) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
                self.lengthen(bytes);
                return;
            };
            self.lengthen(&bytes[..end]);
            self.end_line();
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
        }
    }

    fn lengthen(&mut self, part: &[u8]) {
        let (short, rest) = part.split_at(part.len().min(SHORT.saturating_sub(self.line.len())));
        self.line.extend_from_slice(short);
        if self.content().starts_with(ID) {
            let rest = &rest[..rest.len().min(MAX_LINE - self.line.len())];
            self.line.extend_from_slice(rest);
        }
    }

    /// The line without what may stand before the first one.
    fn content(&self) -> &[u8] {
        let mark = if self.is_first_line { self.line.strip_prefix(MARK) } else { None };
        mark.unwrap_or(&self.line)
    }

    fn end_line(&mut self) {
        self.in_event = !self.content().is_empty();
        if self.in_event {
            let id = match self.content().strip_prefix(ID) {
                Some(id) => Some(id.strip_prefix(b" ").unwrap_or(id)),
                None => (self.content() == b"id").then_some(&[][..]),
            };
            if let Some(id) = id.filter(|id| !id.contains(&0)) {
                self.named = Some(id.to_vec());
            }
        } else if let Some(id) = self.named.take() {
            self.last_id = id;
        }
        self.is_first_line = false;
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn followed(text: &str) -> (bool, String) {
        followed_from(true, text)
    }

    fn followed_from(begins: bool, text: &str) -> (bool, String) {
        let mut events = Events::after(b"before".to_vec(), begins);
        events.follow(text.as_bytes());
        (events.is_between(), String::from_utf8_lossy(events.last_id()).into_owned())
    }

    #[test]
    fn an_event_ends_with_an_empty_line_and_then_its_id_counts() {
        for (text, between, id) in [
            ("", true, "before"),
            ("\n\n", true, "before"),
            ("data: a", false, "before"),
            ("data: a\n", false, "before"),
            ("data: a\n\n", true, "before"),
            ("data: a\r\n\r\n", true, "before"),
            ("data: a\r\r", true, "before"),
            ("data: a\r\n\r", true, "before"),
            ("data: a\n\r\ndata", false, "before"),
            (": a comment\n", false, "before"),
            (": a comment\n\n", true, "before"),
            ("id: 7\n", false, "before"),
            ("id: 7\ndata: a\n\n", true, "7"),
            ("id:7\r\n\r\n", true, "7"),
            ("id:  7\n\n", true, " 7"),
            ("id: 7\nid: 8\n\n", true, "8"),
            ("id: 7\n\nid: 8\n", false, "7"),
            ("id\n\n", true, ""),
            ("id:\n\n", true, ""),
            ("id: a\0b\n\n", true, "before"),
            ("ID: 7\nidentity: 8\n id: 9\ndata: id: 10\n\n", true, "before"),
            ("\u{feff}id: 7\n\n", true, "7"),
            ("\n\u{feff}id: 7\n\n", true, "before"),
            ("\u{feff}\n", true, "before"),
            ("id: 7\n\ndata: a", false, "7"),
        ] {
            assert_eq!(followed(text), (between, id.to_owned()), "{text:?}");
        }
        // Its client is not at its begin.
        assert_eq!(followed_from(false, "\u{feff}id: 7\n\n"), (true, "before".to_owned()));
    }

    #[test]
    fn of_a_line_no_more_is_kept_than_can_be_said() {
        let mut events = Events::after(Vec::new(), true);
        let long = vec![b'x'; MAX_LINE];
        for part in [&b"id:"[..], &long, &long] {
            events.follow(part);
        }
        assert_eq!(events.line.len(), MAX_LINE);
        events.follow(b"\n\ndata: ");
        events.follow(&long);
        assert_eq!((events.line.len(), events.last_id().len()), (SHORT, MAX_LINE - ID.len()));
    }

    proptest! {
        #[test]
        fn it_is_all_the_same_where_reads_end(
            lines in prop::collection::vec(
                prop_oneof![
                    Just(""), Just(""), Just(""), Just("id: 1"), Just("id:22"), Just("id"), Just("data: x"),
                    Just(": id: 3"), Just("i"), Just("\u{feff}id: 4"),
                ],
                0..20,
            ),
            ends in prop::collection::vec(prop_oneof![Just("\n"), Just("\r\n"), Just("\r")], 1..8),
            pieces in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let text: String = lines.iter().zip(ends.iter().cycle()).flat_map(|(line, end)| [*line, *end]).collect();
            let mut events = Events::after(b"before".to_vec(), true);
            let mut rest = text.as_bytes();
            for piece in pieces.iter().cycle() {
                let (now, later) = rest.split_at((*piece).min(rest.len()));
                events.follow(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let split = (events.is_between(), String::from_utf8_lossy(events.last_id()).into_owned());
            prop_assert_eq!(split, followed(&text));
        }

        #[test]
        fn any_bytes_are_followed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Events::after(Vec::new(), true).follow(&bytes);
        }
    }
}
