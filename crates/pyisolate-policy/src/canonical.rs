//! The one form of a policy that its text has.

use std::collections::{BTreeSet, HashSet};

use crate::act::Direction;
use crate::policy::{Effect, Policy, Rule};
use crate::prefix;
use crate::right::{ConnectRight, HttpRight, Right};
use crate::text::{PORTS, clean_path};

impl Policy {
    /// The same policy in the form in which its text is read: rules grouped by section, the order
    /// within a section kept; the two ends of a channel apart; what the text has once (the clock,
    /// random bytes, a secret, a capability) in one rule; rules that cover
    /// nothing, or are there already, left out.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let mut rules: Vec<Rule> = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let rights = rule.right.canonical(rule.effect).into_iter();
            let rights = rights.filter(|right| !right.is_empty(rule.effect));
            rules.extend(rights.map(|right| Rule { right, ..rule.clone() }));
        }
        let mut rules = last_of_each(rules);
        rules.sort_by_key(section);
        let mut merged: Vec<Rule> = Vec::with_capacity(rules.len());
        // Where the rules of the present section begin: what belongs together is nearby.
        let mut begin = 0;
        for rule in rules {
            if merged.last().is_some_and(|last| section(last) != section(&rule)) {
                begin = merged.len();
            }
            let same = merged[begin..].iter_mut().find(|first| is_one(&first.right, &rule.right));
            match same {
                Some(first) => merge(&mut first.right, rule.right),
                None => merged.push(rule),
            }
        }
        Self { rules: merged, limits: self.limits.clone() }
    }
}

/// The rules without repetitions. The last of them stays, as it is the last grant that decides.
pub(crate) fn last_of_each(rules: Vec<Rule>) -> Vec<Rule> {
    let mut seen = HashSet::new();
    let mut kept: Vec<Rule> = rules
        .into_iter()
        .rev()
        .filter(|rule| seen.insert((rule.effect, rule.right.clone())))
        .collect();
    kept.reverse();
    kept
}

/// The section of the text, by its place.
fn section(rule: &Rule) -> u8 {
    let deny = rule.effect == Effect::Deny;
    let place = match &rule.right {
        Right::Files(_) if deny => return 3,
        Right::Connect(_) | Right::Http(_) | Right::Resolve(_) if deny => return 7,
        Right::Files(right) => match (right.read, right.write) {
            (_, false) => return 0,
            (false, true) => return 1,
            (true, true) => return 2,
        },
        Right::Connect(_) => return 4,
        Right::Http(_) => return 5,
        Right::Resolve(_) => return 6,
        Right::Run(_) => 0,
        Right::Secret(_) => 1,
        Right::Clock(_) => 2,
        Right::Random { .. } => 3,
        Right::Ipc { directions, .. } if directions.contains(&Direction::Send) => 4,
        Right::Ipc { .. } => 5,
        Right::Host { .. } => 6,
        Right::Import(_) => 7,
    };
    if deny { 16 + place } else { 8 + place }
}

/// Whether the text has one place for both.
fn is_one(first: &Right, second: &Right) -> bool {
    match (first, second) {
        (Right::Clock(_), Right::Clock(_)) | (Right::Random { .. }, Right::Random { .. }) => true,
        (Right::Secret(first), Right::Secret(second)) => first.name == second.name,
        (Right::Host { capability: first, .. }, Right::Host { capability: second, .. }) => {
            first == second
        }
        _ => false,
    }
}

/// Adds what `second` covers to `first`. Of two seeds the second decides, as of two grants.
fn merge(first: &mut Right, second: Right) {
    match (first, second) {
        (Right::Random { seed: first }, Right::Random { seed: second }) => *first = second,
        (Right::Clock(first), Right::Clock(second)) => first.extend(second),
        (Right::Secret(first), Right::Secret(second)) => {
            first.reveal |= second.reveal;
            for host in second.hosts {
                if !first.hosts.contains(&host) {
                    first.hosts.push(host);
                }
            }
        }
        (Right::Host { actions: first, .. }, Right::Host { actions: second, .. }) => {
            match (first.as_mut(), second) {
                (Some(first), Some(second)) => first.extend(second),
                _ => *first = None,
            }
        }
        _ => {}
    }
}

impl Right {
    /// Whether it covers nothing at all.
    pub(crate) fn is_empty(&self, effect: Effect) -> bool {
        match self {
            Self::Files(right) => !right.read && !right.write,
            Self::Connect(right) => right.ports.is_empty(),
            Self::Http(right) => {
                let clear = effect == Effect::Deny || prefix::is_plain(&right.path);
                right.methods.is_empty() || !clear
            }
            Self::Secret(right) => !right.reveal && right.hosts.is_empty(),
            Self::Clock(actions) => actions.is_empty(),
            Self::Ipc { directions, .. } => directions.is_empty(),
            Self::Host { actions, .. } => actions.as_ref().is_some_and(BTreeSet::is_empty),
            Self::Resolve(_) | Self::Run(_) | Self::Random { .. } | Self::Import(_) => false,
        }
    }

    /// The rights that the text has for this one.
    fn canonical(&self, effect: Effect) -> Vec<Self> {
        let deny = effect == Effect::Deny;
        let mut right = self.clone();
        match &mut right {
            Self::Files(right) => right.pattern = right.pattern.canonical(),
            Self::Connect(ConnectRight { host, ports, private }) => {
                *host = host.canonical();
                // There is no port 0.
                *ports = (*ports.start()).max(*PORTS.start())..=*ports.end();
                *private &= !deny;
            }
            Self::Http(HttpRight { host, path, methods, private, .. }) => {
                *host = host.canonical();
                if let Some(clean) = clean_path(path) {
                    *path = clean;
                }
                *methods = methods.iter().map(|method| method.to_ascii_uppercase()).collect();
                *private &= !deny;
            }
            Self::Resolve(host) => *host = host.canonical(),
            Self::Secret(right) => {
                right.hosts = right.hosts.iter().map(|host| host.canonical()).collect();
            }
            Self::Random { seed } if deny => *seed = None,
            Self::Ipc { channel, directions } => {
                let one = |direction: &Direction| Self::Ipc {
                    channel: channel.clone(),
                    directions: [*direction].into(),
                };
                return directions.iter().map(one).collect();
            }
            _ => {}
        }
        vec![right]
    }
}
