//! Streams and names: what a cell may connect to, however it is spelled, and what it holds then.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::servers::*;
use pyisolate_abi::pickle::Value;
use pyisolate_broker::{DecidedBy, Refusal, Session};
use pyisolate_policy::{LimitName, Limits};
use rustix::net::{AddressFamily, SocketType};

pub(crate) fn echo() -> Server {
    Server::new(|stream| {
        let _ = std::io::copy(&mut &stream, &mut &stream);
    })
}

pub(crate) fn stream(session: &Session, host: &str, port: u16) -> TcpStream {
    let granted = ask_connect(session, host, port).unwrap();
    TcpStream::from(granted.descriptor.unwrap())
}

pub(crate) fn echoes(mut stream: &TcpStream) {
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

/// Spellings of 127.0.0.1 that some reader takes for it.
const LOOPBACK: [&str; 12] = [
    "127.0.0.1",
    "127.0.0.1.",
    "0x7f.1",
    "0177.0.0.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "127.1",
    "127.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "[::ffff:127.0.0.1]",
];

/// Spellings that only a browser's reader of hosts takes for it.
const LOOPBACK_IN_UNICODE: [&str; 3] =
    ["\u{246b}\u{2466}.0.0.1", "\u{ff11}\u{ff12}\u{ff17}.0.0.1", "127\u{3002}0\u{3002}0\u{3002}1"];

#[test]
fn no_spelling_of_loopback_passes_for_a_public_host() {
    let server = echo();
    let session = Cell::new([connect("*", false)]).session();
    let granted = Cell::new([connect("127.0.0.0/8", false)]).session();
    for host in LOOPBACK.into_iter().chain(LOOPBACK_IN_UNICODE) {
        let before = server.taken();
        let denied = denied(ask_connect(&session, host, server.port));
        assert!(denied.reason.contains("127.0.0.1 is a loopback address"), "{host}: {denied:?}");
        assert_eq!(denied.layer, DecidedBy::Policy);
        assert_eq!(denied.rule, "no rule matched");
        assert!(denied.grant.is_some_and(|grant| grant.contains("127.0.0.1")), "{host}");
        // The control: it does mean loopback, and is found by a grant of loopback.
        echoes(&stream(&granted, host, server.port));
        assert_eq!(server.taken(), before + 1, "{host}");
    }
    // The control of the control: the system's own reader goes there too.
    for host in LOOPBACK {
        let bare = host.trim_start_matches('[').trim_end_matches([']', '.']);
        let addresses: Vec<_> = (bare, server.port).to_socket_addrs().unwrap().collect();
        echoes(&TcpStream::connect(&addresses[..]).unwrap());
    }
}

#[test]
fn names_of_loopback_are_judged_by_their_address() {
    let server = echo();
    let names = Names::new(&[("localhost", &[&["127.0.0.1"]]), ("a.example", &[&["127.0.0.1"]])]);
    let mut cell = Cell::new([connect("*", false)]);
    cell.names = Some(names);
    let session = cell.session();
    for host in ["localhost", "localhost.", "LOCALHOST", "LocalHost.", "a.example", "A.EXAMPLE."] {
        let denied = denied(ask_connect(&session, host, server.port));
        assert!(denied.reason.contains("127.0.0.1 is a loopback address"), "{denied:?}");
        assert!(denied.reason.contains("private: true"), "{denied:?}");
    }
    assert_eq!(server.taken(), 0);
    session.set_policy(policy(&[connect("localhost", false)]));
    for host in ["localhost", "localhost.", "LOCALHOST"] {
        echoes(&stream(&session, host, server.port));
    }
    assert_eq!(server.taken(), 3);
}

#[test]
fn ipv6_loopback_is_refused_unless_it_is_granted() {
    let Ok(server) = Server::at(Ipv6Addr::LOCALHOST.into(), |stream| {
        let _ = std::io::copy(&mut &stream, &mut &stream);
    }) else {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    };
    let session = Cell::new([connect("*", false)]).session();
    for host in ["::1", "[::1]", "0:0:0:0:0:0:0:1", "[0000::0001]"] {
        denied(ask_connect(&session, host, server.port));
    }
    assert_eq!(server.taken(), 0);
    session.set_policy(policy(&[connect("::1", false)]));
    let granted = ask_connect(&session, "[0::1]", server.port).unwrap();
    let expected = [
        ("address", text("::1")),
        ("port", Value::Int(server.port.into())),
        ("family", text("inet6")),
    ];
    assert_eq!(granted.value, dict(&expected));
}

#[test]
fn addresses_that_are_not_public_need_a_grant_of_their_own() {
    let session = Cell::new([connect("*", false)]).session();
    for host in [
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "169.254.43518",
        "::ffff:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "fd00:ec2::254",
        "fe80::1",
        "10.0.0.5",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        let denied = denied(ask_connect(&session, host, 9));
        assert!(denied.reason.contains("grant it by that address"), "{host}: {denied:?}");
    }
}

#[test]
fn what_is_read_in_two_ways_is_no_host() {
    let session = Cell::new([connect("*", true), connect("127.0.0.0/8", true)]).session();
    for host in [
        "",
        ".",
        "127.0.0.1%00.example.org",
        "127.0.0.1\0.example.org",
        "user@127.0.0.1",
        "example.org@127.0.0.1",
        "127.0.0.1:80",
        "127.0.0.1/",
        "127.0.0.1#x",
        "127.0.0.1\\x",
        " 127.0.0.1",
        "127.0.0.1\r\nX: y",
        "fe80::1%eth0",
        "fe80::1%25eth0",
        "[::1",
        "256.256.256.256",
        "1.2.3.4.5",
        "0x100000000",
        "a..b",
        &"a".repeat(300),
    ] {
        let failure = failed(ask_connect(&session, host, 80));
        assert_eq!(failure.kind, "ValueError", "{host:?}");
    }
    for port in [Value::Int(0), Value::Int(65536), Value::Int(-1), text("80"), Value::Bool(true)] {
        let asked = ask(&session, "network", "connect", &[("host", text("::1")), ("port", port)]);
        assert_eq!(failed(asked).kind, "ValueError");
    }
}

#[test]
fn the_systems_resolver_is_asked_if_there_is_no_other() {
    let server = echo();
    // Where it has two addresses, nobody listens at the other one.
    let session = Cell::new([connect("localhost", false)]).session();
    echoes(&stream(&session, "localhost", server.port));
    session.set_policy(policy(&[connect("*", false)]));
    denied(ask_connect(&session, "localhost", server.port));
}

#[test]
fn a_name_is_resolved_once_for_a_connection() {
    let server = echo();
    // Whoever looked twice would be led elsewhere the second time.
    let names = Names::new(&[("a.example", &[&["127.0.0.1"], &["10.9.9.9"]])]);
    let mut cell = Cell::new([connect("a.example", true)]);
    cell.names = Some(Arc::clone(&names));
    let session = cell.session();
    echoes(&stream(&session, "a.example", server.port));
    assert_eq!(names.asked(), 1);
    assert_eq!(server.taken(), 1);
}

#[test]
fn a_name_that_turns_to_loopback_is_refused_then() {
    let server = echo();
    let names = Names::new(&[("a.example", &[&["93.184.216.34"], &["127.0.0.1"]])]);
    let mut cell = Cell::new([connect("a.example", false)]);
    cell.names = Some(Arc::clone(&names));
    let session = cell.session();
    let host = [("host", text("a.example"))];
    let resolved = ask(&session, "network", "resolve", &host).unwrap().value;
    assert_eq!(resolved, Value::List(vec![text("93.184.216.34")]));
    denied(ask_connect(&session, "a.example", server.port));
    denied(ask(&session, "network", "resolve", &host));
    assert_eq!((names.asked(), server.taken()), (3, 0));
}

#[test]
fn of_several_addresses_only_allowed_ones_are_used() {
    let server = echo();
    let answer: &[&str] = &["10.0.0.1", "::ffff:192.168.0.1", "::ffff:127.0.0.1", "127.0.0.1"];
    let names = Names::new(&[("a.example", &[answer])]);
    let mut cell = Cell::new([connect("a.example", false), connect("127.0.0.0/8", false)]);
    cell.names = Some(names);
    let session = cell.session();
    let granted = ask_connect(&session, "a.example", server.port).unwrap();
    assert_eq!(Answer(granted.value).field("address"), &text("127.0.0.1"));
    let host = [("host", text("a.example"))];
    // For a name, the network's grant counts where the port does not matter.
    let resolved = ask(&session, "network", "resolve", &host).unwrap().value;
    assert_eq!(resolved, Value::List(vec![text("127.0.0.1")]));
    session.set_policy(policy(&[
        connect("a.example", true),
        deny_connect("127.0.0.0/8"),
        deny_connect("10.0.0.0/8"),
        deny_connect("192.168.0.0/16"),
    ]));
    denied(ask_connect(&session, "a.example", server.port));
}

#[test]
fn a_name_that_is_not_granted_is_not_looked_up() {
    let names = Names::new(&[("a.example", &[&["127.0.0.1"]])]);
    let mut cell = Cell::new([connect("b.example", true), http(None, "a.example", 80, "/")]);
    cell.names = Some(Arc::clone(&names));
    let session = cell.session();
    denied(ask_connect(&session, "a.example", 81));
    denied(ask(&session, "network", "resolve", &[("host", text("c.example"))]));
    assert_eq!(names.asked(), 0);
    let unknown = failed(ask_connect(&session, "b.example", 81));
    assert!(unknown.message.contains("Name or service not known"), "{unknown:?}");
}

#[test]
fn a_request_that_is_granted_is_hinted_at() {
    let session = Cell::new([http(None, "127.0.0.1", 8000, "/api")]).session();
    let granted = ask_connect(&session, "127.0.0.1", 8000).unwrap();
    assert_eq!(granted.value, dict(&[("http", Value::Bool(true))]));
    assert!(granted.descriptor.is_none());
    denied(ask_connect(&session, "127.0.0.1", 8001));
    denied(ask_connect(&session, "127.0.0.2", 8000));
    session.set_policy(policy(&[http(None, "127.0.0.1", 8000, "/api"), deny_connect("127.0.0.1")]));
    denied(ask_connect(&session, "127.0.0.1", 8000));
}

#[test]
fn a_refused_connection_is_an_error() {
    let port = echo().port; // dropped: nobody listens
    let session = Cell::new([connect("127.0.0.0/8", false)]).session();
    // The server's thread may still be about to close.
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        std::thread::yield_now();
    }
    let failure = failed(ask_connect(&session, "127.0.0.1", port));
    assert_eq!(failure.message, "[Errno 111] Connection refused");
}

/// A port where connecting takes for ever: the queue is full, and nobody takes from it.
fn full() -> (OwnedFd, Vec<OwnedFd>, u16) {
    let socket = |flags| {
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap()
    };
    let listener = socket(rustix::net::SocketFlags::CLOEXEC);
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&listener, &any).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address: std::net::SocketAddr =
        rustix::net::getsockname(&listener).unwrap().try_into().unwrap();
    let waiting = (0..4).map(|_| {
        let client = socket(rustix::net::SocketFlags::NONBLOCK);
        let _ = rustix::net::connect(&client, &address);
        client
    });
    (listener, waiting.collect(), address.port())
}

#[test]
fn a_connection_that_takes_for_ever_ends_by_its_time_or_with_the_cell() {
    let (_listener, _waiting, port) = full();
    let session = Cell::new([connect("127.0.0.0/8", false)]).session();
    let payload = [
        ("host", text("127.0.0.1")),
        ("port", Value::Int(port.into())),
        ("timeout", Value::Float(0.05)),
    ];
    let failure = failed(ask(&session, "network", "connect", &payload));
    assert_eq!(failure.message, "[Errno 110] Connection timed out");

    let (asked, asking) = mpsc::channel();
    let other = Arc::clone(&session);
    let thread = std::thread::spawn(move || {
        let ready = other.begin("network", "connect", &dict(&payload[..2])).unwrap();
        asked.send(()).unwrap();
        ready.perform(&other)
    });
    asking.recv().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    session.end();
    assert!(matches!(thread.join().unwrap(), Err(Refusal::Cancelled)));
}

#[test]
fn a_resolver_that_hangs_is_left_behind() {
    let mut names = Names::new(&[]);
    Arc::get_mut(&mut names).unwrap().silent = Some("a.example".to_owned());
    let mut cell = Cell::new([connect("a.example", true)]);
    cell.names = Some(Arc::clone(&names));
    let session = cell.session();
    let payload =
        [("host", text("a.example")), ("port", Value::Int(80)), ("timeout", Value::Float(0.01))];
    // Eight hang; the ninth is not begun.
    for _ in 0..8 {
        let failure = failed(ask(&session, "network", "connect", &payload));
        assert_eq!(failure.message, "[Errno 110] Connection timed out");
    }
    let failure = failed(ask(&session, "network", "connect", &payload));
    assert!(failure.message.starts_with("[Errno 11] "), "{failure:?}");
    // Their threads may only just begin.
    while names.asked() < 8 {
        std::thread::yield_now();
    }
    assert_eq!(names.asked(), 8);
}

#[test]
fn a_handed_out_stream_is_listed_counted_and_revoked() {
    let server = echo();
    let mut cell = Cell::new([connect("127.0.0.0/8", false)]);
    cell.limits = Limits { network_bytes: 1000, ..Limits::default() };
    let session = cell.session();
    let mut guests = stream(&session, "0x7f.1", server.port);
    let flags = rustix::fs::fcntl_getfl(&guests).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    assert!(rustix::io::fcntl_getfd(&guests).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    assert!(guests.nodelay().unwrap());
    let listed = session.handed_out();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].what, format!("tcp 127.0.0.1:{} (127.0.0.1)", server.port));

    echoes(&guests);
    session.account_streams().unwrap();
    guests.write_all(&[7; 600]).unwrap();
    guests.read_exact(&mut [0; 600]).unwrap();
    let exhausted = loop {
        // What was sent counts when it was acknowledged, which may take a moment.
        if let Err(refusal) = session.account_streams() {
            break refusal;
        }
        std::thread::yield_now();
    };
    let Refusal::Exhausted { limit, allowed: 1000, reached } = exhausted else {
        panic!("{exhausted:?}");
    };
    assert_eq!(limit, LimitName::NetworkBytes);
    assert!((1200..=1230).contains(&reached), "{reached}");
    // Past its limit the guest's own copy is shut.
    assert_eq!(guests.read(&mut [0; 1]).unwrap(), 0);
    assert!(guests.write(b"x").is_err());
    assert_eq!(session.handed_out(), []);
}

#[test]
fn streams_end_with_their_grant_and_with_their_cell() {
    let server = echo();
    let names = Names::new(&[("a.example", &[&["127.0.0.1"]])]);
    let mut cell = Cell::new([connect("127.0.0.1", false), connect("a.example", true)]);
    cell.names = Some(names);
    let session = cell.session();
    let mut first = stream(&session, "127.0.0.1", server.port);
    let mut second = stream(&session, "a.example", server.port);
    session.set_policy(policy(&[connect("127.0.0.1", false)]));
    session.revoke_denied_streams();
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
    echoes(&first);
    session.end();
    assert_eq!(first.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_cell_holds_so_many_streams_and_closed_ones_do_not_count() {
    let server = echo();
    let session = Cell::new([connect("127.0.0.1", false)]).session();
    let mut held: Vec<TcpStream> =
        (0..32).map(|_| stream(&session, "127.0.0.1", server.port)).collect();
    let failure = failed(ask_connect(&session, "127.0.0.1", server.port));
    assert!(failure.message.starts_with("[Errno 24] "), "{failure:?}");
    // One is shut by its guest; another is closed only, which the guest's table shows.
    held[0].shutdown(std::net::Shutdown::Both).unwrap();
    session.account_streams().unwrap();
    held[0] = stream(&session, "127.0.0.1", server.port);
    failed(ask_connect(&session, "127.0.0.1", server.port));
    drop(held.pop());
    let inodes: Vec<u64> =
        held.iter().map(|stream| rustix::fs::fstat(stream).unwrap().st_ino).collect();
    for expected in [32, 31] {
        session.prune_streams(|inode| inodes.contains(&inode));
        assert_eq!(session.handed_out().len(), expected);
    }
    stream(&session, "127.0.0.1", server.port);
}

#[test]
fn each_connection_counts() {
    let server = echo();
    let mut cell = Cell::new([connect("127.0.0.1", false)]);
    cell.limits = Limits { network_ops: 2, ..Limits::default() };
    let session = cell.session();
    for _ in 0..2 {
        echoes(&stream(&session, "127.0.0.1", server.port));
    }
    let refusal = ask_connect(&session, "127.0.0.1", server.port).unwrap_err();
    assert!(matches!(
        refusal,
        Refusal::Exhausted { limit: LimitName::NetworkOps, allowed: 2, reached: 3 }
    ));
    assert_eq!(server.taken(), 2);
}

#[test]
fn unknown_actions_and_keys_are_errors() {
    let session = Cell::new([connect("127.0.0.1", false)]).session();
    assert_eq!(failed(ask(&session, "network", "listen", &[])).kind, "LookupError");
    let payload = [("host", text("a.example")), ("family", text("inet"))];
    assert_eq!(failed(ask(&session, "network", "resolve", &payload)).kind, "ValueError");
}

/// A server that reads nothing, a stream to it that is full, and how much that was.
fn stuffed(session: &Session) -> (Server, TcpStream, usize) {
    let server = Server::new(|stream| {
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096);
        std::thread::sleep(Duration::from_secs(60));
    });
    let mut guests = stream(session, "127.0.0.1", server.port);
    guests.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(count) = guests.write(&[0; 1 << 16]) {
        written += count;
    }
    (server, guests, written)
}

#[test]
fn a_guest_that_has_its_stream_linger_holds_nobody_up() {
    let session = Cell::new([connect("127.0.0.1", false)]).session();
    let (_server, guests, _) = stuffed(&session);
    // To close a socket that lingers waits for the other side, which takes nothing.
    rustix::net::sockopt::set_socket_linger(&guests, Some(Duration::from_secs(40))).unwrap();
    // Ours is the last copy.
    drop(guests);
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..2 {
            session.prune_streams(|_| false);
        }
        done.send(session.handed_out()).unwrap();
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(vec![]));
}

#[test]
fn a_stream_that_the_table_does_not_show_is_shut() {
    let server = echo();
    let session = Cell::new([connect("127.0.0.1", false)]).session();
    // On its way from the guest to itself, say.
    let mut hidden = stream(&session, "127.0.0.1", server.port);
    hidden.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for _ in 0..2 {
        echoes(&hidden);
        session.prune_streams(|_| false);
    }
    assert_eq!(session.handed_out(), []);
    assert_eq!(hidden.read(&mut [0; 1]).unwrap(), 0);
    assert!(hidden.write(b"x").is_err());
}

#[test]
fn what_waits_to_be_sent_counts_when_a_stream_is_let_go() {
    let mut cell = Cell::new([connect("127.0.0.1", false)]);
    cell.limits = Limits { network_bytes: 1 << 20, ..Limits::default() };
    let session = cell.session();
    let (_server, guests, written) = stuffed(&session);
    assert!(written > 1 << 20, "{written}");
    // Little of it was acknowledged.
    session.account_streams().unwrap();
    guests.shutdown(std::net::Shutdown::Both).unwrap();
    let exhausted = session.account_streams();
    assert!(matches!(exhausted, Err(Refusal::Exhausted { .. })), "{exhausted:?}");
}
