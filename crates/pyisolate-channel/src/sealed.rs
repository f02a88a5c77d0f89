//! A private mapping of a memory file that nobody can change any more.
#![expect(unsafe_code, reason = "maps a memory file and forms slices of it")]

use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::{io, slice};

use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::ChannelError;
use crate::memory::{FIXED_SIZE, sealed_size};

/// The seals without which a file is not mapped here: nobody can change its bytes or its size, by
/// any descriptor, mapping or `fallocate`.
pub(crate) const IMMUTABLE: SealFlags = FIXED_SIZE.union(SealFlags::WRITE);

/// The bytes of a buffer: readable, and writable for this process alone (copy on write).
///
/// Pages are mapped as they are touched, which measures faster than mapping all of them in advance.
#[derive(Debug)]
pub struct Mapping {
    /// Start of `len_bytes` mapped bytes; dangling if there are none.
    base: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and this value is its only owner.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference only gives shared access to bytes that nobody else can change.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a memory file, after making sure that it is sealed and has the size that it should.
    pub(crate) fn new(memory: BorrowedFd<'_>, len_bytes: usize) -> Result<Self, ChannelError> {
        let found_bytes = sealed_size(memory, IMMUTABLE)?;
        if found_bytes != len_bytes as u64 {
            return Err(ChannelError::MemorySize { found_bytes });
        }
        if len_bytes == 0 {
            return Ok(Self { base: NonNull::dangling(), len_bytes });
        }
        let failed = |source: io::Error| ChannelError::MapMemory { len_bytes, source };
        // SAFETY: the address is chosen by the kernel (null hint, no MAP_FIXED), so that no existing
        // mapping is replaced. The length is not zero.
        let base = unsafe {
            mmap(
                null_mut(),
                len_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
                memory,
                0,
            )
        }
        .map_err(|errno| failed(errno.into()))?;
        let base =
            NonNull::new(base.cast()).ok_or_else(|| failed(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self { base, len_bytes })
    }

    /// Address of the first byte, for a consumer of foreign code such as numpy. Valid for reads and
    /// writes of the mapping's length for as long as the mapping lives.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `base` is not null, and valid for reads of `len_bytes` for as long as `self` lives
        // (`new` mapped them, the file has that size and cannot shrink). `len_bytes` is at most
        // `isize::MAX`, as every mapping is. The bytes are initialised, being a file's. They do not
        // change while the slice lives: the file cannot, by its seals, and pages copied on write
        // belong to this value, which is borrowed.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.len_bytes) }
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; besides, the bytes are mapped writable, and no other pointer is used
        // meanwhile, since this value is their only owner and is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr(), self.len_bytes) }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len_bytes > 0 {
            // SAFETY: the range is the one that `new` mapped, it is unmapped once, and no slice of it
            // outlives `self`. An error would mean that the range is not a mapping, and leaves it.
            let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len_bytes) };
        }
    }
}
