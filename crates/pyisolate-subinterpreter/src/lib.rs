//! Cells in sub-interpreters of the host's own process: a CPython interpreter each, with its own lock,
//! on a thread of its own that the kernel confines.
//!
//! **What.** [`Cell::start`] makes a thread, has it enter its wall ([`pyisolate_jail::ThreadJail`]),
//! creates an interpreter there and lets the guest runtime serve in it, on the same channel and with
//! the same frames as in a process. From outside a cell can be stopped, and its CPU time and memory
//! read.
//!
//! **Why.** It costs microseconds to take and no process, and several run at once.
//!
//! **What it refuses to do.** It is no boundary against hostile native code or against faults of the
//! interpreter: the guest shares the host's memory, and whatever corrupts it corrupts the host. It
//! says so in its report. It does not kill threads, because nothing can without killing the process:
//! a guest that cannot be stopped is abandoned, and that is told.

mod capi;
mod cell;
mod census;
mod error;
mod guard;
mod list;
mod memory;
mod prepare;
mod stop;

pub use cell::{Cell, Ended, Trees};
pub use census::Census;
pub use error::StartError;
pub use list::{after_fork_in_child, after_fork_in_parent, before_fork, forget_abandoned};
use prepare::prepare;
pub use pyisolate_jail::ThreadJail;
