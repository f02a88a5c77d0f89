//! The operations on a cell, as the host does them: what is sent, what is awaited, what is taken.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyisolate_abi::message::{NAME_BYTES_MAX, ToGuest};
use pyisolate_broker::journal::Kind;
use pyisolate_policy::LimitName;

use crate::cell::{CLOGGED_AFTER, CellShared, Operation, Outcome, Queued, State, lock};
use crate::delivery::Delivery;
use crate::error::{CellError, GuestFailure};
use crate::event::Event;
use crate::outbound::Patience;

impl CellShared {
    fn begin(&self, is_exec: bool) -> Result<(u32, Arc<Operation>), CellError> {
        if let Some(settings) = self.settings.get() {
            settings.may_go_on()?;
        }
        let operation = Arc::new(Operation { is_exec, outcome: Mutex::new(Outcome::Pending) });
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut state = lock(&self.state);
        if let Some(death) = &state.death {
            return Err(CellError::Dead(death.clone()));
        }
        state.operations.insert(id, Arc::clone(&operation));
        state.running_since.get_or_insert_with(Instant::now);
        drop(state);
        self.monitor.watch_closely();
        Ok((id, operation))
    }

    fn abandon(&self, id: u32) {
        let mut state = lock(&self.state);
        state.operations.remove(&id);
        if state.operations.is_empty() {
            state.running_since = None;
        }
    }

    pub(crate) fn exec(
        &self,
        source: &str,
        patience: &Patience<'_>,
    ) -> Result<Arc<Operation>, CellError> {
        let (id, operation) = self.begin(true)?;
        self.note_sent(Kind::Exec, Some(id), None, source.as_bytes(), &[]);
        self.send_payload(source.as_bytes(), &[], patience, |payload| ToGuest::Exec {
            id,
            source: payload.pickle,
        })
        .inspect_err(|_| self.abandon(id))?;
        Ok(operation)
    }

    pub(crate) fn call(
        &self,
        target: &str,
        pickle: &[u8],
        buffers: &[&[u8]],
        patience: &Patience<'_>,
    ) -> Result<Arc<Operation>, CellError> {
        if !target.contains('.') {
            return Err(CellError::Target(target.chars().take(200).collect()));
        }
        if target.len() > NAME_BYTES_MAX {
            return Err(CellError::TooLong { what: "call target", limit: NAME_BYTES_MAX });
        }
        let (id, operation) = self.begin(false)?;
        self.note_sent(Kind::Call, Some(id), Some(target), pickle, buffers);
        self.send_payload(pickle, buffers, patience, |arguments| ToGuest::Call {
            id,
            target,
            arguments,
        })
        .inspect_err(|_| self.abandon(id))?;
        Ok(operation)
    }

    /// Waits for an operation's end and takes its outcome.
    pub(crate) fn result(
        &self,
        operation: &Operation,
        timeout: Option<Duration>,
        what: &'static str,
    ) -> Result<Option<Box<Delivery>>, CellError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let took = self.wait_unless_clogged(deadline, |_| {
            let mut outcome = lock(&operation.outcome);
            match &mut *outcome {
                Outcome::Pending => None,
                Outcome::Told => Some(Ok(None)),
                // An `exec` that went well can be asked about again.
                Outcome::Finished(Ok(None)) => Some(Ok(None)),
                Outcome::Finished(_) => match std::mem::replace(&mut *outcome, Outcome::Told) {
                    Outcome::Finished(result) => Some(result),
                    Outcome::Pending | Outcome::Told => None,
                },
            }
        });
        match took {
            Ok(Some(result)) => Ok(result?),
            Ok(None) => {
                let state = lock(&self.state);
                if state.full_since.is_some_and(|since| since.elapsed() > CLOGGED_AFTER) {
                    return Err(CellError::Clogged {
                        messages: state.queue.len(),
                        unread_bytes: state.unread_bytes,
                        limit: self.full_of(&state).unwrap_or(LimitName::Unread),
                    });
                }
                let after = timeout.unwrap_or_default();
                Err(CellError::TimedOut { operation: what, after })
            }
            Err(death) => Err(CellError::Dead(death)),
        }
    }

    pub(crate) fn post(
        &self,
        pickle: &[u8],
        buffers: &[&[u8]],
        patience: &Patience<'_>,
    ) -> Result<(), CellError> {
        if let Some(settings) = self.settings.get() {
            settings.may_go_on()?;
        }
        self.note_sent(Kind::Post, None, None, pickle, buffers);
        self.send_payload(pickle, buffers, patience, ToGuest::Post)
    }

    /// The supervisor's own word to the guest.
    pub(crate) fn tell(&self, message: &ToGuest<'_>) -> Result<(), CellError> {
        self.tell_within(message, Patience::default().timeout)
    }

    /// Ends a template's time as a cell: it goes on as a zygote, and its channel is closed.
    pub(crate) fn hand_over(&self) -> Result<(), CellError> {
        self.body.hand_over();
        self.tell(&ToGuest::Stop)
    }

    /// The next item of the queue, if there is one. `was_full` is set if taking it made room that
    /// the guest waits for.
    fn take_item(
        &self,
        state: &mut State,
        was_full: &mut bool,
    ) -> Option<Result<Event, GuestFailure>> {
        loop {
            let is_full = self.full_of(state).is_some();
            let (item, bytes) = state.queue.pop_front()?;
            *was_full |= is_full;
            state.unread_bytes = state.unread_bytes.saturating_sub(bytes);
            state.full_since = None;
            match item {
                Queued::Event(event) => {
                    self.note_received(bytes);
                    return Some(Ok(event));
                }
                Queued::Refused(failure) => return Some(Err(failure)),
                Queued::Failed(operation) => {
                    let mut outcome = lock(&operation.outcome);
                    if !matches!(*outcome, Outcome::Finished(Err(_))) {
                        continue; // its handle was asked first
                    }
                    let taken = std::mem::replace(&mut *outcome, Outcome::Told);
                    if let Outcome::Finished(Err(failure)) = taken {
                        return Some(Err(failure));
                    }
                }
            }
        }
    }

    /// The next item of the queue, without looking into the channel.
    pub(crate) fn try_recv(&self) -> Option<Result<Event, CellError>> {
        let mut was_full = false;
        let item = self.take_item(&mut lock(&self.state), &mut was_full)?;
        if was_full {
            self.read_now();
        }
        Some(item.map_err(CellError::Guest))
    }

    /// The next item of the channel.
    pub(crate) fn recv(&self, timeout: Option<Duration>) -> Result<Event, CellError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut was_full = false;
        let took = self.wait(deadline, |state| self.take_item(state, &mut was_full));
        if was_full {
            // The guest waits for room that nobody but us knows of.
            self.read_now();
        }
        match took {
            Ok(Some(item)) => Ok(item?),
            Ok(None) => {
                Err(CellError::TimedOut { operation: "recv", after: timeout.unwrap_or_default() })
            }
            Err(death) => Err(CellError::Dead(death)),
        }
    }
}
