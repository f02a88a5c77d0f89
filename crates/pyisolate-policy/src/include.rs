//! How rights lie to each other: which covers all of another, and which meet at all.
//!
//! Both answers err on one side: `includes` says no where it cannot tell, `overlaps` says yes. A
//! comparison of policies then tells of a change too many, never of one too few.

use crate::address::is_public;
use crate::cover::{ANY_ARGS, ANY_METHOD, is_program};
use crate::glob;
use crate::host::Host;
use crate::policy::Effect;
use crate::right::{FilesRight, HostPattern, HttpRight, PathPattern, Right, RunRight, SecretRight};

impl Right {
    /// The right in pieces that are granted or not as a whole.
    pub(crate) fn pieces(&self, effect: Effect) -> Vec<Self> {
        match self {
            right if right.is_empty(effect) => Vec::new(),
            Self::Files(right) if right.read && right.write => {
                let one = |read, write| {
                    Self::Files(FilesRight { read, write, pattern: right.pattern.clone() })
                };
                vec![one(true, false), one(false, true)]
            }
            Self::Http(right) => {
                let one = |method: &String| {
                    Self::Http(HttpRight { methods: [method.clone()].into(), ..right.clone() })
                };
                right.methods.iter().map(one).collect()
            }
            Self::Secret(right) => {
                let piece = |reveal, hosts| {
                    Self::Secret(SecretRight { name: right.name.clone(), reveal, hosts })
                };
                let reveal = right.reveal.then(|| piece(true, Vec::new()));
                let hosts = right.hosts.iter().map(|host| piece(false, vec![host.clone()]));
                reveal.into_iter().chain(hosts).collect()
            }
            Self::Clock(actions) => {
                actions.iter().map(|action| Self::Clock([*action].into())).collect()
            }
            Self::Ipc { channel, directions } => {
                let one = |direction| Self::Ipc {
                    channel: channel.clone(),
                    directions: [direction].into(),
                };
                directions.iter().copied().map(one).collect()
            }
            Self::Host { capability, actions: Some(actions) } => {
                let one = |action: &String| Self::Host {
                    capability: capability.clone(),
                    actions: Some([action.clone()].into()),
                };
                actions.iter().map(one).collect()
            }
            right => vec![right.clone()],
        }
    }

    /// Whether the right covers all that `piece` covers.
    pub(crate) fn includes(&self, piece: &Self, effect: Effect) -> bool {
        let deny = effect == Effect::Deny;
        match (self, piece) {
            (Self::Files(whole), Self::Files(part)) => {
                (whole.read || !part.read)
                    && (whole.write || !part.write)
                    && includes_paths(&whole.pattern, &part.pattern, deny)
            }
            (Self::Connect(whole), Self::Connect(part)) => {
                includes_hosts(&whole.host, &part.host, deny || whole.private)
                    && whole.ports.contains(part.ports.start())
                    && whole.ports.contains(part.ports.end())
                    && (deny || whole.private || !part.private)
            }
            (Self::Http(whole), Self::Http(part)) => includes_requests(whole, part, deny),
            (Self::Resolve(whole), Self::Resolve(part)) => includes_hosts(whole, part, deny),
            (Self::Connect(whole), Self::Resolve(part)) if !deny => {
                includes_hosts(&whole.host, part, whole.private)
            }
            (Self::Http(whole), Self::Resolve(part)) if !deny => {
                includes_hosts(&whole.host, part, whole.private)
            }
            (Self::Run(whole), Self::Run(part)) => includes_commands(whole, part, deny),
            (Self::Secret(whole), Self::Secret(part)) => {
                let host = |part: &HostPattern| {
                    whole.hosts.iter().any(|whole| includes_hosts(whole, part, true))
                };
                whole.name == part.name
                    && (whole.reveal || !part.reveal)
                    && part.hosts.iter().all(host)
            }
            (Self::Clock(whole), Self::Clock(part)) => whole.is_superset(part),
            (Self::Random { seed: whole }, Self::Random { seed: part }) => deny || whole == part,
            (Self::Ipc { channel, directions }, Self::Ipc { channel: other, directions: part }) => {
                channel == other && directions.is_superset(part)
            }
            (
                Self::Host { capability, actions },
                Self::Host { capability: other, actions: part },
            ) => {
                let all = match (actions, part) {
                    (None, _) => true,
                    (Some(whole), Some(part)) => whole.is_superset(part),
                    (Some(_), None) => false,
                };
                capability == other && all
            }
            (Self::Import(whole), Self::Import(part)) => is_module_of(part, whole),
            _ => false,
        }
    }

    /// Whether there could be an act that both cover, the one as a grant and the other as a denial.
    pub(crate) fn overlaps(&self, denial: &Self) -> bool {
        match (self, denial) {
            (Self::Files(grant), Self::Files(denial)) => {
                let (one, other) = (&grant.pattern.root, &denial.pattern.root);
                ((grant.read && denial.read) || (grant.write && denial.write))
                    && (one.below(other).is_some() || other.below(one).is_some())
            }
            (Self::Connect(grant), Self::Connect(denial)) => {
                hosts_overlap(&grant.host, &denial.host)
                    && grant.ports.start() <= denial.ports.end()
                    && denial.ports.start() <= grant.ports.end()
            }
            (Self::Http(grant), Self::Http(denial)) => hosts_overlap(&grant.host, &denial.host),
            (Self::Resolve(grant), Self::Resolve(denial)) => hosts_overlap(grant, denial),
            (Self::Connect(grant), Self::Resolve(denial)) => hosts_overlap(&grant.host, denial),
            (Self::Http(grant), Self::Resolve(denial)) => hosts_overlap(&grant.host, denial),
            (Self::Run(grant), Self::Run(denial)) => is_program(&denial.program, &grant.program),
            (Self::Secret(grant), Self::Secret(denial)) => grant.name == denial.name,
            (Self::Clock(grant), Self::Clock(denial)) => !grant.is_disjoint(denial),
            (Self::Random { .. }, Self::Random { .. }) => true,
            (
                Self::Ipc { channel, directions },
                Self::Ipc { channel: other, directions: denied },
            ) => channel == other && !directions.is_disjoint(denied),
            (Self::Host { capability, .. }, Self::Host { capability: other, .. }) => {
                capability == other
            }
            (Self::Import(grant), Self::Import(denial)) => {
                is_module_of(grant, denial) || is_module_of(denial, grant)
            }
            _ => false,
        }
    }
}

fn is_module_of(module: &str, parent: &str) -> bool {
    module.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn includes_paths(whole: &PathPattern, part: &PathPattern, deny: bool) -> bool {
    let (whole, part) = (whole.canonical(), part.canonical());
    if whole == part {
        return true;
    }
    let Some(rest) = part.root.below(&whole.root) else { return false };
    let Some(glob) = &whole.glob else { return true };
    let reach = glob::reach(glob, rest);
    // What matches with a last `**` matches with everything below it; a denied folder has it all.
    (reach.whole && (glob == "**" || glob.ends_with("/**"))) || (deny && reach.part)
}

/// `every` says whether private addresses are among them: a grant of `*` means public ones alone.
fn includes_hosts(whole: &HostPattern, part: &HostPattern, every: bool) -> bool {
    let is_below = |name: &str, parent: &str| {
        name.strip_suffix(parent).is_some_and(|head| head.ends_with('.'))
    };
    match (whole, part) {
        (HostPattern::Any, HostPattern::Exactly(Host::Address(address))) => {
            every || is_public(*address)
        }
        (HostPattern::Any, HostPattern::Exactly(Host::Name(name))) => every || name != "localhost",
        (HostPattern::Any, HostPattern::Network(_)) => every,
        (HostPattern::Any, _) => true,
        (HostPattern::Network(whole), HostPattern::Network(part)) => whole.contains(part),
        (HostPattern::Below(whole), HostPattern::Below(part)) => {
            whole == part || is_below(part, whole)
        }
        (whole, HostPattern::Exactly(host)) => whole.matches(host),
        _ => false,
    }
}

/// A denied network is met by every name, which could lead there.
fn hosts_overlap(grant: &HostPattern, denial: &HostPattern) -> bool {
    includes_hosts(grant, denial, true)
        || includes_hosts(denial, grant, true)
        || matches!(
            (grant, denial),
            (HostPattern::Exactly(Host::Name(_)) | HostPattern::Below(_), HostPattern::Network(_))
                | (
                    HostPattern::Exactly(Host::Name(_)) | HostPattern::Below(_),
                    HostPattern::Exactly(Host::Address(_))
                )
        )
}

fn includes_requests(whole: &HttpRight, part: &HttpRight, deny: bool) -> bool {
    let port =
        |right: &HttpRight| right.port.or_else(|| right.scheme.map(|scheme| scheme.default_port()));
    let ports = match deny {
        true => whole.port.is_none() || whole.port == part.port,
        false => {
            whole.port == part.port
                || (part.scheme.is_some() && {
                    let scheme = HttpRight { scheme: part.scheme, ..whole.clone() };
                    port(&scheme) == port(part)
                })
        }
    };
    (whole.scheme.is_none() || whole.scheme == part.scheme)
        && includes_hosts(&whole.host, &part.host, deny || whole.private)
        && ports
        && (whole.path == part.path || crate::prefix::covers(&whole.path, &part.path))
        && (whole.methods.contains(ANY_METHOD) || whole.methods.is_superset(&part.methods))
        && (deny || whole.private || !part.private)
}

fn includes_commands(whole: &RunRight, part: &RunRight, deny: bool) -> bool {
    let any = matches!(whole.args.as_slice(), [last] if last == ANY_ARGS);
    if deny {
        // A path denies the bare name too, but not what lies elsewhere by that name.
        let is_wider = !whole.program.contains('/') || part.program.contains('/');
        return is_wider
            && is_program(&whole.program, &part.program)
            && (any || whole.args == part.args);
    }
    let args = RunRight { args: whole.args.clone(), ..part.clone() };
    args == *whole && (any || whole.args == part.args)
}
