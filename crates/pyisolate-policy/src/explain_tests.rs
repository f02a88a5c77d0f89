use super::*;
use crate::text::{Document, Format};

const POLICY: &str = r#"version: 1
fs:
  read: [/data/in, "/data/*.csv"]
  deny: [/data/in/private]
net:
  connect: ["db.example.org:5432"]
  http: ["https://api.example.org/v1"]
subprocess:
  run: [{program: git, args: [log, "**"]}]
secrets:
  key: {use: [api.example.org]}
clock: [time]
capabilities: {db: [query]}
imports: [os.path]
"#;

fn explain(line: &str) -> Explanation {
    let policy = Document::parse(POLICY, "policy.yml", Format::Yaml).unwrap().defaults;
    let mut words = line.split(' ').map(str::to_owned);
    let act = Act::parse(&words.next().unwrap(), &words.collect::<Vec<_>>()).unwrap();
    policy.explain(&act)
}

#[test]
fn the_guest_is_told_what_is_missing() {
    for (line, summary) in [
        (
            "read /etc/x.csv",
            "filesystem.read /etc/x.csv is not granted: no rule matched. To allow it, add \
             'fs: {read: [/etc/x.csv]}' or grant ReadPath(\"/etc/x.csv\").",
        ),
        (
            "connect db.example.org:80",
            "network.connect db.example.org:80 is not granted: no rule matched. To allow it, add \
             'net: {connect: [db.example.org:80]}' or grant ConnectTCP(\"db.example.org\", 80).",
        ),
        (
            "post https://api.example.org/v1/x",
            "network.http POST https://api.example.org/v1/x is not granted: no rule matched. To \
             allow it, add 'net: {http: [{url: https://api.example.org/v1/x, methods: [POST]}]}' or \
             grant Http(\"https://api.example.org/v1/x\", methods=[\"POST\"]).",
        ),
        (
            "run git status",
            "subprocess.run git \"status\" is not granted: no rule matched. To allow it, add \
             'subprocess: {run: [{program: git, args: [status]}]}' or grant \
             Command(\"git\", args=[\"status\"]).",
        ),
        (
            "reveal key",
            "secret.reveal key is not granted: no rule matched. To allow it, add \
             'secrets: {key: {reveal: true}}' or grant Secret(\"key\", reveal=True).",
        ),
        (
            "clock sleep",
            "clock.sleep is not granted: no rule matched. To allow it, add 'clock: [sleep]' or \
             grant Clock(\"sleep\").",
        ),
        (
            "random",
            "random.bytes is not granted: no rule matched. To allow it, add 'random: true' or \
             grant Random().",
        ),
        (
            "send out",
            "ipc.send out is not granted: no rule matched. To allow it, add 'ipc: {send: [out]}' \
             or grant Channel(\"out\", \"send\").",
        ),
        (
            "db.drop",
            "db.drop is not granted: no rule matched. To allow it, add 'capabilities: {db: \
             [drop]}' or grant Capability(\"db\", [\"drop\"]).",
        ),
        (
            "import os",
            "import os is not granted: no rule matched. To allow it, add 'imports: [os]' or grant \
             Import(\"os\").",
        ),
        (
            "read /data/in/private/x",
            "filesystem.read /data/in/private/x is denied by 'fs: {deny: [/data/in/private]}' at \
             policy.yml:4. To allow it, that rule has to go.",
        ),
        (
            "read /data/in/x",
            "filesystem.read /data/in/x is granted by 'fs: {read: [/data/in]}' at policy.yml:3.",
        ),
    ] {
        assert_eq!(explain(line).summary(), summary);
    }
}

#[test]
fn the_nearest_rules_say_what_is_different() {
    for (line, why) in [
        ("write /data/in/x", "this path is granted for reading only"),
        ("read /data/x.txt", "the path is below its folder, but does not match *.csv"),
        ("connect db.example.org:80", "the host is the same, the port another"),
        ("connect x.db.example.org:5432", "it grants db.example.org alone, not the names below it"),
        (
            "post https://api.example.org/v2",
            "the host is the same, but the path is not below /v1, POST is not among its methods",
        ),
        ("get http://api.example.org/v1", "the host is the same, but the scheme is http"),
        ("run git status", "argument 1 does not match"),
        ("run /usr/bin/git log", "it grants git under that name alone"),
        ("reveal key", "it may be used in requests to its hosts, nothing else"),
        ("db.drop", "it grants other actions of the capability"),
        ("import os", "it grants a module below this one"),
    ] {
        let near = explain(line).near;
        assert_eq!(near.first().map(|miss| miss.why.as_str()), Some(why), "{line}");
    }
    assert_eq!(explain("read /etc/passwd").near, []);
}

#[test]
fn everything_over_several_lines() {
    assert_eq!(
        explain("write /data/in/x").to_string(),
        r#"denied: filesystem.write /data/in/x
  no rule matched
almost:
  policy.yml:3: fs: {read: [/data/in]}
    this path is granted for reading only
  policy.yml:3: fs: {read: ["/data/*.csv"]}
    the path is below its folder, but does not match *.csv
to allow it, add to the policy:
  fs:
    write: [/data/in/x]
or grant in Python:
  WritePath("/data/in/x")"#
    );
}

#[test]
fn a_long_act_has_a_short_summary() {
    let path = format!("read /{}", "é/".repeat(1300));
    let summary = explain(&path).summary();
    assert!(summary.len() <= 600 && summary.contains("not granted"), "{summary}");
}

#[test]
fn a_private_address_has_to_be_named() {
    let policy = Document::parse(
        "version: 1\nnet: {connect: [db.example.org:5432], deny: [{connect: '10.9.0.0/16:*'}]}",
        "policy.yml",
        Format::Yaml,
    )
    .unwrap()
    .defaults;
    let act = Act::parse("connect", &["db.example.org:5432".to_owned()]).unwrap();
    let explanation = policy.explain_address(&act, "10.0.0.1".parse().unwrap());
    assert_eq!(
        explanation.summary(),
        "network.connect db.example.org:5432 is not granted at 10.0.0.1, which is no public \
         address. To allow it, add 'net: {connect: [{host: db.example.org, port: 5432, private: \
         true}]}' or grant ConnectTCP(\"db.example.org\", 5432, private=True). 10.0.0.1 is a \
         private address: grant it by that address, by its network, or with private: true."
    );
    let explanation = policy.explain_address(&act, "10.9.0.1".parse().unwrap());
    assert_eq!(
        explanation.summary(),
        "network.connect db.example.org:5432 at 10.9.0.1 is denied by 'net: {deny: [{connect: \
         \"10.9.0.0/16:*\"}]}' at policy.yml:2. To allow it, that rule has to go."
    );
    let resolve = Act::parse("resolve", &["db.example.org".to_owned()]).unwrap();
    let explanation = policy.explain_address(&resolve, "127.0.0.1".parse().unwrap());
    assert_eq!(explanation.grant_python.as_deref(), Some("Resolve(\"127.0.0.1\")"));
}
