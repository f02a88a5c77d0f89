//! Events as lines of JSON on stdout, for programs. The last one is always `done`.

use std::io::{self, BufWriter, Write};

use pyisolate_supervisor::abi::pickle::NodeId;
use pyisolate_supervisor::{Delivery, Event, Node};
use serde_json::json;

use crate::json::{TooLong, write, write_string};
use crate::report::{Ending, Report, Trouble};

pub(crate) struct JsonLines {
    out: BufWriter<io::Stdout>,
    /// The longest line, in bytes.
    line_bytes_max: usize,
}

impl JsonLines {
    /// Twice the largest message: in base64 it takes a third more, and text seldom as much. What is
    /// longer repeats itself.
    pub(crate) fn new(message_bytes_max: u64) -> Self {
        let line_bytes_max =
            usize::try_from(message_bytes_max.saturating_mul(2)).unwrap_or(usize::MAX);
        Self { out: BufWriter::new(io::stdout()), line_bytes_max }
    }

    /// A line that begins with `head` and has these values in it.
    fn line(
        &mut self,
        head: &str,
        delivery: &Delivery,
        values: &[(&str, NodeId)],
    ) -> io::Result<()> {
        let mut line = head.to_owned();
        let whole = values.iter().try_for_each(|(key, id)| {
            line.push_str(", \"");
            line.push_str(key);
            line.push_str("\": ");
            write(&mut line, delivery, *id, self.line_bytes_max)
        });
        if let Err(TooLong) = whole {
            let most = self.line_bytes_max;
            line = format!(
                "{head}, \"omitted\": \"longer than {most} bytes, or repeats itself without end\""
            );
        }
        writeln!(self.out, "{line}}}")
    }
}

/// The beginning of a line, with text fields.
fn head(kind: &str, texts: &[(&str, &str)]) -> String {
    let mut line = format!("{{\"type\": \"{kind}\"");
    for (key, text) in texts {
        line.push_str(", \"");
        line.push_str(key);
        line.push_str("\": ");
        write_string(&mut line, text);
    }
    line
}

impl Report for JsonLines {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Message(value) => {
                self.line(&head("post", &[]), value, &[("value", value.message.root())])
            }
            Event::Log { level, message, fields } => {
                let head = head("log", &[("level", level), ("message", message)]);
                self.line(&head, fields, &[("fields", fields.message.root())])
            }
            Event::Metric { name, sample } => {
                let head = head("metric", &[("name", name)]);
                match sample.message.node(sample.message.root()) {
                    Node::Tuple([value, tags]) => {
                        self.line(&head, sample, &[("value", *value), ("tags", *tags)])
                    }
                    _ => self.line(&head, sample, &[("value", sample.message.root())]),
                }
            }
        }
    }

    fn trouble(&mut self, trouble: &Trouble) -> io::Result<()> {
        let mut line =
            head("error", &[("status", trouble.status.word()), ("message", &trouble.message)]);
        if let Some(failure) = &trouble.failure {
            for (key, text) in [("exception", &failure.kind), ("traceback", &failure.traceback)] {
                line.push_str(", \"");
                line.push_str(key);
                line.push_str("\": ");
                write_string(&mut line, text);
            }
        }
        writeln!(self.out, "{line}}}")
    }

    fn ending(&mut self, ending: &Ending) -> io::Result<()> {
        let denials: Vec<_> = ending
            .denials
            .iter()
            .map(|denial| {
                json!({
                    "capability": denial.capability,
                    "action": denial.action,
                    "target": denial.target,
                    "rule": denial.rule,
                    "layer": denial.layer,
                    "grant": denial.grant,
                    "reason": denial.reason,
                })
            })
            .collect();
        let stats = ending.stats.map(|stats| {
            json!({
                "wall_ms": stats.wall_ms,
                "cpu_ms": stats.cpu_ms,
                "output_bytes": stats.output_bytes,
                "received": stats.received,
                "sent": stats.sent,
                "denied": stats.denied,
            })
        });
        let head = head("done", &[("status", ending.status.word())]);
        let (code, denials, stats) = (ending.status.code(), json!(denials), json!(stats));
        writeln!(
            self.out,
            "{head}, \"exit_status\": {code}, \"denials\": {denials}, \"stats\": {stats}}}"
        )?;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
