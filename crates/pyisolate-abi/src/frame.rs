//! How one crossing is laid out in bytes.
//!
//! A frame is a fixed head, a table of parts, and the bytes of the inline parts one after another.
//! All numbers are little-endian.
//!
//! ```text
//! 0   u8   kind          what this is (see `message`)
//! 1   u8   flags         must be zero
//! 2   u16  parts         how many entries the table has, at most PARTS_MAX
//! 4   u32  id            pairs a question with its answer; 0 where there is none
//! 8   u32  store         the shared buffer that stored parts lie in; 0 = none
//! 12  part table         8 bytes each: u32 len, u32 place
//!     inline bytes       of every inline part, in the table's order, without padding
//! ```
//!
//! `place` is [`INLINE`] for an inline part, or else the part's offset in the store in units of
//! [`STORE_ALIGN`] bytes. The record around a frame (its length, its place in a ring) is the
//! transport's business.

use thiserror::Error;

/// The largest frame that travels inline: head, table and inline bytes. Larger payloads go into a
/// shared buffer. A quarter of the default ring of 256 KiB, so that one frame can be written while
/// others wait to be read.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// The most parts in one frame. A message's strings take at most four; the rest are out-of-band
/// buffers, and a sender that has more keeps the small ones in band.
pub const PARTS_MAX: usize = 256;

/// Stored parts begin at multiples of this, in bytes: a cache line, which is also what numpy wants.
pub const STORE_ALIGN: u64 = 64;

/// The `place` of a part whose bytes are in the frame itself.
pub const INLINE: u32 = u32::MAX;

const HEAD_BYTES: usize = 12;
const ENTRY_BYTES: usize = 8;

/// Why bytes are no frame. Every variant means that the sender broke the contract.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// Shorter than its own head, table or inline bytes.
    #[error("frame is cut off: {have} bytes where {need} are needed")]
    Truncated {
        /// Bytes present.
        have: usize,
        /// Bytes that the frame's own numbers call for.
        need: usize,
    },
    /// Longer than its parts say.
    #[error("frame has {0} bytes behind its last part")]
    Trailing(usize),
    /// Above [`FRAME_BYTES_MAX`].
    #[error("frame of {0} bytes is over the cap of {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// More than [`PARTS_MAX`] parts.
    #[error("frame of {0} parts is over the cap of {PARTS_MAX}")]
    TooManyParts(usize),
    /// A reserved bit is set.
    #[error("frame has unknown flags {0:#04x}")]
    Flags(u8),
    /// A part lies in a store, but the frame names none.
    #[error("part {0} lies in a store, but the frame has none")]
    NoStore(usize),
    /// The kind is not one that this side may receive.
    #[error("frame kind {0} is not in the contract")]
    Kind(u8),
    /// A kind with the wrong number of parts.
    #[error("frame kind {kind} has {parts} parts")]
    Parts {
        /// The frame's kind.
        kind: u8,
        /// How many parts it has.
        parts: usize,
    },
    /// A part that must be text is not UTF-8.
    #[error("part {0} is not UTF-8")]
    Text(usize),
    /// A part that must be a number has the wrong size.
    #[error("part {0} is not a number")]
    Number(usize),
    /// A part that must travel inline does not, or is longer than its cap.
    #[error("part {0} is over its cap")]
    PartTooLong(usize),
}

/// Where one part's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// In the frame.
    Inline(&'a [u8]),
    /// In the frame's store.
    Stored {
        /// First byte, from the start of the store.
        offset: u64,
        /// How many bytes.
        len: u32,
    },
}

impl Part<'_> {
    /// The part's length in bytes, wherever it lies.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Part::Inline(bytes) => bytes.len(),
            Part::Stored { len, .. } => *len as usize,
        }
    }

    /// Whether the part has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One parsed frame. Nothing in it is trusted beyond its layout.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What this is.
    pub kind: u8,
    /// Pairs a question with its answer.
    pub id: u32,
    /// The shared buffer that stored parts lie in; 0 = none.
    pub store: u32,
    /// The parts in order.
    pub parts: Vec<Part<'a>>,
}

impl<'a> Frame<'a> {
    /// Appends the frame's bytes to `out`.
    ///
    /// # Panics
    /// If the sender's own frame has over [`PARTS_MAX`] parts or a store offset that is not a
    /// multiple of [`STORE_ALIGN`]: a fault of the program, never of a peer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.parts.len() <= PARTS_MAX, "a frame has at most {PARTS_MAX} parts");
        out.reserve(encoded_len(&self.parts));
        out.push(self.kind);
        out.push(0);
        let count = u16::try_from(self.parts.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.store.to_le_bytes());
        for part in &self.parts {
            let (len, place) = match part {
                Part::Inline(bytes) => (u32::try_from(bytes.len()).unwrap_or(u32::MAX), INLINE),
                Part::Stored { offset, len } => {
                    assert!(offset % STORE_ALIGN == 0, "stored parts are aligned");
                    (*len, u32::try_from(offset / STORE_ALIGN).unwrap_or(INLINE))
                }
            };
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&place.to_le_bytes());
        }
        for part in &self.parts {
            if let Part::Inline(bytes) = part {
                out.extend_from_slice(bytes);
            }
        }
    }

    /// Reads one frame that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`FrameError`] where a number in the frame is impossible.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(bytes.len()));
        }
        let truncated = |need| FrameError::Truncated { have: bytes.len(), need };
        let (head, rest) =
            bytes.split_first_chunk::<HEAD_BYTES>().ok_or_else(|| truncated(HEAD_BYTES))?;
        let [kind, flags, n0, n1, i0, i1, i2, i3, s0, s1, s2, s3] = *head;
        if flags != 0 {
            return Err(FrameError::Flags(flags));
        }
        let count = usize::from(u16::from_le_bytes([n0, n1]));
        if count > PARTS_MAX {
            return Err(FrameError::TooManyParts(count));
        }
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let store = u32::from_le_bytes([s0, s1, s2, s3]);
        let table_bytes = count * ENTRY_BYTES;
        if rest.len() < table_bytes {
            return Err(truncated(HEAD_BYTES + table_bytes));
        }
        let (table, mut inline) = rest.split_at(table_bytes);
        let mut parts = Vec::with_capacity(count);
        for (index, entry) in table.as_chunks::<ENTRY_BYTES>().0.iter().enumerate() {
            let [l0, l1, l2, l3, p0, p1, p2, p3] = *entry;
            let len = u32::from_le_bytes([l0, l1, l2, l3]);
            let place = u32::from_le_bytes([p0, p1, p2, p3]);
            if place != INLINE {
                if store == 0 {
                    return Err(FrameError::NoStore(index));
                }
                parts.push(Part::Stored { offset: u64::from(place) * STORE_ALIGN, len });
                continue;
            }
            let len = len as usize;
            if inline.len() < len {
                return Err(truncated(bytes.len() - inline.len() + len));
            }
            let (part, behind) = inline.split_at(len);
            parts.push(Part::Inline(part));
            inline = behind;
        }
        if !inline.is_empty() {
            return Err(FrameError::Trailing(inline.len()));
        }
        Ok(Self { kind, id, store, parts })
    }
}

/// Where parts of these lengths lie in a store, one after the other, each aligned; and the length of
/// the store, in bytes.
#[must_use]
pub fn store_layout(lens: impl Iterator<Item = usize>) -> (Vec<Part<'static>>, u64) {
    let mut end = 0_u64;
    let places = lens
        .map(|len| {
            let offset = end;
            end = (end + len as u64).next_multiple_of(STORE_ALIGN);
            Part::Stored { offset, len: u32::try_from(len).unwrap_or(u32::MAX) }
        })
        .collect();
    (places, end)
}

/// How many bytes a frame with these parts takes.
#[must_use]
pub fn encoded_len(parts: &[Part<'_>]) -> usize {
    let inline: usize = parts
        .iter()
        .map(|part| match part {
            Part::Inline(bytes) => bytes.len(),
            Part::Stored { .. } => 0,
        })
        .sum();
    HEAD_BYTES + parts.len() * ENTRY_BYTES + inline
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(frame: &Frame<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        frame.encode(&mut out);
        out
    }

    #[test]
    fn every_cut_is_refused() {
        let frame = Frame {
            kind: 3,
            id: 9,
            store: 0,
            parts: vec![Part::Inline(b"abc"), Part::Inline(b"")],
        };
        let bytes = bytes_of(&frame);
        assert_eq!(Frame::decode(&bytes).as_ref(), Ok(&frame));
        for cut in 0..bytes.len() {
            assert!(Frame::decode(&bytes[..cut]).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn bytes_behind_the_last_part_are_refused() {
        let mut bytes = bytes_of(&Frame { kind: 1, id: 0, store: 0, parts: vec![] });
        bytes.push(0);
        assert_eq!(Frame::decode(&bytes), Err(FrameError::Trailing(1)));
    }

    #[test]
    fn a_stored_part_needs_a_store() {
        let part = Part::Stored { offset: 64, len: 5 };
        let bytes = bytes_of(&Frame { kind: 1, id: 0, store: 0, parts: vec![part] });
        assert_eq!(Frame::decode(&bytes), Err(FrameError::NoStore(0)));
        let frame = Frame { kind: 1, id: 0, store: 7, parts: vec![part] };
        assert_eq!(Frame::decode(&bytes_of(&frame)), Ok(frame));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(bytes_of(&frame), bytes);
            }
        }

        #[test]
        fn what_is_written_is_read(
            kind in any::<u8>(),
            id in any::<u32>(),
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 0..9),
        ) {
            let parts = parts.iter().map(|part| Part::Inline(part)).collect();
            let frame = Frame { kind, id, store: 0, parts };
            let bytes = bytes_of(&frame);
            prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
        }
    }
}
