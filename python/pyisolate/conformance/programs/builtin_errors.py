"""Every exception of the language, raised in `exec` and in `call`, is told by its name."""

import builtins

from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("builtin errors")

_MADE = {
    "UnicodeDecodeError": "UnicodeDecodeError('utf-8', b'x', 0, 1, 'own words')",
    "UnicodeEncodeError": "UnicodeEncodeError('ascii', 'x', 0, 1, 'own words')",
    "UnicodeTranslateError": "UnicodeTranslateError('x', 0, 1, 'own words')",
    "ExceptionGroup": "ExceptionGroup('own words', [ValueError(1)])",
    "BaseExceptionGroup": "BaseExceptionGroup('own words', [SystemExit(1)])",
}
"""How to make those that do not take one text."""
_NOT_RAISED = (
    # The supervisor takes it for the limit and ends the cell; see the limits.
    "MemoryError",
    # Newer than the oldest Python that this suite runs on.
    "PythonFinalizationError",
)


def _names() -> list[str]:
    found = [
        name
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__name__ == name
    ]
    return sorted(name for name in found if name not in _NOT_RAISED)


def _raised(name: str) -> Steps:
    made = _MADE.get(name, f"{name}('own words')")

    def steps(host: Host) -> None:
        cell = host.spawn()
        cell.exec(f"raise {made}")
        cell.exec(f"def f(): raise {made}")
        cell.call("__main__.f")
        cell.start("f()")
        cell.recv()
        cell.run(f"try: f()\nexcept {name} as error: post(type(error).__name__)")

    return steps


for _name in _names():
    GROUP.add(_name, _raised(_name))


def _number(number: int) -> Steps:
    """`OSError` chooses its kind by its number."""

    def steps(host: Host) -> None:
        cell = host.spawn()
        cell.exec(f"raise OSError({number}, 'own words', 'name')")

    return steps


for _errno in (1, 2, 4, 5, 9, 11, 13, 17, 20, 21, 22, 24, 28, 32, 104, 110, 111):
    GROUP.add(f"OSError number {_errno}", _number(_errno))
