//! The user map of a template, which unlike a cell has to have one.
//!
//! The kernel refuses a new user namespace to a process whose user is mapped nowhere
//! (`create_user_ns`). For a cell that is one more wall. A template clones cells, so its user must
//! exist: nobody inside, nobody outside. The map can be written only through a `/proc`, by a
//! process in the template's parent namespace; the jail has the second and the launcher the first.
//! So the launcher forks a helper that steps into the zygote's user namespace, which the launcher
//! owns, writes the three files and ends.

#![expect(
    unsafe_code,
    reason = "fork and _exit: no safe wrapper can exist for a call that returns twice"
)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::thread::LinkNameSpaceType;

use crate::namespaces::{NOBODY, Outer};

/// Why a template has no user map. It is alive, but cannot clone cells.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapTemplateError {
    /// `/proc/self/fdinfo` of the pidfd could not be read, or names no living process that the
    /// caller can see.
    #[error("the template's pidfd names no process that the launcher can see")]
    NoSuchProcess(#[source] io::Error),
    /// The zygote has no user namespace, in which a template could have a map.
    #[error("the zygote has no user namespace of its own")]
    NoNamespace,
    /// `fork` of the helper.
    #[error("forking the helper that writes the template's user map failed")]
    Fork(#[source] io::Error),
    /// `setns`, or one of the writes, inside the helper.
    #[error("the helper could not {step} for the template's user map")]
    Helper {
        /// What it was about to do.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The helper died.
    #[error("the helper that writes the template's user map died")]
    HelperDied,
}

const STEPS: [&str; 4] =
    ["enter the zygote's user namespace", "deny setgroups", "write uid_map", "write gid_map"];

/// Gives the template behind `template` a user map with nobody in it.
///
/// Called by the launcher, which is single-threaded, has a `/proc`, and made `outer`. The pidfd may
/// have come from the jail: it is resolved through the caller's own `/proc/self/fdinfo`, never
/// through a number that the jail sent, and a process outside the jail's user namespace cannot be
/// written to.
///
/// # Errors
/// Says which step failed.
pub fn map_template(outer: &Outer, template: BorrowedFd<'_>) -> Result<(), MapTemplateError> {
    let Some(user_namespace) = &outer.user_namespace else {
        return Err(MapTemplateError::NoNamespace);
    };
    let pid = pid_of(template).map_err(MapTemplateError::NoSuchProcess)?;
    // SAFETY: fork has no preconditions of its own; the caller is single-threaded, so the copy
    // holds no lock that nobody will release.
    let helper = unsafe { libc::fork() };
    match helper {
        -1 => Err(MapTemplateError::Fork(io::Error::last_os_error())),
        0 => {
            let code = match write_maps(user_namespace.as_fd(), pid) {
                Ok(()) => 0,
                // The step in the upper two bits, the error number (below 64 for every one of these
                // calls) below.
                Err((step, error)) => {
                    (step as i32) << 6 | (error.raw_os_error().unwrap_or(libc::EIO) & 0x3f)
                }
            };
            // SAFETY: _exit ends the process and returns nowhere; nothing it skips belongs to this
            // copy.
            unsafe { libc::_exit(code) }
        }
        pid => {
            let pid = rustix::process::Pid::from_raw(pid).ok_or(MapTemplateError::HelperDied)?;
            let waited = rustix::io::retry_on_intr(|| {
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
            });
            match waited.ok().flatten().and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                Some(code) => Err(MapTemplateError::Helper {
                    step: STEPS.get((code >> 6) as usize).copied().unwrap_or("finish"),
                    source: io::Error::from_raw_os_error(code & 0x3f),
                }),
                None => Err(MapTemplateError::HelperDied),
            }
        }
    }
}

/// To be called first by a freshly cloned template, before it waits for [`map_template`].
///
/// The zygote is not dumpable, so neither is its clone, whose `/proc` files then belong to the
/// host's root; a launcher that is not root could not write the map. [`crate::CellJail::enter`]
/// switches dumpability off again.
///
/// # Errors
/// The kernel's.
pub fn await_map() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
        .map_err(io::Error::from)
}

fn pid_of(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = text
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|pid| pid.trim().parse().ok());
    // 0: in a pid namespace the caller cannot see; -1: reaped.
    pid.filter(|pid| *pid > 0).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

fn write_maps(namespace: BorrowedFd<'_>, pid: i32) -> Result<(), (usize, io::Error)> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))
        .map_err(|error| (0, error.into()))?;
    let nobody = format!("{NOBODY} {NOBODY} 1\n");
    for (step, name, text) in
        [(1, "setgroups", "deny"), (2, "uid_map", &nobody), (3, "gid_map", &nobody)]
    {
        fs::write(format!("/proc/{pid}/{name}"), text).map_err(|error| (step, error))?;
    }
    Ok(())
}
