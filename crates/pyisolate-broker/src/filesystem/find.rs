//! From a path to a handle, with every link on the way judged.

use std::os::fd::{AsFd, OwnedFd};

use pyisolate_policy::{CleanPath, SCRATCH};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::alias::Aliases;
use super::beneath::{LINKS_MAX, Led, NAME_ONLY, Walk, follow, open_beneath};
use super::judge::{self, Use, judge};
use super::kind;
use super::root::{Root, clean, is_scratch, join};
use super::stop::{Stop, refused};
use crate::outcome::Refusal;
use crate::session::Session;

/// Where a path led.
#[derive(Debug)]
pub(super) struct Spot {
    /// The path that the policy allowed last: that of the file itself, with no link on it below the
    /// root.
    pub(super) path: CleanPath,
    /// The root, and what follows it. No root if the root is the path, and is not there.
    root: Option<Root>,
    rest: String,
    /// What is there, if anything is: a handle that names it and opens nothing.
    pub(super) node: Option<OwnedFd>,
    /// Whether it is only on the way to what is granted, and so has to be a folder.
    pub(super) on_way: bool,
}

/// Finds what lies at a path. `last` says whether a link that is the last component is followed.
///
/// The path is judged at the start, and again after each link, with what it has become; what is
/// opened in the end is opened by a path without links, below the root that the judgement named.
/// If links come and go meanwhile it ends with `ELOOP`, never with another file.
pub(super) fn find(
    session: &Session,
    usage: Use,
    path: &CleanPath,
    last: bool,
) -> Result<Spot, Stop> {
    let mut path = path.clone();
    let mut links = 0;
    for _ in 0..=LINKS_MAX {
        let mut judged = judge(session, usage, &path)?;
        // They hide what the host has there, whichever of its folders a rule names.
        if is_scratch(session, &path) {
            judged.root = clean(SCRATCH)?;
        }
        let rest = path.below(&judged.root).unwrap_or_default().to_owned();
        let on_way = judged.on_way;
        let root = match Root::open(session, usage, &judged.root) {
            Ok(root) => root,
            Err(Stop::Kernel(Errno::NOENT)) if rest.is_empty() => {
                return Ok(Spot { path, root: None, rest, node: None, on_way });
            }
            Err(stop) => return Err(stop),
        };
        check_real(session, usage, &root, &rest, &path)?;
        let flags = if last { NAME_ONLY } else { NAME_ONLY | OFlags::NOFOLLOW };
        let node = if rest.is_empty() {
            // The root itself, which may be a file: `.` below it would not do.
            rustix::io::fcntl_dupfd_cloexec(&root.handle, 3)
        } else {
            open_beneath(&root.handle, &rest, flags, Mode::empty())
        };
        let node = match node {
            Ok(node) => Some(node),
            Err(Errno::NOENT) => None,
            Err(Errno::LOOP) => {
                path = lead(session, usage, &root, &rest, last, &path, &mut links)?;
                continue;
            }
            Err(errno) => return Err(errno.into()),
        };
        if let Some(node) = &node {
            kind::check_system(node, usage, &path)?;
        }
        return Ok(Spot { path, root: Some(root), rest, node, on_way });
    }
    Err(Errno::LOOP.into())
}

/// The path that a path with links leads to. The policy is asked at each link.
fn lead(
    session: &Session,
    usage: Use,
    root: &Root,
    rest: &str,
    last: bool,
    path: &CleanPath,
    links: &mut u32,
) -> Result<CleanPath, Stop> {
    let mut at_link = |_: &str, text: Option<String>| {
        let Some(text) = text else { return Ok(()) };
        let path = join(&root.path, &text).map_err(Refusal::from)?;
        judge(session, usage, &path).map(drop)
    };
    let top = root.path.as_str() == "/";
    let walk = Walk { usage, path, last, top, links, at_link: &mut at_link };
    match follow(root.handle.as_fd(), rest, walk)? {
        Led::Within(rest) => join(&root.path, &rest),
        Led::Away(target) => clean(&target),
        Led::Above(_) if root.is_elsewhere() => {
            let why = "a link on the way leads out of the folder that is granted";
            Err(refused(usage, path, why).into())
        }
        Led::Above(rest) => clean(&format!("{}/../{rest}", root.path)),
    }
}

/// What the policy denies is denied by every name that the host's links give it: a root that they
/// lead elsewhere must not lead to it, and neither must the path be where they lead the denial.
fn check_real(
    session: &Session,
    usage: Use,
    root: &Root,
    rest: &str,
    path: &CleanPath,
) -> Result<(), Stop> {
    let real = join(&root.real, rest)?;
    let is_denied = root.is_elsewhere() && judge::is_denied(&session.policy(), usage, &real);
    if is_denied || Aliases::now(session)?.deny(usage, &real) {
        let why = "the host's links make it another name of what the policy denies";
        return Err(refused(usage, path, why).into());
    }
    Ok(())
}

impl Spot {
    /// What is there.
    pub(super) fn there(&self) -> Result<&OwnedFd, Errno> {
        self.node.as_ref().ok_or(Errno::NOENT)
    }

    /// The folder that it is in, or would be in, as a handle, and its name there.
    pub(super) fn entry(&self, session: &Session) -> Result<(OwnedFd, &str), Stop> {
        let (parent, name) = match &self.root {
            Some(root) if !self.rest.is_empty() => {
                let (folder, name) = self.rest.rsplit_once('/').unwrap_or(("", &self.rest));
                let flags = NAME_ONLY | OFlags::DIRECTORY;
                (open_beneath(&root.handle, folder, flags, Mode::empty())?, name)
            }
            // The root itself, in a folder that is the host's word as well.
            _ => {
                let (folder, name) = self.path.as_str().rsplit_once('/').unwrap_or_default();
                if name.is_empty() || is_scratch(session, &self.path) {
                    return Err(Errno::BUSY.into());
                }
                let folder = clean(&format!("{folder}/"))?;
                (Root::open(session, Use::Write, &folder)?.handle, name)
            }
        };
        kind::check_system(&parent, Use::Write, &self.path)?;
        Ok((parent, name))
    }

    /// The path with the host's links followed.
    pub(super) fn real(&self) -> Result<CleanPath, Stop> {
        match &self.root {
            Some(root) => join(&root.real, &self.rest),
            None => Ok(self.path.clone()),
        }
    }
}
