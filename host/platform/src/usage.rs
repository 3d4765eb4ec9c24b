//! CPU time and memory of a process, as `/proc` says it.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use app_host_core::status::{Measured, Status};

/// Adds to a status what the kernel knows of the workers.
pub fn measure(status: &mut Status) {
    for worker in &mut status.workers {
        worker.measured = of(worker.pid);
    }
}

/// What `/proc` says of the process `pid`. It is memory of the kernel's: nobody waits for a disk.
pub fn of(pid: i32) -> Measured {
    // `/proc/0` doesn't exist, so a worker without a process has no figures.
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let one = |name| sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let (Some(ticks), Some(page)) = (one(SysconfVar::CLK_TCK), one(SysconfVar::PAGE_SIZE)) else {
        return Measured::default();
    };
    parse(&text, ticks, page)
}

/// Reads the fields of `proc_pid_stat(5)`, with this many ticks a second and bytes a page.
fn parse(text: &str, ticks: u64, page: u64) -> Measured {
    // The name is in brackets and may itself contain anything.
    let Some((_, rest)) = text.rsplit_once(')') else { return Measured::default() };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok());
    let used = field(14).zip(field(15)).map(|(user, system)| user.saturating_add(system));
    Measured {
        cpu_ms: used.map(|used| used.saturating_mul(1000) / ticks.max(1)),
        memory_bytes: field(24).map(|pages| pages.saturating_mul(page)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_behind_a_name_of_any_kind() {
        let text = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0 1 0 5 6 256 9";
        let measured = parse(text, 100, 4096);
        assert_eq!(measured, Measured { cpu_ms: Some(1500), memory_bytes: Some(256 * 4096) });
        for text in ["", "7 (a", "7 (a) S", "7 (a) S x x x x x x x x x x x x x x x x x x x x x x"] {
            assert_eq!(parse(text, 100, 4096), Measured::default(), "{text}");
        }
        let own = of(i32::try_from(std::process::id()).unwrap());
        assert!(own.memory_bytes.is_some_and(|bytes| bytes > 100_000), "{own:?}");
        assert_eq!(of(0), Measured::default());
    }
}
