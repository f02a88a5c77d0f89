//! Connections of cells that are handed no descriptors: sent to, received from and waited for by
//! messages.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::servers::*;
use pyisolate_abi::pickle::Value;
use pyisolate_broker::{Failure, Pace, Refusal, Session};
use pyisolate_policy::{LimitName, Limits};

/// A cell without descriptors that may connect to this host.
fn cell() -> Cell {
    Cell { takes_descriptors: false, ..Cell::new([connect("127.0.0.0/8", false)]) }
}

/// A connection's handle, and the other side of it.
fn connected(session: &Session) -> (Value, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let told = Answer(dial(session, &listener).unwrap());
    let (peer, from) = listener.accept().unwrap();
    assert_eq!(told.field("address"), &text("127.0.0.1"));
    assert_eq!(told.field("port"), &Value::Int(listener.local_addr().unwrap().port().into()));
    assert_eq!(told.field("own_port"), &Value::Int(from.port().into()));
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (told.field("handle").clone(), peer)
}

fn dial(session: &Session, listener: &TcpListener) -> Result<Value, Refusal> {
    let port = listener.local_addr().unwrap().port();
    let granted = ask_connect(session, "127.0.0.1", port)?;
    assert!(granted.descriptor.is_none());
    Ok(granted.value)
}

fn send(session: &Session, handle: &Value, data: &[u8]) -> Result<usize, Refusal> {
    let data = Value::Bytes(data.to_vec());
    let sent =
        ask(session, "network", "send", &[("handle", handle.clone()), ("data", data)])?.value;
    let Value::Int(count) = sent else { panic!("{sent:?}") };
    Ok(usize::try_from(count).unwrap())
}

/// `None` if nothing is there.
fn receive_now(session: &Session, handle: &Value) -> Result<Option<Vec<u8>>, Refusal> {
    let value = ask(session, "network", "receive", &[("handle", handle.clone())])?.value;
    match value {
        Value::None => Ok(None),
        Value::Bytes(bytes) => Ok(Some(bytes)),
        other => panic!("{other:?}"),
    }
}

fn wait(session: &Session, readable: &[&Value], writable: &[&Value]) -> [Vec<Value>; 2] {
    let list = |handles: &[&Value]| Value::List(handles.iter().map(|it| (*it).clone()).collect());
    let payload = [("readable", list(readable)), ("writable", list(writable))];
    let told = Answer(ask(session, "network", "wait", &payload).unwrap().value);
    ["readable", "writable"].map(|key| match told.field(key) {
        Value::List(ready) => ready.clone(),
        other => panic!("{other:?}"),
    })
}

/// What comes next, waited for.
fn next(session: &Session, handle: &Value) -> Result<Vec<u8>, Refusal> {
    for _ in 0..20 {
        if let Some(piece) = receive_now(session, handle)? {
            return Ok(piece);
        }
        wait(session, &[handle], &[]);
    }
    panic!("nothing came");
}

fn shutdown(session: &Session, handle: &Value, how: &str) {
    let payload = [("handle", handle.clone()), ("how", text(how))];
    ask(session, "network", "shutdown", &payload).unwrap();
}

fn number(failure: &Failure) -> &str {
    failure.message.split(']').next().unwrap()
}

#[test]
fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let session = cell().session();
    let (handle, mut peer) = connected(&session);
    assert_eq!(receive_now(&session, &handle).unwrap(), None);
    assert_eq!(send(&session, &handle, b"question").unwrap(), 8);
    shutdown(&session, &handle, "write");
    let mut asked = Vec::new();
    peer.read_to_end(&mut asked).unwrap();
    assert_eq!(asked, b"question");
    peer.write_all(b"answer").unwrap();
    drop(peer);
    assert_eq!(next(&session, &handle).unwrap(), b"answer");
    assert_eq!(next(&session, &handle).unwrap(), b"");
    // It is told again, until the handle is closed.
    assert_eq!(next(&session, &handle).unwrap(), b"");
    ask(&session, "network", "close", &[("handle", handle.clone())]).unwrap();
    assert_eq!(number(&failed(receive_now(&session, &handle))), "[Errno 9");
    assert_eq!(session.handed_out(), []);
}

#[test]
fn what_the_other_side_does_not_take_is_not_taken_and_is_waited_for() {
    let session = cell().session();
    let (handle, mut peer) = connected(&session);
    let piece = vec![7; 1 << 20];
    let mut sent = 0;
    loop {
        match send(&session, &handle, &piece).unwrap() {
            0 => break,
            count => sent += count,
        }
    }
    assert_eq!(wait(&session, &[], &[&handle]), [vec![], vec![]]);
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; sent];
        peer.read_exact(&mut all).unwrap();
        (peer, all)
    });
    while wait(&session, &[], &[&handle])[1].is_empty() {}
    assert!(send(&session, &handle, &piece).unwrap() > 0);
    let (_peer, all) = reader.join().unwrap();
    assert!(all.iter().all(|byte| *byte == 7));
}

#[test]
fn one_wait_is_for_all_connections_and_is_woken() {
    let session = cell().session();
    let (quiet, _silent) = connected(&session);
    let (busy, mut peer) = connected(&session);
    let in_vain = || {
        let begun = Instant::now();
        assert_eq!(wait(&session, &[&quiet, &busy], &[]), [vec![], vec![]]);
        begun.elapsed()
    };
    let waited = in_vain();
    // A wake-up that comes before the wait counts for it, and once.
    ask(&session, "network", "wake", &[]).unwrap();
    let woken = in_vain();
    let waited_again = in_vain();
    assert!(woken < waited && woken < waited_again, "{waited:?}, {woken:?}, {waited_again:?}");
    peer.write_all(b"x").unwrap();
    assert_eq!(
        wait(&session, &[&quiet, &busy], &[&quiet]),
        [vec![busy.clone()], vec![quiet.clone()]]
    );
}

#[test]
fn what_may_wait_is_done_by_workers() {
    let session = cell().session();
    let (handle, _peer) = connected(&session);
    let of_it = ("handle", handle);
    let none = [("readable", Value::List(vec![]))];
    for (action, entries, pace) in [
        ("wait", &none[..], Pace::Slow),
        ("receive", slice::from_ref(&of_it), Pace::Slow),
        ("close", slice::from_ref(&of_it), Pace::Quick),
        ("wake", &[], Pace::Quick),
    ] {
        assert_eq!(session.begin("network", action, &dict(entries)).unwrap().pace(), pace);
    }
}

#[test]
fn a_reset_is_told() {
    let session = cell().session();
    let (handle, peer) = connected(&session);
    rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(wait(&session, &[&handle], &[])[0], slice::from_ref(&handle));
    assert_eq!(number(&failed(receive_now(&session, &handle))), "[Errno 104");
    assert_eq!(number(&failed(send(&session, &handle, b"x"))), "[Errno 9");
}

#[test]
fn what_is_left_of_one_that_hears_no_more_can_be_received() {
    let session = cell().session();
    let (handle, mut peer) = connected(&session);
    peer.write_all(b"last words").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    shutdown(&session, &handle, "write");
    assert_eq!(number(&failed(send(&session, &handle, b"x"))), "[Errno 32");
    assert_eq!(next(&session, &handle).unwrap(), b"last words");
}

#[test]
fn a_policy_that_denies_it_cuts_it() {
    let session = cell().session();
    let (handle, mut peer) = connected(&session);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&session, &[&handle], &[]));
        session.set_policy(policy(&[connect("127.0.0.0/8", false), deny_connect("10.0.0.1")]));
        session.revoke_denied_streams();
        assert_eq!(send(&session, &handle, b"x").unwrap(), 1);
        assert_eq!(peer.read(&mut [0; 9]).unwrap(), 1);
        session.set_policy(policy(&[]));
        session.revoke_denied_streams();
        assert_eq!(peer.read(&mut [0; 9]).unwrap(), 0);
        waiting.join().unwrap();
    });
    assert_eq!(number(&failed(receive_now(&session, &handle))), "[Errno 9");
    // Who is told of it only by the next use is refused there.
    let session = cell().session();
    let (handle, mut peer) = connected(&session);
    session.set_policy(policy(&[]));
    denied(send(&session, &handle, b"x"));
    assert_eq!(peer.read(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn it_ends_with_its_cell() {
    let session = cell().session();
    let (handle, mut peer) = connected(&session);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let handles = Value::List(vec![handle]);
            ask(&session, "network", "wait", &[("readable", handles)])
        });
        session.end();
        assert_eq!(peer.read(&mut [0; 9]).unwrap(), 0);
        drop(waiting.join().unwrap());
    });
    assert!(matches!(
        ask_connect(&session, "127.0.0.1", peer.local_addr().unwrap().port()),
        Err(Refusal::Cancelled)
    ));
}

#[test]
fn their_number_is_bounded() {
    let session = cell().session();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut held: Vec<(Value, TcpStream)> = (0..32)
        .map(|_| (dial(&session, &listener).unwrap(), listener.accept().unwrap().0))
        .collect();
    assert_eq!(number(&failed(dial(&session, &listener))), "[Errno 24");
    let (told, _peer) = held.pop().unwrap();
    let handle = Answer(told).field("handle").clone();
    ask(&session, "network", "close", &[("handle", handle)]).unwrap();
    dial(&session, &listener).unwrap();
}

#[test]
fn every_byte_is_counted_as_it_passes() {
    let limited = Limits { network_bytes: 1000, ..Limits::default() };
    let session = Cell { limits: limited, ..cell() }.session();
    let (handle, mut peer) = connected(&session);
    assert_eq!(send(&session, &handle, &[0; 600]).unwrap(), 600);
    peer.write_all(&[0; 400]).unwrap();
    assert_eq!(next(&session, &handle).unwrap().len(), 400);
    let exhausted = send(&session, &handle, &[0; 1]);
    assert!(
        matches!(
            exhausted,
            Err(Refusal::Exhausted {
                limit: LimitName::NetworkBytes,
                allowed: 1000,
                reached: 1001
            })
        ),
        "{exhausted:?}"
    );
}

#[test]
fn pieces_are_as_long_as_is_asked_for() {
    let session = cell().session();
    let (handle, mut peer) = connected(&session);
    peer.write_all(b"abcdef").unwrap();
    while wait(&session, &[&handle], &[])[0].is_empty() {}
    let payload = [("handle", handle.clone()), ("length", Value::Int(4))];
    let piece = ask(&session, "network", "receive", &payload).unwrap().value;
    assert_eq!(piece, Value::Bytes(b"abcd".to_vec()));
    assert_eq!(next(&session, &handle).unwrap(), b"ef");
}

#[test]
fn payloads_are_checked_and_handles_are_of_one_kind() {
    let session = cell().session();
    let (handle, _peer) = connected(&session);
    let many = Value::List(vec![Value::Int(1); 33]);
    for (action, entries) in [
        ("wait", vec![("readable", many)]),
        ("wait", vec![("readable", text("1"))]),
        ("wait", vec![("writable", Value::List(vec![Value::Int(-1)]))]),
        ("shutdown", vec![("handle", handle.clone()), ("how", text("nicely"))]),
        ("send", vec![("handle", handle.clone())]),
        ("send", vec![("data", Value::Bytes(vec![]))]),
        ("wake", vec![("handle", handle)]),
    ] {
        let wrong = failed(ask(&session, "network", action, &entries));
        assert_eq!(wrong.kind, "ValueError", "{action} {entries:?}: {wrong:?}");
    }
    // What is not there is told at once, so that its user hears why.
    let gone = Value::Int(99);
    assert_eq!(wait(&session, &[&gone], &[])[0], [gone]);

    let server = Server::new(|mut stream| {
        let _ = Asked::read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
        wait_for_close(&stream);
    });
    let rules = [http(None, "127.0.0.1", server.port, "/")];
    let session: Arc<Session> = Cell { takes_descriptors: false, ..Cell::new(rules) }.session();
    let url = format!("http://127.0.0.1:{}/", server.port);
    let answer = get(&session, &url).unwrap().handle().unwrap();
    assert_eq!(number(&failed(send(&session, &answer, b"x"))), "[Errno 88");
}
