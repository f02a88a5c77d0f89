"""Runs attacks on sub-interpreter cells in hosts that are thrown away: the cells are inside."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyisolate.attack.case import Attempt, Fate
from pyisolate.attack.plant import Plant

HOST_SECONDS_MAX = 50.0
"""How long one host may take for the attacks that it is given: a guard against hanging."""
HUNG = -1000
"""The status of a host that hung."""

IMPORTS = [
    "_ctypes", "_imp", "_interpchannels", "_interpqueues", "_interpreters", "_locale",
    "_posixsubprocess", "_sitebuiltins", "_sqlite3", "_testcapi", "_thread", "atexit", "builtins",
    "concurrent", "errno", "faulthandler", "fcntl", "gc", "importlib", "locale", "math", "mmap",
    "os", "planted", "posix", "readline", "resource", "signal", "socket", "sys", "syslog",
    "threading", "time", "tracemalloc", "types",
]  # fmt: skip
"""Everything that attacks on the shared process import."""

_HOST = Path(__file__).parent / "texts" / "host.py"


def run_shared(
    plant: Plant,
    attempts: Iterable[Attempt],
    prelude: list[str],
    imports: list[str],
    *,
    guarded: bool = True,
    unprivileged: bool = False,
    control: bool = False,
    fresh: bool = False,
    python: Sequence[str] = (sys.executable,),
    require: str = "default",
    limits: Mapping[str, int] | None = None,
) -> dict[str, Fate]:
    """Try attacks one after another on one host; on another one once it is gone.

    `guarded`: with the guards that are no wall. `unprivileged`: by a host without capabilities.
    `control`: not in a cell, but each in a process of its own. `fresh`: each in a cell of its own.
    `python`: what runs Python as the host. `require`: of the supervisor.
    """
    waiting = list(attempts)
    fates: dict[str, Fate] = {}
    while waiting:
        job = {
            "world": plant.world | {"token": plant.token},
            "prelude": prelude,
            "imports": imports,
            "limits": limits or {},
            "guarded": guarded,
            "unprivileged": unprivileged,
            "control": control,
            "interrupts": any(attempt.interrupts for attempt in waiting),
            "fresh": fresh,
            "require": require,
            "cases": [[one.name, one.source, one.seconds, one.posts, one.ends] for one in waiting],
        }
        status, lines, errors = _run_host(job, python)
        begun = None
        for kind, *rest in map(json.loads, lines):
            if kind == "begin":
                (begun,) = rest
            elif kind == "end":
                name, posted, error, changed, seconds = rest
                fates[name] = Fate(posted, error, changed, seconds_to_end=seconds)
                begun = None
            elif kind == "ended":
                name, how = rest
                fates[name] = dataclasses.replace(fates.get(name, Fate()), host=how)
        if begun is not None:
            fates[begun] = Fate(error=errors[-2000:], host=status)
        elif status != 0 or not lines or json.loads(lines[-1]) != ["done"]:
            # Between two attacks, or after all: nobody can say by which.
            told = f"a host of attacks ended with {status} by itself: {errors[-2000:]}"
            return {one.name: Fate(error=told) for one in waiting} | fates
        waiting = [one for one in waiting if one.name not in fates]
    return fates


def _run_host(job: dict[str, Any], python: Sequence[str]) -> tuple[int, list[str], str]:
    with subprocess.Popen(
        [*python, "-P", str(_HOST)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as host:  # fmt: skip
        try:
            output, errors = host.communicate(json.dumps(job), timeout=HOST_SECONDS_MAX)
            status = host.returncode
        except subprocess.TimeoutExpired:
            host.kill()
            output, errors = host.communicate()
            status = HUNG
    return (
        status,
        [line for line in output.splitlines() if line.startswith('["') and line.endswith("]")],
        errors,
    )
