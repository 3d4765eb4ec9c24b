//! Users and groups as a configuration names them, and the rights of a socket's file.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// A user or a group: a name, or a number, which needs no entry in the system's databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// Digits may be the name as well; where nobody has it, they are the number.
    Name(String),
    Id(u32),
}

impl Account {
    /// The number that is meant where nobody has the name.
    pub fn id(&self) -> Option<u32> {
        match self {
            Self::Id(id) => Some(*id),
            // `u32::from_str` takes a sign. The largest number is "no change" to the kernel.
            Self::Name(name) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                name.parse().ok().filter(|id| *id != u32::MAX)
            }
            Self::Name(_) => None,
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "\"{name}\""),
            Self::Id(id) => id.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Account;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a number from 0 to 4294967294")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Account, E> {
                if name.is_empty() || name.contains(['\0', ':', '\n']) {
                    return Err(E::invalid_value(serde::de::Unexpected::Str(name), &self));
                }
                Ok(Account::Name(name.to_owned()))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Account, E> {
                match u32::try_from(id) {
                    Ok(id) if id != u32::MAX => Ok(Account::Id(id)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Unsigned(id), &self)),
                }
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Who may do what with the file of a Unix socket; what is absent is as the system makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// The permissions; the umask decides when absent.
    pub mode: Option<u32>,
    pub owner: Option<Account>,
    pub group: Option<Account>,
}

impl Rights {
    pub(super) const NONE: Self = Self { mode: None, owner: None, group: None };

    pub(super) fn parse(mode: Option<&str>, owner: Option<Account>, group: Option<Account>) -> Result<Self, String> {
        Ok(Self { mode: mode.map(parse_mode).transpose()?, owner, group })
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("\"mode\" is \"{text}\", expected octal digits up to \"777\""))
}
