//! The end of the interpreter. Threads that Rust made may not be inside Python then: so they enter
//! through one door, which is closed in time.
//!
//! Up to CPython 3.13 a thread that asks for the interpreter's lock while the interpreter goes is
//! ended where it stands, and the stack below it is unwound, which Rust ends with an abort of the
//! process. So whoever is still inside when the door has been closed for a while is interrupted.
#![expect(unsafe_code, reason = "interrupts threads, which the safe interface cannot")]

use std::ffi::c_ulong;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyisolate_subinterpreter::forget_abandoned;
use pyisolate_supervisor::Supervisor;
use pyisolate_supervisor::broker::Journal;
use pyisolate_supervisor::broker::journal::WriteError;
use pyo3::exceptions::PySystemExit;
use pyo3::ffi::{PyThread_get_thread_ident, PyThreadState_SetAsyncExc};
use pyo3::prelude::*;

use crate::errors::sandbox_error;

/// How long the interpreter's end waits for handlers that are at work. What a handler sleeps through
/// longer than that, the process's end ends.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long those that were interrupted then have. A handler may catch that, and is asked again.
const INSISTENCE: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK_AROUND: Duration = Duration::from_millis(2);

/// No locks: a fork's child finds them as they were.
static CLOSED: AtomicBool = AtomicBool::new(false);
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The process whose threads are counted.
static COUNTED_IN: AtomicU32 = AtomicU32::new(0);
static LIVE: Mutex<Vec<Weak<Live>>> = Mutex::new(Vec::new());
/// The interpreter's numbers of the threads that are inside.
static VISITORS: Mutex<Vec<c_ulong>> = Mutex::new(Vec::new());

/// A supervisor, and the journal that is closed with it.
pub(crate) struct Live {
    pub(crate) supervisor: Supervisor,
    journal: Option<Arc<Journal>>,
    process: u32,
}

impl Live {
    /// Remembers it for the interpreter's end.
    pub(crate) fn new(supervisor: Supervisor, journal: Option<Arc<Journal>>) -> Arc<Self> {
        let process = std::process::id();
        COUNTED_IN.store(process, Ordering::SeqCst);
        let live = Arc::new(Self { supervisor, journal, process });
        let mut all = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&live));
        live
    }

    /// Ends everything and closes the journal.
    ///
    /// # Errors
    /// What keeps the journal's end from being written.
    pub(crate) fn shutdown(&self) -> Result<(), WriteError> {
        self.supervisor.shutdown();
        // A fork's copy has no thread that writes.
        match &self.journal {
            Some(journal) if self.process == std::process::id() => journal.close().map(drop),
            _ => Ok(()),
        }
    }
}

/// What `os.register_at_fork` is given, for hosts with cells in sub-interpreters.
#[pyfunction]
pub(crate) fn before_fork(py: Python<'_>) {
    py.detach(pyisolate_subinterpreter::before_fork);
}

#[pyfunction]
pub(crate) fn after_fork_in_parent() {
    pyisolate_subinterpreter::after_fork_in_parent();
}

#[pyfunction]
pub(crate) fn after_fork_in_child() {
    pyisolate_subinterpreter::after_fork_in_child();
}

/// Does something inside Python, in a thread that Rust made; `None` once the interpreter is ending.
pub(crate) fn inside<T>(act: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let _visitor = Visitor::enter()?;
    Python::try_attach(|py| {
        let _visible = Visible::new();
        act(py)
    })
}

/// Whether the interpreter is ending: what a handler is interrupted by is no fault of its own then.
pub(crate) fn is_ending() -> bool {
    CLOSED.load(Ordering::SeqCst)
}

struct Visitor;

impl Visitor {
    fn enter() -> Option<Self> {
        // In this order: whoever closes the door looks at the number afterwards.
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let visitor = Self;
        (!is_ending()).then_some(visitor)
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// While it lives, its thread can be interrupted.
struct Visible(c_ulong);

impl Visible {
    fn new() -> Self {
        // SAFETY: it takes nothing and only says which thread this is.
        let this = Self(unsafe { PyThread_get_thread_ident() });
        VISITORS.lock().unwrap_or_else(PoisonError::into_inner).push(this.0);
        this
    }
}

impl Drop for Visible {
    fn drop(&mut self) {
        let mut visitors = VISITORS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = visitors.iter().position(|id| *id == self.0) {
            visitors.swap_remove(at);
        }
    }
}

/// Has every thread inside raise `SystemExit` as soon as it runs Python code again.
fn interrupt_visitors(py: Python<'_>) {
    let Ok(visitors) = VISITORS.try_lock() else { return };
    let exit = py.get_type::<PySystemExit>();
    for id in visitors.iter() {
        // SAFETY: the interpreter's lock is held, and it makes a reference of its own. A number
        // that is no thread's any more is none to it.
        unsafe { PyThreadState_SetAsyncExc(id.cast_signed(), exit.as_ptr()) };
    }
}

/// Waits until nobody is inside any more; `false` if somebody stays.
fn wait_for_visitors(patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while INSIDE.load(Ordering::SeqCst) > 0 {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_AROUND);
    }
    true
}

/// Ends every supervisor and lets nobody in any more. For `atexit`.
///
/// # Errors
/// `SandboxError` if the end of a journal cannot be written.
#[pyfunction]
pub(crate) fn end(py: Python<'_>) -> PyResult<()> {
    CLOSED.store(true, Ordering::SeqCst);
    let is_counted = COUNTED_IN.load(Ordering::SeqCst) == std::process::id();
    let (ended, is_empty) = py.detach(|| {
        let all = LIVE.try_lock().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default();
        // All of them, whatever one says.
        let ended: Vec<_> =
            all.iter().filter_map(Weak::upgrade).map(|live| live.shutdown()).collect();
        (ended, !is_counted || wait_for_visitors(PATIENCE))
    });
    let deadline = Instant::now() + INSISTENCE;
    let mut is_empty = is_empty;
    while !is_empty && Instant::now() < deadline {
        interrupt_visitors(py);
        is_empty = py.detach(|| wait_for_visitors(INSISTENCE / 20));
    }
    // SAFETY: attached to the main interpreter, at its end; all supervisors are shut down.
    unsafe { forget_abandoned() };
    ended.into_iter().collect::<Result<(), _>>().map_err(|error| sandbox_error(py, &error))
}
