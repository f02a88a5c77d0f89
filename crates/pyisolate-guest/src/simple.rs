//! Pickles what most messages are: a plain value, or one flat container of plain values.
//!
//! The runtime's pickler costs a microsecond and a half a message; this costs a tenth of it. Only
//! exact builtin types are taken, and containers only one level deep, so that nothing is lost by
//! not keeping a memo: there is no container that could be met twice.
#![expect(unsafe_code, reason = "reads builtin objects through the C-API")]

use pyo3_ffi as py;

use crate::ffi::{Borrowed, clear_error, str_of};

/// The most items of a container that is pickled here; longer ones are the pickler's work.
const ITEMS_MAX: isize = 64;
/// The longest pickle that is made here, in bytes; from about here on, copying is what costs.
const PICKLE_BYTES_MAX: usize = 16 * 1024;

mod op {
    pub(super) const PROTO_5: [u8; 2] = [0x80, 5];
    pub(super) const STOP: u8 = b'.';
    pub(super) const MARK: u8 = b'(';
    pub(super) const NONE: u8 = b'N';
    pub(super) const TRUE: u8 = 0x88;
    pub(super) const FALSE: u8 = 0x89;
    pub(super) const BININT: u8 = b'J';
    pub(super) const BININT1: u8 = b'K';
    pub(super) const LONG1: u8 = 0x8a;
    pub(super) const BINFLOAT: u8 = b'G';
    pub(super) const SHORT_BINUNICODE: u8 = 0x8c;
    pub(super) const BINUNICODE: u8 = b'X';
    pub(super) const SHORT_BINBYTES: u8 = b'C';
    pub(super) const BINBYTES: u8 = b'B';
    pub(super) const TUPLE: u8 = b't';
    pub(super) const TUPLE2: u8 = 0x86;
    pub(super) const EMPTY_LIST: u8 = b']';
    pub(super) const APPENDS: u8 = b'e';
    pub(super) const EMPTY_DICT: u8 = b'}';
    pub(super) const SETITEMS: u8 = b'u';
}

/// The pickle of `object`, if it is that simple.
///
/// # Safety
/// `object` is a live object, and the thread is attached to its interpreter.
#[must_use]
pub unsafe fn pickle(object: Borrowed) -> Option<Vec<u8>> {
    finish(|out| scalar(object, out) || container(object, out))
}

/// The pickle of a call's `(args, kwargs)`, if everything in both is plain.
///
/// # Safety
/// `args` is a live tuple, `kwargs` null or a live dict, and the thread is attached.
#[must_use]
pub unsafe fn pickle_arguments(args: Borrowed, kwargs: Borrowed) -> Option<Vec<u8>> {
    finish(|out| {
        if !container(args, out) {
            return false;
        }
        let kwargs_fit = if kwargs.is_null() {
            out.push(op::EMPTY_DICT);
            true
        } else {
            container(kwargs, out)
        };
        out.push(op::TUPLE2);
        kwargs_fit
    })
}

fn finish(write: impl FnOnce(&mut Vec<u8>) -> bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&op::PROTO_5);
    let simple = write(&mut out);
    out.push(op::STOP);
    (simple && out.len() <= PICKLE_BYTES_MAX).then_some(out)
}

fn scalar(object: Borrowed, out: &mut Vec<u8>) -> bool {
    // SAFETY: `object` is live; the type checks compare exact types, and each branch uses only
    // calls that its type allows. The bytes are read before anything else can run.
    unsafe {
        let kind = py::Py_TYPE(object);
        if kind == &raw mut py::PyUnicode_Type {
            match str_of(object) {
                Ok(text) => sized([op::SHORT_BINUNICODE, op::BINUNICODE], text.as_bytes(), out),
                // Lone surrogates, which the pickler knows how to write.
                Err(_) => {
                    clear_error();
                    false
                }
            }
        } else if kind == &raw mut py::PyLong_Type {
            int(object, out)
        } else if kind == &raw mut py::PyFloat_Type {
            out.push(op::BINFLOAT);
            out.extend_from_slice(&py::PyFloat_AsDouble(object).to_be_bytes());
            true
        } else if object == py::Py_None() {
            out.push(op::NONE);
            true
        } else if kind == &raw mut py::PyBool_Type {
            out.push(if object == py::Py_True() { op::TRUE } else { op::FALSE });
            true
        } else if kind == &raw mut py::PyBytes_Type {
            let len = usize::try_from(py::PyBytes_Size(object)).unwrap_or(usize::MAX);
            let data = py::PyBytes_AsString(object).cast::<u8>();
            !data.is_null()
                && len <= PICKLE_BYTES_MAX
                && sized(
                    [op::SHORT_BINBYTES, op::BINBYTES],
                    std::slice::from_raw_parts(data, len),
                    out,
                )
        } else {
            false
        }
    }
}

/// # Safety
/// `object` is a live, exact int.
unsafe fn int(object: Borrowed, out: &mut Vec<u8>) -> bool {
    let mut overflow = 0;
    // SAFETY: an exact int (this function's precondition).
    let value = unsafe { py::PyLong_AsLongLongAndOverflow(object, &raw mut overflow) };
    if overflow != 0 {
        return false;
    }
    if let Ok(small) = u8::try_from(value) {
        out.extend_from_slice(&[op::BININT1, small]);
    } else if let Ok(medium) = i32::try_from(value) {
        out.push(op::BININT);
        out.extend_from_slice(&medium.to_le_bytes());
    } else {
        out.extend_from_slice(&[op::LONG1, 8]);
        out.extend_from_slice(&value.to_le_bytes());
    }
    true
}

/// Writes bytes behind the opcode whose count they need: of one byte, or of four.
fn sized([short, long]: [u8; 2], bytes: &[u8], out: &mut Vec<u8>) -> bool {
    if bytes.len() + out.len() > PICKLE_BYTES_MAX {
        return false;
    }
    if let Ok(len) = u8::try_from(bytes.len()) {
        out.extend_from_slice(&[short, len]);
    } else if let Ok(len) = u32::try_from(bytes.len()) {
        out.push(long);
        out.extend_from_slice(&len.to_le_bytes());
    }
    out.extend_from_slice(bytes);
    true
}

fn container(object: Borrowed, out: &mut Vec<u8>) -> bool {
    // SAFETY: as in `scalar`; the items are borrowed from a container that nothing changes while
    // this thread holds the interpreter's lock, and scalars run no code of the guest.
    unsafe {
        let kind = py::Py_TYPE(object);
        if kind == &raw mut py::PyTuple_Type {
            let len = py::PyTuple_Size(object);
            out.push(op::MARK);
            let all = len <= ITEMS_MAX
                && (0..len).all(|index| scalar(py::PyTuple_GetItem(object, index), out));
            out.push(op::TUPLE);
            all
        } else if kind == &raw mut py::PyList_Type {
            let len = py::PyList_Size(object);
            out.extend_from_slice(&[op::EMPTY_LIST, op::MARK]);
            let all = len <= ITEMS_MAX
                && (0..len).all(|index| scalar(py::PyList_GetItem(object, index), out));
            out.push(op::APPENDS);
            all
        } else if kind == &raw mut py::PyDict_Type {
            if py::PyDict_Size(object) > ITEMS_MAX {
                return false;
            }
            out.extend_from_slice(&[op::EMPTY_DICT, op::MARK]);
            let (mut position, mut key, mut value) =
                (0, std::ptr::null_mut(), std::ptr::null_mut());
            while py::PyDict_Next(object, &raw mut position, &raw mut key, &raw mut value) != 0 {
                if !(scalar(key, out) && scalar(value, out)) {
                    return false;
                }
            }
            out.push(op::SETITEMS);
            true
        } else {
            false
        }
    }
}
