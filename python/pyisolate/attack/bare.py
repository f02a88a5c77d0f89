"""Runs attacks without the wall: the controls, which show that an attack works at all."""

import concurrent.futures
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyisolate.attack.case import Attempt, Fate
from pyisolate.attack.plant import Plant
from pyisolate.attack.texts import WALL

_PROGRAM = Path(__file__).parent / "texts" / "control.py"
START_SECONDS = 20.0
"""How long one control may take besides its own time: a guard against hanging."""
_SHARE = 12
"""So many controls a process: starting an interpreter takes as long as some of them."""


def run_bare(
    plant: Plant,
    attempts: Sequence[Attempt],
    *,
    environment: dict[str, str] | None = None,
    descriptors: tuple[int, ...] = (),
) -> dict[str, Fate]:
    """Run texts without the wall, each in throw-away namespaces of its own; by name, their fates.

    `environment` and `descriptors`: what they inherit of this process.
    """
    shares = [attempts[start : start + _SHARE] for start in range(0, len(attempts), _SHARE)]
    with concurrent.futures.ThreadPoolExecutor(os.process_cpu_count() or 1) as pool:
        done = pool.map(
            lambda share: _run_share(plant, share, environment or {}, descriptors), shares
        )
        return {name: fate for fates in done for name, fate in fates.items()}


def _run_share(
    plant: Plant,
    attempts: Sequence[Attempt],
    environment: dict[str, str],
    descriptors: tuple[int, ...],
) -> dict[str, Fate]:
    job = {"guest": WALL, "attacks": [_as_job(plant, attempt) for attempt in attempts]}
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(_PROGRAM)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, pass_fds=descriptors,
    ) as program:  # fmt: skip
        try:
            seconds = sum(attempt.seconds + START_SECONDS for attempt in attempts)
            output, errors = program.communicate(json.dumps(job), timeout=seconds)
        except subprocess.TimeoutExpired:
            program.kill()
            output, errors = program.communicate()
    heard: dict[str, dict[str, list[Any]]] = {attempt.name: {} for attempt in attempts}
    for line in output.splitlines():
        name, what, value = json.loads(line)
        heard[name].setdefault(what, []).append(value)
    return {name: _fate(said, errors) for name, said in heard.items()}


def _as_job(plant: Plant, attempt: Attempt) -> dict[str, Any]:
    return {
        "name": attempt.name,
        "source": attempt.source,
        "seconds": attempt.seconds,
        "privileged": attempt.privileged,
        "fresh_root": attempt.fresh_root,
        "kills": attempt.kills,
        "interrupts": attempt.interrupts,
        "prelude": attempt.prelude,
        "world": plant.world,
        "folder": str(plant.folder),
        "token": plant.token,
    }


def _fate(said: dict[str, list[Any]], errors: str) -> Fate:
    if failed := said.get("failed"):
        return Fate(lacking=f"this host cannot make throw-away namespaces: {failed[0]}")
    if "canary" not in said:
        return Fate(error=f"the control did not end: {errors[-500:]}", host=-9)
    return Fate(
        posted=said.get("posted", [None])[0],
        error=" ".join(said.get("raised", [])),
        host=said["exited"][0],
        has_proc=said["proc"][0],
        canary_died=said["canary"][0] == "dead",
    )
