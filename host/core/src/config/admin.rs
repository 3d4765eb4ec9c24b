//! The key `admin`: where metrics and the page for operators are served, if at all.

use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::account::Account;
use super::address::Address;
use super::forms::{Forms, Written};
use super::listen::{self, Listen, RawListen, RawListenObject};

/// What the log calls it.
const NAME: &str = "admin";

/// How many connections may wait, which is more than are served at the same time.
const BACKLOG: u32 = 128;

struct RawAdmin(Written<RawAdminObject>);

impl<'de> Deserialize<'de> for RawAdmin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const FORMS: Forms = Forms {
            expected: "null, \"IP:PORT\", \":PORT\", a port, \"unix:PATH\" or an object with the keys address, mode, owner, \
                       group, freebind",
            port: true,
        };
        FORMS.read(deserializer).map(Self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdminObject {
    address: String,
    mode: Option<String>,
    freebind: Option<bool>,
    owner: Option<Account>,
    group: Option<Account>,
}

/// Checks it while its line is still known.
pub(super) fn admin<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RawListen>, D::Error> {
    let Some(RawAdmin(raw)) = Option::<RawAdmin>::deserialize(deserializer)? else { return Ok(None) };
    let plain = |address| RawAdminObject { address, mode: None, owner: None, group: None, freebind: None };
    let RawAdminObject { address, mode, owner, group, freebind } = match raw {
        Written::Port(port) => plain(port.to_string()),
        Written::Text(address) => plain(address),
        Written::Object(object) => object,
    };
    let raw = RawListenObject {
        address,
        name: Some(NAME.to_owned()),
        backlog: Some(BACKLOG),
        mode,
        owner,
        group,
        freebind,
        ..RawListenObject::default()
    };
    let listen = RawListen::Object(Box::new(raw));
    let parsed = listen.parse(Path::new("/")).map_err(D::Error::custom)?;
    parsed.address.one_socket().map_err(D::Error::custom)?;
    Ok(Some(listen))
}

/// What is wrong with it beside the listeners of the app, if anything is. Port 0 is another one each time.
pub(super) fn clash(admin: &Listen, others: &[Listen], key: &str) -> Option<String> {
    if matches!(&admin.address, Address::Tcp(address) if address.port() == 0) || admin.address == Address::Everywhere(0)
    {
        return None;
    }
    others.iter().find_map(|other| listen::taken(&admin.address, &other.address, key))
}
