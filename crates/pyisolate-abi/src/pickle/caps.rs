//! What one message may cost the host.

/// The limits that [`decode`](super::decode) enforces on one message.
///
/// `Default` is meant for messages between a host and a cell; every number can be changed, and each
/// says how it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Longest pickle, in bytes, out-of-band buffers not counted. At most `u32::MAX`, which is also
    /// the ceiling if a larger number is set.
    ///
    /// 64 MiB: anything larger is a binary payload, and those travel out of band.
    pub pickle_bytes: usize,
    /// Most values in the message, counting each distinct one once.
    ///
    /// 4 Mi (4,194,304): a million records of three distinct fields. In the host a value takes 16
    /// bytes of arena and 13 while the message is finished, and each reference to it 4 bytes of
    /// stack, memo or child list; 4 Mi values, each memoised and in a list, were measured to take
    /// 160 MiB at the peak. The same number bounds the decoder's stack.
    pub nodes: usize,
    /// Deepest nesting of containers: `[]` is 1, `[[]]` is 2.
    ///
    /// 200: Python's own recursive functions (`repr`, `copy.deepcopy`, `json.dumps`) spend up to
    /// four frames a level of a recursion limit of 1000, so anything deeper arrives and then breaks
    /// on first use. A converter that recurses needs well under 1 KiB of stack a level.
    pub depth: usize,
    /// Most memory, in bytes, that the message may take once it is Python objects.
    ///
    /// Estimated from `sys.getsizeof` on 64-bit CPython 3.13; see `cost` beside this type. The
    /// estimate is within a factor of two for each type and errs upwards for small values.
    ///
    /// 512 MiB: 4 Mi values at 128 bytes, more than the average of any ordinary mixture; what it
    /// stops are the types whose empty object is large (a `deque` is 760 bytes, and a pickle makes
    /// one from five bytes).
    pub decoded_bytes: usize,
    /// Most entries in the memo, through which a pickle refers back to a value.
    ///
    /// 4 Mi: an honest pickler memoises a value once, so as many as `nodes`; 4 bytes each, 16 MiB.
    pub memo: usize,
    /// Largest integer, in bits of its two's complement form.
    ///
    /// 1 Mi (128 KiB): holds any key, hash or counter in use. Arithmetic on integers in CPython is
    /// quadratic or slightly better: the product of two of this size takes about 0.1 s. A
    /// `Fraction` has a cap of its own, 2048 bits a part.
    pub int_bits: usize,
    /// Most out-of-band buffers.
    ///
    /// 1024: each may be a mapping or a descriptor in the receiver, and 1024 is the usual soft limit
    /// on open descriptors.
    pub buffers: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            pickle_bytes: 64 << 20,
            nodes: 4 << 20,
            depth: 200,
            decoded_bytes: 512 << 20,
            memo: 4 << 20,
            int_bits: 1 << 20,
            buffers: 1024,
        }
    }
}

/// Bytes that CPython 3.13 on a 64-bit machine takes for one object of each type, rounded up from
/// `sys.getsizeof` (whose figure for containers leaves out 16 bytes of collector header).
pub(super) mod cost {
    /// `int` below 2^60, `float`, `complex`, `bool`, `None`.
    pub(crate) const NUMBER: usize = 32;
    /// Header of `str`, `bytes`, `bytearray` and of an `int` of several digits.
    pub(crate) const PAYLOAD: usize = 64;
    /// `list` or `tuple`, empty.
    pub(crate) const SEQUENCE: usize = 72;
    /// One more item of a `list`, `tuple` or `deque`.
    pub(crate) const ITEM: usize = 8;
    /// `dict`, empty; with one entry it is 184 bytes, which is this plus [`ENTRY`].
    pub(crate) const DICT: usize = 128;
    /// One more `dict` entry: 60 bytes just after the table grew.
    pub(crate) const ENTRY: usize = 64;
    /// `OrderedDict`, `Counter` or `defaultdict`, empty, beyond a `dict`.
    pub(crate) const DICT_SUBCLASS: usize = 128;
    /// `set` or `frozenset`, empty.
    pub(crate) const SET: usize = 232;
    /// One more `set` member: 108 bytes just after the table grew.
    pub(crate) const MEMBER: usize = 112;
    /// `deque`, empty: it starts with a block of 64 items.
    pub(crate) const DEQUE: usize = 776;
    /// Dates, `Decimal`, `Fraction`, `UUID`, paths, `range`, `slice`, numpy objects and instances
    /// of registered classes, without their payload.
    pub(crate) const OBJECT: usize = 128;
}
