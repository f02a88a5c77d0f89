//! `random`: random bytes, or the same bytes in every run.
//!
//! A grant with a seed answers from ChaCha20, with a key that is made from the seed alone and a
//! stream that begins when the cell first asks: every cell and every run gets the same bytes for
//! the same seed, however it cuts them into requests. A policy with another seed begins another stream.
//! Such bytes are known to whoever knows the seed; they are for repeating, not for keys.

use std::sync::{Mutex, PoisonError};

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Act, Right};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::Payload;
use crate::session::Session;
use crate::task::{Pace, Task, no_action};

/// The most that one request gets: more than any program needs at once, and some milliseconds.
const LENGTH_MAX: u64 = 1 << 20;

/// Up to here the kernel takes some microseconds.
const QUICK_LENGTH: usize = 4096;

/// What the key has beside the seed, so that it is nobody else's.
const KEY_LABEL: [u8; 24] = *b"pyisolate random bytes 1";

pub(crate) fn parse(action: &str, payload: &Value) -> Result<Box<dyn Task>, Failure> {
    if action != "bytes" {
        return Err(no_action("random", action, &["bytes"]));
    }
    let mut payload = Payload::new("random", action, payload)?;
    let length = payload.size("length")?;
    if length > LENGTH_MAX {
        return Err(payload.wrong(format_args!("\"length\" is at most {LENGTH_MAX}")));
    }
    let length = usize::try_from(length).map_err(|_| payload.wrong("\"length\" is too much"))?;
    payload.end()?;
    Ok(Box::new(RandomTask { length }))
}

#[derive(Debug)]
struct RandomTask {
    length: usize,
}

impl Task for RandomTask {
    fn act(&self) -> Option<&Act> {
        Some(&Act::Random)
    }

    fn pace(&self) -> Pace {
        if self.length <= QUICK_LENGTH { Pace::Quick } else { Pace::Slow }
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        let seed = loop {
            let policy = session.policy();
            let verdict = policy.decide(&Act::Random);
            match verdict.rule.map(|rule| &rule.right) {
                Some(Right::Random { seed }) if verdict.allowed => break *seed,
                // Another policy came since it was asked, and maybe one more by now.
                _ => session.check(&Act::Random)?,
            }
        };
        let mut bytes = vec![0; self.length];
        match seed {
            Some(seed) => session.random.fill(seed, &mut bytes),
            None => fill(&mut bytes).map_err(|errno| Refusal::Failed(Failure::os(errno)))?,
        }
        Ok(Value::Bytes(bytes).into())
    }
}

/// From the kernel.
fn fill(bytes: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match getrandom(&mut bytes[done..], GetRandomFlags::empty()) {
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The seeded generator of a session.
#[derive(Debug, Default)]
pub(crate) struct Generator(Mutex<Option<Seeded>>);

#[derive(Debug)]
struct Seeded {
    seed: u64,
    stream: ChaCha20Rng,
    /// Bytes of the last block that nobody asked for yet: the generator gives whole words.
    left: Vec<u8>,
}

impl Generator {
    /// The next bytes of the stream.
    fn fill(&self, seed: u64, bytes: &mut [u8]) {
        let mut seeded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seeded.as_ref().is_none_or(|seeded| seeded.seed != seed) {
            *seeded = Some(Seeded::new(seed));
        }
        if let Some(seeded) = seeded.as_mut() {
            seeded.fill(bytes);
        }
    }
}

/// The bytes of one block of the cipher.
const BLOCK_BYTES: usize = 64;

impl Seeded {
    fn new(seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..].copy_from_slice(&KEY_LABEL);
        Self { seed, stream: ChaCha20Rng::from_seed(key), left: Vec::new() }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        let kept = self.left.len().min(bytes.len());
        bytes[..kept].copy_from_slice(&self.left[..kept]);
        self.left.drain(..kept);
        let (whole, rest) = {
            let rest = &mut bytes[kept..];
            let whole = rest.len() - rest.len() % BLOCK_BYTES;
            rest.split_at_mut(whole)
        };
        self.stream.fill_bytes(whole);
        if !rest.is_empty() {
            let mut block = [0; BLOCK_BYTES];
            self.stream.fill_bytes(&mut block);
            rest.copy_from_slice(&block[..rest.len()]);
            self.left.extend_from_slice(&block[rest.len()..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(generator: &Generator, seed: u64, lengths: &[usize]) -> Vec<u8> {
        let mut all = Vec::new();
        for &length in lengths {
            let mut bytes = vec![0; length];
            generator.fill(seed, &mut bytes);
            all.extend(bytes);
        }
        all
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let whole = taken(&Generator::default(), 7, &[1000]);
        for cuts in [&[1, 2, 3, 994][..], &[63, 1, 64, 65, 807], &[500, 0, 500]] {
            assert_eq!(taken(&Generator::default(), 7, cuts), whole, "{cuts:?}");
        }
        assert_ne!(taken(&Generator::default(), 8, &[1000]), whole);
    }

    #[test]
    fn the_bytes_of_a_seed_never_change() {
        // The cipher of RFC 8439 with a counter and a nonce of 0, by another implementation.
        let bytes = taken(&Generator::default(), 0, &[16]);
        assert_eq!(hex(&bytes), "119a6525e95d6e3b74ba45980be09f9e");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn another_seed_begins_again() {
        let generator = Generator::default();
        let first = taken(&generator, 1, &[10]);
        assert_ne!(taken(&generator, 2, &[10]), first);
        assert_eq!(taken(&generator, 1, &[10]), first);
    }
}
