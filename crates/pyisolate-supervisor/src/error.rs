//! What can go wrong, and what is still alive afterwards.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use pyisolate_abi::frame::FrameError;
use pyisolate_abi::pickle::DecodeError;
use pyisolate_broker::journal::WriteError;
use pyisolate_channel::ChannelError;
use pyisolate_channel::control::ControlError;
use pyisolate_jail::{Layer, RootError};
use pyisolate_microvm::VmmError;
use pyisolate_microvm::image::ImageError;
use pyisolate_policy::{CellName, LimitError, LimitName};
use thiserror::Error;

use crate::body::InterpreterEnd;
use crate::environment::EnvironmentError;
use crate::require::Requirement;

/// Why a cell is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Death {
    /// It was closed and ended by itself.
    Closed,
    /// The host killed it.
    Killed,
    /// It used up a limit.
    Limit {
        /// Which one.
        limit: LimitName,
        /// The limit, in its unit.
        allowed: u64,
        /// What was reached when the supervisor looked, in the same unit; `None` where the kernel
        /// refused the excess before it could be counted.
        reached: Option<u64>,
    },
    /// It sent something that no cell sends.
    Violation(String),
    /// The host could not take what it sent, for want of memory or of something else that the kernel
    /// refused.
    Unserved(String),
    /// It ended itself with this exit status.
    Exit(i32),
    /// A signal that the host did not send ended it.
    Signal(i32),
    /// Its process could not be made or confined.
    Unborn(String),
    /// The process that it was forked from ended, and it with that.
    Orphaned(String),
    /// Its interpreter in this process ended by itself.
    Interpreter(InterpreterEnd),
    /// Its virtual machine ended by itself, or could not go on.
    Machine(String),
}

impl fmt::Display for Death {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => out.write_str("the cell is closed"),
            Self::Killed => out.write_str("the cell was killed by the host"),
            Self::Limit { limit, allowed, reached: Some(reached) } => {
                write!(out, "the cell reached {reached} of {limit}={allowed}; raise it in spawn()")
            }
            Self::Limit { limit, allowed, reached: None } => {
                write!(out, "the cell went over {limit}={allowed}; raise it in spawn()")
            }
            Self::Violation(what) => write!(out, "the cell broke the contract: {what}"),
            Self::Unserved(why) => write!(
                out,
                "the cell was ended because the host could not go on with it: {why}; see what the \
                 host lacks, and spawn another"
            ),
            Self::Exit(status) => write!(out, "the cell ended itself with exit status {status}"),
            Self::Signal(signal) => write!(
                out,
                "the cell was ended by signal {signal} ({}); see its last log events",
                signal_meaning(*signal)
            ),
            Self::Unborn(why) => write!(out, "the cell could not be made: {why}"),
            Self::Orphaned(why) => write!(out, "the cell's zygote ended: {why}"),
            Self::Interpreter(InterpreterEnd::ThreadKilled) => out.write_str(
                "the cell ended its thread by a call that ends a process (os._exit, abort); its \
                 interpreter's memory stays until this process ends",
            ),
            Self::Interpreter(_) => out.write_str("the cell's interpreter ended by itself"),
            Self::Machine(why) => write!(out, "the cell's virtual machine ended: {why}"),
        }
    }
}

fn signal_meaning(signal: i32) -> &'static str {
    match signal {
        4 => "illegal instruction",
        6 => "abort",
        7 => "bus error",
        8 => "arithmetic fault",
        9 => "kill, perhaps for want of memory",
        11 => "segmentation fault",
        31 => "system call that the jail kills for",
        _ => "see signal(7)",
    }
}

/// An exception of guest code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFailure {
    /// The exception's type, with its module unless that is `builtins`.
    pub kind: String,
    /// `str(exception)`
    pub message: String,
    /// The formatted traceback, guest frames only; empty where there is none.
    pub traceback: String,
}

impl fmt::Display for GuestFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for GuestFailure {}

/// Why an operation on a cell failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CellError {
    /// Guest code raised.
    #[error("{0}")]
    Guest(#[from] GuestFailure),
    /// Nothing came in time.
    #[error("{operation} took over {} s; the cell goes on", .after.as_secs_f64())]
    TimedOut {
        /// Which operation.
        operation: &'static str,
        /// The timeout that was given.
        after: Duration,
    },
    /// The channel is full: the guest does not take what it is sent.
    #[error("the cell took no message for {} s: its channel is full", .after.as_secs_f64())]
    Full {
        /// How long the host waited.
        after: Duration,
    },
    /// The result waits behind messages that nobody takes.
    #[error(
        "the result waits behind {messages} messages of {unread_bytes} bytes that nobody takes: \
         recv() them, or raise {limit} in spawn()"
    )]
    Clogged {
        /// How many were sent and not received.
        messages: usize,
        /// What was sent and not received, in bytes.
        unread_bytes: u64,
        /// The limit that they reached.
        limit: LimitName,
    },
    /// The caller stopped waiting.
    #[error("{0} was interrupted")]
    Interrupted(&'static str),
    /// The cell belongs to the process that this one was forked from, which goes on using it.
    #[error(
        "this process was forked from the one that owns the cell: make a Supervisor of its own"
    )]
    Forked,
    /// The cell is gone.
    #[error("{0}")]
    Dead(Death),
    /// A call's target is no `module.func`.
    #[error("call target '{0}' must include a module path (e.g. 'module.func')")]
    Target(String),
    /// A name is too long to cross.
    #[error("{what} is over {limit} bytes")]
    TooLong {
        /// What.
        what: &'static str,
        /// The cap, in bytes.
        limit: usize,
    },
    /// A message is larger than the cell's limit.
    #[error("message of {bytes} bytes is over message_bytes_max={limit}; raise it in spawn()")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A large message could not be laid down.
    #[error("a shared buffer for the message failed: {0}")]
    Buffer(#[source] ChannelError),
    /// The journal is required and cannot be written.
    #[error("nothing goes on without the journal: {0}")]
    Journal(#[source] WriteError),
    /// The host is out of descriptors.
    #[error("no descriptor for a large message: {0}; raise `ulimit -n`")]
    Descriptor(#[source] std::io::Error),
}

impl CellError {
    /// Whether the cell still serves after this error.
    #[must_use]
    pub fn cell_survives(&self) -> bool {
        match self {
            Self::Dead(_) => false,
            Self::Guest(_)
            | Self::TimedOut { .. }
            | Self::Full { .. }
            | Self::Clogged { .. }
            | Self::Interrupted(_)
            | Self::Forked
            | Self::Target(_)
            | Self::TooLong { .. }
            | Self::TooLarge { .. }
            | Self::Buffer(_)
            | Self::Journal(_)
            | Self::Descriptor(_) => true,
        }
    }
}

/// Why there is no new cell or template. No process is left behind.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A live cell has that name.
    #[error("a cell named {0} is alive: close it, or choose another name")]
    Duplicate(CellName),
    /// A limit makes no sense.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// No interpreter.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// No channel.
    #[error("no channel for the cell: {0}")]
    Channel(#[from] ChannelError),
    /// The control socket.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// The launcher could not be started.
    #[error("cannot start the launcher: {0}")]
    Launcher(#[source] std::io::Error),
    /// The host hides the call by which cells are ended.
    #[error(
        "process: cells could not be ended here, since pidfd_send_signal is refused ({0}): let the \
         container's seccomp profile pass it, or use the sub-interpreter backend"
    )]
    Unkillable(#[source] std::io::Error),
    /// The supervisor's own thread could not be started, or its event queue failed.
    #[error("{call} of the supervisor failed: {source}")]
    Monitor {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The process ended before it was a cell.
    #[error("{0}")]
    Unborn(Death),
    /// There are no scratch files to be had.
    #[error(
        "no scratch files: {error}: {}; they need CAP_SYS_ADMIN: run the host as root, or grant a \
         folder of its own instead of scratch_bytes",
        .error.source().map(ToString::to_string).unwrap_or_default()
    )]
    Scratch {
        /// Which call failed.
        #[source]
        error: RootError,
    },
    /// Layers that were required do not hold.
    #[error("{}", required(.require, .lacking))]
    Confinement {
        /// What was required.
        require: Requirement,
        /// The layers, with why each does not hold.
        lacking: Vec<Layer>,
    },
    /// The process did not become a cell in time.
    #[error("the cell was not ready after {} s", .0.as_secs_f64())]
    Slow(Duration),
    /// No sub-interpreter could be made.
    #[error("cannot make a sub-interpreter cell: {0}")]
    Interpreter(#[source] crate::body::InterpreterError),
    /// The supervisor was made without the means to make sub-interpreters.
    #[error("this program cannot make sub-interpreter cells: use the process backend, or Python")]
    NoInterpreters,
    /// A template was given for another backend than its own.
    #[error(
        "the template's cells are of backend={0:?}, not of {1:?}: leave `template` out, or make one \
         with backend={1:?}"
    )]
    TemplateOfAnother(&'static str, &'static str),
    /// There is nothing to make templates of.
    #[error("a sub-interpreter starts anew each time: make the template with another backend")]
    NoTemplates,
    /// No machine could be made.
    #[error(transparent)]
    Machine(#[from] VmmError),
    /// No image to make machines of.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// KVM does not work here, and nothing else was asked for.
    #[error(
        "microvm: no hardware virtualisation here ({0}); see docs/microvm.md to set up KVM, or ask for \
         emulation by name, which is no hardware boundary: accel=\"tcg\", or \
         PYISOLATE_MICROVM_ACCEL=tcg"
    )]
    NoAccelerator(String),
    /// An accelerator that there is not.
    #[error("PYISOLATE_MICROVM_ACCEL={0:?} is neither \"kvm\" nor \"tcg\"")]
    AcceleratorName(String),
    /// The image was built with another build of this.
    #[error("the image {0} holds another build of the guest runtime: run `pyisolate image build`")]
    StaleImage(String),
    /// A limit that the machine itself cannot give.
    #[error(
        "mem_bytes={wanted} is over what a machine of {machine} bytes leaves to its cell, {left}: \
         lower it, or raise PYISOLATE_MICROVM_MEMORY"
    )]
    MachineTooSmall {
        /// What was asked for, in bytes.
        wanted: u64,
        /// The machine's memory, in bytes.
        machine: u64,
        /// What is left of it, in bytes.
        left: u64,
    },
    /// A limit was given that only a process can be held to.
    #[error("{0} holds for process cells alone: leave it out, or use the process backend")]
    LimitOfProcess(LimitName),
    /// The supervisor belongs to the process that this one was forked from.
    #[error(
        "this process was forked from the one that owns the supervisor: make a Supervisor of its \
         own, or call shutdown() first"
    )]
    Forked,
    /// The supervisor was shut down.
    #[error("the supervisor is shut down")]
    ShutDown,
    /// The template's process ended.
    #[error("the template is gone: {0}; make it anew")]
    TemplateGone(String),
    /// The template's set-up raised, or took too long.
    #[error("the template's set-up failed: {0}")]
    Setup(#[source] CellError),
    /// The template's set-up left threads running, which no cell would have.
    #[error("the template's set-up left {0} threads running; a fork keeps one: end the others")]
    SetupThreads(u64),
}

/// What lacks, why, and how to get it.
fn required(require: &Requirement, lacking: &[Layer]) -> String {
    let mut text = format!("no cell: require={require} asks for what does not hold here");
    for Layer { name, status, detail } in lacking {
        text.push_str(&format!("\n  {name} is {status}: {detail}"));
        if let Some(remedy) = name.remedy() {
            text.push_str(&format!("\n    to have it: {remedy}"));
        }
    }
    text.push_str("\n  or ask for less with require=; `pyisolate doctor` shows what there is");
    text
}

impl SpawnError {
    /// Whether something outside killed what was being made, so that another try may succeed.
    pub(crate) fn is_of_a_kill(&self) -> bool {
        match self {
            Self::Unborn(death) => matches!(death, Death::Orphaned(_) | Death::Signal(_)),
            // Set-up code may crash by other signals, and would again.
            Self::Setup(CellError::Dead(death)) => {
                matches!(death, Death::Orphaned(_) | Death::Signal(9))
            }
            _ => false,
        }
    }
}

/// How a guest broke the contract.
#[derive(Debug, Error)]
pub(crate) enum Breach {
    #[error("{0}")]
    Channel(#[from] ChannelError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Pickle(#[from] DecodeError),
    #[error("an answer to operation {0}, which is not running")]
    UnknownOperation(u32),
    #[error("a message in shared buffer {0}, which it was not lent")]
    UnknownBuffer(u32),
    #[error("a part that ends at byte {end} of a shared buffer of {len}")]
    OutsideBuffer { end: u64, len: u64 },
    #[error("a {0}")]
    Event(&'static str),
    #[error("two parts of a message that overlap in a shared buffer")]
    OverlappingParts,
    #[error("a second report of its jail")]
    SecondReady,
    #[error("{0} shared buffers asked for and not used")]
    HoardsBuffers(usize),
    #[error("{0} answers that it asked for and does not take")]
    TakesNoAnswers(usize),
    #[error("a second request under number {0}, which is not answered yet")]
    RequestTwice(u32),
    #[error("guest code ran before the cell was set up")]
    TooEarly,
    #[error("a report of its jail that is none: {0}")]
    Report(String),
}

/// A guest answers for what only it can cause; what the kernel refuses is the host's.
impl From<ChannelError> for Death {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Violation(_) => Self::Violation(error.to_string()),
            error => Self::Unserved(error.to_string()),
        }
    }
}

impl From<Breach> for Death {
    fn from(breach: Breach) -> Self {
        match breach {
            Breach::Channel(error) => error.into(),
            breach => Self::Violation(breach.to_string()),
        }
    }
}
