//! Buffers: payloads too large for a ring, in memory files of their own.
//!
//! Every buffer is created by the host, which thereby decides how many there are and how large. Its
//! size is sealed from the start. What makes it safe to read is the write seal: the kernel grants it
//! only when no writable shared mapping is left, and refuses every later write, mapping and hole, by
//! any descriptor whatsoever. Before that nobody reads; after that a plain slice is sound.
//!
//! - **Host to guest**: [`SharedBuffer::create`], [`write_at`](SharedBuffer::write_at),
//!   [`seal_for_guest`](SharedBuffer::seal_for_guest), then the descriptor goes to the guest, which
//!   calls [`map_buffer`]. Its mapping is copy-on-write, so arrays in it are mutable.
//! - **Guest to host**: `create`, the descriptor goes to the guest, which calls [`fill_buffer`] and
//!   says so in a record; then [`seal_and_map`](SharedBuffer::seal_and_map).
//!
//! The guest fills by `pwrite`, not through a mapping: the kernel then takes, zeroes and maps no page
//! by a fault, which measures far faster (reserving the pages first gains nothing), and no writable
//! mapping is left to be forgotten. The pages are charged to whoever fills them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::{Errno, pwrite};

use crate::error::{ChannelError, Violation};
use crate::memory;
use crate::sealed::Mapping;

/// A buffer that is still being written. Made by the host.
#[derive(Debug)]
pub struct SharedBuffer {
    memory: OwnedFd,
    len_bytes: usize,
}

/// A buffer that nobody can change any more, on its way to a guest.
#[derive(Debug)]
pub struct SealedBuffer {
    memory: OwnedFd,
    len_bytes: usize,
}

impl SharedBuffer {
    /// A buffer of `len_bytes` zeros, which take no memory yet. The caller has decided that the guest
    /// may have as much.
    ///
    /// # Errors
    /// The kernel has no descriptor or no memory file to give.
    pub fn create(len_bytes: usize) -> Result<Self, ChannelError> {
        let memory = memory::create(c"pyisolate-buffer", len_bytes)?;
        Ok(Self { memory, len_bytes })
    }

    /// Size in bytes, which never changes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Writes bytes at an offset.
    ///
    /// # Errors
    /// The range exceeds the buffer, or there is no memory.
    pub fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), ChannelError> {
        write_all(self.memory.as_fd(), offset_bytes, bytes)
    }

    /// Seals what the host has written, for sending it to a guest.
    ///
    /// # Errors
    /// [`ChannelError::SealMemory`], if a writable mapping of it exists somewhere.
    pub fn seal_for_guest(self) -> Result<SealedBuffer, ChannelError> {
        memory::add_seals(&self.memory, self.len_bytes, SealFlags::WRITE | SealFlags::SEAL)?;
        Ok(SealedBuffer { memory: self.memory, len_bytes: self.len_bytes })
    }

    /// Seals what the guest has written, and maps it.
    ///
    /// # Errors
    /// [`Violation::BufferStillWritable`], if the guest has kept a writable mapping of it, or holds
    /// its pages by other means.
    pub fn seal_and_map(self) -> Result<Mapping, ChannelError> {
        let len_bytes = self.len_bytes;
        fcntl_add_seals(&self.memory, SealFlags::WRITE | SealFlags::SEAL).map_err(|errno| {
            match errno {
                Errno::BUSY => Violation::BufferStillWritable { len_bytes }.into(),
                // The guest has sealed the seals itself, to keep this one away.
                Errno::PERM => Violation::BufferSealedByPeer { len_bytes }.into(),
                errno => ChannelError::SealMemory { len_bytes, source: errno.into() },
            }
        })?;
        Mapping::new(self.memory.as_fd(), len_bytes)
    }
}

/// For [`HostControl::send_descriptor`](crate::HostControl::send_descriptor), so that the guest may
/// fill it.
impl AsFd for SharedBuffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl SealedBuffer {
    /// Size in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

/// For [`HostControl::send_descriptor`](crate::HostControl::send_descriptor).
impl AsFd for SealedBuffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// In the guest: fills a buffer that the host has sent, from its start, with the parts one after the
/// other, and closes it.
///
/// # Errors
/// The parts exceed the buffer, or the guest's memory limit is reached.
pub fn fill_buffer(memory: OwnedFd, parts: &[&[u8]]) -> Result<(), ChannelError> {
    let mut offset_bytes = 0;
    for part in parts {
        write_all(memory.as_fd(), offset_bytes, part)?;
        offset_bytes += part.len() as u64;
    }
    Ok(())
}

/// In the guest: maps a buffer that the host has sealed and sent. The size was told in a record.
///
/// # Errors
/// It has another size or lacks a seal, or the guest's memory limit is reached.
pub fn map_buffer(memory: OwnedFd, len_bytes: usize) -> Result<Mapping, ChannelError> {
    Mapping::new(memory.as_fd(), len_bytes)
}

pub(crate) fn write_all(
    memory: BorrowedFd<'_>,
    offset_bytes: u64,
    bytes: &[u8],
) -> Result<(), ChannelError> {
    let failed =
        |source| ChannelError::WriteBuffer { offset_bytes, len_bytes: bytes.len(), source };
    let mut written = 0;
    while written < bytes.len() {
        match pwrite(memory, &bytes[written..], offset_bytes + written as u64) {
            // A short write would be followed by an error in the next round; zero is followed by
            // nothing.
            Ok(0) => return Err(failed(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Ok(())
}
