"""A guest that cannot be ended is told of and left behind, and the host goes on without it; of one
that ended nothing runs any more."""

import subprocess
from pathlib import Path

import pytest

from cells import PATIENCE
from conftest import missing
from interpreters import command, host
from tracing import held, held_before_it_sleeps

# --- what cannot be ended

STUCK = {
    "sum": "sum(iter(int, 1))",
    "a lock": "import _thread; lock = _thread.allocate_lock(); lock.acquire(); lock.acquire()",
    "a power": "7 ** (10 ** 8)",
    "select": "import select; select.select([], [], [], 1000)",
    "re": "import re; re.match('(a|a)*b', 'a' * 60)",
    "a deque": "import collections, itertools; collections.deque(itertools.repeat(1), maxlen=0)",
}


@pytest.mark.parametrize("name", STUCK)
def test_a_call_that_does_not_return_is_abandoned(name):
    said = host(
        """
        cell = new_interpreter(
            allowed_imports=["_thread", "collections", "itertools", "re", "select", "time"],
            wall_time_ms=200,
        )
        handle = cell.exec(sys.argv[1])
        try: handle.wait(PATIENCE)
        except pyisolate.WallTimeExceeded: print("limit")
        print(cell.stats.abandoned)
        cell.close()
        assert_serves()
        with new_interpreter() as other: run(other, "post(1)")
        print("goes on", flush=True)
        sys.exit(7)
        """,
        STUCK[name],
        status=7,
    )
    assert said.split("\n")[:3] == ["limit", "True", "goes on"]


def test_many_that_cannot_be_ended():
    said = host(
        """
        wait = "import select; select.select([], [], [], 1000)"
        sources = ["sum(iter(int, 1))", wait, "7 ** (10 ** 8)"]
        cells = [new_interpreter(allowed_imports=["select"], wall_time_ms=200) for _ in range(6)]
        for number, cell in enumerate(cells): cell.exec(sources[number % 3])
        print(sum(isinstance(drain(cell), list) for cell in cells))
        print(all(cell.stats.abandoned for cell in cells))
        assert_serves()
        with new_interpreter() as cell: run(cell, "post(1)")
        sys.exit(7)
        """,
        status=7,
    )
    assert said == "6\nTrue\n"


def test_an_abandoned_guest_that_comes_back_runs_no_further():
    said = host(
        """
        came = []
        cell = new_interpreter(
            allowed_imports=["select"], wall_time_ms=100,
            capabilities={"tell": lambda payload: came.append(payload)},
        )
        cell.exec("import select\\ntry: select.select([], [], [], 2)\\n"
                  "finally: request('tell', 'x', 1); post(1)")
        print(drain(cell), cell.stats.abandoned)
        time.sleep(2.5)
        print(came, drain(cell))
        sys.exit(7)
        """,
        status=7,
    )
    assert said == "[] True\n[] []\n"


def traced_host(program, held_when, while_held):
    """A host's program, whose first line names the thread to hold; what it prints after that."""
    with subprocess.Popen(
        command(program),
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            with held_when(int(process.stdout.readline())):
                process.stdin.write("held\n")
                process.stdin.flush()
                assert process.stdout.readline() == while_held
        except PermissionError as error:
            process.kill()
            missing("ptrace", str(error))
        said, _ = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 7
    return said


def test_a_guest_that_is_about_to_sleep_is_ended_too():
    """It has looked whether it was stopped, and sleeps before it can be woken."""
    said = traced_host(
        """
        cell = new_interpreter()
        run(cell, "x = 1")
        print(*threads_named(GUEST), flush=True)
        input()
        threading.Thread(target=cell.kill).start()
        print(until(lambda: threads_named(STOPPER)), flush=True)
        drain(cell)
        print(cell.stats.abandoned, until(lambda: threads_of_cells() == 0))
        sys.exit(7)
        """,
        held_before_it_sleeps,
        "True\n",
    )
    assert said == "False True\n"


@pytest.mark.slow
def test_an_abandoned_thread_keeps_its_priority_while_it_may_come_back():
    said = host(
        """
        cell = new_interpreter(wall_time_ms=200)
        cell.exec("sum(iter(int, 1))")
        thread, = threads_named(GUEST)
        idle = lambda: os.sched_getscheduler(thread) == os.SCHED_IDLE
        drain(cell)
        print(cell.stats.abandoned, idle())
        print(until(idle))
        sys.exit(7)
        """,
        status=7,
    )
    assert said == "True False\nTrue\n"


@pytest.mark.slow
def test_a_thread_that_comes_back_without_its_priority_leaves_its_interpreter():
    """To take it apart it would hold what other cells wait for."""
    said = traced_host(
        """
        cell = new_interpreter(wall_time_ms=60_000)
        cell.exec("post(1)\\nwhile True: pass")
        cell.recv(PATIENCE)
        thread, = threads_named(GUEST)
        print(thread, flush=True)
        input()
        cell.kill()
        print(until(lambda: os.sched_getscheduler(thread) == os.SCHED_IDLE), flush=True)
        for _ in range(20):
            with new_interpreter() as other: run(other, "post(1)")
        print(cell.stats.abandoned)
        sys.exit(7)
        """,
        held,
        "True\n",
    )
    assert said == "True\n"


@pytest.mark.parametrize("source", ["import os; os._exit(3)", "import os; os.abort()"])
def test_ending_the_process_ends_the_cell_alone(source):
    said = host(
        """
        cell = new_interpreter(allowed_imports=["os"])
        handle = cell.exec(sys.argv[1])
        try: handle.wait(PATIENCE)
        except pyisolate.CellDied as error: print("os._exit" in str(error))
        print(cell.stats.abandoned)
        assert_serves()
        with new_interpreter() as other: run(other, "post(1)")
        sys.exit(7)
        """,
        source,
        status=7,
    )
    assert said == "True\nTrue\n"


# --- nothing runs after the end

LATE = """
def late(*_):
    try: post("late")
    except BaseException: pass
    try: request("tell", "x", "late")
    except BaseException: pass
    while True: pass
"""

AFTERLIVES = {
    "atexit": "import atexit\natexit.register(late)",
    "a cycle": "class A:\n    def __del__(self): late()\na = A(); a.self = a",
    "a global": "class A:\n    def __del__(self): late()\na = A()",
    "a module's": "import sys\nclass A:\n    def __del__(self): late()\nsys.a = A()",
    "a weak reference": "import weakref\nclass A: pass\na = A(); w = weakref.ref(a, late); a.a = a",
    "finalize": "import weakref\nclass A: pass\na = A(); weakref.finalize(a, late)",
    "a generator": "def g():\n    try: yield\n    finally: late()\none = g(); next(one)",
    "a coroutine": "async def c():\n    try: await never()\n    finally: late()\n"
    "class never:\n    def __await__(self): yield\none = c(); one.send(None)",
    "a hook": "import sys\nsys.unraisablehook = sys.excepthook = late\n"
    "class A:\n    def __del__(self): raise ValueError\nkeep = [A()]",
}


@pytest.mark.parametrize("end", ["close", "kill"])
@pytest.mark.parametrize("name", AFTERLIVES)
def test_nothing_of_the_guests_runs_after_its_end(name, end):
    said = host(
        """
        from test_subinterpreter_ends import LATE
        came = []
        cell = new_interpreter(
            allowed_imports=["atexit", "sys", "weakref"],
            capabilities={"tell": lambda payload: came.append(payload)},
        )
        run(cell, LATE)
        run(cell, sys.argv[1])
        if sys.argv[2] == "close": cell.close()
        else: cell.kill()
        items = drain(cell)
        print(until(lambda: threads_of_cells() == 0), came, items, cell.stats.abandoned)
        sys.exit(7)
        """,
        AFTERLIVES[name],
        end,
        status=7,
    )
    assert said == "True [] [] False\n"


STUBBORN = """
def stubborn():
    while True:
        try: yield
        except BaseException: pass
one = stubborn(); next(one)
"""
# Where an interpreter keeps things longer than its modules.
KEEPERS = {
    "codecs": "import codecs\ndef search(name, one=one): pass\ncodecs.register(search)",
    "contextvars": "import contextvars\nv = contextvars.ContextVar('v'); v.set(one)",
    "_thread": "import _thread\nlocal = _thread._local(); local.one = one",
    "sys": "import sys\nclass Hook:\n    def __init__(self): self.one = one\n"
    "    def __call__(self, *_): pass\nsys.set_asyncgen_hooks(Hook(), Hook()); sys.one = one",
    "builtins": "import builtins\nbuiltins.one = one",
    "_warnings": "import _warnings\n_warnings.filters.append(one)",
    "copyreg": "import copyreg\ncopyreg.dispatch_table[one] = one",
    "atexit": "import atexit\natexit.register(lambda one=one: None)",
    "gc": "cycle = [one]; cycle.append(cycle)",
}


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_generator_that_will_not_close_ends_with_its_interpreter(end):
    said = host(
        """
        from test_subinterpreter_ends import KEEPERS, STUBBORN
        for name, source in KEEPERS.items():
            cell = new_interpreter(allowed_imports=[name])
            run(cell, STUBBORN + source + "\\ndel one")
            cell.close() if sys.argv[1] == "close" else cell.kill()
            if not until(lambda: threads_of_cells() == 0):
                print(name, "stays")
                break
        sys.exit(7)
        """,
        end,
        status=7,
    )
    assert said == ""
