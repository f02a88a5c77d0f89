//! The actions and their payloads.

use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Act, CleanPath, PathError};
use rustix::io::Errno;

use super::judge::Use;
use crate::outcome::Failure;
use crate::payload::Payload;
use crate::task::no_action;

const ACTIONS: [&str; 12] = [
    "read", "write", "append", "open", "close", "truncate", "list", "stat", "exists", "mkdir",
    "remove", "rename",
];

/// A file by its path, or one that is open for the cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Path(CleanPath),
    Handle(u64),
}

/// What a request is aimed at first of all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aim<'r> {
    Path(&'r CleanPath),
    Handle(u64),
}

/// How a file is opened, as Python's `open` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) read: bool,
    pub(super) write: bool,
    /// Every write goes to the end.
    pub(super) append: bool,
    /// Made if it is not there.
    pub(super) create: bool,
    /// It must not be there.
    pub(super) exclusive: bool,
    /// What is in it goes.
    pub(super) truncate: bool,
}

#[derive(Debug)]
pub(super) enum Request {
    Read { from: Target, offset: u64, length: Option<u64> },
    Write { path: CleanPath, data: Vec<u8> },
    WriteAt { handle: u64, offset: u64, data: Vec<u8> },
    Append { to: Target, data: Vec<u8> },
    Open { path: CleanPath, mode: Mode },
    Close { handle: u64 },
    Truncate { of: Target, size: u64 },
    List { path: CleanPath },
    Stat { of: Target, follow: bool },
    Exists { path: CleanPath },
    Mkdir { path: CleanPath, parents: bool, exist_ok: bool },
    Remove { path: CleanPath, directory: bool },
    Rename { path: CleanPath, to: CleanPath, replace: bool },
}

impl Request {
    pub(super) fn parse(action: &str, payload: &Value) -> Result<Self, Failure> {
        let mut read = Payload::new("filesystem", action, payload)?;
        let payload = &mut read;
        let request = match action {
            "read" => Self::Read {
                from: target(payload)?,
                offset: payload.size_or_none("offset")?.unwrap_or(0),
                length: payload.size_or_none("length")?,
            },
            "write" => match target(payload)? {
                Target::Path(path) => Self::Write { path, data: payload.bytes("data")?.into() },
                Target::Handle(handle) => Self::WriteAt {
                    handle,
                    offset: payload.size("offset")?,
                    data: payload.bytes("data")?.into(),
                },
            },
            "append" => Self::Append { to: target(payload)?, data: payload.bytes("data")?.into() },
            "open" => Self::Open {
                path: path(payload, "path")?,
                mode: match payload.text_or_none("mode")? {
                    None => Mode::READ,
                    Some(text) => Mode::parse(text).ok_or_else(|| {
                        payload.wrong("\"mode\" is one of r, w, a and x, and maybe a +")
                    })?,
                },
            },
            "close" => Self::Close { handle: payload.size("handle")? },
            "truncate" => Self::Truncate { of: target(payload)?, size: payload.size("size")? },
            "list" => Self::List { path: path(payload, "path")? },
            "stat" => {
                let of = target(payload)?;
                // A handle's file has no link any more that could be followed or not.
                let follow = match of {
                    Target::Path(_) => payload.bool("follow", true)?,
                    Target::Handle(_) => true,
                };
                Self::Stat { of, follow }
            }
            "exists" => Self::Exists { path: path(payload, "path")? },
            "mkdir" => Self::Mkdir {
                path: path(payload, "path")?,
                parents: payload.bool("parents", false)?,
                exist_ok: payload.bool("exist_ok", false)?,
            },
            "remove" => Self::Remove {
                path: path(payload, "path")?,
                directory: payload.bool("directory", false)?,
            },
            "rename" => Self::Rename {
                path: path(payload, "path")?,
                to: path(payload, "to")?,
                replace: payload.bool("replace", true)?,
            },
            _ => return Err(no_action("filesystem", action, &ACTIONS)),
        };
        read.end()?;
        Ok(request)
    }

    /// The path or handle that the request names first.
    pub(super) fn aim(&self) -> Aim<'_> {
        match self {
            Self::Read { from: target, .. }
            | Self::Append { to: target, .. }
            | Self::Truncate { of: target, .. }
            | Self::Stat { of: target, .. } => match target {
                Target::Path(path) => Aim::Path(path),
                Target::Handle(handle) => Aim::Handle(*handle),
            },
            Self::WriteAt { handle, .. } | Self::Close { handle } => Aim::Handle(*handle),
            Self::Write { path, .. }
            | Self::Open { path, .. }
            | Self::List { path }
            | Self::Exists { path }
            | Self::Mkdir { path, .. }
            | Self::Remove { path, .. }
            | Self::Rename { path, .. } => Aim::Path(path),
        }
    }

    /// What that is wanted for.
    pub(super) fn usage(&self) -> Use {
        match self {
            Self::Read { .. } | Self::Close { .. } => Use::Read,
            Self::Open { mode, .. } => mode.usage(),
            Self::List { .. } | Self::Stat { .. } | Self::Exists { .. } => Use::See,
            Self::Write { .. }
            | Self::WriteAt { .. }
            | Self::Append { .. }
            | Self::Truncate { .. }
            | Self::Mkdir { .. }
            | Self::Remove { .. }
            | Self::Rename { .. } => Use::Write,
        }
    }

    /// The act that stands for the request; none for a handle, whose path only its session knows.
    pub(super) fn act(&self) -> Option<Act> {
        let Aim::Path(path) = self.aim() else { return None };
        let access = *self.usage().accesses().last()?;
        Some(Act::File { access, path: path.clone() })
    }
}

impl Mode {
    pub(super) const READ: Self = Self {
        read: true,
        write: false,
        append: false,
        create: false,
        exclusive: false,
        truncate: false,
    };

    pub(super) const WRITE: Self = Self { read: false, write: true, ..Self::READ };

    fn parse(text: &str) -> Option<Self> {
        let (kind, both) = match text.strip_suffix('+') {
            Some(kind) => (kind, true),
            None => (text, false),
        };
        let mode = match kind {
            "r" => Self::READ,
            "w" => Self { create: true, truncate: true, ..Self::WRITE },
            "a" => Self { create: true, append: true, ..Self::WRITE },
            "x" => Self { create: true, exclusive: true, ..Self::WRITE },
            _ => return None,
        };
        Some(Self { read: mode.read || both, write: mode.write || both, ..mode })
    }

    pub(super) fn usage(self) -> Use {
        match (self.read, self.write) {
            (true, true) => Use::Both,
            (_, write) => {
                if write {
                    Use::Write
                } else {
                    Use::Read
                }
            }
        }
    }
}

/// A path that a rule can speak of. Errors are those that Python has for such a path.
fn path(payload: &mut Payload<'_>, key: &str) -> Result<CleanPath, Failure> {
    match payload.long_text_or_none(key)? {
        Some(text) => clean(payload, key, text),
        None => Err(payload.wrong(format_args!("{key:?} is missing"))),
    }
}

fn clean(payload: &Payload<'_>, key: &str, text: &str) -> Result<CleanPath, Failure> {
    CleanPath::new(text).map_err(|error| match error {
        PathError::Nul => Failure::new("ValueError", "embedded null byte"),
        PathError::TooLong => Failure::os(Errno::NAMETOOLONG),
        PathError::Relative(_) => payload.wrong(format_args!("{key:?} is not an absolute path")),
    })
}

/// `path` or `handle`, and not both.
fn target(payload: &mut Payload<'_>) -> Result<Target, Failure> {
    match (payload.long_text_or_none("path")?, payload.size_or_none("handle")?) {
        (Some(text), None) => Ok(Target::Path(clean(payload, "path", text)?)),
        (None, Some(handle)) => Ok(Target::Handle(handle)),
        _ => Err(payload.wrong("give \"path\" or \"handle\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(action: &str, entries: &[(&str, Value)]) -> Result<Request, Failure> {
        let entries = entries
            .iter()
            .map(|(key, value)| (Value::Text((*key).to_owned()), value.clone()))
            .collect();
        Request::parse(action, &Value::Dict(entries))
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn modes() {
        for (text, usage) in [("r", Use::Read), ("w", Use::Write), ("a+", Use::Both)] {
            assert_eq!(Mode::parse(text).unwrap().usage(), usage, "{text}");
        }
        assert!(Mode::parse("x+").unwrap().exclusive);
        assert!(!Mode::parse("r+").unwrap().create);
        for bad in ["", "+", "rb", "rw", "w++", "U", "r+b"] {
            assert_eq!(Mode::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn payloads_are_checked_whole() {
        assert!(parse("read", &[("path", text("/a"))]).is_ok());
        for (action, entries) in [
            ("read", vec![]),
            ("read", vec![("path", text("a"))]),
            ("read", vec![("path", text("/a")), ("handle", Value::Int(1))]),
            ("read", vec![("path", text("/a")), ("size", Value::Int(1))]),
            ("read", vec![("path", text("/a")), ("offset", Value::Int(-1))]),
            ("read", vec![("path", Value::Bytes(b"/a".to_vec()))]),
            ("write", vec![("path", text("/a")), ("data", text("x"))]),
            ("write", vec![("handle", Value::Int(1)), ("data", Value::Bytes(vec![]))]),
            ("stat", vec![("handle", Value::Int(1)), ("follow", Value::Bool(false))]),
            ("list", vec![("handle", Value::Int(1))]),
        ] {
            let failure = parse(action, &entries).unwrap_err();
            assert_eq!(failure.kind, "ValueError", "{action} {entries:?}");
        }
        assert_eq!(parse("chmod", &[]).unwrap_err().kind, "LookupError");
    }

    #[test]
    fn paths_fail_as_pythons_do() {
        let failure = |path: &str| parse("read", &[("path", text(path))]).unwrap_err();
        assert_eq!(failure("/a\0b").message, "embedded null byte");
        assert!(failure(&format!("/{}", "a".repeat(256))).message.starts_with("[Errno 36]"));
        for times in [2049, 100_000] {
            assert!(failure(&"/a".repeat(times)).message.starts_with("[Errno 36]"));
        }
    }
}
