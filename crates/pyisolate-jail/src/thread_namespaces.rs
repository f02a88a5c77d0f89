//! The namespaces that confined threads share: made once, on a thread that ends, and joined by each.
//!
//! To make a network namespace takes longer than everything else that a thread goes through, and a
//! file tree has to be built. To join them takes microseconds. Both need rights that only a
//! privileged host has. A user or pid namespace of its own no thread can have: the kernel gives
//! those to whole processes.

#![expect(unsafe_code, reason = "unshare: rustix marks it so, because of descriptor tables")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{Stat, StatVfsMountFlags};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags};

use crate::root::RootError;
use crate::thread_root::ThreadRoot;
use crate::{CapabilityError, NetworkError, ProcessError, capabilities, network, process};

const HOSTNAME: &[u8] = b"cell";

/// Why namespaces could not be had, or joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThreadNamespaceError {
    /// The host may not make namespaces.
    #[error("the host lacks CAP_SYS_ADMIN or CAP_SYS_CHROOT")]
    NoRight,
    /// Whether it may could not be found out.
    #[error(transparent)]
    Capabilities(#[from] CapabilityError),
    /// The thread that makes them did not start.
    #[error("starting a thread failed")]
    Start(#[source] io::Error),
    /// Its signals could not be blocked.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// `unshare`.
    #[error("unshare failed")]
    Unshare(#[source] io::Error),
    /// The new network namespace has a way out.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// `sethostname`.
    #[error("sethostname failed")]
    Hostname(#[source] io::Error),
    /// A namespace's file.
    #[error("looking at {path:?} failed; is /proc mounted?")]
    Look {
        /// The file in `/proc`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file tree.
    #[error(transparent)]
    Root(#[from] RootError),
    /// `setns`.
    #[error("joining the {name} namespace failed")]
    Join {
        /// Which, by its name in `/proc/self/ns`.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel shows the thread in another namespace than it has just joined.
    #[error("the {name} namespace is not in force after it was joined")]
    NotInForce {
        /// Which, by its name in `/proc/self/ns`.
        name: &'static str,
    },
}

/// The namespaces, alive for as long as this is.
#[derive(Debug)]
pub(crate) struct ThreadNamespaces {
    network: File,
    ipc: File,
    uts: File,
    /// The mount namespace with its root, or why there is none.
    pub(crate) mount: Result<(File, Root), ThreadNamespaceError>,
}

/// Device and inode of a root directory, by which it is recognised.
type Root = (u64, u64);

impl ThreadNamespaces {
    /// Makes them on a thread of their own, so that the caller stays where it is.
    pub(crate) fn make(root: &ThreadRoot) -> Result<Self, ThreadNamespaceError> {
        if !capabilities::has(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_CHROOT)? {
            return Err(ThreadNamespaceError::NoRight);
        }
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("jail-namespaces".to_owned())
                .spawn_scoped(scope, || Self::on_this_thread(root))
                .map_err(ThreadNamespaceError::Start)?
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn on_this_thread(root: &ThreadRoot) -> Result<Self, ThreadNamespaceError> {
        process::block_signals()?;
        let flags = UnshareFlags::NEWNET
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWNS
            | UnshareFlags::FS;
        // SAFETY: descriptors stay shared, which is what unshare_unsafe is about. The thread makes
        // its descriptors here and hands them to its maker.
        unsafe { rustix::thread::unshare_unsafe(flags) }
            .map_err(|error| ThreadNamespaceError::Unshare(error.into()))?;
        network::verify_empty()?;
        rustix::system::sethostname(HOSTNAME)
            .map_err(|error| ThreadNamespaceError::Hostname(error.into()))?;
        // Before the new root, which has no /proc.
        let (network, ipc, uts, mount) = (open("net")?, open("ipc")?, open("uts")?, open("mnt")?);
        let mount = root.build().map_err(ThreadNamespaceError::from).and_then(|()| {
            let found = stat_root()?;
            Ok((mount, found))
        });
        Ok(Self { network, ipc, uts, mount })
    }

    /// Moves the calling thread into them. It has to have its own working directory, root and umask
    /// (`CLONE_FS`), which the new root would otherwise change for all threads that share them; the
    /// kernel refuses then.
    pub(crate) fn join(&self) -> Result<(), ThreadNamespaceError> {
        join("net", &self.network, LinkNameSpaceType::Network)?;
        join("ipc", &self.ipc, LinkNameSpaceType::InterProcessCommunication)?;
        join("uts", &self.uts, LinkNameSpaceType::HostNameAndNISDomainName)?;
        let Ok((mount, root)) = &self.mount else { return Ok(()) };
        set(mount, LinkNameSpaceType::Mount)
            .map_err(|source| ThreadNamespaceError::Join { name: "mnt", source })?;
        let flags = rustix::fs::statvfs("/").map(|found| found.f_flag).map_err(look("/"))?;
        if stat_root()? == *root && flags.contains(StatVfsMountFlags::RDONLY) {
            Ok(())
        } else {
            Err(ThreadNamespaceError::NotInForce { name: "mnt" })
        }
    }
}

fn join(
    name: &'static str,
    namespace: &File,
    kind: LinkNameSpaceType,
) -> Result<(), ThreadNamespaceError> {
    set(namespace, kind).map_err(|source| ThreadNamespaceError::Join { name, source })?;
    let path = path_of(name);
    let now = rustix::fs::stat(&path).map_err(look(path.clone()))?;
    let wanted = rustix::fs::fstat(namespace).map_err(look(path))?;
    if identity(&now) == identity(&wanted) {
        Ok(())
    } else {
        Err(ThreadNamespaceError::NotInForce { name })
    }
}

fn set(namespace: &File, kind: LinkNameSpaceType) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))?)
}

fn open(name: &'static str) -> Result<File, ThreadNamespaceError> {
    let path = path_of(name);
    File::open(&path).map_err(|source| ThreadNamespaceError::Look { path, source })
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from("/proc/thread-self/ns").join(name)
}

fn stat_root() -> Result<Root, ThreadNamespaceError> {
    rustix::fs::stat("/").map(|found| identity(&found)).map_err(look("/"))
}

fn identity(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

fn look(path: impl Into<PathBuf>) -> impl FnOnce(rustix::io::Errno) -> ThreadNamespaceError {
    let path = path.into();
    |error| ThreadNamespaceError::Look { path, source: error.into() }
}
