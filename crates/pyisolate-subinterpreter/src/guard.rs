//! What makes an attack harder without being a wall: an audit hook that refuses, on the threads of
//! cells alone, what ordinary code has no need of.
//!
//! It is written in C's terms because a hook in Python can be found and emptied. It holds against
//! Python code that plays by the interpreter's rules, and against nothing else.
#![expect(unsafe_code, reason = "an audit hook is a C function")]

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Once, OnceLock};

use pyo3_ffi as py;

use crate::capi;

/// Events that are refused, and why.
const REFUSED: &[(&[u8], &str)] = &[
    (b"cpython.PyInterpreterState_New", "other interpreters are the host's"),
    (b"gc.get_objects", "it finds what its owner has hidden"),
    (b"gc.get_referents", "it finds what its owner has hidden"),
    (b"gc.get_referrers", "it finds what its owner has hidden"),
    (b"os.putenv", "the variables are the host's"),
    (b"os.unsetenv", "the variables are the host's"),
    (b"resource.prlimit", "the limits are the host's"),
    (b"resource.setrlimit", "the limits are the host's"),
    (b"signal.pthread_kill", "the threads are the host's"),
    (b"sqlite3.enable_load_extension", "native code could reach the host's memory"),
    (b"sqlite3.load_extension", "native code could reach the host's memory"),
    (b"sys._current_exceptions", "the threads are the host's"),
    (b"sys._current_frames", "the threads are the host's"),
    (b"sys.addaudithook", "the host watches a cell with it"),
    (b"sys.monitoring.register_callback", "the host ends a cell with it"),
    (b"sys.setprofile", "the host ends a cell with it"),
    (b"sys.settrace", "the host ends a cell with it"),
];

/// Modules whose whole purpose is to reach what the host owns, and why they are refused.
const MODULES: &[(&str, &str)] = &[
    ("_ctypes", "native code could reach the host's memory"),
    ("_interpchannels", "other interpreters are the host's"),
    ("_interpqueues", "other interpreters are the host's"),
    ("_interpreters", "other interpreters are the host's"),
    ("_tracemalloc", "it would trace the host's memory"),
    ("faulthandler", "it would handle the host's signals"),
    ("readline", "the terminal is the host's"),
    ("syslog", "the log is the host's"),
];

/// The extension modules of the standard library that keep no object for the whole process. No other
/// is loaded: its code and that of its libraries would run in the host's process, CPython would have it
/// start in the main interpreter first, under the host's own lock, and what it keeps would be freed with
/// the cell.
#[rustfmt::skip] // a list
const EXTENSIONS: &[&str] = &[
    "_asyncio", "_bisect", "_blake2", "_bz2", "_codecs_cn", "_codecs_hk", "_codecs_iso2022",
    "_codecs_jp", "_codecs_kr", "_codecs_tw", "_contextvars", "_csv", "_datetime", "_decimal",
    "_elementtree", "_hashlib", "_heapq", "_hmac", "_json", "_lsprof", "_lzma", "_md5",
    "_multibytecodec", "_multiprocessing", "_opcode", "_pickle", "_posixshmem", "_posixsubprocess",
    "_queue", "_random", "_sha1", "_sha2", "_sha3", "_socket", "_sqlite3", "_ssl", "_statistics",
    "_struct", "_uuid", "_zoneinfo", "_zstd", "array", "binascii", "cmath", "fcntl", "grp", "math",
    "mmap", "pyexpat", "resource", "select", "termios", "unicodedata", "zlib",
];
const NOT_LISTED: &str =
    "of extension modules it can load those of the standard library that share nothing";

/// The folder of the standard library's extension modules.
static FOLDER: OnceLock<Vec<u8>> = OnceLock::new();

/// Every event whose name begins like this.
const CTYPES: &[u8] = b"ctypes.";
const CTYPES_WHY: &str = "native code could reach the host's memory";

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Refuses from now on, on this thread.
pub(crate) fn guard_this_thread() {
    GUARDED.set(true);
}

/// Lets this thread take its interpreter apart.
pub(crate) fn leave_this_thread() {
    GUARDED.set(false);
}

/// Adds the hook, once for the process. It cannot be removed again; on the host's threads it looks
/// at one thread-local flag.
///
/// `extensions` is the folder of the standard library's extension modules.
///
/// # Safety
/// The thread is attached to the main interpreter.
pub(crate) unsafe fn install(extensions: &Path) {
    FOLDER.get_or_init(|| extensions.as_os_str().as_bytes().to_vec());
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: attached; a function that lives as long as the process and takes no data.
        if unsafe { capi::PySys_AddAuditHook(hook, std::ptr::null_mut()) } != 0 {
            // Another hook refuses to be joined. Guards are extra: the report does not count them.
            // SAFETY: acts on this thread's error indicator.
            unsafe { py::PyErr_Clear() };
            tracing::warn!("an audit hook of the host's refused ours: cells are not guarded");
        }
    });
}

unsafe extern "C" fn hook(
    event: *const c_char,
    arguments: *mut py::PyObject,
    _: *mut c_void,
) -> c_int {
    if !GUARDED.get() {
        return 0;
    }
    // SAFETY: CPython passes a NUL-terminated name.
    let event = unsafe { CStr::from_ptr(event) }.to_bytes();
    if event == b"import" {
        // SAFETY: CPython passes the event's arguments.
        return match unsafe { import_refused(arguments) } {
            None => 0,
            Some(text) => refuse(Kind::Import, text),
        };
    }
    // SAFETY: CPython passes the event's arguments.
    let Some(why) = (unsafe { event_refused(event, arguments) }) else { return 0 };
    let event = String::from_utf8_lossy(event);
    let text = format!(
        "{event} is not for a sub-interpreter cell: {why}; spawn the cell with backend='process'"
    );
    refuse(Kind::Permission, text)
}

/// Why an event is refused, if it is.
///
/// # Safety
/// The thread is attached; `arguments` are those of the event.
unsafe fn event_refused(event: &[u8], arguments: *mut py::PyObject) -> Option<&'static str> {
    match event {
        _ if event.starts_with(CTYPES) => Some(CTYPES_WHY),
        // Databases in memory that have a name are the process's.
        b"sqlite3.connect" => {
            // SAFETY: the caller's promise.
            let name = unsafe { text_of(arguments, 0) };
            let own = name.is_some_and(|name| matches!(name, "" | ":memory:"));
            (!own).then_some("a database other than :memory: is the host's")
        }
        b"mmap.__new__" => {
            // SAFETY: as above; what is no number is an error, cleared.
            let descriptor = unsafe {
                let number = py::PyLong_AsLong(py::PyTuple_GetItem(arguments, 0));
                py::PyErr_Clear();
                number
            };
            (descriptor == -1).then_some("its memory limit does not count such memory")
        }
        _ => REFUSED.iter().find(|(name, _)| *name == event).map(|(_, why)| *why),
    }
}

enum Kind {
    Import,
    Permission,
}

fn refuse(kind: Kind, text: String) -> c_int {
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: CPython calls the hook attached; a static type and a NUL-terminated text that it copies.
    unsafe {
        let kind = match kind {
            Kind::Import => py::PyExc_ImportError,
            Kind::Permission => py::PyExc_PermissionError,
        };
        py::PyErr_SetString(kind, text.as_ptr());
    }
    -1
}

/// Why an import is refused, if it is: by the module's name, or by the file of an extension module.
///
/// # Safety
/// The thread is attached; `arguments` are those of an `import` event.
unsafe fn import_refused(arguments: *mut py::PyObject) -> Option<String> {
    // SAFETY: the caller's promise; what is missing or no text is an error, cleared in `text_of`.
    let (name, file) = unsafe { (text_of(arguments, 0), text_of(arguments, 1)) };
    let Some(name) = name else { return Some("a module's name is text".to_owned()) };
    let module = MODULES.iter().find(|(module, _)| *module == name).map(|(_, why)| *why);
    let why = match (module, file) {
        (Some(why), _) => why,
        (None, Some(file)) if !is_listed(name, file.as_bytes()) => NOT_LISTED,
        _ => return None,
    };
    Some(format!(
        "{name} is not for a sub-interpreter cell: {why}; spawn the cell with backend='process'"
    ))
}

/// Whether a file is the listed module's, by its text alone: a name that goes any other way to it is
/// nobody's who means well. `math` lies in `math.cpython-313-x86_64-linux-gnu.so` or the like.
fn is_listed(name: &str, file: &[u8]) -> bool {
    let listed = EXTENSIONS.contains(&name);
    FOLDER
        .get()
        .and_then(|folder| file.strip_prefix(folder.as_slice())?.strip_prefix(b"/"))
        .and_then(|file| file.strip_prefix(name.as_bytes())?.strip_prefix(b"."))
        .is_some_and(|suffix| listed && !suffix.contains(&b'/'))
}

/// A text among an event's arguments.
///
/// # Safety
/// The thread is attached; `arguments` is a live tuple, which keeps the text alive.
unsafe fn text_of<'a>(arguments: *mut py::PyObject, index: py::Py_ssize_t) -> Option<&'a str> {
    let mut len = 0;
    // SAFETY: the caller's promise; null, and what is no text, is an error, which is cleared.
    unsafe {
        let item = py::PyTuple_GetItem(arguments, index);
        let text = if item.is_null() || item == py::Py_None() {
            std::ptr::null()
        } else {
            py::PyUnicode_AsUTF8AndSize(item, &raw mut len)
        };
        if text.is_null() {
            py::PyErr_Clear();
            return None;
        }
        let bytes = std::slice::from_raw_parts(text.cast::<u8>(), usize::try_from(len).ok()?);
        std::str::from_utf8(bytes).ok()
    }
}
