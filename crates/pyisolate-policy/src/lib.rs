//! What a cell may have: rights, numeric limits, and the modules that its code may import.
//!
//! A policy is data. This crate reads it from text, writes it back, decides and explains; it does
//! no I/O and enforces nothing itself: the broker, the jail, the supervisor and the guest runtime
//! act on what it says. The broker and `explain` ask the same function about the same [`Act`].
//!
//! It refuses to guess: an empty list allows nothing, what no rule grants is denied, a denial that
//! matches wins, an unknown key is an error, and a host or a path is read in one way alone.
#![forbid(unsafe_code)]

mod act;
mod address;
mod ask;
mod canonical;
mod cover;
mod diff;
mod explain;
mod glob;
mod grant;
mod host;
mod imports;
mod include;
mod limits;
mod name;
mod near;
mod path;
mod pattern;
mod policy;
mod prefix;
mod right;
mod template;
mod text;
mod url;

pub use act::{Access, Act, ClockAction, Direction, SecretPurpose};
pub use address::is_public;
pub use ask::ActError;
pub use diff::{Change, Difference, LimitChange, diff};
pub use explain::{Explanation, NearMiss, RuleText};
pub use host::{Host, HostError};
pub use imports::{ImportError, Imports};
pub use limits::{
    CPU_RATE_UNLIMITED, LimitError, LimitName, Limits, SCRATCH, Unit, parse_thousandths,
};
pub use name::{CellName, NameError};
pub use path::{CleanPath, PATH_BYTES_MAX, PathError};
pub use pattern::PatternError;
pub use policy::{Effect, LimitChanges, Origin, Policy, Rule, Verdict};
pub use right::{
    ConnectRight, FilesRight, HostPattern, HttpRight, PathPattern, Right, RunRight, SecretRight,
};
pub use template::{Template, UnknownTemplate, template, templates};
pub use text::{Document, Format, Problem, TextError};
pub use url::{HttpUrl, Scheme, URL_BYTES_MAX, UrlError};
