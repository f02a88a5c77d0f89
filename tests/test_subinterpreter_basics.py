"""A cell in an interpreter of the host's process keeps the contract that every cell keeps."""

import json

import numpy
import pytest

import pyisolate
from asking import ask
from cells import PATIENCE, death_of, drain, new_cell, run, until
from command import call
from interpreters import BACKEND, new_interpreter
from pyisolate import IPCChannelCapability, Policy, ReadPath, Supervisor, WritePath


@pytest.fixture(scope="module")
def supervisor():
    with Supervisor(backend=BACKEND) as supervisor:
        yield supervisor


@pytest.fixture
def guest():
    with new_interpreter(allowed_imports=["math", "os", "time"]) as cell:
        yield cell


# --- the seven operations


def test_exec_and_its_persistent_namespace(guest):
    run(guest, "x = 1\ndef double(value): return 2 * value")
    run(guest, "x += 1\npost((x, double(x), __name__))")
    assert guest.recv(PATIENCE) == (2, 4, "__main__")


def test_exec_returns_at_once_and_its_handle_tells(guest):
    handle = guest.exec("recv()\npost('went on')")
    assert not handle.done()
    with pytest.raises(pyisolate.TimeoutError):
        handle.wait(0.05)
    guest.post("go")
    handle.wait(PATIENCE)
    assert handle.done()
    assert guest.recv(PATIENCE) == "went on"


def test_call(guest):
    assert guest.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
    run(guest, "def both(*args, **kwargs): return args, kwargs")
    assert guest.call("__main__.both", 1, "é", key=[2.5]) == ((1, "é"), {"key": [2.5]})
    with pytest.raises(ValueError, match="module path"):
        guest.call("gcd", 1, 2)
    with pytest.raises(pyisolate.PolicyError, match="json"):
        guest.call("json.dumps", 1)
    with pytest.raises(pyisolate.TimeoutError):
        guest.call("time.sleep", 0.3, timeout=0.05)
    assert guest.call("math.sqrt", 4, timeout=PATIENCE) == 2


def test_post_and_recv_both_ways_in_order(guest):
    handle = guest.exec("for _ in range(500): post(recv())")
    for number in range(500):
        guest.post(number)
    assert [guest.recv(PATIENCE) for _ in range(500)] == list(range(500))
    handle.wait(PATIENCE)
    with pytest.raises(pyisolate.TimeoutError):
        guest.recv(0.01)
    run(guest, "try: recv(0.01)\nexcept TimeoutError as error: post('late')")
    assert guest.recv(PATIENCE) == "late"


def test_log_metric_print_and_messages_come_in_the_guests_order(guest):
    run(
        guest,
        """
post(1)
print("out")
log("warning", "watch", code=7)
metric("size", 2.5, {"unit": "cm"})
post(2)
""",
    )
    first, out, watch, size, last = (guest.recv(PATIENCE) for _ in range(5))
    assert (first, last) == (1, 2)
    assert (out.level, out.message, out.fields) == ("info", "out", {"stream": "stdout"})
    assert (watch.level, watch.message, watch.fields) == ("warning", "watch", {"code": 7})
    assert (size.name, size.value, size.tags) == ("size", 2.5, {"unit": "cm"})


def test_request_is_answered_by_the_host():
    with new_interpreter(capabilities={"double": lambda payload: 2 * payload}) as cell:
        assert ask(cell, "double", "x", 21) == 42
        assert ask(cell, "other", "x")[0] == "CapabilityDenied"


def test_errors_are_told_once(guest):
    handle = guest.exec("1 / 0")
    with pytest.raises(pyisolate.GuestError, match="division") as caught:
        handle.wait(PATIENCE)
    assert "<cell 1>" in caught.value.traceback
    handle.wait(PATIENCE)
    with pytest.raises(pyisolate.TimeoutError):
        guest.recv(0.05)
    silent = guest.exec("raise KeyError('unseen')")
    with pytest.raises(pyisolate.GuestError, match="unseen"):
        guest.recv(PATIENCE)
    silent.wait(PATIENCE)


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "raise KeyboardInterrupt", "x ="])
def test_no_exception_of_the_guests_ends_more_than_its_operation(guest, source):
    with pytest.raises(pyisolate.GuestError):
        run(guest, source)
    assert guest.call("math.gcd", 4, 6) == 2


# --- what crosses


def test_large_buffers_both_ways():
    with new_interpreter() as cell:
        run(cell, "def reversed_(data): return data[::-1]")
        data = bytes(range(256)) * (1 << 16)
        assert cell.call("__main__.reversed_", data, timeout=PATIENCE) == data[::-1]
        array = numpy.arange(1 << 20, dtype="f8")
        cell.post(memoryview(array).cast("B").tobytes())
        run(cell, "data = recv()\npost(bytearray(data))")
        assert numpy.frombuffer(cell.recv(PATIENCE), dtype="f8").sum() == array.sum()


def test_a_host_buffer_is_the_cells_own_copy():
    with new_interpreter() as cell:
        mine = bytearray(b"a" * 100_000)
        cell.post(mine)
        run(cell, "theirs = recv()\ntheirs[:] = b'b' * len(theirs)\npost(len(theirs))")
        assert cell.recv(PATIENCE) == len(mine)
        assert set(mine) == {ord("a")}


def test_trusted_types():
    money = type("Money", (), {"__module__": "__main__", "__qualname__": "Money"})
    source = "class Money: pass\nmoney = Money()\nmoney.cents = 5\npost(money)"
    with new_interpreter(trusted_types=[money]) as cell:
        run(cell, source)
        got = cell.recv(PATIENCE)
        assert type(got) is money
        assert vars(got) == {"cents": 5}
    with new_interpreter() as cell, pytest.raises(pyisolate.GuestError, match="trusted_types"):
        run(cell, source)


def test_what_was_sent_survives_the_end():
    cell = new_interpreter()
    run(cell, "for number in range(100): post(number)")
    cell.kill()
    assert drain(cell) == list(range(100))
    with pytest.raises(pyisolate.CellDied):
        cell.exec("pass")


# --- capabilities, policy, journal


def test_files_of_a_granted_folder(tmp_path):
    given, beside = tmp_path / "given", tmp_path / "beside"
    given.mkdir()
    beside.write_text("secret")
    (given / "in").write_text("één\n")
    policy = Policy().grant(ReadPath(given), WritePath(given))
    with new_interpreter(policy=policy, allowed_imports=["os", "pathlib"]) as cell:
        run(
            cell,
            f"""
import os, pathlib
folder = pathlib.Path({str(given)!r})
text = (folder / "in").read_text()
with open(folder / "out", "w") as file:
    file.write("written")
    is_descriptor = isinstance(file.fileno(), int)
post((text, is_descriptor, sorted(os.listdir(folder)), (folder / "out").stat().st_size))
for attempt in (lambda: open({str(beside)!r}), lambda: os.listdir({str(tmp_path)!r})):
    try: attempt()
    except PermissionError as error: post("refused")
""",
        )
        assert cell.recv(PATIENCE) == ("één\n", True, ["in", "out"], 7)
        assert [cell.recv(PATIENCE), cell.recv(PATIENCE)] == ["refused", "refused"]
        assert [denial.capability for denial in cell.denials] == ["filesystem", "filesystem"]
        assert cell.stats.denied == 2
    assert (given / "out").read_text() == "written"


def test_capability_objects(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    capabilities = {
        "filesystem": pyisolate.FilesystemCapability.from_paths(tmp_path),
        "secret": pyisolate.SecretCapability.from_mapping({"token": "value"}),
        "random": pyisolate.RandomCapability(seed=7),
        "clock": pyisolate.ClockCapability(),
    }
    with new_interpreter(capabilities=capabilities) as cell:
        assert ask(cell, "filesystem", "read", {"path": str(tmp_path / "file")}) == b"content"
        assert ask(cell, "secret", "reveal", {"name": "token"}) == "value"
        assert len(ask(cell, "random", "bytes", {"length": 5})) == 5
        assert ask(cell, "clock", "time") > 10**18


def test_messages_between_an_interpreter_and_a_process():
    ipc = {"ipc": IPCChannelCapability("jobs")}
    with new_interpreter(capabilities=ipc) as one, new_cell(capabilities=ipc) as other:
        for sender, taker in ((one, other), (other, one)):
            sent = {"channel": "jobs", "message": sender.backend}
            assert ask(sender, "ipc", "send", sent) is None
            assert ask(taker, "ipc", "receive", {"channel": "jobs"}) == sender.backend


def test_reload(tmp_path):
    document = tmp_path / "policy.yml"
    (tmp_path / "file").write_bytes(b"content")
    document.write_text("version: 1\n")
    question = ("filesystem", "read", {"path": str(tmp_path / "file")})
    with (
        Supervisor(backend=BACKEND, policy_token="a long enough token") as supervisor,
        supervisor.spawn("a", policy=document) as cell,
    ):
        assert ask(cell, *question)[0] == "CapabilityDenied"
        document.write_text(f"version: 1\nfs: {{read: {tmp_path}}}\nimports: [math]\n")
        assert supervisor.reload_policy(document, "a long enough token") == ["a"]
        assert ask(cell, *question) == b"content"
        run(cell, "import math")
        cell.set_policy(Policy())
        assert ask(cell, *question)[0] == "CapabilityDenied"


def test_the_journal_and_denials(tmp_path):
    journal, told = tmp_path / "journal", []
    with Supervisor(backend=BACKEND, journal=journal, on_denial=told.append) as supervisor:
        with supervisor.spawn("written") as cell:
            assert ask(cell, "filesystem", "read", {"path": "/etc/passwd"})[0] == "CapabilityDenied"
            assert cell.denials[0].cell == "written"
        assert until(lambda: len(told) == 1)
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    assert "written" in {entry.get("cell") for entry in entries}
    assert call("journal", "verify", str(journal)).returncode == 0


# --- what it is made with


def test_what_a_cell_shows(guest):
    assert guest.backend == BACKEND
    assert guest.pid is None
    assert "subinterpreter" in repr(guest)
    assert "alive" in repr(guest)
    assert guest.name in pyisolate.list_active()


def test_the_confinement_is_honest(guest):
    layers = {layer.name: layer for layer in guest.confinement}
    assert len(layers) == len(guest.confinement)
    assert layers["process"].status == layers["rlimits"].status == "missing"
    assert "native code" in layers["process"].detail
    assert layers["user-namespace"].status == layers["pid-namespace"].status == "missing"
    for name in ("no-new-privileges", "seccomp", "descriptors"):
        assert layers[name].status == "enforced"
    assert {layer.status for layer in layers.values()} <= {"enforced", "partial", "missing"}
    assert all(layer.detail for layer in layers.values())


def test_stats_grow(guest):
    before = guest.stats
    assert before.mem_bytes > 0
    run(guest, "kept = bytearray(20 << 20)\nsum(range(3_000_000))\nprint('x' * 100)")
    after = guest.stats
    assert after.mem_bytes >= before.mem_bytes + (20 << 20)
    assert after.cpu_ms > before.cpu_ms
    assert after.output_bytes >= 100
    assert after.received > before.received
    assert after.sent > before.sent
    assert after.wall_ms >= before.wall_ms
    assert after.abandoned is False
    run(guest, "del kept")
    assert guest.stats.mem_bytes < after.mem_bytes
    guest.close()
    assert guest.stats.mem_bytes == 0
    assert guest.stats.cpu_ms >= after.cpu_ms


def test_names(supervisor):
    with supervisor.spawn("twin"):
        for backend in (BACKEND, "process"):
            with pytest.raises(ValueError, match="twin"):
                supervisor.spawn("twin", backend=backend)
    for backend in (BACKEND, "process"):
        supervisor.spawn("twin", backend=backend).close()
    with pytest.raises(ValueError, match="1 to 64"):
        supervisor.spawn("a b")
    with pytest.raises(ValueError, match="mem_bytes"):
        supervisor.spawn("small", mem_bytes=1)
    supervisor.spawn("small").close()


def test_a_supervisors_backend_is_its_cells(supervisor):
    with supervisor.spawn("own") as own, supervisor.spawn("other", backend="process") as other:
        assert (own.backend, other.backend) == (BACKEND, "process")
        assert (own.pid is None, other.pid is None) == (True, False)
        assert supervisor.list_active() == ["other", "own"]
        for cell in (own, other):
            run(cell, "post('serves')")
            assert cell.recv(PATIENCE) == "serves"


def test_a_pool_of_interpreters():
    with Supervisor(warm_pool=3, backend=BACKEND) as supervisor:
        for turn in range(3):
            assert until(lambda: supervisor.pool_ready == 3)
            cells = [supervisor.spawn(f"c{number}", cpu_ms=60_000) for number in range(4)]
            for number, cell in enumerate(cells):
                run(cell, f"post([{turn}, {number}, 'before' in globals()])\nbefore = 1")
                assert cell.recv(PATIENCE) == [turn, number, False]
                cell.close()
        assert supervisor.list_active() == []
        with supervisor.spawn("process", backend="process") as cell:
            assert cell.backend == "process"


def test_cells_of_a_pool_have_their_own_policy_and_limits():
    with Supervisor(warm_pool=2, backend=BACKEND) as supervisor:
        assert until(lambda: supervisor.pool_ready == 2)
        with supervisor.spawn("a", allowed_imports=["math"], mem_bytes=64 << 20) as cell:
            run(cell, "import math")
            with pytest.raises(pyisolate.PolicyError):
                run(cell, "import json")
            with pytest.raises(pyisolate.MemoryExceeded):
                run(cell, "bytearray(10**9)")
        with supervisor.spawn("b", wall_time_ms=200) as cell:
            with pytest.raises(pyisolate.PolicyError):
                run(cell, "import math")
            cell.exec("while True: pass")
            assert isinstance(death_of(cell), pyisolate.WallTimeExceeded)


def test_templates_are_refused(supervisor):
    template = supervisor.template(["json"])
    with pytest.raises(pyisolate.SandboxError, match="template"):
        supervisor.spawn("a", template=template)
    with supervisor.spawn("a", backend="process", template=template) as cell:
        assert cell.backend == "process"


def test_environments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="environment"):
        Supervisor(backend=BACKEND, environment=tmp_path)


def test_another_backend_is_never_replaced(supervisor, monkeypatch, tmp_path):
    monkeypatch.setenv("PYISOLATE_CACHE", str(tmp_path))
    with pytest.raises(pyisolate.SandboxError, match="pyisolate image build"):
        supervisor.spawn("a", backend="microvm")
    with pytest.raises(ValueError, match="subinterpreter"):
        supervisor.spawn("a", backend="thread")
