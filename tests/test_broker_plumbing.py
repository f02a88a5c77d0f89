"""Requests in great number, of every wrong kind and at the worst moment: each is answered once or
its cell is dead, the host stays as large as it was, and nothing is left behind."""

import ctypes
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import pyisolate
import raw_channel
from asking import ask
from cells import PATIENCE, assert_serves, death_of, run, until
from command import call
from plumbing import Gate, ask_in_threads, gate_fixture, holdings, host, nothing_is_left  # noqa: F401
from pyisolate import Capability, Clock, HostCapability, Policy, Supervisor

MIB = 1 << 20
RAW = [*raw_channel.MODULES, "threading"]
STAY = "os.read(os.pipe()[0], 1)\n"
"""How a guest that went around its runtime ends: it asks for nothing any more."""


def resident_mib():
    """This process's own memory, with buffers that it shares with cells and maps."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) >> 10


@pytest.fixture
def supervisor():
    with Supervisor() as supervisor:
        yield supervisor


# --- floods --------------------------------------------------------------------------------------


def test_ten_thousand_requests_from_sixteen_threads(supervisor):
    own = {"echo": lambda payload: payload}
    policy = Policy().grant(Clock("monotonic"))
    options = {"allowed_imports": ["threading"], "child_work_max": 32}
    with supervisor.spawn("a", policy=policy, capabilities=own, **options) as cell:
        cell.exec("""
import threading
counts = []
def work(thread):
    echoed = told = denied = 0
    for turn in range(625):
        sent = [thread, turn]
        match turn % 3:
            case 0: echoed += request("echo", "x", sent) == sent
            case 1: told += request("clock", "monotonic") > 0
            case 2:
                try: request("clock", "time")
                except PermissionError as error: denied += "clock.time" in str(error)
    counts.append((echoed, told, denied))
threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
post([sum(each) for each in zip(*counts)])
""")
        assert cell.recv(PATIENCE * 3) == [16 * 209, 16 * 208, 16 * 208]
        assert cell.stats.denied == 16 * 208


def test_one_number_for_two_requests_ends_the_cell(supervisor, gate):
    cell = supervisor.spawn("a", capabilities={"hang": gate}, allowed_imports=RAW)
    run(cell, raw_channel.SOURCE)
    cell.exec("for _ in range(2): send(REQUEST, b'hang', b'x', NONE, id=7)\n" + STAY)
    assert "second request under number 7" in str(death_of(cell))
    assert_serves(supervisor)


def test_a_late_answer_is_not_another_requests(tmp_path, gate):
    second = Gate()
    own = {"slow": HostCapability(gate, timeout=0.1), "second": second}
    journal = tmp_path / "journal"
    with Supervisor(journal=journal) as supervisor:
        cell = supervisor.spawn("a", capabilities=own, allowed_imports=RAW)
        run(cell, raw_channel.SOURCE)
        # In the same breath nobody can tell when the first one's time was over.
        cell.exec(
            "import time\nsend(REQUEST, b'slow', b'x', NONE, id=7)\ntime.sleep(2)\n"
            "send(REQUEST, b'second', b'x', NONE, id=7)\n" + STAY
        )
        threading.Thread(target=death_of, args=(cell,)).start()
        assert until(lambda: second.begun)
        gate.opened.set()
        assert until(lambda: supervisor.list_active() == ["a"])
        time.sleep(0.1)
        second.opened.set()
        answers = []

        def all_answers():
            lines = map(json.loads, journal.read_text().splitlines())
            answers[:] = [
                (it["capability"], it["outcome"])
                for it in lines
                if it["kind"] == "answer" and "capability" in it
            ]
            return len(answers) >= 2

        assert until(all_answers)
        cell.kill()
    assert answers == [("slow", "failed"), ("second", "granted")]


def test_answers_that_are_never_taken(supervisor, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * (100 << 10))
    policy = Policy().allow_read(tmp_path)
    options = {"policy": policy, "allowed_imports": RAW, "wall_time_ms": 60_000}
    with supervisor.spawn("a", **options) as cell:
        run(cell, raw_channel.SOURCE)
        before = holdings()["descriptors"]
        most = [0]
        death = []
        thread = threading.Thread(target=lambda: death.append(death_of(cell)))
        # A hundred at a time, so that few are refused for their number.
        cell.exec(f"""
large = pickle.dumps({{"path": {str(file)!r}}}, 5)
for number in range(1, 1500):
    send(REQUEST, b"filesystem", b"read", large, id=number)
    if number % 100 == 0: sum(range(2_000_000))
for number in range(1500, 9000): send(REQUEST, b"nothing", b"x", NONE, id=number)
{STAY}""")
        thread.start()
        while thread.is_alive():
            most[0] = max(most[0], holdings()["descriptors"])
            thread.join(0.01)
        assert "answers that it asked for and does not take" in str(death[0])
        assert most[0] - before < 200, f"{before} became {most[0]}"
        assert until(lambda: holdings()["descriptors"] <= before + 8)
    assert_serves(supervisor)


# --- what is large -------------------------------------------------------------------------------


def test_what_waits_in_large_pickles_is_counted_by_its_size(supervisor):
    with supervisor.spawn("a", unread_bytes_max=16 * MIB, mem_bytes=1 << 30) as cell:
        before = resident_mib()
        cell.exec("big = b'x' * (4 << 20)\nfor _ in range(100): post(big)")
        assert until(lambda: cell.stats.received >= 4)
        time.sleep(1)
        assert resident_mib() - before < 100
        for _ in range(100):
            assert len(cell.recv(PATIENCE)) == 4 * MIB


def test_large_payloads_that_wait_are_few(supervisor, gate):
    sizes = []

    def handler(payload):
        sizes.append(len(payload))
        gate(None)

    options = {"unread_bytes_max": 16 * MIB, "child_work_max": 100, "mem_bytes": 1 << 30}
    options |= {"allowed_imports": ["threading"], "message_bytes_max": 16 * MIB}
    with supervisor.spawn("a", capabilities={"hang": handler}, **options) as cell:
        before = resident_mib()
        run(cell, "big = b'x' * (4 << 20)\n" + ask_in_threads(60, payload="big"))
        time.sleep(1)
        # Those that are at work, as their handlers have them, and those that wait.
        assert resident_mib() - before < 150
        assert set(sizes) == {4 * MIB}
        cell.kill()


def test_payloads_as_large_as_a_message_may_be(supervisor):
    own = {"size": lambda payload: len(payload)}
    with supervisor.spawn("a", capabilities=own, mem_bytes=1 << 30) as cell:
        run(cell, "most = b'x' * ((128 << 20) - 1024)\npost(request('size', 'x', most))")
        assert cell.recv(PATIENCE) == 128 * MIB - 1024
        run(
            cell,
            "try: request('size', 'x', most + bytes(2048))\n"
            "except ValueError as error: post(str(error))",
        )
        assert "message_bytes_max" in cell.recv(PATIENCE)
        # Read into a typed request, it is refused for what it is.
        run(
            cell,
            "try: request('filesystem', 'write', {'path': '/x', 'data': most})\n"
            "except PermissionError: post('denied')",
        )
        assert cell.recv(PATIENCE) == "denied"


def test_an_answer_of_a_hundred_mebibytes(supervisor):
    own = {"big": lambda payload: b"x" * payload}
    with supervisor.spawn("a", capabilities=own, mem_bytes=1 << 30) as cell:
        for _ in range(3):
            run(cell, "post(len(request('big', 'x', 100 << 20)))")
            assert cell.recv(PATIENCE) == 100 * MIB
        assert ask(cell, "big", "x", 129 * MIB)[0] == "ValueError"
        assert ask(cell, "big", "x", 1) == b"x"


@pytest.mark.parametrize("capability", ["own", "filesystem"])
def test_deep_payloads(supervisor, capability):
    own = {"own": lambda payload: payload}
    with supervisor.spawn("a", capabilities=own, allowed_imports=RAW) as cell:
        run(
            cell,
            f"""
deep = []
for _ in range(100_000): deep = [deep]
try: request({capability!r}, "x", deep)
except Exception as error: post(type(error).__name__)
""",
        )
        assert cell.recv(PATIENCE) in {"RecursionError", "TypeError", "ValueError"}
        run(cell, raw_channel.SOURCE)
        cell.exec(
            f"""
deep = b"\\x80\\x05" + b"]" * 20_000 + b"a" * 19_999 + b"."
wide = b"\\x80\\x05](" + b"N" * 40_000 + b"e."
broken = b"\\x80\\x05" + b"(" * 60_000
for number, pickled in enumerate((deep, wide, broken)):
    send(REQUEST, {capability.encode()!r}, b"x", pickled, id=1000 + number)
{STAY}"""
        )
        assert isinstance(death_of(cell), pyisolate.ProtocolViolation)
    assert_serves(supervisor)


class Odd:
    """Nothing that a guest could have."""


def test_what_cannot_cross_is_an_error_of_the_request_alone(supervisor):
    own = {"echo": lambda payload: payload, "odd": lambda payload: Odd()}
    with supervisor.spawn("a", capabilities=own) as cell:
        run(
            cell,
            """
class Own: pass
def said(payload, name="echo"):
    try: return request(name, "x", payload)
    except Exception as error: return type(error).__name__
for payload in (Own(), Own, lambda: 0, [Own()], {"a": said}, iter(()), object()):
    post(said(payload))
post(said(None, "odd"))
post(said(5))
""",
        )
        answers = [cell.recv(PATIENCE) for _ in range(9)]
        # The class of the last but one is the host's, and the guest cannot import it.
        kinds = {"TypeError", "ImportError", "ModuleNotFoundError", "AttributeError"}
        kinds |= {"PicklingError", "ValueError", "RuntimeError", "NotAllowedError"}
        assert set(answers[:8]) <= kinds, answers
        assert answers[8] == 5
        run(cell, "post('still here')")
        assert cell.recv(PATIENCE) == "still here"


# --- handlers that misbehave ----------------------------------------------------------------------


def test_a_handler_that_keeps_the_interpreters_lock_holds_up_no_built_in_request(supervisor):
    keep = ctypes.PyDLL(None).usleep
    times = []

    def handler(payload):
        begin = time.monotonic_ns()
        keep(200_000)
        times.extend((begin, time.monotonic_ns()))

    other = supervisor.spawn("other", policy=Policy().grant(Clock("monotonic")))
    with other, supervisor.spawn("a", capabilities={"keep": handler}) as cell:
        other.exec("seen = []\nfor _ in range(50_000): seen.append(request('clock', 'monotonic'))")
        time.sleep(0.05)
        run(cell, "request('keep', 'x')")
        begin, end = times
        other.exec("post([seen[0], seen[-1], len(seen)])")
        first, last, count = other.recv(PATIENCE * 3)
        assert count == 50_000
        assert first < begin < end < last
        other.exec(f"post(sum({begin} < it < {end} for it in seen))")
        assert other.recv(PATIENCE) > 100


def test_hung_handlers_of_all_cells_hold_up_no_built_in_request(supervisor, gate):
    """With every thread of the broker taken, what needs none is answered, the rest in time."""
    options = {"allowed_imports": ["threading"], "capabilities": {"hang": gate}}
    cells = [supervisor.spawn(f"hung-{number}", **options) for number in range(64)]
    for cell in cells:
        run(cell, ask_in_threads(9))
    assert until(lambda: len(gate.begun) == 64 * 8)
    own = {"fine": HostCapability(lambda payload: payload, timeout=0.3)}
    policy = Policy().grant(Clock("monotonic"))
    with supervisor.spawn("a", policy=policy, capabilities=own) as cell:
        for _ in range(20):
            assert ask(cell, "clock", "monotonic") > 0
        assert ask(cell, "fine", "x", 5)[0] == "TimeoutError"
        for each in cells[:2]:
            each.kill()
        gate.opened.set()
        assert until(lambda: ask(cell, "fine", "x", 5) == 5)
    # The ninth of each, which waited for its cell's own; not of those that were killed.
    assert until(lambda: len(gate.begun) == 64 * 8 + 62)
    for each in cells:
        each.kill()


def test_what_took_too_long_while_it_waited_is_not_begun(supervisor, gate):
    begun = []
    own = {"hang": gate, "late": HostCapability(begun.append, timeout=0.2), "echo": lambda it: it}
    with supervisor.spawn("a", capabilities=own, allowed_imports=["threading"]) as cell:
        run(cell, ask_in_threads(8))
        assert until(lambda: len(gate.begun) == 8)
        assert ask(cell, "late", "x", "late")[0] == "TimeoutError"
        gate.opened.set()
        assert ask(cell, "echo", "x", 5) == 5
        assert begun == []


def test_what_waited_is_not_begun_under_a_policy_that_has_gone(supervisor, gate):
    begun = []
    own = {"hang": gate, "late": begun.append}
    policy = Policy().grant(Capability("hang"))
    options = {"capabilities": own, "allowed_imports": ["threading"]}
    with supervisor.spawn("a", policy=policy.grant(Capability("late")), **options) as cell:
        run(cell, ask_in_threads(8))
        assert until(lambda: len(gate.begun) == 8)
        cell.exec("""
try: post(request("late", "x", "late"))
except Exception as error: post(type(error).__name__)
""")
        time.sleep(0.2)  # until it waits
        cell.set_policy(policy.deny(Capability("late")))
        gate.opened.set()
        assert cell.recv(PATIENCE) == "CapabilityDenied"
        assert begun == []


def test_a_timeout_is_told_while_the_host_waits_for_nothing(supervisor, gate):
    told = threading.Event()
    own = {"hang": HostCapability(gate, timeout=0.2), "tell": lambda payload: told.set()}
    with supervisor.spawn("a", capabilities=own, allowed_imports=["threading", "time"]) as cell:
        run(
            cell,
            """
import threading, time
def wait():
    time.sleep(2.5)  # until nobody looks at clocks every moment any more
    try: request("hang", "x")
    except TimeoutError: request("tell", "x")
threading.Thread(target=wait).start()
""",
        )
        assert told.wait(PATIENCE)


# --- the end of cells, supervisors and hosts ------------------------------------------------------


@pytest.mark.parametrize("end", ["kill", "close", "shutdown", "exit", "drop"])
def test_an_end_with_requests_under_way(gate, end):
    supervisor = Supervisor()
    cell = supervisor.spawn(
        "a", capabilities={"hang": gate}, allowed_imports=["threading"], child_work_max=60
    )
    run(cell, ask_in_threads(50))
    assert until(lambda: len(gate.begun) == 8)
    match end:
        case "kill":
            cell.kill()
        case "close":
            cell.close(0.5)
        case "shutdown":
            supervisor.shutdown()
        case "exit":
            os.kill(cell.pid, signal.SIGKILL)
        case "drop":
            del cell
    assert until(lambda: supervisor.list_active() == [])
    gate.opened.set()
    if end != "shutdown":
        assert_serves(supervisor)
    supervisor.shutdown()
    # Nothing that waited was begun for a guest that is gone.
    assert sorted(gate.begun) == sorted(set(gate.begun))
    assert len(gate.begun) == 8


def test_handlers_that_hold_their_own_cell_and_supervisor_leave_nothing():
    def use(number):
        held = {}
        supervisor = Supervisor(on_denial=lambda event: held)
        own = {"own": lambda payload: len(held)}
        cell = supervisor.spawn("a", capabilities=own)
        held |= {"supervisor": supervisor, "cell": cell}
        assert ask(cell, "own", "x") == 2
        assert ask(cell, "other", "x")[0] == "CapabilityDenied"
        supervisor.shutdown()

    for number in range(5):
        use(number)


HOST = """
    import os, sys, threading, time, pyisolate
    begun = threading.Event()
    def handler(payload):
        begun.set()
        while True: {body}
    cell = pyisolate.spawn("a", capabilities={{"hang": handler}}, allowed_imports=["threading"])
    cell.exec("import threading\\n"
        "for _ in range(8): threading.Thread(target=request, args=('hang', 'x')).start()")
    begun.wait(20)
    time.sleep(0.1)
    print("end", flush=True)
"""


@pytest.mark.parametrize("body", ["time.sleep(0.0005)", "pass", "sum(range(1000))"])
def test_a_host_ends_while_handlers_run_without_end(body):
    assert host(HOST.format(body=body)) == (0, "end\n", "")


def test_a_forked_host_leaves_its_parents_requests_alone(tmp_path):
    program = """
        import os, sys, threading, pyisolate
        def serve(payload): return payload
        supervisor = pyisolate.Supervisor(journal=sys.argv[1])
        cell = supervisor.spawn("a", capabilities={"own": serve}, allowed_imports=["threading"])
        cell.exec("for number in range(2000): assert request('own', 'x', number) == number\\n"
                  "post('all')")
        for turn in range(20):
            pid = os.fork()
            if pid == 0:
                try: cell.exec("pass")
                except pyisolate.SandboxError: pass
                else: os._exit(1)
                if turn % 2: os._exit(0)
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        print(cell.recv(20))
        supervisor.shutdown()
    """
    journal = tmp_path / "journal"
    assert host(program, str(journal)) == (0, "all\n", "")
    assert call("journal", "verify", str(journal)).returncode == 0
