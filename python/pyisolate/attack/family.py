"""Many cases of one kind in one text."""

import dataclasses
from collections.abc import Collection

from pyisolate.attack.case import Attempt, Fate, Finding, Trial

_OTHERWISE = {"subinterpreter": {"the host's folders": {"EACCES"}}}
"""By backend and family, how else a wall may answer."""


@dataclasses.dataclass(frozen=True, eq=False)
class Family(Trial):
    """Cases of one kind, by label, and the answer that the wall gives to each."""

    name: str
    kind: str
    texts: dict[str, str]
    answer: str = "EPERM"
    privileged: bool = True
    setup: str = ""
    """Runs before the cases."""
    controlled: frozenset[str] | None = None
    """The cases that the control tries itself; all by default."""

    def __str__(self) -> str:
        return self.name

    @property
    def cases(self) -> tuple[str, ...]:
        """The names of its cases."""
        return tuple(f"{self.name}: {label}" for label in self.texts)

    def _source(self, labels: Collection[str]) -> str:
        """Posts a dict: what became of each case."""
        cases = ",\n".join(f"{label!r}: lambda: {self.texts[label]}" for label in labels)
        return f"{self.setup}\npost(answers({{\n{cases}\n}}))\n"

    def attempt(self) -> Attempt:
        """All cases, one after the other."""
        return Attempt(self.name, self._source(self.texts))

    def control(self) -> Attempt:
        """Those that are harmless without the wall."""
        labels = [it for it in self.texts if self.controlled is None or it in self.controlled]
        return Attempt(self.name, self._source(labels), privileged=self.privileged)

    def confined(self, fate: Fate, token: str, backend: str) -> dict[str, Finding]:
        """The wall answered each."""
        expected = {self.answer} | _OTHERWISE.get(backend, {}).get(self.name, set())
        return {
            f"{self.name}: {label}": self._confined(label, fate, expected) for label in self.texts
        }

    def _confined(self, label: str, fate: Fate, expected: set[str]) -> Finding:
        if fate.lacking:
            return Finding("lacking", fate.lacking)
        if fate.changed:
            return Finding("reached", f"one of its family changed {', '.join(fate.changed)}")
        if not isinstance(fate.posted, dict):
            ended = f"its host ended with {fate.host}" if fate.host is not None else "no answer"
            return Finding("odd", f"{ended}: {fate.error}")
        if label not in fate.posted:
            return Finding("lacking", "it is tried in a cell alone: it could have a lasting effect")
        answer = fate.posted[label]
        if answer in expected:
            return Finding("refused", answer)
        return Finding("reached", f"it was answered {answer}, not {self.answer} by the wall")

    def bare(self, fate: Fate, token: str) -> dict[str, Finding]:
        """Something else answered."""
        return {f"{self.name}: {label}": self._bare(label, fate) for label in self.texts}

    def _bare(self, label: str, fate: Fate) -> Finding:
        if fate.lacking:
            return Finding("lacking", fate.lacking)
        if not isinstance(fate.posted, dict):
            return Finding("odd", f"no answer: {fate.error}, ended with {fate.host}")
        walled = [one for one, answer in fate.posted.items() if answer == self.answer]
        if len(walled) > len(fate.posted) // 4:
            return Finding("odd", f"something else answers {self.answer} here: {walled}")
        if label not in fate.posted:
            return Finding("reached", "others of its family are answered by the kernel")
        if fate.posted[label] == self.answer:
            return Finding("lacking", f"this kernel answers {self.answer} to anybody")
        return Finding("reached", f"without the wall the answer is {fate.posted[label]}")
