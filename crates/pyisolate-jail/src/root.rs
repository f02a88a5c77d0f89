//! The file tree of the jail: a small read-only tmpfs of empty mount points, with the plan's binds
//! on them.
//!
//! Built with the new mount API (Linux 5.12 and later), which makes each bind read-only *before* it
//! is attached, so that there is no moment at which the guest's tree is writable. Two steps,
//! because a privileged launcher has to do the first one outside: inside a user namespace that maps
//! two users, root may not look into a home directory of a third.
//!
//! 1. [`RootPlan::open`]: `open_tree(OPEN_TREE_CLONE)` and `mount_setattr` give one detached mount
//!    a bind.
//! 2. [`Trees::assemble`]: `fsopen("tmpfs")`, one `move_mount` each, `pivot_root`, detach the old
//!    root, seal the new.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use crate::ground;
use crate::plan::{Bind, BindKind, RootPlan};

/// How much a tmpfs may hold, and who may write to it.
pub(crate) struct Room<'a> {
    pub(crate) size: &'a str,
    pub(crate) inodes: &'a str,
    pub(crate) mode: &'a str,
}

/// For mount points. The size is enough for empty files and directories, for which tmpfs charges
/// inodes and not bytes, and a few short texts; the inodes are those of the largest plans seen (some
/// sixty) with their parents, fifteen times over.
pub(crate) const MOUNT_POINTS: Room<'_> = Room { size: "64k", inodes: "1024", mode: "0755" };

/// For a program's own files.
pub(crate) const SCRATCH: Room<'_> = Room { size: "16m", inodes: "4096", mode: "1777" };

/// Which step of building the root failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// `open_tree` of a bind's source.
    #[error("open_tree({path:?}) failed")]
    OpenTree {
        /// The path on the host.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `mount_setattr` on a bind that is not attached yet.
    #[error("mount_setattr on the tree of {path:?} failed")]
    SetAttributes {
        /// The path on the host, or in the root for what has none outside.
        path: PathBuf,
        /// Why. `ENOSYS`: a kernel before 5.12.
        source: io::Error,
    },
    /// Mount propagation could not be switched off.
    #[error("making the mounts private failed")]
    MakePrivate(#[source] io::Error),
    /// `fsopen`, `fsconfig` or `fsmount` of a tmpfs.
    #[error("{call} for a tmpfs failed")]
    Tmpfs {
        /// The system call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A mount point could not be made.
    #[error("making the mount point {path:?} failed")]
    MountPoint {
        /// The place in the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `move_mount` onto a mount point.
    #[error("move_mount to {path:?} failed")]
    Attach {
        /// The place in the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `pivot_root`. `EINVAL` is what an initramfs answers: it cannot be pivoted away from.
    #[error("pivot_root failed")]
    PivotRoot(#[source] io::Error),
    /// `fchdir`, `umount2` or `chdir` around `pivot_root`.
    #[error("{call} while leaving the old root failed")]
    LeaveOldRoot {
        /// The system call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The finished root could not be made read-only.
    #[error("sealing the root failed")]
    Seal(#[source] io::Error),
}

impl RootError {
    /// Whether the host refuses what the step needs, as opposed to a fault in the step.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::OpenTree { source, .. }
            | Self::SetAttributes { source, .. }
            | Self::MakePrivate(source)
            | Self::Tmpfs { source, .. }
            | Self::Attach { source, .. }
            | Self::PivotRoot(source)
            | Self::LeaveOldRoot { source, .. }
            | Self::Seal(source) => ground::is_refusal(source),
            // In a tree of our own.
            Self::MountPoint { .. } => false,
        }
    }
}

/// The binds of a plan as detached mounts, read-only already. Dropping it lets them go.
#[derive(Debug)]
pub struct Trees<'plan> {
    plan: &'plan RootPlan,
    trees: Vec<OwnedFd>,
}

impl RootPlan {
    /// Clones the source of every bind into a detached read-only mount.
    ///
    /// Needs `CAP_SYS_ADMIN` over the caller's mount namespace. A launcher that is root does this
    /// before it clones the jail's first process, which inherits the descriptors; any other leaves
    /// it to that process.
    ///
    /// # Errors
    /// Names the path whose clone failed.
    pub fn open(&self) -> Result<Trees<'_>, RootError> {
        let trees = self.binds().iter().map(open_bind).collect::<Result<_, _>>()?;
        Ok(Trees { plan: self, trees })
    }

    /// Does both steps at once, in a process that is alone in fresh user and mount namespaces.
    ///
    /// # Errors
    /// Names the step that failed. The process is then between two roots and has to end.
    pub fn build(&self) -> Result<(), RootError> {
        self.open()?.assemble()
    }
}

impl Trees<'_> {
    /// Replaces the root of the calling process's mount namespace by the plan's.
    ///
    /// # Errors
    /// Names the step that failed. The process is then between two roots and has to end.
    pub fn assemble(self) -> Result<(), RootError> {
        make_private()?;
        let root = tmpfs(&MOUNT_POINTS, MountAttrFlags::empty())?;
        // Stacked on the old root: a place that always exists and that nothing else refers to by
        // path.
        attach(root.as_fd(), CWD, Path::new("/"))?;
        for (bind, tree) in self.plan.binds().iter().zip(&self.trees) {
            make_mount_point(root.as_fd(), bind)?;
            attach(tree.as_fd(), root.as_fd(), &bind.target)?;
        }
        for covered in self.plan.covered() {
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            let empty = tmpfs(&MOUNT_POINTS, attributes)?;
            attach(empty.as_fd(), root.as_fd(), covered)?;
        }
        enter(root.as_fd())?;
        seal(root.as_fd())
    }
}

/// No mount of the calling process's namespace is told of changes elsewhere, or tells.
pub(crate) fn make_private() -> Result<(), RootError> {
    let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", all).map_err(|error| RootError::MakePrivate(error.into()))
}

/// Makes the finished root read-only.
pub(crate) fn seal(root: BorrowedFd<'_>) -> Result<(), RootError> {
    set_attributes(root, false, libc::MOUNT_ATTR_RDONLY | SEALED).map_err(RootError::Seal)
}

const SEALED: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

pub(crate) fn open_bind(bind: &Bind) -> Result<OwnedFd, RootError> {
    open_tree(CWD, &bind.source, bind)
}

/// Clones what `path` is, seen from `directory`, into a detached mount with the attributes of
/// `bind`; an empty path stands for `directory` itself.
pub(crate) fn open_tree(
    directory: BorrowedFd<'_>,
    path: &Path,
    bind: &Bind,
) -> Result<OwnedFd, RootError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if bind.kind == BindKind::Directory {
        // Without it, a directory that holds another mount is refused in a user namespace: what a
        // mount hides is not for an unprivileged clone to uncover.
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    let tree = rustix::mount::open_tree(directory, path, flags)
        .map_err(|error| RootError::OpenTree { path: bind.source.clone(), source: error.into() })?;
    let attributes = libc::MOUNT_ATTR_RDONLY
        | libc::MOUNT_ATTR_NOSUID
        | if bind.kind == BindKind::Device {
            libc::MOUNT_ATTR_NOEXEC
        } else {
            libc::MOUNT_ATTR_NODEV
        };
    set_attributes(tree.as_fd(), true, attributes)
        .map_err(|source| RootError::SetAttributes { path: bind.source.clone(), source })?;
    Ok(tree)
}

/// A new detached tmpfs. Its file system refuses set-user-id programs and devices in any case.
pub(crate) fn tmpfs(room: &Room<'_>, attributes: MountAttrFlags) -> Result<OwnedFd, RootError> {
    let failed = |call| move |error: Errno| RootError::Tmpfs { call, source: error.into() };
    let context =
        rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen"))?;
    for (key, value) in [("size", room.size), ("nr_inodes", room.inodes), ("mode", room.mode)] {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value)
            .map_err(failed("fsconfig"))?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).map_err(failed("fsconfig"))?;
    let attributes =
        attributes | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed("fsmount"))
}

pub(crate) fn make_mount_point(root: BorrowedFd<'_>, bind: &Bind) -> Result<(), RootError> {
    make_parents(root, &bind.target)?;
    if bind.kind == BindKind::Directory {
        return make_directory(root, &bind.target);
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(root, &bind.target, flags, Mode::from_raw_mode(0o444))
        .map(drop)
        .map_err(|error| RootError::MountPoint { path: bind.target.clone(), source: error.into() })
}

/// Makes the directories that `path` is in.
pub(crate) fn make_parents(root: BorrowedFd<'_>, path: &Path) -> Result<(), RootError> {
    let parents: Vec<_> =
        path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    parents.into_iter().rev().try_for_each(|parent| make_directory(root, parent))
}

fn make_directory(root: BorrowedFd<'_>, path: &Path) -> Result<(), RootError> {
    match rustix::fs::mkdirat(root, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(RootError::MountPoint { path: path.to_path_buf(), source: error.into() }),
    }
}

pub(crate) fn attach(
    tree: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    target: &Path,
) -> Result<(), RootError> {
    rustix::mount::move_mount(tree, "", directory, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| RootError::Attach { path: target.to_path_buf(), source: error.into() })
}

/// Makes `root` the root, and the old one unreachable.
pub(crate) fn enter(root: BorrowedFd<'_>) -> Result<(), RootError> {
    let failed = |call| move |error: Errno| RootError::LeaveOldRoot { call, source: error.into() };
    rustix::process::fchdir(root).map_err(failed("fchdir"))?;
    // With both arguments the same directory the old root ends up stacked on the new one, from
    // where it is detached (pivot_root(2), "pivot_root(".", ".")"): no directory for it has to
    // exist inside.
    rustix::process::pivot_root(".", ".").map_err(|error| RootError::PivotRoot(error.into()))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed("umount2"))?;
    rustix::process::chdir("/").map_err(failed("chdir"))
}

/// `mount_setattr(2)`, which rustix does not have yet.
#[expect(unsafe_code, reason = "mount_setattr has no safe wrapper in rustix 1.1")]
fn set_attributes(tree: BorrowedFd<'_>, recursive: bool, set: u64) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let mut flags = AtFlags::EMPTY_PATH.bits();
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: mount_setattr takes a descriptor, a NUL-terminated path, flags, and a structure of
    // the given size. `tree` is open for the call by its borrow; the path is a C literal;
    // `attributes` is a live, fully initialised `struct mount_attr` of exactly the size passed,
    // which the kernel reads and does not keep.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
