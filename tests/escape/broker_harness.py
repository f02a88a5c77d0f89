"""Attacks on the broker and the policy: the cell that they run in, and what they are held against."""

import contextlib
import dataclasses
import itertools
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyisolate
from pyisolate import DenialEvent, LogEvent

PATIENCE = 20.0
"""How long one attack may take, in seconds: a guard against hanging."""

_GUEST = (Path(__file__).parent / "broker_guest.py").read_text()

IMPORTS = [
    "_posixsubprocess", "_socket", "asyncio", "base64", "builtins", "contextlib", "ctypes", "errno",
    "fcntl", "gc", "glob", "gzip", "http", "io", "json", "math", "mmap", "os", "pathlib", "posix", "random",
    "re", "secrets", "shutil", "socket", "struct", "subprocess", "sys", "tempfile", "threading",
    "time", "unicodedata", "urllib", "zlib",
]  # fmt: skip
"""Everything that attacks import: what is imported is no wall, so that none is in their way."""

_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Case:
    """One way past the broker, as guest source text.

    `body`: the body of a function, which returns what it took if the attack succeeds and raises
    if not. `refused`: the errors, by `errno` or type, with which it may be refused; `DENIED`
    by itself where the policy or the broker decides, and then a denial is recorded.
    """

    name: str
    body: str
    refused: str = "DENIED"
    recorded: bool | None = None
    """Whether the host has a denial of it afterwards; `None`: exactly if it was `CapabilityDenied`."""
    control: bool = True
    """Whether the same text succeeds without a wall."""
    privileged: bool = False
    """Whether only root can set it up."""

    def __str__(self) -> str:
        return self.name

    def source(self) -> str:
        """The attack, as both sides execute it."""
        body = textwrap.indent(textwrap.dedent(self.body).strip(), "    ")
        return f"def attack():\n{body}\npost(attempt(attack))\n"


class Held:
    """A cell with a policy that attacks share; a new one once it is dead."""

    def __init__(
        self,
        supervisor: pyisolate.Supervisor,
        policy: pyisolate.Policy,
        world: dict[str, Any],
        **options: Any,
    ) -> None:
        self.supervisor = supervisor
        self.policy = policy
        self.world = world
        self.options = options
        self._cell: pyisolate.Cell | None = None
        self._checks = 0

    @property
    def cell(self) -> pyisolate.Cell:
        """The cell, alive and with `broker_guest.py` executed in it."""
        if self._cell is None or self._cell.termination_reason is not None:
            self._cell = self.supervisor.spawn(
                f"held-{next(_numbers)}",
                policy=self.policy,
                allowed_imports=IMPORTS,
                **self.options,
            )
            given = "".join(f"{name} = {value!r}\n" for name, value in self.world.items())
            self._cell.exec(_GUEST).wait(PATIENCE)
            self._cell.exec(given).wait(PATIENCE)
        return self._cell

    def run(self, source: str, patience: float = PATIENCE) -> Any:
        """Execute source text that posts once; what it posted."""
        cell = self.cell
        with contextlib.suppress(TimeoutError):
            while True:  # what an attack that failed the test left behind
                cell.recv(0)
        cell.exec(source).wait(patience)
        while isinstance(posted := cell.recv(patience), LogEvent):
            continue
        return posted

    def attempt(self, body: str, patience: float = PATIENCE) -> Any:
        """How the body of a function ended in the cell."""
        return self.run(Case("", body).source(), patience)

    def refuses(self, case: Case) -> list[Any]:
        """The cell refuses an attack, as expected, and says so to the host; and goes on."""
        cell = self.cell
        before = cell.stats.denied
        outcome = self.run(case.source())
        assert outcome[0] == "refused", outcome
        names = outcome[1]
        expected = case.refused.replace("DENIED", "CapabilityDenied").split()
        assert set(names) & set(expected), outcome
        recorded = case.recorded if case.recorded is not None else "CapabilityDenied" in names
        assert (cell.stats.denied > before) == recorded, (outcome, cell.denials[-3:])
        if recorded:
            assert_complete(cell.denials[-1])
        self.assert_alive()
        return outcome

    def assert_alive(self) -> None:
        """The cell still works, and its supervisor makes others."""
        assert self.cell.termination_reason is None
        assert self.cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
        # A new cell costs more than most attacks: one for every few.
        self._checks += 1
        if self._checks % 8:
            return
        with self.supervisor.spawn(f"after-{next(_numbers)}", allowed_imports=["math"]) as other:
            assert other.call("math.gcd", 12, 18, timeout=PATIENCE) == 6

    @property
    def ended(self) -> pyisolate.Cell:
        """The cell as it is, dead or not."""
        assert self._cell is not None
        return self._cell

    def close(self) -> None:
        """End the cell."""
        if self._cell is not None:
            self._cell.close()


def assert_complete(event: DenialEvent) -> None:
    """A denial says what was asked, who decided, by which rule, and why."""
    assert event.cell
    assert event.capability
    assert event.attempted_action
    assert event.target
    assert event.rule
    assert event.layer in ("policy", "broker"), event
    assert event.reason
    if event.layer == "policy" and event.rule == "no rule matched":
        assert event.grant, event


def run_plain(
    case: Case | str, world: dict[str, Any], request: Callable[..., Any] | None = None
) -> Any:
    """The same text in plain CPython outside of a cell, with a stand-in for `request`."""
    case = Case("", case) if isinstance(case, str) else case
    posted: list[Any] = []
    namespace: dict[str, Any] = {
        "__name__": "__plain__",
        "post": posted.append,
        "request": request,
        **world,
    }
    folder = os.getcwd()
    try:
        exec(compile(_GUEST, "<guest>", "exec"), namespace)
        exec(compile(case.source(), "<attack>", "exec"), namespace)
    finally:
        os.chdir(folder)
    return posted[0]
