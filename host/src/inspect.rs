//! `inspect`: what a library says of itself, and what a master would say of it.
//!
//! Runs nothing of the library: reads what `artifact` and the manifest's checks read, from a copy that
//! is gone afterwards, because the file may change under a reader. What only a loaded library can tell
//! (its symbols, its layouts) is left to the probe, so to `check` and to each restart; what running
//! masters were started with is left to them.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use app_abi::manifest::{Manifest, Version as Numbers};
use app_abi::{ABI, ABI_MINOR};
use serde_json::{Value, json};

use app_host_core::error::chain;
use app_host_core::foreign::printable;
use app_host_core::restart::Refusal;
use app_host_platform::artifact::Store;
use app_host_platform::console;
use app_host_platform::held::Directory;

use crate::form::Form;

/// What was found.
struct Found {
    /// The library's hash and manifest, when it is one that can be read.
    library: Option<(String, Manifest)>,
    refusal: Option<Refusal>,
}

/// Looks at the library at `path` and prints what it found to standard output, whatever it is.
pub fn run(path: &Path, form: Form) -> anyhow::Result<ExitCode> {
    let directory = tempfile::tempdir().context("a temporary directory can't be made (TMPDIR says where)")?;
    let found = look(path, &Store::open(directory.path().to_owned(), Directory::open(directory.path())?)?);
    let text = match form {
        Form::Text => text(path, &found),
        Form::Json => format!("{:#}\n", to_json(path, &found)),
    };
    console::answer(&text).context("the answer can't be written")?;
    Ok(if found.refusal.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(path: &Path, store: &Store) -> Found {
    match store.admit(path) {
        Err(error) => Found { library: None, refusal: Some(Refusal::BadArtifact(chain(&error))) },
        Ok(version) => {
            let misfit = version.manifest.fits_host().err();
            Found {
                library: Some((version.id.to_string(), version.manifest)),
                refusal: misfit.map(|misfit| Refusal::Incompatibility(misfit.to_string())),
            }
        }
    }
}

fn text(path: &Path, found: &Found) -> String {
    let mut lines = vec![printable(&path.display().to_string()).into_owned()];
    if let Some((version, manifest)) = &found.library {
        let magic = manifest.magic;
        lines.extend([
            format!("  app         {} {}", printable(&manifest.app_name), printable(&manifest.app_version)),
            format!("  version     {version}"),
            format!("  magic       {magic} (ABI {}, epoch {})", magic.abi(), magic.epoch()),
            format!(
                "  minor       built with {}, needs {} of its host",
                manifest.abi_minor, manifest.host_minor_needed
            ),
            format!("  flags       {}", manifest.flags),
            format!("  app-abi     {}", manifest.app_abi),
            format!("  abi_stable  {}", manifest.abi_stable),
            format!("  async-ffi   ABI {}", manifest.async_ffi),
            format!("  compiler    {}", printable(&manifest.rustc)),
            format!(
                "this host has ABI {ABI} minor {ABI_MINOR}, app-abi {}, abi_stable {}",
                Numbers::APP_ABI,
                Numbers::ABI_STABLE
            ),
        ]);
    }
    lines.push(match (&found.refusal, &found.library) {
        (Some(refusal), _) => format!("refused: {}", printable(&refusal.to_string())),
        (None, Some((_, manifest))) => {
            format!("fits: a master that was started with magic {} takes it, if it loads", manifest.magic)
        }
        (None, None) => String::new(),
    });
    lines.push(String::new());
    lines.join("\n")
}

fn to_json(path: &Path, found: &Found) -> Value {
    let refusal = found.refusal.as_ref();
    json!({
        "library": path.display().to_string(),
        "version": found.library.as_ref().map(|(version, _)| version),
        "manifest": found.library.as_ref().map(|(_, manifest)| json!({
            "app_name": manifest.app_name,
            "app_version": manifest.app_version,
            "magic": manifest.magic.to_string(),
            "abi": manifest.magic.abi(),
            "epoch": manifest.magic.epoch(),
            "abi_minor": manifest.abi_minor,
            "host_minor_needed": manifest.host_minor_needed,
            "flags": manifest.flags,
            "app_abi": manifest.app_abi.to_string(),
            "abi_stable": manifest.abi_stable.to_string(),
            "async_ffi": manifest.async_ffi,
            "rustc": manifest.rustc,
        })),
        "host": {
            "abi": ABI,
            "abi_minor": ABI_MINOR,
            "app_abi": Numbers::APP_ABI.to_string(),
            "abi_stable": Numbers::ABI_STABLE.to_string(),
        },
        "fits": refusal.is_none(),
        "reason": refusal.map(Refusal::reason),
        "detail": refusal.map(Refusal::to_string),
    })
}
