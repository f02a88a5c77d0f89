//! Any bytes as the payload of a request: whatever decodes is read by every action of every
//! capability without a panic, and what is done at once is done.
//!
//! The first byte says which policy the cell has; the rest is the pickle.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use pyisolate_abi::pickle::{Caps, TrustedNames, decode};
use pyisolate_broker::{
    Broker, BrokerOptions, Pace, Refusal, SecretValue, Session, SessionOptions,
};
use pyisolate_policy::{CellName, Document, Format, Limits, Policy};

/// Small, so that nothing which is copied for each action is large.
const CAPS: Caps = Caps {
    pickle_bytes: 1 << 16,
    nodes: 4096,
    depth: 50,
    decoded_bytes: 1 << 20,
    memo: 4096,
    int_bits: 1 << 12,
    buffers: 0,
};

const ACTIONS: [(&str, &[&str]); 9] = [
    (
        "filesystem",
        &[
            "read", "write", "append", "open", "close", "truncate", "list", "stat", "exists",
            "mkdir", "remove", "rename", "none",
        ],
    ),
    ("network", &["connect", "resolve", "http", "receive", "close", "none"]),
    ("subprocess", &["run", "none"]),
    ("secret", &["reveal", "use", "none"]),
    ("clock", &["time", "monotonic", "sleep", "none"]),
    ("random", &["bytes", "none"]),
    ("ipc", &["send", "receive", "none"]),
    ("import", &["import", "none"]),
    ("nothing", &["none"]),
];

const EVERYTHING: &str = r#"
version: 1
fs: {allow: [/tmp/pyisolate-fuzz], deny: [/tmp/pyisolate-fuzz/x]}
net: {connect: ["*:*"], http: ["https://a.example/"], resolve: [a.example]}
subprocess: {run: [{program: "true", args: ["**"]}]}
secrets: {key: {reveal: true}, other: {use: [a.example]}}
clock: [time, monotonic, sleep]
random: {seed: 5}
ipc: {send: [a], receive: [a]}
imports: [json]
"#;

static BROKER: LazyLock<Arc<Broker>> =
    LazyLock::new(|| Arc::new(Broker::new(BrokerOptions::default())));
static POLICIES: LazyLock<[Arc<Policy>; 2]> = LazyLock::new(|| {
    let document = Document::parse(EVERYTHING, "fuzz", Format::Yaml).expect("a policy");
    [Arc::default(), Arc::new(document.defaults)]
});

fuzz_target!(|data: &[u8]| {
    let Some((&which, pickle)) = data.split_first() else { return };
    let Ok(message) = decode(pickle, &[], &TrustedNames::default(), &CAPS) else { return };
    let Ok(value) = message.to_value(&CAPS) else { return };
    let is_granted = which % 2 == 1;
    let secrets = ["key", "other"].map(|it| (it.to_owned(), SecretValue::from(it.to_owned())));
    let options = SessionOptions {
        cell: CellName::new("fuzz").expect("a name"),
        policy: Arc::clone(&POLICIES[usize::from(is_granted)]),
        limits: Limits::default(),
        secrets: BTreeMap::from(secrets),
        takes_descriptors: true,
        journal: None,
    };
    let session = Session::new(Arc::clone(&BROKER), options);
    for (capability, actions) in ACTIONS {
        for action in actions {
            let outcome = match session.begin(capability, action, &value) {
                // What may wait for somebody is not begun here.
                Ok(ready) if ready.pace() == Pace::Slow => continue,
                Ok(ready) => ready.perform(&session),
                Err(refused) => Err(refused.refusal),
            };
            match outcome {
                Ok(granted) => {
                    assert!(granted.descriptor.is_none());
                    let pickle = granted.value.to_pickle();
                    assert!(is_granted && pickle.len() <= 1 << 17, "{capability}.{action}");
                }
                Err(Refusal::Denied(denied)) => assert!(denied.reason.len() < 4000),
                Err(Refusal::Failed(failure)) => {
                    assert!(failure.message.len() < 4000, "{}", failure.message);
                }
                Err(Refusal::Exhausted { .. } | Refusal::Cancelled) => {}
            }
        }
    }
});
