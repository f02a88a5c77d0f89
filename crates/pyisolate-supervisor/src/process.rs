//! A cell's process, seen from outside: kill it, and read what it used.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use pyisolate_jail::LayerName;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::time::Timespec;

use crate::cell::lock;
use crate::groups::Placement;

/// What is known of the process so far.
#[derive(Debug, Default)]
struct Handle {
    pidfd: Option<OwnedFd>,
    kill_wanted: bool,
    status: Option<i32>,
    channel_closed: bool,
    handed_over: bool,
}

/// The process that made a cell, a zygote or a supervisor. A fork of it has copies of all of them,
/// none of which it may end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner(u32);

impl Owner {
    pub(crate) fn this() -> Self {
        Self(std::process::id())
    }

    pub(crate) fn is_this(self) -> bool {
        self.0 == std::process::id()
    }
}

/// The process of one cell or template.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) owner: Owner,
    handle: Mutex<Handle>,
    born: Condvar,
    /// In the host's pid namespace; 0 while unknown.
    pid: AtomicI32,
    cpu_ms: AtomicU64,
    pub(crate) placement: Placement,
}

/// What `/proc` shows of a process, to hold against what it says of itself.
#[derive(Debug)]
pub(crate) struct ProcStatus {
    pub(crate) no_new_privileges: bool,
    pub(crate) filtered: bool,
    pub(crate) without_capabilities: bool,
    pub(crate) without_bounding_set: bool,
    /// Whether each namespace is another than ours; empty where we may not look.
    pub(crate) namespaces: Vec<(LayerName, bool)>,
}

impl Process {
    pub(crate) fn new() -> Self {
        Self {
            owner: Owner::this(),
            handle: Mutex::default(),
            born: Condvar::new(),
            pid: AtomicI32::new(0),
            cpu_ms: AtomicU64::new(0),
            placement: Placement::default(),
        }
    }

    /// Waits until the zygote's word that it forked it is here; false if it never came.
    pub(crate) fn wait_until_born(&self, patience: Duration) -> bool {
        let handle = lock(&self.handle);
        let unborn = |handle: &mut Handle| handle.pidfd.is_none() && handle.status.is_none();
        let waited = self.born.wait_timeout_while(handle, patience, unborn);
        waited.unwrap_or_else(PoisonError::into_inner).0.pidfd.is_some()
    }

    /// The zygote forked it. A kill that was asked for before is done now.
    pub(crate) fn born(&self, pidfd: OwnedFd) {
        let mut handle = lock(&self.handle);
        handle.pidfd = Some(pidfd);
        self.born.notify_all();
        if handle.kill_wanted {
            drop(handle);
            self.kill();
        }
    }

    /// Kills it, now or as soon as it is born.
    pub(crate) fn kill(&self) {
        if !self.owner.is_this() {
            return;
        }
        lock(&self.handle).kill_wanted = true;
        self.signal(Signal::KILL);
    }

    /// Has it stand still, all threads of it, until it may go on.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pidfd) = lock(&self.handle).pidfd.as_ref().filter(|_| self.owner.is_this()) {
            // It fails only if the process is gone already.
            let _ = pidfd_send_signal(pidfd, signal);
        }
    }

    /// The zygote reaped it.
    pub(crate) fn ended(&self, status: i32, cpu_ms: u64) {
        self.cpu_ms.fetch_max(cpu_ms, Ordering::Relaxed);
        lock(&self.handle).status = Some(status);
        self.born.notify_all();
    }

    /// Nobody is left who could say how it ends: it is as good as killed.
    pub(crate) fn lost(&self) {
        lock(&self.handle).status.get_or_insert(Signal::KILL.as_raw());
        self.born.notify_all();
    }

    /// Whether the kernel says that it ended, which the supervisor may not have heard yet.
    pub(crate) fn has_exited(&self) -> bool {
        let handle = lock(&self.handle);
        let Some(pidfd) = &handle.pidfd else { return handle.status.is_some() };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(1))
    }

    /// From now on it lives without its channel, as a template's zygote.
    pub(crate) fn hand_over(&self) {
        lock(&self.handle).handed_over = true;
    }

    /// Whether it is a template's zygote by now.
    pub(crate) fn is_handed_over(&self) -> bool {
        lock(&self.handle).handed_over
    }

    /// Its end of the channel was closed, and what was in it read.
    pub(crate) fn channel_closed(&self) {
        lock(&self.handle).channel_closed = true;
    }

    /// How it ended, as `wait` gives it, once nothing more can come of it.
    pub(crate) fn over(&self) -> Option<i32> {
        let handle = lock(&self.handle);
        handle.status.filter(|_| handle.channel_closed)
    }

    /// Its number in the host's pid namespace, while it lives.
    pub(crate) fn pid(&self) -> Option<i32> {
        let handle = lock(&self.handle);
        if handle.status.is_some() {
            return None; // the number may be another process's by now
        }
        let known = self.pid.load(Ordering::Relaxed);
        if known != 0 {
            return Some(known);
        }
        let fd = handle.pidfd.as_ref()?.as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        let pid = field(&info, "Pid:")?.parse().ok().filter(|pid| *pid > 0)?;
        self.pid.store(pid, Ordering::Relaxed);
        Some(pid)
    }

    /// CPU time so far, in milliseconds; the last figure known once it ended.
    pub(crate) fn cpu_ms(&self) -> u64 {
        if let Some(pid) = self.pid()
            && let Ok(text) = fs::read_to_string(format!("/proc/{pid}/schedstat"))
            // The main thread's own figure; with several threads the group's, below.
            && let Some(nanoseconds) = text.split(' ').next().and_then(|it| it.parse::<u64>().ok())
        {
            let milliseconds = group_cpu_ms(pid).unwrap_or(0).max(nanoseconds / 1_000_000);
            self.cpu_ms.fetch_max(milliseconds, Ordering::Relaxed);
        }
        self.cpu_ms.load(Ordering::Relaxed)
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let kib = self.status_field("VmRSS:");
        kib.and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// What it takes of the machine by itself, in bytes: private and shared memory that is resident,
    /// and page tables; not the files that it maps.
    pub(crate) fn own_bytes(&self) -> u64 {
        let Some(pid) = self.pid() else { return 0 };
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
        let kib = |name| {
            let text = field(&text, name)?.trim_end_matches(" kB");
            text.parse::<u64>().ok()
        };
        1024 * ["RssAnon:", "RssShmem:", "VmPTE:"].into_iter().filter_map(kib).sum::<u64>()
    }

    /// The inodes of the sockets that it holds. `None` where the kernel does not let us look: a cell
    /// is not dumpable, and only root may see the descriptors of such a process.
    pub(crate) fn socket_inodes(&self) -> Option<HashSet<u64>> {
        let mut inodes = HashSet::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid()?)).ok()? {
            let target = fs::read_link(entry.ok()?.path()).ok()?;
            let inode = target.to_str().and_then(|it| it.strip_prefix("socket:["));
            inodes.extend(inode.and_then(|it| it.strip_suffix(']')?.parse::<u64>().ok()));
        }
        Some(inodes)
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> Option<u64> {
        self.status_field("Threads:")?.parse().ok()
    }

    /// The kernel's resource limits of the process, `name=soft` each.
    pub(crate) fn limits(&self) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/limits", self.pid()?)).ok()?;
        let limits = text.lines().skip(1).filter_map(|line| {
            // Columns of fixed width: 26 for the name, 21 for the soft limit.
            let (name, rest) = line.split_at_checked(26)?;
            let soft = rest.split_ascii_whitespace().next()?;
            let name = name.trim().trim_start_matches("Max ").replace(' ', "-");
            (soft != "unlimited").then(|| format!("{name}={soft}"))
        });
        Some(limits.collect::<Vec<_>>().join(" "))
    }

    /// What the kernel shows of its confinement. `None` if it shows nothing, as of a process that
    /// ended.
    pub(crate) fn proc_status(&self) -> Option<ProcStatus> {
        let pid = self.pid()?;
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let is = |name, value: &str| field(&text, name) == Some(value);
        let is_zero = |name| field(&text, name).is_some_and(|it| it.bytes().all(|it| it == b'0'));
        let namespaces = [
            (LayerName::UserNamespace, "user"),
            (LayerName::PidNamespace, "pid"),
            (LayerName::MountNamespace, "mnt"),
            (LayerName::IpcNamespace, "ipc"),
            (LayerName::UtsNamespace, "uts"),
            (LayerName::NetworkNamespace, "net"),
        ];
        let differs = |kind: &str| {
            let its = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
            let ours = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
            Some(its != ours)
        };
        Some(ProcStatus {
            no_new_privileges: is("NoNewPrivs:", "1"),
            filtered: is("Seccomp:", "2"),
            without_capabilities: ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"]
                .into_iter()
                .all(is_zero),
            without_bounding_set: is_zero("CapBnd:"),
            namespaces: namespaces
                .into_iter()
                .filter_map(|(name, kind)| Some((name, differs(kind)?)))
                .collect(),
        })
    }

    fn status_field(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        field(&text, name).map(str::to_owned)
    }
}

pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// User and system time of all threads, ended ones included, in milliseconds.
pub(crate) fn group_cpu_ms(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1000 / rustix::param::clock_ticks_per_second())
}
