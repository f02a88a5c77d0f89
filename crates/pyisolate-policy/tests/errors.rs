//! What people are shown when a text is no policy: word for word.

use pyisolate_policy::{Document, Format};

fn refused(text: &str, name: &str, format: Format) -> String {
    match Document::parse(text, name, format) {
        Ok(document) => panic!("{text:?} was read: {document:?}"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn yaml(text: &str, shown: &str) {
    assert_eq!(refused(text, "policy.yml", Format::Yaml), shown.trim_start_matches('\n'));
}

#[test]
fn an_unknown_key_has_a_suggestion() {
    yaml(
        "version: 1\nnet:\n  conect: [\"db:5432\"]\nfilesys: {}\n",
        r#"
policy.yml:3:3: unknown key "conect" in net
  |
3 |   conect: ["db:5432"]
  |   ^^^^^^
  = did you mean "connect"?

policy.yml:4:1: unknown key "filesys" in a policy
  |
4 | filesys: {}
  | ^^^^^^^
  = the keys are version, defaults, cells, extends, fs, net, subprocess, secrets, clock, random, ipc, capabilities, imports, deny, limits, mem, wall_time_ms, cpu_ms, cpu_rate_max, mem_bytes, output_bytes_max, output_bytes_per_second, message_bytes_max, unread_bytes_max, unread_messages_max, requests_per_second_max, open_files_max, child_work_max, network_ops_max, network_bytes_max, disk_bytes_max, scratch_bytes"#,
    );
}

#[test]
fn everything_is_told_at_once() {
    yaml(
        r#"version: 2
fs:
  read: [data, "/a/[", 7]
net:
  connect: ["db.example.org", "db:0", "::1:80"]
  http: ["api.example.org", "https://user@a/", {url: "https://a/", methods: ["G T"]}]
limits: {mem: 1MiB}
clock: [now]
"#,
        r#"
policy.yml:1:10: the version is 2
  |
1 | version: 2
  |          ^
  = this reads version 1

policy.yml:3:10: "data" is not absolute: begin it with '/'
  |
3 |   read: [data, "/a/[", 7]
  |          ^^^^

policy.yml:3:16: "/a/[" has a '[' that begins no class: write [[] for the character itself
  |
3 |   read: [data, "/a/[", 7]
  |                ^^^^^^

policy.yml:3:24: expected a path, found a number
  |
3 |   read: [data, "/a/[", 7]
  |                        ^
  = put a text that looks like that into quotes

policy.yml:5:13: "db.example.org" has no port
  |
5 |   connect: ["db.example.org", "db:0", "::1:80"]
  |             ^^^^^^^^^^^^^^^^
  = write it as db.example.org:5432, or {host: db.example.org, ports: 8000-8100}

policy.yml:5:31: this is no port
  |
5 |   connect: ["db.example.org", "db:0", "::1:80"]
  |                               ^^^^^^
  = use a number from 1 to 65535, a range as in 8000-8100, or *

policy.yml:5:39: "::1:80" has no port
  |
5 |   connect: ["db.example.org", "db:0", "::1:80"]
  |                                       ^^^^^^^^
  = an IPv6 address before a port has brackets, as in [::1]:80

policy.yml:6:10: "api.example.org" is no http or https URL
  |
6 |   http: ["api.example.org", "https://user@a/", {url: "https://a/", methods: ["G T"]}]
  |          ^^^^^^^^^^^^^^^^^
  = write it as https://api.example.org/v1

policy.yml:6:29: "user@a" is no host: use a DNS name or an IP address
  |
6 |   http: ["api.example.org", "https://user@a/", {url: "https://a/", methods: ["G T"]}]
  |                             ^^^^^^^^^^^^^^^^^

policy.yml:6:78: "G T" is no method
  |
6 |   http: ["api.example.org", "https://user@a/", {url: "https://a/", methods: ["G T"]}]
  |                                                                              ^^^^^
  = use GET, POST and the like, or * for all

policy.yml:7:15: mem_bytes=1048576 is outside 33554432..=70368744177664
  |
7 | limits: {mem: 1MiB}
  |               ^^^^

policy.yml:8:9: the clock has no "now"
  |
8 | clock: [now]
  |         ^^^
  = it has time, monotonic and sleep"#,
    );
}

#[test]
fn extends_names_what_there_is() {
    yaml(
        "version: 1\ncells:\n  a: {extends: b}\n  b: {extends: a}\n  c: {extends: web-scrapper}\n",
        r#"
policy.yml:4:16: "extends" goes round in a circle: a -> b -> a
  |
4 |   b: {extends: a}
  |                ^
  = remove one of them

policy.yml:5:16: there is no template or cell "web-scrapper"
  |
5 |   c: {extends: web-scrapper}
  |                ^^^^^^^^^^^^
  = did you mean "web-scraper"?"#,
    );
}

#[test]
fn a_document_is_one_form_or_the_other() {
    yaml(
        "version: 1\ndefaults: {}\nfs: {read: [/data]}\n",
        r#"
policy.yml:3:1: "fs" stands beside "defaults" or "cells"
  |
3 | fs: {read: [/data]}
  | ^^
  = move it below "defaults", for every cell"#,
    );
    yaml("", "policy.yml:1:1: the version is missing\n  = begin with: version: 1");
}

#[test]
fn what_is_no_yaml_toml_or_json() {
    yaml(
        "version: 1\nfs: {read: [/data}\n",
        r#"
policy.yml:2:18: this is no YAML: while parsing a flow sequence, expected ',' or ']'
  |
2 | fs: {read: [/data}
  |                  ^"#,
    );
    yaml(
        "version: 1\nfs: {}\nfs: {}\n",
        r#"
policy.yml:3:1: the key "fs" is there twice
  |
3 | fs: {}
  | ^^
  = the first is in line 2"#,
    );
    assert_eq!(
        refused("version = 1\n[fs]\nread = [1\n", "policy.toml", Format::Toml),
        r#"policy.toml:3:10: this is no TOML: unclosed array, expected `]`
  |
3 | read = [1
  |          ^"#
    );
    assert_eq!(
        refused("version = 1\n[fs]\nrad = [\"/a\"]\n", "policy.toml", Format::Toml),
        r#"policy.toml:3:1: unknown key "rad" in fs
  |
3 | rad = ["/a"]
  | ^^^
  = did you mean "read"?"#
    );
    assert_eq!(
        refused("{\"version\": 1,\n \"fs\": {\"read\": [\"/a\"}}", "policy.json", Format::Json),
        r#"policy.json:2:22: this is no JSON: expected `,` or `]`
  |
2 |  "fs": {"read": ["/a"}}
  |                      ^"#
    );
    assert_eq!(
        refused("{\"version\": 1, \"net\": {\"http\": 7}}", "policy.json", Format::Json),
        r#"policy.json:1:32: expected a URL, found a number
  |
1 | {"version": 1, "net": {"http": 7}}
  |                                ^
  = put a text that looks like that into quotes"#
    );
}

#[test]
fn texts_that_would_grow_without_end_are_refused() {
    let refused = |text: &str| refused(text, "policy.yml", Format::Yaml);
    let mut bomb = String::from("version: 1\nfs:\n  read: &a0 [/x, /y]\n");
    for level in 1..40 {
        let before = level - 1;
        bomb.push_str(&format!("x{level}: &a{level} [*a{before}, *a{before}, *a{before}]\n"));
    }
    assert!(refused(&bomb).contains("too many values"), "{}", refused(&bomb));
    let deep = format!("version: 1\nfs: {}", "[".repeat(100));
    assert!(refused(&deep).contains("nested too deep"));
    let deep = format!("version: 1\nfs: {}{}", "{a: ".repeat(100_000), "}".repeat(100_000));
    assert!(refused(&deep).contains("nested too deep"));
    let long = format!("version: 1\n#{}", "x".repeat(1 << 20));
    assert!(refused(&long).contains("longer than"));
    let many = format!("version: 1\nimports: [{}]", "a,".repeat(100_001));
    assert!(refused(&many).contains("too many values"));
    // To name the same thing again and again costs nothing.
    let twice = |names: &str| {
        let text = format!("version: 1\nextends: [{names}]");
        Document::parse(&text, "policy.yml", Format::Yaml).unwrap().defaults
    };
    let many = "ml-inference,compute-only,".repeat(40_000);
    assert_eq!(twice(&many), twice("ml-inference,compute-only"));
    let deep = format!("{{\"version\":1,\"fs\":{}{}}}", "[".repeat(100), "]".repeat(100));
    let error = Document::parse(&deep, "policy.json", Format::Json).unwrap_err().to_string();
    assert!(error.contains("nested too deep"), "{error}");
    assert!(Document::parse(&"[".repeat(500_000), "policy.json", Format::Json).is_err());
    assert!(Document::parse(&format!("a={}", "[".repeat(500_000)), "p", Format::Toml).is_err());
}

#[test]
fn long_texts_cannot_be_repeated_without_end() {
    let refused = |text: &str| refused(text, "policy.yml", Format::Yaml);
    let long = "x".repeat(100_000);
    // Some 300 MB each, if nobody counted bytes.
    let aliases = "*a, ".repeat(3000);
    let bomb = format!("version: 1\nx: &a {long}\ny: [{aliases}]");
    assert!(refused(&bomb).contains("too many values"), "{}", refused(&bomb));
    let bomb = format!("version: 1\nx: &a {{{long}: 1}}\ny: [{aliases}]");
    assert!(refused(&bomb).contains("too many values"), "{}", refused(&bomb));
    let mut bomb = format!(
        "version: 1\ncells:\n  a: {{deny: {{subprocess: [{{program: x, args: [{long}]}}]}}}}\n"
    );
    (0..3000).for_each(|cell| bomb.push_str(&format!("  c{cell}: {{extends: a}}\n")));
    assert!(refused(&bomb).contains("too many rules"), "{}", refused(&bomb));
    // Each anchor keeps a copy of all that is inside it.
    let anchors: String = (0..60).map(|level| format!("&a{level} [")).collect();
    let bomb = format!("version: 1\nx: {anchors}{}{}", "y,".repeat(50_000), "]".repeat(60));
    assert!(refused(&bomb).contains("too many values"), "{}", refused(&bomb));
    // An ordinary text may be named often.
    let fine = format!("version: 1\nimports: [&a json, {}]", "*a, ".repeat(3000));
    assert!(Document::parse(&fine, "policy.yml", Format::Yaml).is_ok());
}

#[test]
fn what_is_wrong_with_one_long_line_is_not_kept_with_all_of_it() {
    // A copy of the line for each problem would be 2 GB here, and 30 GB for the longest text.
    let text = format!(r#"{{"version": 1, "imports": [{}"a"]}}"#, r#""1","#.repeat(22_000));
    let error = Document::parse(&text, "policy.json", Format::Json).unwrap_err();
    assert_eq!(error.problems().count(), 22_000);
    assert!(format!("{error:?}").len() < 22_000 * 1000);
}

#[test]
fn many_names_are_not_looked_at_again_and_again() {
    let cells = |count, rules: &str| {
        let cell = |cell: usize| format!("  cell{cell}: {{{rules}{cell}}}\n");
        (0..count).map(cell).collect::<String>()
    };
    let names =
        |name: &str, count| (0..count).map(|cell| format!("{name}{cell}, ")).collect::<String>();
    let begin = std::time::Instant::now();
    let (all, extends) = (cells(8000, "imports: m"), names("cell", 8000));
    let text = format!("version: 1\ncells:\n{all}  x: {{extends: [{extends}]}}");
    let document = Document::parse(&text, "policy.yml", Format::Yaml).unwrap();
    assert_eq!(document.policy(Some("x")).unwrap().rules.len(), 8000);
    let extends = names("call", 3000);
    let text = format!("version: 1\ncells:\n{all}  x: {{extends: [{extends}]}}");
    let error = refused(&text, "policy.yml", Format::Yaml);
    assert!(error.contains("did you mean") && error.ends_with("and 2980 more"), "{error}");
    // Each with each, the two would take some minutes.
    assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn a_denial_that_denies_nothing_is_refused() {
    for denial in [
        "deny: {secrets: {key: }}",
        "deny: {secrets: {key: {reveal: false}}}",
        "deny: {capabilities: {db: }}",
        "deny: {capabilities: {db: []}}",
        "deny: {clock: []}",
        "deny: {net: [{}]}",
        "net: {deny: [{connect: }]}",
        "net: {deny: [{http: {url: \"https://a.example\", methods: []}}]}",
    ] {
        let text = refused(&format!("version: 1\n{denial}"), "policy.yml", Format::Yaml);
        assert!(text.contains("this denies nothing"), "{text}");
    }
    // What is left out is meant whole.
    for denial in [
        "deny: {subprocess: [{program: git, args: }]}",
        "net: {deny: [{http: {url: \"https://a.example\", methods: }}]}",
    ] {
        let text = format!("version: 1\n{denial}");
        let read = Document::parse(&text, "policy.yml", Format::Yaml).unwrap().defaults;
        let whole = text.replace(", args: ", "").replace(", methods: ", "");
        let whole = Document::parse(&whole, "policy.yml", Format::Yaml).unwrap().defaults;
        assert_eq!(read, whole, "{denial}");
    }
    for none in ["deny: {clock: false}", "deny: {capabilities: {db: false}}", "deny: "] {
        let text = format!("version: 1\n{none}");
        let read = Document::parse(&text, "policy.yml", Format::Yaml).unwrap();
        assert!(read.defaults.rules.is_empty());
    }
}

#[test]
fn what_is_not_seen_is_spelt_out() {
    for c in ['\u{202e}', '\u{200b}', '\u{e0041}', '\u{ad}'] {
        let text = format!("version: 1\nfs: {{read: [\"/a{c}b\"]}}");
        let policy = Document::parse(&text, "", Format::Yaml).unwrap().defaults;
        for (text, format) in [(policy.to_yaml(), Format::Yaml), (policy.to_toml(), Format::Toml)] {
            assert!(!text.contains(c), "{text}");
            assert_eq!(Document::parse(&text, "", format).unwrap().defaults, policy);
        }
    }
}
