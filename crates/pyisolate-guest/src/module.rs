//! The extension module `_guest`: multi-phase, with its own lock in every interpreter.
//!
//! It is not put into `sys.modules`. Whoever loads it (the launcher, the zygote, later a
//! sub-interpreter's thread) gets the functions below; the runtime's Python source is compiled into
//! it and sees it as `native`.
#![expect(unsafe_code, reason = "the C-API is called here and in ffi.rs alone")]

use std::cell::RefCell;
use std::ffi::{CStr, OsString, c_int, c_void};
use std::os::fd::IntoRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyisolate_abi::message::{Payload, ToHost};
use pyo3_ffi as py;

use crate::ffi::{
    self, Borrowed, Buffer, ErrorKind, Object, PyResult, Raised, f64_of, list_items, raise, str_of,
    u64_of, unlocked,
};
use crate::link::{Command, Link, LinkError, OwnedAnswer, OwnedPart, Parcel};
use crate::{init, launch, simple, sources, zygote};

/// One interpreter's guest runtime. Reached with the interpreter's lock held, never across an
/// `unlocked`.
#[derive(Default)]
pub(crate) struct State {
    /// The channel, once this process is a cell.
    link: RefCell<Option<Arc<Link>>>,
    runtime: RefCell<Option<Object>>,
    dumps: RefCell<Option<Object>>,
    /// Where a sub-interpreter's limits are applied; a process has its own.
    limited: RefCell<Option<Limited>>,
}

/// Takes the most memory that an interpreter may have, in bytes.
pub(crate) type Limited = Box<dyn Fn(u64)>;

impl State {
    pub(crate) fn set_link(&self, link: Option<Arc<Link>>) {
        *self.link.borrow_mut() = link;
    }

    pub(crate) fn set_limited(&self, limited: Option<Limited>) {
        *self.limited.borrow_mut() = limited;
    }

    pub(crate) fn link(&self) -> PyResult<Arc<Link>> {
        let link = self.link.borrow();
        link.clone().ok_or_else(|| ffi::raise_system_error("this interpreter is no cell yet"))
    }

    /// A function of the runtime's Python source.
    pub(crate) fn runtime(&self, name: &CStr) -> PyResult<Object> {
        let runtime = self.runtime.borrow();
        runtime.as_ref().ok_or(Raised)?.attribute(name)
    }

    /// Drops what this interpreter's module owns.
    fn clear(&self) {
        self.link.take();
        self.runtime.take();
        self.dumps.take();
        self.limited.take();
    }
}

pub(crate) fn raise_link(error: &LinkError) -> Raised {
    let kind = match error {
        LinkError::TooLarge { .. } => ErrorKind::Value,
        // No want of memory of this cell's, which would end it.
        LinkError::NoRoom { .. } => ErrorKind::Runtime,
        LinkError::Stopped => ErrorKind::Connection,
        LinkError::Channel(_) | LinkError::Frame(_) | LinkError::Store(_) => ErrorKind::Connection,
    };
    raise(kind, &error.to_string())
}

// --- the functions ------------------------------------------------------------------------------

type Function = fn(&State, &[Borrowed]) -> PyResult<Object>;

fn take_command(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [] = expect(arguments)?;
    let link = state.link()?;
    let command = unlocked(|| link.next_command()).map_err(|error| raise_link(&error))?;
    match command {
        None => Ok(Object::none()),
        Some(Command::Configure(settings)) => {
            Object::tuple([Object::text("configure")?, Object::bytes(&settings)?])
        }
        Some(Command::Exec { id, source }) => {
            let bytes = unlocked(|| source.first_bytes())
                .map_err(|error| raise_link(&LinkError::Store(error)))?;
            let source = std::str::from_utf8(&bytes)
                .map_err(|_| raise(ErrorKind::Value, "exec: source is not UTF-8"))?;
            Object::tuple([Object::text("exec")?, Object::int(id.into())?, Object::text(source)?])
        }
        Some(Command::Call { id, target, arguments }) => Object::tuple([
            Object::text("call")?,
            Object::int(id.into())?,
            Object::text(&target)?,
            parcel_object(arguments)?,
        ]),
    }
}

fn take_post(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [timeout] = expect(arguments)?;
    let seconds = f64_of(timeout)?;
    // Negative: no timeout. What is too long to count is none either.
    let deadline = Duration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|timeout| Instant::now().checked_add(timeout));
    let link = state.link()?;
    let post = unlocked(|| link.next_post(deadline)).map_err(|error| raise_link(&error))?;
    match post {
        Some(parcel) => parcel_object(parcel),
        None => Err(raise(ErrorKind::Timeout, &format!("recv: nothing came within {seconds} s"))),
    }
}

/// `post(message)`
fn post(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [message] = expect(arguments)?;
    send_payload(state, &Held::of_object(state, message)?, ToHost::Post)
}

fn send_log(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [level, message, pickle, buffers] = expect(arguments)?;
    let (level, message) = (str_of(level)?, str_of(message)?);
    let held = Held::of(pickle, buffers)?;
    send_payload(state, &held, |fields| ToHost::Log { level, message, fields })
}

fn send_metric(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [name, pickle, buffers] = expect(arguments)?;
    let name = str_of(name)?;
    let held = Held::of(pickle, buffers)?;
    send_payload(state, &held, |sample| ToHost::Metric { name, sample })
}

fn send_result(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [id, value] = expect(arguments)?;
    let id = id_of(id)?;
    let held = Held::of_object(state, value)?;
    send_payload(state, &held, |value| ToHost::Result { id, value })
}

fn send_done(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [id] = expect(arguments)?;
    send(state, &ToHost::Done(id_of(id)?))
}

fn send_failed(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [id, kind, message, traceback] = expect(arguments)?;
    let (kind, message, traceback) = (str_of(kind)?, str_of(message)?, str_of(traceback)?);
    send(state, &ToHost::Failed { id: id_of(id)?, kind, message, traceback })
}

fn request(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [capability, action, pickle, buffers] = expect(arguments)?;
    let (capability, action) = (str_of(capability)?, str_of(action)?);
    let held = Held::of(pickle, buffers)?;
    let link = state.link()?;
    let answer = unlocked(|| link.request(capability, action, held.pickle(), &held.buffers()))
        .map_err(|error| raise_link(&error))?;
    match answer {
        OwnedAnswer::Granted(value) => {
            Object::tuple([Object::text("granted")?, parcel_object(value)?])
        }
        OwnedAnswer::Handed(value, fd) => {
            let fd = u64::try_from(fd.into_raw_fd()).unwrap_or(0);
            Object::tuple([
                Object::text("handed")?,
                Object::tuple([parcel_object(value)?, Object::int(fd)?])?,
            ])
        }
        OwnedAnswer::Denied(why) => Object::tuple([Object::text("denied")?, Object::text(&why)?]),
        OwnedAnswer::Failed { kind, message } => {
            let error = Object::tuple([Object::text(&kind)?, Object::text(&message)?])?;
            Object::tuple([Object::text("failed")?, error])
        }
    }
}

/// `limit(limited, message_bytes, mem_bytes, open_files, threads, cpu_seconds)`
fn limit(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [limited, message_bytes, mem_bytes, open_files, threads, cpu_seconds] = expect(arguments)?;
    let (message_bytes, mem_bytes) = (u64_of(message_bytes)?, u64_of(mem_bytes)?);
    state.link()?.set_limits(message_bytes, mem_bytes);
    if let Some(limited) = &*state.limited.borrow() {
        limited(mem_bytes);
    } else if u64_of(limited)? == 1 {
        zygote::limit(
            message_bytes,
            mem_bytes,
            u64_of(open_files)?,
            u64_of(threads)?,
            u64_of(cpu_seconds)?,
        )
        .map_err(|error| ffi::raise_system_error(&error.to_string()))?;
    }
    Ok(Object::none())
}

/// `launch()`: this process becomes the launcher; returns its exit status.
fn launch_process(_: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [] = expect(arguments)?;
    Object::int(launch::run().into())
}

/// `init(launcher_arguments)`: the life of a virtual machine, of which this is the first process; never
/// returns.
fn run_init(_: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [launcher] = expect(arguments)?;
    if std::process::id() != 1 {
        return Err(raise(ErrorKind::Runtime, "this is not the first process of a machine"));
    }
    let launcher = list_items(launcher)?.into_iter().map(|it| str_of(it).map(OsString::from));
    init::run(&launcher.collect::<PyResult<Vec<_>>>()?)
}

/// `zygote(ground, packages)`: this process becomes the zygote, and its children cells; never returns.
fn run_zygote(state: &State, arguments: &[Borrowed]) -> PyResult<Object> {
    let [ground, packages] = expect(arguments)?;
    zygote::run(state, str_of(ground)?, packages)
}

// --- between Python objects and the link --------------------------------------------------------

fn expect<const N: usize>(arguments: &[Borrowed]) -> PyResult<[Borrowed; N]> {
    <[Borrowed; N]>::try_from(arguments)
        .map_err(|_| raise(ErrorKind::Value, &format!("takes {N} arguments")))
}

fn id_of(object: Borrowed) -> PyResult<u32> {
    u32::try_from(u64_of(object)?).map_err(|_| raise(ErrorKind::Value, "id is out of range"))
}

fn send(state: &State, message: &ToHost<'_>) -> PyResult<Object> {
    let link = state.link()?;
    let sent = link.try_send(message).and_then(|sent| match sent {
        true => Ok(()),
        false => unlocked(|| link.send(message)),
    });
    sent.map_err(|error| raise_link(&error))?;
    Ok(Object::none())
}

/// The bytes of one message, held until it was sent.
struct Held {
    pickle: Pickle,
    buffers: Vec<Buffer>,
}

enum Pickle {
    /// Made here, as most are.
    Simple(Vec<u8>),
    /// Made by the runtime's pickler.
    Whole(Buffer),
}

impl Held {
    fn of(pickle: Borrowed, buffers: Borrowed) -> PyResult<Self> {
        let buffers = list_items(buffers)?.into_iter().map(Buffer::of).collect::<PyResult<_>>()?;
        Ok(Self { pickle: Pickle::Whole(Buffer::of(pickle)?), buffers })
    }

    fn of_object(state: &State, object: Borrowed) -> PyResult<Self> {
        // SAFETY: a live object that CPython's caller lent us.
        if let Some(pickle) = unsafe { simple::pickle(object) } {
            return Ok(Self { pickle: Pickle::Simple(pickle), buffers: Vec::new() });
        }
        let dumps = match &*state.dumps.borrow() {
            Some(dumps) => Object::borrowed(dumps.as_ptr())?,
            None => return Err(ffi::raise_system_error("the runtime is not loaded")),
        };
        let pair = dumps.call([Object::borrowed(object)?])?;
        // SAFETY: a live object; what is no tuple of two raises; the items live as long as it does.
        let (pickle, buffers) = unsafe {
            (py::PyTuple_GetItem(pair.as_ptr(), 0), py::PyTuple_GetItem(pair.as_ptr(), 1))
        };
        if pickle.is_null() || buffers.is_null() {
            return Err(Raised);
        }
        Self::of(pickle, buffers)
    }

    fn pickle(&self) -> &[u8] {
        match &self.pickle {
            Pickle::Simple(pickle) => pickle,
            Pickle::Whole(pickle) => pickle.as_slice(),
        }
    }

    fn buffers(&self) -> Vec<&[u8]> {
        self.buffers.iter().map(Buffer::as_slice).collect()
    }
}

/// Sends a message around what is held: at once if it is small and there is room, else with the
/// interpreter's lock released.
fn send_payload<'a>(
    state: &State,
    held: &'a Held,
    message: impl Fn(Payload<'a>) -> ToHost<'a>,
) -> PyResult<Object> {
    let (pickle, buffers) = (held.pickle(), held.buffers());
    let link = state.link()?;
    let send = || {
        link.check_size(pickle, &buffers)?;
        if buffers.is_empty() && link.try_send(&message(Payload::inline(pickle)))? {
            return Ok(());
        }
        unlocked(|| link.send_payload(pickle, &buffers, &message))
    };
    send().map_err(|error| raise_link(&error))?;
    Ok(Object::none())
}

/// `(None | (fd, size), pickle, [buffers])`, each part bytes or an `(offset, length)` in the store.
fn parcel_object(parcel: Parcel) -> PyResult<Object> {
    let mut parts = parcel.parts.into_iter().map(|part| match part {
        OwnedPart::Inline(bytes) => Object::bytes(&bytes),
        OwnedPart::Stored { offset, len } => {
            Object::tuple([Object::int(offset)?, Object::int(len.into())?])
        }
    });
    let pickle = parts.next().unwrap_or_else(|| Object::bytes(&[]))?;
    let buffers = Object::list(parts.collect::<PyResult<_>>()?)?;
    let store = match parcel.store {
        None => Object::none(),
        Some((fd, size)) => {
            let fd = u64::try_from(fd.into_raw_fd()).unwrap_or(0);
            Object::tuple([Object::int(fd)?, Object::int(size)?])?
        }
    };
    Object::tuple([store, pickle, buffers])
}

// --- the module ---------------------------------------------------------------------------------

/// One entry of the method table: a C function that runs a [`Function`] and turns panics, which
/// only a fault of ours could cause, into a `SystemError`.
macro_rules! methods {
    ($($name:ident => $function:expr),* $(,)?) => {
        [$({
            unsafe extern "C" fn entry(
                module: *mut py::PyObject,
                arguments: *mut *mut py::PyObject,
                count: py::Py_ssize_t,
            ) -> *mut py::PyObject {
                // SAFETY: CPython passes the module and `count` live arguments.
                unsafe { enter($function, module, arguments, count) }
            }
            method(concat!(stringify!($name), "\0"), entry)
        },)* py::PyMethodDef::zeroed()]
    };
}

const fn method(name: &'static str, entry: py::PyCFunctionFast) -> py::PyMethodDef {
    py::PyMethodDef {
        ml_name: name.as_ptr().cast(),
        ml_meth: py::PyMethodDefPointer { PyCFunctionFast: entry },
        ml_flags: py::METH_FASTCALL,
        ml_doc: std::ptr::null(),
    }
}

/// # Safety
/// `module` is a live `_guest` module, and `arguments` points to `count` live objects.
unsafe fn enter(
    function: Function,
    module: *mut py::PyObject,
    arguments: *const *mut py::PyObject,
    count: py::Py_ssize_t,
) -> *mut py::PyObject {
    let run = || {
        let count = usize::try_from(count).unwrap_or(0);
        let arguments = if count == 0 {
            &[]
        } else {
            // SAFETY: `count` live objects (this function's precondition).
            unsafe { std::slice::from_raw_parts(arguments, count) }
        };
        // SAFETY: a live `_guest` module (this function's precondition).
        function(unsafe { state_of(module) }?, arguments)
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(object)) => object.into_raw(),
        Ok(Err(Raised)) => ffi::null(),
        Err(_) => {
            let _ = ffi::raise_system_error("the guest runtime panicked");
            ffi::null()
        }
    }
}

/// # Safety
/// `module` is a live `_guest` module.
pub(crate) unsafe fn state_of<'a>(module: *mut py::PyObject) -> PyResult<&'a State> {
    // SAFETY: a live module; its state is what module_exec put there, and lives as long as it does.
    let state = unsafe { py::PyModule_GetState(module) }.cast::<*const State>();
    if state.is_null() {
        return Err(Raised);
    }
    // SAFETY: module state of the size that the definition asked for, zeroed or filled below.
    unsafe { (*state).as_ref() }.ok_or(Raised)
}

unsafe extern "C" fn module_exec(module: *mut py::PyObject) -> c_int {
    let fill = || {
        // SAFETY: CPython calls this once with a new module whose state is zeroed.
        let slot = unsafe { py::PyModule_GetState(module) }.cast::<*const State>();
        let state = Box::into_raw(Box::<State>::default());
        // SAFETY: `slot` points to module state of a pointer's size.
        unsafe { *slot = state };
        // SAFETY: just made; freed by module_free alone.
        let state = unsafe { &*state };
        let runtime = sources::module(0, c"_pyisolate_runtime")?;
        let native = Object::borrowed(module)?;
        runtime.set_attribute(c"native", &native)?;
        let post = native.attribute(c"post")?;
        post.set_attribute(c"__module__", &Object::text("builtins")?)?;
        runtime.set_attribute(c"post", &post)?;
        let wiring = sources::module(1, c"_pyisolate_hooks")?;
        runtime.set_attribute(c"wiring", &wiring)?;
        runtime.set_attribute(c"wiring_codes", &sources::parts()?)?;
        *state.dumps.borrow_mut() = Some(runtime.attribute(c"dumps")?);
        *state.runtime.borrow_mut() = Some(runtime);
        Ok::<(), Raised>(())
    };
    match catch_unwind(AssertUnwindSafe(fill)) {
        Ok(Ok(())) => 0,
        Ok(Err(Raised)) => -1,
        Err(_) => {
            let _ = ffi::raise_system_error("loading the guest runtime panicked");
            -1
        }
    }
}

/// What the state refers to refers back, by way of the runtime's globals: without this, the two would keep
/// each other for ever.
unsafe extern "C" fn module_traverse(
    module: *mut py::PyObject,
    visit: py::visitproc,
    data: *mut c_void,
) -> c_int {
    // SAFETY: CPython passes its live module.
    let Ok(state) = (unsafe { state_of(module) }) else { return 0 };
    for held in [&state.runtime, &state.dumps] {
        // What is being replaced seems to be held from elsewhere, which keeps it.
        let Ok(held) = held.try_borrow() else { continue };
        if let Some(object) = &*held {
            // SAFETY: CPython's own function, for an object that the module owns.
            let stop = unsafe { visit(object.as_ptr(), data) };
            if stop != 0 {
                return stop;
            }
        }
    }
    0
}

unsafe extern "C" fn module_clear(module: *mut py::PyObject) -> c_int {
    // SAFETY: CPython passes its live module.
    if let Ok(state) = unsafe { state_of(module) } {
        state.clear();
    }
    0
}

unsafe extern "C" fn module_free(module: *mut c_void) {
    // SAFETY: CPython passes its live module.
    let slot = unsafe { py::PyModule_GetState(module.cast()) }.cast::<*mut State>();
    if slot.is_null() {
        return;
    }
    // SAFETY: module state of a pointer's size.
    let state = unsafe { std::mem::replace(&mut *slot, std::ptr::null_mut()) };
    if !state.is_null() {
        // SAFETY: made by module_exec from a Box, freed once because the slot is null now.
        drop(unsafe { Box::from_raw(state) });
    }
}

/// A static that CPython gets a mutable pointer to. It is only ever touched through that pointer.
#[repr(transparent)]
struct ForCPython<T>(std::cell::UnsafeCell<T>);

// SAFETY: the tables are written by CPython alone, under its own import lock.
unsafe impl<T> Sync for ForCPython<T> {}

static METHODS: ForCPython<[py::PyMethodDef; 14]> =
    ForCPython(std::cell::UnsafeCell::new(methods! {
        take_command => take_command,
        take_post => take_post,
        post => post,
        send_log => send_log,
        send_metric => send_metric,
        send_result => send_result,
        send_done => send_done,
        send_failed => send_failed,
        request => request,
        limit => limit,
        init => run_init,
        launch => launch_process,
        zygote => run_zygote,
    }));

static SLOTS: ForCPython<[py::PyModuleDef_Slot; 3]> = ForCPython(std::cell::UnsafeCell::new([
    py::PyModuleDef_Slot { slot: py::Py_mod_exec, value: module_exec as *mut c_void },
    py::PyModuleDef_Slot {
        slot: py::Py_mod_multiple_interpreters,
        value: py::Py_MOD_PER_INTERPRETER_GIL_SUPPORTED,
    },
    py::PyModuleDef_Slot { slot: 0, value: std::ptr::null_mut() },
]));

static DEFINITION: ForCPython<py::PyModuleDef> =
    ForCPython(std::cell::UnsafeCell::new(py::PyModuleDef {
        m_base: py::PyModuleDef_HEAD_INIT,
        m_name: c"_guest".as_ptr(),
        m_doc: c"The guest's half of the seven operations.".as_ptr(),
        m_size: size_of::<*const State>() as py::Py_ssize_t,
        m_methods: METHODS.0.get().cast(),
        m_slots: SLOTS.0.get().cast(),
        m_traverse: Some(module_traverse),
        m_clear: Some(module_clear),
        m_free: Some(module_free),
    }));

/// What CPython calls when it loads `_guest`.
///
/// # Safety
/// Called by CPython's import machinery, with the thread attached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyInit__guest() -> *mut py::PyObject {
    // SAFETY: a definition that lives as long as the process.
    unsafe { py::PyModuleDef_Init(DEFINITION.0.get()) }
}
