//! The guest runtime in a sub-interpreter of the host's process: the same module, the same runtime,
//! the same frames. What it does not do is confine: the thread is behind its wall already.
#![expect(unsafe_code, reason = "the module is made by its definition, without a file to import")]

use std::path::PathBuf;
use std::sync::Arc;

use pyisolate_abi::message::{TEXT_BYTES_MAX, ToHost};
use pyisolate_channel::GuestEnd;
use pyo3_ffi as py;

use crate::ffi::{self, Object, PyResult};
use crate::link::Link;
use crate::module::{Limited, PyInit__guest, State, state_of};

/// What a sub-interpreter's thread hands to the guest runtime.
pub struct Guest<'a> {
    /// The guest's end of the channel.
    pub end: GuestEnd,
    /// The thread's confinement report, encoded.
    pub report: String,
    /// Folders of packages.
    pub packages: &'a [PathBuf],
    /// Is told the most memory that the interpreter may have, in bytes, once that is known.
    pub limited: Limited,
}

/// How the guest's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lived {
    /// The host said stop, or does not answer any more.
    Stopped,
    /// The runtime itself raised.
    Failed,
    /// The runtime itself found no memory.
    OutOfMemory,
}

/// Makes the runtime in this thread's interpreter and serves the host's operations until it says
/// stop. `made` is called once nothing but the guest's own code is left to run.
///
/// # Safety
/// The thread is attached to a new interpreter, for which this was not called before.
pub unsafe fn live(guest: Guest<'_>, made: impl FnOnce()) -> Lived {
    let link = Arc::new(Link::new(guest.end));
    let mut prepared = false;
    let serve = |state: &State| {
        state.set_limited(Some(guest.limited));
        state.set_link(Some(Arc::clone(&link)));
        let packages = guest.packages.iter().map(|folder| Object::text(&folder.to_string_lossy()));
        let packages = Object::list(packages.collect::<PyResult<_>>()?)?;
        state.runtime(c"prepare_interpreter")?.call([packages])?;
        prepared = true;
        made();
        if link.send(&ToHost::Ready(&guest.report)).is_err() {
            return Ok(());
        }
        state.runtime(c"serve")?.call([]).map(drop)
    };
    // SAFETY: attached, the caller's promise.
    let lived = unsafe { module() }.and_then(|module| {
        // SAFETY: just made by the definition of `_guest`, and alive until the end of this function.
        let state = unsafe { state_of(module.as_ptr()) }?;
        let lived = serve(state);
        // The channel goes before the interpreter is taken apart.
        state.set_link(None);
        state.set_limited(None);
        lived
    });
    match lived {
        Ok(()) => Lived::Stopped,
        Err(ffi::Raised) => {
            let out_of_memory = ffi::is_memory_error();
            let why = ffi::take_error();
            if !prepared {
                say_unmade(&link, &why);
            }
            if out_of_memory { Lived::OutOfMemory } else { Lived::Failed }
        }
    }
}

/// Tells the host why there is no interpreter for its cell.
pub fn unmade(end: GuestEnd, why: &str) {
    say_unmade(&Link::new(end), why);
}

fn say_unmade(link: &Link, why: &str) {
    let message = &why[..why.floor_char_boundary(TEXT_BYTES_MAX)];
    let kind = "InterpreterError";
    // A host that does not hear it any more has no need of it.
    let _ = link.send(&ToHost::Failed { id: 0, kind, message, traceback: "" });
}

/// The module `_guest`, made for this interpreter and not put into `sys.modules`.
///
/// # Safety
/// The thread is attached.
unsafe fn module() -> PyResult<Object> {
    // SAFETY: attached; a NUL-terminated name.
    let types = Object::owned(unsafe { py::PyImport_ImportModule(c"types".as_ptr()) })?;
    let spec = types.attribute(c"SimpleNamespace")?.call([])?;
    spec.set_attribute(c"name", &Object::text("_guest")?)?;
    // SAFETY: attached, as CPython's import machinery would be.
    let definition = unsafe { PyInit__guest() }.cast::<py::PyModuleDef>();
    // SAFETY: a static definition, a live spec that has a name, and the version of the C-API that
    // the definition was compiled for.
    let module = Object::owned(unsafe {
        py::PyModule_FromDefAndSpec2(definition, spec.as_ptr(), py::PYTHON_API_VERSION)
    })?;
    // SAFETY: the module that was made of this definition, executed once.
    match unsafe { py::PyModule_ExecDef(module.as_ptr(), definition) } {
        0 => Ok(module),
        _ => Err(ffi::Raised),
    }
}
