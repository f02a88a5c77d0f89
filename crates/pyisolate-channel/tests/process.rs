//! The guest's end in a process of its own: this test program, started again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pyisolate_channel::{
    Bells, DEFAULT_RING_BYTES, GuestEnd, HostEnd, Received, Sent, SharedBuffer, fill_buffer,
    map_buffer, max_record, pair,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Says where the guest finds the memory file, and thereby that it is one.
const GUEST_MEMORY: &str = "PYISOLATE_CHANNEL_TEST_GUEST_MEMORY";

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(20))
}

struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the guest of this test is this program")]
fn start() -> (HostEnd, Guest) {
    let (host, fds) = pair(DEFAULT_RING_BYTES).unwrap();
    // The socket is the guest's standard input; the memory file it opens while we still hold it.
    let memory = format!("/proc/{}/fd/{}", std::process::id(), fds.memory.as_raw_fd());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "guest", "--nocapture"])
        .env(GUEST_MEMORY, memory)
        .stdin(fds.socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut host = host;
    let mut ready = Vec::new();
    assert_eq!(host.reader.recv(&mut ready, soon()).unwrap(), Received::Record);
    assert_eq!(ready, b"ready");
    (host, Guest(child))
}

/// The guest: echoes records, and obeys three words. Does nothing when run as a test.
#[test]
fn guest() {
    let Ok(path) = std::env::var(GUEST_MEMORY) else { return };
    let memory: OwnedFd = OpenOptions::new().read(true).write(true).open(path).unwrap().into();
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut guest = GuestEnd::attach(memory, socket).unwrap();
    assert_eq!(guest.writer.send(&[b"ready"], true, None).unwrap(), Sent::Sent);
    let mut record = Vec::new();
    loop {
        assert_eq!(guest.reader.recv(&mut record, None).unwrap(), Received::Record);
        match record.as_slice() {
            b"flood" => loop {
                assert_eq!(guest.writer.send(&[&record], false, None).unwrap(), Sent::Sent);
            },
            b"upper" => {
                let sealed = guest.descriptors.recv(1).unwrap();
                let empty = guest.descriptors.recv(2).unwrap();
                let mut bytes = map_buffer(sealed, 1 << 20).unwrap();
                bytes.make_ascii_uppercase();
                fill_buffer(empty, &[&bytes]).unwrap();
                assert_eq!(guest.writer.send(&[b"done"], true, None).unwrap(), Sent::Sent);
            }
            _ => assert_eq!(guest.writer.send(&[&record], true, None).unwrap(), Sent::Sent),
        }
    }
}

#[test]
fn records_of_all_sizes_come_back() {
    let (mut host, _guest) = start();
    let max_bytes = max_record(DEFAULT_RING_BYTES) as usize;
    let all: Vec<u8> = (0..max_bytes).map(|index| (index % 253) as u8).collect();
    let mut record = Vec::new();
    let lengths = (0..2000).chain((0..60).map(|step| step * max_bytes / 60)).chain([max_bytes]);
    for length in lengths {
        assert_eq!(
            host.writer.send(&[&all[..length / 3], &all[length / 3..length]], soon()).unwrap(),
            Sent::Sent
        );
        assert_eq!(host.reader.recv(&mut record, soon()).unwrap(), Received::Record);
        assert!(record == all[..length], "{length}");
    }
}

#[test]
fn a_host_that_does_not_read_is_called_by_the_bell() {
    let (mut host, _guest) = start();
    assert!(!host.reader.leave_reading().unwrap());
    // The guest has perhaps rung before the host began to read.
    assert!(matches!(host.control.drain_bell().unwrap(), Bells::Rung(0 | 1)));
    assert_eq!(host.writer.send(&[b"hello"], soon()).unwrap(), Sent::Sent);
    let bell = host.control.bell_fd();
    let mut polled = [PollFd::new(&bell, PollFlags::IN)];
    assert_eq!(poll(&mut polled, Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap(), 1);
    assert_eq!(host.control.drain_bell().unwrap(), Bells::Rung(1));
    let mut record = Vec::new();
    assert!(host.reader.try_recv(&mut record).unwrap());
    assert_eq!(record, b"hello");
}

#[test]
fn buffers_cross_both_ways() {
    let (mut host, _guest) = start();
    let there = SharedBuffer::create(1 << 20).unwrap();
    there.write_at(0, &vec![b'a'; 1 << 20]).unwrap();
    let back = SharedBuffer::create(1 << 20).unwrap();
    assert_eq!(host.writer.send(&[b"upper"], soon()).unwrap(), Sent::Sent);
    assert_eq!(
        host.control.send_descriptor(1, there.seal_for_guest().unwrap()).unwrap(),
        Sent::Sent
    );
    assert_eq!(host.control.send_descriptor(2, &back).unwrap(), Sent::Sent);
    let mut record = Vec::new();
    assert_eq!(host.reader.recv(&mut record, soon()).unwrap(), Received::Record);
    assert_eq!(record, b"done");
    assert!(back.seal_and_map().unwrap().iter().all(|byte| *byte == b'A'));
}

#[test]
fn a_killed_guest_leaves_what_it_sent_and_then_its_absence() {
    let (mut host, mut guest) = start();
    assert_eq!(host.writer.send(&[b"flood"], soon()).unwrap(), Sent::Sent);
    thread::sleep(Duration::from_millis(50));
    let HostEnd { mut reader, control, .. } = host;
    let watcher = thread::spawn(move || {
        guest.0.kill().unwrap();
        guest.0.wait().unwrap();
        control.mark_dead().unwrap();
        control
    });
    let mut record = Vec::new();
    let mut received_bytes = 0;
    loop {
        match reader.recv(&mut record, soon()).unwrap() {
            Received::Record => {
                assert_eq!(record, b"flood");
                received_bytes += 16;
            }
            Received::PeerGone => break,
            Received::TimedOut => panic!("nobody said that the guest was dead"),
        }
    }
    assert!(received_bytes >= DEFAULT_RING_BYTES, "the ring was full");
    let control = watcher.join().unwrap();
    assert!(matches!(control.drain_bell().unwrap(), Bells::Closed | Bells::Rung(_)));
}
