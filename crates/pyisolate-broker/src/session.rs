//! One cell's side of the broker: its policy, what it used, what it holds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Act, CellName, Effect, LimitName, Limits, Policy, Rule};

use crate::broker::Broker;
use crate::cancel::Cancel;
use crate::journal::{Direction, Journal, Kind, Outcome, Record};
use crate::outcome::{DecidedBy, Denied, Failure, Granted, Refusal};
use crate::secret::SecretValue;
use crate::task::{self, Pace, Task};
use crate::{filesystem, network, random};

/// What a session is made with.
#[derive(Debug)]
pub struct SessionOptions {
    /// Whose it is.
    pub cell: CellName,
    /// What it may have.
    pub policy: Arc<Policy>,
    /// What it may use; only the network's and the disk's are looked at here.
    pub limits: Limits,
    /// The values behind the names of secrets.
    pub secrets: BTreeMap<String, SecretValue>,
    /// Whether the cell can be handed file descriptors.
    pub takes_descriptors: bool,
    /// The top of its scratch files, which it finds at [`SCRATCH`](pyisolate_policy::SCRATCH), whatever the host has there.
    pub scratch: Option<OwnedFd>,
    /// Where what is allowed on the way is written: a redirect, a link. What the guest asked for
    /// itself is written by whoever took it.
    pub journal: Option<Arc<Journal>>,
}

/// A cell, as the broker knows it.
#[derive(Debug)]
pub struct Session {
    cell: CellName,
    broker: Arc<Broker>,
    policy: RwLock<Arc<Policy>>,
    takes_descriptors: bool,
    pub(crate) scratch: Option<OwnedFd>,
    journal: Option<Arc<Journal>>,
    secrets: BTreeMap<String, SecretValue>,
    usage: Usage,
    cancel: Cancel,
    /// Files that are open for the guest.
    pub(crate) files: filesystem::Open,
    /// Connections, and answers that are being read.
    pub(crate) streams: network::Streams,
    /// The seeded generator.
    pub(crate) random: random::Generator,
    /// The placeholders that stand for secrets in this cell.
    pub(crate) placeholders: crate::secret::Placeholders,
}

/// Files and folders that a cell may make, whatever its limit on bytes: a program's own few.
const NAMES_MIN: u64 = 1000;
/// And one more for so many bytes of that limit: a block, which is what each takes at least.
const NAME_BYTES: u64 = 4096;

/// What the cell used of the limits that the broker keeps.
#[derive(Debug)]
struct Usage {
    network_ops: Meter,
    network_bytes: Meter,
    disk_bytes: Meter,
    disk_names: Meter,
}

#[derive(Debug)]
struct Meter {
    used: AtomicU64,
    allowed: u64,
}

/// A request that may be performed.
#[derive(Debug)]
pub struct Ready(Box<dyn Task>);

impl Ready {
    /// Where.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.0.pace()
    }

    /// What the policy was asked.
    #[must_use]
    pub fn act(&self) -> Option<&Act> {
        self.0.act()
    }

    /// Does it.
    ///
    /// # Errors
    /// [`Refusal`] for what came up on the way.
    pub fn perform(self, session: &Session) -> Result<Granted, Refusal> {
        if session.cancel.is_cancelled() {
            return Err(Refusal::Cancelled);
        }
        let _performing = session.journal.as_ref().map(|_| Performing::new(self.act().cloned()));
        self.0.perform(session)
    }
}

thread_local! {
    /// The act of the request that this thread performs: what else it is allowed is on the way.
    static PERFORMED: RefCell<Option<Option<Act>>> = const { RefCell::new(None) };
}

/// While it lives, this thread performs a request.
struct Performing;

impl Performing {
    fn new(act: Option<Act>) -> Self {
        PERFORMED.set(Some(act));
        Self
    }

    /// Whether `act` came up on the way of a request that this thread performs.
    fn comes_upon(act: &Act) -> bool {
        PERFORMED.with_borrow(|own| own.as_ref().is_some_and(|own| own.as_ref() != Some(act)))
    }
}

impl Drop for Performing {
    fn drop(&mut self) {
        PERFORMED.set(None);
    }
}

/// Why a request is not to be performed, with the question that it was.
#[derive(Debug)]
pub struct Refused {
    /// What the policy was asked, if the payload was in order.
    pub act: Option<Box<Act>>,
    /// Why not.
    pub refusal: Refusal,
}

impl Session {
    /// Makes a session.
    #[must_use]
    pub fn new(broker: Arc<Broker>, options: SessionOptions) -> Self {
        let limits = options.limits;
        let meter = |allowed| Meter { used: AtomicU64::new(0), allowed };
        Self {
            cell: options.cell,
            broker,
            policy: RwLock::new(options.policy),
            takes_descriptors: options.takes_descriptors,
            scratch: options.scratch,
            journal: options.journal,
            secrets: options.secrets,
            usage: Usage {
                network_ops: meter(limits.network_ops),
                network_bytes: meter(limits.network_bytes),
                disk_bytes: meter(limits.disk_bytes),
                disk_names: meter(NAMES_MIN + limits.disk_bytes / NAME_BYTES),
            },
            cancel: Cancel::default(),
            files: filesystem::Open::default(),
            streams: network::Streams::default(),
            random: random::Generator::default(),
            placeholders: crate::secret::Placeholders::default(),
        }
    }

    /// What its scratch files take of the machine's memory, in bytes.
    #[must_use]
    pub fn scratch_used_bytes(&self) -> u64 {
        let Some(Ok(seen)) = self.scratch.as_ref().map(rustix::fs::fstatvfs) else { return 0 };
        seen.f_blocks.saturating_sub(seen.f_bfree).saturating_mul(seen.f_frsize)
    }

    /// Checks a request's payload and asks the policy. Never waits.
    ///
    /// # Errors
    /// [`Refused`] if it is not to be performed.
    pub fn begin(&self, capability: &str, action: &str, payload: &Value) -> Result<Ready, Refused> {
        let task = task::parse(capability, action, payload).map_err(|failure| Refused {
            act: None,
            // Whether a payload is in order is no business of a cell that may not use it at all.
            refusal: match grants_any(&self.policy(), capability) {
                true => failure.into(),
                false => Refusal::Denied(Box::new(ungranted(capability, action))),
            },
        })?;
        match task.check(self) {
            Ok(()) => Ok(Ready(task)),
            Err(refusal) => Err(Refused { act: task.act().cloned().map(Box::new), refusal }),
        }
    }

    /// Asks the policy that is in force now.
    ///
    /// # Errors
    /// [`Refusal::Denied`] with the explanation.
    pub fn check(&self, act: &Act) -> Result<(), Refusal> {
        let policy = self.policy();
        let verdict = policy.decide(act);
        if verdict.allowed {
            if let Some(journal) = self.journal.as_ref().filter(|_| Performing::comes_upon(act)) {
                let rule = verdict.rule.map(|rule| rule.origin.to_string());
                let record = Record::new(self.cell.as_str(), Direction::ToHost, Kind::Grant);
                // A journal that broke has said so, and to whom it matters it says so again.
                let _ = journal.record(&Record {
                    act: Some(act),
                    outcome: Some(Outcome::Granted),
                    capability: Some(act.capability()),
                    rule: rule.as_deref(),
                    ..record
                });
            }
            return Ok(());
        }
        Err(Refusal::Denied(Box::new(explain(&policy, act))))
    }

    /// The cell's name.
    #[must_use]
    pub fn cell(&self) -> &CellName {
        &self.cell
    }

    /// The policy that is in force now.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another policy in force: for the next request, and for every use of a handle.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// The cell ended: whatever is done for it stops, and what is open for it is closed.
    pub fn end(&self) {
        self.cancel.cancel();
        self.files.close_all();
        self.streams.end();
    }

    /// Tells work that the cell is gone.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    pub(crate) fn broker(&self) -> &Broker {
        &self.broker
    }

    pub(crate) fn takes_descriptors(&self) -> bool {
        self.takes_descriptors
    }

    pub(crate) fn secret(&self, name: &str) -> Option<&SecretValue> {
        self.secrets.get(name)
    }

    // --- limits

    /// Counts one connection or HTTP request.
    pub(crate) fn use_network_op(&self) -> Result<(), Refusal> {
        self.usage.network_ops.exhaust(1, LimitName::NetworkOps)
    }

    /// Counts bytes that crossed the network, either way.
    pub(crate) fn use_network_bytes(&self, bytes: u64) -> Result<(), Refusal> {
        self.usage.network_bytes.exhaust(bytes, LimitName::NetworkBytes)
    }

    /// Reserves bytes on the disk before they are written.
    pub(crate) fn use_disk_bytes(&self, bytes: u64) -> Result<(), Refusal> {
        let meter = &self.usage.disk_bytes;
        let taken = meter.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= meter.allowed)
        });
        let allowed = meter.allowed;
        taken.map(drop).map_err(|_| {
            let text = format!("[Errno 122] Disk quota exceeded: disk_bytes_max={allowed}");
            Refusal::Failed(Failure::new("OSError", text))
        })
    }

    /// Counts a file or folder before it is made: an empty one takes room of the disk's, too.
    pub(crate) fn use_disk_name(&self) -> Result<(), Refusal> {
        let Meter { used, allowed } = &self.usage.disk_names;
        if used.fetch_add(1, Ordering::Relaxed) < *allowed {
            return Ok(());
        }
        used.fetch_sub(1, Ordering::Relaxed);
        let text =
            format!("[Errno 122] Disk quota exceeded: {allowed} files and folders were made");
        Err(Refusal::Failed(Failure::new("OSError", text)))
    }

    /// Gives back what was reserved and not written.
    pub(crate) fn return_disk_bytes(&self, bytes: u64) {
        self.usage.disk_bytes.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Meter {
    fn exhaust(&self, amount: u64, limit: LimitName) -> Result<(), Refusal> {
        let before = self.used.fetch_add(amount, Ordering::Relaxed);
        let reached = before.saturating_add(amount);
        if reached > self.allowed {
            return Err(Refusal::Exhausted { limit, allowed: self.allowed, reached });
        }
        Ok(())
    }
}

/// The refusal of whatever it was, by a policy that grants nothing of the capability.
fn ungranted(capability: &str, action: &str) -> Denied {
    Denied {
        act: None,
        reason: format!("{capability}.{action} is not granted: no rule speaks of {capability}"),
        rule: "no rule matched".to_owned(),
        layer: DecidedBy::Policy,
        grant: None,
    }
}

/// Whether the policy grants anything of a capability.
fn grants_any(policy: &Policy, capability: &str) -> bool {
    let grants =
        |rule: &Rule| rule.effect == Effect::Allow && rule.right.capability() == capability;
    policy.rules.iter().any(grants)
}

/// The refusal of an act by the policy.
fn explain(policy: &Policy, act: &Act) -> Denied {
    let explanation = policy.explain(act);
    Denied {
        reason: explanation.summary(),
        act: Some(act.clone()),
        rule: explanation.rule.map_or_else(|| "no rule matched".to_owned(), |rule| rule.place),
        layer: DecidedBy::Policy,
        grant: explanation.grant_line,
    }
}
