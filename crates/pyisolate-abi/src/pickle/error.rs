//! Why a pickle was not decoded.

use std::fmt;

use super::class_name::ClassName;

/// The pickle was not decoded. The host is unchanged by it: nothing was built, imported or called.
///
/// Offsets count bytes from the start of the pickle and point at the opcode that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    // The bytes are no pickle that CPython writes.
    /// The pickle ends inside an opcode or a payload.
    #[error(
        "the pickle ends early: the opcode at byte {offset} needs {needed} bytes more; send the whole pickle"
    )]
    Truncated {
        /// Where the opcode stands.
        offset: usize,
        /// Bytes missing.
        needed: u64,
    },
    /// Bytes follow the end of the pickle.
    #[error(
        "{count} bytes follow the end of the pickle at byte {offset}; send one pickle a message"
    )]
    TrailingBytes {
        /// The first byte after STOP.
        offset: usize,
        /// How many follow.
        count: usize,
    },
    /// The pickle does not start with protocol 4 or 5.
    #[error("the pickle starts with {found}; pickle with protocol=5")]
    Protocol {
        /// What stands at its start.
        found: ProtocolFound,
    },
    /// An opcode that CPython's pickler does not emit for protocol 5.
    #[error("opcode {} at byte {offset} is not accepted; pickle with protocol=5 and the standard pickler", OpcodeName(*.opcode))]
    Opcode {
        /// Where it stands.
        offset: usize,
        /// The opcode.
        opcode: u8,
    },
    /// An opcode takes more values than the stack, or the part above the last mark, holds.
    #[error(
        "the pickle is malformed: the opcode at byte {offset} takes a value from an empty stack"
    )]
    StackUnderflow {
        /// Where the opcode stands.
        offset: usize,
    },
    /// An opcode needs a mark and there is none.
    #[error("the pickle is malformed: the opcode at byte {offset} needs a mark")]
    NoMark {
        /// Where the opcode stands.
        offset: usize,
    },
    /// The pickle ends with more on the stack than its one result.
    #[error("the pickle is malformed: {count} values or marks are left over when it ends")]
    LeftOver {
        /// How many.
        count: usize,
    },
    /// A back reference to a memo entry that was never made.
    #[error(
        "the pickle is malformed: the opcode at byte {offset} refers to memo entry {index} of {count}"
    )]
    NoSuchMemo {
        /// Where the opcode stands.
        offset: usize,
        /// The entry asked for.
        index: u64,
        /// Entries made so far.
        count: usize,
    },
    /// An out-of-band buffer is used in two places, which CPython's pickler has no way to write.
    #[error("the pickle is malformed: an out-of-band buffer is used twice")]
    ReusedBuffer,
    /// Text that is not UTF-8 (lone surrogates allowed).
    #[error("the pickle is malformed: the text at byte {offset} is not UTF-8")]
    TextEncoding {
        /// Where the opcode stands.
        offset: usize,
    },
    /// An opcode met a value of another type than it works on.
    #[error("the pickle is malformed: the opcode at byte {offset} needs {expected}, found {found}")]
    WrongType {
        /// Where the opcode stands.
        offset: usize,
        /// What it works on.
        expected: &'static str,
        /// What it met.
        found: &'static str,
    },
    /// Arguments or state that the class itself never writes.
    #[error("the pickle is malformed: at byte {offset}, {class} needs {expected}")]
    Malformed {
        /// Where the opcode stands.
        offset: usize,
        /// The class or function.
        class: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// A dict or set opcode got an odd number of values.
    #[error("the pickle is malformed: the opcode at byte {offset} has a key without a value")]
    OddItems {
        /// Where the opcode stands.
        offset: usize,
    },
    /// A value was begun and its state never came.
    #[error("the pickle is malformed: {kind} never got its state")]
    Unfinished {
        /// Which type of value.
        kind: &'static str,
    },
    /// The pickle refers to more out-of-band buffers than came with it.
    #[error("the pickle asks for an out-of-band buffer beyond the {count} that came with it")]
    MissingBuffer {
        /// How many came.
        count: usize,
    },
    /// Out-of-band buffers came that the pickle does not refer to.
    #[error(
        "{count} out-of-band buffers came and the pickle uses {used}; send only the buffers of this pickle"
    )]
    UnusedBuffers {
        /// How many came.
        count: usize,
        /// How many are used.
        used: usize,
    },
    /// An array's shape and its data differ in size.
    #[error("an array of {expected} bytes came with {found} bytes of data")]
    ArraySize {
        /// Bytes that dtype and shape call for.
        expected: u64,
        /// Bytes of data.
        found: u64,
    },

    // An honest value that may not cross.
    /// A class or function that is neither in the list of what crosses nor registered.
    #[error("cannot receive `{name}`: {}", .name.advice())]
    RefusedClass {
        /// Its name.
        name: ClassName,
    },
    /// A class or function as a value of its own.
    #[error("cannot receive the class or function `{name}` itself: send its name as a str")]
    RefusedGlobal {
        /// Its name.
        name: ClassName,
    },
    /// A `defaultdict` with a factory.
    #[error(
        "cannot receive a defaultdict whose factory is `{name}`: send dict(value), or set default_factory to None first"
    )]
    RefusedFactory {
        /// The factory.
        name: ClassName,
    },
    /// A standard type with instance attributes of its own.
    #[error("cannot receive a {kind} with attributes of its own: send the attributes beside it")]
    RefusedState {
        /// Which type.
        kind: &'static str,
    },
    /// A registered class that inherits from `list`, `dict` or `set` and so sends items.
    #[error(
        "cannot receive items of `{name}`: a registered class must keep its items in an attribute, or send list(value) or dict(value)"
    )]
    RefusedItems {
        /// The class.
        name: ClassName,
    },
    /// A numpy dtype that holds Python objects or that is not supported.
    #[error("cannot receive a numpy array or scalar of dtype {dtype}: {advice}")]
    RefusedDType {
        /// The dtype as the guest wrote it, shortened and printable.
        dtype: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// A value contains itself.
    #[error("cannot receive a value that contains itself: send it without the back reference")]
    Cyclic,
    /// A dict key or set member that Python cannot hash, or not safely.
    #[error(
        "cannot receive {kind} as a dict key or set member: Python cannot hash it; send a list of pairs"
    )]
    Unhashable {
        /// Which type.
        kind: &'static str,
    },
    /// Keys of a dict or set that Python's hash table would need far too long for.
    #[error(
        "cannot receive a dict or set of {members} members: hashing them would take too long; send a list of pairs, or use str keys"
    )]
    CostlyKeys {
        /// How many members it has.
        members: usize,
    },

    // Caps.
    /// The pickle is longer than [`Caps::pickle_bytes`](super::Caps::pickle_bytes).
    #[error(
        "the pickle has {bytes} bytes, the cap is {cap}; send large data as numpy arrays or PickleBuffer, which travel out of band, or in parts"
    )]
    PickleBytes {
        /// Its length.
        bytes: usize,
        /// The cap.
        cap: usize,
    },
    /// More values than [`Caps::nodes`](super::Caps::nodes).
    #[error("the message has more than {cap} values; send it in parts or as a numpy array")]
    Nodes {
        /// The cap.
        cap: usize,
    },
    /// Nested deeper than [`Caps::depth`](super::Caps::depth).
    #[error("the message is nested more than {cap} deep; send a flatter one")]
    Depth {
        /// The cap.
        cap: usize,
    },
    /// Larger in memory than [`Caps::decoded_bytes`](super::Caps::decoded_bytes).
    #[error(
        "the message would take more than {cap} bytes once decoded; send it in parts or as a numpy array"
    )]
    DecodedBytes {
        /// The cap.
        cap: usize,
    },
    /// More memo entries than [`Caps::memo`](super::Caps::memo).
    #[error("the message refers back to more than {cap} values; send it in parts")]
    Memo {
        /// The cap.
        cap: usize,
    },
    /// An integer larger than [`Caps::int_bits`](super::Caps::int_bits).
    #[error("an integer of {bits} bits came, the cap is {cap}; send it as bytes")]
    IntBits {
        /// Its size.
        bits: u64,
        /// The cap.
        cap: usize,
    },
    /// More out-of-band buffers than [`Caps::buffers`](super::Caps::buffers).
    #[error(
        "{count} out-of-band buffers came, the cap is {cap}; join them or send several messages"
    )]
    Buffers {
        /// How many came.
        count: usize,
        /// The cap.
        cap: usize,
    },
}

impl DecodeError {
    /// Whether no honest pickler writes such bytes.
    ///
    /// True means that the sender broke the contract (a `ProtocolViolation`, after which the cell is
    /// not to be used). False means that an honest guest sent a value that may not cross, and the
    /// cell lives on.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::Protocol { .. }
            | Self::Opcode { .. }
            | Self::StackUnderflow { .. }
            | Self::NoMark { .. }
            | Self::LeftOver { .. }
            | Self::NoSuchMemo { .. }
            | Self::ReusedBuffer
            | Self::TextEncoding { .. }
            | Self::WrongType { .. }
            | Self::Malformed { .. }
            | Self::OddItems { .. }
            | Self::Unfinished { .. }
            | Self::MissingBuffer { .. }
            | Self::UnusedBuffers { .. }
            | Self::ArraySize { .. } => true,
            Self::RefusedClass { .. }
            | Self::RefusedGlobal { .. }
            | Self::RefusedFactory { .. }
            | Self::RefusedState { .. }
            | Self::RefusedItems { .. }
            | Self::RefusedDType { .. }
            | Self::Cyclic
            | Self::Unhashable { .. }
            | Self::CostlyKeys { .. }
            | Self::PickleBytes { .. }
            | Self::Nodes { .. }
            | Self::Depth { .. }
            | Self::DecodedBytes { .. }
            | Self::Memo { .. }
            | Self::IntBits { .. }
            | Self::Buffers { .. } => false,
        }
    }
}

/// What stands where a pickle's protocol should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolFound {
    /// A protocol that is not accepted.
    Version(u8),
    /// No protocol opcode: protocol 0 or 1, or no pickle at all.
    Missing,
}

impl fmt::Display for ProtocolFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "protocol {version}"),
            Self::Missing => f.write_str("no protocol number"),
        }
    }
}

struct OpcodeName(u8);

impl fmt::Display for OpcodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match super::opcode::refused_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#04x}", self.0),
        }
    }
}
