"""Values as the `pyisolate` command prints them: as Python writes them, and as JSON."""

import base64
import collections
import datetime
import decimal
import fractions
import pathlib
import uuid

import numpy as np
import pytest

from command import lines, script_runner


@pytest.fixture
def run(require, tmp_path):
    require("userns", "seccomp")
    return script_runner(tmp_path)


VALUES = [
    "None, ..., NotImplemented, True",
    "0, -1, 2**63, -2**63, -2**64, 10**40, -(10**4000)",
    "0.0, -0.0, 1.0, 0.1, 1e15, 1e16, 1e-4, 1e-5, 1.5e300, 5e-324, float('inf'), float('nan')",
    "1j, 1+2j, -1.5-0j, complex('inf')",
    "'', 'a', \"it's\", 'say \"it\"', 'both \\' and \"'",
    "'tab\\tnew\\nesc\\x1b\\x7f\\x80\\xa0\\xad'",
    "'grüße', '🐍', 'e\\u0301', '\\u202e', '\\ud800', '\\U000e0001', '\\\\'",
    "b'', b'abc', b'\\x00\\xff\\n\\'', bytearray(b'x'), bytes(range(256))",
    "[], [1, [2, [3]]], (), (1,), (1, 2), {}, {'a': 1, 2: (3,)}",
    "set(), {1}, frozenset(), frozenset({1})",
    "collections.OrderedDict(), collections.OrderedDict(a=1), collections.deque()",
    "collections.deque([1, 2], maxlen=3), collections.defaultdict(None, a=1)",
    "range(3), range(1, 9, 2), slice(3), slice(1, None, 'x')",
    "datetime.date(2024, 2, 29), datetime.time(1, 2), datetime.time(1, 2, 3, 4, fold=1)",
    "datetime.datetime(1, 1, 1), datetime.datetime(2024, 1, 2, 3, 4, 5, 6, datetime.UTC)",
    "datetime.timedelta(), datetime.timedelta(-1, 2, 3), datetime.timezone.utc",
    "datetime.timezone(datetime.timedelta(hours=-3.5))",
    "datetime.timezone(datetime.timedelta(1, -1), 'x')",
    "decimal.Decimal('1.50'), decimal.Decimal('NaN'), fractions.Fraction(-1, 3)",
    "uuid.UUID(int=5), pathlib.PurePosixPath('/a/b'), pathlib.PurePosixPath('a')",
    "pathlib.PurePosixPath(), pathlib.PurePosixPath('//a'), pathlib.PurePosixPath('../a/../b')",
    "pathlib.PureWindowsPath('c:\\\\a\\\\b')",
    "np.float64(2.5), np.float64('nan'), np.float32(0.1), np.float16(0.5), np.int8(-3)",
    "np.uint64(2**64 - 1), np.True_, np.False_, np.str_('a'), np.bytes_(b'a'), np.complex128(1-2j)",
    "np.array([1, 2, 3]), np.array([[1, 2], [3, 4]]).T[:1], np.array(['a', 'b'])",
]


@pytest.mark.parametrize("values", VALUES)
def test_values_are_printed_as_python_writes_them(run, values):
    modules = "collections, datetime, decimal, fractions, pathlib, uuid"
    source = f"import {modules}\nimport numpy as np\nfor value in [{values}]: post(value)"
    done = run(source, "--import", "numpy," + modules)
    assert (done.stderr, done.returncode) == ("", 0)
    known = [collections, datetime, decimal, fractions, pathlib, uuid]
    namespace = {"np": np} | {module.__name__: module for module in known}
    assert done.stdout.splitlines() == [repr(value) for value in eval(f"[{values}]", namespace)]


def test_long_values_are_cut_for_people_only(run):
    source = "post('x' * 50_000)\nx = []\nfor _ in range(60): x = [x, x]\npost(x)\npost(1)"
    done = run(source)
    first, second, third = done.stdout.splitlines()
    assert first.startswith("'xxx")
    assert first.endswith("... [cut; --json prints all of it]")
    assert len(first) < 11_000
    assert second.startswith("[[[[")
    assert third == "1"
    events, _ = lines(run(source, "--json"))
    assert events[0] == {"type": "post", "value": "x" * 50_000}
    # Shared values are written out each time, of which there is no end here.
    assert "without end" in events[1]["omitted"]
    assert events[2]["value"] == 1


def test_json_has_every_event_in_order(run):
    done = run(
        """
print("line")
log("warning", "odd", rows=3)
metric("rows", 344, {"table": "penguins"})
metric("ratio", 0.5)
post({"a": [1, 2.5, None, True, "x"]})
try: request("files", "open", {"path": "/x"})
except PermissionError: pass
""",
        "--json",
    )
    events, end = lines(done)
    assert events == [
        {"type": "log", "level": "info", "message": "line", "fields": {"stream": "stdout"}},
        {"type": "log", "level": "warning", "message": "odd", "fields": {"rows": 3}},
        {"type": "metric", "name": "rows", "value": 344, "tags": {"table": "penguins"}},
        {"type": "metric", "name": "ratio", "value": 0.5, "tags": None},
        {"type": "post", "value": {"a": [1, 2.5, None, True, "x"]}},
    ]
    assert end["status"] == "success"
    [denial] = end["denials"]
    assert (denial["capability"], denial["action"]) == ("files", "open")
    assert end["stats"]["denied"] == 1


def b64(data):
    return base64.b64encode(data).decode()


JSON = {
    "(1, [2])": [1, [2]],
    "2**70": {"$int": str(2**70)},
    "-(10**5000)": {"$int": hex(-(10**5000))},
    "float('nan')": {"$float": "nan"},
    "float('-inf')": {"$float": "-inf"},
    "1+2j": {"$complex": "(1+2j)"},
    "'\\x1b\"\\ud800'": '\x1b"\ud800',
    "b'\\x00\\xff'": {"$bytes": b64(b"\x00\xff")},
    "bytearray(b'a')": {"$bytearray": b64(b"a")},
    "{1}": {"$set": [1]},
    "frozenset()": {"$frozenset": []},
    "{1: 2}": {"$dict": [[1, 2]]},
    "{'$bytes': 'x'}": {"$dict": [["$bytes", "x"]]},
    "{'$a': 1, 'b': 2}": {"$a": 1, "b": 2},
    "range(3)": {"$range": [0, 3, 1]},
    "datetime.datetime(2024, 1, 2, 3, 4, 5, 6, datetime.UTC)": {
        "$datetime": "2024-01-02T03:04:05.000006+00:00"
    },
    "datetime.date(2024, 1, 2)": {"$date": "2024-01-02"},
    "datetime.time(1, 2)": {"$time": "01:02:00"},
    "datetime.timedelta(-1, 0, 1)": {"$timedelta": -86399.999999},
    "datetime.timezone(datetime.timedelta(hours=-3.5))": {"$timezone": "-03:30"},
    "decimal.Decimal('1.50')": {"$decimal": "1.50"},
    "np.float64(0.1)": 0.1,
    "np.float32(0.1)": float(np.float32(0.1)),
    "np.int16(-2)": -2,
    "np.True_": True,
    "np.arange(3, dtype='<i2')": {
        "$ndarray": {
            "dtype": "<i2",
            "shape": [3],
            "order": "C",
            "data": b64(b"\x00\x00\x01\x00\x02\x00"),
        }
    },
    "...": {"$repr": "Ellipsis"},
}


def test_json_says_what_json_lacks(run):
    source = "import datetime, decimal\nimport numpy as np\n"
    source += "\n".join(f"post({value})" for value in JSON)
    done = run(source, "--json", "--import", "datetime,decimal,numpy")
    events, _ = lines(done)
    assert [event["value"] for event in events] == list(JSON.values())


def test_large_arrays_are_whole_in_json(run):
    source = "import numpy as np\npost(np.arange(30_000.0).reshape(100, 300).T)"
    [event], _ = lines(run(source, "--json", "--import", "numpy"))
    array = event["value"]["$ndarray"]
    data = np.frombuffer(base64.b64decode(array["data"]), array["dtype"])
    rebuilt = data.reshape(array["shape"], order=array["order"])
    rebuilt = rebuilt.transpose(array.get("axes")) if "axes" in array else rebuilt
    np.testing.assert_array_equal(rebuilt, np.arange(30_000.0).reshape(100, 300).T)
