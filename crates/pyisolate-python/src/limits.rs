//! Limits by their keywords, to and from Python's numbers.

use pyisolate_supervisor::policy::Unit;
use pyisolate_supervisor::{LimitName, Limits};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::errors::value_error;

/// The limit behind a keyword of `spawn`.
pub(crate) fn limit_of(name: &str) -> Option<LimitName> {
    LimitName::ALL.into_iter().find(|limit| limit.as_str() == name)
}

/// A limit's number out of Python's.
pub(crate) fn number_of(limit: LimitName, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    match limit.unit() {
        Unit::Milliseconds | Unit::Bytes | Unit::Count => value
            .extract::<u64>()
            .map_err(|_| value_error(format!("{limit} is a whole number, not {value}"))),
        Unit::Thousandths => {
            let wrong = || {
                let form = "a number with at most three decimal places";
                value_error(format!("{limit} is {form}, not {value}"))
            };
            let thousandths = value.extract::<f64>().map_err(|_| wrong())? * 1000.0;
            let whole = thousandths.round();
            // Far below any value that a limit can have, and far above a float's own error.
            let is_near = (thousandths - whole).abs() < 1e-6;
            // What a limit can have at the most is exact in a float.
            let in_range = (0.0..=1e12).contains(&whole);
            if is_near && in_range { Ok(whole as u64) } else { Err(wrong()) }
        }
    }
}

/// A limit's number as Python has it.
pub(crate) fn object_of(py: Python<'_>, limit: LimitName, value: u64) -> PyResult<Py<PyAny>> {
    match limit.unit() {
        Unit::Milliseconds | Unit::Bytes | Unit::Count => value.into_py_any(py),
        Unit::Thousandths => (value as f64 / 1000.0).into_py_any(py),
    }
}

/// Reads one limit of a policy.
pub(crate) fn checked(name: &str, value: &Bound<'_, PyAny>) -> PyResult<(LimitName, u64)> {
    let limit = limit_of(name).ok_or_else(|| {
        let names = LimitName::ALL.map(LimitName::as_str).join(", ");
        value_error(format!("there is no limit named {name:?}; the limits are {names}"))
    })?;
    let number = number_of(limit, value)?;
    let mut limits = Limits::default();
    *limits.slot(limit) = number;
    limits.check().map_err(value_error)?;
    Ok((limit, number))
}
