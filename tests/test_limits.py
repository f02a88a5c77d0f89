"""Each limit holds, ends the cell with its own error, and harms nobody else."""

import contextlib

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, death_of, drain, new_cell, run, until

MIB = 1 << 20


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "recv()",
        "import threading; threading.Event().wait()",
    ],
)
def test_wall_time(source):
    with new_cell(wall_time_ms=300, allowed_imports=["time", "threading"]) as cell:
        handle = cell.exec(source)
        with pytest.raises(pyisolate.WallTimeExceeded, match="wall_time_ms=300"):
            handle.wait(PATIENCE)
        assert isinstance(death_of(cell), pyisolate.WallTimeExceeded)
    assert_serves()


def test_wall_time_of_a_call():
    with (
        new_cell(wall_time_ms=300, allowed_imports=["time"]) as cell,
        pytest.raises(pyisolate.WallTimeExceeded),
    ):
        cell.call("time.sleep", 60)


def test_wall_time_is_each_operations_own():
    with new_cell(wall_time_ms=2000, allowed_imports=["time"]) as cell:
        for _ in range(6):
            cell.call("time.sleep", 0.5, timeout=PATIENCE)


def test_wall_time_does_not_run_while_the_cell_is_idle():
    with new_cell(wall_time_ms=200) as cell:
        run(cell, "pass")
        with pytest.raises(pyisolate.TimeoutError):
            cell.recv(0.6)
        run(cell, "pass")


def test_cpu_time():
    with new_cell(cpu_ms=300) as cell, pytest.raises(pyisolate.CPUExceeded, match="cpu_ms=300"):
        cell.exec("while True: pass").wait(PATIENCE)
    assert_serves()


def test_cpu_time_of_many_short_operations():
    with new_cell(cpu_ms=300, allowed_imports=["time"]) as cell:
        for _ in range(2000):
            with contextlib.suppress(pyisolate.CellDied):
                cell.exec("for _ in range(100_000): pass")
        assert isinstance(death_of(cell), pyisolate.CPUExceeded)


def test_cpu_time_of_a_thread_that_goes_on():
    with new_cell(cpu_ms=300, allowed_imports=["threading"]) as cell:
        run(
            cell,
            """
import threading
def burn():
    while True: pass
threading.Thread(target=burn).start()
""",
        )
        assert isinstance(death_of(cell), pyisolate.CPUExceeded)
    assert_serves()


def test_a_guest_that_handles_the_kernels_signal_gains_nothing():
    with new_cell(cpu_ms=500, allowed_imports=["signal", "threading"]) as cell:
        cell.exec(
            """
import signal, threading
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
def burn():
    while True: pass
threading.Thread(target=burn).start()
""",
        )
        assert isinstance(death_of(cell), pyisolate.CPUExceeded)


@pytest.mark.parametrize(
    "source",
    [
        "data = bytearray(10**9)",
        "data = []\nwhile True: data.append(bytearray(1 << 20))",
        "data = bytearray()\nwhile True: data += b'x' * (1 << 20)",
        "data = 'x'\nwhile True: data += data",
        "import numpy; numpy.ones(10**9)",
        "data = {}\nfor number in range(10**9): data[number] = str(number)",
    ],
)
def test_memory(source):
    with new_cell(mem_bytes=64 * MIB, allowed_imports=["numpy"]) as cell:
        with pytest.raises(pyisolate.MemoryExceeded, match=f"mem_bytes={64 * MIB}"):
            cell.exec(source).wait(PATIENCE)
        assert isinstance(death_of(cell), pyisolate.MemoryExceeded)
    assert_serves()


def test_memory_through_mmap():
    with new_cell(mem_bytes=64 * MIB, allowed_imports=["mmap"]) as cell:
        # Shared memory is counted for nobody, and refused.
        with pytest.raises(pyisolate.GuestError, match="PermissionError"):
            run(cell, "import mmap; mmap.mmap(-1, 1 << 20)")
        cell.exec(
            """
kept = []
while True: kept.append(mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
"""
        )
        assert isinstance(death_of(cell), pyisolate.MemoryExceeded)
    assert_serves()


def test_a_guest_may_handle_its_want_of_memory():
    with new_cell(mem_bytes=64 * MIB) as cell:
        run(
            cell,
            """
try:
    bytearray(10**9)
except MemoryError:
    post("handled")
""",
        )
        assert cell.recv(PATIENCE) == "handled"
        run(cell, "post('still here')")
        assert cell.recv(PATIENCE) == "still here"


def test_memory_below_the_limit_is_given():
    with new_cell(mem_bytes=256 * MIB) as cell:
        run(cell, "data = bytearray(150 * 1024 * 1024); post(len(data))")
        assert cell.recv(PATIENCE) == 150 * MIB


@pytest.mark.parametrize(
    "source",
    [
        "while True: print('x' * 1000)",
        "while True: print()",
        "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
        "while True: log('info', 'x' * 1000)",
        "while True: log('info', '', data='x' * 10_000)",
        "print('x' * 5_000_000)",
    ],
)
def test_output(source):
    with new_cell(output_bytes_max=100_000, allowed_imports=["sys"]) as cell:
        cell.exec(source)
        error = death_of(cell)
        assert isinstance(error, pyisolate.OutputExceeded)
        assert "output_bytes_max=100000" in str(error)
    assert_serves()


def test_output_is_counted_while_nobody_looks():
    with new_cell(output_bytes_max=100_000) as cell, pytest.raises(pyisolate.OutputExceeded):
        cell.exec("while True: print('x' * 1000)").wait(PATIENCE)


def test_output_up_to_the_limit_is_kept():
    with new_cell(output_bytes_max=100_000) as cell:
        cell.exec("for _ in range(200): print('x' * 1000)")
        kept = drain(cell)
        assert sum(len(event.message) for event in kept) >= 99_000


def test_a_cell_may_have_no_output_at_all():
    with new_cell(output_bytes_max=0) as cell:
        run(cell, "post('fine')")
        cell.exec("print('no')")
        assert cell.recv(PATIENCE) == "fine"
        assert isinstance(death_of(cell), pyisolate.OutputExceeded)


@pytest.mark.parametrize(
    "source",
    [
        "import os\nwhile True: os.open('/dev/null', os.O_RDONLY)",
        "kept = []\nwhile True: kept.append(open('/dev/null'))",
        "import os\nwhile True: os.dup(0)",
        "import os\nwhile True: os.pipe()",
        "import os\nos.dup2(0, 1000)",
    ],
)
def test_open_files(source):
    with new_cell(open_files_max=32, allowed_imports=["os"]) as cell:
        if "dup2" in source:
            with pytest.raises(pyisolate.GuestError, match="Errno 9"):
                run(cell, source)
            return
        with pytest.raises(pyisolate.OpenFilesExceeded, match="open_files_max=32"):
            cell.exec(source).wait(PATIENCE)
        assert isinstance(death_of(cell), pyisolate.OpenFilesExceeded)
    assert_serves()


def test_a_guest_without_a_free_descriptor_still_talks():
    with new_cell(open_files_max=16, allowed_imports=["os"]) as cell:
        run(
            cell,
            """
import os
kept = []
try:
    while True: kept.append(os.dup(0))
except OSError: pass
post(len(kept))
log("info", "full")
""",
        )
        assert 5 < cell.recv(PATIENCE) < 16
        assert cell.recv(PATIENCE).message == "full"
        # A large message needs a descriptor, and there is none: an error, or the end of this cell.
        with pytest.raises(pyisolate.SandboxError):
            run(cell, "post(b'x' * 1_000_000)")
    assert_serves()


THREADS = """
import threading
gate = threading.Event()
started = 0
def work():
    gate.wait()
while True:
    threading.Thread(target=work, daemon=True).start()
    started += 1
"""


def test_threads():
    with new_cell(child_work_max=8, allowed_imports=["threading"]) as cell:
        with pytest.raises(pyisolate.ChildWorkExceeded, match="child_work_max=8"):
            cell.exec(THREADS).wait(PATIENCE)
        assert isinstance(death_of(cell), pyisolate.ChildWorkExceeded)
    assert_serves()


def test_the_limit_on_threads_is_each_cells_own():
    cells = [new_cell(child_work_max=8, allowed_imports=["threading"]) for _ in range(4)]
    source = THREADS.replace("while True", "for _ in range(7)") + "post(started)"
    for cell in cells:
        cell.exec(source)
    for cell in cells:
        assert cell.recv(PATIENCE) == 7
        cell.kill()


def test_one_thread_is_the_main_one():
    with (
        new_cell(child_work_max=1, allowed_imports=["threading"]) as cell,
        pytest.raises(pyisolate.ChildWorkExceeded),
    ):
        run(cell, "import threading; threading.Thread(target=print).start()")


@pytest.mark.parametrize(
    "source",
    [
        "def down(): return down()\ndown()",
        "import sys; sys.setrecursionlimit(10**9)\ndef down(): return down()\ndown()",
        "data = []\nfor _ in range(100_000): data = [data]\npost(data)",
        "repr_of = []\nfor _ in range(100_000): repr_of = [repr_of]\nrepr(repr_of)",
        "data = []; data.append(data); post(data)",
    ],
)
def test_recursion_ends_in_an_error(source):
    with new_cell(allowed_imports=["sys"]) as cell:
        cell.exec(source)
        with pytest.raises((pyisolate.GuestError, pyisolate.CellDied)):
            cell.recv(PATIENCE)
    assert_serves()


@pytest.mark.parametrize(
    "name",
    [
        "wall_time_ms",
        "cpu_ms",
        "mem_bytes",
        "message_bytes_max",
        "unread_bytes_max",
        "open_files_max",
        "child_work_max",
    ],
)
@pytest.mark.parametrize("value", [0, -1, 2**64, 2**63, "many", 1.5])
def test_senseless_limits_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        new_cell(**{name: value})


@pytest.mark.parametrize("value", [-1, 2**64, "many"])
def test_a_senseless_output_limit_is_refused(value):
    with pytest.raises(ValueError, match="output_bytes_max"):
        new_cell(output_bytes_max=value)


def test_an_unknown_limit_is_refused():
    with pytest.raises(TypeError, match="speed_max"):
        new_cell(speed_max=1)


@pytest.mark.parametrize(
    "options",
    [
        {"mem_bytes": 32 * MIB},
        {"message_bytes_max": 1024},
        {"unread_bytes_max": 64 << 10},
        {"open_files_max": 5},
        {"child_work_max": 1},
        {"wall_time_ms": 366 * 24 * 3600 * 1000, "cpu_ms": 366 * 24 * 3600 * 1000},
        {"mem_bytes": 1 << 46, "open_files_max": 1 << 20, "child_work_max": 1 << 15},
        {"message_bytes_max": 2**32 - 2**20 - 1, "unread_bytes_max": 1 << 46},
    ],
)
def test_a_cell_lives_with_the_smallest_and_the_largest_limits(options):
    with new_cell(**options, allowed_imports=["math"]) as cell:
        run(cell, "print('hello'); post([1, 2])")
        assert cell.recv(PATIENCE).message == "hello"
        assert cell.recv(PATIENCE) == [1, 2]
        cell.post("x")
        run(cell, "post(recv(5))")
        assert cell.recv(PATIENCE) == "x"
        assert cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6


def test_a_limits_error_is_told_to_every_operation():
    with new_cell(cpu_ms=100) as cell:
        handle = cell.exec("while True: pass")
        assert until(lambda: cell.termination_reason is not None)
        for operation in (
            handle.wait,
            cell.recv,
            lambda: cell.exec("pass"),
            lambda: cell.call("math.sqrt", 2),
            lambda: cell.post(1),
        ):
            with pytest.raises(pyisolate.CPUExceeded):
                operation()
        assert "cpu_ms=100" in cell.termination_reason
