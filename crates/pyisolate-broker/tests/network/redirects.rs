//! Redirects: each is a request of its own.

use std::sync::{Arc, Mutex};

use crate::servers::*;
use pyisolate_abi::pickle::Value;
use pyisolate_broker::Refusal;
use pyisolate_policy::{LimitName, Limits, Scheme};

/// Redirects every path but `/end` to what is after `?`, by 302 or the status in the path.
fn redirecting() -> (Server, Arc<Mutex<Vec<Asked>>>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&all);
    let server = Server::http(move |asked| {
        kept.lock().unwrap().push(asked.clone());
        match asked.path().split_once('?') {
            Some((path, to)) => {
                let status = path.trim_start_matches('/');
                let status = if status.is_empty() { "302" } else { status };
                // No client lets a guest ask with a backslash.
                redirect(&format!("{status} Moved"), &to.replace("%5C", "\\"))
            }
            None => ok("end"),
        }
    });
    (server, all)
}

fn follow(times: i64) -> [(&'static str, Value); 1] {
    [("redirects", Value::Int(times))]
}

#[test]
fn redirects_are_followed_as_far_as_was_asked() {
    let (server, _) = redirecting();
    let session = cell_for(&server);
    let start = server.url("/?/?/?/end");
    let answer = get(&session, &start).unwrap();
    assert_eq!((answer.status(), answer.header("location").as_deref()), (302, Some("/?/?/end")));
    assert_eq!(answer.url(), start);
    let answer = ask_http(&session, "GET", &start, &follow(3)).unwrap();
    assert_eq!((answer.status(), answer.url()), (200, &*server.url("/end")));
    let failure = failed(ask_http(&session, "GET", &start, &follow(2)));
    assert_eq!(failure.message, "[Errno 40] more than 2 redirects");
    assert_eq!(server.taken(), 1 + 4 + 3);
}

#[test]
fn a_loop_ends() {
    let server = Server::http(|_| redirect("301 Moved", "/again#x"));
    let session = cell_for(&server);
    let failure = failed(ask_http(&session, "GET", &server.url("/"), &follow(20)));
    assert_eq!(failure.message, "[Errno 40] more than 20 redirects");
    assert_eq!(server.taken(), 21);
}

#[test]
fn each_redirect_counts() {
    let server = Server::http(|_| redirect("301 Moved", "/again"));
    let mut cell = Cell::new([http(None, "127.0.0.1", server.port, "/")]);
    cell.limits = Limits { network_ops: 5, ..Limits::default() };
    let refusal = ask_http(&cell.session(), "GET", &server.url("/"), &follow(20)).unwrap_err();
    assert!(matches!(refusal, Refusal::Exhausted { limit: LimitName::NetworkOps, .. }));
    assert_eq!(server.taken(), 5);
}

#[test]
fn a_redirect_cannot_lead_where_the_guest_may_not_go() {
    let (server, asked) = redirecting();
    let (other, _) = redirecting();
    let names = Names::new(&[
        ("public.example", &[&["127.0.0.1"]]),
        ("granted.example", &[&["127.0.0.1"]]),
    ]);
    let mut public = http(None, "public.example", other.port, "/");
    if let pyisolate_policy::Right::Http(right) = &mut public.right {
        right.private = false;
    }
    let mut cell = Cell::new([
        http(Some(Scheme::Http), "granted.example", server.port, "/"),
        deny_http("granted.example", server.port, "/denied"),
        public,
    ]);
    cell.names = Some(Arc::clone(&names));
    let session = cell.session();
    let start = format!("http://granted.example:{}/?", server.port);
    for to in [
        // Loopback by its address, in several spellings, which no rule grants.
        format!("http://127.0.0.1:{}/end", other.port),
        format!("http://0x7f.1:{}/end", other.port),
        format!("http://[::ffff:127.0.0.1]:{}/end", other.port),
        format!("//2130706433:{}/end", other.port),
        format!("http:%5C%5C127.0.0.1:{}/end", other.port),
        // A name that is granted, but not for a private address.
        format!("http://public.example:{}/end", other.port),
        // The same host at another port, by another scheme, at a denied path.
        format!("http://granted.example:{}/end", other.port),
        format!("https://granted.example:{}/end", server.port),
        "/denied".to_owned(),
        "/x/../denied/y".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ] {
        let denied = denied(ask_http(&session, "GET", &format!("{start}{to}"), &follow(5)));
        assert!(denied.reason.contains("by a redirect from http://granted.example"), "{denied:?}");
    }
    // Twelve times the granted name, once the one that is public; no other name is even looked up.
    let unlisted = format!("{start}http://unlisted.example/");
    denied(ask_http(&session, "GET", &unlisted, &follow(5)));
    assert_eq!(names.asked(), 12 + 1);
    for to in ["file:///etc/passwd", "ftp://127.0.0.1/", "http://a@granted.example/", "http://["] {
        let failure = failed(ask_http(&session, "GET", &format!("{start}{to}"), &follow(5)));
        assert!(failure.message.starts_with("[Errno 71] "), "{to}: {failure:?}");
    }
    assert_eq!(other.taken(), 0);
    // The control: the redirect is followed where it is granted.
    let to = format!("http://127.0.0.1:{}/end", other.port);
    session.set_policy(policy(&[
        http(None, "granted.example", server.port, "/"),
        http(None, "127.0.0.1", other.port, "/"),
    ]));
    let answer = ask_http(&session, "GET", &format!("{start}{to}"), &follow(5)).unwrap();
    assert_eq!((answer.url(), other.taken()), (&*to, 1));
    assert!(asked.lock().unwrap().iter().all(|asked| asked.path().starts_with("/?")));
}

#[test]
fn credentials_do_not_follow_to_another_origin() {
    let (server, _) = redirecting();
    let (other, asked) = redirecting();
    let session = Cell::new([
        http(None, "127.0.0.1", server.port, "/"),
        http(None, "127.0.0.1", other.port, "/"),
    ])
    .session();
    let to = format!("http://127.0.0.1:{}/end", other.port);
    let more = [
        headers(&[("Authorization", "Bearer x"), ("Cookie", "a=b"), ("X-A", "b")]),
        follow(1)[0].clone(),
    ];
    ask_http(&session, "GET", &server.url(&format!("/?{to}")), &more).unwrap();
    let asked = asked.lock().unwrap()[0].clone();
    assert_eq!(asked.header("x-a"), Some("b"));
    assert_eq!((asked.header("authorization"), asked.header("cookie")), (None, None));
    assert_eq!(asked.header("host"), Some(&*format!("127.0.0.1:{}", other.port)));
}

#[test]
fn the_method_changes_as_in_browsers() {
    let (server, asked) = redirecting();
    let session = cell_for(&server);
    for (status, method, length) in
        [("302", "GET", None), ("303", "GET", None), ("307", "POST", Some("4"))]
    {
        let more = [("body", Value::Bytes(b"body".to_vec())), follow(1)[0].clone()];
        let url = server.url(&format!("/{status}?/end"));
        ask_http(&session, "POST", &url, &more).unwrap();
        let last = asked.lock().unwrap().last().unwrap().clone();
        assert_eq!(last.line, format!("{method} /end HTTP/1.1"));
        assert_eq!(last.header("content-length"), length);
    }
}
