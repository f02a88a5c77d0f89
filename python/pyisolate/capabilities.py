"""What a host hands over with `spawn(capabilities={...})`.

Under the names of the built-in capabilities, objects that say what is granted:

    spawn("a", capabilities={"filesystem": FilesystemCapability.from_paths("/data")})

Under any other name, a capability of the host's own: a function, or some methods of an object.

    spawn("b", capabilities={"db": HostCapability(connection, methods=["query"])})
"""

import importlib
import inspect
import keyword
import shlex
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pyisolate.authorities import (
    Authority,
    Channel,
    Clock,
    Command,
    ConnectTCP,
    Direction,
    PathText,
    Random,
    ReadPath,
    ReadWritePath,
    Secret,
)

if TYPE_CHECKING:
    # Half of what importing this package would take; for coroutines alone.
    import asyncio

type SecretText = str | bytes
"""A secret's value."""

# --- the built-in ones ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BuiltinCapability:
    """What the objects for the built-in capabilities have in common."""

    grants: tuple[Authority, ...]
    """What it grants."""


@dataclass(frozen=True, slots=True)
class FilesystemCapability(BuiltinCapability):
    """`filesystem`: files and folders."""

    @classmethod
    def from_paths(cls, *paths: PathText, write: bool = False) -> Self:
        """Reading these and what is below them, and writing if `write`. Absolute paths, as in
        `ReadPath`."""
        right = ReadWritePath if write else ReadPath
        return cls(tuple(map(right, paths)))


@dataclass(frozen=True, slots=True)
class NetworkCapability(BuiltinCapability):
    """`network`: TCP streams."""

    @classmethod
    def from_destinations(cls, *destinations: str, private: bool = False) -> Self:
        """Connecting to these, each as `host:port`; `private` as in `ConnectTCP`."""
        return cls(tuple(ConnectTCP.from_address(it, private=private) for it in destinations))


@dataclass(frozen=True, slots=True)
class SecretCapability(BuiltinCapability):
    """`secret`: named values."""

    values: Mapping[str, SecretText]

    def __repr__(self) -> str:
        return f"SecretCapability({', '.join(self.values)})"

    @classmethod
    def from_mapping(cls, values: Mapping[str, SecretText]) -> Self:
        """These, which the guest may have by their names."""
        return cls(tuple(Secret(name, reveal=True) for name in values), dict(values))

    def usable(self, hosts: Mapping[str, Sequence[str]]) -> Self:
        """The same, but those named here are put into requests to their hosts and never revealed:
        `.usable({"api-key": ["api.example.org"]})`."""
        if unknown := sorted(set(hosts) - set(self.values)):
            raise ValueError(f"there is no secret named {', '.join(unknown)}")
        grants = [grant for grant in self.grants if getattr(grant, "name", None) not in hosts]
        grants += [Secret(name, use=tuple(its)) for name, its in hosts.items()]
        return type(self)(tuple(grants), self.values)


@dataclass(frozen=True, slots=True)
class SubprocessCapability(BuiltinCapability):
    """`subprocess`: programs."""

    @classmethod
    def from_commands(cls, *commands: str | Command) -> Self:
        """Running these. A program's name alone takes any arguments; with words behind it
        (`"git log *"`), each is a pattern for one argument, as in `Command`."""

        def command(given: str | Command) -> Command:
            if isinstance(given, Command):
                return given
            program, *args = shlex.split(given) or [""]
            return Command(program, args or ["**"])

        return cls(tuple(map(command, commands)))


@dataclass(frozen=True, slots=True, init=False)
class IPCChannelCapability(BuiltinCapability):
    """`ipc`: channels between cells of one supervisor; without names the one called `default`."""

    def __init__(self, *names: str, directions: Iterable[Direction] = ()) -> None:
        chosen = tuple(directions)
        grants = tuple(Channel(name, *chosen) for name in names or ("default",))
        object.__setattr__(self, "grants", grants)


@dataclass(frozen=True, slots=True, init=False)
class ClockCapability(BuiltinCapability):
    """`clock`: the time of day, a clock that only goes forward, and waiting."""

    def __init__(self) -> None:
        object.__setattr__(self, "grants", (Clock(),))


@dataclass(frozen=True, slots=True, init=False)
class RandomCapability(BuiltinCapability):
    """`random`: random bytes; with a seed the same ones in every run."""

    def __init__(self, seed: int | None = None) -> None:
        object.__setattr__(self, "grants", (Random(seed),))


_BUILTIN: Mapping[str, type[BuiltinCapability]] = {
    "filesystem": FilesystemCapability,
    "network": NetworkCapability,
    "subprocess": SubprocessCapability,
    "secret": SecretCapability,
    "clock": ClockCapability,
    "random": RandomCapability,
    "ipc": IPCChannelCapability,
}

# --- the host's own -------------------------------------------------------------------------------


class HostCapability:
    """A capability of the host's own: what guests reach by `request(name, action, payload)` and by
    the object of that name in the cell.

    `target`: a function, called as `target(action, payload)`, or as `target(payload)` if it cannot
    take two arguments; with `methods`, an object, of which these methods can be called and nothing
    else. A payload for a method that is a dict of exactly `args` and `kwargs` is spread, as the
    guest's object sends `db.query("...", limit=3)`; without a payload there is no argument, and any
    other is the one argument.

    `schema`: JSON Schemas by action, checked before the call (needs `pyisolate[schema]`). For a
    function they describe the payload; for a method an object of its arguments by name, however
    they were sent.

    `timeout`: seconds until the guest is told that it took too long. What runs then goes on, unless
    it is a coroutine. Coroutines run in an event loop of their own, or in `loop`, which must be
    running in another thread.

    Calls come from several threads at once. A raised exception reaches the guest as the same
    built-in exception, or `RuntimeError`, without its traceback, and with `<path>` for absolute
    paths in its message; the host finds it whole in the log `pyisolate`.
    """

    __slots__ = ("_function", "_functions", "_loop", "_schemas", "_takes_action", "timeout")

    def __init__(
        self,
        target: object,
        methods: Iterable[str] | None = None,
        *,
        schema: Mapping[str, Mapping[str, Any]] | None = None,
        timeout: float = 30.0,
        loop: "asyncio.AbstractEventLoop | None" = None,
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout={timeout} is not a time in seconds")
        self.timeout = timeout
        self._loop = loop
        self._schemas: dict[str, _Schema] = {}
        self._functions: dict[str, Callable[..., Any]] | None = None
        if methods is not None:
            self._functions = _methods(target, methods)
        elif isinstance(target, type) or not callable(target):
            raise TypeError(
                f"{target!r} has no allow-list: name the methods that guests may call, as "
                "HostCapability(object, methods=[...])"
            )
        else:
            self._function: Callable[..., Any] = target
            self._takes_action = _takes_action(target)
        for action, its in (schema or {}).items():
            if self._functions is not None and action not in self._functions:
                raise ValueError(f"schema names {action!r}, which is none of the methods")
            self._schemas[action] = _Schema(its)

    @property
    def actions(self) -> list[str] | None:
        """What can be asked; `None` for anything."""
        return None if self._functions is None else sorted(self._functions)

    def begin(self, action: str, payload: Any) -> "Call":
        """Checks a request; the call that answers it is still to be run."""
        schema = self._schemas.get(action)
        if self._functions is None:
            if schema is not None:
                schema.check(payload)
            args = (action, payload) if self._takes_action else (payload,)
            return Call(self._function, args, {}, self._loop, self.timeout)
        function = self._functions[action]
        args, kwargs = _spread(payload)
        if schema is not None:
            schema.check(_by_name(function, args, kwargs))
        return Call(function, args, kwargs, self._loop, self.timeout)


class Call:
    """One call of the host's own code, which may be stopped from another thread."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        loop: "asyncio.AbstractEventLoop | None",
        timeout: float,
    ) -> None:
        self._call = (function, args, kwargs)
        self._loop = loop
        self._timeout = timeout
        self._stopped = False
        self._stop: Callable[[], object] | None = None

    def run(self) -> Any:
        """Calls it; a coroutine is run to its end."""
        function, args, kwargs = self._call
        result = function(*args, **kwargs)
        if not inspect.isawaitable(result):
            return result
        import asyncio

        if self._loop is None:
            return asyncio.run(self._await(result))
        return asyncio.run_coroutine_threadsafe(self._await(result), self._loop).result(
            self._timeout + 1.0  # for a loop that does not run
        )

    def stop(self) -> None:
        """Cancels it if it is a coroutine: nobody waits for it any more."""
        self._stopped = True
        if self._stop is not None:
            self._stop()

    async def _await(self, awaitable: Awaitable[Any]) -> Any:
        import asyncio

        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is not None:
            self._stop = lambda: loop.is_closed() or loop.call_soon_threadsafe(task.cancel)
        if self._stopped and task is not None:
            task.cancel()
        timeout = asyncio.timeout(self._timeout)
        try:
            async with timeout:
                return await awaitable
        except TimeoutError:
            if not timeout.expired():
                raise
            # In the words of the supervisor, which may be first.
            raise TimeoutError("the answer took too long") from None
        except asyncio.CancelledError:
            if self._stopped:
                return None  # to nobody
            raise RuntimeError("the call was cancelled") from None


class _Schema:
    """A JSON Schema, ready to check with."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            jsonschema = importlib.import_module("jsonschema")
        except ImportError:
            raise ImportError(
                "schemas are checked by the package jsonschema: pip install 'pyisolate[schema]'"
            ) from None
        kind = jsonschema.validators.validator_for(schema)
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise ValueError(f"the schema is none: {error.message}") from None
        self._validator = kind(schema)
        self._best = jsonschema.exceptions.best_match

    def check(self, value: Any) -> None:
        """Raises `ValueError` with what is wrong and where."""
        error = self._best(self._validator.iter_errors(_as_json(value)))
        if error is not None:
            raise ValueError(f"{error.json_path}: {error.message[:500]}")


def _spread(payload: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A payload as a call's arguments."""
    match payload:
        case None:
            return (), {}
        case {"args": list() | tuple() as args, "kwargs": dict() as kwargs} if len(payload) == 2:
            return tuple(args), kwargs
        case _:
            return (payload,), {}


def _as_json(value: Any) -> Any:
    """With lists for tuples: JSON has no others."""
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return value


def _methods(target: object, names: Iterable[str]) -> dict[str, Callable[..., Any]]:
    if isinstance(names, str):
        raise TypeError("methods is a list of names, not one string")
    methods = {}
    for name in names:
        method = getattr(target, name, None)
        if name.startswith("_") or not callable(method):
            raise ValueError(f"{type(target).__name__} has no public method {name!r}")
        methods[name] = method
    return methods


def _takes_action(function: Callable[..., Any]) -> bool:
    """Whether a handler takes the action and the payload, and not the payload alone."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C, and silent about it
        return True
    for arguments in (("action", "payload"), ("payload",)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 2
    raise TypeError(f"{function!r} can be called neither with (action, payload) nor (payload)")


def _by_name(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments by the names of the parameters that they are for."""
    signature = inspect.signature(function)
    named = dict(signature.bind(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return named


# --- what spawn makes of them ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Supplied:
    """What `spawn(capabilities=...)` comes to."""

    grants: tuple[Authority, ...]
    secrets: Mapping[str, SecretText]
    own: Mapping[str, HostCapability]


def supplied(capabilities: Mapping[str, object] | None) -> Supplied:
    """Tells the built-in ones from the host's own, and wraps functions."""
    grants: list[Authority] = []
    secrets: dict[str, SecretText] = {}
    own: dict[str, HostCapability] = {}
    for name, given in (capabilities or {}).items():
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise ValueError(f"capabilities: {name!r} is no name for an object in the cell")
        wanted = _BUILTIN.get(name)
        if wanted is not None:
            if not isinstance(given, wanted):
                raise TypeError(
                    f"capabilities[{name!r}] is {given!r}: {name} is built in, and is granted by "
                    f"a {wanted.__name__} or by the policy"
                )
            grants += given.grants
            if isinstance(given, SecretCapability):
                secrets |= given.values
        elif isinstance(given, BuiltinCapability):
            meant = next(key for key, kind in _BUILTIN.items() if isinstance(given, kind))
            raise ValueError(f"a {type(given).__name__} goes by the name {meant!r}, not {name!r}")
        elif isinstance(given, HostCapability):
            own[name] = given
        else:
            own[name] = HostCapability(given)
    return Supplied(tuple(grants), secrets, own)
