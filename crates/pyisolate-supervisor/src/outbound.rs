//! The way into a cell: frames in order, and the descriptors that some of them name.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use pyisolate_abi::frame::{FRAME_BYTES_MAX, Frame, Part, encoded_len, store_layout};
use pyisolate_abi::message::{Answer, Payload, ToGuest};
use pyisolate_channel::{ChannelError, HostControl, HostWriter, Sent, SharedBuffer};

use crate::cell::{CellShared, lock};
use crate::error::{Breach, CellError};

/// Answers that may wait for a guest to take them. A thread of the guest has one question under way
/// at a time; a guest that has more than this many does not read what it asked for.
const ANSWERS_MAX: usize = 4096;

/// What the answers that wait may take, in bytes: as many of the largest as a cell may have requests
/// under way, and as many again.
const ANSWERS_BYTES_MAX: usize = 32 << 20;

/// Of those, how many may come with a descriptor: every one takes one of the host's meanwhile, and
/// most of them a buffer. Some forty more are on their way in the socket before any waits.
const ANSWER_DESCRIPTORS_MAX: usize = 64;

/// How long one wait for room goes on before the caller is asked whether to go on.
const SEND_SLICE: Duration = Duration::from_millis(100);

/// How long a caller waits for room in a cell's channel, and whether it still wants to: it is asked
/// every tenth of a second.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// How long.
    pub timeout: Duration,
    /// Asked now and then; `false` ends the wait with [`CellError::Interrupted`].
    pub go_on: &'a (dyn Fn() -> bool + Sync),
}

impl std::fmt::Debug for Patience<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Patience").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Patience<'_> {
    /// So long, whatever happens.
    #[must_use]
    pub fn of(timeout: Duration) -> Self {
        Self { timeout, go_on: &|| true }
    }
}

impl Default for Patience<'_> {
    /// Ten seconds: a guest that takes nothing for so long is stuck.
    fn default() -> Self {
        Self::of(Duration::from_secs(10))
    }
}

/// The writing side: frames in order, those first that found no room.
#[derive(Debug)]
pub(crate) struct Outbound {
    writer: HostWriter,
    backlog: VecDeque<Outgoing>,
}

/// A frame on its way to the guest, and the descriptor that it names. Descriptors go by the socket,
/// and the guest takes them in the order of the frames.
#[derive(Debug)]
pub(crate) struct Outgoing {
    record: Vec<u8>,
    descriptor: Option<(u32, OwnedFd)>,
    /// What the buffer behind the descriptor takes.
    buffer_bytes: u64,
}

impl Outgoing {
    fn new(frame: &Frame<'_>, descriptor: Option<(u32, OwnedFd)>) -> Self {
        let mut record = Vec::new();
        frame.encode(&mut record);
        Self { record, descriptor, buffer_bytes: 0 }
    }

    /// Sends it; without a deadline, only if there is room now.
    fn transmit(
        &mut self,
        writer: &mut HostWriter,
        control: &HostControl,
        deadline: Option<Instant>,
    ) -> Result<Sent, ChannelError> {
        while let Some((tag, descriptor)) = &self.descriptor {
            match control.send_descriptor(*tag, descriptor)? {
                Sent::Sent => self.descriptor = None,
                Sent::Full if deadline.is_some_and(|deadline| Instant::now() < deadline) => {
                    // The guest has not taken those before; there is no event to wait for.
                    std::thread::sleep(Duration::from_millis(1));
                }
                other => return Ok(other),
            }
        }
        match deadline {
            Some(_) => writer.send(&[&self.record], deadline),
            None => writer.try_send(&[&self.record]),
        }
    }
}

impl Outbound {
    pub(crate) fn new(writer: HostWriter) -> Self {
        Self { writer, backlog: VecDeque::new() }
    }
}

impl CellShared {
    /// Sends a frame, after what already waits; waits for room as long as `patience`.
    fn send(&self, outgoing: Outgoing, patience: &Patience<'_>) -> Result<(), CellError> {
        let deadline = Instant::now().checked_add(patience.timeout);
        let mut outbound = self.lock_outbound(deadline, patience)?;
        outbound.backlog.push_back(outgoing);
        while let Some(mut first) = outbound.backlog.pop_front() {
            let slice = Instant::now() + SEND_SLICE;
            let until = deadline.map_or(slice, |deadline| deadline.min(slice));
            match first.transmit(&mut outbound.writer, &self.control, Some(until)) {
                Ok(Sent::Sent) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Sent::Full) => {
                    outbound.backlog.push_front(first);
                    let over = deadline.is_some_and(|deadline| deadline <= Instant::now());
                    if over || !(patience.go_on)() {
                        // The caller's own frame, the last, is withdrawn; the others go on waiting.
                        outbound.backlog.pop_back();
                        drop(outbound);
                        self.flush();
                        return Err(if over {
                            CellError::Full { after: patience.timeout }
                        } else {
                            CellError::Interrupted("sending")
                        });
                    }
                }
                failed => {
                    drop(outbound);
                    return self.sent_or(failed);
                }
            }
        }
        drop(outbound);
        // Answers that came up meanwhile found the writer taken.
        self.flush();
        Ok(())
    }

    /// Takes the way into the cell, which another thread may hold for as long as it waits for room.
    fn lock_outbound(
        &self,
        deadline: Option<Instant>,
        patience: &Patience<'_>,
    ) -> Result<MutexGuard<'_, Outbound>, CellError> {
        let mut asked = Instant::now();
        loop {
            match self.outbound.try_lock() {
                Ok(outbound) => return Ok(outbound),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(CellError::Full { after: patience.timeout });
            }
            if now - asked >= SEND_SLICE {
                asked = now;
                if !(patience.go_on)() {
                    return Err(CellError::Interrupted("sending"));
                }
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    pub(crate) fn tell_within(
        &self,
        message: &ToGuest<'_>,
        patience: Duration,
    ) -> Result<(), CellError> {
        self.send(Outgoing::new(&message.to_frame(0), None), &Patience::of(patience))
    }

    fn sent_or(&self, failed: Result<Sent, ChannelError>) -> Result<(), CellError> {
        if let Err(error) = failed {
            self.condemn(error.into());
        }
        Err(CellError::Dead(self.await_death()))
    }

    /// Sends a frame of the supervisor's own without ever waiting: an answer to a guest that may
    /// not be reading. What finds no room is kept and sent when the guest has made some.
    pub(crate) fn send_later(
        &self,
        message: &ToGuest<'_>,
        descriptor: Option<(u32, OwnedFd)>,
    ) -> Result<(), Breach> {
        let store = descriptor.as_ref().map_or(0, |(number, _)| *number);
        self.keep(Outgoing::new(&message.to_frame(store), descriptor))
    }

    fn keep(&self, outgoing: Outgoing) -> Result<(), Breach> {
        let mut answers = lock(&self.answers);
        answers.push_back(outgoing);
        let waiting = answers.len();
        let bytes = answers.iter().map(|it| it.record.len()).sum::<usize>();
        drop(answers);
        self.flush();
        if waiting > ANSWERS_MAX || bytes > ANSWERS_BYTES_MAX {
            return Err(Breach::TakesNoAnswers(waiting));
        }
        Ok(())
    }

    // --- answers to requests

    /// Answers with a value. One that is over the cell's limit is an error in the guest.
    pub(crate) fn answer_granted(
        &self,
        id: u32,
        pickle: &[u8],
        buffers: &[&[u8]],
    ) -> Result<(), Breach> {
        if !self.has_room_for_descriptor() {
            return self.answer_failed(id, "RuntimeError", UNTAKEN);
        }
        let message = |value| ToGuest::Answer { id, answer: Answer::Granted(value) };
        match self.lay_out(pickle, buffers, message) {
            Ok(outgoing) => self.keep(outgoing),
            Err(error) => self.answer_failed(id, "ValueError", &error.to_string()),
        }
    }

    /// Answers with a value, which is small, and a descriptor.
    pub(crate) fn answer_handed(
        &self,
        id: u32,
        pickle: &[u8],
        descriptor: OwnedFd,
    ) -> Result<(), Breach> {
        if !self.has_room_for_descriptor() {
            return self.answer_failed(id, "RuntimeError", UNTAKEN);
        }
        let store = self.fresh_store();
        let answer = Answer::Handed(Payload::inline(pickle));
        self.send_later(&ToGuest::Answer { id, answer }, Some((store, descriptor)))
    }

    /// Whether the answers that the guest did not take yet leave room for one with a descriptor.
    pub(crate) fn has_room_for_descriptor(&self) -> bool {
        let answers = lock(&self.answers);
        let held = answers.iter().filter(|it| it.descriptor.is_some());
        let (count, bytes) =
            held.fold((0, 0), |(count, bytes), it| (count + 1, bytes + it.buffer_bytes));
        let most = self.settings.get().map_or(0, |settings| settings.limits.unread_bytes);
        count < ANSWER_DESCRIPTORS_MAX && bytes <= most
    }

    pub(crate) fn answer_denied(&self, id: u32, why: &str) -> Result<(), Breach> {
        self.send_later(&ToGuest::Answer { id, answer: Answer::Denied(why) }, None)
    }

    pub(crate) fn answer_failed(&self, id: u32, kind: &str, message: &str) -> Result<(), Breach> {
        self.send_later(&ToGuest::Answer { id, answer: Answer::Failed { kind, message } }, None)
    }

    /// Sends what waits, as far as there is room. Where another thread is sending, it does this.
    pub(crate) fn flush(&self) {
        loop {
            let Ok(mut outbound) = self.outbound.try_lock() else { return };
            let nothing_waits = self.flush_held(&mut outbound);
            drop(outbound);
            // An answer that came between the last look and the release found the writer taken.
            if !nothing_waits || lock(&self.answers).is_empty() {
                return;
            }
        }
    }

    /// The same for who holds the writer; whether there was nothing left to be sent.
    fn flush_held(&self, outbound: &mut Outbound) -> bool {
        loop {
            if outbound.backlog.is_empty() {
                outbound.backlog.extend(lock(&self.answers).pop_front());
            }
            let Some(first) = outbound.backlog.front_mut() else { return true };
            match first.transmit(&mut outbound.writer, &self.control, None) {
                Ok(Sent::Sent) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    outbound.backlog.pop_front();
                }
                // The socket is full of descriptors, and nothing tells when the guest takes one.
                Ok(Sent::Full) if first.descriptor.is_some() => {
                    self.monitor.read_soon(self.number);
                    return false;
                }
                // The guest rings when it has made room, unless it did just now.
                Ok(Sent::Full) => match outbound.writer.want_room_bell() {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(error) => {
                        self.condemn(error.into());
                        return false;
                    }
                },
                Ok(Sent::PeerGone) => return false,
                Err(error) => {
                    self.condemn(error.into());
                    return false;
                }
            }
        }
    }

    /// Sends a message with a payload: inline if it fits a frame, else through a shared buffer.
    pub(crate) fn send_payload<'a>(
        &self,
        pickle: &'a [u8],
        buffers: &[&'a [u8]],
        patience: &Patience<'_>,
        message: impl Fn(Payload<'a>) -> ToGuest<'a>,
    ) -> Result<(), CellError> {
        self.send(self.lay_out(pickle, buffers, message)?, patience)
    }

    fn lay_out<'a>(
        &self,
        pickle: &'a [u8],
        buffers: &[&'a [u8]],
        message: impl Fn(Payload<'a>) -> ToGuest<'a>,
    ) -> Result<Outgoing, CellError> {
        let parts = || std::iter::once(pickle).chain(buffers.iter().copied());
        let bytes = parts().map(|part| part.len() as u64).sum();
        let limit = self.settings.get().map_or(u64::from(u32::MAX), |it| it.limits.message_bytes);
        if bytes > limit {
            return Err(CellError::TooLarge { bytes, limit });
        }
        let inline = message(payload(parts().map(Part::Inline))).to_frame(0);
        if encoded_len(&inline.parts) <= FRAME_BYTES_MAX {
            return Ok(Outgoing::new(&inline, None));
        }
        let (places, end) = store_layout(parts().map(<[u8]>::len));
        let shared = SharedBuffer::create(usize::try_from(end).unwrap_or(usize::MAX))
            .map_err(CellError::Buffer)?;
        for (place, bytes) in places.iter().zip(parts()) {
            if let Part::Stored { offset, .. } = *place {
                shared.write_at(offset, bytes).map_err(CellError::Buffer)?;
            }
        }
        let sealed = shared.seal_for_guest().map_err(CellError::Buffer)?;
        let store = self.fresh_store();
        let descriptor = sealed.as_fd().try_clone_to_owned().map_err(CellError::Descriptor)?;
        let frame = message(payload(places.into_iter())).to_frame(store);
        Ok(Outgoing { buffer_bytes: end, ..Outgoing::new(&frame, Some((store, descriptor))) })
    }

    fn fresh_store(&self) -> u32 {
        self.next_store.fetch_add(1, Ordering::Relaxed).max(1)
    }
}

pub(crate) const UNTAKEN: &str = "too many answers wait to be taken: take some of them";

fn payload<'a>(mut parts: impl Iterator<Item = Part<'a>>) -> Payload<'a> {
    Payload { pickle: parts.next().unwrap_or(Part::Inline(&[])), buffers: parts.collect() }
}
