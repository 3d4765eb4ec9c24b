//! Configurations of arbitrary bytes: each is accepted, or refused with words that name its place.
//!
//! Run as `command` is (see there), with `--bin config` and without the dictionary.
#![no_main]

use std::path::Path;

use app_host_core::config::{self, Config};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("/etc/app-host/app-host.json");
    match Config::parse(bytes, path) {
        Err(error) => assert!(error.to_string().starts_with("/etc/app-host/app-host.json:"), "{error}"),
        Ok(config) => {
            assert!((1..=config::MAX_WORKERS).contains(&config.workers));
            assert!((1..=config::MAX_THREADS).contains(&config.threads));
            assert!((1..=config::MAX_LISTENERS).contains(&config.listen.len()));
            assert!(config.app_listeners.len() <= config::MAX_APP_LISTENERS);
            assert_eq!(config.fixed_difference(&config), None);
            // Who speaks to a running master reads less of the file, and finds the same.
            let found = config::find_control_socket(bytes, path);
            assert_eq!((found.socket, found.doubt), (config.control_socket.path, None));
        }
    }
});
