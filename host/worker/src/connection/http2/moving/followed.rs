//! What is known of a connection that may move, and what is done with that.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use app_host_core::not_moved::NotMoved;

use super::super::super::shared::Shared;
use super::super::super::state::MAX_UNREAD;
use super::super::super::transport::Transport;
use super::super::WINDOW;
use super::frames::{HEAD, MAX_LENGTH};
use super::leave::{Leave, LeaveStep};
use super::observer::Observer;
use super::resume::Resume;
use super::snapshot::{HEADER_TABLE_SIZE, Http2Snapshot, Settings};
use super::sorter::{Proof, SortError, Sorter};

/// How much is read at a time while it is sorted: as much as a frame may have.
const READ: usize = HEAD + MAX_LENGTH;

/// What is known of a connection that may move.
pub(super) struct Followed {
    observer: Observer,
    leave: Leave,
    /// `None` while nothing has to be sorted.
    sorter: Option<Sorter>,
    /// How h2 gets to where the client is, until it is there.
    resume: Option<Resume>,
    /// What is ours to say to the client, before anything of h2's.
    ours: Bytes,
    /// What was sorted, and h2 has not read.
    ready: Vec<u8>,
    delivered: usize,
    space: Vec<u8>,
    /// The client has ended its side.
    ended: bool,
    /// h2 has read all that there was, and was told so.
    is_drained: bool,
    /// All that h2 and we have written has gone out.
    is_flushed: bool,
    /// The client's last stream, if h2 has not gone on as it should.
    mismatch: Option<u32>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Followed {
    pub(super) fn new(observer: Observer, resume: Option<Resume>) -> Self {
        Self {
            observer,
            leave: Leave::new(),
            sorter: None,
            resume,
            ours: Bytes::new(),
            ready: Vec::new(),
            delivered: 0,
            space: Vec::new(),
            ended: false,
            is_drained: false,
            is_flushed: true,
            mismatch: None,
            timer: None,
        }
    }

    /// The client's last stream, if HTTP has not gone on as the client knows it, and the client can be told.
    pub(super) fn mismatch(&self) -> Option<u32> {
        self.mismatch.filter(|_| self.ours.is_empty() && self.observer.may_say())
    }

    /// What another worker must know, and what of that which was read HTTP has not had.
    pub(super) fn leave(self) -> Option<(Http2Snapshot, Vec<u8>)> {
        let snapshot = self.snapshot()?;
        let mut unread = Vec::new();
        self.sorter.into_iter().for_each(|mut sorter| sorter.finish(&mut unread));
        Some((snapshot, unread))
    }

    /// What another worker must know, if it can go on now.
    fn snapshot(&self) -> Option<Http2Snapshot> {
        let sorter = self.sorter.as_ref()?;
        let is_quiet = self.is_drained && self.is_flushed && !self.ended && self.ours.is_empty() && !self.has_ready();
        if !is_quiet || !self.leave.may_end() || !sorter.is_acknowledged() {
            return None;
        }
        self.observer.snapshot(sorter.proof() == Proof::Given)
    }

    /// Whether the client has acknowledged all that HTTP does not know of.
    fn is_acknowledged(&self) -> bool {
        self.sorter.as_ref().is_none_or(Sorter::is_acknowledged)
    }

    /// Whether the client can be told something which it acknowledges.
    fn may_tell(&self) -> bool {
        self.ours.is_empty() && self.observer.may_tell() && self.is_acknowledged()
    }

    fn has_ready(&self) -> bool {
        self.delivered < self.ready.len()
    }

    /// Takes the next steps on the way out.
    fn go_on<T>(&mut self, inner: &Transport<T>, shared: &Shared) {
        let state = &shared.state;
        // Only where h2 has had all that was sorted does the observer know the last stream.
        while self.resume.is_none() && !self.has_ready() {
            let told = (self.may_tell(), self.is_acknowledged());
            match self.leave.step(&self.observer, state.is_leaving(), told, Instant::now().into_std()) {
                LeaveStep::Nothing => break,
                LeaveStep::Tell => {
                    let mut frame = Vec::new();
                    Settings::NONE.with(HEADER_TABLE_SIZE, 0).write(&mut frame);
                    self.ours = frame.into();
                    self.observer.on_told();
                    self.sorter.get_or_insert_with(|| Sorter::new(0, false)).on_told();
                    break;
                }
                LeaveStep::Hold => self.sorter.iter_mut().for_each(|sorter| sorter.hold_behind(self.observer.last())),
                LeaveStep::Release => self.stay(),
                LeaveStep::Refuse(why) => {
                    self.stay();
                    state.on_not_movable(why);
                }
            }
        }
        state.on_in_the_way(self.leave.in_the_way(&self.observer));
        self.judge(inner, shared);
    }

    /// Says whether the connection may leave.
    fn judge<T>(&self, inner: &Transport<T>, shared: &Shared) {
        let unread = self.sorter.as_ref().map_or(0, Sorter::unread) + inner.rewind().len();
        let is_leaving = self.leave.may_end() && shared.state.is_leaving();
        shared.state.on_may_leave(is_leaving && unread <= MAX_UNREAD && self.snapshot().is_some());
    }

    /// Does not leave: h2 gets what was held back.
    fn stay(&mut self) {
        if let Some(sorter) = &mut self.sorter {
            sorter.stay();
            sorter.release(&mut self.ready);
        }
    }

    /// Whether what comes in has to be sorted. If not, h2 gets what is left of it.
    fn sorts(&mut self) -> bool {
        let is_over = !self.leave.sorts() && self.sorter.as_ref().is_some_and(Sorter::is_done);
        if is_over && !self.has_ready() {
            self.sorter = None;
            (self.ready, self.space) = (Vec::new(), Vec::new());
            self.delivered = 0;
        }
        self.sorter.is_some()
    }

    /// Sorts what was read: nothing at the end of the client's side.
    fn sort(&mut self, read: usize, shared: &Shared) -> io::Result<()> {
        let Some(sorter) = &mut self.sorter else { return Ok(()) };
        self.ready.clear();
        self.delivered = 0;
        if read == 0 {
            self.ended = true;
            sorter.finish(&mut self.ready);
            return Ok(());
        }
        let bytes = &self.space[..read];
        // What has begun before anything was sorted goes on.
        let (rest, bytes) = bytes.split_at(self.observer.rest(bytes));
        self.ready.extend_from_slice(rest);
        let was_acknowledged = sorter.is_acknowledged();
        let is_idle = !self.observer.has_open(u32::MAX);
        let result = sorter.push(bytes, (self.observer.credit(), is_idle), &mut self.ready);
        if sorter.is_acknowledged() && !was_acknowledged {
            self.observer.on_told_acknowledged();
        }
        match result {
            Ok(()) => Ok(()),
            Err(SortError::Stays(why)) => {
                sorter.stay();
                self.leave.refuse();
                shared.state.on_not_movable(why);
                Ok(())
            }
            Err(SortError::Unproven) => {
                tracing::debug!("a client has not given up its table, and is told to come again");
                self.mismatch = Some(self.observer.last());
                shared.count_not_moved(NotMoved::Table);
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }

    /// What h2 has written, if that is not for the client: how many bytes of it. An error ends the connection.
    pub(super) fn swallow(&mut self, bytes: &[u8], cx: &Context<'_>, shared: &Shared) -> Option<io::Result<usize>> {
        let resume = self.resume.as_mut()?;
        let swallowed = resume.swallow(bytes);
        let outro = if resume.is_done() { resume.outro() } else { None };
        match swallowed {
            Ok(taken) if !resume.is_done() => return Some(Ok(taken)),
            Ok(taken) => {
                if let Some(outro) = outro {
                    let snapshot = *resume.snapshot();
                    self.ours = outro.into();
                    self.observer = Observer::resumed(&snapshot, WINDOW);
                    self.sorter = Some(Sorter::new(1, !snapshot.proven));
                    self.resume = None;
                    shared.on_arrived();
                    // It reads again only when it is woken.
                    cx.waker().wake_by_ref();
                    return Some(Ok(taken));
                }
            }
            Err(why) => tracing::error!(error = &why as &dyn std::error::Error, "a connection can't go on"),
        }
        self.mismatch = Some(resume.snapshot().last);
        shared.count_not_moved(NotMoved::Mismatch);
        Some(Err(io::ErrorKind::InvalidData.into()))
    }

    /// Reads what HTTP may have.
    pub(super) fn poll_read<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        inner: &mut Transport<T>,
        shared: &Shared,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(resume) = &mut self.resume {
            let intro = resume.read(buf.remaining());
            buf.put_slice(intro);
            // What HTTP says to it goes nowhere, so HTTP is woken by that.
            return if intro.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) };
        }
        loop {
            self.go_on(inner, shared);
            // What can't be written now is tried again before the next read, or before HTTP writes.
            if let Poll::Ready(written) = self.poll_ours(inner, cx) {
                written?;
            }
            if self.has_ready() {
                self.deliver(buf);
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if !self.sorts() {
                let before = buf.filled().len();
                let read = Pin::new(&mut *inner).poll_read(cx, buf);
                self.is_drained = read.is_pending();
                self.observer.on_delivered(&buf.filled()[before..]);
                return read;
            }
            self.space.resize(READ, 0);
            let mut space = ReadBuf::new(&mut self.space);
            if let Poll::Ready(read) = Pin::new(&mut *inner).poll_read(cx, &mut space) {
                read?;
                let read = space.filled().len();
                self.sort(read, shared)?;
                continue;
            }
            self.is_drained = true;
            if !self.leave.sorts() {
                // A client that asks for nothing may stay unproven for long.
                self.space = Vec::new();
            }
            self.go_on(inner, shared);
            if !self.has_ready() && self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Gives HTTP what was sorted.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let length = buf.remaining().min(self.ready.len() - self.delivered);
        let next = &self.ready[self.delivered..self.delivered + length];
        buf.put_slice(next);
        self.observer.on_delivered(next);
        self.delivered += length;
        self.is_drained = false;
    }

    /// HTTP is about to write: what is ours goes first, and the connection doesn't leave before all of it has gone out.
    pub(super) fn poll_before_write<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        inner: &mut Transport<T>,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ours(inner, cx))?;
        self.is_flushed = false;
        shared.state.on_may_leave(false);
        Poll::Ready(Ok(()))
    }

    /// So many bytes of these have been written.
    pub(super) fn on_written(&mut self, slices: &[io::IoSlice<'_>], written: usize) {
        let mut left = written;
        for slice in slices {
            let taken = left.min(slice.len());
            self.observer.on_written(&slice[..taken]);
            left -= taken;
        }
    }

    /// HTTP has written all that it had.
    pub(super) fn poll_flush<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        inner: &mut Transport<T>,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.resume.is_some() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_ours(inner, cx))?;
        ready!(Pin::new(&mut *inner).poll_flush(cx))?;
        self.is_flushed = true;
        self.judge(inner, shared);
        // The next read begins what had to wait for this.
        if self.leave.stays() && shared.state.is_leaving() && self.may_tell() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is ours to say.
    fn poll_ours<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        inner: &mut Transport<T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ours.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.is_flushed = false;
        while !self.ours.is_empty() {
            let written = ready!(Pin::new(&mut *inner).poll_write(cx, &self.ours))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ours.advance(written);
        }
        // h2 flushes only what it has written.
        ready!(Pin::new(inner).poll_flush(cx))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    /// Sees to it that the next step is taken when it is due.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.leave.due().map(Instant::from_std) else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}
