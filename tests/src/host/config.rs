//! What a master is started with: its configuration, its library, its environment.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::Host;

impl Host {
    /// Changes one setting, given as a JSON pointer, before the start or for the next restart.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        self.set(pointer, value);
        self
    }

    /// As [`Self::with`]; written to the file at once.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) {
        let (section, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
        let section = self.config.pointer_mut(section).expect("the section exists");
        section[key] = value.into();
        self.write_config(self.config.to_string().as_bytes());
    }

    /// Removes one setting.
    #[must_use]
    pub fn without(mut self, pointer: &str) -> Self {
        let (section, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
        let section = self.config.pointer_mut(section).expect("the section exists");
        section.as_object_mut().expect("the section is an object").remove(key);
        self.write_config(self.config.to_string().as_bytes());
        self
    }

    /// With a variable in the master's environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Lets the launcher (`src/bin/launch.rs`) start the master, with these arguments.
    #[must_use]
    pub fn launched_with(mut self, arguments: &[&str]) -> Self {
        self.launch = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// Runs another binary than the one that was built, a copy of it for instance.
    #[must_use]
    pub fn with_binary(mut self, binary: &Path) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.path("app-host.json")
    }

    /// Where the configuration says that the library is.
    pub fn library_path(&self) -> PathBuf {
        self.path(self.config["app"]["library"].as_str().expect("the library is a path"))
    }

    /// Puts bytes where the configuration belongs, whatever they are.
    pub fn write_config(&self, bytes: &[u8]) {
        replace(&self.config_path(), bytes);
    }

    /// Puts the configuration back as the fixture knows it.
    pub fn restore_config(&self) {
        self.write_config(self.config.to_string().as_bytes());
    }

    /// Installs a library as a deployment should: a copy beside it, renamed over it.
    pub fn install(&self, library: &Path) {
        let bytes = fs::read(library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
        self.install_bytes(&bytes);
    }

    /// Installs these bytes.
    pub fn install_bytes(&self, bytes: &[u8]) {
        replace(&self.library_path(), bytes);
    }

    /// Installs a version of the library that was never seen before, without compiling anything:
    /// bytes behind the end of an ELF file change its hash and nothing else.
    pub fn install_fresh(&self, library: &Path) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut bytes = fs::read(library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
        bytes.extend_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        bytes.extend_from_slice(&u64::from(std::process::id()).to_le_bytes());
        self.install_bytes(&bytes);
    }

    /// How many workers the configuration asks for.
    pub fn configured_workers(&self) -> u64 {
        self.config["workers"].as_u64().unwrap_or(2)
    }
}

/// Replaces a file as a whole: nobody ever sees half of it.
fn replace(path: &Path, bytes: &[u8]) {
    let mut name = path.file_name().expect("a file has a name").to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new).unwrap_or_else(|error| panic!("{}: {error}", new.display()));
    file.write_all(bytes).unwrap_or_else(|error| panic!("{}: {error}", new.display()));
    drop(file);
    fs::rename(&new, path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
