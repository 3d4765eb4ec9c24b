//! The processes of somebody: a process and all that came of it.
//!
//! What `/proc` says at this moment; one that is made or ends meanwhile may be missed.

use std::collections::HashSet;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process, its children and theirs, and whoever is in its process group.
pub fn family(root: Pid) -> HashSet<Pid> {
    let all = all();
    let mut family = HashSet::from([root]);
    loop {
        let before = family.len();
        let related = all.iter().filter(|one| family.contains(&one.parent) || one.group == root);
        let found: Vec<_> = related.map(|one| one.pid).collect();
        family.extend(found);
        if family.len() == before {
            return family;
        }
    }
}

/// Tells a process and all that came of it to end.
pub fn terminate(root: Pid) {
    for pid in family(root) {
        // It may have gone meanwhile.
        let _ = kill(pid, Signal::SIGTERM);
    }
}

struct Process {
    pid: Pid,
    parent: Pid,
    group: Pid,
}

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let (parent, group) = relations(&fs::read_to_string(entry.path().join("stat")).ok()?)?;
            Some(Process { pid: Pid::from_raw(pid), parent: Pid::from_raw(parent), group: Pid::from_raw(group) })
        })
        .collect()
}

/// The parent and the process group, from `/proc/PID/stat` (`proc(5)`). The name before them may hold anything.
fn relations(stat: &str) -> Option<(i32, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(relations("12 (a) 7 (b)) S 3 4 5 6"), Some((3, 4)));
        assert_eq!(relations("12 (a"), None);
    }

    #[test]
    fn children_of_children_are_of_the_family_and_end_with_it() {
        let mut shell = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let root = Pid::from_raw(shell.id().try_into().unwrap());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let family = loop {
            let family = family(root);
            if family.len() == 2 {
                break family;
            }
            assert!(std::time::Instant::now() < deadline, "{family:?}");
            std::thread::yield_now();
        };
        assert!(!family.contains(&nix::unistd::getpid()));
        terminate(root);
        shell.wait().unwrap();
        let gone = |pid: &Pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
        };
        while !family.iter().all(gone) {
            assert!(std::time::Instant::now() < deadline, "{family:?}");
            std::thread::yield_now();
        }
    }
}
