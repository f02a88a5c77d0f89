//! What the exit status tells.

use pyisolate_supervisor::{CellError, Death, GuestFailure, SpawnError};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The script ran to its end.
    Success = 0,
    /// The script raised.
    Guest = 1,
    /// The command line makes no sense; nothing was run.
    Usage = 2,
    /// The script asked for what it was not granted.
    Policy = 3,
    /// The script used up a limit.
    Limit = 4,
    /// The cell ended before its script did.
    Died = 5,
    /// This machine could not make a cell, or not take the output.
    Host = 6,
    /// Nobody reads stdout any more; 128 + SIGPIPE, as a shell reports it.
    BrokenPipe = 141,
}

impl Status {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// The word for it in JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Guest => "guest",
            Self::Usage => "usage",
            Self::Policy => "policy",
            Self::Limit => "limit",
            Self::Died => "died",
            Self::Host => "host",
            Self::BrokenPipe => "broken-pipe",
        }
    }

    /// What an exception of guest code means.
    pub(crate) fn of_failure(failure: &GuestFailure) -> Self {
        match failure.kind.as_str() {
            "pyisolate.ImportDenied" | "pyisolate.CapabilityDenied" => Self::Policy,
            "SystemExit" if is_success(&failure.message) => Self::Success,
            _ => Self::Guest,
        }
    }

    /// What the end of the cell means, where the command did not end it.
    pub(crate) fn of_death(death: &Death) -> Self {
        match death {
            Death::Limit { .. } => Self::Limit,
            Death::Unborn(_) => Self::Host,
            _ => Self::Died,
        }
    }

    /// What it means that there is no cell.
    pub(crate) fn of_spawn(error: &SpawnError) -> Self {
        match error {
            SpawnError::Limit(_) | SpawnError::LimitOfProcess(_) | SpawnError::Duplicate(_) => {
                Self::Usage
            }
            _ => Self::Host,
        }
    }

    /// What it means that an operation failed.
    pub(crate) fn of_cell(error: &CellError) -> Self {
        match error {
            CellError::Guest(failure) => Self::of_failure(failure),
            CellError::Dead(death) => Self::of_death(death),
            CellError::TimedOut { .. } | CellError::Full { .. } => Self::Died,
            CellError::TooLong { .. } | CellError::TooLarge { .. } | CellError::Target(_) => {
                Self::Usage
            }
            _ => Self::Host,
        }
    }
}

/// Whether `str(SystemExit)` is that of a script which ended itself well.
fn is_success(message: &str) -> bool {
    matches!(message, "" | "0" | "None" | "False")
}
