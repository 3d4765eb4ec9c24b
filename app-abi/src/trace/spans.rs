//! The spans that are open.
//!
//! Owns their numbers, which no later span gets again: a number that an app has kept too long finds
//! nothing, and never another span. A span lives in the registry as long as there are handles of it,
//! and beyond that as long as it is entered somewhere or has children.

use super::values::Field;
use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tracing::{Metadata, span::Id};

/// How many spans around a span are kept. Recursion comes this deep, and a line is to be read.
const MAX_DEPTH: u8 = 128;

/// How many open spans are known at once in each of the shards; those beyond it are left out.
const MAX_OPEN: usize = 4096;
const SHARDS: usize = 16;

/// How many entered spans a thread knows; only guards that were forgotten come so far.
const MAX_ENTERED: usize = 4096;

/// One span.
pub(super) struct Span {
    number: u64,
    metadata: &'static Metadata<'static>,
    parent: Option<Arc<Span>>,
    depth: u8,
    /// Shared with the events that are being written, so that nobody waits for them.
    fields: Mutex<Arc<Vec<Field>>>,
}

impl Span {
    /// None where it is too deep.
    pub(super) fn new(
        number: u64,
        metadata: &'static Metadata<'static>,
        parent: Option<Arc<Self>>,
        fields: Vec<Field>,
    ) -> Option<Self> {
        let depth = parent.as_ref().map_or(0, |parent| parent.depth + 1);
        (depth < MAX_DEPTH).then(|| Self { number, metadata, parent, depth, fields: Mutex::new(Arc::new(fields)) })
    }

    pub(super) fn id(&self) -> Id {
        Id::from_u64(self.number)
    }

    pub(super) fn metadata(&self) -> &'static Metadata<'static> {
        self.metadata
    }

    pub(super) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// What it says at this moment.
    pub(super) fn fields(&self) -> Arc<Vec<Field>> {
        Arc::clone(&lock(&self.fields))
    }

    /// Fields that were recorded late; one that is there already is replaced.
    pub(super) fn record(&self, late: Vec<Field>) {
        let mut fields = lock(&self.fields);
        let fields = Arc::make_mut(&mut *fields);
        for field in late {
            match fields.iter_mut().find(|there| there.key == field.key) {
                Some(there) => there.value = field.value,
                None => fields.push(field),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing of the app's runs while one is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Open {
    span: Arc<Span>,
    handles: usize,
}

/// The spans that there are handles of.
#[derive(Default)]
pub(super) struct Spans {
    last: AtomicU64,
    shards: [Mutex<HashMap<u64, Open>>; SHARDS],
}

impl Spans {
    pub(super) fn open(
        &self,
        metadata: &'static Metadata<'static>,
        parent: Option<Arc<Span>>,
        fields: Vec<Field>,
    ) -> Id {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(span) = Span::new(number, metadata, parent, fields) {
            let span = Arc::new(span);
            let mut shard = lock(self.shard(number));
            if shard.len() < MAX_OPEN {
                shard.insert(number, Open { span, handles: 1 });
            }
        }
        Id::from_u64(number)
    }

    pub(super) fn get(&self, id: &Id) -> Option<Arc<Span>> {
        let number = id.into_u64();
        lock(self.shard(number)).get(&number).map(|open| Arc::clone(&open.span))
    }

    /// One more handle.
    pub(super) fn keep(&self, id: &Id) {
        let number = id.into_u64();
        if let Some(open) = lock(self.shard(number)).get_mut(&number) {
            open.handles += 1;
        }
    }

    /// One handle less; says whether it was the last one.
    pub(super) fn close(&self, id: &Id) -> bool {
        let number = id.into_u64();
        let mut shard = lock(self.shard(number));
        let Some(open) = shard.get_mut(&number) else { return false };
        open.handles -= 1;
        if open.handles > 0 {
            return false;
        }
        let closed = shard.remove(&number);
        drop(shard);
        drop(closed);
        true
    }

    fn shard(&self, number: u64) -> &Mutex<HashMap<u64, Open>> {
        let shards = SHARDS as u64;
        &self.shards[usize::try_from(number % shards).unwrap_or(0)]
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}

thread_local! {
    /// What this thread has entered, the innermost last.
    static ENTERED: RefCell<Vec<Arc<Span>>> = const { RefCell::new(Vec::new()) };
}

/// The innermost span that this thread is in.
pub(super) fn current() -> Option<Arc<Span>> {
    // A thread that ends may have given up its list already.
    ENTERED.try_with(|entered| entered.borrow().last().cloned()).ok().flatten()
}

pub(super) fn enter(span: Arc<Span>) {
    let _ = ENTERED.try_with(|entered| {
        let mut entered = entered.borrow_mut();
        if entered.len() < MAX_ENTERED {
            entered.push(span);
        }
    });
}

/// Leaves the span, in whatever order.
pub(super) fn exit(id: &Id) {
    let left = ENTERED.try_with(|entered| {
        let mut entered = entered.borrow_mut();
        let at = entered.iter().rposition(|span| span.number == id.into_u64())?;
        Some(entered.remove(at))
    });
    // Whatever it drops, it does so when the list is free again.
    drop(left);
}
