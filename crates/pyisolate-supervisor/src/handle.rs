//! What a caller holds: a cell, and a running `exec`.

use std::sync::Arc;
use std::time::Duration;

use pyisolate_abi::pickle::Value;
use pyisolate_broker::HandedOut;
use pyisolate_policy::Policy;

use crate::cell::{CellShared, Operation, Outcome, lock};
use crate::confinement::Confinement;
use crate::delivery::Delivery;
use crate::error::{CellError, Death, GuestFailure};
use crate::event::{Denial, Event, Stats};
use crate::outbound::Patience;

/// A cell. Dropping the last handle kills it.
#[derive(Debug)]
pub struct Cell {
    shared: Arc<CellShared>,
}

impl Drop for Cell {
    fn drop(&mut self) {
        if !self.shared.body.owner().is_this() {
            return; // a fork's copy; its locks may be held for ever
        }
        if lock(&self.shared.state).death.is_none() {
            self.shared.condemn(Death::Killed);
        }
    }
}

/// A pickled object on its way into a cell: the pickle, and its out-of-band buffers.
#[derive(Clone, Copy, Debug)]
pub struct Outbound<'a> {
    /// Protocol 5 pickle, which the guest unpickles with CPython.
    pub pickle: &'a [u8],
    /// The buffers that it refers to, in order.
    pub buffers: &'a [&'a [u8]],
}

impl Cell {
    pub(crate) fn new(shared: Arc<CellShared>) -> Self {
        Self { shared }
    }

    /// What is shared, unless this is a fork's copy, which must keep its hands off the channel.
    fn owned(&self) -> Result<&Arc<CellShared>, CellError> {
        owned(&self.shared)
    }

    /// The cell's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.settings.get().map_or("", |settings| settings.name.as_str())
    }

    /// Its process in the host's pid namespace, while it lives.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.shared.body.pid()
    }

    /// `exec`: runs source text in the cell's namespace. Returns at once.
    ///
    /// # Errors
    /// [`CellError::Dead`], [`CellError::Full`], [`CellError::TooLarge`].
    pub fn exec(&self, source: &str) -> Result<ExecHandle, CellError> {
        self.exec_within(source, &Patience::default())
    }

    /// `exec` with another wait for room in the channel.
    ///
    /// # Errors
    /// As [`Cell::exec`].
    pub fn exec_within(
        &self,
        source: &str,
        patience: &Patience<'_>,
    ) -> Result<ExecHandle, CellError> {
        let operation = self.owned()?.exec(source, patience)?;
        Ok(ExecHandle { shared: Arc::clone(&self.shared), operation })
    }

    /// `call`: calls `module.func` with a pickled `(args, kwargs)` and waits for its result.
    ///
    /// # Errors
    /// [`CellError::Guest`] if it raised; [`CellError::TimedOut`] past the timeout, with the guest
    /// still at it.
    pub fn call(
        &self,
        target: &str,
        arguments: Outbound<'_>,
        timeout: Option<Duration>,
    ) -> Result<Delivery, CellError> {
        let patience = timeout.map_or_else(Patience::default, Patience::of);
        self.start_call(target, arguments, &patience)?.wait(timeout)
    }

    /// The first half of `call`: sends it, and returns a handle to wait for its result.
    ///
    /// # Errors
    /// As [`Cell::exec`].
    pub fn start_call(
        &self,
        target: &str,
        arguments: Outbound<'_>,
        patience: &Patience<'_>,
    ) -> Result<CallHandle, CellError> {
        let operation =
            self.owned()?.call(target, arguments.pickle, arguments.buffers, patience)?;
        Ok(CallHandle { shared: Arc::clone(&self.shared), operation })
    }

    /// `call` with plain values, for hosts without CPython.
    ///
    /// # Errors
    /// As [`Cell::call`].
    pub fn call_values(
        &self,
        target: &str,
        arguments: Vec<Value>,
        timeout: Option<Duration>,
    ) -> Result<Delivery, CellError> {
        let pickle =
            Value::Tuple(vec![Value::Tuple(arguments), Value::Dict(Vec::new())]).to_pickle();
        self.call(target, Outbound { pickle: &pickle, buffers: &[] }, timeout)
    }

    /// `post`: sends the guest a message, waiting for room in its channel.
    ///
    /// # Errors
    /// [`CellError::Full`] if the guest takes nothing in that time.
    pub fn post(&self, message: Outbound<'_>, patience: &Patience<'_>) -> Result<(), CellError> {
        self.owned()?.post(message.pickle, message.buffers, patience)
    }

    /// `recv`: takes the next item of the channel, waiting for it.
    ///
    /// # Errors
    /// [`CellError::TimedOut`] past the timeout; [`CellError::Guest`] if an `exec` raised and its
    /// handle was not asked; [`CellError::Dead`] once everything that the cell sent was taken.
    pub fn recv(&self, timeout: Option<Duration>) -> Result<Event, CellError> {
        self.owned()?.recv(timeout)
    }

    /// The next item that has crossed already, without waiting and without looking for more.
    ///
    /// # Errors
    /// As [`Cell::recv`].
    #[must_use]
    pub fn try_recv(&self) -> Option<Result<Event, CellError>> {
        // Asking who owns the cell costs a system call, and a fork's copy of the queue is its own.
        self.shared.try_recv()
    }

    /// Ends the cell after what it was sent so far; kills it past the timeout. Failures of `exec`s
    /// that nobody was told of are logged, and returned.
    pub fn close(&self, timeout: Duration) -> Vec<GuestFailure> {
        if self.owned().is_err() {
            return Vec::new();
        }
        self.shared.close(timeout);
        let failures = lock(&self.shared.state).tell_untold();
        for failure in &failures {
            tracing::warn!(cell = self.name(), "exec failed and nobody asked: {failure}");
        }
        failures
    }

    /// Kills the cell and waits until it is gone. What it sent before can still be received.
    pub fn kill(&self) {
        if self.owned().is_err() {
            return;
        }
        self.shared.condemn(Death::Killed);
        self.shared.await_death();
    }

    /// Why the cell is dead, if it is.
    #[must_use]
    pub fn death(&self) -> Option<Death> {
        lock(&self.shared.state).death.clone()
    }

    /// What it used so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The layers that confine it, as the kernel reported them from inside before guest code ran;
    /// the resource limits as they are now, while the cell lives.
    #[must_use]
    pub fn confinement(&self) -> Confinement {
        if self.owned().is_ok() {
            self.shared.wait_until_configured();
        }
        self.shared.confinement()
    }

    /// The policy that is in force now, with what `spawn` granted beside it.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        let settings = self.shared.settings.get();
        settings.map(|settings| settings.session.policy()).unwrap_or_default()
    }

    /// Puts another policy in force, for the next request and for each use of a handle. What `spawn`
    /// granted beside the policy stays, and so do numeric limits and the imports of the first policy;
    /// further imports are asked for.
    pub fn set_policy(&self, policy: &Policy) {
        self.shared.set_policy(policy);
    }

    /// The rights that the guest was given as descriptors: connections, which end when the policy no
    /// longer grants them, and files that were opened for reading, which it may have closed since.
    /// Those are its own until the cell ends: kill it to take them back.
    #[must_use]
    pub fn handed_out(&self) -> Vec<HandedOut> {
        let settings = self.shared.settings.get();
        settings.map(|settings| settings.session.handed_out()).unwrap_or_default()
    }

    /// The requests that were refused, oldest first; after a thousand they are counted only.
    #[must_use]
    pub fn denials(&self) -> Vec<Denial> {
        lock(&self.shared.state).denials.clone()
    }
}

fn owned(shared: &Arc<CellShared>) -> Result<&Arc<CellShared>, CellError> {
    if shared.body.owner().is_this() { Ok(shared) } else { Err(CellError::Forked) }
}

/// A running or ended `call`.
#[derive(Debug)]
pub struct CallHandle {
    shared: Arc<CellShared>,
    operation: Arc<Operation>,
}

impl CallHandle {
    /// Waits for the result and takes it. After [`CellError::TimedOut`] it can be waited for again.
    ///
    /// # Errors
    /// [`CellError::Guest`] if it raised; [`CellError::TimedOut`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Delivery, CellError> {
        match owned(&self.shared)?.result(&self.operation, timeout, "call")? {
            Some(value) => Ok(*value),
            // Taken before, or an end without a value, which only an `exec` has.
            None => Err(CellError::Dead(self.shared.await_death())),
        }
    }
}

/// A running or ended `exec`.
#[derive(Debug)]
pub struct ExecHandle {
    shared: Arc<CellShared>,
    operation: Arc<Operation>,
}

impl ExecHandle {
    /// Whether it ended, well or not.
    #[must_use]
    pub fn done(&self) -> bool {
        if let Ok(shared) = owned(&self.shared) {
            shared.read_now();
        }
        !matches!(*lock(&self.operation.outcome), Outcome::Pending)
            || lock(&self.shared.state).death.is_some()
    }

    /// Waits until it ended.
    ///
    /// # Errors
    /// [`CellError::Guest`] if it raised and nobody was told yet; [`CellError::TimedOut`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<(), CellError> {
        owned(&self.shared)?.result(&self.operation, timeout, "exec").map(|_| ())
    }
}
