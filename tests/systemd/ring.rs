//! The ring itself: nothing of a machine is left, however it ends, and where none can be booted that is said.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use app_host_tests::build::workspace;
use app_host_tests::process;
use nix::sys::signal::Signal;

use super::machine::Machine;
use super::plan::Plan;

/// All processes in the machine's namespace, as this machine numbers them.
fn inhabitants(init: u32) -> Vec<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let of_init = namespace(init).expect("it runs");
    process::all().into_iter().filter(|pid| namespace(*pid).as_ref() == Some(&of_init)).collect()
}

/// Where this machine has the cgroup of a booted one.
fn cgroup(machine: &Machine) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let hierarchy = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("there is one");
    let name = format!("app-host-machine-{}", machine.launcher());
    PathBuf::from(hierarchy.split(' ').nth(1).unwrap()).join(name)
}

#[test]
fn nothing_is_left_of_a_machine_and_nothing_of_this_one_is_changed() {
    let settings = || {
        ["kernel/core_pattern", "fs/file-max", "fs/nr_open", "net/ipv4/ip_forward", "kernel/hostname", "kernel/sysrq"]
            .map(|name| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default())
    };
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (settings_before, mounts_before) = (settings(), mounts());
    let machine = Plan::new().boot();
    machine.start();
    // What its processes can do to this one, root that they are.
    for path in ["/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward", "/sys/kernel/mm/ksm/run", "/usr/ring"] {
        let said = machine.run(&["systemd-run", "--quiet", "--wait", "sh", "-c", &format!("echo 0 > {path}")]);
        assert_ne!(said.code, Some(0), "{path}: {said:?}");
    }
    let capabilities = process::status(machine.init(), "CapBnd").unwrap();
    let capabilities = u64::from_str_radix(&capabilities, 16).unwrap();
    // CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT, CAP_SYS_TIME, CAP_SYSLOG (linux/capability.h)
    assert!([16, 17, 22, 25, 34].iter().all(|bit| capabilities >> bit & 1 == 0), "{capabilities:x}");
    let (inhabitants, cgroup, directory) = (inhabitants(machine.init()), cgroup(&machine), machine.directory());
    assert!(inhabitants.len() >= 5 && cgroup.exists() && directory.exists(), "{inhabitants:?} {cgroup:?}");
    drop(machine);
    assert!(inhabitants.iter().all(|pid| !process::is_alive(*pid)));
    assert!(!cgroup.exists() && !directory.exists());
    assert_eq!((settings(), mounts()), (settings_before, mounts_before));
}

#[test]
fn nothing_of_a_machine_outlives_who_waits_for_it() {
    let machine = Plan::new().boot();
    machine.start();
    let (inhabitants, cgroup) = (inhabitants(machine.init()), cgroup(&machine));
    process::signal(machine.launcher(), Signal::SIGKILL);
    machine.wait("its end", || inhabitants.iter().all(|pid| !process::is_alive(*pid)).then_some(()));
    drop(machine);
    // An empty cgroup is all that is left, until the next one is booted.
    let _next = Plan::new().boot();
    assert!(!cgroup.exists());
}

#[test]
fn who_is_not_root_is_told() {
    let mut boot = Command::new(workspace().join("tests/systemd/boot"));
    let output = boot.arg("/nowhere").uid(65534).gid(65534).output().expect("bash is needed");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "boot: only root can boot a machine in namespaces\n");
}
