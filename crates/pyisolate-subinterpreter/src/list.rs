//! Our interpreters in CPython's list of all.
//!
//! CPython walks that list where it must not meet them. The child of a `fork` takes apart every
//! interpreter but the main one, without being able to, and crashes. And at its end CPython waits for the
//! lock of each, which an abandoned thread never gives back. So ours are taken out of the list before.
//!
//! The list is found as debuggers find it: by the offsets that CPython publishes at the beginning of its
//! state. One lock stands around whatever changes it on our side, and around forks.
#![expect(unsafe_code, reason = "reads and writes CPython's list of interpreters")]

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::time::Duration;

use pyo3_ffi as py;

/// An interpreter, which any thread may attach to while it is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interpreter(pub(crate) *mut py::PyInterpreterState);

// SAFETY: CPython lets any thread attach to an interpreter that is alive.
unsafe impl Send for Interpreter {}

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

/// How long a fork waits for an interpreter that is being made or taken apart, some milliseconds. After
/// that the child is CPython's to deal with.
const FORK_PATIENCE: Duration = Duration::from_secs(10);

struct Ours {
    alive: Vec<Interpreter>,
    abandoned: Vec<Interpreter>,
    /// Those that a fork has taken out of the list for a moment.
    unlinked: Vec<Interpreter>,
    fork_holds_lock: bool,
}

/// A lock of libc's, since the thread that comes out of a fork has to be able to open it.
struct Lock {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    ours: UnsafeCell<Ours>,
}

// SAFETY: `ours` is touched with the mutex held.
unsafe impl Sync for Lock {}

static LOCK: Lock = Lock {
    mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    ours: UnsafeCell::new(Ours {
        alive: Vec::new(),
        abandoned: Vec::new(),
        unlinked: Vec::new(),
        fork_holds_lock: false,
    }),
};

struct Guard;

impl Guard {
    fn new() -> Self {
        // SAFETY: a mutex that was initialised, which this thread does not hold.
        unsafe { libc::pthread_mutex_lock(LOCK.mutex.get()) };
        Self
    }

    fn ours(&mut self) -> &mut Ours {
        // SAFETY: the mutex is held for as long as this borrow.
        unsafe { &mut *LOCK.ours.get() }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: this thread holds it.
        unsafe { libc::pthread_mutex_unlock(LOCK.mutex.get()) };
    }
}

/// Makes an interpreter, one at a time, and knows it from then on.
pub(crate) fn make<E>(make: impl FnOnce() -> Result<Interpreter, E>) -> Result<Interpreter, E> {
    let mut guard = Guard::new();
    let interpreter = make()?;
    guard.ours().alive.push(interpreter);
    Ok(interpreter)
}

/// Ends an interpreter, one at a time.
pub(crate) fn end(interpreter: Interpreter, end: impl FnOnce()) {
    let mut guard = Guard::new();
    guard.ours().alive.retain(|other| *other != interpreter);
    guard.ours().abandoned.retain(|other| *other != interpreter);
    end();
}

/// Remembers that nothing can end this one.
pub(crate) fn abandon(interpreter: Interpreter) {
    Guard::new().ours().abandoned.push(interpreter);
}

/// Takes abandoned interpreters out of CPython's list, so that it can end. They and their threads go
/// with the process.
///
/// # Safety
/// The thread is attached to the main interpreter, which is about to end: no other thread makes or ends
/// an interpreter from here on.
pub unsafe fn forget_abandoned() {
    let mut guard = Guard::new();
    let abandoned = std::mem::take(&mut guard.ours().abandoned);
    // SAFETY: passed on; nobody of ours changes the list while the lock is held.
    unsafe { unlink(&abandoned) };
}

/// Takes our interpreters out of CPython's list, until the fork is over. To be called before CPython takes
/// locks of its own for the fork, and without the interpreter's.
pub fn before_fork() {
    let deadline = deadline(FORK_PATIENCE);
    // SAFETY: a mutex that was initialised; a live structure.
    let locked =
        unsafe { libc::pthread_mutex_timedlock(LOCK.mutex.get(), &raw const deadline) } == 0;
    if !locked {
        return;
    }
    // SAFETY: the mutex is held, until the fork is over.
    let ours = unsafe { &mut *LOCK.ours.get() };
    ours.fork_holds_lock = true;
    let alive = ours.alive.clone();
    // SAFETY: nobody of ours changes the list while the lock is held.
    ours.unlinked = unsafe { unlink(&alive) };
}

/// The fork is over, and this is the process that forked.
pub fn after_fork_in_parent() {
    after_fork(|unlinked| {
        // SAFETY: they were in the list before; nobody of ours changes it while the lock is held.
        unsafe { link(unlinked) };
    });
}

/// The fork is over, and this is the new process.
pub fn after_fork_in_child() {
    // Their threads are not here: to this process they never were.
    after_fork(|_| ());
}

fn after_fork(act: impl FnOnce(&[Interpreter])) {
    // SAFETY: either this thread holds the mutex since `before_fork`, or the flag is unset.
    let ours = unsafe { &mut *LOCK.ours.get() };
    if !ours.fork_holds_lock {
        return;
    }
    ours.fork_holds_lock = false;
    act(&std::mem::take(&mut ours.unlinked));
    // SAFETY: the thread that locked it, or its only copy.
    unsafe { libc::pthread_mutex_unlock(LOCK.mutex.get()) };
}

fn deadline(patience: Duration) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    now.tv_sec += libc::time_t::try_from(patience.as_secs()).unwrap_or(0);
    now
}

// --- CPython's list

fn offsets() -> Option<&'static Offsets> {
    // SAFETY: the state of a CPython that `prepare` knows: only then there is an interpreter of ours.
    let offsets = unsafe { &*(&raw mut _PyRuntime).cast::<Offsets>() };
    (&offsets.cookie == b"xdebugpy").then_some(offsets)
}

fn link_at(base: *mut c_void, offset: u64) -> *mut *mut py::PyInterpreterState {
    base.cast::<u8>().wrapping_add(usize::try_from(offset).unwrap_or(0)).cast()
}

/// Takes interpreters out; returns those that were there.
///
/// # Safety
/// Nobody else changes the list.
unsafe fn unlink(interpreters: &[Interpreter]) -> Vec<Interpreter> {
    let Some(offsets) = offsets().filter(|_| !interpreters.is_empty()) else { return Vec::new() };
    let mut found = Vec::new();
    let mut link = link_at(&raw mut _PyRuntime, offsets.interpreters_head);
    // SAFETY: the list's head and each entry's link lie where CPython says that they do, the entries are
    // alive because nobody ends one, and the last link is null.
    unsafe {
        while !(*link).is_null() {
            let next = link_at((*link).cast(), offsets.interpreter_next);
            if interpreters.contains(&Interpreter(*link)) {
                found.push(Interpreter(*link));
                *link = *next;
            } else {
                link = next;
            }
        }
    }
    found
}

/// Puts them back.
///
/// # Safety
/// They were taken out by [`unlink`] and are alive; nobody else changes the list.
unsafe fn link(interpreters: &[Interpreter]) {
    let Some(offsets) = offsets() else { return };
    let head = link_at(&raw mut _PyRuntime, offsets.interpreters_head);
    for interpreter in interpreters {
        let next = link_at(interpreter.0.cast(), offsets.interpreter_next);
        // SAFETY: as in `unlink`.
        unsafe {
            *next = *head;
            *head = interpreter.0;
        }
    }
}
