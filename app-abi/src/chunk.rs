//! Bytes across the line without copying them.
//!
//! Owns the only place where a [`Bytes`] is laid into an [`FfiChunk`], and what makes a chunk of the
//! other side's a [`Bytes`] again. Neither side frees what the other one allocated: the chunk
//! carries the function that does.
#![expect(unsafe_code, reason = "a chunk is a pointer and a length of the other library's")]

use crate::{abi::FfiChunk, panics};
use bytes::Bytes;
use std::{mem::MaybeUninit, ptr, slice};

type Owner = [*mut (); 4];

const _: () = assert!(
    size_of::<Bytes>() <= size_of::<Owner>() && align_of::<Bytes>() <= align_of::<Owner>(),
    "this release of `bytes` does not fit into a chunk's owner"
);

// SAFETY: the bytes are immutable, and by the rules of the line `drop` may be called on any thread.
unsafe impl Send for FfiChunk {}
// SAFETY: as above; a shared chunk can only be read.
unsafe impl Sync for FfiChunk {}

impl From<Bytes> for FfiChunk {
    fn from(bytes: Bytes) -> Self {
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        let mut owner = MaybeUninit::<Owner>::zeroed();
        // SAFETY: size and alignment are asserted above, and `Owner` is plain data for which the
        // zeros behind a smaller `Bytes` are valid. Two things are relied on that `bytes` doesn't promise,
        // seen in 1.12.1 (`pub struct Bytes` in src/bytes.rs: a pointer, a length, an `AtomicPtr`, a
        // reference to a vtable): a `Bytes` has no padding, which would be uninitialized memory in the
        // owner, and no bytes within the handle itself, which would move with it. The tests
        // `a_handle_is_words_without_padding` and `no_bytes_lie_in_their_handle` fail when that changes.
        let owner = unsafe {
            owner.as_mut_ptr().cast::<Bytes>().write(bytes);
            owner.assume_init()
        };
        Self { ptr, len, owner, drop: drop_bytes }
    }
}

/// Drops the [`Bytes`] in `owner`.
unsafe extern "C" fn drop_bytes(owner: *mut Owner) {
    // SAFETY: only `From<Bytes>` pairs an owner with this function, and the chunk calls it once.
    let bytes = unsafe { ptr::read(owner.cast::<Bytes>()) };
    // `Bytes::from_owner` runs the owner's drop, which is the app's.
    panics::drop_guarded(bytes);
}

impl Drop for FfiChunk {
    fn drop(&mut self) {
        // SAFETY: this is the one call, with the owner that came with the function.
        unsafe { (self.drop)(&raw mut self.owner) }
    }
}

impl AsRef<[u8]> for FfiChunk {
    fn as_ref(&self) -> &[u8] {
        if self.len == 0 {
            // The pointer of an empty chunk need not be valid.
            return &[];
        }
        // SAFETY: the other side lends `len` bytes at `ptr` until `drop` is called.
        unsafe { slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl From<FfiChunk> for Bytes {
    fn from(chunk: FfiChunk) -> Self {
        if chunk.len == 0 { Self::new() } else { Self::from_owner(chunk) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const _: () = {
        const fn may_be_dropped_on_any_thread<T: Send + Sync + 'static>() {}
        may_be_dropped_on_any_thread::<Bytes>();
    };

    #[test]
    fn a_handle_is_words_without_padding() {
        assert_eq!((size_of::<Bytes>(), align_of::<Bytes>()), (4 * size_of::<usize>(), align_of::<usize>()));
    }

    #[test]
    fn no_bytes_lie_in_their_handle() {
        for length in 1..=64 {
            for bytes in [Bytes::from(vec![7; length]), Bytes::copy_from_slice(&vec![7; length + 1]).slice(1..)] {
                let handle = ptr::from_ref(&bytes).cast::<u8>();
                let within = handle..handle.wrapping_add(size_of::<Bytes>());
                assert!(!within.contains(&bytes.as_ptr()), "{length}");
                let address = bytes.as_ptr();
                let moved = Box::new(bytes);
                assert_eq!(moved.as_ptr(), address, "{length}");
            }
        }
    }

    struct Panics;

    impl AsRef<[u8]> for Panics {
        fn as_ref(&self) -> &[u8] {
            b"panics"
        }
    }

    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("in the drop of an owner");
        }
    }

    #[test]
    fn an_owner_that_panics_in_its_drop_takes_nobody_with_it() {
        let bytes = Bytes::from(FfiChunk::from(Bytes::from_owner(Panics)));
        assert_eq!(&bytes[..], b"panics");
        drop(bytes);
    }

    struct Counted {
        _count: Arc<()>,
    }

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            b"counted"
        }
    }

    #[test]
    fn bytes_cross_without_a_copy_and_are_freed_once() {
        let count = Arc::new(());
        let bytes = Bytes::from_owner(Counted { _count: Arc::clone(&count) });
        let address = bytes.as_ptr();
        let there = Bytes::from(FfiChunk::from(bytes));
        assert_eq!(&there[..], b"counted");
        assert_eq!(there.as_ptr(), address);
        assert_eq!(Arc::strong_count(&count), 2);
        drop(there);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn empty_bytes_cross() {
        assert!(Bytes::from(FfiChunk::from(Bytes::new())).is_empty());
    }
}
