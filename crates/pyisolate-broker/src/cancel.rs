//! The end of a cell, as its broker work sees it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tells the work of one cell that nobody waits for it any more.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

type Stop = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    cancelled: bool,
    next: u64,
    stops: HashMap<u64, Stop>,
}

/// While it lives, the end of the cell runs what it was made with.
pub struct OnCancel {
    cancel: Cancel,
    number: Option<u64>,
}

impl fmt::Debug for Cancel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

impl fmt::Debug for OnCancel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("OnCancel").finish_non_exhaustive()
    }
}

impl Cancel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the cell is gone.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    /// Ends all waits and runs every stop. Can be called twice.
    pub fn cancel(&self) {
        let mut state = self.state();
        state.cancelled = true;
        let stops: Vec<Stop> = state.stops.drain().map(|(_, stop)| stop).collect();
        drop(state);
        self.0.changed.notify_all();
        for stop in stops {
            stop();
        }
    }

    /// Waits for so long; `false` at once if the cell ends.
    #[must_use]
    pub fn sleep(&self, time: Duration) -> bool {
        let deadline = Instant::now().checked_add(time);
        let mut state = self.state();
        loop {
            if state.cancelled {
                return false;
            }
            let left = deadline.map_or(Duration::from_secs(3600), |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return true;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Runs `stop` when the cell ends, or now if it has: to shut a socket or kill a process that a
    /// thread waits for. It must not wait for anything itself.
    pub fn on_cancel(&self, stop: impl FnOnce() + Send + 'static) -> OnCancel {
        let mut state = self.state();
        if state.cancelled {
            drop(state);
            stop();
            return OnCancel { cancel: self.clone(), number: None };
        }
        let number = state.next;
        state.next += 1;
        state.stops.insert(number, Box::new(stop));
        OnCancel { cancel: self.clone(), number: Some(number) }
    }
}

impl Drop for OnCancel {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let stop = self.cancel.state().stops.remove(&number);
            drop(stop); // outside of the lock, since it may hold anything
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn stops_run_once_and_dropped_ones_never() {
        let ran = Arc::new(AtomicU32::new(0));
        let count = |by| {
            let ran = Arc::clone(&ran);
            move || {
                ran.fetch_add(by, Ordering::SeqCst);
            }
        };
        let cancel = Cancel::default();
        drop(cancel.on_cancel(count(1)));
        let _kept = cancel.on_cancel(count(10));
        cancel.cancel();
        cancel.cancel();
        let _late = cancel.on_cancel(count(100));
        assert_eq!(ran.load(Ordering::SeqCst), 110);
    }

    #[test]
    fn a_sleep_ends_with_the_cell() {
        let cancel = Cancel::default();
        assert!(cancel.sleep(Duration::from_millis(1)));
        let other = cancel.clone();
        let sleeper = std::thread::spawn(move || other.sleep(Duration::from_secs(600)));
        cancel.cancel();
        assert!(!sleeper.join().unwrap());
    }
}
