//! Sleeping on a word of shared memory.
//!
//! The futexes are not private ones, since the other side is another process. A hostile peer can
//! wake a sleeper for no reason, fail to wake it, or move it to another futex (`FUTEX_REQUEUE`); all
//! it gains is a wake-up too many or a sleep until the timeout.

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Timespec};

/// Sleeps while the word has the expected value, until somebody wakes it, a signal arrives or the
/// timeout passes. These are all the same to the caller, who looks at the word again.
pub(crate) fn sleep(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match futex::wait(word, Flags::empty(), expected, timeout.as_ref()) {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Wakes one thread that sleeps on the word.
pub(crate) fn wake_one(word: &AtomicU32) -> io::Result<()> {
    futex::wake(word, Flags::empty(), 1)?;
    Ok(())
}

/// Wakes all threads that sleep on the word, also if a peer has put decoys in front of ours.
pub(crate) fn wake_all(word: &AtomicU32) -> io::Result<()> {
    futex::wake(word, Flags::empty(), i32::MAX as u32)?;
    Ok(())
}
