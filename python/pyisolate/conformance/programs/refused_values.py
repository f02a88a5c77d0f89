"""What may not cross is refused where it is sent, by the name of its class, and the cell goes on."""

import sys
import types

from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("refused values")

_IMPORTS = ("collections", "enum", "types", "_thread", "pathlib", "dataclasses", "io")
_PRELUDE = """\
import collections, enum, types, _thread, pathlib, dataclasses, io
class Own: pass
class Sub(dict): pass
class SubInt(int): pass
class SubStr(str): pass
class SubList(list): pass
class Liar:
    def __reduce__(self): return dict, ()
class Colour(enum.Enum): RED = 1
class Level(enum.IntEnum): LOW = 1
@dataclasses.dataclass
class Point:
    x: int = 1
def make(): return {value}
"""

UNSENDABLE = {
    "a lambda": "lambda: 0",
    "a function": "make",
    "an instance": "Own()",
    "a class": "Own",
    "a class of the language": "dict",
    "a namespace": "types.SimpleNamespace(a=1)",
    "a module": "types",
    "a generator": "(x for x in ())",
    "a lock": "_thread.allocate_lock()",
    "an exception": "ValueError(1)",
    "a builtin function": "len",
    "a method": "[].append",
    "a named tuple": "collections.namedtuple('P', 'x')(1)",
    "one deep inside": "{'a': [1, (2, Own())]}",
    "a subclass of dict": "Sub(a=1)",
    "a subclass of int": "SubInt(1)",
    "a subclass of str": "SubStr('a')",
    "a subclass of list": "SubList([1])",
    "one that claims to be a dict": "Liar()",
    "a member of an enum": "Colour.RED",
    "a member of an int enum": "Level.LOW",
    "a dataclass": "Point()",
    "a concrete path": "pathlib.Path('.')",
    "a file": "io.BytesIO()",
    "an iterator": "iter([])",
    "a memoryview": "memoryview(b'x')",
    "a code object": "make.__code__",
    "a view of a dict": "{}.keys()",
    "a property": "property()",
}


def _refused(value: str) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn(allowed_imports=_IMPORTS, capabilities={"own": lambda payload: payload})
        cell.exec(_PRELUDE.format(value=value))
        # CPython names some kinds before the runtime can, in words that are its own.
        is_own = _is_ours(value)
        for source in (
            "post(make())",
            "log('info', 'm', field=make())",
            "metric('m', 1, {'tag': make()})",
            "request('own', 'x', make())",
        ):
            cell.exec(source, message=is_own)
        cell.failing_call("__main__.make", message=is_own)
        cell.run("post('still here')")

    return steps


def _is_ours(value: str) -> bool:
    return any(word in value for word in ("Own", "Sub", "Liar", "Colour", "Level", "Point"))


for _name, _value in UNSENDABLE.items():
    GROUP.add(f"out/{_name}", _refused(_value))

_CYCLES = {
    "a list in itself": "data = []; data.append(data)",
    "a dict in itself": "data = {}; data['self'] = data",
    "two lists in each other": "a = []; data = [a]; a.append(data)",
    "a tuple in its list": "inner = []; data = (inner,); inner.append(data)",
    "a deque in itself": "import collections; data = collections.deque(); data.append(data)",
}


def _cycle(made: str) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn(allowed_imports=["collections"])
        # Found by the host's decoder: it refuses the message, whichever way it came.
        cell.exec(f"{made}\ndef f(): return data\npost(data)")
        cell.recv(says=["contains itself"])
        cell.failing_call("__main__.f", says=["contains itself"])
        cell.run("post('still here')")

    return steps


for _name, _value in _CYCLES.items():
    GROUP.add(f"cycles/{_name}", _cycle(_value))


@GROUP.program()
def far_too_deep(host: Host) -> None:
    cell = host.spawn()
    cell.run("deep = []\nfor _ in range(100_000): deep = [deep]\npost(deep)", message=False)
    cell.run("post('still here')")


@GROUP.program()
def what_fails_to_pickle(host: Host) -> None:
    cell = host.spawn()
    cell.exec("class Bad:\n  def __reduce_ex__(self, protocol): raise OSError('no')\nbad = Bad()")
    cell.exec("post(bad)", message=False)
    cell.run("post('still here')")


@GROUP.program()
def the_host_sends_what_the_guest_cannot_have(host: Host) -> None:
    # Of a module that the host has in memory alone: what is on disk a cell might find.
    module = types.ModuleType("pyisolate_conformance_in_memory")
    local = type("Local", (), {"__module__": module.__name__})
    module.Local = local  # type: ignore[attr-defined]
    cell = host.spawn(allowed_imports=["math"])
    sys.modules[module.__name__] = module
    try:
        cell.post(local())
        cell.failing_call("math.sqrt", (local(),), message=False)
    finally:
        del sys.modules[module.__name__]
    cell.post("next")
    cell.exec("try: recv(5)\nexcept Exception as error: post(type(error).__name__)")
    cell.exec("post(recv(5))")
    cell.recv(2)


# --- trusted_types -------------------------------------------------------------------------------


class Point:
    """A class of the host's whose instances a guest may send."""

    __conformance__ = ("x", "y")

    def __init__(self) -> None:
        raise AssertionError("the host runs no __init__ for a guest")


class Line:
    """Another, which holds instances of the first."""

    __conformance__ = ("ends",)


class Slotted:
    """One without a dict."""

    __slots__ = ("a", "b")
    __conformance__ = ("a", "b")


_POINT = """\
class Point:
    def __init__(self, x, y): self.x, self.y = x, y
class Line:
    def __init__(self, *ends): self.ends = ends
class Slotted:
    __slots__ = ("a", "b")
class Other: pass
"""

_TRUSTED = {
    "an instance": "Point(1, 'two')",
    "several": "[Point(1, 2), Point(3, 4)]",
    "one in another": "Line(Point(0, 0), Point(1, 1))",
    "in a dict": "{'p': Point(None, [1])}",
    "a cell's own class beside it": "[Point(1, 2), Other()]",
    "the class itself": "Point",
}


def _trusted(value: str) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn(trusted_types=[Point, Line])
        cell.exec(_POINT)
        cell.run(f"post({value})", message=False)
        cell.exec(f"def f(): return {value}")
        cell.failing_call("__main__.f", message=False)
        cell.run("post('still here')")

    return steps


for _name, _value in _TRUSTED.items():
    GROUP.add(f"trusted/{_name}", _trusted(_value))


@GROUP.program()
def trusted_with_slots(host: Host) -> None:
    cell = host.spawn(trusted_types=[Slotted])
    cell.exec(_POINT)
    cell.run("one = Slotted(); one.a, one.b = 1, [2]; post(one)")


@GROUP.program()
def not_trusted_without_its_name(host: Host) -> None:
    cell = host.spawn(trusted_types=[Line])
    cell.exec(_POINT)
    cell.run("post(Point(1, 2))")
