"""Attacks on the broker and the policy: the cell that they run in, and their controls."""

import contextlib
import itertools
import os
import weakref
from collections.abc import Callable
from typing import Any

import pyisolate
from pyisolate import DenialEvent, LogEvent
from pyisolate.attack.asked import IMPORTS, Asked
from pyisolate.attack.texts import BROKER

PATIENCE = 20.0
"""How long one attack may take, in seconds: a guard against hanging."""

BACKENDS = ["process", "subinterpreter"]
"""The policy and the broker are the same behind both walls, and so are their answers."""

_LOADED = [
    "_socket", "contextlib", "ctypes", "errno", "fcntl", "gc", "http.client", "mmap", "os",
    "pathlib", "shutil", "socket", "struct", "subprocess", "threading", "urllib.request",
]  # fmt: skip
"""What `texts/broker.py` imports, which takes longer than all else that a cell does here."""

_templates: weakref.WeakKeyDictionary[pyisolate.Supervisor, Any] = weakref.WeakKeyDictionary()
_numbers = itertools.count(1)


def _template(supervisor: pyisolate.Supervisor) -> Any:
    """A template of a supervisor's that has loaded what attacks need."""
    if supervisor not in _templates:
        _templates[supervisor] = supervisor.template(imports=_LOADED)
    return _templates[supervisor]


class Held:
    """A cell with a policy that attacks share; a new one once it is dead."""

    def __init__(
        self,
        supervisor: pyisolate.Supervisor,
        policy: pyisolate.Policy,
        world: dict[str, Any],
        *,
        fresh: bool = False,
        **options: Any,
    ) -> None:
        """`fresh`: load everything in the cell itself, not in a template."""
        self.supervisor = supervisor
        self.policy = policy
        self.world = world
        self.options = options if fresh else options | {"template": _template(supervisor)}
        self._cell: pyisolate.Cell | None = None
        self._checks = 0

    @property
    def cell(self) -> pyisolate.Cell:
        """The cell, alive and with `texts/broker.py` executed in it."""
        if self._cell is None or self._cell.termination_reason is not None:
            self._cell = self.supervisor.spawn(
                f"held-{next(_numbers)}",
                policy=self.policy,
                allowed_imports=IMPORTS,
                **self.options,
            )
            given = "".join(f"{name} = {value!r}\n" for name, value in self.world.items())
            self._cell.exec(BROKER).wait(PATIENCE)
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
        return self.run(Asked("", body).source(), patience)

    def refuses(self, case: Asked) -> list[Any]:
        """The cell refuses an attack, as expected, and says so to the host; and goes on."""
        cell = self.cell
        before = cell.stats.denied
        outcome = self.run(case.source())
        names = assert_refused(case, outcome)
        recorded = case.recorded if case.recorded is not None else "CapabilityDenied" in names
        assert (cell.stats.denied > before) == recorded, (outcome, cell.denials[-3:])
        if recorded:
            assert_complete(cell.denials[-1])
        self.assert_alive()
        return outcome

    def refuses_all(self, cases: list[Asked]) -> list[Any]:
        """As `refuses`, of several attacks, one after the other."""
        cell = self.cell
        before = cell.stats.denied
        functions = "".join(case.function(f"attack_{at}") for at, case in enumerate(cases))
        calls = ", ".join(f"attempt(attack_{at})" for at in range(len(cases)))
        outcomes = self.run(f"{functions}post([{calls}])\n")
        denied = 0
        for case, outcome in zip(cases, outcomes, strict=True):
            denied += "CapabilityDenied" in assert_refused(case, outcome)
        assert cell.stats.denied - before >= denied
        if denied:
            assert_complete(cell.denials[-1])
        self.assert_alive()
        return outcomes

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


def assert_refused(case: Asked, outcome: Any) -> list[str]:
    """An attack was refused as expected; the names of the error."""
    assert outcome[0] == "refused", (case.name, outcome)
    assert set(outcome[1]) & case.expected, (case.name, outcome)
    names: list[str] = outcome[1]
    return names


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
    case: Asked | str, world: dict[str, Any], request: Callable[..., Any] | None = None
) -> Any:
    """The same text in plain CPython outside of a cell, with a stand-in for `request`."""
    case = Asked("", case) if isinstance(case, str) else case
    posted: list[Any] = []
    namespace: dict[str, Any] = {
        "__name__": "__plain__",
        "post": posted.append,
        "request": request,
        **world,
    }
    folder = os.getcwd()
    try:
        exec(compile(BROKER, "<guest>", "exec"), namespace)
        exec(compile(case.source(), "<attack>", "exec"), namespace)
    finally:
        os.chdir(folder)
    return posted[0]
