"""Cells come and go, die at any moment, lose their zygote or their host, and leave nothing."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyisolate
from cells import PATIENCE, assert_serves, children, until
from interpreters import host

LIFE_BYTES_MAX = 100
"""How much a life may leave in the host: less than a cell's smallest structure, and noise."""


@pytest.fixture
def supervisor():
    with pyisolate.Supervisor() as supervisor:
        supervisor.spawn("warm").close()
        yield supervisor


def holdings():
    """What a leak would make more of."""
    maps = Path("/proc/self/maps").read_text()
    return {
        "processes": len(children()),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "shared memory": maps.count("memfd:"),
        "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
    }


def grown(before):
    """What there is more of than before."""
    now = holdings()
    return {name: (before[name], now[name]) for name in now if now[name] > before[name]}


def settled():
    """The holdings once nothing is on its way out any more."""
    gc.collect()
    before = holdings()
    while True:
        time.sleep(0.2)
        now = holdings()
        if now == before:
            return now
        before = now


def alive(pids):
    return [pid for pid in pids if is_alive(pid)]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_thousand_cells_leave_nothing_behind(supervisor):
    before = settled()
    for number in range(1000):
        with supervisor.spawn(f"c{number}") as cell:
            cell.exec("post(1)").wait(PATIENCE)
    del cell
    assert until(lambda: grown(before) == {}), grown(before)
    assert supervisor.list_active() == []


@pytest.mark.parametrize(
    "end",
    [
        pyisolate.Cell.kill,
        lambda cell: cell.exec("raise ValueError").wait(0.0001),
        lambda cell: cell.exec("import os; os._exit(1)").wait(PATIENCE),
        lambda cell: cell.exec("while True: pass"),
        lambda cell: cell.exec("post(b'x' * 1_000_000)").wait(PATIENCE),
        lambda cell: cell.exec("for _ in range(100_000): post(1)"),
        lambda cell: cell.post(b"x" * 1_000_000),
        lambda cell: cell.exec("import threading; threading.Thread(target=recv).start()"),
    ],
)
def test_cells_that_end_otherwise_leave_nothing_behind(supervisor, end):
    before = settled()
    for number in range(30):
        cell = supervisor.spawn(f"c{number}", allowed_imports=["os", "threading"])
        with contextlib.suppress(pyisolate.SandboxError):
            end(cell)
        if number % 2:
            cell.close(timeout=0)
        del cell
    assert until(lambda: grown(before) == {}), grown(before)


def test_failed_spawns_and_templates_leave_nothing_behind(supervisor):
    before = settled()
    for _ in range(10):
        with pytest.raises(ValueError, match="mem_bytes"):
            supervisor.spawn("a", mem_bytes=1)
        with pytest.raises(pyisolate.GuestError):
            supervisor.template(setup="1 / 0")
        supervisor.template(setup="x = 1")
    assert until(lambda: grown(before) == {}), grown(before)


def test_supervisors_leave_nothing_behind():
    pyisolate.Supervisor().shutdown()
    before = settled()
    for number in range(15):
        supervisor = pyisolate.Supervisor(warm_pool=number % 3)
        cells = [supervisor.spawn(f"c{index}") for index in range(3)]
        cells[0].exec("while True: pass")
        template = supervisor.template(setup="x = 1")
        cells.append(supervisor.spawn("t", template=template))
        supervisor.shutdown()
        del supervisor, cells, template
    assert until(lambda: grown(before) == {}), grown(before)


def test_supervisors_of_sub_interpreters_leave_nothing_behind():
    def one():
        with pyisolate.Supervisor() as supervisor:
            supervisor.spawn("near", backend="subinterpreter").close()

    one()
    before = settled()
    for _ in range(5):
        one()
    assert until(lambda: grown(before) == {}), grown(before)


def test_interpreters_leave_no_memory_behind():
    """What CPython leaves is given back. Nothing else that a life took of the C library stays."""
    said = host(
        """
        import ctypes
        class Info(ctypes.Structure):
            _fields_ = [(f"number_{index}", ctypes.c_size_t) for index in range(10)]
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = Info
        def used_bytes():
            info = ask()
            return info.number_4 + info.number_7  # mapped by themselves, and in arenas
        def lives(count):
            for _ in range(count):
                with new_interpreter() as cell: run(cell, "post(1)")
            del cell
            assert until(lambda: threads_of_cells() == 0)
            gc.collect()
            return used_bytes()
        lives(40)
        looks = [lives(50) for _ in range(4)]
        print(min(after - before for before, after in zip(looks, looks[1:])))
        """
    )
    assert int(said) < 50 * LIFE_BYTES_MAX, said


OPERATIONS = {
    "exec": lambda cell: cell.exec("post(1)"),
    "wait": lambda cell: cell.exec("x = 1").wait(PATIENCE),
    "raise": lambda cell: cell.exec("1 / 0"),
    "call": lambda cell: cell.call("math.sqrt", 2, timeout=PATIENCE),
    "post": lambda cell: cell.post(b"x" * 1000),
    "post large": lambda cell: cell.post(b"x" * 500_000),
    "get large": lambda cell: cell.exec("post(b'x' * 500_000)"),
    "recv": lambda cell: cell.recv(0.02),
    "take": lambda cell: cell.exec("recv(0.01)"),
    "flood": lambda cell: cell.exec("for _ in range(5000): post(1)"),
    "print": lambda cell: cell.exec("print('x' * 100_000)"),
    "request": lambda cell: cell.exec("request('a', 'b')"),
    "sleep": lambda cell: cell.exec("recv(0.05)"),
    "spin": lambda cell: cell.exec("for _ in range(10**6): pass"),
    "close": lambda cell: cell.close(timeout=0.05),
    "stats": lambda cell: (cell.stats, cell.pid, cell.confinement, cell.denials),
}


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    program=st.lists(st.sampled_from(sorted(OPERATIONS)), max_size=12),
    delay_ms=st.floats(0, 30),
    way=st.sampled_from(["kill", "signal", "close", "drop"]),
)
def test_a_cell_may_be_killed_at_any_point(supervisor, program, delay_ms, way):
    kill_while_it_runs(supervisor.spawn("victim", allowed_imports=["math"]), program, delay_ms, way)
    assert until(lambda: "victim" not in supervisor.list_active())
    assert_serves(supervisor)


def kill_while_it_runs(cell, program, delay_ms, way):
    assert until(lambda: cell.pid is not None)
    pid = cell.pid
    endings = {
        "kill": cell.kill,
        "close": lambda: cell.close(timeout=0),
        "signal": lambda: os.kill(pid, signal.SIGKILL),
        "drop": lambda: None,
    }

    def end():
        time.sleep(delay_ms / 1000)
        with contextlib.suppress(ProcessLookupError):  # its own end came first
            endings[way]()

    killer = threading.Thread(target=end)
    killer.start()
    for name in program:
        with contextlib.suppress(pyisolate.SandboxError):
            OPERATIONS[name](cell)
    killer.join(PATIENCE)
    assert not killer.is_alive()
    if way != "drop":
        while not is_at_its_end(cell):
            pass


def is_at_its_end(cell):
    """Takes one item of a cell that was killed; true once there is none."""
    try:
        cell.recv(PATIENCE)
    except pyisolate.CellDied:
        return True
    except (pyisolate.GuestError, pyisolate.PolicyError):
        pass  # of one of its operations
    return False


def test_a_zygote_that_is_killed_is_replaced():
    before = set(children())
    with pyisolate.Supervisor() as supervisor:
        for turn in range(3):
            cell = supervisor.spawn("victim")
            family = set(children()) - before
            for pid in sorted(family - {cell.pid}, reverse=bool(turn % 2)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with pytest.raises(pyisolate.CellDied):
                cell.recv(PATIENCE)
            assert until(lambda family=family: not alive(family))
            assert_serves(supervisor)


def test_a_zygote_that_is_stopped_and_killed_does_not_hang_the_supervisor():
    before = set(children())
    supervisor = pyisolate.Supervisor()
    supervisor.spawn("first").close()
    family = set(children()) - before
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    supervisor.shutdown()
    assert until(lambda: set(children()) <= before)


def test_spawning_while_zygotes_are_killed():
    before = set(children())
    with pyisolate.Supervisor(warm_pool=1) as supervisor:
        for number in range(30):
            for pid in set(children()) - before:
                if number % 3 == 0:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(pyisolate.SandboxError):
                supervisor.spawn(f"c{number}").close()
        assert until(lambda: serves(supervisor))


def serves(supervisor):
    with contextlib.suppress(pyisolate.SandboxError):
        assert_serves(supervisor)
        return True
    return False


def start(program):
    """Runs a host of its own, up to its first line of output."""
    host = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    host.stdout.readline()
    return host


HOST = """
import pyisolate, sys
supervisor = pyisolate.Supervisor(warm_pool=2)
template = supervisor.template(setup="x = 1")
cells = [supervisor.spawn(f"c{number}", allowed_imports=["threading"]) for number in range(3)]
cells.append(supervisor.spawn("t", template=template))
cells[0].exec("while True: pass")
cells[1].exec("import threading; threading.Thread(target=recv).start()")
print("ready", flush=True)
"""


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV])
def test_nothing_outlives_a_host_that_is_killed(sig):
    with start(HOST + "cells[2].recv()") as host:
        family = children(host.pid)
        assert len(family) >= 6
        host.send_signal(sig)
        host.communicate(timeout=PATIENCE)
    assert until(lambda: not alive(family)), alive(family)


@pytest.mark.parametrize(
    "end",
    ["", "sys.exit(0)", "import os; os._exit(0)", "raise ValueError", "supervisor.shutdown()"],
)
def test_nothing_outlives_a_host_that_ends(end):
    with start(HOST + "sys.stdin.readline()\n" + end) as host:
        family = children(host.pid)
        host.communicate(timeout=PATIENCE)
    assert until(lambda: not alive(family)), alive(family)


@pytest.mark.parametrize(
    "waiting",
    [
        "cell.recv()",
        "cell.recv(60)",
        "cell.call('time.sleep', 50)",
        "cell.exec('import time; time.sleep(50)').wait()",
        "flood(cell)",
    ],
)
def test_a_host_that_waits_feels_ctrl_c(waiting):
    program = f"""
    import pyisolate
    def flood(cell):
        cell.exec("import time; time.sleep(50)")
        while True:
            cell.post("x" * 10_000, timeout=50)
    with pyisolate.spawn("cell", allowed_imports=["time"]) as cell:
        print("ready", flush=True)
        try:
            {waiting}
        except KeyboardInterrupt:
            print("interrupted")
        cell.kill()
    """
    with start(program) as host:
        time.sleep(0.5)
        host.send_signal(signal.SIGINT)
        out, err = host.communicate(timeout=PATIENCE)
    assert out == "interrupted\n", err
    assert host.returncode == 0, err


def test_a_host_that_forks_keeps_its_cells():
    program = """
    import os, pyisolate, sys, warnings
    warnings.simplefilter("ignore")
    cell = pyisolate.spawn("cell", allowed_imports=["math"])
    cell.call("math.sqrt", 4)
    print("ready", flush=True)
    child = os.fork()
    if child == 0:
        try:
            cell.call("math.sqrt", 16)
        except pyisolate.SandboxError as error:
            print("forked" in str(error), flush=True)
        cell.close()
        cell.kill()
        sys.exit(0)
    os.waitpid(child, 0)
    print(cell.call("math.sqrt", 9, timeout=10))
    """
    with start(program) as host:
        out, err = host.communicate(timeout=PATIENCE)
    assert out == "True\n3.0\n", err
