"""What can be granted to a cell, or denied to it, as objects.

Each is one rule of the policy text with the same meaning. They are checked when they are made, and
keep what they were given in the one spelling that the broker compares: a path without `..`, a host
in lower case. So two that mean the same are equal.

    policy = Policy().grant(ReadPath("/data/**/*.csv"), ConnectTCP("db.internal", 5432))
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

from pyisolate import _core

type PathText = str | os.PathLike[str]
"""An absolute path. It means itself and all below it; with `*`, `?`, `[…]` or `**` in it, what
matches. A `*` does not cross a slash."""


class Authority:
    """What all authorities have in common."""

    __slots__ = ()

    kind: ClassVar[str]
    """What `_core` calls it."""

    def __post_init__(self) -> None:
        self._keep(_core.checked(self.kind, self.fields()))

    def fields(self) -> dict[str, Any]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def of(cls, checked: Mapping[str, Any]) -> Self:
        """From fields that were checked already."""
        made = object.__new__(cls)
        made._keep(checked)
        return made

    def _keep(self, checked: Mapping[str, Any]) -> None:
        for name, value in checked.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class ReadPath(Authority):
    """Looking at files and folders: their contents, their entries, what `stat` tells."""

    kind: ClassVar[str] = "read_path"
    path: PathText


@dataclass(frozen=True, slots=True)
class WritePath(Authority):
    """Changing files and folders, making and removing them. Reading is not part of it: grant
    `ReadPath` too, or `ReadWritePath`."""

    kind: ClassVar[str] = "write_path"
    path: PathText


@dataclass(frozen=True, slots=True)
class ReadWritePath(Authority):
    """`ReadPath` and `WritePath` in one. Denied, it takes both away."""

    kind: ClassVar[str] = "read_write_path"
    path: PathText


@dataclass(frozen=True, slots=True)
class ConnectTCP(Authority):
    """TCP streams."""

    kind: ClassVar[str] = "connect"
    host: str
    """A name, an address, a network as `10.0.0.0/8`, `*.example.org` for what is below a name, or
    `*`."""
    port: int | tuple[int, int]
    """One port, or the first and the last of several."""
    private: bool = False
    """Whether the addresses behind a name may be private ones. An address or network that is
    granted as such may be."""

    @classmethod
    def from_address(cls, address: str, *, private: bool = False) -> Self:
        """From `host:port`, `host:first-last`, `host:*` or `[address]:port`."""
        host, port = _core.split_address(address)
        return cls(host, port, private)


@dataclass(frozen=True, slots=True)
class Http(Authority):
    """HTTP requests."""

    kind: ClassVar[str] = "http"
    url: str
    """What URLs begin with: `https://api.example.org/v1` reaches `/v1` and what is below it. The
    host can be a pattern as in `ConnectTCP`, a network in brackets. Without `https://` both schemes
    are meant."""
    methods: Sequence[str] | None = None
    """`*` for all. `None`: GET and HEAD where it is granted, all where it is denied."""
    private: bool = False
    """As in `ConnectTCP`."""


@dataclass(frozen=True, slots=True)
class Resolve(Authority):
    """The addresses behind names."""

    kind: ClassVar[str] = "resolve"
    host: str
    """A pattern as in `ConnectTCP`."""


@dataclass(frozen=True, slots=True)
class Command(Authority):
    """A program, run in a jail of its own."""

    kind: ClassVar[str] = "run"
    program: str
    """A bare name, looked for in the system's own folders, or an absolute path."""
    args: Sequence[str] | None = None
    """One pattern an argument; a last `**` stands for any further ones. A leading `*` matches no
    leading `-`. `None`: no argument where it is granted, any where it is denied."""
    env: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    """Its whole environment, apart from `PATH` and `LC_ALL`; kept as sorted pairs."""
    read: Sequence[PathText] = ()
    """What it can read beside the system's own folders."""
    wall_time_ms: int = _core.COMMAND_WALL_TIME_MS
    output_bytes: int = _core.COMMAND_OUTPUT_BYTES
    mem_bytes: int = _core.COMMAND_MEM_BYTES


@dataclass(frozen=True, slots=True)
class Secret(Authority):
    """A named secret. Its value is given to `spawn(secrets={...})` and is no part of a policy.

    With a name alone it can be denied, and is then not to be had in any way.
    """

    kind: ClassVar[str] = "secret"
    name: str
    reveal: bool = False
    """Whether the guest may have the value."""
    use: Sequence[str] = ()
    """The hosts (patterns as in `ConnectTCP`) to which the broker puts it into requests, without
    the guest ever having it."""


type ClockAction = Literal["time", "monotonic", "sleep"]


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Clock(Authority):
    """The clock: `Clock()` for all of it, or some of `time`, `monotonic` and `sleep`."""

    kind: ClassVar[str] = "clock"
    actions: Sequence[ClockAction]

    def __init__(self, *actions: ClockAction) -> None:
        self._keep(_core.checked(self.kind, {"actions": actions}))

    def __repr__(self) -> str:
        return f"Clock({', '.join(map(repr, self.actions))})"


@dataclass(frozen=True, slots=True)
class Random(Authority):
    """Random bytes; with a seed the same ones in every run."""

    kind: ClassVar[str] = "random"
    seed: int | None = None


type Direction = Literal["send", "receive"]


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Channel(Authority):
    """A channel between cells of one supervisor: `Channel("jobs")` for both ends of it, or one of
    `send` and `receive`."""

    kind: ClassVar[str] = "ipc"
    name: str
    directions: Sequence[Direction]

    def __init__(self, name: str, *directions: Direction) -> None:
        self._keep(_core.checked(self.kind, {"name": name, "directions": directions}))

    def __repr__(self) -> str:
        return f"Channel({', '.join(map(repr, (self.name, *self.directions)))})"


@dataclass(frozen=True, slots=True)
class Capability(Authority):
    """A capability of the host's own, which `spawn(capabilities={name: ...})` supplies."""

    kind: ClassVar[str] = "host"
    name: str
    actions: Sequence[str] | None = None
    """Some of its actions; `None` for all."""


@dataclass(frozen=True, slots=True)
class Import(Authority):
    """A module and what is below it."""

    kind: ClassVar[str] = "import"
    module: str


@dataclass(frozen=True, slots=True)
class Limit(Authority):
    """A number that bounds the cell, by its keyword in `spawn`: `Limit("mem_bytes", 64 << 20)`."""

    kind: ClassVar[str] = "limit"
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class CpuBudget(Authority):
    """`Limit("cpu_ms", ms)`: CPU time of the cell's life, in milliseconds."""

    kind: ClassVar[str] = "cpu_budget"
    ms: int


@dataclass(frozen=True, slots=True, init=False, repr=False)
class AuthoritySet:
    """Authorities to be granted together. It does not change; `|` makes a larger one."""

    authorities: frozenset[Authority]

    def __init__(self, *authorities: Authority) -> None:
        for authority in authorities:
            if not isinstance(authority, Authority):
                raise TypeError(f"{authority!r} is no authority: use ReadPath, ConnectTCP, …")
        object.__setattr__(self, "authorities", frozenset(authorities))

    def __or__(self, other: "AuthoritySet") -> "AuthoritySet":
        if not isinstance(other, AuthoritySet):
            return NotImplemented
        return AuthoritySet(*self.authorities, *other.authorities)

    def __iter__(self) -> Iterator[Authority]:
        return iter(sorted(self.authorities, key=repr))

    def __len__(self) -> int:
        return len(self.authorities)

    def __contains__(self, authority: object) -> bool:
        return authority in self.authorities

    def __repr__(self) -> str:
        return f"AuthoritySet({', '.join(map(repr, self))})"


KINDS: Mapping[str, type[Authority]] = {
    authority.kind: authority
    for authority in (
        ReadPath,
        WritePath,
        ReadWritePath,
        ConnectTCP,
        Http,
        Resolve,
        Command,
        Secret,
        Clock,
        Random,
        Channel,
        Capability,
        Import,
    )
}
"""The authorities that a rule can speak of, by what `_core` calls them."""
