//! `init`: a configuration and a systemd unit for a library that is there already.
//!
//! The operator's counterpart of `new`. The unit is the shipped one, `host/systemd/app-host.service`, with other names in
//! it; what it says is explained on the page `docs/operate/systemd.md`. JSON has no comments, so the configuration names its
//! schema, whose descriptions an editor shows, and each key that is written is explained on standard output.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use serde_json::json;

use app_host_core::config::SCHEMA;
use app_host_core::error::chain;
use app_host_core::foreign::printable;
use app_host_platform::artifact::Store;
use app_host_platform::held::Directory;
use app_host_platform::{console, paths};

/// The shipped unit, and the names in it that are others here.
const UNIT: &str = include_str!("../systemd/app-host.service");
const NAME: &str = "app-host";
const PROGRAM: &str = "/usr/local/bin/app-host";
const CONFIG: &str = "/etc/app-host/app-host.json";

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    pub library: PathBuf,
    pub directory: PathBuf,
    /// Of the unit, its user and its directories.
    pub name: String,
}

/// A name that a unit, a user and a directory can have.
///
/// # Errors
/// What is expected, in words for the command line.
pub fn name(text: &str) -> Result<String, String> {
    let fits = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= 31
        && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    fits.then(|| text.to_owned()).ok_or_else(|| "expected up to 31 of a-z, 0-9 and -, a letter first".to_owned())
}

/// Writes the files and says what to do with them.
pub fn run(Options { library, directory, name }: &Options) -> anyhow::Result<ExitCode> {
    let absolute = |path: &Path| {
        let absolute = paths::absolute(path);
        absolute.with_context(|| format!("the path {} can't be made absolute", path.display()))
    };
    let (library, directory) = (absolute(library)?, absolute(directory)?);
    let app = app(&library)?;
    let config = directory.join("app-host.json");
    let program = std::env::current_exe().context("the path of this program can't be had")?;
    let unit = directory.join(format!("{name}.service"));
    let files = [
        New { path: directory.join("app-host.schema.json"), mode: 0o644, text: SCHEMA.to_owned() },
        // Secrets may come to stand in it.
        New { path: config.clone(), mode: 0o640, text: format!("{:#}\n", configuration(&library, name)) },
        New { path: unit.clone(), mode: 0o644, text: service(name, &program, &config)? },
    ];
    let made = make(&directory)?;
    if let Err(error) = write(&files) {
        if made == Made::Now {
            let _ = fs::remove_dir(&directory);
        }
        return Err(error);
    }
    let text = format!(
        "created  {config}
           app                   {app}: the library, and under \"config\" what it is handed
           listen                where clients are served
           user                  whom the workers, which run the app, run as; the master is root
           state_dir             copies of libraries, the databank, the pid file, the control socket
           restart.on_failure    after a failed restart every slot returns to what served before
created  {schema}, by which editors explain, complete and check the other keys
created  {unit}, for systemd
   next  useradd --system --no-create-home --shell /usr/sbin/nologin {name}
         app-host check {config}
         install -m 644 {unit} /etc/systemd/system/
         systemctl enable --now {name}
",
        config = config.display(),
        schema = files[0].path.display(),
        unit = unit.display(),
    );
    // Unread, the files are there all the same.
    let _ = console::answer(&text);
    for path in [&library, &config, &program] {
        if ["/home", "/root", "/run/user", "/tmp", "/var/tmp"].iter().any(|hidden| path.starts_with(hidden)) {
            console::warning(&format!(
                "note: the service can't see {} (ProtectHome= and PrivateTmp= of the unit): put it elsewhere",
                printable(&path.display().to_string())
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the library calls itself, if it is an app that fits.
fn app(library: &Path) -> anyhow::Result<String> {
    let directory = tempfile::tempdir().context("a temporary directory can't be made (TMPDIR says where)")?;
    let store = Store::open(directory.path().to_owned(), Directory::open(directory.path())?)?;
    let version = match store.admit(library) {
        Ok(version) => version,
        Err(error) => bail!("{} is no library that can be served: {}", library.display(), chain(&error)),
    };
    if let Err(misfit) = version.manifest.fits_host() {
        bail!("{} doesn't fit this program: {misfit}; hint: app-host inspect says more", library.display());
    }
    Ok(printable(&version.manifest.app_name).into_owned())
}

fn configuration(library: &Path, name: &str) -> serde_json::Value {
    json!({
        "$schema": "./app-host.schema.json",
        "app": { "library": library, "config": {} },
        "listen": ["127.0.0.1:8080"],
        "state_dir": format!("/var/lib/{name}"),
        "user": name,
        "restart": { "on_failure": "rollback" },
    })
}

/// The shipped unit with these names in it.
fn service(name: &str, program: &Path, config: &Path) -> anyhow::Result<String> {
    let word = |path: &Path| {
        let text = path.to_str().unwrap_or_default();
        let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"/._-+@".contains(&c));
        ensure!(
            plain,
            "{} has characters that would have to be quoted in a unit: call it another name",
            path.display()
        );
        Ok(text.to_owned())
    };
    let (program, config) = (word(program)?, word(config)?);
    // What comments name: the state directory and the user.
    let names = ["/var/lib/", "\"user\": \"", "User="];
    let line = |line: &str| match line.split_once('=') {
        _ if line.starts_with('#') => names
            .iter()
            .fold(line.to_owned(), |line, begin| line.replace(&format!("{begin}{NAME}"), &format!("{begin}{name}"))),
        Some((key @ ("ExecStart" | "ExecReload"), command)) => {
            format!("{key}={}", command.replace(CONFIG, &config).replace(PROGRAM, &program))
        }
        Some((key @ ("Description" | "StateDirectory" | "LogsDirectory" | "RuntimeDirectory"), NAME)) => {
            format!("{key}={name}")
        }
        _ => line.to_owned(),
    };
    Ok(UNIT.lines().map(line).map(|line| line + "\n").collect())
}

/// A file to write, with its permissions.
struct New {
    path: PathBuf,
    mode: u32,
    text: String,
}

/// Whether a directory was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Now,
    Before,
}

/// Makes the directory, if its parent is there: the rest of a path that isn't may be mistyped.
fn make(directory: &Path) -> anyhow::Result<Made> {
    match fs::create_dir(directory) {
        Ok(()) => Ok(Made::Now),
        Err(_) if directory.is_dir() => Ok(Made::Before),
        Err(error) => Err(error).with_context(|| format!("the directory {} can't be made", directory.display())),
    }
}

/// Writes all of them or none, and over nothing.
fn write(files: &[New]) -> anyhow::Result<()> {
    for (at, New { path, mode, text }) in files.iter().enumerate() {
        let made = OpenOptions::new().write(true).create_new(true).mode(*mode).open(path);
        let is_new = made.is_ok();
        if let Err(error) = made.and_then(|mut file| file.write_all(text.as_bytes())) {
            for New { path, .. } in files.iter().take(at + usize::from(is_new)) {
                let _ = fs::remove_file(path);
            }
            ensure!(
                error.kind() != ErrorKind::AlreadyExists,
                "{} exists already, and init overwrites nothing; nothing was written",
                path.display()
            );
            return Err(error).with_context(|| format!("{} can't be written; nothing was", path.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use app_host_core::config::Config;

    #[test]
    fn the_unit_is_the_shipped_one_but_for_its_names() {
        assert_eq!(service(NAME, Path::new(PROGRAM), Path::new(CONFIG)).unwrap(), UNIT);
        let other = service("shop", Path::new("/opt/app-host"), Path::new("/srv/shop/app-host.json")).unwrap();
        let changed: Vec<&str> = other.lines().zip(UNIT.lines()).filter(|(a, b)| a != b).map(|(a, _)| a).collect();
        assert_eq!(
            changed,
            [
                "# ExecStart= says, with \"state_dir\": \"/var/lib/shop\" and \"user\": \"shop\", and make that user.",
                "Description=shop",
                "ExecStart=/opt/app-host run /srv/shop/app-host.json",
                "ExecReload=/opt/app-host ctl --config /srv/shop/app-host.json restart --wait",
                "# of the configuration: so there is a line between them. With User=shop here and no \"user\" there, both are one",
                "StateDirectory=shop",
                "LogsDirectory=shop",
                "RuntimeDirectory=shop",
            ]
        );
        let left: Vec<&str> =
            other.lines().filter(|line| line.contains(NAME) && !line.contains("/opt/app-host")).collect();
        assert_eq!(
            left,
            [
                "# A service of app-host's. Put it into /etc/systemd/system, the program into /usr/local/bin, the configuration where",
                "Documentation=man:app-host(1)"
            ]
        );
        assert_eq!(other.lines().count(), UNIT.lines().count());
        for strange in ["/opt/a b", "/opt/100%", "/opt/$x", "/opt/\"x", ""] {
            assert!(service("shop", Path::new(PROGRAM), Path::new(strange)).is_err(), "{strange}");
        }
    }

    #[test]
    fn the_configuration_is_read_and_fits_the_unit_and_the_schema() {
        let config = configuration(Path::new("/l.so"), "shop");
        let read = Config::parse(config.to_string().as_bytes(), Path::new("/etc/app-host.json")).unwrap();
        assert_eq!(read.state_dir, Path::new("/var/lib/shop"));
        let schema = serde_json::from_str(SCHEMA).unwrap();
        assert!(jsonschema::is_valid(&schema, &config));
    }

    #[test]
    fn names_are_those_of_units_users_and_directories() {
        for good in ["shop", "shop-2", "a"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in ["", "2shop", "Shop", "a b", "a/b", "..", "a.service", &"x".repeat(32)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
