//! Why work on a path stopped: the kernel said so, or we did.

use pyisolate_policy::{Act, CleanPath};
use rustix::io::Errno;

use super::judge::Use;
use crate::outcome::{DecidedBy, Denied, Failure, Refusal};

/// What the kernel says is kept apart, as it may be the answer (`exists`) or ask for another try.
#[derive(Debug)]
pub(super) enum Stop {
    Kernel(Errno),
    Refused(Refusal),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Stop> for Refusal {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Kernel(errno) => os(errno),
            Stop::Refused(refusal) => refusal,
        }
    }
}

/// The guest's `OSError`.
pub(super) fn os(errno: Errno) -> Refusal {
    Refusal::Failed(Failure::os(errno))
}

/// There is no such handle, or it was not opened for this.
pub(super) fn bad_handle() -> Failure {
    Failure::os(Errno::BADF)
}

/// What no grant can allow.
pub(super) fn refused(usage: Use, path: &CleanPath, why: impl std::fmt::Display) -> Refusal {
    let verb = match usage {
        Use::Read => "read",
        Use::Write => "write",
        Use::Both => "read and write",
        Use::See => "see",
    };
    let access = usage.accesses().last();
    Refusal::Denied(Box::new(Denied {
        act: access.map(|&access| Act::File { access, path: path.clone() }),
        reason: format!("filesystem: {verb} {path} is refused: {why}"),
        rule: "the broker".to_owned(),
        layer: DecidedBy::Broker,
        grant: None,
    }))
}
