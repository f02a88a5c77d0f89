"""What a cell posts, as it arrives."""

import contextlib
from typing import Any

import pyisolate
from cells import PATIENCE, run


def sent(cell: pyisolate.Cell, expression: str) -> Any:
    """What arrives when the guest posts the value of an expression."""
    run(cell, f"post({expression})")
    return cell.recv(PATIENCE)


def empty(cell: pyisolate.Cell) -> None:
    """Take whatever a failed test has left, so that the next one does not get it."""
    run(cell, "post('the end of a test')")
    received: Any = None
    while not isinstance(received, str) or received != "the end of a test":
        with contextlib.suppress(pyisolate.SandboxError, TypeError, ValueError, ImportError):
            received = cell.recv(PATIENCE)
