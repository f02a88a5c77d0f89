"""Attacks on the broker and the policy, which are made by asking."""

import dataclasses
import textwrap
from collections.abc import Callable, Mapping

from pyisolate.attack.case import Attempt, Fate, Finding, Trial

IMPORTS = [
    "_posixsubprocess", "_socket", "asyncio", "base64", "builtins", "contextlib", "ctypes", "errno",
    "fcntl", "gc", "glob", "gzip", "http", "io", "json", "math", "mmap", "os", "pathlib",
    "posix", "random",
    "re", "secrets", "shutil", "socket", "struct", "subprocess", "sys", "tempfile", "threading",
    "time", "unicodedata", "urllib", "zlib",
]  # fmt: skip
"""Everything that attacks import: what is imported is no wall, so that none is in their way."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """One way past the broker, as guest source text.

    `body`: the body of a function, which returns what it took if the attack succeeds and raises
    if not. `refused`: the errors, by `errno` or type, with which it may be refused; `DENIED`
    by itself where the policy or the broker decides, and then a denial is recorded.
    """

    name: str
    body: str
    refused: str = "DENIED"
    recorded: bool | None = None
    """Whether the host has a denial of it then; `None`: exactly if it was `CapabilityDenied`."""
    plain: bool = True
    """Whether the same text succeeds without a wall."""
    privileged: bool = False
    """Whether only root can set it up."""

    def __str__(self) -> str:
        return self.name

    def source(self) -> str:
        """The attack, as both sides execute it."""
        return f"{self.function('attack')}post(attempt(attack))\n"

    def function(self, name: str) -> str:
        """The attack as a function of this name."""
        body = textwrap.indent(textwrap.dedent(self.body).strip(), "    ")
        return f"def {name}():\n{body}\n"

    @property
    def expected(self) -> set[str]:
        """The names of the errors that refuse it."""
        return set(self.refused.replace("DENIED", "CapabilityDenied").split())


@dataclasses.dataclass(frozen=True, eq=False)
class Ways(Trial):
    """Several ways to one thing, which one text tries one after the other.

    In a cell it posts, by name, how each ended; without the wall also what each changed.
    """

    name: str
    kind: str
    asked: tuple[Asked, ...]
    prelude: tuple[str, ...]
    """What the control executes first. It defines `fresh()`, which makes what is aimed at anew and
    gives a function that says what has changed since."""
    shown: Callable[[Asked, object, bool, str], bool]
    """Of a control: whether what a way returned, whether anything changed, and the secret show
    that it works."""
    lacking: str = ""
    """Errors by which this host says that it lacks something."""
    cannot: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def unfit(self) -> Mapping[str, str]:
        """As `cannot`."""
        return self.cannot

    @property
    def cases(self) -> tuple[str, ...]:
        """One for each way."""
        return tuple(f"{self.name}: {asked.name}" for asked in self.asked)

    def attempt(self) -> Attempt:
        """Each, one after the other."""
        return Attempt(self.name, self._source("how = attempt(attack)", "how"), seconds=60)

    def control(self) -> Attempt:
        """Each with what it aims at as new."""
        text = "changed = fresh(); how = attempt(attack)"
        source = self._source(text, "[*how, bool(changed())]")
        return Attempt(self.name, source, seconds=60, prelude=self.prelude)

    def _source(self, run: str, told: str) -> str:
        parts = ["outcomes = {}\n"]
        parts += [
            f"{asked.function('attack')}{run}\noutcomes[{asked.name!r}] = {told}\n"
            for asked in self.asked
        ]
        return "".join(parts) + "post(outcomes)\n"

    def confined(self, fate: Fate, token: str, backend: str) -> dict[str, Finding]:
        """Each was refused, and nothing changed."""
        return {
            f"{self.name}: {asked.name}": self._confined(asked, fate, token) for asked in self.asked
        }

    def _confined(self, asked: Asked, fate: Fate, token: str) -> Finding:
        if fate.lacking:
            return Finding("lacking", fate.lacking)
        if fate.changed:
            return Finding("reached", f"one of these ways changed {', '.join(fate.changed)}")
        if not isinstance(fate.posted, dict):
            return Finding("odd", fate.error or "it said nothing")
        how, what, *words = fate.posted[asked.name]
        if token in repr(fate.posted[asked.name]):
            return Finding("reached", "it took the planted secret")
        if how == "done":
            return Finding("reached", f"it came back with {what!r}")
        told = f"{' '.join(name for name in what if name)}: {' '.join(map(str, words))}"
        if set(what) & asked.expected:
            return Finding("refused", told)
        return Finding("odd", f"refused, but not by {asked.refused}: {told}")

    def bare(self, fate: Fate, token: str) -> dict[str, Finding]:
        """Each reached what it is for."""
        return {
            f"{self.name}: {asked.name}": self._bare(asked, fate, token) for asked in self.asked
        }

    def _bare(self, asked: Asked, fate: Fate, token: str) -> Finding:
        if fate.lacking:
            return Finding("lacking", fate.lacking)
        if not isinstance(fate.posted, dict):
            return Finding("odd", f"no answer: {fate.error}, ended with {fate.host}")
        how, what, *_, changed = fate.posted[asked.name]
        if how == "refused" and set(what) & set(self.lacking.split()):
            return Finding("lacking", f"this host answers {what} to anybody")
        if how == "done" and self.shown(asked, what, changed, token):
            return Finding("reached", "it works without the wall")
        return Finding("odd", f"{how}: {what!r}, changed: {changed}")
