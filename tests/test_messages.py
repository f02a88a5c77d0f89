"""Values keep their type, their contents and their identity on the way out of a cell."""

import contextlib
import datetime as dt
import decimal
import math
import subprocess
import sys
import uuid

import numpy as np
import pytest

import pyisolate
from cells import PATIENCE, assert_serves, new_cell, run

IMPORTS = [
    "collections",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "math",
    "numpy",
    "pathlib",
    "pickle",
    "typing",
    "uuid",
]

PRELUDE = """
import collections, copy, dataclasses, datetime, decimal, enum, fractions, math, pathlib, pickle
import typing, uuid
from collections import Counter, OrderedDict, defaultdict, deque
import numpy as np
"""


@pytest.fixture(scope="module")
def shared_cell():
    with new_cell(allowed_imports=IMPORTS) as cell:
        run(cell, PRELUDE)
        yield cell


@pytest.fixture
def cell(shared_cell):
    yield shared_cell
    empty(shared_cell)


def empty(cell):
    """Take whatever a failed test has left, so that the next one does not get it."""
    run(cell, "post('the end of a test')")
    received = None
    while not isinstance(received, str) or received != "the end of a test":
        with contextlib.suppress(pyisolate.SandboxError, TypeError, ValueError, ImportError):
            received = cell.recv(PATIENCE)


@pytest.fixture(scope="module")
def names():
    names = {}
    exec(PRELUDE, names)
    return names


def sent(cell, expression):
    """What arrives when the guest posts the value of an expression."""
    run(cell, f"post({expression})")
    return cell.recv(PATIENCE)


def assert_same(got, expected):
    """Equal, and of exactly the same types all the way down."""
    assert type(got) is type(expected)
    if isinstance(expected, np.ndarray):
        assert_same_array(got, expected)
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert_same(list(got), list(expected))  # the order too
        assert_same(list(got.values()), list(expected.values()))
    elif isinstance(expected, float):
        assert math.copysign(1, got) == math.copysign(1, expected)
        assert got == expected or (math.isnan(got) and math.isnan(expected))
    else:
        assert got == expected
        assert repr(got) == repr(expected)


def assert_same_array(got, expected):
    """Equal in dtype, shape, order, elements and whether they can be changed."""
    assert type(got) is np.ndarray
    assert got.dtype == expected.dtype
    assert got.dtype.fields == expected.dtype.fields
    assert got.dtype.isalignedstruct == expected.dtype.isalignedstruct
    assert got.shape == expected.shape
    assert got.flags.writeable == expected.flags.writeable
    assert got.flags.c_contiguous == expected.flags.c_contiguous
    assert got.flags.f_contiguous == expected.flags.f_contiguous
    np.testing.assert_array_equal(got, expected)


# --- plain and standard types -------------------------------------------------------------------

VALUES = [
    "None",
    "True",
    "False",
    "...",
    "NotImplemented",
    "0",
    "-1",
    "255",
    "2**31",
    "2**63 - 1",
    "-2**63",
    "2**63",
    "-2**63 - 1",
    "2**64",
    "-2**200",
    "10**3000",
    "1.5",
    "-0.0",
    "math.inf",
    "math.nan",
    "5e-324",
    "1-2j",
    "complex('-0-0j')",
    "''",
    "'text'",
    "'grüße 🐍'",
    "'nul \\0 inside'",
    "'x' * 100_000",
    r"'\ud800'",
    r"'file\udcff name'",
    r"'\udc80' * 1000",
    "b''",
    "bytes(range(256))",
    "b'x' * 100_000",
    "bytearray()",
    "bytearray(b'abc')",
    "[]",
    "[1, [2, [3, []]]]",
    "list(range(5000))",
    "()",
    "(1,)",
    "(1, 'two', 3.0, None)",
    "((), ((),))",
    "{}",
    "{'a': 1, 'b': [2], 3: {4: 5}}",
    "{(1, 'x'): None, None: (), 1.5: b'', frozenset([1]): 2}",
    "{i: str(i) for i in range(2000)}",
    "set()",
    "{1}",
    "frozenset()",
    "frozenset({'x'})",
    "range(0)",
    "range(5, -5, -2)",
    "range(2**70, 2**71, 2**65)",
    "slice(None, 5, -1)",
    "slice('a', (1, 2), None)",
    "datetime.date(1, 1, 1)",
    "datetime.date(9999, 12, 31)",
    "datetime.time(23, 59, 59, 999_999)",
    "datetime.time(1, 30, fold=1)",
    "datetime.time(1, 30, tzinfo=datetime.timezone.utc)",
    "datetime.datetime(2024, 2, 29, 12, 0, 0, 1)",
    "datetime.datetime(2024, 10, 27, 2, 30, fold=1)",
    "datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)",
    "datetime.datetime(2024, 1, 1, fold=1, tzinfo=datetime.timezone(datetime.timedelta(hours=-5)))",
    "datetime.timedelta()",
    "datetime.timedelta(-999_999_999)",
    "datetime.timedelta(days=-1, microseconds=1)",
    "datetime.timezone.utc",
    "datetime.timezone(datetime.timedelta(seconds=-1, microseconds=5))",
    r"datetime.timezone(datetime.timedelta(hours=2), 'Süd\udc80')",
    "decimal.Decimal('1.500')",
    "decimal.Decimal('-1E+999999')",
    "decimal.Decimal('-0')",
    "decimal.Decimal('-Infinity')",
    "fractions.Fraction(-6, 4)",
    "fractions.Fraction(2**100, 3**50)",
    "uuid.UUID(int=0)",
    "uuid.UUID(int=2**128 - 1)",
    "uuid.uuid5(uuid.NAMESPACE_DNS, 'example.org')",
    "pathlib.PurePosixPath()",
    "pathlib.PurePosixPath('/a/b/../c.txt')",
    r"pathlib.PurePosixPath('raw\udcff')",
    r"pathlib.PureWindowsPath('C:\\a\\b')",
    "OrderedDict()",
    "OrderedDict([('b', 1), ('a', 2)])",
    "Counter()",
    "Counter('abracadabra')",
    "defaultdict(None, {'a': [1]})",
    "deque()",
    "deque([1, 2, 3])",
    "deque([1, 2, 3], maxlen=3)",
    "deque([], maxlen=0)",
    "deque(range(500))",
]


@pytest.mark.parametrize("expression", VALUES)
def test_values_arrive_as_they_were(cell, names, expression):
    expected = eval(expression, names)
    got = sent(cell, expression)
    assert_same(got, expected)
    if type(expected).__name__ in ("time", "datetime"):
        assert (got.fold, got.tzinfo) == (expected.fold, expected.tzinfo)
    if type(expected).__name__ in ("time", "datetime", "timedelta"):
        assert hash(got) == hash(expected)


def test_all_values_in_one_message(cell, names):
    together = f"[{', '.join(VALUES)}]"
    assert_same(sent(cell, together), eval(together, names))


def test_values_return_from_calls(cell):
    assert_same(cell.call("copy.copy", [1, "x", 2**70], timeout=PATIENCE), [1, "x", 2**70])


def test_a_signalling_nan_arrives(cell):
    got = sent(cell, "decimal.Decimal('sNaN123')")
    assert type(got) is decimal.Decimal
    assert got.as_tuple() == decimal.Decimal("sNaN123").as_tuple()


def test_a_uuid_keeps_how_safely_it_was_made(cell):
    for name in ("safe", "unsafe", "unknown"):
        got = sent(cell, f"uuid.UUID(int=5, is_safe=uuid.SafeUUID.{name})")
        assert got == uuid.UUID(int=5)
        assert got.is_safe is uuid.SafeUUID[name]


def test_an_ordered_dict_still_moves_its_entries(cell):
    got = sent(cell, "OrderedDict([(2, 'x'), (1, 'y'), (2, 'z')])")
    got.move_to_end(2)
    assert list(got.items()) == [(1, "y"), (2, "z")]


def test_a_pickle_buffer_arrives_as_bytes(cell):
    for size in (0, 10, 1_000_000):
        assert_same(sent(cell, f"pickle.PickleBuffer(b'x' * {size})"), b"x" * size)
        assert_same(sent(cell, f"pickle.PickleBuffer(bytearray({size}))"), bytearray(size))


@pytest.mark.parametrize("key", ["fold=1", "fold=0"])
def test_keys_are_found_again(cell, key):
    got = sent(cell, f"{{datetime.time(1, {key}): 1, decimal.Decimal('1.0'): 2, (1, ('a',)): 3}}")
    assert got[dt.time(1)] == 1
    assert got[1] == 2
    assert got[1, ("a",)] == 3


def test_the_host_can_change_what_it_got(cell):
    got = sent(cell, "[[1], {'a': set()}, bytearray(b'x'), np.zeros(3), np.zeros(10_000)]")
    got[0].append(2)
    got[1]["a"].add(3)
    got[2].extend(b"yz")
    got[3][0] = got[4][-1] = 9
    assert (got[0], got[1], got[2]) == ([1, 2], {"a": {3}}, b"xyz")
    assert (got[3][0], got[4][-1]) == (9, 9)
    assert_serves()


# --- identity -----------------------------------------------------------------------------------


def test_what_was_one_object_is_one_object(cell):
    run(
        cell,
        """
shared = [1]
text = "some text " * 3
array = np.arange(5)
zone = datetime.timezone(datetime.timedelta(hours=1), "one")
post((shared, {"again": shared}, [shared, list(shared)], text, [text]))
post([array, array, array.copy()])
post([datetime.time(1, tzinfo=zone), datetime.datetime(2024, 1, 1, tzinfo=zone), zone])
post([big := 2**100, big, Counter("a")] * 2)
""",
    )
    first, second, (third, equal), text, (same,) = cell.recv(PATIENCE)
    assert first is second["again"] is third
    assert equal == first
    assert equal is not first
    assert text is same
    array, again, copied = cell.recv(PATIENCE)
    assert array is again
    assert not np.shares_memory(array, copied)
    time, moment, zone = cell.recv(PATIENCE)
    assert time.tzinfo is zone
    assert moment.tzinfo is zone
    parts = cell.recv(PATIENCE)
    assert parts[2] is parts[5]


def test_utc_is_the_singleton(cell):
    assert sent(cell, "datetime.timezone.utc") is dt.UTC
    assert sent(cell, "datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)").tzinfo is dt.UTC


def test_messages_share_nothing(cell):
    run(cell, "shared = [1]\npost(shared)\npost(shared)")
    first, second = cell.recv(PATIENCE), cell.recv(PATIENCE)
    assert first == second == [1]
    assert first is not second


def test_wide_sharing_stays_small(cell):
    run(cell, "level = 'x'\nfor _ in range(100): level = [level, level]\npost(level)")
    level = cell.recv(PATIENCE)
    for _ in range(100):
        assert level[0] is level[1]
        level = level[0]
    assert level == "x"


def test_deep_nesting_arrives(cell):
    run(cell, "deep = []\nfor _ in range(150): deep = [deep]\npost(deep)")
    deep, levels = cell.recv(PATIENCE), 0
    while deep:
        (deep,) = deep
        levels += 1
    assert levels == 150


# --- numpy --------------------------------------------------------------------------------------

RECORD = "[('id', '<i4'), ('at', '>f8', (2, 3)), ('in', [('s', 'S3'), ('t', 'M8[ns]')])]"

ARRAYS = [
    "np.arange(6)",
    "np.arange(24).reshape(2, 3, 4)",
    "np.asfortranarray(np.arange(6).reshape(2, 3))",
    "np.array(3.5)",
    "np.array(7, dtype='>i2')",
    "np.empty(0)",
    "np.empty((0, 3))",
    "np.zeros((2, 0, 4), order='F')",
    "np.arange(10)[::2]",
    "np.arange(10)[::-1]",
    "np.arange(24).reshape(2, 3, 4)[:, 1, ::2]",
    "np.broadcast_to(np.arange(3), (4, 3)).copy()",
    "np.array([True, False])",
    "np.array([1, 2], dtype='u1')",
    "np.array([1, 2], dtype='>u8')",
    "np.array([0.5, np.nan, np.inf], dtype='f2')",
    "np.array([0.5], dtype=np.longdouble)",
    "np.array([1 + 2j], dtype='c8')",
    "np.array(['a', 'grüße', ''])",
    "np.array([b'a', b'bcd'])",
    "np.array([b'ab\\0'], dtype='V3')",
    "np.array(['2024-01-01', 'NaT'], dtype='M8[D]')",
    "np.array(['2024-01-01T00:00:01'], dtype='>M8[ns]')",
    "np.array([1, -5], dtype='m8[25us]')",
    f"np.zeros(3, dtype={RECORD})",
    "np.zeros((2, 2), dtype=np.dtype([('a', 'i1'), ('b', 'f8')], align=True))",
    "np.zeros(2, dtype={'names': ['x'], 'formats': ['i4'], 'offsets': [4], 'itemsize': 16})",
    "np.zeros(3, dtype=[])",
    # Large enough to travel out of band.
    "np.arange(100_000.0)",
    "np.arange(100_000).reshape(10, 100, 100)",
    "np.asfortranarray(np.arange(100_000).reshape(10, 100, 100))",
    "np.arange(100_000)[::2]",
    f"np.zeros(1000, dtype={RECORD})",
    "np.full(50_000, 'NaT', dtype='M8[us]')",
]


@pytest.mark.parametrize("expression", ARRAYS)
def test_arrays_arrive_as_they_were(cell, names, expression):
    expected = eval(expression, names)
    got = sent(cell, expression)
    assert type(got) is np.ndarray
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.dtype.fields == expected.dtype.fields
    np.testing.assert_array_equal(got, expected)
    assert got.flags.writeable
    if expected.flags.f_contiguous:
        assert got.flags.f_contiguous
    if expected.size:
        got[...] = np.zeros((), got.dtype)
        np.testing.assert_array_equal(got, np.zeros_like(got))


def test_axes_keep_their_order(cell, names):
    expression = "np.arange(100_000).reshape(10, 100, 100).transpose(1, 2, 0)"
    expected = eval(expression, names)
    got = sent(cell, expression)
    np.testing.assert_array_equal(got, expected)
    assert got.shape == expected.shape


@pytest.mark.parametrize("size", [5, 100_000])
def test_a_read_only_array_stays_read_only(cell, size):
    run(
        cell,
        f"""
frozen = np.arange({size})
frozen.flags.writeable = False
post([frozen, np.arange({size})])
""",
    )
    frozen, free = cell.recv(PATIENCE)
    np.testing.assert_array_equal(frozen, free)
    free[0] = 1
    # A small one travels in the pickle, where numpy itself would make it writable too.
    if size > 1000:
        with pytest.raises(ValueError, match="read-only"):
            frozen[0] = 1


def test_a_large_array_is_not_copied_and_outlives_all_else():
    rows = 8 << 20  # 64 MiB
    with new_cell(allowed_imports=["numpy"]) as cell:
        run(cell, f"import numpy as np\npost({{'a': np.arange({rows}), 'b': np.ones(4096)}})")
        message = cell.recv(PATIENCE)
    array = message["a"]
    del message
    assert array.shape == (rows,)
    assert array[0] == 0
    assert array[-1] == rows - 1
    assert int(array.sum()) == rows * (rows - 1) // 2
    assert not array.flags.owndata
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    assert type(base).__name__ == "SharedBytes"
    array += 1
    assert array[0] == 1
    assert len(base) == array.nbytes


def test_many_arrays_of_one_message_do_not_touch(cell):
    got = sent(cell, "[np.full(5000, number) for number in range(20)]")
    for number, array in enumerate(got):
        array += 100
        assert (array == number + 100).all()


SCALARS = [
    "np.bool_(True)",
    "np.int8(-3)",
    "np.uint64(2**64 - 1)",
    "np.float16(0.5)",
    "np.float64(-1.5)",
    "np.longdouble('0.1')",
    "np.complex64(1 - 2j)",
    "np.str_('grüße')",
    "np.str_('')",
    "np.bytes_(b'x')",
    "np.datetime64('2024-01-01T00:00:00', 'ns')",
    "np.timedelta64(5, 's')",
    "np.void(b'abc')",
    f"np.zeros(1, dtype={RECORD})[0]",
]


@pytest.mark.parametrize("expression", SCALARS)
def test_scalars_arrive_as_they_were(cell, names, expression):
    expected, got = eval(expression, names), sent(cell, expression)
    assert type(got) is type(expected)
    assert got.dtype == expected.dtype
    assert got == expected


def test_a_record_scalar_can_be_changed(cell):
    got = sent(cell, f"np.zeros(1, dtype={RECORD})[0]")
    got["id"] = 5
    assert got["id"] == 5


@pytest.mark.parametrize(
    "expression",
    [
        "np.dtype('f8')",
        "np.dtype('>u2')",
        "np.dtype('M8[25ms]')",
        "np.dtype('U7')",
        "np.dtype(('i4', (2, 3)))",
        f"np.dtype({RECORD})",
        "np.dtype([('a', 'i1'), ('b', 'f8')], align=True)",
    ],
)
def test_dtypes_arrive_as_they_were(cell, names, expression):
    expected, got = eval(expression, names), sent(cell, expression)
    assert got == expected
    assert got.isalignedstruct == expected.isalignedstruct
    assert repr(got) == repr(expected)


def test_arrays_share_their_dtype(cell):
    got = sent(cell, f"(lambda kind: [np.zeros(2, kind), np.zeros(3, kind)])(np.dtype({RECORD}))")
    assert got[0].dtype is got[1].dtype


def test_an_array_of_objects_is_refused(cell):
    with pytest.raises(pyisolate.SandboxError, match="tolist"):
        sent(cell, "np.array([1, None])")


def test_a_host_without_numpy_is_told_so():
    code = f"""
import sys
sys.modules["numpy"] = None
import pyisolate
with pyisolate.spawn("no-numpy", allowed_imports=["numpy"]) as cell:
    cell.exec("import numpy as np; post(np.arange(3)); post('next')").wait({PATIENCE})
    try:
        cell.recv({PATIENCE})
    except ImportError as error:
        assert "install numpy in the host" in str(error), error
        assert error.__cause__ is not None
    else:
        raise AssertionError("an array arrived without numpy")
    assert cell.recv({PATIENCE}) == "next"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


# --- classes that the host registered -----------------------------------------------------------

SHAPES = """
import collections, dataclasses, enum, typing

class Ran(Exception): pass

class Plain:
    def __init__(self, x, y): self.x, self.y = x, y
    def __eq__(self, other): return vars(self) == vars(other)
    def method(self): return "the class's"
    @property
    def computed(self): return "the class's"
    def __setattr__(self, name, value): object.__setattr__(self, name, value)

@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0
    tags: list = dataclasses.field(default_factory=list)

@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
    y: str = "y"

@dataclasses.dataclass(slots=True)
class Slotted:
    x: int
    y: str = "y"

@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlotted:
    x: int
    y: object = None

@dataclasses.dataclass
class Derived(Point):
    z: int = 3

class Mixed:
    __slots__ = ("__private", "public", "__dict__")
    def __init__(self): self.__private, self.public, self.loose = 1, 2, 3
    def __eq__(self, other):
        return (self.__private, self.public, self.loose) == (
            other.__private, other.public, other.loose)

Pair = collections.namedtuple("Pair", "left right")

class Named(typing.NamedTuple):
    a: int
    b: str = "b"

class Text(str): pass
class Whole(int):
    def __new__(cls, *args): return super().__new__(cls, *args)
class Real(float): pass
class Imaginary(complex): pass
class Raw(bytes): pass
class Row(tuple): pass
class Tags(frozenset): pass

class Failure(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code
    def __eq__(self, other): return (self.args, self.code) == (other.args, other.code)

class Colour(enum.Enum):
    RED = 1
    GREEN = "g"
    LIST = [1, 2]
    @classmethod
    def _missing_(cls, value): raise Ran

class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2

class Mode(enum.StrEnum):
    READ = "r"

class Right(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4

class Bits(enum.IntFlag):
    A = 1
    B = 2

class Key:
    def __init__(self, value): self.value = value
    def __hash__(self): return hash(self.value)
    def __eq__(self, other): return type(other) is Key and self.value == other.value

class Restored:
    def __init__(self): self.x = 1
    def __setstate__(self, state): raise Ran

class Made:
    def __new__(cls): return super().__new__(cls)

class Reduced:
    def __reduce__(self): return Reduced, (1,)

class Stated:
    def __getstate__(self): return [1, 2]

class Argued:
    def __new__(cls, x=None): return super().__new__(cls)
    def __getnewargs__(self): return (1,)

Wide = enum.Flag("Wide", {f"F{bit}": 1 << bit for bit in range(20)}, module=__name__)
"""


@pytest.fixture(scope="module")
def shapes():
    """The host's side of the classes; in `__main__`, as the guest's are."""
    shapes = {"__name__": "__main__"}
    exec(SHAPES, shapes)
    return shapes


@pytest.fixture(scope="module")
def shared_typed(shapes):
    trusted = [
        value
        for value in shapes.values()
        if isinstance(value, type) and value.__module__ == "__main__"
    ]
    with new_cell(allowed_imports=IMPORTS, trusted_types=trusted) as cell:
        run(cell, SHAPES)
        yield cell


@pytest.fixture
def typed(shared_typed):
    yield shared_typed
    empty(shared_typed)


INSTANCES = [
    "Plain(1, [2, (3,)])",
    "Plain('é\\udc80', None)",
    "Point(1.5, -2.0, ['a'])",
    "Frozen(1)",
    "Slotted(1, 'é')",
    "FrozenSlotted(3, FrozenSlotted(4))",
    "Derived(1.0, 2.0, [], 4)",
    "Mixed()",
    "Pair(1, [2])",
    "Named(1)",
    "Text('grüße')",
    "Whole(5)",
    "Whole(2**80)",
    "Real(1.5)",
    "Imaginary(1 - 2j)",
    "Raw(b'abc')",
    "Row()",
    "Row((1, (2,)))",
    "Tags({1, 2})",
    "Failure(7, 'why')",
    "Point(Frozen(1), Pair(Colour.RED, Level.HIGH), [Slotted(1)])",
]


@pytest.mark.parametrize("expression", INSTANCES)
def test_instances_arrive_as_they_were(typed, shapes, expression):
    expected = eval(expression, shapes)
    got = sent(typed, expression)
    assert type(got) is type(expected)
    assert got == expected


@pytest.mark.parametrize(
    "expression",
    [
        "Colour.RED",
        "Colour.GREEN",
        "Colour.LIST",
        "Level.HIGH",
        "Mode.READ",
        "Right.READ",
        "Right.READ | Right.RUN",
        "Right(0)",
        "~Right.READ",
        "Bits.A | Bits.B",
        "Wide.F19",
    ],
)
def test_members_are_the_hosts_own(typed, shapes, expression):
    got = sent(typed, expression)
    assert got is eval(expression, shapes)


def test_attributes_of_data_types_arrive(typed):
    run(typed, "whole = Whole(5)\nwhole.note = 'kept'\npost(whole)")
    got = typed.recv(PATIENCE)
    assert (int(got), got.note) == (5, "kept")


def test_instances_keep_their_identity(typed):
    run(typed, "point = Point(1.0)\npost([point, {'again': point}, Frozen(point)])")
    point, again, frozen = typed.recv(PATIENCE)
    assert point is again["again"] is frozen.x


def test_instances_are_keys(typed, shapes):
    got = sent(typed, "{Key((1, 2)): 'x', Frozen(1): 'y', Pair(1, 2): 'z', Level.LOW: 'w'}")
    assert got[shapes["Key"]((1, 2))] == "x"
    assert got[shapes["Frozen"](1)] == "y"
    assert got[shapes["Pair"](1, 2)] == "z"


def test_nothing_of_the_class_runs(shapes):
    def fail(*_args, **_kwargs):
        raise AssertionError("it ran")

    plain = type("Plain", (), {"__module__": "__main__", "__qualname__": "Plain"})
    for name in ("__init__", "__setattr__", "__getattribute__", "__reduce__", "__getstate__"):
        setattr(plain, name, fail)
    with new_cell(trusted_types=[plain]) as cell:
        run(cell, "class Plain: pass\nplain = Plain()\nplain.x = 1\npost(plain)")
        got = cell.recv(PATIENCE)
    assert type(got) is plain
    assert object.__getattribute__(got, "__dict__") == {"x": 1}


REFUSED = {
    "Restored()": "Restored has a __setstate__ of its own",
    "Made()": "Made has a __new__ of its own",
    "Argued()": "Argued has a __new__ of its own",
    "Reduced()": "Reduced with arguments for a constructor",
    "Stated()": "Stated with state that is not attributes",
    "Wide.F0 | Wide.F1": "flags of Wide, which has more than 16",
}


@pytest.mark.parametrize(("expression", "message"), REFUSED.items())
def test_what_cannot_be_rebuilt_is_refused(typed, expression, message):
    with pytest.raises(TypeError, match=message) as caught:
        sent(typed, expression)
    assert "send" in str(caught.value)
    assert sent(typed, "'next'") == "next"


@pytest.mark.parametrize(
    "source",
    [
        "plain.__dict__['method'] = 5",
        "plain.__dict__['computed'] = 5",
        "plain.__dict__['__init__'] = 5",
    ],
)
def test_no_attribute_hides_a_method(typed, source):
    run(typed, f"plain = Plain(1, 2)\n{source}\npost(plain)")
    with pytest.raises(TypeError, match="would hide"):
        typed.recv(PATIENCE)


@pytest.mark.parametrize(
    ("guest", "message"),
    [
        ("class Colour(enum.Enum): BLUE = 9\npost(Colour.BLUE)", "none of its members"),
        ("class Right(enum.Flag): MORE = 64\npost(Right.MORE)", "none of its members"),
        ("class Colour: pass\npost(Colour())", "none of its members"),
        (
            "class Slotted: pass\nit = Slotted()\nit.x, it.more = 1, 2\npost(it)",
            "attributes that it has no slots for",
        ),
        (
            "class Slotted: __slots__ = ('x', 'more')\n"
            "it = Slotted()\nit.x, it.more = 1, 2\npost(it)",
            'a slot "more" that it does not declare',
        ),
        (
            "@dataclasses.dataclass(frozen=True, slots=True)\n"
            "class FrozenSlotted: x: int\npost(FrozenSlotted(1))",
            "another number of fields",
        ),
        ("Pair = collections.namedtuple('Pair', 'left')\npost(Pair(1))", "arguments for a constr"),
        ("class Point(str): pass\npost(Point('x'))", "arguments for a constructor"),
        ("class Text: pass\npost(Text())", "arguments for a constructor"),
    ],
)
def test_another_definition_in_the_guest_is_refused(shapes, guest, message):
    trusted = [
        shapes[name]
        for name in ("Colour", "Right", "Slotted", "FrozenSlotted", "Pair", "Point", "Text")
    ]
    with new_cell(allowed_imports=IMPORTS, trusted_types=trusted) as cell:
        run(cell, f"import collections, dataclasses, enum\n{guest}\npost('next')")
        with pytest.raises(TypeError, match=message):
            cell.recv(PATIENCE)
        assert cell.recv(PATIENCE) == "next"


def test_subclasses_of_other_types_are_refused():
    money = type("Money", (decimal.Decimal,), {"__module__": "__main__", "__qualname__": "Money"})
    with new_cell(allowed_imports=["decimal"], trusted_types=[money]) as cell:
        run(cell, "import decimal\nclass Money(decimal.Decimal): pass\npost(Money('1.5'))")
        with pytest.raises(TypeError, match=r"Money derives from decimal\.Decimal"):
            cell.recv(PATIENCE)


def test_a_class_registered_twice_keeps_the_others_in_place(shapes):
    trusted = [shapes["Frozen"], shapes["Frozen"], shapes["Pair"]]
    with new_cell(allowed_imports=IMPORTS, trusted_types=trusted) as cell:
        run(cell, SHAPES)
        assert type(sent(cell, "Pair(1, 2)")) is shapes["Pair"]
        assert type(sent(cell, "Frozen(1)")) is shapes["Frozen"]


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("type('Own', (), {})()", "Own"),
        ("Own", "Own"),
        ("len", "len"),
        ("dict", "dict"),
        ("pathlib.Path('.')", "PosixPath"),
        ("defaultdict(list)", "list"),
        ("lambda: 0", "lambda|function"),
        ("(number for number in [])", "generator"),
    ],
)
def test_what_is_not_data_names_its_class(cell, expression, name):
    run(cell, "class Own: pass")
    with pytest.raises(pyisolate.SandboxError, match=name):
        sent(cell, expression)
    run(cell, "post('next')")
    assert cell.recv(PATIENCE) == "next"


def test_ranges_of_huge_bounds_are_refused(cell):
    with pytest.raises(pyisolate.GuestError, match="2048"):
        sent(cell, "range(0, 2**5000)")
    assert sent(cell, "range(0, 2**2000)") == range(2**2000)
