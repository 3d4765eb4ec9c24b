//! Looks at processes through `/proc` (`proc(5)`): who lives, what it is called, what it holds.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every process there is now.
pub fn all() -> Vec<u32> {
    fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The fields of `/proc/PID/stat` behind the name, which may itself hold spaces and brackets: the
/// state comes first.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text[text.rfind(')')? + 1..].split_whitespace().map(str::to_owned).collect())
}

/// Whether the process lives; a zombie doesn't.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// The children of a process that live.
pub fn children(parent: u32) -> Vec<u32> {
    children_in(parent, |state| state != "Z")
}

/// The children of a process that have died and were not waited for.
pub fn zombies(parent: u32) -> Vec<u32> {
    children_in(parent, |state| state == "Z")
}

fn children_in(parent: u32, keep: impl Fn(&str) -> bool) -> Vec<u32> {
    let parent = parent.to_string();
    all().into_iter().filter(|pid| stat(*pid).is_some_and(|fields| fields[1] == parent && keep(&fields[0]))).collect()
}

/// What `killall` and `ps` call the process.
pub fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// The words that the process was started with.
pub fn command_line(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

/// One field of `/proc/PID/status`, without its unit.
pub fn status(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().trim_end_matches(" kB").to_owned())
}

/// The most memory that the process had resident at any time, in KiB (`VmHWM`).
pub fn peak_resident_kib(pid: u32) -> Option<u64> {
    status(pid, "VmHWM")?.parse().ok()
}

/// The memory that the process has to itself, in KiB (`Private_Clean` and `Private_Dirty`).
pub fn private_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(
        text.lines()
            .filter_map(|line| line.strip_prefix("Private_Clean:").or(line.strip_prefix("Private_Dirty:")))
            .filter_map(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .sum(),
    )
}

/// For how many descriptors the kernel has made room (`FDSize`).
pub fn descriptor_room(pid: u32) -> Option<u64> {
    status(pid, "FDSize")?.parse().ok()
}

/// The open descriptors and what each refers to.
pub fn descriptors(pid: u32) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut open: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    open.sort();
    open
}

/// The CPU time that the process has used, all threads, user and system.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let fields = stat(pid)?;
    let ticks: u64 = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
    let a_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok())
        .expect("the kernel has a tick");
    Some(Duration::from_micros(ticks * 1_000_000 / a_second))
}

/// Whether the signal is in a mask of `/proc/PID/status` (`SigIgn`, `SigCgt`, `SigBlk`).
pub fn has_signal(mask: &str, signal: Signal) -> bool {
    u64::from_str_radix(mask, 16).is_ok_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

/// Whether SIGSTOP has come to each of a process' threads: until then one may still take a connection.
pub fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:\tT"))
    })
}

/// Sends a signal; a process that has gone already is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 0
    {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
