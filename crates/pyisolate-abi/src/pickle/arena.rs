//! Where decoded values live: one slot of 16 bytes each, children in one shared pool.

use std::num::NonZeroU32;

use super::caps::{Caps, cost};
use super::classes::Class;
use super::dtype_state::DTypeParts;
use super::error::DecodeError;
use super::ndarray::ArrayParts;
use super::reduce::ObjectParts;

/// Names one value of a [`Message`](super::Message); meaningless in any other message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU32);

impl NodeId {
    fn from_index(index: usize) -> Self {
        // `Arena::push` keeps indices below `MAX_NODES`, so the cast and the sum are exact.
        Self(NonZeroU32::MIN.saturating_add(index as u32))
    }

    /// Its position: below [`Message::len`](super::Message::len), so it can index a side table.
    #[must_use]
    pub fn index(self) -> usize {
        (self.0.get() - 1) as usize
    }
}

/// Which kind of `dict` it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DictKind {
    /// `dict`.
    Plain,
    /// `collections.OrderedDict`.
    Ordered,
    /// `collections.Counter`.
    Counter,
    /// `collections.defaultdict` whose factory is `None`.
    Default,
}

/// Which system's rules a pure path follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFlavour {
    /// `pathlib.PurePosixPath`.
    Posix,
    /// `pathlib.PureWindowsPath`.
    Windows,
}

/// `uuid.SafeUUID`: whether a UUID was generated in a multiprocessing-safe way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SafeUuid {
    /// `SafeUUID.safe`.
    Safe,
    /// `SafeUUID.unsafe`.
    Unsafe,
    /// `SafeUUID.unknown`, the usual one.
    Unknown,
}

/// A range of the pickle's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Span {
    pub(super) fn of(self, pickle: &[u8]) -> &[u8] {
        &pickle[self.start as usize..][..self.len as usize]
    }
}

/// A range of the pool of children, with room to grow in place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    start: u32,
    len: u32,
    room: u32,
}

impl Run {
    pub(super) fn len(self) -> usize {
        self.len as usize
    }

    pub(super) fn of(self, pool: &[NodeId]) -> &[NodeId] {
        &pool[self.start as usize..][..self.len as usize]
    }

    /// Appends, in amortised linear time: a run that must move doubles its room.
    ///
    /// The caller has charged for `items`, which bounds the pool below `u32::MAX`; see
    /// [`MAX_DECODED_BYTES`].
    fn extend(&mut self, pool: &mut Vec<NodeId>, items: &[NodeId]) {
        let (start, len, room) = (self.start as usize, self.len(), self.room as usize);
        let grown = len + items.len();
        if grown <= room {
            pool[start + len..start + grown].copy_from_slice(items);
        } else if start + room == pool.len() {
            pool.truncate(start + len);
            pool.extend_from_slice(items);
            self.room = grown as u32;
        } else {
            let moved = pool.len();
            let room = grown.max(2 * len);
            pool.extend_from_within(start..start + len);
            pool.extend_from_slice(items);
            pool.resize(moved + room, NodeId::from_index(0));
            self.start = moved as u32;
            self.room = room as u32;
        }
        self.len = grown as u32;
    }
}

/// One value, compactly. `message::Node` is its public view.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    None,
    Ellipsis,
    NotImplemented,
    Bool(bool),
    Int(i64),
    /// Two's complement, little-endian, more than 8 significant bytes.
    BigInt(Span),
    Float(f64),
    Complex {
        re: NodeId,
        im: NodeId,
    },
    /// UTF-8, lone surrogates allowed; checked.
    Text(Span),
    Bytes(Span),
    ByteArray(Span),
    Buffer {
        index: u32,
        read_only: bool,
    },
    /// A buffer that an array has taken; an honest pickle does not mention it again.
    TakenBuffer,
    List(Run),
    Tuple(Run),
    Set(Run),
    FrozenSet(Run),
    /// Keys and values alternate.
    Dict(DictKind, Run),
    /// `items` is a list that nothing else refers to.
    Deque {
        items: NodeId,
        max_len: Option<NodeId>,
    },
    Range {
        start: NodeId,
        stop: NodeId,
        step: NodeId,
    },
    Slice {
        start: NodeId,
        stop: NodeId,
        step: NodeId,
    },
    /// Offset of the 4 checked state bytes in the pickle.
    Date(u32),
    /// Offset of the 6 checked state bytes; the zone is a `TimeZone`.
    Time {
        state: u32,
        zone: Option<NodeId>,
    },
    /// Offset of the 10 checked state bytes; the zone is a `TimeZone`.
    DateTime {
        state: u32,
        zone: Option<NodeId>,
    },
    TimeDelta {
        days: i32,
        seconds: u32,
        microseconds: u32,
    },
    /// The offset is a `TimeDelta` of less than a day; the name a `Text`.
    TimeZone {
        offset: NodeId,
        name: Option<NodeId>,
    },
    Decimal(NodeId),
    Fraction {
        numerator: NodeId,
        denominator: NodeId,
    },
    Uuid {
        int: NodeId,
        safe: SafeUuid,
    },
    /// `parts` is a tuple of `Text`.
    PurePath {
        flavour: PathFlavour,
        parts: NodeId,
    },
    NdArray(u32),
    NumpyScalar {
        dtype: NodeId,
        data: Span,
    },
    DType(u32),
    Object(u32),

    // Below: values only while a pickle is read. `finish` refuses them in a message.
    /// A class or function that `reduce` or `build` knows.
    Class(Class),
    /// A class that the host registered.
    Trusted(u32),
    /// Any other global; both are `Text`.
    Unknown {
        module: NodeId,
        qualname: NodeId,
    },
    /// `getattr(owner, …)`, which only leads to refused objects.
    Attribute {
        owner: NodeId,
    },
    UnbuiltUuid,
    UnbuiltDType(u32),
    UnbuiltArray,
}

impl Slot {
    /// What to call it in an error message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Ellipsis => "Ellipsis",
            Self::NotImplemented => "NotImplemented",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::BigInt(_) => "an int",
            Self::Float(_) => "a float",
            Self::Complex { .. } => "a complex",
            Self::Text(_) => "a str",
            Self::Bytes(_) => "a bytes",
            Self::ByteArray(_) => "a bytearray",
            Self::Buffer { .. } | Self::TakenBuffer => "an out-of-band buffer",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Set(_) => "a set",
            Self::FrozenSet(_) => "a frozenset",
            Self::Dict(DictKind::Plain, _) => "a dict",
            Self::Dict(DictKind::Ordered, _) => "an OrderedDict",
            Self::Dict(DictKind::Counter, _) => "a Counter",
            Self::Dict(DictKind::Default, _) => "a defaultdict",
            Self::Deque { .. } => "a deque",
            Self::Range { .. } => "a range",
            Self::Slice { .. } => "a slice",
            Self::Date(_) => "a date",
            Self::Time { .. } => "a time",
            Self::DateTime { .. } => "a datetime",
            Self::TimeDelta { .. } => "a timedelta",
            Self::TimeZone { .. } => "a timezone",
            Self::Decimal(_) => "a Decimal",
            Self::Fraction { .. } => "a Fraction",
            Self::Uuid { .. } | Self::UnbuiltUuid => "a UUID",
            Self::PurePath { .. } => "a path",
            Self::NdArray(_) | Self::UnbuiltArray => "a numpy array",
            Self::NumpyScalar { .. } => "a numpy scalar",
            Self::DType(_) | Self::UnbuiltDType(_) => "a numpy dtype",
            Self::Object(_) => "an object",
            Self::Class(_) | Self::Trusted(_) | Self::Unknown { .. } | Self::Attribute { .. } => {
                "a class"
            }
        }
    }
}

/// Ceiling of [`Caps::nodes`]: an index plus one fits a `u32`.
const MAX_NODES: usize = u32::MAX as usize - 1;
/// Ceiling of [`Caps::decoded_bytes`], 4 GiB. A child is charged at least [`cost::ITEM`] bytes and
/// accounts for at most four places in the pool (half of a run's room may be unused, and the rooms
/// it left behind add up to no more than the last one), so the pool stays below 2 Gi places and its
/// indices fit a `u32`.
const MAX_DECODED_BYTES: usize = 4 << 30;

/// All values of one message, and what they are charged so far.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) slots: Vec<Slot>,
    pub(super) children: Vec<NodeId>,
    pub(super) arrays: Vec<ArrayParts>,
    pub(super) dtypes: Vec<DTypeParts>,
    pub(super) objects: Vec<ObjectParts>,
    /// Whether more than one value refers to this one; filled by `finish`.
    pub(super) shared: Vec<bool>,
    nodes_cap: usize,
    decoded_cap: usize,
    decoded_left: usize,
}

impl Arena {
    pub(super) fn new(caps: &Caps, pickle_len: usize) -> Self {
        let decoded_cap = caps.decoded_bytes.min(MAX_DECODED_BYTES);
        Self {
            // A guess for small messages; a value takes at least one byte of the pickle.
            slots: Vec::with_capacity((pickle_len / 4).clamp(1, 64)),
            children: Vec::new(),
            arrays: Vec::new(),
            dtypes: Vec::new(),
            objects: Vec::new(),
            shared: Vec::new(),
            nodes_cap: caps.nodes.min(MAX_NODES),
            decoded_cap,
            decoded_left: decoded_cap,
        }
    }

    /// Counts memory that the value will take in the receiver.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        match self.decoded_left.checked_sub(bytes) {
            Some(left) => {
                self.decoded_left = left;
                Ok(())
            }
            None => Err(DecodeError::DecodedBytes { cap: self.decoded_cap }),
        }
    }

    pub(super) fn push(&mut self, slot: Slot, bytes: usize) -> Result<NodeId, DecodeError> {
        let index = self.slots.len();
        if index >= self.nodes_cap {
            return Err(DecodeError::Nodes { cap: self.nodes_cap });
        }
        self.charge(bytes)?;
        self.slots.push(slot);
        Ok(NodeId::from_index(index))
    }

    pub(super) fn slot(&self, id: NodeId) -> Slot {
        self.slots[id.index()]
    }

    pub(super) fn set(&mut self, id: NodeId, slot: Slot) {
        self.slots[id.index()] = slot;
    }

    pub(super) fn run(&self, run: Run) -> &[NodeId] {
        run.of(&self.children)
    }

    /// A run of its own that holds `items`.
    pub(super) fn new_run(&mut self, items: &[NodeId]) -> Run {
        let mut run = Run { start: self.children.len() as u32, len: 0, room: 0 };
        run.extend(&mut self.children, items);
        run
    }

    /// A run of its own that holds what `run` holds now.
    pub(super) fn copy_run(&mut self, run: Run) -> Run {
        let start = self.children.len();
        self.children.extend_from_within(run.start as usize..(run.start + run.len) as usize);
        Run { start: start as u32, len: run.len, room: run.len }
    }

    /// Appends `items` to the list, set or dict `id`, charging for each.
    ///
    /// `false` if `id` is none of these.
    pub(super) fn extend(&mut self, id: NodeId, items: &[NodeId]) -> Result<bool, DecodeError> {
        let bytes = match self.slots[id.index()] {
            Slot::List(_) => items.len() * cost::ITEM,
            Slot::Set(_) => items.len() * cost::MEMBER,
            Slot::Dict(..) => items.len() / 2 * cost::ENTRY,
            _ => return Ok(false),
        };
        self.charge(bytes)?;
        if let Slot::List(run) | Slot::Set(run) | Slot::Dict(_, run) = &mut self.slots[id.index()] {
            run.extend(&mut self.children, items);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_sixteen_bytes() {
        assert_eq!(size_of::<Slot>(), 16);
        assert_eq!(size_of::<Option<NodeId>>(), 4);
    }

    #[test]
    fn interleaved_runs_keep_their_items() {
        let mut pool = Vec::new();
        let mut runs = [Run::default(); 3];
        let mut wanted = [const { Vec::new() }; 3];
        for step in 0..200 {
            let which = (step * 7 + step / 3) % 3;
            let items: Vec<_> = (0..step % 5).map(|i| NodeId::from_index(step * 10 + i)).collect();
            runs[which].extend(&mut pool, &items);
            wanted[which].extend(items);
            for (run, wanted) in runs.iter().zip(&wanted) {
                assert_eq!(run.of(&pool), wanted);
            }
        }
        let total: usize = wanted.iter().map(Vec::len).sum();
        assert!(pool.len() <= 4 * total, "{} places for {total} items", pool.len());
    }
}
