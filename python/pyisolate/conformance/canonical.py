"""One text for each value: its exact types, its contents, and what in it is the same object.

Two values have the same text exactly if guest and host code cannot tell them apart by anything that
the contract promises. What it does not promise (addresses, hashes, the order of a set) is left out.
"""

import datetime
import decimal
import fractions
import hashlib
import math
import pathlib
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable
from typing import Any

from pyisolate.runtime.protocol import LogEvent, MetricEvent

LONGEST = 300
"""Longer contents are told by their length and SHA-256, so that transcripts stay readable."""

_BY_REPR = (
    complex,
    range,
    slice,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    pathlib.PurePath,
    type(Ellipsis),
    type(NotImplemented),
    bool,
    type(None),
)
"""Types whose `repr` says everything, and says it the same everywhere."""
_SHARED = (list, dict, set, bytearray, deque)
"""Types of which two that are one object can be told from two that are equal."""


def canonical(value: object, hidden: str = "") -> str:
    """The text of a value. Raises `TypeError` for one of a type that cannot be sent.

    `hidden`: a text of the host's own, such as a path, for which `$FOLDER` is written.
    """
    return _Writer(value, hidden).text(value)


class _Writer:
    """Writes one value; knows which objects occur in it more than once."""

    def __init__(self, root: object, hidden: str) -> None:
        self.hidden = hidden
        self.times: Counter[int] = Counter()
        self.labels: dict[int, str] = {}
        self._count(root)

    def _count(self, value: object) -> None:
        if isinstance(value, _SHARED):
            self.times[id(value)] += 1
            if self.times[id(value)] > 1:
                return
        for part in _parts(value):
            self._count(part)

    def text(self, value: object) -> str:
        if self.times[id(value)] < 2:
            return self._plain(value)
        if id(value) in self.labels:
            return self.labels[id(value)]
        label = self.labels[id(value)] = f"#{len(self.labels) + 1}"
        return f"{label}={self._plain(value)}"

    def _plain(self, value: Any) -> str:
        kind = type(value)
        name = kind.__name__
        if kind is str and self.hidden:
            value = value.replace(self.hidden, "$FOLDER")
        if kind in (int, str, bytes, bytearray):
            return _long(value)
        if kind is float:
            return _float(value)
        if kind in (list, tuple):
            return f"{name}[{self._items(value)}]"
        if kind is deque:
            return f"deque[{self._items(value)}] maxlen={value.maxlen}"
        if kind in (set, frozenset):
            # In the order of their texts: sets have none.
            return f"{name}{{{_cut(', '.join(sorted(map(self.text, value))))}}}"
        if kind in (dict, Counter, OrderedDict):
            return f"{name}{{{self._pairs(value)}}}"
        if kind is defaultdict:
            return f"defaultdict{{{self._pairs(value)}}} default={value.default_factory!r}"
        if kind in (LogEvent, MetricEvent):
            return self._event(value)
        if kind.__module__ == "numpy":
            return _numpy(value)
        if isinstance(value, _BY_REPR):
            return f"{name} {value!r}"
        fields = getattr(kind, "__conformance__", None)
        if fields is None:
            raise TypeError(f"{kind.__module__}.{name} has no canonical text")
        pairs = (f"{field}={self.text(getattr(value, field))}" for field in fields)
        return f"instance of {name}({', '.join(pairs)})"

    def _event(self, event: LogEvent | MetricEvent) -> str:
        if isinstance(event, LogEvent):
            told = (event.level, event.message, event.fields)
            return "log " + " ".join(map(self.text, told))
        return "metric " + " ".join(map(self.text, (event.name, event.value, event.tags)))

    def _items(self, items: Iterable[object]) -> str:
        return _cut(", ".join(map(self.text, items)))

    def _pairs(self, pairs: dict[Any, Any]) -> str:
        return _cut(", ".join(f"{self.text(k)}: {self.text(v)}" for k, v in pairs.items()))


def _parts(value: Any) -> Iterable[object]:
    """What a value consists of, of which something may occur twice."""
    if isinstance(value, (list, tuple, deque)):
        return value
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, LogEvent):
        return (value.fields,)
    fields = getattr(type(value), "__conformance__", ())
    return [getattr(value, field) for field in fields]


def _long(value: int | str | bytes | bytearray) -> str:
    """A value that may be long; `ascii`, so that a transcript has no invisible characters."""
    name = type(value).__name__
    if isinstance(value, int):
        # Decimal digits of huge integers are refused by the interpreter itself.
        text = str(value) if value.bit_length() < 300 else hex(value)
        return f"int {_cut(text)}"
    if len(value) <= LONGEST:
        return f"{name} {value if not isinstance(value, bytearray) else bytes(value)!a}"
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
    return f"{name} of {len(value)} sha256:{_digest(data)}"


def _float(value: float) -> str:
    if math.isnan(value):
        return "float nan"
    return f"float {value!r}"


def _numpy(value: Any) -> str:
    """An array or a scalar of numpy's, by its elements as they lie in C order."""
    shape = getattr(value, "shape", ())
    data = value.tobytes()
    held = data.hex() if len(data) <= LONGEST // 4 else f"sha256:{_digest(data)}"
    return f"numpy.{type(value).__name__} {value.dtype.str} shape={tuple(shape)} {held}"


def _cut(text: str) -> str:
    """Contents that are much too long to be read, by their digest."""
    if len(text) <= 4 * LONGEST:
        return text
    return f"... {len(text)} characters sha256:{_digest(text.encode())}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
