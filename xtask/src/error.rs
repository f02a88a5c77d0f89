//! What can go wrong in a chore, and the exit status for it.

use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use thiserror::Error;

/// One failed operation of a chore.
#[derive(Debug, Error)]
pub(crate) enum XtaskError {
    /// The command line made no sense.
    #[error("{complaint}\n\n{help}")]
    Usage { complaint: String, help: &'static str },

    /// This is not Linux.
    #[error("PyIsolate runs on Linux only: its walls are Linux kernel mechanisms")]
    NotLinux,

    /// No interpreter fits; the text lists each one tried.
    #[error("{0}")]
    NoInterpreter(crate::interpreter::NoneFits),

    /// `.venv` is there, but no virtual environment.
    #[error("{} exists but is no virtual environment; move it away and try again", path.display())]
    NotAVenv { path: PathBuf },

    /// A program could not be started at all.
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },

    /// A program ran and did not succeed.
    #[error("{step} failed ({status})")]
    Failed { step: String, status: ExitStatus },

    /// A program did not end in time.
    #[error("{step} did not end within {seconds} s")]
    TimedOut { step: String, seconds: u64 },

    /// A tool is not installed.
    #[error("{tool} is not installed; install it with: {install}")]
    MissingTool { tool: &'static str, install: &'static str },

    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },

    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },

    /// `cargo metadata` printed something unexpected.
    #[error("cannot understand what `cargo metadata` printed: {0}")]
    Metadata(serde_json::Error),

    /// House rules are broken; one line each.
    #[error("{} broken:\n  {}", plural(violations.len(), "rule"), violations.join("\n  "))]
    Rules { violations: Vec<String> },

    /// Some steps of a chore failed; each has already said why.
    #[error("failed: {}", steps.join(", "))]
    Steps { steps: Vec<&'static str> },

    /// A test run in which nothing ran proves nothing.
    #[error("no test ran")]
    NothingRan,
}

impl XtaskError {
    pub(crate) fn usage(complaint: impl Into<String>, help: &'static str) -> Self {
        Self::Usage { complaint: complaint.into(), help }
    }

    /// The program's own status where one program was the chore, 2 for a bad command line, else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage { .. } => ExitCode::from(2),
            Self::Failed { status, .. } => {
                let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
                ExitCode::from(code.max(1))
            }
            _ => ExitCode::FAILURE,
        }
    }
}

/// `1 rule`, `2 rules`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}
