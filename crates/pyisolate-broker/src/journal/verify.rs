//! Whether a journal is what was written.

use std::io::BufRead;

use thiserror::Error;

use super::JOURNAL_VERSION;
use super::chain::{BadLine, Chain, JournalKey, LineHash};
use super::reader::{Entry, Lines, ReadError, entry};
use super::record::Kind;
use super::writer::Newest;

/// What a journal is checked against.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// The key that it was made with, if it was.
    pub key: Option<JournalKey>,
    /// The hash of a line that was the newest one once. The journal has to have it.
    pub head: Option<LineHash>,
}

/// A journal that is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The journal's random number.
    pub journal: String,
    /// Whether its hashes were made with a key, which was the right one.
    pub is_keyed: bool,
    /// Whether it ends with the line that closes it. If not, it is still being written, or its
    /// program was killed, or lines at its end are missing.
    pub is_closed: bool,
    /// How many lines it has.
    pub lines: u64,
    /// Its last line.
    pub newest: Newest,
    /// When it was begun, as it is written there.
    pub first_wall: String,
    /// When its last line was written, as it is written there.
    pub last_wall: String,
}

/// What is wrong with a journal, and where. The first thing that is wrong is told.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A line cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is nothing.
    #[error("there is no line at all: it is no journal, or was cut down to nothing")]
    Empty,
    /// A head that is not at the beginning, or a line of another journal.
    #[error("line {line} is the head of another journal, whose lines were put behind this one's")]
    OtherHead {
        /// Counted from 1.
        line: u64,
    },
    /// The first line is another.
    #[error("line 1 is not the head of a journal: the lines before it are missing, or it is none")]
    NoHead,
    /// The form of the lines is another.
    #[error("the journal is of version {0}: this program reads {JOURNAL_VERSION}")]
    Version(u32),
    /// It has to be checked with a key.
    #[error("the journal was made with a key: give it, to check its hashes")]
    KeyNeeded,
    /// A key was given that it was not made with.
    #[error("the journal was made without a key, so anybody could have made it")]
    NotKeyed,
    /// A line's hash is not its own.
    #[error("line {line} was changed: its hash is not that of its text{}", hint(.keyed))]
    Changed {
        /// Counted from 1.
        line: u64,
        /// Whether a key was used, which could be the wrong one.
        keyed: bool,
    },
    /// A line that does not end as the lines of a journal do.
    #[error("line {line} was changed: it does not end with its hashes")]
    Form {
        /// Counted from 1.
        line: u64,
    },
    /// Lines are missing, or stand elsewhere.
    #[error(
        "before line {line} records are missing or were moved: it has number {found}, not \
         {expected}"
    )]
    Missing {
        /// Counted from 1.
        line: u64,
        /// The number that should be there.
        expected: u64,
        /// The number that is.
        found: u64,
    },
    /// A line stands there again, or was moved.
    #[error("line {line} was put in or moved: it has number {found}, not {expected}")]
    Repeated {
        /// Counted from 1.
        line: u64,
        /// The number that should be there.
        expected: u64,
        /// The number that is.
        found: u64,
    },
    /// A line that belongs to another history.
    #[error("line {line} does not follow line {}: one of them was replaced", .line - 1)]
    Unlinked {
        /// Counted from 1.
        line: u64,
    },
    /// Lines after the last one.
    #[error("line {line} comes after the journal was closed")]
    AfterClose {
        /// Counted from 1.
        line: u64,
    },
    /// The last line counts other than there are.
    #[error("line {line} closes a journal of {told} records, and there are {found}")]
    Count {
        /// Counted from 1.
        line: u64,
        /// How many it says.
        told: u64,
        /// How many there are.
        found: u64,
    },
    /// The line that was the newest one is not there.
    #[error("no line has the hash {0}: the journal was cut or made anew since that was its newest")]
    HeadMissing(LineHash),
}

fn hint(keyed: &bool) -> &'static str {
    if *keyed { ", or the key is another" } else { "" }
}

/// Checks every line of a journal: its hash, its number and that it follows the one before.
/// Takes as much memory as the longest line. See [`Summary::is_closed`] for a cut at the end.
///
/// # Errors
/// [`VerifyError`] with the first line that is wrong.
pub fn verify(reader: impl BufRead, options: &VerifyOptions) -> Result<Summary, VerifyError> {
    let mut lines = Lines::new(reader);
    let mut chain = Chain::new(options.key.clone());
    let mut is_head_there = options.head.is_none();
    let mut summary: Option<Summary> = None;
    loop {
        let line = lines.number + 1;
        let Some(text) = lines.next()? else { break };
        if line == 1 {
            check_head(text, chain.is_keyed())?;
        }
        let entry = check_next(&mut chain, text, line)?;
        is_head_there |= options.head == Some(entry.hash);
        let summary = summary.get_or_insert_with(|| Summary {
            journal: entry.journal.clone().unwrap_or_default(),
            is_keyed: options.key.is_some(),
            is_closed: false,
            lines: 0,
            newest: Newest { seq: 0, hash: entry.hash },
            first_wall: entry.wall.clone(),
            last_wall: String::new(),
        });
        let is_head = matches!(entry.kind, Kind::Journal | Kind::Open);
        let is_own = entry.kind == Kind::Open && entry.journal.as_ref() == Some(&summary.journal);
        if line > 1 && is_head && !is_own {
            return Err(VerifyError::OtherHead { line });
        }
        if summary.is_closed && entry.kind != Kind::Open {
            return Err(VerifyError::AfterClose { line });
        }
        summary.is_closed = entry.kind == Kind::Close;
        summary.lines = line;
        summary.newest = Newest { seq: entry.seq, hash: entry.hash };
        summary.last_wall = entry.wall;
    }
    let summary = summary.ok_or(VerifyError::Empty)?;
    match options.head {
        Some(head) if !is_head_there => Err(VerifyError::HeadMissing(head)),
        _ => Ok(summary),
    }
}

/// Looks at the first line before its hash is checked, since that needs to know how.
fn check_head(text: &[u8], is_keyed: bool) -> Result<(), VerifyError> {
    // What cannot be read is told by the check of its hash, as that of every other line.
    let Ok(head) = entry(text, 1) else { return Ok(()) };
    if head.kind != Kind::Journal {
        return Err(VerifyError::NoHead);
    }
    match (head.version, head.keyed, is_keyed) {
        (Some(version), ..) if version != JOURNAL_VERSION => Err(VerifyError::Version(version)),
        (_, Some(true), false) => Err(VerifyError::KeyNeeded),
        (_, Some(false), true) => Err(VerifyError::NotKeyed),
        _ => Ok(()),
    }
}

/// Checks a line and that it follows the newest one of the chain, whose place it takes.
fn check_next(chain: &mut Chain, text: &[u8], line: u64) -> Result<Entry, VerifyError> {
    let before = chain.newest;
    let keyed = chain.is_keyed();
    chain.check(text).map_err(|bad| match bad {
        BadLine::Form => VerifyError::Form { line },
        BadLine::Hash => VerifyError::Changed { line, keyed },
    })?;
    let entry = entry(text, line)?;
    let (expected, found) = (line - 1, entry.seq);
    if found > expected {
        return Err(VerifyError::Missing { line, expected, found });
    }
    if found < expected {
        return Err(VerifyError::Repeated { line, expected, found });
    }
    if entry.prev != before {
        return Err(VerifyError::Unlinked { line });
    }
    match entry.count {
        Some(told) if told != expected => Err(VerifyError::Count { line, told, found: expected }),
        _ => Ok(entry),
    }
}
