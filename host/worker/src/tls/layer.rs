//! A client's stream behind its handshake: records on the one side, plaintext on the other.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use app_host_tls::{HEADER, MAX_PLAINTEXT, OVERHEAD, Opened, Records, TlsError};

use super::SuspendedTls;

/// Room for the longest record of either version, and for the beginning of the next one.
const SCRATCH: usize = HEADER + MAX_PLAINTEXT + 2048 + 1024;

/// Up to how many sealed bytes wait for the socket before no more plaintext is taken.
const MAX_OUT: usize = 64 * 1024;

/// The most memory that a thread keeps for the next connection that seals something.
const MOST_SPARE: usize = 4 * MAX_OUT;

thread_local! {
    /// Where records are read to and opened. A connection itself holds no buffer while there is nothing in it.
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());

    /// Memory for what a connection seals, which it has only until that is sent.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// See the module.
#[derive(Debug)]
pub struct Layer {
    records: Records,
    raw: Vec<u8>,
    /// What has been opened, and not read.
    plain: Queue,
    /// What has been sealed, and not sent.
    out: Queue,
    /// Nothing more will be read.
    read_ended: bool,
}

/// Bytes that go in at one end and out at the other.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    taken: usize,
}

impl Queue {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// Takes bytes out. What is empty has no memory: it is returned then.
    fn take(&mut self, count: usize) -> Vec<u8> {
        self.taken += count;
        if self.is_empty() { std::mem::take(self).bytes } else { Vec::new() }
    }

    /// Has memory for so many bytes more. The first of it is the thread's, if that has some.
    fn make_room(&mut self, count: usize) {
        if self.bytes.capacity() == 0 && count > 0 {
            self.bytes = SPARE.take();
            self.bytes.clear();
        }
        // A client that always leaves something is sent a response of any size: what it has taken must go.
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.reserve(count);
    }

    fn into_rest(mut self) -> Vec<u8> {
        self.bytes.drain(..self.taken);
        self.bytes
    }
}

fn invalid(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What one look at a connection's records has given.
enum Look {
    /// Something was read, or nothing more ever will be.
    Ready,
    Pending,
}

impl Layer {
    /// The stream of a connection whose handshake is done. `raw` was read behind it.
    pub fn new(records: Records, raw: Vec<u8>) -> Self {
        Self { records, raw, plain: Queue::default(), out: Queue::default(), read_ended: false }
    }

    /// Goes on with a connection. `None` if its state is of none.
    pub fn resume(suspended: SuspendedTls) -> Option<Self> {
        let SuspendedTls { state, raw, out } = suspended;
        Some(Self { out: Queue { bytes: out, taken: 0 }, ..Self::new(state.resume()?, raw) })
    }

    /// Takes it apart: what travels, and what was opened and not read. `None` where one side has been closed, and there is
    /// nothing to go on with.
    pub fn suspend(self) -> Option<(SuspendedTls, Vec<u8>)> {
        let state = self.records.suspend().filter(|_| !self.read_ended)?;
        Some((SuspendedTls { state, raw: self.raw, out: self.out.into_rest() }, self.plain.into_rest()))
    }

    /// How much memory it has for what it has sealed.
    #[cfg(test)]
    pub const fn sealed_capacity(&self) -> usize {
        self.out.bytes.capacity()
    }

    pub fn poll_read<S>(&mut self, socket: &mut S, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !self.plain.is_empty() {
            let rest = self.plain.rest();
            let now = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..now]);
            drop(self.plain.take(now));
            return Poll::Ready(Ok(()));
        }
        if self.read_ended {
            return Poll::Ready(Ok(()));
        }
        let looked = ROOM.with_borrow_mut(|room| self.read_records(socket, cx, buf, room));
        // What a record was answered, or an alert. Where the socket takes nothing now, the next call goes on.
        if !self.out.is_empty() {
            let _ = self.poll_out(socket, cx);
        }
        match looked? {
            Look::Ready => Poll::Ready(Ok(())),
            Look::Pending => Poll::Pending,
        }
    }

    /// Opens records until there is plaintext, reading more of the socket only where less than one is there.
    fn read_records<S>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        room: &mut [u8],
    ) -> io::Result<Look>
    where
        S: AsyncRead + Unpin,
    {
        let before = buf.filled().len();
        // May be more than there is room for: all that came with the end of the handshake.
        let raw = std::mem::take(&mut self.raw);
        let (mut begin, mut end, mut taken) = (0, 0, 0);
        let result = loop {
            match self.open_first(&mut room[begin..end], buf) {
                Err(error) => break Err(invalid(error)),
                Ok(0) => {}
                Ok(length) => {
                    begin += length;
                    if buf.filled().len() > before || self.read_ended {
                        break Ok(Look::Ready);
                    }
                    continue;
                }
            }
            if begin > 0 {
                room.copy_within(begin..end, 0);
                (begin, end) = (0, end - begin);
            }
            if taken < raw.len() {
                let more = (raw.len() - taken).min(room.len() - end);
                room[end..end + more].copy_from_slice(&raw[taken..taken + more]);
                (end, taken) = (end + more, taken + more);
                continue;
            }
            let mut space = ReadBuf::new(&mut room[end..]);
            match Pin::new(&mut *socket).poll_read(cx, &mut space) {
                Poll::Pending => break Ok(Look::Pending),
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Ready(Ok(())) if space.filled().is_empty() => {
                    // Many clients close without a word, and HTTP knows by itself whether a message is whole.
                    self.read_ended = true;
                    break Ok(Look::Ready);
                }
                Poll::Ready(Ok(())) => end += space.filled().len(),
            }
        };
        if begin < end || taken < raw.len() {
            self.raw = [&room[begin..end], &raw[taken..]].concat();
        }
        if result.is_err() {
            self.read_ended = true;
        }
        result
    }

    /// Opens the first record of these bytes, if it is whole; returns how many bytes it had.
    fn open_first(&mut self, bytes: &mut [u8], buf: &mut ReadBuf<'_>) -> Result<usize, TlsError> {
        let Some(length) = self.records.length(bytes)? else { return Ok(0) };
        let Some(record) = bytes.get_mut(..length) else { return Ok(0) };
        match self.records.open(record, &mut self.out.bytes)? {
            Opened::Data(plain) => {
                let (now, later) = plain.split_at(plain.len().min(buf.remaining()));
                buf.put_slice(now);
                if !later.is_empty() {
                    self.plain = Queue { bytes: later.to_vec(), taken: 0 };
                }
            }
            Opened::Control => {}
            Opened::Closed => self.read_ended = true,
        }
        Ok(length)
    }

    /// Seals as much of these pieces as is taken at once, and sends what the socket takes now.
    pub fn poll_write<S>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncWrite + Unpin,
    {
        while self.out.rest().len() >= MAX_OUT {
            ready!(self.poll_some_out(socket, cx))?;
        }
        let length = pieces.iter().map(|piece| piece.len()).sum::<usize>().min(MAX_OUT);
        // At once: a vector that grows with each part of a record takes longer than the record's encryption.
        self.out.make_room(length + length.div_ceil(MAX_PLAINTEXT) * OVERHEAD);
        let mut left = length;
        let taken = pieces.iter().map(|piece| {
            let now = piece.len().min(left);
            left -= now;
            &piece[..now]
        });
        self.records.seal(taken, &mut self.out.bytes).map_err(invalid)?;
        // What the socket doesn't take now is for the flush that follows.
        match self.poll_out(socket, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(length)),
        }
    }

    pub fn poll_flush<S>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        ready!(self.poll_out(socket, cx))?;
        Pin::new(socket).poll_flush(cx)
    }

    /// Says that nothing more will be sent, and ends this side of the socket.
    pub fn poll_shutdown<S>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        self.records.close(&mut self.out.bytes);
        ready!(self.poll_out(socket, cx))?;
        Pin::new(socket).poll_shutdown(cx)
    }

    fn poll_out<S>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.out.is_empty() {
            ready!(self.poll_some_out(socket, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_some_out<S>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        let sent = ready!(Pin::new(socket).poll_write(cx, self.out.rest()))?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let memory = self.out.take(sent);
        if self.out.is_empty() && memory.capacity() <= MOST_SPARE {
            SPARE.set(memory);
        }
        Poll::Ready(Ok(()))
    }
}
