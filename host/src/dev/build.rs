//! Cargo: what is to be built, and building it.
//!
//! Owns the command line for cargo and what is read from its answers. Its errors go to the terminal as
//! cargo writes them.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cargo_metadata::{CrateType, Metadata, MetadataCommand, Package, PackageId};
use nix::unistd::Pid;

use app_host_platform::sys;

use super::sources::Look;
use super::{cargo, processes};

/// A crate that can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error("cargo doesn't know the crate in {}", directory.display())]
    Metadata { directory: PathBuf, source: cargo_metadata::Error },
    #[error("{} is a workspace without a crate of its own; hint: name the app's directory", directory.display())]
    NoCrate { directory: PathBuf },
    #[error("the crate {name} is no app; hint: Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`")]
    NoApp { name: String },
}

/// What is built, and what it is made of.
#[derive(Debug)]
pub struct Project {
    pub name: String,
    pub target_directory: PathBuf,
    pub workspace_manifest: PathBuf,
    /// The crate's own, and those of the crates on this machine that it needs.
    pub directories: Vec<PathBuf>,
    id: PackageId,
    release: bool,
}

/// A build that has ended.
#[derive(Debug)]
pub struct Ended {
    pub built: Built,
    /// How cargo left `Cargo.lock`, which it writes itself when dependencies have changed.
    pub lock: Option<Look>,
}

/// What a build came to.
#[derive(Debug)]
pub enum Built {
    Library {
        path: PathBuf,
        took: Duration,
    },
    /// Cargo has said why.
    Failed,
    /// Cargo itself can't be run or understood.
    Broken(String),
}

impl Project {
    /// The app whose `Cargo.toml` is in `directory`.
    ///
    /// # Errors
    /// When there is no crate, or when it is no app.
    pub fn find(directory: &Path, release: bool) -> Result<Self, ProjectError> {
        let metadata = MetadataCommand::new().current_dir(directory).exec();
        let metadata = metadata.map_err(|source| ProjectError::Metadata { directory: directory.to_owned(), source })?;
        let Some(package) = metadata.packages.iter().find(|package| root(package) == directory) else {
            return Err(ProjectError::NoCrate { directory: directory.to_owned() });
        };
        let name = package.name.to_string();
        if !package.targets.iter().any(|target| target.crate_types.contains(&CrateType::CDyLib)) {
            return Err(ProjectError::NoApp { name });
        }
        Ok(Self {
            name,
            target_directory: metadata.target_directory.clone().into(),
            workspace_manifest: metadata.workspace_root.join("Cargo.toml").into(),
            directories: directories(&metadata, package),
            id: package.id.clone(),
            release,
        })
    }

    /// The crate's own directory.
    pub fn root(&self) -> &Path {
        self.directories.first().map_or(Path::new("/"), PathBuf::as_path)
    }

    /// What cargo writes the versions of all dependencies into.
    pub fn lock(&self) -> PathBuf {
        self.workspace_manifest.with_file_name("Cargo.lock")
    }

    /// What cargo calls the way of building.
    pub const fn profile(&self) -> &'static str {
        if self.release { "release" } else { "debug" }
    }

    /// Builds on a thread of its own, and gives the outcome to `done`. Cargo ends with us at the latest.
    pub fn build(&self, aloud: bool, done: impl FnOnce(Ended) + Send + 'static) -> Building {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--lib", "--message-format=json-render-diagnostics"]).current_dir(self.root());
        if self.release {
            command.arg("--release");
        }
        if !aloud {
            command.arg("--quiet");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let (id, lock) = (self.id.clone(), self.lock());
        sys::process::ends_with_us(&mut command);
        let building = Building::default();
        let cargo = building.clone();
        std::thread::spawn(move || {
            let mut left = None;
            let built = run(command, &id, &cargo, || left = Look::at(&lock));
            let built = built.unwrap_or_else(|error| Built::Broken(format!("cargo can't be run: {error}")));
            done(Ended { built, lock: left });
        });
        building
    }
}

/// A build that is under way.
#[derive(Clone, Debug, Default)]
pub struct Building {
    /// Cargo, until it has been waited for.
    cargo: Arc<Mutex<Option<Pid>>>,
}

impl Building {
    /// Tells cargo, and the compilers that it runs, to end.
    pub fn end(&self) {
        if let Some(cargo) = *self.cargo() {
            processes::terminate(cargo);
        }
    }

    fn cargo(&self) -> MutexGuard<'_, Option<Pid>> {
        self.cargo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `resolved` is called when cargo knows the versions of all dependencies and has begun to build.
fn run(mut command: Command, id: &PackageId, building: &Building, resolved: impl FnOnce()) -> io::Result<Built> {
    let began = Instant::now();
    let mut cargo = command.spawn()?;
    *building.cargo() = i32::try_from(cargo.id()).ok().map(Pid::from_raw);
    let output = cargo.stdout.take().map(BufReader::new);
    let library = output.map(|output| cargo::library(output, id, resolved)).transpose()?.flatten();
    // Its output has ended, so it is about to. Once it was waited for, its number may be another's.
    *building.cargo() = None;
    if !cargo.wait()?.success() {
        return Ok(Built::Failed);
    }
    Ok(match library {
        Some(path) => Built::Library { path, took: began.elapsed() },
        None => Built::Broken("cargo names no library".to_owned()),
    })
}

fn root(package: &Package) -> &Path {
    package.manifest_path.parent().map_or(Path::new("/"), |parent| parent.as_std_path())
}

/// The crate's directory first, then those of the crates beside it that it needs, at any remove.
fn directories(metadata: &Metadata, package: &Package) -> Vec<PathBuf> {
    let mut wanted = vec![&package.id];
    let mut at = 0;
    while let Some(id) = wanted.get(at).copied() {
        at += 1;
        let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        for dependency in nodes.filter(|node| node.id == *id).flat_map(|node| &node.dependencies) {
            let is_local = metadata.packages.iter().any(|one| one.id == *dependency && one.source.is_none());
            if is_local && !wanted.contains(&dependency) {
                wanted.push(dependency);
            }
        }
    }
    let package = |id: &PackageId| metadata.packages.iter().find(|package| package.id == *id);
    wanted.into_iter().filter_map(package).map(|package| root(package).to_owned()).collect()
}
