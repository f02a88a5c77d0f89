//! A policy: rules and limits.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::act::Act;
use crate::canonical::last_of_each;
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
    /// Adds what `more` says: its rules after the ones that are there, its limits over them. Of a rule
    /// that is there twice the later one stays.
    pub fn extend(&mut self, more: &Self) {
        self.rules.extend_from_slice(&more.rules);
        self.rules = last_of_each(std::mem::take(&mut self.rules));
        self.limits.0.extend(&more.limits.0);
    }

    /// Decides. The first denial that matches refuses; else the last grant that matches allows, with
    /// what it says of the act (a seed, a program's limits), so that a policy's own word holds over
    /// what it extends; else it is refused.
    #[must_use]
    pub fn decide(&self, act: &Act) -> Verdict<'_> {
        let speaks = |rule: &&Rule, effect| rule.effect == effect && rule.matches(act);
        if let Some(denial) = self.rules.iter().find(|rule| speaks(rule, Effect::Deny)) {
            return Verdict { allowed: false, rule: Some(denial) };
        }
        let grant = self.rules.iter().rev().find(|rule| speaks(rule, Effect::Allow));
        Verdict { allowed: grant.is_some(), rule: grant }
    }
}
