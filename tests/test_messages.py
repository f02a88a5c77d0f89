"""Values keep their type, their contents and their identity on the way out of a cell."""

import datetime as dt
import decimal
import math
import uuid

import numpy as np
import pytest

import pyisolate
from cells import PATIENCE, assert_serves, new_cell, run
from posted import empty, sent

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


@pytest.fixture(scope="module")
def names():
    names = {}
    exec(PRELUDE, names)
    return names


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


# --- refusals -----------------------------------------------------------------------------------


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
