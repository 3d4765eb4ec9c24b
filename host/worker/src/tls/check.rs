//! The check of certificates: a short-lived process that reads what the master only carries.
//!
//! Runs as the workers' user, and reads every certificate and key of a configuration that a restart would bring in, so that
//! no parser of them runs in the master, and no worker is spawned for one that can't be used.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use app_host_core::foreign;
use app_host_core::message::{FromTlsCheck, TlsSetup};
use app_host_core::tls::{CertificateInfo, TlsFile, TlsSettings};
use app_host_platform::channel::{Channel, ChannelError};
use app_host_platform::logging;
use app_host_platform::sys;
use app_host_tls::{CertificateError, Tickets, TlsServer, check};

/// Why a check ends without an answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It has no runtime, or no control socket.
    #[error("the check can't begin")]
    Begin(#[from] std::io::Error),
    /// Its master can't be talked to.
    #[error("the master can't be talked to")]
    Channel(#[from] ChannelError),
    /// It has no log.
    #[error("the log can't be begun")]
    Log(#[from] logging::LoggingError),
}

/// Runs the check, whose control socket is standard input.
pub fn run() -> Result<ExitCode, CheckError> {
    let control = sys::take_stdin()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = Channel::from_owned_fd(control)?;
        // The master has died or given up, and needs no answer.
        let Some((setup, _)) = channel.receive::<TlsSetup>().await? else { return Ok(ExitCode::SUCCESS) };
        logging::init_child(setup.log, None)?;
        sys::process::allow_core_dumps(setup.core_dumps);
        // Before 1970 nothing is valid.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let checked = setup.listeners.iter().enumerate().map(|(listener, (_, settings))| {
            usable(settings, now).map_err(|(file, error)| {
                let error = foreign::line(&words(&error), foreign::MAX_TEXT);
                FromTlsCheck::Unusable { listener, file, error }
            })
        });
        let answer = match checked.collect::<Result<_, _>>() {
            Ok(certificates) => FromTlsCheck::Usable { certificates },
            Err(unusable) => unusable,
        };
        logging::finish_unless_stalled();
        channel.send(&answer).await?;
        sys::exit_now(0)
    })
}

/// Checks one listener's.
fn usable(settings: &TlsSettings, now: i64) -> Result<Vec<CertificateInfo>, (TlsFile, CertificateError)> {
    let file = |number: Option<usize>, error: &CertificateError| match number {
        None => TlsFile::Authorities,
        Some(number) if error.is_of_key() => TlsFile::Key(number),
        Some(number) if *error == CertificateError::NoOcsp => TlsFile::Ocsp(number),
        Some(number) => TlsFile::Certificate(number),
    };
    let with_file = |number, error| (file(number, &error), error);
    let checked = settings.identities.iter().enumerate();
    let checked =
        checked.map(|(number, identity)| check(identity, now).map_err(|error| with_file(Some(number), error)));
    let infos = checked.collect::<Result<_, _>>()?;
    TlsServer::new(settings, Arc::new(Tickets::new(&[]))).map_err(|(number, error)| with_file(number, error))?;
    Ok(infos)
}

/// An error in words, with the times that it is about.
fn words(error: &CertificateError) -> String {
    let at = |seconds: i64| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        humantime::format_rfc3339_seconds(UNIX_EPOCH + std::time::Duration::from_secs(seconds))
    };
    match error {
        CertificateError::Expired(since) => format!("{error}: it was valid until {}", at(*since)),
        CertificateError::NotYetValid(from) => format!("{error}: it is valid from {} on", at(*from)),
        _ => error.to_string(),
    }
}
