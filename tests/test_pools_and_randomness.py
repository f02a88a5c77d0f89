"""A pool keeps cells ready whatever their policy; no two cells draw the same random numbers."""

import os
import random
import signal
import time

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, children, run, until


@pytest.fixture(scope="module")
def supervisor():
    with pyisolate.Supervisor(warm_pool=3) as supervisor:
        yield supervisor


def ready(supervisor):
    return supervisor._core.pool_ready


def test_cells_of_the_pool_have_their_own_policy_and_limits(supervisor):
    assert until(lambda: ready(supervisor) == 3)
    with supervisor.spawn("a", allowed_imports=["math"], cpu_ms=200) as cell:
        assert cell.call("math.sqrt", 4, timeout=PATIENCE) == 2.0
        with pytest.raises(pyisolate.PolicyError):
            run(cell, "import os")
        with pytest.raises(pyisolate.CPUExceeded):
            run(cell, "while True: pass")
    with supervisor.spawn("b", allowed_imports=["os"], mem_bytes=64 << 20) as cell:
        run(cell, "import os")
        with pytest.raises(pyisolate.PolicyError):
            run(cell, "import math")
        with pytest.raises(pyisolate.MemoryExceeded):
            run(cell, "bytearray(10**9)")


def test_the_pool_refills(supervisor):
    for turn in range(5):
        assert until(lambda: ready(supervisor) == 3)
        cells = [supervisor.spawn(f"c{number}") for number in range(3)]
        for cell in cells:
            run(cell, f"post({turn})")
            assert cell.recv(PATIENCE) == turn
            cell.close()
    assert until(lambda: ready(supervisor) == 3)


def test_more_cells_than_the_pool_holds(supervisor):
    cells = [supervisor.spawn(f"c{number}") for number in range(10)]
    for cell in cells:
        run(cell, "post(1)")
        assert cell.recv(PATIENCE) == 1
        cell.kill()


def test_cells_that_wait_in_the_pool_are_not_listed(supervisor):
    assert until(lambda: ready(supervisor) == 3)
    assert supervisor.list_active() == []


def test_a_pooled_cell_that_died_is_not_handed_out():
    before = set(children())
    with pyisolate.Supervisor(warm_pool=2) as supervisor:
        assert until(lambda: ready(supervisor) == 2)
        pooled = [pid for pid in set(children()) - before if not children(pid)]
        assert len(pooled) == 2
        for pid in pooled:
            os.kill(pid, signal.SIGKILL)
        assert until(lambda: not set(pooled) & set(children()))
        for _ in range(4):
            assert_serves(supervisor)
        assert until(lambda: ready(supervisor) == 2)


@pytest.mark.parametrize("size", [-1, "many", 1.5])
def test_senseless_sizes_are_refused(size):
    with pytest.raises((ValueError, TypeError)):
        pyisolate.Supervisor(warm_pool=size)


def test_shutting_down_while_the_pool_fills(supervisor):
    assert until(lambda: ready(supervisor) == 3)
    before = set(children())
    for _ in range(25):
        started = time.monotonic()
        supervisor = pyisolate.Supervisor(warm_pool=4)
        time.sleep(random.random() * 0.15)
        supervisor.shutdown()
        assert time.monotonic() - started < PATIENCE
    assert until(lambda: set(children()) <= before)


DRAW = """
import os, random, secrets, ssl, uuid, tempfile
import numpy
def draw():
    return {
        "random": random.random(),
        "getrandbits": str(random.getrandbits(128)),
        "SystemRandom": random.SystemRandom().random(),
        "urandom": os.urandom(16).hex(),
        "secrets": secrets.token_hex(16),
        "uuid4": str(uuid.uuid4()),
        "uuid1": str(uuid.uuid1()),
        "numpy": float(numpy.random.random()),
        "numpy integers": int(numpy.random.randint(2**62)),
        "default_rng": float(numpy.random.default_rng().random()),
        "ssl": ssl.RAND_bytes(16).hex(),
        "tempfile": next(tempfile._get_candidate_names()),
        "shuffle": str(random.sample(range(1000), 20)),
    }
"""
MODULES = ["os", "random", "secrets", "ssl", "uuid", "numpy", "tempfile"]
SOURCES = [
    "random",
    "getrandbits",
    "SystemRandom",
    "urandom",
    "secrets",
    "uuid4",
    "uuid1",
    "numpy",
    "numpy integers",
    "default_rng",
    "ssl",
    "tempfile",
    "shuffle",
]


@pytest.fixture(scope="module")
def drawn(supervisor):
    """What cells of one zygote and of one template drew; the template had drawn before."""
    results = {}
    template = supervisor.template(setup=DRAW + "draw()\nkept = numpy.random.default_rng(7)")
    for kind, options in (("zygote", {}), ("template", {"template": template})):
        results[kind] = []
        for number in range(4):
            with supervisor.spawn(f"{kind}-{number}", allowed_imports=MODULES, **options) as cell:
                if kind == "zygote":
                    run(cell, DRAW)
                results[kind].append(cell.call("__main__.draw", timeout=PATIENCE))
    return results


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["zygote", "template"])
def test_no_two_cells_draw_the_same(drawn, kind, source):
    values = [draws[source] for draws in drawn[kind]]
    assert len(set(values)) == len(values), values


def test_hashes_of_texts_do_not_tell_one_supervisor_of_another():
    seen = set()
    for number in range(3):
        with pyisolate.Supervisor() as supervisor, supervisor.spawn(f"h{number}") as cell:
            run(cell, "post(hash('text'))")
            seen.add(cell.recv(PATIENCE))
    assert len(seen) == 3
