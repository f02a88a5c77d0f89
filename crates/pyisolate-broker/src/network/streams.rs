//! What one cell has under way: sockets that it was handed, and what it uses by a handle: connections
//! that stay here, and answers that it has not read yet.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use pyisolate_policy::Act;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::address::{Lookups, check_address, is_granted};
use super::connect::failure;
use super::held::Table;
use super::line::Dialled;
use super::tcp_info;
use crate::cancel::OnCancel;
use crate::outcome::{Failure, Refusal};
use crate::session::Session;

/// How many sockets a cell may hold at a time, whether as descriptors or by handles.
pub(super) const SOCKETS_MAX: usize = 32;

/// What one cell has under way.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    lookups: Lookups,
    held: Mutex<Table>,
    sockets: Mutex<Vec<Handed>>,
}

/// A right that a cell holds as a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedOut {
    /// `tcp example.org:443 (192.0.2.1)`, `file /data/in.csv (to be read)`.
    pub what: String,
    /// When it was handed over.
    pub since: SystemTime,
}

/// Our duplicate of a socket that the guest has. To shut it shuts the guest's.
#[derive(Debug)]
struct Handed {
    act: Act,
    peer: SocketAddr,
    since: SystemTime,
    socket: Arc<TcpStream>,
    counted: u64,
    /// Whether the guest was seen without it. The first time, it may be on its way.
    missing: bool,
    _on_cancel: OnCancel,
}

impl Handed {
    /// Whether nothing can go through it any more, either way.
    fn is_over(&self) -> bool {
        let mut socket = [PollFd::new(&*self.socket, PollFlags::empty())];
        let polled = poll(&mut socket, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && socket[0].revents().intersects(PollFlags::HUP | PollFlags::NVAL)
    }

    /// What went through since the last time.
    fn count(&mut self) -> u64 {
        let all = tcp_info::transferred(&*self.socket).unwrap_or(self.counted);
        let more = all.saturating_sub(self.counted);
        self.counted = all;
        more
    }

    /// The same when it is let go of: what waits to be sent will be.
    fn count_last(&mut self) -> u64 {
        let queued = tcp_info::queued(&*self.socket).unwrap_or(0);
        self.count().saturating_add(queued)
    }
}

/// What we let go of can be used no more, wherever the guest has hidden a copy.
impl Drop for Handed {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        // Ours may be the last copy: to close one that its guest had linger would wait for the
        // other side, for as long as the guest said.
        let _ = sockopt::set_socket_linger(&*self.socket, None);
    }
}

impl Streams {
    pub(super) fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<Handed>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it uses by a handle.
    pub(super) fn held(&self) -> MutexGuard<'_, Table> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what is used by a handle: the cell is gone.
    pub(crate) fn end(&self) {
        self.held().end();
    }

    pub(super) fn has_room(&self) -> Result<(), Failure> {
        room_in(&self.sockets())?;
        self.held().has_room_for_connection()
    }

    /// The guest's end of a connection. Ours is kept.
    pub(super) fn hand_out(
        &self,
        session: &Session,
        dialled: Dialled,
        act: Act,
    ) -> Result<OwnedFd, Refusal> {
        let Dialled { socket, peer, on_cancel } = dialled;
        let io = |error| Failure::io(&error);
        let guests = socket.try_clone().map_err(io)?;
        // One flag for both, and ours is never read.
        guests.set_nonblocking(false).map_err(io)?;
        let mut sockets = self.sockets();
        room_in(&sockets)?;
        // Another policy may have come while it was dialled. Under the lock, so that one that comes
        // from here on finds the socket among those that it may shut.
        check_address(session, &act, peer.ip())?;
        sockets.push(Handed {
            act,
            peer,
            since: SystemTime::now(),
            socket,
            counted: 0,
            missing: false,
            _on_cancel: on_cancel,
        });
        Ok(guests.into())
    }

    /// Counts what went through the sockets and lets go of those that are over.
    fn account(&self, session: &Session) -> Result<(), Refusal> {
        let mut sockets = self.sockets();
        let over: Vec<Handed> = sockets.extract_if(.., |handed| handed.is_over()).collect();
        let counted = sockets.iter_mut().map(Handed::count).fold(0, u64::saturating_add);
        drop(sockets);
        session.use_network_bytes(counted.saturating_add(let_go(over)))
    }

    /// Shuts these sockets; how much went through since they were counted.
    fn shut_where(&self, is_wrong: impl Fn(&Handed) -> bool) -> u64 {
        let mut sockets = self.sockets();
        let wrong: Vec<Handed> = sockets.extract_if(.., |handed| is_wrong(handed)).collect();
        drop(sockets);
        let_go(wrong)
    }
}

/// Lets go of sockets, which shuts them; how much went through since they were counted.
fn let_go(sockets: Vec<Handed>) -> u64 {
    let counts = sockets.into_iter().map(|mut handed| handed.count_last());
    counts.fold(0, u64::saturating_add)
}

fn room_in(sockets: &[Handed]) -> Result<(), Failure> {
    if sockets.iter().filter(|handed| !handed.is_over()).count() < SOCKETS_MAX {
        return Ok(());
    }
    Err(too_many_sockets())
}

pub(super) fn too_many_sockets() -> Failure {
    let text = format!("Too many open files: a cell holds at most {SOCKETS_MAX} streams");
    failure(Errno::MFILE, text)
}

impl Session {
    /// What the guest was given as descriptors: the sockets that it holds, the oldest first, then the
    /// files that were opened for reading, each once, which it may have closed since.
    #[must_use]
    pub fn handed_out(&self) -> Vec<HandedOut> {
        let mut told = self.sockets_handed_out();
        told.extend(self.files.handed_out());
        told
    }

    /// The sockets that the guest holds, the oldest first.
    #[must_use]
    pub fn sockets_handed_out(&self) -> Vec<HandedOut> {
        let sockets = self.streams.sockets();
        let open = sockets.iter().filter(|handed| !handed.is_over());
        let told = open.map(|handed| {
            let target = match &handed.act {
                Act::Connect { host, port } => format!("{}:{port}", host.in_url()),
                act => act.to_string(),
            };
            let what = format!("tcp {target} ({})", handed.peer.ip());
            HandedOut { what, since: handed.since }
        });
        told.collect()
    }

    /// Counts what went through the guest's sockets since the last time, and lets go of sockets that
    /// are over. To be called every so often while the cell runs.
    ///
    /// # Errors
    /// [`Refusal::Exhausted`] past the limit; the sockets are shut.
    pub fn account_streams(&self) -> Result<(), Refusal> {
        let counted = self.streams.account(self);
        if counted.is_err() {
            self.revoke_streams();
        }
        counted
    }

    /// Shuts every socket that the guest holds, its own copies with it, and every connection that it
    /// uses by a handle.
    pub fn revoke_streams(&self) {
        self.streams.shut_where(|_| true);
        self.streams.held().close_where(|held| held.connection().is_some());
    }

    /// Shuts the sockets and connections that the policy in force now would not grant any more.
    pub fn revoke_denied_streams(&self) {
        let policy = self.policy();
        self.streams.held().close_where(|held| {
            held.connection().is_some() && !is_granted(&policy, &held.act, held.peer.ip())
        });
        let is_denied = |handed: &Handed| !is_granted(&policy, &handed.act, handed.peer.ip());
        let counted = self.streams.shut_where(is_denied);
        // Whoever counts next says if they were too many.
        let _ = self.use_network_bytes(counted);
    }

    /// Lets go of the sockets that the guest has closed. The kernel does not tell us, since our own
    /// duplicates keep the connections open: `holds` says for a socket's inode whether the guest has
    /// it still, as `/proc/PID/fd` shows. A socket goes when two calls have missed it, and is shut:
    /// the guest may have sent it to itself, where no table shows it.
    pub fn prune_streams(&self, holds: impl Fn(u64) -> bool) {
        let mut sockets = self.streams.sockets();
        let closed: Vec<Handed> = sockets
            .extract_if(.., |handed| {
                let stat = rustix::fs::fstat(&*handed.socket);
                let before = handed.missing;
                handed.missing = stat.is_ok_and(|stat| !holds(stat.st_ino));
                before && handed.missing
            })
            .collect();
        drop(sockets);
        // Whoever counts next says if they were too many.
        let _ = self.use_network_bytes(let_go(closed));
    }
}
