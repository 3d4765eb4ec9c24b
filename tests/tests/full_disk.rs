//! What the machine does to files behind the master's back: full disks, and a library that is mounted alone.
//!
//! Needs mounts: the second ring, `-- --ignored`.

use std::fs;
use std::process::Command;

use app_host_tests::{App, Host, program, said};
use nix::unistd::getuid;

/// A master whose state directory is a file system of so many bytes.
fn with_state_of(bytes: u64) -> Host {
    let host = Host::misbehaving();
    let state = host.path("state");
    fs::create_dir(&state).unwrap();
    let tmpfs = format!("{}={bytes}", state.display());
    host.launched_with(&["--tmpfs", &tmpfs])
}

/// Fills the state directory of a running master, as the master sees it.
fn fill(host: &Host) {
    let path = format!("/proc/{}/root{}/filler", host.master(), host.path("state").display());
    let error = std::io::copy(&mut std::io::repeat(0), &mut fs::File::create(path).unwrap()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn a_restart_with_the_same_library_needs_no_room_on_a_full_disk() {
    let size = fs::metadata(App::build().app("misbehaving")).unwrap().len();
    let host = with_state_of(size * 4).start();
    fill(&host);
    let verdict = host.restart();
    assert_eq!(verdict.verdict, "complete", "{}", verdict.line.text());
    assert!(verdict.line.text().contains("unchanged"), "{}", verdict.line.text());
    host.install_fresh(&App::build().app("misbehaving"));
    let detail = host.restart_is_refused("bad artifact");
    assert!(detail.contains("can't be copied to") && detail.contains("No space left"), "{detail}");
    host.install(&App::build().app("misbehaving"));
    assert_eq!(host.restart().verdict, "complete");
    host.assert_all_serve(&host.serving());
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn a_pid_file_on_a_full_disk_is_said_to_be_unwritable_and_is_not_left_behind() {
    assert!(getuid().is_root());
    let host = Host::misbehaving();
    let run = host.path("run");
    fs::create_dir(&run).unwrap();
    // A file system of one page, which another file has.
    let script = host.path("launch.sh");
    let text = format!(
        "#!/bin/sh\nexec unshare -m sh -c 'mount -t tmpfs -o size=4k none \"{0}\" && echo x > \"{0}/x\" && {1} \"$@\"; code=$?; \
         ls -A \"{0}\" > \"{0}.left\"; exit $code' sh \"$@\"\n",
        run.display(),
        App::build().host().display()
    );
    program::script(&script, &text);
    let host = host.with_binary(&script).with("/pid_file", "run/app-host.pid");
    host.spawn();
    assert_eq!(host.wait_exit().code(), Some(1));
    let said = host.wait_for(said::START_FAILED, |_| true).str("error").to_owned();
    let expected = format!("{} is locked, and can't be written: No space left", run.join("app-host.pid").display());
    assert!(said.contains(&expected), "{said}");
    assert_eq!(fs::read_to_string(host.path("run.left")).unwrap(), "x\n");
}

#[test]
#[ignore = "second ring: needs root or tools of the system"]
fn a_library_that_is_mounted_alone_and_was_replaced_is_said_to_be_an_old_one() {
    assert!(getuid().is_root());
    let host = Host::misbehaving();
    let (library, built) = (host.library_path(), host.path("built.so"));
    fs::copy(&library, &built).unwrap();
    let script = host.path("launch.sh");
    let text = format!(
        "#!/bin/sh\nexec unshare -m sh -c 'mount --bind \"{}\" \"{}\" && exec {} \"$@\"' sh \"$@\"\n",
        built.display(),
        library.display(),
        App::build().host().display()
    );
    program::script(&script, &text);
    let host = host.with_binary(&script).start();
    assert_eq!(host.restart().verdict, "complete");
    assert!(host.lines_with(said::LIBRARY_OLD).is_empty());
    // A deploy by rename, as it should be, where the directory isn't mounted.
    let next = host.path("next.so");
    fs::write(&next, [fs::read(&built).unwrap(), vec![0]].concat()).unwrap();
    fs::rename(&next, &built).unwrap();
    let verdict = host.restart();
    assert_eq!(verdict.verdict, "complete");
    assert!(verdict.line.text().contains("unchanged"), "{}", verdict.line.text());
    let warned = host.wait_for(said::LIBRARY_OLD, |_| true);
    assert!(warned.str("advice").contains("mount its directory instead"), "{}", warned.text());
    let check = Command::new("nsenter")
        .args(["-m", "-t", &host.master().to_string()])
        .arg(App::build().host())
        .arg("check")
        .arg(host.config_path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(check.status.success() && said.contains("mount its directory instead"), "{said}");
}
