//! Secrets: what a cell can do with one that it never has.

use std::io::Write;
use std::sync::{Arc, Mutex};

use crate::servers::*;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pyisolate_abi::pickle::Value;
use pyisolate_broker::{DecidedBy, Refusal, SecretValue, Session};

const KEY: &str = "sk-live-4f9a8b7c6d5e4f3a/+&\"x";

type Seen = Arc<Mutex<Vec<Asked>>>;

/// A server that keeps what it was asked.
fn keeping(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> (Server, Seen) {
    keeping_at("127.0.0.1", answer)
}

fn keeping_at(
    ip: &str,
    answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
) -> (Server, Seen) {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let server = Server::http_at(ip.parse().unwrap(), move |asked| {
        kept.lock().unwrap().push(asked.clone());
        answer(asked)
    });
    (server, seen)
}

fn cell(port: u16) -> Cell {
    let mut cell = Cell::new([
        http(None, "127.0.0.0/8", port, "/"),
        secret("key", false, &["127.0.0.1"]),
        secret("shown", true, &[]),
        secret("raw", true, &[]),
        secret("short", false, &["127.0.0.1"]),
        secret("lines", false, &["127.0.0.1"]),
        secret("gone", true, &["127.0.0.1"]),
    ]);
    cell.secrets = vec![
        ("key", SecretValue::from(KEY.to_owned())),
        ("shown", SecretValue::from("text".to_owned())),
        ("raw", SecretValue::from(b"text".to_vec())),
        ("short", SecretValue::from("1234567".to_owned())),
        ("lines", SecretValue::from("12345678\r\nX-A: b".to_owned())),
        ("ungranted", SecretValue::from("12345678".to_owned())),
    ];
    cell
}

fn named(name: &str) -> [(&'static str, Value); 1] {
    [("name", text(name))]
}

fn use_secret(session: &Session, name: &str) -> String {
    let granted = ask(session, "secret", "use", &named(name)).unwrap();
    let Value::Text(placeholder) = granted.value else { panic!("{granted:?}") };
    placeholder
}

fn with_header(session: &Session, url: &str, name: &str, value: &str) -> Result<Answer, Refusal> {
    ask_http(session, "GET", url, &[headers(&[(name, value)])])
}

fn shows_nothing(what: impl std::fmt::Debug) {
    let shown = format!("{what:?}");
    assert!(!shown.contains("4f9a8b7c6d5e4f3a"), "{shown}");
}

#[test]
fn a_secret_is_revealed_only_if_that_is_granted() {
    let session = cell(80).session();
    let reveal = |name| ask(&session, "secret", "reveal", &named(name));
    assert_eq!(reveal("shown").unwrap().value, text("text"));
    assert_eq!(reveal("raw").unwrap().value, Value::Bytes(b"text".to_vec()));
    for name in ["key", "ungranted", "other", "KEY"] {
        shows_nothing(denied(reveal(name)));
    }
    assert_eq!(failed(reveal("gone")).kind, "LookupError");
    denied(ask(&session, "secret", "use", &named("shown")));
    shows_nothing(&session);
    shows_nothing(SecretValue::from(KEY.to_owned()));
}

#[test]
fn a_placeholder_is_all_that_the_guest_gets() {
    let session = cell(80).session();
    let placeholder = use_secret(&session, "key");
    assert!(placeholder.starts_with("pyisolate-secret-key-"), "{placeholder}");
    assert_eq!(placeholder, use_secret(&session, "key"));
    assert_ne!(placeholder, use_secret(&cell(80).session(), "key"));
    let short = failed(ask(&session, "secret", "use", &named("short")));
    assert!(short.message.contains("8 to 8192 bytes") && !short.message.contains("1234567"));
    assert_eq!(failed(ask(&session, "secret", "use", &named("gone"))).kind, "LookupError");
}

#[test]
fn the_server_gets_the_value_where_the_guest_wrote_the_placeholder() {
    let (server, seen) = keeping(|_| ok("fine"));
    let session = cell(server.port).session();
    let key = use_secret(&session, "key");
    with_header(&session, &server.url("/"), "Authorization", &format!("Bearer {key}")).unwrap();
    with_header(&session, &server.url("/"), "X-Key", &format!("{key},{key}")).unwrap();
    let basic = format!("basic {}", BASE64_STANDARD.encode(format!("user:{key}")));
    with_header(&session, &server.url("/"), "authorization", &basic).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].header("authorization"), Some(&*format!("Bearer {KEY}")));
    assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
    assert_eq!(seen[1].header("x-key"), Some(&*format!("{KEY},{KEY}")));
    let sent = format!("basic {}", BASE64_STANDARD.encode(format!("user:{KEY}")));
    assert_eq!(seen[2].header("authorization"), Some(&*sent));
}

#[test]
fn a_placeholder_of_another_cell_stands_for_nothing() {
    let (server, seen) = keeping(|_| ok("fine"));
    let other = use_secret(&cell(server.port).session(), "key");
    let session = cell(server.port).session();
    use_secret(&session, "key");
    with_header(&session, &server.url("/"), "X-Key", &other).unwrap();
    assert_eq!(seen.lock().unwrap()[0].header("x-key"), Some(&*other));
}

#[test]
fn a_secret_goes_to_its_hosts_alone() {
    let (server, seen) = keeping(|_| ok("fine"));
    let session = cell(server.port).session();
    let key = use_secret(&session, "key");
    let url = format!("http://127.0.0.2:{}/", server.port);
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("user:{key}")));
    for (name, value) in [("X-Key", &key), ("Authorization", &basic)] {
        let denied = denied(with_header(&session, &url, name, value));
        assert!(denied.reason.contains("key"), "{denied:?}");
        shows_nothing(denied);
    }
    assert_eq!(server.taken(), 0);
    // A changed policy holds for placeholders that were given before.
    session.set_policy(policy(&[http(None, "127.0.0.0/8", server.port, "/")]));
    denied(with_header(&session, &server.url("/"), "X-Key", &key));
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn a_secret_goes_into_headers_alone() {
    let (server, _) = keeping(|_| ok("fine"));
    let session = cell(server.port).session();
    let key = use_secret(&session, "key");
    let url = server.url("/");
    let in_body = ("body", Value::Bytes(format!("key={key}").into_bytes()));
    for asked in [
        get(&session, &format!("{url}{key}")),
        get(&session, &format!("{url}?key={key}&x=y")),
        ask_http(&session, "POST", &url, &[in_body]),
        with_header(&session, &url, &key, "x"),
    ] {
        let denied = denied(asked);
        assert_eq!(denied.layer, DecidedBy::Broker);
        assert!(denied.reason.contains("into the values of headers only"), "{denied:?}");
    }
    let lines = use_secret(&session, "lines");
    let failure = failed(with_header(&session, &url, "X-Key", &lines));
    assert!(failure.message.contains("control character"), "{failure:?}");
    assert_eq!(server.taken(), 0);
}

#[test]
fn a_secret_does_not_leave_the_machine_without_tls() {
    let names = Names::new(&[("a.example", &[&["127.0.0.1", "10.0.0.1"]])]);
    let mut cell = cell(80);
    cell.names = Some(names);
    cell.rules = vec![http(None, "a.example", 80, "/"), secret("key", false, &["a.example"])];
    let session = cell.session();
    let key = use_secret(&session, "key");
    let denied = denied(with_header(&session, "http://a.example/", "X-Key", &key));
    assert_eq!(denied.layer, DecidedBy::Broker);
    assert!(denied.reason.contains("use https"), "{denied:?}");
}

#[test]
fn what_comes_back_has_no_secret_in_it() {
    let (server, seen) = keeping(|asked| {
        let key = asked.header("x-key").unwrap();
        let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        let headers = format!("X-Echo: {key}\r\nX-Hex: {hex}\r\nX-Other: kept\r\n");
        let json = key.replace('"', "\\\"");
        let base64 = BASE64_STANDARD.encode(format!("user:{key}"));
        let percent = key.replace('/', "%2F").replace('+', "%2B").replace('&', "%26");
        let percent = percent.replace('"', "%22");
        let body = format!("{key}|{{\"{json}\"}}|{base64}|{percent}|{hex}|end");
        answer(&format!("200 got {key}"), &headers, body)
    });
    let session = cell(server.port).session();
    let key = use_secret(&session, "key");
    let answer = with_header(&session, &server.url("/"), "X-Key", &key).unwrap();
    // The control: the server did have it.
    assert_eq!(seen.lock().unwrap()[0].header("x-key"), Some(KEY));
    shows_nothing(&answer);
    assert_eq!(answer.field("reason"), &text(&format!("got {key}")));
    assert_eq!(answer.header("x-echo"), Some(key.clone()));
    assert_eq!(answer.header("x-hex"), Some("*".repeat(KEY.len() * 2)));
    assert_eq!(answer.header("x-other").as_deref(), Some("kept"));
    assert_eq!(answer.header("content-length"), None);
    let body = String::from_utf8(answer.body(&session).unwrap()).unwrap();
    let parts: Vec<&str> = body.split('|').collect();
    assert_eq!(parts[0], key);
    assert_eq!(parts[1], format!("{{\"{}\"}}", "*".repeat(KEY.len() + 1)));
    assert!(parts[2].contains("********************"), "{body}");
    assert!(parts[3].chars().chain(parts[4].chars()).all(|c| c == '*'), "{body}");
    assert_eq!(parts[5], "end");
}

#[test]
fn a_secret_is_found_wherever_the_answer_is_cut() {
    let server = Server::new(|mut stream| {
        let Some(asked) = Asked::read(&mut stream) else { return };
        let key = asked.header("x-key").unwrap().as_bytes();
        let (one, two) = key.split_at(15);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in [b"before ", one, two, b" after", one] {
            let _ = stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes());
            let _ = stream.write_all(piece);
            let _ = stream.write_all(b"\r\n");
            std::thread::sleep(std::time::Duration::from_millis(40)); // pieces of their own
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        farewell(&stream);
    });
    let session = cell(server.port).session();
    let key = use_secret(&session, "key");
    let answer = with_header(&session, &server.url("/"), "X-Key", &key).unwrap();
    let body = String::from_utf8(answer.body(&session).unwrap()).unwrap();
    // A beginning that the answer's end cuts off is not shown either.
    assert_eq!(body, format!("before {key} after***************"));
}

#[test]
fn a_host_that_was_sent_a_secret_may_give_it_back_later() {
    let (server, seen) = keeping(|asked| match asked.path() {
        "/gzip" => answer("200 OK", "Content-Encoding: gzip\r\n", "\x1f\x0b"),
        _ => ok(KEY),
    });
    let session = cell(server.port).session();
    let key = use_secret(&session, "key");
    // Before it was sent, it is just a text.
    let before = get(&session, &server.url("/")).unwrap();
    assert_eq!(before.field("body"), &Value::Bytes(KEY.into()));
    with_header(&session, &server.url("/"), "X-Key", &key).unwrap();
    let asked = with_header(&session, &server.url("/"), "Accept-Encoding", "gzip").unwrap();
    assert_eq!(asked.field("body"), &Value::Bytes(key.into_bytes()));
    assert_eq!(seen.lock().unwrap()[2].header("accept-encoding"), Some("identity"));
    // What cannot be looked through is not handed on.
    let failure = failed(get(&session, &server.url("/gzip")));
    assert!(failure.message.contains("compressed"), "{failure:?}");
    let denied = denied(with_header(&session, &server.url("/"), "Range", "bytes=0-5"));
    assert!(denied.reason.contains("a part of an answer"), "{denied:?}");
    // Another host is not concerned.
    let gzip = |_: &Asked| answer("200 OK", "Content-Encoding: gzip\r\n", "\x1f\x0b");
    let (other, _) = keeping_at("127.0.0.2", gzip);
    session.set_policy(policy(&[http(None, "127.0.0.2", other.port, "/")]));
    with_header(&session, &other.url("/"), "Range", "bytes=0-5").unwrap();
}

#[test]
fn a_redirect_does_not_carry_a_secret_elsewhere() {
    let (other, elsewhere) = keeping_at("127.0.0.2", |_| ok("elsewhere"));
    let target = other.url("/");
    let (server, _) = keeping(move |asked| match asked.path() {
        "/echo" => redirect("302 Found", &format!("/?{}", asked.header("x-key").unwrap())),
        "/same" => redirect("302 Found", "/end"),
        "/end" => ok(asked.header("x-key").or(asked.header("authorization")).unwrap()),
        _ => redirect("302 Found", &target),
    });
    let mut cell = cell(server.port);
    cell.rules.push(http(None, "127.0.0.2", other.port, "/"));
    let session = cell.session();
    let key = use_secret(&session, "key");
    let ask = |path: &str, name: &str| {
        let more = [headers(&[(name, &key)]), ("redirects", Value::Int(3))];
        ask_http(&session, "GET", &server.url(path), &more)
    };
    // Within the same origin it goes along.
    let answer = ask("/same", "X-Key").unwrap();
    assert_eq!(answer.field("body"), &Value::Bytes(key.clone().into_bytes()));
    // To a host that it is not for, the request is not sent at all; credentials are left out.
    let refusal = denied(ask("/", "X-Key"));
    assert!(refusal.reason.contains("by a redirect from"), "{refusal:?}");
    assert_eq!(other.taken(), 0);
    ask("/", "Authorization").unwrap();
    assert_eq!(elsewhere.lock().unwrap()[0].header("authorization"), None);
    // Nor does the server bring it into a URL, which the journal would hold.
    let refusal = denied(ask("/echo", "X-Key"));
    assert!(refusal.reason.contains("a URL with a secret in it"), "{refusal:?}");
    shows_nothing(refusal);
}

#[test]
fn an_echo_does_not_tell_how_the_value_begins() {
    let (server, _) = keeping(|asked| {
        let echo = asked.header("x-echo").unwrap_or_default();
        answer("200 OK", &format!("X-Echo: {echo}\r\n"), echo)
    });
    let session = cell(server.port).session();
    let key = use_secret(&session, "key");
    with_header(&session, &server.url("/"), "X-Key", &key).unwrap();
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = KEY.bytes().map(|byte| format!("%{byte:02X}")).collect();
    // What is known of such keys anyway, and a guess of what comes next.
    for guess in [&KEY[..9], &KEY[..12], &hex[..20], &percent[..30]] {
        let answer = with_header(&session, &server.url("/"), "X-Echo", guess).unwrap();
        assert_eq!(answer.header("x-echo").as_deref(), Some(guess));
        assert_eq!(answer.field("body"), &Value::Bytes(guess.into()));
    }
}

#[test]
fn a_redirect_does_not_put_a_secret_together() {
    let (server, _) = keeping(|asked| match (asked.path(), asked.header("x-key")) {
        ("/tab", Some(key)) => redirect("302 Found", &format!("/?{}", key.replace('4', "\t4"))),
        ("/percent", Some(key)) => redirect("302 Found", &format!("/{}", key.replace('4', "%34"))),
        _ => ok("end"),
    });
    let mut cell = cell(server.port);
    cell.secrets[0].1 = SecretValue::from("4f9a8b7c6d5e4f3a".to_owned());
    let session = cell.session();
    let key = use_secret(&session, "key");
    for path in ["/tab", "/percent"] {
        let more = [headers(&[("X-Key", &key)]), ("redirects", Value::Int(1))];
        let refusal = denied(ask_http(&session, "GET", &server.url(path), &more));
        assert!(refusal.reason.contains("a URL with a secret in it"), "{refusal:?}");
        shows_nothing(refusal);
    }
}

#[test]
fn a_part_of_an_answer_is_not_handed_on() {
    let (server, _) = keeping(|_| answer("206 Partial Content", "", &KEY[10..]));
    let session = cell(server.port).session();
    let key = use_secret(&session, "key");
    let failure = failed(with_header(&session, &server.url("/"), "X-Key", &key));
    assert!(failure.message.contains("a part of its answer"), "{failure:?}");
}

#[test]
fn an_answer_that_began_before_a_secret_was_sent_does_not_carry_it() {
    let posted: Arc<Mutex<Option<String>>> = Arc::default();
    let server = Server::new(move |mut stream| {
        let Some(asked) = Asked::read(&mut stream) else { return };
        match asked.header("x-key") {
            Some(key) => {
                *posted.lock().unwrap() = Some(key.to_owned());
                let _ = stream.write_all(&ok("taken"));
            }
            None => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                let key = loop {
                    if let Some(key) = posted.lock().unwrap().clone() {
                        break key;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(1));
                };
                let _ = stream.write_all(key.as_bytes());
            }
        }
        farewell(&stream);
    });
    let session = cell(server.port).session();
    let key = use_secret(&session, "key");
    let waiting = get(&session, &server.url("/")).unwrap();
    with_header(&session, &server.url("/"), "X-Key", &key).unwrap();
    let handle = waiting.handle().unwrap();
    let failure = failed(receive(&session, &handle));
    shows_nothing(&failure);
    assert!(failure.message.contains("was sent a secret"), "{failure:?}");
}
