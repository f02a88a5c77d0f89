//! The processor's clock: how fast it ticks, and whose it is.
#![expect(unsafe_code, reason = "reads the time stamp counter")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long the counter is watched: long enough for four digits.
const WATCH: Duration = Duration::from_millis(20);

/// How close together a look at the counter and one at the time are.
const TOGETHER: Duration = Duration::from_micros(1);
/// How often they are taken again, where something came between each time.
const LOOKS: usize = 1000;

/// How fast the time stamp counter ticks, in kHz, to the next MHz: the same on every call, and nearly
/// always in every process. `None` on processors without one.
#[cfg(target_arch = "x86_64")]
pub(crate) fn tsc_khz() -> Option<u64> {
    static KHZ: OnceLock<u64> = OnceLock::new();
    Some(*KHZ.get_or_init(|| {
        let look = || {
            let mut seen = (Instant::now(), 0);
            for _ in 0..LOOKS {
                let before = Instant::now();
                // SAFETY: every processor of this architecture that Linux supports has the instruction.
                seen = (before, unsafe { core::arch::x86_64::_rdtsc() });
                if before.elapsed() < TOGETHER {
                    break;
                }
            }
            seen
        };
        let (begun, first) = look();
        std::thread::sleep(WATCH);
        let (ended, last) = look();
        let nanoseconds = ended.duration_since(begun).as_nanos().max(1);
        let khz = u128::from(last.wrapping_sub(first)) * 1_000_000 / nanoseconds;
        // Two measurements differ in the fifth digit, and most clocks tick a whole number of MHz: to
        // round up would tell them apart. What is left of the error is the guest clock's drift, which
        // nobody looks at for longer than a cell lives.
        u64::try_from(khz + 500).unwrap_or(0) / 1000 * 1000
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
