//! The way into a cell: frames in order, and the descriptors that some of them name.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pyisolate_abi::frame::{FRAME_BYTES_MAX, Frame, Part, STORE_ALIGN, encoded_len};
use pyisolate_abi::message::{Payload, ToGuest};
use pyisolate_channel::{ChannelError, HostControl, HostWriter, Sent, SharedBuffer};

use crate::cell::{CellShared, lock};
use crate::error::{Breach, CellError, Death};

/// Answers that may wait for a guest to take them. A thread of the guest has one question under way
/// at a time; a guest that has more than this many does not read what it asked for.
const ANSWERS_MAX: usize = 4096;

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
}

impl Outgoing {
    fn new(frame: &Frame<'_>, descriptor: Option<(u32, OwnedFd)>) -> Self {
        let mut record = Vec::new();
        frame.encode(&mut record);
        Self { record, descriptor }
    }

    /// Sends it; without a deadline, only if there is room now.
    fn transmit(
        &mut self,
        writer: &mut HostWriter,
        control: &HostControl,
        deadline: Option<Instant>,
    ) -> Result<Sent, ChannelError> {
        if let Some((tag, descriptor)) = &self.descriptor {
            match control.send_descriptor(*tag, descriptor)? {
                Sent::Sent => self.descriptor = None,
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
    fn send(&self, outgoing: Outgoing, patience: Duration) -> Result<(), CellError> {
        let deadline = Instant::now() + patience;
        let mut outbound = lock(&self.outbound);
        outbound.backlog.push_back(outgoing);
        while let Some(mut first) = outbound.backlog.pop_front() {
            let sent = first.transmit(&mut outbound.writer, &self.control, Some(deadline));
            match sent {
                Ok(Sent::Sent) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Sent::Full) => {
                    // The caller's own frame, the last, is withdrawn; the others go on waiting.
                    if !outbound.backlog.is_empty() {
                        outbound.backlog.pop_back();
                        outbound.backlog.push_front(first);
                    }
                    return Err(CellError::Full { after: patience });
                }
                failed => {
                    drop(outbound);
                    return self.sent_or(failed);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn tell_within(
        &self,
        message: &ToGuest<'_>,
        patience: Duration,
    ) -> Result<(), CellError> {
        self.send(Outgoing::new(&message.to_frame(0), None), patience)
    }

    fn sent_or(&self, failed: Result<Sent, ChannelError>) -> Result<(), CellError> {
        if let Err(error) = failed {
            self.condemn(Death::Violation(error.to_string()));
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
        let mut answers = lock(&self.answers);
        answers.push_back(Outgoing::new(&message.to_frame(0), descriptor));
        let waiting = answers.len();
        drop(answers);
        self.flush();
        if waiting > ANSWERS_MAX { Err(Breach::TakesNoAnswers(waiting)) } else { Ok(()) }
    }

    /// Sends what waits, as far as there is room. Where another thread is sending, it does this.
    pub(crate) fn flush(&self) {
        let Ok(mut outbound) = self.outbound.try_lock() else { return };
        let outbound = &mut *outbound;
        loop {
            if outbound.backlog.is_empty() {
                outbound.backlog.extend(lock(&self.answers).pop_front());
            }
            let Some(first) = outbound.backlog.front_mut() else { return };
            match first.transmit(&mut outbound.writer, &self.control, None) {
                Ok(Sent::Sent) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    outbound.backlog.pop_front();
                }
                // The guest rings when it has made room, unless it did just now.
                Ok(Sent::Full) => match outbound.writer.want_room_bell() {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return,
                },
                Ok(Sent::PeerGone) | Err(_) => return,
            }
        }
    }

    /// Sends a message with a payload: inline if it fits a frame, else through a shared buffer.
    pub(crate) fn send_payload<'a>(
        &self,
        pickle: &'a [u8],
        buffers: &[&'a [u8]],
        patience: Duration,
        message: impl Fn(Payload<'a>) -> ToGuest<'a>,
    ) -> Result<(), CellError> {
        let parts = || std::iter::once(pickle).chain(buffers.iter().copied());
        let bytes = parts().map(|part| part.len() as u64).sum();
        let limit = self.settings.get().map_or(u64::from(u32::MAX), |it| it.limits.message_bytes);
        if bytes > limit {
            return Err(CellError::TooLarge { bytes, limit });
        }
        let inline = message(payload(parts().map(Part::Inline))).to_frame(0);
        if encoded_len(&inline.parts) <= FRAME_BYTES_MAX {
            return self.send(Outgoing::new(&inline, None), patience);
        }
        let mut places = Vec::with_capacity(buffers.len() + 1);
        let mut end = 0_u64;
        for part in parts() {
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            places.push(Part::Stored { offset: end, len });
            end = (end + part.len() as u64).next_multiple_of(STORE_ALIGN);
        }
        let shared = SharedBuffer::create(usize::try_from(end).unwrap_or(usize::MAX))
            .map_err(CellError::Buffer)?;
        for (place, bytes) in places.iter().zip(parts()) {
            if let Part::Stored { offset, .. } = *place {
                shared.write_at(offset, bytes).map_err(CellError::Buffer)?;
            }
        }
        let sealed = shared.seal_for_guest().map_err(CellError::Buffer)?;
        let store = self.next_store.fetch_add(1, Ordering::Relaxed).max(1);
        let descriptor = sealed.as_fd().try_clone_to_owned().map_err(CellError::Descriptor)?;
        let frame = message(payload(places.into_iter())).to_frame(store);
        self.send(Outgoing::new(&frame, Some((store, descriptor))), patience)
    }
}

fn payload<'a>(mut parts: impl Iterator<Item = Part<'a>>) -> Payload<'a> {
    Payload { pickle: parts.next().unwrap_or(Part::Inline(&[])), buffers: parts.collect() }
}
