//! Writes a [`Value`] as a pickle that CPython's unpickler reads.

use super::opcode;
use super::value::Value;

/// Items between MARK and the opcode that takes them, as in CPython's pickler: bounds the stack of
/// whoever unpickles.
const BATCH: usize = 1000;

impl Value {
    /// The value as a pickle of protocol 5, without frames or memo.
    ///
    /// It is for a receiver that trusts this program, such as a cell. Recurses as deep as the value
    /// nests.
    #[must_use]
    pub fn to_pickle(&self) -> Vec<u8> {
        let mut out = vec![opcode::PROTO, 5];
        write(&mut out, self);
        out.push(opcode::STOP);
        out
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::None => out.push(opcode::NONE),
        Value::Bool(true) => out.push(opcode::NEWTRUE),
        Value::Bool(false) => out.push(opcode::NEWFALSE),
        Value::Int(value) => int(out, *value),
        Value::BigInt(bytes) => long(out, bytes),
        Value::Float(value) => float(out, *value),
        Value::Complex(re, im) => {
            global(out, "builtins", "complex");
            float(out, *re);
            float(out, *im);
            out.extend([opcode::TUPLE2, opcode::REDUCE]);
        }
        Value::Text(text) => self::text(out, text.as_bytes()),
        Value::SurrogateText(text) => self::text(out, text),
        Value::Bytes(bytes) => {
            const CODES: Sizes = Sizes {
                byte: opcode::SHORT_BINBYTES,
                word: opcode::BINBYTES,
                long: opcode::BINBYTES8,
            };
            CODES.write(out, bytes);
        }
        Value::ByteArray(bytes) => {
            out.push(opcode::BYTEARRAY8);
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        }
        Value::List(items) => {
            out.push(opcode::EMPTY_LIST);
            batches(out, items, opcode::APPENDS, write);
        }
        Value::Set(items) => {
            out.push(opcode::EMPTY_SET);
            batches(out, items, opcode::ADDITEMS, write);
        }
        Value::Dict(entries) => {
            out.push(opcode::EMPTY_DICT);
            batches(out, entries, opcode::SETITEMS, |out, (key, value)| {
                write(out, key);
                write(out, value);
            });
        }
        Value::Tuple(items) => marked(out, items, opcode::TUPLE, write),
        Value::FrozenSet(items) => marked(out, items, opcode::FROZENSET, write),
        Value::Decimal(digits) => {
            global(out, "decimal", "Decimal");
            text(out, digits.as_bytes());
            out.extend([opcode::TUPLE1, opcode::REDUCE]);
        }
        Value::Uuid(value) => {
            global(out, "uuid", "UUID");
            out.extend([opcode::EMPTY_TUPLE, opcode::NEWOBJ, opcode::EMPTY_DICT]);
            text(out, b"int");
            let mut bytes = [0; 17];
            bytes[..16].copy_from_slice(&value.to_le_bytes());
            long(out, &bytes);
            out.extend([opcode::SETITEM, opcode::BUILD]);
        }
    }
}

fn int(out: &mut Vec<u8>, value: i64) {
    if let Ok(value) = u8::try_from(value) {
        out.extend([opcode::BININT1, value]);
    } else if let Ok(value) = i32::try_from(value) {
        out.push(opcode::BININT);
        out.extend(value.to_le_bytes());
    } else {
        long(out, &value.to_le_bytes());
    }
}

fn long(out: &mut Vec<u8>, bytes: &[u8]) {
    if let Ok(len) = u8::try_from(bytes.len()) {
        out.extend([opcode::LONG1, len]);
    } else {
        out.push(opcode::LONG4);
        // An integer of 2 GiB is beyond what CPython can hold.
        out.extend((bytes.len() as u32).to_le_bytes());
    }
    out.extend(bytes);
}

fn float(out: &mut Vec<u8>, value: f64) {
    out.push(opcode::BINFLOAT);
    out.extend(value.to_be_bytes());
}

fn global(out: &mut Vec<u8>, module: &str, name: &str) {
    text(out, module.as_bytes());
    text(out, name.as_bytes());
    out.push(opcode::STACK_GLOBAL);
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    const CODES: Sizes = Sizes {
        byte: opcode::SHORT_BINUNICODE,
        word: opcode::BINUNICODE,
        long: opcode::BINUNICODE8,
    };
    CODES.write(out, text);
}

/// The opcodes of one type by the width of the length that follows.
struct Sizes {
    byte: u8,
    word: u8,
    long: u8,
}

impl Sizes {
    fn write(&self, out: &mut Vec<u8>, payload: &[u8]) {
        match (u8::try_from(payload.len()), u32::try_from(payload.len())) {
            (Ok(len), _) => out.extend([self.byte, len]),
            (_, Ok(len)) => {
                out.push(self.word);
                out.extend(len.to_le_bytes());
            }
            _ => {
                out.push(self.long);
                out.extend((payload.len() as u64).to_le_bytes());
            }
        }
        out.extend(payload);
    }
}

fn batches<T>(out: &mut Vec<u8>, items: &[T], take: u8, write: impl Fn(&mut Vec<u8>, &T)) {
    for batch in items.chunks(BATCH) {
        marked(out, batch, take, &write);
    }
}

fn marked<T>(out: &mut Vec<u8>, items: &[T], take: u8, write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(opcode::MARK);
    items.iter().for_each(|item| write(out, item));
    out.push(take);
}
