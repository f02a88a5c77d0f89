//! `pyisolate journal`: whether a journal is what was written, and what is in it.

use std::fmt::Write;
use std::io::BufReader;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pyisolate_supervisor::broker::journal::{
    Direction, Entry, Kind, LineHash, Outcome, ReadError, VerifyError, VerifyOptions, verify,
};
use serde_json::json;

use crate::answer::{Answer, Out, Stop, answered};
use crate::policy_run::{journal, one_line};
use crate::source::{key, open, shown, usage};
use crate::text::for_terminal;

/// Check and read the records of a run.
///
/// A journal is what `pyisolate run --journal FILE` or a supervisor writes: every crossing of a
/// cell's wall as a line of JSON, in order, each with the hash of the line before.
#[derive(Debug, Args)]
pub(crate) struct Journal {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
    Show(Show),
}

/// Find a changed, dropped, moved or inserted line.
///
/// Whoever can write the whole file can make it anew from any line on, hashes and all. Against
/// that, write it with a key (`pyisolate run --journal-key-file`), or keep the newest hash, which
/// this prints, where nobody else can write, and give it with --head.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
struct Verify {
    /// The journal; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The key that it was written with: all bytes of this file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// A hash that was the newest one once, and has to be there
    #[arg(long, value_name = "HASH", value_parser = head)]
    head: Option<LineHash>,

    /// Accept a journal that was not closed: it is still being written, or its program was killed
    #[arg(long)]
    allow_open: bool,

    /// Print one object of JSON
    #[arg(long)]
    json: bool,
}

/// List the records.
///
/// One line each: number, time of day (UTC), cell, direction, what it is, what was asked, what
/// became of it. `<-` came out of the cell, `->` went in.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pyisolate journal show run.journal --kind request --kind denial
  pyisolate journal show run.journal --json | jq 'select(.outcome == \"denied\").act'")]
struct Show {
    /// The journal; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Records of this cell alone
    #[arg(long, value_name = "NAME")]
    cell: Option<String>,

    /// Records of this kind alone, such as request; may be given several times
    #[arg(long = "kind", value_name = "KIND", value_parser = kind)]
    kinds: Vec<Kind>,

    /// Print the records as lines of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand; returns its exit status.
pub(crate) fn run(flags: &Journal) -> u8 {
    answered(|out| match &flags.command {
        Command::Verify(flags) => check(flags, out),
        Command::Show(flags) => show(flags, out),
    })
}

fn head(text: &str) -> Result<LineHash, String> {
    text.trim().to_ascii_lowercase().parse().map_err(|error| format!("{error}"))
}

fn kind(text: &str) -> Result<Kind, String> {
    serde_json::from_value(json!(text)).map_err(|_| {
        "there are exec, call, post, recv, log, metric, request, answer, grant, denial, limit, spawn, \
         configure, policy, end, journal, open and close"
            .to_owned()
    })
}

fn check(flags: &Verify, out: &mut Out) -> Result<Answer, Stop> {
    let options = VerifyOptions { key: key(flags.key_file.as_deref())?, head: flags.head };
    let name = shown(&flags.file);
    let reader = BufReader::with_capacity(1 << 16, open(&flags.file)?);
    let summary = match verify(reader, &options) {
        Ok(summary) => summary,
        Err(VerifyError::Read(error @ ReadError::Io { .. })) => {
            return Err(usage(format!("{name}: {error}")).into());
        }
        Err(error) => {
            if flags.json {
                out.json(&json!({"ok": false, "error": error.to_string()}))?;
            } else {
                out.lines(&format!("{name}: {error}"))?;
            }
            return Ok(Answer::No);
        }
    };
    let is_ok = summary.is_closed || flags.allow_open;
    let newest = summary.newest.hash.to_string();
    if flags.json {
        out.json(&json!({
            "ok": is_ok,
            "error": if is_ok { None } else { Some(NOT_CLOSED) },
            "journal": summary.journal,
            "lines": summary.lines,
            "closed": summary.is_closed,
            "keyed": summary.is_keyed,
            "first": summary.first_wall,
            "last": summary.last_wall,
            "head": newest,
        }))?;
    } else {
        let lines = summary.lines;
        let what = if is_ok { "ok" } else { NOT_CLOSED };
        let closed = if summary.is_closed { "closed" } else { "not closed" };
        let (first, last) = (&summary.first_wall, &summary.last_wall);
        let keyed = if summary.is_keyed { "with this key" } else { "without a key" };
        out.lines(&format!(
            "{name}: {what}\n  {lines} lines, {closed}, {keyed}\n  from {first}\n  to   {last}\n  \
             head {newest}"
        ))?;
    }
    Ok(if is_ok { Answer::Yes } else { Answer::No })
}

const NOT_CLOSED: &str = "it does not end with the line that closes it: it is still being written, \
                          its program was killed, or lines at its end are missing";

fn show(flags: &Show, out: &mut Out) -> Result<Answer, Stop> {
    for entry in journal(&flags.file)? {
        let entry = entry.map_err(|error| usage(format!("{}: {error}", shown(&flags.file))))?;
        let is_cell = flags.cell.as_ref().is_none_or(|cell| *cell == entry.cell);
        let is_kind = flags.kinds.is_empty() || flags.kinds.contains(&entry.kind);
        if !is_cell || !is_kind {
            continue;
        }
        if flags.json {
            out.json(&json!(entry))?;
        } else {
            // Whatever a guest said is one line, and commands no terminal, now or later.
            out.lines(&for_terminal(&one_line(&listed(&entry))))?;
        }
    }
    Ok(Answer::Yes)
}

/// A record as a line for people.
fn listed(entry: &Entry) -> String {
    let mut line = String::new();
    let time = entry.wall.get(11..23).unwrap_or(&entry.wall);
    let way = match entry.direction {
        Some(Direction::ToGuest) => "->",
        Some(Direction::ToHost) => "<-",
        Some(Direction::Host) | None => "  ",
    };
    let cell = if entry.cell.is_empty() { "-" } else { &entry.cell };
    // Writing into memory cannot fail.
    let _ = write!(line, "{:>6} {time} {cell:<12} {way} {:<9}", entry.seq, entry.kind.as_str());
    if let Some(operation) = entry.operation {
        let _ = write!(line, " #{operation}");
    }
    match (&entry.act, &entry.capability, &entry.action) {
        (Some(act), ..) => {
            let _ = write!(line, " {}: {act}", act.capability());
        }
        (None, Some(capability), Some(action)) => {
            let _ = write!(line, " {capability}.{action}");
        }
        (None, None, Some(action)) => {
            let _ = write!(line, " {action}");
        }
        (None, _, None) => {}
    }
    if let Some(outcome) = entry.outcome {
        let _ = write!(line, " {}", outcome.as_str());
    }
    if let (Some(Outcome::Denied), Some(layer)) = (entry.outcome, &entry.layer) {
        let _ = write!(line, " by {layer}");
    }
    if let Some(rule) = &entry.rule {
        let _ = write!(line, " ({rule})");
    }
    if let Some(error) = &entry.error {
        let _ = write!(line, " {error}");
    }
    if let Some(reason) = entry.reason.as_ref().filter(|_| entry.rule.is_none()) {
        let _ = write!(line, " ({reason})");
    }
    if entry.bytes > 0 {
        let _ = write!(line, " [{} B]", entry.bytes);
    }
    if entry.sensitive {
        line.push_str(" [secret, left out]");
    }
    line.truncate(line.trim_end().len());
    line
}

const VERIFY_HELP: &str = "\
Exit status: 0 it is what was written, 1 it is not, or was not closed; 2 it cannot be read.

Examples:
  pyisolate journal verify run.journal
  pyisolate journal verify run.journal --key-file journal.key --head 3f1c...

A line can be checked by hand: its hash is the SHA-256 (HMAC-SHA256 with a key) of all of it that
stands before ,\"hash\":
  sed -n 5p run.journal | sed 's/,\"hash\":\"[0-9a-f]*\"}$//' | tr -d '\\n' | sha256sum";
