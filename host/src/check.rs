//! `check`: would this configuration and its library be accepted?
//!
//! Does what preflight does, with a copy of its own, which lies where a master's would but never has a name there.
//! Touches nothing else of the state directory, and neither the listeners nor the databank, so it may run beside the
//! master, whose magic it doesn't know: an epoch that the running master would refuse is accepted here. Nor does it run
//! the app's start, which is the app's own to judge `app.config`. It says what it has left out.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::task::LocalSet;

use app_host_core::error::chain;
use app_host_core::foreign::printable;
use app_host_core::restart::Refusal;
use app_host_master::preflight::{Failed, Place, Preflight, Snapshot, read_config};
use app_host_platform::artifact::{Store, UNLINKED, Version};
use app_host_platform::children::Children;
use app_host_platform::console;
use app_host_platform::disk_thread::DiskThread;
use app_host_platform::identity::{self, Identity};
use app_host_platform::logging;
use app_host_platform::paths;
use app_host_platform::state_dir::StateDir;

/// How long what the probe has said is waited for to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What may still keep the library from serving.
const NOT_CHECKED: &str =
    "not checked: the app's start (app.config), the databank, listeners, the epoch of a running master\n";

/// Checks the configuration at `path` and says what it found; refusals go to standard error.
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let path = paths::absolute(path).with_context(|| format!("the path {} can't be made absolute", path.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match LocalSet::new().block_on(&runtime, check(&path))? {
        Ok(version) => {
            let manifest = &version.manifest;
            let text = format!(
                "accepted: {}\n  app      {} {}\n  version  {}\n  magic    {} (ABI {}, epoch {})\n  built    app-abi {}, {}\n{NOT_CHECKED}",
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
            if version.is_unlinked {
                let library = version.library.display().to_string();
                console::note(&format!("note: {}: {UNLINKED}", printable(&library)));
            }
            console::answer(&text).context("the answer can't be written")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => {
            console::error(&format!("refused: {}", printable(&refusal.to_string())));
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn check(path: &Path) -> anyhow::Result<Result<Version, Refusal>> {
    let Snapshot { config, home, .. } = match read_config(path, None) {
        Ok(snapshot) => snapshot,
        Err(refused) => return Ok(Err(refused.refusal)),
    };
    for key in config.app.near_secrets() {
        console::note(&format!(
            "note: {}: has \"file\" among other keys, so it is handed to the app as it is; an object {{\"file\": \"PATH\"}} \
             alone is the text of that file",
            printable(&key)
        ));
    }
    let identity = match Identity::configured(&config) {
        Ok(identity) => identity,
        Err(error) => return Ok(Err(Refusal::BadConfig(format!("{}: {}", path.display(), chain(&error))))),
    };
    for (socket, rights) in config.socket_files() {
        if let Err(error) = identity::owner(rights) {
            return Ok(Err(Refusal::BadConfig(format!("{socket}: {}", chain(&error)))));
        }
    }
    // Where a master would load it from: what can be loaded here may not be there.
    let versions = match StateDir::look(&config, Identity::path_trust(identity.as_ref())) {
        Ok(directory) => directory,
        Err(error) => return Ok(Err(Refusal::BadConfig(chain(&error)))),
    };
    let preflight = Preflight {
        config_path: path.to_owned(),
        dev_library: None,
        store: Store::without_names(config.versions_dir(), versions),
        state_dir: None,
        disk: DiskThread::open()?,
        children: Children::watch()?,
        identity,
        failed: Failed::default(),
    };
    let checked = async {
        let secrets = preflight.secrets(&config).await?;
        let place = Place { config: &config, home: &home, environment: &secrets.environment };
        preflight.certificates(place, &secrets.tls).await?;
        preflight.version(place, None).await
    };
    let checked = checked.await;
    logging::finish_relays(LAST_WORDS);
    Ok(checked.map(|(version, _)| version).map_err(|refused| refused.refusal))
}
