"""Interpreters come and go in any order, die at any moment, and leave nothing in their host."""

import contextlib
import gc
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, run, until
from interpreters import BACKEND, host, new_interpreter

BUSY = """
import asyncio, datetime, decimal, json, re, sqlite3, weakref
base = sqlite3.connect(":memory:")
base.execute("create table t(a)")
base.executemany("insert into t values (?)", [(n,) for n in range(50)])
assert base.execute("select sum(a) from t").fetchone() == (1225,)
def generate():
    try: yield 1
    finally: raise ValueError("in a generator")
generator = generate(); next(generator)
class Bad:
    def __del__(self): raise ValueError("in a finalizer")
bad = Bad(); reference = weakref.ref(bad, lambda _: 1 / 0)
cycle = [Bad()]; cycle.append(cycle); cycle[0].me = cycle[0]
async def sleep(): await asyncio.sleep(0)
asyncio.run(sleep()); coroutine = sleep()
decimal.getcontext().prec = 50; third = decimal.Decimal(1) / 3
now = datetime.datetime.now(datetime.timezone.utc)
matches = re.compile("(a|b)*c").match("ababc")
held = [json.loads('{"a": [1]}') for _ in range(1000)]
def fail(): raise KeyError(generator, bad, coroutine)
"""
NAMES = ["asyncio", "datetime", "decimal", "json", "re", "sqlite3", "time", "weakref"]


def test_cells_come_and_go_in_several_threads():
    """In a process of their own: a fault of one would be the host's."""
    said = host(
        """
        from test_subinterpreter_life import BUSY, NAMES
        failures = []
        def work(worker):
            for turn in range(12):
                try:
                    cell = new_interpreter(allowed_imports=NAMES)
                    run(cell, BUSY)
                    try: cell.call("__main__.fail", timeout=PATIENCE)
                    except pyisolate.GuestError: pass
                    if turn % 4 == 1: cell.exec("while True: pass"); time.sleep(0.003)
                    if turn % 4 == 2: cell.exec("raise ValueError(bad, generator)")
                    cell.kill() if turn % 2 else cell.close()
                except Exception as error: failures.append(repr(error))
        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers: worker.start()
        while any(worker.is_alive() for worker in workers):
            gc.collect(); [object() for _ in range(10_000)]; time.sleep(0.01)
        print(failures)
        exec(BUSY.replace("raise ValueError", "return").replace("1 / 0", "1"))
        print("the host uses the same")
        sys.exit(7)
        """,
        status=7,
    )
    assert said == "[]\nthe host uses the same\n"


def test_hundreds_of_short_lives():
    with ThreadPoolExecutor(4) as pool:

        def live(number):
            with new_interpreter() as cell:
                run(cell, f"post({number})")
                return cell.recv(PATIENCE)

        assert list(pool.map(live, range(120))) == list(range(120))
    assert_serves()


@pytest.mark.parametrize("end", ["kill", "close"])
def test_ends_at_random_moments(end):
    said = host(
        """
        import random
        from test_subinterpreter_life import BUSY, NAMES
        def work(seed):
            rng = random.Random(seed)
            for turn in range(25):
                cell = new_interpreter(allowed_imports=NAMES)
                cell.exec(rng.choice([BUSY, "while True: pass", "post(b'x' * 10**6)", "recv()",
                                      "import json, re, asyncio", "raise ValueError"]))
                time.sleep(rng.random() * rng.choice([0, 0.001, 0.01, 0.05]))
                cell.kill() if sys.argv[1] == "kill" else cell.close(timeout=0.01)
        workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        assert_serves()
        with new_interpreter() as cell: run(cell, "post(1)")
        sys.exit(7)
        """,
        end,
        status=7,
    )
    assert said == ""


def test_a_supervisor_ends_while_cells_are_being_made():
    said = host(
        """
        for turn in range(8):
            supervisor = pyisolate.Supervisor(backend="subinterpreter", warm_pool=turn % 3)
            def work(worker):
                for number in range(100):
                    try: supervisor.spawn(f"{worker}-{number}").exec("while True: pass")
                    except pyisolate.SandboxError: break
            workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
            for worker in workers: worker.start()
            time.sleep(0.02 * turn)
            supervisor.shutdown()
            for worker in workers: worker.join()
            assert supervisor.list_active() == []
        def cells():
            names = []
            for task in os.listdir("/proc/self/task"):
                with contextlib.suppress(OSError):
                    names.append(open(f"/proc/self/task/{task}/comm").read())
            return sum(name.startswith("pyisolate-cell") for name in names)
        print(until(lambda: cells() == 0))
        sys.exit(7)
        """,
        status=7,
    )
    assert said == "True\n"


def test_ending_one_supervisor_does_not_wait_for_anothers_cells():
    with (
        pyisolate.Supervisor(backend=BACKEND) as one,
        pyisolate.Supervisor(backend=BACKEND) as other,
        other.spawn("lives") as cell,
    ):
        one.spawn("ends")
        # The guard against a hang is far longer than any end takes, and no promise.
        ending = threading.Thread(target=one.shutdown)
        ending.start()
        ending.join(5)
        assert not ending.is_alive()
        run(cell, "post(1)")
        assert cell.recv(PATIENCE) == 1


def test_a_forgotten_cell_is_ended():
    cell = new_interpreter()
    name = cell.name
    cell.exec("while True: pass")
    del cell
    gc.collect()
    assert until(lambda: name not in pyisolate.list_active())


# --- the host's end

AT_THE_END = {
    "idle": "cell = new_interpreter()",
    "spinning": "cell = new_interpreter(); cell.exec('while True: pass')",
    "unwilling": "cell = new_interpreter()\n"
    "cell.exec('while True:\\n try:\\n  while True: pass\\n except BaseException: pass')",
    "waiting": "cell = new_interpreter(); cell.exec('recv()')",
    "starting": "cell = new_interpreter(allowed_imports=['asyncio']); cell.exec('import asyncio')",
    "stuck": "cell = new_interpreter(); cell.exec('sum(iter(int, 1))'); time.sleep(0.1)",
    "asleep": "cell = new_interpreter(allowed_imports=['time'])\n"
    "cell.exec('import time; time.sleep(1000)'); time.sleep(0.1)",
    "with a handler": "cell = new_interpreter(capabilities={'x': lambda p: time.sleep(0.5)})\n"
    'cell.exec(\'request("x", "x")\'); time.sleep(0.1)',
    "calling": "cell = new_interpreter(allowed_imports=['time'])\n"
    "run(cell, 'def spin():\\n while True: pass')\n"
    "def call():\n    with contextlib.suppress(Exception): cell.call('__main__.spin')\n"
    "threading.Thread(target=call, daemon=True).start(); time.sleep(0.1)",
    "being made": "def make():\n    with contextlib.suppress(pyisolate.SandboxError):\n"
    "        while True: new_interpreter()\n"
    "threading.Thread(target=make, daemon=True).start(); time.sleep(0.15)",
    "in a full pool": "s = pyisolate.Supervisor(2, backend='subinterpreter')\n"
    "until(lambda: s.pool_ready == 2)",
    "in a filling pool": "s = pyisolate.Supervisor(4, backend='subinterpreter')\n"
    "until(lambda: s.pool_ready == 4); cell = s.spawn('a')",
    "of many": "cells = [new_interpreter() for _ in range(10)]\n"
    "for cell in cells: cell.exec('while True: pass')",
    "in a cycle": "cell = [new_interpreter()]; cell.append(cell)",
    "in a thread that ended": "def work(): globals().update(cell=new_interpreter())\n"
    "one = threading.Thread(target=work); one.start(); one.join()",
}


@pytest.mark.parametrize("name", AT_THE_END)
def test_the_host_ends_with_its_own_status_whatever_its_cells_do(name):
    said = host(AT_THE_END[name] + "\nprint('end', flush=True)\nsys.exit(7)\n", status=7)
    assert said == "end\n"


def test_the_host_ends_by_an_error_or_at_once():
    host("cell = new_interpreter(); cell.exec('while True: pass'); raise ValueError", status=1)
    host("cell = new_interpreter(); cell.exec('while True: pass'); os._exit(9)", status=9)
    host(
        "cell = new_interpreter(); cell.exec('while True: pass'); os.kill(os.getpid(), 15)",
        status=-15,
    )


def test_the_host_ends_after_a_cell_that_ended_its_thread():
    for call in ("os._exit(1)", "os.abort()"):
        host(
            f"""
            cell = new_interpreter(allowed_imports=["os"])
            cell.exec("import os; {call}"); drain(cell)
            sys.exit(7)
            """,
            status=7,
        )


def test_the_hosts_own_exit_functions_run_with_cells_alive():
    said = host(
        """
        import atexit
        cell = new_interpreter()
        def last():
            try: run(cell, "post('alive')"); print(cell.recv(PATIENCE))
            except pyisolate.SandboxError as error: print(type(error).__name__)
        atexit.register(last)
        sys.exit(7)
        """,
        status=7,
    )
    assert said == "alive\n"


# --- what else a host does


def test_a_fork_of_the_host():
    said = host(
        """
        import warnings; warnings.simplefilter("ignore")
        supervisor = pyisolate.Supervisor(1, backend="subinterpreter")
        cell = supervisor.spawn("a", allowed_imports=["os"])
        cell.exec("while True: pass")
        child = os.fork()
        if not child:
            said = []
            for operation in (lambda: cell.exec("pass"), lambda: supervisor.spawn("b"),
                              lambda: cell.recv(0.1), lambda: cell.post(1)):
                try: operation()
                except (pyisolate.SandboxError, pyisolate.TimeoutError) as error:
                    said.append("fork" in str(error))
            cell.stats; cell.close(); cell.kill(); supervisor.shutdown()
            print(said, flush=True)
            sys.exit(5)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        with new_interpreter() as other: run(other, "post(1)"); print(other.recv(PATIENCE))
        with pyisolate.spawn("p") as other: run(other, "post(2)"); print(other.recv(PATIENCE))
        cell.kill()
        sys.exit(7)
        """,
        status=7,
    )
    assert said == "[True, True, True, True]\n5\n1\n2\n"


@pytest.mark.parametrize("when", ["alive", "ending", "being made"])
def test_a_fork_at_any_time(when):
    said = host(
        f"""
        import subprocess, threading
        when = {when!r}
        supervisor = pyisolate.Supervisor(backend="subinterpreter")
        cell = supervisor.spawn("a")
        done = threading.Event()
        def churn():
            for number in range(10**6):
                supervisor.spawn(f"b{{number}}").close()
                if done.is_set(): return
        churning = threading.Thread(target=churn)
        if when == "being made": churning.start()
        for _ in range(20):
            if when == "ending":
                cell.close()
                cell = supervisor.spawn("a")
                cell.close()
            print(subprocess.run(["true"], preexec_fn=lambda: None, timeout=20).returncode, end="")
        done.set()
        if when == "being made": churning.join()
        """
    )
    assert said == "0" * 20


def test_interpreters_of_the_hosts_own_beside_cells():
    said = host(
        """
        import _interpreters
        before = _interpreters.create()
        with new_interpreter() as cell:
            run(cell, "kept = 1")
            beside = _interpreters.create()
            for one in (before, beside):
                assert _interpreters.run_string(one, "import datetime, json; x = [1]") is None
            run(cell, "post(kept)"); print(cell.recv(PATIENCE))
            _interpreters.destroy(beside)
        _interpreters.run_string(before, "import asyncio, threading; y = 2")
        with new_interpreter() as cell: run(cell, "post(2)"); print(cell.recv(PATIENCE))
        _interpreters.destroy(before)
        left = _interpreters.create()
        with new_interpreter() as cell: run(cell, "post(3)"); print(cell.recv(PATIENCE))
        sys.exit(7)
        """,
        status=7,
    )
    assert said == "1\n2\n3\n"


USE = """
import datetime, decimal, hashlib, json, re, sqlite3, ssl, struct, xml.etree.ElementTree, zlib
import zoneinfo
stamp = datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc) + datetime.timedelta(days=1)
assert stamp.isoformat() == "2024-01-03T00:00:00+00:00"
assert datetime.datetime.strptime("2024", "%Y").year == 2024
assert str(decimal.Decimal("0.1") + decimal.Decimal("0.2")) == "0.3"
assert sqlite3.connect(":memory:").execute("select 1 + 1").fetchone() == (2,)
assert xml.etree.ElementTree.fromstring("<a><b/></a>")[0].tag == "b"
assert zlib.decompress(zlib.compress(b"x" * 100)) == b"x" * 100
assert len(hashlib.sha256(b"x").hexdigest()) == 64
"""


@pytest.mark.parametrize("first", ["cells", "host"])
def test_modules_that_host_and_cells_both_use(first):
    said = host(
        """
        from test_subinterpreter_life import USE
        names = ["datetime", "decimal", "hashlib", "json", "re", "sqlite3", "ssl", "struct",
                 "xml", "zlib", "zoneinfo"]
        if sys.argv[1] == "host": exec(USE, {})
        for _ in range(3):
            cells = [new_interpreter(allowed_imports=names) for _ in range(2)]
            for cell in cells: run(cell, USE)
            for cell in cells: cell.close()
            exec(USE, {}); gc.collect()
        sys.exit(7)
        """,
        first,
        status=7,
    )
    assert said == ""


# --- leaks


def test_300_cells_leave_nothing_behind():
    said = host("""
        def live():
            with new_interpreter(allowed_imports=["json"]) as cell:
                run(cell, "import json\\nkept = [{} for _ in range(1000)]\\npost(json.dumps([1]))")
                try: cell.exec("1 / 0").wait(PATIENCE)
                except pyisolate.GuestError: pass
        def holdings():
            status = open("/proc/self/status").read()
            resident = int(status.partition("VmRSS:")[2].split()[0])
            return resident, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
        for _ in range(30): live()
        time.sleep(0.5)
        resident, threads, descriptors = holdings()
        for _ in range(300): live()
        until(lambda: holdings()[1] <= threads)
        now = holdings()
        print(now[0] - resident, now[1] - threads, now[2] - descriptors)
    """)
    grown_kib, threads, descriptors = map(int, said.split())
    assert grown_kib < 5 * 1024
    assert threads <= 0
    assert descriptors <= 0


def test_memory_that_a_cell_had_is_the_hosts_again():
    said = host("""
        def resident():
            status = open("/proc/self/status").read()
            return int(status.partition("VmRSS:")[2].split()[0])
        def live(source):
            with new_interpreter() as cell: run(cell, source)
        sources = ["kept = bytearray(b'x') * (100 << 20)", "kept = list(map(str, range(500_000)))"]
        for source in sources: live(source)
        before = resident()
        for _ in range(5):
            for source in sources: live(source)
        print(resident() - before)
    """)
    assert int(said) < 40 * 1024


def test_ends_of_all_kinds_at_once():
    def live(number):
        chosen = random.Random(number)
        cell = new_interpreter(wall_time_ms=chosen.choice([100, 60_000]))
        with contextlib.suppress(pyisolate.SandboxError):
            cell.exec("while True: pass")
            time.sleep(chosen.random() * 0.15)
        cell.kill() if number % 2 else cell.close(timeout=0.1)
        return cell.stats.abandoned

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(live, range(16)))
    assert_serves()
