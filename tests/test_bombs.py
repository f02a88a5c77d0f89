"""Bombs: each ends in its own error, leaves nothing running, and costs the host no memory.

`cargo xtask soak --bombs 2000` sets off more of the same.
"""

import gc
from pathlib import Path

import pytest

import pyisolate
from bombs import BOMBS, set_off
from cells import assert_serves, children, until

MIB = 1 << 20
ROUNDS = 3
"""Of each bomb, so that there are some ninety."""
HOST_BYTES_MAX = 8 * MIB
"""How much the host may grow over all of them, once it has seen each kind."""


@pytest.fixture(scope="module")
def supervisor():
    with pyisolate.Supervisor() as supervisor:
        yield supervisor


def resident():
    gc.collect()
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_in_its_own_error(supervisor, name):
    assert set_off(supervisor, "bomb", BOMBS[name]) is None
    assert_serves(supervisor)


@pytest.mark.slow
def test_a_hundred_bombs_leave_nothing(supervisor):
    supervisor.spawn("first").close()
    processes = set(children())
    before = resident()
    wrong = [
        (name, why)
        for turn in range(ROUNDS)
        for name, bomb in BOMBS.items()
        if (why := set_off(supervisor, f"bomb-{turn}", bomb))
    ]
    assert wrong == []
    assert until(lambda: set(children()) <= processes)
    assert resident() - before < HOST_BYTES_MAX
    assert_serves(supervisor)
