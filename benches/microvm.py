"""What cells behind a virtual machine cost, beside a plain start of QEMU in the same run."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import median, names, show

import pyisolate

MICROVM: dict[str, Any] = {"backend": "microvm"}
QEMU = os.environ.get("PYISOLATE_QEMU", f"qemu-system-{os.uname().machine}")
KILOBYTE = b"x" * 1000
SHARING = 20
"""So many cells are alive at once, to see what they share."""


def cells(scale: int) -> None:
    """Everything, in a cache of its own: an image and a snapshot are made once."""
    try:
        version = median(
            lambda: subprocess.run([QEMU, "--version"], stdout=subprocess.DEVNULL, check=True), 5
        )
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"  no QEMU: {error}")
        return
    accelerator = os.environ.get("PYISOLATE_MICROVM_ACCEL", "kvm")
    print(f"  by {accelerator}")
    mine = os.environ.get("PYISOLATE_CACHE")
    with tempfile.TemporaryDirectory(prefix="pyisolate-bench-") as cache:
        os.environ["PYISOLATE_CACHE"] = cache
        try:
            measure(Path(cache), version, scale)
        except pyisolate.SandboxError as error:
            print(f"  no cell: {error}")
        finally:
            del os.environ["PYISOLATE_CACHE"]
            if mine is not None:
                os.environ["PYISOLATE_CACHE"] = mine


def measure(cache: Path, version: float, scale: int) -> None:
    """One host's figures."""
    build = [sys.executable, "-m", "pyisolate", "image", "build"]
    start = time.perf_counter()
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    if built.returncode:
        print(f"  no image: {built.stderr.strip().splitlines()[-1]}")
        return
    show("image build, the kernel's package fetched", time.perf_counter() - start, "s")

    def first() -> None:
        with pyisolate.Supervisor(**MICROVM) as supervisor:
            to_result(supervisor)

    start = time.perf_counter()
    first()
    booted = time.perf_counter() - start
    start = time.perf_counter()
    first()
    again = time.perf_counter() - start
    show("boot to ready and its snapshot, kept", booted - again, "s")
    show("supervisor to first result, by the kept snapshot", again, "s")
    memory = next((cache / "snapshots").glob("*/memory")).stat().st_blocks * 512
    show("  the snapshot", memory / (1 << 20), "MiB")
    with pyisolate.Supervisor(**MICROVM) as supervisor:
        to_result(supervisor)
        seconds = median(lambda: supervisor.template(["json"]), 3)
        show("template: restored into a copy, set up, snapshot", seconds, "s")
        seconds = statistics.median(to_result(supervisor) for _ in range(2 * scale))
        show("restore to first result", seconds * 1e3, "ms", "aim <= 150")
        show("  qemu-system --version", version * 1e3, "ms")
        show("  so many of these", seconds / version, "times")
        calls(supervisor, 20 * scale)
    with pyisolate.Supervisor(4, **MICROVM) as supervisor:
        times = []
        for _ in range(2 * scale):
            # A pool that is being filled takes the processor from what is measured.
            while supervisor.pool_ready < 4:
                time.sleep(0.005)
            times.append(to_result(supervisor))
        show(
            "claim from the pool to first result", statistics.median(times) * 1e3, "ms", "aim <= 5"
        )
    sharing()


def to_result(supervisor: pyisolate.Supervisor) -> float:
    """From `spawn` to the first result, in seconds."""
    start = time.perf_counter()
    cell = supervisor.spawn(next(names), allowed_imports=["math"])
    cell.call("math.sqrt", 2.0, timeout=60)
    seconds = time.perf_counter() - start
    cell.kill()
    return seconds


def calls(supervisor: pyisolate.Supervisor, count: int) -> None:
    """Round trips."""
    cell = supervisor.spawn(next(names))
    cell.exec("def echo(value): return value").wait(30)
    for _ in range(20):
        cell.call("__main__.echo", 1)
    seconds = median(lambda: cell.call("__main__.echo", 1), count)
    show("call, an int there and back", seconds * 1e6, "µs")
    seconds = median(lambda: cell.call("__main__.echo", KILOBYTE), count)
    show("call, 1 kB there and back", seconds * 1e6, "µs")
    cell.kill()


def fields(path: str) -> dict[str, int]:
    """The numbers of a file in `/proc`, in KiB."""
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if words[-1] == "kB"}


def sharing() -> None:
    """What idle cells hold by themselves, and what they share."""
    with pyisolate.Supervisor(**MICROVM) as supervisor:
        kept = [supervisor.spawn(next(names), allowed_imports=["math"]) for _ in range(SHARING)]
        for cell in kept:
            cell.call("math.sqrt", 2.0, timeout=60)
        pids = [cell.pid for cell in kept if cell.pid]
        private = statistics.median(fields(f"/proc/{pid}/status")["RssAnon:"] for pid in pids)
        show(f"private memory of a cell after a call, of {len(pids)}", private / 1024, "MiB")
        rollups = [fields(f"/proc/{pid}/smaps_rollup") for pid in pids]
        resident = sum(rollup["Rss:"] for rollup in rollups) / 1024
        proportional = sum(rollup["Pss:"] for rollup in rollups) / 1024
        show(f"resident memory of {len(pids)} cells, each counted whole", resident, "MiB")
        show("  what is shared counted once", proportional, "MiB")
        show("  so much of it is shared", 100 * (1 - proportional / resident), "%")
