//! Stub, to be replaced.
use pyisolate_supervisor::{Delivery, Node};
use pyo3::prelude::*;
use pyo3::types::*;
pub(crate) struct Classes;
impl Classes { pub(crate) fn new(_: Vec<Py<PyType>>) -> Self { Self } }
pub(crate) fn to_python<'py>(py: Python<'py>, d: Delivery, _: &Classes) -> PyResult<Bound<'py, PyAny>> {
    fn go<'py>(py: Python<'py>, m: &pyisolate_supervisor::Message<'_>, id: pyisolate_abi::pickle::NodeId) -> PyResult<Bound<'py, PyAny>> {
        Ok(match m.node(id) {
            Node::None => py.None().into_bound(py),
            Node::Int(i) => i.into_pyobject(py)?.into_any(),
            Node::Float(i) => i.into_pyobject(py)?.into_any(),
            Node::Text(t) => PyString::new(py, &String::from_utf8_lossy(t.as_bytes())).into_any(),
            Node::Tuple(items) => PyTuple::new(py, items.iter().map(|i| go(py, m, *i)).collect::<PyResult<Vec<_>>>()?)?.into_any(),
            Node::List(items) => PyList::new(py, items.iter().map(|i| go(py, m, *i)).collect::<PyResult<Vec<_>>>()?)?.into_any(),
            Node::Dict { entries, .. } => { let d = PyDict::new(py); for [k, v] in entries { d.set_item(go(py, m, *k)?, go(py, m, *v)?)?; } d.into_any() }
            other => PyString::new(py, &format!("{other:?}")).into_any(),
        })
    }
    go(py, &d.message, d.message.root())
}
