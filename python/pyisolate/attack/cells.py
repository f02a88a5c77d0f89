"""Cells that attacks on the wall run in."""

import contextlib
import os
import time
from collections.abc import Iterable
from typing import Any

import pyisolate
from pyisolate import LogEvent
from pyisolate._supervisor import BackendMode
from pyisolate.attack.case import Attempt, Fate
from pyisolate.attack.plant import Plant
from pyisolate.attack.texts import UNWIRED, WALL

PATIENCE = 20.0
"""How long setting a cell up may take, in seconds: a guard against hanging."""
_SERVES_EVERY = 16
"""After so many attacks another cell is made; and after each that ended its own."""

IMPORTS = [
    "_io", "_sitebuiltins", "_socket", "asyncio", "atexit", "builtins", "codecs",
    "configparser", "ctypes", "errno", "fcntl", "fileinput", "gc", "glob", "http", "importlib",
    "inspect", "io", "linecache", "math", "mmap", "multiprocessing", "netrc", "opcode",
    "operator", "os", "pathlib", "pickle", "platform", "posix", "pty", "random", "resource",
    "select", "shutil", "signal", "site", "socket", "string", "struct", "subprocess", "sys",
    "sysconfig", "tempfile", "threading", "time", "tokenize", "types", "urllib", "uuid",
    "weakref",
]  # fmt: skip
"""Everything that attacks import: what is imported is no wall, so that none is in their way."""


class Cells:
    """A cell that attacks run in, one after the other; a new one once it is dead."""

    def __init__(
        self,
        supervisor: pyisolate.Supervisor,
        plant: Plant,
        backend: BackendMode = "process",
    ) -> None:
        self.supervisor = supervisor
        self._plant = plant
        self._backend = backend
        self._number = 0
        self._tried = 0
        self._cell: pyisolate.Cell | None = None

    @property
    def cell(self) -> pyisolate.Cell:
        """The cell, alive and with what attacks are written with executed in it."""
        if self._cell is None or self._cell.termination_reason is not None:
            self._number += 1
            self._cell = self.supervisor.spawn(
                f"hostile-{self._number}", backend=self._backend, allowed_imports=IMPORTS
            )
            for text in (UNWIRED, WALL, f"world.update({self._plant.world!r})"):
                self._cell.exec(text).wait(PATIENCE)
        return self._cell

    def run(self, source: str, seconds: float = PATIENCE) -> Any:
        """Execute source text that posts once; what it posted."""
        cell = self.cell
        with contextlib.suppress(TimeoutError):
            while True:  # what an attack that went wrong left behind
                cell.recv(0)
        cell.exec(source).wait(seconds)
        while isinstance(posted := cell.recv(seconds), LogEvent):
            continue  # warnings of the interpreter's
        return posted

    def fates(self, attempts: Iterable[Attempt]) -> dict[str, Fate]:
        """By name, what became of each."""
        return {attempt.name: self._fate(attempt) for attempt in attempts}

    def _fate(self, attempt: Attempt) -> Fate:
        posted, error = None, ""
        try:
            posted = self.run(attempt.source, attempt.seconds)
            if self.cell.call("math.gcd", 12, 18, timeout=PATIENCE) != 6:
                error = "the cell computes nonsense"
        except TimeoutError:
            error = f"it did not end in {attempt.seconds:g} s"
            self.close()
        except pyisolate.SandboxError as caught:
            error = f"{type(caught).__name__}: {caught}"
        changed: dict[str, object] = dict.fromkeys(self._plant.changes(), True)
        if changed:
            self._plant.restore()
        self._tried += 1
        if (error or self._tried % _SERVES_EVERY == 0) and (trouble := self._unserved()):
            changed["the supervisor"] = trouble
        return Fate(posted=posted, error=error, changed=changed)

    def _unserved(self) -> str:
        """Why the supervisor makes no more cells; nothing if it does."""
        try:
            with self.supervisor.spawn(
                f"after-{self._number}", backend=self._backend, allowed_imports=["math"]
            ) as cell:
                served = cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
        except pyisolate.SandboxError as error:
            return str(error)
        return "" if served else "a cell computes nonsense"

    def close(self) -> None:
        """End the cell."""
        if self._cell is not None:
            self._cell.kill()
            self._cell = None


WALL_TIME_MS = 300
"""How long work that does not end may go on, in milliseconds."""
_END_SECONDS_MAX = 10.0


def ended(
    supervisor: pyisolate.Supervisor, backend: BackendMode, attempts: Iterable[Attempt]
) -> dict[str, Fate]:
    """Run what does not end by itself, all at once, each in a cell of its own; how each ended."""
    running = []
    for number, attempt in enumerate(attempts):
        cell = supervisor.spawn(
            f"endless-{number}",
            backend=backend,
            allowed_imports=IMPORTS,
            wall_time_ms=WALL_TIME_MS,
            mem_bytes=1 << 30,
        )
        pid = cell.call("os.getpid", timeout=PATIENCE) and cell.pid  # which is known by then
        running.append((attempt, cell, pid, cell.exec(attempt.source)))
    fates = {}
    for attempt, cell, pid, handle in running:
        error = ""
        try:
            handle.wait(PATIENCE)
        except TimeoutError:  # neither by itself nor by its limit
            fates[attempt.name] = Fate(error="it went on", seconds_to_end=PATIENCE)
            cell.kill()
            continue
        except pyisolate.SandboxError as caught:
            error = f"{type(caught).__name__}: {caught}"
        begun = time.monotonic()
        while _is_there(pid) and time.monotonic() - begun < _END_SECONDS_MAX:
            time.sleep(0.01)
        fates[attempt.name] = Fate(error=error, seconds_to_end=time.monotonic() - begun)
        cell.kill()
    return fates


def _is_there(pid: int | None) -> bool:
    if pid is None:
        raise AssertionError("a cell that answered has no process")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
