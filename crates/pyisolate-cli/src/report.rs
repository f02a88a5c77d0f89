//! What a run tells its user, whichever way it is printed.

use std::io;

use pyisolate_supervisor::{CellError, Death, Denial, Event, GuestFailure, LimitName, Stats};

use crate::limits;
use crate::status::Status;

/// Something that went wrong.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) status: Status,
    /// What happened and what to do about it, in one sentence.
    pub(crate) message: String,
    /// The guest's own words, if it raised.
    pub(crate) failure: Option<GuestFailure>,
}

/// How it all ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) status: Status,
    pub(crate) denials: Vec<Denial>,
    pub(crate) stats: Option<Stats>,
}

/// Prints events as they come.
pub(crate) trait Report {
    /// Something that the script sent.
    fn event(&mut self, event: &Event) -> io::Result<()>;
    /// Something that went wrong.
    fn trouble(&mut self, trouble: &Trouble) -> io::Result<()>;
    /// The end.
    fn ending(&mut self, ending: &Ending) -> io::Result<()>;
    /// Nothing more is there at the moment: lets the reader see what is.
    fn flush(&mut self) -> io::Result<()>;
}

impl Trouble {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), failure: None }
    }

    /// Trouble with an operation; nothing if it is only the end that this command brought about.
    pub(crate) fn of_cell(error: CellError, script: &str) -> Option<Self> {
        let status = Status::of_cell(&error);
        match error {
            CellError::Guest(failure) => Some(Self::of_failure(failure, script)),
            CellError::Dead(Death::Closed | Death::Killed) => None,
            CellError::Dead(Death::Limit { limit, allowed, reached }) => {
                let used = match reached {
                    Some(reached) => format!("reached {}", limits::write(limit, reached)),
                    None => "wanted more".to_owned(),
                };
                let more = limits::write(limit, allowed.saturating_mul(2));
                let allowed = limits::write(limit, allowed);
                Some(Self::new(
                    status,
                    format!(
                        "the script used up {limit}={allowed} ({used}); to allow more: \
                         --limit {limit}={more}"
                    ),
                ))
            }
            CellError::TooLarge { bytes, limit } => Some(Self::new(
                status,
                format!(
                    "{bytes} bytes are more than one message may have; to allow it: \
                     --limit message_bytes_max={} (now {})",
                    limits::write(LimitName::Message, bytes.next_multiple_of(1 << 20)),
                    limits::write(LimitName::Message, limit),
                ),
            )),
            other => Some(Self::new(status, other.to_string())),
        }
    }

    fn of_failure(mut failure: GuestFailure, script: &str) -> Self {
        let status = Status::of_failure(&failure);
        // The guest knows its source by number, the user by name.
        failure.traceback =
            failure.traceback.replace("File \"<cell 1>\"", &format!("File \"{script}\""));
        let message = match status {
            Status::Success => "the script ended itself".to_owned(),
            _ if failure.kind == "SystemExit" => {
                format!("the script ended itself: SystemExit({})", failure.message)
            }
            Status::Policy => match denied_import(&failure.message) {
                Some(module) => format!("to allow it: --import {module}"),
                None => "the script asked for what it was not granted: --policy grants it; \
                         `pyisolate policy explain` says how"
                    .to_owned(),
            },
            _ => failure.to_string(),
        };
        Self { status, message, failure: Some(failure) }
    }
}

/// The module that a refused import names, if that is a name.
fn denied_import(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("allowed_imports=['")?;
    let (module, _) = rest.split_once("']")?;
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    (!module.is_empty() && module.chars().all(is_name)).then_some(module)
}
