"""Prints what cells cost, beside what a user would pick instead, in one run.

    cargo xtask bench [--quick] [--json FILE]

Every figure is a median. The peers do the same work: the standard library's process pool for calls,
its pipes for messages, its processes for starting. Nothing here passes or fails.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import broker
import microvm
import subinterpreter
from figures import median, names, rows, show

import pyisolate

KILOBYTE = b"x" * 1000


@contextmanager
def section(title: str) -> Iterator[None]:
    """A headed group of figures."""
    print(f"\n{title}", flush=True)
    yield


# --- calls


def echo(value: Any) -> Any:
    """What the process pool runs."""
    return value


def echo_forever(pipe: Connection) -> None:
    """The far side of the pipe."""
    while (value := pipe.recv()) is not None:
        pipe.send(value)


def calls(scale: int) -> None:
    """Round trips of one kilobyte."""
    with pyisolate.Supervisor() as supervisor:
        cell = supervisor.spawn(next(names))
        cell.exec("def echo(value): return value").wait(10)
        cell.call("__main__.echo", KILOBYTE)
        seconds = median(lambda: cell.call("__main__.echo", KILOBYTE), 200 * scale)
        show("call, 1 kB there and back", seconds * 1e6, "µs", "aim <= 10")
        cell.exec("while (m := recv()) is not None: post(m)")

        def bounce() -> None:
            cell.post(KILOBYTE)
            cell.recv(10)

        bounce()
        show("post and recv, 1 kB there and back", median(bounce, 200 * scale) * 1e6, "µs")
        cell.post(None)
    ours, theirs = multiprocessing.Pipe()
    peer = multiprocessing.get_context("fork").Process(target=echo_forever, args=(theirs,))
    peer.start()

    def bounce_pipe() -> None:
        ours.send(KILOBYTE)
        ours.recv()

    show("  multiprocessing.Pipe", median(bounce_pipe, 100 * scale) * 1e6, "µs")
    ours.send(None)
    peer.join()
    with ProcessPoolExecutor(1) as pool:
        pool.submit(echo, KILOBYTE).result()
        seconds = median(lambda: pool.submit(echo, KILOBYTE).result(), 50 * scale)
        show("  ProcessPoolExecutor", seconds * 1e6, "µs")


# --- throughput


def pour(pipe: Connection, count: int) -> None:
    """Sends small messages."""
    for number in range(count):
        pipe.send(number)


def throughput(scale: int) -> None:
    """Small messages from the guest to the host, received in Python."""
    count = 20_000 * scale

    def rate(run: Callable[[], None]) -> float:
        return count / median(run, 3)

    with pyisolate.Supervisor() as supervisor:
        cell = supervisor.spawn(next(names), cpu_ms=600_000)
        for what, message in [("int", "n"), ("dict of three", "{'id': n, 'ok': True, 'x': 1.5}")]:

            def run(message: str = message) -> None:
                cell.exec(f"for n in range({count}): post({message})")
                for _ in range(count):
                    cell.recv(10)

            show(f"post guest to host, {what}", rate(run), "messages/s", "aim >= 500,000")
    context = multiprocessing.get_context("fork")

    def run_pipe() -> None:
        ours, theirs = context.Pipe()
        peer = context.Process(target=pour, args=(theirs, count))
        peer.start()
        for _ in range(count):
            ours.recv()
        peer.join()

    show("  multiprocessing.Pipe, int", rate(run_pipe), "messages/s")


# --- starting


def nothing() -> None:
    """What a started process does."""


def starting(scale: int) -> None:
    """From `spawn` to the first result."""
    count = 10 * scale

    def to_result(supervisor: pyisolate.Supervisor, **options: Any) -> float:
        start = time.perf_counter()
        cell = supervisor.spawn(next(names), allowed_imports=["math", "numpy"], **options)
        cell.call("math.sqrt", 2.0)
        seconds = time.perf_counter() - start
        cell.close()
        return seconds

    def cold() -> None:
        with pyisolate.Supervisor() as supervisor:
            to_result(supervisor)

    show("spawn to first result, cold (supervisor, zygote, cell)", median(cold, scale) * 1e3, "ms")
    with pyisolate.Supervisor() as supervisor:
        to_result(supervisor)
        times = [to_result(supervisor) for _ in range(count)]
        show("  from a warm zygote", statistics.median(times) * 1e3, "ms", "aim <= 2")
        template = supervisor.template(imports=["numpy"])
        to_result(supervisor, template=template)
        times = [to_result(supervisor, template=template) for _ in range(count)]
        show("  from a template with numpy", statistics.median(times) * 1e3, "ms", "aim <= 2")
    with pyisolate.Supervisor(warm_pool=8) as supervisor:
        times = []
        for _ in range(count):
            while supervisor.pool_ready < 8:
                time.sleep(0.001)
            times.append(to_result(supervisor))
        show("  from the pool", statistics.median(times) * 1e6, "µs", "aim <= 200")
    with pyisolate.Supervisor() as supervisor:
        to_result(supervisor)
        start = time.perf_counter()
        for _ in range(count):
            supervisor.spawn(next(names)).close()
        show("cells created and closed", count / (time.perf_counter() - start), "cells/s")
    for method in ("fork", "forkserver", "spawn"):
        context = multiprocessing.get_context(method)

        def start_and_join(context: Any = context) -> None:
            process = context.Process(target=nothing)
            process.start()
            process.join()

        start_and_join()
        show(f"  multiprocessing {method}", median(start_and_join, 2 * scale) * 1e3, "ms")


# --- large data


def arrays(scale: int) -> None:
    """A 64 MiB array out of a cell."""
    import numpy

    with pyisolate.Supervisor() as supervisor:
        cell = supervisor.spawn(next(names), allowed_imports=["numpy"], mem_bytes=1 << 30)
        cell.exec("import numpy; a = numpy.arange(8 << 20, dtype='f8')\ndef get(): return a").wait(
            60
        )
        cell.call("__main__.get")
        array = cell.call("__main__.get")
        gibibytes = array.nbytes / 1e9
        seconds = median(lambda: cell.call("__main__.get"), scale)
        show("64 MiB numpy array, guest to host", gibibytes / seconds, "GB/s", "aim >= 2")
        seconds = median(lambda: cell.call("__main__.get").sum(), scale)
        show("  and summed by the host", gibibytes / seconds, "GB/s")
        cell.exec("def take(array): return len(array)").wait(10)
        seconds = median(lambda: cell.call("__main__.take", array), scale)
        show("64 MiB numpy array, host to guest", gibibytes / seconds, "GB/s")
        source = numpy.arange(8 << 20, dtype="f8")
        seconds = median(source.copy, scale)
        show("  a copy within one process", gibibytes / seconds, "GB/s")


# --- memory


def private_kib(pid: int) -> int:
    """Memory that the process shares with no other, in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = {line.split(":")[0]: line.split() for line in text.splitlines()[1:]}
    return int(fields["Private_Clean"][1]) + int(fields["Private_Dirty"][1])


def memory(scale: int) -> None:
    """What an idle cell costs."""
    count = 200 if scale > 5 else 40
    with pyisolate.Supervisor() as supervisor:
        cells = [supervisor.spawn(next(names), allowed_imports=["math"]) for _ in range(count)]
        pids = [cell.pid for cell in cells]
        private = statistics.median(private_kib(pid) for pid in pids if pid) / 1024
        show(f"private memory of an idle cell, of {count}", private, "MiB", "aim <= 1.5")
        for cell in cells:
            cell.call("math.sqrt", 2.0)
        private = statistics.median(private_kib(pid) for pid in pids if pid) / 1024
        show("  after its first call", private, "MiB")


def main() -> int:
    """Runs every section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--only", metavar="WORD", help="only the sections whose title has this word"
    )
    options = parser.parse_args()
    scale = 3 if options.quick else 10
    print(f"CPython {sys.version.split()[0]}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    sections = [
        ("Calls", calls),
        ("Throughput", throughput),
        ("Starting", starting),
        ("Large data", arrays),
        ("Memory", memory),
        ("Requests", broker.requests),
        ("Files", broker.files),
        ("Journal", broker.journal),
        ("Sub-interpreters", subinterpreter.cells),
        ("Virtual machines", microvm.cells),
    ]
    for title, run in sections:
        if options.only is None or options.only.lower() in title.lower():
            with section(title):
                run(scale)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))
    return 0 if all(math.isfinite(row["value"]) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
