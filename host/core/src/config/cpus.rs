//! The key `cpus`: on which processors workers run.

use std::fmt;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error as _, SeqAccess, Unexpected, Visitor};

/// More than any machine has that the kernel's own sets have room for (`CPU_SETSIZE`, `CPU_SET(3)`).
const MOST: u16 = 1024;

/// Which processors workers are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cpus {
    /// All that the master has; the kernel chooses.
    #[default]
    Any,
    /// As many for each worker as it has serving threads, of all that the master has.
    Auto,
    /// So many of these.
    These(Vec<u16>),
}

impl Cpus {
    /// Those of the worker in a slot with so many serving threads; `all` are the master's. None: it has all of them.
    pub fn of(&self, slot: u16, threads: u16, all: &[u16]) -> Vec<u16> {
        let from = match self {
            Self::Any => return Vec::new(),
            Self::Auto => all,
            Self::These(cpus) => cpus,
        };
        let (slot, threads) = (usize::from(slot), usize::from(threads).min(from.len()));
        let mut cpus: Vec<u16> = from.iter().cycle().skip(slot * threads).take(threads).copied().collect();
        cpus.sort_unstable();
        cpus
    }

    /// The first of those that are named which the master doesn't have.
    pub fn missing(&self, all: &[u16]) -> Option<u16> {
        match self {
            Self::Any | Self::Auto => None,
            Self::These(cpus) => cpus.iter().copied().find(|cpu| !all.contains(cpu)),
        }
    }
}

/// Reads null, `"auto"`, or a list of numbers.
pub(super) fn cpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cpus, D::Error> {
    struct Any;

    const EXPECTED: &str = "null, \"auto\" or a list of the numbers of processors, from 0 to 1023";

    impl<'de> Visitor<'de> for Any {
        type Value = Cpus;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Cpus, E> {
            Ok(Cpus::Any)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cpus, E> {
            if text == "auto" { Ok(Cpus::Auto) } else { Err(E::invalid_value(Unexpected::Str(text), &EXPECTED)) }
        }

        fn visit_seq<A: SeqAccess<'de>>(self, numbers: A) -> Result<Cpus, A::Error> {
            let numbers = Vec::<u16>::deserialize(SeqAccessDeserializer::new(numbers))?;
            if numbers.is_empty() {
                return Err(A::Error::invalid_length(0, &"at least one processor"));
            }
            for (at, number) in numbers.iter().enumerate() {
                if *number >= MOST {
                    return Err(A::Error::invalid_value(Unexpected::Unsigned((*number).into()), &EXPECTED));
                }
                if numbers[..at].contains(number) {
                    return Err(A::Error::custom(format_args!("processor {number} is there twice")));
                }
            }
            Ok(Cpus::These(numbers))
        }
    }

    deserializer.deserialize_any(Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_given_their_processors_in_turn() {
        let all = [0, 1, 2, 5];
        for (cpus, slot, threads, expected) in [
            (Cpus::Any, 1, 1, vec![]),
            (Cpus::Auto, 0, 1, vec![0]),
            (Cpus::Auto, 3, 1, vec![5]),
            (Cpus::Auto, 4, 1, vec![0]),
            (Cpus::Auto, 1, 2, vec![2, 5]),
            (Cpus::Auto, 1, 3, vec![0, 1, 5]),
            (Cpus::Auto, 7, 64, vec![0, 1, 2, 5]),
            (Cpus::These(vec![5, 1]), 0, 1, vec![5]),
            (Cpus::These(vec![5, 1]), 1, 1, vec![1]),
            (Cpus::These(vec![5, 1]), 511, 2, vec![1, 5]),
        ] {
            assert_eq!(cpus.of(slot, threads, &all), expected, "{cpus:?} {slot} {threads}");
        }
        assert_eq!(Cpus::Auto.of(0, 1, &[]), Vec::<u16>::new(), "where the system doesn't say");
        assert_eq!(Cpus::These(vec![5, 6]).missing(&all), Some(6));
        assert_eq!(Cpus::Auto.missing(&all), None);
    }
}
