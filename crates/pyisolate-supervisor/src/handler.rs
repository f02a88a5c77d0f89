//! Capabilities of the host's own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pyisolate_broker::{Cancel, Failure};

use crate::delivery::Delivery;

/// Answers the requests for a capability of the host's own.
pub trait Handler: Send + Sync + std::fmt::Debug {
    /// Does what is asked, in a thread of the broker's; several may be under way at once. What takes
    /// longer than its timeout goes on, but the guest is told that it failed.
    ///
    /// # Errors
    /// What the guest raises. Neither paths of the host nor tracebacks belong into it.
    fn handle(&self, call: HandlerCall<'_>) -> Result<Parcel, Failure>;

    /// The cell ended, and asks for nothing any more: what is held for it can go. Must not wait.
    /// Calls may still be under way.
    fn end(&self) {}
}

/// One request for a capability of the host's own.
#[derive(Debug)]
pub struct HandlerCall<'a> {
    /// The name of the cell that asks.
    pub cell: &'a str,
    /// The capability, under the name that the host gave it.
    pub capability: &'a str,
    /// What is to be done: the guest's own word, which the policy allows.
    pub action: &'a str,
    /// What the guest sent with it.
    pub payload: Delivery,
    /// Tells a handler that waits that the cell is gone.
    pub cancel: &'a Cancel,
}

/// A pickled object for a guest.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Protocol 5 pickle, which the guest unpickles with CPython.
    pub pickle: Vec<u8>,
    /// The buffers that it refers to, in order.
    pub buffers: Vec<Vec<u8>>,
}

/// A capability of the host's own, as a cell is given it.
#[derive(Clone, Debug)]
pub struct HostCapability {
    /// Who answers.
    pub handler: Arc<dyn Handler>,
    /// What can be asked; `None` for anything.
    pub actions: Option<BTreeSet<String>>,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl HostCapability {
    /// How long an answer may take, unless the host says otherwise: half of the default wall time
    /// of an operation, so that a guest is told and can go on.
    pub const TIMEOUT: Duration = Duration::from_secs(30);
}
