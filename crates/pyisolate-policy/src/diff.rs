//! What a new policy would newly allow and newly deny.

use std::fmt;

use serde::Serialize;

use crate::glob;
use crate::limits::{LimitName, Limits};
use crate::policy::{Effect, Policy, Rule};
use crate::right::{Right, RunRight};

/// The difference between two policies, rule by rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What the old one refused and the new one allows.
    pub allowed: Vec<Change>,
    /// What the old one allowed and the new one refuses.
    pub denied: Vec<Change>,
    /// The limits that differ.
    pub limits: Vec<LimitChange>,
}

/// One rule that makes a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The right, as one line in the text's syntax: the part of the rule that differs.
    pub text: String,
    /// Where the rule stands, in the old policy or the new one.
    pub place: String,
    /// `granted`, `no longer denied`, `denied` or `no longer granted`.
    pub why: &'static str,
}

/// One limit that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitChange {
    /// Its keyword.
    pub limit: LimitName,
    /// The old value: what was written, or the default.
    pub old: u64,
    /// The new value.
    pub new: u64,
}

/// Compares two policies by what their rules mean, not by their words: a rule that another covers
/// makes no difference, wherever it stands, and neither does a denial of what nothing grants. Where
/// it cannot tell, as for two globs, it calls them different.
#[must_use]
pub fn diff(old: &Policy, new: &Policy) -> Difference {
    // As the text has them, so that two seeds or two rules for one secret are what they come to.
    let (old, new) = (&old.canonical(), &new.canonical());
    let (old_rights, new_rights) = (Rights::of(old), Rights::of(new));
    let mut difference = Difference::default();
    for rule in &new.rules {
        match rule.effect {
            Effect::Allow => {
                let is_new = |piece: &Right| {
                    (!includes(&old_rights.granted, piece, Effect::Allow)
                        || comes_up(&old_rights.granted, &new_rights.granted, piece))
                        && !includes(&new_rights.denied, piece, Effect::Deny)
                };
                note(&mut difference.allowed, rule, "granted", is_new);
            }
            Effect::Deny => {
                let is_new = |piece: &Right| {
                    !includes(&old_rights.denied, piece, Effect::Deny)
                        && old_rights.granted.iter().any(|grant| grant.overlaps(piece))
                };
                note(&mut difference.denied, rule, "denied", is_new);
            }
        }
    }
    for rule in &old.rules {
        match rule.effect {
            Effect::Allow => {
                let is_gone = |piece: &Right| {
                    !includes(&new_rights.granted, piece, Effect::Allow)
                        && !includes(&old_rights.denied, piece, Effect::Deny)
                };
                note(&mut difference.denied, rule, "no longer granted", is_gone);
            }
            Effect::Deny => {
                let is_gone = |piece: &Right| {
                    !includes(&new_rights.denied, piece, Effect::Deny)
                        && new_rights.granted.iter().any(|grant| grant.overlaps(piece))
                };
                note(&mut difference.allowed, rule, "no longer denied", is_gone);
            }
        }
    }
    difference.limits = limits(old, new);
    difference
}

/// The rights of a policy by effect.
struct Rights<'p> {
    granted: Vec<&'p Right>,
    denied: Vec<&'p Right>,
}

impl<'p> Rights<'p> {
    fn of(policy: &'p Policy) -> Self {
        let by = |effect| {
            let counts = move |rule: &&Rule| rule.effect == effect && !rule.right.is_empty(effect);
            policy.rules.iter().filter(counts).map(|rule| &rule.right)
        };
        Self { granted: by(Effect::Allow).collect(), denied: by(Effect::Deny).collect() }
    }
}

fn includes(rights: &[&Right], piece: &Right, effect: Effect) -> bool {
    rights.iter().any(|right| right.includes(piece, effect))
}

/// Whether a program's grant decides now where a later one decided before, which gave it another
/// environment, other files or other limits.
fn comes_up(old: &[&Right], new: &[&Right], piece: &Right) -> bool {
    let Right::Run(run) = piece else { return false };
    let later = |rights: &[&Right]| -> Vec<RunRight> {
        let behind = rights.iter().rposition(|right| *right == piece).map(|at| at + 1);
        let others =
            rights[behind.unwrap_or(rights.len())..].iter().filter_map(|right| match right {
                Right::Run(other) => Some(other),
                _ => None,
            });
        let is_wild = |run: &RunRight| run.args.iter().any(|arg| glob::is_wild(arg));
        let differs = |other: &&RunRight| {
            let meets = other.args == run.args || is_wild(other) || is_wild(run);
            let same = RunRight { args: run.args.clone(), ..(*other).clone() } == *run;
            other.program == run.program && meets && !same
        };
        others.filter(differs).cloned().collect()
    };
    let now = later(new);
    later(old).iter().any(|other| !now.contains(other))
}

/// Notes the pieces of a rule that differ; the rule as it stands if all of them do.
fn note(
    changes: &mut Vec<Change>,
    rule: &Rule,
    why: &'static str,
    differs: impl Fn(&Right) -> bool,
) {
    let pieces = rule.right.pieces(rule.effect);
    let different: Vec<Right> = pieces.iter().filter(|piece| differs(piece)).cloned().collect();
    let whole = different.len() == pieces.len();
    let rights = if whole && !pieces.is_empty() { vec![rule.right.clone()] } else { different };
    for right in rights {
        let text = Rule { right, ..rule.clone() }.to_string();
        let change = Change { text, place: rule.origin.to_string(), why };
        let is_told = |told: &Change| told.text == change.text && told.why == change.why;
        if !changes.iter().any(is_told) {
            changes.push(change);
        }
    }
}

fn limits(old: &Policy, new: &Policy) -> Vec<LimitChange> {
    let of = |policy: &Policy| {
        let mut limits = Limits::default();
        policy.limits.apply(&mut limits);
        limits
    };
    let (mut old, mut new) = (of(old), of(new));
    LimitName::ALL
        .into_iter()
        .map(|limit| LimitChange { limit, old: *old.slot(limit), new: *new.slot(limit) })
        .filter(|change| change.old != change.new)
        .collect()
}

impl Difference {
    /// Whether the two policies allow the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty() && self.denied.is_empty() && self.limits.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return out.write_str("no difference");
        }
        let mut first = true;
        for (title, sign, changes) in
            [("newly allowed", '+', &self.allowed), ("newly denied", '-', &self.denied)]
        {
            if changes.is_empty() {
                continue;
            }
            let before = if std::mem::take(&mut first) { "" } else { "\n" };
            write!(out, "{before}{title}:")?;
            for Change { text, place, why } in changes {
                write!(out, "\n  {sign} {text}  ({why}, {place})")?;
            }
        }
        if !self.limits.is_empty() {
            let before = if first { "" } else { "\n" };
            write!(out, "{before}limits:")?;
            for LimitChange { limit, old, new } in &self.limits {
                let (old, new) = (limit.written(*old), limit.written(*new));
                write!(out, "\n  {limit}: {old} -> {new}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Document, Format};

    fn policy(name: &str, text: &str) -> Policy {
        let text = format!("version: 1\n{text}");
        Document::parse(&text, name, Format::Yaml).unwrap_or_else(|e| panic!("{e}")).defaults
    }

    fn told(old: &str, new: &str) -> String {
        diff(&policy("old.yml", old), &policy("new.yml", new)).to_string()
    }

    #[test]
    fn what_is_newly_allowed_and_denied() {
        let old = "fs: {read: [/data], deny: [/data/private]}\n\
                   net: {http: [\"https://a.example/v1\"]}\nclock: [time]\ncpu_ms: 1000";
        let new = "fs: {allow: [/data/out], read: [/data]}\n\
                   net: {http: [{url: \"https://a.example/\", methods: [GET, POST]}]}\n\
                   deny: {clock: true}\nclock: [time]\ncpu_ms: 2000";
        assert_eq!(
            told(old, new),
            r#"newly allowed:
  + fs: {write: [/data/out]}  (granted, new.yml:2)
  + net: {http: [{url: https://a.example/, methods: [GET, POST]}]}  (granted, new.yml:3)
  + fs: {deny: [{path: /data/private, access: read}]}  (no longer denied, old.yml:2)
newly denied:
  - deny: {clock: [time]}  (denied, new.yml:4)
  - net: {http: [{url: https://a.example/v1, methods: [HEAD]}]}  (no longer granted, old.yml:3)
limits:
  cpu_ms: 1000 -> 2000"#
        );
    }

    #[test]
    fn what_another_rule_covers_is_no_change() {
        for (old, new) in [
            ("fs: {read: [/data, /data/x]}", "fs: {read: [/data]}"),
            ("fs: {allow: [/d]}", "fs: {read: [/d], write: [/d]}"),
            (
                "net: {connect: [\"*.a.example:80-90\", \"x.a.example:85\"]}",
                "net: {connect: [\"*.a.example:80-90\"]}",
            ),
            ("imports: [os, os.path]", "imports: [os]"),
            ("capabilities: {db: true}", "capabilities: {db: true}\ndeny: {imports: [os]}"),
            ("fs: {read: [/data]}", "fs: {read: [/data], deny: [/other]}"),
            ("fs: {read: [/data/**]}", "fs: {read: [/data/**, /data/x]}"),
            ("fs: {deny: [/x]}", "fs: {read: [/x/y], deny: [/x]}"),
            ("clock: [time, sleep]", "clock: [sleep, time]"),
            ("cpu_ms: 60000", ""),
        ] {
            assert_eq!(told(old, new), "no difference", "{old} / {new}");
        }
    }

    #[test]
    fn a_program_denied_by_its_path_is_denied_less_than_by_its_name() {
        let run = "subprocess: {run: [{program: /opt/git, args: [\"**\"]}]}";
        let denied = |program| format!("{run}\ndeny: {{subprocess: [{program}]}}");
        let told = |old, new| told(&denied(old), &denied(new));
        assert!(told("git", "/usr/bin/git").contains("no longer denied"));
        assert!(!told("/usr/bin/git", "git").contains("newly allowed"));
    }

    #[test]
    fn of_two_grants_of_a_program_the_last_decides() {
        let wide = "{program: git, args: [log], env: {HOME: /root}}";
        let narrow = "{program: git, args: [\"*\"]}";
        let run = |rules: &[&str]| format!("subprocess: {{run: [{}]}}", rules.join(", "));
        let told = |old: &[&str], new: &[&str]| told(&run(old), &run(new));
        assert!(told(&[wide, narrow], &[narrow, wide]).contains("/root}}]}  (granted"));
        assert!(told(&[wide, narrow], &[wide]).contains("/root}}]}  (granted"));
        let other = "{program: git, args: [status]}";
        assert_eq!(told(&[wide, other], &[other, wide]), "no difference");
    }

    #[test]
    fn private_addresses_are_more_than_every_host() {
        let any = "net: {connect: [\"*:80\"]}";
        for more in ["10.0.0.1:80", "localhost:80", "10.0.0.0/8:80"] {
            let new = format!("net: {{connect: [\"*:80\", \"{more}\"]}}");
            assert!(told(any, &new).contains("granted"), "{more}");
        }
        assert_eq!(told(any, "net: {connect: [\"*:80\", \"8.8.8.8:80\"]}"), "no difference");
        assert!(
            told(any, "net: {connect: [{host: \"*\", port: 80, private: true}]}")
                .contains("private: true")
        );
        // A denied network takes from every name that could lead there.
        assert!(told(any, "net: {connect: [\"*:80\"], deny: [10.0.0.0/8]}").contains("denied"));
    }
}
