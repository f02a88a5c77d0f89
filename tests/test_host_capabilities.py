"""What a host hands over of its own: functions and objects, called by guests, under its control."""

import asyncio
import dataclasses
import importlib.util
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import pyisolate
from asking import ask
from cells import PATIENCE, assert_serves, death_of, new_cell, run
from pyisolate import Capability, HostCapability, Policy, Supervisor


class Database:
    """A host's object, with more methods than a guest should have."""

    def __init__(self):
        self.dropped = False
        self.hidden = "secret"

    def query(self, sql, *, limit=10):
        return {"sql": sql, "limit": limit}

    def drop(self):
        self.dropped = True

    def _private(self):
        return self.hidden


# --- what is called ------------------------------------------------------------------------------


def test_a_function_of_action_and_payload():
    with new_cell(capabilities={"own": lambda action, payload: [action, payload]}) as cell:
        assert ask(cell, "own", "look", {"at": (1, b"x")}) == ["look", {"at": (1, b"x")}]
        assert ask(cell, "own", "any action", None) == ["any action", None]


def test_a_function_of_the_payload_alone():
    with new_cell(capabilities={"double": lambda payload: payload * 2}) as cell:
        assert ask(cell, "double", "do", 21) == 42
        assert ask(cell, "double", "whatever", "ab") == "abab"


def test_the_methods_that_are_listed_and_no_others():
    database = Database()
    own = HostCapability(database, methods=["query"])
    with new_cell(capabilities={"db": own}) as cell:
        spread = {"args": ["select"], "kwargs": {"limit": 3}}
        assert ask(cell, "db", "query", spread) == {"sql": "select", "limit": 3}
        assert ask(cell, "db", "query", "select") == {"sql": "select", "limit": 10}
        odd = {"args": "select", "kwargs": {}}
        assert ask(cell, "db", "query", odd) == {"sql": odd, "limit": 10}
        kind, text = ask(cell, "db", "query")
        assert kind == "TypeError"
        assert "missing" in text
        for action in ("drop", "_private", "hidden", "__init__", "__class__"):
            kind, text = ask(cell, "db", action)
            assert kind == "LookupError"
            assert "query" in text
    assert not database.dropped


def test_wrong_arguments_are_the_guests_mistake(caplog):
    own = HostCapability(Database(), methods=["query"])
    with caplog.at_level(logging.ERROR, "pyisolate"), new_cell(capabilities={"db": own}) as cell:
        kind, text = ask(cell, "db", "query", {"args": [1, 2, 3], "kwargs": {}})
        assert kind == "TypeError"
        assert "positional" in text


@pytest.mark.parametrize("given", [Database(), Database, 5, None, {}], ids=repr)
def test_a_bare_object_has_to_be_wrapped(given):
    with pytest.raises(TypeError, match="allow-list"):
        new_cell(capabilities={"db": given})


@pytest.mark.parametrize("given", [lambda: None, lambda a, b, c: None, lambda *, x: None])
def test_a_function_that_could_not_be_called_is_refused(given):
    with pytest.raises(TypeError, match="neither with"):
        new_cell(capabilities={"own": given})


@pytest.mark.parametrize("methods", [["nope"], ["hidden"], ["_private"], ["__init__"]])
def test_only_public_methods_can_be_listed(methods):
    with pytest.raises(ValueError, match="no public method"):
        HostCapability(Database(), methods=methods)


@pytest.mark.parametrize("name", ["", "a b", "class", "_x", "1a", "__builtins__"])
def test_the_name_is_one_that_an_object_can_have(name):
    with pytest.raises(ValueError, match="no name for an object"):
        new_cell(capabilities={name: print})


def test_registered_classes_come_as_themselves():
    seen = []
    with new_cell(
        capabilities={"own": lambda payload: seen.append(payload)},
        trusted_types=[Point],
        allowed_imports=["dataclasses"],
    ) as cell:
        run(
            cell,
            """
import dataclasses
@dataclasses.dataclass
class Point:
    x: int
request("own", "take", [Point(5)])
""",
        )
    assert seen == [[Point(5)]]


@dataclasses.dataclass
class Point:
    x: int


def test_large_payloads_and_answers():
    with new_cell(capabilities={"echo": lambda payload: payload}) as cell:
        run(cell, "data = bytes(range(256)) * 40_000\npost(request('echo', 'x', data) == data)")
        assert cell.recv(PATIENCE) is True


def test_an_answer_over_the_message_limit_is_an_error_in_the_guest():
    own = {"big": lambda payload: b"x" * payload}
    with new_cell(capabilities=own, message_bytes_max=100_000) as cell:
        kind, text = ask(cell, "big", "x", 200_000)
        assert kind == "ValueError"
        assert "message_bytes_max" in text
        assert ask(cell, "big", "x", 10) == b"x" * 10


def test_many_threads_ask_at_once():
    with new_cell(
        capabilities={"slow": lambda payload: time.sleep(0.005) or payload},
        allowed_imports=["threading"],
    ) as cell:
        run(
            cell,
            """
import threading
answers = []
def ask(number):
    for turn in range(10): answers.append(request("slow", "x", number * 100 + turn))
threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
post(sorted(answers))
""",
        )
        assert cell.recv(PATIENCE) == sorted(n * 100 + turn for n in range(8) for turn in range(10))


# --- what is granted -----------------------------------------------------------------------------


def test_naming_one_grants_all_of_it():
    own = {"db": HostCapability(Database(), methods=["query", "drop"])}
    with new_cell(capabilities=own) as cell:
        assert ask(cell, "db", "drop") is None
        assert ("allow", Capability("db")) in cell.policy.rules


def test_the_policy_narrows_it():
    own = {"db": HostCapability(Database(), methods=["query", "drop"])}
    with new_cell(capabilities=own, policy={"capabilities": {"db": ["query"]}}) as cell:
        assert ask(cell, "db", "query", "x")["sql"] == "x"
        kind, text = ask(cell, "db", "drop")
        assert kind == "CapabilityDenied"
        assert "db.drop" in text
        (denial,) = cell.denials
        assert (denial.capability, denial.attempted_action) == ("db", "drop")
        assert denial.target == "db.drop"


def test_a_denial_wins():
    own = {"db": HostCapability(Database(), methods=["query", "drop"])}
    policy = Policy().grant(Capability("db")).deny(Capability("db", ["drop"]))
    with new_cell(capabilities=own, policy=policy) as cell:
        assert ask(cell, "db", "drop")[0] == "CapabilityDenied"
        assert ask(cell, "db", "query", "x")["sql"] == "x"


def test_a_grant_without_the_capability_grants_nothing():
    with new_cell(policy=Policy().grant(Capability("db"))) as cell:
        kind, text = ask(cell, "db", "query")
        assert kind == "LookupError"
        assert "no such capability" in text


def test_cells_have_their_own():
    with (
        new_cell(capabilities={"who": lambda _: "one"}) as one,
        new_cell(capabilities={"who": lambda _: "two"}) as two,
        new_cell() as none,
    ):
        assert ask(one, "who", "x") == "one"
        assert ask(two, "who", "x") == "two"
        assert ask(none, "who", "x")[0] == "CapabilityDenied"


# --- what goes wrong ------------------------------------------------------------------------------


class Custom(Exception):
    pass


def raising(make):
    def handler(payload):
        raise make()

    return handler


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ValueError("no such row"), ("ValueError", "no such row")),
        (lambda: KeyError("name"), ("KeyError", "'name'")),
        (lambda: ZeroDivisionError(), ("ZeroDivisionError", "")),
        (lambda: PermissionError("not today"), ("PermissionError", "not today")),
        (
            lambda: FileNotFoundError(2, "No such file", "/etc/host-file"),
            ("FileNotFoundError", "[Errno 2] No such file"),
        ),
        (lambda: Custom("own"), ("RuntimeError", "Custom: own")),
        (
            lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
            ("UnicodeError", "'utf-8' codec can't decode byte 0xff in position 0: bad"),
        ),
        (
            lambda: ExceptionGroup("several", [ValueError()]),
            ("RuntimeError", "ExceptionGroup: several (1 sub-exception)"),
        ),
        (lambda: SystemExit(3), ("RuntimeError", "the host's handler ended with SystemExit")),
        (lambda: KeyboardInterrupt(), ("RuntimeError", None)),
        (lambda: RecursionError("deep"), ("RecursionError", "deep")),
        (lambda: TimeoutError("slow"), ("TimeoutError", "slow")),
    ],
)
def test_an_exception_reaches_the_guest_as_its_own(make, expected, caplog):
    with new_cell(capabilities={"own": raising(make), "fine": lambda _: "fine"}) as cell:
        kind, text = ask(cell, "own", "x")
        assert kind == expected[0]
        assert expected[1] is None or text == expected[1]
        assert ask(cell, "fine", "x") == "fine"
        assert cell.denials == []
    (record,) = [it for it in caplog.records if it.name == "pyisolate"]
    assert record.exc_info
    assert cell.name in record.getMessage()
    assert "own" in record.getMessage()


def test_neither_paths_nor_tracebacks_reach_the_guest(tmp_path):
    file = tmp_path / "host-file"

    def handler(action, payload):
        match action:
            case "open":
                file.open()
            case "say":
                raise ValueError(f"look at {file}, '{tmp_path}/a b' and ({__file__}:5)")
            case "chain":
                try:
                    file.open()
                except OSError as error:
                    raise Custom("failed") from error

    with new_cell(capabilities={"own": handler}, allowed_imports=["traceback"]) as cell:
        run(
            cell,
            """
import traceback
said = []
for action in ("open", "say", "chain"):
    try: request("own", action)
    except Exception as error:
        said.append(repr((str(error), error.args, vars(error), error.__cause__,
                          error.__context__, getattr(error, "filename", None))))
        said.append("".join(traceback.format_exception(error)))
post("\\n".join(said))
""",
        )
        said = cell.recv(PATIENCE)
    for path in (str(tmp_path), str(file), __file__, "host-file", "capabilities.py", "in handler"):
        assert path not in said
    assert "look at <path>, '<path>' and (<path>" in said
    assert "No such file or directory" in said


@pytest.mark.parametrize(
    "text",
    ["see https://h/etc/passwd", "1/2", "a/etc/b", "and/or", "/", "~/x", "../x", "a / b"],
)
def test_what_is_no_absolute_path_is_left(text):
    with new_cell(capabilities={"own": raising(lambda: ValueError(text))}) as cell:
        assert ask(cell, "own", "x") == ("ValueError", text)


def test_an_answer_that_cannot_be_pickled_is_the_hosts_mistake(caplog):
    with new_cell(capabilities={"own": lambda payload: threading.Lock()}) as cell:
        kind, text = ask(cell, "own", "x")
        assert (kind, text) == ("RuntimeError", "the host's answer could not be sent")
    assert any("pickle" in record.getMessage() for record in caplog.records)


def test_a_very_long_message_is_cut():
    with new_cell(capabilities={"own": raising(lambda: ValueError("é" * 100_000))}) as cell:
        kind, text = ask(cell, "own", "x")
        assert kind == "ValueError"
        assert set(text) == {"é"}
        assert len(text) < 10_000


def test_an_exception_whose_text_raises():
    class Rude(ValueError):
        def __str__(self):
            raise OSError

    with new_cell(capabilities={"own": raising(Rude)}) as cell:
        assert ask(cell, "own", "x") == ("RuntimeError", "Rude: <its str() raised>")


# --- what takes long -----------------------------------------------------------------------------


def test_a_hung_handler_is_told_and_holds_nobody_up():
    release = threading.Event()
    own = {
        "hang": HostCapability(lambda payload: release.wait(PATIENCE), timeout=0.2),
        "fine": lambda payload: "fine",
    }
    try:
        with new_cell(capabilities=own) as cell, new_cell(capabilities=own) as other:
            kind, _ = ask(cell, "hang", "x")
            assert kind == "TimeoutError"
            assert ask(cell, "fine", "x") == "fine"
            assert ask(other, "fine", "x") == "fine"
    finally:
        release.set()


def test_a_cell_can_be_killed_while_a_handler_runs():
    begun, release = threading.Event(), threading.Event()

    def handler(payload):
        begun.set()
        return release.wait(PATIENCE)

    try:
        cell = new_cell(capabilities={"hang": handler})
        cell.exec("request('hang', 'x')")
        assert begun.wait(PATIENCE)
        cell.kill()
        assert isinstance(death_of(cell), pyisolate.CellDied)
        assert_serves()
    finally:
        release.set()


def test_a_supervisor_goes_while_a_handler_runs():
    begun, release = threading.Event(), threading.Event()

    def handler(payload):
        begun.set()
        return release.wait(PATIENCE)

    try:
        supervisor = Supervisor()
        cell = supervisor.spawn("a", capabilities={"hang": handler})
        cell.exec("request('hang', 'x')")
        assert begun.wait(PATIENCE)
        del cell, supervisor  # with the interpreter's lock held
        assert_serves()
    finally:
        release.set()


def test_a_host_ends_while_a_handler_runs():
    program = """
        import threading, time, pyisolate
        begun = threading.Event()
        def handler(payload):
            begun.set()
            time.sleep(600)
        cell = pyisolate.spawn("a", capabilities={"hang": handler})
        cell.exec("request('hang', 'x')")
        begun.wait(20)
        print("end")
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (0, "end\n")


FLOOD = """
import threading
def ask(name):
    while True:
        try: request(name, "x", b"x" * 1000)
        except PermissionError: pass
for name in ("echo", "soon", "denied", "echo"):
    threading.Thread(target=ask, args=(name,)).start()
"""
BUSY_HOST = """
import asyncio, sys, time, pyisolate
async def soon(payload):
    await asyncio.sleep(0.001)
supervisor = pyisolate.Supervisor(on_denial=str)
own = {"echo": lambda payload: payload, "soon": soon}
cell = supervisor.spawn("a", capabilities=own, allowed_imports=["threading"])
cell.exec(sys.argv[1])
time.sleep(0.2)
"""


@pytest.mark.parametrize("last", ["", "del cell, supervisor", "raise SystemExit(0)"])
def test_a_host_ends_while_handlers_are_busy(last):
    command = [sys.executable, "-c", BUSY_HOST + last, FLOOD]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_forked_child_leaves_the_parents_handlers_alone():
    with new_cell(capabilities={"own": lambda payload: payload}) as cell:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        assert ask(cell, "own", "x", 5) == 5


# --- coroutines ----------------------------------------------------------------------------------


class Service:
    def __init__(self):
        self.cancelled = threading.Event()
        self.begun = threading.Event()
        self.loops = set()

    async def add(self, left, right):
        self.loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return left + right

    async def hang(self):
        self.begun.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def fail(self):
        raise ValueError("async")


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


METHODS = ["add", "hang", "fail"]


def test_coroutines_run_in_a_loop_of_their_own():
    own = HostCapability(Service(), methods=METHODS)
    with new_cell(capabilities={"own": own}) as cell:
        assert ask(cell, "own", "add", {"args": [1], "kwargs": {"right": 2}}) == 3
        assert ask(cell, "own", "fail", {"args": [], "kwargs": {}}) == ("ValueError", "async")


def test_coroutines_run_in_the_hosts_loop(loop):
    service = Service()
    own = HostCapability(service, methods=METHODS, loop=loop)
    with new_cell(capabilities={"own": own}) as cell:
        assert ask(cell, "own", "add", {"args": [1, 2], "kwargs": {}}) == 3
        assert ask(cell, "own", "fail", {"args": [], "kwargs": {}}) == ("ValueError", "async")
    assert service.loops == {loop}


@pytest.mark.parametrize("shared", [False, True], ids=["own loop", "host's loop"])
def test_a_coroutine_that_takes_too_long_is_cancelled(shared, loop):
    service = Service()
    own = HostCapability(service, methods=METHODS, timeout=0.2, loop=loop if shared else None)
    with new_cell(capabilities={"own": own}) as cell:
        assert ask(cell, "own", "hang", {"args": [], "kwargs": {}})[0] == "TimeoutError"
    assert service.cancelled.wait(PATIENCE)


@pytest.mark.parametrize("shared", [False, True], ids=["own loop", "host's loop"])
def test_a_coroutine_is_cancelled_when_its_cell_ends(shared, loop):
    service = Service()
    own = HostCapability(service, methods=METHODS, loop=loop if shared else None)
    cell = new_cell(capabilities={"own": own})
    cell.exec("request('own', 'hang', {'args': [], 'kwargs': {}})")
    assert service.begun.wait(PATIENCE)
    cell.kill()
    assert service.cancelled.wait(PATIENCE)


# --- schemas -------------------------------------------------------------------------------------

has_jsonschema = importlib.util.find_spec("jsonschema") is not None
QUERY = {
    "type": "object",
    "properties": {"sql": {"type": "string"}, "limit": {"type": "integer", "maximum": 100}},
    "additionalProperties": False,
}


@pytest.mark.skipif(has_jsonschema, reason="jsonschema is installed")
def test_a_schema_without_its_package_is_refused_before_any_cell_is_made():
    with pytest.raises(ImportError, match=r"pyisolate\[schema\]"):
        HostCapability(Database(), methods=["query"], schema={"query": QUERY})


@pytest.mark.skipif(not has_jsonschema, reason="jsonschema is not installed")
def test_a_schema_describes_the_arguments_by_name_however_they_are_sent():
    own = HostCapability(Database(), methods=["query"], schema={"query": QUERY})
    with new_cell(capabilities={"db": own}) as cell:
        good = {"args": ["select"], "kwargs": {"limit": 3}}
        assert ask(cell, "db", "query", good) == {"sql": "select", "limit": 3}
        assert ask(cell, "db", "query", "select") == {"sql": "select", "limit": 10}
        for bad, place in [
            ({"args": ["select", 5], "kwargs": {}}, "positional"),
            ({"args": [5], "kwargs": {}}, "$.sql"),
            ({"args": ["select"], "kwargs": {"limit": 101}}, "$.limit"),
            (5, "$.sql"),
        ]:
            kind, text = ask(cell, "db", "query", bad)
            assert kind in {"ValueError", "TypeError"}
            assert place in text


@pytest.mark.skipif(not has_jsonschema, reason="jsonschema is not installed")
def test_a_functions_schema_describes_the_payload():
    numbers = {"type": "array", "items": {"type": "integer"}}
    own = HostCapability(lambda action, payload: sum(payload), schema={"sum": numbers})
    with new_cell(capabilities={"own": own}) as cell:
        assert ask(cell, "own", "sum", (1, 2)) == 3
        assert ask(cell, "own", "sum", [1, "2"])[0] == "ValueError"


@pytest.mark.skipif(not has_jsonschema, reason="jsonschema is not installed")
def test_a_schema_that_is_none():
    with pytest.raises(ValueError, match="schema is none"):
        HostCapability(print, schema={"x": {"type": "strnig"}})
    with pytest.raises(ValueError, match="none of the methods"):
        HostCapability(Database(), methods=["query"], schema={"drop": QUERY})
