//! What has to be in place once, before the first cell.
#![expect(unsafe_code, reason = "asks CPython about itself and adds an audit hook")]

use std::ffi::CStr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3_ffi as py;

use crate::error::StartError;
use crate::{guard, memory};

/// Versions whose structures `capi` declares.
const KNOWN: [&str; 2] = ["3.13.", "3.14."];

/// Counts memory and audits from now on. `extensions` is the folder of the standard library's
/// extension modules.
///
/// # Errors
/// There is no CPython here, or one that is not known.
pub(crate) fn prepare(extensions: &Path) -> Result<(), StartError> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.load(Ordering::Acquire) {
        return Ok(());
    }
    // SAFETY: may be called at any time; the text is a static one.
    let version = unsafe {
        if py::Py_IsInitialized() == 0 {
            return Err(StartError::NoInterpreter);
        }
        CStr::from_ptr(py::Py_GetVersion()).to_string_lossy()
    };
    let free_threaded = version.contains("free-threading");
    if free_threaded || !KNOWN.iter().any(|known| version.starts_with(known)) {
        return Err(StartError::Version(version.into_owned()));
    }
    memory::install();
    // SAFETY: CPython is initialised; the state is given back below.
    unsafe {
        let attached = py::PyGILState_Ensure();
        guard::install(extensions);
        // Its types are the process's, and are taken apart with the last interpreter that has them. If
        // the main one came to them only after that, it would crash.
        let datetime = py::PyImport_ImportModule(c"_datetime".as_ptr());
        if datetime.is_null() {
            py::PyErr_Clear();
        }
        py::Py_XDECREF(datetime);
        py::PyGILState_Release(attached);
    }
    DONE.store(true, Ordering::Release);
    Ok(())
}
