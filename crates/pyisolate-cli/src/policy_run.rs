//! `pyisolate policy learn` and `replay`: policies and recorded runs.

use std::io::{BufReader, Read};
use std::path::Path;

use pyisolate_supervisor::broker::journal::Reader;
use pyisolate_supervisor::broker::{self, Example, LearnOptions, Side};
use serde_json::json;

use crate::answer::{Answer, Out, Stop};
use crate::policy::{Learn, Replay};
use crate::policy_text;
use crate::source::{is_stdin, open, shown, usage};

/// Reads a journal a piece at a time.
pub(crate) fn journal(path: &Path) -> Result<Reader<BufReader<Box<dyn Read>>>, Stop> {
    Ok(Reader::new(BufReader::with_capacity(1 << 16, open(path)?)))
}

pub(crate) fn learn(flags: &Learn, out: &mut Out) -> Result<Answer, Stop> {
    let options = LearnOptions {
        cell: flags.cell.clone(),
        fold: flags.fold,
        granted_only: flags.granted_only,
    };
    let learned = broker::learn(journal(&flags.journal)?, &options)
        .map_err(|error| usage(format!("{}: {error}", shown(&flags.journal))))?;
    let text = learned.to_yaml(Path::new(&shown(&flags.journal)));
    match &flags.output {
        Some(path) if !is_stdin(path) => std::fs::write(path, text)
            .map_err(|error| usage(format!("cannot write {}: {error}", shown(path))))?,
        _ => out.lines(&text)?,
    }
    if learned.decisions == 0 {
        out.note("pyisolate: no decision is recorded, so the policy grants nothing");
    }
    if learned.beyond > 0 {
        let many = learned.beyond;
        out.note(&format!("pyisolate: {many} refusals are left out that no policy can change"));
    }
    Ok(Answer::Yes)
}

pub(crate) fn replay(flags: &Replay, out: &mut Out) -> Result<Answer, Stop> {
    if is_stdin(&flags.policy) && is_stdin(&flags.journal) {
        return Err(usage("`-` is given twice, and standard input can be read only once").into());
    }
    let document = policy_text::find(&flags.policy)?;
    let changes = broker::replay(&document, journal(&flags.journal)?)
        .map_err(|error| usage(format!("{}: {error}", shown(&flags.journal))))?;
    if flags.json {
        let mut value = json!(changes);
        value["same"] = json!(changes.is_empty());
        out.json(&value)?;
    } else {
        side(out, "newly allowed", '+', &changes.allowed)?;
        side(out, "newly denied", '-', &changes.denied)?;
        out.lines(&format!("unchanged: {}", changes.unchanged))?;
        if changes.beyond > 0 {
            out.lines(&format!("refused whatever the policy says: {}", changes.beyond))?;
        }
    }
    Ok(if changes.is_empty() { Answer::Yes } else { Answer::No })
}

fn side(out: &mut Out, title: &str, sign: char, side: &Side) -> Result<(), Stop> {
    if side.decisions == 0 {
        return Ok(());
    }
    out.lines(&format!("{title}: {}", side.decisions))?;
    for example in &side.examples {
        let Example { cell, act, line, times, rule, recorded_rule, grant, .. } = example;
        let times = if *times == 1 { String::new() } else { format!(", {times} times") };
        out.lines(&one_line(&format!("  {sign} {cell}: {act}  (line {line}{times})")))?;
        let now = rule.as_deref().unwrap_or("no rule matches");
        let then =
            recorded_rule.as_ref().map_or_else(String::new, |rule| format!("; then: {rule}"));
        out.lines(&one_line(&format!("      now: {now}{then}")))?;
        if let Some(grant) = grant {
            out.lines(&one_line(&format!("      to allow it: {grant}")))?;
        }
    }
    if side.more > 0 {
        out.lines(&format!("  and {} more decisions", side.more))?;
    }
    Ok(())
}

/// A guest's words can have line ends in them, which would pass for lines of this listing.
pub(crate) fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\t', "\\t")
}
