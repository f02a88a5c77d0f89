//! Watching for the peer's answer, for a bounded while, before sleeping.
//!
//! Watching pays only while the peer runs at the same time. With one CPU it never does. With several
//! the kernel may still have put both on the same one (it likes to wake a sleeper where its waker
//! runs, and leaves it there), and then each would spend its whole watch keeping the other from
//! running. So each side notes in shared memory on which CPU it last watched, and a side that finds
//! its peer's note to name its own CPU yields between looks. A note can be stale, or a lie: then a
//! watch is spent in vain or some calls are wasted, within the limit below.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_yield};

/// How long to watch before sleeping.
///
/// Waking a sleeper on another core takes some 25 µs each way (`examples/ring_bench.rs` prints the
/// round trip: 45 to 55 µs where this was chosen). Watching for about as long as a sleep costs is at
/// worst twice as dear as having known in advance (the ski-rental bound), and catches every answer
/// that comes back at once, also from a peer that must be woken first.
const LIMIT: Duration = Duration::from_micros(40);

/// Looks between two readings of the clock. A look with its pause takes 10 to 50 ns and the clock
/// about 25 ns, so the clock is a small part and the limit is overrun by less than 2 µs.
const LOOKS_PER_CLOCK: u32 = 32;

/// How the threads of one side watch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spin {
    limit: Duration,
}

impl Spin {
    /// For the CPUs that the calling thread may use.
    pub(crate) fn for_this_thread() -> Self {
        let cpus = sched_getaffinity(None).map_or(1, |cpus: CpuSet| cpus.count());
        Self { limit: if cpus > 1 { LIMIT } else { Duration::ZERO } }
    }

    /// Watches until `changed`, or the limit or the deadline is reached. The notes are the CPUs of
    /// both sides, plus one; zero is a CPU not yet known.
    pub(crate) fn until(
        self,
        deadline: Option<Instant>,
        our_note: &AtomicU32,
        peers_note: &AtomicU32,
        changed: impl Fn() -> bool,
    ) {
        // An awake peer answers within these looks, which is why the notes and the clock come later.
        if self.limit.is_zero() || seen(&changed) {
            return;
        }
        let here = u32::try_from(sched_getcpu()).map_or(0, |cpu| cpu.wrapping_add(1));
        if our_note.load(Ordering::Relaxed) != here {
            our_note.store(here, Ordering::Relaxed);
        }
        let limit = Instant::now() + self.limit;
        let limit = deadline.map_or(limit, |deadline| deadline.min(limit));
        while Instant::now() < limit {
            if peers_note.load(Ordering::Relaxed) == here {
                sched_yield();
            }
            if seen(&changed) {
                return;
            }
        }
    }
}

fn seen(changed: impl Fn() -> bool) -> bool {
    for _ in 0..LOOKS_PER_CLOCK {
        if changed() {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}
