//! What becomes of a `request`: the one door to every privilege.
//!
//! The thread that took it asks the policy and does what is quick. The rest is for the workers: so
//! many of a cell's at once, so many more waiting, and a hung one holds up its own cell alone.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pyisolate_abi::message::{Payload, TEXT_BYTES_MAX};
use pyisolate_broker::{
    CAPABILITIES, DecidedBy, Denied, Failure, Granted, Pace, Ready, Refusal, Refused,
};
use pyisolate_channel::Mapping;
use pyisolate_policy::Act;

use crate::cell::{CellShared, Settings, lock};
use crate::delivery::{Buffer, Decoded, Delivery};
use crate::error::{Breach, Death};
use crate::event::Denial;
use crate::handler::{HandlerCall, HostCapability, Parcel};
use crate::workers::Job;

/// Requests of one cell that workers are busy with at once: a thread pool's usual share of waiting.
const AT_ONCE: usize = 8;
/// Requests of one cell that wait for those. A guest's thread has one under way at a time.
const WAITING_MAX: usize = 256;
/// Denials that are kept for the host to look at; later ones are counted only.
const DENIALS_MAX: usize = 1000;

/// The requests of one cell that were not answered yet.
#[derive(Default)]
pub(crate) struct Requests {
    under_way: HashMap<u32, UnderWay>,
    running: usize,
    waiting: VecDeque<Job>,
    waiting_bytes: u64,
}

impl fmt::Debug for Requests {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Requests").field("under_way", &self.under_way.len()).finish()
    }
}

/// One of them.
#[derive(Clone, Debug)]
struct UnderWay {
    question: Arc<Question>,
    /// When the guest is told that it took too long, whatever the worker does.
    deadline: Option<Instant>,
}

/// What was asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) id: u32,
    pub(crate) capability: String,
    pub(crate) action: String,
    pub(crate) act: Option<Act>,
    bytes: u64,
}

/// A request's payload as it came, for the journal.
pub(crate) struct Asked<'a> {
    pub(crate) payload: Payload<'a>,
    pub(crate) store: Option<&'a Arc<Mapping>>,
}

/// What is sent back.
enum Answered {
    Granted(Granted),
    Parcel(Parcel),
}

impl Requests {
    /// Whether this very request is still to be answered: its number may be another's by now.
    fn has(&self, question: &Question) -> bool {
        let own = self.under_way.get(&question.id);
        own.is_some_and(|it| std::ptr::eq(&raw const *it.question, question))
    }

    /// Takes a request that is to be answered now; `false` if it was, or is not to be any more.
    fn take(&mut self, question: &Question) -> bool {
        self.has(question) && self.under_way.remove(&question.id).is_some()
    }
}

impl CellShared {
    /// Takes a request: answers it, or has it answered.
    pub(crate) fn ask(
        &self,
        id: u32,
        capability: &str,
        action: &str,
        payload: Decoded,
        asked: &Asked<'_>,
    ) -> Result<(), Breach> {
        let Some(settings) = self.settings.get() else { return Err(Breach::TooEarly) };
        let (capability, action) = (capability.to_owned(), action.to_owned());
        let mut question = Question { id, capability, action, act: None, bytes: 0 };
        if lock(&self.requests).under_way.contains_key(&id) {
            return Err(Breach::RequestTwice(id));
        }
        let delivery = match payload {
            Decoded::Delivery(delivery) => delivery,
            Decoded::Refused(why) => {
                let refusal = Failure::new("TypeError", why).into();
                return self.refuse(settings, &question, asked, refusal);
            }
        };
        if let Err(error) = settings.may_go_on() {
            let refusal = Failure::new("RuntimeError", error.to_string()).into();
            return self.refuse(settings, &question, asked, refusal);
        }
        question.bytes = delivery.cost_bytes();
        let is_builtin = CAPABILITIES.contains(&question.capability.as_str());
        if is_builtin || question.capability == "import" {
            self.ask_broker(settings, question, &delivery, asked)
        } else {
            self.ask_host(settings, question, delivery, asked)
        }
    }

    fn ask_broker(
        &self,
        settings: &Settings,
        mut question: Question,
        payload: &Delivery,
        asked: &Asked<'_>,
    ) -> Result<(), Breach> {
        let buffers: Vec<&[u8]> = payload.buffers.iter().map(Buffer::as_slice).collect();
        let begun = match payload.message.to_value_with(&buffers, &settings.caps) {
            Ok(value) => settings.session.begin(&question.capability, &question.action, &value),
            Err(error) => {
                let failure = Failure::new("TypeError", error.to_string());
                Err(Refused { act: None, refusal: failure.into() })
            }
        };
        match begun {
            Err(Refused { act, refusal }) => {
                question.act = act.map(|act| *act);
                self.refuse(settings, &question, asked, refusal)
            }
            Ok(ready) => {
                question.act = ready.act().cloned();
                self.note_request(&question, &asked.payload, asked.store, None);
                if ready.pace() == Pace::Quick {
                    let outcome = ready.perform(&settings.session).map(Answered::Granted);
                    return self.conclude(settings, &question, outcome);
                }
                let perform = move |cell: &Self, settings: &Settings, question: &Question| {
                    let outcome = perform(ready, settings).map(Answered::Granted);
                    cell.conclude_later(settings, question, outcome);
                };
                self.enqueue(settings, question, None, perform)
            }
        }
    }

    fn ask_host(
        &self,
        settings: &Settings,
        mut question: Question,
        payload: Delivery,
        asked: &Asked<'_>,
    ) -> Result<(), Breach> {
        let (capability, action) = (question.capability.clone(), question.action.clone());
        let act = Act::Host { capability, action };
        let checked = settings.session.check(&act);
        question.act = Some(act);
        if let Err(refusal) = checked {
            return self.refuse(settings, &question, asked, refusal);
        }
        self.note_request(&question, &asked.payload, asked.store, None);
        let known = settings.capabilities.get(&question.capability);
        let Some(host) = known.filter(|host| host.has(&question.action)) else {
            let text = match known.and_then(|host| host.actions.as_ref()) {
                Some(actions) => {
                    let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
                    let (name, action) = (&question.capability, &question.action);
                    format!("{name} has no action {action:?}: it has {}", actions.join(", "))
                }
                None => format!(
                    "the policy grants {:?}, but the host gave this cell no such capability",
                    question.capability
                ),
            };
            let failure = Failure::new("LookupError", text);
            return self.conclude(settings, &question, Err(failure.into()));
        };
        let deadline = Instant::now().checked_add(host.timeout);
        let host = host.clone();
        let perform = move |cell: &Self, settings: &Settings, question: &Question| {
            // Another policy may have come while this waited for its turn.
            let checked = question.act.as_ref().map_or(Ok(()), |act| settings.session.check(act));
            if let Err(refusal) = checked {
                return cell.conclude_later(settings, question, Err(refusal));
            }
            let call = HandlerCall {
                cell: settings.name.as_str(),
                capability: &question.capability,
                action: &question.action,
                payload,
                cancel: settings.session.cancel(),
            };
            let handle = std::panic::AssertUnwindSafe(|| host.handler.handle(call));
            let outcome = match std::panic::catch_unwind(handle) {
                Ok(outcome) => outcome.map(Answered::Parcel).map_err(Refusal::Failed),
                Err(_) => Err(panicked()),
            };
            cell.conclude_later(settings, question, outcome);
        };
        self.enqueue(settings, question, deadline, perform)
    }

    /// Hands work to a worker, or has it wait its turn.
    fn enqueue(
        &self,
        settings: &Settings,
        question: Question,
        deadline: Option<Instant>,
        perform: impl FnOnce(&Self, &Settings, &Question) + Send + 'static,
    ) -> Result<(), Breach> {
        let bytes = question.bytes;
        let question = Arc::new(question);
        let (me, asked) = (self.me.clone(), Arc::clone(&question));
        let job: Job = Box::new(move || {
            // A cell that nobody holds any more has no guest that waits.
            let Some(cell) = me.upgrade() else { return };
            // Nothing is begun for a guest that was told meanwhile that it took too long, or that is
            // known to be dead.
            let is_wanted = lock(&cell.requests).has(&asked) && lock(&cell.state).death.is_none();
            if let Some(settings) = cell.settings.get().filter(|_| is_wanted) {
                perform(&cell, settings, &asked);
            }
            cell.next_request(bytes);
        });
        let mut requests = lock(&self.requests);
        let most = settings.limits.unread_bytes.max(settings.limits.message_bytes);
        let crowded = requests.waiting.len() >= WAITING_MAX
            || (requests.waiting_bytes > 0 && requests.waiting_bytes + bytes > most);
        if crowded {
            drop(requests);
            let text = "too many requests are under way: wait for some of them";
            let failure = Failure::new("RuntimeError", text);
            return self.conclude(settings, &question, Err(failure.into()));
        }
        requests
            .under_way
            .insert(question.id, UnderWay { question: Arc::clone(&question), deadline });
        requests.waiting_bytes += bytes;
        if requests.running >= AT_ONCE {
            requests.waiting.push_back(job);
            return Ok(());
        }
        requests.running += 1;
        drop(requests);
        if let Err(error) = self.monitor.workers.run(job) {
            tracing::error!(%error, "no thread for the broker's work");
            let mut requests = lock(&self.requests);
            requests.running -= 1;
            requests.waiting_bytes -= bytes;
            drop(requests);
            let text = format!("the host has no thread left to answer: {error}; try again");
            let failure = Failure::new("RuntimeError", text);
            self.conclude_later(settings, &question, Err(failure.into()));
        }
        Ok(())
    }

    /// A worker is done with one of this cell's.
    fn next_request(&self, bytes: u64) {
        let mut requests = lock(&self.requests);
        requests.waiting_bytes -= bytes;
        match requests.waiting.pop_front() {
            Some(job) => {
                drop(requests);
                // It cannot fail: at the worst, the thread that asks does it next.
                let _ = self.monitor.workers.run(job);
            }
            None => requests.running -= 1,
        }
    }

    /// Tells the guest of requests whose time is over. Their workers go on, and count.
    pub(crate) fn expire_requests(&self, settings: &Settings) {
        let now = Instant::now();
        let expired: Vec<Arc<Question>> = lock(&self.requests)
            .under_way
            .values()
            .filter(|request| request.deadline.is_some_and(|deadline| deadline <= now))
            .map(|request| Arc::clone(&request.question))
            .collect();
        for question in expired {
            let failure = Failure::new("TimeoutError", "the answer took too long".to_owned());
            self.conclude_later(settings, &question, Err(failure.into()));
        }
    }

    /// Counts what went through the sockets that the guest was handed; every so often lets go of
    /// those that it closed without shutting them, where the kernel lets us see which.
    pub(crate) fn look_at_streams(&self, settings: &Settings, closed_ones: bool) {
        let session = &settings.session;
        if closed_ones
            && !session.sockets_handed_out().is_empty()
            && let Some(held) = self.body.socket_inodes()
        {
            session.prune_streams(|inode| held.contains(&inode));
        }
        if let Err(Refusal::Exhausted { limit, allowed, reached }) = session.account_streams() {
            self.condemn(Death::Limit { limit, allowed, reached: Some(reached) });
        }
    }

    /// The cell ended: its work stops, and what waits is dropped.
    pub(crate) fn end_requests(&self) {
        if let Some(settings) = self.settings.get() {
            settings.session.end();
            settings.capabilities.values().for_each(|host| host.handler.end());
            lock(&settings.denials).take();
        }
        let mut requests = lock(&self.requests);
        requests.under_way.clear();
        let waiting = std::mem::take(&mut requests.waiting);
        drop(requests);
        // What nobody takes any more holds memory and descriptors.
        let answers = std::mem::take(&mut *lock(&self.answers));
        drop((waiting, answers));
    }

    // --- answers

    /// Answers a request that is not to be performed.
    fn refuse(
        &self,
        settings: &Settings,
        question: &Question,
        asked: &Asked<'_>,
        refusal: Refusal,
    ) -> Result<(), Breach> {
        self.note_request(question, &asked.payload, asked.store, Some(&refusal));
        self.conclude(settings, question, Err(refusal))
    }

    /// Answers from another thread than the one that reads.
    fn conclude_later(
        &self,
        settings: &Settings,
        question: &Question,
        outcome: Result<Answered, Refusal>,
    ) {
        if !lock(&self.requests).take(question) {
            return; // its time was over, or its cell's
        }
        if let Err(breach) = self.conclude(settings, question, outcome) {
            self.condemn(breach.into());
        }
    }

    fn conclude(
        &self,
        settings: &Settings,
        question: &Question,
        outcome: Result<Answered, Refusal>,
    ) -> Result<(), Breach> {
        let id = question.id;
        let (pickle, buffers, descriptor) = match outcome {
            Ok(Answered::Granted(Granted { value, descriptor })) => {
                (value.to_pickle(), Vec::new(), descriptor)
            }
            Ok(Answered::Parcel(Parcel { pickle, buffers })) => (pickle, buffers, None),
            Err(refusal) => {
                self.note_answer(question, Err(&refusal));
                return self.conclude_refused(settings, question, refusal);
            }
        };
        let buffers: Vec<&[u8]> = buffers.iter().map(Vec::as_slice).collect();
        let bytes = pickle.len() + buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
        self.note_answer(question, Ok((&pickle, bytes as u64)));
        match descriptor {
            Some(descriptor) => self.answer_handed(id, &pickle, descriptor),
            None => self.answer_granted(id, &pickle, &buffers),
        }
    }

    fn conclude_refused(
        &self,
        settings: &Settings,
        question: &Question,
        refusal: Refusal,
    ) -> Result<(), Breach> {
        match refusal {
            Refusal::Denied(denied) => self.deny(settings, question, *denied),
            Refusal::Failed(Failure { kind, message }) => {
                self.answer_failed(question.id, &kind, cut(&message))
            }
            Refusal::Exhausted { limit, allowed, reached } => {
                self.condemn(Death::Limit { limit, allowed, reached: Some(reached) });
                Ok(())
            }
            Refusal::Cancelled => Ok(()),
        }
    }

    fn deny(&self, settings: &Settings, question: &Question, denied: Denied) -> Result<(), Breach> {
        let Question { capability, action, act, .. } = question;
        let denial = Denial::new(settings, capability, action, act.as_ref(), denied);
        let why = cut(&denial.reason).to_owned();
        self.record_denial(settings, denial);
        self.answer_denied(question.id, &why)
    }

    /// Keeps a refusal for the host, and tells whoever listens.
    fn record_denial(&self, settings: &Settings, denial: Denial) {
        self.denied.fetch_add(1, Ordering::Relaxed);
        let Denial { cell, capability, action, target, .. } = &denial;
        tracing::info!(cell, capability, action, target, "request denied");
        if let Some(listener) = &*lock(&settings.denials) {
            // A listener that does not keep up misses some; `cell.denials` and the count do not.
            let _ = listener.try_send(denial.clone());
        }
        let denials = &mut lock(&self.state).denials;
        if denials.len() < DENIALS_MAX {
            denials.push(denial);
        }
    }

    /// Guest code went past the shims, and the kernel refused it; the guest did not handle that.
    pub(crate) fn note_kernel_refusal(&self, message: &str) {
        let Some(settings) = self.settings.get() else { return };
        let denied = Denied {
            act: None,
            reason: cut(message).to_owned(),
            rule: "no cell may".to_owned(),
            layer: DecidedBy::Kernel,
            grant: None,
        };
        self.note_denial(&denied);
        let denial = Denial::new(settings, "system call", "", None, denied);
        self.record_denial(settings, denial);
    }
}

impl Denial {
    fn new(
        settings: &Settings,
        capability: &str,
        action: &str,
        act: Option<&Act>,
        denied: Denied,
    ) -> Self {
        let act = denied.act.as_ref().or(act);
        Self {
            cell: settings.name.to_string(),
            capability: capability.to_owned(),
            action: action.to_owned(),
            target: act.map(ToString::to_string).unwrap_or_default(),
            rule: denied.rule,
            layer: denied.layer.as_str(),
            grant: denied.grant,
            reason: denied.reason,
            at: settings.claimed.elapsed(),
        }
    }
}

impl HostCapability {
    fn has(&self, action: &str) -> bool {
        self.actions.as_ref().is_none_or(|actions| actions.contains(action))
    }
}

/// Performs a task; a fault of ours in it ends as a failure of this request alone.
fn perform(ready: Ready, settings: &Settings) -> Result<Granted, Refusal> {
    let perform = std::panic::AssertUnwindSafe(|| ready.perform(&settings.session));
    std::panic::catch_unwind(perform).unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Refusal {
    tracing::error!("a request panicked");
    Failure::new("RuntimeError", "the host failed to answer").into()
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
