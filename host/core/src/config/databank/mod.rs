//! The section `databank`: which store, where, and how long a call may take.
//!
//! Owns the rule that a secret is never shown: [`Secret`] has no way to print itself, and what a
//! parser or a driver says of a URI goes through [`redact`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

mod uri;

use super::app::trimmed;
use super::section::{Section, section};
use crate::foreign::printable;
use crate::secret::Secret;
use uri::{has_password, hosts, servers_only};

pub use uri::redact;

/// The database of MongoDB when none is named.
const DATABASE: &str = "app_host";

/// Under the state directory, when no other path is given.
const FILE: &str = "data/databank.sqlite";

/// How long a call may take, when nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most indexes: MongoDB has at most 64 a collection, `_id`'s among them.
const MAX_INDEXES: usize = 63;

/// A secret in the configuration, or the file that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    Inline(Secret),
    File(PathBuf),
}

/// The section as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Databank {
    pub store: Store<SecretSource>,
    pub timeout: Duration,
}

/// The section with its secrets read: what a generation keeps and its workers get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    pub store: Store<Secret>,
    /// How long a call may take.
    pub timeout: Duration,
}

/// Which databank it is, for operators. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `sqlite`, `mongodb`, `memory`.
    pub driver: String,
    /// The file, or the servers and the database. The memory of a worker has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// A kind of store and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Store<S> {
    Mongodb { uri: S, database: String, indexes: Vec<Index> },
    Sqlite { path: PathBuf },
    Memory,
}

impl<S> Store<S> {
    /// Whether processes may share it: two generations need that.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        match self {
            // Whoever reaches the server has the same documents, and whoever opens the file.
            Self::Mongodb { .. } | Self::Sqlite { .. } => true,
            Self::Memory => false,
        }
    }
}

/// Whether a store on this machine is made where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Making {
    IfMissing,
    /// It was there when the master started. Whoever has moved it away, or a link on its path, may bring it back; an
    /// empty one in its place would look as if nothing had ever been written.
    Never,
}

/// An index that a search is to find ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The type of the documents.
    #[serde(rename = "type")]
    pub kind: String,
    /// The dotted paths, the first one counting most.
    pub paths: Vec<String>,
}

impl<S> Store<S> {
    /// What `driver` calls it.
    pub const fn driver(&self) -> &'static str {
        match self {
            Self::Mongodb { .. } => "mongodb",
            Self::Sqlite { .. } => "sqlite",
            Self::Memory => "memory",
        }
    }
}

impl Databank {
    /// Whether who has the section, with its secrets read, may have a password.
    pub fn may_have_password(&self) -> bool {
        match &self.store {
            Store::Mongodb { uri: SecretSource::Inline(uri), .. } => has_password(uri.reveal()),
            Store::Mongodb { uri: SecretSource::File(_), .. } => true,
            Store::Sqlite { .. } | Store::Memory => false,
        }
    }

    /// Whether a secret is in a file of its own, which may change while the configuration doesn't.
    pub const fn has_secret_file(&self) -> bool {
        matches!(self.store, Store::Mongodb { uri: SecretSource::File(_), .. })
    }

    /// The section with its secrets; `read` reads the file of one.
    pub fn setup<E>(&self, read: impl FnOnce(&Path) -> Result<String, E>) -> Result<Setup, E> {
        let store = match &self.store {
            Store::Mongodb { uri, database, indexes } => {
                let uri = match uri {
                    SecretSource::Inline(secret) => secret.clone(),
                    SecretSource::File(path) => Secret::new(trimmed(&read(path)?).to_owned()),
                };
                Store::Mongodb { uri, database: database.clone(), indexes: indexes.clone() }
            }
            Store::Sqlite { path } => Store::Sqlite { path: path.clone() },
            Store::Memory => Store::Memory,
        };
        Ok(Setup { store, timeout: self.timeout })
    }
}

impl Setup {
    /// Which databank this is, for operators: no user, no password and no option.
    pub fn place(&self) -> Place {
        let place = match &self.store {
            Store::Mongodb { uri, database, .. } => Some(format!("{}/{database}", servers_only(uri.reveal()))),
            Store::Sqlite { path } => Some(path.display().to_string()),
            Store::Memory => None,
        };
        Place { driver: self.store.driver().to_owned(), place: place.map(|place| printable(&place).to_string()) }
    }

    /// The first key that says that `running` is another store: two generations must never write to
    /// two. Whoever logs in, and how, may change.
    pub fn difference(&self, running: &Self) -> Option<&'static str> {
        match (&self.store, &running.store) {
            (
                Store::Mongodb { uri, database, .. },
                Store::Mongodb { uri: running_uri, database: running_database, .. },
            ) => {
                if hosts(uri.reveal()) != hosts(running_uri.reveal()) {
                    Some("databank.uri")
                } else if database != running_database {
                    Some("databank.database")
                } else {
                    None
                }
            }
            (Store::Sqlite { path }, Store::Sqlite { path: running }) => (path != running).then_some("databank.path"),
            (Store::Memory, Store::Memory) => None,
            _ => Some("databank.driver"),
        }
    }
}

#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawDatabank {
    driver: Driver,
    path: Option<PathBuf>,
    uri: Option<RawSecret>,
    database: Option<String>,
    indexes: Option<Vec<Index>>,
    #[serde(deserialize_with = "super::values::positive_duration")]
    timeout: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Driver {
    Mongodb,
    Sqlite,
    Memory,
}

#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text or {\"file\": \"PATH\"}")]
enum RawSecret {
    Text(Secret),
    File(Section<RawSecretFile>),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecretFile {
    file: PathBuf,
}

impl Default for RawDatabank {
    fn default() -> Self {
        Self { driver: Driver::Sqlite, path: None, uri: None, database: None, indexes: None, timeout: TIMEOUT }
    }
}

/// Checks what belongs together while its line is still known.
pub(super) fn databank<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RawDatabank, D::Error> {
    let raw: RawDatabank = section(deserializer)?;
    raw.check().map_err(D::Error::custom)?;
    Ok(raw)
}

impl RawDatabank {
    fn check(&self) -> Result<(), String> {
        for (key, given, driver, name) in [
            ("path", self.path.is_some(), Driver::Sqlite, "sqlite"),
            ("uri", self.uri.is_some(), Driver::Mongodb, "mongodb"),
            ("database", self.database.is_some(), Driver::Mongodb, "mongodb"),
            ("indexes", self.indexes.is_some(), Driver::Mongodb, "mongodb"),
        ] {
            if given && self.driver != driver {
                return Err(format!("\"{key}\" is for the driver \"{name}\""));
            }
        }
        if self.driver == Driver::Mongodb {
            match &self.uri {
                None => return Err("the driver \"mongodb\" needs a \"uri\"".to_owned()),
                Some(RawSecret::Text(uri)) if uri.reveal().is_empty() => return Err("\"uri\" is empty".to_owned()),
                Some(_) => {}
            }
        }
        if let Some(name) = &self.database {
            check_database(name)?;
        }
        let indexes = self.indexes.as_deref().unwrap_or_default();
        if indexes.len() > MAX_INDEXES {
            return Err(format!("there are {} indexes, and {MAX_INDEXES} are the most", indexes.len()));
        }
        if indexes.iter().any(|index| index.paths.is_empty()) {
            return Err("an index has no paths".to_owned());
        }
        Ok(())
    }

    /// `directory` is the configuration's.
    pub(super) fn resolve(self, directory: &Path, state_dir: &Path) -> Databank {
        let store = match (self.driver, self.uri) {
            (Driver::Mongodb, Some(uri)) => Store::Mongodb {
                uri: match uri {
                    RawSecret::Text(secret) => SecretSource::Inline(secret),
                    RawSecret::File(Section(RawSecretFile { file })) => SecretSource::File(directory.join(file)),
                },
                database: self.database.unwrap_or_else(|| DATABASE.to_owned()),
                indexes: self.indexes.unwrap_or_default(),
            },
            (Driver::Memory, _) => Store::Memory,
            // `check` has refused mongodb without a URI.
            (Driver::Sqlite | Driver::Mongodb, _) => {
                Store::Sqlite { path: self.path.map_or_else(|| state_dir.join(FILE), |path| directory.join(path)) }
            }
        };
        Databank { store, timeout: self.timeout }
    }
}

/// What every release of MongoDB takes on every system (its manual, "Naming Restrictions").
fn check_database(name: &str) -> Result<(), String> {
    let forbidden =
        |c: char| c.is_control() || matches!(c, '/' | '\\' | '.' | ' ' | '"' | '$' | '*' | '<' | '>' | ':' | '|' | '?');
    if name.is_empty() || name.len() > 63 || name.contains(forbidden) {
        return Err(format!("\"database\" is {name:?}, expected 1 to 63 bytes without space and /\\.\"$*<>:|?"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
