//! The views through which a message is read.

use super::arena::{DictKind, NodeId, PathFlavour, SafeUuid};
use super::classes::ClassIndex;
use super::dtype::DType;
use super::ndarray::Order;
use super::reduce::Construction;
use super::temporal::{Date, DateTime, Time, TimeDelta, TimeZone};
use super::text::Text;

/// A big integer: more than fits an `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BigInt<'m>(pub(super) &'m [u8]);

impl<'m> BigInt<'m> {
    /// Two's complement, least significant byte first, as `int.from_bytes(…, "little", signed=True)`
    /// takes it. The shortest such form, at least 9 bytes.
    #[must_use]
    pub fn to_le_bytes(self) -> &'m [u8] {
        self.0
    }
}

/// One value of a message.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Node<'m> {
    /// `None`.
    None,
    /// `Ellipsis`.
    Ellipsis,
    /// `NotImplemented`.
    NotImplemented,
    /// `bool`.
    Bool(bool),
    /// An `int` that fits.
    Int(i64),
    /// An `int` that does not.
    BigInt(BigInt<'m>),
    /// `float`.
    Float(f64),
    /// `complex`.
    Complex {
        /// Real part.
        re: f64,
        /// Imaginary part.
        im: f64,
    },
    /// `str`.
    Text(Text<'m>),
    /// `bytes`.
    Bytes(&'m [u8]),
    /// `bytearray`.
    ByteArray(&'m [u8]),
    /// A `PickleBuffer` that travelled out of band. No other value refers to the same buffer.
    Buffer {
        /// Which of the buffers that came with the message.
        index: usize,
        /// Whether the guest's object was read-only (`bytes` rather than `bytearray`).
        read_only: bool,
    },
    /// `list`.
    List(&'m [NodeId]),
    /// `tuple`.
    Tuple(&'m [NodeId]),
    /// `set`.
    Set(&'m [NodeId]),
    /// `frozenset`.
    FrozenSet(&'m [NodeId]),
    /// A `dict` or one of the kinds beside it. A later entry replaces an earlier one of equal key.
    Dict {
        /// Which kind.
        kind: DictKind,
        /// Key and value of each entry, in order.
        entries: &'m [[NodeId; 2]],
    },
    /// `collections.deque`.
    Deque {
        /// Its items; if there are more than `max_len`, the last ones count.
        items: &'m [NodeId],
        /// Its `maxlen`.
        max_len: Option<u64>,
    },
    /// `range`; all three are `int`, the step not zero.
    Range {
        /// First value.
        start: NodeId,
        /// End, not included.
        stop: NodeId,
        /// Step.
        step: NodeId,
    },
    /// `slice`; its parts can be any values.
    Slice {
        /// Start.
        start: NodeId,
        /// Stop.
        stop: NodeId,
        /// Step.
        step: NodeId,
    },
    /// `datetime.date`.
    Date(Date),
    /// `datetime.time`.
    Time(Time<'m>),
    /// `datetime.datetime`.
    DateTime(DateTime<'m>),
    /// `datetime.timedelta`.
    TimeDelta(TimeDelta),
    /// `datetime.timezone`.
    TimeZone(TimeZone<'m>),
    /// `decimal.Decimal`, as the ASCII text that `str` gives and the constructor takes.
    Decimal(Text<'m>),
    /// `fractions.Fraction`; two `int` of at most 2048 bits, the second positive. Not necessarily in
    /// lowest terms.
    Fraction {
        /// Numerator.
        numerator: NodeId,
        /// Denominator.
        denominator: NodeId,
    },
    /// `uuid.UUID`.
    Uuid {
        /// Its 128 bits as `UUID.int`.
        int: u128,
        /// Its `is_safe`.
        safe: SafeUuid,
    },
    /// `pathlib.PurePosixPath` or `PureWindowsPath`.
    PurePath {
        /// Which of them.
        flavour: PathFlavour,
        /// The constructor's arguments, each a `str`.
        parts: &'m [NodeId],
    },
    /// `numpy.ndarray`.
    NdArray(NdArray<'m>),
    /// A numpy scalar.
    NumpyScalar {
        /// Its type.
        dtype: &'m DType,
        /// The value that holds `dtype`, which several scalars may share.
        dtype_id: NodeId,
        /// Its bytes, `dtype.itemsize()` of them.
        data: &'m [u8],
    },
    /// `numpy.dtype`.
    DType(&'m DType),
    /// An instance of a registered class.
    Object(Object<'m>),
}

/// A `numpy.ndarray`. The size of its data is what its shape and type call for; the contents of
/// the data are not checked.
#[derive(Clone, Copy, Debug)]
pub struct NdArray<'m> {
    /// Type of an element.
    pub dtype: &'m DType,
    /// The value that holds `dtype`, which several arrays may share.
    pub dtype_id: NodeId,
    /// Lengths of at most 64 dimensions.
    pub shape: &'m [u64],
    /// How the elements lie in the data.
    pub order: &'m Order,
    /// The elements.
    pub data: ArrayData<'m>,
}

/// The elements of an array.
#[derive(Clone, Copy, Debug)]
pub enum ArrayData<'m> {
    /// In the pickle. Several arrays may have the same bytes; each is to be a copy.
    Inline(&'m [u8]),
    /// In an out-of-band buffer that no other value refers to.
    Buffer {
        /// Which of the buffers that came with the message.
        index: usize,
        /// Whether the guest's array was read-only.
        read_only: bool,
    },
}

/// How to make an instance of a registered class.
#[derive(Clone, Copy, Debug)]
pub struct Object<'m> {
    /// The class.
    pub class: ClassIndex,
    /// How to make the instance.
    pub construction: Construction,
    /// Positional arguments.
    pub args: &'m [NodeId],
    /// Keyword arguments; the keys are `str`. Only with [`Construction::New`].
    pub kwargs: &'m [[NodeId; 2]],
    /// What the instance gets afterwards.
    pub state: Option<ObjectState>,
}

/// The state of an instance, told apart as `object.__reduce_ex__` makes it.
///
/// CPython would pass the whole state to `__setstate__` where the class has one. A host that runs no
/// code of the class sets the fields itself, and refuses what it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// A dict for the instance's `__dict__`.
    Attributes(NodeId),
    /// A pair: a dict or `None`, and a dict of the values of `__slots__`.
    Slots {
        /// The pair itself, for `__setstate__`.
        whole: NodeId,
        /// For the instance's `__dict__`.
        attributes: Option<NodeId>,
        /// To be set one by one.
        slots: NodeId,
    },
    /// Anything else; only the class's own `__setstate__` can use it.
    Custom(NodeId),
}

impl ObjectState {
    /// The state as the guest wrote it, for `__setstate__`.
    #[must_use]
    pub fn whole(self) -> NodeId {
        match self {
            Self::Attributes(id) | Self::Custom(id) | Self::Slots { whole: id, .. } => id,
        }
    }
}
