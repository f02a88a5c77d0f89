//! Answers what a cell asks for: one capability a file.
//!
//! Every request takes the same way. Its payload is checked and becomes a typed task; the task says
//! which [`Act`](pyisolate_policy::Act) it is; the policy decides; only then is it performed. What
//! comes up on the way, a redirect or a symbolic link, is an act of its own and is decided again.
//!
//! It refuses to guess: unknown actions and keys are errors. It never walks a path by name alone,
//! connects to an address that it did not check, or starts a program itself.

mod broker;
mod cancel;
mod clock;
mod decision;
mod filesystem;
mod imports;
mod ipc;
pub mod journal;
mod learn;
mod network;
mod outcome;
mod payload;
mod random;
mod replay;
mod secret;
mod session;
mod subprocess;
mod task;

pub use broker::{Broker, BrokerOptions};
pub use cancel::{Cancel, OnCancel};
pub use journal::{Journal, JournalOptions};
pub use learn::{LearnOptions, Learned, Use, learn};
pub use network::{HandedOut, Resolve};
pub use outcome::{DecidedBy, Denied, Failure, Granted, Refusal};
pub use replay::{Changes, Example, ReplayError, Side, replay};
pub use secret::SecretValue;
pub use session::{Ready, Refused, Session, SessionOptions};
pub use subprocess::{Command, EndedBy, Finished, Run, RunError};
pub use task::{CAPABILITIES, Pace};
