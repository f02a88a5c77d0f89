//! CPython objects with an owner: the few calls of the C-API that the guest runtime needs.
//!
//! Everything here requires an attached thread state (the interpreter's lock). The functions are
//! safe to call from this crate because its only entry points are calls that CPython makes.
#![expect(unsafe_code, reason = "the C-API is called here and in module.rs alone")]

use std::ffi::{CStr, c_char};
use std::ptr::{self, NonNull};

use pyo3_ffi as py;

/// A Python exception is set.
#[derive(Debug)]
pub(crate) struct Raised;

pub(crate) type PyResult<T> = Result<T, Raised>;

/// A borrowed reference, valid for as long as the call that it came with.
pub(crate) type Borrowed = *mut py::PyObject;

/// An owned reference.
#[derive(Debug)]
pub(crate) struct Object(NonNull<py::PyObject>);

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the reference is owned, and the thread is attached (module doc).
        unsafe { py::Py_DECREF(self.0.as_ptr()) };
    }
}

impl Object {
    /// Takes over a reference that a C-API call returned; null means that it raised.
    pub(crate) fn owned(raw: *mut py::PyObject) -> PyResult<Self> {
        NonNull::new(raw).map(Self).ok_or(Raised)
    }

    /// Makes an owned reference of a borrowed one; null means that the call raised.
    pub(crate) fn borrowed(raw: Borrowed) -> PyResult<Self> {
        let object = NonNull::new(raw).ok_or(Raised)?;
        // SAFETY: a non-null reference that a C-API call or CPython's caller just lent us.
        unsafe { py::Py_INCREF(raw) };
        Ok(Self(object))
    }

    pub(crate) fn as_ptr(&self) -> Borrowed {
        self.0.as_ptr()
    }

    /// Gives the reference away, to a C-API caller.
    pub(crate) fn into_raw(self) -> *mut py::PyObject {
        std::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    pub(crate) fn none() -> Self {
        // SAFETY: None always exists; a new reference is made of it.
        let none = unsafe { py::Py_NewRef(py::Py_None()) };
        Self(NonNull::new(none).unwrap_or(NonNull::dangling()))
    }

    pub(crate) fn int(value: u64) -> PyResult<Self> {
        // SAFETY: plain value in, new reference or null out.
        Self::owned(unsafe { py::PyLong_FromUnsignedLongLong(value) })
    }

    pub(crate) fn text(value: &str) -> PyResult<Self> {
        let (data, len) = (value.as_ptr().cast::<c_char>(), size(value.len())?);
        // SAFETY: `data` points to `len` bytes of UTF-8, copied by the callee.
        Self::owned(unsafe { py::PyUnicode_FromStringAndSize(data, len) })
    }

    pub(crate) fn bytes(value: &[u8]) -> PyResult<Self> {
        let (data, len) = (value.as_ptr().cast::<c_char>(), size(value.len())?);
        // SAFETY: `data` points to `len` readable bytes, copied by the callee.
        Self::owned(unsafe { py::PyBytes_FromStringAndSize(data, len) })
    }

    pub(crate) fn tuple<const N: usize>(items: [Self; N]) -> PyResult<Self> {
        // SAFETY: plain size in, new reference or null out.
        let tuple = Self::owned(unsafe { py::PyTuple_New(size(N)?) })?;
        for (index, item) in items.into_iter().enumerate() {
            // SAFETY: the tuple is new, the index in range; the item's reference is given away.
            if unsafe { py::PyTuple_SetItem(tuple.as_ptr(), size(index)?, item.into_raw()) } < 0 {
                return Err(Raised);
            }
        }
        Ok(tuple)
    }

    pub(crate) fn list(items: Vec<Self>) -> PyResult<Self> {
        // SAFETY: plain size in, new reference or null out.
        let list = Self::owned(unsafe { py::PyList_New(size(items.len())?) })?;
        for (index, item) in items.into_iter().enumerate() {
            // SAFETY: the list is new, the index in range; the item's reference is given away.
            if unsafe { py::PyList_SetItem(list.as_ptr(), size(index)?, item.into_raw()) } < 0 {
                return Err(Raised);
            }
        }
        Ok(list)
    }

    pub(crate) fn attribute(&self, name: &CStr) -> PyResult<Self> {
        // SAFETY: a live object and a NUL-terminated name.
        Self::owned(unsafe { py::PyObject_GetAttrString(self.as_ptr(), name.as_ptr()) })
    }

    pub(crate) fn set_attribute(&self, name: &CStr, value: &Self) -> PyResult<()> {
        let (object, value) = (self.as_ptr(), value.as_ptr());
        // SAFETY: live objects and a NUL-terminated name.
        check(unsafe { py::PyObject_SetAttrString(object, name.as_ptr(), value) })
    }

    pub(crate) fn call<const N: usize>(&self, arguments: [Self; N]) -> PyResult<Self> {
        let arguments = Self::tuple(arguments)?;
        // SAFETY: a live object and a live tuple.
        Self::owned(unsafe { py::PyObject_CallObject(self.as_ptr(), arguments.as_ptr()) })
    }
}

/// Runs compiled code in a new module of that name, which is not put into `sys.modules`.
pub(crate) fn module_of_code(name: &CStr, code: &Object) -> PyResult<Object> {
    // SAFETY: a NUL-terminated string; a new reference or null out.
    let module = Object::owned(unsafe { py::PyModule_New(name.as_ptr()) })?;
    // SAFETY: a live module; its dict is borrowed from it and used while it lives.
    let globals = unsafe { py::PyModule_GetDict(module.as_ptr()) };
    // SAFETY: borrowed reference of this interpreter's builtins, live while the thread is attached.
    let builtins = unsafe { py::PyEval_GetBuiltins() };
    // SAFETY: live dict, NUL-terminated key, live value.
    check(unsafe { py::PyDict_SetItemString(globals, c"__builtins__".as_ptr(), builtins) })?;
    // SAFETY: live code object and dicts.
    Object::owned(unsafe { py::PyEval_EvalCode(code.as_ptr(), globals, globals) })?;
    Ok(module)
}

/// A buffer of a Python object, held for as long as this lives.
pub(crate) struct Buffer(Box<py::Py_buffer>);

impl Buffer {
    pub(crate) fn of(object: Borrowed) -> PyResult<Self> {
        let mut view = Box::new(py::Py_buffer::new());
        // SAFETY: a live object and a view to fill; released in Drop, and only if this succeeded.
        check(unsafe { py::PyObject_GetBuffer(object, &raw mut *view, py::PyBUF_SIMPLE) })?;
        Ok(Self(view))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        let len = usize::try_from(self.0.len).unwrap_or(0);
        if len == 0 {
            return &[];
        }
        // SAFETY: PyBUF_SIMPLE gives `len` contiguous bytes that stay until release. Another thread
        // of the guest may write into them meanwhile: that tears the guest's own message and
        // nothing else, since the bytes are only copied out and never interpreted here.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast::<u8>(), len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: filled by a successful PyObject_GetBuffer, released once.
        unsafe { py::PyBuffer_Release(&raw mut *self.0) };
    }
}

/// The text of a Python str, valid while the object lives.
pub(crate) fn str_of<'a>(object: Borrowed) -> PyResult<&'a str> {
    let mut len = 0;
    // SAFETY: a live object; a non-str raises TypeError. The bytes are cached in the object, which
    // the caller's caller keeps alive for the call that `'a` stands for.
    let data = unsafe { py::PyUnicode_AsUTF8AndSize(object, &raw mut len) };
    if data.is_null() {
        return Err(Raised);
    }
    // SAFETY: CPython returned `len` bytes of valid UTF-8 at `data`.
    Ok(unsafe {
        std::str::from_utf8_unchecked(std::slice::from_raw_parts(
            data.cast::<u8>(),
            usize::try_from(len).unwrap_or(0),
        ))
    })
}

/// The items of a Python list, borrowed.
pub(crate) fn list_items(list: Borrowed) -> PyResult<Vec<Borrowed>> {
    // SAFETY: a live object; a non-list raises SystemError.
    let len = unsafe { py::PyList_Size(list) };
    if len < 0 {
        return Err(Raised);
    }
    (0..len)
        .map(|index| {
            // SAFETY: the index is in range; null (a changed list) is checked.
            let item = unsafe { py::PyList_GetItem(list, index) };
            if item.is_null() { Err(Raised) } else { Ok(item) }
        })
        .collect()
}

/// The value of a Python int.
pub(crate) fn u64_of(object: Borrowed) -> PyResult<u64> {
    // SAFETY: a live object; a non-int or an int out of range raises.
    let value = unsafe { py::PyLong_AsUnsignedLongLong(object) };
    // SAFETY: looks at this thread's error indicator.
    if value == u64::MAX && !unsafe { py::PyErr_Occurred() }.is_null() {
        return Err(Raised);
    }
    Ok(value)
}

/// The value of a Python float.
pub(crate) fn f64_of(object: Borrowed) -> PyResult<f64> {
    // SAFETY: a live object; what is no number raises.
    let value = unsafe { py::PyFloat_AsDouble(object) };
    // SAFETY: looks at this thread's error indicator.
    if value == -1.0 && !unsafe { py::PyErr_Occurred() }.is_null() {
        return Err(Raised);
    }
    Ok(value)
}

/// Sets an exception of a builtin type.
pub(crate) fn raise(kind: ErrorKind, message: &str) -> Raised {
    // SAFETY: the exception types are static objects of the interpreter.
    let kind = unsafe {
        match kind {
            ErrorKind::Value => py::PyExc_ValueError,
            ErrorKind::Timeout => py::PyExc_TimeoutError,
            ErrorKind::Connection => py::PyExc_ConnectionError,
            ErrorKind::Memory => py::PyExc_MemoryError,
            ErrorKind::Runtime => py::PyExc_RuntimeError,
            ErrorKind::System => py::PyExc_SystemError,
        }
    };
    if let Ok(message) = Object::text(message) {
        // SAFETY: a live exception type and a live message.
        unsafe { py::PyErr_SetObject(kind, message.as_ptr()) };
    }
    Raised
}

/// The builtin exceptions that this crate raises.
#[derive(Clone, Copy)]
pub(crate) enum ErrorKind {
    Value,
    Timeout,
    Connection,
    Memory,
    Runtime,
    System,
}

pub(crate) fn raise_system_error(message: &str) -> Raised {
    raise(ErrorKind::System, message)
}

/// Runs `work` with the interpreter's lock released.
pub(crate) fn unlocked<T>(work: impl FnOnce() -> T) -> T {
    struct Saved(*mut py::PyThreadState);
    impl Drop for Saved {
        fn drop(&mut self) {
            // SAFETY: the state that PyEval_SaveThread returned on this thread, restored once.
            unsafe { py::PyEval_RestoreThread(self.0) };
        }
    }
    // SAFETY: the thread is attached; `work` touches no Python object (its callers see to it).
    let _saved = Saved(unsafe { py::PyEval_SaveThread() });
    work()
}

/// Prints the pending exception to the interpreter's stderr and clears it.
pub(crate) fn print_error() {
    // SAFETY: acts on this thread's error indicator.
    unsafe { py::PyErr_Print() };
}

/// Whether the pending exception is a `MemoryError`.
pub(crate) fn is_memory_error() -> bool {
    // SAFETY: acts on this thread's error indicator; the type is a static of the interpreter.
    unsafe { py::PyErr_ExceptionMatches(py::PyExc_MemoryError) != 0 }
}

/// Takes the pending exception and says what it is.
pub(crate) fn take_error() -> String {
    // SAFETY: acts on this thread's error indicator; new references or null out.
    let text = Object::owned(unsafe { py::PyErr_GetRaisedException() }).and_then(|error| {
        // SAFETY: a live object; a new reference or null out.
        let text = Object::owned(unsafe { py::PyObject_Repr(error.as_ptr()) })?;
        str_of(text.as_ptr()).map(str::to_owned)
    });
    clear_error();
    text.unwrap_or_else(|_| "an exception that cannot be shown".to_owned())
}

pub(crate) fn clear_error() {
    // SAFETY: acts on this thread's error indicator.
    unsafe { py::PyErr_Clear() };
}

/// What CPython needs around a raw `clone` of this process.
pub(crate) mod fork {
    use pyo3_ffi as py;

    pub(crate) fn before() {
        // SAFETY: attached thread; paired with `in_parent` or `in_child`.
        unsafe { py::PyOS_BeforeFork() };
    }

    pub(crate) fn in_parent() {
        // SAFETY: follows `before` in the parent.
        unsafe { py::PyOS_AfterFork_Parent() };
    }

    pub(crate) fn in_child() {
        // SAFETY: follows `before` in the child, whose only thread this is.
        unsafe { py::PyOS_AfterFork_Child() };
    }
}

pub(crate) fn null() -> *mut py::PyObject {
    ptr::null_mut()
}

fn check(status: i32) -> PyResult<()> {
    if status < 0 { Err(Raised) } else { Ok(()) }
}

fn size(len: usize) -> PyResult<py::Py_ssize_t> {
    py::Py_ssize_t::try_from(len).map_err(|_| raise(ErrorKind::Memory, "too large"))
}
