//! `Supervisor` and `Template`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyisolate_supervisor::{
    self as supervisor, CellName, CellOptions, Environment, Imports, Limits, SupervisorOptions,
    TrustedNames,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::cell::Cell;
use crate::convert::Classes;
use crate::errors::{spawn_error, type_error, value_error};

/// Owns cells.
#[pyclass(frozen, module = "pyisolate", weakref)]
pub(crate) struct Supervisor {
    inner: Arc<supervisor::Supervisor>,
}

/// A zygote that has imported modules or run set-up code.
#[pyclass(frozen, module = "pyisolate", weakref)]
pub(crate) struct Template {
    inner: supervisor::Template,
    supervisor: Arc<supervisor::Supervisor>,
}

#[pymethods]
impl Template {
    #[getter]
    fn alive(&self) -> bool {
        self.inner.is_alive()
    }
}

#[pymethods]
impl Supervisor {
    /// `description` is what [`supervisor::DESCRIBE`] says of the host's interpreter;
    /// `environment` the folder of a virtual environment to use instead.
    #[new]
    #[pyo3(signature = (description, runtime, warm_pool, environment=None))]
    fn new(
        py: Python<'_>,
        description: &str,
        runtime: PathBuf,
        warm_pool: usize,
        environment: Option<PathBuf>,
    ) -> PyResult<Self> {
        let runtime = Some(runtime.as_path());
        let environment = match environment {
            Some(folder) => py.detach(|| Environment::of_venv(&folder, runtime)),
            None => Environment::from_description(description, Path::new("this host"), runtime),
        }
        .map_err(|error| spawn_error(py, &error.into()))?;
        let options = SupervisorOptions { environment, warm_pool };
        let inner = py
            .detach(|| supervisor::Supervisor::new(options))
            .map_err(|error| spawn_error(py, &error))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    #[pyo3(signature = (name, limits, imports, trusted, template=None))]
    fn spawn(
        &self,
        py: Python<'_>,
        name: &str,
        limits: &Bound<'_, PyDict>,
        imports: Vec<String>,
        trusted: Vec<Bound<'_, PyType>>,
        template: Option<Py<Template>>,
    ) -> PyResult<Cell> {
        let forked_from = template.as_ref().map(Py::get);
        if let Some(template) = forked_from
            && !Arc::ptr_eq(&template.supervisor, &self.inner)
        {
            return Err(type_error("the template is another supervisor's"));
        }
        let (names, classes) = trusted_names(trusted)?;
        let options = CellOptions {
            limits: limits_of(limits)?,
            imports: Imports::new(imports).map_err(value_error)?,
            trusted: names,
            ..CellOptions::new(CellName::new(name).map_err(value_error)?)
        };
        let cell = py
            .detach(|| self.inner.spawn(options, forked_from.map(|template| &template.inner)))
            .map_err(|error| spawn_error(py, &error))?;
        Ok(Cell::new(cell, Classes::new(classes), "process", template, Arc::clone(&self.inner)))
    }

    #[pyo3(signature = (imports, setup))]
    fn template(&self, py: Python<'_>, imports: Vec<String>, setup: &str) -> PyResult<Template> {
        let imports = Imports::new(imports).map_err(value_error)?;
        let inner = py
            .detach(|| self.inner.template(&imports, setup))
            .map_err(|error| spawn_error(py, &error))?;
        Ok(Template { inner, supervisor: Arc::clone(&self.inner) })
    }

    fn list_active(&self) -> Vec<String> {
        self.inner.list_active()
    }

    #[getter]
    fn pool_ready(&self) -> usize {
        self.inner.pool_ready()
    }

    fn shutdown(&self, py: Python<'_>) {
        py.detach(|| self.inner.shutdown());
    }
}

/// The names under which guests may send instances: a class's own, and that of a class of the same
/// name which guest code wrote itself.
fn trusted_names(trusted: Vec<Bound<'_, PyType>>) -> PyResult<(TrustedNames, Vec<Py<PyType>>)> {
    let mut names = TrustedNames::default();
    let mut classes: Vec<Py<PyType>> = Vec::new();
    let mut register = |module: &str, name: &str, class: &Bound<'_, PyType>| {
        let index = names.insert(module, name).index();
        match classes.get(index) {
            None => classes.push(class.clone().unbind()),
            Some(other) if other.is(class) => {}
            Some(_) => {
                return Err(value_error(format!(
                    "two trusted_types can be meant by {module}.{name}: register one"
                )));
            }
        }
        Ok(())
    };
    for class in trusted {
        let module = class.getattr("__module__")?.extract::<String>()?;
        let name = class.getattr("__qualname__")?.extract::<String>()?;
        register(&module, &name, &class)?;
        register("__main__", &name, &class)?;
    }
    Ok((names, classes))
}

/// The defaults, with what the caller set.
fn limits_of(given: &Bound<'_, PyDict>) -> PyResult<Limits> {
    let mut limits = Limits::default();
    for (name, value) in given {
        let name = name.extract::<String>()?;
        let slot = match name.as_str() {
            "wall_time_ms" => &mut limits.wall_time_ms,
            "cpu_ms" => &mut limits.cpu_ms,
            "mem_bytes" => &mut limits.mem_bytes,
            "output_bytes_max" => &mut limits.output_bytes,
            "message_bytes_max" => &mut limits.message_bytes,
            "unread_bytes_max" => &mut limits.unread_bytes,
            "open_files_max" => &mut limits.open_files,
            "child_work_max" => &mut limits.threads,
            other => return Err(type_error(format!("there is no limit named {other:?}"))),
        };
        *slot = value
            .extract::<u64>()
            .map_err(|_| value_error(format!("{name} is a whole number, not {value}")))?;
    }
    Ok(limits)
}
