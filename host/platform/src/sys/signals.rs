//! Signal dispositions: nobody dies of a signal that is meant for the master.
//!
//! The first thing `main` does in every role is [`ignore()`]. Workers inherit it through exec (see
//! `process`), so no moment of their life is left to the default action, which is death; later they
//! install handlers that do nothing, so that the app's own children get the default again
//! (`execve(2)`: handlers are reset, what is ignored stays ignored).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{Pid, getsid};

/// The signals that are the master's business and whose default action would kill or stop whoever
/// else gets them (`killall -USR2 app-host`).
pub const MASTERS: [Signal; 5] = [Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGTTIN, Signal::SIGTTOU];

/// What a terminal sends to all processes in its foreground when somebody types Ctrl-C or Ctrl-\: the master decides.
pub const TERMINALS: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];

/// Whether SIGHUP was ignored when [`ignore()`] came.
static HANGUP_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Whether this process was started with SIGHUP ignored, by `nohup` for instance: then it is to outlive its terminal.
pub fn hangup_was_ignored() -> bool {
    HANGUP_WAS_IGNORED.load(Ordering::Relaxed)
}

/// Ignores the signals in [`MASTERS`], and SIGXFSZ: a file that may not grow any more (`RLIMIT_FSIZE`) is an error of
/// the write (`EFBIG`) and no death.
pub fn ignore() {
    #[expect(unsafe_code, reason = "changing a disposition may break handlers that others rely on")]
    // SAFETY: as in `ignore_all`.
    let before = unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) };
    HANGUP_WAS_IGNORED.store(matches!(before, Ok(SigHandler::SigIgn)), Ordering::Relaxed);
    ignore_all(&MASTERS)
        .and_then(|()| ignore_all(&[Signal::SIGXFSZ]))
        .expect("these signals can be ignored (signal(2): only SIGKILL and SIGSTOP can't)");
}

/// Ignores `signals`. Async-signal-safe: allocates nothing, takes no lock.
pub(super) fn ignore_all(signals: &[Signal]) -> Result<(), Errno> {
    for each in signals {
        #[expect(unsafe_code, reason = "changing a disposition may break handlers that others rely on")]
        // SAFETY: SIG_IGN runs no code; no handler is installed yet in any caller (start of `main`,
        // or a child between fork and exec).
        unsafe {
            signal(*each, SigHandler::SigIgn)?;
        }
    }
    Ok(())
}

/// Keeps this thread from being stopped, or kept busy, by a terminal that lets no background process write (`stty
/// tostop`): the kernel lets a write through whose thread blocks SIGTTOU, and with a handler, which the master has, it
/// would send the signal and try again for ever (`__tty_check_change` in Linux).
pub fn write_in_the_background() -> io::Result<()> {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    Ok(blocked.thread_block()?)
}

/// Who sent SIGHUP: the last sender, where it was a process, and whether the kernel did since it was last asked.
static HANGUP_SENDER: AtomicI32 = AtomicI32::new(0);
static HANGUP_BY_KERNEL: AtomicBool = AtomicBool::new(false);

/// Notes who sends SIGHUP, from now on. To be called before the handler is installed that asks
/// [`is_terminal_gone()`]: handlers run in the order in which they were registered.
pub fn note_hangups() -> io::Result<()> {
    let note = |info: &libc::siginfo_t| {
        if info.si_code == libc::SI_KERNEL {
            HANGUP_BY_KERNEL.store(true, Ordering::Relaxed);
        } else if info.si_code == libc::SI_USER {
            #[expect(unsafe_code, reason = "the sender is in a union")]
            // SAFETY: a signal that was sent by `kill(2)`, as its code says, has the sender's pid.
            HANGUP_SENDER.store(unsafe { info.si_pid() }, Ordering::Relaxed);
        }
    };
    #[expect(unsafe_code, reason = "a handler must be async-signal-safe")]
    // SAFETY: it stores into atomics and does nothing else.
    unsafe { signal_hook_registry::register_sigaction(libc::SIGHUP, note) }.map(drop)
}

/// Whether the SIGHUP that has come says that our terminal has gone, as programs in a terminal are told: by the
/// kernel, or by the shell that has our session, which passes on what the kernel has told it.
pub fn is_terminal_gone() -> bool {
    if HANGUP_BY_KERNEL.swap(false, Ordering::Relaxed) {
        return true;
    }
    let sender = Pid::from_raw(HANGUP_SENDER.swap(0, Ordering::Relaxed));
    let by_our_shell = sender.as_raw() > 0 && getsid(None) == Ok(sender);
    // The same shell says `kill -HUP` for somebody who wants a restart; then the terminal is still there.
    by_our_shell && std::fs::File::open("/dev/tty").is_err()
}
