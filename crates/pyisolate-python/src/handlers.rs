//! Python's answers to guests: capabilities of the host's own, and the listener for refusals.
//!
//! Both run in threads that Rust made. What a handler raises reaches the guest as little more than
//! its kind and message: see [`failure`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyisolate_supervisor::broker::Failure;
use pyisolate_supervisor::{Denial, Handler, HandlerCall, HostCapability, Parcel};
use pyo3::exceptions::{PyException, PyKeyError, PyOSError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

use crate::convert::{Classes, to_python};
use crate::errors::{denial_event, value_error};
use crate::exit::{inside, is_ending};
use crate::pickling::Pickled;

/// Refusals that wait to be told: a listener that is this far behind hears of no more until it has
/// caught up. Each is some hundred bytes.
const DENIALS_WAITING_MAX: usize = 1000;
/// The longest message of an exception that a guest is sent, in bytes: a screenful.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The host's own capabilities from `pyisolate.capabilities.HostCapability`s.
pub(crate) fn capabilities(
    given: &Bound<'_, PyDict>,
    classes: &Arc<Classes>,
) -> PyResult<BTreeMap<String, HostCapability>> {
    let mut capabilities = BTreeMap::new();
    for (name, host) in given {
        let seconds: f64 = host.getattr("timeout")?.extract()?;
        let actions: Option<Vec<String>> = host.getattr("actions")?.extract()?;
        let held = Held { host: host.unbind(), classes: Arc::clone(classes) };
        let handler = PyHandler(Mutex::new(Some(Arc::new(held))));
        let capability = HostCapability {
            handler: Arc::new(handler),
            actions: actions.map(|actions| actions.into_iter().collect()),
            timeout: Duration::try_from_secs_f64(seconds).map_err(value_error)?,
        };
        capabilities.insert(name.extract()?, capability);
    }
    Ok(capabilities)
}

/// A `pyisolate.capabilities.HostCapability`, until its cell ends. The host's code often refers to
/// the cell or its supervisor, and the interpreter cannot see through to here that it is in a circle.
struct PyHandler(Mutex<Option<Arc<Held>>>);

struct Held {
    host: Py<PyAny>,
    classes: Arc<Classes>,
}

impl fmt::Debug for PyHandler {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PyHandler").finish_non_exhaustive()
    }
}

impl Handler for PyHandler {
    fn handle(&self, call: HandlerCall<'_>) -> Result<Parcel, Failure> {
        let held = self.held().clone();
        held.and_then(|held| inside(|py| held.answer(py, call)))
            .unwrap_or_else(|| Err(Failure::new("RuntimeError", "the host is shutting down")))
    }

    fn end(&self) {
        // Outside of the lock. The interpreter's lock is not waited for: a reference that goes
        // without it is given back by whoever has it next.
        let held = self.held().take();
        drop(held);
    }
}

impl PyHandler {
    fn held(&self) -> MutexGuard<'_, Option<Arc<Held>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn answer(&self, py: Python<'_>, call: HandlerCall<'_>) -> Result<Parcel, Failure> {
        let HandlerCall { cell, capability, action, payload, cancel } = call;
        // What does not get as far as the host's own code is the guest's mistake, and not logged.
        let running = to_python(py, payload, &self.classes)
            .and_then(|payload| self.host.bind(py).call_method1("begin", (action, payload)))
            .map_err(|error| failure(&error, py))?;
        let stop = running.clone().unbind();
        // The cell's end may be told by a thread that others wait for, and the interpreter may be
        // busy for long.
        let stop_apart = move || {
            let stop = move || inside(|py| stop.call_method0(py, "stop").map(drop));
            let thread = std::thread::Builder::new().name("pyisolate-cancel".to_owned());
            // Without a thread the coroutine runs to its end or its timeout.
            let _ = thread.spawn(stop);
        };
        let on_cancel = cancel.on_cancel(stop_apart);
        let result = running.call_method0("run");
        drop(on_cancel);
        let log = |what: &str, error: &PyErr| log(py, (cell, capability, action, what), error);
        let result = result.map_err(|error| {
            log("the handler raised", &error);
            failure(&error, py)
        })?;
        Pickled::of(&result).map(|pickled| pickled.into_parcel(py)).map_err(|error| {
            log("the answer cannot be pickled", &error);
            Failure::new("RuntimeError", "the host's answer could not be sent")
        })
    }
}

/// A thread that calls `listener` with each refusal. It ends with the supervisor and its cells.
pub(crate) fn listener(listener: Py<PyAny>) -> PyResult<SyncSender<Denial>> {
    let (sender, denials) = sync_channel::<Denial>(DENIALS_WAITING_MAX);
    let listen = move || {
        for denial in denials {
            let told = inside(|py| {
                let names = (denial.cell.clone(), denial.capability.clone());
                let action = denial.action.clone();
                let told = denial_event(py, denial).and_then(|event| listener.call1(py, (event,)));
                if let Err(error) = told {
                    log(py, (&names.0, &names.1, &action, "on_denial raised"), &error);
                }
            });
            if told.is_none() {
                return; // the interpreter is ending
            }
        }
    };
    let thread = std::thread::Builder::new().name("pyisolate-denials".to_owned());
    thread.spawn(listen)?;
    Ok(sender)
}

/// Tells the host's log what a guest is not told.
fn log(py: Python<'_>, about: (&str, &str, &str, &str), error: &PyErr) {
    if is_ending() {
        return; // most likely it was interrupted
    }
    let logged = || {
        let logger = py.import("logging")?.call_method1("getLogger", ("pyisolate",))?;
        let details = PyDict::new(py);
        details.set_item("exc_info", error.value(py))?;
        let (cell, capability, action, what) = about;
        // The action is the guest's own word, which may have a line's end in it.
        let arguments = ("cell %s: %s, action %r: %s", cell, capability, action, what);
        logger.call_method("error", arguments, Some(&details))
    };
    if let Err(error) = logged() {
        error.write_unraisable(py, None);
    }
}

// --- what a guest is told of an exception ---------------------------------------------------------

/// The exception for the guest: of the same kind if that is built in, with its message. An `OSError`
/// is told by its number alone, and no absolute path in a message is told.
fn failure(error: &PyErr, py: Python<'_>) -> Failure {
    let kind = error.get_type(py);
    let name = kind.name().map_or_else(|_| "Exception".to_owned(), |name| name.to_string());
    if !error.is_instance_of::<PyException>(py) {
        return Failure::new("RuntimeError", format!("the host's handler ended with {name}"));
    }
    let number = os_error(error, py);
    let (as_kind, message) = match number {
        Some(message) if is_builtin(&kind, &name) => (Cow::Borrowed("OSError"), message),
        Some(message) => (Cow::Borrowed("RuntimeError"), format!("{name}: {message}")),
        None => match builtin(&kind, &name) {
            Some(as_kind) => (as_kind, message_of(error, py)),
            None => (Cow::Borrowed("RuntimeError"), format!("{name}: {}", message_of(error, py))),
        },
    };
    let mut message = without_paths(&message);
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    Failure { kind: as_kind, message }
}

/// An error number and what it means, without the files that it is about.
fn os_error(error: &PyErr, py: Python<'_>) -> Option<String> {
    if !error.is_instance_of::<PyOSError>(py) {
        return None;
    }
    let value = error.value(py);
    let number: i32 = value.getattr("errno").ok()?.extract().ok()?;
    let text: String = value.getattr("strerror").ok()?.extract().unwrap_or_default();
    Some(format!("[Errno {number}] {text}"))
}

fn is_builtin(kind: &Bound<'_, PyType>, name: &str) -> bool {
    let builtins = kind.py().import("builtins");
    builtins.and_then(|builtins| builtins.getattr(name)).is_ok_and(|found| found.is(kind))
}

/// The built-in exception that stands for this one and can be made of a message alone.
fn builtin(kind: &Bound<'_, PyType>, name: &str) -> Option<Cow<'static, str>> {
    match name {
        _ if !is_builtin(kind, name) => None,
        "ExceptionGroup" => None,
        "UnicodeDecodeError" | "UnicodeEncodeError" | "UnicodeTranslateError" => {
            Some(Cow::Borrowed("UnicodeError"))
        }
        _ => Some(Cow::Owned(name.to_owned())),
    }
}

fn message_of(error: &PyErr, py: Python<'_>) -> String {
    let value = error.value(py);
    // Its `str()` is the `repr` of the key, of which the guest's would be another.
    let key = error.is_instance_of::<PyKeyError>(py).then(|| {
        let (key,) = value.getattr("args").ok()?.extract::<(Bound<'_, PyString>,)>().ok()?;
        Some(key.to_string())
    });
    key.flatten().unwrap_or_else(|| {
        value.str().map_or_else(|_| "<its str() raised>".to_owned(), |text| text.to_string())
    })
}

/// The text with `<path>` for every absolute path in it. Whether it is one of this host is not asked:
/// the guest, whose words the message may repeat, would learn it from the answer.
fn without_paths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, path) = rest.split_at(at);
        out.push_str(before);
        let previous = before.chars().next_back();
        // A quoted path ends with its quote, and may have blanks in it.
        let len = match previous.filter(|quote| "'\"`".contains(*quote)) {
            Some(quote) => path.find(quote),
            None => path.find(|c: char| c.is_whitespace() || "'\"`<>|,;)]}".contains(c)),
        };
        let (path, after) = path.split_at(len.unwrap_or(path.len()));
        // Within a word, a URL or a relative path it is no root.
        let is_inner = |c: char| c.is_alphanumeric() || "/_-.~%".contains(c);
        let is_url = path.starts_with("//") && is_scheme(before);
        let is_root = !is_url && !previous.is_some_and(is_inner);
        if is_root && path.len() > 1 {
            out.push_str("<path>");
        } else {
            out.push_str(path);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether it ends with a URL's scheme and colon, of URLs that are not of files.
fn is_scheme(before: &str) -> bool {
    let scheme = before.strip_suffix(':').unwrap_or("");
    scheme.ends_with(|c: char| c.is_ascii_alphanumeric()) && !scheme.ends_with("file")
}
