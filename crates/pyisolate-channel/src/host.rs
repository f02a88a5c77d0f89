//! The host's end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::SealFlags;

use crate::error::{ChannelError, Violation};
use crate::layout::{Direction, is_ring_size, memory_bytes};
use crate::mapping::SharedMap;
use crate::memory;
use crate::ring::{Received, Receiver, Sender, Sent};
use crate::side::{Role, Side};
use crate::socket::{self, Bells};

/// A new channel with two rings of `ring_bytes` each
/// ([`DEFAULT_RING_BYTES`](crate::DEFAULT_RING_BYTES) unless there is a reason).
///
/// The host keeps the first value. The second goes to the guest's process, which makes a
/// [`GuestEnd`](crate::GuestEnd) of it; a host that keeps a copy of it open never hears
/// [`Bells::Closed`].
///
/// # Errors
/// The size is no power of two or out of range, or the kernel refuses memory or descriptors.
pub fn pair(ring_bytes: u32) -> Result<(HostEnd, GuestFds), ChannelError> {
    if !is_ring_size(ring_bytes) {
        return Err(ChannelError::RingSize { ring_bytes });
    }
    let len_bytes = memory_bytes(ring_bytes);
    let memory = memory::create(c"pyisolate-channel", len_bytes)?;
    memory::add_seals(&memory, len_bytes, SealFlags::SEAL)?;
    let map = SharedMap::new(memory.as_fd(), ring_bytes)
        .map_err(|source| ChannelError::MapMemory { len_bytes, source })?;
    map.write_identity();
    let (ours, theirs) = socket::pair()?;
    let side = Side::new(map, ours, Role::Host);
    let mut reader = HostReader { receiver: Receiver::new(&side, Direction::ToHost) };
    // Until the first thread reads, the guest has to ring.
    reader.leave_reading()?;
    let writer = HostWriter { sender: Sender::new(&side, Direction::ToGuest) };
    Ok((
        HostEnd { writer, reader, control: HostControl { side } },
        GuestFds { memory, socket: theirs },
    ))
}

/// What the guest's process must be given.
#[derive(Debug)]
pub struct GuestFds {
    /// The memory file with both rings, its size sealed.
    pub memory: OwnedFd,
    /// The guest's end of the socket.
    pub socket: OwnedFd,
}

/// The host's end of a channel, in parts that different threads can own.
#[derive(Debug)]
pub struct HostEnd {
    /// Sends records to the guest.
    pub writer: HostWriter,
    /// Receives records from the guest.
    pub reader: HostReader,
    /// Everything that any thread may do at any time.
    pub control: HostControl,
}

/// Sends records to the guest.
#[derive(Debug)]
pub struct HostWriter {
    sender: Sender,
}

impl HostWriter {
    /// Sends one record, the parts put together, or answers [`Sent::Full`] if there is no room now.
    ///
    /// # Errors
    /// The record is too long, which changes nothing, or the guest has broken the protocol.
    pub fn try_send(&mut self, parts: &[&[u8]]) -> Result<Sent, ChannelError> {
        self.sender.try_send(parts, true)
    }

    /// Sends one record, the parts put together, and waits for room until the deadline, if there is
    /// one, or until the guest is marked dead.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn send(
        &mut self,
        parts: &[&[u8]],
        deadline: Option<Instant>,
    ) -> Result<Sent, ChannelError> {
        self.sender.send(parts, true, deadline)
    }

    /// After [`Sent::Full`]: asks the guest to ring when the ring is at least half empty, which is
    /// room for any record. `true`: it already is, so send now; no bell was asked for.
    ///
    /// One bell answers one request. The next record sent withdraws it.
    ///
    /// # Errors
    /// The guest has broken the protocol.
    pub fn want_room_bell(&mut self) -> Result<bool, ChannelError> {
        self.sender.leave()
    }
}

/// Receives records from the guest.
///
/// At first no thread is *reading*, and the guest rings the bell for urgent records and when the ring
/// is full. Between [`enter_reading`](Self::enter_reading) and [`leave_reading`](Self::leave_reading)
/// it does not, and wakes a thread that sleeps in [`recv`](Self::recv) instead.
#[derive(Debug)]
pub struct HostReader {
    receiver: Receiver,
}

impl HostReader {
    /// Says that a thread reads from now on. The caller looks at the ring after this.
    pub fn enter_reading(&mut self) {
        self.receiver.enter();
    }

    /// Says that no thread reads any more.
    ///
    /// `true`: records are left, and the bell may not have been rung for them: enter again and drain
    /// them, or remember to. Every urgent record that comes after this rings.
    ///
    /// # Errors
    /// The guest has broken the protocol.
    pub fn leave_reading(&mut self) -> Result<bool, ChannelError> {
        self.receiver.leave()
    }

    /// Receives the next record, if there is one, over whatever `record` holds.
    ///
    /// # Errors
    /// The guest has broken the protocol.
    pub fn try_recv(&mut self, record: &mut Vec<u8>) -> Result<bool, ChannelError> {
        self.receiver.try_recv(record)
    }

    /// Receives the next record, over whatever `record` holds, and waits for it until the deadline,
    /// if there is one, or until the guest is marked dead. Enters reading, and does not leave it.
    ///
    /// # Errors
    /// The guest has broken the protocol, or the kernel refuses to wait.
    pub fn recv(
        &mut self,
        record: &mut Vec<u8>,
        deadline: Option<Instant>,
    ) -> Result<Received, ChannelError> {
        self.receiver.recv(record, deadline)
    }

    /// Bytes of records, their headers and padding included, that can be received at once.
    ///
    /// # Errors
    /// The guest has broken the protocol.
    pub fn available(&mut self) -> Result<u32, ChannelError> {
        self.receiver.available()
    }
}

/// What any thread of the host may do with a channel at any time. Clones are the same channel.
#[derive(Debug, Clone)]
pub struct HostControl {
    side: Arc<Side>,
}

impl HostControl {
    /// Says that the guest's process has ended. Threads that wait for it come back, with
    /// [`Received::PeerGone`] once all it had sent is received, or [`Sent::PeerGone`].
    ///
    /// They come back at once, except where the guest has tampered with the futexes: then within
    /// [`HOST_SLEEP_SLICE`](crate::HOST_SLEEP_SLICE).
    ///
    /// # Errors
    /// The kernel refuses to wake; the mark is set all the same.
    pub fn mark_dead(&self) -> Result<(), ChannelError> {
        self.side.mark_dead()
    }

    /// Whether the guest was marked dead.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.side.is_dead()
    }

    /// How the guest has broken the protocol, if it has.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.side.violation()
    }

    /// The socket, to be polled: readable when a bell was rung or the guest's end is closed. Only for
    /// polling: [`drain_bell`](Self::drain_bell) reads from it.
    #[must_use]
    pub fn bell_fd(&self) -> BorrowedFd<'_> {
        self.side.socket.as_fd()
    }

    /// Takes the bells that have been rung, without waiting, up to a few dozen: a descriptor that is
    /// still readable was rung again.
    ///
    /// # Errors
    /// The guest has broken the protocol.
    pub fn drain_bell(&self) -> Result<Bells, ChannelError> {
        self.side.check()?;
        let result = socket::drain(&self.side.socket);
        self.side.judge(result)
    }

    /// Sends the guest a copy of a descriptor, without waiting. The tag (chosen by the caller, told to
    /// the guest in a record) keeps descriptors and records from being mixed up.
    ///
    /// [`Sent::Full`]: the guest does not take those sent before.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn send_descriptor(&self, tag: u32, descriptor: impl AsFd) -> Result<Sent, ChannelError> {
        self.side.check()?;
        socket::send_descriptor(&self.side.socket, tag, descriptor.as_fd())
    }
}
