//! A process without a free descriptor takes what comes with one, and says what it had no room for.
//!
//! One test, in a program of its own: it lowers the limit of the whole process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::os::fd::OwnedFd;

use pyisolate_channel::control::{Control, Fork, Reply, Request};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn any_fd() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn fork(number: u32) -> Fork {
    Fork { number, memory: any_fd(), socket: any_fd(), control: None }
}

#[test]
fn what_finds_no_descriptor_is_told_by_its_number() {
    let (host, zygote) = Control::pair().unwrap();
    host.send_fork(&fork(1)).unwrap();
    host.send_fork(&fork(2)).unwrap();
    host.send_fork(&fork(5)).unwrap();
    zygote.send_reply(&Reply::Forked { number: 3, pidfd: any_fd() }).unwrap();
    zygote.send_reply(&Reply::Forked { number: 4, pidfd: any_fd() }).unwrap();

    let before = getrlimit(Resource::Nofile);
    let mut held = Vec::new();
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    assert!(matches!(zygote.recv_request(), Ok(Request::Unopened { number: 1 })));
    assert!(matches!(host.recv_reply(true), Ok(Some(Reply::Unopened { number: 3 }))));
    // With room for one of two it has half a channel, which is none, and closes the half.
    held.pop();
    assert!(matches!(zygote.recv_request(), Ok(Request::Unopened { number: 2 })));
    held.push(File::open("/dev/null").unwrap());
    assert!(File::open("/dev/null").is_err());
    held.clear();
    setrlimit(Resource::Nofile, before).unwrap();

    assert!(matches!(zygote.recv_request(), Ok(Request::Fork(Fork { number: 5, .. }))));
    assert!(matches!(host.recv_reply(true), Ok(Some(Reply::Forked { number: 4, .. }))));
}
