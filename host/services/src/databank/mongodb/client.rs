//! The MongoDB client: its configuration, and the defaults where the URI says nothing.
//!
//! Owns the defaults and the definitions of indexes. Connects to nothing before the first call.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use ::mongodb::{Client, IndexModel};
use bson::{Bson, doc};
use tokio::runtime::{Handle, Id};
use tokio::sync::{OnceCell, Semaphore};

use app_host_core::config::databank::Index;

use super::super::Fault;
use super::super::query::{FieldPath, Kind};
use super::{Server, Sessions, fault, filter};

/// The most connections of a thread. Calls beyond them wait for one: with more connections they would only wait at the
/// server instead.
const POOL: u32 = 16;

/// The configuration, and the clients that were made from it.
pub struct Configured {
    uri: String,
    database: String,
    indexes: Vec<Index>,
    timeout: Duration,
    servers: Mutex<HashMap<Id, Arc<OnceCell<Arc<Server>>>>>,
}

impl Configured {
    pub fn new(uri: &str, database: &str, indexes: &[Index], timeout: Duration) -> Self {
        let (uri, database, indexes) = (uri.to_owned(), database.to_owned(), indexes.to_vec());
        Self { uri, database, indexes, timeout, servers: Mutex::default() }
    }

    /// The client of this runtime. Makes it if there is none; if the URI can't be used, each call tries again.
    ///
    /// A client's connections belong to the runtime that it was made in. Shared by several threads it would wake one of
    /// them for the calls of another.
    pub async fn server(&self) -> Result<Arc<Server>, Fault> {
        let here = Handle::current().id();
        let server = self.servers.lock().unwrap_or_else(PoisonError::into_inner).entry(here).or_default().clone();
        server.get_or_try_init(|| self.open()).await.cloned()
    }

    async fn open(&self) -> Result<Arc<Server>, Fault> {
        let unusable = |error| fault::unusable(&self.uri, &error);
        let mut options = ClientOptions::parse(&self.uri).await.map_err(unusable)?;
        fill_in(&mut options, self.timeout);
        if options.write_concern.as_ref().is_some_and(|concern| concern.w == Some(Acknowledgment::Nodes(0))) {
            return Err(Fault::Unavailable("databank.uri can't be used: with w=0 no write is acknowledged".to_owned()));
        }
        let permits = match options.max_pool_size {
            // No limit.
            None | Some(0) => Semaphore::MAX_PERMITS,
            Some(size) => usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS),
        };
        let client = Client::with_options(options).map_err(unusable)?;
        let permits = Arc::new(Semaphore::new(permits));
        Ok(Arc::new(Server { database: client.database(&self.database), sessions: Sessions::default(), permits }))
    }

    /// The indexes of each type.
    pub fn models(&self) -> Result<BTreeMap<String, Vec<IndexModel>>, Fault> {
        let mut models: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for index in &self.indexes {
            models.entry(index.kind.clone()).or_default().push(model(index)?);
        }
        Ok(models)
    }
}

/// Fills in defaults where the URI says nothing.
fn fill_in(options: &mut ClientOptions, timeout: Duration) {
    // Less than a call may take, so that the call can still return why no server was found.
    let search = timeout.mul_f64(0.8);
    options.server_selection_timeout.get_or_insert(search);
    options.connect_timeout.get_or_insert(search);
    // A silent server is noticed after one such period and the time for a connection; then the calls that wait for it end.
    options.heartbeat_freq.get_or_insert(timeout.clamp(Duration::from_millis(500), Duration::from_secs(10)));
    options.app_name.get_or_insert_with(|| "app-host".to_owned());
    options.max_pool_size.get_or_insert(POOL);
    // A write that was acknowledged must survive the primary, and the crash of a standalone server: only in a set does a
    // majority by itself wait for the journal. Reads go to the primary, the crate's default, and so see what any worker
    // has written.
    let concern = options.write_concern.get_or_insert_with(WriteConcern::default);
    concern.w.get_or_insert(Acknowledgment::Majority);
    concern.journal.get_or_insert(true);
    concern.w_timeout.get_or_insert(timeout);
}

/// An index as the server makes it. The id comes last, so that a search finds documents in its order.
fn model(index: &Index) -> Result<IndexModel, Fault> {
    let invalid =
        |fault: Fault| Fault::Invalid(format!("the index of type {:?} over {:?}: {fault}", index.kind, index.paths));
    Kind::new(&index.kind).map_err(invalid)?;
    let mut keys = doc! {};
    for path in &index.paths {
        keys.insert(filter::stored_path(&FieldPath::parse(path).map_err(invalid)?), Bson::Int32(1));
    }
    keys.insert("_id", Bson::Int32(1));
    Ok(IndexModel::builder().keys(keys).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> ClientOptions {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let parsed = runtime.block_on(async { ClientOptions::parse(format!("mongodb://h/?{query}")).await });
        let mut options = parsed.unwrap();
        fill_in(&mut options, Duration::from_secs(5));
        options
    }

    #[test]
    fn a_uri_that_says_nothing_gets_bounded_times_and_majority_writes() {
        let options = options("");
        assert_eq!(options.server_selection_timeout, Some(Duration::from_secs(4)));
        assert_eq!(options.connect_timeout, Some(Duration::from_secs(4)));
        assert_eq!(options.app_name.as_deref(), Some("app-host"));
        assert_eq!(options.max_pool_size, Some(POOL));
        let concern = options.write_concern.unwrap();
        assert_eq!((concern.w, concern.w_timeout), (Some(Acknowledgment::Majority), Some(Duration::from_secs(5))));
        assert_eq!(concern.journal, Some(true));
    }

    #[test]
    fn what_the_uri_says_wins() {
        let options = options(
            "w=2&wtimeoutMS=7&journal=false&connectTimeoutMS=8&serverSelectionTimeoutMS=9&appName=x&maxPoolSize=3&\
             heartbeatFrequencyMS=600",
        );
        assert_eq!(options.server_selection_timeout, Some(Duration::from_millis(9)));
        assert_eq!(options.connect_timeout, Some(Duration::from_millis(8)));
        assert_eq!(options.heartbeat_freq, Some(Duration::from_millis(600)));
        assert_eq!((options.app_name.as_deref(), options.max_pool_size), (Some("x"), Some(3)));
        let concern = options.write_concern.unwrap();
        assert_eq!((concern.w, concern.w_timeout), (Some(Acknowledgment::Nodes(2)), Some(Duration::from_millis(7))));
        assert_eq!(concern.journal, Some(false));
    }

    #[test]
    fn an_index_is_named_when_it_cannot_be_made() {
        let index = |kind: &str, paths: &[&str]| Index {
            kind: kind.to_owned(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        };
        assert_eq!(model(&index("note", &["a.b", "c"])).unwrap().keys, doc! { "d.a.b": 1, "d.c": 1, "_id": 1 });
        for index in [index("$x", &["a"]), index("note", &["a..b"]), index("note", &["$a"])] {
            let Err(Fault::Invalid(text)) = model(&index) else { panic!("{index:?}") };
            assert!(
                text.contains(&format!("{:?}", index.kind)) && text.contains(&format!("{:?}", index.paths)),
                "{text}"
            );
        }
    }
}
