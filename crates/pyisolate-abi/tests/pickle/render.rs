//! Prints a message as the Python expression that makes it.

use pyisolate_abi::pickle::{
    ArrayData, DType, Date, DictKind, Message, Node, NodeId, ObjectState, Order, PathFlavour,
    SafeUuid, Text, Time, TimeDelta, TimeZone, TrustedNames,
};

pub(crate) fn render(message: &Message<'_>, trusted: &TrustedNames) -> String {
    Renderer { message, trusted }.value(message.root())
}

struct Renderer<'a> {
    message: &'a Message<'a>,
    trusted: &'a TrustedNames,
}

impl Renderer<'_> {
    fn value(&self, id: NodeId) -> String {
        match self.message.node(id) {
            Node::None => "None".into(),
            Node::Ellipsis => "Ellipsis".into(),
            Node::NotImplemented => "NotImplemented".into(),
            Node::Bool(true) => "True".into(),
            Node::Bool(false) => "False".into(),
            Node::Int(value) => value.to_string(),
            Node::BigInt(value) => {
                format!("int.from_bytes({}, \"little\", signed=True)", bytes(value.to_le_bytes()))
            }
            Node::Float(value) => float(value),
            Node::Complex { re, im } => format!("complex({}, {})", float(re), float(im)),
            Node::Text(value) => text(value),
            Node::Bytes(value) => bytes(value),
            Node::ByteArray(value) => format!("bytearray({})", bytes(value)),
            Node::Buffer { read_only: true, .. } => "pickle.PickleBuffer(b\"abc\")".into(),
            Node::Buffer { .. } => "pickle.PickleBuffer(bytearray(b\"abc\"))".into(),
            Node::List(items) => format!("[{}]", self.values(items)),
            Node::Tuple(items) => self.tuple(items),
            Node::Set([]) => "set()".into(),
            Node::Set(items) => format!("{{{}}}", self.values(items)),
            Node::FrozenSet(items) => format!("frozenset([{}])", self.values(items)),
            Node::Dict { kind, entries } => self.dict(kind, entries),
            Node::Deque { items, max_len } => {
                let max_len = max_len.map(|len| format!(", {len}")).unwrap_or_default();
                format!("collections.deque([{}]{max_len})", self.values(items))
            }
            Node::Range { start, stop, step } => {
                format!("range({})", self.values(&[start, stop, step]))
            }
            Node::Slice { start, stop, step } => {
                format!("slice({})", self.values(&[start, stop, step]))
            }
            Node::Date(value) => format!("date({})", date(value)),
            Node::Time(value) => format!("time({})", time(value)),
            Node::DateTime(value) => {
                format!("DateTime({}, {})", date(value.date), time(value.time))
            }
            Node::TimeDelta(value) => delta(value),
            Node::TimeZone(value) => zone(value),
            Node::Decimal(value) => format!("decimal.Decimal({})", text(value)),
            Node::Fraction { numerator, denominator } => {
                format!("fractions.Fraction({})", self.values(&[numerator, denominator]))
            }
            Node::Uuid { int, safe } => {
                let safe = match safe {
                    SafeUuid::Safe => ", is_safe=uuid.SafeUUID.safe",
                    SafeUuid::Unsafe => ", is_safe=uuid.SafeUUID.unsafe",
                    SafeUuid::Unknown => "",
                };
                format!("uuid.UUID(int={int:#034x}{safe})")
            }
            Node::PurePath { flavour, parts } => {
                let class = match flavour {
                    PathFlavour::Posix => "PurePosixPath",
                    PathFlavour::Windows => "PureWindowsPath",
                };
                format!("pathlib.{class}({})", self.values(parts))
            }
            Node::DType(value) => self.dtype(value),
            Node::NumpyScalar { dtype, data, .. } => {
                format!("numpy.ndarray((), {}, {})[()]", self.dtype(dtype), bytes(data))
            }
            Node::NdArray(array) => {
                let data = match array.data {
                    ArrayData::Inline(data) => bytes(data),
                    ArrayData::Buffer { index, .. } => format!("buffers[{index}]"),
                };
                let order = match array.order {
                    Order::C | Order::Transposed(_) => "",
                    Order::Fortran => ", order=\"F\"",
                };
                let axes = match array.order {
                    Order::Transposed(axes) => format!(".transpose({})", numbers(axes)),
                    _ => String::new(),
                };
                let (shape, dtype) = (numbers(array.shape), self.dtype(array.dtype));
                format!("numpy.ndarray({shape}, {dtype}, {data}{order}){axes}")
            }
            Node::Object(object) => {
                let name = self.trusted.get(object.class).expect("a registered class");
                let mut args: Vec<_> = object.args.iter().map(|&arg| self.value(arg)).collect();
                for &[key, value] in object.kwargs {
                    args.push(format!(
                        "{}={}",
                        self.value(key).trim_matches('"'),
                        self.value(value)
                    ));
                }
                args.extend(object.state.map(|state| self.state(state)).filter(|s| !s.is_empty()));
                format!("{}.{}({})", name.module, name.qualname, args.join(", "))
            }
            other => panic!("no expression for {other:?}"),
        }
    }

    fn values(&self, ids: &[NodeId]) -> String {
        ids.iter().map(|&id| self.value(id)).collect::<Vec<_>>().join(", ")
    }

    fn tuple(&self, items: &[NodeId]) -> String {
        match items {
            [one] => format!("({},)", self.value(*one)),
            items => format!("({})", self.values(items)),
        }
    }

    fn dict(&self, kind: DictKind, entries: &[[NodeId; 2]]) -> String {
        let entries: Vec<_> = entries
            .iter()
            .map(|&[key, value]| format!("{}: {}", self.value(key), self.value(value)))
            .collect();
        let dict = format!("{{{}}}", entries.join(", "));
        match kind {
            DictKind::Plain => dict,
            DictKind::Ordered => format!("collections.OrderedDict({dict})"),
            DictKind::Counter => format!("collections.Counter({dict})"),
            DictKind::Default => format!("collections.defaultdict(None, {dict})"),
        }
    }

    fn state(&self, state: ObjectState) -> String {
        match state {
            ObjectState::Attributes(dict) => format!("**{}", self.value(dict)),
            ObjectState::Slots { attributes, slots, .. } => {
                let Node::Dict { entries, .. } = self.message.node(slots) else { panic!() };
                let mut parts: Vec<_> =
                    entries.iter().map(|[_, value]| self.value(*value)).collect();
                parts.extend(attributes.map(|dict| format!("**{}", self.value(dict))));
                parts.join(", ")
            }
            ObjectState::Custom(id) => self.value(id).trim_matches(['[', ']']).into(),
        }
    }

    fn dtype(&self, dtype: &DType) -> String {
        match dtype {
            DType::Scalar { .. } | DType::Time { .. } => format!("numpy.dtype(\"{dtype}\")"),
            DType::SubArray { element, shape, .. } => {
                format!("numpy.dtype(({}, {}))", self.value(*element), numbers(shape))
            }
            DType::Record { fields, itemsize, aligned } => {
                let list = |part: &dyn Fn(usize) -> String| {
                    (0..fields.len()).map(part).collect::<Vec<_>>().join(", ")
                };
                format!(
                    "numpy.dtype({{\"names\": [{}], \"formats\": [{}], \"offsets\": [{}], \"itemsize\": {itemsize}}}{})",
                    list(&|i| self.value(fields[i].name)),
                    list(&|i| self.value(fields[i].dtype)),
                    list(&|i| fields[i].offset.to_string()),
                    if *aligned { ", align=True" } else { "" },
                )
            }
        }
    }
}

fn float(value: f64) -> String {
    if value.abs() >= 1e16 { format!("{value:e}").replace('e', "e+") } else { format!("{value:?}") }
}

fn bytes(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("bytes.fromhex(\"{hex}\")")
}

fn text(text: Text<'_>) -> String {
    match text.to_str() {
        Some(text) => format!("\"{text}\""),
        None => format!("{}.decode(\"utf-8\", \"surrogatepass\")", bytes(text.as_bytes())),
    }
}

fn numbers<T: ToString>(numbers: &[T]) -> String {
    let list: Vec<_> = numbers.iter().map(T::to_string).collect();
    format!("({}{})", list.join(", "), if list.len() == 1 { "," } else { "" })
}

fn date(Date { year, month, day }: Date) -> String {
    format!("{year}, {month}, {day}")
}

fn time(time: Time<'_>) -> String {
    let Time { hour, minute, second, microsecond, fold, zone: tzinfo } = time;
    let fold = if fold { ", fold=1" } else { "" };
    let tzinfo = tzinfo.map(|tzinfo| format!(", tzinfo={}", zone(tzinfo))).unwrap_or_default();
    format!("{hour}, {minute}, {second}, {microsecond}{fold}{tzinfo}")
}

fn delta(TimeDelta { days, seconds, microseconds }: TimeDelta) -> String {
    format!("timedelta({days}, {seconds}, {microseconds})")
}

fn zone(TimeZone { offset, name }: TimeZone<'_>) -> String {
    let name = name.map(|name| format!(", {}", text(name))).unwrap_or_default();
    format!("timezone({}{name})", delta(offset))
}
