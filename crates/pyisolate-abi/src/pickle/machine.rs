//! The pickle machine: a stack, a memo and the opcodes, without any of the execution.

use super::arena::{Arena, DictKind, NodeId, Run, Slot, Span};
use super::caps::{Caps, cost};
use super::classes::{Class, Known, TrustedNames, known};
use super::error::{DecodeError, ProtocolFound};
use super::reader::Reader;
use super::stack::Singleton;
use super::{finish, opcode, text};

/// Decodes `pickle` into an arena that has passed `finish`.
pub(super) fn run(
    pickle: &[u8],
    buffer_lens: &[u64],
    trusted: &TrustedNames,
    caps: &Caps,
) -> Result<(Arena, NodeId), DecodeError> {
    let bytes_cap = caps.pickle_bytes.min(u32::MAX as usize);
    if pickle.len() > bytes_cap {
        return Err(DecodeError::PickleBytes { bytes: pickle.len(), cap: bytes_cap });
    }
    if buffer_lens.len() > caps.buffers {
        return Err(DecodeError::Buffers { count: buffer_lens.len(), cap: caps.buffers });
    }
    let mut machine = Machine {
        input: Reader::new(pickle),
        arena: Arena::new(caps, pickle.len()),
        stack: Vec::with_capacity(16),
        marks: Vec::new(),
        floor: 0,
        memo: Vec::new(),
        singletons: [None; 3],
        buffer_lens,
        buffers_used: 0,
        trusted,
        caps,
    };
    machine.protocol()?;
    let root = machine.opcodes()?;
    let Machine { mut arena, .. } = machine;
    finish::check(&mut arena, root, pickle, trusted, caps)?;
    Ok((arena, root))
}

/// A pickle being read.
pub(super) struct Machine<'a> {
    pub(super) input: Reader<'a>,
    pub(super) arena: Arena,
    pub(super) stack: Vec<NodeId>,
    /// Stack heights; nothing below the last one, `floor`, can be popped.
    pub(super) marks: Vec<u32>,
    pub(super) floor: usize,
    pub(super) memo: Vec<NodeId>,
    /// `None`, `True` and `False` take one slot each however often they occur.
    pub(super) singletons: [Option<NodeId>; 3],
    pub(super) buffer_lens: &'a [u64],
    buffers_used: usize,
    pub(super) trusted: &'a TrustedNames,
    pub(super) caps: &'a Caps,
}

impl Machine<'_> {
    fn protocol(&mut self) -> Result<(), DecodeError> {
        let found = match self.input.pickle() {
            [opcode::PROTO, 4 | 5, ..] => {
                self.input.opcode()?;
                self.input.u8()?;
                return Ok(());
            }
            [opcode::PROTO, version, ..] => ProtocolFound::Version(*version),
            _ => ProtocolFound::Missing,
        };
        Err(DecodeError::Protocol { found })
    }

    /// Runs until STOP and gives the one result.
    fn opcodes(&mut self) -> Result<NodeId, DecodeError> {
        loop {
            match self.input.opcode()? {
                opcode::STOP => return self.stop(),
                opcode::FRAME => self.frame()?,

                opcode::NONE => self.push_singleton(Singleton::None, Slot::None)?,
                opcode::NEWTRUE => self.push_singleton(Singleton::True, Slot::Bool(true))?,
                opcode::NEWFALSE => self.push_singleton(Singleton::False, Slot::Bool(false))?,
                opcode::BININT => {
                    let value = self.input.i32()?;
                    self.push(Slot::Int(value.into()), cost::NUMBER)?;
                }
                opcode::BININT1 => {
                    let value = self.input.u8()?;
                    self.push(Slot::Int(value.into()), cost::NUMBER)?;
                }
                opcode::BININT2 => {
                    let value = self.input.u16()?;
                    self.push(Slot::Int(value.into()), cost::NUMBER)?;
                }
                opcode::LONG1 => {
                    let len = self.input.u8()?;
                    self.long(len.into())?;
                }
                opcode::LONG4 => {
                    // A negative length is as wrong as one beyond the end: it is read as huge.
                    let len = self.input.u32()?;
                    self.long(len.into())?;
                }
                opcode::BINFLOAT => {
                    let value = self.input.f64()?;
                    self.push(Slot::Float(value), cost::NUMBER)?;
                }
                opcode::SHORT_BINUNICODE => {
                    let len = self.input.u8()?;
                    self.text(len.into())?;
                }
                opcode::BINUNICODE => {
                    let len = self.input.u32()?;
                    self.text(len.into())?;
                }
                opcode::BINUNICODE8 => {
                    let len = self.input.u64()?;
                    self.text(len)?;
                }
                opcode::SHORT_BINBYTES => {
                    let len = self.input.u8()?;
                    self.payload(len.into(), Slot::Bytes)?;
                }
                opcode::BINBYTES => {
                    let len = self.input.u32()?;
                    self.payload(len.into(), Slot::Bytes)?;
                }
                opcode::BINBYTES8 => {
                    let len = self.input.u64()?;
                    self.payload(len, Slot::Bytes)?;
                }
                opcode::BYTEARRAY8 => {
                    let len = self.input.u64()?;
                    self.payload(len, Slot::ByteArray)?;
                }
                opcode::NEXT_BUFFER => self.next_buffer()?,
                opcode::READONLY_BUFFER => self.read_only_buffer()?,

                opcode::EMPTY_LIST => self.push(Slot::List(Run::default()), cost::SEQUENCE)?,
                opcode::EMPTY_DICT => {
                    self.push(Slot::Dict(DictKind::Plain, Run::default()), cost::DICT)?;
                }
                opcode::EMPTY_SET => self.push(Slot::Set(Run::default()), cost::SET)?,
                opcode::EMPTY_TUPLE => self.tuple(self.stack.len())?,
                opcode::TUPLE1 => self.tuple_of(1)?,
                opcode::TUPLE2 => self.tuple_of(2)?,
                opcode::TUPLE3 => self.tuple_of(3)?,
                opcode::TUPLE => {
                    let start = self.pop_mark()?;
                    self.tuple(start)?;
                }
                opcode::FROZENSET => self.frozenset()?,
                opcode::APPEND => self.append_one()?,
                opcode::APPENDS => {
                    let start = self.pop_mark()?;
                    self.append(start)?;
                }
                opcode::SETITEM => {
                    let start = self.below(2)?;
                    self.set_items(start)?;
                }
                opcode::SETITEMS => {
                    let start = self.pop_mark()?;
                    self.set_items(start)?;
                }
                opcode::ADDITEMS => self.add_items()?,

                opcode::MARK => self.mark()?,
                opcode::POP => self.pop_any()?,
                opcode::POP_MARK => {
                    let start = self.pop_mark()?;
                    self.stack.truncate(start);
                }
                opcode::MEMOIZE => self.memoize()?,
                opcode::BINGET => {
                    let index = self.input.u8()?;
                    self.recall(index.into())?;
                }
                opcode::LONG_BINGET => {
                    let index = self.input.u32()?;
                    self.recall(index.into())?;
                }

                opcode::STACK_GLOBAL => self.global()?,
                opcode::REDUCE => {
                    let (callable, args) = self.pop_call()?;
                    let result = self.reduce(callable, args)?;
                    self.push_id(result)?;
                }
                opcode::NEWOBJ => {
                    let (class, args) = self.pop_call()?;
                    let result = self.new_object(class, args, None)?;
                    self.push_id(result)?;
                }
                opcode::NEWOBJ_EX => {
                    let kwargs = self.pop()?;
                    let (class, args) = self.pop_call()?;
                    let result = self.new_object(class, args, Some(kwargs))?;
                    self.push_id(result)?;
                }
                opcode::BUILD => {
                    let state = self.pop()?;
                    let target = self.top()?;
                    self.build(target, state)?;
                }
                opcode => {
                    return Err(DecodeError::Opcode { offset: self.input.opcode_at, opcode });
                }
            }
        }
    }

    fn stop(&mut self) -> Result<NodeId, DecodeError> {
        let root = self.pop()?;
        let count = self.stack.len() + self.marks.len();
        if count != 0 {
            return Err(DecodeError::LeftOver { count });
        }
        if self.input.remaining() != 0 {
            let (offset, count) = (self.input.position(), self.input.remaining());
            return Err(DecodeError::TrailingBytes { offset, count });
        }
        if self.buffers_used != self.buffer_lens.len() {
            let (count, used) = (self.buffer_lens.len(), self.buffers_used);
            return Err(DecodeError::UnusedBuffers { count, used });
        }
        Ok(root)
    }

    /// Frames only tell a reader how much to fetch at once, and everything is here already.
    fn frame(&mut self) -> Result<(), DecodeError> {
        let len = self.input.u64()?;
        if len > self.input.remaining() as u64 {
            return Err(self.input.truncated(len));
        }
        Ok(())
    }

    fn payload(&mut self, len: u64, slot: fn(Span) -> Slot) -> Result<(), DecodeError> {
        let span = self.input.span(len)?;
        self.push(slot(span), cost::PAYLOAD + span.len as usize)
    }

    fn text(&mut self, len: u64) -> Result<(), DecodeError> {
        let span = self.input.span(len)?;
        let bytes = span.of(self.input.pickle());
        // CPython stores all characters of a string as wide as its widest, up to four bytes.
        let width = if bytes.is_ascii() {
            1
        } else if text::is_text(bytes) {
            4
        } else {
            return Err(DecodeError::TextEncoding { offset: self.input.opcode_at });
        };
        self.push(Slot::Text(span), cost::PAYLOAD + bytes.len() * width)
    }

    fn long(&mut self, len: u64) -> Result<(), DecodeError> {
        let mut span = self.input.span(len)?;
        let bits = len * 8;
        if bits > self.caps.int_bits as u64 && len > 8 {
            return Err(DecodeError::IntBits { bits, cap: self.caps.int_bits });
        }
        span.len = super::number::significant(span.of(self.input.pickle())) as u32;
        let bytes = span.of(self.input.pickle());
        match super::number::small(bytes) {
            Some(value) => self.push(Slot::Int(value), cost::NUMBER),
            None => self.push(Slot::BigInt(span), cost::PAYLOAD + bytes.len() * 2),
        }
    }

    fn next_buffer(&mut self) -> Result<(), DecodeError> {
        if self.buffers_used >= self.buffer_lens.len() {
            return Err(DecodeError::MissingBuffer { count: self.buffer_lens.len() });
        }
        // `Caps::buffers` may be anything, but a buffer costs a byte of a pickle below 4 GiB.
        let slot = Slot::Buffer { index: self.buffers_used as u32, read_only: false };
        self.buffers_used += 1;
        self.push(slot, cost::OBJECT)
    }

    fn read_only_buffer(&mut self) -> Result<(), DecodeError> {
        let top = self.top()?;
        match self.arena.slot(top) {
            Slot::Buffer { index, .. } => {
                self.arena.set(top, Slot::Buffer { index, read_only: true });
                Ok(())
            }
            found => Err(self.wrong_type("an out-of-band buffer", &found)),
        }
    }

    fn global(&mut self) -> Result<(), DecodeError> {
        let qualname = self.pop()?;
        let module = self.pop()?;
        let (Slot::Text(module_text), Slot::Text(qualname_text)) =
            (self.arena.slot(module), self.arena.slot(qualname))
        else {
            return Err(self.wrong_type("two strings", &self.arena.slot(module)));
        };
        let pickle = self.input.pickle();
        let (module_text, qualname_text) = (module_text.of(pickle), qualname_text.of(pickle));
        let slot = match known(module_text, qualname_text) {
            Some(Known::Class(class)) => Slot::Class(class),
            Some(Known::Ellipsis) => Slot::Ellipsis,
            Some(Known::NotImplemented) => Slot::NotImplemented,
            None => match self.trusted.find(module_text, qualname_text) {
                Some(index) => Slot::Trusted(index),
                None => Slot::Unknown { module, qualname },
            },
        };
        self.push(slot, 0)
    }

    pub(super) fn wrong_type(&self, expected: &'static str, found: &Slot) -> DecodeError {
        let offset = self.input.opcode_at;
        DecodeError::WrongType { offset, expected, found: found.kind() }
    }

    pub(super) fn malformed(&self, class: Class, expected: &'static str) -> DecodeError {
        DecodeError::Malformed { offset: self.input.opcode_at, class: class.name(), expected }
    }

    pub(super) fn refused_items(&self, expected: &'static str, found: Slot) -> DecodeError {
        match self.object_name(found) {
            Some(name) => DecodeError::RefusedItems { name },
            None => self.wrong_type(expected, &found),
        }
    }
}
