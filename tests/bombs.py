"""Guest code that goes off, and how each is to end: the test suite and the soak both run them."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import pyisolate
from cells import PATIENCE, until

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Bomb:
    """What runs, and the error that the host is to get.

    With `type`, the error is the guest's own, and the cell lives on, with nothing left in it.
    """

    source: str
    error: type[pyisolate.SandboxError]
    type: str | None = None
    limits: dict[str, int] = dataclasses.field(default_factory=dict)
    closes: bool = False
    """Whether it goes off once the cell is closed."""


CPU = {"cpu_ms": 60}
WALL = {"wall_time_ms": 60}

BOMBS = {
    "fork": Bomb("import os\nos.fork()", pyisolate.GuestError, "PermissionError"),
    "fork, by every call": Bomb(
        """
import ctypes, os
libc = ctypes.CDLL(None)
made = [os.fork, os.forkpty, lambda: os.posix_spawn("/bin/true", ["true"], {})]
for make in made:
    try:
        make()
    except OSError:
        pass
    else:
        post("made")
for call in (57, 58, 435):
    if libc.syscall(call, 0, 0) >= 0:
        post("made")
raise PermissionError(1, "none")
""",
        pyisolate.GuestError,
        "PermissionError",
    ),
    "fork, without end": Bomb(
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        pyisolate.CPUExceeded,
        limits=CPU,
    ),
    "threads": Bomb(
        "import threading\nwhile True: threading.Thread(target=recv).start()",
        pyisolate.ChildWorkExceeded,
    ),
    "threads that make threads": Bomb(
        """
import threading
def more():
    while True:
        try: threading.Thread(target=more).start()
        except RuntimeError: pass
more()
""",
        pyisolate.CPUExceeded,
        limits=CPU,
    ),
    "thread that goes on": Bomb(
        "import threading\ndef burn():\n    while True: pass\n"
        "threading.Thread(target=burn).start()",
        pyisolate.CPUExceeded,
        limits=CPU,
    ),
    "memory": Bomb(
        "data = []\nwhile True: data.append(bytearray(1 << 20))",
        pyisolate.MemoryExceeded,
        limits={"mem_bytes": 64 * MIB},
    ),
    "memory, at once": Bomb(
        "data = bytearray(10**12)", pyisolate.MemoryExceeded, limits={"mem_bytes": 64 * MIB}
    ),
    "memory, by doubling": Bomb(
        "data = 'x'\nwhile True: data += data",
        pyisolate.MemoryExceeded,
        limits={"mem_bytes": 64 * MIB},
    ),
    "cpu": Bomb("while True: pass", pyisolate.CPUExceeded, limits=CPU),
    "cpu, in C": Bomb(
        "n = 7 ** 10_000_000 ** 2",
        pyisolate.CPUExceeded,
        limits={"cpu_ms": 60, "mem_bytes": 1 << 30},
    ),
    "cpu, against interrupts": Bomb(
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        pyisolate.CPUExceeded,
        limits=CPU,
    ),
    "wall time": Bomb("recv()", pyisolate.WallTimeExceeded, limits=WALL),
    "output": Bomb(
        "while True: print('x' * 1000)",
        pyisolate.OutputExceeded,
        limits={"output_bytes_max": 100_000},
    ),
    "output, of nothing": Bomb(
        "while True: print()", pyisolate.OutputExceeded, limits={"output_bytes_max": 10_000}
    ),
    "descriptors": Bomb(
        "kept = []\nwhile True: kept.append(open('/dev/null'))", pyisolate.OpenFilesExceeded
    ),
    "descriptors, in pairs": Bomb("import os\nwhile True: os.pipe()", pyisolate.OpenFilesExceeded),
    "message, too large": Bomb(
        "post(b'x' * 2_000_000)",
        pyisolate.GuestError,
        "ValueError",
        limits={"message_bytes_max": MIB},
    ),
    "message, too deep": Bomb(
        "deep = []\nfor _ in range(100_000): deep = [deep]\npost(deep)",
        pyisolate.GuestError,
        "RecursionError",
    ),
    "messages, without end": Bomb(
        "while True: post(b'x' * 1000)",
        pyisolate.WallTimeExceeded,
        limits={"unread_bytes_max": MIB, **WALL},
    ),
    "recursion": Bomb("def f(): f()\nf()", pyisolate.GuestError, "RecursionError"),
    "recursion, in C": Bomb(
        "class A:\n    def __repr__(self): return repr(self)\nrepr(A())",
        pyisolate.GuestError,
        "RecursionError",
    ),
    "recursion, without a limit": Bomb(
        "import sys\nsys.setrecursionlimit(2**31 - 1)\ndef f(): f()\nf()",
        pyisolate.CellDied,
        limits={"mem_bytes": 64 * MIB, "cpu_ms": 2000},
    ),
    "__del__": Bomb(
        "class A:\n    def __del__(self):\n        while True: pass\na = A()\ndel a",
        pyisolate.CPUExceeded,
        limits=CPU,
    ),
    "__del__, that comes back": Bomb(
        """
class A:
    def __del__(self):
        A(); A()
A()
""",
        pyisolate.CellDied,
        limits={"cpu_ms": 300, "mem_bytes": 64 * MIB, "output_bytes_max": 100_000},
    ),
    "__del__, at the end": Bomb(
        "class A:\n    def __del__(self):\n        while True: post(1)\na = A()",
        pyisolate.CellDied,
        closes=True,
    ),
    "atexit": Bomb(
        "import atexit\n@atexit.register\ndef more():\n    while True: post(1)",
        pyisolate.CellDied,
        closes=True,
    ),
    "finalizer": Bomb(
        "import weakref\nclass A: pass\na = A()\n"
        "def more():\n    while True: post(1)\nweakref.finalize(a, more)",
        pyisolate.CellDied,
        closes=True,
    ),
    "signal handlers": Bomb(
        """
import signal
for number in range(1, 64):
    try: signal.signal(number, lambda *_: exec("while True: post(1)"))
    except (OSError, ValueError): pass
""",
        pyisolate.CellDied,
        closes=True,
    ),
    "daemon threads": Bomb(
        """
import threading
def more():
    while True: recv(0.001)
def stubborn():
    while True:
        try: more()
        except BaseException: pass
for _ in range(8): threading.Thread(target=stubborn, daemon=True).start()
""",
        pyisolate.CellDied,
        closes=True,
    ),
}

MODULES = ["atexit", "ctypes", "os", "signal", "sys", "threading", "weakref"]


def set_off(supervisor: Any, name: str, bomb: Bomb) -> str | None:
    """Runs one in a cell of its own; what was wrong with its end, or `None`."""
    cell = supervisor.spawn(name, allowed_imports=MODULES, **bomb.limits)
    pid = cell.pid
    try:
        wrong = _judge(cell, bomb)
    finally:
        cell.kill()
    # With its first process go all threads of the cell, and what it had left to run.
    if wrong is None and not until(lambda: not Path(f"/proc/{pid}").exists()):
        wrong = "outlived its cell"
    return wrong


def _judge(cell: Any, bomb: Bomb) -> str | None:
    work = cell.exec(bomb.source)
    if bomb.closes:
        work.wait(PATIENCE)
        cell.close(timeout=0.05)
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if cell.recv(PATIENCE) == "made":
                return "made a process"
    except pyisolate.SandboxError as error:
        if not isinstance(error, bomb.error) or getattr(error, "type", None) != bomb.type:
            return f"ended in {error!r}"
        return None if bomb.type is None else _left_behind(cell)
    return "went on"


def _left_behind(cell: Any) -> str | None:
    """What a cell that lives on has of its bomb."""
    if "\nThreads:\t1\n" not in Path(f"/proc/{cell.pid}/status").read_text():
        return "left threads"
    if Path(f"/proc/{cell.pid}/task/{cell.pid}/children").read_text():
        return "left processes"
    cell.exec("post('serves')")
    return None if cell.recv(PATIENCE) == "serves" else "does not serve"
