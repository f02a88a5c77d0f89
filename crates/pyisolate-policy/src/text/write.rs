//! A policy into the values of its text.

use super::net::{PORTS, default_methods};
use crate::act::{ClockAction, Direction};
use crate::cover::ANY_ARGS;
use crate::limits::Unit;
use crate::policy::{Effect, Policy, Rule};
use crate::right::{
    ConnectRight, FilesRight, HostPattern, HttpRight, Right, RunRight, SecretRight,
};

/// A value to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Out {
    Bool(bool),
    Number(u64),
    /// A number as it is written.
    Fraction(String),
    Text(String),
    List(Vec<Out>),
    /// Written over several lines if `block`, else in one.
    Table {
        block: bool,
        entries: Vec<(String, Out)>,
    },
}

impl Out {
    fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    fn texts<T: ToString>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    pub(crate) fn block() -> Self {
        Self::Table { block: true, entries: Vec::new() }
    }

    fn flow(entries: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self::Table { block: false, entries }
    }

    /// The value at a key of a table, put there if it is missing.
    fn slot(&mut self, key: &str, new: Self) -> &mut Self {
        if !matches!(self, Self::Table { .. }) {
            *self = Self::block();
        }
        let Self::Table { entries, .. } = self else { return self };
        let at = entries.iter().position(|(there, _)| there == key).unwrap_or_else(|| {
            entries.push((key.to_owned(), new));
            entries.len() - 1
        });
        &mut entries[at].1
    }
}

/// A whole document.
pub(crate) fn document(policy: &Policy) -> Out {
    let policy = policy.canonical();
    let mut defaults = Out::block();
    for rule in &policy.rules {
        put(&mut defaults, rule);
    }
    for (limit, value) in &policy.limits.0 {
        *defaults.slot("limits", Out::block()).slot(limit.as_str(), Out::Bool(false)) =
            match limit.unit() {
                Unit::Thousandths => Out::Fraction(limit.written(*value)),
                Unit::Milliseconds | Unit::Bytes | Unit::Count => Out::Number(*value),
            };
    }
    let entries = vec![("version".to_owned(), Out::Number(1)), ("defaults".to_owned(), defaults)];
    Out::Table { block: true, entries }
}

/// One rule by itself, as a policy would have it.
pub(crate) fn rule(rule: &Rule) -> Out {
    let mut policy = Out::block();
    put(&mut policy, rule);
    policy
}

/// Where in a list or table a rule goes.
enum Item {
    /// One more in a list.
    Element(Out),
    /// All of it.
    Whole(Out),
}

fn put(policy: &mut Out, rule: &Rule) {
    let (path, item) = place(rule);
    let mut slot = policy;
    for (at, key) in path.iter().enumerate() {
        let last = at + 1 == path.len();
        let new = match item {
            Item::Element(_) if last => Out::List(Vec::new()),
            _ => Out::block(),
        };
        slot = slot.slot(key, new);
    }
    match (item, slot) {
        (Item::Element(element), Out::List(list)) => list.push(element),
        (Item::Element(element) | Item::Whole(element), slot) => *slot = element,
    }
}

fn place(rule: &Rule) -> (Vec<&str>, Item) {
    let deny = rule.effect == Effect::Deny;
    let (path, item): (&[&str], Item) = match &rule.right {
        Right::Files(right) => return files(right, deny),
        Right::Connect(right) if deny => return denied_net("connect", connect(right)),
        Right::Http(right) if deny => return denied_net("http", http(right, rule.effect)),
        Right::Resolve(host) if deny => return denied_net("resolve", Out::text(host)),
        Right::Connect(right) => (&["net", "connect"], Item::Element(connect(right))),
        Right::Http(right) => (&["net", "http"], Item::Element(http(right, rule.effect))),
        Right::Resolve(host) => (&["net", "resolve"], Item::Element(Out::text(host))),
        Right::Run(right) if deny => (&["subprocess"], Item::Element(program(right, rule.effect))),
        Right::Run(right) => (&["subprocess", "run"], Item::Element(program(right, rule.effect))),
        Right::Secret(right) => {
            return (section(deny, &["secrets", &right.name]), Item::Whole(secret(right)));
        }
        Right::Clock(actions) => {
            let words = actions.iter().map(|action| match action {
                ClockAction::Time => "time",
                ClockAction::Monotonic => "monotonic",
                ClockAction::Sleep => "sleep",
            });
            (&["clock"], Item::Whole(Out::texts(words)))
        }
        Right::Random { seed: None } => (&["random"], Item::Whole(Out::Bool(true))),
        Right::Random { seed: Some(seed) } => {
            (&["random"], Item::Whole(Out::flow([("seed", Out::Number(*seed))])))
        }
        Right::Ipc { channel, directions } if directions.contains(&Direction::Send) => {
            (&["ipc", "send"], Item::Element(Out::text(channel)))
        }
        Right::Ipc { channel, .. } => (&["ipc", "receive"], Item::Element(Out::text(channel))),
        Right::Host { capability, actions } => {
            let actions = actions.as_ref().map_or(Out::Bool(true), Out::texts);
            return (section(deny, &["capabilities", capability]), Item::Whole(actions));
        }
        Right::Import(module) => (&["imports"], Item::Element(Out::text(module))),
    };
    (section(deny, path), item)
}

fn section<'p>(deny: bool, path: &[&'p str]) -> Vec<&'p str> {
    deny.then_some("deny").into_iter().chain(path.iter().copied()).collect()
}

fn files(right: &FilesRight, deny: bool) -> (Vec<&'static str>, Item) {
    let path = Out::text(&right.pattern);
    let key = match (deny, right.read, right.write) {
        (false, true, true) => "allow",
        (false, true, false) => "read",
        (false, false, _) => "write",
        (true, ..) => "deny",
    };
    let access = match (right.read, right.write) {
        (true, false) if deny => "read",
        (false, true) if deny => "write",
        _ => return (vec!["fs", key], Item::Element(path)),
    };
    let item = Out::flow([("path", path), ("access", Out::text(access))]);
    (vec!["fs", key], Item::Element(item))
}

fn denied_net(key: &'static str, value: Out) -> (Vec<&'static str>, Item) {
    (vec!["net", "deny"], Item::Element(Out::flow([(key, value)])))
}

/// A host before a colon.
pub(crate) fn bracketed(host: &HostPattern) -> String {
    let text = host.to_string();
    if text.contains(':') { format!("[{text}]") } else { text }
}

pub(crate) fn ports(right: &ConnectRight) -> String {
    let (low, high) = (right.ports.start(), right.ports.end());
    if right.ports == PORTS {
        "*".to_owned()
    } else if low == high {
        low.to_string()
    } else {
        format!("{low}-{high}")
    }
}

fn connect(right: &ConnectRight) -> Out {
    if !right.private {
        return Out::Text(format!("{}:{}", bracketed(&right.host), ports(right)));
    }
    let (low, high) = (right.ports.start(), right.ports.end());
    let port = match low == high {
        true => ("port", Out::Number(u64::from(*low))),
        false => ("ports", Out::Text(ports(right))),
    };
    Out::flow([("host", Out::text(&right.host)), port, ("private", Out::Bool(true))])
}

/// The right's place as a URL, if it can be written so.
pub(crate) fn url(right: &HttpRight) -> Option<String> {
    let scheme = right.scheme?;
    if matches!(right.host, HostPattern::Network(_)) {
        return None;
    }
    let port = right.port.map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{}://{}{port}{}", scheme.as_str(), bracketed(&right.host), right.path))
}

fn http(right: &HttpRight, effect: Effect) -> Out {
    let mut entries = Vec::new();
    match url(right) {
        Some(url) => entries.push(("url", Out::Text(url))),
        None => {
            entries.push(("host", Out::text(&right.host)));
            entries.extend(right.scheme.map(|scheme| ("scheme", Out::text(scheme.as_str()))));
            entries.extend(right.port.map(|port| ("port", Out::Number(u64::from(port)))));
            if right.path != "/" {
                entries.push(("path", Out::text(&right.path)));
            }
        }
    }
    if right.methods != default_methods(effect) {
        entries.push(("methods", Out::texts(&right.methods)));
    }
    if right.private {
        entries.push(("private", Out::Bool(true)));
    }
    match entries.as_slice() {
        [("url", url)] => url.clone(),
        _ => Out::flow(entries),
    }
}

fn program(right: &RunRight, effect: Effect) -> Out {
    let mut entries = vec![("program", Out::text(&right.program))];
    let args: &[String] = match effect {
        Effect::Allow => &[],
        Effect::Deny => &[ANY_ARGS.to_owned()],
    };
    if right.args != args {
        entries.push(("args", Out::texts(&right.args)));
    }
    if !right.env.is_empty() {
        let env = right.env.iter().map(|(name, value)| (name.clone(), Out::text(value)));
        entries.push(("env", Out::Table { block: false, entries: env.collect() }));
    }
    if !right.read.is_empty() {
        entries.push(("read", Out::texts(&right.read)));
    }
    for (key, value, default) in [
        ("wall_time_ms", right.wall_time_ms, RunRight::WALL_TIME_MS),
        ("output_bytes", right.output_bytes, RunRight::OUTPUT_BYTES),
        ("mem", right.mem_bytes, RunRight::MEM_BYTES),
    ] {
        if value != default {
            entries.push((key, Out::Number(value)));
        }
    }
    match entries.as_slice() {
        [(_, program)] => program.clone(),
        _ => Out::flow(entries),
    }
}

fn secret(right: &SecretRight) -> Out {
    let reveal = right.reveal.then_some(("reveal", Out::Bool(true)));
    let hosts = (!right.hosts.is_empty()).then(|| ("use", Out::texts(&right.hosts)));
    Out::flow(reveal.into_iter().chain(hosts))
}
