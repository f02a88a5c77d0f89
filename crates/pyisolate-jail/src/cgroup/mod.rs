//! Control groups: one for each cell, below one that the host process makes for itself.
//!
//! Version 2 of the interface is used for every controller that the host's own group, or the group
//! above it, hands on; version 1 for those that are mounted there. Nothing is moved but cells, no
//! group of others is written to but to hand a controller on, and what cannot be had is an error
//! that says why.
//!
//! A few small files are written and read; the crates that wrap them bring D-Bus or a device model
//! along and do not say which write failed.

mod find;
mod group;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use find::{Place, places};
pub use group::{Group, GroupLimits};

/// What every folder of ours is called, before the numbers.
const PREFIX: &str = "pyisolate-";

/// Why there is no group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// No hierarchy is mounted that has a controller for memory or processes.
    #[error("no control group with a memory or pids controller is mounted")]
    Nothing,
    /// Hierarchies are there, and none of them can be used.
    #[error("{0}")]
    Refused(String),
    /// A file or folder of the interface.
    #[error("cannot {what} {path:?}: {source}")]
    File {
        /// `read`, `write`, `make` and the like.
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a group can bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Memory, the kernel's own for the cell among it.
    Memory,
    /// Threads and processes.
    Pids,
    /// CPU time in a period.
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// The kernel's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// The interface's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// One folder of ours in a hierarchy, with the controllers that it has there.
#[derive(Clone, Debug)]
struct Folder {
    version: Version,
    path: PathBuf,
    controllers: Vec<Controller>,
}

/// The groups of a host process. Dropping it removes them, unless a process is left in one.
#[derive(Debug)]
pub struct Cgroups {
    folders: Vec<Folder>,
}

impl Cgroups {
    /// Makes a group for the calling process's cells in every hierarchy that is needed, and removes
    /// what processes that ended left behind.
    ///
    /// # Errors
    /// When no controller for memory or processes can be had; the message says what was tried.
    pub fn prepare() -> Result<Self, CgroupError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let namespace = pid_namespace()?;
        let name = format!(
            "{PREFIX}{namespace}-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut wanted = Controller::ALL.to_vec();
        let mut refused = Vec::new();
        let mut groups = Self { folders: Vec::new() };
        for place in places(&wanted)? {
            if !place.controllers.iter().any(|it| wanted.contains(it)) {
                continue;
            }
            sweep(&place.path, &namespace);
            match make(&place, &name, &wanted) {
                Ok(folder) => {
                    wanted.retain(|controller| !folder.controllers.contains(controller));
                    groups.folders.push(folder);
                }
                Err(error) => refused.push(error.to_string()),
            }
        }
        match groups.folders.iter().any(|folder| folder.controllers != [Controller::Cpu]) {
            true => Ok(groups),
            false if refused.is_empty() => Err(CgroupError::Nothing),
            false => Err(CgroupError::Refused(refused.join("; "))),
        }
    }

    /// Makes the group of the cell of that number.
    ///
    /// # Errors
    /// When the kernel refuses a folder. No part of the group is left.
    pub fn group(&self, number: u32) -> Result<Group, CgroupError> {
        let mut group = Group { folders: Vec::new() };
        for folder in &self.folders {
            let path = folder.path.join(number.to_string());
            if let Err(error) = fs::create_dir(&path).map_err(file_error("make", &path)) {
                group.remove();
                return Err(error);
            }
            group.folders.push(Folder { path, ..folder.clone() });
        }
        Ok(group)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.folders {
            remove_with_groups(&folder.path);
        }
    }
}

fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::File { what, path, source }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(file_error("read", path))
}

fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    let written = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(file_error("write", path))
}

/// Makes our folder in a place, with those of its controllers that are wanted.
fn make(place: &Place, name: &str, wanted: &[Controller]) -> Result<Folder, CgroupError> {
    let path = place.path.join(name);
    let controllers = place.controllers.iter().copied().filter(|it| wanted.contains(it));
    let folder = Folder { version: place.version, path, controllers: controllers.collect() };
    if folder.version == Version::Two {
        // Whoever may not move processes here could make groups that nothing can enter.
        let members = place.path.join("cgroup.procs");
        rustix::fs::access(&members, rustix::fs::Access::WRITE_OK)
            .map_err(|errno| file_error("write", &members)(errno.into()))?;
        hand_on(&place.path, &folder.controllers)?;
    }
    fs::create_dir(&folder.path).map_err(file_error("make a group in", &place.path))?;
    if folder.version == Version::Two
        && let Err(error) = hand_on(&folder.path, &folder.controllers)
    {
        remove_with_groups(&folder.path);
        return Err(error);
    }
    Ok(folder)
}

/// Has the groups below a group of version 2 get controllers, unless they do already.
fn hand_on(group: &Path, controllers: &[Controller]) -> Result<(), CgroupError> {
    let path = group.join("cgroup.subtree_control");
    let handed_on = read(&path)?;
    for controller in controllers {
        if !handed_on.split_ascii_whitespace().any(|it| it == controller.as_str()) {
            write(&path, &format!("+{}", controller.as_str()))?;
        }
    }
    Ok(())
}

fn pid_namespace() -> Result<String, CgroupError> {
    let path = Path::new("/proc/self/ns/pid");
    let link = fs::read_link(path).map_err(file_error("read", path))?;
    Ok(link.to_string_lossy().chars().filter(char::is_ascii_digit).collect())
}

/// Removes the folders of processes that ended without doing so. What is still in use stays: the
/// kernel removes no group that has a process.
fn sweep(place: &Path, namespace: &str) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(owner) = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.strip_prefix(namespace))
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if !Path::new("/proc").join(owner).exists() {
            remove_with_groups(&entry.path());
        }
    }
}

fn remove_with_groups(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // The interface's own files are no folders and stay until the group goes.
        let _ = fs::remove_dir(entry.path());
    }
    let _ = fs::remove_dir(folder);
}
