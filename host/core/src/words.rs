//! Enums whose values are words that operators match on: the same in logs, events, status, metrics and docs.

/// Defines an enum together with the word of each value, so that none can be without one: `ALL` has them in order,
/// `as_str`, `Display` and `Serialize` say the word.
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$of_value:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$of_value])* $value,)+
        }

        impl $name {
            /// All values, in the order of their definition.
            pub const ALL: &[Self] = &[$(Self::$value,)+];

            /// The value of this word; `None` for one that only another version of this program has.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }

            /// The word of this value.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    words! {
        /// For a test.
        pub enum Colour {
            /// Like fire.
            Red = "red",
            /// Like the deep sea.
            DarkBlue = "dark blue",
        }
    }

    #[test]
    fn each_value_has_its_word_wherever_it_is_said() {
        assert_eq!(Colour::ALL, [Colour::Red, Colour::DarkBlue]);
        assert_eq!(Colour::DarkBlue.to_string(), Colour::DarkBlue.as_str());
        assert_eq!(Colour::from_word("dark blue"), Some(Colour::DarkBlue));
        assert_eq!(Colour::from_word("DarkBlue"), None);
        assert_eq!(serde_json::to_string(&Colour::ALL).unwrap(), r#"["red","dark blue"]"#);
    }
}
