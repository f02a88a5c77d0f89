"""Cells with a policy that attacks on the broker run in."""

import contextlib
import dataclasses
import resource
from collections.abc import Sequence
from typing import Any

import pyisolate
from pyisolate import Command, ConnectTCP, Http, LogEvent, Policy, Random, Resolve
from pyisolate._supervisor import BackendMode
from pyisolate.attack.asked import IMPORTS
from pyisolate.attack.case import Attempt, Fate, Trial
from pyisolate.attack.cases.broker_files import policy_of
from pyisolate.attack.cases.broker_programs import GRANTED
from pyisolate.attack.cases.clones import Twins
from pyisolate.attack.cases.empty import Ungranted
from pyisolate.attack.cases.worker import MODULES, Answer
from pyisolate.attack.cells import PATIENCE
from pyisolate.attack.places import Place, Stage
from pyisolate.attack.texts import BROKER, CHANNEL, PLAIN
from pyisolate.attack.texts.tree import Tree
from pyisolate.policy import PolicyLike


class Holding:
    """A cell with a policy; a new one once it is dead."""

    def __init__(
        self,
        stage: Stage,
        policy: PolicyLike | None,
        world: dict[str, Any],
        *,
        text: str = BROKER,
        imports: Sequence[str] = IMPORTS,
    ) -> None:
        self._stage = stage
        self._text = text
        self._imports = imports
        self._policy = policy
        self._world = world
        self._cell: pyisolate.Cell | None = None

    def _alive(self) -> pyisolate.Cell:
        if self._cell is None or self._cell.termination_reason is not None:
            backend: BackendMode = self._stage.cell_backend
            self._cell = self._stage.supervisor.spawn(
                self._stage.new_name("held"),
                backend=backend,
                policy=self._policy,
                allowed_imports=self._imports,
                network_ops_max=100_000,
            )
            self._cell.exec(self._text).wait(PATIENCE)
            given = "".join(f"{name} = {value!r}\n" for name, value in self._world.items())
            self._cell.exec(given).wait(PATIENCE)
        return self._cell

    def fate(self, attempt: Attempt) -> Fate:
        """What became of one text."""
        try:
            cell = self._alive()
            with contextlib.suppress(TimeoutError):
                while True:
                    cell.recv(0)
            cell.exec(attempt.source).wait(attempt.seconds)
            while isinstance(posted := cell.recv(PATIENCE), LogEvent):
                continue
            cell.exec("pass").wait(PATIENCE)
        except TimeoutError:
            self.close()
            return Fate(error=f"it did not end in {attempt.seconds:g} s")
        except pyisolate.SandboxError as error:
            return Fate(error=f"{type(error).__name__}: {error}")
        return Fate(posted=posted)

    def close(self) -> None:
        """End the cell."""
        if self._cell is not None:
            self._cell.kill()
            self._cell = None


class Files(Place):
    """Cells that may have some files of a tree."""

    backends = frozenset({"process", "subinterpreter", "microvm"})
    batch = 16

    def confined(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """One after the other; the tree is compared with what it was."""
        folder = stage.new_folder("tree")
        tree = Tree(folder, stage.plant.token)
        holding = Holding(stage, policy_of(tree), tree.world)
        fates = {}
        for trial in trials:
            before = tree.state()
            fate = holding.fate(trial.attempt())
            after = tree.state()
            after.pop("made/copy", None)  # what some ways make on their way, as they may
            (folder / "made" / "copy").unlink(missing_ok=True)
            changed = {name: True for name in before | after if before.get(name) != after.get(name)}
            fates[trial.name] = dataclasses.replace(fate, changed=changed)
        holding.close()
        return fates


class Elsewhere(Place):
    """Cells that may reach everything but this machine."""

    backends = frozenset({"process", "subinterpreter", "microvm"})
    batch = 10

    def confined(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """One after the other, with a listener on loopback that nobody may reach."""
        port = stage.plant.world["tcp_port"]
        policy = Policy().grant(
            ConnectTCP("*", port), Http(f"http://*:{port}/", methods=["*"]), Resolve("*")
        )
        holding = Holding(stage, policy, {"PORT": port})
        fates = {}
        for trial in trials:
            fate = holding.fate(trial.attempt())
            changed = dict.fromkeys(stage.plant.changes(), True)
            fates[trial.name] = dataclasses.replace(fate, changed=changed)
        holding.close()
        return fates


class Programs(Place):
    """Cells that may run some programs with some arguments."""

    backends = frozenset({"process", "subinterpreter", "microvm"})

    def confined(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """One after the other."""
        commands = [Command(program, args=args) for program, args in GRANTED]
        holding = Holding(stage, Policy().grant(*commands), {})
        fates = {trial.name: holding.fate(trial.attempt()) for trial in trials}
        holding.close()
        return fates


class Nothing(Place):
    """Cells that may have nothing, each by another policy."""

    backends = frozenset({"process", "subinterpreter", "microvm"})
    batch = 4

    def confined(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """Each policy in a cell of its own."""
        plant = stage.plant
        world = {
            "SECRET": str(plant.secret),
            "BASE": str(plant.folder),
            "PORT": plant.world["tcp_port"],
        }
        fates = {}
        for trial in trials:
            assert isinstance(trial, Ungranted)
            text, imports = (PLAIN, []) if trial.imports else (BROKER, IMPORTS)
            holding = Holding(stage, trial.policy, world, text=text, imports=imports)
            fate = holding.fate(trial.attempt())
            holding.close()
            changed = dict.fromkeys(plant.changes(), True)
            fates[trial.name] = dataclasses.replace(fate, changed=changed)
        return fates


class Clones(Place):
    """Several cells of one kind, which do the same."""

    backends = frozenset({"process", "subinterpreter", "microvm"})

    def confined(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """What each draws."""
        return {trial.name: self._drawn(stage, trial) for trial in trials}

    def _drawn(self, stage: Stage, trial: Trial) -> Fate:
        assert isinstance(trial, Twins)
        drawn = []
        try:
            template = None
            if trial.templated:
                template = stage.supervisor.template(
                    imports=["random"], setup="import random; random.random()"
                )
            for _ in range(3):
                with stage.supervisor.spawn(
                    stage.new_name("twin"),
                    backend=stage.cell_backend,
                    policy=Policy().grant(Random()),
                    allowed_imports=["random"],
                    template=template,
                ) as cell:
                    cell.exec(trial.attempt().source).wait(PATIENCE)
                    drawn.append(cell.recv(PATIENCE))
        except pyisolate.SandboxError as error:
            return Fate(error=f"{type(error).__name__}: {error}")
        return Fate(posted=drawn)


class Worker(Place):
    """Cells that write into their channel themselves."""

    backends = frozenset({"process", "subinterpreter", "microvm"})
    batch = 12

    def confined(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """Each in a cell of its own."""
        return {trial.name: _answered(stage, trial.attempt()) for trial in trials}

    def bare(self, stage: Stage, trials: Sequence[Trial]) -> dict[str, Fate]:
        """On a host that knows nothing better; or, of frames, honest ones in such a cell."""
        naive = [trial for trial in trials if isinstance(trial, Answer) and trial.bare_source]
        honest = [trial for trial in trials if trial not in naive]
        fates = {trial.name: _answered(stage, trial.control()) for trial in honest}
        return fates | super().bare(stage, naive)


GROWTH_KIB_MAX = 1 << 20
"""What a host may need for one message, in KiB: the decoder's own cap, and the message."""


def _answered(stage: Stage, attempt: Attempt) -> Fate:
    """What a host makes of what a cell writes into its channel."""
    posted, error = None, ""
    cell = stage.supervisor.spawn(
        stage.new_name("worker"),
        backend=stage.cell_backend,
        allowed_imports=MODULES,
        mem_bytes=2 << 30,
    )
    before = _peak_kib()
    try:
        cell.exec(CHANNEL).wait(PATIENCE)
        cell.exec(attempt.source)
        posted = cell.recv(attempt.seconds)
    except pyisolate.SandboxError as caught:
        error = f"{type(caught).__name__}: {caught}"
    cell.kill()
    changed: dict[str, object] = {}
    if (grown := _peak_kib() - before) > GROWTH_KIB_MAX:
        changed["the host's memory"] = f"{grown} KiB more"
    with stage.supervisor.spawn(stage.new_name("after"), backend=stage.cell_backend) as other:
        other.exec("pass").wait(PATIENCE)
    return Fate(posted=posted, error=error, changed=changed)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
