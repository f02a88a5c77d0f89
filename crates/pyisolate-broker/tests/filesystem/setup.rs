//! A cell with a policy, and folders with secrets beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyisolate_abi::pickle::Value;
use pyisolate_broker::{
    Broker, BrokerOptions, DecidedBy, Denied, Granted, Refusal, Session, SessionOptions,
};
use pyisolate_policy::{
    CellName, Effect, FilesRight, LimitChanges, Limits, Origin, Policy, Right, Rule,
};
use tempfile::TempDir;

/// What no cell may read.
pub(crate) const SECRET: &[u8] = b"the secret";

/// What it may.
pub(crate) const PUBLIC: &[u8] = b"public";

/// A folder `in` that is granted, and a folder `out` with a secret in it.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.at("in")).unwrap();
        std::fs::create_dir(place.at("out")).unwrap();
        std::fs::write(place.at("in/public"), PUBLIC).unwrap();
        std::fs::write(place.at("out/secret"), SECRET).unwrap();
        place
    }

    pub(crate) fn at(&self, rest: &str) -> PathBuf {
        self.dir.path().join(rest)
    }

    /// A path's text.
    pub(crate) fn text(&self, rest: &str) -> String {
        self.at(rest).to_str().unwrap().to_owned()
    }

    /// A cell whose rules speak of paths in here: `r`, `w`, `rw`, and with `!` in front as denials.
    pub(crate) fn cell(&self, rules: &[(&str, &str)]) -> Cell {
        self.cell_with(rules, false, Limits::default())
    }

    pub(crate) fn cell_with(
        &self,
        rules: &[(&str, &str)],
        takes_descriptors: bool,
        limits: Limits,
    ) -> Cell {
        let options = SessionOptions {
            cell: CellName::new("test").unwrap(),
            policy: Arc::new(self.policy(rules)),
            limits,
            secrets: Default::default(),
            takes_descriptors,
            scratch: None,
            journal: None,
        };
        let broker = Arc::new(Broker::new(BrokerOptions::default()));
        Cell(Session::new(broker, options))
    }

    pub(crate) fn policy(&self, rules: &[(&str, &str)]) -> Policy {
        let rule = |(what, path): &(&str, &str)| {
            let path = if path.starts_with('/') { (*path).to_owned() } else { self.text(path) };
            Rule {
                effect: if what.starts_with('!') { Effect::Deny } else { Effect::Allow },
                right: Right::Files(FilesRight {
                    read: what.contains('r'),
                    write: what.contains('w'),
                    pattern: path.parse().unwrap(),
                }),
                origin: Origin { source: "test.yml".into(), line: 1, column: 1 },
            }
        };
        Policy { rules: rules.iter().map(rule).collect(), limits: LimitChanges::default() }
    }
}

/// A cell, and what it asks.
pub(crate) struct Cell(pub(crate) Session);

pub(crate) type Answer = Result<Granted, Refusal>;

impl Cell {
    pub(crate) fn ask(&self, action: &str, entries: &[(&str, Value)]) -> Answer {
        let entries = entries
            .iter()
            .map(|(key, value)| (Value::Text((*key).to_owned()), value.clone()))
            .collect();
        let ready = self.0.begin("filesystem", action, &Value::Dict(entries));
        ready.map_err(|refused| refused.refusal)?.perform(&self.0)
    }

    pub(crate) fn on(&self, action: &str, path: impl AsRef<Path>) -> Answer {
        self.ask(action, &[("path", text(path))])
    }

    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, Refusal> {
        self.on("read", path).map(bytes)
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>, data: &[u8]) -> Answer {
        self.ask("write", &[("path", text(path)), ("data", Value::Bytes(data.to_vec()))])
    }

    pub(crate) fn append(&self, path: impl AsRef<Path>, data: &[u8]) -> Answer {
        self.ask("append", &[("path", text(path)), ("data", Value::Bytes(data.to_vec()))])
    }

    pub(crate) fn open(&self, path: impl AsRef<Path>, mode: &str) -> Answer {
        self.ask("open", &[("path", text(path)), ("mode", Value::Text(mode.to_owned()))])
    }

    pub(crate) fn handle(&self, path: impl AsRef<Path>, mode: &str) -> Value {
        field(&self.open(path, mode).unwrap().value, "handle")
    }

    pub(crate) fn rename(&self, path: impl AsRef<Path>, to: impl AsRef<Path>) -> Answer {
        self.ask("rename", &[("path", text(path)), ("to", text(to))])
    }

    /// The names in a folder, sorted.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Value::List(entries) = self.on("list", path).unwrap().value else { panic!("no list") };
        let name = |entry: &Value| match entry {
            Value::List(parts) => match &parts[..] {
                [Value::Text(name), Value::Text(kind), Value::Int(_)] => format!("{name} {kind}"),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let mut names: Vec<String> = entries.iter().map(name).collect();
        names.sort();
        names
    }
}

pub(crate) fn text(path: impl AsRef<Path>) -> Value {
    Value::Text(path.as_ref().to_str().unwrap().to_owned())
}

pub(crate) fn bytes(granted: Granted) -> Vec<u8> {
    match granted.value {
        Value::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn field(record: &Value, name: &str) -> Value {
    let Value::Dict(entries) = record else { panic!("{record:?}") };
    let found = entries.iter().find(|(key, _)| *key == Value::Text(name.to_owned()));
    found.unwrap_or_else(|| panic!("{name} in {record:?}")).1.clone()
}

pub(crate) fn number(record: &Value, name: &str) -> i64 {
    match field(record, name) {
        Value::Int(number) => number,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn denied<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> Denied {
    match answer {
        Err(Refusal::Denied(denied)) => *denied,
        other => panic!("not denied: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn by_policy<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> String {
    let denied = denied(answer);
    assert_eq!(denied.layer, DecidedBy::Policy, "{denied:?}");
    denied.reason
}

#[track_caller]
pub(crate) fn by_broker<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> String {
    let denied = denied(answer);
    assert_eq!(denied.layer, DecidedBy::Broker, "{denied:?}");
    assert_eq!(denied.grant, None);
    denied.reason
}

/// The number of the guest's `OSError`.
#[track_caller]
pub(crate) fn errno<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> i32 {
    match answer {
        Err(Refusal::Failed(failure)) if failure.kind == "OSError" => {
            let number = failure.message.strip_prefix("[Errno ").unwrap();
            let (number, text) = number.split_once("] ").unwrap();
            assert!(!text.contains('/'), "{text}");
            number.parse().unwrap()
        }
        other => panic!("no OSError: {other:?}"),
    }
}

pub(crate) const ENOENT: i32 = 2;
pub(crate) const EBADF: i32 = 9;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const EXDEV: i32 = 18;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const EISDIR: i32 = 21;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const EFBIG: i32 = 27;
pub(crate) const ENAMETOOLONG: i32 = 36;
pub(crate) const ENOTEMPTY: i32 = 39;
pub(crate) const ELOOP: i32 = 40;
pub(crate) const EDQUOT: i32 = 122;
