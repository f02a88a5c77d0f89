"""What a program is, and how the files of the suite collect theirs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pyisolate.conformance.backends import FEATURES
from pyisolate.conformance.host import Host

type Steps = Callable[[Host], object]
"""Drives cells by a `Host`, which writes down what happens."""


@dataclass(frozen=True)
class Program:
    """One program of the suite."""

    name: str
    """`promise/what it shows`"""
    steps: Steps
    needs: frozenset[str] = frozenset()
    """What a backend must offer; on others the program is not applicable."""


class Group:
    """The programs of one promise. Each file of programs has one."""

    def __init__(self, promise: str) -> None:
        self.promise = promise
        self.programs: list[Program] = []

    def add(self, name: str, steps: Steps, needs: Iterable[str] = ()) -> None:
        """Add a program that was generated."""
        unknown = set(needs) - FEATURES.keys()
        if unknown:
            raise ValueError(f"{name}: no such features: {sorted(unknown)}")
        self.programs.append(Program(f"{self.promise}/{name}", steps, frozenset(needs)))

    def program(self, *needs: str) -> Callable[[Steps], Steps]:
        """Add a function as a program. Its name says what the program shows."""

        def collect(steps: Steps) -> Steps:
            self.add(getattr(steps, "__name__", "").replace("_", " "), steps, needs)
            return steps

        return collect

    def sources(
        self, sources: Mapping[str, str], *, imports: Iterable[str] = (), needs: Iterable[str] = ()
    ) -> None:
        """Add a program for each source text: it runs in a fresh cell, to its end."""
        allowed = tuple(imports)
        for name, source in sources.items():
            self.add(name, _running(source, allowed), needs)


def _running(source: str, imports: tuple[str, ...]) -> Steps:
    """Steps that run one source text; a function of its own so that each binds its own text."""
    return lambda host: host.spawn(allowed_imports=imports).run(source)
