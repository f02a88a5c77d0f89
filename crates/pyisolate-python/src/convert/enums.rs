//! Members of enumerations that the host registered.

use pyisolate_abi::pickle::{Construction, Node, Object};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyType};

use super::Converter;
use super::instances::refused;
use super::recipe::name_of;

/// Most flags of a class of which the guest may send combinations. The class keeps each combination
/// for ever, about 500 bytes; those of 16 flags take 32 MiB, and those of 32 would take 2 TiB.
const FLAGS_MAX: u32 = 16;

impl<'py> Converter<'_, 'py> {
    pub(super) fn member(
        &self,
        class: &Bound<'py, PyType>,
        object: &Object<'_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let &[value] = object.args else { return Err(no_member(class)) };
        if object.construction != Construction::Call || object.state.is_some() {
            return Err(no_member(class));
        }
        let is_int = matches!(self.message.node(value), Node::Int(_));
        let value = self.value(value)?;
        match find(class, &value)? {
            Some(member) => Ok(member),
            None if is_int => combine(class, &value),
            None => Err(no_member(class)),
        }
    }
}

/// The member of a value, without the class's `_missing_`.
fn find<'py>(
    class: &Bound<'py, PyType>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = class.py();
    let by_value = class.getattr(intern!(py, "_value2member_map_"))?.cast_into::<PyDict>()?;
    match by_value.get_item(value) {
        Err(error) if error.is_instance_of::<PyTypeError>(py) => {}
        found => return found,
    }
    // Members with unhashable values are in no table.
    let by_name = class.getattr(intern!(py, "_member_map_"))?.cast_into::<PyDict>()?;
    for member in by_name.values() {
        if member.getattr(intern!(py, "_value_"))?.eq(value)? {
            return Ok(Some(member));
        }
    }
    Ok(None)
}

/// A combination of flags that the host has not met yet.
fn combine<'py>(
    class: &Bound<'py, PyType>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    static FLAG: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static FIND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = class.py();
    let flag = FLAG.import(py, "enum", "Flag")?;
    if !class.is_subclass(flag)? {
        return Err(no_member(class));
    }
    let missing = |class: &Bound<'py, PyType>| class.getattr("_missing_")?.getattr("__func__");
    let data = class.getattr("_member_type_")?;
    let is_plain = data.is(PyType::new::<PyAny>(py)) || data.is(py.get_type::<PyInt>());
    if !is_plain || !missing(class)?.is(&missing(flag)?) {
        return Err(no_member(class));
    }
    let mut mask = 0;
    for member in class.getattr("_member_map_")?.cast_into::<PyDict>()?.values() {
        let Ok(bits) = member.getattr("_value_")?.extract::<u64>() else {
            return Err(no_member(class));
        };
        mask |= bits;
    }
    if mask.count_ones() > FLAGS_MAX {
        return Err(refused(format!(
            "the cell sent a combination of flags of {}, which has more than {FLAGS_MAX}; send \
             its value and convert it in the host",
            name_of(class)?
        )));
    }
    match value.extract::<u64>() {
        Ok(bits) if bits & !mask == 0 => {
            // What `class(value)` ends in: the library's own search, then the `_missing_` that was
            // just seen to be the library's own too.
            let find = FIND.get_or_try_init(py, || {
                py.import("enum")?.getattr("Enum")?.getattr("__new__").map(Bound::unbind)
            })?;
            find.bind(py).call1((class, value))
        }
        _ => Err(no_member(class)),
    }
}

fn no_member(class: &Bound<'_, PyType>) -> PyErr {
    match name_of(class) {
        Ok(name) => refused(format!(
            "the cell sent {name} with a value that none of its members has; give host and cell \
             the same definition of it"
        )),
        Err(error) => error,
    }
}
