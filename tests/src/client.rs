//! A raw HTTP/1.1 client that hides nothing: one connection, bytes written when the test says so,
//! and never a second try.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use crate::tls::Trust;

/// The head of a well-formed request; a header is `name: value`.
pub fn request(method: &str, path: &str, headers: &[&str]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
    for header in headers {
        head.extend([header, "\r\n"]);
    }
    head + "\r\n"
}

/// Longer than anything that a test waits for; a read that takes longer is a failure.
pub const TIMEOUT: Duration = Duration::from_mins(1);

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address of the loopback.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The same as TCP, and TLS on it.
    Tls(SocketAddr, Trust),
}

impl Address {
    /// Reads an address as the host logs it: `IP:PORT` or `unix:PATH`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) => Some(Self::Unix(path.into())),
            None => text.parse().ok().map(Self::Tcp),
        }
    }

    /// The TCP address.
    pub fn tcp(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => *address,
            Self::Unix(path) => panic!("{} is a Unix socket", path.display()),
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One connection and the answer read from it last.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// Bytes read beyond the last answer.
    unread: Vec<u8>,
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Connection {
    /// Connects; reads and writes fail after [`TIMEOUT`].
    pub fn connect(address: &Address) -> io::Result<Self> {
        let tcp = |address| {
            let stream = TcpStream::connect_timeout(address, TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok::<_, io::Error>(stream)
        };
        let stream = match address {
            Address::Tcp(address) => Stream::Tcp(tcp(address)?),
            Address::Tls(address, trust) => Stream::Tls(Box::new(trust.shake(tcp(address)?)?)),
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                Stream::Unix(stream)
            }
        };
        Ok(Self { stream, unread: Vec::new(), head: Vec::new(), body: Vec::new() })
    }

    /// TLS on a socket that is connected.
    pub fn shake(socket: TcpStream, trust: &Trust) -> io::Result<Self> {
        let stream = Stream::Tls(Box::new(trust.shake(socket)?));
        Ok(Self { stream, unread: Vec::new(), head: Vec::new(), body: Vec::new() })
    }

    /// The TLS of the connection.
    pub fn tls(&self) -> &ClientConnection {
        match &self.stream {
            Stream::Tls(stream) => &stream.conn,
            Stream::Tcp(_) | Stream::Unix(_) => panic!("it has no TLS"),
        }
    }

    /// Writes bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Writes as much as one call takes.
    pub fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    /// Reads what is there into `buffer`, 0 at the end of the stream.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }

    /// Sets how long a read waits.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(timeout)),
            Stream::Tls(stream) => stream.sock.set_read_timeout(Some(timeout)),
        }
    }

    /// Whether the peer has closed by now, without waiting.
    pub fn is_closed(&mut self) -> io::Result<bool> {
        self.set_nonblocking(true)?;
        let mut byte = [0];
        let read = self.read(&mut byte);
        self.set_nonblocking(false)?;
        match read {
            Ok(0) => Ok(true),
            Ok(_) => {
                self.unread.push(byte[0]);
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => Ok(true),
        }
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_nonblocking(on),
            Stream::Unix(stream) => stream.set_nonblocking(on),
            Stream::Tls(stream) => stream.sock.set_nonblocking(on),
        }
    }

    /// Sends a GET whose answer is read later.
    pub fn ask(&mut self, path: &str) -> io::Result<()> {
        self.begin("GET", path, &[])
    }

    /// Sends a request's head; the body that it announces is sent with [`Self::send`].
    pub fn begin(&mut self, method: &str, path: &str, headers: &[&str]) -> io::Result<()> {
        self.send(request(method, path, headers).as_bytes())
    }

    /// Sends a GET and reads the whole answer; returns its status.
    pub fn get(&mut self, path: &str) -> io::Result<u16> {
        self.ask(path)?;
        self.receive()
    }

    /// Sends a POST with a body and reads the whole answer; returns its status.
    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<u16> {
        let head = request("POST", path, &[&format!("content-length: {}", body.len())]);
        self.send(&[head.as_bytes(), body].concat())?;
        self.receive()
    }

    /// Reads one whole answer and returns its status.
    ///
    /// # Errors
    /// `UnexpectedEof` when the stream ends before the answer is complete.
    pub fn receive(&mut self) -> io::Result<u16> {
        let (status, mut length) = self.receive_head()?;
        self.body.clear();
        if length == Length::Chunked {
            loop {
                let line = self.read_line()?;
                let size = std::str::from_utf8(&line)
                    .ok()
                    .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok())
                    .ok_or_else(|| invalid("a chunk has no size"))?;
                if size == 0 {
                    while !self.read_line()?.is_empty() {}
                    return Ok(status);
                }
                while self.unread.len() < size + 2 {
                    self.fill()?;
                }
                self.body.extend_from_slice(&self.unread[..size]);
                self.unread.drain(..size + 2);
            }
        }
        loop {
            match &mut length {
                Length::Bytes(length) => {
                    let take = self.unread.len().min(*length - self.body.len());
                    self.body.extend_from_slice(&self.unread[..take]);
                    self.unread.drain(..take);
                    if self.body.len() == *length {
                        return Ok(status);
                    }
                    self.fill()?;
                }
                Length::UntilClose | Length::Chunked => {
                    self.body.append(&mut self.unread);
                    match self.fill() {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(status),
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// Reads one answer's head; what follows is for [`Self::discard`] or [`Self::read`].
    fn receive_head(&mut self) -> io::Result<(u16, Length)> {
        let mut searched = 0;
        let end = loop {
            if let Some(at) = self.unread[searched..].windows(4).position(|four| four == b"\r\n\r\n") {
                break searched + at + 4;
            }
            searched = self.unread.len().saturating_sub(3);
            self.fill()?;
        };
        self.head.clear();
        self.head.extend_from_slice(&self.unread[..end]);
        self.unread.drain(..end);
        let status = self
            .head
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok())
            .ok_or_else(|| invalid("the answer has no status line"))?;
        let length = if matches!(status, 103 | 204 | 304) {
            // They never have a body, nor need they say so (RFC 9112, section 6.3).
            Length::Bytes(0)
        } else if let Some(length) = self.header("content-length") {
            Length::Bytes(length.parse().map_err(|_| invalid("the content-length is no number"))?)
        } else if self.header("transfer-encoding").is_some() {
            Length::Chunked
        } else {
            Length::UntilClose
        };
        Ok((status, length))
    }

    /// Sends a GET and reads only the head of an answer whose body comes in chunks; returns its status.
    pub fn open(&mut self, path: &str) -> io::Result<u16> {
        self.ask(path)?;
        self.opened()
    }

    /// Reads only the head of an answer that was asked for and whose body comes in chunks; returns its status.
    pub fn opened(&mut self) -> io::Result<u16> {
        let (status, length) = self.receive_head()?;
        if length == Length::Chunked { Ok(status) } else { Err(invalid("the answer does not come in chunks")) }
    }

    /// The next chunk of an answer that was opened; `None` at its proper end.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.read_line()?;
        let size = std::str::from_utf8(&line)
            .ok()
            .and_then(|line| usize::from_str_radix(line.trim(), 16).ok())
            .ok_or_else(|| invalid("a chunk has no size"))?;
        while self.unread.len() < size + 2 {
            self.fill()?;
        }
        let chunk = self.unread[..size].to_vec();
        self.unread.drain(..size + 2);
        Ok((size > 0).then_some(chunk))
    }

    /// Reads an answer of any size without keeping its body; returns the status and the body's
    /// length.
    pub fn discard(&mut self) -> io::Result<(u16, u64)> {
        let (status, length) = self.receive_head()?;
        let mut total = 0;
        match length {
            Length::Chunked => loop {
                let line = self.read_line()?;
                let size = std::str::from_utf8(&line)
                    .ok()
                    .and_then(|line| u64::from_str_radix(line.trim(), 16).ok())
                    .ok_or_else(|| invalid("a chunk has no size"))?;
                self.skip(size + 2)?;
                if size == 0 {
                    return Ok((status, total));
                }
                total += size;
            },
            Length::Bytes(length) => {
                self.skip(length as u64)?;
                Ok((status, length as u64))
            }
            Length::UntilClose => Err(invalid("the answer has no length")),
        }
    }

    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            if self.unread.is_empty() {
                self.fill()?;
            }
            let take = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.unread.len());
            self.unread.drain(..take);
            bytes -= take as u64;
        }
        Ok(())
    }

    fn read_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line = self.unread[..end].to_vec();
                self.unread.drain(..end + 2);
                return Ok(line);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.unread.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }

    /// A header of the last answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.head).ok()?;
        text.split("\r\n").skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Whether the last answer announced that the connection will be closed.
    pub fn announced_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The last answer's body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The last answer's body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl From<TcpStream> for Connection {
    fn from(stream: TcpStream) -> Self {
        Self { stream: Stream::Tcp(stream), unread: Vec::new(), head: Vec::new(), body: Vec::new() }
    }
}

#[derive(PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunked,
    UntilClose,
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}
