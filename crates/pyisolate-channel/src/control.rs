//! The control socket between the supervisor and a zygote: fork a cell, a cell ended.
//!
//! Guests never hold it. A template's zygote does, after it ran set-up code that may be hostile, so
//! the host's side reads it as it reads everything from inside: at most one descriptor a message,
//! texts with a cap, and any number that it did not hand out is an error.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use thiserror::Error;

mod program;

pub use program::{PASSED_MAX, Program, ProgramEvent, REQUEST_BYTES_MAX};

/// The first line of every program that loads the guest runtime: `sys.argv[1]` is its shared object,
/// `runtime` the module. It goes round the import system's search, so it needs no path set up.
pub const LOAD_RUNTIME: &str = "import sys, _imp, _frozen_importlib, _frozen_importlib_external; \
    _spec = _frozen_importlib.ModuleSpec('_guest', _frozen_importlib_external.ExtensionFileLoader(\
    '_guest', sys.argv[1]), origin=sys.argv[1]); runtime = _imp.create_dynamic(_spec); \
    _imp.exec_dynamic(runtime); ";

/// The longest text in a reply, in bytes: a report of all layers is some two kilobytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;
const HEAD_BYTES: usize = 9;
/// What a program takes: its line, its request, its standard streams, and what it is handed beside
/// them. A fork takes three: a channel's memory, its socket, and a template's own control socket.
const FDS_MAX: usize = 5 + PASSED_MAX;

/// Why the control socket failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A system call on the socket failed.
    #[error("{call} on the control socket: {source}")]
    Call {
        /// Which one.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The other side is gone.
    #[error("the other side of the control socket is gone")]
    Gone,
    /// A message that is none.
    #[error("the control socket brought a message that is not in its protocol")]
    Malformed,
}

fn failed(call: &'static str) -> impl Fn(Errno) -> ControlError {
    move |errno| match errno {
        Errno::PIPE | Errno::CONNRESET => ControlError::Gone,
        errno => ControlError::Call { call, source: errno.into() },
    }
}

/// What a new process of the zygote is to be.
#[derive(Debug)]
pub struct Fork {
    /// The supervisor's number for it.
    pub number: u32,
    /// The channel's memory.
    pub memory: OwnedFd,
    /// The channel's socket.
    pub socket: OwnedFd,
    /// For a template: the socket on which it serves once its set-up ran.
    pub control: Option<OwnedFd>,
}

/// What a zygote is asked for.
#[derive(Debug)]
pub enum Request {
    /// A new process.
    Fork(Fork),
    /// A new process, for whose channel the zygote has no descriptor left.
    Unopened {
        /// The supervisor's number for it.
        number: u32,
    },
}

/// What a zygote says.
#[derive(Debug)]
pub enum Reply {
    /// The zygote is confined and serves.
    Serving,
    /// The new process runs.
    Forked {
        /// As in the request.
        number: u32,
        /// A handle on the process.
        pidfd: OwnedFd,
    },
    /// The new process runs, and the supervisor had no descriptor left for its handle.
    Unopened {
        /// As in the request.
        number: u32,
    },
    /// The kernel gave no new process.
    ForkFailed {
        /// As in the request.
        number: u32,
        /// Why.
        errno: i32,
    },
    /// A process ended.
    Exited {
        /// As in the request.
        number: u32,
        /// As `wait` gives it.
        status: i32,
        /// The CPU time that it used, in milliseconds.
        cpu_ms: u64,
    },
    /// The launcher or zygote could not start, or could not go on.
    Fatal(String),
}

/// One end of a control socket.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Control {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Control> for OwnedFd {
    fn from(control: Control) -> Self {
        control.0
    }
}

impl Control {
    /// A connected pair: the supervisor's end and the zygote's.
    ///
    /// # Errors
    /// [`ControlError::Call`] if the kernel has no socket left.
    pub fn pair() -> Result<(Self, Self), ControlError> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(failed("socketpair"))?;
        Ok((Self(ours), Self(theirs)))
    }

    // --- the supervisor's side

    /// Asks for a new process.
    ///
    /// # Errors
    /// [`ControlError::Gone`] if the zygote ended.
    pub fn send_fork(&self, fork: &Fork) -> Result<(), ControlError> {
        let mut fds = vec![fork.memory.as_fd(), fork.socket.as_fd()];
        fds.extend(fork.control.as_ref().map(AsFd::as_fd));
        self.send(b'F', fork.number, 0, &[], &fds)
    }

    /// Takes the next reply; `None` if there is none yet and `wait` is false.
    ///
    /// # Errors
    /// [`ControlError::Gone`] at the end, [`ControlError::Malformed`] for what is no reply.
    pub fn recv_reply(&self, wait: bool) -> Result<Option<Reply>, ControlError> {
        let Some(Datagram { tag, number, value, text, mut fds, is_cut }) = self.recv(wait)? else {
            return Ok(None);
        };
        Ok(Some(match (tag, fds.pop()) {
            (b'S', None) => Reply::Serving,
            (b'f', Some(pidfd)) if fds.is_empty() => Reply::Forked { number, pidfd },
            (b'f', None) if is_cut => Reply::Unopened { number },
            (b'e', None) => Reply::ForkFailed { number, errno: value },
            (b'x', None) => {
                let cpu_ms = <[u8; 8]>::try_from(text).map_err(|_| ControlError::Malformed)?;
                Reply::Exited { number, status: value, cpu_ms: u64::from_le_bytes(cpu_ms) }
            }
            (b'!', None) => Reply::Fatal(String::from_utf8_lossy(&text).into_owned()),
            _ => return Err(ControlError::Malformed),
        }))
    }

    // --- the zygote's side

    /// Takes the next request, waiting for it.
    ///
    /// # Errors
    /// [`ControlError::Gone`] if the supervisor ended.
    pub fn recv_request(&self) -> Result<Request, ControlError> {
        let datagram = self.recv(true)?.ok_or(ControlError::Malformed)?;
        let (number, mut fds) = (datagram.number, datagram.fds.into_iter());
        match (datagram.tag, fds.next(), fds.next(), fds.next()) {
            (b'F', ..) if datagram.is_cut => Ok(Request::Unopened { number }),
            (b'F', Some(memory), Some(socket), control) => {
                Ok(Request::Fork(Fork { number, memory, socket, control }))
            }
            _ => Err(ControlError::Malformed),
        }
    }

    /// Sends a reply.
    ///
    /// # Errors
    /// [`ControlError::Gone`] if the supervisor ended.
    pub fn send_reply(&self, reply: &Reply) -> Result<(), ControlError> {
        match reply {
            Reply::Serving => self.send(b'S', 0, 0, &[], &[]),
            Reply::Forked { number, pidfd } => self.send(b'f', *number, 0, &[], &[pidfd.as_fd()]),
            // Nobody says this of itself: it is what a `Forked` becomes on its way.
            Reply::Unopened { .. } => Err(ControlError::Malformed),
            Reply::ForkFailed { number, errno } => self.send(b'e', *number, *errno, &[], &[]),
            Reply::Exited { number, status, cpu_ms } => {
                self.send(b'x', *number, *status, &cpu_ms.to_le_bytes(), &[])
            }
            Reply::Fatal(text) => self.send(b'!', 0, 0, text.as_bytes(), &[]),
        }
    }

    // --- the bytes: tag, number, value, text

    fn send(
        &self,
        tag: u8,
        number: u32,
        value: i32,
        text: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ControlError> {
        let mut head = [tag, 0, 0, 0, 0, 0, 0, 0, 0];
        head[1..5].copy_from_slice(&number.to_le_bytes());
        head[5..9].copy_from_slice(&value.to_le_bytes());
        let text = &text[..text.len().min(TEXT_BYTES_MAX)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(ControlError::Malformed);
        }
        let parts = [IoSlice::new(&head), IoSlice::new(text)];
        retry(|| sendmsg(&self.0, &parts, &mut rights, SendFlags::NOSIGNAL))
            .map_err(failed("sendmsg"))?;
        Ok(())
    }

    fn recv(&self, wait: bool) -> Result<Option<Datagram>, ControlError> {
        let mut bytes = vec![0; HEAD_BYTES + TEXT_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        flags.set(RecvFlags::DONTWAIT, !wait);
        let received =
            retry(|| recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut rights, flags));
        let (count, is_cut) = match received {
            Ok(message) => (message.bytes, message.flags.contains(ReturnFlags::CTRUNC)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(failed("recvmsg")(errno)),
        };
        let fds = rights
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        let text = bytes.get(HEAD_BYTES..count).unwrap_or(&[]).to_vec();
        match bytes[..count.min(HEAD_BYTES)] {
            [] => Err(ControlError::Gone),
            [tag, n0, n1, n2, n3, v0, v1, v2, v3] => Ok(Some(Datagram {
                tag,
                number: u32::from_le_bytes([n0, n1, n2, n3]),
                value: i32::from_le_bytes([v0, v1, v2, v3]),
                text,
                fds,
                is_cut,
            })),
            _ => Err(ControlError::Malformed),
        }
    }
}

/// One message of the socket, taken apart.
struct Datagram {
    tag: u8,
    number: u32,
    value: i32,
    text: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// The kernel left descriptors out: there were too many, or this process can hold no more.
    is_cut: bool,
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_fd() -> OwnedFd {
        Control::pair().unwrap().0.into()
    }

    #[test]
    fn a_fork_request_arrives_with_its_descriptors() {
        let (host, zygote) = Control::pair().unwrap();
        let fork = Fork { number: 7, memory: any_fd(), socket: any_fd(), control: None };
        host.send_fork(&fork).unwrap();
        let Request::Fork(got) = zygote.recv_request().unwrap() else { panic!("no fork") };
        assert_eq!((got.number, got.control.is_some()), (7, false));
    }

    #[test]
    fn replies_arrive_in_order_and_then_the_end() {
        let (host, zygote) = Control::pair().unwrap();
        assert!(host.recv_reply(false).unwrap().is_none());
        zygote.send_reply(&Reply::Serving).unwrap();
        zygote.send_reply(&Reply::Exited { number: 3, status: 9, cpu_ms: 5 }).unwrap();
        drop(zygote);
        assert!(matches!(host.recv_reply(true), Ok(Some(Reply::Serving))));
        assert!(matches!(
            host.recv_reply(true),
            Ok(Some(Reply::Exited { number: 3, status: 9, cpu_ms: 5 }))
        ));
        assert!(matches!(host.recv_reply(true), Err(ControlError::Gone)));
    }

    #[test]
    fn descriptors_that_nobody_asked_for_are_an_error() {
        let (host, zygote) = Control::pair().unwrap();
        let fd = any_fd();
        zygote.send(b'x', 1, 0, &[], &[fd.as_fd()]).unwrap();
        assert!(matches!(host.recv_reply(true), Err(ControlError::Malformed)));
        zygote.send(b'f', 1, 0, &[], &[fd.as_fd(), fd.as_fd()]).unwrap();
        assert!(matches!(host.recv_reply(true), Err(ControlError::Malformed)));
    }
}
