//! The one reading of a host's name, for policies and requests alike.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A host, read once and in one way: numbers in any spelling are an address, an IPv4 address inside
/// an IPv6 one is the IPv4 address, names are lower-case ASCII without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// A name for the resolver.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// A text that names no host.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no host: use a DNS name or an IP address")]
pub struct HostError(pub(crate) String);

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let error = || HostError(text.chars().take(300).collect());
        let bare = text.strip_suffix('.').unwrap_or(text);
        let refused = |c: char| c.is_control() || c.is_whitespace() || "/?#@\\%".contains(c);
        if bare.is_empty() || bare.ends_with('.') || text.len() > 1024 || text.contains(refused) {
            return Err(error());
        }
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        // As browsers read it: Unicode is mapped to ASCII, and what ends in a number is an IPv4
        // address in one of its old spellings, or nothing.
        match url::Host::parse(bare).map_err(|_| error())? {
            url::Host::Ipv4(address) => Ok(Self::Address(address.into())),
            url::Host::Ipv6(address) => Ok(Self::Address(IpAddr::from(address).to_canonical())),
            url::Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name);
                if name.len() > 253 || !name.split('.').all(is_label) {
                    return Err(error());
                }
                Ok(Self::Name(name.to_owned()))
            }
        }
    }
}

/// Letters, digits, `-` and `_`, as names in use have them. The standard for URLs lets much more
/// through, `*` and `;` and quotes among it, for which resolvers differ.
fn is_label(label: &str) -> bool {
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    (1..=63).contains(&label.len()) && label.bytes().all(fits)
}

impl TryFrom<String> for Host {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => out.write_str(name),
            Self::Address(address) => address.fmt(out),
        }
    }
}

impl Host {
    /// With the brackets that an IPv6 address has in a URL.
    #[must_use]
    pub fn in_url(&self) -> String {
        match self {
            Self::Address(IpAddr::V6(address)) => format!("[{address}]"),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_one_host() {
        for (spelling, host) in [
            ("Example.ORG", "example.org"),
            ("example.org.", "example.org"),
            ("exam\u{ad}ple.org", "example.org"),
            ("ｅｘａｍｐｌｅ。org", "example.org"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("0177.0.0.1", "127.0.0.1"),
            ("0x7f.0.0.1", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("017700000001", "127.0.0.1"),
            ("１２７。０。０。１", "127.0.0.1"),
            ("①②⑦.0.0.1", "127.0.0.1"),
            ("0", "0.0.0.0"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("[::ffff:7f00:1]", "127.0.0.1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("[::1]", "::1"),
            ("FE80::1", "fe80::1"),
            ("_dmarc.example.org", "_dmarc.example.org"),
        ] {
            let read: Host = spelling.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read.to_string(), host, "{spelling}");
            assert_eq!(host.parse::<Host>().unwrap(), read, "{spelling}");
        }
    }

    #[test]
    fn what_is_no_host() {
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a\0b",
            "a b",
            " a",
            "a\t",
            "a\n",
            "a\u{a0}b",
            "a/b",
            "a?b",
            "a#b",
            "user@a",
            "a\\b",
            "a%2eb",
            "%61",
            "a:80",
            "::1%eth0",
            "[::1",
            "::1]",
            "[a]",
            "[127.0.0.1]",
            "256.0.0.1",
            "1.2.3.4.5",
            "08.0.0.1",
            "0x.1.1.1.1",
            "4294967296",
            "*",
            "*.a",
            "a;b",
            "a'b",
            "a\"b",
            "a,b",
            "a$b",
            "a(b)",
            "a{b}",
            "a|b",
            "a^b",
            "a`b",
            "a<b>",
            "a=b",
            "a~b",
            "a!b",
            "a&b",
            "a+b",
            "xn--a",
            "\u{ad}",
            "℀.com",
            "a／b",
            "a．．b",
            &"a".repeat(64),
            &"a.".repeat(128),
            &"a".repeat(1025),
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?} {:?}", bad.parse::<Host>());
        }
    }
}
