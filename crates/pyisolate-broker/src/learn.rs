//! The smallest policy under which a recorded run passes.
//!
//! It grants what was asked for and no more: each file by its path, each command by its arguments,
//! each site by its methods and what all paths of a method begin with. Where the run's own policy
//! is in the journal, what no act tells is taken from the rule that granted it: a seed, private
//! addresses, a program's environment, limits, imports.

mod gather;

use std::collections::BTreeMap;
use std::path::Path;

use pyisolate_policy::{Act, Document, Effect, Format, LimitChanges, Origin, Policy, Rule};

use self::gather::Gather;
use crate::decision::{Answer, Run, decide};
use crate::journal::{Entry, Kind, ReadError};

/// How to learn.
#[derive(Clone, Debug, Default)]
pub struct LearnOptions {
    /// From this cell alone. From all cells, into one policy, if `None`.
    pub cell: Option<String>,
    /// Grants a whole folder for reading or for writing where more than so many of its files were.
    /// The root folder is never granted so.
    pub fold: Option<usize>,
    /// Leaves out what the run was refused. Without it, that is granted too.
    pub granted_only: bool,
}

/// A policy that was learnt, and from what.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Learned {
    /// The policy. Of the limits it has those that the run's own policies set.
    pub policy: Policy,
    /// Of each rule, in the same order, how it was used.
    pub uses: Vec<Use>,
    /// How many decisions it was learnt from.
    pub decisions: u64,
    /// How many refusals no policy can change.
    pub beyond: u64,
}

/// How a rule was used in the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Use {
    /// How often what it grants was allowed.
    pub allowed: u64,
    /// How often it was refused.
    pub denied: u64,
    /// What a person should know before granting it.
    pub note: Option<&'static str>,
}

impl Use {
    fn add(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.note = self.note.or(other.note);
    }

    /// For a comment.
    fn text(self) -> String {
        let times =
            |times: u64| if times == 1 { "once".to_owned() } else { format!("{times} times") };
        let mut text = match (self.allowed, self.denied) {
            (0, 0) => "in the run's policy".to_owned(),
            (allowed, 0) => times(allowed),
            (0, denied) => format!("refused {}", times(denied)),
            (allowed, denied) => format!("{}, refused {}", times(allowed), times(denied)),
        };
        if let Some(note) = self.note {
            text.push_str("; ");
            text.push_str(note);
        }
        text
    }
}

/// Learns a policy from a recorded run.
///
/// # Errors
/// [`ReadError`] for the first line that cannot be read.
pub fn learn(
    entries: impl IntoIterator<Item = Result<Entry, ReadError>>,
    options: &LearnOptions,
) -> Result<Learned, ReadError> {
    let mut run = Run::default();
    let mut gather = Gather::default();
    let (mut decisions, mut beyond) = (0, 0);
    for entry in entries {
        let entry = entry?;
        if options.cell.as_ref().is_some_and(|cell| *cell != entry.cell) {
            continue;
        }
        let decision = run.next(&entry);
        let policy = run.policy(&entry.cell);
        let Some(decision) = decision else {
            if matches!(entry.kind, Kind::Spawn | Kind::Configure | Kind::Policy) {
                policy.into_iter().for_each(|policy| gather.policy(policy));
            }
            continue;
        };
        let rule = policy.and_then(|policy| {
            let verdict = decide(policy, &decision);
            verdict.rule.filter(|_| verdict.allowed)
        });
        let one = match decision.answer {
            Answer::Beyond => {
                beyond += 1;
                continue;
            }
            Answer::Denied if options.granted_only => continue,
            // A guest can ask for any name. One rule that cannot be read spoils all the others.
            Answer::Denied if !can_be_written(decision.act) => {
                beyond += 1;
                continue;
            }
            Answer::Denied => Use { denied: 1, ..Use::default() },
            Answer::Allowed => Use { allowed: 1, ..Use::default() },
        };
        decisions += 1;
        let is_listing = decision.entry.action.as_deref() == Some("list");
        gather.act(decision.act, rule.map(|rule| &rule.right), one, is_listing);
    }
    let (policy, uses) = gather.finish(options.fold);
    Ok(Learned { policy, uses, decisions, beyond })
}

/// Whether a grant of the act can be written, and be read again.
fn can_be_written(act: &Act) -> bool {
    let rule =
        Rule { effect: Effect::Allow, right: act.smallest_right(), origin: Origin::default() };
    let alone = Policy { rules: vec![rule], limits: LimitChanges::default() };
    Document::parse(&alone.to_yaml(), "", Format::Yaml).is_ok()
}

impl Learned {
    /// The policy as a YAML document, with a comment at each rule that tells how often it was used.
    #[must_use]
    pub fn to_yaml(&self, journal: &Path) -> String {
        let yaml = self.policy.to_yaml();
        let commented = self.commented(&yaml);
        // A comment must not change what is said.
        let same = Document::parse(&commented, "", Format::Yaml).ok()
            == Document::parse(&yaml, "", Format::Yaml).ok();
        let body = if same { commented } else { yaml };
        let shown = journal.display().to_string();
        let shown: String = shown.chars().filter(|c| !c.is_control()).collect();
        format!(
            "# Learnt from {} decisions in {shown}. Read it before you use it.\n{body}",
            self.decisions
        )
    }

    fn commented(&self, yaml: &str) -> String {
        let Ok(document) = Document::parse(yaml, "", Format::Yaml) else {
            return yaml.to_owned();
        };
        let mut places: BTreeMap<u32, Vec<Item>> = BTreeMap::new();
        for rule in &document.defaults.rules {
            let own = self.policy.rules.iter().position(|own| own == rule);
            let Some(used) = own.and_then(|at| self.uses.get(at)) else { continue };
            let column = usize::try_from(rule.origin.column).unwrap_or(0);
            places.entry(rule.origin.line).or_default().push(Item { column, used: *used });
        }
        let mut text = String::with_capacity(yaml.len() * 2);
        for (number, line) in (1..).zip(yaml.lines()) {
            match places.get_mut(&number).map(Vec::as_mut_slice) {
                None | Some([]) => {
                    text.push_str(line);
                    text.push('\n');
                }
                Some([one]) => text.push_str(&format!("{line}  # {}\n", one.used.text())),
                Some(items) => {
                    items.sort_by_key(|item| item.column);
                    text.push_str(&spread(line, items));
                }
            }
        }
        text
    }
}

/// A rule that begins on some line, at a column counted from 1.
#[derive(Clone, Copy, Debug)]
struct Item {
    column: usize,
    used: Use,
}

/// A line such as `read: [/a, /b]` as one line for each item, with its comment.
fn spread(line: &str, items: &[Item]) -> String {
    let chars: Vec<char> = line.chars().collect();
    let first = items.first().map_or(0, |item| item.column.saturating_sub(1));
    let head: String = chars.iter().take(first).collect();
    let indent: String = head.chars().take_while(|c| *c == ' ').collect();
    let mut text = format!("{}\n", head.trim_end_matches(['[', ' ']));
    let starts = items.iter().map(|item| item.column.saturating_sub(1));
    let ends = starts.clone().skip(1).chain([chars.len()]);
    for ((item, start), end) in items.iter().zip(starts).zip(ends) {
        let part: String = chars.get(start..end).unwrap_or_default().iter().collect();
        let part = part.trim_end();
        // Behind the last item the list ends; behind the others there is a comma.
        let part = part.strip_suffix([',', ']']).unwrap_or(part);
        text.push_str(&format!("{indent}  - {part}  # {}\n", item.used.text()));
    }
    text
}
