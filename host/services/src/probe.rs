//! The probe: a short-lived process that does the first `dlopen` of a version.
//!
//! A library's constructors run at `dlopen` and may abort, hang or exit. Here they do no harm: the master sees the probe
//! die or stay silent. The probe never calls the app's `start`.

use std::process::ExitCode;

use anyhow::Context;
use app_abi::Magic;

use app_host_core::error::chain;
use app_host_core::foreign;
use app_host_core::message::{FromProbe, Library, ProbeSetup};
use app_host_platform::artifact::Loadable;
use app_host_platform::channel::Channel;
use app_host_platform::identity;
use app_host_platform::logging;
use app_host_platform::sys;

use crate::loader;

/// Runs the probe, whose control socket is standard input.
pub fn run() -> anyhow::Result<ExitCode> {
    let control = sys::take_stdin()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = Channel::from_owned_fd(control)?;
        // The master has died or given up, and needs no answer.
        let Some((setup, descriptors)) = channel.receive::<ProbeSetup>().await? else { return Ok(ExitCode::SUCCESS) };
        logging::init_child(setup.log, None)?;
        // Before any code of the library runs.
        if let Some(obstacle) = setup.directory.as_deref().and_then(identity::obstacle_into) {
            channel.send(&FromProbe::NoWay { obstacle }).await?;
            sys::exit_now(0);
        }
        if let (Some(home), None) = (&setup.home, &setup.directory)
            && let Some(obstacle) = identity::obstacle_into(home)
        {
            let advice =
                "paths that the app has relative to it lead nowhere; set \"directory\" to one that it can enter";
            let (home, obstacle) = (home.display().to_string(), obstacle.display().to_string());
            tracing::warn!(
                directory = %foreign::printable(&home),
                obstacle = %foreign::printable(&obstacle),
                advice,
                "the workers' user can't enter the configuration's directory"
            );
        }
        let Library { path, name, magic, .. } = setup.library;
        let file = descriptors.into_iter().next().context("the version's file didn't come with the setup")?;
        let file = Loadable::new(file, &path);
        let answer = match loader::open(file.path(), &name, Magic(magic)) {
            Ok(_) => FromProbe::Fits,
            Err(error) if error.is_incompatibility() => FromProbe::Incompatible { error: chain(&error) },
            Err(error) => FromProbe::Bad { error: chain(&error) },
        };
        logging::finish_unless_stalled();
        channel.send(&answer).await?;
        // Without destructors: the app was never started.
        sys::exit_now(0)
    })
}
