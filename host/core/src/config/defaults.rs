//! Every default, where a reader can see them together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::listen::RawListen;
use super::raw::RawLog;
use super::{Environment, Http2Restart, Inherit, LogFormat, LogLevel, OnFailure, Restart, Watched};

pub(super) fn app_config() -> Arc<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("an empty object is valid JSON").into()
}

pub(super) fn listen() -> Vec<RawListen> {
    vec![RawListen::Text("127.0.0.1:8080".to_owned())]
}

pub(super) const WORKERS: u16 = 2;
pub(super) const THREADS: u16 = 1;
pub(super) const VERSIONS_KEPT: u16 = 5;
pub(super) const HANG_TIMEOUT: Option<Duration> = Some(Duration::from_mins(1));

pub(super) fn state_dir() -> PathBuf {
    PathBuf::from("state")
}

pub(super) const fn environment() -> Environment {
    Environment { inherit: Inherit::All, file: None }
}

/// Under the state directory, when no other path is given.
pub(super) const PID_FILE: &str = "app-host.pid";

/// Under the state directory, when no other path is given.
pub(super) const CONTROL_SOCKET: &str = "control.sock";

pub(super) const fn watch() -> Watched {
    Watched::NOTHING
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(10),
            probation: Duration::from_millis(250),
            idle_linger: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(30),
            on_failure: OnFailure::Lock,
            parallel: 1,
            while_draining: false,
            handover: true,
            balance: true,
            http2: Http2Restart::Goaway,
            single: false,
            state_limit: 64 << 20,
            state_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info, file: None }
    }
}
