//! The system below: what needs `unsafe`, behind interfaces that don't.
//!
//! Owns signal dispositions, spawning, reaping, packets with descriptors and shared memory. Knows no
//! policy: it does what it is told, to which process or descriptor it is told.

pub mod packet;
pub mod pollers;
pub mod process;
pub mod ready;
pub mod sealed;
pub mod signals;
pub mod socket;
pub mod stats;
pub mod watch;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

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
/// nor the app's children get a descriptor that they don't need. (`close_range(2)` does it in one
/// call, from Linux 5.11 on only.)
pub fn keep_inherited_from_children() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| *number > 2) {
            #[expect(unsafe_code, reason = "inherited descriptors are raw numbers")]
            // SAFETY: it is open, because it was just listed and this is the only thread; whoever
            // owns it is not deceived, because it stays open.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
    }
    Ok(())
}

/// Takes the descriptors that this process was started with: `count` of them, from the number `first` on.
/// To be called once, before anything is opened, so that nobody else can own one of them.
///
/// # Errors
/// When one of them isn't open; the ones before it are closed then.
pub fn take_inherited(first: usize, count: usize) -> io::Result<Vec<OwnedFd>> {
    let take = |number: usize| {
        let number = RawFd::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        #[expect(unsafe_code, reason = "inherited descriptors are raw numbers")]
        // SAFETY: it is open, which is asked before it is owned, and nobody else owns it: this process has
        // opened nothing yet.
        unsafe {
            let open = libc::fcntl(number, libc::F_GETFD) >= 0;
            if open { Ok(OwnedFd::from_raw_fd(number)) } else { Err(io::Error::last_os_error()) }
        }
    };
    (first..first + count).map(take).collect()
}

/// Whether this process has a symbol of this name, whichever library or preloaded one it is from.
pub fn has_symbol(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    #[expect(unsafe_code, reason = "libc::dlsym has no safe wrapper")]
    // SAFETY: the name is a C string, and what is found is only compared.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    !found.is_null()
}

/// Has `call` run when the process ends as a program does that returns from its `main`, behind all handlers that are
/// registered after it (`atexit(3)`). Says whether there was room for it.
pub fn at_exit(call: extern "C" fn()) -> bool {
    #[expect(unsafe_code, reason = "libc::atexit has no safe wrapper")]
    // SAFETY: it is a function of this executable, which stays for as long as the process.
    unsafe {
        libc::atexit(call) == 0
    }
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
