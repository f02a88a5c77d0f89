"""What tests of many requests share: handlers that wait, hosts that end, a look at what is left."""

import gc
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from cells import PATIENCE, until


def holdings():
    """What a leak would make more of."""
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
    }


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    gc.collect()
    before = holdings()
    yield
    request.node.funcargs.clear()  # which would keep a supervisor that was shut down

    def is_back():
        gc.collect()
        now = holdings()
        return all(now[name] <= before[name] for name in now)

    assert until(is_back), f"{before} became {holdings()}"


class Gate:
    """A handler that waits, for however many callers, until it is opened."""

    def __init__(self):
        self.begun = []
        self.opened = threading.Event()

    def __call__(self, payload):
        self.begun.append(payload)
        self.opened.wait(PATIENCE * 3)
        return payload


@pytest.fixture(name="gate")
def gate_fixture():
    gate = Gate()
    yield gate
    gate.opened.set()


def ask_in_threads(count, name="hang", payload="number"):
    """Guest code that asks in so many threads and goes on."""
    return f"""
import threading
def ask(number):
    try: request("{name}", "x", {payload})
    except Exception: pass
for number in range({count}): threading.Thread(target=ask, args=(number,)).start()
"""


def host(program, *words):
    """Run a host's program to its end."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE * 2, check=False
    )
    return done.returncode, done.stdout, done.stderr
