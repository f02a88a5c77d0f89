//! Host objects on their way into a cell: pickled by CPython, lent to the channel without a copy.
#![expect(unsafe_code, reason = "lends the memory of Python buffers while they are held")]

use pyisolate_supervisor::Outbound;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;

/// A pickled object and its out-of-band buffers, held until it is sent.
pub(crate) struct Pickled {
    pickle: Py<PyBytes>,
    buffers: Vec<PyUntypedBuffer>,
}

static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

impl Pickled {
    /// Pickles an object. The guest will unpickle it, so its classes must be importable there.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let load = || py.import("pyisolate._pickling")?.getattr("dumps").map(Bound::unbind);
        let dumps = DUMPS.get_or_try_init(py, load)?.bind(py);
        let (pickle, views) =
            dumps.call1((object,))?.extract::<(Bound<'_, PyBytes>, Vec<Bound<'_, PyAny>>)>()?;
        let buffers = views.iter().map(PyUntypedBuffer::get).collect::<PyResult<Vec<_>>>()?;
        Ok(Self { pickle: pickle.unbind(), buffers })
    }

    /// Lends the bytes to `send`.
    pub(crate) fn with<T>(
        &self,
        py: Python<'_>,
        send: impl FnOnce(Outbound<'_>) -> T + Send,
    ) -> T
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
        let pickle = self.pickle.as_bytes(py);
        py.detach(|| send(Outbound { pickle, buffers: &buffers }))
    }
}
