//! Where everything lies in the shared memory file. Both sides, tests and the fuzzer read this page.
//!
//! ```text
//! byte 0      magic (u64), ring_bytes (u32): written once by the host, checked once by the guest
//! byte 128    host → guest: head, tail, consumer, producer; 128 bytes apart
//! byte 640    guest → host: head, tail, consumer, producer; 128 bytes apart
//! byte 1152   CPU of the host, CPU of the guest; 128 bytes apart
//! byte 4096   host → guest: ring_bytes of data
//! then        guest → host: ring_bytes of data
//! ```
//!
//! Both headers share one page, and no page of the rings is touched before its first record, so an
//! idle channel holds a single page of memory.
//!
//! A record is one 8-byte word that holds the length of the payload in bytes, followed by the
//! payload, padded with zeros to a multiple of 8. (A 4-byte length would save nothing for three
//! quarters of all lengths, and would cost aligned copying.) A record starts at a multiple of 8 and
//! may wrap around the end of the ring between any two words. Numbers are in native byte order:
//! both sides run on the same machine.

/// The first eight bytes of the memory file. The last letter is the version of this layout.
pub const MAGIC: u64 = u64::from_le_bytes(*b"PYICHAN1");

/// Offset of [`MAGIC`], in bytes.
pub const MAGIC_OFFSET: usize = 0;

/// Offset of the capacity of each ring, in bytes.
pub const RING_BYTES_OFFSET: usize = 8;

/// Bytes in front of the first ring: one page on the smallest page size that Linux uses.
pub const HEADER_BYTES: usize = 4096;

/// Distance between two header words, in bytes. Two cache lines of 64, because common prefetchers
/// fetch lines in pairs, and a word that one side writes must not drag along one that the other
/// side writes.
const WORD_STRIDE: usize = 128;

/// Capacity of each ring, in bytes, unless the caller wants another: the largest record that fits
/// (half of it) then covers all small messages and pickles of ordinary size, and a busy cell costs
/// half a MiB for both directions.
pub const DEFAULT_RING_BYTES: u32 = 256 * 1024;

/// Smallest capacity of a ring, in bytes. Of no use but for tests that want to meet its end often.
pub const MIN_RING_BYTES: u32 = 64;

/// Largest capacity of a ring, in bytes. Far below 2^32, so that the distance between two positions
/// (wrapping `u32`s) is never ambiguous; larger payloads belong into a buffer.
pub const MAX_RING_BYTES: u32 = 1 << 26;

/// Bytes of the word that precedes each payload.
pub(crate) const LENGTH_BYTES: u32 = 8;

/// Longest payload of one record in a ring of `ring_bytes`, in bytes.
///
/// A record takes at most half of the ring. Then a producer can write one while the last is still
/// being read, and a ring that is at least half empty has room for *any* record, which is what a
/// consumer relies on when it decides to wake a waiting producer.
#[must_use]
pub const fn max_record(ring_bytes: u32) -> u32 {
    ring_bytes / 2 - LENGTH_BYTES
}

/// Bytes that a record with a payload of `length_bytes` takes in the ring. The caller has checked
/// the length against [`max_record`], so this cannot overflow.
pub(crate) const fn footprint(length_bytes: u32) -> u32 {
    LENGTH_BYTES + length_bytes.next_multiple_of(8)
}

/// Whether a ring may have this capacity.
pub(crate) const fn is_ring_size(ring_bytes: u32) -> bool {
    ring_bytes.is_power_of_two() && ring_bytes >= MIN_RING_BYTES && ring_bytes <= MAX_RING_BYTES
}

/// Size of the whole memory file, in bytes.
pub(crate) const fn memory_bytes(ring_bytes: u32) -> usize {
    HEADER_BYTES + 2 * ring_bytes as usize
}

/// One of the two rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The host produces, the guest consumes.
    ToGuest,
    /// The guest produces, the host consumes.
    ToHost,
}

/// One of the four words that govern a ring. Each has exactly one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Position up to which records are published. Written by the producer; a consumer sleeps on it.
    Head,
    /// Position up to which records are consumed. Written by the consumer; a producer sleeps on it.
    Tail,
    /// The consumer's announcement: how it wants to hear of new records.
    Consumer,
    /// The producer's announcement: how it wants to hear of room.
    Producer,
}

impl Word {
    /// Offset of this word in the memory file, in bytes.
    #[must_use]
    pub const fn offset(self, direction: Direction) -> usize {
        WORD_STRIDE + direction as usize * 4 * WORD_STRIDE + self as usize * WORD_STRIDE
    }
}

/// Offset of the note on which CPU the host watches, in bytes. Holds the CPU's number plus one.
pub const HOST_CPU_OFFSET: usize = 9 * WORD_STRIDE;

/// Offset of the note on which CPU the guest watches, in bytes. Holds the CPU's number plus one.
pub const GUEST_CPU_OFFSET: usize = 10 * WORD_STRIDE;

/// Offset of a ring's data in the memory file, in bytes.
#[must_use]
pub const fn data_offset(direction: Direction, ring_bytes: u32) -> usize {
    HEADER_BYTES + direction as usize * ring_bytes as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_fits_into_its_page_and_no_two_words_share_a_line() {
        let words = [Word::Head, Word::Tail, Word::Consumer, Word::Producer];
        let mut offsets: Vec<usize> = [Direction::ToGuest, Direction::ToHost]
            .into_iter()
            .flat_map(|direction| words.map(|word| word.offset(direction)))
            .collect();
        offsets.insert(0, MAGIC_OFFSET);
        offsets.extend([HOST_CPU_OFFSET, GUEST_CPU_OFFSET]);
        assert!(offsets.windows(2).all(|pair| pair[1] - pair[0] == WORD_STRIDE));
        assert!(offsets[offsets.len() - 1] + 4 <= HEADER_BYTES);
    }

    #[test]
    fn two_of_the_largest_records_fill_a_ring() {
        for shift in MIN_RING_BYTES.ilog2()..=MAX_RING_BYTES.ilog2() {
            let ring_bytes = 1 << shift;
            assert_eq!(2 * footprint(max_record(ring_bytes)), ring_bytes);
        }
    }
}
