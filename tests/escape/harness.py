"""An attack, the cell that it runs in, and its control."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyisolate
from pyisolate import LogEvent

from .plant import Plant

PATIENCE = 20.0
"""How long one attack may take, in seconds: a guard against hanging."""

_HERE = Path(__file__).parent
GUEST = (_HERE / "guest.py").read_text()
UNWIRED = (_HERE / "unwired.py").read_text()

IMPORTS = [
    "_io", "asyncio", "builtins", "ctypes", "errno", "fcntl", "glob", "http", "importlib", "io",
    "math", "mmap", "multiprocessing", "os", "pathlib", "platform", "pty", "resource", "select",
    "shutil", "signal", "site", "socket", "struct", "subprocess", "sys", "sysconfig", "tempfile",
    "threading", "urllib", "uuid",
]  # fmt: skip
"""Everything that attacks import: what is imported is no wall, so that none is in their way."""


@dataclasses.dataclass(frozen=True)
class Attack:
    """One way out, as guest source text.

    `body`: the body of a function, which returns if the attack succeeds and raises if not.
    `refused`: the names of the errors, by `errno` or by type, with which a cell may refuse it.
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
    """The control keeps the capabilities over its namespaces: it shows the system call filter
    alone at work. The cell has none."""
    fresh_root: bool = False
    """The control has a root of its own, which it may write."""
    lacking: str = ""
    """Errors by which the kernel says that it has no such feature: then there is no control."""

    def __str__(self) -> str:
        return self.name

    def source(self, runner: str = "attempt") -> str:
        """The attack, as both sides execute it."""
        body = textwrap.indent(textwrap.dedent(self.body).strip(), "    ")
        return f"def attack():\n{body}\npost({runner}(attack))\n"


@dataclasses.dataclass(frozen=True)
class Control:
    """What happened without the wall."""

    posted: list[Any]
    exit_status: int
    canary_died: bool
    has_proc: bool
    """Whether it had a /proc of its own, which not every container lets it mount."""

    @property
    def outcome(self) -> Any:
        """What the attack posted, if it still could."""
        return self.posted[0] if self.posted else None


class Hostile:
    """A cell that attacks run in; a new one once it is dead."""

    def __init__(self, supervisor: pyisolate.Supervisor, plant: Plant) -> None:
        self.supervisor = supervisor
        self._plant = plant
        self._number = 0
        self._cell: pyisolate.Cell | None = None

    @property
    def cell(self) -> pyisolate.Cell:
        """The cell, alive and with `guest.py` executed in it."""
        if self._cell is None or self._cell.termination_reason is not None:
            self._number += 1
            self._cell = self.supervisor.spawn(f"hostile-{self._number}", allowed_imports=IMPORTS)
            self._cell.exec(UNWIRED).wait(PATIENCE)
            self._cell.exec(GUEST).wait(PATIENCE)
            self._cell.exec(f"world.update({self._plant.world!r})").wait(PATIENCE)
        return self._cell

    def run(self, source: str) -> Any:
        """Execute source text that posts once; what it posted."""
        cell = self.cell
        with contextlib.suppress(TimeoutError):
            while True:  # what an attack that failed the test left behind
                cell.recv(0)
        cell.exec(source).wait(PATIENCE)
        while isinstance(posted := cell.recv(PATIENCE), LogEvent):
            continue  # warnings of the interpreter's
        return posted

    def close(self) -> None:
        """End the cell."""
        if self._cell is not None:
            self._cell.close()


def run_control(
    plant: Plant,
    source: str,
    *,
    privileged: bool = False,
    fresh_root: bool = False,
    kills: bool = False,
    environment: dict[str, str] | None = None,
    descriptors: tuple[int, ...] = (),
) -> Control:
    """Run the text of an attack without the wall, in throw-away namespaces.

    `privileged` and `fresh_root`: as `Attack` has them. `environment` and `descriptors`: what it
    inherits of the test.
    """
    job = {
        "guest": GUEST,
        "world": plant.world,
        "folder": str(plant.folder),
        "token": plant.token,
        "source": source,
        "privileged": privileged,
        "fresh_root": fresh_root,
        "kills": kills,
    }
    ended = subprocess.run(
        [sys.executable, "-I", "-S", str(_HERE / "control.py")],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment or {},
        pass_fds=descriptors,
    )
    assert ended.returncode == 0, f"the control did not run:\n{ended.stderr}"
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    said = {kind: value for kind, value in lines if kind != "posted"}
    return Control(
        posted=[value for kind, value in lines if kind == "posted"],
        exit_status=said["exited"],
        canary_died=said["canary"] == "dead",
        has_proc=said["proc"],
    )
