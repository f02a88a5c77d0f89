"""Cells that are made, loaded and ended, with every message numbered and accounted for."""

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyisolate

PATIENCE = 30.0

GUEST = """
def say(first, count, size):
    for n in range(first, first + count):
        post((n, b"x" * size))

def echo(count):
    for _ in range(count):
        post(recv())
"""

ENDS = ["close", "kill", "signal", "drop", "exit", "abort", "spin", "flood"]


class Lives:
    """Threads that lead one cell's life after another."""

    def __init__(self, supervisor: Any, tally: Any) -> None:
        self.supervisor, self.tally = supervisor, tally
        self.names = itertools.count(1)
        self.poor_until = 0.0
        self._go_on = threading.Event()
        self._go_on.set()
        self._stopped = False
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        tally.lives = self

    def start(self, count: int, dice: random.Random) -> None:
        for _ in range(count):
            own = random.Random(dice.random())
            self._threads.append(threading.Thread(target=self._work, args=(own,)))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._go_on.set()
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No cell is alive meanwhile."""
        self._go_on.clear()
        for _ in self._threads:
            self._idle.acquire()
        try:
            yield
        finally:
            self._go_on.set()

    def is_poor(self) -> bool:
        """Whether the host lacks descriptors, or lacked them a moment ago."""
        return time.monotonic() < self.poor_until

    def _work(self, dice: random.Random) -> None:
        template = None
        while not self._stopped:
            if not self._go_on.is_set():
                template = None
                self._idle.release()
                self._go_on.wait()
                continue
            try:
                template = self._one(dice, template)
            except BaseException as error:
                self.tally.problem(f"a life: {error!r}")

    # --- one life

    def _one(self, dice: random.Random, template: Any) -> Any:
        way = dice.choices(["plain", "templated", "subinterpreter"], [7, 2, 2])[0]
        options: dict[str, Any] = {"allowed_imports": ["os"]}
        try:
            if way == "templated":
                template = template or self.supervisor.template(setup="ready = True")
                options["template"] = template
            if way == "subinterpreter":
                options["backend"] = "subinterpreter"
            cell = self.supervisor.spawn(f"life-{next(self.names)}", **options)
        except pyisolate.SandboxError as error:
            self._refused(way, error)
            time.sleep(0.05)
            return None
        self.tally.add(f"cells: {way}")
        self.tally.add("cells")
        self._live(cell, dice, way)
        return template if dice.random() < 0.9 else None

    def _refused(self, way: str, error: Exception) -> None:
        text = str(error)
        if "template is gone" in text:
            self.tally.add("templates that were gone, and said so")
        elif self.is_poor():
            self.tally.add("spawns refused for want of descriptors")
        else:
            since = time.monotonic() - self.poor_until
            self.tally.problem(f"a spawn ({way}), {since:.1f} s after: {error!r}")

    def _live(self, cell: Any, dice: random.Random, way: str) -> None:
        said, told = 0, 0
        is_whole = True
        got: list[int] = []
        try:
            cell.exec(GUEST).wait(PATIENCE)
            for _ in range(dice.randint(1, 5)):
                count, size = dice.choice([(1, 10), (20, 1000), (300, 10), (10, 30_000)])
                told = said + count
                if dice.random() < 0.3:
                    work = cell.exec(f"echo({count})")
                    for n in range(said, told):
                        cell.post((n, b"y" * size), timeout=PATIENCE)
                        self.tally.add("messages sent")
                    work.wait(PATIENCE)
                else:
                    cell.exec(f"say({said}, {count}, {size})").wait(PATIENCE)
                said = told
                if dice.random() < 0.5:
                    self._take(cell, got, dice.randrange(said + 1))
            self._end(cell, dice.choice(ENDS[:4] if way == "subinterpreter" else ENDS), dice)
        except pyisolate.CellDied as error:
            self._died(cell, error)
        except pyisolate.SandboxError as error:
            is_whole = False
            if not self.is_poor():
                self.tally.problem(f"a cell ({way}): {error!r}")
            cell.kill()
        self._account(cell, got, said, told, is_whole)

    def _take(self, cell: Any, got: list[int], count: int) -> None:
        while len(got) < count:
            got.append(cell.recv(PATIENCE)[0])

    def _end(self, cell: Any, way: str, dice: random.Random) -> None:
        self.tally.add(f"ends: {way}")
        match way:
            case "close":
                cell.close()
            case "signal" if cell.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(cell.pid, signal.SIGKILL)
            case "exit":
                cell.exec(f"import os; os._exit({dice.randrange(1, 70)})")
            case "abort":
                cell.exec("import os; os.abort()")
            case "spin":
                cell.exec("while True: pass")
                time.sleep(dice.random() / 50)
                cell.kill()
            case "flood":
                cell.exec("while True: log('info', 'x')")
                time.sleep(dice.random() / 50)
                cell.kill()
            case _:
                cell.kill()

    def _died(self, cell: Any, error: Exception) -> None:
        if isinstance(error, pyisolate.ProtocolViolation | pyisolate.LimitExceeded):
            self.tally.problem(f"{error!r} of a cell that did nothing")
        text = str(error)
        if "zygote ended" in text:
            self.tally.add("cells that told of their zygote's end")
        elif "signal 9" in text:
            self.tally.add("cells that told of a signal")
        elif not self.is_poor():
            self.tally.problem(f"a cell died of {error!r}")

    def _account(self, cell: Any, got: list[int], said: int, told: int, is_whole: bool) -> None:
        """What was said must be there, in order, once; of what was being said, a beginning."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                item = cell.recv(PATIENCE)
            except pyisolate.TimeoutError as error:
                self.tally.problem(f"a cell that was ended goes on: {error!r}")
                break
            except pyisolate.CellDied:
                break
            except pyisolate.SandboxError:
                continue  # of an `exec` that failed
            if isinstance(item, tuple):
                got.append(item[0])
        self.tally.add("messages received", len(got))
        good = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], enumerate(got))))
        lost = max(0, said - good) + (len(got) - good if is_whole else 0)
        if lost or good > told:
            self.tally.add("messages lost", max(1, lost))
            self.tally.problem(f"of {said} messages {good} came in order, {len(got)} in all")
