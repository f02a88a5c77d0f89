"""What confines a sub-interpreter's thread where its host has no rights: Landlock and seccomp.

The guards, which are no wall, are taken away in a throw-away host: so guest code gets ctypes, and
the same text makes the same raw system calls as in a process cell. `test_attacks.py` has the same
for a host with rights, and the controls.
"""

import functools
from collections.abc import Callable

import pytest

from conftest import require
from pyisolate.attack import Attack
from pyisolate.attack.case import Fate, judged
from pyisolate.attack.cells import IMPORTS
from pyisolate.attack.plant import Plant
from pyisolate.attack.shared import run_shared
from pyisolate.attack.suite import WALL_ATTACKS
from pyisolate.attack.texts import UNWIRED, WALL

ATTACKS = [attack for attack in WALL_ATTACKS if "subinterpreter" not in attack.unfit]
NAMES_ARE_SEEN = {
    attack.name for attack in ATTACKS if attack.name.startswith(("stat: ", "list: "))
} | {"/proc: the interpreter's path"}
"""Without a root of its own a thread sees the host's names, as the report says."""

Fates = dict[str, Fate]


@pytest.fixture(scope="module")
def fates(plant: Plant) -> Callable[[], Fates]:
    """What became of every attack. Each is run once."""

    @functools.cache
    def run() -> Fates:
        require("landlock")
        plant.restore()
        attempts = [attack.attempt() for attack in ATTACKS]
        found = run_shared(
            plant, attempts, [UNWIRED, WALL], IMPORTS, guarded=False, unprivileged=True
        )
        assert plant.changes() == []
        return found

    return run


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_thread_of_a_host_without_rights_refuses(
    attack: Attack, fates: Callable[[], Fates], plant: Plant
):
    """Names are to be seen, and nothing else."""
    fate = fates()[attack.name]
    more = " QUIET" if attack.name in NAMES_ARE_SEEN else ""
    finding = judged(fate, plant.token, attack.expected("subinterpreter") + " EACCES ENOENT" + more)
    assert finding.how == "refused", finding
