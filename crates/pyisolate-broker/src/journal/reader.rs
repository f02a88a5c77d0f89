//! Lines as they come from a file, and what they say.

use std::io::{self, BufRead, Read};

use pyisolate_policy::Act;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::chain::LineHash;
use super::record::{Direction, Kind, Outcome, Payloads};

/// The longest line that is read, in bytes: one payload of the largest size that is kept whole, in
/// base64, with room.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// Its number, from 0, over the whole journal. It stands on the line after that.
    pub seq: u64,
    /// Its number among those of its cell, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell_seq: Option<u64>,
    /// The kernel's monotonic clock, in nanoseconds.
    pub mono_ns: u64,
    /// The time of day, RFC 3339 in UTC.
    pub wall: String,
    /// The cell; empty for the journal's own lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cell: String,
    /// Which way it crossed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// What it is about.
    pub kind: Kind,
    /// The number that ties an answer to what it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<u32>,
    /// The capability that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// What was to be done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// What the policy was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Act>,
    /// How long the act was, if it was too long to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act_omitted: Option<u64>,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Who refused: `policy`, `broker` or `kernel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The name of an exception.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The place of the rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// How long the payload was, in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Whether the payload was left out because it holds a secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
    /// What was kept of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<EntryPayload>,
    /// Of a head: the form's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Of a head: the journal's random number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
    /// Of a head: what is kept of payloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payloads: Option<Payloads>,
    /// Of a head: whether hashes are made with a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyed: Option<bool>,
    /// Of a last line: how many stand before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The hash of the line before.
    pub prev: LineHash,
    /// Its own.
    pub hash: LineHash,
}

/// What was kept of a payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryPayload {
    /// All of it, which is text.
    Text(String),
    /// All of it.
    Base64(String),
    /// Its hash.
    Sha256(LineHash),
}

/// Why a journal cannot be read on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read.
    #[error("line {line} cannot be read: {error}")]
    Io {
        /// Counted from 1.
        line: u64,
        /// Why.
        error: io::Error,
    },
    /// A line without an end.
    #[error("line {line} has no end: it was cut off")]
    Torn {
        /// Counted from 1.
        line: u64,
    },
    /// A line that no journal writes.
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes")]
    TooLong {
        /// Counted from 1.
        line: u64,
    },
    /// A line that is no record.
    #[error("line {line} is no record: {error}")]
    Malformed {
        /// Counted from 1.
        line: u64,
        /// Why.
        error: serde_json::Error,
    },
}

/// The lines of a file, one at a time in one buffer.
pub(crate) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Of the newest one, counted from 1.
    pub(crate) number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), number: 0 }
    }

    /// The next line without its line feed; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, ReadError> {
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        self.number += 1;
        let line = self.number;
        let mut capped = (&mut self.reader).take(LINE_BYTES_MAX as u64 + 1);
        capped
            .read_until(b'\n', &mut self.buffer)
            .map_err(|error| ReadError::Io { line, error })?;
        match self.buffer.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(&self.buffer)),
            Some(_) if self.buffer.len() >= LINE_BYTES_MAX => Err(ReadError::TooLong { line }),
            Some(_) => Err(ReadError::Torn { line }),
        }
    }
}

/// What a line says.
pub(crate) fn entry(text: &[u8], line: u64) -> Result<Entry, ReadError> {
    serde_json::from_slice(text).map_err(|error| ReadError::Malformed { line, error })
}

/// Reads records one after the other. It takes the lines at their word: [`verify`](super::verify)
/// is who checks hashes and order. After an error there is nothing more.
pub struct Reader<R> {
    lines: Lines<R>,
    is_over: bool,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Reader").field("line", &self.lines.number).finish_non_exhaustive()
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads from the beginning of a journal.
    pub fn new(reader: R) -> Self {
        Self { lines: Lines::new(reader), is_over: false }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let line = self.lines.number + 1;
        let read = match self.lines.next() {
            Ok(None) => {
                self.is_over = true;
                return None;
            }
            Ok(Some(text)) => entry(text, line),
            Err(error) => Err(error),
        };
        self.is_over = read.is_err();
        Some(read)
    }
}
