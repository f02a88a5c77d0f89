//! Why an act is allowed or not, and what would change that.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::act::{Access, Act, ClockAction, Direction, SecretPurpose};
use crate::address::kind;
use crate::host::Host;
use crate::near;
use crate::policy::{Effect, Origin, Policy, Rule};
use crate::right::{ConnectRight, HttpRight, Right};

/// How many rules that almost matched are told: more would hide the nearest.
const NEAR_MAX: usize = 3;

/// What a policy says to an act, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was asked.
    pub act: Act,
    /// Whether it may be done.
    pub allowed: bool,
    /// The rule that decided; `None` if no rule matched.
    pub rule: Option<RuleText>,
    /// Grants that almost matched, the nearest first.
    pub near: Vec<NearMiss>,
    /// The smallest grant that would allow it, as lines of YAML to paste into a policy. `None` if
    /// it is allowed, or if a denial has to go first.
    pub grant_yaml: Option<String>,
    /// The same grant in one line, for a message.
    pub grant_line: Option<String>,
    /// The same grant as a Python object.
    pub grant_python: Option<String>,
    /// The address of the act's host that is refused, where a grant would fit but for that.
    pub address: Option<IpAddr>,
}

/// A rule for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleText {
    /// What it does.
    pub effect: Effect,
    /// One line in the text's syntax.
    pub text: String,
    /// Where it stands: `policy.yml:7`.
    pub place: String,
}

/// A grant that did not match, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// The grant.
    pub rule: RuleText,
    /// What is different.
    pub why: String,
}

impl From<&Rule> for RuleText {
    fn from(rule: &Rule) -> Self {
        let (text, place) = (rule.to_string(), rule.origin.to_string());
        Self { effect: rule.effect, text, place }
    }
}

impl Policy {
    /// Decides and says why, by the same judgement as [`Policy::decide`].
    #[must_use]
    pub fn explain(&self, act: &Act) -> Explanation {
        let verdict = self.decide(act);
        let unmatched = verdict.rule.is_none();
        let held_back = |rule: &Rule| rule.effect == Effect::Allow && rule.right.fits(act);
        let address = match act.host() {
            Some(Host::Address(address)) if unmatched && self.rules.iter().any(held_back) => {
                Some(*address)
            }
            _ => None,
        };
        let grant = unmatched.then(|| Rule {
            effect: Effect::Allow,
            right: act.smallest_right(),
            origin: Origin::default(),
        });
        Explanation {
            act: act.clone(),
            allowed: verdict.allowed,
            rule: verdict.rule.map(RuleText::from),
            near: if unmatched { self.near(act) } else { Vec::new() },
            grant_yaml: grant.as_ref().map(Rule::to_yaml_lines),
            grant_line: grant.as_ref().map(Rule::to_string),
            grant_python: grant.as_ref().map(|rule| rule.right.to_python()),
            address,
        }
    }

    /// Says why [`Policy::allows_address`] refuses an address of an act that is allowed itself: a
    /// denial of the address, or that it is not public.
    #[must_use]
    pub fn explain_address(&self, act: &Act, address: IpAddr) -> Explanation {
        let verdict = self.decide(act);
        let Some(at_address) = act.at_address(address).filter(|_| verdict.allowed) else {
            return self.explain(act);
        };
        let denial = self.decide(&at_address).rule.filter(|rule| rule.effect == Effect::Deny);
        let grant = denial.is_none().then(|| Rule {
            effect: Effect::Allow,
            right: private(act.smallest_right(), &at_address),
            origin: Origin::default(),
        });
        let why = format!("{address} is not a public address, and the rule does not name it");
        let miss = |rule: &Rule| NearMiss { rule: rule.into(), why: why.clone() };
        Explanation {
            act: act.clone(),
            allowed: false,
            rule: denial.map(RuleText::from),
            near: if denial.is_none() {
                verdict.rule.map(miss).into_iter().collect()
            } else {
                vec![]
            },
            grant_yaml: grant.as_ref().map(Rule::to_yaml_lines),
            grant_line: grant.as_ref().map(Rule::to_string),
            grant_python: grant.as_ref().map(|rule| rule.right.to_python()),
            address: Some(address.to_canonical()),
        }
    }

    fn near(&self, act: &Act) -> Vec<NearMiss> {
        let grants = self.rules.iter().filter(|rule| rule.effect == Effect::Allow);
        let mut near: Vec<_> = grants
            .filter_map(|rule| near::miss(&rule.right, act).map(|miss| (miss, rule)))
            .collect();
        near.sort_by_key(|(miss, _)| miss.distance);
        near.truncate(NEAR_MAX);
        near.into_iter().map(|(miss, rule)| NearMiss { rule: rule.into(), why: miss.why }).collect()
    }
}

/// The grant of an act that holds for private addresses, too.
fn private(right: Right, at_address: &Act) -> Right {
    match right {
        Right::Connect(right) => Right::Connect(ConnectRight { private: true, ..right }),
        Right::Http(right) => Right::Http(HttpRight { private: true, ..right }),
        // To resolve has no such mark; the address itself is granted.
        _ => at_address.smallest_right(),
    }
}

/// The longest grant in a summary, in both its forms together, in bytes.
const GRANT_BYTES_MAX: usize = 400;
/// The longest other part of a summary, in bytes.
const PART_BYTES_MAX: usize = 120;

fn shorten(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

impl Explanation {
    /// One or two sentences for the guest, at most some 600 bytes.
    #[must_use]
    pub fn summary(&self) -> String {
        let act = shorten(&self.title(), PART_BYTES_MAX);
        match &self.rule {
            Some(rule) => {
                let place = shorten(&rule.place, PART_BYTES_MAX);
                let text = shorten(&rule.text, PART_BYTES_MAX);
                if self.allowed {
                    return format!("{act} is granted by '{text}' at {place}.");
                }
                let at = self.address.map_or_else(String::new, |at| format!(" at {at}"));
                format!(
                    "{act}{at} is denied by '{text}' at {place}. To allow it, that rule has to go."
                )
            }
            None => {
                let refused = match self.address {
                    Some(address) => {
                        format!("{act} is not granted at {address}, which is no public address.")
                    }
                    None => format!("{act} is not granted: no rule matched."),
                };
                let (kind, most) = match self.address {
                    Some(address) => (
                        format!(
                            " {address} is {}: grant it by that address, by its network, or with \
                             private: true.",
                            kind(address)
                        ),
                        GRANT_BYTES_MAX - 180,
                    ),
                    None => (String::new(), GRANT_BYTES_MAX),
                };
                // A grant that is cut off would mislead; the whole one is on the denial's record.
                match (&self.grant_line, &self.grant_python) {
                    (Some(line), Some(python)) if line.len() + python.len() <= most => {
                        format!("{refused} To allow it, add '{line}' or grant {python}.{kind}")
                    }
                    _ => refused + &kind,
                }
            }
        }
    }

    /// The capability, the action and its target: `filesystem.read /data/x`.
    fn title(&self) -> String {
        let action = match &self.act {
            Act::File { access: Access::Read, path } => format!("read {path}"),
            Act::File { access: Access::Write, path } => format!("write {path}"),
            Act::Connect { host, port } => format!("connect {}:{port}", host.in_url()),
            Act::Http { method, url } => format!("http {method} {url}"),
            Act::Secret { name, purpose: SecretPurpose::Send(host) } => {
                format!("use {name} at {host}")
            }
            Act::Clock { action: ClockAction::Time } => "time".to_owned(),
            Act::Clock { action: ClockAction::Monotonic } => "monotonic".to_owned(),
            Act::Random => "bytes".to_owned(),
            Act::Ipc { channel, direction: Direction::Send } => format!("send {channel}"),
            Act::Ipc { channel, direction: Direction::Receive } => {
                format!("receive {channel}")
            }
            // Their own words begin with the capability.
            Act::Host { .. } | Act::Import { .. } => return self.act.to_string(),
            Act::Resolve { .. } | Act::Run { .. } | Act::Secret { .. } | Act::Clock { .. } => {
                self.act.to_string()
            }
        };
        format!("{}.{action}", self.act.capability())
    }
}

/// Everything, over several lines.
impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = self.title();
        match (&self.rule, self.allowed) {
            (Some(rule), true) => {
                write!(out, "allowed: {title}\n  by {}: {}", rule.place, rule.text)
            }
            (Some(rule), false) => {
                write!(out, "denied: {title}\n  by {}: {}", rule.place, rule.text)?;
                out.write_str(
                    "\n  a denial wins over every grant: to allow it, that rule has to go",
                )
            }
            (None, _) => match self.address {
                Some(at) => write!(out, "denied: {title}\n  {at} is no public address"),
                None => write!(out, "denied: {title}\n  no rule matched"),
            },
        }?;
        if !self.near.is_empty() {
            out.write_str("\nalmost:")?;
        }
        for NearMiss { rule, why } in &self.near {
            write!(out, "\n  {}: {}\n    {why}", rule.place, rule.text)?;
        }
        if let Some(yaml) = &self.grant_yaml {
            out.write_str("\nto allow it, add to the policy:")?;
            yaml.lines().try_for_each(|line| write!(out, "\n  {line}"))?;
        }
        if let Some(python) = &self.grant_python {
            write!(out, "\nor grant in Python:\n  {python}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
