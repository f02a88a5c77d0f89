//! Requests and their answers, with servers that keep to HTTP and servers that do not.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::servers::*;
use pyisolate_abi::pickle::Value;
use pyisolate_broker::{DecidedBy, Refusal};
use pyisolate_policy::{LimitName, Limits, Scheme};

/// A server that keeps the last request, and answers with its body.
fn mirror() -> (Server, Arc<Mutex<Option<Asked>>>) {
    let last = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&last);
    let server = Server::http(move |asked| {
        *kept.lock().unwrap() = Some(asked.clone());
        ok(&asked.body)
    });
    (server, last)
}

/// Answers every request with these bytes, whatever they are, and closes.
fn saying(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Server {
    Server::http(move |_| bytes.as_ref().to_vec())
}

fn whole(server: &Server) -> Result<Vec<u8>, Refusal> {
    let session = cell_for(server);
    get(&session, &server.url("/"))?.body(&session)
}

#[test]
fn a_request_goes_out_as_it_was_asked() {
    let (server, last) = mirror();
    let session = cell_for(&server);
    let own = format!("127.0.0.1:{}", server.port);
    let more = [
        headers(&[
            ("User-Agent", "guest"),
            ("Host", &own),
            ("Content-Length", "999"),
            ("Connection", "keep-alive"),
        ]),
        ("body", Value::Bytes(b"body".to_vec())),
    ];
    let answer = ask_http(&session, "post", &server.url("/a/../b?q=%20#f"), &more).unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.field("reason"), &text("OK"));
    assert_eq!(answer.field("body"), &Value::Bytes(b"body".to_vec()));
    assert_eq!(answer.field("handle"), &Value::None);
    assert_eq!(answer.url(), server.url("/b?q=%20"));
    let asked = last.lock().unwrap().clone().unwrap();
    assert_eq!(asked.line, "POST /b?q=%20 HTTP/1.1");
    let expected = [
        ("Host", &*own),
        ("User-Agent", "guest"),
        ("Content-Length", "4"),
        ("Connection", "close"),
    ];
    assert_eq!(asked.headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_policy_is_asked_for_method_and_path() {
    let (server, _) = mirror();
    let session = Cell::new([
        http(Some(Scheme::Http), "127.0.0.1", server.port, "/api"),
        deny_http("127.0.0.1", server.port, "/api/admin"),
    ])
    .session();
    assert_eq!(get(&session, &server.url("/api/x")).unwrap().status(), 200);
    for path in ["/", "/apix", "/api/../x", "/api/admin", "/api/x/../admin", "/api/%61dmin"] {
        denied(get(&session, &server.url(path)));
    }
    denied(get(&session, &server.url("/api").replace("http:", "https:")));
    denied(get(&session, &format!("http://127.0.0.2:{}/api", server.port)));
    assert_eq!(server.taken(), 1);
}

#[test]
fn no_spelling_of_loopback_passes_for_a_public_site() {
    let (server, _) = mirror();
    let mut public = http(None, "*", server.port, "/");
    if let pyisolate_policy::Right::Http(right) = &mut public.right {
        right.private = false;
    }
    let session = Cell::new([public]).session();
    let granted = cell_for(&server);
    let port = server.port;
    for host in [
        "127.0.0.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "127.1",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "\u{246b}\u{2466}.0.0.1",
    ] {
        let url = format!("http://{host}:{port}/");
        let denied = denied(get(&session, &url));
        assert!(denied.reason.contains("127.0.0.1 is a loopback address"), "{denied:?}");
        assert_eq!(get(&granted, &url).unwrap().url(), format!("http://127.0.0.1:{port}/"));
    }
    for host in ["169.254.169.254", "0xa9fea9fe", "[64:ff9b::7f00:1]", "10.0.0.1"] {
        denied(get(&session, &format!("http://{host}:{port}/")));
    }
    for url in [
        format!("http://user@127.0.0.1:{port}/"),
        format!("http://a.example@127.0.0.1:{port}/"),
        format!("http://127.0.0.1%00.a.example:{port}/"),
        format!("http://%31%32%37.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}\\@a.example/"),
        format!("http://127.0.0.1:{port}/\r\nX: y"),
        format!("http://127.0.0.1:{port}/a b"),
        "file:///etc/passwd".to_owned(),
        "ftp://127.0.0.1/".to_owned(),
        "//127.0.0.1/".to_owned(),
        format!("http://127.0.0.1/{}", "a".repeat(9000)),
    ] {
        assert_eq!(failed(get(&granted, &url)).kind, "ValueError", "{url}");
    }
    assert_eq!(server.taken(), 8);
}

#[test]
fn what_would_change_the_request_is_an_error() {
    let (server, _) = mirror();
    let session = cell_for(&server);
    let url = server.url("/");
    for method in ["GET\r\nX: y", "GET /x HTTP/1.1\r\n\r\nGET", "", "CONNECT", "TRACE", "G ET"] {
        assert_eq!(failed(ask_http(&session, method, &url, &[])).kind, "ValueError", "{method}");
    }
    for (name, value) in [
        ("X-A", "b\r\nX-B: c"),
        ("X-A", "b\r\n\r\nGET / HTTP/1.1"),
        ("X-A\r\nX-B", "c"),
        ("X-A: b\r\nX-B", "c"),
        ("X-A", "b\0"),
        ("Host", "a.example"),
        ("Transfer-Encoding", "chunked"),
        ("Expect", "100-continue"),
        ("Proxy-Authorization", "Basic eA=="),
    ] {
        let asked = ask_http(&session, "GET", &url, &[headers(&[(name, value)])]);
        assert_eq!(failed(asked).kind, "ValueError", "{name}: {value}");
    }
    let many = vec![("a", "b"); 101];
    assert_eq!(failed(ask_http(&session, "GET", &url, &[headers(&many)])).kind, "ValueError");
    let long = "b".repeat(70_000);
    let asked = ask_http(&session, "GET", &url, &[headers(&[("a", &long)])]);
    assert_eq!(failed(asked).kind, "ValueError");
    let large = ("body", Value::Bytes(vec![0; (32 << 20) + 1]));
    assert_eq!(failed(ask_http(&session, "POST", &url, &[large])).kind, "ValueError");
    let many = ("redirects", Value::Int(21));
    assert_eq!(failed(ask_http(&session, "GET", &url, &[many])).kind, "ValueError");
    assert_eq!(server.taken(), 0);
}

#[test]
fn bodies_end_where_they_say() {
    for (said, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", "abc"),
        ("HTTP/1.1 200 OK\r\n\r\nabcdef", "abcdef"),
        ("HTTP/1.0 200 OK\r\n\r\nabc", "abc"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            "abc",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nabc", ""),
        ("HTTP/1.1 204 No Content\r\n\r\nabc", ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx",
            "x",
        ),
    ] {
        assert_eq!(whole(&saying(said)).unwrap(), body.as_bytes(), "{said}");
    }
    let server = saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
    let session = cell_for(&server);
    let answer = ask_http(&session, "HEAD", &server.url("/"), &[]).unwrap();
    assert_eq!(answer.header("content-length").as_deref(), Some("3"));
    assert_eq!(answer.body(&session).unwrap(), b"");
}

#[test]
fn broken_answers_are_errors() {
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(300 << 10));
    let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
    for said in [
        "",
        "HTTP/1.1 200",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        &long,
        &endless,
    ] {
        let failure = failed(whole(&saying(said.to_owned())));
        assert!(failure.message.starts_with("[Errno 71] Protocol error: "), "{failure:?}");
    }
}

#[test]
fn a_large_answer_comes_in_pieces() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let expected = body.clone();
    let server = Server::http(move |_| ok(&body));
    let session = cell_for(&server);
    let answer = get(&session, &server.url("/")).unwrap();
    let Value::Bytes(first) = answer.field("body") else { panic!("{answer:?}") };
    assert!(first.len() <= (1 << 20) + (64 << 10), "{}", first.len());
    assert_eq!(answer.body(&session).unwrap(), expected);
    // The handle is closed by its end.
    let handle = answer.handle().unwrap();
    assert!(failed(receive(&session, &handle)).message.starts_with("[Errno 9] "));
}

#[test]
fn an_answer_without_end_stops_at_the_limit() {
    let server = Server::new(|mut stream| {
        let _ = Asked::read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let mut cell = Cell::new([http(None, "127.0.0.1", server.port, "/")]);
    cell.limits = Limits { network_bytes: 5_000_000, ..Limits::default() };
    let session = cell.session();
    let answer = get(&session, &server.url("/")).unwrap();
    let refusal = answer.body(&session).unwrap_err();
    let Refusal::Exhausted { limit, allowed, reached } = refusal else { panic!("{refusal:?}") };
    assert_eq!((limit, allowed), (LimitName::NetworkBytes, 5_000_000));
    assert!(reached < 5_000_000 + (128 << 10), "{reached}");
}

#[test]
fn a_large_request_counts_too() {
    let (server, _) = mirror();
    let mut cell = Cell::new([http(None, "127.0.0.1", server.port, "/")]);
    cell.limits = Limits { network_bytes: 100_000, ..Limits::default() };
    let session = cell.session();
    let body = ("body", Value::Bytes(vec![0; 200_000]));
    let refusal = ask_http(&session, "POST", &server.url("/"), &[body]).unwrap_err();
    assert!(matches!(refusal, Refusal::Exhausted { limit: LimitName::NetworkBytes, .. }));
}

#[test]
fn requests_are_counted() {
    let (server, _) = mirror();
    let mut cell = Cell::new([http(None, "127.0.0.1", server.port, "/")]);
    cell.limits = Limits { network_ops: 20, ..Limits::default() };
    let session = cell.session();
    for _ in 0..20 {
        get(&session, &server.url("/")).unwrap();
    }
    let refusal = get(&session, &server.url("/")).unwrap_err();
    assert!(matches!(refusal, Refusal::Exhausted { limit: LimitName::NetworkOps, .. }));
    assert_eq!(server.taken(), 20);
}

/// Sends a first part, then a byte every so often, for ever.
fn trickling(first: &'static [u8]) -> Server {
    Server::new(move |mut stream| {
        let _ = Asked::read(&mut stream);
        let _ = stream.write_all(first);
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
    })
}

#[test]
fn a_head_that_trickles_is_cut_off_by_the_time() {
    let server = trickling(b"HTTP/1.1 200 OK\r\nA: ");
    let session = cell_for(&server);
    let timeout = [("timeout", Value::Float(0.1))];
    let failure = failed(ask_http(&session, "GET", &server.url("/"), &timeout));
    assert_eq!(failure.message, "[Errno 110] Connection timed out");
}

#[test]
fn a_body_that_floods_with_nothing_is_cut_off_by_the_time() {
    let server = Server::new(|mut stream| {
        let _ = Asked::read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx");
        // Behind a chunk, where these carry nothing.
        while stream.write_all(&[b'\r'; 1 << 16]).is_ok() {}
    });
    let session = cell_for(&server);
    let timeout = [("timeout", Value::Float(0.2))];
    let answer = ask_http(&session, "GET", &server.url("/"), &timeout).unwrap();
    assert_eq!(*answer.field("body"), Value::Bytes(b"x".to_vec()));
    let failure = failed(receive(&session, &answer.handle().unwrap()));
    assert_eq!(failure.message, "[Errno 110] Connection timed out");
}

#[test]
fn a_body_that_trickles_is_handed_on_as_it_comes() {
    let server = trickling(b"HTTP/1.1 200 OK\r\n\r\n");
    let session = cell_for(&server);
    let answer = get(&session, &server.url("/")).unwrap();
    let handle = answer.handle().unwrap();
    for _ in 0..3 {
        let piece = receive(&session, &handle).unwrap();
        assert!(!piece.is_empty() && piece.iter().all(|byte| *byte == b'x'));
    }
    ask(&session, "network", "close", &[("handle", handle.clone())]).unwrap();
    failed(receive(&session, &handle));
}

#[test]
fn waiting_for_the_rest_has_its_time_each() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let server = Server::new(move |mut stream| {
        let _ = Asked::read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
        let _ = wait.lock().unwrap().recv();
        let _ = stream.write_all(b"def");
        wait_for_close(&stream);
    });
    let session = cell_for(&server);
    let timeout = [("timeout", Value::Int(1))];
    let answer = ask_http(&session, "GET", &server.url("/"), &timeout).unwrap();
    assert_eq!(answer.field("body"), &Value::Bytes(b"abc".to_vec()));
    let handle = answer.handle().unwrap();
    let failure = failed(receive(&session, &handle));
    assert_eq!(failure.message, "[Errno 110] Connection timed out");
    // It can be waited for again.
    go.send(()).unwrap();
    assert_eq!(receive(&session, &handle).unwrap(), b"def");
    assert_eq!(receive(&session, &handle).unwrap(), b"");
}

#[test]
fn a_server_that_never_answers_is_left_when_the_cell_ends() {
    let (came, coming) = mpsc::channel();
    let came = Mutex::new(came);
    let server = Server::new(move |mut stream| {
        let _ = Asked::read(&mut stream);
        came.lock().unwrap().send(()).unwrap();
        wait_for_close(&stream);
        came.lock().unwrap().send(()).unwrap();
    });
    let session = cell_for(&server);
    let other = Arc::clone(&session);
    let url = server.url("/");
    let thread = std::thread::spawn(move || get(&other, &url));
    coming.recv().unwrap();
    session.end();
    assert!(matches!(thread.join().unwrap(), Err(Refusal::Cancelled)));
    coming.recv().unwrap(); // the server saw it closed
    assert!(matches!(get(&session, &server.url("/")), Err(Refusal::Cancelled)));
}

#[test]
fn reading_the_rest_ends_with_the_cell_and_with_its_grant() {
    let server = Server::new(|mut stream| {
        let _ = Asked::read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
        wait_for_close(&stream);
    });
    let session = cell_for(&server);
    let answer = get(&session, &server.url("/")).unwrap();
    let handle = answer.handle().unwrap();
    session.set_policy(policy(&[]));
    denied(receive(&session, &handle));
    failed(receive(&session, &handle));

    session.set_policy(policy(&[http(None, "127.0.0.1", server.port, "/")]));
    let handle = get(&session, &server.url("/")).unwrap().handle().unwrap();
    let other = Arc::clone(&session);
    let thread = std::thread::spawn(move || receive(&other, &handle));
    std::thread::sleep(Duration::from_millis(50));
    session.end();
    assert!(matches!(thread.join().unwrap(), Err(Refusal::Cancelled)));
}

#[test]
fn so_many_answers_are_open_at_a_time() {
    let server = Server::new(|mut stream| {
        let _ = Asked::read(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
        wait_for_close(&stream);
    });
    let session = cell_for(&server);
    let open = || get(&session, &server.url("/"));
    let handles: Vec<Value> = (0..16).map(|_| open().unwrap().handle().unwrap()).collect();
    assert!(failed(open()).message.starts_with("[Errno 24] "));
    assert_eq!(server.taken(), 16);
    ask(&session, "network", "close", &[("handle", handles[3].clone())]).unwrap();
    open().unwrap();
}

#[test]
fn an_early_answer_to_a_large_request_is_told() {
    let server = Server::new(|mut stream| {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(&answer("413 Too Large", "", "no"));
        let _ = stream.shutdown(Shutdown::Both);
        std::thread::sleep(Duration::from_millis(20));
    });
    let session = cell_for(&server);
    let body = ("body", Value::Bytes(vec![0; 8 << 20]));
    match ask_http(&session, "POST", &server.url("/"), &[body]) {
        Ok(answer) => assert_eq!(answer.status(), 413),
        // The reset may overtake the answer.
        Err(Refusal::Failed(failure)) => {
            assert!(failure.message.contains("[Errno "), "{failure:?}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_speaks_of_the_connection_is_not_told() {
    let server = saying(
        "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nKeep-Alive: x\r\n\
         Content-Length: 77\r\nSet-Cookie: a=b\r\nSet-Cookie: c=\u{e9}\r\n\r\n0\r\n\r\n",
    );
    let session = cell_for(&server);
    let answer = get(&session, &server.url("/")).unwrap();
    let pair = |value: &str| Value::List(vec![text("Set-Cookie"), text(value)]);
    assert_eq!(answer.field("headers"), &Value::List(vec![pair("a=b"), pair("c=\u{c3}\u{a9}")]));
    assert_eq!(answer.field("reason"), &text("Fine"));
}

#[test]
fn names_are_resolved_once_and_private_ones_refused() {
    let (server, last) = mirror();
    let names = Names::new(&[
        ("a.example", &[&["127.0.0.1"], &["10.9.9.9"]]),
        ("b.example", &[&["127.0.0.1"]]),
    ]);
    let mut public = http(None, "b.example", server.port, "/");
    if let pyisolate_policy::Right::Http(right) = &mut public.right {
        right.private = false;
    }
    let mut cell = Cell::new([http(None, "a.example", server.port, "/"), public]);
    cell.names = Some(Arc::clone(&names));
    let session = cell.session();
    let url = format!("http://A.example:{}/", server.port);
    get(&session, &url).unwrap();
    let host = last.lock().unwrap().clone().unwrap().header("host").unwrap().to_owned();
    assert_eq!(host, format!("a.example:{}", server.port));
    let denied = denied(get(&session, &url.replace("A.", "b.")));
    assert_eq!(denied.layer, DecidedBy::Policy);
    assert!(denied.reason.contains("127.0.0.1 is a loopback address"));
    assert_eq!((names.asked(), server.taken()), (2, 1));
}
