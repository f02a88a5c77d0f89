"""Capabilities of the host's own: what guests reach, how errors come back, what is granted."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Never

from pyisolate import Capability, HostCapability, Policy
from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("own capabilities")


class _Database:
    """A host's object, with more methods than a guest should have."""

    def query(self, sql: str, *, limit: int = 10) -> dict[str, object]:
        return {"sql": sql, "limit": limit}

    def drop(self) -> str:
        return "dropped"

    def _private(self) -> str:
        return "private"


class _Custom(Exception):
    """No exception of the language's."""


def _ask(source: str, **options: Any) -> Steps:
    """The guest asks, and posts the answer or the error."""

    def steps(host: Host) -> None:
        cell = host.spawn(**options)
        cell.run(
            f"try: post(['answer', {source}])\n"
            "except BaseException as error: post([type(error).__name__, str(error)])"
        )
        cell.denials()
        cell.run("post('still here')")

    return steps


def _raiser(make: Callable[[], BaseException]) -> Callable[[object], Never]:
    def handler(payload: object) -> Never:
        raise make()

    return handler


async def _coroutine(payload: Any) -> Any:
    await asyncio.sleep(0)
    return ["awaited", payload]


async def _slow(payload: object) -> None:
    await asyncio.sleep(20)


_DATABASE = {"db": HostCapability(_Database(), methods=["query", "drop"])}
_FUNCTION = {"own": lambda action, payload: [action, payload]}

GROUP.add(
    "action and payload", _ask("request('own', 'look', {'at': (1, b'x')})", capabilities=_FUNCTION)
)
GROUP.add("any action", _ask("request('own', 'any action')", capabilities=_FUNCTION))
GROUP.add(
    "payload alone",
    _ask("request('own', 'x', 21)", capabilities={"own": lambda payload: payload * 2}),
)
GROUP.add("coroutine", _ask("request('own', 'x', 1)", capabilities={"own": _coroutine}))
GROUP.add(
    "coroutine that takes too long",
    _ask("request('own', 'x', 1)", capabilities={"own": HostCapability(_slow, timeout=0.1)}),
)
GROUP.add("as an object", _ask("own.look(1)", capabilities=_FUNCTION))
GROUP.add(
    "an answer of None", _ask("request('own', 'x')", capabilities={"own": lambda payload: None})
)

for _name, _source in {
    "spread": "request('db', 'query', {'args': ['select'], 'kwargs': {'limit': 3}})",
    "one argument": "request('db', 'query', 'select')",
    "no argument": "request('db', 'drop')",
    "by its object": "db.query('select', limit=3)",
    "not listed": "request('db', '_private')",
    "dunder": "request('db', '__class__')",
    "of every object": "request('db', '__init__')",
}.items():
    GROUP.add(f"methods/{_name}", _ask(_source, capabilities=_DATABASE))

_ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("no such row"),
    "KeyError": lambda: KeyError("name"),
    "without words": lambda: ZeroDivisionError(),
    "PermissionError": lambda: PermissionError("not today"),
    "OSError with a number": lambda: FileNotFoundError(2, "No such file", "/etc/host-file"),
    "of the host's own": lambda: _Custom("own"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "a group": lambda: ExceptionGroup("several", [ValueError()]),
    "an exit": lambda: SystemExit(3),
    "a recursion": lambda: RecursionError("deep"),
    "TimeoutError": lambda: TimeoutError("slow"),
    "StopIteration": lambda: StopIteration(5),
    "long words": lambda: ValueError("é" * 100_000),
    "a path of the host's": lambda: ValueError("look at /home/host/file and '/a b/c'"),
    "no path": lambda: ValueError("see https://h/etc/passwd, 1/2, a/etc/b and ~/x"),
}
for _name, _make in _ERRORS.items():
    GROUP.add(f"errors/{_name}", _ask("request('own', 'x')", capabilities={"own": _raiser(_make)}))

GROUP.add(
    "an answer that cannot be sent",
    _ask("request('own', 'x')", capabilities={"own": lambda payload: threading.Lock()}),
)
GROUP.add(
    "policy narrows it",
    _ask(
        "request('db', 'drop')", capabilities=_DATABASE, policy={"capabilities": {"db": ["query"]}}
    ),
)
GROUP.add(
    "policy grants what it names",
    _ask(
        "request('db', 'query', 'x')",
        capabilities=_DATABASE,
        policy={"capabilities": {"db": ["query"]}},
    ),
)
GROUP.add(
    "a denial wins",
    _ask(
        "request('db', 'drop')",
        capabilities=_DATABASE,
        policy=Policy().grant(Capability("db")).deny(Capability("db", ["drop"])),
    ),
)
GROUP.add(
    "a grant without the capability",
    _ask("request('db', 'query')", policy=Policy().grant(Capability("db"))),
)


@GROUP.program()
def cells_have_their_own(host: Host) -> None:
    one = host.spawn(capabilities={"who": lambda payload: "one"})
    two = host.spawn(capabilities={"who": lambda payload: "two"})
    none = host.spawn()
    for cell in (one, two, none):
        cell.run("try: post(request('who', 'x'))\nexcept PermissionError: post('nobody')")


@GROUP.program()
def the_handler_sees_exact_types(host: Host) -> None:
    seen: list[object] = []
    cell = host.spawn(capabilities={"own": seen.append})
    cell.exec("request('own', 'x', {'t': (1, [2]), 's': {3}, 'b': bytearray(b'x'), 'f': -0.0})")
    host.told("seen", seen)


@GROUP.program()
def requests_between_messages_keep_their_order(host: Host) -> None:
    seen: list[object] = []

    def count(payload: object) -> int:
        seen.append(payload)
        return len(seen)

    cell = host.spawn(capabilities={"own": count})
    cell.run("for n in range(5):\n    post(n)\n    post(('asked', request('own', 'x', n)))")
    host.told("seen", seen)


@GROUP.program()
def names_that_no_object_can_have(host: Host) -> None:
    for name in ("", "a b", "class", "_x", "1a", "__builtins__"):
        host.write(f"capabilities={{{name!r}: ...}}")
        host.refuse_spawn(capabilities={name: print})


@GROUP.program()
def what_cannot_be_called_as_it_stands(host: Host) -> None:
    unfit: list[object] = [_Database(), _Database, 5, None, {}, lambda: None, lambda a, b, c: None]
    for given in unfit:
        host.write("capabilities={'own': what has no allow-list or other arguments}")
        host.refuse_spawn(capabilities={"own": given})


@GROUP.program("threads")
def several_threads_ask_at_once(host: Host) -> None:
    cell = host.spawn(capabilities={"own": lambda payload: payload}, allowed_imports=["threading"])
    cell.run(
        "import threading\nanswers = []\n"
        "def ask(n):\n    for turn in range(10): answers.append(request('own', 'x', n * 100 + turn))\n"
        "threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]\n"
        "for thread in threads: thread.start()\nfor thread in threads: thread.join()\n"
        "post(sorted(answers))"
    )


@GROUP.program()
def an_answer_that_is_too_large(host: Host) -> None:
    own = {"own": lambda payload: b"x" * payload}
    cell = host.spawn(capabilities=own, message_bytes_max=100_000)
    cell.exec("request('own', 'x', 200_000)", message=False, says=["message_bytes_max=100000"])
    cell.run("post(len(request('own', 'x', 10)))")
