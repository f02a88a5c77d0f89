//! The outer jail's namespaces: the first process of it, its user map, and stepping down to nobody.
//!
//! The launcher stays outside and writes the map. If it is root, the map has two entries: root, as
//! whom the file tree is set up, and nobody, as whom everything after that runs, because root is
//! exempt from `RLIMIT_NPROC` and owns too much. If it is not, it may map itself alone, and appears
//! inside as nobody from the start. Then its supplementary groups stay (the kernel forbids dropping
//! what `setgroups` was denied for); inside they own nothing that can be reached.
//!
//! After `execve` a process of any user but root has no capabilities left, which is what the zygote
//! wants.
//!
//! On poorer [`Ground`] the same process starts without what the host refuses, as the user that the
//! launcher is.

#![expect(
    unsafe_code,
    reason = "_exit of a copied process: what its maker would clean up is not the copy's"
)]

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use rustix::process::{Gid, Uid};

use rustix::thread::CapabilitySet;

use crate::clone::{Cloned, PLAIN_CLONE_FLAGS, clone_with};
use crate::ground::{self, Ground};
use crate::{capabilities, process};

/// The user and group of everything in the jail: the kernel's overflow id, which owns nothing.
pub const NOBODY: u32 = 65534;

/// The jail's host name.
const HOSTNAME: &[u8] = b"cell";

/// The exit code of a child that panicked: the one of a Rust program that does.
const PANICKED: i32 = 101;

const OUTER_CLONE_FLAGS: u64 = PLAIN_CLONE_FLAGS
    | (libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET) as u64;

/// How a host lets its users have user namespaces.
const USERNS_ADVICE: &str = "user namespaces are not available here: check sysctl kernel.unprivileged_userns_clone=1 \
                             (Debian), user.max_user_namespaces>0, kernel.apparmor_restrict_unprivileged_userns=0 or \
                             an AppArmor profile that grants `userns` (Ubuntu), and the container's seccomp profile";

/// Why the outer jail's first process could not be had. It is gone when this is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The kernel, or a security module, refuses user namespaces.
    #[error("{USERNS_ADVICE}")]
    UserNamespaces(#[source] io::Error),
    /// `clone` failed for another reason.
    #[error("clone of the outer jail failed")]
    Clone(#[source] io::Error),
    /// A pipe between launcher and child could not be made, read or written.
    #[error("the pipe to the outer jail's first process failed")]
    Pipe(#[source] io::Error),
    /// A map could not be written.
    #[error("writing {path:?} failed")]
    Map {
        /// The file in `/proc`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The child's user namespace could not be opened.
    #[error("opening {path:?} failed; is /proc mounted?")]
    Namespace {
        /// The file in `/proc`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The child could not set the host name, the first thing that needs its new capabilities.
    #[error("sethostname inside the outer jail failed; {USERNS_ADVICE}")]
    Hostname(#[source] io::Error),
}

impl SpawnError {
    /// Whether the host refuses what was asked for, as opposed to a fault in the asking.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::UserNamespaces(_) => true,
            Self::Map { source, .. } | Self::Hostname(source) => ground::is_refusal(source),
            Self::Clone(_) | Self::Pipe(_) | Self::Namespace { .. } => false,
        }
    }

    /// Whether the namespaces could be made all the same, and were of no use.
    #[must_use]
    pub fn left_namespaces(&self) -> bool {
        matches!(self, Self::Hostname(_))
    }

    /// What was refused and how, in a few words and without advice.
    #[must_use]
    pub fn refusal(&self) -> String {
        match self {
            Self::UserNamespaces(source) => format!("clone into new namespaces: {source}"),
            Self::Map { source, .. } => format!("mapping a user into a new namespace: {source}"),
            Self::Hostname(source) => format!("sethostname in a new namespace: {source}"),
            other => other.to_string(),
        }
    }
}

/// Why stepping down to nobody failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NobodyError {
    /// The capability bounding set.
    #[error(transparent)]
    Capabilities(#[from] capabilities::CapabilityError),
    /// `setgroups`, `setresgid` or `setresuid`.
    #[error("{call} to nobody failed")]
    Identity {
        /// The system call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Signals and parent death.
    #[error(transparent)]
    Process(#[from] process::ProcessError),
}

/// The outer jail's first process, seen from the launcher.
#[derive(Debug)]
pub struct Outer {
    /// Its number in the launcher's pid namespace.
    pub pid: i32,
    /// A handle to it. Close-on-exec.
    pub pidfd: OwnedFd,
    /// Its user namespace, opened while it can still be inspected, if it has one of its own.
    pub(crate) user_namespace: Option<OwnedFd>,
}

impl Outer {
    /// Waits until it ended, and reaps it.
    pub fn reap(self) {
        let id = rustix::process::WaitId::PidFd(self.pidfd.as_fd());
        // It fails only if it was reaped already.
        let _ = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(id.clone(), rustix::process::WaitIdOptions::EXITED)
        });
    }
}

/// What the child knows of itself when it starts.
#[derive(Debug)]
pub struct OuterChild {
    /// It is root inside, and so has a step down to make.
    root: bool,
    /// It may lack the capabilities that a new user namespace gives.
    poor: bool,
}

/// Whether [`spawn_outer`] will map root, so that [`crate::RootPlan::open`] belongs before it.
#[must_use]
pub fn launcher_is_root() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID;
    is_root() && capabilities::has(needed).unwrap_or(false) && maps_nobody()
}

/// What there is to try first: everything.
#[must_use]
pub fn best_ground() -> Ground {
    if is_root() && !launcher_is_root() { Ground::WholeAsRoot } else { Ground::Whole }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Clones a child into new user, pid, mount, ipc, uts and network namespaces and runs `child`
/// there.
///
/// The caller has to be single-threaded: the child is a plain copy of it. `child` finds its user
/// mapped, its host name set, a session of its own (so no terminal), and every capability over the
/// new namespaces. It builds the root, calls [`OuterChild::become_nobody`] and executes the
/// interpreter; what it returns is its exit code.
///
/// # Errors
/// Says which step failed; the child is dead then.
pub fn spawn_outer(child: impl FnOnce(OuterChild) -> i32) -> Result<Outer, SpawnError> {
    spawn_outer_on(&Ground::Whole, child)
}

/// The same on the ground that there is. On poorer ground the child is the user that the launcher
/// is, may have no capability, and is in the launcher's namespaces if there are no others.
///
/// # Errors
/// As [`spawn_outer`].
pub fn spawn_outer_on(
    ground: &Ground,
    child: impl FnOnce(OuterChild) -> i32,
) -> Result<Outer, SpawnError> {
    let root = ground.is_whole() && launcher_is_root();
    let flags = match ground {
        Ground::Whole | Ground::WholeAsRoot | Ground::HostTree(_) => OUTER_CLONE_FLAGS,
        Ground::NoNamespaces(_) => PLAIN_CLONE_FLAGS,
    };
    let (go_read, go_write) = pipe()?;
    let (status_read, status_write) = pipe()?;
    match clone_with(flags) {
        Ok(Cloned::Child) => {
            drop((go_write, status_read));
            // A panic must not unwind into the copy of the launcher that called this.
            let run = AssertUnwindSafe(|| run_child(ground, root, go_read, status_write, child));
            let code = catch_unwind(run).unwrap_or(PANICKED);
            // SAFETY: _exit ends the process and returns nowhere; nothing it skips (buffers,
            // destructors, exit handlers) belongs to this copy.
            unsafe { libc::_exit(code) }
        }
        Ok(Cloned::Parent { pid, pidfd }) => {
            drop((go_read, status_write));
            admit(ground, pid, root, go_write, status_read)
                .inspect_err(|_| kill_and_reap(pidfd.as_fd()))
                .map(|user_namespace| Outer { pid, pidfd, user_namespace })
        }
        Err(error) if ground::is_refusal_of_namespaces(&error) => {
            Err(SpawnError::UserNamespaces(error))
        }
        Err(error) => Err(SpawnError::Clone(error)),
    }
}

impl OuterChild {
    /// Gives up root and the capability bounding set for good. To be called after the file tree
    /// stands and directly before `execve`, which takes the remaining capabilities.
    ///
    /// # Errors
    /// Names the system call. The process then has to end.
    pub fn become_nobody(self) -> Result<(), NobodyError> {
        if self.poor {
            capabilities::drop_what_may_be_dropped()?;
        } else {
            capabilities::drop_bounding()?;
        }
        if self.root {
            let failed = |call| {
                move |error: rustix::io::Errno| NobodyError::Identity { call, source: error.into() }
            };
            let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            rustix::thread::set_thread_groups(&[]).map_err(failed("setgroups"))?;
            rustix::thread::set_thread_res_gid(group, group, group).map_err(failed("setresgid"))?;
            rustix::thread::set_thread_res_uid(user, user, user).map_err(failed("setresuid"))?;
        }
        process::reset_signals()?;
        // After the change of user, which clears it.
        process::die_with_parent()?;
        Ok(())
    }
}

fn kill_and_reap(pidfd: BorrowedFd<'_>) {
    // Both can only fail if the child is gone already, which is what is wanted.
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    let id = rustix::process::WaitId::PidFd(pidfd);
    let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
}

fn pipe() -> Result<(fs::File, fs::File), SpawnError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| SpawnError::Pipe(error.into()))?;
    Ok((read.into(), write.into()))
}

/// The child's side: wait for the maps, take the first steps, say how they went, run.
fn run_child(
    ground: &Ground,
    root: bool,
    mut go: fs::File,
    mut status: fs::File,
    child: impl FnOnce(OuterChild) -> i32,
) -> i32 {
    // A launcher that failed to write the maps closes the pipe without a word.
    if go.read_exact(&mut [0]).is_err() {
        return 1;
    }
    // A new process leads no session and no group, so setsid cannot fail; a terminal of the
    // launcher's is lost.
    let _ = rustix::process::setsid();
    let failure = match ground {
        Ground::Whole | Ground::WholeAsRoot => {
            rustix::system::sethostname(HOSTNAME).map_or_else(|error| error.raw_os_error(), |()| 0)
        }
        Ground::HostTree(_) => {
            // What was refused may be this.
            let _ = rustix::system::sethostname(HOSTNAME);
            0
        }
        // It would be the host's.
        Ground::NoNamespaces(_) => 0,
    };
    if status.write_all(&failure.to_ne_bytes()).is_err() || failure != 0 {
        return 1;
    }
    drop((go, status));
    child(OuterChild { root, poor: !ground.is_whole() })
}

/// The launcher's side: write the maps, let the child go, hear how its first steps went.
/// Returns the child's user namespace, if it has one.
fn admit(
    ground: &Ground,
    pid: i32,
    root: bool,
    mut go: fs::File,
    mut status: fs::File,
) -> Result<Option<OwnedFd>, SpawnError> {
    let user_namespace = match ground {
        Ground::NoNamespaces(_) => None,
        _ => Some(write_maps(pid, root)?),
    };
    go.write_all(&[1]).map_err(SpawnError::Pipe)?;
    let mut failure = [0; 4];
    status.read_exact(&mut failure).map_err(SpawnError::Pipe)?;
    match i32::from_ne_bytes(failure) {
        0 => Ok(user_namespace),
        code => Err(SpawnError::Hostname(io::Error::from_raw_os_error(code))),
    }
}

/// Maps the child's user, and returns its user namespace.
fn write_maps(pid: i32, root: bool) -> Result<OwnedFd, SpawnError> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let path = directory.join("ns/user");
    let user_namespace =
        fs::File::open(&path).map_err(|source| SpawnError::Namespace { path, source })?;
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|source| SpawnError::Map { path, source })
    };
    if root {
        let both = format!("0 0 1\n{NOBODY} {NOBODY} 1\n");
        write("uid_map", both.clone())?;
        write("gid_map", both)?;
    } else {
        // An unprivileged gid map is accepted only once setgroups is denied (user_namespaces(7)).
        write("setgroups", "deny".to_owned())?;
        write("uid_map", format!("{NOBODY} {} 1\n", rustix::process::geteuid().as_raw()))?;
        write("gid_map", format!("{NOBODY} {} 1\n", rustix::process::getegid().as_raw()))?;
    }
    Ok(user_namespace.into())
}

/// Whether the launcher's own user namespace knows the user nobody; a rootless container's may not.
fn maps_nobody() -> bool {
    let knows = |path| {
        fs::read_to_string(path).is_ok_and(|map| {
            map.lines().any(|line| {
                let mut numbers = line.split_whitespace().map(str::parse::<u64>);
                let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
                    (numbers.next(), numbers.next(), numbers.next())
                else {
                    return false;
                };
                (first..first.saturating_add(count)).contains(&u64::from(NOBODY))
            })
        })
    };
    knows("/proc/self/uid_map") && knows("/proc/self/gid_map")
}
