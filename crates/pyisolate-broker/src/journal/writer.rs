//! The queue of lines and the thread that writes them.
//!
//! A record is put into words by the thread that it comes from, outside of any lock. Under the lock
//! it gets its number and its times and is added to one buffer; so the order of numbers, of times
//! and of lines is one order. The writer takes the whole buffer at once, links the lines and writes
//! them with one call.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::WriteError;
use super::chain::{Chain, LineHash};
use super::record::{Kind, Record, write_time};

/// How long a line waits for company before it is written: well under what a person notices, and
/// ten wake-ups a second at most.
const GATHER: Duration = Duration::from_millis(50);
/// From how many bytes on it waits no longer.
const BATCH_BYTES: usize = 256 << 10;

/// The newest line of a journal that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its number, which is its line's number less one.
    pub seq: u64,
    /// Its hash. Kept where an attacker cannot write, it shows that the journal was not made anew.
    pub hash: LineHash,
}

/// What the threads that record and the writer share.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// The writer waits on it for lines.
    work: Condvar,
    /// Everybody else waits on it for the writer.
    done: Condvar,
    /// Past so many bytes, those who record wait.
    bytes_max: usize,
}

#[derive(Debug)]
struct State {
    /// The fields of the lines that wait, one after the other.
    bodies: Vec<u8>,
    lines: Vec<Line>,
    next_seq: u64,
    /// The next number of each cell that has not ended.
    cells: HashMap<Box<str>, u64>,
    newest: Newest,
    /// The writer sleeps and has to be woken.
    is_idle: bool,
    /// Somebody waits for all that is there to be written.
    is_wanted: bool,
    is_closed: bool,
    /// The writer will do no more.
    is_over: bool,
    broken: Option<Arc<io::Error>>,
}

/// A line that waits.
#[derive(Clone, Copy, Debug)]
struct Line {
    seq: u64,
    cell_seq: Option<u64>,
    mono_ns: i128,
    wall_ns: i128,
    /// Where its fields end.
    end: usize,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize, next_seq: u64, newest: Newest) -> Self {
        let state = State {
            bodies: Vec::new(),
            lines: Vec::new(),
            next_seq,
            cells: HashMap::new(),
            newest,
            is_idle: false,
            is_wanted: false,
            is_closed: false,
            is_over: false,
            broken: None,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), done: Condvar::new(), bytes_max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line; waits while too much is there already.
    pub(crate) fn push(&self, record: &Record<'_>, body: &[u8]) -> Result<(), WriteError> {
        let mut state = self.state();
        loop {
            state.check()?;
            let is_full = state.bodies.len() + body.len() > self.bytes_max;
            if !is_full || state.bodies.is_empty() {
                break;
            }
            state.is_wanted = true;
            self.work.notify_one();
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let cell_seq = state.cell_seq(record);
        state.add(cell_seq, body);
        if state.is_idle || state.bodies.len() >= BATCH_BYTES {
            state.is_idle = false;
            self.work.notify_one();
        }
        Ok(())
    }

    /// Waits until all that was added so far is written.
    pub(crate) fn flush(&self) -> Result<Newest, WriteError> {
        let mut state = self.state();
        let wanted = state.next_seq;
        loop {
            if let Some(error) = &state.broken {
                return Err(WriteError::Io(Arc::clone(error)));
            }
            if state.newest.seq + 1 >= wanted || state.is_over {
                return Ok(state.newest);
            }
            state.is_wanted = true;
            self.work.notify_one();
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no further lines; adds the last one. Returns whether it was still open.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.state();
        if state.is_closed {
            return false;
        }
        state.is_closed = true;
        let count = state.next_seq;
        let body = format!(",\"kind\":\"{}\",\"count\":{count}", Kind::Close.as_str());
        state.add(None, body.as_bytes());
        self.work.notify_one();
        true
    }

    pub(crate) fn newest(&self) -> Newest {
        self.state().newest
    }

    pub(crate) fn broken(&self) -> Option<WriteError> {
        self.state().broken.clone().map(WriteError::Io)
    }

    /// Writes until the journal is closed or cannot be written to.
    pub(crate) fn write_all(&self, file: &mut File, mut chain: Chain, sync: bool, mut room: u64) {
        // Whatever happens here, nobody may wait for ever.
        let over = Over(self);
        let mut bodies = Vec::new();
        let mut lines = Vec::new();
        let mut out = Vec::new();
        loop {
            let is_last = self.take(&mut bodies, &mut lines);
            out.clear();
            let mut start = 0;
            for line in &lines {
                line.write(&bodies[start..line.end], &mut out, &mut chain);
                start = line.end;
            }
            let len = out.len() as u64;
            let mut written = if len <= room { file.write_all(&out) } else { Err(too_long()) };
            room = room.saturating_sub(len);
            if written.is_ok() && (sync || is_last) {
                written = synced(file);
            }
            let newest = lines.last().map(|line| Newest { seq: line.seq, hash: chain.newest });
            bodies.clear();
            lines.clear();
            out.shrink_to(2 * BATCH_BYTES);
            bodies.shrink_to(2 * BATCH_BYTES);
            let mut state = self.state();
            match written {
                Ok(()) => state.newest = newest.unwrap_or(state.newest),
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be written to any more");
                    state.broken = Some(Arc::new(error));
                }
            }
            let is_over = is_last || state.broken.is_some();
            drop(state);
            self.done.notify_all();
            if is_over {
                break;
            }
        }
        drop(over);
    }

    /// Waits for lines and takes them all; `true` if no more can come.
    fn take(&self, bodies: &mut Vec<u8>, lines: &mut Vec<Line>) -> bool {
        let mut state = self.state();
        while state.lines.is_empty() && !state.is_closed {
            state.is_idle = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_idle = false;
        let deadline = Instant::now() + GATHER;
        let batch = BATCH_BYTES.min(self.bytes_max / 2);
        while state.bodies.len() < batch && !state.is_wanted && !state.is_closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.work.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_wanted = false;
        std::mem::swap(&mut state.bodies, bodies);
        std::mem::swap(&mut state.lines, lines);
        let is_last = state.is_closed;
        drop(state);
        // There is room again, before it is written.
        self.done.notify_all();
        is_last
    }
}

impl State {
    fn check(&self) -> Result<(), WriteError> {
        match &self.broken {
            Some(error) => Err(WriteError::Io(Arc::clone(error))),
            None if self.is_closed || self.is_over => Err(WriteError::Closed),
            None => Ok(()),
        }
    }

    /// The number among the records of its cell. With the cell's end it is forgotten; what comes
    /// later, and is never what a cell begins with, has none.
    fn cell_seq(&mut self, record: &Record<'_>) -> Option<u64> {
        if record.kind == Kind::End {
            return Some(self.cells.remove(record.cell).unwrap_or(0));
        }
        match self.cells.get_mut(record.cell) {
            Some(next) => {
                *next += 1;
                Some(*next - 1)
            }
            None if matches!(
                record.kind,
                Kind::Answer | Kind::Recv | Kind::Grant | Kind::Denial
            ) =>
            {
                None
            }
            None => {
                self.cells.insert(record.cell.into(), 1);
                Some(0)
            }
        }
    }

    fn add(&mut self, cell_seq: Option<u64>, body: &[u8]) {
        self.bodies.extend_from_slice(body);
        self.lines.push(Line::now(self.next_seq, cell_seq, self.bodies.len()));
        self.next_seq += 1;
    }
}

impl Line {
    /// A line of now.
    fn now(seq: u64, cell_seq: Option<u64>, end: usize) -> Self {
        let nanoseconds = |clock| {
            let now = clock_gettime(clock);
            i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
        };
        let (mono_ns, wall_ns) = (nanoseconds(ClockId::Monotonic), nanoseconds(ClockId::Realtime));
        Self { seq, cell_seq, mono_ns, wall_ns, end }
    }

    fn write(&self, body: &[u8], out: &mut Vec<u8>, chain: &mut Chain) {
        let start = out.len();
        // Writing into memory cannot fail.
        let _ = write!(out, "{{\"seq\":{}", self.seq);
        if let Some(cell_seq) = self.cell_seq {
            let _ = write!(out, ",\"cell_seq\":{cell_seq}");
        }
        let _ = write!(out, ",\"mono_ns\":{},\"wall\":\"", self.mono_ns);
        write_time(out, self.wall_ns);
        out.push(b'"');
        out.extend_from_slice(body);
        chain.seal(out, start);
    }
}

/// Writes a line of the journal's own, before there is a queue.
pub(crate) fn write_own(
    file: &mut File,
    seq: u64,
    body: &[u8],
    chain: &mut Chain,
) -> io::Result<Newest> {
    let mut out = Vec::new();
    Line::now(seq, None, body.len()).write(body, &mut out, chain);
    file.write_all(&out)?;
    Ok(Newest { seq, hash: chain.newest })
}

/// Puts the file's bytes on the disk. What is no disk (a pipe, a device) has nothing to sync.
fn synced(file: &File) -> io::Result<()> {
    match file.sync_data() {
        Err(error) if matches!(error.raw_os_error(), Some(22 | 95)) => Ok(()),
        other => other,
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the file has reached its largest size")
}

/// Tells everybody that the writer is gone, however it went.
struct Over<'a>(&'a Queue);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_over = true;
        if std::thread::panicking() && state.broken.is_none() {
            state.broken = Some(Arc::new(io::Error::other("the journal's writer panicked")));
        }
        drop(state);
        self.0.done.notify_all();
    }
}
