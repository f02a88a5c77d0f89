//! Header words and records of the guest's choice, against everything the host does with a ring.
//!
//! The bytes are a program for a hostile guest: each step writes one header word or one word of
//! data, or lets the host act. All that may come of it is a result or a violation.
#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pyisolate_channel::layout::{Direction, MIN_RING_BYTES, Word, data_offset};
use pyisolate_channel::{ChannelError, max_record, pair};

/// Small, so that a short program reaches the end of the ring.
const RING_BYTES: u32 = 2 * MIN_RING_BYTES;

#[derive(Debug, Arbitrary)]
enum Step {
    /// Any value in a header word.
    Word { choice: u8, value: u32 },
    /// A value in a header word that passes the first check.
    Position { choice: u8, words: u8 },
    /// Any value in a word of data of the guest's ring.
    Data { place: u8, value: u64 },
    /// A length that may be right in a word of data of the guest's ring.
    Length { place: u8, length_bytes: u8 },
    /// The host receives.
    Receive,
    /// The host waits for a moment.
    Wait,
    /// The host sends.
    Send { length_bytes: u8 },
    /// The host leaves, and asks for a bell.
    Leave,
}

fn place_of(choice: u8) -> u64 {
    let direction = if choice & 4 == 0 { Direction::ToHost } else { Direction::ToGuest };
    let word = [Word::Head, Word::Tail, Word::Consumer, Word::Producer][usize::from(choice & 3)];
    word.offset(direction) as u64
}

fn tolerate<T>(result: Result<T, ChannelError>) {
    match result {
        Ok(_) | Err(ChannelError::Violation(_) | ChannelError::RecordTooLong { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let (mut host, guest) = pair(RING_BYTES).expect("a small channel");
    let poke = |offset: u64, bytes: &[u8]| {
        rustix::io::pwrite(&guest.memory, bytes, offset).expect("the memory file is writable");
    };
    let data = |place: u8| {
        let within = usize::from(place) * 8 % RING_BYTES as usize;
        (data_offset(Direction::ToHost, RING_BYTES) + within) as u64
    };
    let began = Instant::now();
    let shortly = || Some(Instant::now() + Duration::from_micros(100));
    let mut record = Vec::new();
    for step in steps.iter().take(200) {
        match *step {
            Step::Word { choice, value } => poke(place_of(choice), &value.to_ne_bytes()),
            Step::Position { choice, words } => {
                poke(place_of(choice), &(u32::from(words) * 8).to_ne_bytes());
            }
            Step::Data { place, value } => poke(data(place), &value.to_ne_bytes()),
            Step::Length { place, length_bytes } => {
                poke(data(place), &u64::from(length_bytes % 64).to_ne_bytes());
            }
            Step::Receive => tolerate(host.reader.try_recv(&mut record)),
            Step::Wait => tolerate(host.reader.recv(&mut record, shortly())),
            Step::Send { length_bytes } => {
                let payload = [7; u8::MAX as usize];
                tolerate(host.writer.send(&[&payload[..usize::from(length_bytes)]], shortly()));
            }
            Step::Leave => {
                tolerate(host.reader.available());
                tolerate(host.reader.leave_reading());
                tolerate(host.writer.want_room_bell());
            }
        }
        assert!(record.len() <= max_record(RING_BYTES) as usize);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
});
