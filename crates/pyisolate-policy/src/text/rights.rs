//! The sections of a policy, one for each kind of right.

use std::collections::BTreeSet;

use super::net;
use super::reader::{Fields, Reader, shorten};
use super::tree::{Entry, Located, Spot, Value};
use crate::act::{ClockAction, Direction};
use crate::cover::ANY_ARGS;
use crate::glob;
use crate::imports::is_dotted_name;
use crate::path::CleanPath;
use crate::policy::{Effect, Rule};
use crate::right::{FilesRight, HostPattern, PathPattern, Right, RunRight, SecretRight};

/// The sections, in the order in which their rules stand in a policy.
pub(crate) const RIGHT_KEYS: [&str; 9] =
    ["fs", "net", "subprocess", "secrets", "clock", "random", "ipc", "capabilities", "imports"];

/// What `request` knows by itself, so that no capability of the host's own is called so.
const BUILT_IN: [(&str, &str); 9] = [
    ("filesystem", "fs"),
    ("network", "net"),
    ("subprocess", "subprocess"),
    ("secret", "secrets"),
    ("clock", "clock"),
    ("random", "random"),
    ("ipc", "ipc"),
    ("import", "imports"),
    ("imports", "imports"),
];

/// Reads the sections of a policy that grant; `fs` and `net` have denials of their own in them.
pub(crate) fn grants(reader: &mut Reader, fields: Fields<'_>, rules: &mut Vec<Rule>) {
    if let Some(node) = fields.get("fs") {
        let fields = reader.fields(node, "fs", &["read", "write", "allow", "deny"]);
        for (key, read, write) in
            [("read", true, false), ("write", false, true), ("allow", true, true)]
        {
            for node in reader.items(fields.get(key)) {
                if let Some(pattern) = reader.parsed::<PathPattern>(node, "a path") {
                    let right = Right::Files(FilesRight { read, write, pattern });
                    rules.push(reader.rule(Effect::Allow, right, node.spot));
                }
            }
        }
        denied_files(reader, fields.get("deny"), rules);
    }
    if let Some(node) = fields.get("net") {
        net::grants(reader, node, rules);
    }
    others(reader, fields, Effect::Allow, rules);
}

/// Reads the section `deny` of a policy.
pub(crate) fn denials(reader: &mut Reader, node: &Located, rules: &mut Vec<Rule>) {
    let fields = reader.fields(node, "deny", &RIGHT_KEYS);
    denied_files(reader, fields.get("fs"), rules);
    net::denials(reader, fields.get("net"), rules);
    others(reader, fields, Effect::Deny, rules);
}

fn denied_files(reader: &mut Reader, node: Option<&Located>, rules: &mut Vec<Rule>) {
    for node in reader.items(node) {
        let (mut read, mut write) = (true, true);
        let mut path = Some(node);
        if let Value::Table(_) = node.value {
            let fields = reader.fields(node, "a denied path", &["path", "access"]);
            path = fields.get("path");
            if let Some(access) = fields.get("access") {
                (read, write) = match reader.text(access, "read, write or all") {
                    Some("read") => (true, false),
                    Some("write") => (false, true),
                    Some("all") => (true, true),
                    Some(_) => {
                        reader.problem(access.spot, "the access is read, write or all", "");
                        continue;
                    }
                    None => continue,
                };
            }
        }
        let Some(path) = path else {
            reader.problem(node.spot, "the path is missing", "write it as {path: /data/private}");
            continue;
        };
        if let Some(pattern) = reader.parsed::<PathPattern>(path, "a path") {
            let right = Right::Files(FilesRight { read, write, pattern });
            rules.push(reader.rule(Effect::Deny, right, node.spot));
        }
    }
}

/// The sections that are the same for grants and denials.
fn others(reader: &mut Reader, fields: Fields<'_>, effect: Effect, rules: &mut Vec<Rule>) {
    if let Some(node) = fields.get("subprocess") {
        programs(reader, node, effect, rules);
    }
    if let Some(node) = fields.get("secrets") {
        secrets(reader, node, effect, rules);
    }
    if let Some(node) = fields.get("clock") {
        clock(reader, node, effect, rules);
    }
    if let Some(node) = fields.get("random") {
        random(reader, node, effect, rules);
    }
    if let Some(node) = fields.get("ipc") {
        let fields = reader.fields(node, "ipc", &["send", "receive"]);
        for (key, direction) in [("send", Direction::Send), ("receive", Direction::Receive)] {
            for node in reader.items(fields.get(key)) {
                if let Some(channel) = reader.name(node, "the name of a channel") {
                    let right = Right::Ipc { channel, directions: [direction].into() };
                    rules.push(reader.rule(effect, right, node.spot));
                }
            }
        }
    }
    if let Some(node) = fields.get("capabilities") {
        capabilities(reader, node, effect, rules);
    }
    for node in reader.items(fields.get("imports")) {
        match reader.text(node, "a module's name") {
            Some(module) if is_dotted_name(module) => {
                rules.push(reader.rule(effect, Right::Import(module.to_owned()), node.spot));
            }
            Some(other) => {
                let message = format!("{:?} is no dotted module name", shorten(other));
                reader.problem(node.spot, message, "a name allows itself and what is below it");
            }
            None => {}
        }
    }
}

fn programs(reader: &mut Reader, node: &Located, effect: Effect, rules: &mut Vec<Rule>) {
    let list = match (&node.value, effect) {
        (Value::Table(_), Effect::Allow) => reader.fields(node, "subprocess", &["run"]).get("run"),
        (Value::Table(entries), Effect::Deny) if entries.iter().any(|e| e.key == "run") => {
            reader.fields(node, "subprocess", &["run"]).get("run")
        }
        (_, Effect::Deny) => Some(node),
        _ => {
            reader.fields(node, "subprocess", &["run"]);
            None
        }
    };
    for node in reader.items(list) {
        if let Some(right) = program(reader, node, effect) {
            rules.push(reader.rule(effect, Right::Run(right), node.spot));
        }
    }
}

const PROGRAM_KEYS: [&str; 7] =
    ["program", "args", "env", "read", "wall_time_ms", "output_bytes", "mem"];

fn program(reader: &mut Reader, node: &Located, effect: Effect) -> Option<RunRight> {
    let mut right = RunRight::new("");
    let mut name = Some(node);
    let mut args = None;
    if let Value::Table(_) = node.value {
        let fields = reader.fields(node, "a program", &PROGRAM_KEYS);
        name = fields.get("program");
        args = fields.get("args").filter(|args| !matches!(args.value, Value::Null));
        if let Some(env) = fields.get("env") {
            for entry in reader.entries(env, "{NAME: value}").all() {
                let value = reader.text(&entry.value, "a value for the environment");
                let is_variable = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
                match value {
                    Some(value) if is_variable(&entry.key) && !value.contains('\0') => {
                        right.env.insert(entry.key.clone(), value.to_owned());
                    }
                    Some(_) => reader.problem(entry.spot, "this is no environment variable", ""),
                    None => {}
                }
            }
        }
        for node in reader.items(fields.get("read")) {
            let Some(path) = reader.text(node, "a path") else { continue };
            if glob::is_wild(path) {
                reader.problem(node.spot, "a program reads folders or files, no patterns", "");
                continue;
            }
            match CleanPath::new(path) {
                Ok(path) => right.read.push(path),
                Err(error) => reader.problem(node.spot, error.to_string(), ""),
            }
        }
        if let Some(time) = fields.get("wall_time_ms") {
            right.wall_time_ms = reader.number(time)?;
        }
        if let Some(output) = fields.get("output_bytes") {
            right.output_bytes = reader.size(output)?;
        }
        if let Some(mem) = fields.get("mem") {
            right.mem_bytes = reader.size(mem)?;
        }
    }
    let Some(name) = name else {
        reader.problem(node.spot, "the program is missing", "write it as {program: git}");
        return None;
    };
    right.program = reader.text(name, "a program")?.to_owned();
    if !is_program(&right.program) {
        let message = format!("{:?} is no program", shorten(&right.program));
        let advice = "use a bare name such as git, or an absolute path; its arguments go into \
                      {program: git, args: [status]}";
        reader.problem(name.spot, message, advice);
    }
    right.args = match args {
        Some(args) => arguments(reader, args),
        // To deny a program is to deny it with any arguments.
        None if effect == Effect::Deny => vec![ANY_ARGS.to_owned()],
        None => Vec::new(),
    };
    Some(right)
}

/// A bare name, or a clean absolute path.
fn is_program(program: &str) -> bool {
    if program.starts_with('/') {
        return CleanPath::new(program).is_ok_and(|clean| clean.as_str() == program)
            && program != "/";
    }
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == '/';
    !program.is_empty()
        && program.len() <= 255
        && !program.contains(odd)
        && !program.starts_with('.')
}

fn arguments(reader: &mut Reader, node: &Located) -> Vec<String> {
    let items = reader.items(Some(node));
    let mut args = Vec::new();
    for (at, node) in items.iter().enumerate() {
        let Some(arg) = reader.text(node, "an argument's pattern") else { continue };
        if arg.contains('\0') {
            reader.problem(node.spot, "an argument cannot contain a NUL byte", "");
        } else if !glob::is_valid(arg) {
            reader.problem(node.spot, "this '[' begins no class", "write [[] for itself");
        } else if arg == ANY_ARGS && at + 1 < items.len() {
            let message = "\"**\" stands for all further arguments, so it has to be the last";
            reader.problem(node.spot, message, "use \"*\" for one argument");
        }
        args.push(arg.to_owned());
    }
    args
}

fn secrets(reader: &mut Reader, node: &Located, effect: Effect, rules: &mut Vec<Rule>) {
    let all = |name: String| SecretRight { name, reveal: true, hosts: vec![HostPattern::Any] };
    if let (Effect::Deny, Value::List(_) | Value::Text(_)) = (effect, &node.value) {
        for node in reader.items(Some(node)) {
            if let Some(name) = reader.name(node, "the name of a secret") {
                rules.push(reader.rule(effect, Right::Secret(all(name)), node.spot));
            }
        }
        return;
    }
    for Entry { key, spot, value } in reader.entries(node, "{name: {use: [host]}}").all() {
        if !reader.is_name(key, *spot, "the name of a secret") {
            continue;
        }
        let fields = reader.fields(value, "a secret", &["reveal", "use"]);
        let reveal = reader.bool(fields.get("reveal"));
        let mut hosts = Vec::new();
        for node in reader.items(fields.get("use")) {
            hosts.extend(reader.parsed::<HostPattern>(node, "a host"));
        }
        let right = SecretRight { name: key.clone(), reveal, hosts };
        push_unless_empty(reader, Right::Secret(right), effect, *spot, rules);
    }
}

fn clock(reader: &mut Reader, node: &Located, effect: Effect, rules: &mut Vec<Rule>) {
    let mut actions = BTreeSet::new();
    match &node.value {
        Value::Bool(true) => {
            actions = [ClockAction::Time, ClockAction::Monotonic, ClockAction::Sleep].into();
        }
        Value::Bool(false) => return,
        _ => {
            for node in reader.items(Some(node)) {
                match reader.text(node, "time, monotonic or sleep") {
                    Some("time") => drop(actions.insert(ClockAction::Time)),
                    Some("monotonic") => drop(actions.insert(ClockAction::Monotonic)),
                    Some("sleep") => drop(actions.insert(ClockAction::Sleep)),
                    Some(other) => {
                        let message = format!("the clock has no {:?}", shorten(other));
                        reader.problem(node.spot, message, "it has time, monotonic and sleep");
                    }
                    None => {}
                }
            }
        }
    }
    push_unless_empty(reader, Right::Clock(actions), effect, node.spot, rules);
}

fn random(reader: &mut Reader, node: &Located, effect: Effect, rules: &mut Vec<Rule>) {
    let seed = match (&node.value, effect) {
        (Value::Bool(true), _) => None,
        (Value::Bool(false) | Value::Null, _) => return,
        (Value::Table(_), Effect::Allow) => {
            let fields = reader.fields(node, "random", &["seed"]);
            let Some(seed) = fields.get("seed").and_then(|seed| reader.number(seed)) else {
                reader.problem(node.spot, "the seed is missing", "write it as {seed: 7}, or true");
                return;
            };
            Some(seed)
        }
        (_, Effect::Deny) => return reader.wrong(node, "true or false", "random: true"),
        (_, Effect::Allow) => return reader.wrong(node, "true or a seed", "true, or {seed: 7}"),
    };
    rules.push(reader.rule(effect, Right::Random { seed }, node.spot));
}

fn capabilities(reader: &mut Reader, node: &Located, effect: Effect, rules: &mut Vec<Rule>) {
    for Entry { key, spot, value } in reader.entries(node, "{db: [query]}, or {db: true}").all() {
        if !reader.is_name(key, *spot, "the name of a capability") {
            continue;
        }
        if let Some((_, section)) = BUILT_IN.iter().find(|(name, _)| name == key) {
            let message = format!("{key:?} is built in, not a capability of the host's own");
            reader.problem(*spot, message, format!("grant it with {section:?}"));
            continue;
        }
        let actions = match &value.value {
            Value::Bool(true) => None,
            Value::Bool(false) => continue,
            _ => {
                let mut actions = BTreeSet::new();
                for node in reader.items(Some(value)) {
                    actions.extend(reader.name(node, "the name of an action"));
                }
                Some(actions)
            }
        };
        let right = Right::Host { capability: key.clone(), actions };
        push_unless_empty(reader, right, effect, *spot, rules);
    }
}

/// A grant of nothing is none. A denial of nothing was meant to deny something.
fn push_unless_empty(
    reader: &mut Reader,
    right: Right,
    effect: Effect,
    spot: Spot,
    rules: &mut Vec<Rule>,
) {
    if !right.is_empty(effect) {
        rules.push(reader.rule(effect, right, spot));
    } else if effect == Effect::Deny {
        let advice = match &right {
            Right::Secret(_) => "to deny all of a secret, write a list of names: secrets: [name]",
            _ => "write true to deny all of it, or leave it out",
        };
        reader.problem(spot, "this denies nothing", advice);
    }
}
