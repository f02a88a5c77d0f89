//! The end of the interpreter. Threads that Rust made may not be inside Python then: so they enter
//! through one door, which is closed in time.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyisolate_supervisor::Supervisor;
use pyisolate_supervisor::broker::Journal;
use pyisolate_supervisor::broker::journal::WriteError;
use pyo3::prelude::*;

use crate::errors::sandbox_error;

/// How long the interpreter's end waits for handlers that are at work. What a handler sleeps through
/// longer than that, the process's end ends.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK_AROUND: Duration = Duration::from_millis(2);

/// No locks: a fork's child finds them as they were.
static CLOSED: AtomicBool = AtomicBool::new(false);
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The process whose threads are counted.
static COUNTED_IN: AtomicU32 = AtomicU32::new(0);
static LIVE: Mutex<Vec<Weak<Live>>> = Mutex::new(Vec::new());

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

/// Does something inside Python, in a thread that Rust made; `None` once the interpreter is ending.
pub(crate) fn inside<T>(act: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let _visitor = Visitor::enter()?;
    Python::try_attach(act)
}

struct Visitor;

impl Visitor {
    fn enter() -> Option<Self> {
        // In this order: whoever closes the door looks at the number afterwards.
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let visitor = Self;
        (!CLOSED.load(Ordering::SeqCst)).then_some(visitor)
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ends every supervisor and lets nobody in any more. For `atexit`.
///
/// # Errors
/// `SandboxError` if the end of a journal cannot be written.
#[pyfunction]
pub(crate) fn end(py: Python<'_>) -> PyResult<()> {
    CLOSED.store(true, Ordering::SeqCst);
    let ended = py.detach(|| {
        let all = LIVE.try_lock().map(|mut all| std::mem::take(&mut *all)).unwrap_or_default();
        // All of them, whatever one says.
        let ended: Vec<_> =
            all.iter().filter_map(Weak::upgrade).map(|live| live.shutdown()).collect();
        let deadline = Instant::now() + PATIENCE;
        let is_counted = COUNTED_IN.load(Ordering::SeqCst) == std::process::id();
        while is_counted && INSIDE.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK_AROUND);
        }
        ended
    });
    ended.into_iter().collect::<Result<(), _>>().map_err(|error| sandbox_error(py, &error))
}
