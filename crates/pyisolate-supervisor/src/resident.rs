//! A cell's virtual machine, seen from the supervisor: kill it, and read what it used.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pyisolate_microvm::Machine;
use rustix::process::Signal;

use crate::cell::lock;
use crate::groups::Placement;
use crate::process::{Owner, field, group_cpu_ms};

/// How a machine's guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MachineEnd {
    /// Its first process told the wait status of the cell's.
    Process(i32),
    /// The machine ended before it could tell.
    Lost(String),
}

/// A guest in a virtual machine.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) owner: Owner,
    pub(crate) placement: Placement,
    machine: OnceLock<Machine>,
    kill_wanted: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    cpu_ms: AtomicU64,
    /// What its monitor had used and held when the guest was ready, which is not the guest's.
    before_cpu_ms: AtomicU64,
    before_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    ended: Option<MachineEnd>,
    channel_closed: bool,
    /// It is to become a snapshot, once it stands still.
    handed_over: bool,
    stands_still: bool,
}

impl Resident {
    pub(crate) fn new() -> Self {
        Self {
            owner: Owner::this(),
            placement: Placement::default(),
            machine: OnceLock::new(),
            kill_wanted: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
            cpu_ms: AtomicU64::new(0),
            before_cpu_ms: AtomicU64::new(0),
            before_bytes: AtomicU64::new(0),
        }
    }

    /// Its machine, in the process that started it.
    pub(crate) fn machine(&self) -> Option<&Machine> {
        self.machine.get().filter(|_| self.owner.is_this())
    }

    /// Gives it its machine, once.
    pub(crate) fn move_in(&self, machine: Machine) {
        let first = self.machine.set(machine);
        debug_assert!(first.is_ok(), "a machine is moved into once");
        if self.kill_wanted.load(Ordering::SeqCst) {
            self.kill();
        }
    }

    /// The guest is ready: what was used so far is not its own.
    pub(crate) fn ready(&self) {
        self.before_bytes.store(self.monitor_bytes(), Ordering::Relaxed);
        if let Some(used) = self.pid().and_then(group_cpu_ms) {
            self.before_cpu_ms.store(used, Ordering::Relaxed);
        }
    }

    /// Ends it, now or as soon as it has a machine.
    pub(crate) fn kill(&self) {
        self.kill_wanted.store(true, Ordering::SeqCst);
        if let Some(machine) = self.machine() {
            machine.kill();
        }
    }

    /// Has it stand still, or go on.
    pub(crate) fn hold(&self, still: bool) {
        if let Some(machine) = self.machine() {
            machine.hold(still);
        }
    }

    /// It is to become a snapshot.
    pub(crate) fn hand_over(&self) {
        lock(&self.state).handed_over = true;
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        let state = lock(&self.state);
        state.handed_over && state.ended.is_none()
    }

    /// It did what it was to do before its snapshot.
    pub(crate) fn stands_still(&self) {
        lock(&self.state).stands_still = true;
        self.changed.notify_all();
    }

    /// Waits until it stands still; false if it ended, or does not within `patience`.
    pub(crate) fn await_standstill(&self, patience: Duration) -> bool {
        let state = lock(&self.state);
        let waits = |state: &mut State| !state.stands_still && state.ended.is_none();
        let waited = self.changed.wait_timeout_while(state, patience, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0.stands_still
    }

    /// How it ended is known.
    pub(crate) fn ended(&self, end: MachineEnd, cpu_ms: u64) {
        self.cpu_ms.fetch_max(cpu_ms, Ordering::Relaxed);
        lock(&self.state).ended.get_or_insert(end);
        self.changed.notify_all();
    }

    /// Nobody is left who could say how it ends: it is as good as killed.
    pub(crate) fn lost(&self) {
        self.ended(MachineEnd::Process(Signal::KILL.as_raw()), 0);
    }

    pub(crate) fn has_exited(&self) -> bool {
        lock(&self.state).ended.is_some() || self.machine().is_some_and(Machine::has_exited)
    }

    pub(crate) fn channel_closed(&self) {
        lock(&self.state).channel_closed = true;
    }

    /// How it ended, once nothing more can come of it.
    pub(crate) fn over(&self) -> Option<MachineEnd> {
        let state = lock(&self.state);
        state.ended.clone().filter(|_| state.channel_closed)
    }

    /// The number of its monitor's process, while it lives.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.machine()?.pid()
    }

    /// CPU time of its monitor since the guest was ready, in milliseconds.
    pub(crate) fn cpu_ms(&self) -> u64 {
        if let Some(used) = self.pid().and_then(group_cpu_ms) {
            let before = self.before_cpu_ms.load(Ordering::Relaxed);
            self.cpu_ms.fetch_max(used.saturating_sub(before), Ordering::Relaxed);
        }
        self.cpu_ms.load(Ordering::Relaxed)
    }

    /// What its monitor holds by itself, in bytes: the memory that the guest wrote to, among it.
    pub(crate) fn monitor_bytes(&self) -> u64 {
        let text =
            self.pid().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let kib = |text: &str| {
            let text = field(text, "RssAnon:")?.trim_end_matches(" kB");
            text.parse::<u64>().ok()
        };
        text.as_deref().and_then(kib).unwrap_or(0) * 1024
    }

    /// What of that came since the guest was ready.
    pub(crate) fn own_bytes(&self) -> u64 {
        self.monitor_bytes().saturating_sub(self.before_bytes.load(Ordering::Relaxed))
    }
}
