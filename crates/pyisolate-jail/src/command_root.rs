//! What a program's root contains: the system's own folders, what the policy adds, a scratch folder,
//! and nothing of the host's users.
//!
//! Unlike a cell's, the names inside are those outside: programs know where their files are. The
//! system's folders are found by name and may be links, as on systems with a merged `/usr`; what the
//! policy adds is opened without following any link, so that nobody who can rename a file on the way
//! can change what is shown.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::plan::{Bind, BindKind};
use crate::root::{
    MOUNT_POINTS, RootError, SCRATCH, attach, enter, make_mount_point, make_private, open_bind,
    open_tree, seal, tmpfs,
};

/// The folders of the system. Links among them are made again as links.
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What else of the system every program may look at, where it exists: how the loader finds
/// libraries, what names like `awk` stand for, which time it is here.
const SETTINGS: [&str; 3] = ["etc/ld.so.cache", "etc/alternatives", "etc/localtime"];

/// The devices.
pub(crate) const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"];

/// Links that programs expect where there is a `/proc`.
const PROC_LINKS: [(&str, &str); 4] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
];

/// Who there is: the one user of the jail.
const TEXTS: [(&str, &str); 2] = [
    ("etc/passwd", "nobody:x:65534:65534:nobody:/tmp:/bin/false\n"),
    ("etc/group", "nogroup:x:65534:\n"),
];

/// The program's own folder: its working directory and its `HOME`.
pub(crate) const SCRATCH_PATH: &str = "/tmp";

/// Places that are the jail's own: nothing of the host's can be shown there.
const OWN: [&str; 3] = ["proc", "dev", "sys"];

/// Why a program's root could not be planned or built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandRootError {
    /// A path of the policy's that has no place in the root.
    #[error(
        "{0:?} cannot be shown to a program: it is not absolute, or its place is the jail's own"
    )]
    Place(PathBuf),
    /// A path of the policy's could not be opened.
    #[error("opening {path:?}, which the program may read, failed")]
    Open {
        /// The path.
        path: PathBuf,
        /// Why. `ELOOP`: a part of the path is a symbolic link, which is not followed.
        source: io::Error,
    },
    /// A link or text could not be made.
    #[error("making {path:?} in the program's root failed")]
    Make {
        /// The place in the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The steps that a cell's root takes too.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// A program's root, planned.
#[derive(Debug)]
pub(crate) struct CommandRoot {
    /// Of the policy, with places below the root, the shallowest first.
    granted: Vec<PathBuf>,
    /// Devices beside [`DEVICES`], with places below the root.
    devices: Vec<PathBuf>,
}

/// A program's root with all binds open. Holds detached mounts, which go if it is dropped.
#[derive(Debug)]
pub(crate) struct CommandTrees {
    binds: Vec<(Bind, OwnedFd)>,
    links: Vec<(PathBuf, PathBuf)>,
    devices: Vec<PathBuf>,
}

/// A root that was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// What may be executed.
    pub(crate) executable: Vec<PathBuf>,
    /// Devices beside [`DEVICES`].
    pub(crate) devices: Vec<PathBuf>,
    /// Whether there is a `/proc`; a container may not let one be mounted.
    pub(crate) proc: Result<(), Errno>,
}

impl CommandRoot {
    /// Checks the paths of the policy and leaves out those that are visible anyway.
    pub(crate) fn new(read: &[PathBuf], devices: &[PathBuf]) -> Result<Self, CommandRootError> {
        let mut granted: Vec<PathBuf> = Vec::new();
        let mut read: Vec<&PathBuf> = read.iter().collect();
        read.sort_by_key(|path| path.components().count());
        for path in read {
            let place = place(path)?;
            let visible = SYSTEM.iter().chain(&SETTINGS).any(|shown| place.starts_with(shown));
            if !visible && !granted.iter().any(|other| place.starts_with(other)) {
                granted.push(place);
            }
        }
        let device = |path: &PathBuf| match path.strip_prefix("/") {
            Ok(place) if is_plain(place) && place.starts_with("dev") => Ok(place.to_path_buf()),
            _ => Err(CommandRootError::Place(path.clone())),
        };
        let devices = devices.iter().map(device).collect::<Result<_, _>>()?;
        Ok(Self { granted, devices })
    }

    /// Clones every source into a detached read-only mount, as [`crate::RootPlan::open`] does.
    pub(crate) fn open(&self) -> Result<CommandTrees, CommandRootError> {
        let mut trees = CommandTrees { binds: Vec::new(), links: Vec::new(), devices: Vec::new() };
        for place in &self.granted {
            let bind = self.open_granted(place)?;
            trees.binds.push(bind);
        }
        for name in SYSTEM {
            let source = Path::new("/").join(name);
            let Ok(found) = std::fs::symlink_metadata(&source) else { continue };
            if found.is_symlink() {
                let to = std::fs::read_link(&source)
                    .map_err(|error| CommandRootError::Make { path: source, source: error })?;
                trees.links.push((PathBuf::from(name), to));
            } else if found.is_dir() {
                trees.add_system(Path::new(name), BindKind::Directory)?;
            }
        }
        for name in SETTINGS {
            let Ok(found) = std::fs::metadata(Path::new("/").join(name)) else { continue };
            let kind = if found.is_dir() { BindKind::Directory } else { BindKind::File };
            trees.add_system(Path::new(name), kind)?;
        }
        let own = DEVICES.map(|name| PathBuf::from(name.trim_start_matches('/')));
        for place in own.iter().chain(&self.devices) {
            trees.add_system(place, BindKind::Device)?;
        }
        trees.devices.clone_from(&self.devices);
        Ok(trees)
    }

    fn open_granted(&self, place: &Path) -> Result<(Bind, OwnedFd), CommandRootError> {
        let source = Path::new("/").join(place);
        let failed =
            |error: Errno| CommandRootError::Open { path: source.clone(), source: error.into() };
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let handle =
            rustix::fs::openat2(CWD, &source, flags, Mode::empty(), resolve).map_err(failed)?;
        let found = rustix::fs::fstat(&handle).map_err(failed)?;
        let kind = match rustix::fs::FileType::from_raw_mode(found.st_mode) {
            rustix::fs::FileType::Directory => BindKind::Directory,
            _ => BindKind::File,
        };
        let bind = Bind { source: source.clone(), target: place.to_path_buf(), kind };
        let tree = open_tree(handle.as_fd(), Path::new(""), &bind)?;
        Ok((bind, tree))
    }
}

impl CommandTrees {
    fn add_system(&mut self, place: &Path, kind: BindKind) -> Result<(), CommandRootError> {
        let bind = Bind { source: Path::new("/").join(place), target: place.to_path_buf(), kind };
        if !self.shows(&bind.target) {
            let tree = open_bind(&bind)?;
            self.binds.push((bind, tree));
        }
        Ok(())
    }

    /// Whether a place is at or below one that is bound.
    fn shows(&self, place: &Path) -> bool {
        self.binds.iter().any(|(bind, _)| place.starts_with(&bind.target))
    }

    /// Replaces the root of the calling process's mount namespace. Afterwards the working directory
    /// is the scratch folder.
    pub(crate) fn assemble(self) -> Result<Built, CommandRootError> {
        make_private()?;
        let root = tmpfs(&MOUNT_POINTS, MountAttrFlags::empty())?;
        attach(root.as_fd(), CWD, Path::new("/"))?;
        let root = root.as_fd();
        // A new /proc is allowed only while the old one can be seen.
        let proc = mount_proc();
        let scratch = tmpfs(&SCRATCH, MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
        mount_point(root, Path::new("tmp"), BindKind::Directory)?;
        attach(scratch.as_fd(), root, Path::new("tmp"))?;
        if let Ok(proc) = &proc {
            mount_point(root, Path::new("proc"), BindKind::Directory)?;
            attach(proc.as_fd(), root, Path::new("proc"))?;
        }
        for (bind, tree) in &self.binds {
            make_mount_point(root, bind)?;
            attach(tree.as_fd(), root, &bind.target)?;
        }
        let proc_links = PROC_LINKS.map(|(place, to)| (PathBuf::from(place), PathBuf::from(to)));
        let proc_links = proc_links.into_iter().filter(|_| proc.is_ok());
        for (place, to) in self.links.iter().cloned().chain(proc_links) {
            if !self.shows(&place) {
                rustix::fs::symlinkat(&to, root, &place).map_err(make_failed(&place))?;
            }
        }
        for (place, text) in TEXTS {
            let place = Path::new(place);
            if !self.shows(place) {
                mount_point(root, place, BindKind::File)?;
                write(root, place, text).map_err(make_failed(place))?;
            }
        }
        enter(root)?;
        seal(root)?;
        rustix::process::chdir(SCRATCH_PATH).map_err(make_failed(Path::new(SCRATCH_PATH)))?;
        let executable = self.binds.into_iter().filter(|(bind, _)| bind.kind != BindKind::Device);
        let executable = executable.map(|(bind, _)| Path::new("/").join(bind.target)).collect();
        let devices = self.devices.iter().map(|place| Path::new("/").join(place)).collect();
        Ok(Built { executable, devices, proc: proc.map(drop) })
    }
}

fn make_failed(place: &Path) -> impl Fn(Errno) -> CommandRootError {
    let path = place.to_path_buf();
    move |error| CommandRootError::Make { path: path.clone(), source: error.into() }
}

/// An absolute path of plain names as a place below the root.
fn place(path: &Path) -> Result<PathBuf, CommandRootError> {
    let refused = || CommandRootError::Place(path.to_path_buf());
    let below = path.strip_prefix("/").map_err(|_| refused())?;
    let plain = is_plain(below);
    let own = OWN.iter().any(|own| below.starts_with(own));
    // The root itself would show the whole host; the scratch folder would be hidden, or hide.
    if plain && !own && below.components().next().is_some() && below != Path::new("tmp") {
        Ok(below.to_path_buf())
    } else {
        Err(refused())
    }
}

fn is_plain(place: &Path) -> bool {
    place.components().all(|part| matches!(part, Component::Normal(_)))
}

fn mount_point(
    root: BorrowedFd<'_>,
    target: &Path,
    kind: BindKind,
) -> Result<(), CommandRootError> {
    let bind = Bind { source: PathBuf::new(), target: target.to_path_buf(), kind };
    Ok(make_mount_point(root, &bind)?)
}

fn write(root: BorrowedFd<'_>, place: &Path, text: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // By its mode nobody may write it; who builds the root has the capability to do so all the same.
    let file = rustix::fs::openat(root, place, flags, Mode::empty())?;
    // A text of some bytes is written whole or not at all.
    rustix::io::write(&file, text.as_bytes()).map(drop)
}

/// A `/proc` of the caller's pid namespace, with its processes and nothing about the machine.
fn mount_proc() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("hidepid", "invisible"), ("subset", "pid")] {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(read: &[&str]) -> Result<Vec<PathBuf>, CommandRootError> {
        let read: Vec<_> = read.iter().map(PathBuf::from).collect();
        CommandRoot::new(&read, &[]).map(|root| root.granted)
    }

    #[test]
    fn what_is_visible_anyway_is_bound_once() {
        let places = granted(&["/srv/a/b", "/usr/share/x", "/srv/a", "/bin/true", "/tmp/x"]);
        assert_eq!(places.unwrap(), [Path::new("srv/a"), Path::new("tmp/x")]);
    }

    #[test]
    fn devices_are_below_dev() {
        let devices =
            |path: &str| CommandRoot::new(&[], &[PathBuf::from(path)]).map(|root| root.devices);
        assert_eq!(devices("/dev/kvm").unwrap(), [Path::new("dev/kvm")]);
        for bad in ["/etc/shadow", "/dev/../etc/shadow", "dev/kvm"] {
            assert!(matches!(devices(bad), Err(CommandRootError::Place(_))), "{bad}");
        }
    }

    #[test]
    fn the_jails_own_places_are_refused() {
        for bad in ["/", "/tmp", "/proc", "/proc/1", "/dev/kmsg", "/sys", "relative", "/a/../b"] {
            assert!(matches!(granted(&[bad]), Err(CommandRootError::Place(_))), "{bad}");
        }
    }
}
