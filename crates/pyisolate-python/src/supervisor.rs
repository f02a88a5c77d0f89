//! `Supervisor` and `Template`.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyisolate_supervisor::broker::SecretValue;
use pyisolate_supervisor::{
    self as supervisor, Accelerator, Backend, CellName, CellOptions, Environment, Imports, Limits,
    MachineOptions, Requirement, SupervisorOptions, TrustedNames, policy,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyType};

use crate::cell::Cell;
use crate::convert::Classes;
use crate::errors::{reload_error, sandbox_error, spawn_error, type_error, value_error};
use crate::exit::Live;
use crate::limits::{limit_of, number_of};
use crate::policy::{Policy, document};
use crate::{handlers, interpreters, journal};

/// The backend of a name that Python has checked already.
fn backend(name: &str) -> PyResult<Backend> {
    [Backend::Process, Backend::Subinterpreter, Backend::Microvm]
        .into_iter()
        .find(|backend| backend.as_str() == name)
        .ok_or_else(|| PyValueError::new_err(format!("no backend {name:?} in this release")))
}

/// The accelerator of a name.
fn accelerator(name: &str) -> PyResult<Accelerator> {
    [Accelerator::Kvm, Accelerator::Tcg]
        .into_iter()
        .find(|accelerator| accelerator.as_str() == name)
        .ok_or_else(|| value_error(format!("accel={name:?} is neither 'kvm' nor 'tcg'")))
}

/// Owns cells.
#[pyclass(frozen, module = "pyisolate", weakref)]
pub(crate) struct Supervisor {
    inner: Owner,
}

/// A zygote that has imported modules or run set-up code.
#[pyclass(frozen, module = "pyisolate", weakref)]
pub(crate) struct Template {
    inner: supervisor::Template,
    supervisor: Owner,
}

/// A share of a supervisor. The last one to go shuts it down, which waits for threads that may want
/// the interpreter's lock, as handlers do: so it does not go with that lock held.
#[derive(Clone)]
pub(crate) struct Owner(Option<Arc<Live>>);

impl Deref for Owner {
    type Target = Live;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().unwrap_or_else(|| unreachable!("it is taken by drop alone"))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(last) = self.0.take().and_then(Arc::into_inner) {
            Python::attach(|py| py.detach(|| drop(last)));
        }
    }
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
    #[pyo3(signature = (
        description, runtime, warm_pool, pool_of, environment=None, on_denial=None, journal=None,
        journal_payloads="hash", require="default", accel=None, image=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "the keywords of the Python class")]
    fn new(
        py: Python<'_>,
        description: &str,
        runtime: PathBuf,
        warm_pool: usize,
        pool_of: &str,
        environment: Option<PathBuf>,
        on_denial: Option<Py<PyAny>>,
        journal: Option<PathBuf>,
        journal_payloads: &str,
        require: &str,
        accel: Option<&str>,
        image: Option<String>,
    ) -> PyResult<Self> {
        let accelerator = accel.map(accelerator).transpose()?;
        let runtime = Some(runtime.as_path());
        let pool_of = backend(pool_of)?;
        let environment = match environment {
            Some(folder) => py.detach(|| Environment::of_venv(&folder, runtime)),
            None => Environment::from_description(description, Path::new("this host"), runtime),
        }
        .map_err(|error| spawn_error(py, &error.into()))?;
        let journal = journal.map(|path| journal::open(py, &path, journal_payloads)).transpose()?;
        let interpreters = interpreters::make(&environment);
        let options = SupervisorOptions {
            warm_pool,
            pool_of,
            interpreters: Some(interpreters),
            machines: MachineOptions { image, accelerator, ..MachineOptions::default() },
            journal: journal.clone(),
            require: require.parse::<Requirement>().map_err(value_error)?,
            denials: on_denial.map(handlers::listener).transpose()?,
            ..SupervisorOptions::new(environment)
        };
        let inner = py
            .detach(|| supervisor::Supervisor::new(options))
            .map_err(|error| spawn_error(py, &error))?;
        Ok(Self { inner: Owner(Some(Live::new(inner, journal))) })
    }

    /// `granted` is what stands beside the policy, from the objects for the built-in capabilities.
    #[pyo3(signature = (
        name, limits, imports, trusted, template=None, *, backend="process", policy=None, follows_document=false,
        granted=None, secrets=None, capabilities=None, require=None, descriptors=true
    ))]
    #[expect(clippy::too_many_arguments, reason = "the keywords of the Python method")]
    fn spawn(
        &self,
        py: Python<'_>,
        name: &str,
        limits: &Bound<'_, PyDict>,
        imports: Vec<String>,
        trusted: Vec<Bound<'_, PyType>>,
        template: Option<Py<Template>>,
        backend: &str,
        policy: Option<&Bound<'_, Policy>>,
        follows_document: bool,
        granted: Option<&Bound<'_, Policy>>,
        secrets: Option<&Bound<'_, PyDict>>,
        capabilities: Option<&Bound<'_, PyDict>>,
        require: Option<&str>,
        descriptors: bool,
    ) -> PyResult<Cell> {
        let forked_from = template.as_ref().map(Py::get);
        if let Some(template) = forked_from
            && !std::ptr::eq(&raw const *template.supervisor, &raw const *self.inner)
        {
            return Err(type_error("the template is another supervisor's"));
        }
        let (names, classes) = trusted_names(trusted)?;
        let classes = Arc::new(Classes::new(classes));
        let policy = policy.map(|policy| policy.get().0.clone());
        let capabilities =
            capabilities.map(|given| handlers::capabilities(given, &classes)).transpose()?;
        let backend = self::backend(backend)?;
        let require = require.map(str::parse::<Requirement>).transpose();
        let options = CellOptions {
            require: require.map_err(value_error)?,
            backend,
            limits: limits_of(policy.as_ref(), limits)?,
            imports: Imports::new(imports).map_err(value_error)?,
            trusted: names,
            policy,
            granted: granted.map(|granted| granted.get().0.rules.clone()).unwrap_or_default(),
            follows_document,
            hand_descriptors: descriptors,
            secrets: secrets.map(secret_values).transpose()?.unwrap_or_default(),
            capabilities: capabilities.unwrap_or_default(),
            ..CellOptions::new(CellName::new(name).map_err(value_error)?)
        };
        let cell = py
            .detach(|| {
                self.inner.supervisor.spawn(options, forked_from.map(|template| &template.inner))
            })
            .map_err(|error| spawn_error(py, &error))?;
        Ok(Cell::new(cell, classes, backend.as_str(), template, self.inner.clone()))
    }

    #[pyo3(signature = (imports, setup, backend="process"))]
    fn template(
        &self,
        py: Python<'_>,
        imports: Vec<String>,
        setup: &str,
        backend: &str,
    ) -> PyResult<Template> {
        let backend = self::backend(backend)?;
        let imports = Imports::new(imports).map_err(value_error)?;
        let inner = py
            .detach(|| self.inner.supervisor.template(backend, &imports, setup))
            .map_err(|error| spawn_error(py, &error))?;
        Ok(Template { inner, supervisor: self.inner.clone() })
    }

    fn set_policy_token(&self, token: &[u8]) {
        self.inner.supervisor.set_policy_token(token);
    }

    /// Puts a document in force; returns the names of the cells that it holds for.
    fn reload_policy(
        &self,
        py: Python<'_>,
        text: &str,
        source: &str,
        format: &str,
        token: &[u8],
    ) -> PyResult<Vec<String>> {
        // Whoever has no right to load it is not told what is wrong with it.
        self.inner
            .supervisor
            .check_policy_token(token)
            .map_err(|error| reload_error(py, &error))?;
        let document = document(py, text, source, format)?;
        py.detach(|| self.inner.supervisor.reload_policy(&document, token))
            .map_err(|error| reload_error(py, &error))
    }

    fn list_active(&self) -> Vec<String> {
        self.inner.supervisor.list_active()
    }

    #[getter]
    fn pool_ready(&self) -> usize {
        self.inner.supervisor.pool_ready()
    }

    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.shutdown()).map_err(|error| sandbox_error(py, &error))
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

/// The defaults, with what the policy and then the caller set.
fn limits_of(policy: Option<&policy::Policy>, given: &Bound<'_, PyDict>) -> PyResult<Limits> {
    let mut limits = Limits::default();
    if let Some(policy) = policy {
        policy.limits.apply(&mut limits);
    }
    for (name, value) in given {
        let name = name.extract::<String>()?;
        let limit = limit_of(&name)
            .ok_or_else(|| type_error(format!("there is no limit named {name:?}")))?;
        *limits.slot(limit) = number_of(limit, &value)?;
    }
    Ok(limits)
}

/// The values of secrets: a `str` reaches the guest as one, `bytes` as `bytes`. No error shows them.
fn secret_values(given: &Bound<'_, PyDict>) -> PyResult<BTreeMap<String, SecretValue>> {
    let mut values = BTreeMap::new();
    for (name, value) in given {
        let name = name.extract::<String>()?;
        let value = if let Ok(text) = value.cast::<PyString>() {
            let text = text.to_str();
            SecretValue::from(
                text.map_err(|_| value_error(format!("the secret {name:?} is no UTF-8")))?
                    .to_owned(),
            )
        } else if let Ok(bytes) = value.cast::<PyBytes>() {
            SecretValue::from(bytes.as_bytes().to_vec())
        } else {
            return Err(type_error(format!("the secret {name:?} is neither str nor bytes")));
        };
        values.insert(name, value);
    }
    Ok(values)
}
