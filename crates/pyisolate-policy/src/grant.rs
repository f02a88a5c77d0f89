//! The smallest right that covers an act, and its names in Python.

use std::fmt::Write;

use crate::act::{Access, Act, ClockAction, Direction, SecretPurpose};
use crate::glob;
use crate::host::Host;
use crate::right::{
    ConnectRight, FilesRight, HostPattern, HttpRight, PathPattern, Right, RunRight, SecretRight,
};

impl Act {
    /// The smallest right that, granted, covers the act.
    #[must_use]
    pub fn smallest_right(&self) -> Right {
        match self {
            Self::File { access, path } => {
                let pattern = PathPattern { root: path.clone(), glob: None };
                let (read, write) = (*access == Access::Read, *access == Access::Write);
                Right::Files(FilesRight { read, write, pattern: pattern.canonical() })
            }
            Self::Connect { host, port } => Right::Connect(ConnectRight {
                host: HostPattern::Exactly(host.clone()),
                ports: *port..=*port,
                private: false,
            }),
            Self::Resolve { host } => Right::Resolve(HostPattern::Exactly(host.clone())),
            Self::Http { method, url } => {
                let right = |path: &str| {
                    Right::Http(HttpRight {
                        scheme: Some(url.scheme),
                        host: HostPattern::Exactly(url.host.clone()),
                        port: (url.port != url.scheme.default_port()).then_some(url.port),
                        path: path.to_owned(),
                        methods: [method.clone()].into(),
                        private: false,
                    })
                };
                // A path that can be read in two ways is granted with the whole site alone.
                let exact = right(&url.path);
                let writable = !url.path.contains('*');
                if writable && exact.covers(self) { exact } else { right("/") }
            }
            Self::Run { program, args } => Right::Run(RunRight {
                args: args.iter().map(|arg| glob::escape(arg)).collect(),
                ..RunRight::new(program)
            }),
            Self::Secret { name, purpose } => Right::Secret(SecretRight {
                name: name.clone(),
                reveal: *purpose == SecretPurpose::Reveal,
                hosts: match purpose {
                    SecretPurpose::Reveal => Vec::new(),
                    // Which host is not known yet; this one never exists, and is there to be
                    // replaced.
                    SecretPurpose::Use => {
                        vec![HostPattern::Exactly(Host::Name("host.invalid".to_owned()))]
                    }
                    SecretPurpose::Send(host) => vec![HostPattern::Exactly(host.clone())],
                },
            }),
            Self::Clock { action } => Right::Clock([*action].into()),
            Self::Random => Right::Random { seed: None },
            Self::Ipc { channel, direction } => {
                Right::Ipc { channel: channel.clone(), directions: [*direction].into() }
            }
            Self::Host { capability, action } => Right::Host {
                capability: capability.clone(),
                actions: Some([action.clone()].into()),
            },
            Self::Import { module } => Right::Import(module.clone()),
        }
    }
}

impl Right {
    /// As an expression of the Python package that grants it: `ReadPath("/data")`.
    #[must_use]
    pub fn to_python(&self) -> String {
        match self {
            Self::Files(right) => {
                let path = python(&right.pattern.to_string());
                match (right.read, right.write) {
                    (true, true) => format!("ReadPath({path}), WritePath({path})"),
                    (_, false) => format!("ReadPath({path})"),
                    (false, true) => format!("WritePath({path})"),
                }
            }
            Self::Connect(right) => {
                let host = python(&right.host.to_string());
                let (low, high) = (right.ports.start(), right.ports.end());
                let port = match low == high {
                    true => low.to_string(),
                    false => python(&crate::text::ports(right)),
                };
                call("ConnectTCP", [host, port], right.private.then_some("private=True"))
            }
            Self::Http(right) => http(right),
            Self::Resolve(host) => format!("Resolve({})", python(&host.to_string())),
            Self::Run(right) => {
                let args = (!right.args.is_empty()).then(|| format!("args={}", list(&right.args)));
                call("Command", [python(&right.program)], args.as_deref())
            }
            Self::Secret(right) => {
                let reveal = right.reveal.then(|| "reveal=True".to_owned());
                let hosts: Vec<String> = right.hosts.iter().map(ToString::to_string).collect();
                let hosts = (!hosts.is_empty()).then(|| format!("use={}", list(&hosts)));
                let rest: Vec<String> = reveal.into_iter().chain(hosts).collect();
                call("Secret", [python(&right.name)], rest.iter().map(String::as_str))
            }
            Self::Clock(actions) => {
                let words = actions.iter().map(|action| match action {
                    ClockAction::Time => python("time"),
                    ClockAction::Monotonic => python("monotonic"),
                    ClockAction::Sleep => python("sleep"),
                });
                call("Clock", words, None)
            }
            Self::Random { seed: None } => "Random()".to_owned(),
            Self::Random { seed: Some(seed) } => format!("Random(seed={seed})"),
            Self::Ipc { channel, directions } => {
                let words = directions.iter().map(|direction| match direction {
                    Direction::Send => python("send"),
                    Direction::Receive => python("receive"),
                });
                call("Channel", std::iter::once(python(channel)).chain(words), None)
            }
            Self::Host { capability, actions: None } => {
                format!("Capability({})", python(capability))
            }
            Self::Host { capability, actions: Some(actions) } => {
                format!("Capability({}, {})", python(capability), list(actions))
            }
            Self::Import(module) => format!("Import({})", python(module)),
        }
    }
}

fn http(right: &HttpRight) -> String {
    let mut first = Vec::new();
    let mut rest = Vec::new();
    match crate::text::url(right) {
        Some(url) => first.push(python(&url)),
        None => {
            rest.push(format!("host={}", python(&right.host.to_string())));
            rest.extend(right.scheme.map(|scheme| format!("scheme={}", python(scheme.as_str()))));
            rest.extend(right.port.map(|port| format!("port={port}")));
            if right.path != "/" {
                rest.push(format!("path={}", python(&right.path)));
            }
        }
    }
    if right.methods != crate::text::default_methods(crate::policy::Effect::Allow) {
        rest.push(format!("methods={}", list(&right.methods)));
    }
    rest.extend(right.private.then(|| "private=True".to_owned()));
    call("Http", first, rest.iter().map(String::as_str))
}

fn call<'w>(
    name: &str,
    first: impl IntoIterator<Item = String>,
    rest: impl IntoIterator<Item = &'w str>,
) -> String {
    let mut words: Vec<String> = first.into_iter().collect();
    words.extend(rest.into_iter().map(str::to_owned));
    format!("{name}({})", words.join(", "))
}

fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| python(text.as_ref())).collect();
    format!("[{}]", texts.join(", "))
}

/// A string of Python.
fn python(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
