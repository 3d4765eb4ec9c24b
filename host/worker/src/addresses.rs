//! How many connections each client has in this worker, for `connections.max_per_address`.
//!
//! A client is an address of IPv4, or a network of 64 bits of IPv6: that much each host may be given to choose from (RFC
//! 7421, section 2).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections of all clients. Has an entry for each client that has one.
#[derive(Debug)]
pub(super) struct Addresses {
    most: u64,
    counts: Mutex<HashMap<IpAddr, u64>>,
}

/// A client's connection is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    addresses: Arc<Addresses>,
    client: IpAddr,
}

/// What is counted as one client.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

impl Addresses {
    /// Each client may have so many connections.
    pub(super) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::default() })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a new connection, unless its client has as many as it may.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Box<Permit>> {
        self.count(address, self.most)
    }

    /// Counts a connection that was admitted by another worker.
    pub(super) fn adopt(self: &Arc<Self>, address: IpAddr) -> Option<Box<Permit>> {
        self.count(address, u64::MAX)
    }

    fn count(self: &Arc<Self>, address: IpAddr, most: u64) -> Option<Box<Permit>> {
        let client = client(address);
        let mut counts = self.counts();
        let count = counts.entry(client).or_default();
        // An entry that was just made has room: the least limit is 1.
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Box::new(Permit { addresses: Arc::clone(self), client }))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(addresses: &Arc<Addresses>, address: &str) -> Option<Box<Permit>> {
        addresses.admit(address.parse().unwrap())
    }

    #[test]
    fn each_client_has_as_many_as_it_may_and_nobody_is_remembered_who_has_none() {
        let addresses = Addresses::new(2);
        let first = admit(&addresses, "192.0.2.1").unwrap();
        let second = admit(&addresses, "192.0.2.1").unwrap();
        assert!(admit(&addresses, "192.0.2.1").is_none());
        let other = admit(&addresses, "192.0.2.2").unwrap();
        // What another worker has admitted is counted, and never turned away.
        let adopted = addresses.adopt("192.0.2.1".parse().unwrap()).unwrap();
        drop(first);
        assert!(admit(&addresses, "192.0.2.1").is_none());
        drop(second);
        let third = admit(&addresses, "192.0.2.1").unwrap();
        assert!(admit(&addresses, "192.0.2.1").is_none());
        drop((other, adopted, third));
        assert!(addresses.counts().is_empty());
    }

    #[test]
    fn a_network_of_64_bits_is_one_client_of_ipv6() {
        let addresses = Addresses::new(1);
        let _first = admit(&addresses, "2001:db8:1:2::1").unwrap();
        assert!(admit(&addresses, "2001:db8:1:2:ffff::2").is_none());
        assert!(admit(&addresses, "2001:db8:1:3::1").is_some());
    }
}
