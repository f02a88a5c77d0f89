"""Clocks and randomness in a cell: asked for where the policy holds them back, the same in every
run where it has a seed."""

from collections.abc import Callable
from typing import Any

import pytest

import pyisolate
from cells import PATIENCE, run

IMPORTS = ["datetime", "json", "math", "numpy", "os", "random", "secrets", "time", "uuid"]


def outcome_in(guest: pyisolate.Cell, source: str) -> Any:
    run(guest, source + "\npost(result)")
    return guest.recv(PATIENCE)


@pytest.fixture
def without(cell: Callable[..., pyisolate.Cell]) -> pyisolate.Cell:
    """A cell with a policy that grants neither."""
    return cell(policy=pyisolate.Policy(), allowed_imports=IMPORTS)


CLOCKS = [
    "time.time()",
    "time.time_ns()",
    "time.monotonic()",
    "time.monotonic_ns()",
    "time.perf_counter()",
    "time.sleep(0)",
    "time.localtime()",
    "time.gmtime()",
    "time.ctime()",
    "time.strftime('%Y')",
    "time.clock_gettime(time.CLOCK_REALTIME)",
    "__import__('time').time()",
]


@pytest.mark.parametrize("call", CLOCKS)
def test_a_clock_that_is_not_granted_is_denied(without, call):
    told = outcome_in(
        without,
        f"import time\ntry: {call}\nexcept PermissionError as error: result = str(error)",
    )
    assert "clock" in told
    assert [event.capability for event in without.denials] == ["clock"]


RANDOMNESS = [
    "random.SystemRandom().random()",
    "random.SystemRandom().choice([1, 2])",
    "secrets.token_bytes(4)",
    "secrets.token_hex()",
    "secrets.token_urlsafe()",
    "secrets.randbelow(10)",
    "secrets.randbits(8)",
    "secrets.choice([1, 2])",
    "os.urandom(4)",
]


@pytest.mark.parametrize("call", RANDOMNESS)
def test_randomness_that_is_not_granted_is_denied(without, call):
    told = outcome_in(
        without,
        "import os, random, secrets\n"
        f"try: {call}\nexcept PermissionError as error: result = str(error)",
    )
    assert "random" in told
    assert {event.capability for event in without.denials} == {"random"}


def test_what_needs_no_clock_and_no_entropy_works(without):
    source = """
import random, secrets, time, uuid
from time import strftime, struct_time
result = [
    time.gmtime(0).tm_year, strftime("%Y", time.gmtime(0)), time.strptime("1999", "%Y").tm_year,
    time.process_time() >= 0, isinstance(time.gmtime(0), struct_time), random.Random(1).random(),
    0 <= random.random() < 1, secrets.compare_digest("a", "a"), len(str(uuid.uuid4())),
]
"""
    assert outcome_in(without, source) == [
        1970, "1970", 1999, True, True, 0.13436424411240122, True, True, 36,
    ]  # fmt: skip
    assert without.denials == []


def test_granted_ones_are_the_real_ones(cell):
    policy = pyisolate.Policy().grant(pyisolate.Clock(), pyisolate.Random())
    guest = cell(policy=policy, allowed_imports=[*IMPORTS, "sys"])
    source = """
import os, random, secrets, sys, time
time.sleep(0); time.localtime(); time.monotonic()
result = [time is sys.modules["time"], time.time() > 1.7e9, len(secrets.token_bytes(5)),
          len(os.urandom(3)), 0 <= random.SystemRandom().random() < 1,
          clock.time() > 1.7e9, clock.monotonic() > 0, clock.sleep(0), len(entropy.bytes(9))]
"""
    assert outcome_in(guest, source) == [True, True, 5, 3, True, True, True, None, 9]
    assert guest.denials == []


def test_one_clock_of_three(cell):
    policy = pyisolate.Policy().grant(pyisolate.Clock("monotonic"))
    guest = cell(policy=policy, allowed_imports=IMPORTS)
    source = """
import time
result = [time.monotonic() > 0]
for clock in (time.time, time.localtime, lambda: time.sleep(0)):
    try: clock()
    except PermissionError: result.append("denied")
"""
    assert outcome_in(guest, source) == [True, "denied", "denied", "denied"]


def test_without_a_policy_clocks_are_free(cell):
    guest = cell(allowed_imports=IMPORTS)
    source = "import os, secrets, time\nresult = time.time() > 1.7e9, len(secrets.token_bytes(4))"
    assert outcome_in(guest, source) == (True, 4)


def test_a_seed_makes_runs_agree(cell):
    source = """
import os, random, secrets, uuid
import numpy.random
result = [
    random.random(), random.Random().random(), random.SystemRandom().random(),
    secrets.token_hex(), str(uuid.uuid4()), os.urandom(8),
    float(numpy.random.random()), float(numpy.random.default_rng().random()),
]
"""
    runs = []
    for seed in (7, 7, 8):
        policy = pyisolate.Policy().grant(pyisolate.Random(seed=seed))
        runs.append(outcome_in(cell(policy=policy, allowed_imports=IMPORTS), source))
    assert runs[0] == runs[1]
    assert all(one != other for one, other in zip(runs[0], runs[2], strict=True))


def test_a_seed_holds_for_what_a_template_has_loaded(supervisor):
    source = """
import random, numpy.random
result = random.random(), float(numpy.random.random())
"""
    policy = pyisolate.Policy().grant(pyisolate.Random(seed=7))
    runs = []
    template = supervisor.template(imports=["random", "numpy.random"])
    for number in range(2):
        name = f"seeded-{number}"
        with supervisor.spawn(
            name, template=template, policy=policy, allowed_imports=IMPORTS
        ) as guest:
            runs.append(outcome_in(guest, source))
    assert runs[0] == runs[1]


def test_a_capability_of_the_hosts_own_is_an_object(cell):
    guest = cell(capabilities={"db": lambda action, payload: [action, payload]})
    source = "result = [db.query(1, limit=3), db({'x': 1}), repr(db)]"
    assert outcome_in(guest, source) == [
        ["query", {"args": [1], "kwargs": {"limit": 3}}],
        ["call", {"x": 1}],
        "<capability db>",
    ]


def test_only_what_is_granted_has_a_name(cell):
    policy = pyisolate.Policy().grant(pyisolate.Clock())
    guest = cell(policy=policy)
    source = """
result = []
for name in ("fs", "net", "commands", "vault", "clock", "entropy", "channels"):
    try: result.append(repr(eval(name)))
    except NameError: pass
"""
    assert outcome_in(guest, source) == ["<capability clock>"]
