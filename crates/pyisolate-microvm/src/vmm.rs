//! What a virtual machine's monitor does for cells, whichever it is.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use pyisolate_channel::control::Control;
use thiserror::Error;

use crate::image::Image;
use crate::machine::Machine;
use crate::snapshot::Snapshot;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accelerator {
    /// The processor, kept apart by its own virtualisation: a boundary of the hardware's.
    Kvm,
    /// A program that translates them. No boundary of the hardware's: who breaks the translator is in
    /// the monitor's process.
    Tcg,
}

impl Accelerator {
    /// The name that QEMU and callers use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// What every machine of a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What runs its instructions.
    pub accelerator: Accelerator,
    /// Its memory, in bytes: whole MiB.
    pub memory_bytes: u64,
}

/// What a restored machine does with the memory that it goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// It keeps what it writes to itself.
    Private,
    /// It writes to a copy, of which the next snapshot is made.
    Copy,
}

/// What a monitor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its program.
    pub program: PathBuf,
    /// Its name and version, such as `QEMU 7.2.22`.
    pub version: String,
    /// The machine that it emulates.
    pub machine: &'static str,
}

/// A monitor. It is started through a launcher's socket for programs, in a jail of its own.
pub trait Vmm: fmt::Debug + Send + Sync {
    /// What it is.
    fn facts(&self) -> &Facts;

    /// Starts a machine from an image. Nothing waits for its guest.
    ///
    /// # Errors
    /// [`VmmError`]; nothing is left behind.
    fn boot(&self, launcher: &Control, image: &Image, shape: Shape) -> Result<Machine, VmmError>;

    /// Starts a machine that goes on from a snapshot.
    ///
    /// # Errors
    /// [`VmmError`]; nothing is left behind.
    fn restore(
        &self,
        launcher: &Control,
        snapshot: &Snapshot,
        sharing: Sharing,
    ) -> Result<Machine, VmmError>;

    /// Ends a machine that was booted, or restored into a [copy](Sharing::Copy), with a snapshot of
    /// it.
    ///
    /// # Errors
    /// [`VmmError`]; the machine is gone.
    fn snapshot(&self, machine: &Machine) -> Result<Snapshot, VmmError>;
}

/// Why there is no machine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VmmError {
    /// The monitor's program is not there.
    #[error(
        "{program} is not there ({why}): install it (Debian and Ubuntu: apt-get install \
         qemu-system-x86; Fedora: dnf install qemu-system-x86-core), or set PYISOLATE_QEMU to it"
    )]
    NoProgram {
        /// What was looked for.
        program: String,
        /// Why it cannot be run.
        why: String,
    },
    /// A version that is too old.
    #[error("{0} is too old: QEMU 7.2 or newer is needed")]
    TooOld(String),
    /// A step of the host's.
    #[error("{call}: {source}")]
    Call {
        /// What was tried.
        call: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The launcher did not take it.
    #[error("the launcher: {0}")]
    Launcher(#[from] pyisolate_channel::control::ControlError),
    /// Its jail could not be built, or its program not be executed in it.
    #[error("the jail of the machine's monitor: {0}")]
    Jail(String),
    /// It ended when it should have served.
    #[error("the machine's monitor ended: {0}")]
    Ended(String),
    /// It refused a command.
    #[error("the machine's monitor refused {command}: {why}")]
    Refused {
        /// The command.
        command: &'static str,
        /// What it said.
        why: String,
    },
    /// The guest did not come up.
    #[error("the guest did not start within {} s{console}", patience.as_secs())]
    Slow {
        /// How long it was waited for.
        patience: Duration,
        /// What stands on its console.
        console: String,
    },
    /// The guest said why it cannot go on.
    #[error("the guest did not start: {0}")]
    Guest(String),
    /// A cached snapshot could not be read or written.
    #[error("{call} {path}: {source}")]
    Cache {
        /// What was tried.
        call: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

pub(crate) fn failed<E: Into<std::io::Error>>(call: &'static str) -> impl FnOnce(E) -> VmmError {
    move |error| VmmError::Call { call, source: error.into() }
}
