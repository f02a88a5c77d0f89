//! What a rule speaks of: one right, with everything that narrows it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::act::{ClockAction, Direction};
use crate::host::Host;
use crate::path::CleanPath;
use crate::url::Scheme;

/// One right. Granted or denied by a [`Rule`](crate::Rule).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Right {
    /// Files and folders.
    Files(FilesRight),
    /// TCP streams.
    Connect(ConnectRight),
    /// HTTP requests.
    Http(HttpRight),
    /// The addresses of names.
    Resolve(HostPattern),
    /// A program.
    Run(RunRight),
    /// A named secret.
    Secret(SecretRight),
    /// The clock.
    Clock(BTreeSet<ClockAction>),
    /// Random bytes.
    Random {
        /// The same bytes in every run, for programs that are to repeat what they did.
        seed: Option<u64>,
    },
    /// A channel between cells.
    Ipc {
        /// Its name.
        channel: String,
        /// Which ends.
        directions: BTreeSet<Direction>,
    },
    /// A capability of the host's own.
    Host {
        /// Its name.
        capability: String,
        /// The actions; `None` for all that it has.
        actions: Option<BTreeSet<String>>,
    },
    /// A module and what is below it.
    Import(String),
}

/// Files below a root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilesRight {
    /// Looking.
    pub read: bool,
    /// Changing.
    pub write: bool,
    /// Which files.
    pub pattern: PathPattern,
}

/// A root and what of it is meant. The text `/data` means the root and all below it; with `*`, `?`,
/// `[…]` or `**` in it, the components before the first such one are the root, and the rest is a
/// glob whose `*` does not cross a slash. It is read with [`str::parse`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    /// The folder (or file) below which everything lies.
    pub root: CleanPath,
    /// What is below it has to match this, if given.
    pub glob: Option<String>,
}

/// TCP streams to a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectRight {
    /// Which hosts.
    pub host: HostPattern,
    /// Which ports.
    pub ports: RangeInclusive<u16>,
    /// Whether the addresses behind a name may be private ones.
    pub private: bool,
}

/// HTTP requests to a site.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpRight {
    /// With TLS or without; `None` for both.
    pub scheme: Option<Scheme>,
    /// Which hosts.
    pub host: HostPattern,
    /// Which port; `None` for the scheme's own.
    pub port: Option<u16>,
    /// What the path begins with, whole components; `/` for all.
    pub path: String,
    /// In capitals. Never empty; `*` stands for all.
    pub methods: BTreeSet<String>,
    /// Whether the addresses behind a name may be private ones.
    pub private: bool,
}

/// Hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This one.
    Exactly(Host),
    /// Names that end in a dot and this, but not this itself: `*.example.org`.
    Below(String),
    /// Addresses of a network: `10.0.0.0/8`.
    Network(IpNet),
    /// Every host: `*`. Private addresses stay refused.
    Any,
}

/// A program, its arguments and what it may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunRight {
    /// A bare name, looked for in the system's own folders, or an absolute path.
    pub program: String,
    /// One pattern an argument, in which `*` also stands for slashes; a last `**` stands for any
    /// number of further arguments, options among them. Empty: no argument at all. A wildcard that
    /// begins a pattern does not match a leading `-`, so that it cannot become an option.
    pub args: Vec<String>,
    /// Its whole environment, apart from `PATH` and `LC_ALL`.
    pub env: BTreeMap<String, String>,
    /// Folders or files, beside the system's own, that it can read.
    pub read: Vec<CleanPath>,
    /// How long it may run, in milliseconds.
    pub wall_time_ms: u64,
    /// What it may write to stdout and stderr together, in bytes.
    pub output_bytes: u64,
    /// Its memory, in bytes.
    pub mem_bytes: u64,
}

impl RunRight {
    /// Default of `wall_time_ms`: what a person waits for a command.
    pub const WALL_TIME_MS: u64 = 10_000;
    /// Default of `output_bytes`: a long listing.
    pub const OUTPUT_BYTES: u64 = 1 << 20;
    /// Default of `mem_bytes`: an ordinary tool.
    pub const MEM_BYTES: u64 = 512 << 20;

    /// The program without arguments, with an empty environment and the default limits.
    #[must_use]
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            read: Vec::new(),
            wall_time_ms: Self::WALL_TIME_MS,
            output_bytes: Self::OUTPUT_BYTES,
            mem_bytes: Self::MEM_BYTES,
        }
    }
}

/// A named secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretRight {
    /// Its name; its value is never part of a policy.
    pub name: String,
    /// Whether it may be handed over.
    pub reveal: bool,
    /// The hosts whose requests it may be put into; empty for none.
    pub hosts: Vec<HostPattern>,
}

impl Right {
    /// The capability that it is a right to, as a guest names it in `request`.
    #[must_use]
    pub fn capability(&self) -> &str {
        match self {
            Self::Files(_) => "filesystem",
            Self::Connect(_) | Self::Http(_) | Self::Resolve(_) => "network",
            Self::Run(_) => "subprocess",
            Self::Secret(_) => "secret",
            Self::Clock(_) => "clock",
            Self::Random { .. } => "random",
            Self::Ipc { .. } => "ipc",
            Self::Host { capability, .. } => capability,
            Self::Import(_) => "import",
        }
    }
}
