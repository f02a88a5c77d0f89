//! What `explain` says of an act is what becomes of the request: random policies and requests, on
//! real files, sockets on loopback and the broker's own channels.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use pyisolate_abi::pickle::Value;
use pyisolate_broker::{
    Broker, BrokerOptions, CAPABILITIES, Refusal, Resolve, SecretValue, Session, SessionOptions,
};
use pyisolate_policy::{
    Access, Act, CellName, CleanPath, ClockAction, ConnectRight, Direction, Document, Effect,
    FilesRight, Format, Host, HostPattern, HttpRight, HttpUrl, Limits, Origin, PathPattern, Policy,
    Right, Rule, RunRight, Scheme, SecretPurpose, SecretRight,
};

const CASES: u32 = 2000;

/// A server on loopback that answers requests, and takes streams that ask for nothing.
struct Server {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ends = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ends);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::spawn(move || answer(stream));
            }
        });
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), ends }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut stream: TcpStream) {
    let mut asked = Vec::new();
    let mut byte = [0];
    while !asked.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1..) => asked.push(byte[0]),
            Ok(0) | Err(_) => return,
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

/// Names that lead to loopback, and one that leads to nothing that answers.
#[derive(Debug)]
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        let last = match name {
            "localhost" | "a.example" => 1,
            "b.a.example" => 2,
            _ => return Err(std::io::ErrorKind::NotFound.into()),
        };
        Ok(vec![Ipv4Addr::new(127, 0, 0, last).into()])
    }
}

const FILES: [&str; 5] = ["a/x", "a/x.csv", "a/b/x", "a/b/x.csv", "c/x"];
const PATTERNS: [&str; 9] = ["", "a", "a/x", "a/*.csv", "a/**/x", "*/x", "**", "a/b/?", "a/[bc]/x"];
const NAMES: [&str; 4] = ["localhost", "a.example", "b.a.example", "127.0.0.1"];
const PROGRAMS: [&str; 2] = ["true", "/bin/true"];
const OTHER_PORT: u16 = 1;

fn make_files(root: &Path) {
    for file in FILES {
        let file = root.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, b"content").unwrap();
    }
}

fn host_pattern() -> impl Strategy<Value = HostPattern> {
    prop_oneof![
        3 => select(NAMES.to_vec()).prop_map(|it| HostPattern::Exactly(it.parse().unwrap())),
        1 => Just(HostPattern::Below("a.example".to_owned())),
        2 => select(vec!["127.0.0.0/8", "127.0.0.1/32", "10.0.0.0/8", "0.0.0.0/0"])
            .prop_map(|net| net.parse().unwrap()),
        3 => Just(HostPattern::Any),
    ]
}

fn right(root: &Path, port: u16) -> impl Strategy<Value = Right> + use<> {
    let root = root.to_str().unwrap().to_owned();
    let files = (any::<bool>(), any::<bool>(), select(PATTERNS.to_vec()));
    let files = files.prop_map(move |(read, write, rest)| {
        let pattern: PathPattern = format!("{root}/{rest}").parse().unwrap();
        Right::Files(FilesRight { read, write, pattern })
    });
    let ports = select(vec![port..=port, 1..=65535, OTHER_PORT..=OTHER_PORT]);
    let connect = (host_pattern(), ports, any::<bool>())
        .prop_map(|(host, ports, private)| Right::Connect(ConnectRight { host, ports, private }));
    let scheme = select(vec![None, Some(Scheme::Http), Some(Scheme::Https)]);
    let http = (scheme, host_pattern(), select(vec!["/", "/v1"]), select(vec!["GET", "*", "POST"]));
    let http = (http, any::<bool>()).prop_map(move |((scheme, host, path, method), private)| {
        let (path, methods) = (path.to_owned(), [method.to_owned()].into());
        Right::Http(HttpRight { scheme, host, port: Some(port), path, methods, private })
    });
    let run = (select(PROGRAMS.to_vec()), select(vec![None, Some("**"), Some("-x"), Some("*")]))
        .prop_map(|(program, arg)| {
            let args = arg.into_iter().map(str::to_owned).collect();
            Right::Run(RunRight { args, ..RunRight::new(program) })
        });
    let secret = (select(vec!["key", "other"]), any::<bool>(), vec(host_pattern(), 0..2)).prop_map(
        |(name, reveal, hosts)| Right::Secret(SecretRight { name: name.to_owned(), reveal, hosts }),
    );
    let ipc = (select(vec!["one", "two"]), btree_set(direction(), 0..4))
        .prop_map(|(channel, directions)| Right::Ipc { channel: channel.to_owned(), directions });
    prop_oneof![
        4 => files,
        3 => connect,
        3 => http,
        2 => host_pattern().prop_map(Right::Resolve),
        2 => run,
        2 => secret,
        1 => btree_set(clock(), 0..4).prop_map(Right::Clock),
        1 => any::<Option<u64>>().prop_map(|seed| Right::Random { seed }),
        1 => ipc,
    ]
}

fn direction() -> impl Strategy<Value = Direction> {
    select(vec![Direction::Send, Direction::Receive])
}

fn clock() -> impl Strategy<Value = ClockAction> {
    select(vec![ClockAction::Time, ClockAction::Monotonic, ClockAction::Sleep])
}

fn policy(root: &Path, port: u16) -> impl Strategy<Value = Policy> + use<> {
    let effect = prop_oneof![4 => Just(Effect::Allow), 1 => Just(Effect::Deny)];
    let rule = (effect, right(root, port)).prop_map(|(effect, right)| Rule {
        effect,
        right,
        origin: Origin::default(),
    });
    vec(rule, 0..16).prop_map(|rules| Policy { rules, ..Policy::default() })
}

fn act(root: &Path, port: u16) -> impl Strategy<Value = Act> + use<> {
    let root = root.to_str().unwrap().to_owned();
    let host = || select(NAMES.to_vec()).prop_map(|host| host.parse::<Host>().unwrap());
    let access = select(vec![Access::Read, Access::Write]);
    let file = (access, select(FILES.to_vec())).prop_map(move |(access, file)| Act::File {
        access,
        path: CleanPath::new(&format!("{root}/{file}")).unwrap(),
    });
    let http = (host(), select(vec!["/", "/v1/x", "/v1/..;/x"]), select(vec!["GET", "POST"]));
    let http = http.prop_map(move |(host, path, method)| {
        let url: HttpUrl = format!("http://{}:{port}{path}", host.in_url()).parse().unwrap();
        Act::Http { method: method.to_owned(), url }
    });
    let args = select(vec![vec![], vec!["-x"], vec!["y"], vec!["-x", "y"]]);
    let run = (select(PROGRAMS.to_vec()), args).prop_map(|(program, args)| Act::Run {
        program: program.to_owned(),
        args: args.into_iter().map(str::to_owned).collect(),
    });
    let purpose = select(vec![SecretPurpose::Reveal, SecretPurpose::Use]);
    let secret = (select(vec!["key", "other"]), purpose)
        .prop_map(|(name, purpose)| Act::Secret { name: name.to_owned(), purpose });
    let ipc = (select(vec!["one", "two"]), direction())
        .prop_map(|(channel, direction)| Act::Ipc { channel: channel.to_owned(), direction });
    prop_oneof![
        4 => file,
        3 => host().prop_map(move |host| Act::Connect { host, port }),
        3 => http,
        2 => host().prop_map(|host| Act::Resolve { host }),
        2 => run,
        2 => secret,
        1 => clock().prop_map(|action| Act::Clock { action }),
        1 => Just(Act::Random),
        1 => ipc,
    ]
}

/// The request that asks for an act and nothing else.
fn request(act: &Act) -> (&'static str, Vec<(&'static str, Value)>) {
    let text = |text: &str| Value::Text(text.to_owned());
    let texts = |all: &[String]| Value::List(all.iter().map(|it| text(it)).collect());
    match act {
        Act::File { access: Access::Read, path } => ("read", vec![("path", text(path.as_str()))]),
        Act::File { access: Access::Write, path } => {
            ("append", vec![("path", text(path.as_str())), ("data", Value::Bytes(Vec::new()))])
        }
        Act::Connect { host, port } => (
            "connect",
            vec![("host", text(&host.to_string())), ("port", Value::Int((*port).into()))],
        ),
        Act::Http { method, url } => {
            ("http", vec![("method", text(method)), ("url", text(&url.to_string()))])
        }
        Act::Resolve { host } => ("resolve", vec![("host", text(&host.to_string()))]),
        Act::Run { program, args } => {
            ("run", vec![("program", text(program)), ("args", texts(args))])
        }
        Act::Secret { name, purpose: SecretPurpose::Reveal } => {
            ("reveal", vec![("name", text(name))])
        }
        Act::Secret { name, .. } => ("use", vec![("name", text(name))]),
        Act::Clock { action: ClockAction::Time } => ("time", vec![]),
        Act::Clock { action: ClockAction::Monotonic } => ("monotonic", vec![]),
        Act::Clock { action: ClockAction::Sleep } => ("sleep", vec![("seconds", Value::Int(0))]),
        Act::Random => ("bytes", vec![("length", Value::Int(8))]),
        Act::Ipc { channel, direction: Direction::Send } => (
            "send",
            vec![
                ("channel", text(channel)),
                ("message", Value::Int(1)),
                ("timeout", Value::Int(0)),
            ],
        ),
        Act::Ipc { channel, direction: Direction::Receive } => {
            ("receive", vec![("channel", text(channel)), ("timeout", Value::Int(0))])
        }
        _ => unreachable!("not among the seven"),
    }
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Done, or tried.
    Allowed,
    /// Refused, or answered with the advice to ask for something else.
    Denied,
}

fn ask(session: &Session, act: &Act) -> (Fate, String) {
    let (action, entries) = request(act);
    let entries = entries.into_iter().map(|(key, value)| (Value::Text(key.to_owned()), value));
    let payload = Value::Dict(entries.collect());
    let outcome = match session.begin(act.capability(), action, &payload) {
        Ok(ready) => {
            assert_eq!(ready.act(), Some(act), "the question is the one that was meant");
            ready.perform(session)
        }
        Err(refused) => Err(refused.refusal),
    };
    let said = format!("{outcome:?}");
    let fate = match outcome {
        Err(Refusal::Denied(_)) => Fate::Denied,
        Err(Refusal::Failed(failure)) => {
            // That a payload is not in order would prove nothing.
            assert!(!matches!(&*failure.kind, "ValueError" | "TypeError"), "{failure:?}");
            Fate::Allowed
        }
        Err(other) => panic!("{other:?}"),
        Ok(granted) if matches!(act, Act::Connect { .. }) && granted.descriptor.is_none() => {
            Fate::Denied
        }
        Ok(_) => Fate::Allowed,
    };
    (fate, said)
}

/// What the policy says: of the act, and where its host is a name also of where that leads.
fn says(policy: &Policy, act: &Act) -> (bool, Option<String>) {
    let explanation = policy.explain(act);
    let verdict = policy.decide(act);
    assert_eq!(explanation.allowed, verdict.allowed);
    let (Some(Host::Name(name)), Some(rule)) = (act.host(), verdict.rule) else {
        return (explanation.allowed, explanation.grant_yaml);
    };
    let address = Names.resolve(name).unwrap()[0];
    if !verdict.allowed || policy.allows_address(act, rule, address) {
        return (explanation.allowed, explanation.grant_yaml);
    }
    let explanation = policy.explain_address(act, address);
    assert!(!explanation.allowed);
    (false, explanation.grant_yaml)
}

fn session(broker: &Arc<Broker>, policy: Policy) -> Session {
    let secrets =
        ["key", "other"].map(|it| (it.to_owned(), SecretValue::from("a value".repeat(3))));
    let options = SessionOptions {
        cell: CellName::new("test").unwrap(),
        policy: Arc::new(policy),
        limits: Limits::default(),
        secrets: BTreeMap::from(secrets),
        takes_descriptors: true,
        scratch: None,
        journal: None,
    };
    Session::new(Arc::clone(broker), options)
}

#[test]
fn what_is_explained_is_what_happens_and_the_suggested_grant_suffices() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    make_files(&root);
    let server = Server::new();
    let port = server.address.port();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let (asked, allowed) = (std::cell::RefCell::new(BTreeSet::new()), std::cell::Cell::new(0));
    let cases = (policy(&root, port), act(&root, port));
    let checked = runner.run(&cases, |(policy, act)| {
        // A broker of its own, so that no channel is full.
        let broker = Arc::new(Broker::new(BrokerOptions {
            resolver: Some(Arc::new(Names)),
            ..BrokerOptions::default()
        }));
        let session = session(&broker, policy.clone());
        let (says_yes, grant) = says(&policy, &act);
        let (fate, said) = ask(&session, &act);
        let expected = if says_yes { Fate::Allowed } else { Fate::Denied };
        prop_assert_eq!(&fate, &expected, "{}: {}", &act, said);
        asked.borrow_mut().insert((act.capability().to_owned(), says_yes));
        allowed.set(allowed.get() + u32::from(says_yes));
        let (mut grant, mut wider) = (grant, policy);
        // Two where the act is of a name: what it leads to is known once it may be resolved.
        for _ in 0..2 {
            let Some(yaml) = grant else { break };
            let text = format!("version: 1\n{yaml}");
            let document = Document::parse(&text, "suggested", Format::Yaml).unwrap();
            wider.extend(&document.defaults);
            session.set_policy(Arc::new(wider.clone()));
            let (fate, said) = ask(&session, &act);
            let (says_yes, next) = says(&wider, &act);
            let is_name = matches!(act.host(), Some(Host::Name(_)));
            prop_assert!(says_yes || is_name, "{}: {}", &act, text);
            let expected = if says_yes { Fate::Allowed } else { Fate::Denied };
            prop_assert_eq!(&fate, &expected, "{}: {} after {}", &act, said, text);
            grant = next;
        }
        // A denial has to go first, and no grant is suggested.
        let denied = |rule: &Rule| rule.effect == Effect::Deny;
        let is_over = says(&wider, &act).0 || wider.rules.iter().any(denied);
        prop_assert!(is_over, "{}", &act);
        Ok(())
    });
    checked.unwrap();
    // Every capability was asked for, and both allowed and denied.
    let asked = asked.into_inner();
    for capability in CAPABILITIES {
        for says_yes in [true, false] {
            assert!(asked.contains(&(capability.to_owned(), says_yes)), "{capability} {says_yes}");
        }
    }
    assert!(allowed.get() > CASES / 10, "{allowed:?} of {CASES}");
}
