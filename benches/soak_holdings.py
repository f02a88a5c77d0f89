"""What a host and its cells hold of the machine, counted."""

import contextlib
import dataclasses
import gc
import os
import time
from pathlib import Path
from typing import Any

from cells import children
from hosts import is_alive, parent

MiB = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")


@dataclasses.dataclass
class Holdings:
    """What a leak would make more of."""

    counts: dict[str, int]
    resident_bytes: int

    def __str__(self) -> str:
        counts = "  ".join(f"{name} {count}" for name, count in self.counts.items())
        return f"{counts}  memory {self.resident_bytes / MiB:.0f} MiB"

    def is_within(self, other: "Holdings") -> bool:
        return all(self.counts[name] <= count for name, count in other.counts.items())

    def or_more(self, other: "Holdings") -> "Holdings":
        """Of each the larger number."""
        counts = {name: max(count, other.counts[name]) for name, count in self.counts.items()}
        return Holdings(counts, max(self.resident_bytes, other.resident_bytes))


def resident() -> int:
    """This process's resident memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def cgroups() -> int:
    """Control groups of this process, whose name has its number."""
    own = CGROUPS.glob(f"**/pyisolate-*-{os.getpid()}-*/")
    return sum(1 for folder in own for _ in folder.glob("**/"))


def holdings() -> Holdings:
    """What there is now."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    return Holdings(
        {
            "processes": len(children()),
            "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
            "cgroups": cgroups(),
            "shared memory files": maps.count("memfd:"),
            "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
        },
        resident(),
    )


def settled(
    until_at_most: Holdings | None = None,
    patience: float = 5.0,
    pool: Any = None,
    size: int = 0,
) -> Holdings:
    """What there is once nothing is on its way any more, or the patience is over."""
    end = time.monotonic() + patience
    before = holdings()
    while True:
        time.sleep(0.3)
        reap_orphans()
        now = holdings()
        is_full = pool is None or pool.pool_ready == size
        is_fine = until_at_most is None or now.is_within(until_at_most)
        is_still = now.counts == before.counts
        if (is_full and is_fine and is_still) or time.monotonic() > end:
            return now
        before = now


def reap_orphans() -> None:
    """Takes leave of processes that came here when they had lost their parents, and ended."""
    for pid in children():
        with contextlib.suppress(OSError, ValueError):
            if parent(pid) == os.getpid() and not is_alive(pid):
                os.waitpid(pid, os.WNOHANG)
