//! The part of CPython's C-API that sub-interpreters need and its stable subset lacks.
//!
//! The functions and structures are public and the same in 3.13 and 3.14, which is what this crate
//! accepts (see `supported`).
#![expect(unsafe_code, reason = "declarations of C functions")]

use std::ffi::{c_char, c_int, c_void};

use pyo3_ffi::{PyInterpreterState, PyObject, PyThreadState};

#[repr(C)]
pub(crate) struct PyInterpreterConfig {
    pub(crate) use_main_obmalloc: c_int,
    pub(crate) allow_fork: c_int,
    pub(crate) allow_exec: c_int,
    pub(crate) allow_threads: c_int,
    pub(crate) allow_daemon_threads: c_int,
    pub(crate) check_multi_interp_extensions: c_int,
    pub(crate) gil: c_int,
}

/// `PyInterpreterConfig_OWN_GIL`
pub(crate) const OWN_GIL: c_int = 2;

#[repr(C)]
pub(crate) struct PyStatus {
    pub(crate) kind: c_int,
    pub(crate) function: *const c_char,
    pub(crate) message: *const c_char,
    pub(crate) exit_code: c_int,
}

/// A domain's allocator, as `PyMemAllocatorEx` lays it out.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Allocator {
    pub(crate) context: *mut c_void,
    pub(crate) malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    pub(crate) calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    pub(crate) realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    pub(crate) free: unsafe extern "C" fn(*mut c_void, *mut c_void),
}

/// `PyObjectArenaAllocator`
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ArenaAllocator {
    pub(crate) context: *mut c_void,
    pub(crate) alloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    pub(crate) free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

/// `PYMEM_DOMAIN_RAW`, `PYMEM_DOMAIN_MEM` and `PYMEM_DOMAIN_OBJ`
pub(crate) const DOMAINS: [c_int; 3] = [0, 1, 2];

/// `Py_tracefunc`
pub(crate) type Trace =
    unsafe extern "C" fn(*mut PyObject, *mut c_void, c_int, *mut PyObject) -> c_int;

/// `Py_AuditHookFunction`
pub(crate) type AuditHook =
    unsafe extern "C" fn(*const c_char, *mut PyObject, *mut c_void) -> c_int;

unsafe extern "C" {
    pub(crate) fn Py_NewInterpreterFromConfig(
        state: *mut *mut PyThreadState,
        config: *const PyInterpreterConfig,
    ) -> PyStatus;
    pub(crate) fn PyThreadState_DeleteCurrent();
    pub(crate) fn PyEval_SetTraceAllThreads(trace: Option<Trace>, object: *mut PyObject);
    pub(crate) fn PyMem_GetAllocator(domain: c_int, allocator: *mut Allocator);
    pub(crate) fn PyMem_SetAllocator(domain: c_int, allocator: *const Allocator);
    pub(crate) fn PyObject_GetArenaAllocator(allocator: *mut ArenaAllocator);
    pub(crate) fn PyObject_SetArenaAllocator(allocator: *const ArenaAllocator);
    pub(crate) fn PySys_AddAuditHook(hook: AuditHook, data: *mut c_void) -> c_int;
    pub(crate) fn PyThreadState_GetUnchecked() -> *mut PyThreadState;
    pub(crate) fn PyInterpreterState_Main() -> *mut PyInterpreterState;
    pub(crate) fn PyThreadState_GetInterpreter(
        state: *mut PyThreadState,
    ) -> *mut PyInterpreterState;
}
