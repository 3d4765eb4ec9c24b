//! The machine alone: what it decides in each phase, and what holds in every order of facts.

use std::time::{Duration, Instant};

use super::*;

mod bench;
mod properties;
mod stall;
mod tables;
mod world;

const LINGER: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// What the machine's sources may not name: it is pure.
#[test]
fn the_machine_knows_no_runtime_no_hyper_and_no_clock() {
    let sources = [
        ("mod", include_str!("../mod.rs")),
        ("cells", include_str!("../cells.rs")),
        ("first", include_str!("../first.rs")),
        ("frames", include_str!("../frames.rs")),
        ("history", include_str!("../history.rs")),
        ("phase", include_str!("../phase.rs")),
        ("leave", include_str!("../leave.rs")),
        ("limits", include_str!("../limits.rs")),
        ("owed", include_str!("../owed.rs")),
        ("timeouts", include_str!("../timeouts.rs")),
        ("decisions", include_str!("../decisions.rs")),
        ("framing", include_str!("../../framing/mod.rs")),
        ("chunks", include_str!("../../framing/chunks.rs")),
    ];
    for (name, source) in sources {
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = source.lines().map(|line| line.split("//").next().unwrap_or_default());
        for (at, line) in code.enumerate() {
            for word in ["tokio", "hyper", "nix", "libc", "std::io", "std::os", "::now(", "elapsed()", "unsafe"] {
                assert!(!line.contains(word), "{name}.rs:{}: {word}", at + 1);
            }
        }
    }
}
