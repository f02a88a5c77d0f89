//! What is written to the journal of each crossing. Without a journal it costs a look at an option.

use std::sync::Arc;

use pyisolate_abi::frame::Part;
use pyisolate_abi::message::{Payload, ToHost};
use pyisolate_broker::journal::{Direction, Journal, Kind, Outcome, Record};
use pyisolate_broker::{Denied, Failure, Refusal};
use pyisolate_channel::Mapping;
use pyisolate_policy::Policy;

use crate::cell::{CellShared, Settings};
use crate::error::{CellError, Death};
use crate::requests::Question;

/// A cell's pen: what it writes is in the cell's name.
#[derive(Clone, Copy)]
pub(crate) struct Pen<'a> {
    journal: &'a Journal,
    cell: &'a str,
}

impl<'a> Pen<'a> {
    fn record(self, direction: Direction, kind: Kind) -> Record<'a> {
        Record::new(self.cell, direction, kind)
    }

    fn write(self, record: &Record<'_>) {
        // A journal that broke says so when it breaks; cells that may not go on without it are
        // refused where they begin something.
        let _ = self.journal.record(record);
    }
}

impl Settings {
    /// The pen, if there is a journal.
    pub(crate) fn pen(&self) -> Option<Pen<'_>> {
        let journal = self.journal.as_deref()?;
        Some(Pen { journal, cell: self.name.as_str() })
    }

    /// Whether the cell may go on: not without a journal that is required and broken.
    pub(crate) fn may_go_on(&self) -> Result<(), CellError> {
        match self.journal.as_deref().filter(|journal| journal.is_required()) {
            Some(journal) => {
                journal.broken().map_or(Ok(()), |error| Err(CellError::Journal(error)))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn note_spawn(&self, kind: Kind, policy: &Policy) {
        let Some(pen) = self.pen() else { return };
        let policy = policy.to_json();
        pen.write(&pen.record(Direction::Host, kind).with_payload(policy.as_bytes()));
    }
}

impl CellShared {
    fn pen(&self) -> Option<Pen<'_>> {
        self.settings.get()?.pen()
    }

    /// What confines it, once its limits are in force and its process is in its group: with a journal
    /// a cell is not made faster than that.
    pub(crate) fn note_confinement(&self) {
        let Some(pen) = self.pen() else { return };
        self.wait_until_configured();
        let confinement = self.confinement().to_json();
        let record = pen.record(Direction::Host, Kind::Confinement);
        pen.write(&record.with_payload(confinement.as_bytes()));
    }

    // --- into the cell

    /// An operation of the host's, before it is sent.
    pub(crate) fn note_sent(
        &self,
        kind: Kind,
        id: Option<u32>,
        target: Option<&str>,
        payload: &[u8],
        buffers: &[&[u8]],
    ) {
        let Some(pen) = self.pen() else { return };
        let beside: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut record = pen.record(Direction::ToGuest, kind).with_payload(payload);
        record.operation = id;
        record.action = target;
        record.bytes += beside as u64;
        pen.write(&record);
    }

    /// What a request was answered with.
    pub(crate) fn note_answer(&self, question: &Question, outcome: Result<(&[u8], u64), &Refusal>) {
        let Some(pen) = self.pen() else { return };
        let mut record = pen.record(Direction::ToGuest, Kind::Answer);
        record.operation = Some(question.id);
        record.capability = Some(&question.capability);
        record.action = Some(&question.action);
        match outcome {
            Ok((pickle, bytes)) => {
                record.outcome = Some(Outcome::Granted);
                record = record.with_payload(pickle);
                record.bytes = bytes;
                record.sensitive = question.capability == "secret";
            }
            Err(Refusal::Denied(denied)) => fill_denied(&mut record, denied),
            Err(Refusal::Failed(Failure { kind, message })) => {
                record.outcome = Some(Outcome::Failed);
                record.error = Some(kind);
                record.reason = Some(message);
            }
            Err(Refusal::Exhausted { .. }) => record.outcome = Some(Outcome::Exhausted),
            Err(Refusal::Cancelled) => record.outcome = Some(Outcome::Cancelled),
        }
        pen.write(&record);
    }

    // --- out of the cell

    /// What a guest sent, apart from requests, which are written with what was decided.
    pub(crate) fn note_crossed(&self, message: &ToHost<'_>, store: Option<&Arc<Mapping>>) {
        let Some(pen) = self.pen() else { return };
        let crossed = |kind| pen.record(Direction::ToHost, kind);
        let answer = |id| Record { operation: Some(id), ..crossed(Kind::Answer) };
        let written = match message {
            ToHost::Post(value) => with_payload(crossed(Kind::Post), value, store),
            ToHost::Log { level, message, fields: _ } => {
                Record { action: Some(level), ..crossed(Kind::Log) }
                    .with_payload(message.as_bytes())
            }
            ToHost::Metric { name, sample } => {
                with_payload(Record { action: Some(name), ..crossed(Kind::Metric) }, sample, store)
            }
            ToHost::Result { id, value } => {
                let record = Record { outcome: Some(Outcome::Granted), ..answer(*id) };
                with_payload(record, value, store)
            }
            ToHost::Done(id) => Record { outcome: Some(Outcome::Granted), ..answer(*id) },
            ToHost::Failed { id, kind, message, traceback: _ } => Record {
                outcome: Some(Outcome::Failed),
                error: Some(kind),
                reason: Some(message),
                ..answer(*id)
            },
            ToHost::Ready(_) | ToHost::Request { .. } | ToHost::Want { .. } => return,
        };
        pen.write(&written);
    }

    /// A request, with what was decided on it.
    pub(crate) fn note_request(
        &self,
        question: &Question,
        payload: &Payload<'_>,
        store: Option<&Arc<Mapping>>,
        refusal: Option<&Refusal>,
    ) {
        let Some(pen) = self.pen() else { return };
        let record = pen.record(Direction::ToHost, Kind::Request);
        let mut record = with_payload(record, payload, store);
        record.operation = Some(question.id);
        record.capability = Some(&question.capability);
        record.action = Some(&question.action);
        record.act = question.act.as_ref();
        let policy = self.settings.get().map(|settings| settings.session.policy());
        let rule =
            policy.as_ref().zip(record.act).and_then(|(policy, act)| policy.decide(act).rule);
        let rule = rule.map(|rule| rule.origin.to_string());
        match refusal {
            None => {
                record.outcome = Some(Outcome::Granted);
                record.rule = rule.as_deref();
            }
            Some(Refusal::Denied(denied)) => fill_denied(&mut record, denied),
            Some(_) => record.outcome = Some(Outcome::Failed),
        }
        pen.write(&record);
    }

    /// The host took an item of the channel.
    pub(crate) fn note_received(&self, bytes: u64) {
        let Some(pen) = self.pen() else { return };
        pen.write(&Record { bytes, ..pen.record(Direction::Host, Kind::Recv) });
    }

    // --- beside it

    /// A refusal that is no answer: one by the kernel.
    pub(crate) fn note_denial(&self, denied: &Denied) {
        let Some(pen) = self.pen() else { return };
        let mut record = pen.record(Direction::ToHost, Kind::Denial);
        fill_denied(&mut record, denied);
        pen.write(&record);
    }

    /// The cell's end.
    pub(crate) fn note_end(&self, death: &Death) {
        let Some(pen) = self.pen() else { return };
        let reason = death.to_string();
        if let Death::Limit { limit, .. } = death {
            pen.write(&Record {
                action: Some(limit.as_str()),
                outcome: Some(Outcome::Exhausted),
                reason: Some(&reason),
                ..pen.record(Direction::Host, Kind::Limit)
            });
        }
        let end = pen.record(Direction::Host, Kind::End);
        pen.write(&Record { reason: Some(&reason), ..end });
    }
}

fn fill_denied<'a>(record: &mut Record<'a>, denied: &'a Denied) {
    record.outcome = Some(Outcome::Denied);
    record.act = record.act.or(denied.act.as_ref());
    record.layer = Some(denied.layer);
    record.reason = Some(&denied.reason);
    record.rule = Some(&denied.rule);
}

/// The pickle, wherever it lies, and the size of it and its buffers.
fn with_payload<'a>(
    record: Record<'a>,
    payload: &Payload<'a>,
    store: Option<&'a Arc<Mapping>>,
) -> Record<'a> {
    let len = |part: &Part<'_>| match part {
        Part::Inline(bytes) => bytes.len() as u64,
        Part::Stored { len, .. } => u64::from(*len),
    };
    let bytes = len(&payload.pickle) + payload.buffers.iter().map(len).sum::<u64>();
    let pickle = match &payload.pickle {
        Part::Inline(bytes) => Some(*bytes),
        // What does not lie in the store is a breach, which was found before this.
        Part::Stored { offset, len } => store.and_then(|store| {
            let start = usize::try_from(*offset).ok()?;
            store.get(start..start.checked_add(*len as usize)?)
        }),
    };
    let record = pickle.map_or(record, |pickle| record.with_payload(pickle));
    Record { bytes, ..record }
}
