"""Every type that crosses, with its usual and its extreme values, in every direction."""

import collections
import datetime
import decimal
import fractions
import math
import pathlib
import uuid
from typing import Any

from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("values")

_MODULES = (collections, datetime, decimal, fractions, math, pathlib, uuid)
_NAMES: dict[str, Any] = {module.__name__: module for module in _MODULES}
_IMPORT = f"import {', '.join(_NAMES)}"

VALUES = {
    "None": "None",
    "True": "True",
    "False": "False",
    "Ellipsis": "...",
    "NotImplemented": "NotImplemented",
    "str empty": "''",
    "str ascii": "'text'",
    "str latin": "'grüße'",
    "str of many scripts": "'ελληνικά 中文 العربية हिन्दी'",
    "str beyond the first plane": "'🐍🐧\\U0010ffff'",
    "str with nul": "'nul \\0 inside'",
    "str with controls": "'\\x01\\x1b[31m\\x7f\\u2028\\u202e'",
    "str combining": "'e\\u0301 \\ufeff'",
    "str with line ends": "'a\\nb\\r\\nc\\r'",
    "str of 255": "'x' * 255",
    "str of 256": "'x' * 256",
    "str of 100000": "'ü' * 100_000",
    "str with a surrogate": "'\\ud800'",
    "bytes empty": "b''",
    "bytes of all values": "bytes(range(256))",
    "bytes of 255": "b'x' * 255",
    "bytes of 256": "b'x' * 256",
    "bytes of 100000": "b'xyz' * 33_333 + b'!'",
    "bytearray empty": "bytearray()",
    "bytearray": "bytearray(b'abc')",
    "bytearray of 100000": "bytearray(b'q') * 100_000",
    "list empty": "[]",
    "list nested": "[1, [2, [3, []]]]",
    "list of 5000": "list(range(5000))",
    "list deep": "(lambda deep: [deep := [deep] for _ in range(100)][-1])([])",
    "tuple empty": "()",
    "tuple of one": "(1,)",
    "tuple of four": "(1, 'two', 3.0, None)",
    "tuple nested": "((), ((),), ([()],))",
    "dict empty": "{}",
    "dict nested": "{'a': 1, 'b': [2], 3: {4: 5}}",
    "dict order": "{'z': 1, 'a': 2, 'm': 3}",
    "dict with many kinds of keys": "{(1, 'x'): None, None: (), 1.5: b'', frozenset([1]): 2}",
    "dict of 2000": "{i: str(i) for i in range(2000)}",
    "set empty": "set()",
    "set": "{1, 2, 3}",
    "set of tuples": "{(1, 'a'), (2, 'b')}",
    "set of str": "{'one', 'two', 'three'}",
    "frozenset empty": "frozenset()",
    "frozenset": "frozenset({'x', 1})",
    "frozenset nested": "{frozenset({frozenset()})}",
    "complex": "1-2j",
    "complex negative zeros": "complex(-0.0, -0.0)",
    "complex infinite": "complex(math.inf, -math.inf)",
    "range empty": "range(0)",
    "range backwards": "range(5, -5, -2)",
    "range huge": "range(2**70, 2**71, 2**65)",
    "slice": "slice(None, 5, -1)",
    "slice of anything": "slice('a', (1, 2), None)",
    "date first": "datetime.date(1, 1, 1)",
    "date last": "datetime.date(9999, 12, 31)",
    "date leap": "datetime.date(2024, 2, 29)",
    "time": "datetime.time(23, 59, 59, 999_999)",
    "time midnight": "datetime.time()",
    "time fold": "datetime.time(1, 30, fold=1)",
    "time utc": "datetime.time(1, 30, tzinfo=datetime.timezone.utc)",
    "datetime": "datetime.datetime(2024, 2, 29, 12, 0, 0, 1)",
    "datetime first": "datetime.datetime.min",
    "datetime last": "datetime.datetime.max",
    "datetime fold": "datetime.datetime(2024, 10, 27, 2, 30, fold=1)",
    "datetime utc": "datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)",
    "datetime offset": "datetime.datetime(2024, 1, 1, fold=1,"
    " tzinfo=datetime.timezone(datetime.timedelta(hours=-5)))",
    "timedelta zero": "datetime.timedelta()",
    "timedelta least": "datetime.timedelta.min",
    "timedelta most": "datetime.timedelta.max",
    "timedelta negative": "datetime.timedelta(days=-1, microseconds=1)",
    "timezone utc": "datetime.timezone.utc",
    "timezone odd": "datetime.timezone(datetime.timedelta(seconds=-1, microseconds=5))",
    "timezone named": "datetime.timezone(datetime.timedelta(hours=2), 'Süd')",
    "Decimal": "decimal.Decimal('1.500')",
    "Decimal zero": "decimal.Decimal('-0')",
    "Decimal exponent": "decimal.Decimal('-1E+999999')",
    "Decimal infinite": "decimal.Decimal('-Infinity')",
    "Decimal nan": "decimal.Decimal('NaN123')",
    "Decimal signalling nan": "decimal.Decimal('-sNaN7')",
    "Decimal long": "decimal.Decimal('3.' + '14' * 100)",
    "Fraction": "fractions.Fraction(-6, 4)",
    "Fraction zero": "fractions.Fraction(0)",
    "Fraction huge": "fractions.Fraction(2**100, 3**50)",
    "UUID least": "uuid.UUID(int=0)",
    "UUID most": "uuid.UUID(int=2**128 - 1)",
    "UUID of a name": "uuid.uuid5(uuid.NAMESPACE_DNS, 'example.org')",
    "PurePosixPath empty": "pathlib.PurePosixPath()",
    "PurePosixPath": "pathlib.PurePosixPath('/a/b/../c.txt')",
    "PurePosixPath unicode": "pathlib.PurePosixPath('ä/б')",
    "PureWindowsPath": "pathlib.PureWindowsPath('C:\\\\a\\\\b')",
    "OrderedDict empty": "collections.OrderedDict()",
    "OrderedDict": "collections.OrderedDict([('b', 1), ('a', 2)])",
    "Counter empty": "collections.Counter()",
    "Counter": "collections.Counter('abracadabra')",
    "Counter negative": "collections.Counter(a=-1, b=0)",
    "defaultdict": "collections.defaultdict(None, {'a': [1]})",
    "deque empty": "collections.deque()",
    "deque": "collections.deque([1, 2, 3])",
    "deque bounded": "collections.deque([1, 2, 3], maxlen=3)",
    "deque of length 0": "collections.deque([], maxlen=0)",
    "deque of 500": "collections.deque(range(500))",
    "all together": "[None, (True, {'k': {1.5, 2}}), b'x', [decimal.Decimal(1), uuid.UUID(int=9)],"
    " {datetime.date(2024, 1, 1): collections.deque('ab')}, range(3), 2**80]",
}
"""A name for each expression, which guest and host both evaluate."""

for _bits in (7, 8, 15, 16, 31, 32, 63, 64, 65, 127, 200, 2040, 10_000):
    VALUES[f"int of {_bits} bits"] = f"2**{_bits} - 1"
    VALUES[f"int minus 2 to the {_bits}"] = f"-2**{_bits}"
for _text in ("0", "1", "-1", "255", "256", "-129"):
    VALUES[f"int {_text}"] = _text
for _text in ("0.0", "-0.0", "1.5", "0.1", "-1e300", "5e-324", "1.7976931348623157e308"):
    VALUES[f"float {_text}"] = _text
for _text in ("math.inf", "-math.inf", "math.nan"):
    VALUES[f"float {_text.replace('math.', '')}"] = _text


def _posted(expression: str) -> Steps:
    """The guest makes the value and posts it."""

    def steps(host: Host) -> None:
        cell = host.spawn(allowed_imports=_NAMES)
        cell.exec(f"{_IMPORT}\npost({expression})")
        cell.recv()

    return steps


def _there_and_back(expression: str) -> Steps:
    """The host makes it; the guest gets it by `recv`, says what it is, and sends it back."""

    def steps(host: Host) -> None:
        value = eval(expression, dict(_NAMES))
        cell = host.spawn()
        cell.post(value)
        cell.exec("got = recv(10)\npost(type(got).__name__)\npost(got)")
        cell.recv(2)

    return steps


def _called(expression: str) -> Steps:
    """It goes as an argument, by place and by name, and comes as a result."""

    def steps(host: Host) -> None:
        value = eval(expression, dict(_NAMES))
        cell = host.spawn()
        cell.exec("def back(first, *, named): return [first, named]")
        cell.call("__main__.back", value, named=value)

    return steps


def _logged(expression: str) -> Steps:
    """It goes in a field of a log event, where any value may stand, and in a metric's tags."""

    def steps(host: Host) -> None:
        cell = host.spawn(allowed_imports=_NAMES)
        cell.exec(
            f"{_IMPORT}\nvalue = {expression}\nlog('info', 'm', field=value)\n"
            "metric('m', 1, {'tag': value})"
        )
        cell.recv(2)

    return steps


def _asked(expression: str) -> Steps:
    """It goes as the payload of a request to a function of the host's, and as its answer."""

    def steps(host: Host) -> None:
        seen: list[object] = []

        def echo(payload: object) -> object:
            seen.append(payload)
            return payload

        cell = host.spawn(allowed_imports=_NAMES, capabilities={"own": echo})
        cell.exec(f"{_IMPORT}\npost(request('own', 'echo', {expression}))")
        cell.recv()
        host.told("the handler saw", seen)

    return steps


_WAYS = {
    "posted": _posted,
    "there and back": _there_and_back,
    "called": _called,
    "logged": _logged,
    "asked": _asked,
}

for _way, _make in _WAYS.items():
    for _name, _expression in VALUES.items():
        GROUP.add(f"{_way}/{_name}", _make(_expression))
