//! Instances of classes that the host registered. The module above says what is done and what not.

use pyisolate_abi::pickle::{Construction, Node, NodeId, Object, ObjectState};
use pyo3::exceptions::{PyAttributeError, PyBaseException, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::Converter;
use super::recipe::{Attribute, Base, Kind, Recipe, name_of};

/// The error of a value that cannot be rebuilt.
pub(super) fn refused(why: impl Into<String>) -> PyErr {
    PyTypeError::new_err(why.into())
}

impl<'py> Converter<'_, 'py> {
    #[inline(never)]
    pub(super) fn instance(&self, object: Object<'_>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let trusted = self.classes.get(object.class)?;
        let (class, recipe) = (trusted.class(py), trusted.recipe(py)?);
        let (base, new) = match &recipe.kind {
            Kind::Data { base, new } => (*base, new.bind(py)),
            Kind::Enum => return self.member(class, &object),
        };
        let made = self.allocate(class, base, new, &object)?;
        match object.state {
            None => {}
            Some(ObjectState::Attributes(id)) if recipe.listed_fields.is_none() => {
                Instance { class, recipe, made: &made, dict: None }.set_all(self, id, false)?;
            }
            Some(ObjectState::Slots { attributes, slots, .. })
                if recipe.listed_fields.is_none() =>
            {
                let mut instance = Instance { class, recipe, made: &made, dict: None };
                if let Some(attributes) = attributes {
                    instance.set_all(self, attributes, false)?;
                }
                instance.set_all(self, slots, true)?;
            }
            Some(state) => {
                let mut instance = Instance { class, recipe, made: &made, dict: None };
                instance.set_listed(self, state.whole())?;
            }
        }
        Ok(made)
    }

    /// An instance without attributes yet: `new` called with the data that its type keeps itself.
    fn allocate(
        &self,
        class: &Bound<'py, PyType>,
        base: Base,
        new: &Bound<'py, PyAny>,
        object: &Object<'_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let node = |id: &NodeId| self.message.node(*id);
        let is_new = object.construction == Construction::New && object.kwargs.is_empty();
        match (base, object.args) {
            (Base::Object, []) if is_new => new.call1((class,)),
            (Base::Named(fields), args) if is_new && args.len() == fields => {
                new.call1((class, PyTuple::new(py, self.children(args))?))
            }
            (Base::Tuple, [one]) if is_new && matches!(node(one), Node::Tuple(_)) => {
                new.call1((class, self.value(*one)?))
            }
            (Base::Int, [one]) if is_new && matches!(node(one), Node::Int(_) | Node::BigInt(_)) => {
                new.call1((class, self.value(*one)?))
            }
            (Base::Float, [one]) if is_new && matches!(node(one), Node::Float(_)) => {
                new.call1((class, self.value(*one)?))
            }
            (Base::Complex, [re, im])
                if is_new && matches!((node(re), node(im)), (Node::Float(_), Node::Float(_))) =>
            {
                new.call1((class, self.value(*re)?, self.value(*im)?))
            }
            (Base::Text, [one]) if is_new && matches!(node(one), Node::Text(_)) => {
                new.call1((class, self.value(*one)?))
            }
            (Base::Bytes, [one]) if is_new && matches!(node(one), Node::Bytes(_)) => {
                new.call1((class, self.value(*one)?))
            }
            // These two ask for a call of the class; their types need no more than `__new__`.
            (Base::FrozenSet, [one]) if !is_new && matches!(node(one), Node::List(_)) => {
                new.call1((class, self.value(*one)?))
            }
            (Base::Exception, args) if !is_new => {
                static SET_ARGS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                let set_args = SET_ARGS.get_or_try_init(py, || {
                    let args = py.get_type::<PyBaseException>().getattr("args")?;
                    args.getattr("__set__").map(Bound::unbind)
                })?;
                let args = PyTuple::new(py, self.children(args))?;
                let mut with_class = Vec::with_capacity(args.len() + 1);
                with_class.push(class.clone().into_any());
                with_class.extend(args.iter());
                let made = new.call1(PyTuple::new(py, with_class)?)?;
                // OSError leaves them to `__init__` in some classes.
                set_args.bind(py).call1((&made, args))?;
                Ok(made)
            }
            _ => Err(refused(format!(
                "the cell sent {} with arguments for a constructor, which is not run on what a \
                 cell sends; remove its __reduce__ or __getnewargs__, or send a dict",
                name_of(class)?
            ))),
        }
    }
}

/// An instance that gets its attributes.
struct Instance<'a, 'py> {
    class: &'a Bound<'py, PyType>,
    recipe: &'a Recipe,
    made: &'a Bound<'py, PyAny>,
    /// Its `__dict__`, once it was needed.
    dict: Option<Bound<'py, PyDict>>,
}

impl<'py> Instance<'_, 'py> {
    /// Stores the entries of the dict `id`; `slots_only` if none may go to the `__dict__`.
    fn set_all(
        &mut self,
        converter: &Converter<'_, 'py>,
        id: NodeId,
        slots_only: bool,
    ) -> PyResult<()> {
        let Node::Dict { entries, .. } = converter.message.node(id) else {
            return Err(self.refused("state that is not attributes"));
        };
        for &[name, value] in entries {
            let Node::Text(text) = converter.message.node(name) else {
                return Err(self.refused("an attribute whose name is not a str"));
            };
            let attribute = text.to_str().and_then(|name| self.recipe.attribute(name));
            match attribute {
                Some(Attribute::Slot(slot)) => {
                    let slot = slot.bind(converter.py);
                    self.set_slot(slot, converter.value(value)?)?;
                }
                None if !slots_only => {
                    let name = converter.value(name)?;
                    self.dict()?.set_item(name, converter.value(value)?)?;
                }
                None => {
                    return Err(self.refused(&format!(
                        "a slot {:?} that it does not declare",
                        text.to_string_lossy()
                    )));
                }
                Some(Attribute::Hidden) => {
                    return Err(self.refused(&format!(
                        "an attribute {:?} that would hide the one of its class",
                        text.to_string_lossy()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Stores the values of the list `id` in the fields of a frozen dataclass with slots.
    fn set_listed(&mut self, converter: &Converter<'_, 'py>, id: NodeId) -> PyResult<()> {
        let (Some(fields), Node::List(values)) =
            (&self.recipe.listed_fields, converter.message.node(id))
        else {
            return Err(self.refused("state that is not attributes"));
        };
        if fields.len() != values.len() {
            return Err(self.refused("another number of fields than it has"));
        }
        for (name, &value) in fields.iter().zip(values) {
            let value = converter.value(value)?;
            match self.recipe.attribute(name) {
                Some(Attribute::Slot(slot)) => self.set_slot(slot.bind(converter.py), value)?,
                // A field of a base without slots. The class itself declares it.
                _ => self.dict()?.set_item(name, value)?,
            }
        }
        Ok(())
    }

    fn set_slot(&self, slot: &Bound<'py, PyAny>, value: Bound<'py, PyAny>) -> PyResult<()> {
        slot.call_method1(intern!(slot.py(), "__set__"), (self.made, value)).map(drop)
    }

    /// The instance's `__dict__`, whatever its class says about attributes.
    fn dict(&mut self) -> PyResult<&Bound<'py, PyDict>> {
        static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let dict = match self.dict.take() {
            Some(dict) => dict,
            None => {
                let py = self.made.py();
                let get = GET.get_or_try_init(py, || {
                    let object = PyType::new::<PyAny>(py);
                    object.getattr("__getattribute__").map(Bound::unbind)
                })?;
                let lacking = || self.refused("attributes that it has no slots for");
                match get.bind(py).call1((self.made, intern!(py, "__dict__"))) {
                    Ok(found) => found.cast_into_exact().map_err(|_| lacking())?,
                    Err(error) if error.is_instance_of::<PyAttributeError>(py) => {
                        return Err(lacking());
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(self.dict.insert(dict))
    }

    fn refused(&self, what: &str) -> PyErr {
        let name = match name_of(self.class) {
            Ok(name) => name,
            Err(error) => return error,
        };
        refused(format!(
            "the cell sent {name} with {what}; give host and cell the same definition of the \
             class and leave its pickling to Python, or send a dict"
        ))
    }
}
