//! The processor's clock: how fast it ticks, and whose it is.
#![expect(unsafe_code, reason = "reads the time stamp counter")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long the counter is watched: long enough for four digits.
const WATCH: Duration = Duration::from_millis(20);

/// How fast the time stamp counter ticks, in kHz, in whole MHz: the same on every call. `None` on processors without one.
#[cfg(target_arch = "x86_64")]
pub(crate) fn tsc_khz() -> Option<u64> {
    static KHZ: OnceLock<u64> = OnceLock::new();
    Some(*KHZ.get_or_init(|| {
        let read = || {
            // SAFETY: every processor of this architecture that Linux supports has the instruction.
            unsafe { core::arch::x86_64::_rdtsc() }
        };
        let (begun, first) = (Instant::now(), read());
        std::thread::sleep(WATCH);
        let (ticks, elapsed) = (read().wrapping_sub(first), begun.elapsed());
        let khz = u128::from(ticks) * 1_000_000 / elapsed.as_nanos().max(1);
        // Two measurements differ in the fifth digit. What is left of the error is the guest clock's
        // drift, which nobody looks at for longer than a cell lives.
        u64::try_from(khz).unwrap_or(0).next_multiple_of(1000)
    }))
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn tsc_khz() -> Option<u64> {
    None
}

/// The processor's name, as the kernel has it: a snapshot is no use on another.
pub(crate) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let lines = text.lines().filter(|line| {
        ["model name", "flags", "Features", "CPU part"].iter().any(|it| line.starts_with(it))
    });
    lines.take(2).collect::<Vec<_>>().join("\n")
}
