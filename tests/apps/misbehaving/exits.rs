//! Exit handlers.

#![expect(unsafe_code, reason = "an app can have exit handlers, and use C's streams")]

/// Has the function run when the process exits.
pub(crate) fn register(call: extern "C" fn()) {
    // SAFETY: the library is never unloaded.
    unsafe { libc::atexit(call) };
}

/// Prints a line at once, and another one into C's buffer, which is written behind all handlers.
pub(crate) extern "C" fn print() {
    println!("an exit handler prints");
    // SAFETY: both are C strings.
    unsafe { libc::printf(c"%s".as_ptr(), c"an exit handler leaves this to C\n".as_ptr()) };
}

pub(crate) extern "C" fn hang() {
    crate::processes::block()
}
