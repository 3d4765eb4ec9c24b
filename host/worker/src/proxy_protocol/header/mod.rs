//! The header of the PROXY protocol, versions 1 and 2, as bytes.
//!
//! Pure: it is given all that has come so far, and says whether that is a header, the beginning of one, or none. What it
//! does not know is as the [specification](https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt) wants it: an unknown
//! TLV is skipped, anything else that is unknown is an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use app_abi::Address;
use app_host_core::proxied::{MAX_TEXT, ProxiedTls};

/// The most bytes of a header: one of version 2 may say of itself that it has 64 KiB. Proxies that pass on a client's whole
/// certificate stay below it.
pub const MAX_HEADER: usize = 8 * 1024;

/// The longest line of version 1, with its end (section 2.1).
const MAX_LINE: usize = 107;

const LINE: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The bytes of a header of version 2 before its addresses.
const FIXED: usize = 16;

/// The bytes of each path of a pair of Unix sockets.
const PATH: usize = 108;

/// Kinds of TLVs (section 2.2). Those inside `TLS` have numbers of the same list.
mod kind {
    pub(super) const ALPN: u8 = 0x01;
    pub(super) const AUTHORITY: u8 = 0x02;
    pub(super) const CRC32C: u8 = 0x03;
    pub(super) const TLS: u8 = 0x20;
    pub(super) const TLS_VERSION: u8 = 0x21;
    pub(super) const TLS_COMMON_NAME: u8 = 0x22;
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client. `None` if the proxy speaks for itself (LOCAL), or doesn't know (UNKNOWN).
    pub client: Option<Address>,
    /// What it says of the client's TLS.
    pub tls: Option<Box<ProxiedTls>>,
}

/// Why bytes are no header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("the connection does not begin with a PROXY header")]
    None,
    #[error("the PROXY header has more than {0} bytes")]
    TooLong(usize),
    #[error("the PROXY line is bad: {0}")]
    Line(&'static str),
    #[error("the PROXY header has the version and command {0:#04x}, expected 0x20 or 0x21")]
    Command(u8),
    #[error("the PROXY header has the unknown family {0:#04x}")]
    Family(u8),
    #[error("the PROXY header has no room for the addresses of its family")]
    Addresses,
    #[error("the PROXY header has a bad TLV of the kind {0:#04x}")]
    Tlv(u8),
    #[error("the PROXY header's checksum is wrong")]
    Checksum,
}

/// Reads a header at the beginning of what has come so far. Returns it with the number of its bytes, or `None` if more must
/// come; that is never so once [`MAX_HEADER`] bytes have.
///
/// # Errors
/// As soon as it is certain that this is no header, whatever may come.
pub fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, expected)| byte == expected);
    if begins(SIGNATURE) {
        return read_binary(bytes);
    }
    if begins(LINE) {
        return read_line(bytes);
    }
    Err(HeaderError::None)
}

/// Version 1: a line.
fn read_line(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let Some(end) = bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_LINE { Ok(None) } else { Err(HeaderError::TooLong(MAX_LINE)) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(HeaderError::Line("it ends without a carriage return"))?;
    let text = str::from_utf8(line).map_err(|_| HeaderError::Line("it is no text"))?;
    let mut words = text.split(' ').skip(1);
    let client = match words.next() {
        Some("TCP4") => Some(ends::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(ends::<Ipv6Addr>(words)?),
        // Whatever else the line says (section 2.1).
        Some("UNKNOWN") => None,
        _ => return Err(HeaderError::Line("its protocol is none of TCP4, TCP6 and UNKNOWN")),
    };
    Ok(Some((Header { client, tls: None }, end + 1)))
}

/// The first of two addresses and two ports. The second of each is checked, too.
fn ends<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Result<Address, HeaderError>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut address = || words.next()?.parse::<A>().ok();
    let addresses = address().zip(address());
    let mut port = || {
        // A number's own parser takes a sign and zeros.
        let word = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?;
        (word == "0" || !word.starts_with('0')).then(|| word.parse::<u16>().ok()).flatten()
    };
    let ports = port().zip(port());
    let (client, _) = addresses.ok_or(HeaderError::Line("an address is none of its protocol"))?;
    let (port, _) = ports.ok_or(HeaderError::Line("a port is no number from 0 to 65535"))?;
    match words.next() {
        None => Ok(tcp(client.into(), port)),
        Some(_) => Err(HeaderError::Line("something follows the ports")),
    }
}

/// A client's address; one of IPv4 as such, however it is written.
fn tcp(ip: IpAddr, port: u16) -> Address {
    Address::Tcp(SocketAddr::new(ip.to_canonical(), port))
}

/// Version 2.
fn read_binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let Some(&[command, family, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else { return Ok(None) };
    if command != 0x20 && command != 0x21 {
        return Err(HeaderError::Command(command));
    }
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER {
        return Err(HeaderError::TooLong(MAX_HEADER));
    }
    let Some(whole) = bytes.get(..length) else { return Ok(None) };
    let nothing = Header { client: None, tls: None };
    // The proxy's own connection: what follows is to be ignored (section 2.2).
    if command == 0x20 {
        return Ok(Some((nothing, length)));
    }
    let rest = &whole[FIXED..];
    let (client, tlvs) = match family {
        0x00 => return Ok(Some((nothing, length))),
        // A datagram's client, say of QUIC, is one as well.
        0x11 | 0x12 => {
            let (&[a, b, c, d, _, _, _, _, high, low, _, _], rest) =
                rest.split_first_chunk::<12>().ok_or(HeaderError::Addresses)?;
            (tcp(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])), rest)
        }
        0x21 | 0x22 => {
            let (ip, _) = rest.split_first_chunk::<16>().ok_or(HeaderError::Addresses)?;
            let (ends, rest) = rest.split_first_chunk::<36>().ok_or(HeaderError::Addresses)?;
            (tcp(Ipv6Addr::from(*ip).into(), u16::from_be_bytes([ends[32], ends[33]])), rest)
        }
        0x31 | 0x32 => (Address::Unix, rest.get(2 * PATH..).ok_or(HeaderError::Addresses)?),
        _ => return Err(HeaderError::Family(family)),
    };
    Ok(Some((Header { client: Some(client), tls: read_tlvs(whole, tlvs)? }, length)))
}

/// Splits the first TLV off. The error has its kind.
fn split_tlv(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), HeaderError> {
    let (&[kind, high, low], rest) =
        bytes.split_first_chunk::<3>().ok_or(HeaderError::Tlv(bytes.first().copied().unwrap_or_default()))?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, rest) = rest.split_at_checked(length).ok_or(HeaderError::Tlv(kind))?;
    Ok((kind, value, rest))
}

/// What the TLVs behind the addresses say of the client's TLS. Of two of a kind the last one counts.
fn read_tlvs(whole: &[u8], mut tlvs: &[u8]) -> Result<Option<Box<ProxiedTls>>, HeaderError> {
    let mut told = ProxiedTls::default();
    while !tlvs.is_empty() {
        let (kind, value, rest) = split_tlv(tlvs)?;
        match kind {
            kind::ALPN if value.len() <= MAX_TEXT => told.alpn = Some(value.into()),
            kind::ALPN => return Err(HeaderError::Tlv(kind)),
            kind::AUTHORITY => told.server_name = Some(text(kind, value)?.to_ascii_lowercase().into()),
            kind::CRC32C => {
                let checksum = value.try_into().map(u32::from_be_bytes).map_err(|_| HeaderError::Tlv(kind))?;
                // The value is the last of what stands before `rest`.
                let end = whole.len() - rest.len();
                let zeroed = [&whole[..end - value.len()], &[0; 4], &whole[end..]];
                if crc32c(zeroed.into_iter().flatten()) != checksum {
                    return Err(HeaderError::Checksum);
                }
            }
            kind::TLS => read_tls(value, &mut told)?,
            _ => {}
        }
        tlvs = rest;
    }
    Ok((told != ProxiedTls::default()).then(|| Box::new(told)))
}

/// What `PP2_TYPE_SSL` says: a set of flags, whether the client's certificate is valid, and TLVs.
fn read_tls(value: &[u8], told: &mut ProxiedTls) -> Result<(), HeaderError> {
    const SPEAKS_TLS: u8 = 0x01;
    /// On this connection, or on the one that its session is from.
    const HAS_CERTIFICATE: u8 = 0x02 | 0x04;
    let (&[flags, verify @ ..], mut tlvs) = value.split_first_chunk::<5>().ok_or(HeaderError::Tlv(kind::TLS))?;
    told.ends_there = flags & SPEAKS_TLS != 0;
    let verified = flags & HAS_CERTIFICATE != 0 && verify == [0; 4];
    while !tlvs.is_empty() {
        let (kind, value, rest) = split_tlv(tlvs)?;
        match kind {
            kind::TLS_VERSION => told.version = Some(text(kind, value)?.into()),
            kind::TLS_COMMON_NAME if verified => told.client_name = Some(text(kind, value)?.into()),
            _ => {}
        }
        tlvs = rest;
    }
    Ok(())
}

fn text(kind: u8, value: &[u8]) -> Result<&str, HeaderError> {
    let text = str::from_utf8(value).ok().filter(|text| text.len() <= MAX_TEXT && !text.contains(char::is_control));
    text.ok_or(HeaderError::Tlv(kind))
}

/// The checksum of RFC 9260, appendix A. Bit by bit: a table pays for what is longer and comes more often.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let shift = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

#[cfg(test)]
mod tests;
