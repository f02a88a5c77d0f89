//! The chain: every line carries a hash of itself and the hash of the line before it.
//!
//! A line ends in `,"prev":"…","hash":"…"}` and a line feed. `hash` is the SHA-256 (HMAC-SHA256
//! with a key) of all of the line that stands before `,"hash":`. So
//! `sed 's/,"hash":"[0-9a-f]*"}$//'` and `sha256sum` are enough to check a line by hand.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The shortest key, in bytes: what cannot be guessed.
const KEY_BYTES_MIN: usize = 16;
/// Everything of a line from its own hash on, with a zero for each digit.
const TAIL_BYTES: usize = HASH_FIELD.len() + 64 + LINE_END.len();
const PREV_FIELD: &[u8] = b",\"prev\":\"";
const HASH_FIELD: &[u8] = b",\"hash\":\"";
const LINE_END: &[u8] = b"\"}";

/// A SHA-256 or HMAC-SHA256; 64 hexadecimal digits as text.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LineHash([u8; 32]);

/// A text that is no hash.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("a hash is 64 hexadecimal digits")]
pub struct HashError;

/// What makes a journal's hashes with: without it nobody can make a line that verifies.
#[derive(Clone)]
pub struct JournalKey(Hmac<Sha256>);

/// A key that is too short.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("a journal's key has at least {KEY_BYTES_MIN} bytes, not {0}")]
pub struct KeyError(usize);

impl JournalKey {
    /// Takes a key of at least 16 bytes.
    ///
    /// # Errors
    /// [`KeyError`] if it is shorter.
    pub fn new(key: &[u8]) -> Result<Self, KeyError> {
        if key.len() < KEY_BYTES_MIN {
            return Err(KeyError(key.len()));
        }
        Hmac::new_from_slice(key).map(Self).map_err(|_| KeyError(key.len()))
    }
}

impl fmt::Debug for JournalKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JournalKey(..)")
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.digits();
        out.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Debug for LineHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for LineHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        Self::from_digits(text.as_bytes()).ok_or(HashError)
    }
}

impl TryFrom<String> for LineHash {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, HashError> {
        text.parse()
    }
}

impl From<LineHash> for String {
    fn from(hash: LineHash) -> Self {
        hash.to_string()
    }
}

impl LineHash {
    /// The plain SHA-256 of bytes, for payloads.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its 64 digits.
    pub(crate) fn digits(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }

    /// Reads 64 small digits; capitals would be a second spelling of the same line.
    fn from_digits(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut hash = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(hash))
    }
}

/// What makes and checks the hashes of lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    key: Option<JournalKey>,
    /// The hash of the newest line; zeros before the first.
    pub(crate) newest: LineHash,
}

/// What is wrong with a line, looked at by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadLine {
    /// It does not end as every line does.
    Form,
    /// Its hash is not that of its bytes.
    Hash,
}

impl Chain {
    pub(crate) fn new(key: Option<JournalKey>) -> Self {
        Self { key, newest: LineHash::default() }
    }

    pub(crate) fn is_keyed(&self) -> bool {
        self.key.is_some()
    }

    /// Ends the line that begins at `start` of `out` and has its fields, but no closing brace yet.
    pub(crate) fn seal(&mut self, out: &mut Vec<u8>, start: usize) {
        out.extend_from_slice(PREV_FIELD);
        out.extend_from_slice(&self.newest.digits());
        out.push(b'"');
        self.newest = self.hash(&out[start..]);
        out.extend_from_slice(HASH_FIELD);
        out.extend_from_slice(&self.newest.digits());
        out.extend_from_slice(LINE_END);
        out.push(b'\n');
    }

    /// Checks the hash of a line, which is without its line feed, and makes it the newest. Whether
    /// it follows the one before is for the caller to compare.
    pub(crate) fn check(&mut self, line: &[u8]) -> Result<LineHash, BadLine> {
        let (body, tail) =
            line.len().checked_sub(TAIL_BYTES).map(|at| line.split_at(at)).ok_or(BadLine::Form)?;
        let told = tail
            .strip_prefix(HASH_FIELD)
            .and_then(|rest| rest.strip_suffix(LINE_END))
            .and_then(LineHash::from_digits)
            .ok_or(BadLine::Form)?;
        if self.hash(body) != told {
            return Err(BadLine::Hash);
        }
        self.newest = told;
        Ok(told)
    }

    fn hash(&self, bytes: &[u8]) -> LineHash {
        match &self.key {
            None => LineHash::of(bytes),
            Some(JournalKey(keyed)) => {
                LineHash(keyed.clone().chain_update(bytes).finalize().into_bytes().into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_sha256sum_says() {
        let mut chain = Chain::default();
        let mut out = b"{\"seq\":0".to_vec();
        chain.seal(&mut out, 0);
        let zeros = "0".repeat(64);
        // printf '{"seq":0,"prev":"000…"' | sha256sum
        let hash = LineHash::of(format!("{{\"seq\":0,\"prev\":\"{zeros}\"").as_bytes());
        let line = format!("{{\"seq\":0,\"prev\":\"{zeros}\",\"hash\":\"{hash}\"}}\n");
        assert_eq!(String::from_utf8(out).unwrap(), line);
        assert_eq!(Chain::default().check(line.trim_end().as_bytes()), Ok(hash));
    }

    #[test]
    fn keys_make_other_hashes() {
        let seal = |key: Option<&[u8]>| {
            let mut chain = Chain::new(key.map(|key| JournalKey::new(key).unwrap()));
            let mut out = b"{\"seq\":0".to_vec();
            chain.seal(&mut out, 0);
            chain.newest
        };
        assert_ne!(seal(None), seal(Some(&[1; 16])));
        assert_ne!(seal(Some(&[2; 16])), seal(Some(&[1; 16])));
        assert_eq!(JournalKey::new(b"short").unwrap_err(), KeyError(5));
    }

    #[test]
    fn a_hash_has_one_spelling() {
        let hash = LineHash::of(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!(hash.to_string().to_uppercase().parse::<LineHash>().is_err());
        assert!("00".parse::<LineHash>().is_err());
    }
}
