//! HTTP/1 as hyper does it with one connection, as far as it matters to the machine: when it reads, takes a request,
//! writes, flushes and ends.

use super::*;

/// What HTTP has of a request that the app has not answered in full.
pub struct InFlight {
    /// How many bytes of its body are still to be read.
    pub body_left: usize,
    pub answered: bool,
    /// The app reads the body before it answers.
    pub reads: bool,
}

/// One worker's part in the connection.
pub struct Worker {
    pub state: ConnState,
    pub timeouts: Timeouts,
    pub phase: Phase,
    /// The phase, until the driver has seen it.
    pub new_phase: Option<Phase>,
    /// When the phase was told.
    pub told: Instant,
    /// When the worker's first drain began: what follows it doesn't begin anew.
    pub drains_since: Option<Instant>,
    pub timer: Instant,
    /// What HTTP has been given and not made a request of.
    pub buffer: Vec<u8>,
    pub in_flight: Option<InFlight>,
    /// Bytes of responses on their way.
    pub out: usize,
    /// HTTP goes on behind the response.
    pub keeps: bool,
    /// A graceful end has been asked for.
    pub graceful: bool,
    /// HTTP was told the end of the stream so that it ends.
    pub told_end: bool,
    pub shutdown: Option<Shutdown>,
}

impl Worker {
    /// Whether the linger of the drain is over.
    pub fn is_late(&self, now: Instant) -> bool {
        self.drains_since.is_some_and(|since| now >= since + LINGER)
    }
}

impl World {
    /// One poll of HTTP: reads and takes requests, writes, flushes. Whether it is done, and whether it is to be
    /// polled again.
    pub fn poll(&mut self) -> (Option<Finish>, bool) {
        let Location::Served(worker) = &mut self.location else { return (None, false) };
        loop {
            if let Some(in_flight) = &mut worker.in_flight {
                let length = if in_flight.reads { in_flight.body_left.min(worker.buffer.len()) } else { 0 };
                worker.buffer.drain(..length);
                in_flight.body_left -= length;
                // It reads ahead no further than to see the client's end.
                if in_flight.body_left == 0 && !worker.buffer.is_empty() {
                    break;
                }
            } else if !worker.keeps || (worker.graceful && self.begun > 0) {
                break;
            } else if let Some(span) = self.spans.get(self.begun) {
                let blank = worker.buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                let length = span.head.len();
                if worker.buffer.len() - blank >= length {
                    let head = worker.buffer[blank..blank + length].to_vec();
                    assert_eq!(head, self.stream[span.head.clone()], "each request is begun once, and in its turn");
                    worker.buffer.drain(..blank + length);
                    let body_left = span.all.end - span.head.end;
                    worker.in_flight = Some(InFlight { body_left, answered: false, reads: true });
                    self.begun += 1;
                    worker.keeps &= !worker.graceful;
                    worker.state.on_request(span.length);
                    (self.idle_since, self.head_since) = (None, None);
                    continue;
                }
            }
            match worker.state.on_read_wanted() {
                Read::On => {
                    assert!(!worker.told_end, "nothing is read once HTTP was told the end");
                    if !self.unread.is_empty() {
                        let length = self.piece.min(self.unread.len());
                        let bytes: Vec<u8> = self.unread.drain(..length).collect();
                        worker.state.on_delivered(&bytes);
                        worker.buffer.extend(bytes);
                        continue;
                    }
                    let length = self.piece.min(self.sent - self.taken);
                    if length > 0 {
                        let bytes = &self.stream[self.taken..self.taken + length];
                        worker.state.on_read(Found::Bytes(length));
                        worker.state.on_delivered(bytes);
                        worker.buffer.extend(bytes);
                        self.taken += length;
                        self.blocked_since = None;
                        continue;
                    }
                    if !self.client_ended {
                        worker.state.on_read(Found::Nothing);
                        break;
                    }
                    worker.state.on_read(Found::End);
                }
                Read::Wait | Read::Later | Read::Rest => break,
                Read::End => worker.told_end = true,
            }
            // The end of the stream, of the client's or as it was told.
            if worker.in_flight.is_some() || worker.buffer.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
                return (Some(Finish::Failed), false);
            }
            worker.keeps = false;
            break;
        }
        if worker.out > 0 {
            worker.state.on_write();
            let length = worker.out.min(self.window);
            worker.state.on_sent(length);
            worker.out -= length;
            self.window -= length;
            if length > 0 {
                self.blocked_since = None;
            }
        }
        // A flush finds out whether the client has taken all of it.
        worker.state.on_write_blocked(worker.out > 0);
        if worker.out > 0 {
            self.blocked_since.get_or_insert(self.now);
        } else {
            self.blocked_since = None;
        }
        let wakes = worker.out == 0 && worker.state.on_flushed();
        if worker.out == 0 && worker.in_flight.is_none() {
            self.answered = self.begun;
            self.idle_since.get_or_insert(self.now);
            if worker.buffer.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
                self.head_since.get_or_insert(self.now);
            }
            if !worker.keeps || (worker.graceful && self.begun > 0) {
                worker.shutdown = Some(worker.state.on_shutdown());
                return (Some(Finish::Done), false);
            }
        }
        (None, wakes)
    }
}
