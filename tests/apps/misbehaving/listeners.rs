//! Descriptors of the host's, listeners among them, closed or made unusable.

#![expect(unsafe_code, reason = "an app can reach every descriptor of its process by number")]

use std::fs::{self, File};
use std::os::fd::AsRawFd;

/// Closes every descriptor of this kind beyond the standard three, as code does that closes what it doesn't own.
pub(crate) fn close(kind: &str) {
    let entries: Vec<_> = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().collect();
    for entry in entries {
        let fits = fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with(kind));
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|number| fits && *number > 2) {
            // SAFETY: close(2) takes any number; that the descriptor is another's is what is tested.
            unsafe { libc::close(number) };
        }
    }
}

/// Puts `/dev/null` in the place of every listening socket of the process.
pub(crate) fn make_unusable() {
    let null = File::open("/dev/null").expect("there is a /dev/null");
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|descriptor| is_listening(*descriptor)) {
        // SAFETY: both are numbers of descriptors, and nothing in this process relies on the
        // old one: to see what the worker makes of that is the point.
        unsafe { libc::dup2(null.as_raw_fd(), descriptor) };
    }
}

fn is_listening(descriptor: i32) -> bool {
    let mut listening: libc::c_int = 0;
    let mut length: libc::socklen_t = size_of::<libc::c_int>().try_into().expect("four fits");
    // SAFETY: the pointers are to an integer and to its length.
    let result = unsafe {
        libc::getsockopt(
            descriptor,
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut listening).cast(),
            &raw mut length,
        )
    };
    result == 0 && listening == 1
}
