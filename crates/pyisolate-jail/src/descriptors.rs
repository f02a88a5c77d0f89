//! Descriptors: a closed list stays, standard streams lead nowhere, all others are closed.

#![expect(
    unsafe_code,
    reason = "close_range by number: the descriptors belong to whatever ran before"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};

/// Why the descriptors are not as they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// `/dev/null` could not be opened.
    #[error("opening /dev/null failed")]
    OpenNull(#[source] io::Error),
    /// The list is not strictly ascending, or holds a standard stream.
    #[error("the descriptors to keep must be ascending, each once, and above 2: {0:?}")]
    BadList(Vec<RawFd>),
    /// `dup2` onto a standard stream.
    #[error("putting /dev/null on descriptor {number} failed")]
    Standard {
        /// 0, 1 or 2.
        number: RawFd,
        /// Why.
        source: io::Error,
    },
    /// `close_range`.
    #[error(
        "close_range({first}, {last}) failed; it needs Linux 5.11, and a container's seccomp profile \
         that passes it"
    )]
    Close {
        /// The first descriptor of the range.
        first: u32,
        /// The last.
        last: u32,
        /// Why. `ENOSYS`: a kernel before 5.9.
        source: io::Error,
    },
    /// `fcntl` of a descriptor that was to be kept.
    #[error("descriptor {number}, which was to be kept, is not open")]
    NotOpen {
        /// The descriptor.
        number: RawFd,
        /// Why.
        source: io::Error,
    },
}

/// Opens `/dev/null` for reading and writing.
///
/// # Errors
/// `open`'s.
pub fn open_null() -> Result<OwnedFd, DescriptorError> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| DescriptorError::OpenNull(error.into()))
}

/// Marks every descriptor above 2 close-on-exec, so that a program executed next inherits only
/// those that the caller unmarks afterwards. Whatever opened them and forgot the flag need not be
/// known.
///
/// # Errors
/// The kernel's; `EINVAL` before Linux 5.11.
pub fn close_all_on_exec() -> Result<(), DescriptorError> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Puts `null` on 0, 1 and 2 and closes everything that is neither those nor in `keep`, which is
/// ascending.
///
/// # Safety
/// Every descriptor that is not in `keep` is closed behind the back of whatever owns it.
/// Nothing that the process will still run may use one of them or close it again: the caller is a
/// fresh cell in which only code that knows `keep` goes on, and which ends by `_exit`.
///
/// # Errors
/// Names the descriptor or the range.
pub unsafe fn close_all_but(keep: &[RawFd], null: BorrowedFd<'_>) -> Result<(), DescriptorError> {
    check(keep)?;
    let failed = |number| {
        move |error: rustix::io::Errno| DescriptorError::Standard { number, source: error.into() }
    };
    rustix::stdio::dup2_stdin(null.as_fd()).map_err(failed(0))?;
    rustix::stdio::dup2_stdout(null.as_fd()).map_err(failed(1))?;
    rustix::stdio::dup2_stderr(null.as_fd()).map_err(failed(2))?;
    let mut first = 3;
    for kept in keep.iter().map(|kept| kept.cast_unsigned()) {
        if first < kept {
            close_range(first, kept - 1, 0)?;
        }
        first = kept + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Gives the calling thread a descriptor table of its own, a copy of the one that it shared. As
/// `unshare(CLONE_FILES)` does, which containers forbid with the rest of that call.
///
/// # Safety
/// From here on the thread closes descriptors, and others close theirs, without the other side's
/// noticing. It is new, and knows which of both it owns.
///
/// # Errors
/// The kernel's; `EINVAL` before Linux 5.9.
pub(crate) unsafe fn own_table() -> Result<(), DescriptorError> {
    // No descriptor has this number, so that none is closed.
    close_range(u32::MAX, u32::MAX, libc::CLOSE_RANGE_UNSHARE)
}

/// Whether a list can be kept: ascending, each once, no standard stream.
///
/// # Errors
/// [`DescriptorError::BadList`].
pub fn check(keep: &[RawFd]) -> Result<(), DescriptorError> {
    let ascending = keep.windows(2).all(|pair| pair[0] < pair[1]);
    if ascending && keep.first().is_none_or(|first| *first > 2) {
        Ok(())
    } else {
        Err(DescriptorError::BadList(keep.to_vec()))
    }
}

/// Reads back that the list is still open.
///
/// # Errors
/// Names the one that is not.
pub(crate) fn verify_open(keep: &[RawFd]) -> Result<(), DescriptorError> {
    for number in keep.iter().copied() {
        // SAFETY: F_GETFD takes no argument and touches no memory.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            return Err(DescriptorError::NotOpen { number, source: io::Error::last_os_error() });
        }
    }
    Ok(())
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> Result<(), DescriptorError> {
    // SAFETY: close_range touches no memory. Without CLOSE_RANGE_CLOEXEC it closes descriptors that
    // others may own; that nobody misses them is the precondition of the one function that calls
    // this without the flag.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(DescriptorError::Close { first, last, source: io::Error::last_os_error() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_out_of_order_are_refused() {
        assert!(check(&[]).is_ok());
        assert!(check(&[3, 7, 100]).is_ok());
        for bad in [&[2][..], &[5, 4], &[5, 5], &[-1]] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
