//! Patterns of paths and hosts: read from text, written, and matched.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use thiserror::Error;

use crate::address::embedded;
use crate::glob;
use crate::host::{Host, HostError};
use crate::path::{CleanPath, PathError};
use crate::right::{HostPattern, PathPattern};

/// How many components a glob may have: more than any tree is deep by hand.
const GLOB_COMPONENTS_MAX: usize = 64;

/// A text that is no pattern.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatternError {
    /// Of paths.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A `[` without its `]`, or with nothing between them, or a range with nothing in it.
    #[error("{0:?} has a '[' that begins no class: write [[] for the character itself")]
    Class(String),
    /// `..` behind a wildcard.
    #[error("{0:?} has a '..' behind a wildcard, which no path matches")]
    Parent(String),
    /// Too many components behind the first wildcard.
    #[error("{0:?} has more than {GLOB_COMPONENTS_MAX} components behind the first wildcard")]
    Deep(String),
    /// Of hosts.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A star where it says nothing clear.
    #[error("{0:?}: a '*' stands for every host alone, or for names below one as in *.example.org")]
    Star(String),
    /// No network.
    #[error("{0:?} is no network: write it as 10.0.0.0/8 or 2001:db8::/32")]
    Network(String),
    /// A network's address with more bits than the network.
    #[error("{text:?} has bits set behind the prefix: did you mean {meant}?")]
    NetworkBits {
        /// The text.
        text: String,
        /// The network that it is in.
        meant: IpNet,
    },
}

fn shown(text: &str) -> String {
    text.chars().take(300).collect()
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let whole = CleanPath::new(text)?;
        if !glob::is_wild(text) {
            return Ok(Self { root: whole, glob: None });
        }
        let mut root = String::from("/");
        let mut rest: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                part if rest.is_empty() && !glob::is_wild(part) => {
                    root.push('/');
                    root.push_str(part);
                }
                ".." => return Err(PatternError::Parent(shown(text))),
                part if !glob::is_valid(part) => return Err(PatternError::Class(shown(text))),
                // Two in a row say no more than one.
                "**" if rest.last() == Some(&"**") => {}
                part => rest.push(part),
            }
        }
        if rest.len() > GLOB_COMPONENTS_MAX {
            return Err(PatternError::Deep(shown(text)));
        }
        Ok(Self { root: CleanPath::new(&root)?, glob: Some(rest.join("/")) })
    }
}

/// In the form that is read again as the same.
impl fmt::Display for PathPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = self.root.as_str();
        match &self.glob {
            None if glob::is_wild(root) => write!(out, "{}/**", glob::escape(root)),
            None => out.write_str(root),
            Some(glob) => write!(out, "{}/{glob}", glob::escape(root.trim_end_matches('/'))),
        }
    }
}

impl PathPattern {
    /// Whether a grant of the pattern reaches the path.
    pub(crate) fn matches(&self, path: &CleanPath) -> bool {
        let Some(rest) = path.below(&self.root) else { return false };
        self.glob.as_ref().is_none_or(|glob| glob::reach(glob, rest).whole)
    }

    /// Whether a denial of the pattern reaches the path: as a grant, and what is below a folder
    /// that matches is denied with it.
    pub(crate) fn matches_part(&self, path: &CleanPath) -> bool {
        let Some(rest) = path.below(&self.root) else { return false };
        self.glob.as_ref().is_none_or(|glob| glob::reach(glob, rest).part)
    }

    /// Whether something below the path could match, whatever there is.
    pub(crate) fn matches_below(&self, path: &CleanPath) -> bool {
        if self.root.below(path).is_some_and(|rest| !rest.is_empty()) {
            return true;
        }
        let Some(rest) = path.below(&self.root) else { return false };
        self.glob.as_ref().is_none_or(|glob| {
            let reach = glob::reach(glob, rest);
            reach.part || reach.below
        })
    }

    /// The pattern as its own text is read: wildcards in the root and a glob without any are
    /// respelt, with the same meaning.
    pub(crate) fn canonical(&self) -> Self {
        let text = match &self.glob {
            Some(glob) if !glob::is_wild(glob) => {
                // A glob without a wildcard means this path alone, not what is below it: one of its
                // characters becomes a class, so that it stays a glob.
                let (folder, name) = glob.rsplit_once('/').unwrap_or(("", glob));
                let mut name = name.chars();
                let first = name.next().map_or_else(String::new, |first| format!("[{first}]"));
                let root = glob::escape(self.root.as_str());
                format!("{root}/{folder}/{first}{}", name.as_str())
            }
            _ => self.to_string(),
        };
        text.parse().unwrap_or_else(|_| self.clone())
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.contains('/') {
            let net: IpNet = text.parse().map_err(|_| PatternError::Network(shown(text)))?;
            if net != net.trunc() {
                return Err(PatternError::NetworkBits { text: shown(text), meant: net.trunc() });
            }
            return Ok(Self::Network(unmapped(net)));
        }
        if let Some(name) = text.strip_prefix("*.") {
            return match name.parse()? {
                Host::Name(name) => Ok(Self::Below(name)),
                Host::Address(_) => Err(PatternError::Star(shown(text))),
            };
        }
        if text.contains('*') {
            return Err(PatternError::Star(shown(text)));
        }
        Ok(Self::Exactly(text.parse()?))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(host) => host.fmt(out),
            Self::Below(name) => write!(out, "*.{name}"),
            Self::Network(net) => net.fmt(out),
            Self::Any => out.write_str("*"),
        }
    }
}

/// A network of IPv4 addresses that is written as IPv6 is the IPv4 one, as hosts are read so too.
pub(crate) fn unmapped(net: IpNet) -> IpNet {
    if let IpNet::V6(six) = net
        && six.prefix_len() >= 96
        && let Some(four) = six.network().to_ipv4_mapped()
        && let Ok(four) = Ipv4Net::new(four, six.prefix_len() - 96)
    {
        return IpNet::V4(four);
    }
    net
}

impl HostPattern {
    /// Whether a grant of the pattern reaches the host.
    pub(crate) fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Exactly(wanted), host) => canonical(wanted) == canonical(host),
            (Self::Below(parent), Host::Name(name)) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|head| head.len() > 1 && head.ends_with('.') && !parent.is_empty()),
            (Self::Network(net), Host::Address(address)) => {
                unmapped(*net).contains(&address.to_canonical())
            }
            (Self::Below(_), Host::Address(_)) | (Self::Network(_), Host::Name(_)) => false,
        }
    }

    /// Whether a denial of the pattern reaches the host: as a grant, and an IPv6 address that
    /// carries an IPv4 one inside is also denied by what denies that.
    pub(crate) fn matches_part(&self, host: &Host) -> bool {
        let inner = |address: &IpAddr| -> Option<Ipv4Addr> { embedded(*address) };
        self.matches(host)
            || matches!(host, Host::Address(address) if inner(address)
                .is_some_and(|four| self.matches(&Host::Address(four.into()))))
    }

    /// Whether the pattern names the address itself, so that it need not be public.
    pub(crate) fn names_address(&self, address: IpAddr) -> bool {
        matches!(self, Self::Exactly(_) | Self::Network(_)) && self.matches(&Host::Address(address))
    }

    /// As its own text is read.
    pub(crate) fn canonical(&self) -> Self {
        match self {
            Self::Exactly(host) => Self::Exactly(canonical(host)),
            Self::Network(net) => Self::Network(unmapped(net.trunc())),
            other => other.clone(),
        }
    }
}

fn canonical(host: &Host) -> Host {
    match host {
        Host::Address(address) => Host::Address(address.to_canonical()),
        Host::Name(_) => host.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    fn hosts(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    #[test]
    fn names_below_a_name() {
        let pattern = hosts("*.Example.org.");
        for good in ["a.example.org", "x.y.example.org", "A.EXAMPLE.ORG."] {
            assert!(pattern.matches(&host(good)), "{good}");
        }
        for bad in ["example.org", "badexample.org", "example.org.evil", "10.0.0.1"] {
            assert!(!pattern.matches(&host(bad)), "{bad}");
        }
    }

    #[test]
    fn networks_hold_addresses_in_any_spelling() {
        let pattern = hosts("10.0.0.0/8");
        for good in ["10.1.2.3", "::ffff:10.1.2.3", "0xa000001", "012.0.0.1"] {
            assert!(pattern.matches(&host(good)), "{good}");
        }
        for bad in ["11.0.0.1", "ten.example.org", "64:ff9b::10.0.0.1"] {
            assert!(!pattern.matches(&host(bad)), "{bad}");
        }
        assert!(pattern.matches_part(&host("64:ff9b::10.0.0.1")));
        assert_eq!(hosts("::ffff:10.0.0.0/104"), pattern);
    }

    #[test]
    fn what_is_no_host_pattern() {
        for bad in ["", "*.", "*example.org", "a.*.org", "*.10.0.0.1", "10.0.0.1/8", "10/8", "a/b"]
        {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_split_at_the_first_wildcard() {
        let split = |text: &str| {
            let pattern: PathPattern = text.parse().unwrap();
            assert_eq!(pattern.to_string().parse::<PathPattern>().unwrap(), pattern);
            (pattern.root.to_string(), pattern.glob)
        };
        assert_eq!(split("/data/"), ("/data".into(), None));
        assert_eq!(split("/a/../data/./*.csv"), ("/data".into(), Some("*.csv".into())));
        assert_eq!(split("/**"), ("/".into(), Some("**".into())));
        assert_eq!(split("/x/**/**//y"), ("/x".into(), Some("**/y".into())));
        for bad in ["data", "/a/*/../b", "/a/[", "/a/[]", "/a\0", &"/*".repeat(65)] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn odd_patterns_keep_their_meaning_when_respelt() {
        let path = |text: &str| CleanPath::new(text).unwrap();
        let root = PathPattern { root: path("/a*b"), glob: None };
        let exact = PathPattern { root: path("/d"), glob: Some("x/y".into()) };
        for (pattern, yes, no) in
            [(root, ["/a*b", "/a*b/c"], "/aXb"), (exact, ["/d/x/y", "/d/x/y"], "/d/x/y/z")]
        {
            let again: PathPattern = pattern.canonical().to_string().parse().unwrap();
            assert_eq!(again, pattern.canonical());
            for pattern in [&pattern, &again] {
                assert!(yes.iter().all(|yes| pattern.matches(&path(yes))), "{pattern:?}");
                assert!(!pattern.matches(&path(no)), "{pattern:?}");
            }
        }
    }
}
