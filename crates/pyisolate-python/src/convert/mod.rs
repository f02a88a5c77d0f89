//! Python objects from decoded messages.
//!
//! A cell's pickle was decoded in Rust; this builds the objects that it describes. Nothing here
//! unpickles, imports a module that the guest named, or calls anything that the guest chose.
//!
//! # Builtin and standard types
//! They come out as exactly the types that went in. One object is made of a value that several
//! others refer to, so identity survives within a message. What numpy arrays, scalars and dtypes
//! need is in `arrays`, the memory that large ones lie in is in `buffers`.
//!
//! # Classes that the host registered
//! An instance is rebuilt from its data: it is allocated by the builtin type that its class derives
//! from, and its attributes are stored. The guest chose both, so an instance is as trustworthy as a
//! dict that came from the guest.
//!
//! Never run: `__init__`, `__new__`, `__setstate__`, `__setattr__`, `__reduce__`, an enumeration's
//! `_missing_`, or a property's setter. Run as for any object, and thereby on attributes that the
//! guest chose: `__hash__` and `__eq__` of an instance that is a dict key or set member, and
//! `__del__`.
//!
//! What crosses:
//! - plain classes and dataclasses (also frozen, with slots, or both): attributes go into the
//!   instance's `__dict__`, or into a slot if one of the name is declared;
//! - named tuples, and subclasses of `tuple`, `int`, `float`, `complex`, `str`, `bytes` and
//!   `frozenset`;
//! - exceptions: their `args`, and their attributes;
//! - members of enumerations, by value; combinations of flags if the class has few flags.
//!
//! Refused, with a `TypeError` that names the class and says what to do: a class with a
//! `__setstate__` of its own, or with a `__new__` of its own and no data type below it; arguments
//! for a constructor; state that is not attributes; an attribute that would hide a method or a
//! property; subclasses of other types.

mod arrays;
mod buffers;
mod enums;
mod instances;
mod recipe;
mod standard;

use std::cell::RefCell;
use std::collections::BTreeMap;

use pyisolate_abi::pickle::{DictKind, Message, Node, NodeId, Text};
use pyisolate_supervisor::Delivery;
use pyo3::exceptions::PyUnicodeDecodeError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyList, PySet, PyString,
    PyTuple,
};

use buffers::Region;
pub(crate) use recipe::Classes;
use standard::{Place, ZoneKey};

/// Turns a message into the Python object that it describes.
///
/// # Errors
/// `TypeError` for an instance that cannot be rebuilt, `ImportError` for a numpy value when the
/// host has no numpy, `ValueError` for buffers that overlap and ranges of huge bounds, and whatever a
/// standard type's constructor or a registered class's `__hash__` or `__eq__` raises.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    delivery: Delivery,
    classes: &Classes,
) -> PyResult<Bound<'py, PyAny>> {
    let Delivery { message, buffers } = delivery;
    let converter = Converter {
        py,
        message: &message,
        classes,
        regions: RefCell::new(buffers::claim(buffers)?),
        made: RefCell::new(Vec::new()),
        zones: RefCell::new(BTreeMap::new()),
        zone_names: RefCell::new(BTreeMap::new()),
    };
    converter.value(message.root())
}

/// One conversion. It recurses over the message, which the decoder has kept acyclic and shallow.
struct Converter<'m, 'py> {
    py: Python<'py>,
    message: &'m Message<'static>,
    classes: &'m Classes,
    /// The out-of-band buffers; each goes to one value.
    regions: RefCell<Vec<Option<Region>>>,
    /// Objects made of shared values, by [`NodeId::index`]. Empty until there is one.
    made: RefCell<Vec<Option<Bound<'py, PyAny>>>>,
    /// Time zones made so far, and their names, which may be long: the message gives both by value.
    zones: RefCell<BTreeMap<ZoneKey, Bound<'py, PyAny>>>,
    zone_names: RefCell<BTreeMap<Place, Bound<'py, PyString>>>,
}

impl<'m, 'py> Converter<'m, 'py> {
    /// The object of a value that others may share.
    fn value(&self, id: NodeId) -> PyResult<Bound<'py, PyAny>> {
        if self.message.is_shared(id) { self.once(id, Self::fresh) } else { self.fresh(id) }
    }

    /// The object of a value that is part of a leaf, such as the start of a range. The message does
    /// not say how many leaves share it, so it is made once always.
    fn part(&self, id: NodeId) -> PyResult<Bound<'py, PyAny>> {
        match self.message.node(id) {
            Node::Int(_) => self.fresh(id),
            _ => self.once(id, Self::fresh),
        }
    }

    /// The object made of `id` before, or else a new one.
    fn once(
        &self,
        id: NodeId,
        make: impl FnOnce(&Self, NodeId) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(Some(made)) = self.made.borrow().get(id.index()) {
            return Ok(made.clone());
        }
        let fresh = make(self, id)?;
        let mut made = self.made.borrow_mut();
        if made.is_empty() {
            made.resize(self.message.len(), None);
        }
        made[id.index()] = Some(fresh.clone());
        Ok(fresh)
    }

    /// A new object. What most messages are made of is here, and everything else elsewhere, to keep
    /// this function's frame small.
    fn fresh(&self, id: NodeId) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        Ok(match self.message.node(id) {
            Node::None => py.None().into_bound(py),
            Node::Bool(value) => PyBool::new(py, value).to_owned().into_any(),
            Node::Int(value) => value.into_pyobject(py)?.into_any(),
            Node::Float(value) => PyFloat::new(py, value).into_any(),
            Node::Text(text) => self.text(text)?.into_any(),
            Node::Bytes(bytes) => self.bytes(bytes)?.into_any(),
            Node::Tuple(items) => PyTuple::new(py, self.children(items))?.into_any(),
            Node::List(items) => PyList::new(py, self.children(items))?.into_any(),
            Node::Dict { kind: DictKind::Plain, entries } => {
                let dict = PyDict::new(py);
                for &[key, value] in entries {
                    dict.set_item(self.value(key)?, self.value(value)?)?;
                }
                dict.into_any()
            }
            other => return self.rarer(id, other),
        })
    }

    #[inline(never)]
    fn rarer(&self, id: NodeId, node: Node<'_>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        Ok(match node {
            Node::Ellipsis => py.Ellipsis().into_bound(py),
            Node::NotImplemented => py.NotImplemented().into_bound(py),
            Node::Complex { re, im } => PyComplex::from_doubles(py, re, im).into_any(),
            Node::ByteArray(bytes) => self.byte_array(bytes)?.into_any(),
            Node::Set(items) => PySet::new(py, self.children(items))?.into_any(),
            Node::FrozenSet(items) => PyFrozenSet::new(py, self.children(items))?.into_any(),
            Node::Buffer { index, read_only: true } => {
                self.region(index)?.with_bytes(|bytes| self.bytes(bytes))?.into_any()
            }
            Node::Buffer { index, read_only: false } => {
                self.region(index)?.with_bytes(|bytes| self.byte_array(bytes))?.into_any()
            }
            Node::NdArray(array) => self.array(array)?,
            Node::NumpyScalar { dtype_id, data, .. } => self.numpy_scalar(dtype_id, data)?,
            Node::DType(_) => self.dtype(id)?,
            Node::Object(object) => self.instance(object)?,
            other => self.standard(other)?,
        })
    }

    /// `ids` as an iterator that Python containers can be filled from.
    fn children<'a>(
        &'a self,
        ids: &'a [NodeId],
    ) -> impl ExactSizeIterator<Item = impl IntoPyObject<'py>> + use<'a, 'm, 'py> {
        ids.iter().map(|&id| Child { converter: self, id })
    }

    fn text(&self, text: Text<'_>) -> PyResult<Bound<'py, PyString>> {
        match PyString::from_bytes(self.py, text.as_bytes()) {
            Err(error) if error.is_instance_of::<PyUnicodeDecodeError>(self.py) => {
                let bytes = self.bytes(text.as_bytes())?;
                PyString::from_encoded_object(&bytes, Some(c"utf-8"), Some(c"surrogatepass"))
            }
            done => done,
        }
    }

    /// `bytes`; unlike [`PyBytes::new`], short memory is an error.
    fn bytes(&self, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(self.py, bytes.len(), |place| {
            place.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn byte_array(&self, bytes: &[u8]) -> PyResult<Bound<'py, PyByteArray>> {
        PyByteArray::new_with(self.py, bytes.len(), |place| {
            place.copy_from_slice(bytes);
            Ok(())
        })
    }
}

/// A value that becomes an object when its container asks for it.
struct Child<'a, 'm, 'py> {
    converter: &'a Converter<'m, 'py>,
    id: NodeId,
}

impl<'py> IntoPyObject<'py> for Child<'_, '_, 'py> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, _py: Python<'py>) -> PyResult<Self::Output> {
        self.converter.value(self.id)
    }
}
