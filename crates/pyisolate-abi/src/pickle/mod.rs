//! Reads pickles that an untrusted guest wrote, without ever running them.
//!
//! CPython's own unpickler is an interpreter: a pickle names any importable callable and has it
//! called. This decoder is the host's replacement. It reads what CPython 3.13 and later emit for
//! protocol 5 and builds an arena of plain values, a [`Message`], which a converter then turns into
//! Python objects or into a Rust [`Value`].
//!
//! What crosses:
//!
//! - `None`, `bool`, `int`, `float`, `complex`, `str`, `bytes`, `bytearray`, `list`, `tuple`,
//!   `dict`, `set`, `frozenset`, `range`, `slice`, `Ellipsis`, `NotImplemented`;
//! - `datetime` values with no zone or a fixed-offset `timezone`, `Decimal`, `Fraction`, `UUID`,
//!   pure paths, `OrderedDict`, `Counter`, `deque`, and `defaultdict` without a factory;
//! - numpy arrays, scalars and dtypes that hold no Python objects;
//! - instances of classes that the host registered by name ([`TrustedNames`]), as a class index
//!   plus constructor arguments and state.
//!
//! What this module refuses to do: it imports nothing, calls nothing, reads no out-of-band buffer
//! (it is given lengths alone), and builds no cycle. A message that decodes is acyclic, at most
//! [`Caps::depth`] deep, and has only hashable dict keys and set members, so converters may recurse.
//!
//! Costs are bounded by [`Caps`] whatever the bytes: no length is believed before the bytes are
//! there, no string is copied, a shared value is stored once, and nothing recurses on guest depth.
//!
//! ```
//! use pyisolate_abi::pickle::{Caps, Node, TrustedNames, decode};
//!
//! let pickle = b"\x80\x05]\x94(K\x01\x8c\x02hi\x94e."; // [1, 'hi']
//! let message = decode(&pickle[..], &[], &TrustedNames::default(), &Caps::default())?;
//! let Node::List(items) = message.node(message.root()) else { unreachable!() };
//! assert!(matches!(message.node(items[0]), Node::Int(1)));
//! # Ok::<(), pyisolate_abi::pickle::DecodeError>(())
//! ```

mod arena;
mod build;
mod caps;
mod class_name;
mod classes;
mod collisions;
mod dtype;
mod dtype_state;
mod encode;
mod error;
mod finish;
mod hash;
mod machine;
mod message;
mod ndarray;
mod node;
mod number;
mod opcode;
mod reader;
mod reduce;
mod stack;
mod temporal;
mod text;
mod value;

use std::borrow::Cow;

pub use arena::{DictKind, NodeId, PathFlavour, SafeUuid};
pub use caps::Caps;
pub use class_name::ClassName;
pub use classes::{ClassIndex, TrustedName, TrustedNames};
pub use dtype::{ByteOrder, DType, Field, ScalarKind, TimeUnit};
pub use error::{DecodeError, ProtocolFound};
pub use message::Message;
pub use ndarray::Order;
pub use node::{ArrayData, BigInt, NdArray, Node, Object, ObjectState};
pub use reduce::Construction;
pub use temporal::{Date, DateTime, Time, TimeDelta, TimeZone};
pub use text::Text;
pub use value::{ToValueError, Value};

/// Decodes one pickle.
///
/// `pickle` is borrowed (`&[u8]`) or taken over (`Vec<u8>`, giving a `Message<'static>`); its bytes
/// are never copied. It must be the host's private copy: memory that the guest can still write may
/// not be passed here. `buffer_lens` are the lengths in bytes of the out-of-band buffers that came
/// with the message, in order. `trusted` are the classes the host registered.
///
/// # Errors
///
/// Every [`DecodeError`]; [`DecodeError::is_malformed`] tells a broken sender from an honest one
/// whose value may not cross.
pub fn decode<'p>(
    pickle: impl Into<Cow<'p, [u8]>>,
    buffer_lens: &[u64],
    trusted: &TrustedNames,
    caps: &Caps,
) -> Result<Message<'p>, DecodeError> {
    let pickle = pickle.into();
    let (arena, root) = machine::run(&pickle, buffer_lens, trusted, caps)?;
    Ok(Message::new(pickle, arena, root))
}
