"""Attacks on sub-interpreter cells. Their host is a child of the test, since they are inside it."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .plant import Plant

HOST_SECONDS_MAX = 50.0
"""How long one host may take for all its attacks: a guard against hanging, below a test's limit."""

_HOST = Path(__file__).parent / "interpreter_host.py"


@dataclasses.dataclass(frozen=True)
class Try:
    """One attack, as the host is told of it."""

    label: str
    source: str
    seconds: float = 10.0
    """How long it may take."""
    posts: bool = True
    """Whether it says how it went. Else it counts what it did to the host."""
    ends: bool = False
    """Whether the host ends the cell while it runs, or after."""


@dataclasses.dataclass(frozen=True)
class Fate:
    """What became of one attack, and of the host."""

    posted: Any
    error: str
    """What the host was told of the cell's end."""
    changed: dict[str, Any]
    """What of the host is not as before."""
    seconds_to_end: float
    host: int | None = None
    """The status with which the host ended in the middle of it; -1000 if it hung. Of a
    control, always how it ended."""


def run_tries(
    plant: Plant,
    tries: Iterable[Try],
    prelude: list[str],
    imports: list[str],
    *,
    guarded: bool = True,
    unprivileged: bool = False,
    control: bool = False,
    interrupts: bool = False,
    fresh: bool = False,
    **limits: int,
) -> dict[str, Fate]:
    """Try attacks one after another on one host; on another one once it is gone.

    `guarded`: with the guards that are no wall. `unprivileged`: by a host without capabilities.
    `control`: not in a cell, but each in a process of its own, and with `interrupts` one exception
    is raised in it. `fresh`: each in a cell of its own.
    """
    waiting = list(tries)
    fates: dict[str, Fate] = {}
    while waiting:
        job = {
            "world": plant.world | {"token": plant.token},
            "prelude": prelude,
            "imports": imports,
            "limits": limits,
            "guarded": guarded,
            "unprivileged": unprivileged,
            "control": control,
            "interrupts": interrupts,
            "fresh": fresh,
            "cases": [dataclasses.astuple(one) for one in waiting],
        }
        status, lines, errors = _run_host(job)
        begun = None
        for kind, *rest in map(json.loads, lines):
            if kind == "begin":
                (begun,) = rest
            elif kind == "end":
                label, *fate = rest
                fates[label] = Fate(*fate)
                begun = None
            elif kind == "ended":
                label, how = rest
                came_back = fates.get(label, Fate(None, "", {}, 0.0))
                fates[label] = dataclasses.replace(came_back, host=how)
        if begun is not None:
            fates[begun] = Fate(None, errors[-2000:], {}, 0.0, host=status)
        elif not lines or json.loads(lines[-1]) != ["done"]:
            raise AssertionError(f"the host ended with {status} between two attacks:\n{errors}")
        elif status != 0:
            raise AssertionError(f"the host ended with {status} after all attacks:\n{errors}")
        waiting = [one for one in waiting if one.label not in fates]
    return fates


def _run_host(job: dict[str, Any]) -> tuple[int, list[str], str]:
    with subprocess.Popen(
        [sys.executable, "-P", str(_HOST)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as host:  # fmt: skip
        try:
            output, errors = host.communicate(json.dumps(job), timeout=HOST_SECONDS_MAX)
            status = host.returncode
        except subprocess.TimeoutExpired:
            host.kill()
            output, errors = host.communicate()
            status = -1000
    return (
        status,
        [line for line in output.splitlines() if line.startswith('["') and line.endswith("]")],
        errors,
    )


def assert_host_unharmed(fate: Fate) -> None:
    """The host is alive and as it was."""
    assert fate.host is None, f"the host ended with {fate.host}: {fate.error}"
    assert fate.changed == {}, fate.changed
