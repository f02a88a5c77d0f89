//! The contract between a cell and its host: seven operations, the frames that carry them, and
//! the decoder for what a guest sends.
//!
//! Both sides link this crate, so that there is one source for what may cross the wall. It is
//! pure: no I/O, no `unsafe`, no Python. The guest owns every byte that it sends; everything here
//! that reads bytes treats them as hostile, allocates within stated caps and never panics.
//!
//! It refuses to execute anything: a pickle is read as data, and a class that is neither on the
//! short list nor registered by the host is an error that names it.
#![forbid(unsafe_code)]

pub mod frame;
pub mod message;
pub mod op;
pub mod pickle;

pub use op::{ABI_VERSION, CellOp, OPERATIONS};
