//! The contract's names, for the Python mirror to be built from.

use pyisolate_abi::{ABI_VERSION, OPERATIONS};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Adds `ABI_VERSION` and `OPERATIONS` to the module.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ABI_VERSION", ABI_VERSION)?;
    let names = PyTuple::new(module.py(), OPERATIONS.map(|operation| operation.as_str()))?;
    module.add("OPERATIONS", names)
}
