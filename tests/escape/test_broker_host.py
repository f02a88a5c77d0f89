"""The host's own capabilities, the lesser built-in ones, and guests that lie about all of this."""

import json
import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyisolate
from pyisolate import (
    Channel,
    Clock,
    HostCapability,
    Policy,
    Random,
    ReadPath,
    Supervisor,
)

from .broker_harness import PATIENCE, Held, run_plain


class Ledger:
    """A host's object, with more than a guest should have."""

    limit = 5

    def __init__(self) -> None:
        self.secret = "planted-in-the-ledger"
        self.wiped = False
        self.file = Path(__file__)

    def look(self, number: int = 0) -> int:
        return number + self.limit

    def wipe(self) -> None:
        self.wiped = True

    def _hidden(self) -> str:
        return self.secret

    def fail(self, how: Any = None) -> None:
        try:
            self.file.with_name("missing").read_text()
        except OSError as error:
            raise RuntimeError(f"{self.file}: {self.secret[:0]}{error}") from error


# --- methods -------------------------------------------------------------------------------------

NAMES = [
    "wipe", "_hidden", "secret", "file", "limit", "__class__", "__init__", "__dict__",
    "__getattribute__",
    "__reduce__", "__reduce_ex__", "__doc__", "__module__", "__subclasshook__", "__setattr__",
    "look.__func__", "look.__self__", "look.__globals__", "__class__.__mro__", "look.wipe",
    "self.wipe",
    "Ledger.wipe", "ledger.wipe", "../wipe", "look/../wipe", "look\0", "look\0wipe", "look ",
    " look",
    "Look", "LOOK", "ｌｏｏｋ", "lo\u200bok", "look()", "look\n", "wipe#look", "", "*", "look wipe",
    "begin", "actions", "_functions", "timeout", "target", "call", "x" * 1000, "\x1b[31m",
    "e\u0301",
]  # fmt: skip


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture(scope="module")
def held(supervisor: Supervisor, ledger: Ledger) -> Iterator[Held]:
    own = {
        "ledger": HostCapability(ledger, methods=["look", "fail"]),
        "echo": lambda payload: payload,
        "narrow": HostCapability(ledger, methods=["look", "wipe"]),
    }
    policy = Policy.from_text(
        "version: 1\ncapabilities: {ledger: true, echo: true, narrow: [look]}"
    )
    held = Held(supervisor, policy, {}, capabilities=own)
    yield held
    held.close()


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_is_no_listed_method(name: str, held: Held, ledger: Ledger):
    for body in (
        f"return request('ledger', {name!r}, None)",
        f"return request('ledger', {name!r}, {{'args': [], 'kwargs': {{}}}})",
        f"return request('narrow', {name!r}, None)",
        f"return getattr(ledger, {name!r})()",
    ):
        outcome = held.attempt(body)
        assert outcome[0] == "refused" or "ledger" in repr(outcome[1]) or name == "call", outcome
        assert "planted" not in repr(outcome)
        assert "escape" not in repr(outcome), "a path of the host's"
    assert not ledger.wiped
    held.assert_alive()


@pytest.mark.parametrize("name", ["wipe", "_hidden", "secret", "__class__", "__init__", "__doc__"])
def test_getattr_reaches_it(name: str, ledger: Ledger):
    """The control: a host that looks names up as they come."""
    outcome = run_plain(
        f"return repr(request('ledger', {name!r}, None))", {},
        lambda capability, action, payload: getattr(ledger, action),
    )  # fmt: skip
    assert outcome[0] == "done"


CAPABILITIES = [
    "Ledger", "LEDGER", "ledger ", " ledger", "ledger\0", "ledger.look", "ledger/echo", "",
    "import",
    "Filesystem", "filesystem ", "file system", "host", "broker", "policy", "supervisor",
    "__init__",
    "ｌedger", "os", "x" * 1000, "\n", "led\u0261er",
]  # fmt: skip


@pytest.mark.parametrize("name", CAPABILITIES, ids=ascii)
def test_another_capability_is_refused(name: str, held: Held):
    for action in ("look", "read", "exec", "spawn", "reload", ""):
        outcome = held.attempt(f"return request({name!r}, {action!r}, {{'path': '/etc/passwd'}})")
        assert outcome[0] == "refused", outcome
        assert set(outcome[1]) & {"CapabilityDenied", "ValueError", "LookupError"}, outcome
    held.assert_alive()


SPREADS = {
    "self": "{'args': [], 'kwargs': {'self': 1}}",
    "too many": "{'args': [1, 2, 3], 'kwargs': {}}",
    "an unknown keyword": "{'args': [], 'kwargs': {'__class__': 1}}",
    "keywords that are no text": "{'args': [], 'kwargs': {1: 2}}",
    "arguments that are no list": "{'args': 'x', 'kwargs': {}}",
    "keywords that are no dict": "{'args': [], 'kwargs': []}",
    "twice": "{'args': [1], 'kwargs': {'number': 1}}",
}


@pytest.mark.parametrize("named", SPREADS)
def test_arguments_that_do_not_fit(named: str, held: Held):
    outcome = held.attempt(f"return request('ledger', 'look', {SPREADS[named]})")
    assert outcome[0] == "refused", outcome
    assert set(outcome[1]) & {"TypeError", "ValueError", "AttributeError"}, outcome
    held.assert_alive()


PAYLOADS = {
    "deep lists": "deep = []\nfor _ in range(100_000): deep = [deep]\n",
    "deep dicts": "deep = {}\nfor _ in range(5000): deep = {'a': deep}\n",
    "an unregistered class": "class Own: pass\ndeep = Own()\n",
    "a class by name": "class Own:\n    def __reduce__(self): return (os.system, ('true',))\n"
    "deep = Own()\n",
    "a builtin": "deep = eval\n",
    "a module": "deep = os\n",
    "a function": "deep = lambda: 0\n",
    "an exception": "deep = ValueError('x')\n",
    "itself": "deep = []; deep.append(deep)\n",
    "a large int": "deep = 1 << 40_000_000\n",
    "much": "deep = bytes(200 << 20)\n",
    "many": "deep = list(range(20_000_000))\n",
    "a generator": "deep = (x for x in ())\n",
}


@pytest.mark.parametrize("named", PAYLOADS)
def test_a_payload_that_is_not_taken(named: str, held: Held):
    try:
        outcome = held.attempt(f"{PAYLOADS[named]}request('echo', 'x', deep)", patience=40)
    except pyisolate.MemoryExceeded:
        assert named in ("much", "many", "a large int", "deep lists")
        return
    assert outcome[0] == "refused", outcome
    held.assert_alive()


def test_a_handler_that_fails_tells_no_path(held: Held, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.CRITICAL, "pyisolate"):
        for body in ("return request('ledger', 'fail', None)", "ledger.fail()"):
            outcome = held.attempt(
                "import sys\ntry:\n"
                + "".join(f"    {line}\n" for line in body.splitlines())
                + "except BaseException as error:\n"
                "    return [repr(error), str(error.__cause__), str(error.__context__),"
                " repr(vars(error)), repr(getattr(error, '__notes__', None))]"
            )
            assert outcome[0] == "done"
            for sign in ("escape", "missing", "test_broker_host", "Traceback", 'File "'):
                assert sign not in repr(outcome), outcome


def test_a_handler_that_hangs_holds_up_its_own_cell_alone(supervisor: Supervisor):
    release = threading.Event()
    own = {"hang": HostCapability(lambda payload: release.wait(30), timeout=0.3)}
    slow = Held(supervisor, Policy(), {}, capabilities=own)
    quick = Held(supervisor, Policy(), {}, capabilities={"echo": lambda payload: payload})
    try:
        quick.attempt("return 1")
        slow.cell.exec(
            "out = []\n"
            "def work():\n"
            "    try: request('hang', 'x')\n"
            "    except TimeoutError: out.append(1)\n"
            "    except Exception as error: out.append(repr(error))\n"
            "ts = [threading.Thread(target=work) for _ in range(14)]\n"
            "for t in ts: t.start()\n"
            "post('started')\n"
            "for t in ts: t.join()\n"
            "post(out)"
        )
        assert slow.cell.recv(PATIENCE) == "started"
        for number in range(50):
            assert quick.attempt(f"return request('echo', 'x', {number})") == ["done", number]
        told = slow.cell.recv(PATIENCE)
        assert len(told) == 14
        assert 1 in told
        # What comes next is refused or answered, not left hanging.
        outcome = slow.attempt("return request('hang', 'x')")
        assert outcome[0] == "refused", outcome
    finally:
        release.set()
        slow.close()
        quick.close()


def test_a_flood_of_requests_is_bounded_while_another_cell_goes_on(supervisor: Supervisor):
    own = {"echo": lambda payload: payload}
    flood = Held(
        supervisor, Policy(), {}, capabilities=own, child_work_max=24, wall_time_ms=120_000
    )
    quick = Held(supervisor, Policy(), {}, capabilities=own)
    before = _resident()
    try:
        quick.attempt("return 1")
        flood.cell.exec(
            "counts = {}\n"
            "lock = threading.Lock()\n"
            "def work(number):\n"
            "    for turn in range(625):\n"
            "        try:\n"
            "            name, payload = [('echo', 'x' * 2000), ('filesystem', {'path': '/x'}),\n"
            "                             ('nothing', None)][turn % 3]\n"
            "            request(name, 'read', payload); how = 'answered'\n"
            "        except Exception as error: how = type(error).__name__\n"
            "        with lock: counts[how] = counts.get(how, 0) + 1\n"
            "ts = [threading.Thread(target=work, args=(n,)) for n in range(16)]\n"
            "for t in ts: t.start()\n"
            "post('started')\n"
            "for t in ts: t.join()\n"
            "post(counts)"
        )
        assert flood.cell.recv(PATIENCE) == "started"
        for number in range(30):
            assert quick.attempt(f"return request('echo', 'x', {number})") == ["done", number]
            assert quick.cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
        counts = flood.cell.recv(60)
        assert sum(counts.values()) == 10_000
        assert set(counts) <= {"answered", "CapabilityDenied", "RuntimeError", "BlockingIOError"}
        assert counts["answered"] > 0
        assert counts["CapabilityDenied"] > 0
        assert flood.cell.stats.denied >= counts["CapabilityDenied"]
        assert len(flood.cell.denials) <= 1000
        assert _resident() - before < 300 << 20
    finally:
        flood.close()
        quick.close()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- clocks and randomness ------------------------------------------------------------------------

GUARDED = {
    "the time": ("import time\nreturn time.time()", Clock("time")),
    "the time in nanoseconds": ("import time\nreturn time.time_ns()", Clock("time")),
    "a steady clock": ("import time\nreturn time.monotonic()", Clock("monotonic")),
    "waiting": ("import time\ntime.sleep(0.001)", Clock("sleep")),
    "asked time": ("return request('clock', 'time', {})", Clock("time")),
    "asked waiting": ("return request('clock', 'sleep', {'seconds': 0})", Clock("sleep")),
    "random bytes": ("return os.urandom(8)", Random()),
    "secrets": ("import secrets\nreturn secrets.token_hex(8)", Random()),
    "system randomness": ("import random\nreturn random.SystemRandom().random()", Random()),
    "asked bytes": ("return request('random', 'bytes', {'length': 8})", Random()),
}


@pytest.fixture(scope="module")
def without(supervisor: Supervisor) -> Iterator[Held]:
    held = Held(supervisor, Policy().grant(Channel("own", "send")), {})
    yield held
    held.close()


@pytest.mark.parametrize("named", GUARDED)
def test_clocks_and_randomness_are_guarded(named: str, without: Held, supervisor: Supervisor):
    body, grant = GUARDED[named]
    outcome = without.run(
        # Guest code is what is guarded: its own globals, not a library's.
        "def attack():\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
        + "post(attempt(attack))"
    )
    assert outcome[0] == "refused", outcome
    assert "CapabilityDenied" in outcome[1]
    granted = Held(supervisor, Policy().grant(grant), {})
    try:
        assert granted.attempt(body)[0] == "done"
    finally:
        granted.close()


def test_the_guards_are_no_wall_and_nothing_says_that_they_are(without: Held):
    """The kernel gives the time and entropy to anybody, and the report says so."""
    outcome = without.attempt(
        "class Timespec(ctypes.Structure):\n"
        "    _fields_ = [('s', ctypes.c_long), ('n', ctypes.c_long)]\n"
        "now = Timespec(); libc.clock_gettime(0, ctypes.byref(now))\n"
        "data = ctypes.create_string_buffer(16); libc.getrandom(data, 16, 0)\n"
        "return [now.s > 1_600_000_000, any(data.raw)]"
    )
    assert outcome == ["done", [True, True]]
    (layer,) = [layer for layer in without.cell.confinement if layer.name == "clock"]
    assert layer.status == "missing"
    assert "randomness" in layer.detail
    assert "imports" in layer.detail


BAD_LENGTHS = ["-1", "(1 << 20) + 1", "1 << 70", "1.5", "'8'", "None", "True", "[8]"]


@pytest.mark.parametrize("length", BAD_LENGTHS)
def test_random_bytes_of_no_length(length: str, supervisor: Supervisor):
    held = Held(supervisor, Policy().grant(Random(), Clock()), {})
    try:
        outcome = held.attempt(f"return len(request('random', 'bytes', {{'length': {length}}}))")
        assert outcome[0] == "refused", outcome
        outcome = held.attempt(f"return request('clock', 'sleep', {{'seconds': {length}}})")
        assert outcome[0] == "refused" or length == "1.5", outcome
        held.assert_alive()
    finally:
        held.close()


def test_waiting_ends_with_the_cell(supervisor: Supervisor):
    held = Held(supervisor, Policy().grant(Clock()), {}, wall_time_ms=600_000)
    held.cell.exec("request('clock', 'sleep', {'seconds': 80_000})")
    time.sleep(0.05)
    began = time.monotonic()
    held.close()
    assert time.monotonic() - began < PATIENCE
    with supervisor.spawn("after-waiting", allowed_imports=["math"]) as cell:
        assert cell.call("math.gcd", 4, 6) == 2


_DRAW = (
    "import random, secrets\n"
    "return [random.random(), secrets.token_hex(8), os.urandom(8).hex(),"
    " request('random', 'bytes', {'length': 8}).hex()]"
)


@pytest.mark.parametrize("seed", [None, 7])
def test_seeded_streams_are_equal_and_others_are_not(seed: int | None, supervisor: Supervisor):
    drawn = []
    for _ in range(3):
        held = Held(supervisor, Policy().grant(Random(seed=seed)), {})
        drawn.append(held.attempt(_DRAW)[1])
        held.close()
    if seed is None:
        for parts in zip(*drawn, strict=True):
            assert len(set(parts)) == 3
    else:
        assert drawn[0] == drawn[1] == drawn[2]
        random.seed(seed)
        assert drawn[0][0] != random.random(), "the host's own generator is another"


# --- channels between cells -----------------------------------------------------------------------

CHANNELS = {
    "another channel": "request('ipc', 'send', {'channel': 'other', 'message': 1})",
    "the other end": "request('ipc', 'receive', {'channel': 'own', 'timeout': 0})",
    "capitals": "request('ipc', 'send', {'channel': 'OWN', 'message': 1})",
    "a space": "request('ipc', 'send', {'channel': 'own ', 'message': 1})",
    "NUL": "request('ipc', 'send', {'channel': 'own\\0', 'message': 1})",
    "a pattern": "request('ipc', 'send', {'channel': '*', 'message': 1})",
    "nothing": "request('ipc', 'send', {'channel': '', 'message': 1})",
    "wide letters": "request('ipc', 'send', {'channel': 'ｏｗｎ', 'message': 1})",
    "a path": "request('ipc', 'send', {'channel': '../own', 'message': 1})",
}


@pytest.mark.parametrize("named", CHANNELS)
def test_a_channel_that_is_not_granted(named: str, without: Held):
    outcome = without.attempt(f"return {CHANNELS[named]}")
    assert outcome[0] == "refused", outcome
    assert set(outcome[1]) & {"CapabilityDenied", "ValueError"}, outcome
    without.assert_alive()


def test_channels_of_other_supervisors_are_others():
    send, receive = Policy().grant(Channel("shared")), Policy().grant(Channel("shared"))
    with Supervisor() as one, Supervisor() as other:
        sender, receiver = Held(one, send, {}), Held(other, receive, {})
        assert sender.attempt(
            "request('ipc', 'send', {'channel': 'shared', 'message': 'x', 'timeout': 1})"
        )[0] == "done"  # fmt: skip
        outcome = receiver.attempt(
            "return request('ipc', 'receive', {'channel': 'shared', 'timeout': 0.1})"
        )
        assert "TimeoutError" in outcome[1]
        same = Held(one, receive, {})
        assert same.attempt(
            "return request('ipc', 'receive', {'channel': 'shared', 'timeout': 5})"
        ) == ["done", "x"]


FLOODS = {
    "many": "for _ in range(5000): request('ipc', 'send',"
    " {'channel': 'f', 'message': 1, 'timeout': 0})",
    "large": "for _ in range(40): request('ipc', 'send',"
    " {'channel': 'f', 'message': bytes(8 << 20), 'timeout': 0})",
    "one that is too large": "request('ipc', 'send',"
    " {'channel': 'f', 'message': bytes(100 << 20)})",
    "many values": "for _ in range(60): request('ipc', 'send',"
    " {'channel': 'f', 'message': [0] * 200_000, 'timeout': 0})",
}


@pytest.mark.parametrize("named", FLOODS)
def test_a_channel_is_not_flooded(named: str, supervisor: Supervisor):
    before = _resident()
    with Supervisor() as own:
        held = Held(own, Policy().grant(Channel("f")), {})
        outcome = held.attempt(FLOODS[named])
        assert outcome[0] == "refused", outcome
        assert set(outcome[1]) & {"TimeoutError", "ValueError", "OSError"}, outcome
        assert _resident() - before < 400 << 20
        held.assert_alive()


# --- lies ----------------------------------------------------------------------------------------

LIES = {
    "its own denial": "class CapabilityDenied(PermissionError): pass\n"
    "raise CapabilityDenied(13, 'x')",
    "the runtime's denial": (
        "try: request('nothing', 'x')\nexcept PermissionError as error: kind = type(error)\n"
        "raise kind('filesystem.read /etc/shadow is not granted')"
    ),
}


@pytest.mark.parametrize("named", LIES)
def test_a_denial_that_the_guest_makes_up_is_none(named: str, supervisor: Supervisor):
    held = Held(supervisor, Policy(), {})
    try:
        outcome = held.attempt(LIES[named])
        assert outcome[0] == "refused"
        seen = [event.capability for event in held.cell.denials]
        assert seen == (["nothing"] if "nothing" in LIES[named] else [])
        with pytest.raises(pyisolate.SandboxError) as caught:
            held.cell.exec(LIES[named]).wait(PATIENCE)
        event = getattr(caught.value, "denial_event", None)
        assert event is None or event.capability == "nothing"
        assert all(event.capability == "nothing" for event in held.cell.denials)
    finally:
        held.close()


REWRITES = {
    "stand-ins": (
        "import sys, builtins, io, posix, _io\n"
        "for finder in list(sys.meta_path):\n"
        "    if 'pyisolate' in (getattr(finder, '__module__', '') or ''):\n"
        "        sys.meta_path.remove(finder)\n"
        "builtins.open = io.open = _io.open\n"
        "for name in ('os', 'socket', 'subprocess', 'shutil'): sys.modules.pop(name, None)\n"
        "import os as raw\nreturn raw.read(raw.open(SECRET, raw.O_RDONLY), 99)"
    ),
    "the broker's module": (
        "import gc\n"
        "for it in gc.get_objects():\n"
        "    if type(it).__name__ == 'Broker' and hasattr(it, 'capabilities'):\n"
        "        it.configure({'capabilities': ['filesystem', 'network', 'secret', 'subprocess'],"
        " 'policy': False, 'clock': ['time'], 'random': True})\n"
        "        return it.request('filesystem', 'read', {'path': SECRET})\n"
        "raise PermissionError(13, 'no broker found')"
    ),
    "the native request": (
        "import gc\n"
        "kinds = [it for it in gc.get_objects() if type(it).__name__ == 'module'"
        " and it.__name__.startswith('_pyisolate')]\n"
        "for module in kinds:\n"
        "    for name in dir(module):\n"
        "        it = getattr(module, name)\n"
        "        if 'request' in name and callable(it):\n"
        "            try: return it('filesystem', 'read', {'path': SECRET})\n"
        "            except TypeError: pass\n"
        "raise PermissionError(13, 'none found')"
    ),
    "its code": (
        "import gc, types\n"
        "for it in gc.get_objects():\n"
        "    named = getattr(it, '__name__', '')\n"
        "    if isinstance(it, types.FunctionType) and named in ('path_elsewhere', 'refusal'):\n"
        "        it.__code__ = (lambda self, *a: a[0] if a else None).__code__\n"
        "return open(SECRET).read()"
    ),
    "a policy of its own": (
        "for name in ('policy', 'reload_policy', 'set_policy', 'grant', 'configure', 'settings'):\n"
        "    for capability in ('policy', 'supervisor', 'cell', 'broker', 'filesystem'):\n"
        "        try: request(capability, name, {'fs': {'read': ['/']}, 'path': SECRET})\n"
        "        except Exception: pass\n"
        "return fs('read', path=SECRET)"
    ),
    "an identity": (
        "import builtins\nclass Sly(str):\n    def __eq__(self, other): return True\n"
        "    __hash__ = str.__hash__\n"
        "    def startswith(self, *a): return True\n"
        "return request(Sly('filesystem'), Sly('read'), {Sly('path'): Sly(SECRET)})"
    ),
    "a path that changes its mind": (
        "class Sly(str):\n    def __reduce_ex__(self, version): return (str, (SECRET,))\n"
        "return fs('read', path=Sly(GIVEN))"
    ),
    "two keys": "return request('filesystem', 'read', {'path': GIVEN, b'path': SECRET})",
}


@pytest.mark.parametrize("named", REWRITES)
def test_a_guest_that_rewrites_its_runtime_gains_nothing(
    named: str, supervisor: Supervisor, tmp_path: Path
):
    (tmp_path / "secret").write_text("planted-secret")
    (tmp_path / "given").write_text("given")
    world = {"SECRET": str(tmp_path / "secret"), "GIVEN": str(tmp_path / "given")}
    held = Held(supervisor, Policy().grant(ReadPath(tmp_path / "given")), world)
    try:
        outcome = held.attempt(REWRITES[named])
        assert outcome[0] == "refused", outcome
        assert "planted" not in repr(outcome)
        assert held.cell.termination_reason is None
        for event in held.cell.denials:
            assert str(tmp_path / "secret") in event.target or event.capability != "filesystem"
    finally:
        held.close()
    with supervisor.spawn("after-a-rewrite", allowed_imports=["math"]) as cell:
        assert cell.call("math.gcd", 4, 6) == 2


def test_what_the_journal_says_is_what_the_host_decided(tmp_path: Path):
    (tmp_path / "secret").write_text("planted-secret")
    world = {"SECRET": str(tmp_path / "secret"), "GIVEN": str(tmp_path / "secret")}
    journal = tmp_path / "journal"
    with Supervisor(journal=journal) as supervisor:
        held = Held(supervisor, Policy(), world)
        for body in (*REWRITES.values(), *LIES.values()):
            held.attempt(body)
        denied = held.cell.stats.denied
        held.close()
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    text = journal.read_text()
    assert "planted" not in text
    refused = [line for line in lines if "denied" in json.dumps(line)]
    assert len(refused) >= denied
