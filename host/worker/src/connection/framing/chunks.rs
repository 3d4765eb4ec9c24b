//! The position in a chunked body (RFC 9112, section 7.1).

use super::Position;

/// Where in a chunked body. Accepts what hyper accepts, or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// Before the first digit of a chunk's size.
    Begin,
    /// Behind the digits of a size, which is this so far.
    Size(u64),
    /// Behind blanks that follow a size.
    Blank(u64),
    /// In an extension of a chunk of this size.
    Extension(u64),
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
    /// In a trailer field.
    Trailer,
    /// Behind the carriage return that ends it.
    TrailerReturn,
    /// Behind the carriage return of the empty line that ends the body.
    LastReturn,
}

impl Chunks {
    /// The position behind `byte`, which is not one of a chunk's own bytes.
    pub(super) fn then(self, byte: u8) -> Position {
        let next = match (self, byte) {
            (Self::Begin, _) if byte.is_ascii_hexdigit() => Self::Size(digit(byte)),
            (Self::Size(size), _) if byte.is_ascii_hexdigit() => {
                match size.checked_mul(16).and_then(|size| size.checked_add(digit(byte))) {
                    Some(size) => Self::Size(size),
                    None => return Position::Lost,
                }
            }
            (Self::Size(size) | Self::Blank(size), b' ' | b'\t') => Self::Blank(size),
            (Self::Size(size) | Self::Blank(size), b';') => Self::Extension(size),
            (Self::Size(size) | Self::Blank(size) | Self::Extension(size), b'\r') => Self::SizeReturn(size),
            (Self::Extension(size), _) if byte != b'\n' => Self::Extension(size),
            (Self::SizeReturn(0) | Self::TrailerReturn, b'\n') => Self::TrailerStart,
            (Self::SizeReturn(size), b'\n') => Self::Data(size),
            (Self::DataEnd, b'\r') => Self::DataReturn,
            (Self::DataReturn, b'\n') => Self::Begin,
            (Self::TrailerStart, b'\r') => Self::LastReturn,
            (Self::Trailer, b'\r') => Self::TrailerReturn,
            (Self::TrailerStart | Self::Trailer, _) => Self::Trailer,
            (Self::LastReturn, b'\n') => return Position::Start,
            _ => return Position::Lost,
        };
        Position::Chunks(next)
    }
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> u64 {
    char::from(byte).to_digit(16).unwrap_or_default().into()
}
