//! `check`: would this configuration and its library be accepted?
//!
//! Does what preflight does, with a copy of its own that is gone afterwards. Touches neither the
//! state directory nor the listeners nor the databank, so it may run beside the master, whose magic it doesn't know: an
//! epoch that the running master would refuse is accepted here.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tokio::task::LocalSet;

use crate::artifact::{Store, Version};
use crate::children::Children;
use crate::desk::Desk;
use crate::held::Directory;
use crate::identity::Identity;
use crate::preflight::{Preflight, read_config};
use crate::restart::Refusal;

/// Checks the configuration at `path` and says what it found; refusals go to standard error.
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let path =
        std::path::absolute(path).with_context(|| format!("the path {} can't be made absolute", path.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match LocalSet::new().block_on(&runtime, check(&path))? {
        Ok(version) => {
            let manifest = &version.manifest;
            let text = format!(
                "accepted: {}\n  app      {} {}\n  version  {}\n  magic    {} (ABI {}, epoch {})\n  built    app-abi {}, {}\n",
                path.display(),
                manifest.app_name,
                manifest.app_version,
                version.id,
                manifest.magic,
                manifest.magic.abi(),
                manifest.magic.epoch(),
                manifest.app_abi,
                manifest.rustc
            );
            // A reader that has seen enough has closed the pipe; the exit code is the answer.
            let _ = io::stdout().write_all(text.as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => {
            eprintln!("refused: {refusal}");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn check(path: &Path) -> anyhow::Result<Result<Version, Refusal>> {
    let config = match read_config(path, None) {
        Ok(snapshot) => snapshot.config,
        Err(refused) => return Ok(Err(refused.refusal)),
    };
    let identity = Identity::configured(&config)?;
    // The probe's user must be able to read the copy.
    let directory = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .context("a temporary directory can't be made (TMPDIR says where)")?;
    let preflight = Preflight {
        config_path: path.to_owned(),
        dev_library: None,
        store: Store::open(directory.path().to_owned(), Directory::open(directory.path())?)?,
        desk: Desk::open()?,
        children: Children::watch()?,
        identity,
    };
    Ok(preflight.version(&config, None).await.map(|(version, _)| version).map_err(|refused| refused.refusal))
}
