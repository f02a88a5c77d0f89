//! Both ends in one process: what arrives, what waits, what wakes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use pyisolate_channel::{
    Bells, ChannelError, DEFAULT_RING_BYTES, GuestEnd, HOST_SLEEP_SLICE, HostEnd, Received, Sent,
    max_record, pair,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Long enough for any machine; a test that meets it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for a thread to be asleep.
const A_WHILE: Duration = Duration::from_millis(30);

fn ends(ring_bytes: u32) -> (HostEnd, GuestEnd) {
    let (host, fds) = pair(ring_bytes).unwrap();
    let guest = GuestEnd::attach(fds.memory, fds.socket).unwrap();
    (host, guest)
}

/// Two ends that never spin, as on a machine with one CPU.
fn sleepy_ends(ring_bytes: u32) -> (HostEnd, GuestEnd) {
    thread::spawn(move || {
        let allowed = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one).unwrap();
        ends(ring_bytes)
    })
    .join()
    .unwrap()
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}

#[test]
fn sizes_that_are_no_ring_are_refused() {
    for ring_bytes in [0, 8, 63, 100, 4095, u32::MAX, 1 << 31] {
        assert!(matches!(pair(ring_bytes), Err(ChannelError::RingSize { .. })), "{ring_bytes}");
    }
}

#[test]
fn the_largest_record_crosses_and_a_larger_one_is_refused_without_harm() {
    let (mut host, mut guest) = ends(DEFAULT_RING_BYTES);
    let max_bytes = max_record(DEFAULT_RING_BYTES) as usize;
    let record: Vec<u8> = (0..max_bytes).map(|index| (index % 251) as u8).collect();
    let mut received = Vec::new();
    let error = host.writer.try_send(&[&record, b"1"]).unwrap_err();
    assert!(
        matches!(error, ChannelError::RecordTooLong { length_bytes, .. } if length_bytes == max_bytes + 1)
    );
    assert!(error.channel_survives());
    for _ in 0..5 {
        assert_eq!(host.writer.try_send(&[&record]).unwrap(), Sent::Sent);
        assert_eq!(host.writer.try_send(&[&record]).unwrap(), Sent::Sent);
        assert_eq!(host.writer.try_send(&[]).unwrap(), Sent::Full);
        for _ in 0..2 {
            assert!(guest.reader.try_recv(&mut received).unwrap());
            assert!(received == record);
        }
        assert!(!guest.reader.try_recv(&mut received).unwrap());
    }
}

proptest! {
    /// Records of all lengths, in parts of all lengths, across the end of the ring, both ways.
    #[test]
    fn what_is_sent_is_received(
        records in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5), 1..60)
    ) {
        let (mut host, mut guest) = ends(256);
        let mut received = Vec::new();
        for parts in &records {
            let expected = parts.concat();
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(host.writer.try_send(&parts).unwrap(), Sent::Sent);
            prop_assert_eq!(guest.reader.recv(&mut received, soon()).unwrap(), Received::Record);
            prop_assert_eq!(&received, &expected);
            prop_assert_eq!(guest.writer.try_send(&parts, false).unwrap(), Sent::Sent);
            prop_assert!(host.reader.available().unwrap() > 0);
            prop_assert_eq!(host.reader.recv(&mut received, soon()).unwrap(), Received::Record);
            prop_assert_eq!(&received, &expected);
            prop_assert_eq!(host.reader.available().unwrap(), 0);
        }
    }
}

#[test]
fn waiting_ends_at_the_deadline() {
    let (mut host, _guest) = ends(64);
    let mut record = Vec::new();
    let began = Instant::now();
    let deadline = Some(began + A_WHILE);
    assert_eq!(host.reader.recv(&mut record, deadline).unwrap(), Received::TimedOut);
    assert!(began.elapsed() >= A_WHILE);
    while host.writer.try_send(&[b"x"]).unwrap() == Sent::Sent {}
    let began = Instant::now();
    assert_eq!(host.writer.send(&[b"x"], Some(began + A_WHILE)).unwrap(), Sent::Full);
    assert!(began.elapsed() >= A_WHILE && began.elapsed() < PATIENCE);
}

#[test]
fn a_full_ring_holds_the_guest_back_and_loses_nothing() {
    for (mut host, mut guest) in [ends(128), sleepy_ends(128)] {
        let (report, reports) = mpsc::channel();
        let sender = thread::spawn(move || {
            for number in 0..1000_u32 {
                assert_eq!(
                    guest.writer.send(&[&number.to_ne_bytes()], false, None).unwrap(),
                    Sent::Sent
                );
                report.send(number).unwrap();
            }
        });
        thread::sleep(A_WHILE);
        let sent = reports.try_iter().count();
        assert_eq!(sent, 8, "a ring of 128 bytes takes 8 records of 16");
        let mut record = Vec::new();
        for number in 0..1000_u32 {
            assert_eq!(host.reader.recv(&mut record, soon()).unwrap(), Received::Record);
            assert_eq!(record, number.to_ne_bytes());
        }
        sender.join().unwrap();
    }
}

/// Marks a guest dead while both halves of the host wait for it; how long the slower one took to
/// come back.
fn die_while_both_wait() -> Duration {
    let (mut host, mut guest) = sleepy_ends(64);
    for text in ["first", "second"] {
        assert_eq!(guest.writer.try_send(&[text.as_bytes()], false).unwrap(), Sent::Sent);
    }
    while host.writer.try_send(&[b"x"]).unwrap() == Sent::Sent {}
    let HostEnd { mut writer, mut reader, control } = host;
    let writer = thread::spawn(move || {
        let sent = writer.send(&[b"x"], None).unwrap();
        (sent, Instant::now())
    });
    let reader = thread::spawn(move || {
        let mut records = Vec::new();
        let mut record = Vec::new();
        loop {
            match reader.recv(&mut record, None).unwrap() {
                Received::Record => records.push(record.clone()),
                Received::PeerGone => return (records, Instant::now()),
                Received::TimedOut => unreachable!("there is no deadline"),
            }
        }
    });
    thread::sleep(A_WHILE);
    let died = Instant::now();
    control.mark_dead().unwrap();
    let (sent, writer_back) = writer.join().unwrap();
    let (records, reader_back) = reader.join().unwrap();
    assert_eq!(sent, Sent::PeerGone);
    assert_eq!(records, [b"first".to_vec(), b"second".to_vec()]);
    assert!(control.is_dead() && control.violation().is_none());
    (writer_back - died).max(reader_back - died)
}

#[test]
fn death_wakes_both_waiters_at_once_and_what_was_sent_before_is_received() {
    // Without a wake-up they would come back in the rest of a slice, 70 ms here. One try may fall on
    // the moment between two slices, or on a busy machine.
    let times: Vec<Duration> = (0..3).map(|_| die_while_both_wait()).collect();
    assert!(times.iter().any(|time| *time < HOST_SLEEP_SLICE / 4), "{times:?}");
}

/// Every record may find the other side asleep, awake or in between. A lost wake-up of the guest's
/// stops this test for good, one of the host's until its slice ends.
fn stress((host, mut guest): (HostEnd, GuestEnd), records: u32) {
    let echo = thread::spawn(move || {
        let mut record = Vec::new();
        for _ in 0..records {
            assert_eq!(guest.reader.recv(&mut record, None).unwrap(), Received::Record);
            assert_eq!(guest.writer.send(&[&record], false, None).unwrap(), Sent::Sent);
        }
    });
    let HostEnd { mut writer, mut reader, control: _control } = host;
    let send = thread::spawn(move || {
        for number in 0..records {
            let padding = vec![7; number as usize % 13];
            assert_eq!(
                writer.send(&[&number.to_ne_bytes(), &padding], soon()).unwrap(),
                Sent::Sent
            );
        }
    });
    let mut record = Vec::new();
    for number in 0..records {
        assert_eq!(reader.recv(&mut record, soon()).unwrap(), Received::Record);
        assert_eq!(record[..4], number.to_ne_bytes());
        assert_eq!(record.len(), 4 + number as usize % 13);
    }
    send.join().unwrap();
    echo.join().unwrap();
}

#[test]
fn no_wake_up_is_lost_between_sides_that_spin() {
    stress(ends(64), 100_000);
}

#[test]
fn no_wake_up_is_lost_between_sides_that_always_sleep() {
    stress(sleepy_ends(64), 20_000);
}

#[test]
fn the_bell_is_rung_when_nobody_reads_and_somebody_should() {
    let (mut host, mut guest) = ends(128);
    let mut record = Vec::new();
    let rung = |host: &HostEnd| match host.control.drain_bell().unwrap() {
        Bells::Rung(bells) => bells,
        Bells::Closed => panic!("the guest's end is open"),
    };

    // Nobody reads yet: only the urgent record rings, and a second one adds nothing.
    for (urgent, bells) in [(false, 0), (true, 1), (true, 0)] {
        assert_eq!(guest.writer.try_send(&[b"x"], urgent).unwrap(), Sent::Sent);
        assert_eq!(rung(&host), bells, "urgent: {urgent}");
    }

    // Somebody reads: no bell.
    host.reader.enter_reading();
    assert_eq!(guest.writer.try_send(&[b"x"], true).unwrap(), Sent::Sent);
    assert_eq!(rung(&host), 0);

    // Leaving says that records are left, and again when there are none.
    assert!(host.reader.leave_reading().unwrap());
    while host.reader.try_recv(&mut record).unwrap() {}
    assert!(!host.reader.leave_reading().unwrap());

    // Gone again: the next urgent record rings.
    assert_eq!(guest.writer.try_send(&[b"x"], true).unwrap(), Sent::Sent);
    assert_eq!(rung(&host), 1);

    // A guest that has to wait for room rings as well, urgent or not.
    while guest.writer.try_send(&[b"x"], false).unwrap() == Sent::Sent {}
    assert_eq!(rung(&host), 0);
    let deadline = Some(Instant::now() + A_WHILE);
    assert_eq!(guest.writer.send(&[b"x"], false, deadline).unwrap(), Sent::Full);
    assert!(rung(&host) >= 1);

    drop(guest);
    assert_eq!(host.control.drain_bell().unwrap(), Bells::Closed);
}

#[test]
fn a_host_that_found_no_room_is_rung_once_when_the_ring_is_half_empty() {
    let (mut host, mut guest) = ends(128);
    let mut record = Vec::new();
    assert!(host.writer.want_room_bell().unwrap(), "an empty ring has room");
    let mut sent = 0;
    while host.writer.try_send(&[b"x"]).unwrap() == Sent::Sent {
        sent += 1;
    }
    assert_eq!(sent, 8);
    assert!(!host.writer.want_room_bell().unwrap());
    let mut bells = Vec::new();
    for _ in 0..sent {
        assert!(guest.reader.try_recv(&mut record).unwrap());
        bells.push(host.control.drain_bell().unwrap());
    }
    let expected: Vec<Bells> = (1..=sent).map(|taken| Bells::Rung(u32::from(taken == 4))).collect();
    assert_eq!(bells, expected);
    assert_eq!(host.writer.try_send(&[b"x"]).unwrap(), Sent::Sent);
    assert!(guest.reader.try_recv(&mut record).unwrap());
    assert_eq!(host.control.drain_bell().unwrap(), Bells::Rung(0), "the request was withdrawn");
}
