//! numpy arrays, scalars and dtypes.
//!
//! numpy is imported when the first of them arrives; the host need not have it otherwise. Its C-API
//! is not used, so any numpy that the guest's arrays fit will do.

use pyisolate_abi::pickle::{ArrayData, DType, NdArray, Node, NodeId, Order};
use pyo3::exceptions::{PyImportError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyDict, PyTuple};

use super::Converter;
use super::buffers::Region;

struct Numpy {
    ndarray: Py<PyAny>,
    dtype: Py<PyAny>,
}

impl Numpy {
    fn get(py: Python<'_>) -> PyResult<&Self> {
        static NUMPY: PyOnceLock<Numpy> = PyOnceLock::new();
        NUMPY.get_or_try_init(py, || {
            let numpy = py.import("numpy").map_err(|error| {
                if !error.is_instance_of::<PyImportError>(py) {
                    return error;
                }
                let told = PyImportError::new_err(
                    "the cell sent a numpy value and numpy cannot be imported here; install numpy \
                     in the host to receive it, or send value.tolist()",
                );
                told.set_cause(py, Some(error));
                told
            })?;
            Ok(Self {
                ndarray: numpy.getattr("ndarray")?.unbind(),
                dtype: numpy.getattr("dtype")?.unbind(),
            })
        })
    }
}

impl<'py> Converter<'_, 'py> {
    /// Takes an out-of-band buffer.
    pub(super) fn region(&self, index: usize) -> PyResult<Region> {
        let taken = self.regions.borrow_mut().get_mut(index).and_then(Option::take);
        taken.ok_or_else(|| PyValueError::new_err("the cell used a buffer twice; end the cell"))
    }

    /// An array of the guest's shape, order and dtype, writable if the guest's was.
    ///
    /// A buffer in shared memory is not copied: it is the host's alone, and the array keeps it.
    pub(super) fn array(&self, array: NdArray<'_>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        if array.dtype.itemsize() == 0 {
            // No byte of it exists, and numpy would make some if it had to copy.
            return self.view(&array, PyByteArray::new(py, &[]).into_any());
        }
        match array.data {
            ArrayData::Inline(data) => copy(&self.view(&array, self.bytes(data)?.into_any())?),
            ArrayData::Buffer { index, read_only } => match self.region(index)? {
                Region::Owned(data) => {
                    let view = self.view(&array, self.bytes(&data)?.into_any())?;
                    if read_only { Ok(view) } else { copy(&view) }
                }
                Region::Mapped(region) => {
                    let lent = read_only || region.is_writable();
                    let view = self.view(&array, region.export(py, read_only)?)?;
                    if lent { Ok(view) } else { copy(&view) }
                }
            },
        }
    }

    /// An array over the memory of `data`.
    fn view(&self, array: &NdArray<'_>, data: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let dtype = self.dtype(array.dtype_id)?;
        let shape = PyTuple::new(py, array.shape)?;
        let order = match array.order {
            Order::Fortran => intern!(py, "F"),
            Order::C | Order::Transposed(_) => intern!(py, "C"),
        };
        let ndarray = Numpy::get(py)?.ndarray.bind(py);
        let view = ndarray.call1((shape, dtype, data, 0, py.None(), order))?;
        match array.order {
            Order::Transposed(axes) => {
                view.call_method1(intern!(py, "transpose"), (PyTuple::new(py, axes.iter())?,))
            }
            _ => Ok(view),
        }
    }

    pub(super) fn numpy_scalar(&self, dtype: NodeId, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let dtype = self.dtype(dtype)?;
        let shape = PyTuple::empty(py);
        let data = if data.is_empty() {
            PyByteArray::new(py, data).into_any()
        } else {
            self.bytes(data)?.into_any()
        };
        let mut array = Numpy::get(py)?.ndarray.bind(py).call1((&shape, dtype, data))?;
        if array.getattr(intern!(py, "nbytes"))?.extract::<u64>()? > 0 {
            // A record is a view of its array, and writable.
            array = copy(&array)?;
        }
        array.get_item(shape)
    }

    /// A dtype; arrays do not tell how many of them share one, so it is made once always.
    pub(super) fn dtype(&self, id: NodeId) -> PyResult<Bound<'py, PyAny>> {
        self.once(id, Self::fresh_dtype)
    }

    fn fresh_dtype(&self, id: NodeId) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let dtype = Numpy::get(py)?.dtype.bind(py);
        let Node::DType(described) = self.message.node(id) else {
            return Err(PyValueError::new_err("the cell sent an array without a dtype"));
        };
        match described {
            DType::Scalar { .. } | DType::Time { .. } => dtype.call1((described.to_string(),)),
            DType::SubArray { element, shape, .. } => {
                dtype.call1(((self.dtype(*element)?, PyTuple::new(py, shape.iter())?),))
            }
            DType::Record { fields, itemsize, aligned } => {
                let (mut names, mut formats, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
                for field in fields {
                    names.push(self.part(field.name)?);
                    formats.push(self.dtype(field.dtype)?);
                    offsets.push(field.offset);
                }
                let layout = PyDict::new(py);
                layout.set_item("names", names)?;
                layout.set_item("formats", formats)?;
                layout.set_item("offsets", offsets)?;
                layout.set_item("itemsize", itemsize)?;
                dtype.call1((layout, *aligned))
            }
        }
    }
}

/// An array of its own memory, in the same order of elements.
fn copy<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = array.py();
    array.call_method1(intern!(py, "copy"), (intern!(py, "K"),))
}
