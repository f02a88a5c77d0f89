//! What a registered class is made of, worked out once.

use std::collections::HashMap;

use pyisolate_abi::pickle::ClassIndex;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyString, PyTuple, PyType,
};

use super::instances::refused;

/// The classes that the host trusts, in the order in which their names were registered.
pub(crate) struct Classes(Vec<Trusted>);

/// One of them.
pub(super) struct Trusted {
    class: Py<PyType>,
    /// Made when the first instance arrives.
    recipe: PyOnceLock<Recipe>,
}

/// How instances of a class are made.
pub(super) struct Recipe {
    pub(super) kind: Kind,
    /// Attributes of the class that decide what becomes of an instance's.
    attributes: HashMap<String, Attribute>,
    /// The fields, if the class has the `__setstate__` that `dataclasses` gives a frozen dataclass
    /// with slots: its state is a list of their values.
    pub(super) listed_fields: Option<Vec<String>>,
}

/// What allocates instances.
pub(super) enum Kind {
    /// Nothing: there are the members.
    Enum,
    /// `new`, the `__new__` of a builtin type.
    Data { base: Base, new: Py<PyAny> },
}

/// Which builtin type it is.
#[derive(Clone, Copy)]
pub(super) enum Base {
    Object,
    /// A `tuple` with this many named fields.
    Named(usize),
    Tuple,
    Int,
    Float,
    Complex,
    Text,
    Bytes,
    FrozenSet,
    Exception,
}

/// What an instance's attribute meets in the class.
pub(super) enum Attribute {
    /// The descriptor of a slot.
    Slot(Py<PyAny>),
    /// A method, property or nested class, which it would hide.
    Hidden,
}

impl Classes {
    /// Class `i` is the one whose name was registered as the `i`-th distinct name.
    pub(crate) fn new(classes: Vec<Py<PyType>>) -> Self {
        let trusted = |class| Trusted { class, recipe: PyOnceLock::new() };
        Self(classes.into_iter().map(trusted).collect())
    }

    pub(super) fn get(&self, index: ClassIndex) -> PyResult<&Trusted> {
        let missing = || refused("the cell sent an instance of a class that was not registered");
        self.0.get(index.index()).ok_or_else(missing)
    }
}

impl Trusted {
    pub(super) fn class<'py>(&self, py: Python<'py>) -> &Bound<'py, PyType> {
        self.class.bind(py)
    }

    /// # Errors
    /// `TypeError`, for a class of which nothing can be made.
    pub(super) fn recipe(&self, py: Python<'_>) -> PyResult<&Recipe> {
        self.recipe.get_or_try_init(py, || Recipe::of(self.class.bind(py)))
    }
}

impl Recipe {
    /// What the class has under the name of an instance's attribute.
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.get(name)
    }

    fn of(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let py = class.py();
        if class.is_instance(&py.import("enum")?.getattr("EnumType")?)? {
            return Ok(Self { kind: Kind::Enum, attributes: HashMap::new(), listed_fields: None });
        }
        let builtin_function = py.get_type::<PyDict>().getattr("__new__")?.get_type();
        let mut attributes = HashMap::new();
        let (mut allocator, mut own_new, mut setstate) = (None, false, None);
        for owner in class.mro() {
            for entry in owner.getattr("__dict__")?.call_method0("items")?.try_iter()? {
                let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = entry?.extract()?;
                let Ok(name) = name.extract::<String>() else { continue };
                if name == "__new__" && allocator.is_none() {
                    if value.is_exact_instance(&builtin_function) {
                        allocator = Some((owner.clone(), value.clone()));
                    } else {
                        own_new = true;
                    }
                }
                if name == "__setstate__" && setstate.is_none() {
                    setstate = Some((owner.clone(), value.clone()));
                }
                if let Some(attribute) = Attribute::of(&value)? {
                    attributes.entry(name).or_insert(Some(attribute));
                } else {
                    // Hides what a base has under the name.
                    attributes.entry(name).or_insert(None);
                }
            }
        }
        let listed_fields = match setstate {
            Some((owner, setstate)) => Self::setstate(class, &owner, &setstate)?,
            None => None,
        };
        let attributes = attributes
            .into_iter()
            .filter_map(|(name, attribute)| Some((name, attribute?)))
            .collect();
        let Some((owner, new)) = allocator else {
            return Err(refused(format!("{class} has no allocator; send a dataclass or a dict")));
        };
        let base = Base::of(class, owner.cast::<PyType>()?, own_new)?;
        Ok(Self { kind: Kind::Data { base, new: new.unbind() }, attributes, listed_fields })
    }

    /// Accepts the `__setstate__` functions of which it is known what they would do.
    fn setstate(
        class: &Bound<'_, PyType>,
        owner: &Bound<'_, PyAny>,
        setstate: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Vec<String>>> {
        let py = class.py();
        if owner.is(py.get_type::<PyBaseException>()) {
            return Ok(None);
        }
        let dataclasses = py.import("dataclasses")?;
        let generated = dataclasses.getattr_opt("_dataclass_setstate")?;
        if generated.is_some_and(|generated| generated.is(setstate)) {
            let names = dataclasses
                .call_method1("fields", (class,))?
                .try_iter()?
                .map(|field| field?.getattr("name")?.extract())
                .collect::<PyResult<_>>()?;
            return Ok(Some(names));
        }
        Err(refused(format!(
            "{} has a __setstate__ of its own, which is not run on what a cell sends; remove it, \
             or send a dict and build the instance in the host",
            name_of(class)?
        )))
    }
}

impl Base {
    /// `owner` is the first class in `class`'s order that allocates in C.
    fn of(class: &Bound<'_, PyType>, owner: &Bound<'_, PyType>, own_new: bool) -> PyResult<Self> {
        let py = class.py();
        let is = |builtin: Bound<'_, PyType>| owner.is(&builtin);
        Ok(if is(PyType::new::<PyAny>(py)) {
            if own_new {
                return Err(refused(format!(
                    "{} has a __new__ of its own, which is not run on what a cell sends; remove \
                     it, or send a dict and build the instance in the host",
                    name_of(class)?
                )));
            }
            Self::Object
        } else if is(py.get_type::<PyTuple>()) {
            match class.getattr_opt("_fields")? {
                Some(fields) if own_new => Self::Named(fields.len()?),
                _ => Self::Tuple,
            }
        } else if is(py.get_type::<PyInt>()) {
            Self::Int
        } else if is(py.get_type::<PyFloat>()) {
            Self::Float
        } else if is(py.get_type::<PyComplex>()) {
            Self::Complex
        } else if is(py.get_type::<PyString>()) {
            Self::Text
        } else if is(py.get_type::<PyBytes>()) {
            Self::Bytes
        } else if is(py.get_type::<PyFrozenSet>()) {
            Self::FrozenSet
        } else if owner.is_subclass_of::<PyBaseException>()?
            && owner.module()?.to_str()? == "builtins"
        {
            Self::Exception
        } else {
            return Err(refused(format!(
                "{} derives from {}, of which instances cannot be rebuilt; hold one in an \
                 attribute instead, or send a dict",
                name_of(class)?,
                name_of(owner)?
            )));
        })
    }
}

impl Attribute {
    fn of(value: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let py = value.py();
        static MEMBER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        static PROPERTY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        static CLASS_METHOD: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        if value.is_exact_instance(MEMBER.import(py, "types", "MemberDescriptorType")?) {
            return Ok(Some(Self::Slot(value.clone().unbind())));
        }
        let hidden = value.is_callable()
            || value.is_instance(PROPERTY.import(py, "builtins", "property")?)?
            || value.is_instance(CLASS_METHOD.import(py, "builtins", "classmethod")?)?;
        Ok(hidden.then_some(Self::Hidden))
    }
}

/// A class's name for messages.
pub(super) fn name_of(class: &Bound<'_, PyType>) -> PyResult<String> {
    class.fully_qualified_name()?.extract()
}
