"""What cells in sub-interpreters cost, beside CPython's own interpreters in the same run."""

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from figures import median, names, show

import pyisolate

if sys.version_info >= (3, 14):
    import concurrent.interpreters as peers

    create, close = peers.create, peers.Interpreter.close
    run = peers.Interpreter.exec
else:
    import _interpreters

    create, close, run = _interpreters.create, _interpreters.destroy, _interpreters.exec

SUBINTERPRETER: dict[str, Any] = {"backend": "subinterpreter"}
KILOBYTE = b"x" * 1000
WORK = "sum(n * n for n in range(2_000_000))"


def resident_kib() -> int:
    """Resident memory of this process, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def cells(scale: int) -> None:
    """Round trips, messages, starting and memory."""
    with pyisolate.Supervisor(**SUBINTERPRETER) as supervisor:
        cell = supervisor.spawn(next(names))
        cell.exec("def echo(value): return value").wait(10)
        cell.call("__main__.echo", 1)
        seconds = median(lambda: cell.call("__main__.echo", 1), 500 * scale)
        show("call, an int there and back", seconds * 1e6, "µs", "aim <= 8")
        seconds = median(lambda: cell.call("__main__.echo", KILOBYTE), 500 * scale)
        show("call, 1 kB there and back", seconds * 1e6, "µs")
        seconds = median(lambda: cell.exec("x = 1").wait(10), 200 * scale)
        show("exec of one assignment", seconds * 1e6, "µs")
        other = create()
        run(other, "x = 1")
        show("  CPython's own", median(lambda: run(other, "x = 1"), 200 * scale) * 1e6, "µs")
        close(other)
        messages(supervisor, 20_000 * scale)
        side_by_side(supervisor)
    starting(scale)
    memory(10 * scale)


def messages(supervisor: pyisolate.Supervisor, count: int) -> None:
    """Small messages from the guest to the host."""
    cell = supervisor.spawn(next(names), cpu_ms=600_000)

    def pour() -> None:
        cell.exec(f"for n in range({count}): post(n)")
        for _ in range(count):
            cell.recv(10)

    show("post guest to host, int", count / median(pour, 3), "messages/s", "aim >= 700,000")


def starting(scale: int) -> None:
    """From `spawn` to a cell, and to its first result."""
    with pyisolate.Supervisor(16, **SUBINTERPRETER) as supervisor:
        first, following, answered = [], [], []
        for _ in range(4 * scale):
            # The pause lets the processor sleep and its caches go, which the first spawn pays for.
            while supervisor.pool_ready < 16:
                time.sleep(0.002)
            times, taken = [], []
            for _ in range(6):
                start = time.perf_counter()
                taken.append(supervisor.spawn(next(names), allowed_imports=["math"]))
                times.append(time.perf_counter() - start)
            start = time.perf_counter()
            taken[-1].call("math.sqrt", 2.0)
            answered.append(time.perf_counter() - start)
            first.append(times[0])
            following += times[1:]
            for cell in taken:
                cell.close()
        show("spawn from the pool", statistics.median(following) * 1e6, "µs", "aim <= 100")
        show("  after a pause of the host's", statistics.median(first) * 1e6, "µs")
        show("  the first call right after", statistics.median(answered) * 1e6, "µs")
    with pyisolate.Supervisor(**SUBINTERPRETER) as supervisor:
        supervisor.spawn(next(names)).close()

        def whole_life() -> None:
            supervisor.spawn(next(names)).close()

        show("spawn without a pool, and close", median(whole_life, 10 * scale) * 1e3, "ms")
    whole = median(lambda: close(create()), 10 * scale)
    show("  CPython's own, made and ended", whole * 1e3, "ms")


def memory(count: int) -> None:
    """What an idle cell takes of the host's memory."""
    with pyisolate.Supervisor(**SUBINTERPRETER) as supervisor:
        supervisor.spawn(next(names)).close()
        before = resident_kib()
        kept = [supervisor.spawn(next(names)) for _ in range(count)]
        show(f"memory of an idle cell, of {count}", (resident_kib() - before) / count / 1024, "MiB")
        del kept
    before = resident_kib()
    others = [create() for _ in range(count)]
    show("  CPython's own", (resident_kib() - before) / count / 1024, "MiB")
    for other in others:
        close(other)
    with pyisolate.Supervisor(**SUBINTERPRETER) as supervisor:
        for _ in range(30):
            supervisor.spawn(next(names)).close()
        before = resident_kib()
        for _ in range(10 * count):
            supervisor.spawn(next(names)).close()
        grown = (resident_kib() - before) / 1024
        show(f"the host's growth over {10 * count} cells made and ended", grown, "MiB", "aim < 5")


def side_by_side(supervisor: pyisolate.Supervisor) -> None:
    """Two cells at work at once, and a call beside one that spins."""
    pair = [supervisor.spawn(next(names), cpu_ms=600_000) for _ in range(2)]

    def at_once(several: list[pyisolate.Cell]) -> float:
        start = time.perf_counter()
        for handle in [cell.exec(WORK) for cell in several]:
            handle.wait(60)
        return time.perf_counter() - start

    alone = statistics.median(at_once(pair[:1]) for _ in range(3))
    both = statistics.median(at_once(pair) for _ in range(3))
    show(f"two cells at once, of {os.cpu_count()} CPUs", 2 * alone / both, "times one")
    pair[1].exec("def echo(value): return value").wait(10)
    call = median(lambda: pair[1].call("__main__.echo", 1), 500)
    pair[0].exec("while True: pass")
    beside = median(lambda: pair[1].call("__main__.echo", 1), 500)
    show("a call beside a cell that spins", beside / call, "times alone")
    pair[0].kill()
