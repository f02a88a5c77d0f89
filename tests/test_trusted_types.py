"""Instances of classes that the host registered arrive as its own, and no code of theirs runs."""

import decimal

import pytest

from cells import PATIENCE, new_cell, run
from posted import empty, sent

IMPORTS = ["collections", "dataclasses", "enum", "typing"]

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
