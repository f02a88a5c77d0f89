"""Programs: the policy's own, with the policy's arguments, in a jail that they do not leave."""

import contextlib
import dataclasses
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyisolate
from pyisolate import Command, Policy
from pyisolate.attack.asked import Asked
from pyisolate.attack.cases.broker_programs import (
    GRANTED,
    INJECTED,
    INSIDE,
    JAILED,
    OTHERS,
    PAYLOADS,
    STAND_INS,
)

from .broker_harness import BACKENDS, Held, assert_complete, run_plain
from .broker_site import Listener, listening

pytestmark = pytest.mark.filterwarnings(
    # Attacks wait for nothing, in the control too.
    "ignore::ResourceWarning",
    "ignore::DeprecationWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module", params=BACKENDS)
def held(request: pytest.FixtureRequest, supervisor: pyisolate.Supervisor) -> Iterator[Held]:
    policy = Policy().grant(*(Command(program, args=args) for program, args in GRANTED))
    held = Held(supervisor, policy, {}, fresh=True, backend=request.param)
    yield held
    held.close()


@pytest.mark.parametrize("case", [*INJECTED, *OTHERS], ids=str)
def test_another_program_is_refused(case: Asked, held: Held):
    held.refuses(case)


@pytest.mark.parametrize("case", STAND_INS, ids=str)
def test_no_other_way_starts_a_program(case: Asked, held: Held):
    if held.options.get("backend") == "subinterpreter":
        if "libc" in case.body:
            pytest.skip("ctypes: a sub-interpreter cell has none")
        # Where it forks by itself, the interpreter says no before the kernel is asked.
        case = dataclasses.replace(case, refused=f"{case.refused} RuntimeError")
    held.refuses(case)


@pytest.mark.parametrize(
    "case",
    [case for case in STAND_INS if "LD_PRELOAD" not in case.body and case.name != "fork"],
    ids=str,
)
def test_plain_python_starts_it(case: Asked, capfd: pytest.CaptureFixture[str]):
    """The control."""
    outcome = run_plain(case, {})
    assert outcome[0] == "done", outcome


@pytest.mark.parametrize("named", PAYLOADS)
def test_a_payload_that_is_none(named: str, held: Held):
    world = f"payload = {PAYLOADS[named]!r}".replace("nan", "float('nan')")
    world = world.replace("inf", "float('inf')")
    outcome = held.attempt(f"{world}\nreturn request('subprocess', 'run', payload)")
    assert outcome[0] == "refused", outcome
    assert "ValueError" in outcome[1], outcome
    held.assert_alive()


# --- in the jail ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def canary() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, canary: Listener) -> Iterator[dict[str, Any]]:
    if shutil.which("bash") is None:
        pytest.skip("bash: the scripts are written for it")
    base = tmp_path_factory.mktemp("programs")
    token = f"token-{secrets.token_hex(12)}"
    (base / "secret.txt").write_text(token)
    (base / "victim.txt").write_text("original")
    os.environ["PLANTED"] = token
    with subprocess.Popen(["sleep", "600"]) as victim:
        yield {
            "BASE": str(base),
            "SECRET": str(base / "secret.txt"),
            "CANARY": canary.port,
            "VICTIM": victim.pid,
            "TOKEN": token,
        }
        victim.kill()
    del os.environ["PLANTED"]


def _shell(**limits: Any) -> Policy:
    return Policy().grant(Command("bash", args=["-c", "*"], **limits))


@pytest.fixture(scope="module")
def shell(supervisor: pyisolate.Supervisor, world: dict[str, Any]) -> Iterator[Held]:
    held = Held(supervisor, _shell(), {})
    yield held
    held.close()


def _told(shell: Held, script: str, stdin: bytes = b"") -> dict[str, Any]:
    kind, told, *rest = shell.attempt(
        f"return request('subprocess', 'run',"
        f" {{'program': 'bash', 'args': ['-c', {script!r}], 'stdin': {stdin!r}}})"
    )
    assert kind == "done", (told, rest)
    return told


@pytest.mark.parametrize("named", JAILED)
def test_a_granted_program_does_not_leave_its_jail(
    named: str, shell: Held, world: dict[str, Any], canary: Listener
):
    canary.visits = 0
    told = _told(shell, JAILED[named].format_map(world))
    assert told["returncode"] != 0, told
    assert world["TOKEN"] not in repr(told)
    assert canary.visits == 0
    base = Path(world["BASE"])
    assert (base / "victim.txt").read_text() == "original"
    assert sorted(path.name for path in base.iterdir()) == ["secret.txt", "victim.txt"]
    shell.assert_alive()


@pytest.mark.parametrize("named", JAILED)
def test_the_same_script_works_outside(named: str, world: dict[str, Any], canary: Listener):
    """The control."""
    base = Path(world["BASE"])
    script = JAILED[named].format_map(world).replace("/tmp/l", str(base / "l"))
    ended = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    (base / "victim.txt").write_text("original")
    for name in ("new", "l"):
        (base / name).unlink(missing_ok=True)
    assert ended.returncode == 0, ended


@pytest.mark.parametrize("named", INSIDE)
def test_a_granted_program_gains_nothing_in_it(named: str, shell: Held):
    told = _told(shell, INSIDE[named])
    assert told["returncode"] != 0, told


def test_what_a_program_sees_of_itself(shell: Held, world: dict[str, Any]):
    told = _told(shell, "env; id -u; cat /proc/self/status; ls /proc/self/fd; hostname; ls -a /")
    text = told["stdout"].decode()
    assert world["TOKEN"] not in text
    lines = text.splitlines()
    variables = {line.partition("=")[0] for line in lines if "=" in line}
    assert variables <= {"PATH", "LC_ALL", "HOME", "PWD", "SHLVL", "_", "OLDPWD"}, variables
    for right in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{right}:\t0000000000000000" in lines
    assert "NoNewPrivs:\t1" in lines
    assert os.uname().nodename not in lines
    assert not {"root", "home", "srv", "work", "boot", "sys"} & set(lines)


def test_nothing_is_left_for_the_next_program(shell: Held):
    assert _told(shell, "echo x > /tmp/left && cat /tmp/left")["stdout"] == b"x\n"
    assert _told(shell, "cat /tmp/left")["returncode"] != 0


def _sleeping(number: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"sleep\0{number}\0".encode():
                found.append(int(path.parent.name))
    return found


OUTLIVING = {
    "in the background": "sleep {n} & disown",
    "a new session": "setsid sleep {n} > /dev/null 2>&1 < /dev/null &",
    "no hangup": "nohup sleep {n} > /dev/null 2>&1 &",
    "twice forked": "( ( sleep {n} & ) & )",
    "traps": "trap '' TERM HUP INT; sleep {n} & disown; kill -9 $$",
}


@pytest.mark.parametrize("named", OUTLIVING)
def test_nothing_outlives_a_program(named: str, shell: Held):
    number = str(secrets.randbelow(10**6) + 10**6)
    script = OUTLIVING[named].format(n=number)
    kind, *told = shell.attempt(
        f"return request('subprocess', 'run', {{'program': 'bash', 'args': ['-c', {script!r}],"
        " 'timeout': 5})"
    )
    assert any(not _sleeping(number) or time.sleep(0.02) for _ in range(100)), (kind, told)
    # The control: outside it goes on.
    ended = subprocess.run(
        ["bash", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    assert ended.returncode in (0, -9)
    left = []
    for _ in range(100):
        if left := _sleeping(number):
            break
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left


LIMITED = {
    "stdout": ("yes", {"output_bytes": 10_000}),
    "stderr": ("yes >&2", {"output_bytes": 10_000}),
    "both": ("yes & yes >&2", {"output_bytes": 10_000}),
    "from children": ("for n in 1 2 3 4; do yes & done; wait", {"output_bytes": 10_000}),
    "time": ("sleep 1000", {"wall_time_ms": 300}),
    "time of children": ("sleep 1000 & wait", {"wall_time_ms": 300}),
    "a loop": ("while :; do :; done", {"wall_time_ms": 300}),
    "deaf to signals": (
        "trap '' TERM INT HUP QUIT; while :; do sleep 100; done",
        {"wall_time_ms": 300},
    ),
    "memory": (
        "x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo ${{#x}}".replace("{{", "{").replace(
            "}}", "}"
        ),
        {"mem_bytes": 40 << 20},
    ),
    "many processes": (
        "for n in $(seq 3000); do sleep 100 & done; wait",
        {"wall_time_ms": 1500, "mem_bytes": 64 << 20},
    ),
    "a large file": (
        "head -c 3000000000 /dev/zero > /tmp/large && echo made",
        {"mem_bytes": 64 << 20, "wall_time_ms": 8000},
    ),
}


@pytest.mark.parametrize("named", LIMITED)
def test_a_program_is_bounded(
    named: str, supervisor: pyisolate.Supervisor, world: dict[str, Any], shell: Held
):
    script, limits = LIMITED[named]
    held = Held(supervisor, _shell(**limits), {})
    try:
        outcome = held.attempt(
            "return request('subprocess', 'run',"
            f" {{'program': 'bash', 'args': ['-c', {script!r}]}})['returncode']"
        )
        assert outcome != ["done", 0], outcome
        held.assert_alive()
        assert _told(shell, "echo on")["stdout"] == b"on\n"
    finally:
        held.close()


def test_a_cell_that_ends_takes_its_program_along(supervisor: pyisolate.Supervisor, world: Any):
    number = str(secrets.randbelow(10**6) + 10**6)
    held = Held(supervisor, _shell(), {})
    held.cell.exec(
        "request('subprocess', 'run',"
        f" {{'program': 'bash', 'args': ['-c', 'exec sleep {number}']}})"
    )
    assert any(_sleeping(number) or time.sleep(0.02) for _ in range(500))
    held.cell.kill()
    assert any(not _sleeping(number) or time.sleep(0.02) for _ in range(250))
    held.close()


def test_one_cells_programs_do_not_hold_up_anothers(
    supervisor: pyisolate.Supervisor, world: Any, shell: Held
):
    busy = Held(supervisor, _shell(wall_time_ms=30_000), {})
    busy.cell.exec(
        "ts = [threading.Thread(target=lambda: request('subprocess', 'run',"
        " {'program': 'bash', 'args': ['-c', 'sleep 25']})) for _ in range(14)]\n"
        "for t in ts: t.start()\npost('started')"
    )
    try:
        assert busy.cell.recv(20) == "started"
        for _ in range(3):
            assert _told(shell, "echo on")["stdout"] == b"on\n"
    finally:
        busy.cell.kill()
        busy.close()


def test_a_program_that_reads_nothing_of_a_large_input(shell: Held):
    body = (
        "return request('subprocess', 'run', {'program': 'bash', 'args': ['-c', 'exit 3'],"
        " 'stdin': bytes(8 << 20)})['returncode']"
    )
    assert shell.attempt(body) == ["done", 3]


def test_a_program_writes_its_input_back_whole(shell: Held):
    body = (
        "data = bytes(range(256)) * 4096\n"
        "return request('subprocess', 'run', {'program': 'bash', 'args': ['-c', 'cat'],"
        " 'stdin': data})['stdout'] == data"
    )
    assert shell.attempt(body) == ["done", True]


def test_what_is_refused_is_recorded_with_its_arguments(held: Held):
    held.attempt("subprocess.run(['sort', '--output=/tmp/x'])")
    event = held.cell.denials[-1]
    assert_complete(event)
    assert "--output=/tmp/x" in event.target
