"""Cells in sub-interpreters, and throw-away host processes for what might take its host along."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyisolate
from cells import PATIENCE, new_cell

BACKEND = "subinterpreter"
GUEST = "pyisolate-cell"
STOPPER = "pyisolate-stopp"  # as much of it as the kernel keeps

_HOST = """
import contextlib, gc, os, sys, threading, time
import pyisolate
from cells import PATIENCE, assert_serves, drain, run, until
from interpreters import GUEST, STOPPER, new_interpreter, threads_named, threads_of_cells
"""


def new_interpreter(**options: Any) -> pyisolate.Cell:
    """A cell in an interpreter of this process, with a name of its own."""
    return new_cell(backend=BACKEND, **options)


def threads_named(name: str) -> list[int]:
    """The threads of this process that have a name."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            if (task / "comm").read_text().strip() == name:
                found.append(int(task.name))
        except OSError:
            continue  # it ended
    return found


def threads_of_cells() -> int:
    """How many threads this process has for guests, and to end them."""
    return len(threads_named(GUEST) + threads_named(STOPPER))


def command(program: str, *words: str) -> list[str]:
    """The command that runs a host's program in a process of its own."""
    source = _HOST + textwrap.dedent(program).lstrip("\n")
    return [sys.executable, "-X", "faulthandler", "-c", source, *words]


def host(program: str, *words: str, status: int = 0) -> str:
    """Run a host's program in a process of its own; what it printed, if it ended as it should."""
    done = subprocess.run(
        command(program, *words),
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
