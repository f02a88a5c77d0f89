//! What a guest asks for, in the one form that everybody decides on: the broker when it answers,
//! `explain` when it is asked, and the journal when it remembers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::path::CleanPath;
use crate::url::HttpUrl;

/// One question to the policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Act {
    /// Look at a file or folder, or change it.
    File {
        /// Which of the two.
        access: Access,
        /// Which file.
        path: CleanPath,
    },
    /// Open a TCP stream.
    Connect {
        /// To whom.
        host: Host,
        /// To which port.
        port: u16,
    },
    /// Ask for the addresses of a name.
    Resolve {
        /// Which name.
        host: Host,
    },
    /// Send an HTTP request.
    Http {
        /// In capitals.
        method: String,
        /// Where to.
        url: HttpUrl,
    },
    /// Run a program.
    Run {
        /// A bare name or an absolute path, as the guest wrote it.
        program: String,
        /// What follows the program's name.
        args: Vec<String>,
    },
    /// Have a secret, or have it put into a request.
    Secret {
        /// Its name.
        name: String,
        /// What for.
        purpose: SecretPurpose,
    },
    /// Know the time, or wait.
    Clock {
        /// Which of them.
        action: ClockAction,
    },
    /// Take random bytes.
    Random,
    /// Use a channel between cells.
    Ipc {
        /// Its name.
        channel: String,
        /// Which end.
        direction: Direction,
    },
    /// Use a capability of the host's own.
    Host {
        /// Its name.
        capability: String,
        /// What it is to do.
        action: String,
    },
    /// Import a module.
    Import {
        /// Its dotted name.
        module: String,
    },
}

/// What is to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Its contents, its entries or what `stat` tells.
    Read,
    /// Its contents, its name or its existence.
    Write,
}

/// What a secret is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretPurpose {
    /// To be handed over.
    Reveal,
    /// To be named by a placeholder.
    Use,
    /// To be put into a request to this host.
    Send(Host),
}

/// What a clock can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockAction {
    /// The time of day.
    Time,
    /// A clock that only goes forward.
    Monotonic,
    /// Waiting.
    Sleep,
}

/// The ends of a channel between cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Putting messages in.
    Send,
    /// Taking messages out.
    Receive,
}

impl Act {
    /// The capability that answers it, as a guest names it in `request`.
    #[must_use]
    pub fn capability(&self) -> &str {
        match self {
            Self::File { .. } => "filesystem",
            Self::Connect { .. } | Self::Resolve { .. } | Self::Http { .. } => "network",
            Self::Run { .. } => "subprocess",
            Self::Secret { .. } => "secret",
            Self::Clock { .. } => "clock",
            Self::Random => "random",
            Self::Ipc { .. } => "ipc",
            Self::Host { capability, .. } => capability,
            Self::Import { .. } => "import",
        }
    }
}

/// What the act is aimed at, for people: a path, `host:port`, a URL, a command, a name.
impl fmt::Display for Act {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { access: Access::Read, path } => write!(out, "read {path}"),
            Self::File { access: Access::Write, path } => write!(out, "write {path}"),
            Self::Connect { host, port } => write!(out, "connect to {}:{port}", host.in_url()),
            Self::Resolve { host } => write!(out, "resolve {host}"),
            Self::Http { method, url } => write!(out, "{method} {url}"),
            Self::Run { program, args } => {
                write!(out, "run {program}")?;
                args.iter().try_for_each(|arg| write!(out, " {arg:?}"))
            }
            Self::Secret { name, purpose: SecretPurpose::Reveal } => write!(out, "reveal {name}"),
            Self::Secret { name, purpose: SecretPurpose::Use } => write!(out, "use {name}"),
            Self::Secret { name, purpose: SecretPurpose::Send(host) } => {
                write!(out, "send {name} to {host}")
            }
            Self::Clock { action: ClockAction::Time } => out.write_str("read the time"),
            Self::Clock { action: ClockAction::Monotonic } => {
                out.write_str("read the monotonic clock")
            }
            Self::Clock { action: ClockAction::Sleep } => out.write_str("sleep"),
            Self::Random => out.write_str("take random bytes"),
            Self::Ipc { channel, direction: Direction::Send } => write!(out, "send to {channel}"),
            Self::Ipc { channel, direction: Direction::Receive } => {
                write!(out, "receive from {channel}")
            }
            Self::Host { capability, action } => write!(out, "{capability}.{action}"),
            Self::Import { module } => write!(out, "import {module}"),
        }
    }
}
