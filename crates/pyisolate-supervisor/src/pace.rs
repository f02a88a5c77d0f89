//! How fast a guest may go: so much a second, and what was not used is saved up for one second.

use std::time::{Duration, Instant};

use pyisolate_policy::Limits;

/// How long what was not used is saved up.
const SAVED: Duration = Duration::from_secs(1);

/// One rate.
#[derive(Debug)]
struct Pace {
    per_second: u64,
    /// When all that can be saved up will be there again.
    full_at: Instant,
}

impl Pace {
    fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second: per_second.max(1), full_at: now }
    }

    /// Takes `amount` if it is there. Else: how long until it will be, or until everything is there
    /// of which a larger amount takes more.
    fn take(&mut self, amount: u64, now: Instant) -> Result<(), Duration> {
        let nanoseconds = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second);
        let costs = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let from = self.full_at.max(now);
        let missing = (from + costs.min(SAVED)).saturating_duration_since(now + SAVED);
        if missing.is_zero() {
            // An amount that reaches past the end of time is never paid off.
            self.full_at = from.checked_add(costs).unwrap_or(from + SAVED);
            Ok(())
        } else {
            Err(missing)
        }
    }
}

/// The rates of one cell.
#[derive(Debug)]
pub(crate) struct Paces {
    output: Pace,
    requests: Pace,
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paced {
    /// So many bytes of output.
    Output(u64),
    /// A request.
    Request,
}

impl Paces {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            output: Pace::new(limits.output_bytes_per_second, now),
            requests: Pace::new(limits.requests_per_second, now),
        }
    }

    /// Lets it pass, or says for how long it has to wait.
    pub(crate) fn take(&mut self, what: Paced, now: Instant) -> Result<(), Duration> {
        match what {
            Paced::Output(bytes) => self.output.take(bytes, now),
            Paced::Request => self.requests.take(1, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_saved_up_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        for _ in 0..10 {
            assert_eq!(pace.take(1, start), Ok(()));
        }
        assert_eq!(pace.take(1, start), Err(Duration::from_millis(100)));
        let mut now = start;
        for _ in 0..50 {
            now += Duration::from_millis(100);
            assert_eq!(pace.take(1, now), Ok(()));
            assert!(pace.take(1, now).is_err());
        }
        let later = now + Duration::from_secs(60);
        for _ in 0..10 {
            assert_eq!(pace.take(1, later), Ok(()));
        }
        assert!(pace.take(1, later).is_err());
    }

    #[test]
    fn more_than_is_ever_saved_up_passes_once_all_is_there_and_is_paid_off() {
        let start = Instant::now();
        let mut pace = Pace::new(1000, start);
        assert_eq!(pace.take(1, start), Ok(()));
        assert_eq!(pace.take(5000, start), Err(Duration::from_millis(1)));
        let now = start + Duration::from_millis(1);
        assert_eq!(pace.take(5000, now), Ok(()));
        assert_eq!(pace.take(1000, now), Err(Duration::from_secs(5)));
        assert_eq!(pace.take(1, now), Err(Duration::from_millis(4001)));
    }

    #[test]
    fn no_amount_overflows() {
        let now = Instant::now();
        let mut pace = Pace::new(1, now);
        assert_eq!(pace.take(u64::MAX, now), Ok(()));
        assert!(pace.take(u64::MAX, now).is_err());
    }
}
