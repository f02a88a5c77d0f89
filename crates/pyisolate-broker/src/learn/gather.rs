//! Rights from acts: what was asked for, put together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pyisolate_policy::{
    Access, Act, CleanPath, ClockAction, ConnectRight, Direction, Effect, FilesRight, Host,
    HostPattern, HttpRight, LimitChanges, Origin, PathPattern, Policy, Right, Rule, RunRight,
    Scheme, SecretPurpose, SecretRight,
};

use super::Use;

const LISTED: &str = "a folder was listed, and this grants all that is below it";
const ON_WAY: &str = "a folder that leads there was looked at";
const FOLDED: &str = "many files of this folder";
const ODD_PATH: &str = "a path that servers read in different ways, which only / covers";
const NO_HOST: &str = "name the host that it may be sent to; the run told none";
/// Stands for a host that nobody has, where a secret's host is not known.
const NOBODY: &str = "unknown.invalid";

/// What a run asked for.
#[derive(Debug, Default)]
pub(super) struct Gather {
    read: BTreeMap<CleanPath, Use>,
    write: BTreeMap<CleanPath, Use>,
    /// The grants with wildcards that folders were looked at for, by their text.
    ways: BTreeMap<String, (PathPattern, Use)>,
    /// Connections, and whether to private addresses.
    connect: BTreeMap<(Host, u16), (bool, Use)>,
    /// Connections that were answered with the advice to send a request, by this grant.
    advised: BTreeMap<(Host, u16), (HttpRight, Use)>,
    http: BTreeMap<(Site, String), Requests>,
    resolve: BTreeMap<Host, Use>,
    run: HashMap<RunRight, (usize, Use)>,
    secret: BTreeMap<String, Secret>,
    clock: BTreeMap<ClockAction, Use>,
    random: Option<(Option<u64>, Use)>,
    ipc: BTreeMap<String, (BTreeSet<Direction>, Use)>,
    host: BTreeMap<String, (BTreeSet<String>, Use)>,
    import: BTreeMap<String, Use>,
    limits: LimitChanges,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Site {
    scheme: Scheme,
    host: Host,
    port: u16,
    private: bool,
}

/// The requests of one method to one site.
#[derive(Debug)]
struct Requests {
    /// What all paths begin with, by whole components.
    prefix: String,
    used: Use,
}

#[derive(Debug, Default)]
struct Secret {
    reveal: bool,
    is_used: bool,
    hosts: BTreeSet<Host>,
    /// The hosts of the rule that granted its use.
    granted: Vec<HostPattern>,
    used: Use,
}

impl Gather {
    /// Takes from the run's own policy what no act tells.
    pub(super) fn policy(&mut self, policy: &Policy) {
        for (limit, value) in &policy.limits.0 {
            let most = self.limits.0.entry(*limit).or_insert(*value);
            *most = (*most).max(*value);
        }
        for rule in policy.rules.iter().filter(|rule| rule.effect == Effect::Allow) {
            if let Right::Import(module) = &rule.right
                && policy.decide(&Act::Import { module: module.clone() }).allowed
            {
                self.import.entry(module.clone()).or_default();
            }
        }
    }

    /// Takes an act, and the right that granted it if that is known.
    pub(super) fn act(&mut self, act: &Act, granted: Option<&Right>, one: Use, is_listing: bool) {
        match act {
            Act::File { access, path } => {
                if let Some(Right::Files(right)) = granted.filter(|right| !right.covers(act)) {
                    let new = || (right.pattern.clone(), Use::default());
                    let way = self.ways.entry(right.pattern.to_string()).or_insert_with(new);
                    way.1.add(Use { note: Some(ON_WAY), ..one });
                    return;
                }
                let note = if is_listing { Some(LISTED) } else { None };
                let files = match access {
                    Access::Read => &mut self.read,
                    Access::Write => &mut self.write,
                };
                files.entry(path.clone()).or_default().add(Use { note, ..one });
            }
            Act::Connect { host, port } => {
                let place = (host.clone(), *port);
                if let Some(Right::Http(right)) = granted {
                    let new = || (right.clone(), Use::default());
                    self.advised.entry(place).or_insert_with(new).1.add(one);
                    return;
                }
                let private = matches!(granted, Some(Right::Connect(right)) if right.private);
                let (is_private, used) = self.connect.entry(place).or_default();
                *is_private |= private;
                used.add(one);
            }
            Act::Resolve { host } => self.resolve.entry(host.clone()).or_default().add(one),
            Act::Http { method, url } => {
                let private = matches!(granted, Some(Right::Http(right)) if right.private);
                let (scheme, host, port) = (url.scheme, url.host.clone(), url.port);
                let site = Site { scheme, host, port, private };
                let new = || Requests { prefix: writable(&url.path), used: Use::default() };
                let requests = self.http.entry((site.clone(), method.clone())).or_insert_with(new);
                requests.prefix = common(&requests.prefix, &url.path);
                let grant = |path: &str| site.right([method.clone()].into(), path);
                if !grant(&requests.prefix).covers(act) {
                    "/".clone_into(&mut requests.prefix);
                    requests.used.note = Some(ODD_PATH);
                }
                requests.used.add(one);
            }
            Act::Run { program, args } => {
                let right = match granted {
                    Some(Right::Run(right)) => right.clone(),
                    _ => RunRight {
                        program: program.clone(),
                        args: Vec::new(),
                        env: BTreeMap::new(),
                        read: Vec::new(),
                        wall_time_ms: RunRight::WALL_TIME_MS,
                        output_bytes: RunRight::OUTPUT_BYTES,
                        mem_bytes: RunRight::MEM_BYTES,
                    },
                };
                let args = args.iter().map(|arg| literal(arg)).collect();
                let next = self.run.len();
                let right = RunRight { args, ..right };
                self.run.entry(right).or_insert((next, Use::default())).1.add(one);
            }
            Act::Secret { name, purpose } => {
                let secret = self.secret.entry(name.clone()).or_default();
                secret.used.add(one);
                match purpose {
                    SecretPurpose::Reveal => secret.reveal = true,
                    SecretPurpose::Use => secret.is_used = true,
                    SecretPurpose::Send(host) => drop(secret.hosts.insert(host.clone())),
                }
                if let Some(Right::Secret(right)) = granted {
                    secret.granted.clone_from(&right.hosts);
                }
            }
            Act::Clock { action } => self.clock.entry(*action).or_default().add(one),
            Act::Random => {
                let seed = match granted {
                    Some(Right::Random { seed }) => *seed,
                    _ => None,
                };
                let (known, used) = self.random.get_or_insert_default();
                *known = known.or(seed);
                used.add(one);
            }
            Act::Ipc { channel, direction } => {
                let (directions, used) = self.ipc.entry(channel.clone()).or_default();
                directions.insert(*direction);
                used.add(one);
            }
            Act::Host { capability, action } => {
                let (actions, used) = self.host.entry(capability.clone()).or_default();
                actions.insert(action.clone());
                used.add(one);
            }
            Act::Import { module } => self.import.entry(module.clone()).or_default().add(one),
            // An act that came later than this, of which no right is known.
            _ => {}
        }
    }

    /// The rules, and how each was used.
    pub(super) fn finish(self, fold: Option<usize>) -> (Policy, Vec<Use>) {
        let mut rules = Rules::default();
        rules.files(self.read, self.write, fold);
        for (pattern, used) in self.ways.into_values() {
            rules.add(Right::Files(FilesRight { read: true, write: false, pattern }), used);
        }
        rules.requests(self.http, self.advised);
        for ((host, port), (private, used)) in self.connect {
            let host = HostPattern::Exactly(host);
            rules.add(Right::Connect(ConnectRight { host, ports: port..=port, private }), used);
        }
        for (host, used) in self.resolve {
            // Whoever may connect to a host may ask for its addresses.
            let act = Act::Resolve { host: host.clone() };
            if !rules.rules.iter().any(|rule| rule.matches(&act)) {
                rules.add(Right::Resolve(HostPattern::Exactly(host)), used);
            }
        }
        let mut runs: Vec<_> = self.run.into_iter().collect();
        runs.sort_by_key(|(_, (order, _))| *order);
        for (right, (_, used)) in runs {
            rules.add(Right::Run(right), used);
        }
        for (name, secret) in self.secret {
            rules.secret(name, secret);
        }
        if !self.clock.is_empty() {
            let actions = self.clock.keys().copied().collect();
            rules.add(Right::Clock(actions), sum(self.clock.into_values()));
        }
        if let Some((seed, used)) = self.random {
            rules.add(Right::Random { seed }, used);
        }
        for (channel, (directions, used)) in self.ipc {
            rules.add(Right::Ipc { channel, directions }, used);
        }
        for (capability, (actions, used)) in self.host {
            rules.add(Right::Host { capability, actions: Some(actions) }, used);
        }
        for (module, used) in self.import {
            rules.add(Right::Import(module), used);
        }
        (Policy { rules: rules.rules, limits: self.limits }, rules.uses)
    }
}

#[derive(Default)]
struct Rules {
    rules: Vec<Rule>,
    uses: Vec<Use>,
}

impl Rules {
    fn add(&mut self, right: Right, used: Use) {
        let rule = Rule { effect: Effect::Allow, right, origin: Origin::default() };
        // As it comes back from text, so that it is known again there.
        let alone = Policy { rules: vec![rule], limits: LimitChanges::default() }.canonical();
        for rule in alone.rules {
            self.rules.push(rule);
            self.uses.push(used);
        }
    }

    fn files(
        &mut self,
        read: BTreeMap<CleanPath, Use>,
        write: BTreeMap<CleanPath, Use>,
        fold: Option<usize>,
    ) {
        let mut both: BTreeMap<CleanPath, (Option<Use>, Option<Use>)> = BTreeMap::new();
        for (path, used) in roots(folded(read, fold)) {
            both.entry(path).or_default().0 = Some(used);
        }
        for (path, used) in roots(folded(write, fold)) {
            both.entry(path).or_default().1 = Some(used);
        }
        for (root, (read, write)) in both {
            let pattern = PathPattern { root, glob: None };
            let right = FilesRight { read: read.is_some(), write: write.is_some(), pattern };
            self.add(Right::Files(right), sum(read.into_iter().chain(write)));
        }
    }

    fn requests(
        &mut self,
        http: BTreeMap<(Site, String), Requests>,
        advised: BTreeMap<(Host, u16), (HttpRight, Use)>,
    ) {
        let mut sites: BTreeMap<(Site, String), (BTreeSet<String>, Use)> = BTreeMap::new();
        for ((site, method), requests) in http {
            let (methods, used) = sites.entry((site, requests.prefix)).or_default();
            methods.insert(method);
            used.add(requests.used);
        }
        for ((host, port), (right, used)) in advised {
            // A request to it is granted anyway, if one was sent.
            if !sites.keys().any(|(site, _)| site.host == host && site.port == port) {
                let host = HostPattern::Exactly(host);
                self.add(Right::Http(HttpRight { host, port: Some(port), ..right }), used);
            }
        }
        for ((site, prefix), (methods, used)) in sites {
            self.add(site.right(methods, &prefix), used);
        }
    }

    fn secret(&mut self, name: String, secret: Secret) {
        let Secret { reveal, is_used, hosts, granted, mut used } = secret;
        let mut hosts: Vec<_> = hosts.into_iter().map(HostPattern::Exactly).collect();
        if is_used && hosts.is_empty() {
            hosts = granted;
        }
        if is_used && hosts.is_empty() {
            hosts.push(HostPattern::Exactly(Host::Name(NOBODY.to_owned())));
            used.note = Some(NO_HOST);
        }
        self.add(Right::Secret(SecretRight { name, reveal, hosts }), used);
    }
}

impl Site {
    fn right(&self, methods: BTreeSet<String>, path: &str) -> Right {
        let Self { scheme, ref host, port, private } = *self;
        Right::Http(HttpRight {
            scheme: Some(scheme),
            host: HostPattern::Exactly(host.clone()),
            port: Some(port).filter(|port| *port != scheme.default_port()),
            path: path.to_owned(),
            methods,
            private,
        })
    }
}

fn sum(uses: impl IntoIterator<Item = Use>) -> Use {
    uses.into_iter().fold(Use::default(), |mut all, used| {
        all.add(used);
        all
    })
}

/// What two paths begin with, by whole components.
fn common(one: &str, other: &str) -> String {
    if one == other {
        return one.to_owned();
    }
    let parts = |path| str::split(path, '/').skip(1).filter(|part| !part.is_empty());
    let same = parts(one).zip(parts(other)).take_while(|(one, other)| one == other);
    let prefix: String = same.flat_map(|(part, _)| ["/", part]).collect();
    if prefix.is_empty() { "/".to_owned() } else { prefix }
}

/// As much of a path as can stand in a policy, where a star is no character of a path.
fn writable(path: &str) -> String {
    match path.find('*').and_then(|star| path[..star].rfind('/')) {
        Some(0) => "/".to_owned(),
        Some(end) => path[..end].to_owned(),
        None => path.to_owned(),
    }
}

/// An argument as a pattern that matches nothing else.
fn literal(arg: &str) -> String {
    let mut pattern = String::with_capacity(arg.len());
    for c in arg.chars() {
        match c {
            '*' | '?' | '[' => pattern.extend(['[', c, ']']),
            _ => pattern.push(c),
        }
    }
    pattern
}

fn parent(path: &CleanPath) -> Option<CleanPath> {
    let (parent, _) = path.as_str().rsplit_once('/')?;
    if parent.is_empty() { None } else { CleanPath::new(parent).ok() }
}

/// With folders in the place of their files, where those are more than `most`.
fn folded(files: BTreeMap<CleanPath, Use>, most: Option<usize>) -> BTreeMap<CleanPath, Use> {
    let Some(most) = most else { return files };
    let mut sizes: HashMap<CleanPath, usize> = HashMap::new();
    for folder in files.keys().filter_map(parent) {
        *sizes.entry(folder).or_default() += 1;
    }
    let mut all: BTreeMap<CleanPath, Use> = BTreeMap::new();
    for (path, used) in files {
        match parent(&path).filter(|folder| sizes.get(folder).is_some_and(|size| *size > most)) {
            Some(folder) => all.entry(folder).or_default().add(Use { note: Some(FOLDED), ..used }),
            None => all.entry(path).or_default().add(used),
        }
    }
    all
}

/// Without paths that are below others.
fn roots(files: BTreeMap<CleanPath, Use>) -> BTreeMap<CleanPath, Use> {
    let mut all: BTreeMap<CleanPath, Use> = BTreeMap::new();
    // A folder sorts before what is below it.
    for (path, used) in files {
        let above = std::iter::successors(parent(&path), parent);
        let slash = CleanPath::new("/").ok();
        match above.chain(slash).find(|folder| all.contains_key(folder)) {
            Some(folder) => all.entry(folder).or_default().add(Use { note: None, ..used }),
            None => drop(all.insert(path, used)),
        }
    }
    all
}
