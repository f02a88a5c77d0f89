//! The one point that everything a guest sends passes: counted, checked against the contract and
//! the limits, and put where the host will look for it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pyisolate_abi::frame::Frame;
use pyisolate_abi::message::{CONFIGURED, Payload, ToGuest, ToHost};
use pyisolate_abi::pickle::{DictKind, Node};
use pyisolate_channel::{Mapping, SharedBuffer};
use pyisolate_jail::Report;
use pyisolate_policy::LimitName;

use crate::cell::{CellShared, Operation, Outcome, Queued, State, lock};
use crate::delivery::{Decoded, Delivery, open};
use crate::error::{Breach, Death, GuestFailure};
use crate::event::Event;
use crate::outbound::UNTAKEN;
use crate::pace::{Paced, Paces};
use crate::requests::Asked;

/// Shared buffers that a guest may hold at once: one a thread, and it rarely has two threads that
/// send large messages at the same moment.
const LENT_MAX: usize = 16;

/// Up to this many bytes the pickle of a log's fields does not count: those that `print` sends, to say
/// which stream it is, fit, so that what is printed counts as what it is.
const FIELDS_FREE_BYTES: u64 = 40;

impl CellShared {
    /// Takes one record that the guest sent; or nothing of it, where one of the rates makes it wait
    /// for as long as is told.
    pub(crate) fn cross(
        &self,
        record: &[u8],
        paces: Option<&mut Paces>,
    ) -> Result<Option<Duration>, Breach> {
        if self.violated.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let frame = Frame::decode(record)?;
        let message = ToHost::from_frame(&frame)?;
        if let (Some(paces), Some(what)) = (paces, paced(&message))
            && let Err(wait) = paces.take(what, Instant::now())
        {
            return Ok(Some(wait));
        }
        self.received.fetch_add(1, Ordering::Relaxed);
        if self.settings.get().is_none() {
            self.cross_early(&message)?;
        } else {
            self.cross_claimed(message, frame.store, record.len() as u64)?;
        }
        Ok(None)
    }

    fn cross_claimed(&self, message: ToHost<'_>, store: u32, bytes: u64) -> Result<(), Breach> {
        let store = match (&message, store) {
            (ToHost::Want { .. }, _) | (_, 0) => None,
            (_, number) => Some(self.take_store(number)?),
        };
        self.note_crossed(&message, store.as_ref());
        match message {
            ToHost::Ready(_) => Err(Breach::SecondReady),
            ToHost::Done(CONFIGURED) => {
                let told = std::mem::replace(&mut lock(&self.state).configured, true);
                if told { Err(Breach::UnknownOperation(CONFIGURED)) } else { Ok(()) }
            }
            ToHost::Done(id) => self.finish(id, true, Ok(None)),
            ToHost::Result { id, value } => {
                let result = match self.open(&value, store.as_ref())? {
                    Decoded::Delivery(value) => Ok(Some(Box::new(value))),
                    Decoded::Refused(why) => Err(refusal(why)),
                };
                self.finish(id, false, result)
            }
            ToHost::Failed { id, kind, message, traceback } => {
                let (kind, message) = (kind.to_owned(), message.to_owned());
                self.fail(id, GuestFailure { kind, message, traceback: traceback.to_owned() })
            }
            ToHost::Post(value) => {
                let value = self.open(&value, store.as_ref())?;
                self.queue(value, bytes, Event::Message);
                Ok(())
            }
            ToHost::Log { level, message, fields } => {
                let output_bytes = output_bytes(message, &fields);
                let fields = self.open(&fields, store.as_ref())?;
                check_fields(&fields)?;
                self.count_output(output_bytes);
                let (level, message) = (level.to_owned(), message.to_owned());
                self.queue(fields, bytes, |fields| Event::Log { level, message, fields });
                Ok(())
            }
            ToHost::Metric { name, sample } => {
                let sample = self.open(&sample, store.as_ref())?;
                check_sample(&sample)?;
                let name = name.to_owned();
                self.queue(sample, bytes, |sample| Event::Metric { name, sample });
                Ok(())
            }
            ToHost::Request { id, capability, action, payload } => {
                let opened = self.open(&payload, store.as_ref())?;
                self.ask(id, capability, action, opened, &Asked { payload, store: store.as_ref() })
            }
            ToHost::Want { id, bytes } => self.lend(id, bytes),
        }
    }

    /// Before a cell is claimed it says one thing: that it is confined, or why it could not be.
    fn cross_early(&self, message: &ToHost<'_>) -> Result<(), Breach> {
        let mut state = lock(&self.state);
        match message {
            ToHost::Ready(_) if state.ready.is_some() => Err(Breach::SecondReady),
            ToHost::Ready(report) => {
                let report = Report::decode(report.as_bytes())
                    .map_err(|error| Breach::Report(error.to_string()))?;
                state.ready = Some(report);
                Ok(())
            }
            ToHost::Failed { id: 0, message, .. } if state.ready.is_none() => {
                state.last_words = Some((*message).to_owned());
                Ok(())
            }
            _ => Err(Breach::TooEarly),
        }
    }

    fn open(&self, payload: &Payload<'_>, store: Option<&Arc<Mapping>>) -> Result<Decoded, Breach> {
        match self.settings.get() {
            Some(settings) => open(payload, store, &settings.trusted, &settings.caps),
            None => Err(Breach::TooEarly),
        }
    }

    fn queue(&self, item: Decoded, bytes: u64, event: impl FnOnce(Delivery) -> Event) {
        let (item, bytes) = match item {
            Decoded::Delivery(delivery) => {
                let bytes = bytes + delivery.cost_bytes();
                (Queued::Event(event(delivery)), bytes)
            }
            Decoded::Refused(why) => (Queued::Refused(refusal(why)), bytes),
        };
        lock(&self.state).push(item, bytes);
    }

    // --- operations

    fn fail(&self, id: u32, failure: GuestFailure) -> Result<(), Breach> {
        if let (Some(limit), Some(settings)) = (limit_behind(&failure), self.settings.get()) {
            let allowed = match limit {
                LimitName::Memory => settings.limits.mem_bytes,
                LimitName::OpenFiles => settings.limits.open_files,
                _ => settings.limits.threads,
            };
            // The kernel refused the excess, and whatever the guest was doing is half done.
            self.condemn(Death::Limit { limit, allowed, reached: None });
            return Ok(());
        }
        if is_kernel_refusal(&failure) {
            self.note_kernel_refusal(&failure.to_string());
        }
        let is_exec =
            lock(&self.state).operations.get(&id).ok_or(Breach::UnknownOperation(id))?.is_exec;
        self.finish(id, is_exec, Err(failure))
    }

    fn finish(
        &self,
        id: u32,
        is_exec: bool,
        result: Result<Option<Box<Delivery>>, GuestFailure>,
    ) -> Result<(), Breach> {
        let mut state = lock(&self.state);
        let operation = match state.operations.remove(&id) {
            Some(operation) if operation.is_exec == is_exec => operation,
            _ => return Err(Breach::UnknownOperation(id)),
        };
        state.running_since = if state.operations.is_empty() { None } else { Some(Instant::now()) };
        let told = result.as_ref().err().map_or(0, |it| it.message.len() + it.traceback.len());
        if is_exec && result.is_err() {
            state.push(Queued::Failed(Arc::clone(&operation)), told as u64);
        }
        settle(&operation, result);
        Ok(())
    }

    // --- limits

    fn count_output(&self, bytes: u64) {
        let reached = self.output_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let allowed = self.settings.get().map_or(0, |settings| settings.limits.output_bytes);
        if reached > allowed {
            let limit = LimitName::Output;
            self.condemn(Death::Limit { limit, allowed, reached: Some(reached) });
        }
    }

    // --- shared buffers

    /// Lends the guest a buffer for its next large message, or says why not.
    fn lend(&self, id: u32, bytes: u64) -> Result<(), Breach> {
        let Some(settings) = self.settings.get() else { return Err(Breach::TooEarly) };
        let limit = settings.limits.message_bytes;
        let mut state = lock(&self.state);
        if state.lent.contains_key(&id) || state.lent.len() >= LENT_MAX {
            return Err(Breach::HoardsBuffers(state.lent.len()));
        }
        // Each part is aligned in the buffer, which may take it a little past the limit.
        let slack = 64 * 1024;
        let lent: u64 = state.lent.values().map(|buffer| buffer.len_bytes() as u64).sum();
        let buffer = if !self.has_room_for_descriptor() {
            Err(UNTAKEN.to_owned())
        } else if bytes == 0 || bytes > limit + slack {
            Err(format!("message_bytes_max is {limit}"))
        } else if lent + bytes > settings.limits.unread_bytes.max(limit + slack) {
            Err(format!("{lent} bytes are under way already; send one after the other"))
        } else {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            SharedBuffer::create(bytes).map_err(|error| error.to_string()).and_then(|buffer| {
                let fd = buffer.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
                Ok((buffer, fd))
            })
        };
        match buffer {
            Ok((buffer, fd)) => {
                state.lent.insert(id, buffer);
                drop(state);
                self.send_later(&ToGuest::Room { id, store: Ok(id) }, Some((id, fd)))
            }
            Err(why) => {
                drop(state);
                self.send_later(&ToGuest::Room { id, store: Err(&why) }, None)
            }
        }
    }

    /// Takes back a buffer that the guest filled: from here on it cannot change.
    fn take_store(&self, number: u32) -> Result<Arc<Mapping>, Breach> {
        let buffer = lock(&self.state).lent.remove(&number).ok_or(Breach::UnknownBuffer(number))?;
        Ok(Arc::new(buffer.seal_and_map()?))
    }
}

/// What a rate counts of a message.
fn paced(message: &ToHost<'_>) -> Option<Paced> {
    match message {
        ToHost::Log { message, fields, .. } => Some(Paced::Output(output_bytes(message, fields))),
        ToHost::Request { .. } => Some(Paced::Request),
        _ => None,
    }
}

/// What a log event counts as output: its text and its fields. A line costs its frame even if it is
/// empty.
fn output_bytes(message: &str, fields: &Payload<'_>) -> u64 {
    let parts = std::iter::once(&fields.pickle).chain(&fields.buffers);
    let fields: u64 = parts.map(|part| part.len() as u64).sum();
    message.len() as u64 + 1 + if fields > FIELDS_FREE_BYTES { fields } else { 0 }
}

/// `log` sends a dict with text for keys.
fn check_fields(fields: &Decoded) -> Result<(), Breach> {
    let Decoded::Delivery(fields) = fields else { return Ok(()) };
    match fields.message.node(fields.message.root()) {
        Node::Dict { kind: DictKind::Plain, entries }
            if entries
                .iter()
                .all(|[key, _]| matches!(fields.message.node(*key), Node::Text(_))) =>
        {
            Ok(())
        }
        _ => Err(Breach::Event("log with fields that are no dict of names")),
    }
}

/// `metric` sends a pair of a number and a dict or nothing.
fn check_sample(sample: &Decoded) -> Result<(), Breach> {
    let Decoded::Delivery(sample) = sample else { return Ok(()) };
    let message = &sample.message;
    let Node::Tuple([value, tags]) = message.node(message.root()) else {
        return Err(Breach::Event("metric that is no pair of value and tags"));
    };
    let is_number = matches!(message.node(*value), Node::Int(_) | Node::BigInt(_) | Node::Float(_));
    if !is_number {
        return Err(Breach::Event("metric whose value is no number"));
    }
    match message.node(*tags) {
        Node::None | Node::Dict { kind: DictKind::Plain, .. } => Ok(()),
        _ => Err(Breach::Event("metric whose tags are no dict")),
    }
}

fn settle(operation: &Operation, result: Result<Option<Box<Delivery>>, GuestFailure>) {
    *lock(&operation.outcome) = Outcome::Finished(result);
}

fn refusal(why: String) -> GuestFailure {
    GuestFailure { kind: "TypeError".to_owned(), message: why, traceback: String::new() }
}

/// The limit that the kernel enforced, where guest code did not handle the exception that it got.
/// The guest could raise such an exception itself, and would end nothing but itself.
fn limit_behind(failure: &GuestFailure) -> Option<LimitName> {
    match failure.kind.as_str() {
        "MemoryError" | "numpy._core._exceptions._ArrayMemoryError" => Some(LimitName::Memory),
        "OSError" if failure.message.starts_with("[Errno 24]") => Some(LimitName::OpenFiles),
        "OSError" if failure.message.starts_with("[Errno 12]") => Some(LimitName::Memory),
        "RuntimeError" if failure.message == "can't start new thread" => Some(LimitName::Threads),
        _ => None,
    }
}

/// Whether guest code ended with what the kernel says to a system call that no cell may make, or to
/// a change of the read-only root. Where the guest asked the broker, the error is the runtime's own.
fn is_kernel_refusal(failure: &GuestFailure) -> bool {
    let refused = ["[Errno 1]", "[Errno 13]", "[Errno 30]"];
    matches!(failure.kind.as_str(), "PermissionError" | "OSError")
        && refused.iter().any(|errno| failure.message.starts_with(errno))
}

impl State {
    /// The failures of `exec`s that nobody was told of; from now on somebody was.
    pub(crate) fn tell_untold(&mut self) -> Vec<GuestFailure> {
        let failure = |item: &Queued| match item {
            Queued::Failed(operation) => {
                let mut outcome = lock(&operation.outcome);
                match &*outcome {
                    Outcome::Finished(Err(failure)) => {
                        let failure = failure.clone();
                        *outcome = Outcome::Told;
                        Some(failure)
                    }
                    _ => None,
                }
            }
            Queued::Event(_) | Queued::Refused(_) => None,
        };
        self.queue.iter().filter_map(|(item, _)| failure(item)).collect()
    }
}
