//! Rights that almost cover an act, and what is different.

use crate::act::{Access, Act};
use crate::glob;
use crate::host::Host;
use crate::right::{ConnectRight, FilesRight, HostPattern, HttpRight, Right, RunRight};

/// A right that does not cover an act, but nearly.
pub(crate) struct Miss {
    /// How far off it is.
    pub(crate) distance: usize,
    /// What is different.
    pub(crate) why: String,
}

impl Miss {
    fn new(distance: usize, why: impl Into<String>) -> Option<Self> {
        Some(Self { distance, why: why.into() })
    }
}

/// Why `right` does not cover `act`; `None` if the two have nothing to do with each other.
pub(crate) fn miss(right: &Right, act: &Act) -> Option<Miss> {
    match (right, act) {
        (Right::Files(right), Act::File { access, path }) => file(right, *access, path),
        (Right::Connect(right), Act::Connect { host, port }) => connection(right, host, *port),
        (Right::Http(right), Act::Http { .. }) => request(right, act),
        (Right::Http(right), Act::Connect { host, .. }) if right.host.matches(host) => {
            Miss::new(3, "it grants requests to this host, not a connection of one's own")
        }
        (Right::Connect(right), Act::Http { url, .. })
            if right.host.matches(&url.host) && right.ports.contains(&url.port) =>
        {
            Miss::new(
                3,
                "it grants a connection to this host and port, not a request by the broker",
            )
        }
        (Right::Resolve(pattern), Act::Connect { host, .. }) if pattern.matches(host) => {
            Miss::new(4, "it grants to resolve this host, not to connect to it")
        }
        (_, Act::Resolve { host }) => {
            let pattern = match right {
                Right::Resolve(pattern) => pattern,
                Right::Connect(right) => &right.host,
                Right::Http(right) => &right.host,
                _ => return None,
            };
            if right.fits(act) {
                return held_back(host);
            }
            let (distance, why) = other_host(pattern, host)?;
            Miss::new(distance, why)
        }
        (Right::Run(right), Act::Run { program, args }) => command(right, program, args),
        (Right::Secret(right), Act::Secret { name, .. }) if right.name == *name => {
            let why = match right.reveal {
                true => "it may be revealed, not used in a request to this host",
                false => "it may be used in requests to its hosts, nothing else",
            };
            Miss::new(0, why)
        }
        (Right::Clock(_), Act::Clock { .. }) => Miss::new(0, "it grants another part of the clock"),
        (Right::Ipc { channel, .. }, Act::Ipc { channel: asked, .. }) if channel == asked => {
            Miss::new(0, "it grants the other end of the channel")
        }
        (Right::Host { capability, .. }, Act::Host { capability: asked, .. })
            if capability == asked =>
        {
            Miss::new(0, "it grants other actions of the capability")
        }
        (Right::Import(module), Act::Import { module: asked }) => {
            let below = module.strip_prefix(asked.as_str())?;
            below
                .starts_with('.')
                .then(|| Miss::new(0, "it grants a module below this one"))
                .flatten()
        }
        _ => None,
    }
}

fn file(right: &FilesRight, access: Access, path: &crate::path::CleanPath) -> Option<Miss> {
    if right.pattern.matches(path) {
        let why = match access {
            Access::Read => "this path is granted for writing only",
            Access::Write => "this path is granted for reading only",
        };
        return Miss::new(0, why);
    }
    if path.below(&right.pattern.root).is_some() {
        let glob = right.pattern.glob.as_deref().unwrap_or_default();
        return Miss::new(1, format!("the path is below its folder, but does not match {glob}"));
    }
    if right.pattern.root.below(path).is_some() {
        return Miss::new(2, "it grants what is below this folder, not the folder itself");
    }
    let common = path
        .components()
        .zip(right.pattern.root.components())
        .take_while(|(asked, granted)| asked == granted)
        .count();
    let same_folder = common > 0 && common + 1 >= path.components().count();
    same_folder.then(|| Miss::new(3, "it grants a neighbour of this path")).flatten()
}

/// What is different about a host, if anything is alike.
fn other_host(pattern: &HostPattern, host: &Host) -> Option<(usize, String)> {
    match (pattern, host) {
        (HostPattern::Below(parent), Host::Name(name)) if parent == name => {
            Some((1, format!("*.{parent} grants the names below {parent}, not {parent} itself")))
        }
        (HostPattern::Exactly(Host::Name(granted)), Host::Name(name)) => {
            let is_below = |name: &str, parent: &str| {
                name.strip_suffix(parent).is_some_and(|head| head.ends_with('.'))
            };
            if is_below(name, granted) {
                return Some((1, format!("it grants {granted} alone, not the names below it")));
            }
            // The lengths first, as a guest may ask with long names and there may be many rules.
            let slip = granted.len().abs_diff(name.len()) <= 2
                && strsim::damerau_levenshtein(granted, name) <= 2;
            (slip || is_below(granted, name)).then(|| (2, "the host is another".to_owned()))
        }
        (HostPattern::Network(net), Host::Name(_)) => {
            let why =
                format!("{net} grants addresses, and this is a name: grant the name, private");
            Some((4, why))
        }
        _ => None,
    }
}

fn connection(right: &ConnectRight, host: &Host, port: u16) -> Option<Miss> {
    if right.host.matches(host) && right.ports.contains(&port) {
        return held_back(host);
    }
    if right.host.matches(host) {
        return Miss::new(0, "the host is the same, the port another");
    }
    if !right.ports.contains(&port) {
        return None;
    }
    let (distance, why) = other_host(&right.host, host)?;
    Miss::new(distance, why)
}

/// Of a grant that fits in all but this: `*` grants public addresses alone.
fn held_back(host: &Host) -> Option<Miss> {
    Miss::new(0, format!("{host} is not a public address, and the rule does not name it"))
}

fn request(right: &HttpRight, act: &Act) -> Option<Miss> {
    let Act::Http { method, url } = act else { return None };
    if !right.host.matches(&url.host) {
        let (distance, why) = other_host(&right.host, &url.host)?;
        return Miss::new(distance + 1, why);
    }
    let mut parts = Vec::new();
    if right.scheme.is_some_and(|scheme| scheme != url.scheme) {
        parts.push(format!("the scheme is {}", url.scheme.as_str()));
    } else if right.port.unwrap_or(url.scheme.default_port()) != url.port {
        parts.push(format!("the port is {}", url.port));
    }
    if !crate::prefix::covers(&right.path, &url.path) {
        parts.push(format!("the path is not below {}", right.path));
    }
    if !right.methods.contains(method) && !right.methods.contains(crate::cover::ANY_METHOD) {
        parts.push(format!("{method} is not among its methods"));
    }
    if parts.is_empty() {
        return held_back(&url.host);
    }
    Miss::new(
        parts.len().saturating_sub(1),
        format!("the host is the same, but {}", parts.join(", ")),
    )
}

fn command(right: &RunRight, program: &str, args: &[String]) -> Option<Miss> {
    let base = |program: &str| program.rsplit('/').next().map(str::to_owned);
    if right.program != program {
        return (base(&right.program) == base(program))
            .then(|| Miss::new(1, format!("it grants {} under that name alone", right.program)))
            .flatten();
    }
    let differs = right.args.iter().zip(args).position(|(pattern, arg)| {
        !glob::matches(pattern, arg) || (arg.starts_with('-') && !pattern.starts_with('-'))
    });
    let why = match differs {
        Some(at) => format!("argument {} does not match", at + 1),
        None if args.len() < right.args.len() => "it grants more arguments than these".to_owned(),
        None => "it grants fewer arguments than these".to_owned(),
    };
    Miss::new(0, why)
}
