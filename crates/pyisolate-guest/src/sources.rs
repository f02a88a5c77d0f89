//! The runtime's Python source, compiled once for a process: each interpreter after the first reads it
//! as CPython reads its own cached modules.
#![expect(unsafe_code, reason = "calls CPython's compiler and its reader of compiled code")]

use std::ffi::{CStr, CString};
use std::sync::OnceLock;

use pyo3_ffi as py;

use crate::ffi::{self, Object, PyResult};

/// Name in tracebacks, and text. The first two are the runtime and what wires the standard library; the
/// others are the wiring's parts.
const SOURCES: [(&str, &str); 13] = [
    ("runtime", include_str!("runtime.py")),
    ("hooks", include_str!("stdlib/hooks.py")),
    ("broker", include_str!("stdlib/broker.py")),
    ("clocks", include_str!("stdlib/clocks.py")),
    ("descriptors", include_str!("stdlib/descriptors.py")),
    ("files", include_str!("stdlib/files.py")),
    ("folders", include_str!("stdlib/folders.py")),
    ("http", include_str!("stdlib/http.py")),
    ("interpreter", include_str!("stdlib/interpreter.py")),
    ("objects", include_str!("stdlib/objects.py")),
    ("processes", include_str!("stdlib/processes.py")),
    ("sockets", include_str!("stdlib/sockets.py")),
    ("streams", include_str!("stdlib/streams.py")),
];
/// How many of them come before the parts.
const WHOLE_MODULES: usize = 2;

unsafe extern "C" {
    fn PyMarshal_WriteObjectToString(value: *mut py::PyObject, version: i32) -> *mut py::PyObject;
    fn PyMarshal_ReadObjectFromString(data: *const i8, len: py::Py_ssize_t) -> *mut py::PyObject;
}

/// `Py_MARSHAL_VERSION`: what this CPython writes by itself it reads back.
const MARSHAL_VERSION: i32 = 4;

/// All sources, compiled. It happens before any guest code runs in this process.
fn compiled() -> PyResult<&'static [Vec<u8>]> {
    static COMPILED: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    if let Some(compiled) = COMPILED.get() {
        return Ok(compiled);
    }
    let compiled = SOURCES.iter().map(|(name, text)| compile(name, text));
    let compiled = compiled.collect::<PyResult<_>>()?;
    Ok(COMPILED.get_or_init(|| compiled))
}

fn compile(name: &str, text: &str) -> PyResult<Vec<u8>> {
    let no_nul = |_| ffi::raise_system_error("source has a NUL byte");
    let text = CString::new(text).map_err(no_nul)?;
    let file = CString::new(format!("<pyisolate {name}>")).map_err(no_nul)?;
    // SAFETY: NUL-terminated strings; a new reference or null out.
    let code = Object::owned(unsafe {
        py::Py_CompileString(text.as_ptr(), file.as_ptr(), py::Py_file_input)
    })?;
    // SAFETY: a live object; a new bytes object or null out.
    let bytes =
        Object::owned(unsafe { PyMarshal_WriteObjectToString(code.as_ptr(), MARSHAL_VERSION) })?;
    ffi::Buffer::of(bytes.as_ptr()).map(|buffer| buffer.as_slice().to_vec())
}

/// Runs one of the first two sources in a new module of that name, which is not put into `sys.modules`.
pub(crate) fn module(index: usize, name: &CStr) -> PyResult<Object> {
    let compiled = &compiled()?[index];
    let len = py::Py_ssize_t::try_from(compiled.len()).unwrap_or(0);
    // SAFETY: `len` readable bytes, which CPython wrote; a new reference or null out.
    let code =
        Object::owned(unsafe { PyMarshal_ReadObjectFromString(compiled.as_ptr().cast(), len) })?;
    ffi::module_of_code(name, &code)
}

/// The wiring's parts: a list of name and compiled code, as bytes that `marshal` reads.
pub(crate) fn parts() -> PyResult<Object> {
    let parts = SOURCES.iter().zip(compiled()?).skip(WHOLE_MODULES);
    let parts = parts
        .map(|((name, _), code)| Object::tuple([Object::text(name)?, Object::bytes(code)?]))
        .collect::<PyResult<_>>()?;
    Object::list(parts)
}
