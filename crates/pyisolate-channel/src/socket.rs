//! The socket beside the rings: bells to the host, descriptors to the guest.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send,
    sendmsg, socketpair,
};

use crate::error::{ChannelError, Violation};
use crate::ring::Sent;

/// What was found on the host's end of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bells {
    /// So many bells, zero included. The reader should look at the ring, whatever the number.
    Rung(u32),
    /// No process holds the guest's end any more.
    Closed,
}

/// Bells taken in one call. A guest that rings without end must not hold the host's thread; what is
/// left keeps the descriptor readable.
const BELLS_PER_DRAIN: u32 = 64;

/// What may wait in the socket on its way to the guest, in bytes: some forty descriptors. The kernel
/// lets a user have only so many on their way, 1,024 where nothing else was set, and a guest that
/// takes none must not use up what other cells need.
const UNTAKEN_BYTES: usize = 16 * 1024;

/// The host's end and the guest's: message boundaries, so that a bell cannot run into another; closed
/// on `exec`.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), ChannelError> {
    let failed = |errno: Errno| ChannelError::CreateSocket { source: errno.into() };
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
    set_socket_send_buffer_size(&ours, UNTAKEN_BYTES).map_err(failed)?;
    Ok((ours, theirs))
}

/// Rings the host's bell.
pub(crate) fn ring(socket: &OwnedFd) -> io::Result<()> {
    loop {
        match send(socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            // Full: of bells that the host has not heard yet. One of them will do.
            // Closed: the host is gone, and this process is about to be.
            Ok(_) | Err(Errno::AGAIN | Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Takes the bells that have been rung, without waiting.
///
/// The guest can attach descriptors to a bell. The call has no control buffer, so the kernel drops
/// them and sets a flag; none is ever installed in this process.
pub(crate) fn drain(socket: &OwnedFd) -> Result<Bells, ChannelError> {
    let mut rung = 0;
    while rung < BELLS_PER_DRAIN {
        let mut byte = [0];
        let mut no_control = RecvAncillaryBuffer::default();
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut no_control, flags) {
            Ok(message) if message.flags.contains(ReturnFlags::CTRUNC) => {
                return Err(Violation::BellCarriedControlData.into());
            }
            // The end, or an empty datagram, which looks the same. A guest that sends one only
            // brings its own end forward.
            Ok(message) if message.bytes == 0 => return Ok(Bells::Closed),
            Ok(message) if message.bytes > 1 => {
                return Err(Violation::BellSize { bytes: message.bytes }.into());
            }
            Ok(_) => rung += 1,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(Bells::Closed),
            Err(errno) => return Err(ChannelError::DrainBell { source: errno.into() }),
        }
    }
    Ok(Bells::Rung(rung))
}

/// Sends a descriptor with its tag, without waiting.
pub(crate) fn send_descriptor(
    socket: &OwnedFd,
    tag: u32,
    descriptor: BorrowedFd<'_>,
) -> Result<Sent, ChannelError> {
    let tag_bytes = tag.to_ne_bytes();
    let descriptors = [descriptor];
    loop {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
        debug_assert!(fits, "the space is for one descriptor");
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        return match sendmsg(socket, &[IoSlice::new(&tag_bytes)], &mut control, flags) {
            Ok(_) => Ok(Sent::Sent),
            // ETOOMANYREFS: so many descriptors are under way that the kernel takes no more.
            Err(Errno::AGAIN | Errno::TOOMANYREFS) => Ok(Sent::Full),
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(Sent::PeerGone),
            Err(Errno::INTR) => continue,
            Err(errno) => Err(ChannelError::SendDescriptor { tag, source: errno.into() }),
        };
    }
}

/// Receives the descriptor with the expected tag, and waits for it.
pub(crate) fn receive_descriptor(socket: &OwnedFd, expected: u32) -> Result<OwnedFd, ChannelError> {
    let mut tag_bytes = [0; 4];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
    let message = loop {
        match recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut tag_bytes)], &mut control, flags) {
            Ok(message) => break message,
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(ChannelError::ReceiveDescriptor {
                    tag: expected,
                    source: errno.into(),
                });
            }
        }
    };
    let mut descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|ancillary| match ancillary {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if message.bytes == 0 {
        return Err(ChannelError::HostGone);
    }
    let found = (message.bytes == tag_bytes.len()).then(|| u32::from_ne_bytes(tag_bytes));
    let count = descriptors.len();
    let wrong = ChannelError::WrongDescriptor { expected, found, descriptors: count };
    if found != Some(expected) || count != 1 || message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(wrong);
    }
    descriptors.pop().ok_or(wrong)
}
