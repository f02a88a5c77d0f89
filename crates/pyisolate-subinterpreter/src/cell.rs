//! One guest: its interpreter, its thread, and what the host may do with it from outside.
#![expect(unsafe_code, reason = "makes and ends interpreters through the C-API")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyisolate_channel::{GuestControl, GuestEnd, GuestFds};
use pyisolate_guest::{Guest, Lived, live, unmade};
use pyisolate_jail::ThreadJail;
use pyo3_ffi as py;

use crate::capi::{self, PyInterpreterConfig};
use crate::census::Census;
use crate::error::StartError;
use crate::list::{self, Interpreter};
use crate::memory::{Account, Counting};
use crate::{guard, stop};

/// The stack of a guest's thread, in bytes: enough for the deepest recursion that CPython's own
/// counters let C code reach. Pages that are not touched cost nothing.
const STACK_BYTES: usize = 64 << 20;

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// Its runtime returned: the host said stop, or ended it.
    Stopped,
    /// Its runtime raised.
    Failed,
    /// Its runtime found no memory to go on with.
    OutOfMemory,
    /// It could not be confined, or its interpreter not be made.
    Unmade,
    /// The kernel ended its thread for a system call: `os._exit` or `abort`. Its interpreter stays.
    ThreadKilled,
    /// It could not be ended. Its thread, its interpreter and its memory stay until the process ends.
    Abandoned,
}

/// Where a guest's thread is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Starting,
    /// It is alive as long as this stands here.
    Running(Interpreter),
    Ending,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) ended: Option<Ended>,
    pub(crate) stopping: bool,
    /// The trace function was left in its interpreter.
    pub(crate) told: bool,
    /// Threads of the host that are attached to the interpreter, or about to be.
    pub(crate) stoppers: u32,
    /// Its thread gives way to every other, for good.
    yields: bool,
}

/// What a guest's thread shares with the host's.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Condvar,
    /// Put there and taken away by the guest's thread: it owns a descriptor of that thread's table.
    pub(crate) control: Mutex<Option<GuestControl>>,
    /// Not kept by it: whoever drops it last closes descriptors, which are the host's table's, and the
    /// guest's thread has another.
    pub(crate) jail: Weak<ThreadJail>,
    trees: Arc<Trees>,
    census: Arc<Census>,
    /// Tells the host that a guest which it stopped has ended.
    on_end: Box<dyn Fn() + Send + Sync>,
    account: Account,
    /// The kernel's number of the thread; 0 while unknown.
    tid: AtomicI32,
    cpu_ms: AtomicU64,
    left: AtomicBool,
}

/// Every update under these locks is whole before anything can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        longest: Duration,
    ) -> MutexGuard<'a, State> {
        match self.changed.wait_timeout(state, longest) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    /// Says how the guest ended. The first word is the one that counts; whether this was it.
    fn end(&self, ended: Ended) -> bool {
        self.cpu_ms();
        let mut state = lock(&self.state);
        let first = state.ended.is_none();
        state.ended.get_or_insert(ended);
        self.changed.notify_all();
        first
    }

    /// The guest cannot say by itself that it ended. Called by a thread of the host's: the guest's own
    /// has other descriptors.
    pub(crate) fn give_up(&self, ended: Ended) {
        if self.end(ended) {
            if let Phase::Running(interpreter) = lock(&self.state).phase {
                list::abandon(interpreter);
            }
            self.leave_census();
            self.say_ended();
        }
    }

    /// Called by a thread of the host's, as above.
    pub(crate) fn say_ended(&self) {
        (self.on_end)();
    }

    /// Brings the guest's thread back if it waits for the host. One that has looked and does not sleep yet
    /// is not woken, and has to be roused again.
    pub(crate) fn rouse(&self) {
        if let Some(control) = &*lock(&self.control) {
            let _ = control.mark_dead();
        }
    }

    /// A thread that cannot be ended gets what processor time nobody else wants. Without privileges it
    /// does not get its priority back, so before that it has some time to return.
    pub(crate) fn yield_to_others_after(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = lock(&self.state);
        while !matches!(state.phase, Phase::Ending) {
            let left = deadline.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                state = self.wait(state, left);
                continue;
            }
            // One that is making its interpreter holds what others wait for.
            if matches!(state.phase, Phase::Running(_)) && !self.thread_is_gone() {
                state.yields = true;
                let idle = libc::sched_param { sched_priority: 0 };
                let tid = self.tid.load(Ordering::Acquire);
                // SAFETY: a number and a live structure. If it fails, the thread stays as it is.
                unsafe { libc::sched_setscheduler(tid, libc::SCHED_IDLE, &raw const idle) };
            }
            return;
        }
    }

    /// It is not waited for any more. A thread that was given up may come back all the same.
    fn leave_census(&self) {
        if !self.left.swap(true, Ordering::SeqCst) {
            self.census.leave();
        }
    }

    /// Whether the kernel has no such thread any more.
    pub(crate) fn thread_is_gone(&self) -> bool {
        let tid = self.tid.load(Ordering::Acquire);
        // Its clock goes with it. A thread behind its wall has no /proc to look at.
        tid != 0 && thread_cpu(tid).is_none()
    }

    fn cpu_ms(&self) -> u64 {
        let tid = self.tid.load(Ordering::Acquire);
        if tid != 0
            && let Some(used) = thread_cpu(tid)
        {
            let used = u64::try_from(used.as_millis()).unwrap_or(u64::MAX);
            self.cpu_ms.fetch_max(used, Ordering::Relaxed);
        }
        self.cpu_ms.load(Ordering::Relaxed)
    }
}

/// The CPU time of a thread of this process.
fn thread_cpu(tid: i32) -> Option<Duration> {
    // As the kernel puts a thread into a clock's number: CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED.
    let clock = (!tid << 3) | 0b110;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the time. A thread that is gone, or was never this process's, is an error.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

/// What an interpreter cannot find by itself behind its wall.
#[derive(Debug)]
pub struct Trees {
    /// Folders of packages, for `sys.path`.
    pub packages: Vec<PathBuf>,
    /// The folder of the standard library's extension modules. Others are not loaded.
    pub extensions: PathBuf,
}

/// A guest, seen from the host.
pub struct Cell {
    shared: Arc<Shared>,
    jail: Arc<ThreadJail>,
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Cell").field("ended", &self.ended()).finish_non_exhaustive()
    }
}

impl Cell {
    /// Starts a thread, confines it, and makes an interpreter with the guest runtime in it, which
    /// says `Ready` on its channel. Returns as soon as the thread has its own descriptors.
    ///
    /// `on_end` is called from a thread of the host's when the guest has ended after [`Cell::stop`]; of
    /// another end the host hears by the channel.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind.
    pub fn start(
        fds: GuestFds,
        jail: Arc<ThreadJail>,
        trees: Arc<Trees>,
        census: Arc<Census>,
        on_end: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Self, StartError> {
        crate::prepare(&trees.extensions)?;
        census.enter()?;
        let state = State {
            phase: Phase::Starting,
            ended: None,
            stopping: false,
            told: false,
            stoppers: 0,
            yields: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            control: Mutex::default(),
            jail: Arc::downgrade(&jail),
            trees,
            census,
            on_end,
            account: Account::new(),
            tid: AtomicI32::new(0),
            cpu_ms: AtomicU64::new(0),
            left: AtomicBool::new(false),
        });
        let (confined, heard) = sync_channel(1);
        let numbers = [fds.memory.as_raw_fd(), fds.socket.as_raw_fd()];
        let guest = Arc::clone(&shared);
        let started = std::thread::Builder::new()
            .name("pyisolate-cell".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || guest.run(numbers, confined));
        if let Err(error) = started {
            shared.leave_census();
            return Err(StartError::Thread(error));
        }
        // Until then the thread looks at this table, and the descriptors have to stay.
        match heard.recv() {
            Ok(Ok(())) => Ok(Self { shared, jail }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Died),
        }
    }

    /// Ends the guest, whatever it does. Returns at once.
    pub fn stop(&self) {
        stop::begin(&self.shared, &self.jail);
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        lock(&self.shared.state).ended
    }

    /// Its CPU time so far, in milliseconds; the last figure known once it ended.
    #[must_use]
    pub fn cpu_ms(&self) -> u64 {
        self.shared.cpu_ms()
    }

    /// How many descriptors it has open; `None` once its thread is gone.
    #[must_use]
    pub fn open_files(&self) -> Option<u64> {
        let tid = self.shared.tid.load(Ordering::Acquire);
        let entries = std::fs::read_dir(format!("/proc/self/task/{tid}/fd")).ok()?;
        u64::try_from(entries.count()).ok()
    }

    /// The memory that its interpreter has, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.shared.account.used_bytes()
    }
}

impl Shared {
    /// The guest's thread.
    fn run(self: Arc<Self>, numbers: [RawFd; 2], confined: SyncSender<Result<(), StartError>>) {
        self.tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
        let mut keep = numbers;
        keep.sort_unstable();
        // SAFETY: this thread is new and owns no descriptor; those of `numbers` are adopted below, in
        // the table that is this thread's own from here on.
        let entered = self.jail.upgrade().map(|jail| unsafe { jail.enter(&keep) });
        let report = match entered {
            Some(Ok(report)) => report,
            Some(Err(error)) => {
                self.leave_census();
                let _ = confined.send(Err(StartError::Confine(error)));
                return;
            }
            // Who starts a cell holds it until this thread has said what came of it.
            None => return self.leave_census(),
        };
        // SAFETY: in this thread's table nobody else owns them.
        let [memory, socket] = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
        let _ = confined.send(Ok(()));
        drop(confined);
        let ended = match GuestEnd::attach(memory, socket) {
            Ok(end) => {
                *lock(&self.control) = Some(end.control.clone());
                // Who stopped it before that had nothing to rouse it with.
                if lock(&self.state).stopping {
                    self.rouse();
                }
                self.inhabit(end, report.encode())
            }
            Err(error) => {
                tracing::error!(%error, "a cell's channel could not be attached to");
                Ended::Unmade
            }
        };
        self.end(ended);
        self.leave_census();
    }

    /// Makes the interpreter, lets the guest live in it, and ends it.
    fn inhabit(self: &Arc<Self>, end: GuestEnd, report: String) -> Ended {
        let counting = Counting::on(&self.account);
        let interpreter = match list::make(make) {
            Ok(interpreter) => interpreter,
            Err(why) => {
                self.end(Ended::Unmade);
                unmade(end, &why);
                lock(&self.control).take();
                return Ended::Unmade;
            }
        };
        {
            let mut state = lock(&self.state);
            state.phase = Phase::Running(interpreter);
            self.changed.notify_all();
        }
        // CPython may never free the module that holds this; nothing else is to stay with it.
        let me = Arc::downgrade(self);
        let limited = Box::new(move |max| {
            if let Some(me) = me.upgrade() {
                me.account.set_max_bytes(max);
            }
        });
        // SAFETY: attached to the interpreter that was just made.
        let lived = unsafe {
            live(
                Guest { end, report, packages: &self.trees.packages, limited },
                guard::guard_this_thread,
            )
        };
        let ended = match lived {
            Lived::Stopped => Ended::Stopped,
            Lived::Failed => Ended::Failed,
            Lived::OutOfMemory => Ended::OutOfMemory,
        };
        // SAFETY: attached, with no Python frame. What guest code left to be run at the end (exit functions,
        // finalizers, generators that are suspended) is refused as a recursion that is too deep.
        unsafe { py::Py_SetRecursionLimit(0) };
        guard::leave_this_thread();
        let yields = self.leave();
        // Whoever waits for the guest need not wait for its interpreter to be taken apart. The host
        // hears that the channel is closed, and finds how it ended.
        self.end(ended);
        lock(&self.control).take();
        if yields {
            // It would keep others from making interpreters for as long as it is kept from running.
            return Ended::Abandoned;
        }
        self.account.set_max_bytes(u64::MAX);
        // What is taken apart may have something left to write, to a pipe that nobody reads.
        close_all();
        // SAFETY: attached, with the interpreter's only thread state: `leave` saw to that.
        list::end(interpreter, || unsafe { py::Py_EndInterpreter(py::PyThreadState_Get()) });
        // SAFETY: the interpreter that all of them were made for is gone.
        unsafe { counting.free_rest() };
        ended
    }

    /// Waits, detached, until no thread of the host's is attached to the interpreter, and lets none
    /// in any more. Whether this thread gives way to every other by now.
    fn leave(&self) -> bool {
        // SAFETY: attached; reattached below.
        let saved = unsafe { py::PyEval_SaveThread() };
        let mut state = lock(&self.state);
        while state.stoppers > 0 {
            state = self.wait(state, Duration::from_millis(100));
        }
        state.phase = Phase::Ending;
        let yields = state.yields;
        self.changed.notify_all();
        drop(state);
        // SAFETY: the state that was saved on this thread.
        unsafe { py::PyEval_RestoreThread(saved) };
        yields
    }
}

/// Closes every descriptor of the guest's: the channel's are gone, so the rest is what guest code opened.
fn close_all() {
    // SAFETY: closes numbers in a table that is this thread's alone, whose owners are about to be taken
    // apart, and are written for descriptors that are closed already.
    unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
}

/// Makes an interpreter with its own lock and attaches this thread to it.
///
/// # Errors
/// CPython's own words.
fn make() -> Result<Interpreter, String> {
    let config = PyInterpreterConfig {
        use_main_obmalloc: 0,
        allow_fork: 0,
        allow_exec: 0,
        allow_threads: 0,
        allow_daemon_threads: 0,
        check_multi_interp_extensions: 1,
        gil: capi::OWN_GIL,
    };
    let mut state = std::ptr::null_mut();
    // SAFETY: CPython is initialised (`prepare`), this thread is not attached, and both pointers are
    // valid.
    let status = unsafe { capi::Py_NewInterpreterFromConfig(&raw mut state, &raw const config) };
    if state.is_null() {
        let why = match status.message {
            message if message.is_null() => "it gave no reason".into(),
            // SAFETY: a static text of CPython's.
            message => unsafe { CStr::from_ptr(message) }.to_string_lossy(),
        };
        return Err(format!("CPython could not make a sub-interpreter: {why}"));
    }
    // SAFETY: the state that this thread is attached by.
    Ok(Interpreter(unsafe { capi::PyThreadState_GetInterpreter(state) }))
}
