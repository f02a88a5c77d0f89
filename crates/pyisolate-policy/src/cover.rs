//! Whether a right covers an act: the whole of the policy's judgement, without any I/O.
//!
//! A right is read in two ways. As a grant it covers an act only if all of it fits, and what could
//! be understood in two ways does not fit. As a denial it covers an act if any reading of the act
//! fits, so that a denial is never narrower than it reads.

use crate::act::{Access, Act, SecretPurpose};
use crate::address::is_public;
use crate::glob;
use crate::host::Host;
use crate::path::CleanPath;
use crate::policy::{Effect, Policy, Rule};
use crate::prefix;
use crate::right::{HostPattern, HttpRight, Right, SecretRight};
use crate::url::HttpUrl;

/// Stands for every method in [`HttpRight::methods`].
pub(crate) const ANY_METHOD: &str = "*";

/// Stands for any number of arguments at the end of [`crate::RunRight::args`].
pub(crate) const ANY_ARGS: &str = "**";

impl Right {
    /// Whether the right, as a grant, speaks of this act.
    ///
    /// To resolve a name is granted also by what grants a connection or a request to it. A host
    /// that is an address and not a public one has to be named, or the right be `private`: it is
    /// granted as [`Policy::allows_address`] grants what a name leads to.
    #[must_use]
    pub fn covers(&self, act: &Act) -> bool {
        self.fits(act) && self.reaches_host(act)
    }

    /// As [`Right::covers`], whether or not an address that the act names is one that the right
    /// reaches.
    pub(crate) fn fits(&self, act: &Act) -> bool {
        match (self, act) {
            (Self::Files(right), Act::File { access, path }) => {
                right.has(*access) && right.pattern.matches(path)
            }
            (Self::Connect(right), Act::Connect { host, port }) => {
                right.host.matches(host) && right.ports.contains(port)
            }
            (Self::Connect(right), Act::Resolve { host }) => {
                right.host.matches(host) && !self.is_empty(Effect::Allow)
            }
            (Self::Http(right), Act::Http { method, url }) => covers_request(right, method, url),
            (Self::Http(right), Act::Resolve { host }) => {
                right.host.matches(host) && !self.is_empty(Effect::Allow)
            }
            (Self::Resolve(pattern), Act::Resolve { host }) => pattern.matches(host),
            (Self::Run(right), Act::Run { program, args }) => {
                right.program == *program && covers_args(&right.args, args)
            }
            (Self::Secret(right), Act::Secret { name, purpose }) => {
                right.name == *name && covers_purpose(right, purpose)
            }
            (Self::Host { capability, actions }, Act::Host { capability: asked, action }) => {
                capability == asked && actions.as_ref().is_none_or(|all| all.contains(action))
            }
            _ => self.is_named_by(act),
        }
    }

    /// Whether an address that the act names is public, or one that the right means.
    fn reaches_host(&self, act: &Act) -> bool {
        let Some(Host::Address(address)) = act.host() else { return true };
        is_public(*address)
            || match self {
                Self::Connect(right) => right.private || right.host.names_address(*address),
                Self::Http(right) => right.private || right.host.names_address(*address),
                Self::Resolve(pattern) => pattern.names_address(*address),
                _ => false,
            }
    }

    /// Whether the right, as a denial, speaks of this act. Wider than [`Right::covers`]:
    ///
    /// - of files, what is below a folder that matches is denied with it;
    /// - of hosts, an IPv6 address that leads to a denied IPv4 address is denied, in a request
    ///   every port unless one is given, and every path that a server could read as a denied one;
    /// - of programs, `git` is denied also as `/usr/bin/git` and the other way round, and a `*` in
    ///   an argument also matches a `-`;
    /// - of a secret, a denied reveal or host is denied by itself; to use the secret at all is
    ///   denied if every host is.
    ///
    /// Denying connections does not deny resolving, and denying requests does not deny connections:
    /// each has a denial of its own, and a host denied by its name alone stands for all three.
    #[must_use]
    pub fn denies(&self, act: &Act) -> bool {
        match (self, act) {
            (Self::Files(right), Act::File { access, path }) => {
                right.has(*access) && right.pattern.matches_part(path)
            }
            (Self::Connect(right), Act::Connect { host, port }) => {
                right.host.matches_part(host) && right.ports.contains(port)
            }
            (Self::Http(right), Act::Http { method, url }) => denies_request(right, method, url),
            (Self::Resolve(pattern), Act::Resolve { host }) => pattern.matches_part(host),
            (Self::Run(right), Act::Run { program, args }) => {
                is_program(&right.program, program) && denies_args(&right.args, args)
            }
            (Self::Secret(right), Act::Secret { name, purpose }) => {
                right.name == *name && denies_purpose(right, purpose)
            }
            (Self::Host { capability, actions }, Act::Host { capability: asked, action }) => {
                capability == asked && actions.as_ref().is_none_or(|all| all.contains(action))
            }
            _ => self.is_named_by(act),
        }
    }

    /// The rights that mean the same as a grant and as a denial.
    fn is_named_by(&self, act: &Act) -> bool {
        match (self, act) {
            (Self::Clock(actions), Act::Clock { action }) => actions.contains(action),
            (Self::Random { .. }, Act::Random) => true,
            (Self::Ipc { channel, directions }, Act::Ipc { channel: asked, direction }) => {
                channel == asked && directions.contains(direction)
            }
            (Self::Import(parent), Act::Import { module }) => module
                .strip_prefix(parent.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
            _ => false,
        }
    }
}

fn covers_request(right: &HttpRight, method: &str, url: &HttpUrl) -> bool {
    right.scheme.is_none_or(|scheme| scheme == url.scheme)
        && right.host.matches(&url.host)
        && right.port.unwrap_or(url.scheme.default_port()) == url.port
        && (right.methods.contains(method) || right.methods.contains(ANY_METHOD))
        && prefix::covers(&right.path, &url.path)
}

fn denies_request(right: &HttpRight, method: &str, url: &HttpUrl) -> bool {
    let method = |denied: &String| denied.eq_ignore_ascii_case(method) || denied == ANY_METHOD;
    right.scheme.is_none_or(|scheme| scheme == url.scheme)
        && right.host.matches_part(&url.host)
        && right.port.is_none_or(|port| port == url.port)
        && right.methods.iter().any(method)
        && prefix::denies(&right.path, &url.path)
}

fn covers_args(patterns: &[String], args: &[String]) -> bool {
    let (patterns, fits) = match patterns.split_last() {
        Some((last, first)) if last == ANY_ARGS => (first, args.len() >= first.len()),
        _ => (patterns, args.len() == patterns.len()),
    };
    let covers = |(pattern, arg): (&String, &String)| {
        let option = arg.starts_with('-') && !pattern.starts_with('-');
        !option && glob::matches(pattern, arg)
    };
    fits && patterns.iter().zip(args).all(covers)
}

fn denies_args(patterns: &[String], args: &[String]) -> bool {
    let (patterns, fits) = match patterns.split_last() {
        Some((last, first)) if last == ANY_ARGS => (first, args.len() >= first.len()),
        _ => (patterns, args.len() == patterns.len()),
    };
    fits && patterns.iter().zip(args).all(|(pattern, arg)| glob::matches(pattern, arg))
}

/// Whether two spellings of a program can mean the same file.
pub(crate) fn is_program(denied: &str, asked: &str) -> bool {
    let base = |program: &str| program.rsplit('/').next().unwrap_or_default().to_owned();
    let clean = |program: &str| CleanPath::new(program).ok();
    denied == asked
        || (denied.contains('/') != asked.contains('/') && base(denied) == base(asked))
        || clean(denied).is_some_and(|denied| Some(denied) == clean(asked))
}

fn covers_purpose(right: &SecretRight, purpose: &SecretPurpose) -> bool {
    match purpose {
        SecretPurpose::Reveal => right.reveal,
        SecretPurpose::Use => !right.hosts.is_empty(),
        SecretPurpose::Send(host) => right.hosts.iter().any(|pattern| pattern.matches(host)),
    }
}

fn denies_purpose(right: &SecretRight, purpose: &SecretPurpose) -> bool {
    match purpose {
        SecretPurpose::Reveal => right.reveal,
        SecretPurpose::Use => right.hosts.contains(&HostPattern::Any),
        SecretPurpose::Send(host) => right.hosts.iter().any(|pattern| pattern.matches_part(host)),
    }
}

impl crate::right::FilesRight {
    fn has(&self, access: Access) -> bool {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
        }
    }
}

impl Policy {
    /// The denial that could hold for something below `path`, if there is one. To move a folder
    /// takes what is in it along to where the denial no longer reaches, so whoever moves folders
    /// asks this first.
    #[must_use]
    pub fn denial_below(&self, path: &CleanPath, access: Access) -> Option<&Rule> {
        self.rules.iter().find(|rule| match &rule.right {
            Right::Files(right) => {
                rule.effect == Effect::Deny
                    && right.has(access)
                    && right.pattern.matches_below(path)
            }
            _ => false,
        })
    }
}

#[cfg(test)]
#[path = "cover_tests.rs"]
mod tests;
