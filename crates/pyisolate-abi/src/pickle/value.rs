//! An owned value, for Rust hosts that have no Python.

use super::arena::{DictKind, NodeId};
use super::caps::Caps;
use super::message::Message;
use super::node::Node;

/// Plain data as a tree that owns everything.
///
/// Equality is structural: floats compare by their bits' value (NaN differs from itself), dicts and
/// sets by order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `None`.
    None,
    /// `bool`.
    Bool(bool),
    /// An `int` that fits.
    Int(i64),
    /// Any other `int`: two's complement, least significant byte first.
    BigInt(Vec<u8>),
    /// `float`.
    Float(f64),
    /// `complex`, as real and imaginary part.
    Complex(f64, f64),
    /// `str`.
    Text(String),
    /// A `str` with lone surrogates, as [`Text::as_bytes`](super::Text::as_bytes) gives it. From
    /// bytes that are not of this form Python cannot unpickle the value.
    SurrogateText(Vec<u8>),
    /// `bytes`.
    Bytes(Vec<u8>),
    /// `bytearray`.
    ByteArray(Vec<u8>),
    /// `list`.
    List(Vec<Value>),
    /// `tuple`.
    Tuple(Vec<Value>),
    /// `set`.
    Set(Vec<Value>),
    /// `frozenset`.
    FrozenSet(Vec<Value>),
    /// `dict`.
    Dict(Vec<(Value, Value)>),
    /// `decimal.Decimal`, as its text.
    Decimal(String),
    /// `uuid.UUID`, as `UUID.int`.
    Uuid(u128),
}

/// The message is no plain data, or too much of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToValueError {
    /// A value that has no variant of [`Value`].
    #[error("{kind} has no form as a plain value; read it from the message itself")]
    NotPlain {
        /// Which type.
        kind: &'static str,
    },
    /// Written out as a tree, the message has more values than [`Caps::nodes`].
    #[error(
        "the message has more than {cap} values once shared ones are repeated; read it from the message itself"
    )]
    Nodes {
        /// The cap.
        cap: usize,
    },
    /// Written out as a tree, the message has more text and bytes than [`Caps::decoded_bytes`].
    #[error(
        "the message has more than {cap} bytes once shared values are repeated; read it from the message itself"
    )]
    DecodedBytes {
        /// The cap.
        cap: usize,
    },
}

impl Message<'_> {
    /// Copies the message into a tree, in which shared values are repeated.
    ///
    /// An `OrderedDict`, `Counter` or `defaultdict` becomes a plain dict. What repetition may cost
    /// is bounded by `caps.nodes` values and `caps.decoded_bytes` bytes of values, text and bytes.
    ///
    /// # Errors
    ///
    /// Each [`ToValueError`].
    pub fn to_value(&self, caps: &Caps) -> Result<Value, ToValueError> {
        self.to_value_with(&[], caps)
    }

    /// As [`to_value`](Self::to_value), with the out-of-band buffers that came with the message: a
    /// `PickleBuffer` becomes `bytes` or a `bytearray`.
    ///
    /// # Errors
    ///
    /// Each [`ToValueError`].
    pub fn to_value_with(&self, buffers: &[&[u8]], caps: &Caps) -> Result<Value, ToValueError> {
        let mut copy = Copy { message: self, buffers, caps, nodes: 0, bytes: 0 };
        copy.value(self.root())
    }
}

/// Recurses at most [`Caps::depth`] deep, which decoding has checked.
struct Copy<'a> {
    message: &'a Message<'a>,
    buffers: &'a [&'a [u8]],
    caps: &'a Caps,
    nodes: usize,
    bytes: usize,
}

impl Copy<'_> {
    fn value(&mut self, id: NodeId) -> Result<Value, ToValueError> {
        self.nodes += 1;
        if self.nodes > self.caps.nodes {
            return Err(ToValueError::Nodes { cap: self.caps.nodes });
        }
        self.charge(size_of::<Value>())?;
        let not_plain = |kind| Err(ToValueError::NotPlain { kind });
        Ok(match self.message.node(id) {
            Node::None => Value::None,
            Node::Bool(value) => Value::Bool(value),
            Node::Int(value) => Value::Int(value),
            Node::BigInt(value) => Value::BigInt(self.bytes(value.to_le_bytes())?),
            Node::Float(value) => Value::Float(value),
            Node::Complex { re, im } => Value::Complex(re, im),
            Node::Text(text) => match text.to_str() {
                Some(text) => Value::Text(self.string(text)?),
                None => Value::SurrogateText(self.bytes(text.as_bytes())?),
            },
            Node::Bytes(bytes) => Value::Bytes(self.bytes(bytes)?),
            Node::ByteArray(bytes) => Value::ByteArray(self.bytes(bytes)?),
            Node::List(items) => Value::List(self.values(items)?),
            Node::Tuple(items) => Value::Tuple(self.values(items)?),
            Node::Set(items) => Value::Set(self.values(items)?),
            Node::FrozenSet(items) => Value::FrozenSet(self.values(items)?),
            Node::Dict {
                kind: DictKind::Plain | DictKind::Ordered | DictKind::Counter | DictKind::Default,
                entries,
            } => {
                let entries =
                    entries.iter().map(|[key, value]| Ok((self.value(*key)?, self.value(*value)?)));
                Value::Dict(entries.collect::<Result<_, _>>()?)
            }
            Node::Decimal(text) => Value::Decimal(self.string(&text.to_string_lossy())?),
            Node::Uuid { int, .. } => Value::Uuid(int),
            Node::Ellipsis => return not_plain("Ellipsis"),
            Node::NotImplemented => return not_plain("NotImplemented"),
            Node::Buffer { index, read_only } => match self.buffers.get(index) {
                Some(bytes) if read_only => Value::Bytes(self.bytes(bytes)?),
                Some(bytes) => Value::ByteArray(self.bytes(bytes)?),
                None => return not_plain("an out-of-band buffer"),
            },
            Node::Deque { .. } => return not_plain("a deque"),
            Node::Range { .. } => return not_plain("a range"),
            Node::Slice { .. } => return not_plain("a slice"),
            Node::Date(_) => return not_plain("a date"),
            Node::Time(_) => return not_plain("a time"),
            Node::DateTime(_) => return not_plain("a datetime"),
            Node::TimeDelta(_) => return not_plain("a timedelta"),
            Node::TimeZone(_) => return not_plain("a timezone"),
            Node::Fraction { .. } => return not_plain("a Fraction"),
            Node::PurePath { .. } => return not_plain("a path"),
            Node::NdArray(_) => return not_plain("a numpy array"),
            Node::NumpyScalar { .. } => return not_plain("a numpy scalar"),
            Node::DType(_) => return not_plain("a numpy dtype"),
            Node::Object(_) => return not_plain("an object"),
        })
    }

    fn values(&mut self, ids: &[NodeId]) -> Result<Vec<Value>, ToValueError> {
        ids.iter().map(|&id| self.value(id)).collect()
    }

    fn charge(&mut self, bytes: usize) -> Result<(), ToValueError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.caps.decoded_bytes {
            return Err(ToValueError::DecodedBytes { cap: self.caps.decoded_bytes });
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ToValueError> {
        self.charge(bytes.len())?;
        Ok(bytes.to_vec())
    }

    fn string(&mut self, text: &str) -> Result<String, ToValueError> {
        self.charge(text.len())?;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TrustedNames, decode};
    use super::*;

    #[test]
    fn an_out_of_band_buffer_needs_its_bytes() {
        let caps = Caps::default();
        // PROTO 5, NEXT_BUFFER, and for bytes READONLY_BUFFER, STOP
        for (pickle, value) in [
            (b"\x80\x05\x97.".to_vec(), Value::ByteArray(b"abc".to_vec())),
            (b"\x80\x05\x97\x98.".to_vec(), Value::Bytes(b"abc".to_vec())),
        ] {
            let message = decode(pickle, &[3], &TrustedNames::default(), &caps).unwrap();
            assert!(message.to_value(&caps).is_err());
            assert_eq!(message.to_value_with(&[b"abc"], &caps), Ok(value));
        }
    }
}
