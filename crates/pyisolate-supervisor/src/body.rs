//! What a cell lives in: a process of its own, an interpreter in this one, or a virtual machine.

use std::collections::HashSet;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pyisolate_channel::GuestFds;

use crate::groups::Placement;
use crate::process::{Owner, Process};
use crate::resident::{MachineEnd, Resident};

/// Makes cells in sub-interpreters of this process. Implemented where CPython is linked, so that a
/// host without it can own the other cells.
pub trait Interpreters: fmt::Debug + Send + Sync {
    /// Starts a confined thread with an interpreter of its own, whose runtime says `Ready` on the
    /// channel. `on_end` is called once, from a thread of the host's, if the guest ended in another
    /// way than by itself.
    ///
    /// # Errors
    /// Why not, with what to do about it; nothing is left behind.
    fn start(&self, fds: GuestFds, on_end: OnEnd)
    -> Result<Box<dyn Interpreter>, InterpreterError>;

    /// Starts no more, and waits until the interpreters of guests that ended are taken apart, but for
    /// those that stay.
    fn close(&self, patience: Duration);
}

/// Is called when a guest could not say by itself that it ended.
pub type OnEnd = Box<dyn Fn() + Send + Sync>;

/// Why there is no sub-interpreter.
pub type InterpreterError = Box<dyn std::error::Error + Send + Sync>;

/// One guest in a sub-interpreter, seen from outside.
pub trait Interpreter: fmt::Debug + Send + Sync {
    /// Ends it, whatever it does. Returns at once.
    fn stop(&self);
    /// How it ended, if it did.
    fn ended(&self) -> Option<InterpreterEnd>;
    /// CPU time of its thread so far, in milliseconds.
    fn cpu_ms(&self) -> u64;
    /// Descriptors that it has open; `None` if that cannot be seen.
    fn open_files(&self) -> Option<u64>;
    /// Memory that its interpreter has, in bytes.
    fn memory_bytes(&self) -> u64;
}

/// How a guest in a sub-interpreter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterpreterEnd {
    /// Its runtime returned, or was made to.
    Stopped,
    /// Its runtime raised, or could not be made.
    Failed,
    /// It found no memory to go on with.
    OutOfMemory,
    /// The kernel ended its thread for a call that ends a process. Its interpreter stays.
    ThreadKilled,
    /// It could not be ended: its thread and its interpreter stay.
    Abandoned,
}

/// How a body ended, before it is known why.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// A process, with its wait status.
    Process(i32),
    Interpreter(InterpreterEnd),
    /// A machine, before its guest could tell.
    Machine(String),
}

/// What one cell lives in.
#[derive(Debug)]
pub(crate) enum Body {
    Process(Process),
    Interpreter(Tenant),
    Machine(Box<Resident>),
}

/// A guest in an interpreter of this process.
#[derive(Debug)]
pub(crate) struct Tenant {
    owner: Owner,
    interpreter: OnceLock<Box<dyn Interpreter>>,
    kill_wanted: AtomicBool,
}

impl Tenant {
    fn get(&self) -> Option<&dyn Interpreter> {
        // In a fork of this process there are the interpreters' memory and none of their threads.
        self.interpreter.get().filter(|_| self.owner.is_this()).map(AsRef::as_ref)
    }

    /// Gives it its interpreter, once.
    pub(crate) fn move_in(&self, interpreter: Box<dyn Interpreter>) {
        let first = self.interpreter.set(interpreter);
        debug_assert!(first.is_ok(), "a tenant moves in once");
        if self.kill_wanted.load(Ordering::SeqCst) {
            self.kill();
        }
    }

    /// Ends it, now or as soon as it has moved in.
    fn kill(&self) {
        self.kill_wanted.store(true, Ordering::SeqCst);
        if let Some(interpreter) = self.get() {
            interpreter.stop();
        }
    }
}

impl Body {
    pub(crate) fn process() -> Self {
        Self::Process(Process::new())
    }

    pub(crate) fn interpreter() -> Self {
        Self::Interpreter(Tenant {
            owner: Owner::this(),
            interpreter: OnceLock::new(),
            kill_wanted: AtomicBool::new(false),
        })
    }

    pub(crate) fn machine() -> Self {
        Self::Machine(Box::new(Resident::new()))
    }

    /// The process, if that is what it is.
    pub(crate) fn as_process(&self) -> Option<&Process> {
        match self {
            Self::Process(process) => Some(process),
            Self::Interpreter(_) | Self::Machine(_) => None,
        }
    }

    /// The machine, if that is what it is.
    pub(crate) fn as_machine(&self) -> Option<&Resident> {
        match self {
            Self::Machine(resident) => Some(resident),
            Self::Process(_) | Self::Interpreter(_) => None,
        }
    }

    /// How it stands to its control group, where it can have one.
    pub(crate) fn placement(&self) -> Option<&Placement> {
        match self {
            Self::Process(process) => Some(&process.placement),
            Self::Machine(resident) => Some(&resident.placement),
            Self::Interpreter(_) => None,
        }
    }

    fn as_interpreter(&self) -> Option<&dyn Interpreter> {
        match self {
            Self::Process(_) | Self::Machine(_) => None,
            Self::Interpreter(tenant) => tenant.get(),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        match self {
            Self::Process(process) => process.owner,
            Self::Interpreter(tenant) => tenant.owner,
            Self::Machine(resident) => resident.owner,
        }
    }

    /// Ends it. Returns at once.
    pub(crate) fn kill(&self) {
        match self {
            Self::Process(process) => process.kill(),
            Self::Interpreter(tenant) => tenant.kill(),
            Self::Machine(resident) => resident.kill(),
        }
    }

    /// Has it stand still, or go on, where it can.
    pub(crate) fn hold(&self, still: bool) {
        match (self, still) {
            (Self::Process(process), true) => process.stop(),
            (Self::Process(process), false) => process.resume(),
            (Self::Machine(resident), still) => resident.hold(still),
            (Self::Interpreter(_), _) => {}
        }
    }

    /// Whether it ended, which the supervisor may not have heard yet.
    pub(crate) fn has_exited(&self) -> bool {
        match self {
            Self::Process(process) => process.has_exited(),
            Self::Interpreter(tenant) => tenant.get().is_none_or(|it| it.ended().is_some()),
            Self::Machine(resident) => resident.has_exited(),
        }
    }

    /// Its end of the channel was closed, and what was in it read.
    pub(crate) fn channel_closed(&self) {
        match self {
            Self::Process(process) => process.channel_closed(),
            Self::Machine(resident) => resident.channel_closed(),
            Self::Interpreter(_) => {}
        }
    }

    /// How it ended, once nothing more can come of it.
    pub(crate) fn over(&self) -> Option<End> {
        match self {
            Self::Process(process) => process.over().map(End::Process),
            Self::Interpreter(tenant) => tenant.get()?.ended().map(End::Interpreter),
            Self::Machine(resident) => resident.over().map(|end| match end {
                MachineEnd::Process(status) => End::Process(status),
                MachineEnd::Lost(why) => End::Machine(why),
            }),
        }
    }

    /// Whether it is a template by now: a zygote, or a machine that is to stand still.
    pub(crate) fn is_handed_over(&self) -> bool {
        match self {
            Self::Process(process) => process.is_handed_over(),
            Self::Machine(resident) => resident.is_handed_over(),
            Self::Interpreter(_) => false,
        }
    }

    /// From now on it lives without its channel.
    pub(crate) fn hand_over(&self) {
        match self {
            Self::Process(process) => process.hand_over(),
            Self::Machine(resident) => resident.hand_over(),
            Self::Interpreter(_) => {}
        }
    }

    /// Nobody is left who could say how it ends.
    pub(crate) fn lost(&self) {
        match self {
            Self::Process(process) => process.lost(),
            Self::Machine(resident) => resident.lost(),
            Self::Interpreter(_) => {}
        }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        match self {
            Self::Process(process) => process.pid(),
            Self::Machine(resident) => resident.pid(),
            Self::Interpreter(_) => None,
        }
    }

    /// CPU time so far, in milliseconds; the last figure known once it ended.
    pub(crate) fn cpu_ms(&self) -> u64 {
        match self {
            Self::Process(process) => process.cpu_ms(),
            Self::Interpreter(tenant) => tenant.get().map_or(0, Interpreter::cpu_ms),
            Self::Machine(resident) => resident.cpu_ms(),
        }
    }

    /// Resident memory of a process, memory of an interpreter, what a machine does not share, in
    /// bytes; 0 once it ended.
    pub(crate) fn resident_bytes(&self) -> u64 {
        match self {
            Self::Process(process) => process.resident_bytes(),
            Self::Interpreter(_) => self.own_bytes(),
            Self::Machine(resident) => resident.monitor_bytes(),
        }
    }

    /// What it takes of the machine by itself, in bytes.
    pub(crate) fn own_bytes(&self) -> u64 {
        match self {
            Self::Process(process) => process.own_bytes(),
            Self::Interpreter(tenant) => {
                let alive = tenant.get().filter(|it| it.ended().is_none());
                alive.map_or(0, Interpreter::memory_bytes)
            }
            Self::Machine(resident) => resident.own_bytes(),
        }
    }

    /// The inodes of the sockets that it holds, where the kernel lets us look.
    pub(crate) fn socket_inodes(&self) -> Option<HashSet<u64>> {
        self.as_process()?.socket_inodes()
    }

    /// The kernel's resource limits of a process of its own.
    pub(crate) fn limits(&self) -> Option<String> {
        self.as_process()?.limits()
    }

    /// How many descriptors it has open, where the kernel keeps no limit for it.
    pub(crate) fn open_files(&self) -> u64 {
        self.as_interpreter().and_then(Interpreter::open_files).unwrap_or(0)
    }

    /// Whether its thread could not be ended, and stays in this process.
    pub(crate) fn is_abandoned(&self) -> bool {
        let stays = [InterpreterEnd::Abandoned, InterpreterEnd::ThreadKilled];
        let ended = self.as_interpreter().and_then(Interpreter::ended);
        ended.is_some_and(|ended| stays.contains(&ended))
    }
}
