//! The roots of grants: the host's word, opened as handles.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use pyisolate_policy::{CleanPath, SCRATCH};
use rustix::fs::{CWD, Mode, open, readlinkat};
use rustix::io::Errno;

use super::beneath::{Led, NAME_ONLY, Walk, follow, open_top};
use super::judge::{self, Use};
use super::stop::{Stop, refused};
use crate::session::Session;

/// An opened root.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) handle: OwnedFd,
    /// As the policy names it.
    pub(super) path: CleanPath,
    /// Where it lies, with no link on the way: the same, if the host's path has none.
    pub(super) real: CleanPath,
}

impl Root {
    /// Opens it.
    ///
    /// Links on the way are followed if the cell cannot have made them: none of them lies below
    /// what any grant lets it write, wherever that grant's own root leads.
    pub(super) fn open(session: &Session, usage: Use, path: &CleanPath) -> Result<Self, Stop> {
        if let Some(scratch) = session.scratch.as_ref().filter(|_| path.as_str() == SCRATCH) {
            let handle = rustix::io::fcntl_dupfd_cloexec(scratch, 3)?;
            return Ok(Self { handle, path: path.clone(), real: path.clone() });
        }
        match open_top(path.as_str()) {
            Ok(handle) => Ok(Self { handle, path: path.clone(), real: path.clone() }),
            Err(Errno::LOOP) => {
                let real = real_path(session, usage, path)?;
                let handle = open_top(real.as_str())?;
                Ok(Self { handle, path: path.clone(), real })
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the host's path has links.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.real != self.path
    }
}

/// Whether a path is one of the cell's scratch files, or their folder.
pub(super) fn is_scratch(session: &Session, path: &CleanPath) -> bool {
    let top = session.scratch.is_some().then(|| CleanPath::new(SCRATCH));
    top.is_some_and(|top| top.is_ok_and(|top| path.below(&top).is_some()))
}

/// `folder` and what is below it.
pub(super) fn join(folder: &CleanPath, rest: &str) -> Result<CleanPath, Stop> {
    clean(&format!("{folder}/{rest}"))
}

/// A path that came up on the way; one that is too long is the kernel's error.
pub(super) fn clean(text: &str) -> Result<CleanPath, Stop> {
    CleanPath::new(text).map_err(|_| Errno::NAMETOOLONG.into())
}

fn real_path(session: &Session, usage: Use, path: &CleanPath) -> Result<CleanPath, Stop> {
    let written = written_places(session)?;
    let top = open_top("/")?;
    let mut links = 0;
    let mut at_link = |at: &str, _: Option<String>| {
        let owned = match CleanPath::new(&format!("/{at}")) {
            // A root itself cannot be replaced by who writes below it.
            Ok(at) => {
                written.iter().any(|root| at.below(root).is_some_and(|rest| !rest.is_empty()))
            }
            Err(_) => true,
        };
        if owned {
            let why = "there is a link on the way to it that the cell could have made: grant the \
                       folder that it leads to";
            return Err(refused(usage, path, why));
        }
        Ok(())
    };
    let walk =
        Walk { path, usage, last: true, top: true, links: &mut links, at_link: &mut at_link };
    match follow(top.as_fd(), path.as_str(), walk)? {
        Led::Within(rest) | Led::Away(rest) | Led::Above(rest) => join(&clean("/")?, &rest),
    }
}

/// Where the cell may write: by the policy's words, and where these lead.
fn written_places(session: &Session) -> Result<Vec<CleanPath>, Stop> {
    let mut places = Vec::new();
    for root in judge::written_roots(&session.policy()) {
        if is_scratch(session, root) {
            continue; // no path of the host's leads there
        }
        places.push(root.clone());
        match open(root.as_str(), NAME_ONLY, Mode::empty()) {
            Ok(handle) => {
                let name = readlinkat(CWD, proc_name(&handle), Vec::new())?;
                places.push(clean(name.to_str().map_err(|_| Errno::ILSEQ)?)?);
            }
            // There is nothing to write below it then, and so no link either.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(places)
}

/// The name under which procfs has a descriptor of this thread. Not `self`, as a thread may have a
/// table of its own.
pub(super) fn proc_name(handle: &OwnedFd) -> String {
    format!("/proc/thread-self/fd/{}", handle.as_raw_fd())
}
