//! Events as text: what the script printed and posted on stdout, everything else on stderr.

use std::io::{self, BufWriter, IsTerminal, Write};

use pyisolate_supervisor::abi::pickle::NodeId;
use pyisolate_supervisor::{Delivery, Event, Node};

use crate::report::{Ending, Report, Trouble};
use crate::show::{show, show_node};
use crate::status::Status;
use crate::text::for_terminal;

/// Refusals that are told one by one; of more a script makes a habit.
const DENIALS_SHOWN: usize = 10;

pub(crate) struct Human {
    out: BufWriter<io::Stdout>,
    out_is_terminal: bool,
    error_is_terminal: bool,
}

impl Human {
    pub(crate) fn new() -> Self {
        Self {
            out: BufWriter::new(io::stdout()),
            out_is_terminal: io::stdout().is_terminal(),
            error_is_terminal: io::stderr().is_terminal(),
        }
    }

    fn out(&mut self, text: &str) -> io::Result<()> {
        let line = if self.out_is_terminal { for_terminal(text) } else { text.into() };
        writeln!(self.out, "{line}")
    }

    /// A line on stderr, after everything that was printed before it.
    fn error(&mut self, text: &str) -> io::Result<()> {
        self.out.flush()?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let line = if self.error_is_terminal { for_terminal(text) } else { text.into() };
        // If nobody takes what goes to stderr, there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{line}");
        Ok(())
    }
}

impl Report for Human {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Message(value) => self.out(&show(value)),
            Event::Log { level, message, fields } => match stream(fields) {
                Some(Stream::Stdout) => self.out(message),
                Some(Stream::Stderr) => self.error(message),
                None => self
                    .error(&format!("{level} {message}{}", pairs(fields, fields.message.root()))),
            },
            Event::Metric { name, sample } => {
                let (value, tags) = match sample.message.node(sample.message.root()) {
                    Node::Tuple([value, tags]) => (show_node(sample, *value), pairs(sample, *tags)),
                    _ => (show(sample), String::new()),
                };
                self.error(&format!("metric {name}={value}{tags}"))
            }
        }
    }

    fn trouble(&mut self, trouble: &Trouble) -> io::Result<()> {
        match &trouble.failure {
            // It said so itself, and of its own will.
            Some(failure) if failure.kind == "SystemExit" => {}
            Some(failure) if failure.traceback.is_empty() => self.error(&failure.to_string())?,
            Some(failure) => self.error(&failure.traceback)?,
            None => {}
        }
        let is_said = trouble.status == Status::Guest
            && trouble.failure.as_ref().is_some_and(|failure| failure.kind != "SystemExit");
        if is_said { Ok(()) } else { self.error(&format!("pyisolate: {}", trouble.message)) }
    }

    fn ending(&mut self, ending: &Ending) -> io::Result<()> {
        // A refused import is an exception, which was printed, or caught by a script that can do
        // without the module.
        let denials = ending.denials.iter().filter(|denial| denial.capability != "import");
        for denial in denials.clone().take(DENIALS_SHOWN) {
            let (capability, action) = (&denial.capability, &denial.action);
            self.error(&format!("pyisolate: refused {capability}.{action}: {}", denial.reason))?;
        }
        let more = denials.count().saturating_sub(DENIALS_SHOWN);
        if more > 0 {
            self.error(&format!("pyisolate: and {more} more refusals"))?;
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[derive(Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

/// The stream that a log event stands for, if the script printed it.
fn stream(fields: &Delivery) -> Option<Stream> {
    let message = &fields.message;
    let Node::Dict { entries: [[key, value]], .. } = message.node(message.root()) else {
        return None;
    };
    match (message.node(*key), message.node(*value)) {
        (Node::Text(key), Node::Text(value)) if key.as_bytes() == b"stream" => {
            match value.as_bytes() {
                b"stdout" => Some(Stream::Stdout),
                b"stderr" => Some(Stream::Stderr),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A dict as ` key=value`, over and over; nothing for anything else.
fn pairs(delivery: &Delivery, dict: NodeId) -> String {
    let Node::Dict { entries, .. } = delivery.message.node(dict) else { return String::new() };
    let mut text = String::new();
    for [key, value] in entries {
        text.push(' ');
        match delivery.message.node(*key) {
            Node::Text(key) => text.push_str(&for_terminal(&key.to_string_lossy())),
            _ => text.push_str(&show_node(delivery, *key)),
        }
        text.push('=');
        text.push_str(&show_node(delivery, *value));
        if text.len() > crate::show::SHOWN_BYTES_MAX {
            text.push_str(" ... [cut; --json prints all of it]");
            break;
        }
    }
    text
}
