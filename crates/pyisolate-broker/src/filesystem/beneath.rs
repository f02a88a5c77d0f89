//! Walking below a folder's handle.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pyisolate_policy::CleanPath;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat};
use rustix::io::Errno;

use super::judge::Use;
use super::kind;
use super::stop::Stop;
use crate::outcome::Refusal;

/// How many links one path may lead through: the kernel's own number.
pub(super) const LINKS_MAX: u32 = 40;

/// No link is followed, on no part of the way.
const NO_LINKS: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// A handle that names a file or folder and opens nothing.
pub(super) const NAME_ONLY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens what lies at an absolute path on which there is no link.
pub(super) fn open_top(path: &str) -> Result<OwnedFd, Errno> {
    openat2(CWD, path, NAME_ONLY, Mode::empty(), NO_LINKS)
}

/// Opens what lies below a folder's handle, on a path without a link. `ELOOP` says that there is
/// one. An empty `rest` is the folder itself.
pub(super) fn open_beneath(
    folder: impl AsFd,
    rest: &str,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let rest = if rest.is_empty() { "." } else { rest };
    let flags = flags | OFlags::CLOEXEC;
    openat2(folder, rest, flags, mode, NO_LINKS | ResolveFlags::BENEATH)
}

/// Where a path with links leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Led {
    /// To this, below the same folder, with no link on the way when it was walked.
    Within(String),
    /// To an absolute path.
    Away(String),
    /// To this, beginning at the parent of the folder.
    Above(String),
}

/// Asked at each link: where below the folder it lies, and what the path says that goes through it,
/// as far as that is a path below the folder by its text.
pub(super) type AtLink<'w> = &'w mut dyn FnMut(&str, Option<String>) -> Result<(), Refusal>;

/// How a walk goes.
pub(super) struct Walk<'w> {
    /// The path that all this is for, as a refusal names it.
    pub(super) path: &'w CleanPath,
    /// What it is wanted for.
    pub(super) usage: Use,
    /// Whether a link that is the last component is followed.
    pub(super) last: bool,
    /// Whether the folder is the topmost, so that an absolute path stays below it.
    pub(super) top: bool,
    /// Links so far.
    pub(super) links: &'w mut u32,
    pub(super) at_link: AtLink<'w>,
}

/// Follows links by hand, component by component, as the kernel would. What is found is only text:
/// it has to be judged, and opened again without links.
pub(super) fn follow(folder: BorrowedFd<'_>, rest: &str, walk: Walk<'_>) -> Result<Led, Stop> {
    let mut done: Vec<String> = Vec::new();
    // The next component is the last of these.
    let mut todo: Vec<String> = split(rest);
    while let Some(part) = todo.pop() {
        if part == ".." {
            if done.pop().is_none() && !walk.top {
                return Ok(Led::Above(join_reversed(&todo)));
            }
            continue;
        }
        done.push(part);
        if todo.is_empty() && !walk.last {
            break;
        }
        let here = done.join("/");
        let node = match open_beneath(folder, &here, NAME_ONLY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(node) => node,
            // What is not there is no link; whoever opens the path will find out.
            Err(Errno::NOENT) if !todo.iter().any(|part| part == "..") => {
                done.extend(todo.into_iter().rev());
                break;
            }
            Err(errno) => return Err(errno.into()),
        };
        if FileType::from_raw_mode(fstat(&node)?.st_mode) != FileType::Symlink {
            continue;
        }
        kind::check_system(&node, walk.usage, walk.path)?;
        *walk.links += 1;
        if *walk.links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(&node, "", Vec::new())?;
        let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
        if target.is_empty() {
            return Err(Errno::NOENT.into());
        }
        done.pop();
        let absolute = target.starts_with('/');
        todo.extend(split(target));
        let text = if absolute && !walk.top {
            None
        } else {
            let before: &[String] = if absolute { &[] } else { &done };
            by_text(before, &todo)
        };
        (walk.at_link)(&here, text)?;
        if absolute {
            if !walk.top {
                return Ok(Led::Away(format!("/{}", join_reversed(&todo))));
            }
            done.clear();
        }
    }
    Ok(Led::Within(done.join("/")))
}

/// A path's components, the first one last.
fn split(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect()
}

fn join_reversed(parts: &[String]) -> String {
    parts.iter().rev().map(String::as_str).collect::<Vec<_>>().join("/")
}

/// The path that `done` and then `todo` make, cleaned by its text; `None` if it climbs out.
fn by_text(done: &[String], todo: &[String]) -> Option<String> {
    let mut parts: Vec<&str> = done.iter().map(String::as_str).collect();
    for part in todo.iter().rev() {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn led(folder: &std::path::Path, rest: &str, last: bool) -> Result<Led, Errno> {
        let handle = open_top(folder.to_str().unwrap()).unwrap();
        let mut links = 0;
        let walk = Walk {
            path: &CleanPath::new("/").unwrap(),
            usage: Use::Read,
            last,
            top: false,
            links: &mut links,
            at_link: &mut |_, _| Ok(()),
        };
        follow(handle.as_fd(), rest, walk).map_err(|stop| match stop {
            Stop::Kernel(errno) => errno,
            Stop::Refused(refusal) => panic!("{refusal:?}"),
        })
    }

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        let dir = tempfile::tempdir().unwrap();
        let at = |rest: &str| dir.path().join(rest);
        std::fs::create_dir_all(at("a/b/c")).unwrap();
        symlink("a/b", at("ab")).unwrap();
        symlink("../x", at("a/up")).unwrap();
        symlink("/etc/y", at("away")).unwrap();
        symlink("ab/..", at("back")).unwrap();
        symlink("self", at("self")).unwrap();
        let within = |text: &str| Ok(Led::Within(text.to_owned()));
        assert_eq!(led(dir.path(), "ab/c", true), within("a/b/c"));
        assert_eq!(led(dir.path(), "ab/new/file", true), within("a/b/new/file"));
        assert_eq!(led(dir.path(), "ab", false), within("ab"));
        // What `..` takes away is where the link leads, not where it lies.
        assert_eq!(led(dir.path(), "back", true), within("a"));
        assert_eq!(led(dir.path(), "ab/up", true), within("a/b/up"));
        assert_eq!(led(dir.path(), "a/up/z", true), within("x/z"));
        assert_eq!(led(dir.path(), "away/z", true), Ok(Led::Away("/etc/y/z".into())));
        assert_eq!(led(dir.path(), "self", true), Err(Errno::LOOP));
        symlink("../../z", at("a/out")).unwrap();
        assert_eq!(led(dir.path(), "a/out/1", true), Ok(Led::Above("z/1".into())));
    }

    #[test]
    fn text_that_climbs_out_is_none() {
        let parts = |text: &str| split(text);
        assert_eq!(by_text(&["a".into()], &parts("../b")), Some("b".into()));
        assert_eq!(by_text(&["a".into()], &parts("../../b")), None);
    }
}
