//! Types of the standard library.

use pyisolate_abi::pickle::{
    BigInt, Date, DateTime, DictKind, Node, NodeId, PathFlavour, SafeUuid, Text, Time, TimeDelta,
    TimeZone,
};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyRange, PySlice, PyString, PyTuple, PyType};

use super::Converter;
use super::instances::refused;

/// Longest bound of a range, 2048 bits. A range keeps its length, an `int` as long as its bounds,
/// which many ranges may share: with a bound as long as
/// [`Caps::int_bits`](pyisolate_abi::pickle::Caps::int_bits) allows, ten bytes of a pickle would
/// take 128 KiB here.
const RANGE_INT_BYTES: usize = 256;

/// Where a text lies: its address and length in bytes.
pub(super) type Place = (usize, usize);
/// What tells time zones apart: the offset in microseconds, and where the name lies, if any.
pub(super) type ZoneKey = (i128, Option<Place>);

/// A class of the standard library, looked up when it is first needed.
macro_rules! class {
    ($py:expr, $module:literal, $name:literal) => {{
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS.import($py, $module, $name)
    }};
}

impl<'py> Converter<'_, 'py> {
    pub(super) fn standard(&self, node: Node<'_>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        match node {
            Node::BigInt(value) => self.big_int(value),
            Node::Dict { kind, entries } => self.dict_kind(kind, entries),
            Node::Deque { items, max_len } => {
                let items = PyTuple::new(py, self.children(items))?;
                class!(py, "collections", "deque")?.call1((items, max_len))
            }
            Node::Range { start, stop, step } => {
                let is_long = |id| {
                    let node = self.message.node(id);
                    matches!(node, Node::BigInt(int) if int.to_le_bytes().len() > RANGE_INT_BYTES)
                };
                if [start, stop, step].into_iter().any(is_long) {
                    return Err(PyValueError::new_err(
                        "the cell sent a range with a bound of more than 2048 bits; send its \
                         bounds as a tuple",
                    ));
                }
                let parts = (self.part(start)?, self.part(stop)?, self.part(step)?);
                py.get_type::<PyRange>().call1(parts)
            }
            Node::Slice { start, stop, step } => {
                let parts = (self.value(start)?, self.value(stop)?, self.value(step)?);
                py.get_type::<PySlice>().call1(parts)
            }
            Node::Date(Date { year, month, day }) => {
                class!(py, "datetime", "date")?.call1((year, month, day))
            }
            Node::Time(time) => self.time(time),
            Node::DateTime(DateTime { date, time }) => self.date_time(date, time),
            Node::TimeDelta(delta) => self.time_delta(delta),
            Node::TimeZone(zone) => self.time_zone(zone),
            Node::Decimal(text) => class!(py, "decimal", "Decimal")?.call1((self.text(text)?,)),
            Node::Fraction { numerator, denominator } => {
                let parts = (self.part(numerator)?, self.part(denominator)?);
                class!(py, "fractions", "Fraction")?.call1(parts)
            }
            Node::Uuid { int, safe } => self.uuid(int, safe),
            Node::PurePath { flavour, parts } => {
                let class = match flavour {
                    PathFlavour::Posix => class!(py, "pathlib", "PurePosixPath")?,
                    PathFlavour::Windows => class!(py, "pathlib", "PureWindowsPath")?,
                };
                class.call1(PyTuple::new(py, self.children(parts))?)
            }
            // Kinds of values that the decoder may learn one day.
            _ => Err(refused("the cell sent a value of an unknown type; send plain data")),
        }
    }

    fn big_int(&self, value: BigInt<'_>) -> PyResult<Bound<'py, PyAny>> {
        static FROM_BYTES: PyOnceLock<(Py<PyAny>, Py<PyDict>)> = PyOnceLock::new();
        let py = self.py;
        let (from_bytes, signed) = FROM_BYTES.get_or_try_init(py, || {
            let signed = PyDict::new(py);
            signed.set_item("signed", true)?;
            let from_bytes = py.get_type::<PyInt>().getattr("from_bytes")?;
            PyResult::Ok((from_bytes.unbind(), signed.unbind()))
        })?;
        let args = (self.bytes(value.to_le_bytes())?, intern!(py, "little"));
        from_bytes.bind(py).call(args, Some(signed.bind(py)))
    }

    fn dict_kind(&self, kind: DictKind, entries: &[[NodeId; 2]]) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let class = match kind {
            DictKind::Plain => py.get_type::<PyDict>(),
            DictKind::Ordered => class!(py, "collections", "OrderedDict")?.clone(),
            DictKind::Counter => class!(py, "collections", "Counter")?.clone(),
            DictKind::Default => class!(py, "collections", "defaultdict")?.clone(),
        };
        let made = class.call0()?;
        for &[key, value] in entries {
            // Not as to a plain dict: an OrderedDict keeps its order beside the table.
            made.set_item(self.value(key)?, self.value(value)?)?;
        }
        Ok(made)
    }

    fn time(&self, time: Time<'_>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let class = class!(py, "datetime", "time")?;
        let zone = time.zone.map(|zone| self.time_zone(zone)).transpose()?;
        let args = (time.hour, time.minute, time.second, time.microsecond, zone);
        if time.fold { class.call(args, Some(fold(py)?)) } else { class.call1(args) }
    }

    fn date_time(&self, date: Date, time: Time<'_>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let class = class!(py, "datetime", "datetime")?;
        let zone = time.zone.map(|zone| self.time_zone(zone)).transpose()?;
        let Date { year, month, day } = date;
        let Time { hour, minute, second, microsecond, .. } = time;
        let args = (year, month, day, hour, minute, second, microsecond, zone);
        if time.fold { class.call(args, Some(fold(py)?)) } else { class.call1(args) }
    }

    fn time_delta(&self, delta: TimeDelta) -> PyResult<Bound<'py, PyAny>> {
        let TimeDelta { days, seconds, microseconds } = delta;
        class!(self.py, "datetime", "timedelta")?.call1((days, seconds, microseconds))
    }

    fn time_zone(&self, zone: TimeZone<'_>) -> PyResult<Bound<'py, PyAny>> {
        let place = zone.name.map(|name| (name.as_bytes().as_ptr().addr(), name.as_bytes().len()));
        let key = (zone.offset.total_microseconds(), place);
        if let Some(made) = self.zones.borrow().get(&key) {
            return Ok(made.clone());
        }
        let offset = self.time_delta(zone.offset)?;
        let class = class!(self.py, "datetime", "timezone")?;
        let made = match (zone.name, place) {
            (Some(name), Some(place)) => class.call1((offset, self.zone_name(name, place)?))?,
            // If the offset is zero, this gives `timezone.utc` itself.
            _ => class.call1((offset,))?,
        };
        self.zones.borrow_mut().insert(key, made.clone());
        Ok(made)
    }

    /// The name of a zone; zones of different offsets may share one.
    fn zone_name(&self, name: Text<'_>, place: Place) -> PyResult<Bound<'py, PyString>> {
        if let Some(made) = self.zone_names.borrow().get(&place) {
            return Ok(made.clone());
        }
        let made = self.text(name)?;
        self.zone_names.borrow_mut().insert(place, made.clone());
        Ok(made)
    }

    fn uuid(&self, int: u128, safe: SafeUuid) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "int"), int)?;
        let safe = match safe {
            SafeUuid::Unknown => None,
            SafeUuid::Safe => Some(intern!(py, "safe")),
            SafeUuid::Unsafe => Some(intern!(py, "unsafe")),
        };
        if let Some(name) = safe {
            let safe = class!(py, "uuid", "SafeUUID")?.getattr(name)?;
            keywords.set_item(intern!(py, "is_safe"), safe)?;
        }
        class!(py, "uuid", "UUID")?.call((), Some(&keywords))
    }
}

/// `{"fold": 1}`.
fn fold(py: Python<'_>) -> PyResult<&Bound<'_, PyDict>> {
    static FOLD: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let fold = FOLD.get_or_try_init(py, || {
        let fold = PyDict::new(py);
        fold.set_item("fold", 1)?;
        PyResult::Ok(fold.unbind())
    })?;
    Ok(fold.bind(py))
}
