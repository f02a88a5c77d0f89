//! What runs inside a cell: the guest's half of the seven operations, for every backend.
//!
//! It is an extension module, `_guest`, written against CPython's stable C-API so that one build
//! serves every version from 3.13 on, and fit for sub-interpreters: multi-phase, all state in the
//! module. Beside the channel and the Python runtime it holds the processes that stand around cells,
//! because they are interpreters too: the launcher, the zygote, and in a virtual machine the first one.
//!
//! Nothing in here is trusted once guest code runs: the guest can rewrite all of it. It is no wall,
//! and takes no decision that a wall depends on; the jail is entered before, and the host checks
//! whatever comes out.

mod ffi;
mod init;
mod interpreter;
mod launch;
mod link;
mod module;
pub mod simple;
mod sources;
mod zygote;

pub use interpreter::{Guest, Lived, live, unmade};
pub use module::PyInit__guest;
