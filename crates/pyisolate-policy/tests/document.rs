//! The text's form: every way to write a right, and what a cell gets.

use pyisolate_policy::{Act, Document, Effect, Format, LimitName, Policy};

fn document(text: &str) -> Document {
    Document::parse(text, "policy.yml", Format::Yaml).unwrap_or_else(|error| panic!("{error}"))
}

fn policy(text: &str) -> Policy {
    document(&format!("version: 1\n{text}")).defaults
}

fn may(policy: &Policy, line: &str) -> bool {
    let (verb, target) = line.split_once(' ').unwrap_or((line, ""));
    let target: Vec<String> = target.split_whitespace().map(str::to_owned).collect();
    let act = Act::parse(verb, &target).unwrap_or_else(|error| panic!("{line}: {error}"));
    policy.decide(&act).allowed
}

#[track_caller]
fn check(policy: &Policy, allowed: &[&str], denied: &[&str]) {
    for line in allowed {
        assert!(may(policy, line), "{line} is denied");
    }
    for line in denied {
        assert!(!may(policy, line), "{line} is allowed");
    }
}

#[test]
fn files() {
    let policy = policy(
        "fs:\n  read: /data\n  write: [/out/*.csv]\n  allow: [/tmp]\n  deny: [/data/private, {path: \
         /tmp/log, access: write}]\n",
    );
    check(
        &policy,
        &["read /data/x", "write /out/a.csv", "read /tmp/x", "write /tmp/x", "read /tmp/log"],
        &["write /data/x", "read /out/a.csv", "read /data/private/x", "write /tmp/log/x"],
    );
}

#[test]
fn network() {
    let policy = policy(
        r#"net:
  connect: ["db.example.org:5432", "[::1]:80", {host: "*.example.org", ports: 8000-8100}, "192.0.2.0/24:22"]
  http:
    - https://api.example.org/v1/
    - {url: "http://*.example.net", methods: [get, POST]}
    - {host: 10.0.0.0/8, port: 8080, path: /x}
    - https://shop.example.org:8443
  resolve: ["*.example.com"]
  deny: ["evil.example.net", "h.example.org:8000", "https://api.example.org/v1/admin", {resolve: a.example.com}]
"#,
    );
    check(
        &policy,
        &[
            "connect db.example.org:5432",
            "connect [::1]:80",
            "connect x.example.org:8050",
            "connect 192.0.2.7:22",
            "get https://api.example.org/v1/x",
            "head https://api.example.org/v1",
            "post http://a.example.net/x",
            "get http://10.1.2.3:8080/x/y",
            "get https://10.1.2.3:8080/x",
            "get https://shop.example.org:8443/",
            "resolve b.example.com",
            "resolve api.example.org",
        ],
        &[
            "connect db.example.org:5433",
            "connect example.org:8000",
            "connect evil.example.net:22",
            "connect h.example.org:8000",
            "post https://api.example.org/v1/x",
            "get https://api.example.org/v1/admin/x",
            "get https://api.example.org/v1/%61dmin",
            "get https://a.example.net/x",
            "get http://evil.example.net/",
            "get http://10.1.2.3/x",
            "get https://shop.example.org/",
            "resolve a.example.com",
            "resolve evil.example.net",
            "resolve example.com",
            "put http://a.example.net/x",
        ],
    );
}

#[test]
fn the_rest() {
    let policy = policy(
        r#"subprocess:
  run: [ls, {program: git, args: [log, "*"], env: {HOME: /none}, read: [/repo], mem: 64MiB}]
secrets:
  key: {use: [api.example.org]}
  shown: {reveal: true}
clock: [time]
random: {seed: 7}
ipc: {send: out, receive: [in]}
capabilities: {db: [query], mail: true}
imports: [math, os]
deny:
  subprocess: [rm]
  secrets: {shown: {use: ["*"]}}
  capabilities: {mail: [purge]}
  imports: [os.path]
"#,
    );
    check(
        &policy,
        &[
            "run ls",
            "run git log x",
            "use key",
            "use key api.example.org",
            "reveal shown",
            "clock time",
            "random",
            "send out",
            "receive in",
            "db.query",
            "mail.send",
            "import math",
            "import os",
        ],
        &[
            "run ls x",
            "run git log -p",
            "run git",
            "run rm x",
            "reveal key",
            "use key example.org",
            "use shown",
            "clock sleep",
            "send in",
            "receive out",
            "db.drop",
            "mail.purge",
            "import os.path",
            "import sys",
        ],
    );
}

#[test]
fn nothing_means_nothing() {
    for text in [
        "",
        "fs: {read: []}",
        "fs:",
        "net: {connect: [], http: [], resolve: []}",
        "imports: []",
        "clock: []",
        "clock: false",
        "random: false",
        "secrets: {a: {}}",
        "capabilities: {a: []}",
        "capabilities: {a: false}",
        "subprocess: {run: []}",
        "ipc: {}",
        "deny: {}",
    ] {
        assert_eq!(policy(text), Policy::default(), "{text}");
    }
}

#[test]
fn a_cell_has_the_defaults_and_its_own() {
    let document = document(
        r#"version: 1
defaults:
  imports: [math]
  cpu_ms: 1000
sandboxes:
  base: {fs: {read: [/base]}, limits: {cpu_ms: 3000, mem: 64MiB}}
  tenant-7: {extends: [compute-only, base], cpu_ms: 2000}
"#,
    );
    let own = document.policy(Some("tenant-7")).unwrap();
    check(&own, &["import math", "import json", "read /base/x"], &["read /x", "import os"]);
    assert_eq!(own.limits.0[&LimitName::Cpu], 2000);
    assert_eq!(own.limits.0[&LimitName::Memory], 64 << 20);
    let origin = |text: &str| {
        own.rules.iter().find(|rule| rule.to_string() == text).map(|rule| rule.origin.to_string())
    };
    assert_eq!(origin("fs: {read: [/base]}").unwrap(), "policy.yml:6");
    assert!(origin("imports: [json]").unwrap().starts_with("template compute-only:"));
    for cell in [None, Some("unlisted")] {
        let policy = document.policy(cell).unwrap();
        assert_eq!(policy, document.defaults);
    }
    assert!(document.policy(Some("no/name")).is_err());
}

#[test]
fn the_formats_say_the_same() {
    let yaml = "version: 1\nfs: {read: [/data]}\nnet: {connect: ['a.example:80']}\nmem: 64MiB\n";
    let toml = "version = 1\nmem = \"64MiB\"\n[fs]\nread = [\"/data\"]\n[net]\nconnect = \
                \"a.example:80\"\n";
    let json = r#"{"version": 1, "mem": "64MiB", "fs": {"read": ["\/data"]},
                   "net": {"connect": ["a\u002eexample:80"]}}"#;
    let read = |text, format| Document::parse(text, "p", format).unwrap();
    assert_eq!(read(yaml, Format::Yaml), read(toml, Format::Toml));
    assert_eq!(read(yaml, Format::Yaml), read(json, Format::Json));
    for (path, format) in [
        ("a.yml", Some(Format::Yaml)),
        ("a.yaml", Some(Format::Yaml)),
        ("b/a.toml", Some(Format::Toml)),
        ("a.json", Some(Format::Json)),
        ("a.txt", None),
        ("yml", None),
    ] {
        assert_eq!(Format::of_path(path.as_ref()), format, "{path}");
    }
}

#[test]
fn what_is_written_can_be_read_by_people() {
    let policy = policy(
        r#"fs: {read: [/data], deny: ["/data/*.key"]}
net: {http: ["https://api.example.org/v1"], connect: [{host: db, port: 5432, private: true}]}
secrets: {key: {use: [api.example.org]}}
deny: {imports: [os]}
cpu_ms: 1000
limits: {cpu_rate_max: 1.5}
"#,
    );
    assert_eq!(
        policy.to_yaml(),
        r#"version: 1
defaults:
  fs:
    read: [/data]
    deny: ["/data/*.key"]
  net:
    connect:
      - {host: db, port: 5432, private: true}
    http: [https://api.example.org/v1]
  secrets:
    key: {use: [api.example.org]}
  deny:
    imports: [os]
  limits:
    cpu_ms: 1000
    cpu_rate_max: 1.5
"#
    );
    assert_eq!(
        policy.to_toml(),
        r#"version = 1

[defaults.fs]
read = ["/data"]
deny = ["/data/*.key"]

[defaults.net]
connect = [{ host = "db", port = 5432, private = true }]
http = ["https://api.example.org/v1"]

[defaults.secrets]
key = { use = ["api.example.org"] }

[defaults.deny]
imports = ["os"]

[defaults.limits]
cpu_ms = 1000
cpu_rate_max = 1.5
"#
    );
    assert_eq!(
        policy.to_json(),
        r#"{
  "version": 1,
  "defaults": {
    "fs": {
      "read": ["/data"],
      "deny": ["/data/*.key"]
    },
    "net": {
      "connect": [{"host": "db", "port": 5432, "private": true}],
      "http": ["https://api.example.org/v1"]
    },
    "secrets": {
      "key": {"use": ["api.example.org"]}
    },
    "deny": {
      "imports": ["os"]
    },
    "limits": {
      "cpu_ms": 1000,
      "cpu_rate_max": 1.5
    }
  }
}
"#
    );
    assert!(policy.rules.iter().any(|rule| rule.effect == Effect::Deny));
}

#[test]
fn line_ends_marks_and_tabs_of_other_systems() {
    let read = |text: &str, format| {
        let document = Document::parse(text, "p", format);
        document.unwrap_or_else(|error| panic!("{error}")).defaults.rules.len()
    };
    assert_eq!(read("\u{feff}version: 1\r\nfs:\r\n  read:\r\n    - /a\r\n", Format::Yaml), 1);
    assert_eq!(read("version = 1\r\n[fs]\r\nread = [\"/a\"]\r\n", Format::Toml), 1);
    assert_eq!(read("{\r\n\t\"version\": 1, \"fs\":\r\n\t{\"read\":\"/a\"}}", Format::Json), 1);
    assert_eq!(
        read(
            r#"{"version": 1, "imports": ["\u006f\u0073"], "ipc": {"send": "\ud83d\ude00"}}"#,
            Format::Json
        ),
        2
    );
}
