"""Each limit holds for a cell in an interpreter of the host's process, whatever the guest does
against its end."""

import threading

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, death_of, run
from interpreters import host, new_interpreter

MIB = 1 << 20


def ended(source, kind, **options):
    """A cell that a limit ended while it ran this source text."""
    with new_interpreter(**options) as cell:
        handle = cell.exec(source)
        with pytest.raises(kind):
            handle.wait(PATIENCE)
        assert isinstance(death_of(cell), kind)
        return cell


# --- time

UNWILLING = {
    "a loop": "while True: pass",
    "except": """
while True:
    try:
        while True: pass
    except BaseException: pass
""",
    "nested excepts": """
def hold(depth):
    while True:
        try: hold(depth - 1) if depth else [None for _ in iter(int, 1)]
        except BaseException: pass
hold(50)
""",
    "finally": """
def again():
    try:
        while True: pass
    finally: again()
again()
""",
    "suppress": """
import contextlib
while True:
    with contextlib.suppress(BaseException):
        while True: pass
""",
    "an exit method": """
class Never:
    def __enter__(self): return self
    def __exit__(self, *_):
        while True: pass
while True:
    with Never():
        while True: pass
""",
    "finalizers": """
class Again:
    def __del__(self):
        keep.append(Again())
        while True: pass
keep = [Again() for _ in range(100)]
while True: keep.clear()
""",
    "a generator": """
def forever():
    while True:
        try: yield 1
        except BaseException: pass
for _ in forever(): pass
""",
    "a generator that refuses to close": """
def stubborn():
    try: yield
    finally:
        while True: pass
one = stubborn(); next(one); one.close()
""",
    "a coroutine": """
import asyncio
async def main():
    while True:
        try: await asyncio.sleep(0)
        except BaseException: pass
asyncio.run(main())
""",
    "a comprehension": "[0 for _ in iter(int, 1)]",
    "a generator expression": "any(False for _ in iter(int, 1))",
    "a class body": "class Endless:\n    while True: pass",
    "a lambda": "f = lambda: [f() for _ in iter(int, 1) if 0]\nwhile True: f()",
    "an eval": 'eval("[0 for _ in iter(int, 1)]")',
    "an exec in an exec": "exec(\"exec('while True: pass')\")",
    "a callback of json": """
import json
def hook(pairs):
    while True: pass
json.loads('{"a": 1}', object_pairs_hook=hook)
""",
    "a callback of re": """
import re
def replace(match):
    while True: pass
re.sub("a", replace, "aaa")
""",
    "a key of sorted": """
def key(item):
    while True: pass
sorted([3, 1, 2], key=key)
""",
    "a comparison": """
class Slow:
    def __lt__(self, other):
        while True: pass
sorted([Slow(), Slow()])
""",
    "an attribute": """
class Lazy:
    def __getattr__(self, name):
        while True: pass
Lazy().x
""",
    "a pickle": """
class Endless:
    def __reduce__(self):
        while True: pass
    __class__ = property(lambda self: exec("while True: pass"))
post(Endless())
str(Endless()); Endless().__class__
""",
    "an error's text": """
class Odd(Exception):
    def __str__(self):
        while True: pass
raise Odd
""",
    "an own stdout": """
import sys
class Out:
    _held = "x"
    def write(self, text): return len(text)
    def flush(self):
        while True: pass
sys.stdout = Out()
""",
    "an own hook": """
import sys
def hook(*_):
    while True: pass
sys.unraisablehook = sys.excepthook = hook
class Bad:
    def __del__(self): raise ValueError
Bad()
while True: pass
""",
    "recursion": """
import sys
sys.setrecursionlimit(5000)
def deep(depth=0):
    try: deep(depth + 1)
    except BaseException: deep(depth + 1)
deep()
""",
    "many short calls": "def f(): pass\nwhile True: f(); f(); f()",
    "a request in a loop": """
while True:
    try: request("no", "no")
    except BaseException: pass
""",
    "sleep": "import time\nwhile True:\n    try: time.sleep(1000)\n    except BaseException: pass",
    "a wait for the host": "while True:\n    try: recv()\n    except BaseException: pass",
}
NAMES = ["asyncio", "contextlib", "json", "re", "sys", "time"]


@pytest.mark.parametrize("name", UNWILLING)
def test_python_code_is_stopped_whatever_it_does(name):
    said = host(
        """
        from test_subinterpreter_limits import NAMES, UNWILLING
        cell = new_interpreter(allowed_imports=NAMES, wall_time_ms=150)
        handle = cell.exec(UNWILLING[sys.argv[1]])
        try: handle.wait(PATIENCE)
        except pyisolate.WallTimeExceeded: print("stopped")
        print("abandoned:", cell.stats.abandoned)
        print("gone:", until(lambda: threads_of_cells() == 0))
        with new_interpreter() as other: run(other, "post(1)")
        sys.exit(7)
        """,
        name,
        status=7,
    )
    assert said == "stopped\nabandoned: False\ngone: True\n"


def test_an_import_is_stopped():
    with new_interpreter(allowed_imports=["endless", "sys"], wall_time_ms=300) as cell:
        run(
            cell,
            """
import sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        while name == "endless": pass
sys.meta_path.insert(0, Finder)
""",
        )
        cell.exec("import endless")
        assert isinstance(death_of(cell), pyisolate.WallTimeExceeded)
        assert cell.stats.abandoned is False


def test_wall_time_is_each_operations_own():
    with new_interpreter(wall_time_ms=1500, allowed_imports=["time"]) as cell:
        for _ in range(4):
            cell.call("time.sleep", 0.5, timeout=PATIENCE)
        with pytest.raises(pyisolate.TimeoutError):
            cell.recv(0.1)
        run(cell, "pass")


def test_cpu_time():
    cell = ended("while True: pass", pyisolate.CPUExceeded, cpu_ms=300)
    assert cell.stats.cpu_ms >= 300
    assert cell.stats.abandoned is False
    assert_serves()


def test_cpu_time_is_the_cells_own_thread():
    with new_interpreter(cpu_ms=1000, allowed_imports=["time"]) as cell:
        before = cell.stats.cpu_ms
        sum(range(80_000_000))
        run(cell, "pass")
        assert cell.stats.cpu_ms - before < 900


# --- memory


@pytest.mark.parametrize(
    "source",
    [
        "data = bytearray(10**9)",
        "data = []\nwhile True: data.append(bytearray(1 << 20))",
        "data = 'x'\nwhile True: data += data",
        "data = []\nwhile True: data.append([None] * 10)",
        "data = {}\nfor number in range(10**9): data[number] = str(number)",
        "data = []\nwhile True: data = [data, data.copy(), object()]",
        "data = []\nwhile True:\n    try: data.append(bytes(100_000))\n    except ValueError: pass",
        "data = 1 << 8 * 10**9",
        "data = list(range(10**8))",
        "import sqlite3\ndata = sqlite3.connect(':memory:').execute('select zeroblob(400000000)')"
        ".fetchall()",
    ],
)
def test_memory(source):
    cell = ended(source, pyisolate.MemoryExceeded, mem_bytes=64 * MIB, allowed_imports=["sqlite3"])
    assert cell.stats.abandoned is False
    assert cell.stats.mem_bytes == 0
    assert_serves()


def test_a_guest_may_handle_its_want_of_memory():
    with new_interpreter(mem_bytes=64 * MIB) as cell:
        for _ in range(3):
            run(cell, "try: bytearray(10**9)\nexcept MemoryError: post('handled')")
            assert cell.recv(PATIENCE) == "handled"
        run(cell, "data = bytearray(30 << 20); post(len(data))")
        assert cell.recv(PATIENCE) == 30 * MIB


def test_a_guest_that_hoards_and_catches_cannot_go_on_for_ever():
    source = """
hoard = []
while True:
    try:
        while True: hoard.append(bytearray(4096))
    except MemoryError: pass
"""
    with new_interpreter(mem_bytes=64 * MIB, wall_time_ms=1500) as cell:
        cell.exec(source)
        assert isinstance(death_of(cell), (pyisolate.MemoryExceeded, pyisolate.WallTimeExceeded))
        assert cell.stats.abandoned is False
    assert_serves()


def test_the_hosts_memory_is_its_own():
    with new_interpreter(mem_bytes=64 * MIB) as cell:
        run(cell, "kept = bytearray(8 << 20)")
        before = cell.stats.mem_bytes
        hosts = [bytearray(300 * MIB), [object() for _ in range(200_000)]]
        run(cell, "post(len(kept))")
        assert cell.recv(PATIENCE) == 8 * MIB
        assert cell.stats.mem_bytes < before + 8 * MIB
        del hosts
        run(cell, "more = bytearray(8 << 20)")


def test_memory_that_is_given_back_is_not_counted():
    with new_interpreter(mem_bytes=64 * MIB) as cell:
        run(cell, "for _ in range(100): data = bytearray(16 << 20); del data")
        run(cell, "for _ in range(20): data = [str(n) for n in range(100_000)]; del data")


# --- output, messages, the channel


@pytest.mark.parametrize(
    "source",
    [
        "while True: print('x' * 1000)",
        "import sys\nwhile True: sys.stderr.write('x' * 1000)",
        "while True: log('info', '', data='x' * 10_000)",
        "while True:\n    try: print('x' * 1000)\n    except BaseException: pass",
    ],
)
def test_output(source):
    with new_interpreter(output_bytes_max=100_000, allowed_imports=["sys"]) as cell:
        cell.exec(source)
        assert isinstance(death_of(cell), pyisolate.OutputExceeded)
        assert cell.stats.abandoned is False


def test_the_size_of_a_message():
    with new_interpreter(message_bytes_max=1 * MIB) as cell:
        run(cell, "try: post(b'x' * (2 << 20))\nexcept ValueError: post('too large')")
        assert cell.recv(PATIENCE) == "too large"
        with pytest.raises(ValueError, match="message_bytes_max"):
            cell.post(b"x" * (2 * MIB))
        run(cell, "post(b'x' * 500_000)")
        assert len(cell.recv(PATIENCE)) == 500_000


def test_unread_messages_make_the_guest_wait():
    with new_interpreter(unread_bytes_max=4 * MIB) as cell:
        handle = cell.exec("for number in range(40): post([number, b'x' * 500_000])")
        with pytest.raises(pyisolate.TimeoutError):
            handle.wait(0.5)
        assert [cell.recv(PATIENCE)[0] for _ in range(40)] == list(range(40))
        handle.wait(PATIENCE)


def test_a_guest_that_waits_for_room_is_ended():
    cell = ended(
        "while True: post(b'x' * 500_000)",
        pyisolate.WallTimeExceeded,
        unread_bytes_max=2 * MIB,
        wall_time_ms=400,
    )
    assert cell.stats.abandoned is False


def test_a_flood_of_requests():
    source = """
answers = 0
for number in range(3000):
    try: request("echo", "x", number)
    except PermissionError: break
    answers += 1
post(answers)
"""
    with new_interpreter(capabilities={"echo": lambda payload: payload}) as cell:
        run(cell, source)
        assert cell.recv(PATIENCE) == 3000
    with new_interpreter() as cell:
        run(cell, source.replace("break", "continue"))
        assert cell.recv(PATIENCE) == 0
        assert cell.stats.denied == 3000
        assert len(cell.denials) <= 1000


def test_a_cell_in_a_handler_of_the_hosts_is_ended():
    begun, go = threading.Event(), threading.Event()

    def hang(_payload):
        begun.set()
        go.wait(PATIENCE)

    with new_interpreter(capabilities={"hang": hang}, wall_time_ms=300) as cell:
        cell.exec("request('hang', 'x')")
        assert begun.wait(PATIENCE)
        assert isinstance(death_of(cell), pyisolate.WallTimeExceeded)
        assert cell.stats.abandoned is False
        go.set()
    assert_serves()
