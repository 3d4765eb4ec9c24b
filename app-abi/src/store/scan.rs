//! Searching page by page, for the drivers whose store doesn't do it.
//!
//! Owns which documents a search finds and in which order, and how much is looked at and held at once. A
//! [`Source`] owns the documents. Between two pages nothing of the source is held, so that a
//! search that is slow, or never read to its end, keeps nobody from writing or cleaning up.
//!
//! Without `sort`, a page goes on by id where the last one stopped. With it, documents have to be gathered first:
//!
//! ```text
//! Walk ─────────────────────────────────────────────────► Done
//!
//! Gather ──all were looked at──► Fetch ──none is left───► Done
//!   ▲                              │
//!   └──more than could be held─────┘
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::compare::Rule;
use super::query::{Kind, Query};
use super::{Documents, Fault, Reply, Stored};

/// The most documents of a page.
const PAGE_DOCUMENTS: usize = 256;

/// About how many bytes are looked at for a page. As many are found at the most, and it takes a few
/// milliseconds.
const PAGE_BYTES: usize = 1 << 20;

/// The most places that are gathered at once, and about how many bytes they may have.
const PLACES: usize = 4096;
const PLACES_BYTES: usize = 1 << 20;

/// What looking at a document costs besides its bytes.
const OVERHEAD: usize = 64;

/// Looks at a document: id, revision and text. `Break` says that it has seen enough.
pub type Look<'a> = dyn FnMut(&str, u64, &[u8]) -> Result<ControlFlow<()>, Fault> + 'a;

/// Documents by type and id.
pub trait Source {
    type Error: From<Fault>;

    /// Shows the documents of a type to `look`, by the bytes of their ids, beginning behind `after`
    /// (empty: at the first one). Says `Break` when `look` did, before the last one or at it.
    fn range(&self, kind: &Kind, after: &str, look: &mut Look<'_>) -> Result<ControlFlow<()>, Self::Error>;

    fn find(&self, kind: &Kind, id: &str) -> Result<Option<Stored>, Self::Error>;
}

/// A search, or a list of ids, and how far it has come.
pub struct Scan {
    kind: Kind,
    rule: Rule,
    skip: u64,
    left: u64,
    stage: Stage,
}

enum Stage {
    /// By id, behind this one.
    Walk {
        after: String,
    },
    /// Looks at every document, behind `after`, for those whose places come first behind `floor`.
    Gather {
        after: String,
        floor: Option<Place>,
        first: First,
    },
    /// Reads the documents at these places; if there are more, they are behind `floor`.
    Fetch {
        places: VecDeque<Place>,
        floor: Option<Place>,
    },
    Done,
}

/// Where a document sorts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: Vec<u8>,
    id: String,
}

impl Place {
    fn bytes(&self) -> usize {
        self.key.len() + self.id.len() + OVERHEAD
    }
}

/// The first places of all, as many as can be held.
#[derive(Default)]
struct First {
    places: BTreeSet<Place>,
    bytes: usize,
    /// Whether there were more.
    more: bool,
}

impl First {
    fn offer(&mut self, place: Place, most: usize) {
        self.bytes += place.bytes();
        self.places.insert(place);
        while self.places.len() > most || (self.bytes > PLACES_BYTES && self.places.len() > 1) {
            self.bytes -= self.places.pop_last().map_or(0, |last| last.bytes());
            self.more = true;
        }
    }
}

impl Scan {
    pub fn search(query: Query) -> Self {
        let Query { kind, equals, sort, skip, limit } = query;
        let stage = match (limit, sort.is_empty()) {
            (Some(0), _) => Stage::Done,
            (_, true) => Stage::Walk { after: String::new() },
            (_, false) => Stage::Gather { after: String::new(), floor: None, first: First::default() },
        };
        Self { kind, rule: Rule::new(equals, sort), skip, left: limit.unwrap_or(u64::MAX), stage }
    }

    /// The documents with these ids.
    pub fn documents(kind: Kind, ids: Vec<String>) -> Self {
        let places = ids.into_iter().map(|id| Place { key: Vec::new(), id }).collect();
        let stage = Stage::Fetch { places, floor: None };
        Self { kind, rule: Rule::new(Vec::new(), Vec::new()), skip: 0, left: u64::MAX, stage }
    }

    /// What is found next: nothing is no reason to end, only [`Self::is_done`] is.
    ///
    /// # Errors
    /// Those of the source, and `Invalid` for a document that can't be read.
    pub fn page<S: Source>(&mut self, source: &S) -> Result<Vec<Stored>, S::Error> {
        match self.stage {
            Stage::Walk { .. } => self.walk(source),
            Stage::Gather { .. } => self.gather(source).map(|()| Vec::new()),
            Stage::Fetch { .. } => self.fetch(source),
            Stage::Done => Ok(Vec::new()),
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    fn walk<S: Source>(&mut self, source: &S) -> Result<Vec<Stored>, S::Error> {
        let Stage::Walk { after } = &mut self.stage else { return Ok(Vec::new()) };
        let (kind, rule, skip, left) = (&self.kind, &self.rule, &mut self.skip, &mut self.left);
        let mut found = Vec::new();
        let mut looked_at = 0;
        let mut last = String::new();
        let ended = source.range(kind, after, &mut |id, revision, text| {
            looked_at += text.len() + OVERHEAD;
            if rule.sort_key(kind, id, text)?.is_some() {
                if *skip > 0 {
                    *skip -= 1;
                } else {
                    found.push(Stored { id: id.to_owned(), revision, text: Bytes::copy_from_slice(text) });
                    *left -= 1;
                }
            }
            if *left == 0 || found.len() == PAGE_DOCUMENTS || looked_at >= PAGE_BYTES {
                id.clone_into(&mut last);
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if ended.is_continue() || *left == 0 {
            self.stage = Stage::Done;
        } else {
            *after = last;
        }
        Ok(found)
    }

    fn gather<S: Source>(&mut self, source: &S) -> Result<(), S::Error> {
        let Stage::Gather { after, floor, first } = &mut self.stage else { return Ok(()) };
        let (kind, rule) = (&self.kind, &self.rule);
        let most = usize::try_from(self.skip.saturating_add(self.left)).map_or(PLACES, |most| most.min(PLACES));
        let mut looked_at = 0;
        let mut last = String::new();
        let ended = source.range(kind, after, &mut |id, _, text| {
            looked_at += text.len() + OVERHEAD;
            if let Some(key) = rule.sort_key(kind, id, text)? {
                let place = Place { key, id: id.to_owned() };
                if floor.as_ref().is_none_or(|floor| place > *floor) {
                    first.offer(place, most);
                }
            }
            if looked_at >= PAGE_BYTES {
                id.clone_into(&mut last);
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if ended.is_break() {
            *after = last;
            return Ok(());
        }
        let First { places, more, .. } = std::mem::take(first);
        let floor = if more { places.last().cloned() } else { None };
        self.stage = Stage::Fetch { places: places.into_iter().collect(), floor };
        Ok(())
    }

    fn fetch<S: Source>(&mut self, source: &S) -> Result<Vec<Stored>, S::Error> {
        let Stage::Fetch { places, floor } = &mut self.stage else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut looked_at = 0;
        while self.left > 0 && found.len() < PAGE_DOCUMENTS && looked_at < PAGE_BYTES {
            let Some(place) = places.pop_front() else {
                self.stage = floor.take().map_or(Stage::Done, |floor| Stage::Gather {
                    after: String::new(),
                    floor: Some(floor),
                    first: First::default(),
                });
                return Ok(found);
            };
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            let stored = source.find(&self.kind, &place.id)?;
            looked_at += stored.as_ref().map_or(0, |stored| stored.text.len()) + OVERHEAD;
            if let Some(stored) = stored
                // One that was written meanwhile may not be among those searched for any more, or come
                // again at another place.
                && self.rule.sort_key(&self.kind, &place.id, &stored.text)? == Some(place.key)
            {
                found.push(stored);
                self.left -= 1;
            }
        }
        if self.left == 0 {
            self.stage = Stage::Done;
        }
        Ok(found)
    }
}

/// The documents of a scan, page after page as they are asked for. `next` gives a scan's next page.
pub fn documents<F>(scan: Scan, next: F) -> Documents
where
    F: Fn(Scan) -> Reply<(Scan, Vec<Stored>)> + Send + Sync + 'static,
{
    let begin = (Some(scan), Vec::new().into_iter(), next);
    stream::unfold(begin, |(mut scan, mut page, next)| async move {
        loop {
            if let Some(document) = page.next() {
                return Some((Ok(document), (scan, page, next)));
            }
            let at = scan.take().filter(|scan| !scan.is_done())?;
            match next(at).await {
                Ok((at, found)) => {
                    scan = Some(at);
                    page = found.into_iter();
                }
                Err(fault) => return Some((Err(fault), (None, page, next))),
            }
        }
    })
    .boxed()
}
