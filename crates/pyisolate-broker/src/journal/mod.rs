//! The journal: every crossing as one line of JSON, in one order, linked by hashes.
//!
//! What it is worth: a line that was changed, dropped, moved or put in is found by [`verify`], and
//! so is a file that was cut, if it had been closed. Whoever can write the whole file can make it
//! anew from any line on, links and all. Against that there are a [key](JournalOptions::key), which
//! an attacker does not have, and the [newest hash](Journal::newest), kept where he cannot write. A
//! file that is closed, opened again and then cut back to where it was first closed verifies as
//! well: that too only the newest hash shows.
//!
//! It refuses to lose lines: while its queue is full, those who record wait; once its file cannot
//! be written to, it says so to everyone who records.

mod chain;
mod reader;
mod record;
mod verify;
mod writer;

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::process::{Pid, getpid};
use thiserror::Error;

use self::chain::Chain;
pub use self::chain::{HashError, JournalKey, KeyError, LineHash};
pub use self::reader::{Entry, EntryPayload, LINE_BYTES_MAX, ReadError, Reader};
pub use self::record::{Direction, Kind, Outcome, Payloads, Record};
pub use self::verify::{Summary, VerifyError, VerifyOptions, verify};
pub use self::writer::Newest;
use self::writer::{Queue, write_own};

/// The version of the lines' form.
pub const JOURNAL_VERSION: u32 = 1;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// What is kept of payloads.
    pub payloads: Payloads,
    /// Makes every hash an HMAC, so that nobody without the key can make a line that verifies.
    pub key: Option<JournalKey>,
    /// Whether every batch of lines is put on the disk (`fdatasync`) before the next; closing does
    /// so in any case. Without it a crash of the machine can take the last seconds.
    pub sync: bool,
    /// Whether nothing may go on without the journal: the supervisor then refuses every further
    /// request of a cell once the journal is broken.
    pub required: bool,
    /// How long the file may become, in bytes: what a cell asks for is what is written, and nobody
    /// else bounds that. Past it the journal is broken. Default 16 GiB: some thirty million
    /// requests with hashes.
    pub file_bytes_max: u64,
    /// How many bytes may wait to be written before those who record wait too. Default 8 MiB: a
    /// tenth of a second of a slow disk.
    pub queue_bytes: usize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            payloads: Payloads::default(),
            key: None,
            sync: false,
            required: false,
            file_bytes_max: 16 << 30,
            queue_bytes: 8 << 20,
        }
    }
}

/// Why there is no journal. No cell is touched by it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be opened or made.
    #[error("cannot open the journal {path}: {error}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is a folder, a device, a pipe or a link.
    #[error("the journal {0} is no regular file")]
    NotRegular(PathBuf),
    /// Another journal writes to the file.
    #[error("the journal {0} is being written by another program: give each its own file")]
    Busy(PathBuf),
    /// The file is there and is no journal that can be gone on with.
    #[error("the journal {path} cannot be gone on with: {error}")]
    Existing {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: VerifyError,
    },
    /// The first line cannot be written.
    #[error("cannot write to the journal: {0}")]
    Write(io::Error),
    /// The writer's thread cannot be started.
    #[error("cannot start the journal's writer: {0}")]
    Thread(io::Error),
}

/// Why a record is not in the journal.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file cannot be written to. All records from then on are refused.
    #[error("the journal cannot be written to: {0}")]
    Io(#[source] Arc<io::Error>),
    /// It was closed.
    #[error("the journal is closed")]
    Closed,
}

/// A file to which every crossing is written. Shared by all cells of a supervisor; may be used from
/// any thread.
#[derive(Debug)]
pub struct Journal {
    queue: Arc<Queue>,
    payloads: Payloads,
    is_required: bool,
    /// The process that writes: a fork of it has no writer to wait for.
    owner: Pid,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Begins a journal in a new file that only its owner can read, or goes on with one that is
    /// there. That is read from its head to its end and has to verify with the same key, apart from
    /// the want of a last line that closes it; its own payload setting and key stay unchanged only
    /// if `options` have the same ones. A file is written by one journal at a time. The last
    /// component of `path` may not be a link.
    ///
    /// # Errors
    /// [`JournalError`]; nothing was written to a file that was there before.
    pub fn create(path: &Path, options: JournalOptions) -> Result<Arc<Self>, JournalError> {
        let mut file = open_file(path)?;
        let is_empty = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        if is_empty {
            return Self::to_file(file, options);
        }
        let existing = |error| JournalError::Existing { path: path.to_owned(), error };
        let found = verify(
            BufReader::with_capacity(1 << 16, &file),
            &VerifyOptions { key: options.key.clone(), head: None },
        )
        .map_err(existing)?;
        let written = file.seek(SeekFrom::End(0)).map_err(JournalError::Write)?;
        let mut chain = Chain::new(options.key.clone());
        chain.newest = found.newest.hash;
        let body = head_body(Kind::Open, &found.journal, &options);
        let newest = write_own(&mut file, found.newest.seq + 1, body.as_bytes(), &mut chain)
            .map_err(JournalError::Write)?;
        Self::start(file, chain, newest, written, options)
    }

    /// Begins a journal in an open file, a pipe or a device, which is not looked at.
    ///
    /// # Errors
    /// [`JournalError`] if its first line cannot be written.
    pub fn to_file(mut file: File, options: JournalOptions) -> Result<Arc<Self>, JournalError> {
        let mut chain = Chain::new(options.key.clone());
        let body = head_body(Kind::Journal, &random_id(), &options);
        let newest =
            write_own(&mut file, 0, body.as_bytes(), &mut chain).map_err(JournalError::Write)?;
        Self::start(file, chain, newest, 0, options)
    }

    fn start(
        mut file: File,
        chain: Chain,
        newest: Newest,
        written: u64,
        options: JournalOptions,
    ) -> Result<Arc<Self>, JournalError> {
        let queue = Arc::new(Queue::new(options.queue_bytes, newest.seq + 1, newest));
        let shared = Arc::clone(&queue);
        let room = options.file_bytes_max.saturating_sub(written);
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                shared.write_all(&mut file, chain, options.sync, room);
                // A fork's copy of the file would go on holding the lock.
                let _ = flock(&file, FlockOperation::Unlock);
            })
            .map_err(JournalError::Thread)?;
        Ok(Arc::new(Self {
            queue,
            payloads: options.payloads,
            is_required: options.required,
            owner: getpid(),
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// Adds a record. It is in the file some 50 ms later; [`Journal::flush`] waits for that. Waits
    /// itself only while the queue is full.
    ///
    /// # Errors
    /// [`WriteError`] once the file cannot be written to, or the journal is closed.
    pub fn record(&self, record: &Record<'_>) -> Result<(), WriteError> {
        record.written(self.payloads, |body| self.queue.push(record, body))
    }

    /// Waits until everything that was recorded so far is written. Returns the newest line.
    ///
    /// # Errors
    /// [`WriteError`] if it cannot be written.
    pub fn flush(&self) -> Result<Newest, WriteError> {
        self.queue.flush()
    }

    /// The newest line that was written, for being kept elsewhere.
    #[must_use]
    pub fn newest(&self) -> Newest {
        self.queue.newest()
    }

    /// Why nothing more can be written, if that is so.
    #[must_use]
    pub fn broken(&self) -> Option<WriteError> {
        self.queue.broken()
    }

    /// Whether nothing more can be written.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken().is_some()
    }

    /// Whether cells may not go on without it.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.is_required
    }

    /// What is kept of payloads.
    #[must_use]
    pub fn payloads(&self) -> Payloads {
        self.payloads
    }

    /// Writes what is left and the last line, and puts the file on the disk. Dropping the journal
    /// does the same and tells nobody of an error. Can be called twice.
    ///
    /// # Errors
    /// [`WriteError`] if something cannot be written.
    pub fn close(&self) -> Result<Newest, WriteError> {
        self.queue.close();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.take() {
            // If it panicked, that has been noted as an error.
            let _ = writer.join();
        }
        drop(writer);
        self.flush()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.owner != getpid() {
            return; // a fork's copy
        }
        // What cannot be written has been told when that was found.
        let _ = self.close();
    }
}

/// Opens or makes the file, for this journal alone.
fn open_file(path: &Path) -> Result<File, JournalError> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let own = Mode::RUSR | Mode::WUSR;
    let failed = |errno: rustix::io::Errno| JournalError::Open {
        path: path.to_owned(),
        error: errno.into(),
    };
    let opened = match open(path, flags | OFlags::CREATE | OFlags::EXCL, own) {
        // Not blocking, as the other end of a pipe may never come.
        Err(rustix::io::Errno::EXIST) => open(path, flags | OFlags::NONBLOCK, Mode::empty()),
        opened => opened,
    };
    let opened = opened.map_err(|errno| match errno {
        rustix::io::Errno::LOOP | rustix::io::Errno::ISDIR => {
            JournalError::NotRegular(path.to_owned())
        }
        errno => failed(errno),
    })?;
    let stat = fstat(&opened).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(JournalError::NotRegular(path.to_owned()));
    }
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(File::from(opened)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::Busy(path.to_owned())),
        Err(errno) => Err(failed(errno)),
    }
}

/// The fields of a head, or of going on.
fn head_body(kind: Kind, journal: &str, options: &JournalOptions) -> String {
    let payloads = match options.payloads {
        Payloads::Full => "full",
        Payloads::Hash => "hash",
        Payloads::None => "none",
    };
    format!(
        ",\"kind\":\"{}\",\"version\":{JOURNAL_VERSION},\"journal\":\"{journal}\",\
         \"payloads\":\"{payloads}\",\"keyed\":{}",
        kind.as_str(),
        options.key.is_some(),
    )
}

/// 128 random bits, so that no two journals begin alike.
fn random_id() -> String {
    use std::fmt::Write;
    let mut bytes = [0_u8; 16];
    // For so few bytes it does not fail on a kernel that has it, and one without cannot run cells.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
