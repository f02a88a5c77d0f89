//! How many cells a host has in its process, for whoever wants to end it: CPython must not be ended
//! while an interpreter is being made or taken apart.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::StartError;

/// The cells of one supervisor.
#[derive(Debug, Default)]
pub struct Census {
    count: Mutex<Count>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Count {
    alive: usize,
    closed: bool,
}

impl Census {
    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self) -> Result<(), StartError> {
        let mut count = self.count();
        if count.closed {
            return Err(StartError::Closed);
        }
        count.alive += 1;
        Ok(())
    }

    /// One is gone, or will never be.
    pub(crate) fn leave(&self) {
        self.count().alive -= 1;
        self.changed.notify_all();
    }

    /// Lets no further cell in, and waits until none is left but those that could not be ended.
    pub fn close(&self, patience: Duration) {
        let mut count = self.count();
        count.closed = true;
        drop(self.changed.wait_timeout_while(count, patience, |count| count.alive > 0));
    }
}
