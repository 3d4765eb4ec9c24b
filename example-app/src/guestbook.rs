//! The guestbook's documents: entries, and the number of visits.
//!
//! Nothing is kept in the worker: what one writes the next one reads, of whichever generation.

use crate::{pieces::Pieces, refusal::Refusal};
use app_abi::{
    Body, Bytes, Databank, DatabankError, Document, Documents, Revision,
    serde::{Deserialize, Serialize},
    serde_json::{Value, json},
};
use std::time::{SystemTime, UNIX_EPOCH};

/// The type of the entries' documents.
const ENTRY: &str = "entry";
/// The one document with the number of visits: type and id.
const VISITS: (&str, &str) = ("counter", "visits");

/// The longest name and the longest text, in characters.
pub const LONGEST_NAME: usize = 80;
pub const LONGEST_TEXT: usize = 2000;

/// What somebody wants to write.
#[derive(Default, Deserialize)]
#[serde(crate = "app_abi::serde", deny_unknown_fields)]
pub struct Draft {
    pub name: String,
    pub text: String,
}

/// What was written, as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(crate = "app_abi::serde")]
pub struct Entry {
    pub name: String,
    pub text: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

#[derive(Deserialize)]
#[serde(crate = "app_abi::serde")]
struct Visits {
    count: i64,
}

#[derive(Clone, Copy)]
pub struct Guestbook {
    databank: Databank,
}

impl Guestbook {
    pub const fn new(databank: Databank) -> Self {
        Self { databank }
    }

    /// Counts one more. However many workers do it at once, none is lost.
    pub async fn count_visit(&self) -> Result<i64, DatabankError> {
        self.databank.increment(VISITS.0, VISITS.1, "count", 1).await
    }

    pub async fn visits(&self) -> Result<i64, DatabankError> {
        match self.databank.read::<Visits>(VISITS.0, VISITS.1).await {
            Ok(visits) => Ok(visits.value.count),
            Err(DatabankError::NotFound(_)) => Ok(0),
            Err(error) => Err(error),
        }
    }

    pub async fn add(&self, draft: &Draft) -> Result<Document<Entry>, Refusal> {
        let Draft { name, text } = draft.checked()?;
        let mut value = Entry { name, text, at: 0 };
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
            // Documents come in the order of their ids: the newest is to have the smallest one.
            let id = format!("{:016x}", u64::MAX - micros);
            value.at = micros / 1000;
            match self.databank.create(ENTRY, &id, &value).await {
                Ok(revision) => return Ok(Document { id, revision, value }),
                // Another worker has had this microsecond; the next one comes soon.
                Err(DatabankError::AlreadyExists(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub async fn read(&self, id: &str) -> Result<Document<Entry>, DatabankError> {
        self.databank.read(ENTRY, id).await
    }

    /// Replaces an entry in the state `was`; a conflict if somebody else has replaced it since.
    pub async fn replace(&self, id: String, was: Revision, draft: &Draft) -> Result<Document<Entry>, Refusal> {
        let Draft { name, text } = draft.checked()?;
        let at = self.read(&id).await?.value.at;
        let value = Entry { name, text, at };
        let revision = self.databank.compare_and_save(ENTRY, &id, was, &value).await?;
        Ok(Document { id, revision, value })
    }

    pub async fn remove(&self, id: &str) -> Result<(), DatabankError> {
        self.databank.remove(ENTRY, id).await
    }

    /// At most `limit` entries, the newest first; those behind the entry `after`, if one is named.
    pub async fn newest(&self, limit: usize, after: Option<&str>) -> Result<Vec<Document<Entry>>, DatabankError> {
        let Some(after) = after else {
            return self.databank.search(ENTRY).limit(limit as u64).run().collect().await;
        };
        // A search knows no "greater than": what comes before is read and left out, little of it in
        // memory at a time.
        let (mut entries, mut page) = (self.databank.scan::<Entry>(ENTRY), Vec::new());
        while page.len() < limit
            && let Some(entry) = entries.next().await
        {
            page.extend(Some(entry?).filter(|entry| entry.id.as_str() > after));
        }
        Ok(page)
    }

    /// All entries as a body, a line of JSON each.
    pub fn export(&self) -> Body {
        Body::stream(Pieces::new(self.databank.scan(ENTRY), |entries| Box::pin(next_line(entries))))
    }
}

impl Draft {
    /// The draft as it may be stored: without space around it, neither empty nor too long.
    fn checked(&self) -> Result<Self, Refusal> {
        let check = |what: &str, text: &str, longest: usize| {
            // Forms send their line ends as two characters.
            let text = text.replace("\r\n", "\n").trim().to_owned();
            match text.chars().count() {
                0 => Err(Refusal::Invalid(format!("the {what} is empty"))),
                count if count > longest => {
                    Err(Refusal::Invalid(format!("the {what} has {count} characters, {longest} are the most")))
                }
                _ if text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') => {
                    Err(Refusal::Invalid(format!("the {what} has characters that can't be shown")))
                }
                _ => Ok(text),
            }
        };
        Ok(Self { name: check("name", &self.name, LONGEST_NAME)?, text: check("text", &self.text, LONGEST_TEXT)? })
    }
}

/// An entry as clients see it. The revision is a text, because JavaScript's numbers have 53 bits.
pub fn to_json(entry: &Document<Entry>) -> Value {
    let Entry { name, text, at } = &entry.value;
    json!({ "id": entry.id, "revision": entry.revision.get().to_string(), "name": name, "text": text, "at": at })
}

type NextLine = (Result<Bytes, DatabankError>, Documents<Entry>);

async fn next_line(mut entries: Documents<Entry>) -> Option<NextLine> {
    let line = entries.next().await?.map(|entry| format!("{}\n", to_json(&entry)).into());
    Some((line, entries))
}
