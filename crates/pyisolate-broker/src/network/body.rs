//! The body of an answer, read a piece at a time.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use pyisolate_policy::Host;
use rustix::io::Errno;

use super::chunked::Chunked;
use super::connect::failure;
use super::line::{Fault, Line, Turn, protocol};
use crate::outcome::Refusal;
use crate::secret::Scrubbing;

/// The most that one request for a piece gives.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// What is read from a socket at a time.
const READ_BYTES: usize = 64 << 10;

/// How long to wait for more to come along with what is there: an answer that is sent in one go
/// comes in one piece, and one that comes in drops is not held back.
const LINGER: Duration = Duration::from_millis(20);

/// Where a body ends.
#[derive(Debug)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// Where the coding says.
    Chunked(Chunked),
    /// With the connection.
    Close,
}

/// What a host was sent by the time of its answer.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) host: Host,
    pub(super) secrets: BTreeSet<String>,
}

impl Sent {
    /// Refuses what was read after the host was sent a secret that is not looked for.
    fn check(&self, turn: Turn<'_>) -> Result<(), Fault> {
        if !turn.session.placeholders.was_sent_more(&self.host, &self.secrets) {
            return Ok(());
        }
        let text = "Software caused connection abort: the host was sent a secret while it answered, \
                    which is not looked for in this answer: ask again";
        Err(Fault::Refused(failure(Errno::CONNABORTED, text).into()))
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Body {
    /// `None` once it is read to its end.
    line: Option<Line>,
    /// What was read along with the head.
    ahead: Vec<u8>,
    framing: Framing,
    scrubbing: Option<Scrubbing>,
    sent: Sent,
    /// How long one request for a piece may take.
    timeout: Duration,
    /// Whether the other side has closed the connection.
    is_closed: bool,
    /// What is to be said when the next piece is asked for.
    broken: Option<Fault>,
}

impl Body {
    pub(super) fn new(
        line: Line,
        ahead: Vec<u8>,
        framing: Framing,
        scrubbing: Option<Scrubbing>,
        sent: Sent,
        timeout: Duration,
    ) -> Self {
        Self {
            line: Some(line),
            ahead,
            framing,
            scrubbing,
            sent,
            timeout,
            is_closed: false,
            broken: None,
        }
    }

    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) const fn is_over(&self) -> bool {
        self.line.is_none()
    }

    pub(super) fn socket(&self) -> Option<Arc<TcpStream>> {
        self.line.as_ref().map(Line::socket)
    }

    /// What is there by now: nothing if nothing came along with the head.
    pub(super) fn first(&mut self, turn: Turn<'_>) -> Result<Vec<u8>, Fault> {
        self.piece(turn, true)
    }

    /// The next piece; nothing at the end alone.
    pub(super) fn next(&mut self, turn: Turn<'_>) -> Result<Vec<u8>, Fault> {
        self.piece(turn, false)
    }

    fn piece(&mut self, turn: Turn<'_>, is_first: bool) -> Result<Vec<u8>, Fault> {
        if let Some(fault) = self.broken.take() {
            return Err(fault);
        }
        let mut out = Vec::new();
        // From the first byte on, however quickly drops follow each other.
        let mut lull = is_first.then(|| turn.at_most(LINGER));
        loop {
            let came = self.step(&mut out).map_err(Fault::Refused).and_then(|more| {
                let is_enough = out.len() >= PIECE_BYTES_MAX;
                if !more || is_enough {
                    return Ok(false);
                }
                if lull.is_none() && !out.is_empty() {
                    lull = Some(turn.at_most(LINGER));
                }
                self.read(lull.unwrap_or(turn)).map(|()| true)
            });
            match came {
                Ok(true) => {}
                Ok(false) => return Ok(out),
                Err(Fault::TimedOut) if is_first || !out.is_empty() => return Ok(out),
                // What came before is told first, unless nobody is there to be told.
                Err(fault) if !out.is_empty() && !fault.is_final() => {
                    self.broken = Some(fault);
                    return Ok(out);
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    fn read(&mut self, turn: Turn<'_>) -> Result<(), Fault> {
        let Some(line) = &mut self.line else { return Ok(()) };
        let mut ahead = vec![0; READ_BYTES];
        let length = line.read(turn, &mut ahead)?;
        self.sent.check(turn)?;
        ahead.truncate(length);
        self.ahead = ahead;
        match self.framing {
            Framing::Close if length == 0 => self.is_closed = true,
            _ if length == 0 => {
                return Err(Fault::Refused(protocol("the answer ended in the middle of its body")));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes what was read; whether more is to come.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        if self.line.is_none() {
            return Ok(false);
        }
        let ahead = std::mem::take(&mut self.ahead);
        let mut plain = Vec::new();
        let is_end = match &mut self.framing {
            Framing::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(ahead.len());
                *left -= u64::try_from(take).unwrap_or(u64::MAX);
                plain.extend_from_slice(&ahead[..take]);
                *left == 0
            }
            Framing::Chunked(chunked) => {
                chunked.push(&ahead, &mut plain)?;
                chunked.is_end()
            }
            Framing::Close => {
                plain = ahead;
                self.is_closed
            }
        };
        self.give(&plain, out);
        if is_end {
            self.finish(out);
        }
        Ok(!is_end)
    }

    fn give(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        match &mut self.scrubbing {
            Some(scrubbing) => scrubbing.push(plain, out),
            None => out.extend_from_slice(plain),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.line = None;
        if let Some(scrubbing) = &mut self.scrubbing {
            scrubbing.end(out);
        }
    }
}
