"""Cells for tests, made with the package's own supervisor."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyisolate

PATIENCE = 20.0
"""How long a test waits for what must come, in seconds: a guard against hanging, no promise."""

_numbers = itertools.count(1)


def new_cell(**options: Any) -> pyisolate.Cell:
    """A cell with a name of its own."""
    return pyisolate.spawn(f"test-{next(_numbers)}", **options)


def run(cell: pyisolate.Cell, source: str) -> None:
    """Run source text to its end."""
    cell.exec(source).wait(PATIENCE)


def death_of(cell: pyisolate.Cell) -> pyisolate.CellDied:
    """The error of a cell's end, once everything that it sent was taken."""
    while True:
        try:
            cell.recv(PATIENCE)
        except pyisolate.CellDied as error:
            return error


def drain(cell: pyisolate.Cell) -> list[Any]:
    """Everything that a cell which ended had sent."""
    items = []
    while True:
        try:
            items.append(cell.recv(PATIENCE))
        except pyisolate.CellDied:
            return items


def assert_serves(supervisor: Any = pyisolate) -> None:
    """The supervisor still makes cells that work."""
    with supervisor.spawn(f"after-{next(_numbers)}", allowed_imports=["math"]) as cell:
        assert cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6


def until(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds; false if it never did."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def children(pid: int | str = "self") -> list[int]:
    """The processes below one, itself not among them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            direct = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # the thread ended
        for child in direct:
            found += [child, *children(child)]
    return found
