//! Builds what the tests drive, once a process, and says where it lies.
//!
//! The workspace's own cargo is asked, with the profile and the target directory that the running
//! test was built with, so that a test never meets a binary older than the sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What was built: the binaries and the apps.
#[derive(Debug)]
pub struct App {
    profile_dir: PathBuf,
}

impl App {
    /// Builds everything that is not fresh. Later calls in the same process return at once.
    pub fn build() -> &'static Self {
        static BUILT: OnceLock<App> = OnceLock::new();
        BUILT.get_or_init(|| {
            heed_hangups();
            let profile_dir = profile_dir();
            // All of the workspace, as `cargo test --workspace` builds it: every other choice of packages
            // has other features, and MongoDB's client would be compiled once more for each.
            cargo_build(&profile_dir, &["--workspace", "--lib", "--bins", "--examples"]);
            App { profile_dir }
        })
    }

    /// As [`Self::build`], and then the host and the example app as they are shipped: without what the
    /// tests ask of a dependency that they share. For figures.
    pub fn build_as_shipped() -> &'static Self {
        let app = Self::build();
        cargo_build(&app.profile_dir, &["-p", "app-host", "-p", "example-app"]);
        app
    }

    /// The binary under test.
    pub fn host(&self) -> PathBuf {
        self.profile_dir.join("app-host")
    }

    /// The helper that starts the master under limits or in namespaces of its own.
    pub fn launch(&self) -> PathBuf {
        self.profile_dir.join("launch")
    }

    /// The directory of what was built.
    pub fn profile(&self) -> &Path {
        &self.profile_dir
    }

    /// The library of the example app.
    pub fn example(&self) -> PathBuf {
        self.profile_dir.join("libexample_app.so")
    }

    /// The port of `docs/guide/bringing-an-app.md` as an app.
    pub fn ported_library(&self) -> PathBuf {
        self.profile_dir.join("libported.so")
    }

    /// The same, as a program of its own.
    pub fn ported(&self) -> PathBuf {
        self.profile_dir.join("ported")
    }

    /// The library of the test app `tests/apps/NAME.rs`, or `tests/apps/NAME/lib.rs`.
    pub fn app(&self, name: &str) -> PathBuf {
        self.profile_dir.join("examples").join(format!("lib{name}.so"))
    }
}

/// The workspace's root directory.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// `target/PROFILE`, found from the running executable: `target/PROFILE/deps/TEST-HASH` or
/// `target/PROFILE/BIN`.
pub fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("the running executable has a path");
    let directory = exe.parent().expect("an executable lies in a directory");
    if directory.file_name().is_some_and(|name| name == "deps") {
        directory.parent().expect("deps lies in the profile's directory").to_owned()
    } else {
        directory.to_owned()
    }
}

/// A cargo command that is not confused by the environment of the cargo which runs the tests.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (key, _) in std::env::vars_os() {
        let foreign = key.to_str().is_some_and(|key| {
            key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_") || key == "CARGO_TARGET_DIR"
        });
        if foreign {
            command.env_remove(key);
        }
    }
    command
}

fn cargo_build(profile_dir: &Path, what: &[&str]) {
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let target_dir = profile_dir.parent().expect("a profile's directory lies in the target directory");
    let output = cargo()
        .current_dir(workspace())
        .args(["build", "--quiet", "--profile", profile, "--target-dir"])
        .arg(target_dir)
        .args(what)
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo build {what:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Has SIGHUP do here, and in all that is started from here, what it does by default: under `nohup` it is ignored, and a
/// master that finds it so leaves it so.
#[expect(unsafe_code, reason = "the default action of a signal runs no code")]
fn heed_hangups() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigDfl) }.expect("SIGHUP can have its default");
}
