//! Threads for broker work that may wait: for a disk, a network, a program, a handler of the host's.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::cell::lock;

/// Threads at the most. Each cell has a handful of its own to fill (see `requests`), so that many
/// cells have to hang before any waits for another.
const THREADS_MAX: usize = 512;
/// How long a thread without work is kept.
const IDLE: Duration = Duration::from_secs(10);
/// What a thread's stack may grow to, in bytes. A handler of the host's may be Python code that calls
/// itself; what is not touched costs nothing.
const STACK_BYTES: usize = 8 << 20;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The threads, made when there is work for them.
#[derive(Default)]
pub(crate) struct Workers {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    stopped: bool,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Workers").field("threads", &lock(&self.state).threads).finish()
    }
}

impl Workers {
    /// Has a job done by the next free thread. If none can be made, those that there are will get
    /// round to it; an error is for a host without any.
    pub(crate) fn run(self: &Arc<Self>, job: Job) -> Result<(), std::io::Error> {
        let mut state = lock(&self.state);
        if state.stopped {
            drop(state);
            return Ok(()); // every cell is gone, and with them whoever waits
        }
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.threads >= THREADS_MAX {
            drop(state);
            self.work.notify_one();
            return Ok(());
        }
        let this = Arc::clone(self);
        // Under the lock, so that the job which is taken back below is this one.
        let thread = std::thread::Builder::new()
            .name("pyisolate-broker".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || this.serve());
        match thread {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                let job = state.queue.pop_back();
                drop(state);
                drop(job); // which may hold anything
                return Err(error);
            }
            Err(error) => tracing::warn!(%error, "no further thread for the broker's work"),
        }
        Ok(())
    }

    /// Lets the threads end once they have nothing to do. Does not wait for them: one may be in a
    /// handler of the host's that never returns.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.work.notify_all();
        drop(queue); // outside of the lock, since a job may hold anything
    }

    fn serve(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                job();
                state = lock(&self.state);
                continue;
            }
            if state.stopped {
                break;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, IDLE);
            let (back, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_hung_job_holds_nobody_up() {
        let workers = Arc::new(Workers::default());
        let (release, hung) = mpsc::channel::<()>();
        workers.run(Box::new(move || hung.recv().unwrap_or_default())).unwrap();
        let (done, finished) = mpsc::channel();
        for number in 0..100 {
            let done = done.clone();
            workers.run(Box::new(move || done.send(number).unwrap())).unwrap();
        }
        let mut numbers: Vec<i32> = finished.iter().take(100).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        drop(release);
        workers.stop();
    }
}
