//! Programs that a test puts somewhere, to run them there.
//!
//! Written by another process: what this one holds open for writing, a child that another test spawns just then
//! holds too until it becomes another program, and meanwhile nobody can run it (`execve(2)`, ETXTBSY).

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A copy of the program at `from`.
pub fn copy(from: impl AsRef<Path>, to: &Path) {
    install(Command::new("install").args(["-m", "755"]).arg(from.as_ref()).arg(to), "");
}

/// A script with this text.
pub fn script(to: &Path, text: &str) {
    install(Command::new("install").args(["-m", "755", "/dev/stdin"]).arg(to), text);
}

fn install(command: &mut Command, text: &str) {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("install is everywhere");
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("install reads it");
    assert!(child.wait().expect("it ends").success(), "{command:?}");
    assert!(fs::metadata(command.get_args().last().expect("the place")).is_ok_and(|there| there.is_file()));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::thread;

    use super::*;

    #[test]
    fn what_was_put_there_runs_at_once_whoever_spawns_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    assert!(Command::new("true").status().unwrap().success());
                }
            });
            for number in 0..50 {
                let (there, copied) = (directory.path().join(format!("{number}.sh")), directory.path().join("true"));
                script(&there, "#!/bin/sh\nexit 7\n");
                assert_eq!(Command::new(&there).status().unwrap().code(), Some(7));
                copy("/bin/true", &copied);
                assert!(Command::new(&copied).status().unwrap().success());
            }
            done.store(true, Relaxed);
        });
    }
}
