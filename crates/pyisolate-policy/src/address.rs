//! Addresses: which are public, and which a rule reaches once a name has been resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::act::Act;
use crate::host::Host;
use crate::policy::{Effect, Policy, Rule};
use crate::right::{HostPattern, Right};

/// Whether anybody on the internet could have this address. False for private, loopback, link-local
/// (cloud metadata among them), shared, multicast, unspecified, documentation, benchmarking and
/// reserved ones, and for IPv6 addresses that lead to such an IPv4 address.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(four) => is_public_v4(four),
        IpAddr::V6(six) => is_public_v6(six),
    }
}

/// By IANA's registry of special-purpose IPv4 addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // "This network", which Linux takes for itself.
        [0, ..]
        | [10 | 127, ..]
        // Multicast, reserved, broadcast.
        | [224..=255, ..]
        // Shared by carriers.
        | [100, 64..=127, ..]
        // Link-local, with the metadata service of most clouds.
        | [169, 254, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        // Protocol assignments, documentation, relays of 6to4.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        // Benchmarking.
        | [198, 18 | 19, ..]
        // Documentation.
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        // The service that Azure gives its machines, on an address that looks public.
        | [168, 63, 129, 16] => true,
        _ => false,
    };
    !special
}

/// By IANA's registry of special-purpose IPv6 addresses.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(four) = embedded(IpAddr::V6(address)) {
        return is_public_v4(four);
    }
    match address.segments() {
        // Protocol assignments (benchmarking and ORCHID among them), documentation.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // The one block from which global addresses are given.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// The IPv4 address to which an IPv6 address leads through a translator or a tunnel: mapped,
/// compatible, NAT64, 6to4 and Teredo.
pub(crate) fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(six) = address else { return None };
    let four = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match six.segments() {
        // The unspecified address and loopback are themselves.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(four(high, low)),
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => Some(four(high, low)),
        [0x2002, high, low, ..] => Some(four(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(four(!high, !low)),
        _ => None,
    }
}

impl Act {
    /// The same act with this address for a host; `None` if it has no host.
    #[must_use]
    pub fn at_address(&self, address: IpAddr) -> Option<Self> {
        let mut act = self.clone();
        match &mut act {
            Self::Connect { host, .. } | Self::Resolve { host } => {
                *host = Host::Address(address.to_canonical());
            }
            Self::Http { url, .. } => url.host = Host::Address(address.to_canonical()),
            _ => return None,
        }
        Some(act)
    }

    /// Its host, if it has one.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        match self {
            Self::Connect { host, .. } | Self::Resolve { host } => Some(host),
            Self::Http { url, .. } => Some(&url.host),
            _ => None,
        }
    }
}

impl Policy {
    /// Whether `act`, which `rule` allows, may go to this address of its host.
    ///
    /// A denial of the act at that address refuses, public or not. An address that is not public
    /// has to be granted as such: by a grant of the act that is marked `private`, by a grant of the
    /// act at that address or in a network that holds it, or, for loopback alone, by a grant of the
    /// host `localhost` by that name. A host that is an address has that address alone.
    #[must_use]
    pub fn allows_address(&self, act: &Act, rule: &Rule, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let (Some(host), Some(at_address)) = (act.host(), act.at_address(address)) else {
            return false;
        };
        if rule.effect != Effect::Allow || !rule.matches(act) {
            return false;
        }
        if let Host::Address(named) = host
            && named.to_canonical() != address
        {
            return false;
        }
        let denied = |rule: &Rule| rule.effect == Effect::Deny && rule.matches(&at_address);
        if self.rules.iter().any(denied) {
            return false;
        }
        let grants = |rule: &Rule| grants_address(rule, act, &at_address, address);
        is_public(address) || grants(rule) || self.rules.iter().any(grants)
    }
}

/// Whether a rule grants the act at an address that is not public.
fn grants_address(rule: &Rule, act: &Act, at_address: &Act, address: IpAddr) -> bool {
    if rule.effect != Effect::Allow {
        return false;
    }
    let (pattern, private) = match &rule.right {
        Right::Connect(right) => (&right.host, right.private),
        Right::Http(right) => (&right.host, right.private),
        Right::Resolve(pattern) => (pattern, false),
        _ => return false,
    };
    if pattern.names_address(address) {
        return rule.matches(at_address);
    }
    let localhost = Host::Name("localhost".to_owned());
    let is_localhost = *pattern == HostPattern::Exactly(localhost) && address.is_loopback();
    (private || is_localhost) && rule.matches(act)
}

const PUBLIC: &str = "a public address";

/// What sort of address it is, for people.
pub(crate) fn kind(address: IpAddr) -> &'static str {
    if is_public(address) {
        return PUBLIC;
    }
    match address {
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(four) if four.is_private() => "a private address",
        IpAddr::V4(four) if four.is_link_local() => {
            "a link-local address, where clouds keep their metadata"
        }
        IpAddr::V6(six) if six.is_unicast_link_local() => "a link-local address",
        IpAddr::V6(six) if six.is_unique_local() => "a private address",
        IpAddr::V6(six) if leads_to_v4(six) => "an IPv6 address for one that is not public",
        _ => "an address that is not public",
    }
}

/// NAT64 and 6to4.
fn leads_to_v4(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0x64, 0xff9b, ..] | [0x2002, ..])
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;
    use crate::right::ConnectRight;

    #[test]
    fn addresses_are_called_what_they_are() {
        for (address, name) in [
            ("127.0.0.1", "a loopback address"),
            ("::1", "a loopback address"),
            ("10.0.0.5", "a private address"),
            ("fd00::1", "a private address"),
            ("169.254.169.254", "a link-local address, where clouds keep their metadata"),
            ("fe80::1", "a link-local address"),
            ("0.0.0.0", "the unspecified address"),
            ("224.0.0.1", "a multicast address"),
            ("64:ff9b::7f00:1", "an IPv6 address for one that is not public"),
            ("100.64.0.1", "an address that is not public"),
            ("1.1.1.1", PUBLIC),
        ] {
            assert_eq!(kind(address.parse().unwrap()), name, "{address}");
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:a00:1::",
            "2002:7f00:1::1",
            "2001::1",
            "2001:0:0:0:0:0:80ff:fffe",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
            "4000::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2a00::1",
            "2001:200::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    fn connect(effect: Effect, host: &str, ports: RangeInclusive<u16>, private: bool) -> Rule {
        let right = ConnectRight { host: host.parse().unwrap(), ports, private };
        Rule { effect, right: Right::Connect(right), origin: Default::default() }
    }

    fn may(rules: &[Rule], host: &str, address: &str) -> bool {
        let policy = Policy { rules: rules.to_vec(), ..Policy::default() };
        let act = Act::Connect { host: host.parse().unwrap(), port: 80 };
        let verdict = policy.decide(&act);
        verdict.allowed
            && policy.allows_address(&act, verdict.rule.unwrap(), address.parse().unwrap())
    }

    #[test]
    fn private_addresses_have_to_be_granted_as_such() {
        let allow = |host, private| connect(Effect::Allow, host, 80..=80, private);
        assert!(may(&[allow("*", false)], "a.example", "8.8.8.8"));
        assert!(!may(&[allow("*", false)], "a.example", "10.0.0.1"));
        assert!(!may(&[allow("a.example", false)], "a.example", "127.0.0.1"));
        assert!(may(&[allow("a.example", true)], "a.example", "10.0.0.1"));
        // Another grant that names it is enough, if it holds for this port.
        let network = allow("10.0.0.0/8", false);
        assert!(may(&[allow("*", false), network.clone()], "a.example", "10.0.0.1"));
        assert!(!may(&[allow("*", false), network], "a.example", "192.168.0.1"));
        let other = connect(Effect::Allow, "10.0.0.1", 81..=81, false);
        assert!(!may(&[allow("*", false), other], "a.example", "10.0.0.1"));
        // An address by itself.
        assert!(may(&[allow("127.0.0.1", false)], "127.0.0.1", "127.0.0.1"));
        assert!(!may(&[allow("*", false)], "127.0.0.1", "127.0.0.1"));
        assert!(!may(&[allow("*", false)], "8.8.8.8", "9.9.9.9"));
    }

    #[test]
    fn localhost_by_name_is_loopback_alone() {
        let rules = [connect(Effect::Allow, "localhost", 80..=80, false)];
        assert!(may(&rules, "localhost", "127.0.0.1") && may(&rules, "LOCALHOST.", "::1"));
        assert!(!may(&rules, "localhost", "10.0.0.1"));
        let any = [connect(Effect::Allow, "*", 80..=80, false)];
        assert!(!may(&any, "localhost", "127.0.0.1"));
    }

    #[test]
    fn a_denied_address_is_denied_behind_every_name() {
        let allow = connect(Effect::Allow, "*", 80..=80, true);
        let deny = connect(Effect::Deny, "10.0.0.0/8", 1..=65535, false);
        assert!(!may(&[allow.clone(), deny.clone()], "a.example", "10.0.0.1"));
        assert!(!may(&[allow.clone(), deny.clone()], "a.example", "64:ff9b::a00:1"));
        assert!(may(&[allow, deny], "a.example", "192.168.0.1"));
    }
}
