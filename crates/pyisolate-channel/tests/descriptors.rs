//! Descriptors go to the guest, each with its tag; and what a guest refuses to attach to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

use pyisolate_channel::layout::MAGIC_OFFSET;
use pyisolate_channel::{ChannelError, GuestEnd, Sent, SharedBuffer, pair};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::pwrite;

fn file_with(text: &str) -> File {
    let mut file = File::from(memfd_create(c"test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn descriptors_arrive_in_order_under_their_tags() {
    let (host, fds) = pair(4096).unwrap();
    let mut guest = GuestEnd::attach(fds.memory, fds.socket).unwrap();
    for tag in 1..=3 {
        assert_eq!(
            host.control.send_descriptor(tag, file_with(&format!("file {tag}"))).unwrap(),
            Sent::Sent
        );
    }
    for tag in 1..=2 {
        let mut text = String::new();
        File::from(guest.descriptors.recv(tag).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("file {tag}"));
    }
    let error = guest.descriptors.recv(4).unwrap_err();
    assert!(
        matches!(
            error,
            ChannelError::WrongDescriptor { expected: 4, found: Some(3), descriptors: 1 }
        ),
        "{error}"
    );
    drop(host);
    assert!(matches!(guest.descriptors.recv(5), Err(ChannelError::HostGone)));
}

#[test]
fn a_guest_that_takes_no_descriptors_does_not_hold_the_host() {
    let (host, fds) = pair(4096).unwrap();
    let file = file_with("x");
    let mut sent = 0;
    while host.control.send_descriptor(1, &file).unwrap() == Sent::Sent {
        sent += 1;
        // The kernel counts what is under way for the user, who has other cells.
        assert!(sent < 64);
    }
    assert!(sent > 0);
    drop(fds);
    assert_eq!(host.control.send_descriptor(1, &file).unwrap(), Sent::PeerGone);
}

#[test]
fn only_a_sealed_channel_of_this_version_is_attached_to() {
    let socket = || pair(4096).unwrap().1.socket;

    let unsealed = OwnedFd::from(file_with("x"));
    let error = GuestEnd::attach(unsealed, socket()).unwrap_err();
    assert!(matches!(error, ChannelError::MemoryUnsealed { .. }), "{error}");

    for len_bytes in [0, 4096, 4096 + 100, 4096 + 3 * 4096] {
        let memory = sealed_memory(len_bytes);
        let error = GuestEnd::attach(memory, socket()).unwrap_err();
        assert!(
            matches!(error, ChannelError::MemorySize { found_bytes } if found_bytes == len_bytes as u64),
            "{error}"
        );
    }

    let error = GuestEnd::attach(sealed_memory(4096 + 2 * 4096), socket()).unwrap_err();
    assert!(matches!(error, ChannelError::MemoryVersion { found: 0 }), "{error}");

    let (_host, fds) = pair(4096).unwrap();
    pwrite(&fds.memory, b"PYICHAN0", MAGIC_OFFSET as u64).unwrap();
    let error = GuestEnd::attach(fds.memory, fds.socket).unwrap_err();
    assert!(matches!(error, ChannelError::MemoryVersion { .. }), "{error}");
}

fn sealed_memory(len_bytes: usize) -> OwnedFd {
    use std::os::fd::AsFd;
    let buffer = SharedBuffer::create(len_bytes).unwrap();
    buffer.as_fd().try_clone_to_owned().unwrap()
}
