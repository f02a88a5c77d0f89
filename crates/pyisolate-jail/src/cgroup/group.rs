//! The group of one cell: its limits, its member, and what the kernel says of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{CgroupError, Controller, Folder, Version, file_error, read, write};

/// The period in which CPU time is counted, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// The smallest share of a period that the kernel takes, in microseconds.
const CPU_QUOTA_LEAST_US: u64 = 1000;

/// What the kernel holds a whole cell to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// Memory of every kind that is charged to the cell, in bytes; nothing of it goes to swap.
    pub memory_bytes: u64,
    /// Threads, the first among them.
    pub threads: u64,
    /// CPU time a second, in thousandths of a core. `None`: all that there is.
    pub cpu_millicores: Option<u64>,
}

/// A group of its own, in one or more hierarchies.
#[derive(Debug)]
pub struct Group {
    pub(super) folders: Vec<Folder>,
}

impl Group {
    /// Whether it has that controller.
    #[must_use]
    pub fn has(&self, controller: Controller) -> bool {
        self.parts().any(|part| part.1 == controller)
    }

    /// Sets the limits, as far as there are controllers for them.
    ///
    /// # Errors
    /// When the kernel refuses a number.
    pub fn limit(&self, limits: &GroupLimits) -> Result<(), CgroupError> {
        let memory = limits.memory_bytes.to_string();
        for (folder, controller) in self.parts() {
            let set = |file: &str, text: &str| write(&folder.path.join(file), text);
            // Where the kernel counts no swap it has no such file.
            let set_if_there = |file: &str, text: &str| match set(file, text) {
                Err(CgroupError::File { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    Ok(())
                }
                other => other,
            };
            match (folder.version, controller) {
                (Version::Two, Controller::Memory) => {
                    set("memory.max", &memory)?;
                    set_if_there("memory.swap.max", "0")?;
                    set_if_there("memory.oom.group", "1")?;
                }
                (Version::One, Controller::Memory) => {
                    set("memory.limit_in_bytes", &memory)?;
                    set_if_there("memory.memsw.limit_in_bytes", &memory)?;
                }
                (_, Controller::Pids) => set("pids.max", &limits.threads.to_string())?,
                (version, Controller::Cpu) => {
                    let Some(millicores) = limits.cpu_millicores else { continue };
                    let quota = (millicores * CPU_PERIOD_US / 1000).max(CPU_QUOTA_LEAST_US);
                    match version {
                        Version::Two => set("cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?,
                        Version::One => set("cpu.cfs_quota_us", &quota.to_string())?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves a process into the group. The kernel takes some ten milliseconds where no other process
    /// was moved just before.
    ///
    /// # Errors
    /// When the kernel refuses, or afterwards says that the process is somewhere else.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        for folder in &self.folders {
            write(&folder.path.join("cgroup.procs"), &pid.to_string())?;
        }
        let pid = pid.to_string();
        for folder in &self.folders {
            let path = folder.path.join("cgroup.procs");
            if !read(&path)?.lines().any(|member| member == pid) {
                let source = std::io::Error::other("the process is not in its group");
                return Err(file_error("read", &path)(source));
            }
        }
        Ok(())
    }

    /// The processes in it, by their numbers.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn members(&self) -> Result<Vec<i32>, CgroupError> {
        let Some(folder) = self.folders.first() else { return Ok(Vec::new()) };
        let text = read(&folder.path.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Its folders, one in each hierarchy.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        self.folders.iter().map(|folder| folder.path.as_path()).collect()
    }

    /// The limits that the kernel has, in words.
    ///
    /// # Errors
    /// When they cannot be read back.
    pub fn describe(&self) -> Result<String, CgroupError> {
        let mut parts = Vec::new();
        for (folder, controller) in self.parts() {
            let get = |file: &str| -> Result<String, CgroupError> {
                Ok(read(&folder.path.join(file))?.trim().to_owned())
            };
            let version = match folder.version {
                Version::One => "version 1",
                Version::Two => "version 2",
            };
            let text = match (folder.version, controller) {
                (Version::Two, Controller::Memory) => format!("memory {}", get("memory.max")?),
                (Version::One, Controller::Memory) => {
                    format!("memory {}", get("memory.limit_in_bytes")?)
                }
                (_, Controller::Pids) => format!("pids {}", get("pids.max")?),
                (Version::Two, Controller::Cpu) => format!("cpu {}", get("cpu.max")?),
                (Version::One, Controller::Cpu) => {
                    let quota = get("cpu.cfs_quota_us")?;
                    let quota = if quota == "-1" { "max" } else { &quota };
                    format!("cpu {quota} {}", get("cpu.cfs_period_us")?)
                }
            };
            parts.push(format!("{text} ({version})"));
        }
        Ok(parts.join(", "))
    }

    /// Whether the kernel killed in this group for want of memory.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        let text = self.file(Controller::Memory, "memory.oom_control", "memory.events");
        text.and_then(|text| value(&text, "oom_kill ")).is_some_and(|kills| kills > 0)
    }

    /// The most memory that was charged to it at a time, in bytes, where the kernel keeps it.
    #[must_use]
    pub fn memory_peak_bytes(&self) -> Option<u64> {
        let text = self.file(Controller::Memory, "memory.max_usage_in_bytes", "memory.peak");
        text?.trim().parse().ok()
    }

    /// For how long its threads, each counted by itself, were held to the share of CPU time.
    #[must_use]
    pub fn throttled(&self) -> Duration {
        let Some(text) = self.file(Controller::Cpu, "cpu.stat", "cpu.stat") else {
            return Duration::ZERO;
        };
        // Version 1 counts in nanoseconds.
        let one = value(&text, "throttled_time ").map(Duration::from_nanos);
        one.or_else(|| value(&text, "throttled_usec ").map(Duration::from_micros))
            .unwrap_or_default()
    }

    /// Removes it, once it has no process. False: its last one is still being taken down, which can
    /// take a moment longer than its end is known; try again.
    pub fn remove(&self) -> bool {
        let mut gone = true;
        for folder in &self.folders {
            if let Err(error) = fs::remove_dir(&folder.path) {
                gone &= error.kind() == std::io::ErrorKind::NotFound;
            }
        }
        gone
    }

    fn parts(&self) -> impl Iterator<Item = (&Folder, Controller)> {
        self.folders
            .iter()
            .flat_map(|folder| folder.controllers.iter().map(move |it| (folder, *it)))
    }

    /// What a controller's file says, by its name in each version.
    fn file(&self, controller: Controller, one: &str, two: &str) -> Option<String> {
        let (folder, _) = self.parts().find(|part| part.1 == controller)?;
        let name = match folder.version {
            Version::One => one,
            Version::Two => two,
        };
        read(&folder.path.join(name)).ok()
    }
}

/// The number behind a name in a file of names and numbers.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}
