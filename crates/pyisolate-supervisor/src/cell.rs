//! One cell, seen from the host: the operations, and what the cell's threads on this side share.
//!
//! Whoever waits reads. A thread that needs something from the guest takes the reader, hands out
//! what arrives (see `crossing`), and wakes the others; if nobody waits, the guest rings and the
//! supervisor's own thread reads.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyisolate_abi::frame::FRAME_BYTES_MAX;
use pyisolate_abi::message::ToGuest;
use pyisolate_abi::pickle::{Caps, TrustedNames};
use pyisolate_broker::{Journal, Session};
use pyisolate_channel::{HostControl, HostEnd, Received, SharedBuffer};
use pyisolate_jail::{LayerName, Report, Status};
use pyisolate_policy::{CellName, LimitName, Limits, Rule};

use crate::body::Body;
use crate::delivery::Delivery;
use crate::error::{Breach, Death, GuestFailure};
use crate::event::{Denial, Event, Stats};
use crate::groups::Placement;
use crate::handler::HostCapability;
use crate::incoming::Incoming;
use crate::monitor::Monitor;
use crate::options::Backend;
use crate::outbound::{Outbound, Outgoing};
use crate::requests::Requests;
use crate::require::Requirement;
use crate::throttle::Throttle;

/// How many frames one reader takes before it looks whether its own item is among them.
const BATCH_FRAMES: usize = 4096;
/// How long a cell may take to apply its settings before its report is given without them.
const CONFIGURE_PATIENCE: Duration = Duration::from_secs(1);
/// How many more batches it takes of a guest that writes faster than it reads, before it leaves the
/// rest to the supervisor's thread.
const ROUNDS_MAX: u32 = 4;
/// The most that one sleep on the condition takes: a wake-up that is lost costs this.
const LOOK_AROUND: Duration = Duration::from_millis(100);
/// What one queued item takes beside its values, in bytes: the entry, and a decoded message's
/// tables.
const QUEUED_BYTES: u64 = 512;
/// How long at least nothing is taken from a guest that went over a rate: what it saves up meanwhile
/// is then taken at once, instead of a wake-up of the host's for each message.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// How long a queue stays full without anything being taken before a thread that waits for a result
/// is told that it waits for nothing.
pub(crate) const CLOGGED_AFTER: Duration = Duration::from_secs(1);

/// A cell's settings, known once it is claimed for a caller.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) name: CellName,
    pub(crate) backend: Backend,
    pub(crate) limits: Limits,
    pub(crate) require: Requirement,
    pub(crate) trusted: TrustedNames,
    pub(crate) caps: Caps,
    pub(crate) claimed: Instant,
    /// Its side of the broker.
    pub(crate) session: Arc<Session>,
    /// The host's own capabilities.
    pub(crate) capabilities: BTreeMap<String, HostCapability>,
    /// What `spawn` granted beside the policy: it stays when the policy is replaced.
    pub(crate) granted: Vec<Rule>,
    /// Whether the policy came from a document, and follows it when it is loaded again.
    pub(crate) follows_document: bool,
    /// Who hears of refusals, until the cell ends: who listens may be whoever holds the cell.
    pub(crate) denials: Mutex<Option<SyncSender<Denial>>>,
    pub(crate) journal: Option<Arc<Journal>>,
}

/// How an `exec` or `call` ended, and whether anybody was told.
#[derive(Debug)]
pub(crate) enum Outcome {
    Pending,
    Finished(Result<Option<Box<Delivery>>, GuestFailure>),
    Told,
}

/// A running or ended `exec` or `call`.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) is_exec: bool,
    pub(crate) outcome: Mutex<Outcome>,
}

/// An entry of the host's queue.
#[derive(Debug)]
pub(crate) enum Queued {
    Event(Event),
    /// An `exec` that raised; skipped if its handle was asked first.
    Failed(Arc<Operation>),
    /// A message that may not cross.
    Refused(GuestFailure),
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) ready: Option<Report>,
    /// The guest runtime has taken the settings and applied the limits among them.
    pub(crate) configured: bool,
    pub(crate) queue: VecDeque<(Queued, u64)>,
    pub(crate) unread_bytes: u64,
    /// Since when the queue is full without anything being taken from it.
    pub(crate) full_since: Option<Instant>,
    /// Since when a guest that went over one of its rates has to wait, and until when nothing more is
    /// taken from it.
    pub(crate) paced_since: Option<Instant>,
    pub(crate) paced_until: Option<Instant>,
    pub(crate) operations: HashMap<u32, Arc<Operation>>,
    /// When the operation that runs now began.
    pub(crate) running_since: Option<Instant>,
    /// Shared buffers that were lent to the guest and not used yet.
    pub(crate) lent: HashMap<u32, SharedBuffer>,
    pub(crate) denials: Vec<Denial>,
    /// Why the supervisor is killing the cell.
    pub(crate) doom: Option<Death>,
    /// Set once nothing more can come.
    pub(crate) death: Option<Death>,
    /// A final word from a process that could not become a cell.
    pub(crate) last_words: Option<String>,
}

impl State {
    /// Queues an item that takes about `bytes` of the host's memory, its place in the queue aside.
    pub(crate) fn push(&mut self, item: Queued, bytes: u64) {
        let bytes = bytes + QUEUED_BYTES;
        self.unread_bytes += bytes;
        self.queue.push_back((item, bytes));
    }

    /// Whether the guest has to wait because it went over one of its rates.
    pub(crate) fn is_paced(&self) -> bool {
        self.paced_until.is_some_and(|until| until > Instant::now())
    }
}

/// What all holders of a cell share.
#[derive(Debug)]
pub(crate) struct CellShared {
    pub(crate) me: Weak<CellShared>,
    pub(crate) number: u32,
    pub(crate) control: HostControl,
    pub(crate) reader: Mutex<Incoming>,
    pub(crate) outbound: Mutex<Outbound>,
    /// Answers that wait for whoever holds `outbound`.
    pub(crate) answers: Mutex<VecDeque<Outgoing>>,
    pub(crate) requests: Mutex<Requests>,
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Condvar,
    pub(crate) settings: OnceLock<Settings>,
    pub(crate) body: Body,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) next_id: AtomicU32,
    pub(crate) next_store: AtomicU32,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) output_bytes: AtomicU64,
    pub(crate) denied: AtomicU64,
    /// For how long rates made the guest wait.
    throttled_us: AtomicU64,
    pub(crate) throttle: Mutex<Throttle>,
    /// It broke the contract, or something that it sent was lost: nothing behind that is looked at.
    pub(crate) violated: AtomicBool,
}

/// Every update under these locks is whole before anything can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CellShared {
    pub(crate) fn new(number: u32, end: HostEnd, body: Body, monitor: Arc<Monitor>) -> Arc<Self> {
        let HostEnd { writer, reader, control } = end;
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            number,
            control,
            reader: Mutex::new(Incoming::new(reader)),
            outbound: Mutex::new(Outbound::new(writer)),
            answers: Mutex::default(),
            requests: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            settings: OnceLock::new(),
            body,
            monitor,
            next_id: AtomicU32::new(1),
            next_store: AtomicU32::new(1),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            throttled_us: AtomicU64::new(0),
            throttle: Mutex::default(),
            violated: AtomicBool::new(false),
        })
    }

    // --- waiting and reading

    /// Waits until `take` finds its item in the state. `None` past the deadline; the cell's death
    /// only once everything that it sent before was looked at.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut take: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>, Death> {
        let mut record = Vec::new();
        loop {
            let mut state = lock(&self.state);
            if let Some(item) = take(&mut state) {
                return Ok(Some(item));
            }
            if let Some(death) = &state.death {
                return Err(death.clone());
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(None);
            }
            let full = self.full_of(&state).is_some();
            state.full_since = if full { state.full_since.or(Some(now)) } else { None };
            let paced = state.paced_until.filter(|until| *until > now);
            let holds = full || paced.is_some();
            let reader = if holds { None } else { self.reader.try_lock().ok() };
            let Some(mut reader) = reader else {
                // The reading thread wakes us under this lock when something came or it leaves.
                let ends = [deadline, paced].into_iter().flatten();
                let patience = ends.fold(LOOK_AROUND, |patience, end| {
                    end.saturating_duration_since(now).min(patience)
                });
                drop(self.changed.wait_timeout(state, patience));
                continue;
            };
            drop(state);
            reader.enter_reading();
            let received = reader.recv(&mut record, deadline);
            let gone = matches!(received, Ok(Received::PeerGone));
            let crossed = match received {
                Ok(Received::Record) => self
                    .admit(&mut reader, &mut record)
                    .and_then(|()| self.drain(&mut reader, &mut record)),
                Ok(Received::TimedOut | Received::PeerGone) => Ok(()),
                Err(error) => Err(Breach::from(error)),
            };
            self.leave(&mut reader, &mut record, crossed);
            drop(reader);
            let state = lock(&self.state);
            if gone && state.death.is_none() {
                // The supervisor's thread is about to say why.
                drop(self.changed.wait_timeout(state, LOOK_AROUND));
            }
            self.changed.notify_all();
        }
    }

    /// Waits for something that comes behind messages which may fill the queue: `None` past the
    /// deadline, or once the queue has been full for a while.
    pub(crate) fn wait_unless_clogged<T>(
        &self,
        deadline: Option<Instant>,
        mut take: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>, Death> {
        loop {
            let slice = Instant::now() + CLOGGED_AFTER;
            let until = deadline.map_or(slice, |deadline| deadline.min(slice));
            let taken = self.wait(Some(until), &mut take)?;
            let clogged =
                lock(&self.state).full_since.is_some_and(|since| since.elapsed() > CLOGGED_AFTER);
            if taken.is_some() || clogged || deadline.is_some_and(|it| it <= Instant::now()) {
                return Ok(taken);
            }
        }
    }

    /// Takes what is in the ring, up to a batch, as long as the host's queue has room and the guest
    /// keeps to its rates.
    fn drain(&self, reader: &mut Incoming, record: &mut Vec<u8>) -> Result<(), Breach> {
        for _ in 0..BATCH_FRAMES {
            let state = lock(&self.state);
            if self.full_of(&state).is_some() || state.is_paced() {
                break;
            }
            drop(state);
            if !reader.try_recv(record)? {
                break;
            }
            self.admit(reader, record)?;
        }
        Ok(())
    }

    /// Lets a record cross, unless one of the cell's rates says that it has to wait: then it is kept,
    /// and nothing behind it is taken either, so that the ring fills and the guest waits.
    fn admit(&self, reader: &mut Incoming, record: &mut Vec<u8>) -> Result<(), Breach> {
        match self.cross(record, reader.paces.as_mut())? {
            Some(wait) => {
                reader.hold(record);
                let now = Instant::now();
                let mut state = lock(&self.state);
                state.paced_since.get_or_insert(now);
                state.paced_until = now.checked_add(wait.max(PAUSE_MIN));
            }
            None if reader.has_waited() => {
                let since = lock(&self.state).paced_since.take();
                self.add_throttled(since.map_or(Duration::ZERO, |since| since.elapsed()));
            }
            None => {}
        }
        Ok(())
    }

    /// Ends a turn of reading: nothing may be left in the ring without somebody knowing.
    fn leave(&self, reader: &mut Incoming, record: &mut Vec<u8>, mut crossed: Result<(), Breach>) {
        for round in 1.. {
            if crossed.is_err() {
                break;
            }
            match reader.leave_reading() {
                // What is left waits for a `recv` to make room.
                Ok(true) if self.full_of(&lock(&self.state)).is_some() => break,
                Ok(true) if lock(&self.state).is_paced() => break,
                Ok(true) if round == ROUNDS_MAX => {
                    self.monitor.read_soon(self.number);
                    break;
                }
                Ok(true) => {
                    reader.enter_reading();
                    crossed = self.drain(reader, record);
                }
                Ok(false) => break,
                Err(error) => crossed = Err(error.into()),
            }
        }
        if let Err(breach) = crossed {
            self.condemn(breach.into());
        }
        if reader.is_holding() && self.full_of(&lock(&self.state)).is_none() {
            // For a guest that nobody waits for. With a full queue whoever makes room reads.
            self.monitor.read_soon(self.number);
        }
        self.flush();
    }

    /// Reads whatever is there, for a guest that rang while nobody was reading.
    pub(crate) fn read_now(&self) {
        if !self.body.owner().is_this() {
            return;
        }
        let Ok(mut reader) = self.reader.try_lock() else { return };
        let mut record = Vec::new();
        reader.enter_reading();
        let crossed = self.drain(&mut reader, &mut record);
        self.leave(&mut reader, &mut record, crossed);
        drop(reader);
        drop(lock(&self.state));
        self.changed.notify_all();
    }

    /// Reads what a dead cell left in its ring, whatever the queue's cap: a ring is small.
    pub(crate) fn read_rest(&self) {
        let mut reader = lock(&self.reader);
        let mut record = Vec::new();
        while let Ok(true) = reader.try_recv(&mut record) {
            if let Err(breach) = self.cross(&record, None) {
                self.condemn(breach.into());
            }
        }
    }

    /// The limit on unread messages that the queue has reached, if it has.
    pub(crate) fn full_of(&self, state: &State) -> Option<LimitName> {
        let limits = self.settings.get().map(|settings| &settings.limits);
        let bytes_max = limits.map_or(FRAME_BYTES_MAX as u64, |limits| limits.unread_bytes);
        let messages_max = limits.map_or(u64::MAX, |limits| limits.unread_messages);
        if state.unread_bytes >= bytes_max {
            Some(LimitName::Unread)
        } else if state.queue.len() as u64 > messages_max {
            Some(LimitName::UnreadMessages)
        } else {
            None
        }
    }

    /// Counts time for which a rate makes the guest wait.
    pub(crate) fn add_throttled(&self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.throttled_us.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// Waits until the cell's own limits are in force, or it is dead: a moment after it was made.
    pub(crate) fn wait_until_configured(&self) {
        let deadline = Instant::now() + CONFIGURE_PATIENCE;
        // Past the deadline the report says what holds so far.
        let _ = self.wait(Some(deadline), |state| state.configured.then_some(()));
    }

    /// How many threads its process has, where the kernel keeps no limit for it by itself.
    pub(crate) fn threads_to_count(&self) -> Option<u64> {
        let process = self.body.as_process()?;
        let rlimits = lock(&self.state).ready.as_ref()?.get(LayerName::Rlimits)?.status;
        if rlimits == Status::Partial { process.threads() } else { None }
    }

    // --- the end

    /// Marks the cell for death and kills it; the first reason is the one that is told.
    pub(crate) fn condemn(&self, reason: Death) {
        if matches!(reason, Death::Violation(_) | Death::Unserved(_)) {
            self.violated.store(true, Ordering::Relaxed);
        }
        let mut state = lock(&self.state);
        if state.death.is_none() {
            state.doom.get_or_insert(reason);
        }
        drop(state);
        self.body.kill();
    }

    /// Asks the guest to end after what it was sent so far, and kills it past the timeout.
    pub(crate) fn close(&self, timeout: Duration) {
        if lock(&self.state).death.is_some() {
            return;
        }
        // The last chance to know.
        self.body.cpu_ms();
        lock(&self.state).doom.get_or_insert(Death::Closed);
        if self.tell_within(&ToGuest::Stop, timeout).is_ok() {
            let ended = self.wait(Instant::now().checked_add(timeout), |_| None::<()>);
            if ended.is_err() {
                return;
            }
        }
        self.condemn(Death::Closed);
        self.await_death();
    }

    /// Waits until the death of a cell that was killed is known.
    pub(crate) fn await_death(&self) -> Death {
        // The kernel ends a killed process in well under this.
        let deadline = Instant::now() + Duration::from_secs(10);
        match self.wait(Some(deadline), |_| None::<()>) {
            Err(death) => death,
            Ok(_) => lock(&self.state).doom.clone().unwrap_or(Death::Killed),
        }
    }

    /// The process ended and its ring is read: tell everybody.
    pub(crate) fn bury(&self, death: Death) {
        let mut state = lock(&self.state);
        if state.death.is_some() {
            return;
        }
        let doom = state.doom.take();
        let unborn = state.last_words.take().map(Death::Unborn);
        state.death = Some(unborn.or(doom).unwrap_or(death));
        state.running_since = None;
        state.lent.clear();
        state.operations.clear();
        let paced = state.paced_since.take();
        let death = state.death.clone();
        drop(state);
        self.add_throttled(paced.map_or(Duration::ZERO, |since| since.elapsed()));
        self.add_throttled(lock(&self.throttle).end());
        self.end_requests();
        if let Some(death) = death {
            self.note_end(&death);
        }
        self.changed.notify_all();
    }

    pub(crate) fn stats(&self) -> Stats {
        let paced = lock(&self.state).paced_since;
        let by_kernel = self.body.placement().map(Placement::throttled);
        let still = lock(&self.throttle).stands_still();
        let waits = [paced.map(|since| since.elapsed()), still, by_kernel];
        let waits: Duration = waits.into_iter().flatten().sum();
        let waits_ms = u64::try_from(waits.as_millis()).unwrap_or(u64::MAX);
        Stats {
            cpu_ms: self.body.cpu_ms(),
            mem_bytes: self.body.resident_bytes(),
            wall_ms: self.settings.get().map_or(0, |settings| {
                u64::try_from(settings.claimed.elapsed().as_millis()).unwrap_or(u64::MAX)
            }),
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            output_bytes: self.output_bytes.load(Ordering::Relaxed),
            denied: self.denied.load(Ordering::Relaxed),
            throttled_ms: self.throttled_us.load(Ordering::Relaxed) / 1000 + waits_ms,
            abandoned: self.body.is_abandoned(),
        }
    }
}
