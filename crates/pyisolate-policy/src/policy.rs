//! A policy: rules and limits.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::act::Act;
use crate::limits::{LimitName, Limits};
use crate::right::Right;

/// What one cell may have. Whatever no rule grants is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// In the order in which they were written.
    pub rules: Vec<Rule>,
    /// The limits that differ from the defaults.
    pub limits: LimitChanges,
}

/// One line of a policy.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it does.
    pub effect: Effect,
    /// What it speaks of.
    pub right: Right,
    /// Where it was written.
    pub origin: Origin,
}

/// Rules are equal if they say the same, wherever they were written.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.effect == other.effect && self.right == other.right
    }
}

impl Eq for Rule {}

/// What a rule does. A denial that matches wins over every grant, whatever their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Grants the right.
    Allow,
    /// Takes it away.
    Deny,
}

/// Where a rule was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// A file's name, `template compute-only`, or empty for a rule made by a program.
    pub source: Arc<str>,
    /// Counted from 1; 0 where there is none.
    pub line: u32,
    /// Counted from 1; 0 where there is none.
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.source, self.line) {
            ("", _) => out.write_str("the program"),
            (source, 0) => out.write_str(source),
            (source, line) => write!(out, "{source}:{line}"),
        }
    }
}

/// Limits by name, in the units that their names say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitChanges(pub std::collections::BTreeMap<LimitName, u64>);

impl LimitChanges {
    /// Puts the changes into `limits`.
    pub fn apply(&self, limits: &mut Limits) {
        for (name, value) in &self.0 {
            *limits.slot(*name) = *value;
        }
    }
}

/// What a policy says to an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'p> {
    /// Whether it may be done.
    pub allowed: bool,
    /// The rule that decided: the denial, or the grant. `None` if no rule matched.
    pub rule: Option<&'p Rule>,
}

impl Rule {
    /// Whether it speaks of this act: a grant by [`Right::covers`], a denial by [`Right::denies`].
    #[must_use]
    pub fn matches(&self, act: &Act) -> bool {
        match self.effect {
            Effect::Allow => self.right.covers(act),
            Effect::Deny => self.right.denies(act),
        }
    }
}

impl Policy {
    /// Adds what `more` says: its rules after the ones that are there, its limits over them. A rule
    /// that is there already is not added again.
    pub fn extend(&mut self, more: &Self) {
        let mut seen: HashSet<(Effect, Right)> =
            self.rules.iter().map(|rule| (rule.effect, rule.right.clone())).collect();
        for rule in &more.rules {
            if seen.insert((rule.effect, rule.right.clone())) {
                self.rules.push(rule.clone());
            }
        }
        self.limits.0.extend(&more.limits.0);
    }

    /// Decides. The first denial that matches refuses; else the first grant that matches allows;
    /// else it is refused.
    #[must_use]
    pub fn decide(&self, act: &Act) -> Verdict<'_> {
        let matching =
            |effect| self.rules.iter().find(|rule| rule.effect == effect && rule.matches(act));
        match matching(Effect::Deny) {
            Some(denial) => Verdict { allowed: false, rule: Some(denial) },
            None => {
                let grant = matching(Effect::Allow);
                Verdict { allowed: grant.is_some(), rule: grant }
            }
        }
    }
}
