//! Loads an app's library and calls the app.
//!
//! Owns the only `dlopen`, every check that comes before the first call into the app, and the host's side of the ABI:
//! [`LoadedApp`] takes ordinary requests and returns ordinary responses. What can be read from the file without running
//! code is for `artifact`, connections are for the worker, and the time limits of a start and a stop for the caller.
//!
//! No library is ever unloaded, and no app is dropped: the end of the process is the unload.
#![expect(unsafe_code, reason = "the seam to the app's library")]

mod app;
mod databank;
mod dispatch;
mod hints;
mod layout;
mod listener;
mod lock;
mod log;
mod request;
mod response;
mod resume;
mod services;
mod state;
#[cfg(test)]
mod tests;
mod upgrade;

use std::error::Error;
use std::path::{Path, PathBuf};

use abi_stable::StableAbi;
use abi_stable::library::{AbiHeaderRef, LibHeader, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use app_abi::Magic;
use app_abi::abi::AppModuleRef;
use libloading::os::unix::{Library as DynamicLibrary, RTLD_LOCAL, RTLD_NOW};
use nix::sys::statvfs::{FsFlags, statvfs};

pub use app::{HostInfo, LoadedApp};
pub use hints::{HintSink, Hints};
pub use listener::{AppListener, AppListeners};
pub use request::{Address, Client, Connection, Offers, TlsInfo};
pub use response::{AppBody, AppResponseError};
pub use resume::Keep;
pub use state::StateSink;
pub use upgrade::Upgrade;

const MAGIC_SYMBOL: &str = "APP_ABI_MAGIC";

/// A library that has passed every check and has not been started.
#[derive(Clone, Copy)]
pub struct Library {
    module: AppModuleRef,
}

/// Why a library can't be loaded. Nothing of the app has run beyond its library constructors.
#[derive(Debug, thiserror::Error)]
#[error("the library {} is refused", name.display())]
pub struct LoadError {
    /// The library, as the configuration names it.
    pub name: PathBuf,
    /// What is wrong with it.
    pub source: LoadFault,
}

/// What is wrong with a library.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// The dynamic linker refused it.
    #[error("the dynamic linker cannot load it: {reason}{}", hint(reason))]
    Open {
        /// What the dynamic linker said.
        reason: String,
    },
    /// It lies, or a library that it needs does, where nothing can be mapped as code.
    #[error(
        "{} lies on a file system that is mounted noexec, where no library can be loaded from, which is no fault of \
         the library's: mount it with exec, or choose another place (`state_dir`) ({reason})",
        path.display()
    )]
    NoExec {
        /// What can't be loaded.
        path: PathBuf,
        /// What the dynamic linker said.
        reason: String,
    },
    /// A symbol that every app exports is missing.
    #[error("it does not export `{symbol}`: it was not made with `app_abi::export_app!`")]
    Symbol {
        /// The symbol.
        symbol: &'static str,
    },
    /// The loaded library says something else than its file.
    #[error("its `{MAGIC_SYMBOL}` is {symbol}, but the manifest says {manifest}")]
    Magic {
        /// What the loaded library says.
        symbol: Magic,
        /// What the file said.
        manifest: Magic,
    },
    /// The library's `abi_stable` is of another kind.
    #[error("its abi_stable is not compatible: {0}")]
    Header(String),
    /// The library leaves out the description of its own layout, so it can't be checked.
    #[error("it carries no layout of its root module")]
    NoLayout,
    /// The root module has another layout than this host's.
    #[error("the layout of its root module differs: {0}")]
    Layout(String),
    /// The app needs a service that this host doesn't have.
    #[error("it needs the service `{service}` in minor {minor}, which this host does not have")]
    Service {
        /// The service.
        service: String,
        /// The least minor that the app needs.
        minor: u32,
    },
    /// The app needs a service in another form than this host has it.
    #[error("it needs the service `{service}` with another layout: {difference}")]
    ServiceLayout {
        /// The service.
        service: String,
        /// What differs.
        difference: String,
    },
}

impl LoadError {
    /// Whether the library is sound and only doesn't fit this host.
    #[must_use]
    pub fn is_incompatibility(&self) -> bool {
        match self.source {
            LoadFault::Open { .. } | LoadFault::NoExec { .. } | LoadFault::Symbol { .. } | LoadFault::Magic { .. } => {
                false
            }
            LoadFault::Header(_)
            | LoadFault::NoLayout
            | LoadFault::Layout(_)
            | LoadFault::Service { .. }
            | LoadFault::ServiceLayout { .. } => true,
        }
    }
}

/// What can be done about a refusal of the dynamic linker.
fn hint(reason: &str) -> &'static str {
    if reason.contains("static TLS") {
        "; hint: an allocator in the app claims thread-local storage that only a program can have; \
         build jemalloc with its feature `disable_initial_exec_tls`, \
         mimalloc with its feature `local_dynamic_tls`"
    } else {
        ""
    }
}

/// What the dynamic linker's refusal of the library at `path` means.
fn not_opened(reason: &str, path: &Path, name: &Path) -> LoadFault {
    // The reason begins with the library that can't be loaded: this one, or one that it needs. It doesn't say why mapping
    // it failed.
    let named = reason.split(": ").next().map(Path::new).filter(|named| named.is_absolute()).unwrap_or(path);
    let is_noexec = |path: &Path| statvfs(path).is_ok_and(|found| found.flags().contains(FsFlags::ST_NOEXEC));
    let noexec = [named, path].into_iter().find(|path| is_noexec(path)).map(Path::to_owned);
    // The operator knows the library by its name, not by that of its copy.
    let reason = reason.replace(&*path.to_string_lossy(), &name.to_string_lossy());
    match noexec {
        // The directory of the copy is what is wrong, and `/proc/self/fd/N` doesn't show it.
        Some(path) => LoadFault::NoExec { path: path.read_link().unwrap_or(path), reason },
        None if reason.contains("cannot open shared object file") && names_origin(path) => LoadFault::Open {
            reason: format!(
                "{reason}; hint: its RUNPATH says $ORIGIN, which is where the version's copy lies and not where the \
                 library lay: name the directory itself in it, or install what is needed where ld.so(8) looks"
            ),
        },
        None => LoadFault::Open { reason },
    }
}

/// Whether a library that can be read contains the token for its own directory (`ld.so(8)`).
fn names_origin(path: &Path) -> bool {
    const TOKENS: [&[u8]; 2] = [b"$ORIGIN", b"${ORIGIN}"];
    std::fs::read(path)
        .is_ok_and(|bytes| TOKENS.iter().any(|token| bytes.windows(token.len()).any(|found| found == *token)))
}

/// Loads the library at `path`, a copy of the one that is called `name` in errors, and checks it. `expected` is the
/// magic read from that same file, whose manifest fits this host ([`Manifest::fits_host`](app_abi::manifest::Manifest::fits_host)).
///
/// Runs the library's own constructors, which may do anything: the probe process does this first.
/// The file must not be written to as long as the process lives.
pub fn open(path: &Path, name: &Path, expected: Magic) -> Result<Library, LoadError> {
    load(path, name, expected).map_err(|source| LoadError { name: name.to_owned(), source })
}

fn load(path: &Path, name: &Path, expected: Magic) -> Result<Library, LoadFault> {
    // SAFETY: running the constructors of the library that the operator configured is what loading
    // an app means; the caller has had them run in the probe.
    let library = unsafe { DynamicLibrary::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|error| not_opened(&with_source(&error), path, name))?;
    // Leaked: threads, thread-locals and vtables of the app live until the process ends.
    let library: &'static DynamicLibrary = Box::leak(Box::new(library));

    // SAFETY: the symbol is an aligned `u64` that is never written; `export_app!` makes it so.
    let symbol = unsafe { library.get::<*const u64>(MAGIC_SYMBOL).map(|symbol| **symbol) };
    let symbol = Magic(symbol.map_err(|_| LoadFault::Symbol { symbol: MAGIC_SYMBOL })?);
    if symbol != expected {
        return Err(LoadFault::Magic { symbol, manifest: expected });
    }

    let name = ROOT_MODULE_LOADER_NAME_WITH_NUL;
    // SAFETY: abi_stable defines this symbol to be its header, whose version is checked by `upgrade`
    // before anything else of it is read.
    let header = unsafe { library.get::<AbiHeaderRef>(name.as_bytes()).map(|header| *header) };
    let header = header.map_err(|_| LoadFault::Symbol { symbol: name.trim_end_matches('\0') })?;
    check(header.upgrade().map_err(|error| LoadFault::Header(in_short(&error)))?)
}

/// Checks the layouts on both sides.
fn check(header: &'static LibHeader) -> Result<Library, LoadFault> {
    let layout = header.layout().ok_or(LoadFault::NoLayout)?;
    layout::compare(<AppModuleRef as StableAbi>::LAYOUT, layout).map_err(LoadFault::Layout)?;
    // SAFETY: the layout was compared in the line above.
    let module = unsafe { header.unchecked_layout::<AppModuleRef>() };
    let module = module.map_err(|error| LoadFault::Header(error.to_string()))?;
    for required in module.required_host()() {
        let service = required.name.to_string();
        let Some(offered) = services::offered(required.id, required.minor) else {
            return Err(LoadFault::Service { service, minor: required.minor });
        };
        // The app's layout is the expected one, so an app may know fewer fields of a table than the host.
        layout::compare(required.layout, offered.layout)
            .map_err(|difference| LoadFault::ServiceLayout { service, difference })?;
    }
    Ok(Library { module })
}

/// The error of `abi_stable` in short: its own text may be pages long.
fn in_short(error: &LibraryError) -> String {
    match error {
        LibraryError::InvalidAbiHeader(found) => {
            format!("ABI {}.{} of abi_stable", found.abi_major, found.abi_minor)
        }
        LibraryError::InvalidCAbi { .. } => "the C ABI differs".to_owned(),
        other => other.to_string(),
    }
}

/// An error's text with that of its cause, which `libloading` keeps apart.
fn with_source(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
