//! Records on a ring: a cursor, the data, and the waiting.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::cursor::{Consumer, Producer};
use crate::error::{ChannelError, Violation};
use crate::layout::{Direction, LENGTH_BYTES, footprint, max_record};
use crate::side::{Line, Side};

/// What became of a record that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It was published.
    Sent,
    /// There was no room for it, until the deadline if one was given. Nothing was sent.
    Full,
    /// The peer was marked dead. Nothing was sent.
    PeerGone,
}

/// What came of waiting for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// A record was received.
    Record,
    /// None came until the deadline.
    TimedOut,
    /// The peer was marked dead, and everything it had sent before has been received.
    PeerGone,
}

/// The writing half of either end.
#[derive(Debug)]
pub(crate) struct Sender {
    side: Arc<Side>,
    direction: Direction,
    cursor: Producer<Line>,
}

impl Sender {
    pub(crate) fn new(side: &Arc<Side>, direction: Direction) -> Self {
        let cursor = Producer::new(Line { side: side.clone(), direction }, side.map.ring_bytes());
        Self { side: side.clone(), direction, cursor }
    }

    /// Sends one record, the parts put together, if there is room.
    pub(crate) fn try_send(&mut self, parts: &[&[u8]], urgent: bool) -> Result<Sent, ChannelError> {
        let length_bytes = self.length(parts)?;
        self.side.check()?;
        let result = self.offer(parts, length_bytes, urgent);
        self.side.judge(result)
    }

    /// Sends one record, and waits for room.
    pub(crate) fn send(
        &mut self,
        parts: &[&[u8]],
        urgent: bool,
        deadline: Option<Instant>,
    ) -> Result<Sent, ChannelError> {
        let length_bytes = self.length(parts)?;
        let mut spun = false;
        loop {
            self.side.check()?;
            let result = self.offer(parts, length_bytes, urgent);
            match self.side.judge(result)? {
                Sent::Full => {}
                done @ (Sent::Sent | Sent::PeerGone) => return Ok(done),
            }
            if has_passed(deadline) {
                return Ok(Sent::Full);
            }
            if spun {
                self.cursor.sleep(self.side.sleep_for(deadline))?;
            } else {
                spun = true;
                self.side.watch(deadline, || self.cursor.tail_moved());
            }
        }
    }

    /// See [`Producer::leave`].
    pub(crate) fn leave(&mut self) -> Result<bool, ChannelError> {
        self.side.check()?;
        let result = self.cursor.leave();
        self.side.judge(result.map_err(ChannelError::from))
    }

    /// The length of a record that is not too long.
    fn length(&self, parts: &[&[u8]]) -> Result<u32, ChannelError> {
        let max_bytes = max_record(self.side.map.ring_bytes());
        let length_bytes = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        match u32::try_from(length_bytes) {
            Ok(length) if length <= max_bytes => Ok(length),
            _ => Err(ChannelError::RecordTooLong { length_bytes, max_bytes }),
        }
    }

    fn offer(
        &mut self,
        parts: &[&[u8]],
        length_bytes: u32,
        urgent: bool,
    ) -> Result<Sent, ChannelError> {
        if self.side.is_dead() {
            return Ok(Sent::PeerGone);
        }
        let needed = footprint(length_bytes);
        if !self.cursor.has_room(needed)? {
            return Ok(Sent::Full);
        }
        self.write(parts, length_bytes);
        self.cursor.publish(needed, urgent)?;
        Ok(Sent::Sent)
    }

    /// Writes length and payload behind the head, where the consumer does not look yet.
    fn write(&self, parts: &[&[u8]], length_bytes: u32) {
        let mut position = self.cursor.head();
        let mut put = |word: u64| {
            self.side.map.data(self.direction, position).store(word, Ordering::Relaxed);
            position = position.wrapping_add(8);
        };
        put(u64::from(length_bytes));
        // Parts meet inside a word: `begun` bytes of it are already known.
        let (mut word, mut begun) = ([0_u8; 8], 0);
        for part in parts {
            let mut part = *part;
            if begun > 0 {
                let taken = part.len().min(8 - begun);
                word[begun..begun + taken].copy_from_slice(&part[..taken]);
                begun += taken;
                part = &part[taken..];
                if begun < 8 {
                    continue;
                }
                put(u64::from_ne_bytes(word));
            }
            let (whole, rest) = part.as_chunks::<8>();
            for chunk in whole {
                put(u64::from_ne_bytes(*chunk));
            }
            word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            begun = rest.len();
        }
        if begun > 0 {
            put(u64::from_ne_bytes(word));
        }
    }
}

/// The reading half of either end.
#[derive(Debug)]
pub(crate) struct Receiver {
    side: Arc<Side>,
    direction: Direction,
    cursor: Consumer<Line>,
    /// Whether the peer has been told that nobody watches the ring.
    away: bool,
}

impl Receiver {
    /// A receiver that watches.
    pub(crate) fn new(side: &Arc<Side>, direction: Direction) -> Self {
        let cursor = Consumer::new(Line { side: side.clone(), direction }, side.map.ring_bytes());
        Self { side: side.clone(), direction, cursor, away: false }
    }

    /// Receives the next record if there is one.
    pub(crate) fn try_recv(&mut self, record: &mut Vec<u8>) -> Result<bool, ChannelError> {
        self.side.check()?;
        let result = self.take(record);
        self.side.judge(result)
    }

    /// Receives the next record, and waits for it.
    pub(crate) fn recv(
        &mut self,
        record: &mut Vec<u8>,
        deadline: Option<Instant>,
    ) -> Result<Received, ChannelError> {
        self.enter();
        let mut spun = false;
        loop {
            // In this order: what the peer sent before its end was published before the flag was set.
            let gone = self.side.is_dead();
            if self.try_recv(record)? {
                return Ok(Received::Record);
            }
            if gone {
                return Ok(Received::PeerGone);
            }
            if has_passed(deadline) {
                return Ok(Received::TimedOut);
            }
            if spun {
                self.cursor.sleep(self.side.sleep_for(deadline))?;
            } else {
                spun = true;
                self.side.watch(deadline, || self.cursor.head_moved());
            }
        }
    }

    /// Bytes of records, with their headers, that are ready to be received.
    pub(crate) fn available(&mut self) -> Result<u32, ChannelError> {
        self.side.check()?;
        let result = self.cursor.published();
        self.side.judge(result.map_err(ChannelError::from))
    }

    /// See [`Consumer::enter`].
    pub(crate) fn enter(&mut self) {
        if self.away {
            self.cursor.enter();
            self.away = false;
        }
    }

    /// See [`Consumer::leave`].
    pub(crate) fn leave(&mut self) -> Result<bool, ChannelError> {
        self.side.check()?;
        self.away = true;
        let result = self.cursor.leave();
        self.side.judge(result.map_err(ChannelError::from))
    }

    fn take(&mut self, record: &mut Vec<u8>) -> Result<bool, ChannelError> {
        let published_bytes = self.cursor.published()?;
        if published_bytes == 0 {
            return Ok(false);
        }
        let start = self.cursor.tail();
        let claimed = self.side.map.data(self.direction, start).load(Ordering::Relaxed);
        let length_bytes = self.believe(claimed, published_bytes)?;
        let payload = start.wrapping_add(LENGTH_BYTES);
        self.side.map.copy_out(self.direction, payload, length_bytes, record);
        self.cursor.consume(footprint(length_bytes))?;
        Ok(true)
    }

    /// A record's length, once it is known to lie within what the peer has published. A producer
    /// publishes whole records only.
    fn believe(&self, claimed: u64, published_bytes: u32) -> Result<u32, Violation> {
        let max_bytes = max_record(self.side.map.ring_bytes());
        let length_bytes = match u32::try_from(claimed) {
            Ok(length) if length <= max_bytes => length,
            _ => return Err(Violation::RecordTooLong { length_bytes: claimed, max_bytes }),
        };
        if footprint(length_bytes) > published_bytes {
            return Err(Violation::RecordUnpublished { length_bytes, published_bytes });
        }
        Ok(length_bytes)
    }
}

fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}
