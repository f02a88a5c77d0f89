"""Cells for minutes on end, with faults, and what was lost or left behind.

    cargo xtask soak [--minutes N] [--seed N]
    cargo xtask soak --bombs N

Prints progress and, in the end, a table. The exit status is 1 if a message was lost, if anything
was left behind, or if an operation ended in another way than it may.
"""

import argparse
import ctypes
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from soak_faults import Faults
from soak_holdings import Holdings, MiB, reap_orphans, resident, settled
from soak_lives import Lives

import pyisolate
from bombs import BOMBS, set_off

WORKERS = 4
POOL = 2
PATIENCE = 30.0
"""How long what was ended may take to be gone, in seconds."""
GROWTH_BYTES_MAX = 32 * MiB
"""How much the host may grow between the first look, with everything in use, and the last."""
PR_SET_CHILD_SUBREAPER = 36


class Tally:
    """What was counted, and what went wrong."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.lives: Any = None

    def add(self, what: str, count: int = 1) -> None:
        with self._lock:
            self.counts[what] += count

    def problem(self, text: str) -> None:
        with self._lock:
            self.problems.append(text)
        print(f"  PROBLEM {text}", flush=True)


def row(what: str, value: object) -> None:
    print(f"| {what:<58} | {value!s:>22} |", flush=True)


def table(tally: Tally, first: Holdings, last: Holdings, begun: float) -> bool:
    """Prints what there was; whether all is well."""
    left = {name: max(0, last.counts[name] - first.counts[name]) for name in first.counts}
    growth = last.resident_bytes - first.resident_bytes
    print(f"\n| {'':<58} | {'':>22} |\n|{'-' * 60}|{'-' * 23}:|")
    row("seconds", round(time.monotonic() - begun))
    for what, count in sorted(tally.counts.items()):
        if what != "messages lost":
            row(what, f"{count:,}")
    row("**messages lost**", tally.counts["messages lost"])
    for name, count in left.items():
        row(f"**{name} left behind**", count)
    mib = f"{first.resident_bytes / MiB:.0f} → {last.resident_bytes / MiB:.0f} MiB"
    row(f"host's memory, first look → last (may grow {GROWTH_BYTES_MAX // MiB} MiB)", mib)
    row("**other problems**", len(tally.problems))
    for problem in tally.problems[:20]:
        print(f"  {problem}")
    fine = not tally.problems and not tally.counts["messages lost"] and not any(left.values())
    return fine and growth <= GROWTH_BYTES_MAX


def soak(minutes: float, seed: int) -> bool:
    """Lives and faults until the time is over."""
    tally, begun = Tally(), time.monotonic()
    dice = random.Random(seed)
    nothing = settled()
    supervisor = pyisolate.Supervisor(warm_pool=POOL)
    lives = Lives(supervisor, tally)
    faults = Faults(supervisor, tally, random.Random(dice.random()))
    lives.start(WORKERS, dice)
    end = begun + 60 * minutes
    next_look, first, last = begun + min(30, 15 * minutes), None, None
    while time.monotonic() < end:
        faults.one()
        if time.monotonic() < next_look:
            continue
        with lives.paused():
            supervisor.spawn("look").close()  # so that there is a zygote, and its launcher
            # What an earlier look found left is not waited for again: lives would stand still.
            most = first and last and first.or_more(last)
            last = settled(until_at_most=most, patience=PATIENCE, pool=supervisor, size=POOL)
        next_look = time.monotonic() + 30
        first = first or last
        counts = tally.counts
        print(
            f"{time.monotonic() - begun:6.0f} s  lives {counts['cells']:>7,}  messages"
            f" {counts['messages received']:>10,}  lost {counts['messages lost']}  {last}",
            flush=True,
        )
    lives.stop()
    assert first is not None
    supervisor.spawn("look").close()
    last = settled(until_at_most=first, patience=PATIENCE, pool=supervisor, size=POOL)
    fine = table(tally, first, last, begun)
    supervisor.shutdown()
    tally.lives = None
    del lives, faults, supervisor
    reap_orphans()
    final = settled(until_at_most=nothing, patience=PATIENCE)
    left = {
        name: count - nothing.counts[name]
        for name, count in final.counts.items()
        if count > nothing.counts[name]
    }
    row("**left behind after the supervisor**", left or 0)
    return fine and not left


def bombs(count: int, seed: int) -> bool:
    """So many bombs, a few at a time."""
    tally, begun = Tally(), time.monotonic()
    dice = random.Random(seed)
    queue = [name for name, _ in zip(_again(list(BOMBS)), range(count), strict=False)]
    dice.shuffle(queue)
    with pyisolate.Supervisor() as supervisor:
        # Each kind once, so that what they make the host load counts for nobody.
        queue = list(BOMBS) + queue

        def work() -> None:
            while True:
                with lock:
                    if not queue:
                        return
                    name = queue.pop(0)
                    number = next(numbers)
                wrong = set_off(supervisor, f"bomb-{number}", BOMBS[name])
                tally.add(f"bombs: {name}")
                if wrong:
                    tally.problem(f"{name}: {wrong}")

        lock, numbers = threading.Lock(), iter(range(10**9))
        first = None
        threads = [threading.Thread(target=work) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        total = len(queue) + WORKERS
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            left = len(queue)
            if first is None and total - left > 2 * len(BOMBS):
                first_bytes = resident()
                first = first_bytes
            print(f"{time.monotonic() - begun:6.0f} s  bombs left {left:>6,}", flush=True)
        for thread in threads:
            thread.join()
        before = Holdings({"processes": 2}, first or resident())
        last = settled(until_at_most=before, patience=PATIENCE)
        last = Holdings({"processes": last.counts["processes"]}, last.resident_bytes)
        return table(tally, before, last, begun)


def _again(names: list[str]) -> Any:
    while True:
        yield from names


def main() -> int:
    parser = argparse.ArgumentParser(prog="cargo xtask soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--bombs", type=int, metavar="N", help="set off N bombs instead")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    # What loses its parent comes to this process, where it is counted.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    fine = bombs(arguments.bombs, seed) if arguments.bombs else soak(arguments.minutes, seed)
    print("all is well" if fine else "SOMETHING WAS LOST OR LEFT BEHIND")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
