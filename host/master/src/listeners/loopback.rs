//! The addresses of `localhost`, asked of the system.
//!
//! Which resolver that is (`nsswitch.conf(5)`) and how long it takes is the administrator's, so it is asked on a thread
//! of its own, which nobody waits for without a deadline.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use app_host_core::config::{Address, Config};

use super::{BindError, Listeners};

/// How long that may take: with `/etc/hosts` it takes no time.
const RESOLVING: Duration = Duration::from_secs(5);

/// What `localhost` is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loopback(Vec<IpAddr>);

impl Loopback {
    /// What has to be known of it to bind the listeners of `config`, of which those of `running` are bound already.
    ///
    /// # Errors
    /// When the name has no address, or one that isn't this machine's alone, or when that isn't known in time.
    pub async fn find(config: &Config, running: &Listeners) -> Result<Self, BindError> {
        let is_wanted = |address: &Address| matches!(address, Address::Localhost(_)) && !running.has(address);
        if config.listen.iter().any(|listen| is_wanted(&listen.address)) {
            Self::resolve().await
        } else {
            Ok(Self::default())
        }
    }

    async fn resolve() -> Result<Self, BindError> {
        let (sender, found) = oneshot::channel();
        let ask = move || {
            let found = ("localhost", 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
            // It may have taken too long.
            let _ = sender.send(found);
        };
        std::thread::Builder::new().name("resolve".to_owned()).spawn(ask).map_err(BindError::Localhost)?;
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("nothing came within {RESOLVING:?}"));
        let found = timeout(RESOLVING, found).await.map_err(|_| BindError::Localhost(late()))?;
        Self::of(found.unwrap_or_else(|_| Err(io::Error::other("its thread has ended"))).map_err(BindError::Localhost)?)
    }

    fn of(found: Vec<IpAddr>) -> Result<Self, BindError> {
        let mut addresses = Vec::new();
        for address in found {
            if !address.is_loopback() {
                return Err(BindError::Localhost(io::Error::other(format!(
                    "it is {address}, which is no loopback address"
                ))));
            }
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            Err(BindError::Localhost(io::ErrorKind::NotFound.into()))
        } else {
            Ok(Self(addresses))
        }
    }

    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.0
    }

    #[cfg(test)]
    pub(super) const fn for_tests(addresses: Vec<IpAddr>) -> Self {
        Self(addresses)
    }

    #[cfg(test)]
    pub(super) fn both() -> Self {
        Self(vec![std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_localhost() {
        let of = |found: &[&str]| Loopback::of(found.iter().map(|address| address.parse().unwrap()).collect());
        assert_eq!(of(&["127.0.0.1", "::1", "127.0.0.1"]).unwrap(), Loopback::both());
        assert_eq!(of(&["::1"]).unwrap().addresses().len(), 1);
        for (found, expected) in
            [(&["127.0.0.1", "10.0.0.1"][..], "10.0.0.1, which is no loopback"), (&[], "not found")]
        {
            let error = app_host_core::error::chain(&of(found).unwrap_err());
            assert!(error.contains("localhost") && error.contains(expected), "{error}");
        }
    }
}
