//! Takes opcodes and payloads off the pickle; believes no length before the bytes are there.

use super::arena::Span;
use super::error::DecodeError;

/// A position in the pickle. The pickle is at most `u32::MAX` bytes long.
pub(super) struct Reader<'p> {
    pickle: &'p [u8],
    next: usize,
    /// Where the opcode being read stands.
    pub(super) opcode_at: usize,
}

impl<'p> Reader<'p> {
    pub(super) fn new(pickle: &'p [u8]) -> Self {
        Self { pickle, next: 0, opcode_at: 0 }
    }

    pub(super) fn pickle(&self) -> &'p [u8] {
        self.pickle
    }

    pub(super) fn position(&self) -> usize {
        self.next
    }

    pub(super) fn remaining(&self) -> usize {
        self.pickle.len() - self.next
    }

    pub(super) fn opcode(&mut self) -> Result<u8, DecodeError> {
        self.opcode_at = self.next;
        self.u8()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.pickle[self.next..].first_chunk() {
            Some(chunk) => {
                self.next += N;
                Ok(*chunk)
            }
            None => Err(self.truncated(N as u64)),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Pickle writes floats big-endian.
    pub(super) fn f64(&mut self) -> Result<f64, DecodeError> {
        self.array().map(f64::from_be_bytes)
    }

    /// The next `len` bytes, by reference.
    pub(super) fn span(&mut self, len: u64) -> Result<Span, DecodeError> {
        if len > self.remaining() as u64 {
            return Err(self.truncated(len));
        }
        // Both fit: the pickle is at most `u32::MAX` long.
        let span = Span { start: self.next as u32, len: len as u32 };
        self.next += len as usize;
        Ok(span)
    }

    pub(super) fn truncated(&self, wanted: u64) -> DecodeError {
        let needed = wanted - self.remaining() as u64;
        DecodeError::Truncated { offset: self.opcode_at, needed }
    }
}
