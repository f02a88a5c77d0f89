//! The file tree of confined threads: the plan's files under the names that they have on the host.
//!
//! An interpreter that runs already has the host's names in `sys.path`, so this root keeps them, the
//! symbolic links on the way to each included. What is there is what the root of a process cell
//! holds, read-only, and the loader's cache, for the loader is the host's too.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::MountAttrFlags;

use crate::landlock::Grant;
use crate::plan::{Bind, BindKind, RootPlan};
use crate::root::{self, MOUNT_POINTS, RootError};

/// Where `ld.so` looks up the libraries that extension modules need.
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// As many links as the kernel follows for one path.
const LINKS_MAX: usize = 40;

/// What threads see of the host: paths on the host, and what is at each.
#[derive(Debug)]
pub(crate) struct ThreadRoot {
    sources: BTreeMap<PathBuf, BindKind>,
    /// Directories below the sources that are not the guest's.
    covered: Vec<PathBuf>,
}

impl ThreadRoot {
    pub(crate) fn new(plan: &RootPlan) -> Self {
        let mut sources: BTreeMap<_, _> =
            plan.binds().iter().map(|bind| (bind.source.clone(), bind.kind)).collect();
        let cache = PathBuf::from(LOADER_CACHE);
        if cache.is_file() {
            sources.insert(cache, BindKind::File);
        }
        let on_host = |covered: &PathBuf| {
            plan.binds().iter().find_map(|bind| {
                covered.strip_prefix(&bind.target).ok().map(|rest| bind.source.join(rest))
            })
        };
        Self { sources, covered: plan.covered().iter().filter_map(on_host).collect() }
    }

    /// What Landlock is to allow. A directory that has a covered one in it is spelled out, since a
    /// rule has no exceptions: then the names in the covered one can be listed, and nothing read.
    pub(crate) fn grants(&self) -> io::Result<Vec<(PathBuf, Grant)>> {
        let mut grants = Vec::new();
        for (path, kind) in &self.sources {
            let covered: Vec<_> =
                self.covered.iter().filter(|covered| covered.starts_with(path)).collect();
            match kind {
                BindKind::Directory if covered.is_empty() => {
                    grants.push((path.clone(), Grant::Tree));
                }
                BindKind::Directory => {
                    grants.push((path.clone(), Grant::Listing));
                    for entry in std::fs::read_dir(path)? {
                        let entry = entry?;
                        let kind = entry.file_type()?;
                        // Where a link leads is granted by itself, or not the guest's.
                        if !kind.is_symlink() && !covered.contains(&&entry.path()) {
                            let grant = if kind.is_dir() { Grant::Tree } else { Grant::File };
                            grants.push((entry.path(), grant));
                        }
                    }
                }
                BindKind::Device if path.ends_with("null") => {
                    grants.push((path.clone(), Grant::Null));
                }
                BindKind::File | BindKind::Device => grants.push((path.clone(), Grant::File)),
            }
        }
        Ok(grants)
    }

    /// Replaces the root of the calling thread's mount namespace, which has to be its own.
    pub(crate) fn build(&self) -> Result<(), RootError> {
        root::make_private()?;
        let mut links = BTreeMap::new();
        let mut binds: Vec<Bind> = Vec::new();
        let mut targets = BTreeMap::new();
        for (path, kind) in &self.sources {
            targets.insert(resolve(path, &mut links)?, *kind);
        }
        // In the order of paths, a directory comes before what is in it.
        for (target, kind) in targets {
            if !below_any(&binds, &target) {
                let source = Path::new("/").join(&target);
                binds.push(Bind { source, target, kind });
            }
        }
        let opened = binds.iter().map(root::open_bind).collect::<Result<Vec<_>, _>>()?;
        let tree = root::tmpfs(&MOUNT_POINTS, MountAttrFlags::empty())?;
        // Stacked on the old root, as for process cells.
        root::attach(tree.as_fd(), CWD, Path::new("/"))?;
        for (bind, opened) in binds.iter().zip(&opened) {
            root::make_mount_point(tree.as_fd(), bind)?;
            root::attach(opened.as_fd(), tree.as_fd(), &bind.target)?;
        }
        for (link, target) in links.iter().filter(|(link, _)| !below_any(&binds, link)) {
            root::make_parents(tree.as_fd(), link)?;
            rustix::fs::symlinkat(target, &tree, link).map_err(|error| RootError::MountPoint {
                path: link.clone(),
                source: error.into(),
            })?;
        }
        for covered in &self.covered {
            // What is listed below it would be hidden too; then Landlock alone guards the rest.
            if !self.sources.keys().any(|source| source.starts_with(covered)) {
                let target = resolve(covered, &mut BTreeMap::new())?;
                let attributes =
                    MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                let empty = root::tmpfs(&MOUNT_POINTS, attributes)?;
                root::attach(empty.as_fd(), tree.as_fd(), &target)?;
            }
        }
        root::enter(tree.as_fd())?;
        root::seal(tree.as_fd())
    }
}

/// Whether a directory that is bound whole brings `path` with it.
fn below_any(binds: &[Bind], path: &Path) -> bool {
    binds.iter().any(|bind| bind.kind == BindKind::Directory && path.starts_with(&bind.target))
}

fn resolve(path: &Path, links: &mut BTreeMap<PathBuf, PathBuf>) -> Result<PathBuf, RootError> {
    real(path, links).map_err(|source| RootError::OpenTree { path: path.to_path_buf(), source })
}

/// The path that `path` is when every symbolic link is followed, without the leading slash. The
/// links that were followed are added to `links`, each with what it says.
fn real(path: &Path, links: &mut BTreeMap<PathBuf, PathBuf>) -> io::Result<PathBuf> {
    let mut real = PathBuf::new();
    let mut pending = parts(path);
    let mut followed = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            real.pop();
            continue;
        }
        real.push(part);
        let target = match std::fs::read_link(Path::new("/").join(&real)) {
            Ok(target) => target,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => continue, // no link
            Err(error) => return Err(error),
        };
        followed += 1;
        if followed > LINKS_MAX {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        pending.extend(parts(&target));
        let link = real.clone();
        if target.is_absolute() {
            real.clear();
        } else {
            real.pop();
        }
        links.insert(link, target);
    }
    Ok(real)
}

/// Names and `..` of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(named).map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut links = BTreeMap::new();
        let base = real(directory.path(), &mut links).unwrap();
        links.clear();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("../a/b", directory.path().join("a/relative")).unwrap();
        std::os::unix::fs::symlink(directory.path().join("a"), directory.path().join("absolute"))
            .unwrap();
        std::os::unix::fs::symlink("loop", directory.path().join("loop")).unwrap();
        let found = real(&directory.path().join("absolute/relative"), &mut links).unwrap();
        assert_eq!(found, base.join("a/b"));
        assert_eq!(links[&base.join("a/relative")], Path::new("../a/b"));
        assert_eq!(links[&base.join("absolute")], directory.path().join("a"));
        assert_eq!(links.len(), 2);
        let error = real(&directory.path().join("loop"), &mut links).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        assert!(real(&directory.path().join("missing"), &mut links).is_err());
    }
}
