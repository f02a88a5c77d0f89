//! `Confinement` and `Layer`: what confines a cell.

use std::hash::{Hash, Hasher};

use pyisolate_supervisor as supervisor;
use pyo3::exceptions::{PyIndexError, PyKeyError};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple};

/// What confines a cell: a sequence of its layers, with what was required of them.
#[pyclass(frozen, sequence, module = "pyisolate")]
pub(crate) struct Confinement(pub(crate) supervisor::Confinement);

/// A layer by its place or its name.
#[derive(FromPyObject)]
enum Key {
    Index(isize),
    Name(String),
}

#[pymethods]
impl Confinement {
    #[getter]
    fn cell(&self) -> &str {
        &self.0.cell
    }
    #[getter]
    fn backend(&self) -> &'static str {
        self.0.backend.as_str()
    }
    #[getter]
    fn require(&self) -> String {
        self.0.require.to_string()
    }
    #[getter]
    fn policy_sha256(&self) -> &str {
        &self.0.policy_sha256
    }
    #[getter]
    fn layers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.report.layers.iter().cloned().map(Layer))
    }

    fn to_json(&self) -> String {
        self.0.to_json()
    }

    fn __len__(&self) -> usize {
        self.0.report.layers.len()
    }
    fn __getitem__(&self, key: Key) -> PyResult<Layer> {
        let layers = &self.0.report.layers;
        match key {
            Key::Index(index) => {
                let from_end = layers.len().checked_add_signed(index);
                let place = usize::try_from(index).ok().or(from_end.filter(|_| index < 0));
                let layer = place.and_then(|place| layers.get(place)).cloned();
                layer.map(Layer).ok_or_else(|| PyIndexError::new_err(index))
            }
            Key::Name(name) => {
                let layer = layers.iter().find(|layer| layer.name.as_str() == name).cloned();
                layer.map(Layer).ok_or_else(|| PyKeyError::new_err(name))
            }
        }
    }
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.layers(py)?.try_iter()
    }
    fn __str__(&self) -> String {
        self.0.to_string()
    }
    fn __repr__(&self) -> String {
        let holding =
            self.0.report.layers.iter().filter(|it| it.status == supervisor::Status::Enforced);
        format!(
            "<Confinement of {:?}: {} of {} layers enforced, require={}>",
            self.0.cell,
            holding.count(),
            self.0.report.layers.len(),
            self.0.require
        )
    }
}

/// One layer of a cell's confinement.
#[pyclass(frozen, eq, hash, module = "pyisolate")]
#[derive(PartialEq, Eq)]
pub(crate) struct Layer(pub(crate) supervisor::Layer);

impl Hash for Layer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.name, self.0.status, &self.0.detail).hash(state);
    }
}

#[pymethods]
impl Layer {
    #[getter]
    fn name(&self) -> &'static str {
        self.0.name.as_str()
    }
    #[getter]
    fn status(&self) -> &'static str {
        self.0.status.as_str()
    }
    #[getter]
    fn detail(&self) -> &str {
        &self.0.detail
    }
    #[getter]
    fn meaning(&self) -> &'static str {
        self.0.name.meaning()
    }
    #[getter]
    fn remedy(&self) -> Option<&'static str> {
        self.0.name.remedy()
    }

    fn __repr__(&self) -> String {
        format!("<Layer {}: {} ({})>", self.0.name, self.0.status, self.0.detail)
    }
}
