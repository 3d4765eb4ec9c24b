//! Numbers with bounds, and amounts of bytes: what is wrong with one is said in the words of the configuration.

use std::fmt;

use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// A number from `least` to `most`, or null where that says something.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub(super) least: u64,
    pub(super) most: u64,
    pub(super) null: bool,
}

impl Number {
    pub(super) fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<u64>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Number {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most, null } = self;
        let or_null = if *null { "null, or " } else { "" };
        match *most {
            u64::MAX => write!(f, "{or_null}a number from {least}"),
            most => write!(f, "{or_null}a number from {least} to {most}"),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        if self.null { Ok(None) } else { Err(E::invalid_type(Unexpected::Unit, &self)) }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let is_within = (self.least..=self.most).contains(&number);
        if is_within { Ok(Some(number)) } else { Err(E::invalid_value(Unexpected::Unsigned(number), &self)) }
    }
}

/// An amount of bytes: null where that says something, a number, or a text with a unit.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    pub(super) least: u64,
    pub(super) most: u64,
    /// Whether null says something.
    pub(super) null: bool,
    /// What the text `"unlimited"` stands for, where it may be said.
    pub(super) unlimited: Option<u64>,
}

impl Bytes {
    /// Any amount.
    pub(super) const ANY: Self = Self { least: 0, most: u64::MAX, null: false, unlimited: None };

    pub(super) fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<u64>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Bytes {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.null { "null, a number of bytes" } else { "a number of bytes" })?;
        match (self.least, self.most) {
            (0, u64::MAX) => {}
            (least, u64::MAX) => write!(f, " from {least}")?,
            (least, most) => write!(f, " from {least} to {most}")?,
        }
        f.write_str(", or a text such as \"512MiB\" (KiB, MiB, GiB)")?;
        if self.unlimited.is_some() { f.write_str(", or \"unlimited\"") } else { Ok(()) }
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        if self.null { Ok(None) } else { Err(E::invalid_type(Unexpected::Unit, &self)) }
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Self::Value, E> {
        let is_within = (self.least..=self.most).contains(&bytes);
        if is_within { Ok(Some(bytes)) } else { Err(E::invalid_value(Unexpected::Unsigned(bytes), &self)) }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let bytes = match self.unlimited.filter(|_| text == "unlimited") {
            None => parse(text).filter(|bytes| (self.least..=self.most).contains(bytes)),
            unlimited => unlimited,
        };
        bytes.map(Some).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start() {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
