"""What an attack is, what one run of it tells, and how that is judged."""

import dataclasses
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

type How = Literal["refused", "reached", "lacking", "odd"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one run of one case came to.

    `refused` as expected; `reached` what it aimed at; `lacking`: it cannot be tried here; `odd`:
    none of these. `told` says how that was seen.
    """

    how: How
    told: str


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One text that is run once, in a cell or without the wall."""

    name: str
    source: str
    seconds: float = 15.0
    """How long it may take."""
    posts: bool = True
    """Whether it says how it went. Else it counts what it did."""
    ends: bool = False
    """Whether the host ends the cell while it runs, or after."""
    privileged: bool = False
    """The control keeps the capabilities over its namespaces: it shows the system call filter
    alone at work. The cell has none."""
    fresh_root: bool = False
    """The control has a root of its own, which it may write."""
    kills: bool = False
    """The control waits for the canary's death."""
    interrupts: bool = False
    """In the control an exception is raised after a while."""
    prelude: tuple[str, ...] = ()
    """What the control executes first."""


@dataclasses.dataclass(frozen=True)
class Fate:
    """What became of an attempt."""

    posted: Any = None
    error: str = ""
    """How the cell ended, or what its host was told."""
    changed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is not as before: of the host, and of what is planted."""
    host: int | None = None
    """The status with which the cell's host ended; of a control, how the attacker did."""
    seconds_to_end: float = 0.0
    lacking: str = ""
    """Why it could not be tried at all."""
    has_proc: bool = True
    """Of a control: whether it had a /proc of its own, which not every container lets it mount."""
    canary_died: bool = False


class Trial(ABC):
    """One text, and the cases that its run decides."""

    name: str
    kind: str
    """The class of its cases."""

    @property
    def unfit(self) -> Mapping[str, str]:
        """By backend, why it cannot be tried there."""
        return {}

    @property
    def cases(self) -> tuple[str, ...]:
        """The names of its cases."""
        return (self.name,)

    @abstractmethod
    def attempt(self) -> Attempt:
        """What is run in a cell."""

    def control(self) -> Attempt:
        """What is run without the wall."""
        return self.attempt()

    @abstractmethod
    def confined(self, fate: Fate, token: str, backend: str) -> dict[str, Finding]:
        """How the cases went in a cell."""

    @abstractmethod
    def bare(self, fate: Fate, token: str) -> dict[str, Finding]:
        """How they went without the wall."""


@dataclasses.dataclass(frozen=True, eq=False)
class Attack(Trial):
    """One way out, as guest source text.

    `body`: the body of a function, which returns if the attack succeeds and raises if not.
    `refused`: the names of the errors, by `errno` or by type, with which a cell may refuse it;
    `DIES` where the cell may end by it, `QUIET` where it may come back and have done nothing.
    """

    name: str
    body: str
    refused: str
    loot: bool = False
    """Success is to return the planted secret."""
    exits: int | None = None
    """Success is that the process ends with this status, being another program by then."""
    kills: bool = False
    """Success is that the canary dies."""
    privileged: bool = False
    """As `Attempt` has it."""
    fresh_root: bool = False
    """As `Attempt` has it."""
    lone: bool = False
    """It works in a process of one thread alone, or for the main one."""
    lacking: str = ""
    """Errors by which the kernel says that it has no such feature; `KILLED` if it ends anybody by a
    signal. Then there is no control."""
    kind: str = ""
    runner: str = "attempt"
    """The function that runs it: from where, and after what."""
    cannot: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """By backend, why it cannot be tried there."""

    @property
    def unfit(self) -> Mapping[str, str]:
        """As `cannot`; and where there are no threads, nothing is tried from another."""
        if self.runner == "attempt_in_thread":
            return {"subinterpreter": "a sub-interpreter cell has no threads", **self.cannot}
        return self.cannot

    def __str__(self) -> str:
        return self.name

    def source(self) -> str:
        """The attack, as both sides execute it."""
        body = textwrap.indent(textwrap.dedent(self.body).strip(), "    ")
        return f"def attack():\n{body}\npost({self.runner}(attack))\n"

    def attempt(self) -> Attempt:
        """What is run."""
        return Attempt(
            self.name,
            self.source(),
            privileged=self.privileged,
            fresh_root=self.fresh_root,
            kills=self.kills,
        )

    def confined(self, fate: Fate, token: str, backend: str) -> dict[str, Finding]:
        """Refused as expected, and nothing was touched."""
        return {self.name: judged(fate, token, self.expected(backend))}

    def expected(self, backend: str) -> str:
        """The errors with which a cell of this backend may refuse it."""
        name = self.name.split(" [")[0]  # without the context
        return f"{self.refused} {OTHERWISE.get(backend, {}).get(name, '')}"

    def bare(self, fate: Fate, token: str) -> dict[str, Finding]:
        """It did what it is for."""
        return {self.name: self._bare(fate, token)}

    def _bare(self, fate: Fate, token: str) -> Finding:
        if fate.lacking:
            return Finding("lacking", fate.lacking)
        how, what, *words = fate.posted or ["nothing", "nothing"]
        if how == "refused" and what in self.lacking.split():
            return Finding("lacking", f"this kernel answers {what} to anybody: {words}")
        if not fate.has_proc and "/proc" in self.body:
            return Finding("lacking", "no new /proc can be mounted here: part of it is hidden")
        wanted = self.exits or 0
        if "KILLED" in self.lacking.split() and fate.host is not None and fate.host < 0:
            return Finding("lacking", f"this kernel ends anybody for it, by signal {-fate.host}")
        if fate.host != wanted:
            return Finding("odd", f"it ended with {fate.host}, not {wanted}: {fate.posted!r}")
        if self.exits is None and how != "done":
            return Finding("odd", f"{what} {words}")
        if self.loot and what != token:
            return Finding("odd", f"it took {what!r}, not the secret")
        if fate.canary_died != self.kills:
            return Finding("odd", "the canary died" if fate.canary_died else "the canary lives")
        return Finding("reached", "it works without the wall")


def judged(fate: Fate, token: str, refused: str) -> Finding:
    """What the fate of one attack in a cell comes to, where these errors refuse it."""
    if fate.lacking:
        return Finding("lacking", fate.lacking)
    if token in repr(fate.posted):
        return Finding("reached", "it took the planted secret")
    if fate.host is not None:
        return Finding("reached", f"its host ended with {fate.host}: {fate.error}")
    if fate.changed:
        return Finding("reached", f"it changed {', '.join(fate.changed)}: {fate.changed}")
    expected = set(refused.split())
    if fate.posted is None:
        if "DIES" in expected and fate.error:
            return Finding("refused", fate.error)
        return Finding("odd", fate.error or "it said nothing")
    how, what, *words = fate.posted
    if how == "done":
        if "QUIET" in expected:
            return Finding("refused", "it came back, and nothing was changed")
        return Finding("reached", f"it came back with {what!r}")
    names = {what} if isinstance(what, str) else set(what)
    told = f"{' '.join(sorted(names - {''}))}: {' '.join(map(str, words))}"
    if names & expected:
        return Finding("refused", told)
    return Finding("odd", f"refused, but not by {refused.strip()}: {told}")


OTHERWISE: dict[str, dict[str, str]] = {
    "subinterpreter": {
        # Above the interpreter's folders there are names, in a root that is bound to the host's.
        "read: beside a directory": "EACCES",
        "list: the host's interpreter": "EACCES",
        "list: the host's interpreter, raw": "EACCES",
        "exec: raw execveat": "ENOENT",
        # The interpreter says no before the kernel is asked.
        "fork: os.fork": "RuntimeError",
        "fork: multiprocessing": "RuntimeError",
        "exec: os.execv": "RuntimeError",
        "limits: many files all the same": "EACCES EMFILE",
    }
}
"""By backend and attack, how else a wall may refuse it."""


def of_class(kind: str, attacks: list[Attack]) -> list[Attack]:
    """These attacks, in this class unless they name another."""
    return [attack if attack.kind else dataclasses.replace(attack, kind=kind) for attack in attacks]
