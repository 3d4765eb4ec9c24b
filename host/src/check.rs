//! `check`: would this configuration and its library be accepted?
//!
//! Does what preflight does, with a copy of its own that is gone afterwards. Touches neither the
//! state directory nor the listeners nor the databank, so it may run beside the master, whose magic it doesn't know: an
//! epoch that the running master would refuse is accepted here.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::task::LocalSet;

use crate::artifact::{Store, Version};
use crate::children::Children;
use crate::console;
use crate::desk::Desk;
use crate::foreign::printable;
use crate::held::Directory;
use crate::identity::Identity;
use crate::logging;
use crate::preflight::{Preflight, read_config};
use crate::restart::Refusal;

/// How long what the probe has said is waited for to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
                printable(&path.display().to_string()),
                printable(&manifest.app_name),
                printable(&manifest.app_version),
                version.id,
                manifest.magic,
                manifest.magic.abi(),
                manifest.magic.epoch(),
                manifest.app_abi,
                printable(&manifest.rustc)
            );
            console::answer(&text).context("the answer can't be written")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => {
            console::note(&format!("refused: {}", printable(&refusal.to_string())));
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
    let checked = preflight.version(&config, None).await;
    logging::finish_relays(LAST_WORDS);
    Ok(checked.map(|(version, _)| version).map_err(|refused| refused.refusal))
}
