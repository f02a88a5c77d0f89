use super::*;
use crate::act::{ClockAction, Direction};
use crate::right::{ConnectRight, FilesRight, RunRight};

fn path(text: &str) -> CleanPath {
    CleanPath::new(text).unwrap()
}

fn file(access: Access, text: &str) -> Act {
    Act::File { access, path: path(text) }
}

fn files(read: bool, write: bool, pattern: &str) -> Right {
    Right::Files(FilesRight { read, write, pattern: pattern.parse().unwrap() })
}

fn get(url: &str) -> Act {
    Act::Http { method: "GET".to_owned(), url: url.parse().unwrap() }
}

fn http(host: &str, port: Option<u16>, path: &str, methods: &[&str]) -> Right {
    Right::Http(HttpRight {
        scheme: None,
        host: host.parse().unwrap(),
        port,
        path: path.to_owned(),
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
        private: false,
    })
}

fn run(program: &str, args: &[&str]) -> Act {
    Act::Run { program: program.to_owned(), args: args.iter().map(|&a| a.to_owned()).collect() }
}

fn program(program: &str, args: &[&str]) -> Right {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    Right::Run(RunRight { args, ..RunRight::new(program) })
}

#[test]
fn files_by_access_and_place() {
    let read = files(true, false, "/data");
    assert!(read.covers(&file(Access::Read, "/data")));
    assert!(read.covers(&file(Access::Read, "/data/../data/x/y")));
    assert!(!read.covers(&file(Access::Write, "/data/x")));
    assert!(!read.covers(&file(Access::Read, "/data/../etc/passwd")));
    assert!(!read.covers(&file(Access::Read, "/database")));
    let csv = files(true, false, "/data/*.csv");
    assert!(csv.covers(&file(Access::Read, "/data/a.csv")));
    assert!(!csv.covers(&file(Access::Read, "/data/sub/a.csv")));
    assert!(!csv.covers(&file(Access::Read, "/data")));
    assert!(!csv.covers(&file(Access::Read, "/data/a.csv/x")));
}

#[test]
fn a_denied_folder_denies_what_is_below() {
    let keys = files(true, true, "/data/**/*.key");
    assert!(keys.denies(&file(Access::Read, "/data/a.key")));
    assert!(keys.denies(&file(Access::Write, "/data/x/a.key/inner")));
    assert!(!keys.covers(&file(Access::Write, "/data/x/a.key/inner")));
    assert!(!keys.denies(&file(Access::Read, "/data/x")));
    assert!(!files(true, false, "/data").denies(&file(Access::Write, "/data/x")));
}

#[test]
fn a_denial_below_a_folder_is_found() {
    let rule = |pattern: &str| Rule {
        effect: Effect::Deny,
        right: files(true, true, pattern),
        origin: Default::default(),
    };
    let below = |pattern: &str, folder: &str| {
        let policy = Policy { rules: vec![rule(pattern)], ..Policy::default() };
        policy.denial_below(&path(folder), Access::Write).is_some()
    };
    assert!(below("/data/secret", "/data") && below("/data/secret", "/"));
    assert!(below("/data/**/*.key", "/data/x/y") && below("/data/*/k", "/data/x"));
    assert!(!below("/data/secret", "/data/other") && !below("/data/*.key", "/data/x"));
    assert!(below("/data/secret", "/data/secret"));
}

#[test]
fn connections_by_host_and_port() {
    let right = Right::Connect(ConnectRight {
        host: "db.example.org".parse().unwrap(),
        ports: 5432..=5433,
        private: false,
    });
    let act = |host: &str, port| Act::Connect { host: host.parse().unwrap(), port };
    assert!(right.covers(&act("DB.example.org.", 5433)));
    assert!(!right.covers(&act("db.example.org", 5434)));
    assert!(!right.covers(&act("x.db.example.org", 5432)));
    let resolve = Act::Resolve { host: "db.example.org".parse().unwrap() };
    assert!(right.covers(&resolve) && !right.denies(&resolve));
}

#[test]
fn requests_by_all_their_parts() {
    let right = http("api.example.org", None, "/v1", &["GET"]);
    assert!(right.covers(&get("https://api.example.org/v1/x?y")));
    assert!(right.covers(&get("http://API.example.org.:80/v1")));
    for bad in [
        "https://api.example.org:444/v1",
        "http://api.example.org:443/v1",
        "https://api.example.org/v1x",
        "https://api.example.org/v1/../v2",
        "https://api.example.org/v1/%2e%2e%2fv2",
        "https://example.org/v1",
    ] {
        assert!(!right.covers(&get(bad)), "{bad}");
    }
    let post =
        Act::Http { method: "POST".to_owned(), url: "https://api.example.org/v1".parse().unwrap() };
    assert!(!right.covers(&post));
    assert!(http("*", None, "/", &["*"]).covers(&post));
}

#[test]
fn a_denied_request_is_denied_at_every_port_and_spelling() {
    let right = http("api.example.org", None, "/admin", &["*"]);
    for denied in [
        "https://api.example.org:8443/admin",
        "http://api.example.org/%61dmin/x",
        "https://api.example.org/x/..%2fadmin",
    ] {
        assert!(right.denies(&get(denied)), "{denied}");
    }
    assert!(!right.denies(&get("https://api.example.org/other")));
    assert!(http("10.0.0.0/8", None, "/", &["*"]).denies(&get("http://[64:ff9b::a00:1]/")));
}

#[test]
fn programs_by_name_and_arguments() {
    assert!(program("git", &[]).covers(&run("git", &[])));
    assert!(!program("git", &[]).covers(&run("git", &["status"])));
    assert!(!program("git", &[]).covers(&run("/usr/bin/git", &[])));
    let show = program("git", &["show", "*"]);
    assert!(show.covers(&run("git", &["show", "HEAD:src/a"])));
    for bad in [&["show", "--ext-diff"][..], &["show"], &["show", "a", "b"], &["log", "a"]] {
        assert!(!show.covers(&run("git", bad)), "{bad:?}");
    }
    for wild in ["?x", "[-]x", "*x"] {
        assert!(!program("p", &[wild]).covers(&run("p", &["-x"])), "{wild}");
    }
    assert!(program("p", &["-*"]).covers(&run("p", &["-x"])));
    let any = program("p", &["a", "**"]);
    assert!(any.covers(&run("p", &["a"])) && any.covers(&run("p", &["a", "-x", "y"])));
    assert!(!any.covers(&run("p", &["b"])) && !any.covers(&run("p", &[])));
}

#[test]
fn a_denied_program_is_denied_in_every_spelling() {
    let any = program("git", &["**"]);
    for spelling in ["git", "/usr/bin/git"] {
        assert!(any.denies(&run(spelling, &["-c", "x"])), "{spelling}");
    }
    assert!(program("/usr/bin/git", &["**"]).denies(&run("/usr/./bin//git", &[])));
    assert!(program("/usr/bin/git", &["**"]).denies(&run("git", &[])));
    assert!(!any.denies(&run("gitk", &[])));
    assert!(!program("/opt/git", &["**"]).denies(&run("/usr/bin/git", &[])));
    assert!(program("git", &["*"]).denies(&run("git", &["--upload-pack"])));
}

#[test]
fn secrets_by_purpose() {
    let secret = |reveal, hosts: &[&str]| {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        Right::Secret(SecretRight { name: "key".to_owned(), reveal, hosts })
    };
    let act = |purpose| Act::Secret { name: "key".to_owned(), purpose };
    let send = |host: &str| act(SecretPurpose::Send(host.parse().unwrap()));
    let bound = secret(false, &["*.example.org"]);
    assert!(bound.covers(&act(SecretPurpose::Use)) && bound.covers(&send("a.example.org")));
    assert!(!bound.covers(&act(SecretPurpose::Reveal)) && !bound.covers(&send("example.com")));
    let shown = secret(true, &[]);
    assert!(shown.covers(&act(SecretPurpose::Reveal)) && !shown.covers(&act(SecretPurpose::Use)));
    // To deny one host leaves the others.
    assert!(!bound.denies(&act(SecretPurpose::Use)) && bound.denies(&send("a.example.org")));
    assert!(secret(false, &["*"]).denies(&act(SecretPurpose::Use)));
}

#[test]
fn the_rest_by_name() {
    let clock = Right::Clock([ClockAction::Time].into());
    assert!(clock.covers(&Act::Clock { action: ClockAction::Time }));
    assert!(!clock.covers(&Act::Clock { action: ClockAction::Sleep }));
    assert!(Right::Random { seed: None }.covers(&Act::Random));
    let ipc = Right::Ipc { channel: "a".to_owned(), directions: [Direction::Send].into() };
    let act = |channel: &str, direction| Act::Ipc { channel: channel.to_owned(), direction };
    assert!(ipc.covers(&act("a", Direction::Send)));
    assert!(!ipc.covers(&act("a", Direction::Receive)) && !ipc.covers(&act("b", Direction::Send)));
    let module = |module: &str| Act::Import { module: module.to_owned() };
    let os = Right::Import("os".to_owned());
    assert!(os.covers(&module("os.path")) && os.covers(&module("os")));
    assert!(!os.covers(&module("osx")));
    let query = Act::Host { capability: "db".to_owned(), action: "query".to_owned() };
    let host = |actions| Right::Host { capability: "db".to_owned(), actions };
    assert!(host(None).covers(&query) && host(Some(["query".to_owned()].into())).covers(&query));
    assert!(!host(Some(Default::default())).covers(&query));
}
