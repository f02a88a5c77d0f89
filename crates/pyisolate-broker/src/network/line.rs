//! One TCP connection of the broker's: time, the end of the cell and the count of bytes in one place.
//!
//! The socket never blocks. Whoever waits does so in `poll` with what is left of a deadline, and the
//! end of the cell shuts the socket, which ends the `poll`.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::ClientConnection;

use crate::cancel::OnCancel;
use crate::outcome::{Failure, Refusal};
use crate::session::Session;

/// For whom something is done, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn<'s> {
    pub(super) session: &'s Session,
    pub(super) deadline: Instant,
}

/// Why a connection gave nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// A limit, or the end of the cell.
    Refused(Refusal),
    /// The deadline came first.
    TimedOut,
    /// The other side, or the network.
    Io(io::Error),
}

impl Fault {
    /// Whether nothing else is to be said to the guest.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::Refused(Refusal::Exhausted { .. } | Refusal::Cancelled))
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(refusal) => refusal,
            Fault::TimedOut => Failure::os(Errno::TIMEDOUT).into(),
            // What rustls says names certificates at most.
            Fault::Io(error) => match error.get_ref() {
                Some(inner) => protocol(format_args!("TLS: {inner}")),
                None if error.kind() == io::ErrorKind::UnexpectedEof => {
                    protocol("the connection was closed too early")
                }
                None => Failure::io(&error).into(),
            },
        }
    }
}

/// The other side does not keep to its protocol.
pub(super) fn protocol(what: impl fmt::Display) -> Refusal {
    let number = Errno::PROTO.raw_os_error();
    Failure::new("OSError", format!("[Errno {number}] Protocol error: {what}")).into()
}

impl<'s> Turn<'s> {
    pub(super) fn new(session: &'s Session, time: Duration) -> Self {
        let now = Instant::now();
        let deadline = now.checked_add(time).unwrap_or(now);
        Self { session, deadline }
    }

    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The same with less time.
    pub(super) fn at_most(self, time: Duration) -> Self {
        Self { deadline: self.deadline.min(Instant::now() + time), ..self }
    }

    fn wait(&self, socket: &TcpStream, wanted: PollFlags) -> Result<(), Fault> {
        loop {
            self.alive()?;
            let left = self.left();
            if left.is_zero() {
                return Err(Fault::TimedOut);
            }
            let left = Timespec::try_from(left).map_err(|_| Fault::TimedOut)?;
            match poll(&mut [PollFd::new(socket, wanted)], Some(&left)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return self.alive(),
                Err(errno) => return Err(Fault::Io(errno.into())),
            }
        }
    }

    fn alive(&self) -> Result<(), Fault> {
        if self.session.cancel().is_cancelled() {
            return Err(Fault::Refused(Refusal::Cancelled));
        }
        Ok(())
    }
}

/// A connected socket that is shut when its cell ends.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) socket: Arc<TcpStream>,
    pub(super) peer: SocketAddr,
    pub(super) on_cancel: OnCancel,
}

/// Connects to the first of these addresses that answers. Each may take its share of the time.
pub(super) fn dial(turn: Turn<'_>, addresses: &[SocketAddr]) -> Result<Dialled, Fault> {
    let mut last = Fault::Io(Errno::HOSTUNREACH.into());
    for (at, peer) in addresses.iter().enumerate() {
        let share = turn.left() / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match dial_one(turn.at_most(share), *peer) {
            Err(fault @ Fault::Refused(_)) => return Err(fault),
            Err(fault) => last = fault,
            dialled => return dialled,
        }
    }
    Err(last)
}

fn dial_one(turn: Turn<'_>, peer: SocketAddr) -> Result<Dialled, Fault> {
    let os = |errno: Errno| Fault::Io(errno.into());
    let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd =
        rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(os)?;
    sockopt::set_tcp_nodelay(&socket, true).map_err(os)?;
    sockopt::set_socket_keepalive(&socket, true).map_err(os)?;
    let socket = Arc::new(TcpStream::from(socket));
    let shut = Arc::clone(&socket);
    // An end of the cell that comes before `connect` is seen by `wait`, a later one shuts the socket.
    let on_cancel = turn.session.cancel().on_cancel(move || {
        let _ = shut.shutdown(Shutdown::Both);
    });
    match rustix::net::connect(&*socket, &peer) {
        Ok(()) => turn.alive()?,
        Err(Errno::INPROGRESS) => {
            turn.wait(&socket, PollFlags::OUT)?;
            sockopt::socket_error(&*socket).map_err(os)?.map_err(os)?;
        }
        Err(errno) => return Err(os(errno)),
    }
    Ok(Dialled { socket, peer, on_cancel })
}

/// A connection with or without TLS.
#[derive(Debug)]
pub(super) struct Line {
    socket: Arc<TcpStream>,
    tls: Option<Box<ClientConnection>>,
    _on_cancel: OnCancel,
}

impl Line {
    pub(super) fn new(dialled: Dialled, tls: Option<ClientConnection>) -> Self {
        Self { socket: dialled.socket, tls: tls.map(Box::new), _on_cancel: dialled.on_cancel }
    }

    /// To shut it from outside.
    pub(super) fn socket(&self) -> Arc<TcpStream> {
        Arc::clone(&self.socket)
    }

    /// Some bytes; none at the end. An end without TLS's farewell is an error.
    pub(super) fn read(&mut self, turn: Turn<'_>, into: &mut [u8]) -> Result<usize, Fault> {
        self.with(turn, |stream| stream.read(into))
    }

    pub(super) fn write_all(&mut self, turn: Turn<'_>, bytes: &[u8]) -> Result<(), Fault> {
        self.with(turn, |stream| {
            stream.write_all(bytes)?;
            stream.flush()
        })
    }

    fn with<T>(
        &mut self,
        turn: Turn<'_>,
        work: impl FnOnce(&mut dyn Stream) -> io::Result<T>,
    ) -> Result<T, Fault> {
        let mut metered = Metered { socket: &self.socket, turn, fault: None };
        let result = match &mut self.tls {
            None => work(&mut metered),
            Some(tls) => work(&mut rustls::Stream::new(&mut **tls, &mut metered)),
        };
        match metered.fault.take() {
            Some(fault) => Err(fault),
            None => result.map_err(Fault::Io),
        }
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// The bare socket, waited for and counted. Its own faults are kept aside, since only an
/// `io::Error` finds its way through TLS.
struct Metered<'a> {
    socket: &'a TcpStream,
    turn: Turn<'a>,
    fault: Option<Fault>,
}

impl Metered<'_> {
    fn again(
        &mut self,
        wanted: PollFlags,
        mut attempt: impl FnMut(&mut &TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            // Whoever always has something to say is never waited for, and keeps to no deadline.
            if self.turn.left().is_zero() {
                self.fault = Some(Fault::TimedOut);
                return Err(io::ErrorKind::TimedOut.into());
            }
            let done = match attempt(&mut { self.socket }) {
                Ok(bytes) => {
                    let count = u64::try_from(bytes).unwrap_or(u64::MAX);
                    let counted = self.turn.session.use_network_bytes(count);
                    counted.map_err(Fault::Refused).and_then(|()| self.turn.alive()).map(|()| bytes)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.turn.wait(self.socket, wanted) {
                        Ok(()) => continue,
                        Err(fault) => Err(fault),
                    }
                }
                Err(error) => Err(self.turn.alive().err().unwrap_or(Fault::Io(error))),
            };
            return done.map_err(|fault| {
                self.fault = Some(fault);
                io::ErrorKind::Other.into()
            });
        }
    }
}

impl Read for Metered<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.again(PollFlags::IN, |socket| socket.read(into))
    }
}

impl Write for Metered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.again(PollFlags::OUT, |socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
