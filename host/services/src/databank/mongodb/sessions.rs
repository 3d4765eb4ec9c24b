//! A pool of sessions for reads.
//!
//! For a call without a session the crate takes one, and a task of its own returns it when the call has ended, which is a
//! twentieth of all that a read costs. Sessions order the calls of one client, which nothing here needs: so any session
//! will do.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mongodb::error::{Error, ErrorKind};
use mongodb::{Client, ClientSession};

/// For how long an unused session is kept. By default the server forgets one after 30 minutes; the crate checks those that
/// are returned to it.
const KEPT: Duration = Duration::from_mins(1);

/// The most unused sessions that are kept.
const IDLE: usize = 16;

/// The unused sessions, with the time of their last use: the latest last.
#[derive(Default)]
pub struct Sessions(Mutex<Vec<(Instant, ClientSession)>>);

impl Sessions {
    /// Takes a session for exclusive use.
    pub async fn take(&self, client: &Client) -> Result<ClientSession, Error> {
        match self.latest() {
            Some(session) => Ok(session),
            None => client.start_session().causal_consistency(false).await,
        }
    }

    /// Puts a session back. Only after a call that succeeded: the crate must know what a failed one leaves.
    pub fn put_back(&self, session: ClientSession) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push((Instant::now(), session));
        }
    }

    fn latest(&self) -> Option<ClientSession> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (used, session) = idle.pop()?;
        if used.elapsed() < KEPT {
            return Some(session);
        }
        // All others have been unused for longer.
        idle.clear();
        None
    }
}

/// Whether the error says that the server has no sessions. Some that only speak MongoDB's protocol don't.
pub fn are_unknown(error: &Error) -> bool {
    matches!(*error.kind, ErrorKind::SessionsNotSupported)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use bson::raw::{RawDocument, RawDocumentBuf};
    use bson::{Document, doc};

    use super::super::super::query::Key;
    use super::super::super::{Driver, Stored};
    use super::super::Mongodb;
    use super::*;

    /// Answers in MongoDB's protocol (`OP_MSG`), and refuses every command with a session.
    fn serve_without_sessions(mut socket: TcpStream) -> std::io::Result<()> {
        loop {
            let mut header = [0; 16];
            socket.read_exact(&mut header)?;
            let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
            let mut body = vec![0; word(0) as usize - header.len()];
            socket.read_exact(&mut body)?;
            // After four bytes of flags and one for the kind of section.
            let asked = RawDocument::from_bytes(&body[5..]).unwrap();
            let answer = answer_to(&Document::try_from(asked).unwrap());
            let answer = RawDocumentBuf::try_from(&answer).unwrap();
            let length = u32::try_from(header.len() + 5 + answer.as_bytes().len()).unwrap();
            let mut message = Vec::new();
            for word in [length, 1, word(4), 2013, 0] {
                message.extend(word.to_le_bytes());
            }
            message.push(0);
            message.extend(answer.as_bytes());
            socket.write_all(&message)?;
        }
    }

    fn answer_to(asked: &Document) -> Document {
        if asked.contains_key("lsid") {
            return doc! { "ok": 0, "code": 1, "errmsg": "there are no sessions here" };
        }
        if asked.contains_key("find") {
            let stored = doc! { "_id": "a", "r": 7_i64, "d": { "n": 1_i64 } };
            return doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "d.note", "firstBatch": [stored] } };
        }
        doc! {
            "ok": 1, "ismaster": true, "helloOk": true, "minWireVersion": 0, "maxWireVersion": 17,
            "maxBsonObjectSize": 16 << 20, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
        }
    }

    #[tokio::test]
    async fn a_server_that_has_no_sessions_is_read_without() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                std::thread::spawn(move || serve_without_sessions(socket?));
            }
        });
        let mongodb = Mongodb::new(&format!("mongodb://{address}"), "d", &[], Duration::from_secs(20));
        let read = mongodb.read(Key::new("note", "a").unwrap()).await.unwrap();
        assert_eq!(read, Stored { id: "a".to_owned(), revision: 7, text: r#"{"n":1}"#.into() });
    }
}
