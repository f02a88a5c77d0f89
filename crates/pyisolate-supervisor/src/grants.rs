//! What a cell is granted: its policy, with what `spawn` was given beside it, and what of that its
//! runtime has to know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pyisolate_abi::pickle::Value;
use pyisolate_broker::CAPABILITIES;
use pyisolate_policy::{
    CleanPath, ClockAction, Effect, FilesRight, Imports, Origin, PathPattern, Policy, Right, Rule,
    SCRATCH,
};

use crate::handler::HostCapability;

/// The rules that stand for what `spawn` was given beside the policy.
pub(crate) fn beside(
    imports: &Imports,
    capabilities: &BTreeMap<String, HostCapability>,
    policy: Option<&Policy>,
) -> Vec<Rule> {
    let rule = |source: &str, right| Rule {
        effect: Effect::Allow,
        right,
        origin: Origin { source: Arc::from(source), line: 0, column: 0 },
    };
    let imports =
        imports.names().map(|name| rule("allowed_imports", Right::Import(name.to_owned())));
    // A policy that speaks of the capability says how much of it is granted.
    let named = |name: &str| policy.is_some_and(|policy| speaks_of(policy, name));
    let hosts = capabilities
        .keys()
        .filter(|name| !named(name))
        .map(|name| rule("capabilities", Right::Host { capability: name.clone(), actions: None }));
    imports.chain(hosts).collect()
}

/// The rule for a cell's scratch files.
pub(crate) fn scratch() -> Rule {
    let root = CleanPath::new(SCRATCH)
        .unwrap_or_else(|error| unreachable!("a constant is a clean path: {error}"));
    Rule {
        effect: Effect::Allow,
        right: Right::Files(FilesRight {
            read: true,
            write: true,
            pattern: PathPattern { root, glob: None },
        }),
        origin: Origin { source: Arc::from("scratch_bytes"), line: 0, column: 0 },
    }
}

/// Whether a policy says anything of a capability of the host's own.
fn speaks_of(policy: &Policy, name: &str) -> bool {
    let speaks =
        |rule: &Rule| matches!(&rule.right, Right::Host { capability, .. } if capability == name);
    policy.rules.iter().any(speaks)
}

/// The policy that is in force: what was written, and what stands beside it. A capability of the
/// host's own that the first policy did not speak of is granted whole, until a later one does: that
/// narrows it.
pub(crate) fn in_force(policy: &Policy, beside: &[Rule]) -> Policy {
    let holds = |rule: &&Rule| match &rule.right {
        Right::Host { capability, .. } => !speaks_of(policy, capability),
        _ => true,
    };
    let beside: Vec<Rule> = beside.iter().filter(holds).cloned().collect();
    let mut policy = policy.clone();
    policy.rules.extend(beside);
    policy
}

/// What the guest's runtime has to know of a policy, as entries of its settings: which modules may be
/// imported, which capability objects to make, which guards to put up. None of it is a wall.
pub(crate) fn settings(
    policy: &Policy,
    has_policy: bool,
    capabilities: &BTreeMap<String, HostCapability>,
) -> Vec<(Value, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let texts = |names: Vec<&str>| Value::List(names.into_iter().map(text).collect());
    let granted = |effect| policy.rules.iter().filter(move |rule| rule.effect == effect);
    let modules = |effect| {
        let module = |rule: &'_ Rule| match &rule.right {
            Right::Import(name) => Some(text(name)),
            _ => None,
        };
        Value::List(granted(effect).filter_map(module).collect())
    };
    let names = granted(Effect::Allow).map(|rule| rule.right.capability());
    let names: BTreeSet<&str> = names.filter(|name| CAPABILITIES.contains(name)).collect();
    let mut clock = Vec::new();
    let mut random = false;
    let mut seeded = false;
    for rule in granted(Effect::Allow) {
        match &rule.right {
            Right::Clock(actions) => clock.extend(actions.iter().map(|action| match action {
                ClockAction::Time => "time",
                ClockAction::Monotonic => "monotonic",
                ClockAction::Sleep => "sleep",
            })),
            // The last one decides.
            Right::Random { seed } => {
                random = true;
                seeded = seed.is_some();
            }
            _ => {}
        }
    }
    vec![
        (text("imports"), modules(Effect::Allow)),
        (text("imports_denied"), modules(Effect::Deny)),
        (text("policy"), Value::Bool(has_policy)),
        (text("capabilities"), texts(names.into_iter().collect())),
        (text("host_capabilities"), texts(capabilities.keys().map(String::as_str).collect())),
        (text("clock"), texts(clock)),
        (text("random"), Value::Bool(random)),
        (text("seeded"), Value::Bool(seeded)),
        (text("descriptors"), Value::Bool(true)),
    ]
}
