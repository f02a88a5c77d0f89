//! `pyisolate._core`: the Python face of the supervisor.
//!
//! Types, conversions and nothing else: whatever a Rust host would need too lives in
//! `pyisolate-supervisor`. The same shared object carries the guest runtime (`PyInit__guest`),
//! which cells load from it; the two share no state.
//!
//! It refuses to unpickle: what comes out of a cell was decoded in Rust, and `convert` builds
//! Python objects from the result without calling anything that the guest named.

mod cell;
mod confinement;
mod convert;
mod errors;
mod exit;
mod fields;
mod handlers;
mod interpreters;
mod journal;
mod limits;
mod pickling;
mod policy;
mod protocol;
mod rights;
mod supervisor;

use pyo3::prelude::*;

/// Keeps the guest runtime's entry in this shared object, where cells look for it.
#[used]
static GUEST: unsafe extern "C" fn() -> *mut pyo3::ffi::PyObject = pyisolate_guest::PyInit__guest;

/// Runs the `pyisolate` command with these arguments; returns its exit status.
#[pyfunction]
fn run_command(py: Python<'_>, arguments: Vec<String>, environment: String) -> u8 {
    py.detach(|| pyisolate_cli::run(arguments, Some(&environment), Some(interpreters::make)))
}

#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DESCRIBE", pyisolate_supervisor::DESCRIBE)?;
    module.add_class::<cell::Cell>()?;
    module.add_class::<cell::ExecHandle>()?;
    module.add_class::<cell::Stats>()?;
    module.add_class::<confinement::Confinement>()?;
    module.add_class::<confinement::Layer>()?;
    module.add_class::<policy::Policy>()?;
    module.add_class::<supervisor::Supervisor>()?;
    module.add_class::<supervisor::Template>()?;
    module.add_function(wrap_pyfunction!(run_command, module)?)?;
    module.add_function(wrap_pyfunction!(exit::end, module)?)?;
    module.add_function(wrap_pyfunction!(exit::before_fork, module)?)?;
    module.add_function(wrap_pyfunction!(exit::after_fork_in_parent, module)?)?;
    module.add_function(wrap_pyfunction!(exit::after_fork_in_child, module)?)?;
    protocol::add(module)?;
    rights::add(module)
}
