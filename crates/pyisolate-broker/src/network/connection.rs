//! A connection by messages, for cells that are handed no descriptors: `network.send`,
//! `network.receive`, `network.shutdown`, and `network.wait` for what neither has anything to do yet.
//!
//! It is a socket that never blocks, and a `poll`. Only the wait holds a worker, and one is enough for
//! all connections of a cell, so that connections on which nothing happens hold up nothing else.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use pyisolate_abi::pickle::Value;
use pyisolate_policy::Act;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::held::Connection;
use super::streams::SOCKETS_MAX;
use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::{Payload, int, record};
use crate::session::Session;
use crate::task::{Pace, Task};

/// The most that one request sends or receives.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// The longest wait of one request. A thread is held for it: with more cells that wait than there are
/// threads, it is what another cell's request may have to wait for.
const WAIT_MAX: Duration = Duration::from_secs(1);

pub(super) fn parse_send(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let mut payload = Payload::new("network", "send", payload)?;
    let handle = payload.size("handle")?;
    let data = payload.bytes("data")?;
    payload.end()?;
    Ok(Box::new(Send { handle, data: data[..data.len().min(PIECE_BYTES_MAX)].to_vec() }))
}

pub(super) fn parse_shutdown(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let mut payload = Payload::new("network", "shutdown", payload)?;
    let handle = payload.size("handle")?;
    let how = match payload.text("how")? {
        "read" => Shutdown::Read,
        "write" => Shutdown::Write,
        "both" => Shutdown::Both,
        _ => return Err(payload.wrong("\"how\" is \"read\", \"write\" or \"both\"")),
    };
    payload.end()?;
    Ok(Box::new(Shut { handle, how }))
}

pub(super) fn parse_wait(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let mut payload = Payload::new("network", "wait", payload)?;
    let mut handles = |key| {
        let handles = payload.sizes(key)?;
        if handles.len() > SOCKETS_MAX {
            return Err(payload.wrong(format_args!("{key:?} has more than {SOCKETS_MAX} handles")));
        }
        Ok(handles)
    };
    let (readable, writable) = (handles("readable")?, handles("writable")?);
    let timeout = payload.seconds_or_none("timeout")?.map_or(WAIT_MAX, |time| time.min(WAIT_MAX));
    payload.end()?;
    Ok(Box::new(Wait { readable, writable, timeout }))
}

pub(super) fn parse_wake(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    Payload::new("network", "wake", payload)?.end()?;
    Ok(Box::new(Wake))
}

/// What is there by now: `None` if nothing is, no bytes at the end.
pub(super) fn receive(
    session: &Session,
    handle: u64,
    connection: &Connection,
    length: Option<u64>,
) -> Result<Granted, Refusal> {
    let most = length.map_or(PIECE_BYTES_MAX, |length| {
        usize::try_from(length).unwrap_or(usize::MAX).clamp(1, PIECE_BYTES_MAX)
    });
    // No more memory than there is something to fill it with.
    let there = rustix::io::ioctl_fionread(&*connection.socket).unwrap_or(0);
    let mut piece = vec![0; usize::try_from(there).unwrap_or(most).clamp(1, most)];
    let count = attempt(session, handle, &connection.socket, |mut socket| socket.read(&mut piece))?;
    Ok(count
        .map_or(Value::None, |count| {
            piece.truncate(count);
            Value::Bytes(piece)
        })
        .into())
}

/// Reads or writes what can be at once, and counts it. `None` if that is nothing.
fn attempt(
    session: &Session,
    handle: u64,
    socket: &TcpStream,
    mut work: impl FnMut(&TcpStream) -> io::Result<usize>,
) -> Result<Option<usize>, Refusal> {
    loop {
        return match work(socket) {
            Ok(count) => {
                session.use_network_bytes(u64::try_from(count).unwrap_or(u64::MAX))?;
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // Half of it may be shut, and the other half in use.
                if error.kind() != io::ErrorKind::BrokenPipe {
                    session.streams.held().close(handle);
                }
                Err(Failure::io(&error).into())
            }
        };
    }
}

/// The connection behind a handle, if the policy in force still grants it.
fn granted(session: &Session, handle: u64) -> Result<Arc<Connection>, Refusal> {
    let held = session.streams.held().get(handle)?;
    held.check(session).inspect_err(|_| session.streams.held().close(handle))?;
    Ok(session.streams.held().connection(handle)?)
}

#[derive(Debug)]
struct Send {
    handle: u64,
    data: Vec<u8>,
}

impl Task for Send {
    fn act(&self) -> Option<&Act> {
        None
    }

    fn check(&self, session: &Session) -> Result<(), Refusal> {
        granted(session, self.handle).map(drop)
    }

    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        let connection = granted(session, self.handle)?;
        let Self { handle, data } = *self;
        let socket = &connection.socket;
        let count = attempt(session, handle, socket, |mut socket| socket.write(&data))?;
        Ok(int(count.unwrap_or(0) as u64).into())
    }
}

#[derive(Debug)]
struct Shut {
    handle: u64,
    how: Shutdown,
}

impl Task for Shut {
    fn act(&self) -> Option<&Act> {
        None
    }

    fn pace(&self) -> Pace {
        Pace::Quick
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        let connection = session.streams.held().connection(self.handle)?;
        connection.socket.shutdown(self.how).map_err(|error| Failure::io(&error))?;
        Ok(Value::None.into())
    }
}

#[derive(Debug)]
struct Wait {
    readable: Vec<u64>,
    writable: Vec<u64>,
    timeout: Duration,
}

impl Task for Wait {
    fn act(&self) -> Option<&Act> {
        None
    }

    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        let held = session.streams.held();
        let waker = held.waker();
        let wanted = |handles: &[u64], wanted: PollFlags| -> Vec<_> {
            let known = |handle: &u64| (*handle, wanted, held.connection(*handle).ok());
            handles.iter().map(known).collect()
        };
        let all = [wanted(&self.readable, PollFlags::IN), wanted(&self.writable, PollFlags::OUT)];
        drop(held);
        // What is not there is told at once: whoever uses it hears why.
        let is_any_gone = all.iter().flatten().any(|(_, _, connection)| connection.is_none());
        let timeout = if is_any_gone { Duration::ZERO } else { self.timeout };
        let timeout = Timespec::try_from(timeout).map_err(|_| Failure::os(Errno::INVAL))?;
        let sockets = all.iter().flatten().filter_map(|(_, wanted, connection)| {
            let connection = connection.as_ref()?;
            Some(PollFd::new(&*connection.socket, *wanted))
        });
        let waking =
            waker.as_ref().map(|waker| PollFd::from_borrowed_fd(waker.as_fd(), PollFlags::IN));
        let mut polled: Vec<PollFd<'_>> = sockets.chain(waking).collect();
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::os(errno).into()),
        }
        if let Some(waker) = &waker {
            // It never blocks: whether there was a wake-up is all the same.
            let _ = rustix::io::read(waker, &mut [0_u8; 8]);
        }
        let mut polled = polled.iter().map(|polled| !polled.revents().is_empty());
        let mut ready = |asked: &[(u64, PollFlags, Option<Arc<Connection>>)]| {
            let ready = asked.iter().filter(|(_, _, connection)| {
                connection.is_none() || polled.next().unwrap_or(false)
            });
            Value::List(ready.map(|(handle, _, _)| int(*handle)).collect())
        };
        let [readable, writable] = &all;
        Ok(record([("readable", ready(readable)), ("writable", ready(writable))]).into())
    }
}

#[derive(Debug)]
struct Wake;

impl Task for Wake {
    fn act(&self) -> Option<&Act> {
        None
    }

    fn pace(&self) -> Pace {
        Pace::Quick
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        session.streams.held().wake();
        Ok(Value::None.into())
    }
}
