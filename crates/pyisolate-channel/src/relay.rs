//! A channel whose ends are in two machines: its records over a stream of bytes.
//!
//! In the host a relay holds the guest's end of an ordinary channel, in the machine another holds the
//! host's end, and each passes on what it takes. Neither end notices but by the time it takes. A
//! relay waits for room where the next one does, so that the rings' back pressure reaches across.
//! There is no way to connect again: a stream that ends, or that holds what has no place in it, is
//! the end of the channel.
//!
//! Descriptors do not cross. A shared buffer is made on each side, and its bytes go ahead of the
//! record that names it, in pieces. This is the one place of the crate that looks into frames, and
//! it looks for their buffers alone: [what a frame says](pyisolate_abi::message) is for the ends to
//! judge.

mod host;
mod machine;
mod wire;

pub use host::{RelayEnd, relay_host};
pub use machine::{MachineRelay, relay_machine};
pub use wire::{RelayError, SEED_BYTES, StreamReader, StreamWriter, Told, Wake};
