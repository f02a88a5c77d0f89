//! A peer that writes what it likes, where it likes, when it likes. The host answers with a
//! violation, a record or a timeout; it does not panic, does not hang and takes nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use pyisolate_channel::layout::{Direction, Word, data_offset};
use pyisolate_channel::{
    Bells, ChannelError, GuestEnd, HostEnd, Received, Sent, Violation, max_record, pair,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::pwrite;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};

const RING_BYTES: u32 = 128;

/// A host, and the two descriptors with which a guest can do everything that it can do at all.
fn hostile_pair() -> (HostEnd, OwnedFd, OwnedFd) {
    let (host, fds) = pair(RING_BYTES).unwrap();
    (host, fds.memory, fds.socket)
}

fn poke(memory: &OwnedFd, offset: usize, bytes: &[u8]) {
    assert_eq!(pwrite(memory, bytes, offset as u64).unwrap(), bytes.len());
}

fn poke_word(memory: &OwnedFd, direction: Direction, word: Word, value: u32) {
    poke(memory, word.offset(direction), &value.to_ne_bytes());
}

/// Everything a host does with a channel, once. All that may come of it is a result or a violation.
fn exercise(host: &mut HostEnd) {
    fn tolerate<T>(result: Result<T, ChannelError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(ChannelError::Violation(_)) => None,
            Err(other) => panic!("{other}"),
        }
    }
    let began = Instant::now();
    let shortly = || Some(Instant::now() + Duration::from_millis(2));
    let mut record = Vec::new();
    tolerate(host.reader.available());
    host.reader.enter_reading();
    for _ in 0..20 {
        if tolerate(host.reader.try_recv(&mut record)).is_none() {
            break;
        }
        assert!(record.len() <= max_record(RING_BYTES) as usize);
    }
    tolerate(host.reader.recv(&mut record, shortly()).map(|_: Received| ()));
    tolerate(host.reader.leave_reading());
    for length in [0, 1, 24, 56] {
        tolerate(host.writer.try_send(&[&vec![7; length]]).map(|_: Sent| ()));
    }
    tolerate(host.writer.want_room_bell());
    tolerate(host.writer.send(&[&[7; 56]], shortly()).map(|_: Sent| ()));
    tolerate(host.control.drain_bell());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Mostly numbers near the ones that are right, or they would all fail the first check.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => (0..=2 * RING_BYTES / 8).prop_map(|words| words * 8),
        1 => (0..=8_u32).prop_map(|words| 0_u32.wrapping_sub(words * 8)),
        1 => 0..=2 * RING_BYTES,
        1 => any::<u32>(),
    ]
}

fn data_word() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..=64_u64, 1 => any::<u64>(), 1 => any::<u32>().prop_map(u64::from)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any header words and any ring data, twice over, so that the second find a ring in use.
    #[test]
    fn whatever_the_memory_says_the_host_survives(
        rounds in prop::collection::vec(
            (prop::array::uniform8(prop::option::weighted(0.4, word())), prop::collection::vec(data_word(), 32)),
            1..3,
        )
    ) {
        let (mut host, memory, _socket) = hostile_pair();
        for (words, data) in rounds {
            let all = [Word::Head, Word::Tail, Word::Consumer, Word::Producer];
            let places = [Direction::ToGuest, Direction::ToHost]
                .into_iter()
                .flat_map(|direction| all.map(|word| (direction, word)));
            let data: Vec<u8> = data.into_iter().flat_map(u64::to_ne_bytes).collect();
            poke(&memory, data_offset(Direction::ToGuest, RING_BYTES), &data);
            for ((direction, word), value) in places.zip(words) {
                if let Some(value) = value {
                    poke_word(&memory, direction, word, value);
                }
            }
            exercise(&mut host);
        }
    }
}

#[test]
fn the_violation_names_the_number_and_poisons_both_halves() {
    type Case = (fn(&OwnedFd), Violation);
    let cases: [Case; 5] = [
        (
            |memory| poke_word(memory, Direction::ToHost, Word::Head, 12),
            Violation::PositionUnaligned { position: 12 },
        ),
        (
            |memory| poke_word(memory, Direction::ToHost, Word::Head, 136),
            Violation::HeadOutOfRange { head: 136, tail: 0, seen: 0, capacity_bytes: 128 },
        ),
        (
            |memory| poke_word(memory, Direction::ToGuest, Word::Tail, 8),
            Violation::TailOutOfRange { tail: 8, head: 0, seen: 0 },
        ),
        (
            |memory| {
                poke(memory, data_offset(Direction::ToHost, RING_BYTES), &57_u64.to_ne_bytes());
                poke_word(memory, Direction::ToHost, Word::Head, 128);
            },
            Violation::RecordTooLong { length_bytes: 57, max_bytes: 56 },
        ),
        (
            |memory| {
                poke(memory, data_offset(Direction::ToHost, RING_BYTES), &9_u64.to_ne_bytes());
                poke_word(memory, Direction::ToHost, Word::Head, 16);
            },
            Violation::RecordUnpublished { length_bytes: 9, published_bytes: 16 },
        ),
    ];
    for (attack, expected) in cases {
        let (mut host, memory, _socket) = hostile_pair();
        attack(&memory);
        let mut record = Vec::new();
        let first =
            host.reader.try_recv(&mut record).err().or_else(|| host.writer.want_room_bell().err());
        assert!(
            matches!(first, Some(ChannelError::Violation(found)) if found == expected),
            "{first:?}"
        );
        assert_eq!(host.control.violation(), Some(expected));
        // Every later call says the same, even if the memory now looks fine.
        for word in [Word::Head, Word::Tail] {
            poke_word(&memory, Direction::ToHost, word, 0);
            poke_word(&memory, Direction::ToGuest, word, 0);
        }
        let later = [
            host.writer.try_send(&[b"x"]).map(|_: Sent| ()).unwrap_err(),
            host.writer.send(&[b"x"], None).map(|_: Sent| ()).unwrap_err(),
            host.reader.recv(&mut record, None).map(|_: Received| ()).unwrap_err(),
            host.control.drain_bell().map(|_: Bells| ()).unwrap_err(),
        ];
        for error in later {
            assert!(!error.channel_survives());
            assert!(
                matches!(error, ChannelError::Violation(found) if found == expected),
                "{error}"
            );
        }
    }
}

#[test]
fn positions_do_not_move_backwards() {
    let (mut host, memory, socket) = hostile_pair();
    let mut guest = GuestEnd::attach(memory.try_clone().unwrap(), socket).unwrap();
    for _ in 0..2 {
        assert_eq!(guest.writer.try_send(&[b"x"], false).unwrap(), Sent::Sent);
    }
    assert_eq!(host.reader.available().unwrap(), 32);
    poke_word(&memory, Direction::ToHost, Word::Head, 16);
    let error = host.reader.leave_reading().unwrap_err();
    let expected = Violation::HeadOutOfRange { head: 16, tail: 0, seen: 32, capacity_bytes: 128 };
    assert!(matches!(error, ChannelError::Violation(found) if found == expected), "{error}");
}

/// A writer that rewrites header and data while the host reads and writes: every look may see
/// something else. Twenty channels die of it, one after the other.
#[test]
fn a_scribbler_at_work_while_the_host_reads_does_it_no_harm() {
    for seed in 0..20_u64 {
        let (mut host, memory, socket) = hostile_pair();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                let mut random = move || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state
                };
                while !stop.load(Ordering::Relaxed) {
                    let choice = random();
                    let small = (random() % 33 * 8) as u32;
                    match choice % 6 {
                        0 => poke_word(&memory, Direction::ToHost, Word::Head, small),
                        1 => poke_word(&memory, Direction::ToGuest, Word::Tail, small),
                        2 => {
                            poke_word(&memory, Direction::ToGuest, Word::Consumer, random() as u32)
                        }
                        3 => poke_word(&memory, Direction::ToHost, Word::Producer, random() as u32),
                        4 => {
                            let offset =
                                data_offset(Direction::ToHost, RING_BYTES) + small as usize % 128;
                            poke(&memory, offset, &(random() % 60).to_ne_bytes());
                        }
                        _ => {
                            let _ = send(&socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                        }
                    }
                }
            });
            for _ in 0..10 {
                exercise(&mut host);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

/// The read end of a pipe whose write end is gone hangs up: that shows that no copy of the write end
/// is open anywhere, in the host for one.
fn has_hung_up(pipe: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
    poll(&mut polled, Some(&patience)).unwrap() == 1 && polled[0].revents().contains(PollFlags::HUP)
}

#[test]
fn a_descriptor_that_the_guest_sends_never_arrives() {
    let (host, _memory, socket) = hostile_pair();
    let (read_end, write_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let descriptors = [write_end.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let bell = [std::io::IoSlice::new(&[1])];
    sendmsg(&socket, &bell, &mut control, SendFlags::empty()).unwrap();
    drop(write_end);
    let error = host.control.drain_bell().unwrap_err();
    assert!(matches!(error, ChannelError::Violation(Violation::BellCarriedControlData)), "{error}");
    assert!(has_hung_up(&read_end));
}

#[test]
fn a_bell_of_another_size_is_a_violation() {
    let (host, _memory, socket) = hostile_pair();
    send(&socket, &[1; 3000], SendFlags::empty()).unwrap();
    let error = host.control.drain_bell().unwrap_err();
    assert!(
        matches!(error, ChannelError::Violation(Violation::BellSize { bytes: 3000 })),
        "{error}"
    );
}

#[test]
fn a_guest_that_rings_without_end_does_not_hold_the_host() {
    let (host, _memory, socket) = hostile_pair();
    let mut sent = 0;
    while send(&socket, &[1], SendFlags::DONTWAIT).is_ok() {
        sent += 1;
    }
    let mut heard = 0;
    while let Bells::Rung(bells @ 1..) = host.control.drain_bell().unwrap() {
        assert!(bells <= 64);
        heard += bells;
    }
    assert_eq!(heard, sent);
}

#[test]
fn the_guest_distrusts_the_host_alike() {
    let (_host, memory, socket) = hostile_pair();
    let mut guest = GuestEnd::attach(memory.try_clone().unwrap(), socket).unwrap();
    poke_word(&memory, Direction::ToGuest, Word::Head, 136);
    let error = guest.reader.try_recv(&mut Vec::new()).unwrap_err();
    assert!(matches!(error, ChannelError::Violation(Violation::HeadOutOfRange { .. })), "{error}");
}
