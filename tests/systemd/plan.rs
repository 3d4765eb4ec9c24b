//! A machine before it is booted: its `/etc` and `/usr/local`, with the shipped unit installed as its header says.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use app_host_tests::App;
use app_host_tests::build::workspace;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The user of the workers, and its group.
pub const USER: u32 = 990;

/// Units of a Debian that are about hardware, or about the machine's whole file system.
const MASKED: [&str; 12] = [
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "kmod-static-nodes.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-journald-audit.socket",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-setup.service",
];

/// A machine that isn't booted yet.
pub struct Plan {
    pub(super) config: Value,
    pub(super) directory: TempDir,
}

impl Plan {
    /// With the unit as shipped, the user `app-host`, and the app that does what it is told.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("app-host-machine-").tempdir().expect("a temporary directory");
        let config = json!({
            "app": { "library": "/usr/local/share/app.so", "config": {} },
            "listen": ["127.0.0.1:8080"],
            "state_dir": "/var/lib/app-host",
            "user": "app-host",
            "restart": { "probation": "20ms" },
            "log": { "format": "bunyan" },
        });
        let plan = Self { config, directory };
        fs::create_dir(plan.directory.path().join("root")).expect("the directory is ours");
        let built = App::build();
        for unit in ["app-host.service", "app-host.socket"] {
            let text = fs::read_to_string(workspace().join("host/systemd").join(unit)).expect("it is shipped");
            plan.write(&format!("etc/systemd/system/{unit}"), &text);
        }
        plan.copy(&built.host(), "local/bin/app-host", 0o755);
        plan.copy(&built.app("misbehaving"), "local/share/app.so", 0o644);
        plan.write(
            "etc/passwd",
            &format!("root:x:0:0::/root:/bin/sh\napp-host:x:{USER}:{USER}::/nonexistent:/bin/false\n"),
        );
        plan.write(
            "etc/group",
            &format!("root:x:0:\nadm:x:4:\nsystemd-journal:x:101:\nutmp:x:43:\napp-host:x:{USER}:\n"),
        );
        plan.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n");
        plan.write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
        plan.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        plan.write("etc/systemd/journald.conf", "[Journal]\nStorage=volatile\nAudit=no\nRateLimitBurst=0\n");
        // What a system with a network manager has: the network is online when its unit says so.
        plan.write(
            "etc/systemd/system/machine.target",
            "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n",
        );
        plan.link("machine.target", "etc/systemd/system/default.target");
        for unit in MASKED {
            plan.link("/dev/null", &format!("etc/systemd/system/{unit}"));
        }
        plan
    }

    /// Changes one setting, given as a JSON pointer.
    pub fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        set(&mut self.config, pointer, value.into());
        self
    }

    /// Removes one setting.
    pub fn without(mut self, key: &str) -> Self {
        self.config.as_object_mut().expect("it is an object").remove(key);
        self
    }

    /// A file below `etc` or `local` (`/usr/local`).
    pub fn with_file(self, path: &str, text: &str) -> Self {
        self.write(path, text);
        self
    }

    /// With logrotate, which `.ci/systemd` has unpacked.
    pub fn with_logrotate(self) -> Self {
        let unpacked = std::env::var_os("LOGROTATE").map(PathBuf::from).expect("run the tests by .ci/systemd");
        self.copy(&unpacked.join("usr/sbin/logrotate"), "local/sbin/logrotate", 0o755);
        let library = format!("lib/{}-linux-gnu/libpopt.so.0", std::env::consts::ARCH);
        let places = [unpacked.join("usr").join(&library), unpacked.join(&library)];
        let found = places.iter().find(|place| place.exists()).expect("libpopt is unpacked beside it");
        self.copy(found, "local/lib/libpopt.so.0", 0o644);
        self
    }

    /// Has the unit started at the boot, as `systemctl enable` does.
    pub fn enabled(self, unit: &str) -> Self {
        self.wanted(unit, "machine.target")
    }

    /// Has the unit started with another one.
    pub fn wanted(self, unit: &str, by: &str) -> Self {
        self.link(&format!("../{unit}"), &format!("etc/systemd/system/{by}.wants/{unit}"));
        self
    }

    fn place(&self, path: &str) -> PathBuf {
        let path = self.directory.path().join(format!("root.{path}"));
        fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("the directory is ours");
        path
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        fs::write(self.place(path), text).expect("the directory is ours");
    }

    fn copy(&self, from: &Path, path: &str, mode: u32) {
        let place = self.place(path);
        fs::copy(from, &place).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("the file is ours");
    }

    fn link(&self, target: &str, path: &str) {
        symlink(target, self.place(path)).expect("the directory is ours");
    }
}

/// Changes one setting, given as a JSON pointer.
pub(super) fn set(config: &mut Value, pointer: &str, value: Value) {
    let (section, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
    config.pointer_mut(section).expect("the section exists")[key] = value;
}
