//! What a cell may have: numeric limits and the modules that its code may import.
//!
//! A policy is data. This crate decides and explains; it does no I/O and enforces nothing itself:
//! the jail, the supervisor and the guest runtime act on what it says.
//!
//! It refuses to guess: an empty list allows nothing, and a name that cannot be a module is an
//! error, not a pattern.
#![forbid(unsafe_code)]

mod imports;
mod limits;
mod name;

pub use imports::{ImportError, Imports};
pub use limits::{LimitError, LimitName, Limits};
pub use name::{CellName, NameError};
