//! What another policy would have said to a recorded run.

use std::collections::HashMap;

use pyisolate_policy::{Act, Document, NameError, Policy};
use serde::Serialize;
use thiserror::Error;

use crate::decision::{Answer, Run, decide};
use crate::journal::{Entry, ReadError};

/// How many different acts are told of each side; the rest is counted.
const EXAMPLES_MAX: usize = 10;

/// Why a run cannot be replayed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A line cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A line names a cell that cannot be one.
    #[error("line {line}: {error}")]
    Cell {
        /// Counted from 1.
        line: u64,
        /// What is wrong with the name.
        error: NameError,
    },
}

/// What another policy would change in a run.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Changes {
    /// What was refused and would be allowed.
    pub allowed: Side,
    /// What was allowed and would be refused.
    pub denied: Side,
    /// How many decisions would stay as they were.
    pub unchanged: u64,
    /// How many refusals no policy can change.
    pub beyond: u64,
}

/// The decisions that would change in one way.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Side {
    /// How many.
    pub decisions: u64,
    /// The first different ones of them.
    pub examples: Vec<Example>,
    /// How many decisions have no example.
    pub more: u64,
}

/// An act whose answer would change.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Example {
    /// Whose.
    pub cell: String,
    /// What was asked.
    pub act: Act,
    /// The line of the journal where it was asked first, counted from 1.
    pub line: u64,
    /// How often it was asked.
    pub times: u64,
    /// The place of the rule that would decide; `None` if none would match.
    pub rule: Option<String>,
    /// The place of the rule that decided, as it was recorded.
    pub recorded_rule: Option<String>,
    /// The smallest grant that would allow it, if it would be refused.
    pub grant: Option<String>,
}

impl Changes {
    /// Whether everything would stay as it was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allowed.decisions == 0 && self.denied.decisions == 0
    }
}

/// Asks `document` about every decision of a recorded run.
///
/// It is what was asked then that is asked again: what the code would have done after another
/// answer nobody knows.
///
/// # Errors
/// [`ReplayError`] for the first line that cannot be read.
pub fn replay(
    document: &Document,
    entries: impl IntoIterator<Item = Result<Entry, ReadError>>,
) -> Result<Changes, ReplayError> {
    let mut changes = Changes::default();
    let mut run = Run::default();
    let mut policies: HashMap<String, Policy> = HashMap::new();
    for entry in entries {
        let entry = entry?;
        let Some(decision) = run.next(&entry) else { continue };
        let line = entry.seq + 1;
        if !policies.contains_key(&entry.cell) {
            let policy = document.policy(Some(&entry.cell));
            let policy = policy.map_err(|error| ReplayError::Cell { line, error })?;
            policies.insert(entry.cell.clone(), policy);
        }
        let Some(policy) = policies.get(&entry.cell) else { continue };
        let verdict = decide(policy, &decision);
        let side = match (decision.answer, verdict.allowed) {
            (Answer::Beyond, _) => {
                changes.beyond += 1;
                continue;
            }
            (Answer::Denied, true) => &mut changes.allowed,
            (Answer::Allowed, false) => &mut changes.denied,
            (Answer::Denied, false) | (Answer::Allowed, true) => {
                changes.unchanged += 1;
                continue;
            }
        };
        let rule = verdict.rule.map(|rule| rule.origin.to_string());
        side.add(&entry, decision.act, rule, || policy.explain(decision.act).grant_line);
    }
    Ok(changes)
}

impl Side {
    fn add(
        &mut self,
        entry: &Entry,
        act: &Act,
        rule: Option<String>,
        grant: impl FnOnce() -> Option<String>,
    ) {
        self.decisions += 1;
        let is_same = |example: &&mut Example| example.cell == entry.cell && example.act == *act;
        if let Some(example) = self.examples.iter_mut().find(is_same) {
            example.times += 1;
        } else if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(Example {
                cell: entry.cell.clone(),
                act: act.clone(),
                line: entry.seq + 1,
                times: 1,
                rule,
                recorded_rule: entry.rule.clone(),
                grant: grant(),
            });
        } else {
            self.more += 1;
        }
    }
}
