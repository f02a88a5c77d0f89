//! Sockets that a cell is handed: it can use them, and cannot aim them anywhere else.

#![expect(unsafe_code, reason = "the tests do what a hostile guest does: raw system calls")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with its own harness is not recognised as one"
)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use common::Feature::Seccomp;
use common::{errno_of, in_child};
use pyisolate_jail::seccomp::Filters;

fn main() {
    let needs = &[Seccomp][..];
    common::run(&[
        ("sockets: a stream is read, written and shut down", needs, streams_work),
        ("sockets: a stream cannot be disconnected", needs, streams_stay_connected),
        ("sockets: a disconnected socket cannot be aimed", needs, disconnected_stay_so),
        ("sockets: a stream that was shut down cannot be aimed", needs, shut_streams_stay_shut),
        ("sockets: a named address changes nothing", needs, named_addresses_change_nothing),
        ("sockets: options that change a socket's nature are refused", needs, options_are_few),
    ]);
}

fn confine() {
    let filters = Filters::compile().unwrap();
    filters.install_zygote().unwrap();
    filters.install_cell().unwrap();
}

/// A connection on the loopback, both ends of it, and a listener elsewhere that it is not for.
struct Scene {
    stream: TcpStream,
    peer: TcpStream,
    elsewhere: TcpListener,
}

fn scene() -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    Scene { stream, peer, elsewhere }
}

impl Scene {
    fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    fn other_address(&self) -> libc::sockaddr_in {
        let SocketAddr::V4(address) = self.elsewhere.local_addr().unwrap() else {
            unreachable!("bound to an IPv4 address")
        };
        libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
            sin_zero: [0; 8],
        }
    }

    /// Whether somebody came to the listener that nobody should come to.
    fn reached_elsewhere(&self) -> bool {
        self.elsewhere.accept().is_ok()
    }
}

const ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

fn disconnect(socket: RawFd) -> libc::c_long {
    let nowhere = libc::sockaddr_in {
        sin_family: libc::AF_UNSPEC as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    };
    // SAFETY: a live address of the length that is given.
    unsafe { libc::connect(socket, (&raw const nowhere).cast(), ADDRESS_BYTES) }.into()
}

fn connect(socket: RawFd, to: &libc::sockaddr_in) -> libc::c_long {
    // SAFETY: as above.
    unsafe { libc::connect(socket, (&raw const *to).cast(), ADDRESS_BYTES) }.into()
}

fn send_to(socket: RawFd, flags: libc::c_int, to: Option<&libc::sockaddr_in>) -> libc::c_long {
    let (address, length) = match to {
        Some(to) => ((&raw const *to).cast(), ADDRESS_BYTES),
        None => (std::ptr::null(), 0),
    };
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: a live buffer of one byte, and no address or a live one of the length that is given.
    unsafe { libc::sendto(socket, b"x".as_ptr().cast(), 1, flags, address, length) as libc::c_long }
}

fn send_message(socket: RawFd, flags: libc::c_int, to: &libc::sockaddr_in) -> libc::c_long {
    let mut byte = *b"x";
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all zeros is a message without parts, address or control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw const *to).cast_mut().cast();
    message.msg_namelen = ADDRESS_BYTES;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    // SAFETY: a message whose every pointer is to live memory of the length that it says, which the
    // call only reads.
    let sent = unsafe { libc::sendmsg(socket, &raw const message, flags | libc::MSG_NOSIGNAL) };
    sent as libc::c_long
}

fn streams_work() {
    let mut scene = scene();
    scene.peer.write_all(b"question").unwrap();
    let code = in_child(|| {
        confine();
        let mut word = [0; 8];
        scene.stream.read_exact(&mut word).unwrap();
        scene.stream.write_all(b"answer").unwrap();
        scene.stream.set_nodelay(true).unwrap();
        assert!(scene.stream.peer_addr().is_ok());
        scene.stream.shutdown(Shutdown::Write).unwrap();
        i32::from(&word != b"question")
    });
    assert_eq!(code, 0);
    let mut answer = String::new();
    scene.peer.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

fn streams_stay_connected() {
    let connected = scene();
    assert_eq!(errno_of(confine, || disconnect(connected.fd())), libc::EPERM);
    assert_eq!(errno_of(|| {}, || disconnect(connected.fd())), 0, "control");
}

/// Without the filter a disconnected socket goes wherever it is told, by each of four calls.
fn disconnected_stay_so() {
    type Way = fn(RawFd, &libc::sockaddr_in) -> libc::c_long;
    let fast = libc::MSG_FASTOPEN;
    let ways: [(&str, Way); 5] = [
        ("connect", connect),
        ("sendto", |socket, to| send_to(socket, libc::MSG_FASTOPEN, Some(to))),
        ("sendmsg", |socket, to| send_message(socket, libc::MSG_FASTOPEN, to)),
        // SAFETY: both take numbers, or a live address.
        ("listen", |socket, _| unsafe { libc::listen(socket, 1) }.into()),
        ("bind", |socket, to| {
            let own = libc::sockaddr_in { sin_port: 0, ..*to };
            // SAFETY: a live address of the length that is given.
            unsafe { libc::bind(socket, (&raw const own).cast(), ADDRESS_BYTES) }.into()
        }),
    ];
    for (name, way) in ways {
        let free = scene();
        let aim = || way(free.fd(), &free.other_address());
        let control = errno_of(|| assert_eq!(disconnect(free.fd()), 0), aim);
        assert_eq!(control, 0, "control: {name}");
        if ["connect", "sendto", "sendmsg"].contains(&name) {
            assert!(free.reached_elsewhere(), "control: {name}");
        }
        let held = scene();
        let set_up = || {
            assert_eq!(disconnect(held.fd()), 0);
            confine();
        };
        let aim = || way(held.fd(), &held.other_address());
        assert_eq!(errno_of(set_up, aim), libc::EPERM, "{name}");
        assert!(!held.reached_elsewhere(), "{name}");
    }
    // The flag alone, without an address.
    let held = scene();
    assert_eq!(errno_of(confine, || send_to(held.fd(), fast, None)), libc::EPERM);
}

fn shut_streams_stay_shut() {
    for name in ["sendto", "sendmsg"] {
        let mut held = scene();
        held.stream.shutdown(Shutdown::Both).unwrap();
        held.peer.shutdown(Shutdown::Both).unwrap();
        let _ = held.peer.read(&mut [0]);
        let aim = || match name {
            "sendto" => send_to(held.fd(), libc::MSG_FASTOPEN, Some(&held.other_address())),
            _ => send_message(held.fd(), libc::MSG_FASTOPEN, &held.other_address()),
        };
        assert_eq!(errno_of(confine, aim), libc::EPERM, "{name}");
        // The kernel's own answer is a refusal too: what was connected once is not connected again.
        assert_ne!(errno_of(|| {}, aim), libc::EPERM, "control: {name}");
        assert!(!held.reached_elsewhere(), "{name}");
    }
}

fn named_addresses_change_nothing() {
    let held = scene();
    let elsewhere = held.other_address();
    assert_eq!(errno_of(confine, || send_to(held.fd(), 0, Some(&elsewhere))), libc::EPERM);
    // The filter cannot see this address; TCP does not look at it, and sends to its peer.
    assert_eq!(errno_of(confine, || send_message(held.fd(), 0, &elsewhere)), 0);
    let mut byte = [0];
    (&held.peer).read_exact(&mut byte).unwrap();
    assert!(byte == *b"x" && !held.reached_elsewhere());
    let disconnected = || {
        assert_eq!(disconnect(held.fd()), 0);
        confine();
    };
    let sent = errno_of(disconnected, || send_message(held.fd(), 0, &elsewhere));
    assert!([libc::EPIPE, libc::ECONNRESET].contains(&sent), "{sent}");
    assert!(!held.reached_elsewhere());
}

fn options_are_few() {
    let held = scene();
    let set = |level: libc::c_int, option: libc::c_int| {
        let one: libc::c_int = 1;
        move |socket: RawFd| -> libc::c_long {
            // SAFETY: a live int of the length that is given.
            unsafe { libc::setsockopt(socket, level, option, (&raw const one).cast(), 4) }.into()
        }
    };
    for (level, option) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    ] {
        assert_eq!(errno_of(confine, || set(level, option)(held.fd())), 0, "{level} {option}");
    }
    for (level, option) in [
        (libc::IPPROTO_TCP, libc::TCP_REPAIR),
        (libc::IPPROTO_TCP, libc::TCP_ULP),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
        (libc::IPPROTO_TCP, libc::TCP_CONGESTION),
        (libc::IPPROTO_TCP, libc::TCP_MD5SIG),
        (libc::SOL_IP, libc::IP_TRANSPARENT),
        (libc::SOL_IP, libc::IP_FREEBIND),
        (libc::SOL_IP, libc::IP_OPTIONS),
        (libc::SOL_SOCKET, libc::SO_LINGER),
        (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
        (libc::SOL_SOCKET, libc::SO_REUSEPORT),
        (libc::SOL_SOCKET, libc::SO_REUSEADDR),
        (libc::SOL_SOCKET, libc::SO_MARK),
        (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
        (libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
        (libc::SOL_SOCKET, libc::SO_ZEROCOPY),
    ] {
        let refused = errno_of(confine, || set(level, option)(held.fd()));
        assert_eq!(refused, libc::EPERM, "{level} {option}");
    }
    // Some of them would have been done for anybody.
    for option in [libc::SO_REUSEPORT, libc::SO_REUSEADDR, libc::SO_ZEROCOPY] {
        assert_eq!(errno_of(|| {}, || set(libc::SOL_SOCKET, option)(held.fd())), 0, "control");
    }
    let interfaces = || {
        // SAFETY: a request that the filter refuses, or that fails on a null pointer.
        unsafe { libc::ioctl(held.fd(), libc::SIOCGIFCONF as _, 0) }.into()
    };
    assert_eq!(errno_of(confine, interfaces), libc::EPERM);
    assert_eq!(errno_of(|| {}, interfaces), libc::EFAULT, "control");
}
