//! Policies and acts from small alphabets, so that they often have to do with each other.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use pyisolate_policy::{
    Access, Act, CleanPath, ClockAction, ConnectRight, Direction, Effect, FilesRight, Host,
    HostPattern, HttpRight, HttpUrl, LimitChanges, LimitName, Limits, Origin, PathPattern, Policy,
    Right, Rule, RunRight, Scheme, SecretPurpose, SecretRight,
};

pub(crate) fn path() -> impl Strategy<Value = CleanPath> {
    let part =
        select(vec!["a", "b", "a.csv", "b.key", "é", "a b", "*", "[x", "~", "yes", "1", "#"]);
    vec(part, 0..4).prop_map(|parts| CleanPath::new(&format!("/{}", parts.join("/"))).unwrap())
}

pub(crate) fn path_pattern() -> impl Strategy<Value = PathPattern> {
    let parts = vec!["a", "b", "*", "**", "*.csv", "?", "[ab]", "[!a]*", "é", "{a,b}", "a b"];
    let read = vec(select(parts), 0..5)
        .prop_map(|parts| format!("/{}", parts.join("/")).parse::<PathPattern>().unwrap());
    let literal = path().prop_map(|root| PathPattern { root, glob: None });
    let odd = (path(), select(vec!["a", "a/b", "*"]))
        .prop_map(|(root, glob)| PathPattern { root, glob: Some(glob.to_owned()) });
    prop_oneof![4 => read, 2 => literal, 1 => odd]
}

pub(crate) fn host() -> impl Strategy<Value = Host> {
    let hosts = vec![
        "a.example",
        "b.a.example",
        "c.b.a.example",
        "ba.example",
        "localhost",
        "xn--bcher-kva.example",
        "127.0.0.1",
        "10.0.0.1",
        "10.1.2.3",
        "8.8.8.8",
        "::1",
        "2606:4700::1111",
        "64:ff9b::a00:1",
    ];
    select(hosts).prop_map(|host| host.parse().unwrap())
}

pub(crate) fn host_pattern() -> impl Strategy<Value = HostPattern> {
    let nets = vec!["10.0.0.0/8", "10.0.0.1/32", "0.0.0.0/0", "::/0", "64:ff9b::/96", "::1/128"];
    prop_oneof![
        host().prop_map(HostPattern::Exactly),
        select(vec!["example", "a.example", "b.a.example"])
            .prop_map(|name| HostPattern::Below(name.to_owned())),
        select(nets).prop_map(|net| net.parse().unwrap()),
        Just(HostPattern::Any),
    ]
}

fn port() -> impl Strategy<Value = u16> {
    select(vec![1, 80, 81, 443, 8080, 65535])
}

fn scheme() -> impl Strategy<Value = Scheme> {
    select(vec![Scheme::Http, Scheme::Https])
}

fn method() -> impl Strategy<Value = String> {
    select(vec!["GET", "HEAD", "POST", "M-SEARCH"]).prop_map(str::to_owned)
}

fn url_path() -> impl Strategy<Value = String> {
    let paths = vec![
        "/",
        "/v1",
        "/v1/",
        "/v1/x",
        "/v1x",
        "/%C3%A9",
        "/v1/%2F",
        "/v1/a%20b",
        "/v1/..;/x",
        "//v1",
    ];
    select(paths).prop_map(str::to_owned)
}

fn connect() -> impl Strategy<Value = Right> {
    (host_pattern(), port(), port(), any::<bool>()).prop_map(|(host, low, high, private)| {
        Right::Connect(ConnectRight { host, ports: low..=high, private })
    })
}

fn http() -> impl Strategy<Value = Right> {
    let methods = prop_oneof![
        btree_set(method(), 0..4),
        Just(BTreeSet::from(["*".to_owned()])),
        Just(BTreeSet::from(["GET".to_owned(), "HEAD".to_owned()])),
    ];
    (option::of(scheme()), host_pattern(), option::of(port()), url_path(), methods, any::<bool>())
        .prop_map(|(scheme, host, port, path, methods, private)| {
            Right::Http(HttpRight { scheme, host, port, path, methods, private })
        })
}

fn argument() -> impl Strategy<Value = String> {
    let args =
        vec!["status", "-n", "--all", "*", "-*", "a*", "[[]", "?x", "x", "é", "", "no", "a: b"];
    select(args).prop_map(str::to_owned)
}

fn program() -> impl Strategy<Value = String> {
    select(vec!["git", "/usr/bin/git", "/opt/git", "ls", "7z"]).prop_map(str::to_owned)
}

fn run() -> impl Strategy<Value = Right> {
    let rest = option::of(Just("**".to_owned()));
    let env = btree_map("[A-Z_][A-Z0-9 -]{0,6}", "[^\0]{0,6}", 0..3);
    let limits = (0..3_u64, 0..3_u64, 0..3_u64);
    (program(), vec(argument(), 0..3), rest, env, vec(plain_path(), 0..2), limits).prop_map(
        |(program, mut args, rest, env, read, (time, output, mem))| {
            args.extend(rest);
            Right::Run(RunRight {
                program,
                args,
                env,
                read,
                wall_time_ms: RunRight::WALL_TIME_MS + time,
                output_bytes: RunRight::OUTPUT_BYTES + output,
                mem_bytes: RunRight::MEM_BYTES + mem,
            })
        },
    )
}

fn plain_path() -> impl Strategy<Value = CleanPath> {
    path().prop_filter("no wildcard", |path| !path.as_str().contains(['*', '?', '[']))
}

/// A name of any kind that the text takes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(vec!["a", "b", "key", "db"]).prop_map(str::to_owned),
        1 => "\\PC{1,12}",
    ]
}

fn capability() -> impl Strategy<Value = String> {
    let built_in = ["filesystem", "network", "subprocess", "secret", "clock", "random", "ipc"];
    name().prop_filter("not built in", move |name| !built_in.contains(&name.as_str()))
}

fn clock_action() -> impl Strategy<Value = ClockAction> {
    select(vec![ClockAction::Time, ClockAction::Monotonic, ClockAction::Sleep])
}

fn direction() -> impl Strategy<Value = Direction> {
    select(vec![Direction::Send, Direction::Receive])
}

fn module() -> impl Strategy<Value = String> {
    select(vec!["os", "os.path", "math", "é", "no", "null", "_x1"]).prop_map(str::to_owned)
}

pub(crate) fn right() -> impl Strategy<Value = Right> {
    prop_oneof![
        3 => (any::<bool>(), any::<bool>(), path_pattern()).prop_map(|(read, write, pattern)| {
            Right::Files(FilesRight { read, write, pattern })
        }),
        2 => connect(),
        2 => http(),
        1 => host_pattern().prop_map(Right::Resolve),
        2 => run(),
        2 => (name(), any::<bool>(), vec(host_pattern(), 0..3))
            .prop_map(|(name, reveal, hosts)| Right::Secret(SecretRight { name, reveal, hosts })),
        1 => btree_set(clock_action(), 0..8).prop_map(Right::Clock),
        1 => option::of(any::<u64>()).prop_map(|seed| Right::Random { seed }),
        1 => (name(), btree_set(direction(), 0..5))
            .prop_map(|(channel, directions)| Right::Ipc { channel, directions }),
        1 => (capability(), option::of(btree_set(name(), 0..3)))
            .prop_map(|(capability, actions)| Right::Host { capability, actions }),
        1 => module().prop_map(Right::Import),
    ]
}

fn limits() -> impl Strategy<Value = LimitChanges> {
    let limits = btree_map(select(LimitName::ALL.to_vec()), 0..3_u64, 0..4);
    limits.prop_map(|limits: BTreeMap<LimitName, u64>| {
        let mut all = Limits::default();
        let near = |(limit, less): (_, u64)| (limit, all.slot(limit).saturating_sub(less));
        LimitChanges(limits.into_iter().map(near).collect())
    })
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let effect = prop_oneof![3 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    let rule = (effect, right()).prop_map(|(effect, right)| Rule {
        effect,
        right,
        origin: Origin::default(),
    });
    (vec(rule, 0..12), limits()).prop_map(|(rules, limits)| Policy { rules, limits })
}

pub(crate) fn act() -> impl Strategy<Value = Act> {
    let access = select(vec![Access::Read, Access::Write]);
    let url = (scheme(), host(), port(), url_path()).prop_map(|(scheme, host, port, path)| {
        let text = format!("{}://{}:{port}{path}", scheme.as_str(), host.in_url());
        text.parse::<HttpUrl>().unwrap()
    });
    let purpose = prop_oneof![
        Just(SecretPurpose::Reveal),
        Just(SecretPurpose::Use),
        host().prop_map(SecretPurpose::Send),
    ];
    prop_oneof![
        3 => (access, path()).prop_map(|(access, path)| Act::File { access, path }),
        2 => (host(), port()).prop_map(|(host, port)| Act::Connect { host, port }),
        2 => (method(), url).prop_map(|(method, url)| Act::Http { method, url }),
        1 => host().prop_map(|host| Act::Resolve { host }),
        2 => (program(), vec(argument(), 0..3))
            .prop_map(|(program, args)| Act::Run { program, args }),
        2 => (name(), purpose).prop_map(|(name, purpose)| Act::Secret { name, purpose }),
        1 => clock_action().prop_map(|action| Act::Clock { action }),
        1 => Just(Act::Random),
        1 => (name(), direction())
            .prop_map(|(channel, direction)| Act::Ipc { channel, direction }),
        1 => (capability(), name())
            .prop_map(|(capability, action)| Act::Host { capability, action }),
        1 => module().prop_map(|module| Act::Import { module }),
    ]
}
