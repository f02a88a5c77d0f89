#![expect(unsafe_code, reason = "the count of a socket's bytes has no safe binding")]
//! How many bytes went through a TCP socket, as the kernel counts them.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// `tcpi_bytes_acked` and `tcpi_bytes_received` of `struct tcp_info` (since Linux 4.1), counted in
/// words of 64 bits.
const ACKED: usize = 15;
const RECEIVED: usize = 16;

/// Bytes that were written and not acknowledged yet.
pub(super) fn queued(socket: impl AsFd) -> Result<u64, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed; `SIOCOUTQ`, which is `TIOCOUTQ` for a
    // socket, writes one int.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Bytes that the other side acknowledged, and bytes that it sent.
pub(super) fn transferred(socket: impl AsFd) -> Result<u64, Errno> {
    let mut info = [0_u64; RECEIVED + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the descriptor is open while it is borrowed; `info` can be written for `length` bytes,
    // of which the kernel writes at most so many, and any bits are valid in it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(info[ACKED].saturating_add(info[RECEIVED]))
}
