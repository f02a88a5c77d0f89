//! A message as Python's `repr` writes it, for people.

use pyisolate_supervisor::abi::pickle::{
    ArrayData, DType, Date, DictKind, NdArray, NodeId, PathFlavour, Time, TimeDelta, TimeZone,
};
use pyisolate_supervisor::{Delivery, Node};

use crate::numbers::{big, complex, float};
use crate::numpy;
use crate::text::{push, write_bytes, write_text};

/// What is shown of one value, in bytes: some screens full. Nobody reads more, and --json has it.
pub(crate) const SHOWN_BYTES_MAX: usize = 10_000;
/// Arrays with more elements than this are shown by their edges, as numpy does.
const ELEMENTS_MAX: u64 = 1000;
/// How many elements of each edge of an axis are then shown.
const EDGE: u64 = 3;

/// The whole message.
pub(crate) fn show(delivery: &Delivery) -> String {
    let mut shown = Show { delivery, out: String::new() };
    shown.value(delivery.message.root());
    shown.finish()
}

/// One value of a message.
pub(crate) fn show_node(delivery: &Delivery, id: NodeId) -> String {
    let mut shown = Show { delivery, out: String::new() };
    shown.value(id);
    shown.finish()
}

struct Show<'a> {
    delivery: &'a Delivery,
    out: String,
}

impl<'a> Show<'a> {
    fn finish(mut self) -> String {
        if self.is_full() {
            self.out.truncate(self.out.floor_char_boundary(SHOWN_BYTES_MAX));
            self.out.push_str(" ... [cut; --json prints all of it]");
        }
        self.out
    }

    /// Whether more would not be shown. Shared values are written each time, so without this a
    /// small message could take for ever.
    fn is_full(&self) -> bool {
        self.out.len() > SHOWN_BYTES_MAX
    }

    /// Recurses at most as deep as the decoder lets values nest.
    fn value(&mut self, id: NodeId) {
        if self.is_full() {
            return;
        }
        match self.delivery.message.node(id) {
            Node::None => self.out.push_str("None"),
            Node::Ellipsis => self.out.push_str("Ellipsis"),
            Node::NotImplemented => self.out.push_str("NotImplemented"),
            Node::Bool(value) => self.out.push_str(if value { "True" } else { "False" }),
            Node::Int(value) => push(&mut self.out, format_args!("{value}")),
            Node::BigInt(value) => self.out.push_str(&big(value)),
            Node::Float(value) => self.out.push_str(&float(value)),
            Node::Complex { re, im } => self.out.push_str(&complex(re, im)),
            Node::Text(text) => write_text(&mut self.out, text.as_bytes(), SHOWN_BYTES_MAX),
            Node::Bytes(bytes) => write_bytes(&mut self.out, bytes, SHOWN_BYTES_MAX),
            Node::ByteArray(bytes) => self.byte_array(bytes),
            Node::Buffer { index, read_only } => {
                let bytes = self.buffer(index);
                if read_only {
                    write_bytes(&mut self.out, bytes, SHOWN_BYTES_MAX);
                } else {
                    self.byte_array(bytes);
                }
            }
            Node::List(items) => self.items("[", items, "]"),
            Node::Tuple([one]) => self.items("(", &[*one], ",)"),
            Node::Tuple(items) => self.items("(", items, ")"),
            Node::Set([]) => self.out.push_str("set()"),
            Node::Set(items) => self.items("{", items, "}"),
            Node::FrozenSet([]) => self.out.push_str("frozenset()"),
            Node::FrozenSet(items) => self.items("frozenset({", items, "})"),
            Node::Dict { kind, entries } => self.dict(kind, entries),
            Node::Deque { items, max_len: None } => self.items("deque([", items, "])"),
            Node::Deque { items, max_len: Some(max_len) } => {
                self.items("deque([", items, "]");
                push(&mut self.out, format_args!(", maxlen={max_len})"));
            }
            Node::Range { start, stop, step } => match self.delivery.message.node(step) {
                Node::Int(1) => self.items("range(", &[start, stop], ")"),
                _ => self.items("range(", &[start, stop, step], ")"),
            },
            Node::Slice { start, stop, step } => self.items("slice(", &[start, stop, step], ")"),
            Node::Date(date) => self.call("datetime.date", &date_fields(date)),
            Node::Time(time) => self.time("datetime.time", String::new(), time),
            Node::DateTime(value) => {
                self.time("datetime.datetime", date_fields(value.date) + ", ", value.time);
            }
            Node::TimeDelta(delta) => self.out.push_str(&delta_text(delta)),
            Node::TimeZone(zone) => self.zone(zone),
            Node::Decimal(text) => self.call("Decimal", &format!("'{}'", text.to_string_lossy())),
            Node::Fraction { numerator, denominator } => {
                self.items("Fraction(", &[numerator, denominator], ")");
            }
            Node::Uuid { int, .. } => self.call("UUID", &format!("'{}'", uuid(int))),
            Node::PurePath { flavour, parts } => {
                let name = match flavour {
                    PathFlavour::Posix => "PurePosixPath(",
                    PathFlavour::Windows => "PureWindowsPath(",
                };
                self.out.push_str(name);
                write_text(&mut self.out, &path(self.delivery, flavour, parts), SHOWN_BYTES_MAX);
                self.out.push(')');
            }
            Node::NdArray(array) => self.array(&array),
            Node::NumpyScalar { dtype, data, .. } => self.scalar(dtype, data),
            Node::DType(dtype) => self.call("dtype", &quoted(&numpy::name(dtype))),
            Node::Object(_) => self.out.push_str("<object of a class that this host knows>"),
            other => push(&mut self.out, format_args!("<{other:?}>")),
        }
    }

    fn buffer(&self, index: usize) -> &'a [u8] {
        self.delivery.buffers.get(index).map_or(&[], |buffer| buffer.as_slice())
    }

    fn call(&mut self, name: &str, arguments: &str) {
        push(&mut self.out, format_args!("{name}({arguments})"));
    }

    fn byte_array(&mut self, bytes: &[u8]) {
        self.out.push_str("bytearray(");
        write_bytes(&mut self.out, bytes, SHOWN_BYTES_MAX);
        self.out.push(')');
    }

    fn items(&mut self, open: &str, items: &[NodeId], close: &str) {
        self.out.push_str(open);
        for (index, item) in items.iter().enumerate() {
            if self.is_full() {
                return;
            }
            if index > 0 {
                self.out.push_str(", ");
            }
            self.value(*item);
        }
        self.out.push_str(close);
    }

    fn dict(&mut self, kind: DictKind, entries: &[[NodeId; 2]]) {
        let (open, close) = match kind {
            DictKind::Plain => ("{", "}"),
            DictKind::Ordered if entries.is_empty() => ("OrderedDict(", ")"),
            DictKind::Ordered => ("OrderedDict({", "})"),
            DictKind::Counter if entries.is_empty() => ("Counter(", ")"),
            DictKind::Counter => ("Counter({", "})"),
            DictKind::Default => ("defaultdict(None, {", "})"),
        };
        self.out.push_str(open);
        for (index, [key, value]) in entries.iter().enumerate() {
            if self.is_full() {
                return;
            }
            if index > 0 {
                self.out.push_str(", ");
            }
            self.value(*key);
            self.out.push_str(": ");
            self.value(*value);
        }
        self.out.push_str(close);
    }

    fn time(&mut self, name: &str, date: String, time: Time<'_>) {
        let mut fields = format!("{date}{}, {}", time.hour, time.minute);
        if time.second != 0 || time.microsecond != 0 {
            push(&mut fields, format_args!(", {}", time.second));
        }
        if time.microsecond != 0 {
            push(&mut fields, format_args!(", {}", time.microsecond));
        }
        push(&mut self.out, format_args!("{name}({fields}"));
        if time.fold {
            self.out.push_str(", fold=1");
        }
        if let Some(zone) = time.zone {
            self.out.push_str(", tzinfo=");
            self.zone(zone);
        }
        self.out.push(')');
    }

    fn zone(&mut self, zone: TimeZone<'_>) {
        if zone.name.is_none() && zone.offset.total_microseconds() == 0 {
            return self.out.push_str("datetime.timezone.utc");
        }
        push(&mut self.out, format_args!("datetime.timezone({}", delta_text(zone.offset)));
        if let Some(name) = zone.name {
            self.out.push_str(", ");
            write_text(&mut self.out, name.as_bytes(), SHOWN_BYTES_MAX);
        }
        self.out.push(')');
    }

    // --- numpy

    fn scalar(&mut self, dtype: &DType, data: &[u8]) {
        let element = numpy::element(dtype, data);
        let name = match (&element, dtype) {
            (numpy::Element::Bool(value), _) => {
                return self.out.push_str(if *value { "np.True_" } else { "np.False_" });
            }
            (numpy::Element::Text(_), _) => "str_".to_owned(),
            (numpy::Element::Bytes(_), _) => "bytes_".to_owned(),
            (numpy::Element::Raw(_), DType::Record { .. }) => "void".to_owned(),
            _ => numpy::name(dtype),
        };
        let (name, unit) = name.split_once('[').unwrap_or((&name, ""));
        push(&mut self.out, format_args!("np.{name}("));
        match element {
            numpy::Element::Complex(re, im) => {
                self.out.push_str(complex(re, im).trim_matches(['(', ')']));
            }
            _ => numpy::write(&mut self.out, &element, SHOWN_BYTES_MAX),
        }
        if !unit.is_empty() {
            push(&mut self.out, format_args!(",'{}'", unit.trim_end_matches(']')));
        }
        self.out.push(')');
    }

    fn array(&mut self, array: &NdArray<'_>) {
        let data = match array.data {
            ArrayData::Inline(bytes) => bytes,
            ArrayData::Buffer { index, .. } => self.buffer(index),
        };
        let (shape, strides) = numpy::layout(array.shape, array.order);
        let count = shape.iter().fold(1_u64, |count, len| count.saturating_mul(*len));
        self.out.push_str("array(");
        let view = View { dtype: array.dtype, data, is_cut: count > ELEMENTS_MAX };
        self.axis(&view, &shape, &strides, 0);
        let is_usual = matches!(
            numpy::name(array.dtype).as_str(),
            "float64" | "int64" | "bool" | "complex128"
        );
        if view.is_cut || count == 0 {
            let shape: Vec<_> = shape.iter().map(u64::to_string).collect();
            let comma = if shape.len() == 1 { "," } else { "" };
            push(&mut self.out, format_args!(", shape=({}{comma})", shape.join(", ")));
        }
        if !is_usual {
            push(&mut self.out, format_args!(", dtype={}", numpy::name(array.dtype)));
        }
        self.out.push(')');
    }

    fn axis(&mut self, view: &View<'_>, shape: &[u64], strides: &[u64], at: u64) {
        if self.is_full() {
            return;
        }
        let (Some(&len), Some(&stride)) = (shape.first(), strides.first()) else {
            let size = u64::from(view.dtype.itemsize());
            let start = usize::try_from(at.saturating_mul(size)).unwrap_or(usize::MAX);
            let end = start.saturating_add(view.dtype.itemsize() as usize);
            let element = numpy::element(view.dtype, view.data.get(start..end).unwrap_or(&[]));
            return numpy::write(&mut self.out, &element, SHOWN_BYTES_MAX);
        };
        let is_cut = view.is_cut && len > 2 * EDGE;
        self.out.push('[');
        let mut index = 0;
        while index < len && !self.is_full() {
            if index > 0 {
                self.out.push_str(", ");
            }
            if is_cut && index == EDGE {
                self.out.push_str("..., ");
                index = len - EDGE;
            }
            let place = at.saturating_add(index.saturating_mul(stride));
            self.axis(view, &shape[1..], &strides[1..], place);
            index += 1;
        }
        self.out.push(']');
    }
}

struct View<'m> {
    dtype: &'m DType,
    data: &'m [u8],
    is_cut: bool,
}

fn quoted(name: &str) -> String {
    if name.starts_with('\'') { name.to_owned() } else { format!("'{name}'") }
}

fn date_fields(Date { year, month, day }: Date) -> String {
    format!("{year}, {month}, {day}")
}

fn delta_text(TimeDelta { days, seconds, microseconds }: TimeDelta) -> String {
    let parts = [
        ("days", i64::from(days)),
        ("seconds", seconds.into()),
        ("microseconds", microseconds.into()),
    ];
    let mut fields: Vec<_> = parts
        .iter()
        .filter(|(_, value)| *value != 0)
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if fields.is_empty() {
        fields.push("0".to_owned());
    }
    format!("datetime.timedelta({})", fields.join(", "))
}

/// `str` of a UUID.
pub(crate) fn uuid(int: u128) -> String {
    let hex = format!("{int:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// `str` of a path made of these parts, with forward slashes.
pub(crate) fn path(delivery: &Delivery, flavour: PathFlavour, parts: &[NodeId]) -> Vec<u8> {
    let mut joined = Vec::new();
    for part in parts {
        let Node::Text(text) = delivery.message.node(*part) else { continue };
        if joined.last().is_some_and(|last| *last != b'/') {
            joined.push(b'/');
        }
        let text = text.as_bytes().iter();
        match flavour {
            PathFlavour::Posix => joined.extend(text),
            PathFlavour::Windows => {
                joined.extend(text.map(|b| if *b == b'\\' { b'/' } else { *b }))
            }
        }
        if joined.len() > SHOWN_BYTES_MAX {
            break;
        }
    }
    if joined.is_empty() { b".".to_vec() } else { joined }
}
