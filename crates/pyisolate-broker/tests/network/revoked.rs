//! What a cell holds when another policy comes: streams and answers end with their grant.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::servers::*;
use crate::streams::{echo, echoes, stream};
use pyisolate_abi::pickle::Value;
use pyisolate_broker::SecretValue;
use rustix::net::{AddressFamily, SocketType};

#[test]
fn streams_end_when_their_address_is_no_longer_granted() {
    let server = echo();
    let private = connect("a.example", true);
    let later =
        [vec![connect("a.example", false)], vec![private.clone(), deny_connect("127.0.0.1")]];
    for rules in later {
        let mut cell = Cell::new([private.clone()]);
        cell.names = Some(Names::new(&[("a.example", &[&["127.0.0.1"]])]));
        let session = cell.session();
        let mut held = stream(&session, "a.example", server.port);
        session.set_policy(policy(std::slice::from_ref(&private)));
        session.revoke_denied_streams();
        echoes(&held);
        session.set_policy(policy(&rules));
        session.revoke_denied_streams();
        held.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(held.read(&mut [0; 1]).unwrap(), 0, "{rules:?}");
    }
}

/// A server whose queue is full: a connection to it waits until the one before it is taken.
fn full_server() -> (TcpListener, TcpStream, u16) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    rustix::net::bind(&socket, &any_port).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let port = listener.local_addr().unwrap().port();
    (listener, TcpStream::connect(("127.0.0.1", port)).unwrap(), port)
}

#[test]
fn a_policy_that_comes_while_a_stream_is_dialled_holds_for_it() {
    let (listener, _first, port) = full_server();
    let session = Cell::new([connect("127.0.0.1", false)]).session();
    std::thread::scope(|scope| {
        let dialling = scope.spawn(|| ask_connect(&session, "127.0.0.1", port));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!dialling.is_finished());
        session.set_policy(policy(&[]));
        session.revoke_denied_streams();
        listener.accept().unwrap();
        denied(dialling.join().unwrap());
    });
    assert_eq!(session.handed_out(), []);
}

#[test]
fn a_policy_that_comes_while_a_request_is_dialled_holds_for_its_secret() {
    let (listener, _first, port) = full_server();
    let site = http(None, "127.0.0.1", port, "/");
    let mut cell = Cell::new([site.clone(), secret("key", false, &["127.0.0.1"])]);
    cell.secrets = vec![("key", SecretValue::from("0123456789".to_owned()))];
    let session = cell.session();
    let used = ask(&session, "secret", "use", &[("name", text("key"))]).unwrap();
    let Value::Text(key) = used.value else { panic!("{used:?}") };
    let url = format!("http://127.0.0.1:{port}/");
    std::thread::scope(|scope| {
        let asking =
            scope.spawn(|| ask_http(&session, "GET", &url, &[headers(&[("X-Key", &key)])]));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!asking.is_finished());
        session.set_policy(policy(&[site]));
        listener.accept().unwrap();
        let mut sent = String::new();
        listener.accept().unwrap().0.read_to_string(&mut sent).unwrap();
        assert_eq!(sent, "");
        denied(asking.join().unwrap());
    });
}

#[test]
fn reading_the_rest_ends_when_its_address_is_no_longer_granted() {
    let server = Server::new(|mut stream| {
        let _ = Asked::read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
        wait_for_close(&stream);
    });
    let granted = http(None, "a.example", server.port, "/");
    let mut cell = Cell::new([granted.clone()]);
    cell.names = Some(Names::new(&[("a.example", &[&["127.0.0.1"]])]));
    let session = cell.session();
    let url = format!("http://a.example:{}/", server.port);
    let handle = get(&session, &url).unwrap().handle().unwrap();
    session.set_policy(policy(&[granted, deny_http("127.0.0.1", server.port, "/")]));
    denied(receive(&session, &handle));
}
