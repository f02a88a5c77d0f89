//! What the two halves of one end share: the mapping, the socket, and whether it is all over.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::cursor::Signals;
use crate::error::{ChannelError, Violation};
use crate::futex;
use crate::layout::{Direction, Word};
use crate::mapping::SharedMap;
use crate::socket;
use crate::spin::Spin;

/// Longest time that a host thread sleeps without looking whether the guest is dead or the deadline
/// has passed. Normally it is woken when either is so; this is for a guest that has tampered with
/// the futexes, and for the few instructions between the look and the sleep.
pub const HOST_SLEEP_SLICE: Duration = Duration::from_millis(100);

/// Which side of the boundary this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sleeps in slices and never rings: a guest has no thread away.
    Host,
    /// Sleeps for as long as it takes, since it is killed when the host goes, or told until it is back;
    /// rings the host's bell.
    Guest,
}

/// One end's common part.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) map: SharedMap,
    pub(crate) socket: OwnedFd,
    spin: Spin,
    role: Role,
    dead: AtomicBool,
    violation: OnceLock<Violation>,
}

impl Side {
    pub(crate) fn new(map: SharedMap, socket: OwnedFd, role: Role) -> Arc<Self> {
        Arc::new(Self {
            map,
            socket,
            spin: Spin::for_this_thread(),
            role,
            dead: AtomicBool::new(false),
            violation: OnceLock::new(),
        })
    }

    /// The peer's process has ended: whoever waits for it is woken.
    pub(crate) fn mark_dead(&self) -> Result<(), ChannelError> {
        self.dead.store(true, Ordering::SeqCst);
        self.wake_own()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// Fails if the peer has broken the protocol before.
    pub(crate) fn check(&self) -> Result<(), ChannelError> {
        match self.violation.get() {
            None => Ok(()),
            Some(violation) => Err((*violation).into()),
        }
    }

    /// Passes a result on. The first violation is remembered, and the other half woken to fail of it
    /// too.
    pub(crate) fn judge<T>(&self, result: Result<T, ChannelError>) -> Result<T, ChannelError> {
        if let Err(ChannelError::Violation(violation)) = &result
            && self.violation.set(*violation).is_ok()
        {
            self.wake_own()?;
        }
        result
    }

    /// Watches for a bounded while until `changed`.
    pub(crate) fn watch(&self, deadline: Option<Instant>, changed: impl Fn() -> bool) {
        let (ours, peers) = match self.role {
            Role::Host => (self.map.host_cpu(), self.map.guest_cpu()),
            Role::Guest => (self.map.guest_cpu(), self.map.host_cpu()),
        };
        self.spin.until(deadline, ours, peers, changed);
    }

    /// How long to sleep at most, for a deadline that has not passed.
    pub(crate) fn sleep_for(&self, deadline: Option<Instant>) -> Option<Duration> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match self.role {
            Role::Host => Some(left.map_or(HOST_SLEEP_SLICE, |left| left.min(HOST_SLEEP_SLICE))),
            Role::Guest => left,
        }
    }

    /// Wakes the threads of this process that wait for the peer.
    fn wake_own(&self) -> Result<(), ChannelError> {
        let (inbound, outbound) = match self.role {
            Role::Host => (Direction::ToHost, Direction::ToGuest),
            Role::Guest => (Direction::ToGuest, Direction::ToHost),
        };
        futex::wake_all(self.map.word(inbound, Word::Head))
            .and_then(|()| futex::wake_all(self.map.word(outbound, Word::Tail)))
            .map_err(|source| ChannelError::Wake { source })
    }
}

/// One ring of a side, as its cursor sees it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) side: Arc<Side>,
    pub(crate) direction: Direction,
}

impl Signals for Line {
    fn load(&self, word: Word) -> u32 {
        self.side.map.word(self.direction, word).load(Ordering::Acquire)
    }

    fn store(&self, word: Word, value: u32) {
        self.side.map.word(self.direction, word).store(value, Ordering::Release);
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn sleep(&self, word: Word, expected: u32, timeout: Option<Duration>) -> io::Result<()> {
        futex::sleep(self.side.map.word(self.direction, word), expected, timeout)
    }

    fn wake(&self, word: Word) -> io::Result<()> {
        futex::wake_one(self.side.map.word(self.direction, word))
    }

    fn ring(&self) -> io::Result<()> {
        match self.side.role {
            // Only a hostile guest announces that it is away.
            Role::Host => Ok(()),
            Role::Guest => socket::ring(&self.side.socket),
        }
    }
}
