//! Keeps a cell's CPU time to a rate by stopping its process for a while: where there is no control
//! group, which holds it more evenly, and until its process is in it.
//!
//! The kernel counts what the cell used; a look that comes late lets it run longer at once and stand
//! still longer after. So over any longer while the rate is exact, and only a burst is as long as the
//! time between two looks.

use std::time::{Duration, Instant};

use crate::cell::{CellShared, lock};

/// How much unused time is saved up: the period over which the kernel's own limiter works.
const SAVED: Duration = Duration::from_millis(100);

/// What is known of one cell. In core-microseconds.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    last: Option<Look>,
    credit_us: i64,
    stopped_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    cpu_ms: u64,
}

/// What is to be done to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Stop,
    Resume(Duration),
}

impl Throttle {
    /// Accounts for what was used since the last look.
    fn step(&mut self, now: Instant, cpu_ms: u64, millicores: u64) -> Option<Step> {
        let earned = |time: Duration| {
            let time = time.as_micros() * u128::from(millicores) / 1000;
            i64::try_from(time).unwrap_or(i64::MAX)
        };
        let most = earned(SAVED);
        let Some(last) = self.last.replace(Look { at: now, cpu_ms }) else {
            self.credit_us = most;
            return None;
        };
        let used_ms = i64::try_from(cpu_ms.saturating_sub(last.cpu_ms)).unwrap_or(i64::MAX);
        // What was used during this while may be paid with what it earned.
        let credit = self.credit_us.saturating_add(earned(now.saturating_duration_since(last.at)));
        self.credit_us = credit.saturating_sub(used_ms.saturating_mul(1000)).min(most);
        match self.stopped_since {
            None if self.credit_us < 0 => {
                self.stopped_since = Some(now);
                Some(Step::Stop)
            }
            Some(since) if self.credit_us >= 0 => {
                self.stopped_since = None;
                Some(Step::Resume(now.saturating_duration_since(since)))
            }
            _ => None,
        }
    }

    /// For how long the process has been standing still, if it does.
    pub(crate) fn stands_still(&self) -> Option<Duration> {
        self.stopped_since.map(|since| since.elapsed())
    }

    /// The process ended: for how long it had been standing still.
    pub(crate) fn end(&mut self) -> Duration {
        self.stopped_since.take().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether the process has to be looked at soon: it stands still, or used CPU time lately.
    fn is_at_work(&self, millicores: u64) -> bool {
        let most = SAVED.as_micros() * u128::from(millicores) / 1000;
        self.stopped_since.is_some() || i128::from(self.credit_us) < most.cast_signed()
    }
}

impl CellShared {
    /// Whether this cell's rate has to be looked after soon, even while no operation runs.
    pub(crate) fn is_at_work(&self) -> bool {
        self.rate().is_some_and(|rate| lock(&self.throttle).is_at_work(rate))
    }

    /// Stops the cell's process, or lets it go on, as its rate asks for.
    pub(crate) fn keep_to_cpu_rate(&self, cpu_ms: u64) {
        let Some(rate) = self.rate() else { return };
        match lock(&self.throttle).step(Instant::now(), cpu_ms, rate) {
            Some(Step::Stop) => self.body.hold(true),
            Some(Step::Resume(stood_still)) => {
                self.body.hold(false);
                self.add_throttled(stood_still);
            }
            None => {}
        }
    }

    fn rate(&self) -> Option<u64> {
        self.settings.get()?.limits.cpu_rate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(20);

    /// CPU time over ten seconds of a guest that keeps `cores` busy whenever it may.
    fn used_ms(millicores: u64, cores: u64, tick: Duration) -> u64 {
        let mut throttle = Throttle::default();
        let (mut now, mut cpu_ms, mut stopped) = (Instant::now(), 0, false);
        let end = now + Duration::from_secs(10);
        while now < end {
            match throttle.step(now, cpu_ms, millicores) {
                Some(Step::Stop) => stopped = true,
                Some(Step::Resume(_)) => stopped = false,
                None => {}
            }
            now += tick;
            if !stopped {
                cpu_ms += cores * u64::try_from(tick.as_millis()).unwrap_or(0);
            }
        }
        cpu_ms
    }

    #[test]
    fn the_rate_holds_over_a_longer_while() {
        for (millicores, cores) in [(100, 1), (500, 1), (500, 4), (1500, 2), (1500, 8)] {
            let (used, most) = (used_ms(millicores, cores, TICK), 10 * millicores);
            // The saved time at first, and what one look too late lets by.
            let more = millicores / 10 + 2 * cores * 20;
            assert!((most - more..=most + more).contains(&used), "{millicores} {cores}: {used}");
        }
    }

    #[test]
    fn a_late_look_is_made_up_for() {
        let used = used_ms(500, 2, Duration::from_millis(250));
        assert!((4000..=6100).contains(&used), "{used}");
    }

    #[test]
    fn who_stays_below_it_is_never_stopped() {
        assert_eq!(used_ms(1000, 1, TICK), 10_000);
        let mut throttle = Throttle::default();
        let mut now = Instant::now();
        assert_eq!(throttle.step(now, 0, 500), None);
        assert!(!throttle.is_at_work(500));
        now += Duration::from_secs(5);
        assert_eq!(throttle.step(now, 40, 500), None);
        now += TICK;
        assert_eq!(throttle.step(now, 120, 500), Some(Step::Stop));
        assert!(throttle.is_at_work(500));
        now += Duration::from_millis(200);
        let stood_still = Duration::from_millis(200);
        assert_eq!(throttle.step(now, 120, 500), Some(Step::Resume(stood_still)));
    }
}
