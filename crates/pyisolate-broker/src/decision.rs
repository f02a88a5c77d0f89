//! What a recorded run asked of its policy, one decision after the other.

use std::collections::HashMap;

use pyisolate_policy::{
    Access, Act, Document, Effect, Format, Host, HttpUrl, Policy, Right, Rule, Scheme, Verdict,
};

use crate::filesystem;
use crate::journal::{Direction, Entry, EntryPayload, Kind, Outcome};

/// One question of a recorded run, and how it was answered.
#[derive(Debug)]
pub(crate) struct Decision<'e> {
    pub(crate) entry: &'e Entry,
    pub(crate) act: &'e Act,
    pub(crate) answer: Answer,
}

/// How a policy answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It allowed the act, whatever became of it.
    Allowed,
    /// It did not.
    Denied,
    /// It was not the policy that refused, and no policy can allow it.
    Beyond,
}

/// Reads the decisions out of a journal, and the policies that were in force.
#[derive(Debug, Default)]
pub(crate) struct Run {
    policies: HashMap<String, Policy>,
    /// The acts of requests that were denied and whose answer, which tells the same, is to come.
    unanswered: HashMap<(String, u32), Act>,
}

impl Run {
    /// Takes the next line. Returns the decision in it, if there is one.
    pub(crate) fn next<'e>(&mut self, entry: &'e Entry) -> Option<Decision<'e>> {
        match entry.kind {
            Kind::Spawn | Kind::Configure | Kind::Policy => {
                if let Some(policy) = policy_of(entry) {
                    self.policies.insert(entry.cell.clone(), policy);
                }
            }
            Kind::End => {
                self.unanswered.retain(|(cell, _), _| *cell != entry.cell);
            }
            _ => {}
        }
        let question = entry.operation.map(|operation| (entry.cell.clone(), operation));
        // The host's own operations have numbers of their own, and are answered the other way.
        let told = match (entry.kind, entry.direction, &question) {
            (Kind::Answer, Some(Direction::ToGuest), Some(question)) => {
                self.unanswered.remove(question)
            }
            _ => None,
        };
        let act = entry.act.as_ref()?;
        let answer = match entry.outcome? {
            Outcome::Denied if entry.layer.as_deref() == Some("broker") => Answer::Beyond,
            Outcome::Denied => Answer::Denied,
            _ => Answer::Allowed,
        };
        if told.as_ref() == Some(act) {
            return None;
        }
        match question {
            Some(question) if entry.kind == Kind::Request && answer != Answer::Allowed => {
                self.unanswered.insert(question, act.clone());
            }
            _ => {}
        }
        Some(Decision { entry, act, answer })
    }

    /// The policy that a cell has now, if it was recorded.
    pub(crate) fn policy(&self, cell: &str) -> Option<&Policy> {
        self.policies.get(cell)
    }
}

/// The policy that a line carries.
fn policy_of(entry: &Entry) -> Option<Policy> {
    let Some(EntryPayload::Text(text)) = &entry.payload else { return None };
    let document = Document::parse(text, "the journal", Format::Json).ok()?;
    document.policy(Some(&entry.cell)).ok()
}

/// What a policy says to a question, as the broker asks it: to connect where only requests are
/// granted is answered with the advice to send one, and folders that lead to what could be read are
/// looked at.
pub(crate) fn decide<'p>(policy: &'p Policy, decision: &Decision<'_>) -> Verdict<'p> {
    let Decision { act, entry, .. } = decision;
    let verdict = policy.decide(act);
    let looks = entry.kind == Kind::Request
        && matches!(entry.action.as_deref(), Some("list" | "stat" | "exists"));
    match (verdict.rule, act) {
        (None, Act::File { access: Access::Read, path }) if looks => {
            match filesystem::leading(policy, path) {
                Some(rule) => Verdict { allowed: true, rule: Some(rule) },
                None => verdict,
            }
        }
        (None, Act::Connect { host, port }) => match site(policy, host, *port) {
            Some(rule) => Verdict { allowed: true, rule: Some(rule) },
            None => verdict,
        },
        _ => verdict,
    }
}

/// The first grant of some request to a host and port.
fn site<'p>(policy: &'p Policy, host: &Host, port: u16) -> Option<&'p Rule> {
    policy.rules.iter().find(|rule| {
        let (Effect::Allow, Right::Http(right)) = (rule.effect, &rule.right) else { return false };
        let schemes = [Scheme::Http, Scheme::Https];
        let schemes = schemes.into_iter().filter(|own| right.scheme.is_none_or(|it| it == *own));
        let acts = schemes.flat_map(|scheme| {
            right.methods.iter().map(move |method| {
                let (host, path) = (host.clone(), right.path.clone());
                let method = if method == "*" { "GET" } else { method };
                let url = HttpUrl { scheme, host, port, path, query: None };
                Act::Http { method: method.to_owned(), url }
            })
        });
        acts.into_iter().any(|act| rule.matches(&act) && policy.decide(&act).allowed)
    })
}
