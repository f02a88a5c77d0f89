//! One request on its way: typed, judged, then performed.

use pyisolate_abi::pickle::Value;
use pyisolate_policy::Act;

use crate::outcome::{Failure, Granted, Refusal};
use crate::session::Session;

/// Where a task may be performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// By the thread that took the request: microseconds, and it never waits for anybody.
    Quick,
    /// By a worker: it may wait for a disk, a network, a process or another cell.
    Slow,
}

/// A request whose payload was checked. Every capability makes its own kinds.
pub(crate) trait Task: Send + std::fmt::Debug {
    /// What the policy is asked; `None` where a right that was granted before is used up (a handle).
    fn act(&self) -> Option<&Act>;

    /// Asks the policy. A task whose right has two forms asks twice.
    fn check(&self, session: &Session) -> Result<(), Refusal> {
        self.act().map_or(Ok(()), |act| session.check(act))
    }

    /// Where it may be performed.
    fn pace(&self) -> Pace;

    /// Does it. What comes up on the way (a redirect, a link, an address) is checked there.
    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal>;
}

/// The typed request behind a capability's action and payload.
pub(crate) fn parse(
    capability: &str,
    action: &str,
    payload: &Value,
) -> Result<Box<dyn Task>, Failure> {
    match capability {
        "filesystem" => crate::filesystem::parse(action, payload),
        "network" => crate::network::parse(action, payload),
        "subprocess" => crate::subprocess::parse(action, payload),
        "secret" => crate::secret::parse(action, payload),
        "clock" => crate::clock::parse(action, payload),
        "random" => crate::random::parse(action, payload),
        "ipc" => crate::ipc::parse(action, payload),
        "import" => crate::imports::parse(action, payload),
        other => Err(Failure::new("LookupError", format!("there is no capability {other:?}"))),
    }
}

/// The capabilities of the broker's own.
pub const CAPABILITIES: [&str; 7] =
    ["filesystem", "network", "subprocess", "secret", "clock", "random", "ipc"];

/// An action that a capability does not have.
pub(crate) fn no_action(capability: &str, action: &str, actions: &[&str]) -> Failure {
    let action: String = action.chars().take(100).collect();
    Failure::new(
        "LookupError",
        format!("{capability} has no action {action:?}: it has {}", actions.join(", ")),
    )
}
