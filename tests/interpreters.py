"""Cells in sub-interpreters, and throw-away host processes for what might take its host along."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyisolate
from cells import PATIENCE, new_cell

BACKEND = "subinterpreter"

_HOST = """
import contextlib, gc, os, sys, threading, time
import pyisolate
from cells import PATIENCE, assert_serves, drain, run, until
from interpreters import new_interpreter, threads_of_cells
"""


def new_interpreter(**options: Any) -> pyisolate.Cell:
    """A cell in an interpreter of this process, with a name of its own."""
    return new_cell(backend=BACKEND, **options)


def threads_of_cells() -> int:
    """How many threads this process has for guests, and to end them."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:
            continue  # it ended
    return sum(name in {"pyisolate-cell", "pyisolate-stopp"} for name in names)


def host(program: str, *words: str, status: int = 0) -> str:
    """Run a host's program in a process of its own; what it printed, if it ended as it should."""
    source = _HOST + textwrap.dedent(program).lstrip("\n")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", source, *words],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
