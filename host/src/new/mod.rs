//! `new`: a crate that builds, tests and runs at once.
//!
//! Owns what is in it. Cargo makes the crate, so that names, workspaces and version control are as with
//! `cargo new`; what makes it an app is written into that.

use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use cargo_metadata::{MetadataCommand, TargetKind};
use serde_json::json;

use app_host_platform::console;

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    pub directory: PathBuf,
    pub name: Option<String>,
    pub axum: bool,
    pub app_abi: Option<PathBuf>,
}

/// Makes the crate, and says what to do with it.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let app_abi = app_abi(options.app_abi.as_deref())?;
    cargo_new(options)?;
    if let Err(error) = fill(options, &app_abi) {
        // So that it can be tried again: what cargo has begun would be in the way.
        let _ = fs::remove_dir_all(&options.directory);
        return Err(error);
    }
    let text = format!(
        "created  {}, an app for app-host{}\n   next  cd {} && cargo test && {} dev --open\n",
        options.directory.display(),
        if options.axum { ", made of an axum Router" } else { "" },
        quoted(&options.directory.to_string_lossy()),
        quoted(&called())
    );
    // Nobody reads it: the crate is there all the same.
    let _ = console::answer(&text);
    Ok(ExitCode::SUCCESS)
}

/// What a shell calls this program: by its name if that leads to it or to another `app-host`, else by its path.
fn called() -> String {
    const NAME: &str = "app-host";
    let is_program = |directory: PathBuf| {
        let file = fs::metadata(directory.join(NAME));
        file.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(is_program)) {
        return NAME.to_owned();
    }
    std::env::current_exe().map_or_else(|_| NAME.to_owned(), |program| program.to_string_lossy().into_owned())
}

/// A word as a shell takes it.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || "._-+/@:=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''")).into()
}

/// Makes an app of the library that cargo has made.
fn fill(options: &Options, app_abi: &Path) -> anyhow::Result<()> {
    let directory = fs::canonicalize(&options.directory)
        .with_context(|| format!("the new directory {} can't be found", options.directory.display()))?;
    let manifest = directory.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| format!("{} can't be read", manifest.display()))?;
    let source = if options.axum { include_str!("axum.rs.txt") } else { include_str!("app.rs.txt") };
    write(&manifest, &with_app(&text, app_abi, options.axum)?)?;
    write(&directory.join("src/lib.rs"), source)?;
    let config = json!({
        "app": { "library": library(&directory)?, "config": { "greeting": "Hello from app-host" } },
        "listen": ["127.0.0.1:8080"],
    });
    write(&directory.join("app-host.json"), &format!("{config:#}\n"))?;
    let ignore = directory.join(".gitignore");
    // Within somebody's repository cargo leaves this to them.
    let ignored = fs::read_to_string(&ignore).unwrap_or_default();
    write(&ignore, &format!("{ignored}/state\n"))
}

/// The crate `app-abi`: the one that is named, else the one that this program was built with, because apps
/// and hosts that were built with the same one fit each other.
fn app_abi(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let own = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../app-abi"));
    let path = named.unwrap_or(own);
    let hint = match named {
        Some(_) => "name the directory app-abi of a clone of app-host",
        None => "the clone of app-host that this program was built in has moved; --app-abi DIR says where it is",
    };
    let found = fs::canonicalize(path)
        .with_context(|| format!("the crate app-abi is not in {}; hint: {hint}", path.display()))?;
    let metadata = MetadataCommand::new().manifest_path(found.join("Cargo.toml")).no_deps().exec();
    let metadata = metadata.with_context(|| format!("{} is no crate", found.display()))?;
    let is_it = metadata.packages.iter().any(|package| {
        package.name.as_str() == "app-abi" && package.manifest_path.parent().is_some_and(|parent| *parent == *found)
    });
    ensure!(is_it, "the crate in {} is not app-abi; hint: {hint}", found.display());
    Ok(found)
}

fn cargo_new(options: &Options) -> anyhow::Result<()> {
    // Cargo would say to run `cargo init`, which makes no app.
    let directory = options.directory.display();
    ensure!(!options.directory.exists(), "the directory {directory} exists; hint: choose another DIR");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["new", "--quiet", "--lib", "--edition", "2024"]);
    if let Some(name) = &options.name {
        cargo.args(["--name", name]);
    }
    // What is wrong goes to the terminal as cargo writes it.
    let status = cargo.arg("--").arg(&options.directory).stdin(Stdio::null()).status().context("cargo can't be run")?;
    if !status.success() {
        bail!("cargo made no crate in {}", options.directory.display());
    }
    Ok(())
}

/// Cargo's manifest of an empty library, as that of an app.
fn with_app(manifest: &str, app_abi: &Path, axum: bool) -> anyhow::Result<String> {
    const DEPENDENCIES: &str = "[dependencies]\n";
    let (before, after) = manifest.split_once(DEPENDENCIES).context("cargo's new Cargo.toml has no [dependencies]")?;
    // A JSON text is a TOML text.
    let path = serde_json::to_string(app_abi.to_str().context("the path of app-abi is not UTF-8")?)?;
    let lib = "[lib]\ncrate-type = [\"cdylib\"]\n# rustdoc can't test a cdylib.\ndoctest = false\n";
    let dependencies = if axum {
        format!(
            "app-abi = {{ path = {path}, features = [\"axum\", \"tracing\"] }}\naxum = \"0.8\"\n\n\
             [dev-dependencies]\napp-abi = {{ path = {path}, features = [\"testing\"] }}\n\
             tokio = {{ version = \"1\", features = [\"macros\", \"rt\"] }}\n"
        )
    } else {
        format!(
            "app-abi = {{ path = {path} }}\n\n\
             [dev-dependencies]\napp-abi = {{ path = {path}, features = [\"testing\"] }}\n"
        )
    };
    Ok(format!("{before}{lib}\n{DEPENDENCIES}{dependencies}{after}"))
}

/// Where a release build of the crate puts its library, as the configuration beside its manifest says it.
fn library(directory: &Path) -> anyhow::Result<PathBuf> {
    let metadata = MetadataCommand::new().current_dir(directory).no_deps().exec();
    let metadata = metadata.with_context(|| format!("cargo doesn't know the crate in {}", directory.display()))?;
    let manifest = directory.join("Cargo.toml");
    let package = metadata.packages.iter().find(|package| *package.manifest_path == *manifest);
    let target = package.and_then(|package| {
        let is_lib = |kind: &TargetKind| *kind == TargetKind::CDyLib;
        package.targets.iter().find(|target| target.kind.iter().any(is_lib))
    });
    let target = target.with_context(|| format!("cargo knows no library in {}", directory.display()))?;
    let file = metadata.target_directory.join("release").join(format!("lib{}.so", target.name));
    Ok(seen_from(directory, file.as_std_path()))
}

/// A path as it is seen from a directory, if they have more in common than the root.
fn seen_from(directory: &Path, path: &Path) -> PathBuf {
    let above = directory.ancestors().enumerate();
    for (steps, ancestor) in above.take_while(|(_, ancestor)| ancestor.parent().is_some()) {
        if let Ok(rest) = path.strip_prefix(ancestor) {
            return std::iter::repeat_n("..", steps).collect::<PathBuf>().join(rest);
        }
    }
    path.to_owned()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
}

#[cfg(test)]
mod tests;
