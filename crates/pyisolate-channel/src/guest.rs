//! The guest's end. It distrusts the host as the host distrusts it: the checks are the same code.
//!
//! System calls it makes once attached, for a system call filter: `futex` (wait and wake),
//! `sched_yield`, `sendto` (bells), `recvmsg` (descriptors), `munmap` and `close` at its end, and for
//! buffers `pwrite64`, `fcntl(F_GET_SEALS)`, `fstat` and `mmap`; `clock_gettime` and `getcpu` where
//! the vDSO lacks them. Attaching adds `sched_getaffinity`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use crate::error::ChannelError;
use crate::layout::{Direction, HEADER_BYTES, MAGIC, is_ring_size, memory_bytes};
use crate::mapping::SharedMap;
use crate::memory::{FIXED_SIZE, sealed_size};
use crate::ring::{Received, Receiver, Sender, Sent};
use crate::side::{Role, Side};
use crate::socket;

/// The guest's end of a channel, in parts that different threads can own.
///
/// No part touches an interpreter, so a caller can release its lock for the time of any call.
#[derive(Debug)]
pub struct GuestEnd {
    /// Sends records to the host.
    pub writer: GuestWriter,
    /// Receives records from the host.
    pub reader: GuestReader,
    /// Receives descriptors from the host.
    pub descriptors: GuestDescriptors,
    /// Ends the waits of all of them, for a guest that does not die with its host.
    pub control: GuestControl,
}

impl GuestEnd {
    /// Maps what the host has made, in the guest's process. The memory descriptor is closed.
    ///
    /// # Errors
    /// The file is not a channel of this version, or cannot be mapped.
    pub fn attach(memory: OwnedFd, socket: OwnedFd) -> Result<Self, ChannelError> {
        let found_bytes = sealed_size(memory.as_fd(), FIXED_SIZE)?;
        let ring_bytes = usize::try_from(found_bytes)
            .ok()
            .and_then(|len_bytes| len_bytes.checked_sub(HEADER_BYTES))
            .and_then(|rings_bytes| u32::try_from(rings_bytes / 2).ok())
            .filter(|ring_bytes| is_ring_size(*ring_bytes))
            .filter(|ring_bytes| memory_bytes(*ring_bytes) as u64 == found_bytes)
            .ok_or(ChannelError::MemorySize { found_bytes })?;
        let map = SharedMap::new(memory.as_fd(), ring_bytes).map_err(|source| {
            ChannelError::MapMemory { len_bytes: memory_bytes(ring_bytes), source }
        })?;
        let (magic, claimed_ring_bytes) = map.read_identity();
        if magic != MAGIC {
            return Err(ChannelError::MemoryVersion { found: magic });
        }
        if claimed_ring_bytes != ring_bytes {
            return Err(ChannelError::MemorySize { found_bytes });
        }
        let side = Side::new(map, socket, Role::Guest);
        Ok(Self {
            writer: GuestWriter { sender: Sender::new(&side, Direction::ToHost) },
            reader: GuestReader { receiver: Receiver::new(&side, Direction::ToGuest) },
            descriptors: GuestDescriptors { side: Arc::clone(&side) },
            control: GuestControl { side },
        })
    }
}

/// Sends records to the host.
#[derive(Debug)]
pub struct GuestWriter {
    sender: Sender,
}

impl GuestWriter {
    /// Sends one record, the parts put together, if there is room now. `urgent`: rings the host's
    /// bell if it has no thread reading. Other records then wait until one comes.
    ///
    /// # Errors
    /// The record is too long, which changes nothing, or the host has broken the protocol.
    pub fn try_send(&mut self, parts: &[&[u8]], urgent: bool) -> Result<Sent, ChannelError> {
        self.sender.try_send(parts, urgent)
    }

    /// Sends one record, the parts put together, and waits for room until the deadline, or for ever:
    /// the guest is killed when the host goes. Rings the bell before it waits.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn send(
        &mut self,
        parts: &[&[u8]],
        urgent: bool,
        deadline: Option<Instant>,
    ) -> Result<Sent, ChannelError> {
        self.sender.send(parts, urgent, deadline)
    }
}

/// Receives records from the host.
#[derive(Debug)]
pub struct GuestReader {
    receiver: Receiver,
}

impl GuestReader {
    /// Receives the next record, if there is one, over whatever `record` holds.
    ///
    /// # Errors
    /// The host has broken the protocol.
    pub fn try_recv(&mut self, record: &mut Vec<u8>) -> Result<bool, ChannelError> {
        self.receiver.try_recv(record)
    }

    /// Receives the next record, over whatever `record` holds, and waits for it until the deadline,
    /// or for ever: the guest is killed when the host goes.
    ///
    /// # Errors
    /// The host has broken the protocol, or the kernel refuses to wait.
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
    /// The host has broken the protocol.
    pub fn available(&mut self) -> Result<u32, ChannelError> {
        self.receiver.available()
    }
}

/// What any thread beside the guest may do with its end. Clones are the same end.
///
/// A guest in a process of its own is killed when the host has no more use for it. One that is a
/// thread of the host's process is told by this.
#[derive(Debug, Clone)]
pub struct GuestControl {
    side: Arc<Side>,
}

impl GuestControl {
    /// Says that the host does not answer any more. Threads that wait for it come back, with
    /// [`Received::PeerGone`] or [`Sent::PeerGone`].
    ///
    /// A thread that has looked and does not sleep yet is not woken, and a guest sleeps for as long as it
    /// takes: say it again until all are back.
    ///
    /// # Errors
    /// The kernel refuses to wake; the mark is set all the same.
    pub fn mark_dead(&self) -> Result<(), ChannelError> {
        self.side.mark_dead()
    }
}

/// Receives descriptors from the host.
#[derive(Debug)]
pub struct GuestDescriptors {
    side: Arc<Side>,
}

impl GuestDescriptors {
    /// Receives the next descriptor, waiting for it, and checks that it is the one with this tag.
    ///
    /// # Errors
    /// Another one came, which is closed, or the host is gone.
    pub fn recv(&mut self, expected_tag: u32) -> Result<OwnedFd, ChannelError> {
        socket::receive_descriptor(&self.side.socket, expected_tag)
    }

    /// The same for one that a record named. Those before it belong to records that the host withdrew
    /// because the ring was full.
    ///
    /// # Errors
    /// What came is no descriptor with a tag, or the host is gone.
    pub fn recv_named(&mut self, tag: u32) -> Result<OwnedFd, ChannelError> {
        loop {
            match self.recv(tag) {
                Err(ChannelError::WrongDescriptor { found: Some(_), descriptors: 1, .. }) => {}
                other => return other,
            }
        }
    }
}
