"""What the broker costs: requests, opened files, the journal."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import median, names, show

import pyisolate
from pyisolate import Clock, ConnectTCP, Policy, ReadPath, WritePath

MIB = 1 << 20

# The median of so many round trips, as the guest sees it.
ROUND_TRIPS = """
import statistics, time
def measure(count, *question):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        try:
            request(*question)
        except PermissionError:
            pass
        times.append(time.perf_counter() - start)
    return statistics.median(times)
"""


def requests(scale: int) -> None:
    """Round trips of `request`, as the guest sees them."""
    policy = Policy().grant(Clock(), ConnectTCP("127.0.0.1", 9), ReadPath("/etc/hostname"))
    count = 200 * scale
    with pyisolate.Supervisor() as supervisor:
        cell = supervisor.spawn(
            next(names),
            policy=policy,
            allowed_imports=["statistics", "time"],
            capabilities={"echo": lambda action, payload: payload},
        )
        cell.exec(ROUND_TRIPS).wait(30)

        def measure(what: str, *question: object, aim: str = "") -> None:
            cell.call("__main__.measure", 10, *question)
            show(what, cell.call("__main__.measure", count, *question) * 1e6, "µs", aim)

        measure(
            "request that does nothing (clock.monotonic)", "clock", "monotonic", aim="aim <= 15"
        )
        measure("  one that is denied", "filesystem", "stat", {"path": "/etc/shadow"})
        measure("  one that a worker does (filesystem.stat)", "filesystem", "stat",
                {"path": "/etc/hostname"})  # fmt: skip
        measure("  one that a Python function of the host's answers", "echo", "call", 1)


# Reads a file to its end, again and again, into one buffer.
READ = """
import time
def read(path, rounds):
    times = []
    buffer = bytearray(1 << 20)
    for _ in range(rounds):
        start = time.perf_counter()
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
def open_and_close(path, rounds):
    start = time.perf_counter()
    for _ in range(rounds):
        open(path, "rb").close()
    return (time.perf_counter() - start) / rounds
def write(path, megabytes, rounds):
    times = []
    block = bytes(1 << 20)
    for _ in range(rounds):
        start = time.perf_counter()
        with open(path, "wb") as file:
            for _ in range(megabytes):
                file.write(block)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
"""


def files(scale: int) -> None:
    """An opened file, beside plain CPython in the same run."""
    plain: dict[str, Callable[..., float]] = {}
    exec(READ, plain)  # type: ignore[arg-type]
    megabytes, rounds = 256, 3 * scale
    with tempfile.TemporaryDirectory() as folder, pyisolate.Supervisor() as supervisor:
        path, out = f"{folder}/data", f"{folder}/out"
        Path(path).write_bytes(bytes(megabytes * MIB))
        cell = supervisor.spawn(
            next(names),
            policy=Policy().grant(ReadPath(folder), WritePath(folder), Clock()),
            allowed_imports=["time"],
            disk_bytes_max=1 << 40,
            cpu_ms=600_000,
        )
        cell.exec(READ).wait(30)
        # Turn and turn about, so that noise meets both.
        ratios, ours, theirs = [], [], []
        for _ in range(rounds):
            theirs.append(plain["read"](path, 1))
            ours.append(cell.call("__main__.read", path, 1))
            ratios.append(theirs[-1] / ours[-1])
        middle = rounds // 2
        show("reading an opened file", megabytes * MIB / 1e9 / sorted(ours)[middle], "GB/s")
        show("  plain CPython", megabytes * MIB / 1e9 / sorted(theirs)[middle], "GB/s")
        show("  ratio, median of pairs", sorted(ratios)[middle], "", "aim >= 0.95")
        ours_seconds = cell.call("__main__.open_and_close", path, 20 * scale)
        show("open and close", ours_seconds * 1e6, "µs")
        show("  plain CPython", plain["open_and_close"](path, 20 * scale) * 1e6, "µs")
        ours_seconds = cell.call("__main__.write", out, 64, scale)
        show("writing a file, block by block", 64 * MIB / 1e9 / ours_seconds, "GB/s")
        show("  plain CPython", 64 * MIB / 1e9 / plain["write"](out, 64, scale), "GB/s")


def journal(scale: int) -> None:
    """The same work with the journal off and on, turn and turn about."""
    with tempfile.TemporaryDirectory() as folder:
        supervisors = {
            "off": pyisolate.Supervisor(),
            "on, hashes of payloads": pyisolate.Supervisor(journal=f"{folder}/hash"),
            "on, whole payloads": pyisolate.Supervisor(
                journal=f"{folder}/full", journal_payloads="full"
            ),
        }
        cells = {}
        for what, supervisor in supervisors.items():
            cell = cells[what] = supervisor.spawn(
                next(names),
                policy=Policy().grant(Clock()),
                allowed_imports=["statistics", "time"],
                cpu_ms=600_000,
            )
            cell.exec(ROUND_TRIPS + "\ndef echo(value): return value").wait(30)
            cell.call("__main__.echo", 1)
        times: dict[str, list[float]] = {what: [] for what in cells}
        posts: dict[str, list[float]] = {what: [] for what in cells}
        requests: dict[str, list[float]] = {what: [] for what in cells}
        payload, count = b"x" * 1000, 2000 * scale
        for _ in range(5):
            for what, cell in cells.items():
                times[what].append(
                    median(lambda cell=cell: cell.call("__main__.echo", payload), 40 * scale)
                )
                requests[what].append(
                    cell.call("__main__.measure", 40 * scale, "clock", "monotonic")
                )
                start = time.perf_counter()
                cell.exec(f"for n in range({count}): post(n)")
                for _ in range(count):
                    cell.recv(10)
                posts[what].append((time.perf_counter() - start) / count)
        for title, figures in (
            ("call, 1 kB there and back, journal", times),
            ("request that does nothing, journal", requests),
            ("post guest to host, int, journal", posts),
        ):
            for what, seconds in figures.items():
                show(f"{title} {what}", sorted(seconds)[2] * 1e6, "µs")
        for supervisor in supervisors.values():
            supervisor.shutdown()
