//! Cells behind a virtual machine.
//!
//! **What.** [`image`] makes what such a machine starts from: a kernel, and a file tree in memory with
//! the interpreter, the guest runtime and the packages that were asked for.
//!
//! **Why a crate of its own.** It links neither Python nor the supervisor, and can be read by itself.
//!
//! **What it refuses to do.** It has no network client: a kernel comes from the system's package
//! manager or from a path. An image that was not written whole, was changed, or can be changed by
//! another user is never opened.
#![forbid(unsafe_code)]

pub mod image;
