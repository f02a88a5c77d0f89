//! Host objects on their way into a cell: pickled by CPython, lent to the channel without a copy.
#![expect(
    unsafe_code,
    reason = "lends the memory of Python buffers while they are held, and reads plain objects"
)]

use pyisolate_guest::simple;
use pyisolate_supervisor::{Outbound, Parcel};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};

/// A pickled object and its out-of-band buffers, held until it is sent.
pub(crate) struct Pickled {
    pickle: Pickle,
    buffers: Vec<PyUntypedBuffer>,
}

enum Pickle {
    /// Made here, as most are.
    Simple(Vec<u8>),
    /// Made by CPython's pickler.
    Whole(Py<PyBytes>),
}

static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

impl Pickled {
    /// Pickles an object. The guest will unpickle it, so its classes must be importable there.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        // SAFETY: a live object, and a `Bound` is proof of an attached thread.
        match unsafe { simple::pickle(object.as_ptr()) } {
            Some(pickle) => Ok(Self { pickle: Pickle::Simple(pickle), buffers: Vec::new() }),
            None => Self::whole(object),
        }
    }

    /// Pickles a call's arguments.
    pub(crate) fn of_arguments(
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let kwargs_ptr = kwargs.map_or(std::ptr::null_mut(), Bound::as_ptr);
        // SAFETY: a live tuple, a live dict or null, and an attached thread.
        if let Some(pickle) = unsafe { simple::pickle_arguments(args.as_ptr(), kwargs_ptr) } {
            return Ok(Self { pickle: Pickle::Simple(pickle), buffers: Vec::new() });
        }
        let py = args.py();
        let kwargs = kwargs.cloned().unwrap_or_else(|| PyDict::new(py));
        Self::whole((args, kwargs).into_pyobject(py)?.as_any())
    }

    fn whole(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let load = || py.import("pyisolate._pickling")?.getattr("dumps").map(Bound::unbind);
        let dumps = DUMPS.get_or_try_init(py, load)?.bind(py);
        let (pickle, views) =
            dumps.call1((object,))?.extract::<(Bound<'_, PyBytes>, Vec<Bound<'_, PyAny>>)>()?;
        let buffers = views.iter().map(PyUntypedBuffer::get).collect::<PyResult<Vec<_>>>()?;
        Ok(Self { pickle: Pickle::Whole(pickle.unbind()), buffers })
    }

    /// Copies the bytes.
    pub(crate) fn into_parcel(self, py: Python<'_>) -> Parcel {
        self.with(py, |outbound| Parcel {
            pickle: outbound.pickle.to_vec(),
            buffers: outbound.buffers.iter().map(|buffer| buffer.to_vec()).collect(),
        })
    }

    /// Lends the bytes to `send`.
    pub(crate) fn with<T>(&self, py: Python<'_>, send: impl FnOnce(Outbound<'_>) -> T + Send) -> T
    where
        T: Send,
    {
        let buffers: Vec<&[u8]> = self
            .buffers
            .iter()
            .filter(|buffer| buffer.len_bytes() > 0)
            .map(|buffer| {
                // SAFETY: the buffer is held by `self` for longer than this borrow; `dumps` hands
                // out contiguous byte views alone, whose memory is `len_bytes` long and not null.
                // Another thread of the host that writes into it meanwhile tears its own message:
                // the bytes are copied out by the kernel and never looked at here.
                unsafe {
                    std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes())
                }
            })
            .collect();
        let pickle = match &self.pickle {
            Pickle::Simple(pickle) => pickle,
            Pickle::Whole(pickle) => pickle.as_bytes(py),
        };
        py.detach(|| send(Outbound { pickle, buffers: &buffers }))
    }
}
