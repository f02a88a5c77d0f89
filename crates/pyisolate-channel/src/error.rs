//! What can go wrong, and whether the channel is still usable afterwards.

use std::io;

/// Something that a peer which keeps to the protocol cannot do. Each variant names the impossible
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A position is no multiple of 8.
    #[error("the peer moved to position {position}, which is not a multiple of 8")]
    PositionUnaligned {
        /// The position the peer published.
        position: u32,
    },
    /// The producer's position is behind what it had published, or further ahead than the ring is
    /// large.
    #[error(
        "the peer claims to have published up to {head}, with {tail} consumed, {seen} published \
         before and a ring of {capacity_bytes} bytes"
    )]
    HeadOutOfRange {
        /// The position the peer published.
        head: u32,
        /// Our own position.
        tail: u32,
        /// The peer's position when it was last believed.
        seen: u32,
        /// Capacity of the ring, in bytes.
        capacity_bytes: u32,
    },
    /// The consumer's position is behind what it had consumed, or ahead of what was published.
    #[error(
        "the peer claims to have consumed up to {tail}, with {head} published and {seen} consumed before"
    )]
    TailOutOfRange {
        /// The position the peer published.
        tail: u32,
        /// Our own position.
        head: u32,
        /// The peer's position when it was last believed.
        seen: u32,
    },
    /// A record says that it is longer than any may be.
    #[error("a record claims {length_bytes} bytes; the largest has {max_bytes}")]
    RecordTooLong {
        /// The length the record claims, in bytes.
        length_bytes: u64,
        /// The longest that the ring takes, in bytes.
        max_bytes: u32,
    },
    /// A record says that it is longer than what has been published.
    #[error("a record claims {length_bytes} bytes, but only {published_bytes} are published")]
    RecordUnpublished {
        /// The length the record claims, in bytes.
        length_bytes: u32,
        /// Bytes between our position and the peer's, the record's own header included.
        published_bytes: u32,
    },
    /// A datagram on the bell socket has another size than one byte.
    #[error("a bell is one byte; the peer sent {bytes}")]
    BellSize {
        /// Size of the datagram, in bytes.
        bytes: usize,
    },
    /// A datagram on the bell socket carried control data, such as file descriptors. None of it was
    /// received.
    #[error("a bell carries no descriptors; the peer attached some")]
    BellCarriedControlData,
    /// The guest has set a buffer's last seal, so that the host cannot set the one it needs.
    #[error("the peer sealed the seals of a buffer of {len_bytes} bytes")]
    BufferSealedByPeer {
        /// Size of the buffer, in bytes.
        len_bytes: usize,
    },
    /// The guest still maps a buffer for writing that it handed over as finished.
    #[error(
        "the peer kept a writable mapping of a buffer of {len_bytes} bytes that it handed over"
    )]
    BufferStillWritable {
        /// Size of the buffer, in bytes.
        len_bytes: usize,
    },
}

/// What a call on a channel can fail with: one variant for each operation.
///
/// [`ChannelError::channel_survives`] says what is still usable afterwards.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The peer broke the protocol. Every later call on this end fails with the same violation.
    #[error("protocol violation: {0}")]
    Violation(#[from] Violation),
    /// The caller asked for a ring of an unfit size.
    #[error(
        "a ring cannot have {ring_bytes} bytes: choose a power of two from {} to {}",
        crate::layout::MIN_RING_BYTES,
        crate::layout::MAX_RING_BYTES
    )]
    RingSize {
        /// The capacity asked for, in bytes.
        ring_bytes: u32,
    },
    /// The caller's record is too long for the ring. Nothing was sent.
    #[error(
        "a record of {length_bytes} bytes exceeds the {max_bytes} that the ring takes: send a buffer"
    )]
    RecordTooLong {
        /// Length of the record, in bytes.
        length_bytes: usize,
        /// The longest that the ring takes, in bytes.
        max_bytes: u32,
    },
    /// `memfd_create` failed.
    #[error("cannot create a memory file of {len_bytes} bytes: {source}")]
    CreateMemory {
        /// Size of the file, in bytes.
        len_bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// `ftruncate` of a new memory file failed.
    #[error("cannot give a memory file its {len_bytes} bytes: {source}")]
    SizeMemory {
        /// Size of the file, in bytes.
        len_bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// `fcntl(F_ADD_SEALS)` failed.
    #[error("cannot seal a memory file of {len_bytes} bytes: {source}")]
    SealMemory {
        /// Size of the file, in bytes.
        len_bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// `fstat` or `fcntl(F_GET_SEALS)` failed.
    #[error("cannot inspect a memory file: {source}")]
    InspectMemory {
        /// What the kernel said.
        source: io::Error,
    },
    /// `mmap` failed.
    #[error("cannot map {len_bytes} bytes of shared memory: {source}")]
    MapMemory {
        /// Size of the mapping, in bytes.
        len_bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A memory file lacks seals without which it must not be mapped.
    #[error("a memory file has the seals {found:#x} where {required:#x} are required")]
    MemoryUnsealed {
        /// The seals it has (`F_SEAL_*`).
        found: u32,
        /// The seals it must have (`F_SEAL_*`).
        required: u32,
    },
    /// A memory file has another size than it must have.
    #[error("a memory file has {found_bytes} bytes, which is not what it should have")]
    MemorySize {
        /// Its size, in bytes.
        found_bytes: u64,
    },
    /// The memory file is none of ours, or of another version.
    #[error(
        "the memory file starts with {found:#018x}, not with {:#018x}: host and guest differ in version",
        crate::layout::MAGIC
    )]
    MemoryVersion {
        /// Its first eight bytes.
        found: u64,
    },
    /// `socketpair` failed.
    #[error("cannot create the socket pair of a channel: {source}")]
    CreateSocket {
        /// What the kernel said.
        source: io::Error,
    },
    /// `futex(FUTEX_WAIT)` failed.
    #[error("cannot wait for the peer: {source}")]
    Sleep {
        /// What the kernel said.
        source: io::Error,
    },
    /// `futex(FUTEX_WAKE)` failed.
    #[error("cannot wake the peer: {source}")]
    Wake {
        /// What the kernel said.
        source: io::Error,
    },
    /// Sending a bell failed. The record itself was published.
    #[error("cannot ring the host's bell: {source}")]
    RingBell {
        /// What the kernel said.
        source: io::Error,
    },
    /// Receiving bells failed.
    #[error("cannot drain the bell: {source}")]
    DrainBell {
        /// What the kernel said.
        source: io::Error,
    },
    /// Sending a descriptor failed.
    #[error("cannot send the descriptor with tag {tag}: {source}")]
    SendDescriptor {
        /// The tag it was to be sent with.
        tag: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Receiving a descriptor failed.
    #[error("cannot receive the descriptor with tag {tag}: {source}")]
    ReceiveDescriptor {
        /// The tag that was expected.
        tag: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The message that arrived is not the descriptor that was expected.
    #[error(
        "expected a descriptor with tag {expected}, but received {found:?} with {descriptors} descriptors"
    )]
    WrongDescriptor {
        /// The tag that was expected.
        expected: u32,
        /// The tag that arrived, if the message had one.
        found: Option<u32>,
        /// How many descriptors arrived with it. All were closed.
        descriptors: usize,
    },
    /// The host closed its end of the socket.
    #[error("the host is gone")]
    HostGone,
    /// Writing into a buffer failed.
    #[error("cannot write {len_bytes} bytes at {offset_bytes} of a buffer: {source}")]
    WriteBuffer {
        /// Where, in bytes from the start.
        offset_bytes: u64,
        /// How many bytes.
        len_bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ChannelError {
    /// Whether the channel is still usable after this error.
    ///
    /// `false` means that one side has broken the protocol, or can no longer tell the other what it
    /// must know: the cell should be killed. For an error of [`pair`](crate::pair),
    /// [`GuestEnd::attach`](crate::GuestEnd::attach) or of a buffer it speaks of the channels that
    /// existed before, which are untouched unless the peer has broken the protocol.
    #[must_use]
    pub fn channel_survives(&self) -> bool {
        // No wildcard: whoever adds an error decides here what it leaves behind.
        match self {
            Self::RingSize { .. }
            | Self::RecordTooLong { .. }
            | Self::CreateMemory { .. }
            | Self::SizeMemory { .. }
            | Self::SealMemory { .. }
            | Self::InspectMemory { .. }
            | Self::MapMemory { .. }
            | Self::MemoryUnsealed { .. }
            | Self::MemorySize { .. }
            | Self::MemoryVersion { .. }
            | Self::CreateSocket { .. }
            | Self::SendDescriptor { .. }
            | Self::WriteBuffer { .. } => true,
            Self::Violation(_)
            | Self::Sleep { .. }
            | Self::Wake { .. }
            | Self::RingBell { .. }
            | Self::DrainBell { .. }
            | Self::ReceiveDescriptor { .. }
            | Self::WrongDescriptor { .. }
            | Self::HostGone => false,
        }
    }
}
