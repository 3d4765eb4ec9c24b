//! Session tickets: what a client that comes back shows instead of a whole handshake, sealed with a key that all workers have.
//!
//! Keys are made and rotated by whoever gives them; here they are used. rustls' own ticketer gives its keys to nobody, so a
//! ticket of one worker would be worth nothing at another.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

use app_host_core::tls::{TICKET_KEY_BYTES, TICKET_KEYS, TICKET_LIFETIME};

const ID: usize = 8;

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
    /// With the keys that these bytes hold, one behind the other, the newest first.
    pub fn new(keys: &[u8]) -> Self {
        let this = Self { keys: RwLock::default(), random: SystemRandom::new() };
        this.set(keys);
        this
    }

    /// Goes on with other keys.
    pub fn set(&self, keys: &[u8]) {
        let (keys, _) = keys.as_chunks::<TICKET_KEY_BYTES>();
        let keys = keys.iter().take(TICKET_KEYS).filter_map(usable).collect();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}

/// A key and its name.
fn usable(bytes: &[u8; TICKET_KEY_BYTES]) -> Option<([u8; ID], LessSafeKey)> {
    let (id, key) = bytes.split_first_chunk::<ID>()?;
    Some((*id, LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?)))
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME
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

    fn key(byte: u8) -> [u8; TICKET_KEY_BYTES] {
        [byte; TICKET_KEY_BYTES]
    }

    #[test]
    fn a_ticket_opens_where_its_key_is_known_and_nowhere_else() {
        let (old, new) = (Tickets::new(&key(1)), Tickets::new(&[key(2), key(1)].concat()));
        let ticket = old.encrypt(b"session").unwrap();
        assert_eq!(new.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(old.decrypt(&new.encrypt(b"session").unwrap()), None, "of a key that is not here");
        new.set(&[key(3), key(2)].concat());
        assert_eq!(new.decrypt(&ticket), None, "the key is gone");
    }

    #[test]
    fn a_ticket_that_was_changed_anywhere_is_none() {
        let tickets = Tickets::new(&key(1));
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
        let tickets = Tickets::new(&key(1));
        assert_ne!(tickets.encrypt(b"session"), tickets.encrypt(b"session"));
        tickets.set(&[]);
        assert_eq!(tickets.encrypt(b"session"), None);
    }

    #[test]
    fn no_key_is_printed() {
        assert_eq!(format!("{:?}", Tickets::new(&key(7))), "Tickets(…)");
    }
}
