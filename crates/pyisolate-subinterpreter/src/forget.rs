//! Lets CPython end although cells were abandoned.
//!
//! At its end CPython takes apart every interpreter that is left, and would wait for ever for the lock of
//! one that an abandoned thread holds. So those are taken out of its list first. The list is found as
//! debuggers find it: by the offsets that CPython publishes at the beginning of its state.
#![expect(unsafe_code, reason = "reads and writes CPython's list of interpreters")]

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use pyo3_ffi as py;

use crate::cell::Interpreter;

/// The interpreters that nothing can end.
static ABANDONED: Mutex<Vec<Interpreter>> = Mutex::new(Vec::new());

/// What CPython's state begins with: `_Py_DebugOffsets` of 3.13 and 3.14, as far as it is needed here.
#[repr(C)]
struct Offsets {
    cookie: [u8; 8],
    version: u64,
    free_threaded: u64,
    runtime_bytes: u64,
    finalizing: u64,
    interpreters_head: u64,
    interpreter_bytes: u64,
    interpreter_id: u64,
    interpreter_next: u64,
}

unsafe extern "C" {
    static mut _PyRuntime: c_void;
}

pub(crate) fn remember(interpreter: Interpreter) {
    ABANDONED.lock().unwrap_or_else(PoisonError::into_inner).push(interpreter);
}

/// Takes abandoned interpreters out of CPython's list, so that it can end. They and their threads go
/// with the process.
///
/// # Safety
/// The thread is attached to the main interpreter, which is about to end: no other thread makes or ends
/// an interpreter from here on.
pub unsafe fn forget_abandoned() {
    let abandoned = std::mem::take(&mut *ABANDONED.lock().unwrap_or_else(PoisonError::into_inner));
    let runtime = (&raw mut _PyRuntime).cast::<u8>();
    // SAFETY: the state of a CPython that `prepare` knows, which is what abandoned cells had.
    let offsets = unsafe { &*runtime.cast::<Offsets>() };
    if abandoned.is_empty() || &offsets.cookie != b"xdebugpy" {
        return;
    }
    let at = |base: *mut u8, offset: u64| -> *mut *mut py::PyInterpreterState {
        base.wrapping_add(usize::try_from(offset).unwrap_or(0)).cast()
    };
    let mut link = at(runtime, offsets.interpreters_head);
    // SAFETY: the list's head and each entry's link lie where CPython says that they do, the entries are
    // alive because nobody ends one, and the last link is null.
    unsafe {
        while !(*link).is_null() {
            let next = at((*link).cast(), offsets.interpreter_next);
            if abandoned.iter().any(|interpreter| interpreter.0 == *link) {
                *link = *next;
            } else {
                link = next;
            }
        }
    }
}
