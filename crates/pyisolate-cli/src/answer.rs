//! What a question to the command is answered with: lines on stdout and an exit status.

use std::io::{self, BufWriter, IsTerminal, Write};

use serde_json::Value;

use crate::json::write_string;
use crate::report::Trouble;
use crate::status::Status;
use crate::text::for_terminal;

/// The answer that the exit status gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is in order, it is the same, it is allowed.
    Yes = 0,
    /// It is not in order, or not the same.
    No = 1,
    /// The policy does not allow it.
    Denied = 3,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Stop {
    /// What was asked makes no sense, or cannot be read.
    Trouble(Trouble),
    /// The answer cannot be printed.
    Print(io::Error),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Print(error)
    }
}

/// Runs a question; returns the exit status.
pub(crate) fn answered(ask: impl FnOnce(&mut Out) -> Result<Answer, Stop>) -> u8 {
    let mut out = Out::new();
    let done = ask(&mut out).and_then(|answer| {
        out.out.flush()?;
        Ok(answer)
    });
    match done {
        Ok(answer) => answer as u8,
        Err(Stop::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Status::BrokenPipe.code()
        }
        Err(Stop::Print(error)) => {
            out.note(&format!("pyisolate: cannot write to stdout: {error}"));
            Status::Host.code()
        }
        Err(Stop::Trouble(trouble)) => {
            // What was printed before it belongs before it.
            let _ = out.out.flush();
            out.note(&format!("pyisolate: {}", trouble.message));
            trouble.status.code()
        }
    }
}

/// Where answers are printed.
pub(crate) struct Out {
    out: BufWriter<io::Stdout>,
    is_terminal: bool,
}

impl Out {
    fn new() -> Self {
        Self { out: BufWriter::new(io::stdout()), is_terminal: io::stdout().is_terminal() }
    }

    /// One or more lines. On a terminal, control characters are shown and not obeyed.
    pub(crate) fn lines(&mut self, text: &str) -> io::Result<()> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = if self.is_terminal { for_terminal(text) } else { text.into() };
        writeln!(self.out, "{text}")
    }

    /// A line of JSON without any control character.
    pub(crate) fn json(&mut self, value: &Value) -> io::Result<()> {
        let mut line = String::new();
        write_value(&mut line, value);
        writeln!(self.out, "{line}")
    }

    /// Something beside the answer, on stderr.
    pub(crate) fn note(&mut self, text: &str) {
        let is_terminal = io::stderr().is_terminal();
        let text = if is_terminal { for_terminal(text) } else { text.into() };
        // If nobody takes what goes to stderr, there is nobody to tell.
        let _ = self.out.flush();
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Appends a value of this program's own making, which nests a few levels.
fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_string(out, key);
                out.push_str(": ");
                write_value(out, value);
            }
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
}
