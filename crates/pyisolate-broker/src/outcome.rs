//! What the broker says to a request.

use std::borrow::Cow;
use std::os::fd::OwnedFd;

use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Act, LimitName};

/// The action was done.
#[derive(Debug)]
pub struct Granted {
    /// What the guest gets.
    pub value: Value,
    /// A right that is handed over as such: an opened file, a connected socket. Only for sessions
    /// that [take descriptors](crate::SessionOptions::takes_descriptors).
    pub descriptor: Option<OwnedFd>,
}

impl Granted {
    /// A value and nothing else.
    #[must_use]
    pub fn value(value: Value) -> Self {
        Self { value, descriptor: None }
    }
}

impl From<Value> for Granted {
    fn from(value: Value) -> Self {
        Self::value(value)
    }
}

/// The action was not done.
#[derive(Debug)]
pub enum Refusal {
    /// It is not allowed.
    Denied(Box<Denied>),
    /// It was allowed, or needed no right, and failed.
    Failed(Failure),
    /// A limit that ends the cell.
    Exhausted {
        /// Which.
        limit: LimitName,
        /// Its number.
        allowed: u64,
        /// What it came to.
        reached: u64,
    },
    /// The cell is gone: nobody waits for the answer.
    Cancelled,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Why something is not allowed, with what would allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What was asked, if it came so far as to be a question to the policy.
    pub act: Option<Act>,
    /// One or two sentences for the guest and the host.
    pub reason: String,
    /// The place of the rule that refused, or `no rule matched`.
    pub rule: String,
    /// Who decided.
    pub layer: DecidedBy,
    /// The smallest grant that would allow it, as policy text.
    pub grant: Option<String>,
}

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecidedBy {
    /// A rule of the policy, or the want of one.
    Policy,
    /// The broker: no grant could allow it (a device, an address that is not what it seems).
    Broker,
    /// The kernel, for a guest that went past `request`.
    Kernel,
}

impl DecidedBy {
    /// `policy`, `broker` or `kernel`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Broker => "broker",
            Self::Kernel => "kernel",
        }
    }
}

/// What the guest raises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// An exception's name, from the builtins.
    pub kind: Cow<'static, str>,
    /// Its message. That of an `OSError` begins with `[Errno N] `.
    pub message: String,
}

impl Failure {
    /// An exception.
    #[must_use]
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind: Cow::Borrowed(kind), message: message.into() }
    }

    /// A payload that is not what the action takes.
    #[must_use]
    pub fn payload(capability: &str, action: &str, what: impl std::fmt::Display) -> Self {
        Self::new("ValueError", format!("{capability}.{action}: {what}"))
    }

    /// What the kernel said, without any path.
    #[must_use]
    pub fn os(errno: rustix::io::Errno) -> Self {
        let text = std::io::Error::from(errno).to_string();
        let text = text.rsplit_once(" (os error").map_or(&*text, |(text, _)| text);
        Self::new("OSError", format!("[Errno {}] {text}", errno.raw_os_error()))
    }

    /// As [`Failure::os`], where the error may have no number.
    #[must_use]
    pub fn io(error: &std::io::Error) -> Self {
        match rustix::io::Errno::from_io_error(error) {
            Some(errno) => Self::os(errno),
            None => Self::new("OSError", format!("[Errno 5] {}", error.kind())),
        }
    }
}
