"""Attacks on the walls of hosts that lack some: what the report calls missing is all that succeeds.

The attacks are those of `pyisolate attack`, whose controls run in `escape`.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from conftest import require
from poor_hosts import command
from pyisolate.attack import Attack
from pyisolate.attack.case import Fate
from pyisolate.attack.cases.families import FAMILIES, HOST_FOLDERS
from pyisolate.attack.cells import IMPORTS
from pyisolate.attack.family import Family
from pyisolate.attack.plant import Plant
from pyisolate.attack.shared import run_shared
from pyisolate.attack.suite import WALL_ATTACKS as ATTACKS
from pyisolate.attack.texts import UNWIRED, WALL
from test_poor_hosts import ask

WALLS = {
    "docker": "Landlock and the filter",
    "user-namespaces-used-up": "Landlock and the filter, as an ordinary user",
    "no-mounts": "namespaces, Landlock and the filter",
    "docker landlock-abi-1": "the oldest Landlock and the filter",
    "docker no-landlock": "the filter alone",
}
"""Hosts, and what stands there between a guest and the files."""

_ATTACKS = """
import types
import pyisolate
from pyisolate.attack.case import Attempt
from pyisolate.attack.cells import Cells

with pyisolate.Supervisor(require="none") as supervisor:
    cells = Cells(supervisor, types.SimpleNamespace(world=world, changes=list))
    fates = cells.fates(Attempt(name, text) for name, text in tries.items())
    cells.close()
answer({name: [fate.posted, fate.error, fate.changed] for name, fate in fates.items()})
"""

NAMES = {
    attack.name for attack in ATTACKS if attack.name.startswith("stat: ")
} | {"/proc: the interpreter's path"}  # fmt: skip
"""Without a root of its own a cell sees the host's names and metadata, and its own."""

READS = {
    attack.name
    for attack in ATTACKS
    if attack.name.startswith(
        ("read: ", "list: ", "/proc: ", "/sys: ", "/dev: ", "names: read ", "machine code: openat")
    )
} - {"/proc: memory", "/proc: write", "/dev: zero, which is memory", "/dev: a terminal"}
"""Without Landlock, too, it reads what the user may who runs it."""

COUNTED = {"limits: many files all the same"}
"""A thread's descriptors are counted as the supervisor looks, so that a short excess passes."""


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    with ExitStack() as stack:
        yield Plant(tmp_path_factory.mktemp("planted"), stack)


@pytest.fixture(scope="module")
def outcomes(plant: Plant) -> Callable[[str], dict[str, Any]]:
    """What became of every attack on a host. Each is run once."""

    @functools.cache
    def run(restrictions: str) -> dict[str, Any]:
        require("userns")
        if "no-landlock" not in restrictions:
            require("landlock")
        tries = {attack.name: attack.attempt().source for attack in ATTACKS}
        tries |= {family.name: family.attempt().source for family in FAMILIES}
        found: dict[str, Any] = ask(restrictions, _ATTACKS, world=plant.world, tries=tries)
        assert plant.changes() == []
        return found

    return run


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
@pytest.mark.parametrize("restrictions", WALLS)
def test_a_cell_refuses(
    restrictions: str, attack: Attack, outcomes: Callable[[str], dict[str, Any]], plant: Plant
):
    """As on other hosts, but for what the report says is missing. The control is `escape`'s."""
    posted, error, changed = outcomes(restrictions)[attack.name]
    assert not changed
    expected = {*attack.refused.split(), "EACCES", "EPERM"}
    if posted is None:
        assert "DIES" in expected, error
        return
    how, what, *_ = posted
    readable = attack.name in READS and "no-landlock" in restrictions
    if how == "done" and (attack.name in NAMES or readable):
        return
    assert plant.token not in repr(posted)
    if how == "done":
        assert "QUIET" in expected, posted
        return
    assert how == "refused", posted
    assert expected & ({what} if isinstance(what, str) else set(what)), posted


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("restrictions", WALLS)
def test_the_filter_answers(
    restrictions: str, family: Family, outcomes: Callable[[str], dict[str, Any]]
):
    """Every generated case is answered as on other hosts."""
    answers, error, _ = outcomes(restrictions)[family.name]
    assert isinstance(answers, dict), error
    expected = {family.answer}
    if family is HOST_FOLDERS:
        expected |= {"EACCES"} if "no-landlock" not in restrictions else {"ok"}
    # The cell itself, which has some small number in a namespace that it shares.
    own = {label for label in answers if label.startswith("tgkill of process")}
    assert {how for label, how in answers.items() if label not in own} <= expected
    assert sum(answers[label] == "ok" for label in own) <= 1


# --- by the thread of a sub-interpreter

FOLDER = Attack(
    "folder: the host's",
    """
    before = os.getcwd()
    raw("chdir", path("/usr"))
    need(os.getcwd() != before, "another folder")
    """,
    "EPERM",
)


THREADS = [attack for attack in [*ATTACKS, FOLDER] if "subinterpreter" not in attack.unfit]


@pytest.fixture(scope="module")
def fates(plant: Plant) -> Callable[[str], dict[str, Fate]]:
    """What became of every attack by the thread of a sub-interpreter, without the guards."""

    @functools.cache
    def run(restrictions: str) -> dict[str, Fate]:
        if "no-landlock" not in restrictions:
            require("landlock")
        plant.restore()
        attempts = [attack.attempt() for attack in THREADS]
        python = command(restrictions.split())
        found = run_shared(
            plant, attempts, [UNWIRED, WALL], IMPORTS, guarded=False, python=python, require="none"
        )
        assert plant.changes() == []
        return found

    return run


@pytest.mark.parametrize("attack", THREADS, ids=str)
@pytest.mark.parametrize("restrictions", ["docker", "docker no-landlock", "docker landlock-abi-1"])
def test_a_thread_refuses(
    restrictions: str, attack: Attack, fates: Callable[[str], dict[str, Fate]], plant: Plant
):
    """As on other hosts without rights; without Landlock it reads, and changes nothing."""
    fate = fates(restrictions)[attack.name]
    assert fate.host is None, fate
    assert not fate.changed, fate
    has_landlock = "no-landlock" not in restrictions
    if fate.posted is None:
        assert "DIES" in attack.refused.split() or attack.name in COUNTED, fate
        return
    how, what, *_ = fate.posted
    readable = attack.name in READS and not has_landlock
    if how == "done" and (attack.name in NAMES | COUNTED or readable):
        return
    assert plant.token not in repr(fate)
    expected = f"{attack.expected('subinterpreter')} EACCES EPERM ENOENT".split()
    if how == "done":
        assert "QUIET" in expected, fate
        return
    assert how == "refused", fate
    assert set(expected) & ({what} if isinstance(what, str) else set(what)), fate
