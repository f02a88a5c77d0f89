"""Writes vectors.tsv: what CPython and numpy really emit, for tests/pickle/vectors.rs.

Run with CPython 3.13 or later and numpy 2 or later:

    python vectors.py > vectors.tsv

One sample a line: the expression, the lengths in bytes of the out-of-band buffers, the pickle in
hex. The decoder must print back the very expression, so expressions are written as `render.rs`
prints values; those in REFUSED must be refused with the text beside them.
"""

import collections
import decimal
import fractions
import functools
import operator
import pathlib
import pickle
import re
import socket
import sys
import types
import uuid
import zoneinfo

import numpy
from datetime import date, datetime as DateTime, time, timedelta, timezone

shapes = types.ModuleType("shapes")
exec(
    """
import collections, dataclasses, enum
class Plain:
    def __init__(self, **fields): self.__dict__.update(fields)
class Slots:
    __slots__ = ("a", "__dict__")
    def __init__(self, a, **fields): self.a = a; self.__dict__.update(fields)
@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: int
class Colour(enum.Enum):
    RED = 1
Pair = collections.namedtuple("Pair", "a b")
class Keywords:
    def __new__(cls, *, a): return object.__new__(cls)
    def __getnewargs_ex__(self): return (), {"a": 1}
class Items(list): pass
""",
    shapes.__dict__,
)
for value in vars(shapes).values():
    if isinstance(value, type):
        value.__module__ = "shapes"
sys.modules["shapes"] = shapes

ACCEPTED = r"""
None
True
False
Ellipsis
NotImplemented
0
255
65535
-1
-2147483648
2147483648
-9223372036854775808
int.from_bytes(bytes.fromhex("000000000000008000"), "little", signed=True)
int.from_bytes(bytes.fromhex("00000000000000000000000000000000000000000000000000ff"), "little", signed=True)
1.5
-0.0
1e+300
complex(1.5, 2.0)
""
"abc"
"grüße 🐍"
bytes.fromhex("61edb280").decode("utf-8", "surrogatepass")
bytes.fromhex("")
bytes.fromhex("00ff")
bytearray(bytes.fromhex("00ff"))
bytearray(bytes.fromhex(""))
[]
[1, [2, "x"], []]
()
(1,)
(1, 2)
(1, 2, 3)
(1, 2, 3, 4)
{}
{"a": 1}
{"a": 1, "b": {"c": (None, True)}}
set()
{1}
{1, 2}
frozenset([])
frozenset([1])
range(1, 10, 2)
slice(1, None, None)
[None, None, True, True]
date(2024, 2, 29)
time(1, 2, 3, 4)
time(1, 2, 3, 4, fold=1)
time(1, 0, 0, 0, tzinfo=timezone(timedelta(0, 3600, 0), "x"))
DateTime(2024, 1, 2, 3, 4, 5, 6)
DateTime(2024, 1, 2, 3, 4, 5, 6, fold=1)
DateTime(2024, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(0, 0, 0)))
DateTime(9999, 12, 31, 23, 59, 59, 999999)
timedelta(-1, 2, 3)
timedelta(-999999999, 0, 0)
timezone(timedelta(-1, 1, 5))
decimal.Decimal("1.50")
decimal.Decimal("-1E+100")
decimal.Decimal("NaN")
decimal.Decimal("-Infinity")
fractions.Fraction(-1, 3)
uuid.UUID(int=0x00000000000000000000000000000005)
uuid.UUID(int=0xffffffffffffffffffffffffffffffff)
uuid.UUID(int=0x12345678123456781234567812345678, is_safe=uuid.SafeUUID.safe)
pathlib.PurePosixPath("/a/b")
pathlib.PurePosixPath("a", "b")
pathlib.PurePosixPath()
pathlib.PureWindowsPath("c:/a")
collections.OrderedDict({})
collections.OrderedDict({"b": 1, "a": 2})
collections.Counter({"a": 2, "b": 1})
collections.deque([])
collections.deque([1, 2])
collections.deque([1, 2], 3)
collections.defaultdict(None, {1: 2})
{(1, "a"): frozenset([1]), date(2024, 1, 1): None}
pickle.PickleBuffer(b"abc")
pickle.PickleBuffer(bytearray(b"abc"))
numpy.dtype("<i8")
numpy.dtype(">f4")
numpy.dtype("<U5")
numpy.dtype("|S3")
numpy.dtype("<M8[ns]")
numpy.dtype("<m8[25s]")
numpy.dtype({"names": ["a", "b"], "formats": [numpy.dtype("<i4"), numpy.dtype("<f8")], "offsets": [0, 4], "itemsize": 12})
numpy.dtype({"names": ["a", "b"], "formats": [numpy.dtype((numpy.dtype("<i4"), (2, 2))), numpy.dtype("<f8")], "offsets": [0, 16], "itemsize": 24}, align=True)
numpy.dtype({"names": [], "formats": [], "offsets": [], "itemsize": 0})
numpy.ndarray((3,), numpy.dtype("<i8"), buffers[0])
numpy.ndarray((), numpy.dtype("<i8"), buffers[0])
numpy.ndarray((0, 3), numpy.dtype("<f8"), buffers[0])
numpy.ndarray((2, 3), numpy.dtype("<f8"), buffers[0], order="F")
numpy.ndarray((2, 3, 4), numpy.dtype("|b1"), buffers[0]).transpose((1, 0, 2))
numpy.ndarray((2,), numpy.dtype("<U2"), buffers[0])
numpy.ndarray((1,), numpy.dtype(">i4"), buffers[0])
numpy.ndarray((2,), numpy.dtype({"names": ["a"], "formats": [numpy.dtype("<i4")], "offsets": [0], "itemsize": 4}), buffers[0])
[numpy.ndarray((1,), numpy.dtype("<i4"), buffers[0]), numpy.ndarray((2,), numpy.dtype("<i4"), buffers[1])]
numpy.ndarray((2,), numpy.dtype("<i8"), bytes.fromhex("00000000000000000400000000000000"))
numpy.ndarray((1,), numpy.dtype("<M8[D]"), bytes.fromhex("5647000000000000"))
numpy.ndarray((), numpy.dtype("<M8[10Y]"), bytes.fromhex("0500000000000000"))
numpy.ndarray((), numpy.dtype("<f8"), bytes.fromhex("000000000000f83f"))[()]
numpy.ndarray((), numpy.dtype("<i4"), bytes.fromhex("03000000"))[()]
numpy.ndarray((), numpy.dtype("|b1"), bytes.fromhex("01"))[()]
numpy.ndarray((), numpy.dtype("<c16"), bytes.fromhex("0000000000000000000000000000f03f"))[()]
numpy.ndarray((), numpy.dtype("<m8[25s]"), bytes.fromhex("0100000000000000"))[()]
numpy.ndarray((), numpy.dtype("<U3"), bytes.fromhex("610000006200000063000000"))[()]
shapes.Plain(**{"x": 1})
shapes.Slots(1)
shapes.Slots(1, **{"b": 2})
shapes.Frozen(1)
shapes.Colour(1)
shapes.Pair(1, 2)
shapes.Keywords(a=1)
""".strip().splitlines()

# Expression and what the error must say.
REFUSED = {
    "socket.socket": "class or function `socket.socket` itself",
    "int": "class or function `builtins.int` itself",
    "date": "class or function `datetime.date` itself",
    "len": "class or function `builtins.len` itself",
    "ValueError('x')": "cannot receive `builtins.ValueError`",
    "type(None)": "cannot receive `builtins.type`",
    "functools.partial(print)": "cannot receive `functools.partial`",
    "operator.attrgetter('a')": "cannot receive `operator.attrgetter`",
    "pathlib.Path('/a')": "send a PurePath or str(path)",
    "zoneinfo.ZoneInfo('UTC')": "cannot receive `zoneinfo.ZoneInfo`",
    "DateTime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo('UTC'))": "cannot receive `zoneinfo.ZoneInfo`",
    "collections.defaultdict(int)": "defaultdict whose factory is `builtins.int`",
    "collections.defaultdict(list)": "defaultdict whose factory is `builtins.list`",
    "collections.ChainMap({1: 2})": "cannot receive `collections.ChainMap`",
    "collections.UserDict()": "cannot receive `collections.UserDict`",
    "numpy.array([None])": "dtype O8",
    "numpy.dtype('O')": "dtype O8",
    "numpy.dtype([('a', 'O')])": "Python objects",
    "numpy.matrix([[1]])": "cannot receive `numpy.matrix`",
    "numpy.ma.array([1])": "cannot receive `numpy.ma.core._mareconstruct`",
    "numpy.dtype('i4', metadata={'a': 1})": "it has metadata",
    "numpy.dtype([(('title', 'a'), 'i4')])": "titles",
    "numpy.dtypes.StringDType()": "cannot receive `numpy._core._internal._convert_to_stringdtype_kwargs`",
    "numpy.array(['a'], dtype='T')": "cannot receive `numpy._core._internal._convert_to_stringdtype_kwargs`",
    "numpy.rec.array([(1,)], dtype=[('a', 'i4')])": "cannot receive `numpy.rec.recarray`",
    "shapes.Items([1])": "cannot receive items of `shapes.Items`",
    "re.compile('a')": "cannot receive `re._compile`",
    "types.SimpleNamespace(a=1)": "cannot receive `types.SimpleNamespace`",
    "with_attribute()": "OrderedDict with attributes",
    "inside_itself()": "contains itself",
    "tuple_inside_itself()": "contains itself",
}


def with_attribute():
    value = collections.OrderedDict()
    value.x = 1
    return value


def inside_itself():
    value = []
    value.append(value)
    return value


def tuple_inside_itself():
    value = ([],)
    value[0].append(value)
    return value


# How to make the arrays, which render as a view of their data.
ARRAYS = {
    'numpy.ndarray((3,), numpy.dtype("<i8"), buffers[0])': lambda: numpy.arange(3),
    'numpy.ndarray((), numpy.dtype("<i8"), buffers[0])': lambda: numpy.array(5),
    'numpy.ndarray((0, 3), numpy.dtype("<f8"), buffers[0])': lambda: numpy.zeros((0, 3)),
    'numpy.ndarray((2, 3), numpy.dtype("<f8"), buffers[0], order="F")': lambda: numpy.zeros((2, 3), order="F"),
    'numpy.ndarray((2, 3, 4), numpy.dtype("|b1"), buffers[0]).transpose((1, 0, 2))': lambda: numpy.zeros(
        (2, 3, 4), dtype="?"
    ).transpose((1, 0, 2)),
    'numpy.ndarray((2,), numpy.dtype("<U2"), buffers[0])': lambda: numpy.array(["a", "bb"]),
    'numpy.ndarray((1,), numpy.dtype(">i4"), buffers[0])': lambda: numpy.array([1], dtype=">i4"),
    'numpy.ndarray((2,), numpy.dtype({"names": ["a"], "formats": [numpy.dtype("<i4")], "offsets": [0], "itemsize": 4}), buffers[0])': lambda: numpy.zeros(
        2, dtype=[("a", "i4")]
    ),
    '[numpy.ndarray((1,), numpy.dtype("<i4"), buffers[0]), numpy.ndarray((2,), numpy.dtype("<i4"), buffers[1])]': lambda: [
        numpy.zeros(1, dtype="i4"),
        numpy.zeros(2, dtype="i4"),
    ],
    'numpy.ndarray((2,), numpy.dtype("<i8"), bytes.fromhex("00000000000000000400000000000000"))': lambda: numpy.arange(
        6
    )[:5:4],
}


def sample(expression):
    value = ARRAYS[expression]() if expression in ARRAYS else eval(expression)
    buffers = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    lengths = ",".join(str(buffer.raw().nbytes) for buffer in buffers)
    return f"{lengths}\t{data.hex()}"


if __name__ == "__main__":
    for expression in ACCEPTED:
        print(f"{expression}\t\t{sample(expression)}")
    for expression, error in REFUSED.items():
        print(f"{expression}\t{error}\t{sample(expression)}")
