//! What a preflight has other processes look at: the library by the probe, the databank by its check.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use app_abi::Magic;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use app_host_core::config::databank::{Making, Setup, Store as DatabankStore};
use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::ids::Ended;
use app_host_core::message::{
    DatabankSetup, FromDatabankCheck, FromProbe, FromTlsCheck, ProbeSetup, TlsByListener, TlsSetup,
};
use app_host_core::restart::{Judged, Refusal};
use app_host_core::tls::CertificateInfo;
use app_host_platform::artifact::Version;
use app_host_platform::channel::{ChannelError, MasterEnd};
use app_host_platform::children::{Role, Streams};
use app_host_platform::logging;
use app_host_platform::logging::ChildPipe;

use super::patience::patiently;
use super::secrets::read_tls;
use super::{CHECK_MARGIN, Place, Preflight, Prepared, Refused, TLS_TIMEOUT, library};

impl Preflight {
    /// Whether a version fits this host, and beside what runs; says how long its probe took.
    pub(super) async fn examine(
        &self,
        place: Place<'_>,
        version: &Version,
        beside: Option<Magic>,
    ) -> Result<Duration, Refused> {
        let misfit = |refusal| Refused::judged(refusal, Judged::Version(version.id));
        version.manifest.fits_host().map_err(|error| misfit(Refusal::Incompatibility(error.to_string())))?;
        if let Some(started_with) = beside {
            same_magic(version.magic(), started_with).map_err(misfit)?;
        }
        // Last, because it runs the library's constructors; beside it the copy reaches the disk.
        let (store, copied) = (self.store.clone(), version.clone());
        let sync = async {
            self.on_disk("the disk: fsync of the library's copy", move || store.sync(&copied))
                .await
                .map_err(|error| Refusal::BadArtifact(error.to_string()))?
                .map_err(|error| Refused::from(Refusal::BadArtifact(chain(&error))))
        };
        let (probe, ()) = tokio::try_join!(self.probe(place, version), sync)?;
        Ok(probe)
    }

    /// Has a process of its own reach for the databank, as the workers' user.
    pub(super) async fn reach(&self, place: Place<'_>, databank: &Setup, making: Making) -> Result<(), Refusal> {
        if databank.store == DatabankStore::Memory {
            return Ok(());
        }
        let setup = DatabankSetup {
            databank: databank.clone(),
            making,
            core_dumps: place.config.core_dumps,
            log: logging::for_child(&place.config.log),
        };
        let limit = databank.timeout + CHECK_MARGIN;
        match self.ask(Role::DatabankCheck, place, &setup, &[], limit).await {
            Ok(FromDatabankCheck::Reached) => Ok(()),
            Ok(FromDatabankCheck::Unreachable { error }) => Err(Refusal::DatabankUnreachable(bounded(&error))),
            Err(NoAnswer::Log(error)) => Err(Refusal::BadConfig(error)),
            Err(NoAnswer::Spawn(error)) => {
                Err(Refusal::DatabankUnreachable(format!("its check can't be spawned: {error}")))
            }
            Err(NoAnswer::Died(how)) => Err(Refusal::DatabankUnreachable(format!("its check died: {how}"))),
            Err(NoAnswer::Garbage(what)) => {
                Err(Refusal::DatabankUnreachable(format!("its check says what no check says: {what}")))
            }
            Err(NoAnswer::Late) => Err(Refusal::DatabankUnreachable(format!("its check hung, for {limit:?}"))),
        }
    }

    /// Has a process of its own read every certificate and key, as the workers' user; says what is in them.
    pub async fn certificates(
        &self,
        place: Place<'_>,
        tls: &TlsByListener,
    ) -> Result<Arc<[Vec<CertificateInfo>]>, Refusal> {
        if tls.is_empty() {
            return Ok(Arc::new([]));
        }
        let setup = TlsSetup {
            listeners: tls.clone(),
            core_dumps: place.config.core_dumps,
            log: logging::for_child(&place.config.log),
        };
        let failed = |text: String| Refusal::BadConfig(format!("listen: the check of certificates {text}"));
        match self.ask(Role::TlsCheck, place, &setup, &[], TLS_TIMEOUT).await {
            Ok(FromTlsCheck::Usable { certificates }) => Ok(certificates.into()),
            Ok(FromTlsCheck::Unusable { listener, file, error }) => {
                let name = tls.get(listener).map_or("", |(name, _)| name.as_str());
                let files = place.config.listen.iter().find(|listen| listen.name == name);
                let path = files.and_then(|listen| listen.tls.as_ref()?.file(file));
                let path = path.unwrap_or(Path::new("")).display();
                Err(Refusal::BadConfig(format!("listen: {name}: tls: {path} {}", bounded(&error))))
            }
            Err(NoAnswer::Log(error)) => Err(Refusal::BadConfig(error)),
            Err(NoAnswer::Spawn(error)) => Err(failed(format!("can't be spawned: {error}"))),
            Err(NoAnswer::Died(how)) => Err(failed(format!("died: {how}"))),
            Err(NoAnswer::Garbage(what)) => Err(failed(format!("says what no check says: {what}"))),
            Err(NoAnswer::Late) => Err(failed(format!("hung, for {TLS_TIMEOUT:?}"))),
        }
    }

    /// The certificates and keys of a generation that runs, as they are in their files now.
    pub async fn read_certificates(
        &self,
        running: &Prepared,
    ) -> Result<(Arc<TlsByListener>, Arc<[Vec<CertificateInfo>]>), Refusal> {
        let config = Arc::clone(&running.config);
        let read = self.on_disk("the disk: certificates and keys", move || read_tls(&config)).await;
        let read = read.map_err(|error| error.to_string()).and_then(|read| read);
        let tls = Arc::new(read.map_err(Refusal::BadConfig)?);
        let place = Place { config: &running.config, home: &running.home, environment: &running.environment };
        let certificates = self.certificates(place, &tls).await?;
        Ok((tls, certificates))
    }

    /// Lets a throw-away process do the first `dlopen`; says how long it took.
    pub(super) async fn probe(&self, place: Place<'_>, version: &Version) -> Result<Duration, Refused> {
        let config = place.config;
        // As with the log, of which the probe gets its end.
        if let Some(path) = config.access_log.as_ref().and_then(|access_log| access_log.file.as_deref()) {
            logging::open_file(path).map_err(|error| Refusal::BadConfig(chain(&error)))?;
        }
        let begin = Instant::now();
        let limit = config.restart.start_timeout;
        let misfit = |refusal| Refused::judged(refusal, Judged::Version(version.id));
        let setup = ProbeSetup {
            library: library(version),
            directory: config.directory.clone(),
            home: self.identity.as_ref().and_then(|_| self.config_path.parent()).map(Path::to_owned),
            log: logging::for_child(&config.log),
        };
        match self.ask(Role::Probe, place, &setup, &[version.file.as_fd()], limit).await {
            Ok(FromProbe::Fits) => Ok(begin.elapsed()),
            Ok(FromProbe::Incompatible { error }) => Err(misfit(Refusal::Incompatibility(bounded(&error)))),
            Ok(FromProbe::NoWay { obstacle }) => {
                let directory = config.directory.as_deref().unwrap_or(Path::new("")).display();
                let obstacle = foreign::line(&obstacle.display().to_string(), foreign::MAX_TEXT);
                Err(Refusal::BadConfig(format!(
                    "directory: the workers' user can't enter {directory}: it can't pass {obstacle}"
                ))
                .into())
            }
            Ok(FromProbe::Bad { error }) => Err(misfit(Refusal::BadArtifact(bounded(&error)))),
            Err(NoAnswer::Log(error)) => Err(Refusal::BadConfig(error).into()),
            Err(NoAnswer::Spawn(error)) => {
                Err(Refusal::BadArtifact(format!("the probe can't be spawned: {error}")).into())
            }
            Err(NoAnswer::Died(how)) => Err(misfit(Refusal::BadArtifact(format!(
                "the probe died loading {}: {how}",
                version.library.display()
            )))),
            Err(NoAnswer::Garbage(what)) => Err(misfit(Refusal::BadArtifact(format!(
                "the probe that loads {} says what no probe says: {what}",
                version.library.display()
            )))),
            Err(NoAnswer::Late) => Err(misfit(Refusal::BadArtifact(format!(
                "the probe hung loading {}, for {limit:?}",
                version.library.display()
            )))),
        }
    }

    /// Spawns a throw-away process, asks it one question and kills it.
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        role: Role,
        place: Place<'_>,
        question: &Q,
        descriptors: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<A, NoAnswer> {
        let config = place.config;
        let log = ChildPipe::open(&config.log).map_err(|error| NoAnswer::Log(chain(&error)))?;
        let spawn_failed = |error: io::Error| NoAnswer::Spawn(chain(&error));
        let streams = Streams::from(log.ends().map_err(spawn_failed)?);
        let child = self.children.spawn(role, streams, self.identity.as_ref(), place.surroundings());
        let child = child.map_err(spawn_failed)?;
        let _leash = self.children.leash(child.pid);
        let _relay = log.follow(child.pid, &config.log).map_err(spawn_failed)?;
        let MasterEnd { to, mut from } = child.channel;
        let answer = async {
            match to.send_with(question, descriptors).await {
                Ok(()) => {}
                // A process that is gone already is noticed by its silence.
                Err(ChannelError::Socket(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => return Err(NoAnswer::Spawn(chain(&error))),
            }
            // It is no process of ours any more in what it says, and need not be waited for.
            from.receive::<A>().await.map_err(|garbage| NoAnswer::Garbage(chain(&garbage)))
        };
        match patiently(role.argument(), limit, timeout(limit, answer)).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => {
                let ended = timeout(limit, child.ended).await.ok().and_then(Result::ok).map(|reaped| reaped.how);
                Err(NoAnswer::Died(ended_text(ended)))
            }
            Err(_) => Err(NoAnswer::Late),
        }
    }
}

/// What a child says of a failure. It has bounded it, if it is one of ours.
fn bounded(error: &str) -> String {
    foreign::line(error, foreign::MAX_TEXT)
}

/// Why a throw-away process gave no answer.
enum NoAnswer {
    Log(String),
    Spawn(String),
    Died(String),
    Garbage(String),
    Late,
}

fn ended_text(ended: Option<Ended>) -> String {
    ended.map_or_else(|| "it closed its socket and runs on".to_owned(), |ended| ended.to_string())
}

/// Checks that two libraries may run side by side.
fn same_magic(found: Magic, started_with: Magic) -> Result<(), Refusal> {
    if found == started_with {
        return Ok(());
    }
    let half = if found.abi() == started_with.abi() {
        "the low half differs, the app's epoch"
    } else {
        "the high half differs, the ABI"
    };
    Err(Refusal::Incompatibility(format!("its magic is {found}, and the master started with {started_with} ({half})")))
}
