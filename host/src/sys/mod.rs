//! The system below: what needs `unsafe`, behind interfaces that don't.
//!
//! Owns signal dispositions, spawning, reaping, packets with descriptors and shared memory. Knows no
//! policy: it does what it is told, to which process or descriptor it is told.

pub mod packet;
pub mod process;
pub mod signals;
pub mod stats;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The name that `ps`, `killall` and `/proc/PID/comm` show for each of our processes.
///
/// The kernel takes it from the path of an exec, which is `/proc/self/exe` for workers.
pub const PROCESS_NAME: &str = "app-host";

/// Takes standard input, where a child finds its control socket, and puts `/dev/null` in its place.
/// The descriptor that is returned is closed on exec.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(taken)
}

/// Closes on exec whatever this process was started with beyond the standard three: neither workers
/// nor the app's children get a descriptor that they don't need (`close_range(2)`).
pub fn keep_inherited_from_children() -> io::Result<()> {
    #[expect(unsafe_code, reason = "libc::close_range has no safe wrapper")]
    // SAFETY: with this flag nothing is closed, so no owner of a descriptor is deceived.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the process at once: no destructor, no `atexit` handler, so background threads of the app
/// never run against a half-dead process.
pub fn exit_now(code: i32) -> ! {
    #[expect(unsafe_code, reason = "libc::_exit has no safe wrapper")]
    // SAFETY: `_exit` may be called at any time, from any thread.
    unsafe {
        libc::_exit(code)
    }
}
