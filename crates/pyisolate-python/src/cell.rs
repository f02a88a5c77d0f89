//! `Cell`, `ExecHandle` and the values that a cell shows.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyisolate_supervisor::{self as supervisor, CellError, Event, Patience, policy};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::confinement::Confinement;
use crate::convert::{Classes, to_python};
use crate::errors::{cell_error, denial_event, error_of};
use crate::pickling::Pickled;
use crate::policy::Policy;
use crate::supervisor::{Owner, Template};

/// How long one wait goes on before signals are looked at: Ctrl-C is felt this late at the most.
const SIGNAL_SLICE: Duration = Duration::from_millis(100);
/// Default of `close(timeout=)`.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A cell: guest code behind a wall.
#[pyclass(frozen, module = "pyisolate", weakref)]
pub(crate) struct Cell {
    inner: Arc<supervisor::Cell>,
    classes: Arc<Classes>,
    backend: &'static str,
    /// Both live for as long as their cells do.
    _template: Option<Py<Template>>,
    _supervisor: Owner,
}

impl Cell {
    pub(crate) fn new(
        inner: supervisor::Cell,
        classes: Arc<Classes>,
        backend: &'static str,
        template: Option<Py<Template>>,
        supervisor: Owner,
    ) -> Self {
        let inner = Arc::new(inner);
        Self { inner, classes, backend, _template: template, _supervisor: supervisor }
    }

    fn raising<'a>(&'a self, py: Python<'a>) -> impl Fn(&CellError) -> PyErr + 'a {
        move |error| error_of(py, Some(&self.inner), error)
    }
}

#[pymethods]
impl Cell {
    #[getter]
    fn name(&self) -> &str {
        self.inner.name()
    }

    #[getter]
    fn backend(&self) -> &'static str {
        self.backend
    }

    #[getter]
    fn pid(&self) -> Option<i32> {
        self.inner.pid()
    }

    #[getter]
    fn stats(&self) -> Stats {
        Stats(self.inner.stats())
    }

    #[getter]
    fn confinement(&self, py: Python<'_>) -> Confinement {
        Confinement(py.detach(|| self.inner.confinement()))
    }

    #[getter]
    fn denials<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let denials = self.inner.denials().into_iter();
        let events = denials.map(|denial| denial_event(py, denial));
        PyList::new(py, events.collect::<PyResult<Vec<_>>>()?)
    }

    fn get_denial_events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.denials(py)
    }

    #[getter]
    fn policy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let policy = Policy(policy::Policy::clone(&self.inner.policy()));
        py.import("pyisolate.policy")?.getattr("Policy")?.call_method1("_of", (policy,))
    }

    /// Puts another policy in force: whoever holds the cell may.
    fn set_policy(&self, policy: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = policy.py();
        let resolve = py.import("pyisolate.policy")?.getattr("resolve_policy")?;
        let policy = resolve.call1((policy, self.inner.name()))?.getattr("_inner")?;
        let policy = policy.cast_into::<Policy>()?;
        let policy = &policy.get().0;
        py.detach(|| self.inner.set_policy(policy));
        Ok(())
    }

    #[getter]
    fn handed_out(&self) -> Vec<String> {
        self.inner.handed_out().into_iter().map(|right| right.what).collect()
    }

    #[getter]
    fn termination_reason(&self) -> Option<String> {
        self.inner.death().map(|death| death.to_string())
    }

    fn exec(&self, py: Python<'_>, source: &str) -> PyResult<ExecHandle> {
        let handle =
            patiently(py, None, |patience| py.detach(|| self.inner.exec_within(source, patience)))?;
        Ok(ExecHandle { inner: handle, cell: Arc::downgrade(&self.inner) })
    }

    #[pyo3(signature = (target, /, *args, timeout=None, **kwargs))]
    fn call<'py>(
        &self,
        py: Python<'py>,
        target: &str,
        args: &Bound<'py, PyTuple>,
        timeout: Option<f64>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let timeout = duration(timeout)?;
        let pickled = Pickled::of_arguments(args, kwargs)?;
        let call = patiently(py, timeout, |patience| {
            pickled.with(py, |outbound| self.inner.start_call(target, outbound, patience))
        })?;
        let value = sliced(py, timeout, |slice| call.wait(slice), self.raising(py))?;
        to_python(py, value, &self.classes)
    }

    #[pyo3(signature = (message, *, timeout=None))]
    fn post(
        &self,
        py: Python<'_>,
        message: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let timeout = duration(timeout)?;
        let pickled = Pickled::of(message)?;
        patiently(py, timeout, |patience| {
            pickled.with(py, |outbound| self.inner.post(outbound, patience))
        })
    }

    #[pyo3(signature = (timeout=None))]
    fn recv<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let timeout = duration(timeout)?;
        // What is there already is taken without giving the interpreter's lock away.
        let event = match self.inner.try_recv() {
            Some(event) => event.map_err(|error| self.raising(py)(&error))?,
            None => sliced(py, timeout, |slice| self.inner.recv(slice), self.raising(py))?,
        };
        event_object(py, event, &self.classes)
    }

    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let timeout = duration(timeout)?.unwrap_or(CLOSE_PATIENCE);
        let failures = py.detach(|| self.inner.close(timeout));
        if failures.is_empty() {
            return Ok(());
        }
        let logger = py.import("logging")?.call_method1("getLogger", ("pyisolate",))?;
        for failure in failures {
            let text = format!(
                "cell {}: exec failed and nobody asked: {failure}\n{}",
                self.inner.name(),
                failure.traceback
            );
            logger.call_method1("warning", ("%s", text))?;
        }
        Ok(())
    }

    fn kill(&self, py: Python<'_>) {
        py.detach(|| self.inner.kill());
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (kind, _value, _traceback))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<&Bound<'_, PyAny>>,
        _value: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        if kind.is_some() {
            // The caller is already on its way out; what the guest still does is of no use.
            self.kill(py);
            return Ok(());
        }
        self.close(py, None)
    }

    fn __repr__(&self) -> String {
        let state = match self.inner.death() {
            None => "alive".to_owned(),
            Some(death) => death.to_string(),
        };
        format!("<Cell {} ({}): {state}>", self.inner.name(), self.backend)
    }
}

/// A running or ended `exec`.
#[pyclass(frozen, module = "pyisolate")]
pub(crate) struct ExecHandle {
    inner: supervisor::ExecHandle,
    /// A cell that nobody holds any more is killed, whoever holds this.
    cell: Weak<supervisor::Cell>,
}

#[pymethods]
impl ExecHandle {
    fn done(&self) -> bool {
        self.inner.done()
    }

    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let timeout = duration(timeout)?;
        let raise = |error: &CellError| error_of(py, self.cell.upgrade().as_deref(), error);
        sliced(py, timeout, |slice| self.inner.wait(slice), raise)
    }
}

/// What a cell used so far.
#[pyclass(frozen, module = "pyisolate")]
pub(crate) struct Stats(supervisor::Stats);

#[pymethods]
impl Stats {
    #[getter]
    fn cpu_ms(&self) -> u64 {
        self.0.cpu_ms
    }
    #[getter]
    fn mem_bytes(&self) -> u64 {
        self.0.mem_bytes
    }
    #[getter]
    fn wall_ms(&self) -> u64 {
        self.0.wall_ms
    }
    #[getter]
    fn received(&self) -> u64 {
        self.0.received
    }
    #[getter]
    fn sent(&self) -> u64 {
        self.0.sent
    }
    #[getter]
    fn output_bytes(&self) -> u64 {
        self.0.output_bytes
    }
    #[getter]
    fn denied(&self) -> u64 {
        self.0.denied
    }

    #[getter]
    fn throttled_ms(&self) -> u64 {
        self.0.throttled_ms
    }
    #[getter]
    fn abandoned(&self) -> bool {
        self.0.abandoned
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// A timeout in seconds, as Python callers give it.
pub(crate) fn duration(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    match seconds {
        None => Ok(None),
        Some(seconds) if seconds.is_nan() => Err(PyValueError::new_err("timeout is not a number")),
        // A time that has passed, or one that no clock can count to.
        Some(seconds) if seconds <= 0.0 => Ok(Some(Duration::ZERO)),
        Some(seconds) => Ok(Duration::try_from_secs_f64(seconds).ok()),
    }
}

/// Sends something that may have to wait for room, looking at signals meanwhile.
fn patiently<T>(
    py: Python<'_>,
    timeout: Option<Duration>,
    send: impl FnOnce(&Patience<'_>) -> Result<T, CellError>,
) -> PyResult<T> {
    let signal = Mutex::new(None);
    let go_on = || {
        let raised = Python::attach(|py| py.check_signals().err());
        let go_on = raised.is_none();
        *signal.lock().unwrap_or_else(PoisonError::into_inner) = raised;
        go_on
    };
    let timeout = timeout.unwrap_or(Patience::default().timeout);
    let sent = send(&Patience { timeout, go_on: &go_on });
    match signal.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(raised) => Err(raised),
        None => sent.map_err(|error| cell_error(py, &error)),
    }
}

/// Waits without the interpreter's lock, looking at signals between slices.
fn sliced<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    wait: impl Fn(Option<Duration>) -> Result<T, CellError> + Sync,
    raise: impl Fn(&CellError) -> PyErr,
) -> PyResult<T> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let slice = left.map_or(SIGNAL_SLICE, |left| left.min(SIGNAL_SLICE));
        match py.detach(|| wait(Some(slice))) {
            Ok(value) => return Ok(value),
            Err(CellError::TimedOut { operation, .. }) => {
                py.check_signals()?;
                if let (Some(left), Some(after)) = (left, timeout)
                    && left <= slice
                {
                    return Err(cell_error(py, &CellError::TimedOut { operation, after }));
                }
            }
            Err(error) => return Err(raise(&error)),
        }
    }
}

// --- what comes out -----------------------------------------------------------------------------

static LOG_EVENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static METRIC_EVENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn event_object<'py>(
    py: Python<'py>,
    event: Event,
    classes: &Classes,
) -> PyResult<Bound<'py, PyAny>> {
    let protocol =
        |name: &str| py.import("pyisolate.runtime.protocol")?.getattr(name).map(Bound::unbind);
    match event {
        Event::Message(value) => to_python(py, value, classes),
        Event::Log { level, message, fields } => {
            let class = LOG_EVENT.get_or_try_init(py, || protocol("LogEvent"))?.bind(py);
            class.call1((level, message, to_python(py, fields, classes)?))
        }
        Event::Metric { name, sample } => {
            let class = METRIC_EVENT.get_or_try_init(py, || protocol("MetricEvent"))?.bind(py);
            let (value, tags) = to_python(py, sample, classes)?
                .extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            class.call1((name, value, tags))
        }
    }
}
