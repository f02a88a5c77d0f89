"""Where attacks are run: in a cell, and without the wall."""

import contextlib
import dataclasses
import itertools
import logging
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import pyisolate
from pyisolate._supervisor import BackendMode
from pyisolate.attack.bare import run_bare
from pyisolate.attack.case import Fate, Trial
from pyisolate.attack.cells import IMPORTS, Cells, ended
from pyisolate.attack.plant import Plant
from pyisolate.attack.shared import IMPORTS as SHARED_IMPORTS
from pyisolate.attack.shared import run_shared
from pyisolate.attack.texts import INTERPRETER, UNWIRED, WALL

type BackendName = BackendMode | Literal["none"]
"""`none`: no wall at all, to see that attacks are told which succeed."""


class Stage:
    """What attacks aim at, and a supervisor for cells of one backend.

    Raises `pyisolate.SandboxError` if this host cannot make a cell of that backend.
    """

    def __init__(self, backend: BackendName) -> None:
        self.backend = backend
        self._numbers = itertools.count(1)
        # What the supervisor logs for people is no part of the result.
        logging.getLogger("pyisolate").addHandler(logging.NullHandler())
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attack-")))
            folder.chmod(0o755)  # what is refused is refused by the wall, not by its owner
            self.folder = folder.resolve()
            self.plant = Plant(self._made("cells"), stack)
            self.spare = Plant(self._made("bare"), stack)
            self.supervisor = stack.enter_context(pyisolate.Supervisor())
            if backend != "none":
                self.supervisor.spawn("probe", backend=backend).kill()
                self.cells = Cells(self.supervisor, self.plant, backend)
                stack.callback(self.cells.close)
            self._stack = stack.pop_all()

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def new_folder(self, name: str) -> Path:
        """An empty folder, removed in the end."""
        return self._made(self.new_name(name))

    def new_name(self, name: str) -> str:
        """A name that begins with this one and was not given before."""
        return f"{name}-{next(self._numbers)}"

    @property
    def cell_backend(self) -> BackendMode:
        """Whose cells are attacked; `none` has none."""
        if self.backend == "none":
            raise AssertionError("there is no cell where there is no wall")
        return self.backend

    def close(self) -> None:
        """End every cell and process, and remove what was planted."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Place(ABC):
    """A way to run texts, in cells and without the wall."""

    backends: frozenset[BackendName] = frozenset({"process", "subinterpreter", "microvm", "none"})
    """Whose cells it is about."""
    batch = 48
    """How many texts are run at once."""

    @abstractmethod
    def confined(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """By the trials' names, what became of each in a cell."""

    def bare(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """The same without the wall."""
        return run_bare(stage.spare, [trial.control() for trial in trials])


def _as_confined(fate: Fate) -> Fate:
    """What became of a control, told as if it had been in a cell."""
    changed = {"the canary": "it is dead"} if fate.canary_died else {}
    return dataclasses.replace(fate, changed=changed, host=fate.host or None)


class Wall(Place):
    """The wall alone: what would refuse, or hide, before the kernel is asked is taken away."""

    def confined(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """In cells that attacks share."""
        match stage.backend:
            case "none":
                fates = run_bare(stage.plant, [trial.control() for trial in trials])
                return {name: _as_confined(fate) for name, fate in fates.items()}
            case "subinterpreter":
                return run_shared(
                    stage.plant,
                    [trial.attempt() for trial in trials],
                    [UNWIRED, WALL],
                    IMPORTS,
                    guarded=False,
                )
            case _:
                return stage.cells.fates(trial.attempt() for trial in trials)


class Thread(Wall):
    """The wall around one thread of its host's."""

    backends = frozenset({"subinterpreter"})


class Shared(Place):
    """The process that sub-interpreter cells share with their host: wall and guards."""

    backends = frozenset({"subinterpreter"})
    batch = 200  # the host is started anew for each

    def confined(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """Each in a cell of its own, on a host that is thrown away."""
        attempts = [trial.attempt() for trial in trials]
        return run_shared(stage.plant, attempts, [INTERPRETER], SHARED_IMPORTS, fresh=True)

    def bare(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """Each in a process of its own that is what such a host is."""
        attempts = [trial.control() for trial in trials]
        return run_shared(stage.spare, attempts, [INTERPRETER], SHARED_IMPORTS, control=True)


class Ends(Place):
    """What has to be ended from outside."""

    def confined(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """Each in a cell of its own, which its limit or its host ends."""
        attempts = [trial.attempt() for trial in trials]
        match stage.backend:
            case "none":
                return run_bare(stage.plant, [trial.control() for trial in trials])
            case "subinterpreter":
                return run_shared(stage.plant, attempts, [INTERPRETER], SHARED_IMPORTS)
            case _:
                return ended(stage.supervisor, stage.backend, attempts)


def batches(place: Place, trials: Sequence[Trial]) -> Iterator[Sequence[Trial]]:
    """The trials, as many at once as the place takes."""
    for start in range(0, len(trials), place.batch):
        yield trials[start : start + place.batch]
