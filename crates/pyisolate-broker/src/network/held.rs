//! What one cell uses by a handle: connections that stay with the broker, and answers that are not
//! read to their end. Both are numbered alike, asked of the policy at every use, and shut by the end.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use pyisolate_policy::Act;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::address::check_address;
use super::body::Body;
use super::connect::failure;
use super::line::Dialled;
use super::streams::too_many_sockets;
use crate::cancel::OnCancel;
use crate::outcome::{Failure, Refusal};
use crate::session::Session;

/// How many unread answers a cell may hold at a time.
const ANSWERS_MAX: usize = 16;

/// By handle. Numbers are never used twice.
#[derive(Debug, Default)]
pub(super) struct Table {
    last: u64,
    held: BTreeMap<u64, Held>,
    /// Written to end a wait for connections; made with the first of them.
    wake: Option<Arc<OwnedFd>>,
    ended: bool,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// What was granted and where it went, asked again at every use.
    pub(super) act: Arc<Act>,
    pub(super) peer: SocketAddr,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// The rest of an answer, and its socket unless all is read.
    Answer(Arc<Mutex<Body>>, Option<Arc<TcpStream>>),
    /// A connection, whose socket never blocks.
    Connection(Arc<Connection>),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Arc<TcpStream>,
    _on_cancel: OnCancel,
}

impl Held {
    /// Asks the policy that is in force now.
    pub(super) fn check(&self, session: &Session) -> Result<(), Refusal> {
        check_address(session, &self.act, self.peer.ip())
    }

    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        match &self.kind {
            Kind::Connection(connection) => Some(connection),
            Kind::Answer(..) => None,
        }
    }

    /// Ends whoever waits for it as well.
    fn shut(self) {
        let socket = match &self.kind {
            Kind::Connection(connection) => Some(&connection.socket),
            Kind::Answer(_, socket) => socket.as_ref(),
        };
        if let Some(socket) = socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Table {
    fn count(&self, is_meant: impl Fn(&Held) -> bool) -> usize {
        self.held.values().filter(|held| is_meant(held)).count()
    }

    pub(super) fn has_room_for_connection(&self) -> Result<(), Failure> {
        if self.count(|held| held.connection().is_some()) < super::streams::SOCKETS_MAX {
            return Ok(());
        }
        Err(too_many_sockets())
    }

    pub(super) fn has_room_for_answer(&self) -> Result<(), Failure> {
        if self.count(|held| held.connection().is_none()) < ANSWERS_MAX {
            return Ok(());
        }
        let text = format!(
            "Too many open files: a cell reads at most {ANSWERS_MAX} answers at a time: \
             read them to their end or close them"
        );
        Err(failure(Errno::MFILE, text))
    }

    /// Keeps a connection; its handle.
    pub(super) fn keep_connection(
        &mut self,
        session: &Session,
        dialled: Dialled,
        act: Act,
    ) -> Result<u64, Refusal> {
        self.has_room_for_connection()?;
        // As for a socket that is handed out: a policy that comes from here on finds it here.
        check_address(session, &act, dialled.peer.ip())?;
        if self.wake.is_none() {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            self.wake = Some(Arc::new(eventfd(0, flags).map_err(Failure::os)?));
        }
        let Dialled { socket, peer, on_cancel } = dialled;
        let connection = Arc::new(Connection { socket, _on_cancel: on_cancel });
        self.insert(Held { act: Arc::new(act), peer, kind: Kind::Connection(connection) })
    }

    /// Keeps an answer; its handle.
    pub(super) fn keep_answer(
        &mut self,
        act: Act,
        peer: SocketAddr,
        body: Body,
    ) -> Result<u64, Refusal> {
        self.has_room_for_answer()?;
        let socket = body.socket();
        let kind = Kind::Answer(Arc::new(Mutex::new(body)), socket);
        self.insert(Held { act: Arc::new(act), peer, kind })
    }

    fn insert(&mut self, held: Held) -> Result<u64, Refusal> {
        if self.ended {
            return Err(Refusal::Cancelled);
        }
        self.last += 1;
        self.held.insert(self.last, held);
        Ok(self.last)
    }

    pub(super) fn get(&self, handle: u64) -> Result<Held, Failure> {
        let held = self.held.get(&handle).cloned();
        held.ok_or_else(|| failure(Errno::BADF, format_args!("nothing is open as {handle}")))
    }

    pub(super) fn connection(&self, handle: u64) -> Result<Arc<Connection>, Failure> {
        let held = self.get(handle)?;
        held.connection().cloned().ok_or_else(|| {
            failure(Errno::NOTSOCK, format_args!("{handle} is an answer and no connection"))
        })
    }

    /// It need not be there.
    pub(super) fn close(&mut self, handle: u64) {
        if let Some(held) = self.held.remove(&handle) {
            held.shut();
        }
    }

    pub(super) fn close_where(&mut self, is_wrong: impl Fn(&Held) -> bool) {
        let wrong = self.held.iter().filter(|(_, held)| is_wrong(held));
        for handle in wrong.map(|(handle, _)| *handle).collect::<Vec<_>>() {
            self.close(handle);
        }
    }

    /// What to poll beside sockets, to be woken.
    pub(super) fn waker(&self) -> Option<Arc<OwnedFd>> {
        self.wake.clone()
    }

    /// Ends the wait that is under way, or the next one at once.
    pub(super) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // Full is woken, too.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
    }

    /// The cell is gone.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.wake();
        self.wake = None;
        self.close_where(|_| true);
    }
}
