//! What children find: variables of a file that is read at each restart, limits, and the directory.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use app_host_tests::{App, Host, process, said};
use nix::sys::signal::Signal;
use serde_json::json;

fn variables(pid: u32) -> HashMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    text.split('\0').filter_map(|it| it.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

#[track_caller]
fn assert_variable(host: &Host, name: &str, value: Option<&str>) {
    for pid in host.serving() {
        assert_eq!(variables(pid).get(name).map(String::as_str), value, "{name} of {pid}");
    }
}

const SECRET: &str = "correct-horse-battery";

#[test]
fn a_generation_has_the_variables_that_the_file_had_when_it_was_prepared() {
    let host = Host::misbehaving()
        .with_variable("FROM_THE_MASTER", "yes")
        .with_variable("BOTH", "the master's")
        .with("/core_dumps", true)
        .with("/environment", json!({ "file": "env" }));
    let file = host.path("env");
    fs::write(&file, format!("# for the app\nPASSWORD='{SECRET}'\nBOTH=the file's\n")).unwrap();
    let host = host.start();
    let first = host.serving();
    assert_variable(&host, "PASSWORD", Some(SECRET));
    assert_variable(&host, "BOTH", Some("the file's"));
    assert_variable(&host, "FROM_THE_MASTER", Some("yes"));
    assert!(!variables(host.master()).contains_key("PASSWORD"), "the master has none of it");

    // What is respawned is of its generation, whatever the file says.
    fs::write(&file, "PASSWORD=second\n").unwrap();
    let mark = host.mark();
    process::signal(first[0], Signal::SIGKILL);
    host.wait_after(mark, said::WORKER_READY, |_| true);
    assert_variable(&host, "PASSWORD", Some(SECRET));

    let restarted = host.restart();
    assert_eq!(restarted.verdict, "complete");
    assert!(!restarted.line.text().contains("unchanged"), "{}", restarted.line.text());
    assert_variable(&host, "PASSWORD", Some("second"));
    assert_variable(&host, "BOTH", Some("the master's"));
    let again = host.restart();
    assert!(again.line.text().contains("unchanged"), "{}", again.line.text());
    let log = fs::read_to_string(host.path("log")).unwrap();
    assert!(!log.contains(SECRET), "{log}");
    assert!(!host.control().ask("STATUS").contains(SECRET));
}

#[test]
fn a_generation_that_has_failed_may_be_tried_again_with_other_variables() {
    let mut host = Host::misbehaving()
        .with("/restart/on_failure", "rollback")
        .with("/environment", json!({ "file": "env" }))
        .with("/app/config", json!({ "file": "config" }));
    fs::write(host.path("env"), "A=1\n").unwrap();
    fs::write(host.path("config"), "{}").unwrap();
    host.set("/log/level", "info");
    let host = host.start();
    let before = host.serving();
    // A new version, whose variable nobody has thought of.
    host.install_fresh(&App::build().app("misbehaving"));
    fs::write(host.path("config"), r#"{"on_start": "error"}"#).unwrap();
    assert_eq!(host.restart().verdict, "failed: app failed to start");
    let again = host.restart();
    assert_eq!(again.verdict, "refused: bad artifact", "nothing has changed");
    assert!(again.line.text().contains("is quarantined since"), "{}", again.line.text());
    fs::write(host.path("env"), "A=2\n").unwrap();
    assert_eq!(host.restart().verdict, "failed: app failed to start", "it is tried, and fails for itself");
    assert_eq!(host.restart().verdict, "refused: bad artifact");
    assert_eq!(host.serving(), before, "nobody was touched");
    fs::write(host.path("config"), "{}").unwrap();
    assert_eq!(host.restart().verdict, "complete");
    // It is quarantined no longer, for the next master neither.
    let mark = host.mark();
    host.stop();
    host.spawn();
    host.wait_after(mark, said::SERVING, |_| true);
    assert!(host.look(mark, |new| new.iter().all(|line| line.msg() != said::EARLIER_GENERATION_STARTED)));
}

#[test]
fn a_file_that_is_wrong_is_bad_config_with_its_line_and_no_word_of_it() {
    let host = Host::misbehaving().with("/environment", json!({ "inherit": [], "file": "env" }));
    let file = host.path("env");
    fs::write(&file, "A=1\n").unwrap();
    let host = host.start();
    let path = file.display().to_string();
    let serving = host.serving();
    for (content, expected) in [
        (format!("A=1\n{SECRET}\n"), format!("environment.file: {path}:2: expected NAME=VALUE")),
        (format!("A=\"{SECRET}\n"), format!("environment.file: {path}:1: a quote is opened here and never closed")),
        (format!("{SECRET}=1\n"), format!("environment.file: {path}:1: expected NAME=VALUE, with a name of letters")),
        ("A=".to_owned() + &"x".repeat(70_000), format!("environment.file: {path} has more than 65536 bytes")),
    ] {
        fs::write(&file, content).unwrap();
        let verdict = host.restart();
        assert_eq!(verdict.verdict, "refused: bad config");
        assert!(verdict.line.text().contains(&expected), "{expected}: {}", verdict.line.text());
        let check = Command::new(App::build().host()).arg("check").arg(host.config_path()).output().unwrap();
        assert_eq!(check.status.code(), Some(1));
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(said.contains(&expected) && !said.contains(SECRET), "{said}");
    }
    fs::remove_file(&file).unwrap();
    assert!(host.restart().line.text().contains(&format!("{path} can't be read")));
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(host.restart().line.text().contains(&format!("{path} is a FIFO, expected a file")));
    fs::remove_file(&file).unwrap();
    symlink(host.directory(), &file).unwrap();
    assert!(host.restart().line.text().contains(&format!("{path} is a directory, expected a file")));
    assert_eq!(host.serving(), serving);
    let log = fs::read_to_string(host.path("log")).unwrap();
    assert!(!log.contains(SECRET), "{log}");
    fs::remove_file(&file).unwrap();
    fs::write(&file, "").unwrap();
    assert_eq!(host.restart().verdict, "complete");
    assert_variable(&host, "A", None);
    assert_variable(&host, "PATH", None);
}

#[test]
fn what_an_app_says_of_its_start_has_no_variable_of_the_file_in_it() {
    let host = Host::misbehaving()
        .with("/environment", json!({ "file": "env" }))
        .with("/app/config", json!({ "on_start": SECRET }));
    fs::write(host.path("env"), format!("PASSWORD={SECRET}\n")).unwrap();
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let log = fs::read_to_string(host.path("log")).unwrap();
    assert!(log.contains("unknown on_start: (secret)") && !log.contains(SECRET), "{log}");
}

/// A limit of a process as `/proc/PID/limits` shows it: soft and hard.
fn limit(pid: u32, name: &str) -> (String, String) {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn workers_have_the_limits_and_the_directory_that_are_configured() {
    let host =
        Host::misbehaving().with("/limits", json!({ "nofile": 512, "core": "2MiB" })).with("/directory", "work/place");
    fs::create_dir_all(host.path("work/place")).unwrap();
    let mut host = host.start();
    let directory = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    for pid in host.serving() {
        assert_eq!(limit(pid, "Max open files"), ("512".to_owned(), "512".to_owned()));
        assert_eq!(limit(pid, "Max core file size"), ("2097152".to_owned(), "2097152".to_owned()));
        assert_eq!(directory(pid), host.path("work/place"));
        assert!(!variables(pid).contains_key("PWD"));
    }
    assert_ne!(limit(host.master(), "Max open files").0, "512", "the master has its own");
    // All three change with a restart.
    host.set("/limits", json!({ "core": 0 }));
    host.set("/directory", json!(null));
    assert_eq!(host.restart().verdict, "complete");
    for pid in host.serving() {
        assert_eq!(limit(pid, "Max open files"), limit(host.master(), "Max open files"));
        assert_eq!(limit(pid, "Max core file size"), ("0".to_owned(), "0".to_owned()));
        assert_eq!(directory(pid), host.directory());
    }
}

/// On which processors each worker may run, by slot, as the kernel writes it: the same for all its threads.
fn processors(host: &Host) -> Vec<String> {
    let status = host.control().ask_json("STATUS");
    let mut workers: Vec<_> = status["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| (worker["slot"].as_u64().unwrap(), worker["pid"].as_u64().unwrap()))
        .collect();
    workers.sort_unstable();
    let of = |pid: u64| {
        let mut lists: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .map(|thread| {
                let text = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
                text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
            })
            .collect();
        lists.dedup();
        assert_eq!(lists.len(), 1, "all threads of {pid}: {lists:?}");
        lists.remove(0)
    };
    workers.into_iter().map(|(_, pid)| of(pid)).collect()
}

#[test]
fn each_worker_has_its_processor_with_all_its_threads() {
    let allowed = process::status(std::process::id(), "Cpus_allowed_list").unwrap();
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let all: Vec<usize> = (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).collect();
    let mut host = Host::misbehaving().with("/cpus", "auto").with("/workers", 3).start();
    let expected: Vec<_> = (0..3).map(|slot| all[slot % all.len()].to_string()).collect();
    assert_eq!(processors(&host), expected);
    host.set("/cpus", json!([all.last().unwrap()]));
    assert_eq!(host.restart().verdict, "complete");
    assert_eq!(processors(&host), vec![all.last().unwrap().to_string(); 3]);
    host.set("/cpus", json!(null));
    assert_eq!(host.restart().verdict, "complete");
    assert_eq!(processors(&host), vec![allowed; 3]);
    host.set("/cpus", json!([1023]));
    let verdict = host.restart();
    assert_eq!(verdict.verdict, "refused: bad config");
    let expected = "the master may not run on processor 1023, but on [";
    assert!(verdict.line.text().contains(expected), "{}", verdict.line.text());
}

#[test]
fn a_limit_above_the_hard_one_and_a_directory_that_is_not_there_are_bad_config() {
    let mut host = Host::misbehaving().start();
    let hard: u64 = limit(host.master(), "Max open files").1.parse().unwrap();
    host.set("/limits", json!({ "nofile": hard + 1 }));
    let verdict = host.restart();
    assert_eq!(verdict.verdict, "refused: bad config");
    let expected = format!("limits.nofile: {} is above the hard limit of {hard}", hard + 1);
    assert!(verdict.line.text().contains(&expected), "{}", verdict.line.text());
    let check = Command::new(App::build().host()).arg("check").arg(host.config_path()).output().unwrap();
    assert!(String::from_utf8_lossy(&check.stderr).contains(&expected));
    host.set("/limits", json!({}));
    fs::write(host.path("file"), "").unwrap();
    for (name, said) in [("nowhere", "No such file"), ("file", "Not a directory")] {
        host.set("/directory", name);
        let verdict = host.restart();
        assert_eq!(verdict.verdict, "refused: bad config");
        let expected = format!("directory: {} can't be entered: {said}", host.path(name).display());
        assert!(verdict.line.text().contains(&expected), "{}", verdict.line.text());
    }
}

#[test]
#[ignore = "second ring: needs python3"]
fn processors_that_a_filter_of_system_calls_does_not_let_the_master_choose_are_bad_config() {
    // As SystemCallFilter=~@resources does it; all other calls go through.
    let number = if cfg!(target_arch = "x86_64") { 203 } else { 122 };
    let filter = format!(
        "import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, {number}), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *each) for each in code))
class Program(ctypes.Structure): _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
program = Program(len(code), ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program)) == 0
os.execv(sys.argv[1], sys.argv[1:])"
    );
    let host = Host::misbehaving().with("/cpus", "auto");
    host.restore_config();
    let mut run = Command::new("python3");
    run.args(["-c", &filter]).arg(App::build().host()).arg("check").arg(host.config_path());
    let output = run.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cpus: the master is not allowed to set the processors of a process: Operation not permitted"),
        "{said}"
    );
    assert!(said.contains("SystemCallFilter=sched_setaffinity"), "{said}");
}

#[test]
#[ignore = "second ring: needs root"]
fn a_directory_that_the_workers_user_cannot_pass_is_named() {
    assert!(nix::unistd::getuid().is_root(), "only root can start workers as another user");
    let close = |path: &std::path::Path| fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    let mut host = Host::misbehaving().with("/user", "nobody").start();
    fs::create_dir_all(host.path("outer/inner/place")).unwrap();
    close(&host.path("outer/inner"));
    let inner = host.path("outer/inner").display().to_string();
    host.set("/directory", "outer/inner/place");
    let verdict = host.restart();
    assert_eq!(verdict.verdict, "refused: bad config");
    let expected = format!("directory: the workers' user can't enter {inner}/place: it can't pass {inner}");
    assert!(verdict.line.text().contains(&expected), "{}", verdict.line.text());
    let check = Command::new(App::build().host()).arg("check").arg(host.config_path()).output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(check.status.code() == Some(1) && said.contains(&expected), "{said}");
    drop(host);

    // Where nothing is said workers are in the configuration's directory, and most apps don't mind.
    let host = Host::misbehaving().with("/user", "nobody");
    let state = tempfile::tempdir().unwrap();
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let host = host.with("/state_dir", state.path().to_str().unwrap());
    close(host.directory());
    let host = host.start();
    let warned = host.wait_for("the workers' user can't enter the configuration's directory", |_| true);
    assert_eq!(warned.str("obstacle"), host.directory().display().to_string(), "{}", warned.text());
    host.stop();
    drop(host);

    let host = Host::misbehaving().with("/user", "nobody").with("/databank", json!({ "path": "closed/data/databank" }));
    fs::create_dir(host.path("closed")).unwrap();
    close(&host.path("closed"));
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let said = host.wait_for(said::START_FAILED, |_| true).str("error").to_owned();
    assert!(said.ends_with(&format!("the workers' user can't pass {}", host.path("closed").display())), "{said}");
}
