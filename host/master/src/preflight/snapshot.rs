//! A configuration as it lies on disk at one moment, with all that can be said of it without looking at anything else.

use std::path::Path;
use std::sync::Arc;

use app_host_core::config::{self, Config, Cpus, UNLIMITED};
use app_host_core::error::chain;
use app_host_core::ids::ConfigId;
use app_host_core::restart::{Judged, Refusal};
use app_host_platform::held::Directory;
use app_host_platform::sys::process;

use super::Refused;
use super::secrets::read_file;
use crate::history_file::config_id;

/// Reads and checks the configuration at `path`, which must be absolute; for `app-host dev` with the library
/// that it has built. Blocks on the disk.
pub fn read_config(path: &Path, dev_library: Option<&Path>) -> Result<Snapshot, Refused> {
    let bytes = read_file(path, config::MAX_FILE_BYTES).map_err(Refusal::BadConfig)?;
    Snapshot::parse(&bytes, path, dev_library)
}

/// A configuration as it was at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub config: Arc<Config>,
    /// Its directory, where its children are.
    pub home: Arc<Directory>,
    pub id: ConfigId,
    pub text: Arc<str>,
}

impl Snapshot {
    /// As [`read_config`], from the bytes of the file at `path`.
    pub fn parse(bytes: &[u8], path: &Path, dev_library: Option<&Path>) -> Result<Self, Refused> {
        let id = config_id(bytes);
        let judged = |text| Refused::judged(Refusal::BadConfig(text), Judged::Config(id));
        let config = Config::parse(bytes, path).map_err(|error| judged(chain(&error)))?;
        let config = match dev_library {
            Some(library) => config.for_development(library),
            None => config,
        };
        let text = std::str::from_utf8(bytes).map_err(|error| judged(format!("{}: {error}", path.display())))?;
        let (key, home) = match (&config.directory, dev_library) {
            (Some(directory), _) => ("directory: ", directory.as_path()),
            // One that has no configuration of its own is at home where it is built, and so are we.
            (None, Some(_)) => ("", Path::new(".")),
            (None, None) => ("", path.parent().unwrap_or(Path::new("/"))),
        };
        let home = Directory::open(home)
            .map_err(|error| Refusal::BadConfig(format!("{key}{} can't be entered: {error}", home.display())))?;
        for (key, limit, value) in config.limits.set() {
            let hard = process::hard_limit(limit).map_err(|error| Refusal::BadConfig(format!("{key}: {error}")))?;
            if value > hard {
                return Err(Refusal::BadConfig(above(key, value, hard)).into());
            }
        }
        if config.cpus != Cpus::Any {
            let cpus = process::cpus().map_err(|error| Refusal::BadConfig(format!("cpus: {error}")))?;
            if let Some(missing) = config.cpus.missing(&cpus) {
                let text = format!("cpus: the master may not run on processor {missing}, but on {cpus:?}");
                return Err(Refusal::BadConfig(text).into());
            }
            process::may_choose_cpus().map_err(|error| {
                let hint =
                    "hint: a unit with SystemCallFilter=~@resources needs SystemCallFilter=sched_setaffinity as well";
                Refusal::BadConfig(format!(
                    "cpus: the master is not allowed to set the processors of a process: {error}; {hint}"
                ))
            })?;
        }
        Ok(Self { config: Arc::new(config), home: Arc::new(home), id, text: text.into() })
    }
}

/// Says that a limit is more than we may give.
fn above(key: &str, value: u64, hard: u64) -> String {
    let value = if value == UNLIMITED { "unlimited".to_owned() } else { value.to_string() };
    let flag = if key == "limits.core" { "c" } else { "n" };
    format!(
        "{key}: {value} is above the hard limit of {hard} that the master was started with (`ulimit -H{flag}`, Limit…= of \
         a unit, --ulimit of a container)"
    )
}
