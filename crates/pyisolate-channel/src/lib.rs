//! Bytes between two parties that distrust each other: the host process and a guest process.
//!
//! # What it is
//!
//! - A **ring** in each direction, in one sealed memory file that both processes map. A record goes
//!   across without a system call while the other side is awake, and a waiting side spins for a
//!   bounded while before it sleeps on a futex. See [`pair`], [`HostEnd`] and [`GuestEnd`].
//! - A **socket** beside it, for what a ring cannot do: it wakes a host that has no thread reading
//!   (a *bell*, guest to host) and carries file descriptors (host to guest only).
//! - **Buffers** for payloads that are too large for a ring: memory files that are sealed before they
//!   are believed. See [`SharedBuffer`].
//!
//! # Why
//!
//! Whoever sleeps in a Unix socket or a futex takes tens of microseconds to come back, because an
//! idle core is slow to wake; two cores that watch the same memory answer each other in well under
//! 1 µs. `examples/ring_bench.rs` prints both for the machine at hand.
//!
//! # The memory model
//!
//! The guest owns a writable copy of the mapping and may write to any byte of it at any moment, even
//! while the host reads that byte. A `&[u8]` over such memory would be unsound: Rust assumes that
//! what a shared reference shows does not change. So no reference to data in a ring is ever formed.
//! The rings are made of aligned words, and every access to a word is an atomic one:
//!
//! - the counters and announcements in the header are `AtomicU32`, the only thing a reference may
//!   safely point to in memory that somebody else writes;
//! - records are copied by relaxed loads and stores of `AtomicU64`, out of the ring into private
//!   memory *before* anything looks at them, and never read twice.
//!
//! Within one process this is fully defined by Rust's memory model, racing writers included. What it
//! cannot speak about is a writer in another process that makes accesses of other widths; there we
//! assume, with every other user of shared memory, that the hardware treats them as it treats
//! accesses of this process: a load then yields *some* bytes. Any bytes will do, since all that
//! comes out of the ring is treated as an adversary's choice.
//!
//! # What each side believes
//!
//! Only its own private copy of its own position. The peer's position is checked at each reading: it
//! must be a multiple of 8, must not move backwards and must not be further ahead than the ring is
//! large. A record's length must fit into what has been published. Whatever fails is a
//! [`Violation`] that names the impossible number, and from then on that end refuses all work. The
//! announcement words by which one side asks to be woken can, when they lie, only cause a wake-up
//! too many or a delay; a host never sleeps for longer than [`HOST_SLEEP_SLICE`] without looking
//! around.
//!
//! # What it refuses
//!
//! - It never takes a descriptor from a guest: the host's receive path offers no room for one.
//! - It never reads a buffer that the guest could still change.
//! - It does not interpret records. Frames, operations and their limits are `pyisolate-abi`'s; a
//!   [`relay`] alone looks for the buffers that they name.
//! - It does not watch the guest's process. Whoever does calls [`HostControl::mark_dead`].
//!
//! Linux only.

mod buffer;
pub mod control;
mod cursor;
mod error;
mod futex;
mod guest;
mod host;
pub mod layout;
mod mapping;
mod memory;
pub mod relay;
mod ring;
mod sealed;
mod side;
mod socket;
mod spin;

#[cfg(test)]
mod cursor_model;

pub use buffer::{SealedBuffer, SharedBuffer, fill_buffer, map_buffer};
pub use error::{ChannelError, Violation};
pub use guest::{GuestControl, GuestDescriptors, GuestEnd, GuestReader, GuestWriter};
pub use host::{GuestFds, HostControl, HostEnd, HostReader, HostWriter, pair};
pub use layout::{DEFAULT_RING_BYTES, max_record};
pub use ring::{Received, Sent};
pub use sealed::Mapping;
pub use side::HOST_SLEEP_SLICE;
pub use socket::Bells;
