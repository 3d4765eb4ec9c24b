//! Values that several owners on one thread share without a lock.
//!
//! The transport, the requests and the driver of a connection run on one thread, but their futures must be `Send`. So
//! the values are atomics, read and written relaxed, which costs what plain memory costs: no locked instruction.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

/// A number.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    pub const fn new(number: u64) -> Self {
        Self(AtomicU64::new(number))
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Returns what the number was before.
    pub fn replace(&self, number: u64) -> u64 {
        let before = self.get();
        self.0.store(number, Relaxed);
        before
    }

    /// Takes away, down to zero, without a locked instruction.
    pub fn reduce(&self, less: u64) {
        self.0.store(self.get().saturating_sub(less), Relaxed);
    }

    /// Adds without a locked instruction, which is enough because one thread writes.
    pub fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Relaxed);
    }
}

/// A fact that holds or doesn't.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    pub fn get(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub fn set(&self, holds: bool) {
        self.0.store(holds, Relaxed);
    }
}

/// A type whose values can be counted.
pub trait Countable: Copy + 'static {
    /// All values, each at the place that is its number. The first is the one to begin with.
    const ALL: &'static [Self];

    /// The value's place in [`ALL`](Self::ALL).
    fn number(self) -> u8;
}

/// One of a few values.
#[derive(Debug)]
pub struct Choice<E>(AtomicU8, PhantomData<E>);

impl<E> Default for Choice<E> {
    fn default() -> Self {
        Self(AtomicU8::new(0), PhantomData)
    }
}

impl<E: Countable> Choice<E> {
    pub fn get(&self) -> E {
        E::ALL[usize::from(self.0.load(Relaxed))]
    }

    pub fn set(&self, value: E) {
        self.0.store(value.number(), Relaxed);
    }
}
