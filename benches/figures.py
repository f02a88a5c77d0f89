"""How the benchmarks measure and print."""

import statistics
import time
from collections.abc import Callable
from typing import Any

rows: list[dict[str, Any]] = []
names = (f"bench-{number}" for number in range(10**9))


def show(what: str, value: float, unit: str, aim: str = "") -> None:
    """Prints one figure and keeps it for `--json`."""
    rows.append({"what": what, "value": value, "unit": unit, "aim": aim})
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2
    print(f"  {what:<58}{value:>12,.{digits}f} {unit:<12}{aim}", flush=True)


def median(action: Callable[[], object], count: int) -> float:
    """The median time of `action` in seconds."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
