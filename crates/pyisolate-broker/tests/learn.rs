//! Learning a policy from a recorded run, and trying a policy on one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use pyisolate_broker::journal::{
    Direction as Way, Journal, JournalOptions, Kind, Outcome, Reader, Record,
};
use pyisolate_broker::{Changes, DecidedBy, LearnOptions, Learned, ReplayError, learn, replay};
use pyisolate_policy::{
    Access, Act, CleanPath, ClockAction, Direction, Document, Format, Host, HttpUrl, Right,
    SecretPurpose,
};

/// What a run asked, and how each was answered.
type Asked = (Act, Outcome);

/// A journal of a cell that asked all of this.
fn recorded(policy: Option<&str>, asked: &[Asked]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, JournalOptions::default()).unwrap();
    if let Some(text) = policy {
        let policy = Document::parse(text, "policy.yml", Format::Yaml).unwrap().defaults.to_json();
        let record = Record::new("job", Way::Host, Kind::Spawn);
        journal.record(&record.with_payload(policy.as_bytes())).unwrap();
    }
    for (number, (act, outcome)) in (0..).zip(asked) {
        ask(&journal, number, act, *outcome, DecidedBy::Policy);
    }
    journal.close().unwrap();
    fs::read(path).unwrap()
}

/// A request and its answer, as a supervisor records them.
fn ask(journal: &Journal, number: u32, act: &Act, outcome: Outcome, layer: DecidedBy) {
    let denied = outcome == Outcome::Denied;
    let request = Record {
        operation: Some(number),
        capability: Some(act.capability()),
        act: Some(act),
        outcome: Some(outcome),
        layer: denied.then_some(layer),
        ..Record::new("job", Way::ToHost, Kind::Request)
    };
    journal.record(&request).unwrap();
    let act = if denied { Some(act) } else { None };
    let answer = Record { direction: Way::ToGuest, kind: Kind::Answer, act, ..request };
    journal.record(&answer).unwrap();
}

fn learnt(journal: &[u8], options: &LearnOptions) -> Learned {
    learn(Reader::new(journal), options).unwrap()
}

fn replayed(text: &str, journal: &[u8]) -> Changes {
    let document = Document::parse(text, "new.yml", Format::Yaml).unwrap();
    replay(&document, Reader::new(journal)).unwrap()
}

fn granted(verb: &str, target: &[&str]) -> Asked {
    let target: Vec<String> = target.iter().map(|word| (*word).to_owned()).collect();
    (Act::parse(verb, &target).unwrap(), Outcome::Granted)
}

fn denied(verb: &str, target: &[&str]) -> Asked {
    (granted(verb, target).0, Outcome::Denied)
}

fn yaml(journal: &[u8], options: &LearnOptions) -> String {
    learnt(journal, options).to_yaml(Path::new("run.journal"))
}

// --- learn ---------------------------------------------------------------------------------------

#[test]
fn what_was_asked_for_is_granted_and_no_more() {
    let journal = recorded(
        None,
        &[
            granted("read", &["/data/a.csv"]),
            granted("read", &["/data/a.csv"]),
            granted("write", &["/out/report"]),
            denied("write", &["/data/a.csv"]),
            granted("get", &["https://api.example/v1/users/7"]),
            granted("get", &["https://api.example/v1/users/8"]),
            granted("post", &["https://api.example/v1/jobs"]),
            granted("connect", &["db.example:5432"]),
            granted("run", &["git", "log", "--format=*"]),
            granted("clock", &["time"]),
        ],
    );
    let learned = learnt(&journal, &LearnOptions::default());
    assert_eq!(learned.decisions, 10);
    let policy = &learned.policy;
    for (verb, target, allowed) in [
        ("read", &["/data/a.csv"][..], true),
        ("write", &["/data/a.csv"], true),
        ("read", &["/data/b.csv"], false),
        ("read", &["/out/report"], false),
        ("get", &["https://api.example/v1/users/9"], true),
        ("get", &["https://api.example/v1/jobs"], false),
        ("post", &["https://api.example/v1/users/7"], false),
        ("get", &["http://api.example/v1/users/7"], false),
        ("connect", &["db.example:5433"], false),
        ("connect", &["api.example:443"], false),
        ("resolve", &["db.example"], true),
        ("run", &["git", "log", "--format=*"], true),
        ("run", &["git", "log", "--format=x"], false),
        ("run", &["git", "log"], false),
        ("clock", &["sleep"], false),
    ] {
        let (act, _) = granted(verb, target);
        assert_eq!(policy.decide(&act).allowed, allowed, "{act}");
    }
    let text = learned.to_yaml(Path::new("run.journal"));
    assert!(text.starts_with("# Learnt from 10 decisions in run.journal."), "{text}");
    assert!(text.contains("# 2 times, refused once\n"), "{text}");
    let parsed = Document::parse(&text, "learnt.yml", Format::Yaml).unwrap();
    assert_eq!(parsed.defaults, policy.canonical());
}

#[test]
fn every_rule_has_a_comment_of_its_own() {
    let journal = recorded(
        None,
        &[
            granted("read", &["/data/a, b"]),
            granted("read", &["/data/é]"]),
            denied("read", &["/data/c"]),
            granted("get", &["https://api.example/"]),
        ],
    );
    let text = yaml(&journal, &LearnOptions::default());
    assert_eq!(
        text,
        "# Learnt from 4 decisions in run.journal. Read it before you use it.
version: 1
defaults:
  fs:
    read:
      - \"/data/a, b\"  # once
      - /data/c  # refused once
      - \"/data/é]\"  # once
  net:
    http:
      - {url: https://api.example/, methods: [GET]}  # once
"
    );
}

#[test]
fn refusals_can_be_left_out() {
    let journal =
        recorded(None, &[granted("read", &["/data/a"]), denied("read", &["/etc/shadow"])]);
    let options = LearnOptions { granted_only: true, ..LearnOptions::default() };
    let text = yaml(&journal, &options);
    assert!(text.contains("/data/a") && !text.contains("shadow"), "{text}");
    assert!(yaml(&journal, &LearnOptions::default()).contains("/etc/shadow"));
}

#[test]
fn many_files_of_a_folder_become_the_folder_if_that_is_asked_for() {
    let names: Vec<String> = (0..5).map(|number| format!("/data/{number}.csv")).collect();
    let mut asked: Vec<Asked> = names.iter().map(|name| granted("read", &[name])).collect();
    asked.push(granted("write", &["/data/out.csv"]));
    asked.push(granted("read", &["/top"]));
    let journal = recorded(None, &asked);
    let rules = |fold| {
        let learned = learnt(&journal, &LearnOptions { fold, ..LearnOptions::default() });
        let files = |rule: &pyisolate_policy::Rule| match &rule.right {
            Right::Files(right) => (right.pattern.root.to_string(), right.read, right.write),
            other => panic!("{other:?}"),
        };
        learned.policy.rules.iter().map(files).collect::<Vec<_>>()
    };
    assert_eq!(rules(None).len(), 7);
    assert_eq!(rules(Some(5)).len(), 7);
    let folded = [("/data", true, false), ("/data/out.csv", false, true), ("/top", true, false)];
    assert_eq!(rules(Some(4)), folded.map(|(path, read, write)| (path.to_owned(), read, write)));
    // The root folder stays closed, however much of it was read.
    assert!(!rules(Some(0)).iter().any(|(path, ..)| path == "/"));
}

#[test]
fn what_no_act_tells_comes_from_the_policy_of_the_run() {
    let policy = "
version: 1
defaults:
  limits: {mem_bytes: 1GiB}
  imports: [csv, numpy]
  random: {seed: 7}
  net:
    connect:
      - {host: '*', port: 5432, private: true}
";
    let journal =
        recorded(Some(policy), &[granted("connect", &["db:5432"]), granted("random", &[])]);
    let learned = learnt(&journal, &LearnOptions::default()).policy;
    let limits: Vec<u64> = learned.limits.0.values().copied().collect();
    assert_eq!(limits, [1 << 30]);
    let has =
        |wanted: &dyn Fn(&Right) -> bool| learned.rules.iter().any(|rule| wanted(&rule.right));
    assert!(has(&|right| *right == Right::Import("numpy".to_owned())));
    assert!(has(&|right| *right == Right::Random { seed: Some(7) }));
    assert!(has(&|right| matches!(right, Right::Connect(right) if right.private)));
}

#[test]
fn the_advice_to_send_a_request_is_no_connection() {
    let policy = "version: 1\nnet: {http: [{url: https://api.example/v1, methods: [GET]}]}\n";
    let connect = || granted("connect", &["api.example:443"]);
    for asked in [
        vec![connect()],
        vec![connect(), granted("get", &["https://api.example/v1/a"])],
        vec![granted("get", &["https://api.example/v1/a"]), connect()],
    ] {
        let journal = recorded(Some(policy), &asked);
        assert!(replayed(policy, &journal).is_empty());
        let learned = learnt(&journal, &LearnOptions::default());
        assert!(
            matches!(&learned.policy.rules[..], [rule] if matches!(rule.right, Right::Http(_)))
        );
        assert!(replayed(&learned.policy.to_yaml(), &journal).is_empty());
    }
}

#[test]
fn an_address_has_to_be_granted_as_such() {
    let journal = recorded(None, &[denied("connect", &["10.0.0.1:5432"])]);
    assert!(replayed("version: 1\nnet: {connect: ['*:5432']}\n", &journal).is_empty());
    assert!(!replayed("version: 1\nnet: {connect: ['10.0.0.1:5432']}\n", &journal).is_empty());
}

#[test]
fn what_came_up_on_the_way_is_learnt_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, JournalOptions::default()).unwrap();
    let acts = [
        (Kind::Request, granted("get", &["https://a.example/"]).0),
        (Kind::Grant, granted("get", &["https://b.example/moved"]).0),
        (Kind::Grant, granted("use", &["key", "b.example"]).0),
    ];
    for (kind, act) in &acts {
        let outcome = Some(Outcome::Granted);
        let record = Record { act: Some(act), outcome, ..Record::new("job", Way::ToHost, *kind) };
        journal.record(&record).unwrap();
    }
    journal.close().unwrap();
    let learned = learnt(&fs::read(path).unwrap(), &LearnOptions::default());
    assert_eq!(learned.decisions, 3);
    assert!(acts.iter().all(|(_, act)| learned.policy.decide(act).allowed));
}

#[test]
fn a_folder_on_the_way_is_not_granted_whole() {
    let policy = "version: 1\nfs: {read: [\"/data/*/x.csv\"]}";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, JournalOptions::default()).unwrap();
    let json = Document::parse(policy, "p.yml", Format::Yaml).unwrap().defaults.to_json();
    let record = Record::new("job", Way::Host, Kind::Spawn);
    journal.record(&record.with_payload(json.as_bytes())).unwrap();
    for (number, (action, path)) in
        (0..).zip([("list", "/data"), ("stat", "/data/1"), ("read", "/data/1/x.csv")])
    {
        let act = granted("read", &[path]).0;
        let request = Record {
            operation: Some(number),
            capability: Some("filesystem"),
            action: Some(action),
            act: Some(&act),
            outcome: Some(Outcome::Granted),
            ..Record::new("job", Way::ToHost, Kind::Request)
        };
        journal.record(&request).unwrap();
    }
    journal.close().unwrap();
    let journal = fs::read(path).unwrap();
    // The run's own policy would answer as it did.
    assert!(replayed(policy, &journal).is_empty());
    let learned = learnt(&journal, &LearnOptions::default());
    let text = learned.to_yaml(Path::new("run.journal"));
    assert!(replayed(&text, &journal).is_empty(), "{text}");
    let beyond = granted("read", &["/data/other"]).0;
    assert!(!learned.policy.decide(&beyond).allowed, "{text}");
    assert!(text.contains("# 2 times; a folder that leads there was looked at"), "{text}");
    // Whoever reads may not list; and another policy is told to refuse it.
    assert_eq!(replayed("version: 1\nfs: {read: [/data/1/x.csv]}", &journal).denied.decisions, 2);
}

#[test]
fn cells_are_learnt_from_alone_or_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, JournalOptions::default()).unwrap();
    for cell in ["one", "two"] {
        let (act, _) = granted("read", &[&format!("/{cell}")]);
        let record = Record {
            act: Some(&act),
            outcome: Some(Outcome::Granted),
            ..Record::new(cell, Way::ToHost, Kind::Request)
        };
        journal.record(&record).unwrap();
    }
    journal.close().unwrap();
    let journal = fs::read(path).unwrap();
    assert_eq!(learnt(&journal, &LearnOptions::default()).policy.rules.len(), 2);
    let one = LearnOptions { cell: Some("one".to_owned()), ..LearnOptions::default() };
    assert_eq!(learnt(&journal, &one).policy.rules.len(), 1);
}

#[test]
fn what_no_policy_can_allow_is_not_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, JournalOptions::default()).unwrap();
    let (act, _) = granted("read", &["/data/device"]);
    ask(&journal, 0, &act, Outcome::Denied, DecidedBy::Broker);
    journal.close().unwrap();
    let journal = fs::read(path).unwrap();
    let learned = learnt(&journal, &LearnOptions::default());
    assert_eq!((learned.policy.rules.len(), learned.beyond), (0, 1));
    let changes = replayed("version: 1\ndefaults:\n  fs:\n    read: /data\n", &journal);
    assert!(changes.is_empty());
    assert_eq!(changes.beyond, 1);
}

// --- replay --------------------------------------------------------------------------------------

#[test]
fn what_no_policy_can_say_does_not_spoil_what_was_learnt() {
    let odd = [
        Act::Ipc { channel: "a\nb".to_owned(), direction: Direction::Send },
        Act::Secret { name: String::new(), purpose: SecretPurpose::Reveal },
        Act::Secret { name: "x".repeat(256), purpose: SecretPurpose::Use },
        Act::Import { module: "*".to_owned() },
        Act::Run { program: "../sh".to_owned(), args: Vec::new() },
        Act::Run { program: "x".to_owned(), args: vec!["\0".to_owned()] },
    ];
    let mut asked = vec![granted("read", &["/data/a"])];
    asked.extend(odd.map(|act| (act, Outcome::Denied)));
    let journal = recorded(None, &asked);
    let learned = learnt(&journal, &LearnOptions::default());
    assert_eq!((learned.decisions, learned.beyond), (1, 6));
    let text = learned.to_yaml(Path::new("run.journal"));
    let document = Document::parse(&text, "", Format::Yaml).unwrap();
    assert_eq!(document.defaults.rules.len(), 1, "{text}");
}

#[test]
fn replay_tells_what_would_change_and_why() {
    let journal = recorded(
        None,
        &[
            granted("read", &["/data/a"]),
            granted("read", &["/data/b"]),
            granted("read", &["/data/b"]),
            denied("write", &["/out/x"]),
            denied("connect", &["db:5432"]),
        ],
    );
    let text = "version: 1\ndefaults:\n  fs:\n    read: /data/a\n    write: /out\n";
    let changes = replayed(text, &journal);
    assert!(!changes.is_empty());
    assert_eq!(changes.unchanged, 2);
    let [newly] = &changes.allowed.examples[..] else { panic!("{changes:?}") };
    assert_eq!(newly.rule.as_deref(), Some("new.yml:5"));
    assert_eq!((newly.cell.as_str(), newly.times), ("job", 1));
    let [lost] = &changes.denied.examples[..] else { panic!("{changes:?}") };
    assert_eq!((changes.denied.decisions, lost.times, lost.line), (2, 2, 4));
    assert_eq!((&lost.rule, lost.act.to_string().as_str()), (&None, "read /data/b"));
    assert!(lost.grant.as_deref().is_some_and(|grant| grant.contains("/data/b")), "{lost:?}");
}

#[test]
fn examples_are_few_and_the_rest_is_counted() {
    let names: Vec<String> = (0..30).map(|number| format!("/data/{number}")).collect();
    let asked: Vec<Asked> = names.iter().map(|name| granted("read", &[name])).collect();
    let changes = replayed("version: 1\n", &recorded(None, &asked));
    let denied = &changes.denied;
    assert_eq!((denied.decisions, denied.examples.len(), denied.more), (30, 10, 20));
}

#[test]
fn each_cell_is_tried_with_its_own_rules() {
    let journal = recorded(None, &[granted("read", &["/data/a"])]);
    let text = "version: 1\ncells:\n  job:\n    fs:\n      read: /data\n";
    assert!(replayed(text, &journal).is_empty());
    assert!(!replayed(&text.replace("job:", "other:"), &journal).is_empty());
    let torn = &journal[..journal.len() - 3];
    let told = replay(&Document::default(), Reader::new(torn)).unwrap_err();
    assert!(matches!(told, ReplayError::Read(_)), "{told}");
}

// --- both ----------------------------------------------------------------------------------------

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{1,2}",
        "[a-zA-Z0-9._*?\\[\\]!#:%@&{}|>'\" -]{1,8}",
        "\\PC{1,4}".prop_map(|text| text.replace('/', "_")),
    ]
}

fn path() -> impl Strategy<Value = CleanPath> {
    prop::collection::vec(word(), 0..4)
        .prop_filter_map("no path", |parts| CleanPath::new(&format!("/{}", parts.join("/"))).ok())
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        "[a-c]{1,3}(\\.example)?",
        Just("10.0.0.1".to_owned()),
        Just("8.8.8.8".to_owned()),
        Just("2606:4700::1111".to_owned()),
        Just("localhost".to_owned()),
    ]
    .prop_filter_map("no host", |text| text.parse().ok())
}

fn url() -> impl Strategy<Value = HttpUrl> {
    let path = prop_oneof!["(/[a-c%]{0,2}){0,3}", "/[ -~]{0,6}", Just("/a%2fb".to_owned())];
    (any::<bool>(), host(), prop::option::of(1..=65535_u16), path).prop_filter_map(
        "no URL",
        |(tls, host, port, path)| {
            let scheme = if tls { "https" } else { "http" };
            let host = match &host {
                Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
                host => host.to_string(),
            };
            let port = port.map_or_else(String::new, |port| format!(":{port}"));
            format!("{scheme}://{host}{port}{path}").parse().ok()
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    let access = || prop_oneof![Just(Access::Read), Just(Access::Write)];
    let end = || prop_oneof![Just(Direction::Send), Just(Direction::Receive)];
    let name = || "[a-z][a-z_]{0,5}";
    let clock = prop_oneof![
        Just(ClockAction::Time),
        Just(ClockAction::Monotonic),
        Just(ClockAction::Sleep)
    ];
    let purpose = prop_oneof![
        Just(SecretPurpose::Reveal),
        Just(SecretPurpose::Use),
        host().prop_map(SecretPurpose::Send)
    ];
    let method = prop_oneof![Just("GET".to_owned()), Just("POST".to_owned())];
    let program = prop_oneof![Just("git".to_owned()), Just("/usr/bin/env".to_owned())];
    let args = prop::collection::vec(prop_oneof![word(), Just("**".to_owned())], 0..3);
    prop_oneof![
        4 => (access(), path()).prop_map(|(access, path)| Act::File { access, path }),
        2 => (host(), 1..=65535_u16).prop_map(|(host, port)| Act::Connect { host, port }),
        1 => host().prop_map(|host| Act::Resolve { host }),
        3 => (method, url()).prop_map(|(method, url)| Act::Http { method, url }),
        2 => (program, args).prop_map(|(program, args)| Act::Run { program, args }),
        1 => (name(), purpose).prop_map(|(name, purpose)| Act::Secret { name, purpose }),
        1 => clock.prop_map(|action| Act::Clock { action }),
        1 => Just(Act::Random),
        1 => (name(), end()).prop_map(|(channel, direction)| Act::Ipc { channel, direction }),
        1 => (Just("db".to_owned()), name())
            .prop_map(|(capability, action)| Act::Host { capability, action }),
        1 => name().prop_map(|module| Act::Import { module }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_run_passes_under_what_was_learnt_from_it(
        asked in prop::collection::vec(
            (act(), prop_oneof![Just(Outcome::Granted), Just(Outcome::Denied)]), 0..12),
        fold in prop::option::of(0..3_usize),
        granted_only in any::<bool>(),
    ) {
        let journal = recorded(None, &asked);
        let options = LearnOptions { cell: None, fold, granted_only };
        let learned = learnt(&journal, &options);
        prop_assert_eq!(learned.policy.rules.len(), learned.uses.len());
        let text = learned.to_yaml(Path::new("run.journal"));
        // Whatever the rules are, comments can be put to them.
        prop_assert_eq!(text.matches("  # ").count() >= learned.uses.len(), true, "{}", text);
        let parsed = Document::parse(&text, "learnt.yml", Format::Yaml);
        let document = parsed.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(&document.defaults, &learned.policy.canonical(), "{}", text);
        let changes = replay(&document, Reader::new(&journal[..])).unwrap();
        prop_assert_eq!(changes.denied.decisions, 0, "{:?}\n{}", changes, text);
        if !granted_only {
            prop_assert_eq!(changes.unchanged + changes.allowed.decisions, asked.len() as u64);
        }
        // Learning from the same run under the learnt policy teaches nothing new.
        if fold.is_none() && !granted_only {
            let all: Vec<Asked> =
                asked.iter().map(|(act, _)| (act.clone(), Outcome::Granted)).collect();
            let again = learnt(&recorded(Some(&learned.policy.to_yaml()), &all), &options);
            prop_assert_eq!(again.policy, learned.policy);
        }
    }
}
