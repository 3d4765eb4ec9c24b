//! The key `environment`: which variables children get, of the master's and of a file.
//!
//! Pure: who reads the file is told its path. The file is what systemd calls an `EnvironmentFile=`, and tools for
//! containers an env file (`parse_env_file` in systemd): see [`parse`].

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};

use crate::secret::Secret;

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    pub inherit: Inherit,
    /// A file with more of them, which is read at each restart.
    pub file: Option<PathBuf>,
}

/// Which of the master's variables are passed on. Those by which a service manager speaks with the master never are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inherit {
    All,
    /// Those of these names, as far as there are any.
    Only(Vec<String>),
}

/// The variables of a generation's children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variables {
    pub inherit: Inherit,
    /// Those of the file, which go before all others.
    pub own: Vec<(String, Secret)>,
}

impl Variables {
    /// None at all.
    pub const NONE: Self = Self { inherit: Inherit::Only(Vec::new()), own: Vec::new() };
}

/// The variables by which a service manager speaks with the process that it has started. They are not meant for
/// children: an app that thinks it is watched would speak in the master's name.
pub const MANAGERS: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

impl Environment {
    /// The variables; `read` reads the file. A relative path is relative to `directory`.
    ///
    /// # Errors
    /// Those of `read`, and what is wrong in the file, by its path and line and without a word of what stands there.
    pub fn resolve(
        &self,
        directory: &Path,
        read: impl Fn(&Path) -> Result<String, String>,
    ) -> Result<Variables, String> {
        let own = match &self.file {
            None => Vec::new(),
            Some(file) => {
                let path = directory.join(file);
                let text = read(&path).map_err(|error| format!("environment.file: {error}"))?;
                parse(&text)
                    .map_err(|Fault { line, what }| format!("environment.file: {}:{line}: {what}", path.display()))?
            }
        };
        Ok(Variables { inherit: self.inherit.clone(), own })
    }
}

/// Reads `"all"`, a list of names, or an object that names a file.
pub(super) fn environment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Environment, D::Error> {
    read(deserializer, Within::Configuration)
}

fn inherit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Environment, D::Error> {
    read(deserializer, Within::Object)
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Configuration,
    /// In an object itself, so it is none.
    Object,
}

fn read<'de, D: Deserializer<'de>>(deserializer: D, within: Within) -> Result<Environment, D::Error> {
    struct Any(Within);

    const EXPECTED: &str = "\"all\", a list of names of variables, or an object with the keys inherit, file";

    impl<'de> Visitor<'de> for Any {
        type Value = Environment;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Environment, E> {
            if text == "all" {
                Ok(Environment { inherit: Inherit::All, file: None })
            } else {
                Err(E::invalid_value(Unexpected::Str(text), &EXPECTED))
            }
        }

        fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Environment, A::Error> {
            let names = Vec::<String>::deserialize(SeqAccessDeserializer::new(names))?;
            // What `setenv(3)` takes.
            match names.iter().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
                Some(name) => Err(A::Error::invalid_value(Unexpected::Str(name), &"the name of a variable")),
                None => Ok(Environment { inherit: Inherit::Only(names), file: None }),
            }
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Environment, A::Error> {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Object {
                #[serde(default = "super::defaults::environment", deserialize_with = "inherit")]
                inherit: Environment,
                file: Option<PathBuf>,
            }
            if self.0 == Within::Object {
                return Err(A::Error::custom("inherit: expected \"all\" or a list of names of variables"));
            }
            let Object { inherit, file } = Object::deserialize(MapAccessDeserializer::new(map))?;
            if file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
                return Err(A::Error::custom("file: expected a path, and it is empty"));
            }
            Ok(Environment { file, ..inherit })
        }
    }

    deserializer.deserialize_any(Any(within))
}

/// What is wrong in a file, without what stands there: that may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fault {
    /// Counted from 1.
    line: usize,
    what: &'static str,
}

/// Reads `NAME=VALUE` lines.
///
/// Empty lines, and those that begin with `#` or `;`, are passed over, and so is an `export ` before a name. A value ends
/// with its line, without spaces around it; a `\` there takes the next character as it is, and joins two lines. In `'…'`
/// everything is as it is, in `"…"` a `\` stands before `"`, `\`, `` ` `` and `$`; both may go over lines. Nothing is
/// expanded, and a `#` behind a value belongs to it. Of two lines with one name the last counts.
fn parse(text: &str) -> Result<Vec<(String, Secret)>, Fault> {
    let mut found: Vec<(String, Secret)> = Vec::new();
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    if text.starts_with('\u{feff}') {
        return Err(Fault { line: 1, what: "it begins with a byte order mark; save it without one" });
    }
    if text.contains('\0') {
        let line = text.split('\0').next().unwrap_or_default().matches('\n').count() + 1;
        return Err(Fault { line, what: "it has a NUL, which no variable can have" });
    }
    loop {
        reader.skip(char::is_whitespace);
        let line = reader.line;
        match reader.rest.peek() {
            None => return Ok(found),
            Some('#' | ';') => {
                reader.skip(|char| char != '\n');
                continue;
            }
            Some(_) => {}
        }
        let name = reader.name().ok_or(Fault { line, what: "expected NAME=VALUE, and there is no \"=\"" })?;
        let name = name.trim_end();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
        if name.is_empty() || !name.chars().all(is_word) || name.starts_with(|char: char| char.is_ascii_digit()) {
            let what = "expected NAME=VALUE, with a name of letters, digits and \"_\" that begins with no digit";
            return Err(Fault { line, what });
        }
        if MANAGERS.contains(&name) {
            return Err(Fault { line, what: "this name is the service manager's, and no child gets it" });
        }
        let value = Secret::new(reader.value()?);
        match found.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => found.push((name.to_owned(), value)),
        }
    }
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn skip(&mut self, mut what: impl FnMut(char) -> bool) {
        while self.rest.peek().is_some_and(|char| what(*char)) {
            self.next();
        }
    }

    /// What stands before the `=`, on this line.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        loop {
            match self.rest.peek()? {
                '=' => {
                    self.next();
                    return Some(name);
                }
                '\n' | '\r' => return None,
                _ => name.extend(self.next()),
            }
        }
    }

    /// What stands behind it, up to the end of the line where no quote is open.
    fn value(&mut self) -> Result<String, Fault> {
        let mut value = String::new();
        loop {
            self.skip(|char| char == ' ' || char == '\t');
            match self.rest.peek() {
                None | Some('\n' | '\r') => return Ok(value),
                Some(quote @ ('\'' | '"')) => {
                    let quote = *quote;
                    self.quoted(quote, &mut value)?;
                }
                Some(_) => {
                    self.plain(&mut value);
                    return Ok(value);
                }
            }
        }
    }

    fn quoted(&mut self, quote: char, value: &mut String) -> Result<(), Fault> {
        let open = Fault { line: self.line, what: "a quote is opened here and never closed" };
        self.next();
        loop {
            match self.next().ok_or(open)? {
                char if char == quote => return Ok(()),
                '\\' if quote == '"' => match self.next().ok_or(open)? {
                    char @ ('"' | '\\' | '`' | '$') => value.push(char),
                    '\n' => {}
                    char => value.extend(['\\', char]),
                },
                char => value.push(char),
            }
        }
    }

    fn plain(&mut self, value: &mut String) {
        // As far as it is kept: spaces at the end aren't, unless a `\` stands before them.
        let mut kept = value.len();
        while let Some(char) = self.rest.peek().copied() {
            match char {
                '\n' | '\r' => break,
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\r') if self.rest.peek() == Some(&'\n') => drop(self.next()),
                        None | Some('\n') => {}
                        Some(char) => value.push(char),
                    }
                    kept = value.len();
                }
                char => {
                    self.next();
                    value.push(char);
                    if !char.is_whitespace() {
                        kept = value.len();
                    }
                }
            }
        }
        value.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let found = parse(text).unwrap_or_else(|fault| panic!("{text:?}: {fault:?}"));
        found.into_iter().map(|(name, value)| (name, value.reveal().to_owned())).collect()
    }

    #[test]
    fn a_file_is_read_as_systemd_reads_it() {
        for (text, expected) in [
            ("", ""),
            ("A=1\n", "1"),
            ("A=1", "1"),
            ("  A=  a b  \t\r\n", "a b"),
            ("# A=0\n; A=0\n\nA=1\n", "1"),
            ("A=a#b # no comment", "a#b # no comment"),
            ("A=a=b", "a=b"),
            ("A=", ""),
            ("A=\nB=2", ""),
            ("export A=1", "1"),
            ("A=1\nA=2", "2"),
            ("A='a \\\" $b'", "a \\\" $b"),
            ("A=\"a \\\"b\\\" \\$c \\\\ \\n\"", "a \"b\" $c \\ \\n"),
            ("A=\"one\ntwo\"\n", "one\ntwo"),
            ("A='one\ntwo'\n", "one\ntwo"),
            ("A=\"one \\\ntwo\"", "one two"),
            ("A='a'\"b\" 'c'", "abc"),
            ("A='a' b", "ab"),
            ("A=it's", "it's"),
            ("A=a\\ b\\\\c\\  ", "a b\\c "),
            ("A=one\\\ntwo", "onetwo"),
            ("A=$HOME ${HOME} `id`", "$HOME ${HOME} `id`"),
            ("A=\u{e9}\u{2713}", "\u{e9}\u{2713}"),
        ] {
            let found = read(text);
            let value = found.iter().find(|(name, _)| name == "A").map(|(_, value)| value.as_str());
            assert_eq!(value.unwrap_or_default(), expected, "{text:?}");
            assert_eq!(value.is_none(), text.is_empty(), "{text:?}");
        }
        let text = "DB_URL='x'\nB_2=2\nB_2=3\n";
        assert_eq!(read(text), [("DB_URL", "x"), ("B_2", "3")].map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_what_stands_there() {
        for (text, line, what) in [
            ("A=1\nhunter2\n", 2, "there is no \"=\""),
            ("A=1\nhunter2\nB=1", 2, "there is no \"=\""),
            ("=hunter2", 1, "with a name of letters"),
            ("\n\nmy-hunter2=1", 3, "with a name of letters"),
            ("2A=1", 1, "begins with no digit"),
            ("A B=1", 1, "with a name of letters"),
            ("A=\"one\ntwo\nB='hunter2\n", 1, "never closed"),
            ("A='one'\nB=\"one\nhunter2", 2, "never closed"),
            ("A=1\nB=hun\0ter2", 2, "a NUL"),
            ("A=\"1\n2\"\nNOTIFY_SOCKET=/hunter2", 3, "the service manager's"),
            ("\u{feff}A=1", 1, "byte order mark"),
        ] {
            let fault = parse(text).unwrap_err();
            assert_eq!(fault.line, line, "{text:?}: {fault:?}");
            assert!(fault.what.contains(what) && !fault.what.contains("hunter"), "{text:?}: {fault:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_much(text in "[A-C=\\\\\"'# \n\r\t\u{e9}]{0,40}") {
            if let Ok(found) = parse(&text) {
                let size: usize = found.iter().map(|(name, value)| name.len() + value.reveal().len()).sum();
                proptest::prop_assert!(size <= text.len());
            }
        }

        #[test]
        fn what_is_quoted_comes_back(value in "[^'\0]{0,40}") {
            let found = read(&format!("A='{value}'\n"));
            proptest::prop_assert_eq!(found, [("A".to_owned(), value)]);
        }
    }
}
