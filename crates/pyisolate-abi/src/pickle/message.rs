//! A decoded pickle.

use std::borrow::Cow;

use super::arena::{Arena, DictKind, NodeId, Slot};
use super::classes::ClassIndex;
use super::dtype::DType;
use super::ndarray::DataPlace;
use super::node::{ArrayData, BigInt, NdArray, Node, Object, ObjectState};
use super::number;
use super::temporal::{self, DateTime, Time, TimeDelta, TimeZone};
use super::text::Text;

/// A decoded message: an acyclic graph of values, with the pickle that holds their text and bytes.
///
/// Guarantees: every value reachable from [`root`](Self::root) is data (no class, nothing
/// unfinished); containers nest at most [`Caps::depth`](super::Caps::depth) deep; dict keys and set
/// members are of hashable types. A value that several others refer to exists once: a converter
/// should make one object of it, both to keep identity and to stay within the memory that
/// [`Caps::decoded_bytes`](super::Caps::decoded_bytes) stands for. [`is_shared`](Self::is_shared)
/// tells for which values that matters.
///
/// Ids come from this message; with another message's id the methods panic or answer nonsense.
#[derive(Debug)]
pub struct Message<'p> {
    pickle: Cow<'p, [u8]>,
    arena: Arena,
    root: NodeId,
}

impl<'p> Message<'p> {
    pub(super) fn new(pickle: Cow<'p, [u8]>, arena: Arena, root: NodeId) -> Self {
        Self { pickle, arena, root }
    }

    /// The value that was pickled.
    #[must_use]
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// One more than the largest [`NodeId::index`]. Includes values that only served to make others.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a message always has a root")]
    pub fn len(&self) -> usize {
        self.arena.slots.len()
    }

    /// How long the pickle is, which the message keeps for the text and bytes in it.
    #[must_use]
    pub fn pickle_bytes(&self) -> usize {
        self.pickle.len()
    }

    /// Whether more than one value refers to `id`.
    #[must_use]
    pub fn is_shared(&self, id: NodeId) -> bool {
        self.arena.shared.get(id.index()).copied().unwrap_or(false)
    }

    /// Copies the pickle if it was borrowed, so that the message can outlive it.
    #[must_use]
    pub fn into_owned(self) -> Message<'static> {
        let pickle = Cow::Owned(self.pickle.into_owned());
        Message { pickle, arena: self.arena, root: self.root }
    }

    /// A view of one value.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Node<'_> {
        let pickle = &*self.pickle;
        let run = |run| self.arena.run(run);
        match self.arena.slot(id) {
            Slot::None => Node::None,
            Slot::Ellipsis => Node::Ellipsis,
            Slot::NotImplemented => Node::NotImplemented,
            Slot::Bool(value) => Node::Bool(value),
            Slot::Int(value) => Node::Int(value),
            Slot::BigInt(span) => Node::BigInt(BigInt(span.of(pickle))),
            Slot::Float(value) => Node::Float(value),
            Slot::Complex { re, im } => Node::Complex { re: self.float(re), im: self.float(im) },
            Slot::Text(span) => Node::Text(Text::new(span.of(pickle))),
            Slot::Bytes(span) => Node::Bytes(span.of(pickle)),
            Slot::ByteArray(span) => Node::ByteArray(span.of(pickle)),
            Slot::Buffer { index, read_only } => Node::Buffer { index: index as usize, read_only },
            Slot::List(items) => Node::List(run(items)),
            Slot::Tuple(items) => Node::Tuple(run(items)),
            Slot::Set(items) => Node::Set(run(items)),
            Slot::FrozenSet(items) => Node::FrozenSet(run(items)),
            Slot::Dict(kind, items) => Node::Dict { kind, entries: run(items).as_chunks().0 },
            Slot::Deque { items, max_len } => Node::Deque {
                items: self.items(items),
                max_len: max_len.map(|max_len| self.int(max_len).unsigned_abs()),
            },
            Slot::Range { start, stop, step } => Node::Range { start, stop, step },
            Slot::Slice { start, stop, step } => Node::Slice { start, stop, step },
            Slot::Date(at) => match temporal::date(self.state(at)) {
                Some(date) => Node::Date(date),
                None => unchecked(),
            },
            Slot::Time { state, zone } => match temporal::time(self.state(state)) {
                Some(time) => Node::Time(Time { zone: zone.map(|zone| self.zone(zone)), ..time }),
                None => unchecked(),
            },
            Slot::DateTime { state, zone } => match temporal::datetime(self.state(state)) {
                Some(DateTime { date, time }) => {
                    let zone = zone.map(|zone| self.zone(zone));
                    Node::DateTime(DateTime { date, time: Time { zone, ..time } })
                }
                None => unchecked(),
            },
            Slot::TimeDelta { .. } => Node::TimeDelta(self.delta(id)),
            Slot::TimeZone { .. } => Node::TimeZone(self.zone(id)),
            Slot::Decimal(text) => Node::Decimal(self.text(text)),
            Slot::Fraction { numerator, denominator } => Node::Fraction { numerator, denominator },
            Slot::Uuid { int, safe } => Node::Uuid { int: self.u128(int), safe },
            Slot::PurePath { flavour, parts } => {
                Node::PurePath { flavour, parts: self.items(parts) }
            }
            Slot::NdArray(index) => Node::NdArray(self.array(index)),
            Slot::NumpyScalar { dtype, data } => Node::NumpyScalar {
                dtype: self.dtype(dtype),
                dtype_id: dtype,
                data: data.of(pickle),
            },
            Slot::DType(index) => Node::DType(&self.arena.dtypes[index as usize].dtype),
            Slot::Object(index) => Node::Object(self.object(index)),
            Slot::Class(_)
            | Slot::Trusted(_)
            | Slot::Unknown { .. }
            | Slot::Attribute { .. }
            | Slot::TakenBuffer
            | Slot::UnbuiltUuid
            | Slot::UnbuiltDType(_)
            | Slot::UnbuiltArray => unchecked(),
        }
    }

    fn items(&self, id: NodeId) -> &[NodeId] {
        match self.arena.slot(id) {
            Slot::List(run) | Slot::Tuple(run) | Slot::Dict(_, run) => self.arena.run(run),
            _ => unchecked(),
        }
    }

    fn int(&self, id: NodeId) -> i64 {
        match self.arena.slot(id) {
            Slot::Int(value) => value,
            _ => unchecked(),
        }
    }

    fn u128(&self, id: NodeId) -> u128 {
        let value = match self.arena.slot(id) {
            Slot::Int(value) => u128::try_from(value).ok(),
            Slot::BigInt(span) => number::to_u128(span.of(&self.pickle)),
            _ => None,
        };
        value.unwrap_or_else(|| unchecked())
    }

    fn float(&self, id: NodeId) -> f64 {
        match self.arena.slot(id) {
            Slot::Float(value) => value,
            _ => unchecked(),
        }
    }

    fn text(&self, id: NodeId) -> Text<'_> {
        match self.arena.slot(id) {
            Slot::Text(span) => Text::new(span.of(&self.pickle)),
            _ => unchecked(),
        }
    }

    fn state<const N: usize>(&self, at: u32) -> [u8; N] {
        match self.pickle[at as usize..].first_chunk() {
            Some(state) => *state,
            None => unchecked(),
        }
    }

    fn delta(&self, id: NodeId) -> TimeDelta {
        match self.arena.slot(id) {
            Slot::TimeDelta { days, seconds, microseconds } => {
                TimeDelta { days, seconds, microseconds }
            }
            _ => unchecked(),
        }
    }

    fn zone(&self, id: NodeId) -> TimeZone<'_> {
        match self.arena.slot(id) {
            Slot::TimeZone { offset, name } => {
                TimeZone { offset: self.delta(offset), name: name.map(|name| self.text(name)) }
            }
            _ => unchecked(),
        }
    }

    fn dtype(&self, id: NodeId) -> &DType {
        match self.arena.slot(id) {
            Slot::DType(index) => &self.arena.dtypes[index as usize].dtype,
            _ => unchecked(),
        }
    }

    fn array(&self, index: u32) -> NdArray<'_> {
        let array = &self.arena.arrays[index as usize];
        NdArray {
            dtype: self.dtype(array.dtype),
            dtype_id: array.dtype,
            shape: &array.shape,
            order: &array.order,
            data: match array.data {
                DataPlace::Inline(span) => ArrayData::Inline(span.of(&self.pickle)),
                DataPlace::Buffer { index, read_only } => {
                    ArrayData::Buffer { index: index as usize, read_only }
                }
            },
        }
    }

    fn object(&self, index: u32) -> Object<'_> {
        let object = &self.arena.objects[index as usize];
        Object {
            class: ClassIndex(object.class),
            construction: object.construction,
            args: self.items(object.args),
            kwargs: object.kwargs.map_or(&[], |kwargs| self.items(kwargs).as_chunks().0),
            state: object.state.map(|state| self.object_state(state)),
        }
    }

    fn object_state(&self, id: NodeId) -> ObjectState {
        let slot = |id| self.arena.slot(id);
        match slot(id) {
            Slot::Dict(DictKind::Plain, _) => ObjectState::Attributes(id),
            Slot::Tuple(run) => match *self.arena.run(run) {
                [first, slots] if matches!(slot(slots), Slot::Dict(DictKind::Plain, _)) => {
                    match slot(first) {
                        Slot::None => ObjectState::Slots { whole: id, attributes: None, slots },
                        Slot::Dict(DictKind::Plain, _) => {
                            ObjectState::Slots { whole: id, attributes: Some(first), slots }
                        }
                        _ => ObjectState::Custom(id),
                    }
                }
                _ => ObjectState::Custom(id),
            },
            _ => ObjectState::Custom(id),
        }
    }
}

/// Reached only with the id of another message: of its own message every value was checked when it
/// was decoded.
#[track_caller]
fn unchecked() -> ! {
    panic!("this node id belongs to another message")
}
