//! The position in a chunked body (RFC 9112, section 7.1).

use super::Position;

/// Where in a chunked body. Accepts what the grammar allows, which is less than hyper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// Before the first digit of a chunk's size.
    Begin,
    /// Behind the digits of a size, which is this so far.
    Size(u64),
    /// Behind blanks that follow a size: an extension must come.
    Blank(u64),
    /// In an extension of a chunk of this size.
    Extension(u64, Extension),
    /// Behind the carriage return that ends the line with this size.
    SizeReturn(u64),
    /// In a chunk, of which this many bytes are to come.
    Data(u64),
    /// Behind a chunk's bytes.
    DataEnd,
    /// Behind the carriage return that follows them.
    DataReturn,
    /// At the beginning of a line behind the last chunk.
    TrailerStart,
    /// In the name of a trailer field.
    TrailerName,
    /// Behind its colon.
    Trailer,
    /// Behind the carriage return that ends it.
    TrailerReturn,
    /// Behind the carriage return of the empty line that ends the body.
    LastReturn,
}

/// Where in a chunk's extension: `BWS ";" BWS name [ BWS "=" BWS value ]` (RFC 9112, section 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    /// Behind its semicolon: a name must come.
    Begin,
    /// In a name.
    Name,
    /// Behind blanks that follow a name: a value or another extension must come.
    Named,
    /// Behind the equals sign: a value must come.
    Equals,
    /// In a value without quotes.
    Value,
    /// In a quoted value.
    Quoted,
    /// Behind a backslash in a quoted value.
    Escape,
    /// Behind the quote that ends a value.
    Unquoted,
    /// Behind blanks that follow a value: another extension must come.
    Valued,
}

impl Chunks {
    /// The position behind `byte`, which is not one of a chunk's own bytes.
    pub(super) fn then(self, byte: u8) -> Position {
        let next = match (self, byte) {
            (Self::Begin, _) if byte.is_ascii_hexdigit() => Self::Size(digit(byte)),
            (Self::Size(size), _) if byte.is_ascii_hexdigit() => {
                match size.checked_mul(16).and_then(|size| size.checked_add(digit(byte))) {
                    Some(size) => Self::Size(size),
                    None => return Position::BadChunk,
                }
            }
            (Self::Size(size) | Self::Blank(size), b' ' | b'\t') => Self::Blank(size),
            (Self::Size(size) | Self::Blank(size), b';') => Self::Extension(size, Extension::Begin),
            (Self::Size(size), b'\r') => Self::SizeReturn(size),
            (Self::Extension(size, extension), b'\r') if extension.may_end() => Self::SizeReturn(size),
            (Self::Extension(size, extension), _) => match extension.then(byte) {
                Some(extension) => Self::Extension(size, extension),
                None => return Position::BadChunk,
            },
            (Self::SizeReturn(0) | Self::TrailerReturn, b'\n') => Self::TrailerStart,
            (Self::SizeReturn(size), b'\n') => Self::Data(size),
            (Self::DataEnd, b'\r') => Self::DataReturn,
            (Self::DataReturn, b'\n') => Self::Begin,
            (Self::TrailerStart, b'\r') => Self::LastReturn,
            (Self::TrailerStart | Self::TrailerName, _) if is_token(byte) => Self::TrailerName,
            (Self::TrailerName, b':') => Self::Trailer,
            (Self::Trailer, b'\r') => Self::TrailerReturn,
            (Self::Trailer, _) if byte != b'\n' => Self::Trailer,
            (Self::LastReturn, b'\n') => return Position::Start,
            _ => return Position::BadChunk,
        };
        Position::Chunks(next)
    }
}

impl Extension {
    /// Whether the line may end here.
    fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::Unquoted)
    }

    /// Where it is behind `byte`; `None` if that can't be there.
    fn then(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Begin | Self::Equals | Self::Named | Self::Valued, b' ' | b'\t') => self,
            (Self::Begin | Self::Name, _) if is_token(byte) => Self::Name,
            (Self::Name, b' ' | b'\t') => Self::Named,
            (Self::Name | Self::Named, b'=') => Self::Equals,
            (Self::Equals | Self::Value, _) if is_token(byte) => Self::Value,
            (Self::Quoted, b'"') => Self::Unquoted,
            (Self::Quoted, b'\\') => Self::Escape,
            (Self::Equals, b'"') | (Self::Quoted | Self::Escape, b'\t' | b' '..=b'~' | 0x80..) => Self::Quoted,
            (Self::Value | Self::Unquoted, b' ' | b'\t') => Self::Valued,
            (Self::Name | Self::Named | Self::Value | Self::Unquoted | Self::Valued, b';') => Self::Begin,
            _ => return None,
        })
    }
}

/// Whether it can be in a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> u64 {
    char::from(byte).to_digit(16).unwrap_or_default().into()
}
