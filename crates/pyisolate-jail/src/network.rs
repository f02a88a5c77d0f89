//! Reading back that the network namespace leads nowhere: one interface, the loopback, and that one
//! down.
//!
//! A down loopback matters: cells share the zygote's namespace, and `127.0.0.1` would be a way
//! between them.

#![expect(unsafe_code, reason = "if_nameindex and SIOCGIFFLAGS have no safe wrapper in rustix 1.1")]

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Why the network namespace is not known to be empty.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// `if_nameindex`.
    #[error("listing the network interfaces failed")]
    List(#[source] io::Error),
    /// An interface that is not the loopback.
    #[error("the network namespace is not empty: it has {0:?}")]
    Interface(String),
    /// The loopback could not be looked at.
    #[error("reading the loopback interface's flags failed")]
    Flags(#[source] io::Error),
    /// The loopback is up.
    #[error("the loopback interface is up, which joins the cells of this namespace")]
    LoopbackUp,
}

/// Checks the calling thread's network namespace. Uses sockets, so it has to come before the
/// filters.
///
/// # Errors
/// What there is that should not be.
pub fn verify_empty() -> Result<(), NetworkError> {
    for name in interfaces()? {
        if name != "lo" {
            return Err(NetworkError::Interface(name));
        }
    }
    if loopback_is_up().map_err(NetworkError::Flags)? {
        Err(NetworkError::LoopbackUp)
    } else {
        Ok(())
    }
}

fn interfaces() -> Result<Vec<String>, NetworkError> {
    let mut names = Vec::new();
    // SAFETY: if_nameindex has no preconditions. Its result is null or an array that ends with an
    // entry whose index is 0, with NUL-terminated names before that, valid until if_freenameindex,
    // which is called once and last.
    unsafe {
        let list = libc::if_nameindex();
        if list.is_null() {
            return Err(NetworkError::List(io::Error::last_os_error()));
        }
        let mut entry = list;
        while (*entry).if_index != 0 {
            names.push(CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
            entry = entry.add(1);
        }
        libc::if_freenameindex(list);
    }
    Ok(names)
}

fn loopback_is_up() -> io::Result<bool> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = byte.cast_signed() as libc::c_char;
    }
    // SAFETY: SIOCGIFFLAGS reads the name from, and writes the flags to, a live `struct ifreq`;
    // `socket` is open.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) };
    if result != 0 {
        let error = io::Error::last_os_error();
        // A kernel that does not even make a loopback.
        return if error.raw_os_error() == Some(libc::ENODEV) { Ok(false) } else { Err(error) };
    }
    // SAFETY: the call succeeded, so the kernel has written the flags member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags) & libc::IFF_UP != 0)
}
