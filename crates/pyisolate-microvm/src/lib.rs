//! Cells behind a virtual machine.
//!
//! **What.** [`image`] makes what a machine starts from: a kernel, and a file tree in memory with the
//! interpreter, the guest runtime and the packages that were asked for. A [`Vmm`] (today [`Qemu`])
//! starts it once and takes a [`Snapshot`]; every cell is a [`Machine`] that goes on from there, with
//! the memory copied as it is written to.
//!
//! **Why a crate of its own.** It links neither Python nor the supervisor, and can be read by itself.
//!
//! **What it refuses to do.** It has no network client: a kernel comes from the system's package
//! manager or from a path. An image that was not written whole, was changed, or can be changed by
//! another user is never opened. It starts no monitor by itself: a launcher does, in a jail. It chooses
//! no accelerator: emulation is what a caller asked for by name, or nothing.

mod clock;
pub mod image;
mod machine;
mod qemu;
mod snapshot;
mod vmm;

pub use machine::Machine;
pub use qemu::Qemu;
pub use snapshot::{Snapshot, snapshots};
pub use vmm::{Accelerator, Facts, Shape, Sharing, Vmm, VmmError};
