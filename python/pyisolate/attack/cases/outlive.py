"""Work that goes on after its time is over, whatever was raised in it."""

import dataclasses

from pyisolate.attack.case import Attempt, Fate, Finding, Trial

_AGAIN = """while True:
            try:
                while True: pass
            except BaseException: pass"""
SURVIVORS = {
    "a handler around a loop": "while True:\n    try:\n        while True: pass\n"
    "    except BaseException: pass",
    "a finally that goes on": "while True:\n    try:\n        while True: pass\n"
    "    finally:\n        continue",
    "an exit that goes on": """
class Exit:
    def __enter__(self): return self
    def __exit__(self, *_): return True
while True:
    with Exit():
        while True: pass
""",
    "a finalizer that makes another": f"""
class Final:
    def __del__(self):
        Final()
        {_AGAIN}
Final()
""",
    "a finalizer that runs as the stack unwinds": f"""
class Final:
    def __del__(self):
        {_AGAIN}
def hold():
    final = Final()
    if True:
        {_AGAIN}
hold()
""",
    "a generator that is closed": f"""
def generate():
    try:
        yield
    finally:
        {_AGAIN}
made = generate()
next(made)
del made
""",
    "a deep stack of handlers": """
def deeper(depth):
    while True:
        try:
            deeper(depth - 1) if depth else spin()
        except BaseException: continue
def spin():
    while True: pass
deeper(300)
""",
    "an exit function": f"""
import atexit
def again():
    if True:
        {_AGAIN}
atexit.register(again)
again()
""",
    "a thread that switches never": "import sys\nsys.setswitchinterval(1e6)\n"
    "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "C that calls back": "items = [*range(100_000)]\nwhile True:\n    try:\n"
    "        items.sort(key=lambda item: -item)\n    except BaseException: pass",
    "a sleep that begins again": "import time\nwhile True:\n    try:\n        time.sleep(0.05)\n"
    "    except BaseException: pass",
    "threads": "import threading\ndef spin():\n    while True: pass\n"
    "threads = [threading.Thread(target=spin) for _ in range(3)]\n"
    "for thread in threads: thread.start()\nspin()",
    "a timer's thread": "import threading\ndef again():\n"
    "    timer = threading.Timer(0.05, again)\n    timer.start()\nagain()\n"
    "while True: pass",
    "signal handlers": "import os, signal\n"
    "for number in range(1, 32):\n"
    "    try: signal.signal(number, lambda *_: None)\n"
    "    except (OSError, ValueError): pass\n"
    "while True: pass",
    "a trace that it takes away": "import sys\nwhile True:\n    try:\n        while True: pass\n"
    "    except BaseException:\n        try:\n            sys.settrace(None)\n"
    "        except BaseException: pass",
}
"""What keeps going after an exception was raised in it, as the body of a module."""

PLAIN = "while True: pass"
"""What does not: it shows that the exception ends what it can."""
END_SECONDS = 4.0
"""By when a cell's end has to have stopped what ran in it: unwinding and parking take one."""
_THREADED = ("threads", "a timer's thread", "signal handlers")


@dataclasses.dataclass(frozen=True, eq=False)
class Survivor(Trial):
    """Text that has to be ended from outside."""

    name: str
    source: str
    kind: str = "outlive"

    @property
    def unfit(self) -> dict[str, str]:
        """Where guest code cannot even begin."""
        if any(name in self.name for name in _THREADED):
            return {"subinterpreter": "a sub-interpreter cell has no threads and no signals"}
        return {}

    def attempt(self) -> Attempt:
        """It runs until its host ends it, which is soon."""
        return Attempt(self.name, self.source, seconds=0.3, posts=False, ends=True)

    def control(self) -> Attempt:
        """An exception is raised in it, and some time later its process is killed."""
        return Attempt(self.name, self.source, seconds=0.7, interrupts=True)

    def confined(self, fate: Fate, token: str, backend: str) -> dict[str, Finding]:
        """It is over, soon, and its host is as before."""
        if fate.host is not None or fate.changed:
            what = f"ended with {fate.host}: {fate.error}; changed: {fate.changed}"
            return {self.name: Finding("reached", f"its host {what}")}
        if fate.seconds_to_end > END_SECONDS:
            seconds = f"{fate.seconds_to_end:.1f} s"
            return {self.name: Finding("reached", f"{seconds} after its end it still ran")}
        if not fate.error:
            return {self.name: Finding("odd", "it ended by itself")}
        return {self.name: Finding("refused", fate.error)}

    def bare(self, fate: Fate, token: str) -> dict[str, Finding]:
        """It is running when it is killed."""
        if fate.lacking:
            return {self.name: Finding("lacking", fate.lacking)}
        if fate.host != -9:
            told = f"it ended with {fate.host} by itself: {fate.error}"
            return {self.name: Finding("odd", told)}
        return {self.name: Finding("reached", "it went on after an exception was raised in it")}


SURVIVING = [Survivor(f"outlive: {name}", source) for name, source in SURVIVORS.items()]
