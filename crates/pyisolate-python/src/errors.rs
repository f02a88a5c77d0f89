//! From the supervisor's errors to the tree in `pyisolate.errors`.

use pyisolate_supervisor::{
    Cell, CellError, Death, Denial, GuestFailure, LimitName, ReloadError, SpawnError,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::confinement::Layer;

use crate::limits::object_of;

/// Exceptions that the guest runtime raises for what the policy does not allow.
const DENIALS: [&str; 2] = ["pyisolate.CapabilityDenied", "pyisolate.ImportDenied"];

/// An exception of `pyisolate.errors`.
fn named(py: Python<'_>, class: &str, message: &str) -> PyErr {
    let made = (|| {
        let class = py.import("pyisolate.errors")?.getattr(class)?;
        class.call1((message,))
    })();
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// The exception for an operation that failed.
pub(crate) fn cell_error(py: Python<'_>, error: &CellError) -> PyErr {
    let message = error.to_string();
    match error {
        CellError::Guest(failure) => guest_error(py, failure),
        CellError::TimedOut { .. } | CellError::Full { .. } => named(py, "TimeoutError", &message),
        CellError::Dead(death) => dead(py, death),
        CellError::Target(_) | CellError::TooLong { .. } | CellError::TooLarge { .. } => {
            PyValueError::new_err(message)
        }
        CellError::Clogged { .. }
        | CellError::Interrupted(_)
        | CellError::Forked
        | CellError::Buffer(_)
        | CellError::Descriptor(_)
        | _ => named(py, "SandboxError", &message),
    }
}

/// The exception for an operation on a cell that failed. Where a refused request was the reason, it
/// carries the refusal.
pub(crate) fn error_of(py: Python<'_>, cell: Option<&Cell>, error: &CellError) -> PyErr {
    let raised = cell_error(py, error);
    if let CellError::Guest(failure) = error
        && DENIALS.contains(&failure.kind.as_str())
        && let Some(cell) = cell
        && let Some(denial) = cell.denials().into_iter().rev().find(|it| is_told(failure, it))
        && let Err(other) =
            denial_event(py, denial).and_then(|it| raised.value(py).setattr("denial_event", it))
    {
        return other;
    }
    raised
}

/// Whether the guest's exception tells of this refusal: the reason in so many words, or an import,
/// which a cell without a policy puts into words of its own.
fn is_told(failure: &GuestFailure, denial: &Denial) -> bool {
    failure.message.contains(&denial.reason)
        || (failure.kind == DENIALS[1] && denial.capability == "import")
}

/// A refusal as the host is told of it.
pub(crate) fn denial_event(py: Python<'_>, denial: Denial) -> PyResult<Bound<'_, PyAny>> {
    let Denial { cell, capability, action, target, rule, layer, grant, reason, at, .. } = denial;
    let class = py.import("pyisolate.events")?.getattr("DenialEvent")?;
    class.call1((cell, capability, action, target, rule, layer, grant, reason, at.as_secs_f64()))
}

/// A `SandboxError` with that text.
pub(crate) fn sandbox_error(py: Python<'_>, error: &impl std::fmt::Display) -> PyErr {
    named(py, "SandboxError", &error.to_string())
}

/// The exception for a policy that is none.
pub(crate) fn policy_error(py: Python<'_>, error: &impl std::fmt::Display) -> PyErr {
    named(py, "PolicyError", &error.to_string())
}

/// The exception for a policy that was not put in force.
pub(crate) fn reload_error(py: Python<'_>, error: &ReloadError) -> PyErr {
    let class = match error {
        ReloadError::NoToken | ReloadError::WrongToken => "PolicyAuthError",
        _ => "PolicyError",
    };
    named(py, class, &error.to_string())
}

/// The exception for an exception of guest code.
pub(crate) fn guest_error(py: Python<'_>, failure: &GuestFailure) -> PyErr {
    let class = if DENIALS.contains(&failure.kind.as_str()) { "PolicyError" } else { "GuestError" };
    let error = named(py, class, &failure.to_string());
    let value = error.value(py);
    let set = |name: &str, text: &str| value.setattr(name, PyString::new(py, text));
    let filled = set("type", &failure.kind)
        .and_then(|()| set("message", &failure.message))
        .and_then(|()| set("traceback", &failure.traceback));
    match filled {
        Ok(()) => error,
        Err(other) => other,
    }
}

/// The exception for the end of a cell.
pub(crate) fn dead(py: Python<'_>, death: &Death) -> PyErr {
    let class = match death {
        Death::Limit { limit, .. } => match limit {
            LimitName::WallTime => "WallTimeExceeded",
            LimitName::Cpu => "CPUExceeded",
            LimitName::Memory => "MemoryExceeded",
            LimitName::Output => "OutputExceeded",
            LimitName::OpenFiles => "OpenFilesExceeded",
            LimitName::Threads => "ChildWorkExceeded",
            LimitName::NetworkOps | LimitName::NetworkBytes => "NetworkExceeded",
            // Going over these ends no cell.
            LimitName::CpuRate
            | LimitName::OutputRate
            | LimitName::Message
            | LimitName::Unread
            | LimitName::UnreadMessages
            | LimitName::RequestRate
            | LimitName::DiskBytes
            | LimitName::Scratch => "SandboxError",
        },
        Death::Violation(_) => "ProtocolViolation",
        _ => "CellDied",
    };
    let error = named(py, class, &death.to_string());
    if let Death::Limit { limit, allowed, reached } = death {
        let value = error.value(py);
        let filled = value
            .setattr("limit", limit.as_str())
            .and_then(|()| value.setattr("allowed", object_of(py, *limit, *allowed)?))
            .and_then(|()| match reached {
                Some(reached) => value.setattr("reached", object_of(py, *limit, *reached)?),
                None => Ok(()),
            });
        if let Err(other) = filled {
            return other;
        }
    }
    error
}

/// The exception for a cell or template that could not be made.
pub(crate) fn spawn_error(py: Python<'_>, error: &SpawnError) -> PyErr {
    match error {
        SpawnError::Duplicate(_) | SpawnError::Limit(_) | SpawnError::LimitOfProcess(_) => {
            PyValueError::new_err(error.to_string())
        }
        SpawnError::Setup(CellError::Guest(failure)) => guest_error(py, failure),
        SpawnError::Unborn(death) | SpawnError::Setup(CellError::Dead(death)) => dead(py, death),
        SpawnError::Confinement { lacking, .. } => {
            let raised = named(py, "ConfinementError", &error.to_string());
            let layers = PyTuple::new(py, lacking.iter().cloned().map(Layer));
            match layers.and_then(|layers| raised.value(py).setattr("layers", layers)) {
                Ok(()) => raised,
                Err(other) => other,
            }
        }
        other => named(py, "SandboxError", &whole(other)),
    }
}

/// An error and what it came of, as far as its own words do not say that.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

/// A `ValueError` with that text.
pub(crate) fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A `TypeError` with that text.
pub(crate) fn type_error(message: impl Into<String>) -> PyErr {
    PyTypeError::new_err(message.into())
}
