//! Ends what runs in an interpreter, from outside.
//!
//! A thread cannot be killed without killing its process. So the stopper attaches to the guest's
//! interpreter, which the guest has to let it do within a switch interval, and leaves a trace
//! function there that raises whatever Python code runs next: the guest's frames unwind, and so do
//! its handlers, finalizers and exit functions as soon as they begin. A guest that keeps going in
//! spite of it is parked: the stopper attaches once more and never lets go, and no Python code runs
//! there again.
//!
//! A call into C that does not return cannot be ended at all. The host is told so after a while, and
//! goes on without that thread. If it still comes back soon, it takes its interpreter apart as any other
//! does; after that it gets what processor time nobody else wants, and leaves its interpreter as it is.
#![expect(unsafe_code, reason = "attaches to another interpreter through the C-API")]

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyisolate_jail::ThreadJail;
use pyo3_ffi as py;

use crate::capi;
use crate::cell::{Ended, Phase, Shared, lock};

/// How long a guest may take to unwind once it was told to. Unwinding a deep stack takes
/// milliseconds; a busy machine takes longer to let it.
const UNWIND_PATIENCE: Duration = Duration::from_millis(500);
/// How long a guest may take to let the stopper in, a hundred switch intervals, before it counts as
/// stuck in a call.
const ATTACH_PATIENCE: Duration = Duration::from_millis(500);
/// How long a guest that was given up may still come back with the priority that it had.
const RETURN_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is told again.
const AGAIN: Duration = Duration::from_millis(5);

/// Starts ending the guest and returns at once.
pub(crate) fn begin(shared: &Arc<Shared>, jail: &Arc<ThreadJail>) {
    {
        let mut state = lock(&shared.state);
        if state.stopping {
            return;
        }
        state.stopping = true;
    }
    // A thread that waits for the host comes back; the rest is the stopper's.
    shared.rouse();
    let (watched, jail) = (Arc::clone(shared), Arc::clone(jail));
    let started = std::thread::Builder::new()
        .name("pyisolate-stopper".to_owned())
        .spawn(move || watch(&watched, &jail));
    if let Err(error) = started {
        tracing::error!(%error, "no thread is left to stop a cell with: it runs on");
        shared.give_up(Ended::Abandoned);
        shared.yield_to_others_after(Duration::ZERO);
    }
}

/// Ends the guest, or says that it could not be ended. Holds the wall that the other thread enters.
fn watch(shared: &Arc<Shared>, _wall_stays: &Arc<ThreadJail>) {
    let stopper = Arc::clone(shared);
    // Attaching may take for ever, so it has a thread of its own.
    let attached = std::thread::Builder::new()
        .name("pyisolate-stopper".to_owned())
        .spawn(move || unwind(&stopper));
    if let Err(error) = attached {
        tracing::error!(%error, "no thread is left to stop a cell with: it runs on");
    }
    let mut deadline = Instant::now() + ATTACH_PATIENCE;
    let mut told = false;
    let mut state = lock(&shared.state);
    while state.ended.is_none() {
        if state.told && !told {
            told = true;
            deadline = Instant::now() + UNWIND_PATIENCE;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.thread_is_gone() {
            break;
        }
        drop(shared.wait(state, left.min(AGAIN)));
        // It may have been on its way to sleep when it was roused before.
        shared.rouse();
        state = lock(&shared.state);
    }
    let ended_by_itself = state.ended.is_some();
    drop(state);
    if ended_by_itself {
        // It may have closed its channel long before.
        shared.say_ended();
    } else if shared.thread_is_gone() {
        shared.give_up(Ended::ThreadKilled);
    } else {
        shared.give_up(Ended::Abandoned);
        shared.yield_to_others_after(RETURN_PATIENCE);
    }
}

/// Tells the guest's frames to unwind until it is over, then parks it.
fn unwind(shared: &Arc<Shared>) {
    // Whatever the interpreter does while this thread is attached, it does behind the same wall.
    // SAFETY: this thread is new and owns no descriptor.
    match shared.jail.upgrade().map(|jail| unsafe { jail.enter(&[]) }) {
        Some(Ok(_)) => {}
        Some(Err(error)) => {
            tracing::error!(%error, "the thread that ends a cell could not be confined: it runs on");
            return;
        }
        None => return, // whoever waited for this thread has given up, and its host is gone
    }
    let mut deadline = None;
    loop {
        let interpreter = {
            let mut state = lock(&shared.state);
            // A thread that was killed holds its interpreter's lock for ever.
            if state.ended.is_some_and(|ended| ended != Ended::Abandoned) || shared.thread_is_gone()
            {
                return;
            }
            match state.phase {
                Phase::Running(interpreter) => {
                    state.stoppers += 1;
                    interpreter
                }
                // It has no interpreter yet, and looks at `stopping` when it has.
                Phase::Starting => {
                    drop(shared.wait(state, AGAIN));
                    continue;
                }
                Phase::Ending => return,
            }
        };
        let told_since = *deadline.get_or_insert_with(|| Instant::now() + UNWIND_PATIENCE);
        let park = Instant::now() >= told_since;
        // SAFETY: the interpreter lives while `stoppers` counts this thread.
        unsafe { attach(interpreter.0, park) };
        let mut state = lock(&shared.state);
        state.stoppers -= 1;
        state.told = true;
        shared.changed.notify_all();
        drop(shared.wait(state, AGAIN));
    }
}

/// Attaches to the interpreter, leaves the trace function there, and detaches; or stays for ever.
///
/// # Safety
/// `interpreter` is alive until this returns.
unsafe fn attach(interpreter: *mut py::PyInterpreterState, park: bool) {
    // SAFETY: a live interpreter; the new state is this thread's alone. Attaching waits until the
    // guest's thread gives way.
    unsafe {
        let state = py::PyThreadState_New(interpreter);
        if state.is_null() {
            return;
        }
        py::PyEval_AcquireThread(state);
    }
    if park {
        tracing::warn!(
            "a cell did not unwind and was parked: its memory stays until the host ends"
        );
        loop {
            std::thread::park();
        }
    }
    // SAFETY: attached to the guest's interpreter; the function is a static one. Deleting the
    // current state detaches.
    unsafe {
        doom();
        py::PyThreadState_Clear(py::PyThreadState_Get());
        capi::PyThreadState_DeleteCurrent();
    }
}

/// From now on no Python code runs in this thread's interpreter.
///
/// # Safety
/// The thread is attached to it.
unsafe fn doom() {
    // SAFETY: attached; a static function and no object.
    unsafe { capi::PyEval_SetTraceAllThreads(Some(raise), std::ptr::null_mut()) };
}

/// A trace function: raises at every event.
unsafe extern "C" fn raise(
    _: *mut py::PyObject,
    _: *mut c_void,
    _: c_int,
    _: *mut py::PyObject,
) -> c_int {
    // SAFETY: CPython calls this attached; a static type and a static text.
    unsafe {
        if py::PyErr_Occurred().is_null() {
            py::PyErr_SetString(py::PyExc_SystemExit, c"the host ends this cell".as_ptr());
        }
    }
    -1
}
