//! Session tickets: what a client that comes back shows instead of a whole handshake, sealed with a key that all workers have.
//!
//! Keys are made and rotated by whoever gives them; here they are used. rustls' own ticketer gives its keys to nobody, so a
//! ticket of one worker would be worth nothing at another.

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// For how long clients are told to keep a ticket. A key must be known for as long after its last ticket.
pub const TICKET_LIFETIME: Duration = Duration::from_hours(6);

/// How many keys are known at a time: the one that seals, and earlier ones whose tickets are still out.
const MAX_KEYS: usize = 4;

const ID: usize = 8;

/// A key that seals tickets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct TicketKey {
    /// What a ticket begins with, so that its key is found.
    id: [u8; ID],
    key: [u8; 32],
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(…)")
    }
}

impl TicketKey {
    /// The key of these random bytes.
    pub fn new(random: &[u8; Self::RANDOM]) -> Self {
        let (mut id, mut key) = ([0; ID], [0; 32]);
        id.copy_from_slice(&random[..ID]);
        key.copy_from_slice(&random[ID..]);
        Self { id, key }
    }

    /// How many random bytes a key is made of.
    pub const RANDOM: usize = ID + 32;

    fn usable(&self) -> Option<([u8; ID], LessSafeKey)> {
        Some((self.id, LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.key).ok()?)))
    }
}

/// The keys that are known now, shared by all connections of a process.
pub struct Tickets {
    /// The first seals; all open.
    keys: RwLock<Vec<([u8; ID], LessSafeKey)>>,
    random: SystemRandom,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(…)")
    }
}

impl Tickets {
    /// With these keys, the newest first.
    pub fn new(keys: &[TicketKey]) -> Self {
        let this = Self { keys: RwLock::default(), random: SystemRandom::new() };
        this.set(keys);
        this
    }

    /// Goes on with other keys, the newest first.
    pub fn set(&self, keys: &[TicketKey]) {
        let keys = keys.iter().take(MAX_KEYS).filter_map(TicketKey::usable).collect();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // A few hours.
        u32::try_from(TICKET_LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let (id, key) = keys.first()?;
        // Random, because several processes use the same key: 2^32 tickets are far more than a key lives to see.
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(ID + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(id);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(id), &mut ticket[ID + NONCE_LEN..]).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = ticket.split_first_chunk::<ID>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        // Which key it is, is no secret: the ticket says it.
        let (_, key) = keys.iter().find(|(known, _)| known == id)?;
        let mut plain = sealed.to_vec();
        let length = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(id), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> TicketKey {
        TicketKey::new(&[byte; TicketKey::RANDOM])
    }

    #[test]
    fn a_ticket_opens_where_its_key_is_known_and_nowhere_else() {
        let (old, new) = (Tickets::new(&[key(1)]), Tickets::new(&[key(2), key(1)]));
        let ticket = old.encrypt(b"session").unwrap();
        assert_eq!(new.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(old.decrypt(&new.encrypt(b"session").unwrap()), None, "of a key that is not here");
        new.set(&[key(3), key(2)]);
        assert_eq!(new.decrypt(&ticket), None, "the key is gone");
    }

    #[test]
    fn a_ticket_that_was_changed_anywhere_is_none() {
        let tickets = Tickets::new(&[key(1)]);
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn equal_sessions_have_different_tickets_and_without_a_key_none() {
        let tickets = Tickets::new(&[key(1)]);
        assert_ne!(tickets.encrypt(b"session"), tickets.encrypt(b"session"));
        tickets.set(&[]);
        assert_eq!(tickets.encrypt(b"session"), None);
    }

    #[test]
    fn no_key_is_printed() {
        assert_eq!(format!("{:?} {:?}", key(7), Tickets::new(&[key(7)])), "TicketKey(…) Tickets(…)");
    }
}
