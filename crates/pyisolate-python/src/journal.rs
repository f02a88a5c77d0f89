//! The journal of a supervisor, as Python asks for it.

use std::path::Path;
use std::sync::Arc;

use pyisolate_supervisor::broker::journal::Payloads;
use pyisolate_supervisor::broker::{Journal, JournalOptions};
use pyo3::prelude::*;

use crate::errors::{sandbox_error, value_error};

/// Begins a journal, or goes on with one that is there.
pub(crate) fn open(py: Python<'_>, path: &Path, payloads: &str) -> PyResult<Arc<Journal>> {
    let payloads = match payloads {
        "full" => Payloads::Full,
        "hash" => Payloads::Hash,
        "none" => Payloads::None,
        other => {
            let text = format!("journal_payloads={other:?} is none of full, hash and none");
            return Err(value_error(text));
        }
    };
    let options = JournalOptions { payloads, ..JournalOptions::default() };
    py.detach(|| Journal::create(path, options)).map_err(|error| sandbox_error(py, &error))
}
