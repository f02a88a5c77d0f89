//! `pyisolate policy check`, `explain`, `diff` and `templates`.

use std::collections::BTreeSet;

use pyisolate_supervisor::policy::{
    self, Act, CellName, Difference, Document, Policy, templates as shipped,
};
use serde_json::{Value, json};

use crate::answer::{Answer, Out, Stop};
use crate::policy::{Check, Diff, Explain, Templates};
use crate::policy_text::{self, NoPolicy};
use crate::source::{shown, usage};

pub(crate) fn check(flags: &Check, out: &mut Out) -> Result<Answer, Stop> {
    let mut answer = Answer::Yes;
    let mut unread = None;
    for path in &flags.files {
        match policy_text::read(path) {
            Ok(document) => out.lines(&format!("{}: ok: {}", shown(path), contents(&document)))?,
            Err(NoPolicy::Wrong(error)) => {
                out.note(&format!("{error}\n"));
                answer = Answer::No;
            }
            // The others are still looked at.
            Err(NoPolicy::Unread(trouble)) => {
                if let Some(earlier) = unread.replace(trouble) {
                    out.note(&format!("pyisolate: {}", earlier.message));
                }
            }
        }
    }
    unread.map_or(Ok(answer), |trouble| Err(trouble.into()))
}

/// What is in a document, in numbers.
fn contents(document: &Document) -> String {
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    };
    let sizes = |policy: &Policy| (policy.rules.len(), policy.limits.0.len());
    let (rules, limits) = sizes(&document.defaults);
    let mut text = format!("{}, {}", count(rules, "rule"), count(limits, "limit"));
    for (cell, own) in &document.cells {
        let (rules, limits) = sizes(own);
        let (rules, limits) = (count(rules, "rule"), count(limits, "limit"));
        text.push_str(&format!("; cell {cell}: {rules}, {limits}"));
    }
    text
}

pub(crate) fn explain(flags: &Explain, out: &mut Out) -> Result<Answer, Stop> {
    let (verb, target) = flags.act.split_first().ok_or_else(|| usage("VERB is missing"))?;
    let document = policy_text::find(&flags.policy)?;
    let act = Act::parse(verb, target).map_err(|error| {
        let is_option = target.last().is_some_and(|word| word.starts_with("--"));
        let hint = if is_option { "; options stand before the verb" } else { "" };
        usage(format!("{error}{hint}"))
    })?;
    let cell = flags.cell.as_deref();
    let (policy, note) = policy_text::of_cell(&document, cell, &flags.policy)?;
    if let Some(note) = note {
        out.note(&format!("pyisolate: {note}"));
    }
    let explanation = policy.explain(&act);
    let answer = if explanation.allowed { Answer::Yes } else { Answer::Denied };
    if flags.json {
        let mut value = json!(explanation);
        value["cell"] = json!(flags.cell);
        out.json(&value)?;
    } else {
        out.lines(&explanation.to_string())?;
    }
    Ok(answer)
}

pub(crate) fn diff(flags: &Diff, out: &mut Out) -> Result<Answer, Stop> {
    let (old, new) = (policy_text::find(&flags.old)?, policy_text::find(&flags.new)?);
    let compare = |cell: Option<&str>| -> Result<Difference, Stop> {
        let (old, _) = policy_text::of_cell(&old, cell, &flags.old)?;
        let (new, _) = policy_text::of_cell(&new, cell, &flags.new)?;
        Ok(policy::diff(&old, &new))
    };
    let first = compare(flags.cell.as_deref())?;
    let mut all = Vec::new();
    if flags.cell.is_none() {
        let names: BTreeSet<&CellName> = old.cells.keys().chain(new.cells.keys()).collect();
        for name in names {
            let mut own = compare(Some(name.as_str()))?;
            // What changes for every cell is told once.
            own.allowed.retain(|change| !first.allowed.contains(change));
            own.denied.retain(|change| !first.denied.contains(change));
            own.limits.retain(|change| !first.limits.contains(change));
            if !own.is_empty() {
                all.push((Some(name.as_str()), own));
            }
        }
    }
    all.insert(0, (flags.cell.as_deref(), first));
    let is_same = all.iter().all(|(_, difference)| difference.is_empty());
    if flags.json {
        let line = |(cell, difference): &(Option<&str>, Difference)| -> Value {
            let mut value = json!(difference);
            value["cell"] = json!(cell);
            value
        };
        let differences: Vec<Value> = all.iter().map(line).collect();
        out.json(&json!({"same": is_same, "differences": differences}))?;
    } else if let [(_, only)] = &all[..] {
        out.lines(&only.to_string())?;
    } else {
        for (cell, difference) in &all {
            let title = cell.map_or_else(|| "every cell".to_owned(), |cell| format!("cell {cell}"));
            let text = difference.to_string().replace('\n', "\n  ");
            out.lines(&format!("{title}:\n  {text}"))?;
        }
    }
    Ok(if is_same { Answer::Yes } else { Answer::No })
}

pub(crate) fn templates(flags: &Templates, out: &mut Out) -> Result<Answer, Stop> {
    if let Some(name) = &flags.name {
        out.lines(policy_text::template_text(name)?)?;
        return Ok(Answer::Yes);
    }
    for template in shipped() {
        let alias = template.alias.map_or_else(String::new, |alias| format!(" (or {alias})"));
        out.lines(&format!("{}{alias}\n    {}", template.name, template.purpose))?;
    }
    Ok(Answer::Yes)
}
