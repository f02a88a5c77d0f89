//! A message as JSON, for programs.
//!
//! What JSON has is written as it is, and tuples as arrays, as Python's `json` does. Everything
//! else is an object with one key that begins with `$`, so that nothing is lost and nothing is
//! mistaken: a dict of the guest's own that looks like that is written as `$dict`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pyisolate_supervisor::abi::pickle::{
    ArrayData, DType, Date, NdArray, NodeId, Order, PathFlavour, Text, Time, TimeDelta, TimeZone,
};
use pyisolate_supervisor::{Delivery, Node};

use crate::numbers::{big, float};
use crate::numpy::{self, Element};
use crate::show::{path, show_node, uuid};
use crate::text::{Unit, push, units};

/// How many containers a message may be written with beyond four for each value that it has. A
/// container that others share is written once for each of them, so that a few bytes can stand for
/// more than a machine could ever write; honest messages share little but text.
const CONTAINERS_EXTRA: usize = 100_000;

/// The text would be longer than the cap, or repeats itself without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Appends the value `id` of a message to `out`, up to `out_bytes_max` bytes in all.
pub(crate) fn write(
    out: &mut String,
    delivery: &Delivery,
    id: NodeId,
    out_bytes_max: usize,
) -> Result<(), TooLong> {
    let containers_left = delivery.message.len().saturating_mul(4) + CONTAINERS_EXTRA;
    Json { out, delivery, out_bytes_max, containers_left }.value(id)
}

/// Appends text as a JSON string. JSON lets some control characters stand as they are, which a
/// terminal may obey; here they never do.
pub(crate) fn write_string(out: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) if !quoted.contains(char::is_control) => out.push_str(&quoted),
        Ok(quoted) => {
            for c in quoted.chars() {
                if c.is_control() {
                    push(out, format_args!("\\u{:04x}", u32::from(c)));
                } else {
                    out.push(c);
                }
            }
        }
        Err(error) => unreachable!("text is always JSON: {error}"),
    }
}

struct Json<'a> {
    out: &'a mut String,
    delivery: &'a Delivery,
    out_bytes_max: usize,
    containers_left: usize,
}

impl<'a> Json<'a> {
    /// Recurses at most as deep as the decoder lets values nest.
    fn value(&mut self, id: NodeId) -> Result<(), TooLong> {
        self.room(0)?;
        match self.delivery.message.node(id) {
            Node::None => self.out.push_str("null"),
            Node::Bool(value) => push(self.out, format_args!("{value}")),
            Node::Int(value) => push(self.out, format_args!("{value}")),
            Node::BigInt(value) => self.tagged("int", &big(value)),
            Node::Float(value) => self.float(value),
            Node::Complex { re, im } => self.tagged("complex", &crate::numbers::complex(re, im)),
            Node::Text(text) => self.text(text)?,
            Node::Bytes(bytes) => self.bytes("bytes", bytes)?,
            Node::ByteArray(bytes) => self.bytes("bytearray", bytes)?,
            Node::Buffer { index, read_only } => {
                let tag = if read_only { "bytes" } else { "bytearray" };
                self.bytes(tag, self.buffer(index))?;
            }
            Node::List(items) | Node::Tuple(items) => self.array(items)?,
            Node::Set(items) => self.tagged_array("set", items)?,
            Node::FrozenSet(items) => self.tagged_array("frozenset", items)?,
            Node::Deque { items, .. } => self.tagged_array("deque", items)?,
            Node::Range { start, stop, step } => {
                self.tagged_array("range", &[start, stop, step])?;
            }
            Node::Slice { start, stop, step } => {
                self.tagged_array("slice", &[start, stop, step])?;
            }
            Node::Fraction { numerator, denominator } => {
                let [numerator, denominator] =
                    [numerator, denominator].map(|id| show_node(self.delivery, id));
                self.tagged("fraction", &format!("{numerator}/{denominator}"));
            }
            Node::Dict { entries, .. } => self.dict(entries)?,
            Node::Date(value) => self.tagged("date", &date(value)),
            Node::Time(value) => self.tagged("time", &time(value)),
            Node::DateTime(value) => {
                let text = format!("{}T{}", date(value.date), time(value.time));
                self.tagged("datetime", &text);
            }
            Node::TimeDelta(value) => {
                push(self.out, format_args!("{{\"$timedelta\": {}}}", seconds(value)));
            }
            Node::TimeZone(value) => self.tagged("timezone", &offset(value)),
            Node::Decimal(value) => self.tagged("decimal", &value.to_string_lossy()),
            Node::Uuid { int, .. } => self.tagged("uuid", &uuid(int)),
            Node::PurePath { flavour, parts } => {
                let tag = match flavour {
                    PathFlavour::Posix => "path",
                    PathFlavour::Windows => "windows_path",
                };
                let text = path(self.delivery, flavour, parts);
                self.tagged(tag, &String::from_utf8_lossy(&text));
            }
            Node::NumpyScalar { dtype, data, .. } => self.scalar(dtype, data)?,
            Node::NdArray(array) => self.ndarray(&array)?,
            Node::DType(dtype) => self.tagged("dtype", &dtype.to_string()),
            _ => {
                let text = show_node(self.delivery, id);
                self.tagged("repr", &text);
            }
        }
        self.room(0)
    }

    fn room(&self, more: usize) -> Result<(), TooLong> {
        if self.out.len().saturating_add(more) > self.out_bytes_max { Err(TooLong) } else { Ok(()) }
    }

    fn enter(&mut self) -> Result<(), TooLong> {
        self.containers_left = self.containers_left.checked_sub(1).ok_or(TooLong)?;
        Ok(())
    }

    fn buffer(&self, index: usize) -> &'a [u8] {
        self.delivery.buffers.get(index).map_or(&[], |buffer| buffer.as_slice())
    }

    fn tagged(&mut self, tag: &str, text: &str) {
        push(self.out, format_args!("{{\"${tag}\": "));
        write_string(self.out, text);
        self.out.push('}');
    }

    fn tagged_array(&mut self, tag: &str, items: &[NodeId]) -> Result<(), TooLong> {
        push(self.out, format_args!("{{\"${tag}\": "));
        self.array(items)?;
        self.out.push('}');
        Ok(())
    }

    fn float(&mut self, value: f64) {
        if value.is_finite() {
            self.out.push_str(&float(value));
        } else {
            self.tagged("float", &float(value));
        }
    }

    fn text(&mut self, text: Text<'_>) -> Result<(), TooLong> {
        self.room(text.as_bytes().len())?;
        match text.to_str() {
            Some(text) => write_string(self.out, text),
            None => {
                // JSON's escapes are UTF-16, in which a lone surrogate can be written.
                self.out.push('"');
                let mut buffer = [0; 4];
                for unit in units(text.as_bytes()) {
                    match unit {
                        Unit::Surrogate(code) => push(self.out, format_args!("\\u{code:04x}")),
                        Unit::Char(c) => {
                            let mut quoted = String::new();
                            write_string(&mut quoted, c.encode_utf8(&mut buffer));
                            self.out.push_str(&quoted[1..quoted.len() - 1]);
                        }
                    }
                }
                self.out.push('"');
            }
        }
        Ok(())
    }

    fn bytes(&mut self, tag: &str, bytes: &[u8]) -> Result<(), TooLong> {
        self.room(bytes.len() / 3 * 4)?;
        push(self.out, format_args!("{{\"${tag}\": \""));
        STANDARD.encode_string(bytes, self.out);
        self.out.push_str("\"}");
        Ok(())
    }

    fn array(&mut self, items: &[NodeId]) -> Result<(), TooLong> {
        self.enter()?;
        self.out.push('[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            self.value(*item)?;
        }
        self.out.push(']');
        Ok(())
    }

    /// An object, if its keys are text and it could not be taken for one of ours.
    fn dict(&mut self, entries: &[[NodeId; 2]]) -> Result<(), TooLong> {
        self.enter()?;
        let is_text = |[key, _]: &[NodeId; 2]| matches!(self.delivery.message.node(*key), Node::Text(text) if text.to_str().is_some());
        let looks_like_ours = match entries {
            [[key, _]] => matches!(
                self.delivery.message.node(*key),
                Node::Text(text) if text.as_bytes().first() == Some(&b'$')
            ),
            _ => false,
        };
        let is_object = entries.iter().all(is_text) && !looks_like_ours;
        let [open, between, separator, close] =
            if is_object { ["{", "", ": ", "}"] } else { ["{\"$dict\": [", "[", ", ", "]}"] };
        self.out.push_str(open);
        for (index, [key, value]) in entries.iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            self.out.push_str(between);
            self.value(*key)?;
            self.out.push_str(separator);
            self.value(*value)?;
            if !is_object {
                self.out.push(']');
            }
        }
        self.out.push_str(close);
        Ok(())
    }

    // --- numpy

    /// A scalar as its `item()` would be.
    fn scalar(&mut self, dtype: &DType, data: &[u8]) -> Result<(), TooLong> {
        match numpy::element(dtype, data) {
            Element::Bool(value) => push(self.out, format_args!("{value}")),
            Element::Int(value) => push(self.out, format_args!("{value}")),
            Element::UInt(value) => push(self.out, format_args!("{value}")),
            Element::Single(value) => self.float(f64::from(value)),
            Element::Float(value) => self.float(value),
            Element::Complex(re, im) => {
                self.tagged("complex", &crate::numbers::complex(re, im));
            }
            Element::Text(text) => write_string(self.out, &text),
            Element::Bytes(bytes) => self.bytes("bytes", bytes)?,
            Element::Ticks(_) | Element::Raw(_) => {
                push(self.out, format_args!("{{\"$numpy\": {{\"dtype\": "));
                write_string(self.out, &dtype.to_string());
                self.out.push_str(", \"data\": ");
                self.bytes("bytes", data)?;
                self.out.push_str("}}");
            }
        }
        Ok(())
    }

    /// What `numpy.frombuffer(data, dtype).reshape(shape, order=order).transpose(axes)` takes.
    fn ndarray(&mut self, array: &NdArray<'_>) -> Result<(), TooLong> {
        self.out.push_str("{\"$ndarray\": {\"dtype\": ");
        write_string(self.out, &array.dtype.to_string());
        push(self.out, format_args!(", \"shape\": {:?}", array.shape));
        match array.order {
            Order::C => self.out.push_str(", \"order\": \"C\""),
            Order::Fortran => self.out.push_str(", \"order\": \"F\""),
            Order::Transposed(axes) => {
                push(self.out, format_args!(", \"order\": \"C\", \"axes\": {axes:?}"));
            }
        }
        let data = match array.data {
            ArrayData::Inline(bytes) => bytes,
            ArrayData::Buffer { index, .. } => self.buffer(index),
        };
        self.room(data.len() / 3 * 4)?;
        let data = STANDARD.encode(data);
        push(self.out, format_args!(", \"data\": \"{data}\"}}}}"));
        Ok(())
    }
}

fn date(Date { year, month, day }: Date) -> String {
    format!("{year:04}-{month:02}-{day:02}")
}

/// As `isoformat` writes it.
fn time(time: Time<'_>) -> String {
    let mut text = format!("{:02}:{:02}:{:02}", time.hour, time.minute, time.second);
    if time.microsecond != 0 {
        push(&mut text, format_args!(".{:06}", time.microsecond));
    }
    if let Some(zone) = time.zone {
        text.push_str(&offset(zone));
    }
    text
}

fn offset(zone: TimeZone<'_>) -> String {
    let total = zone.offset.total_microseconds();
    let sign = if total < 0 { '-' } else { '+' };
    let (total, micros) = (total.abs() / 1_000_000, total.abs() % 1_000_000);
    let mut text = format!("{sign}{:02}:{:02}", total / 3600, total / 60 % 60);
    if total % 60 != 0 || micros != 0 {
        push(&mut text, format_args!(":{:02}", total % 60));
    }
    if micros != 0 {
        push(&mut text, format_args!(".{micros:06}"));
    }
    text
}

/// Seconds, exact.
fn seconds(delta: TimeDelta) -> String {
    let total = delta.total_microseconds();
    let sign = if total < 0 { "-" } else { "" };
    let (whole, micros) = (total.abs() / 1_000_000, total.abs() % 1_000_000);
    if micros == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{micros:06}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_stands_as_it_is() {
        let text = "a\"\u{1b}\u{7f}\u{9b}é\n";
        let mut written = String::new();
        write_string(&mut written, text);
        assert_eq!(written, r#""a\"\u001b\u007f\u009bé\n""#);
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }
}
