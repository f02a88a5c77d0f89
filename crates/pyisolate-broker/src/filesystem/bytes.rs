//! Moving bytes, with what may be written counted before it is.

use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{fstat, ftruncate};
use rustix::io::{Errno, ReadWriteFlags, pread, pwrite, pwritev2};

use super::stop::{Stop, os};
use crate::outcome::Refusal;
use crate::session::Session;

/// The most that one answer reads: what fits a message of the default size with room to spare.
pub(super) const READ_BYTES_MAX: u64 = 8 << 20;

/// How much is moved between two looks at whether the cell is still there.
const STEP_BYTES: usize = 1 << 20;

/// A file's length. What the kernel gives is never negative.
pub(super) fn size(file: impl AsFd) -> Result<u64, Errno> {
    Ok(u64::try_from(fstat(file)?.st_size).unwrap_or(0))
}

/// Reads from `offset` on: at most `length` bytes and at most [`READ_BYTES_MAX`], or all of the
/// rest, which fails if it is more than that.
pub(super) fn read(
    session: &Session,
    file: impl AsFd,
    offset: u64,
    length: Option<u64>,
) -> Result<Vec<u8>, Stop> {
    let file = file.as_fd();
    if end_of(offset, STEP_BYTES).is_err() {
        // No file is so long, and the kernel calls it an invalid argument.
        return Ok(Vec::new());
    }
    let rest = size(file)?.saturating_sub(offset);
    if length.is_none() && rest > READ_BYTES_MAX {
        return Err(Errno::FBIG.into());
    }
    // One more than fits, to see whether the file grew.
    let most = length.map_or(READ_BYTES_MAX + 1, |length| length.min(READ_BYTES_MAX));
    let most = usize::try_from(most).map_err(|_| Errno::FBIG)?;
    let expected = usize::try_from(rest).unwrap_or(most).saturating_add(1).min(most);
    let mut bytes: Vec<u8> = Vec::with_capacity(expected);
    let mut at = offset;
    while bytes.len() < most {
        if session.cancel().is_cancelled() {
            return Err(Refusal::Cancelled.into());
        }
        if bytes.capacity() == bytes.len() {
            bytes.reserve((most - bytes.len()).min(STEP_BYTES));
        }
        match pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(count) => at = at.saturating_add(count as u64),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    bytes.truncate(most);
    if length.is_none() && bytes.len() as u64 > READ_BYTES_MAX {
        return Err(Errno::FBIG.into());
    }
    Ok(bytes)
}

/// Bytes of the quota that were taken before they were written. What is not written goes back.
#[derive(Debug)]
pub(super) struct Reserved<'s> {
    session: &'s Session,
    left: u64,
}

impl<'s> Reserved<'s> {
    pub(super) fn take(session: &'s Session, bytes: u64) -> Result<Self, Refusal> {
        session.use_disk_bytes(bytes)?;
        Ok(Self { session, left: bytes })
    }

    /// So many were written.
    fn spend(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.session.return_disk_bytes(self.left);
    }
}

/// The end of what is written, which the kernel counts with a sign.
fn end_of(offset: u64, length: usize) -> Result<u64, Refusal> {
    let end = offset.checked_add(length as u64).filter(|end| i64::try_from(*end).is_ok());
    end.ok_or_else(|| os(Errno::FBIG))
}

/// Writes all of `data` at `offset`. A hole that this leaves behind the file's old end counts too.
pub(super) fn write_at(
    session: &Session,
    file: &OwnedFd,
    offset: u64,
    data: &[u8],
) -> Result<(), Stop> {
    end_of(offset, data.len())?;
    if data.is_empty() {
        return Ok(());
    }
    let hole = offset.saturating_sub(size(file)?);
    let mut reserved = Reserved::take(session, hole.saturating_add(data.len() as u64))?;
    put(session, &mut reserved, hole, data, |step, done| pwrite(file, step, offset + done))
}

/// Writes all of `data` from the start of a file that is empty, from what was reserved for it.
pub(super) fn fill(
    session: &Session,
    reserved: &mut Reserved<'_>,
    file: &OwnedFd,
    data: &[u8],
) -> Result<(), Stop> {
    put(session, reserved, 0, data, |step, done| pwrite(file, step, done))
}

/// Writes all of `data` to the end, wherever that is by then; gives the new length.
pub(super) fn append(session: &Session, file: &OwnedFd, data: &[u8]) -> Result<u64, Stop> {
    let mut reserved = Reserved::take(session, data.len() as u64)?;
    put(session, &mut reserved, 0, data, |step, _| {
        pwritev2(file, &[std::io::IoSlice::new(step)], 0, ReadWriteFlags::APPEND)
    })?;
    Ok(size(file)?)
}

/// Makes the file so long. What it grows by counts.
pub(super) fn truncate(session: &Session, file: &OwnedFd, length: u64) -> Result<(), Stop> {
    end_of(length, 0)?;
    let growth = length.saturating_sub(size(file)?);
    let mut reserved = Reserved::take(session, growth)?;
    ftruncate(file, length)?;
    reserved.spend(growth);
    Ok(())
}

fn put(
    session: &Session,
    reserved: &mut Reserved<'_>,
    hole: u64,
    data: &[u8],
    mut write: impl FnMut(&[u8], u64) -> Result<usize, Errno>,
) -> Result<(), Stop> {
    let mut done = 0;
    while done < data.len() {
        if session.cancel().is_cancelled() {
            return Err(Refusal::Cancelled.into());
        }
        let step = &data[done..data.len().min(done + STEP_BYTES)];
        match write(step, done as u64) {
            Ok(0) => return Err(Errno::IO.into()),
            Ok(count) => {
                // The hole is made by the first byte behind it.
                reserved.spend(count as u64 + if done == 0 { hole } else { 0 });
                done += count;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
