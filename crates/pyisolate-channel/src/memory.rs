//! Memory files: `memfd_create`, size, seals.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::io::Errno;

use crate::error::ChannelError;

/// The seals that keep the size. Without them a peer could cut the file short under a mapping.
pub(crate) const FIXED_SIZE: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// A new memory file of `len_bytes` zeros, whose size is sealed.
///
/// No page of it exists yet; whoever writes to a page first pays for it.
pub(crate) fn create(name: &CStr, len_bytes: usize) -> Result<OwnedFd, ChannelError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Nothing in it is ever to be executed. Linux before 6.3 does not know the flag.
    let memory = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        other => other,
    }
    .map_err(|errno| ChannelError::CreateMemory { len_bytes, source: errno.into() })?;
    ftruncate(&memory, len_bytes as u64)
        .map_err(|errno| ChannelError::SizeMemory { len_bytes, source: errno.into() })?;
    add_seals(&memory, len_bytes, FIXED_SIZE)?;
    Ok(memory)
}

/// Adds seals. They cannot be taken away again.
pub(crate) fn add_seals(
    memory: &OwnedFd,
    len_bytes: usize,
    seals: SealFlags,
) -> Result<(), ChannelError> {
    fcntl_add_seals(memory, seals)
        .map_err(|errno| ChannelError::SealMemory { len_bytes, source: errno.into() })
}

/// The size of a memory file in bytes, if it has the seals that are required.
pub(crate) fn sealed_size(
    memory: BorrowedFd<'_>,
    required: SealFlags,
) -> Result<u64, ChannelError> {
    let inspect = |errno: Errno| ChannelError::InspectMemory { source: io::Error::from(errno) };
    let found = fcntl_get_seals(memory).map_err(inspect)?;
    if !found.contains(required) {
        return Err(ChannelError::MemoryUnsealed {
            found: found.bits(),
            required: required.bits(),
        });
    }
    Ok(fstat(memory).map_err(inspect)?.st_size.cast_unsigned())
}
