//! What confines one thread of a host that has others: every layer that the kernel keeps for each
//! thread by itself.
//!
//! It is for a guest that runs inside the host's process, and it is worth less than a cell's jail:
//! memory is the host's, and with it everything that native code or an interpreter bug can reach.
//! What a thread asks of the kernel is walled off as a cell's requests are. The report says both.
//!
//! Nothing here touches what is the process's: limits, identity, dumpability, what ends it, and what
//! signals do. The host's other threads go on as before.

#![expect(
    unsafe_code,
    reason = "unshare, which rustix marks so; descriptors that other values own are closed"
)]

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::landlock::Grant;
use crate::plan::RootPlan;
use crate::seccomp_thread::{Has, ThreadFilter};
use crate::thread_namespaces::{ThreadNamespaceError, ThreadNamespaces};
use crate::thread_root::ThreadRoot;
use crate::{
    CapabilityError, DescriptorError, Domain, LandlockError, LayerName, ProcessError, Report,
    SeccompError, Status, Support, capabilities, descriptors, ground, landlock, process,
};

/// Reports keep details below this.
const DETAIL_BYTES: usize = 159;

const UMASK: Mode = Mode::from_raw_mode(0o077);

/// Why no jail for threads could be prepared. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareThreadError {
    /// A directory of the plan could not be listed.
    #[error("listing what a thread may read failed")]
    List(#[source] io::Error),
    /// A thread to try things on did not start.
    #[error("starting a thread failed")]
    Start(#[source] io::Error),
    /// The Landlock ruleset.
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    /// The filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// `/dev/null`.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
}

/// Why a thread is not confined, or only half. It has to end before it runs guest code; the host's
/// other threads are untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThreadError {
    /// The process's first thread was about to be confined, and is not.
    #[error("the process's first thread is the host itself; confine another")]
    FirstThread,
    /// Signals, privileges.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// `unshare` of the working directory and the umask.
    #[error("unshare(CLONE_FS) failed")]
    Unshare(#[source] io::Error),
    /// Namespaces that the jail has and the thread could not join.
    #[error(transparent)]
    Namespaces(#[from] ThreadNamespaceError),
    /// `chdir`.
    #[error("chdir to the root failed")]
    Directory(#[source] io::Error),
    /// The umask is another one than was set.
    #[error("the umask is {0:?} after it was set")]
    Umask(Mode),
    /// Capabilities.
    #[error(transparent)]
    Capabilities(#[from] CapabilityError),
    /// Landlock, on a kernel that has it.
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    /// Descriptors.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// The filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
}

/// What confined threads enter, made once in a host process.
#[derive(Debug)]
pub struct ThreadJail {
    domain: Domain,
    filter: ThreadFilter,
    has: Has,
    null: OwnedFd,
    namespaces: Result<ThreadNamespaces, ThreadNamespaceError>,
}

impl ThreadJail {
    /// Makes the Landlock ruleset, the filter and, where the host has the right, the namespaces. All
    /// know the plan's files by the names that they have on the host. `seen` are further files, which
    /// a thread that has to do with the host's root finds there and may read.
    ///
    /// # Errors
    /// When the kernel refuses a part that needs no right. Namespaces that cannot be had are not an
    /// error: the report says so.
    pub fn prepare(plan: &RootPlan, seen: &[PathBuf]) -> Result<Self, PrepareThreadError> {
        let root = ThreadRoot::new(plan);
        let mut grants = root.grants().map_err(PrepareThreadError::List)?;
        grants.extend(seen.iter().map(|path| (path.clone(), Grant::File)));
        let domain = Domain::prepare_listed(&grants)?;
        let namespaces = ThreadNamespaces::make(&root);
        let own_root = namespaces.as_ref().is_ok_and(|it| it.mount.is_ok());
        let has = Has {
            read_only_files: own_root || domain.support().guards_truncation(),
            own_folder: may_have_own_folder().map_err(PrepareThreadError::Start)?,
        };
        let (filter, null) = (ThreadFilter::compile(has)?, descriptors::open_null()?);
        Ok(Self { domain, filter, has, null, namespaces })
    }

    /// Confines the calling thread for good. `keep` are the descriptors that stay open in it,
    /// ascending and above 2. They keep their numbers; in the host they stay open as well, and are
    /// the host's to close.
    ///
    /// A guest that calls `_exit` or `abort` ends this thread in the middle of what it does: nothing
    /// is unwound, no destructor runs, locks that it holds stay held. `pthread_join` returns then;
    /// [`std::thread::JoinHandle::join`] panics and [`std::thread::scope`] waits for ever.
    ///
    /// # Errors
    /// Names the layer. The thread has to end; the host goes on.
    ///
    /// # Safety
    /// The calling thread is new: nothing of the host's is left to be done on it. From here on it uses and closes
    /// no descriptor that is not in `keep`, for in its own table the number is closed or becomes
    /// something else: so it does not drop what owns one, this jail included.
    pub unsafe fn enter(&self, keep: &[RawFd]) -> Result<Report, ThreadError> {
        descriptors::check(keep)?;
        if rustix::thread::gettid() == rustix::process::getpid() {
            return Err(ThreadError::FirstThread);
        }
        process::block_signals()?;
        // SAFETY: the caller promises that what runs on this thread knows `keep` alone. Descriptors
        // that are in both tables are closed in each by itself.
        unsafe { descriptors::own_table()? };
        if self.has.own_folder {
            own_folder().map_err(ThreadError::Unshare)?;
        }
        let mut report = Report::default();
        if let Ok(namespaces) = &self.namespaces {
            namespaces.join()?;
        }
        self.report_namespaces(&mut report);
        if self.has.own_folder {
            rustix::process::chdir("/").map_err(|error| ThreadError::Directory(error.into()))?;
            rustix::process::umask(UMASK);
            let umask = rustix::process::umask(UMASK);
            if umask != UMASK {
                return Err(ThreadError::Umask(umask));
            }
        }
        drop_capabilities(&mut report)?;
        process::no_new_privileges()?;
        report.add(LayerName::NoNewPrivileges, Status::Enforced, "set for good");
        self.domain.enter()?;
        if self.domain.support() != Support::Missing {
            landlock::verify_listed()?;
        }
        report.layers.push(crate::enter::landlock_layer(self.domain.support()));
        // SAFETY: the table is this thread's own since unshare, and of what is in it the caller
        // vouches for all but `keep`.
        unsafe { descriptors::close_all_but(keep, self.null.as_fd())? };
        descriptors::verify_open(keep)?;
        report.add(
            LayerName::Descriptors,
            Status::Enforced,
            format!(
                "a table of its own: {} kept, all others closed in it{}",
                keep.len(),
                if self.has.own_folder {
                    ""
                } else {
                    "; the working folder is the host's, and kept"
                }
            ),
        );
        self.filter.install()?;
        let (calls, by_argument) = self.filter.calls();
        report.add(
            LayerName::Seccomp,
            Status::Enforced,
            format!(
                "allow-list of {calls} calls, {by_argument} of them by argument; exit ends the thread \
                 alone{}",
                if self.has.read_only_files { "" } else { "; no file is opened to write" }
            ),
        );
        report.add(
            LayerName::Rlimits,
            Status::Missing,
            "they belong to the whole process; memory and CPU time are counted by the runtime",
        );
        report.add(
            LayerName::Environment,
            Status::Partial,
            "os.environ is the cell's own and empty; the host's lies in the memory of the process",
        );
        report.add(
            LayerName::Process,
            Status::Missing,
            "memory and address space are the host's: native code or an interpreter bug is not contained",
        );
        Ok(report)
    }

    fn report_namespaces(&self, report: &mut Report) {
        use LayerName::{
            IpcNamespace, MountNamespace, NetworkNamespace, PidNamespace, Root, UserNamespace,
            UtsNamespace,
        };
        let shared = "the host process's, as every thread's is";
        report.add(UserNamespace, Status::Missing, shared);
        report.add(PidNamespace, Status::Missing, shared);
        let made = "one for all threads of cells";
        match &self.namespaces {
            Ok(namespaces) => {
                match &namespaces.mount {
                    Ok(_) => {
                        report.add(MountNamespace, Status::Enforced, made);
                        report.add(Root, Status::Enforced, ROOT);
                    }
                    Err(error) => {
                        report.add(MountNamespace, Status::Missing, detail("the host's", error));
                        report.add(Root, Status::Missing, self.without_root(error));
                    }
                }
                report.add(IpcNamespace, Status::Enforced, made);
                report.add(UtsNamespace, Status::Enforced, made);
                let network = "one without interfaces for all threads of cells";
                report.add(NetworkNamespace, Status::Enforced, network);
            }
            Err(error) => {
                for name in [MountNamespace, IpcNamespace, UtsNamespace] {
                    report.add(name, Status::Missing, detail("the host's", error));
                }
                let network = detail("the host's; the filter refuses every socket", error);
                report.add(NetworkNamespace, Status::Missing, network);
                report.add(Root, Status::Missing, self.without_root(error));
            }
        }
    }

    fn without_root(&self, error: &ThreadNamespaceError) -> String {
        let what = match self.domain.support() {
            Support::Missing => {
                "the host's, and no Landlock: what the host's user may read is read"
            }
            _ => "the host's: stat sees its names; Landlock refuses contents and listings",
        };
        detail(what, error)
    }
}

/// What a thread that has its own root sees of it.
const ROOT: &str = "read-only tree of the interpreter and its packages, under the host's names";

/// A working folder, root and umask of the calling thread's own.
fn own_folder() -> io::Result<()> {
    // SAFETY: descriptors stay shared, which is what unshare_unsafe is about.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.map_err(io::Error::from)
}

/// Whether a thread may have those: containers forbid `unshare` whole. Tried on one that ends.
fn may_have_own_folder() -> io::Result<bool> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("jail-folder".to_owned()).spawn_scoped(
            scope,
            || match process::block_signals() {
                Ok(()) => own_folder(),
                Err(error) => Err(io::Error::other(error)),
            },
        )?;
        let tried = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match tried {
            Err(error) if !ground::is_refusal(&error) => Err(error),
            tried => Ok(tried.is_ok()),
        }
    })
}

/// What is so, and the error with its causes that made it so, as far as there is room.
fn detail(what: &str, error: &ThreadNamespaceError) -> String {
    let mut text = format!("{what} ({error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}"); // a String takes everything
        cause = error.source();
    }
    let mut end = text.len().min(DETAIL_BYTES - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text + ")"
}

fn drop_capabilities(report: &mut Report) -> Result<(), ThreadError> {
    let whole = capabilities::has(CapabilitySet::SETPCAP)?;
    if whole {
        capabilities::drop_all()?;
        capabilities::verify_bounding_empty()?;
    } else {
        capabilities::drop_sets()?;
    }
    capabilities::verify_none()?;
    let (status, detail) = if whole {
        (Status::Enforced, "none in any set; secure bits locked")
    } else {
        (
            Status::Partial,
            "none held; the host may not empty the bounding set, which execve alone would use",
        )
    };
    report.add(LayerName::Capabilities, status, detail);
    Ok(())
}
