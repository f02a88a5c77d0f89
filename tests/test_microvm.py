"""Cells in virtual machines: the same cells as everywhere else, by emulation."""

import contextlib
import hashlib
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import pyisolate
from cells import PATIENCE, assert_serves, children, death_of, run, until
from machines import folder_of, image, put, sent
from test_by_messages import echo, serving

MIB = 1 << 20
COPIES = 12
"""How many machines of one snapshot are compared with each other."""

pytestmark = [pytest.mark.usefixtures("machines"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def supervisor(machines):
    with pyisolate.Supervisor(backend="microvm") as supervisor:
        supervisor.spawn("first").close()
        yield supervisor


def test_the_seven_operations(supervisor):
    def answer(action, payload):
        return [action, payload]

    with supervisor.spawn("seven", allowed_imports=["math"], capabilities={"db": answer}) as cell:
        run(cell, "def double(x): return x * 2")
        assert cell.call("__main__.double", 21, timeout=PATIENCE) == 42
        assert cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
        cell.post({"to": "guest"})
        run(cell, "post(recv(9)); log('warning', 'text', number=5); metric('m', 2.5, {'a': 'b'})")
        run(cell, "print('printed'); post(request('db', 'get', {'key': 1}))")
        assert cell.recv(PATIENCE) == {"to": "guest"}
        log, metric, line = (cell.recv(PATIENCE) for _ in range(3))
        assert (log.level, log.message, log.fields) == ("warning", "text", {"number": 5})
        assert (metric.name, metric.value) == ("m", 2.5)
        assert line.message == "printed"
        assert cell.recv(PATIENCE) == ["get", {"key": 1}]
        with pytest.raises(pyisolate.GuestError, match="ZeroDivisionError"):
            run(cell, "1 / 0")
        with pytest.raises(pyisolate.PolicyError, match="socket"):
            run(cell, "import socket")
        run(cell, "post('goes on')")
        assert cell.recv(PATIENCE) == "goes on"


def test_megabytes_both_ways(supervisor):
    data = os.urandom(20 * MIB)
    array = np.frombuffer(os.urandom(16 * MIB), dtype=np.uint32).reshape(2048, 2048)
    with supervisor.spawn("large", allowed_imports=["hashlib", "numpy"]) as cell:
        cell.post(data, timeout=PATIENCE)
        cell.post(array, timeout=PATIENCE)
        run(cell, "import hashlib\ndata = recv(9); post(hashlib.sha256(data).digest()); post(data)")
        assert cell.recv(PATIENCE) == hashlib.sha256(data).digest()
        assert cell.recv(PATIENCE) == data
        run(cell, "import numpy\narray = recv(9); post(array); post(array[::2].T + 1)")
        assert np.array_equal(cell.recv(PATIENCE), array)
        assert np.array_equal(cell.recv(PATIENCE), array[::2].T + 1)
        # Many at once, both ways, and of sizes on both sides of what a frame holds.
        sizes = [0, 1, 60_000, 65_536, 300_000, 1_000_003]
        parts = [os.urandom(size) for size in sizes]
        echoing = cell.exec(f"for _ in range({len(parts)}): post(recv(9))")
        for part in parts:
            cell.post(part, timeout=PATIENCE)
        assert [cell.recv(PATIENCE) for _ in parts] == parts
        echoing.wait(PATIENCE)


def test_a_host_that_takes_late_loses_nothing(supervisor):
    count = 100_000
    with supervisor.spawn("eager", unread_messages_max=5000, wall_time_ms=120_000) as cell:
        posting = cell.exec(f"for number in range({count}): post(number)")
        assert until(lambda: cell.stats.received >= 5000)
        time.sleep(1)
        assert cell.stats.received < count / 2, "the guest waits"
        assert [cell.recv(PATIENCE) for _ in range(count)] == list(range(count))
        posting.wait(PATIENCE)


def test_a_guest_that_takes_late_loses_nothing(supervisor):
    with supervisor.spawn("lazy") as cell:
        taking = cell.exec(
            "result = [recv(9) for _ in range(5000)]\npost(result == list(range(5000)))"
        )
        for number in range(5000):
            cell.post(number, timeout=PATIENCE)
        assert cell.recv(PATIENCE) is True
        taking.wait(PATIENCE)


LIMITS = {
    "memory": ({"mem_bytes": 64 * MIB}, "data = bytearray(10**9)", pyisolate.MemoryExceeded),
    "memory by and by": (
        {"mem_bytes": 64 * MIB},
        "data = []\nwhile True: data.append(bytearray(1 << 20))",
        pyisolate.MemoryExceeded,
    ),
    "cpu": ({"cpu_ms": 300}, "while True: pass", pyisolate.CPUExceeded),
    "wall": ({"wall_time_ms": 300}, "recv()", pyisolate.WallTimeExceeded),
    "wall that spins": ({"wall_time_ms": 300}, "while True: pass", pyisolate.WallTimeExceeded),
    "output": (
        {"output_bytes_max": 100_000},
        "while True: print('x' * 1000)",
        pyisolate.OutputExceeded,
    ),
}


@pytest.mark.parametrize(("limits", "source", "error"), LIMITS.values(), ids=LIMITS)
def test_limits(supervisor, limits, source, error):
    (name,) = limits
    with supervisor.spawn("limited", **limits) as cell:
        cell.exec(source)
        died = death_of(cell)
        assert type(died) is error, died
        assert f"{name}={limits[name]}" in str(died)
    assert_serves(supervisor)


def test_a_guest_may_handle_its_want_of_memory(supervisor):
    with supervisor.spawn("modest", mem_bytes=64 * MIB) as cell:
        source = "try: bytearray(10**9)\nexcept MemoryError: result = 'handled'"
        assert sent(cell, source) == "handled"
        assert sent(cell, "result = len(bytearray(20 << 20))") == 20 * MIB


def test_more_memory_than_the_machine_leaves(supervisor):
    for number in (3 << 29, 8 << 30):
        with pytest.raises(pyisolate.SandboxError, match="PYISOLATE_MICROVM_MEMORY") as caught:
            supervisor.spawn("greedy", mem_bytes=number)
        assert f"mem_bytes={number}" in str(caught.value)
    assert_serves(supervisor)


def test_memory_of_a_larger_machine(monkeypatch):
    monkeypatch.setenv("PYISOLATE_MICROVM_MEMORY", str(2 << 30))
    with (
        pyisolate.Supervisor(backend="microvm") as supervisor,
        supervisor.spawn("large", mem_bytes=1 << 30) as cell,
    ):
        assert "2048 MiB" in cell.confinement["virtual-machine"].detail
        assert sent(cell, "result = len(bytearray(700 << 20))") == 700 * MIB


def test_files(supervisor, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "made").mkdir()
    content = os.urandom(3 * MIB)
    (tmp_path / "given" / "data").write_bytes(content)
    (tmp_path / "secret").write_text("secret")
    policy = {
        "version": 1,
        "defaults": {
            "fs": {"read": [f"{tmp_path}/given/**"], "write": [f"{tmp_path}/made/**"]},
        },
    }
    with supervisor.spawn("files", policy=policy, allowed_imports=["os", "hashlib"]) as cell:
        read = f"data = open('{tmp_path}/given/data', 'rb').read()\nimport hashlib\n"
        digest = hashlib.sha256(content).digest()
        assert sent(cell, read + "result = hashlib.sha256(data).digest()") == digest
        run(cell, f"with open('{tmp_path}/made/copy', 'wb') as out: out.write(data)")
        assert (tmp_path / "made" / "copy").read_bytes() == content
        assert sent(cell, f"import os; result = os.listdir('{tmp_path}/given')") == ["data"]
        with pytest.raises(pyisolate.PolicyError, match="secret"):
            run(cell, f"open('{tmp_path}/secret').read()")
        with pytest.raises(pyisolate.GuestError):
            run(cell, f"open('{tmp_path}/given/none').read()")


def test_the_network(supervisor):
    with serving(echo) as port:
        policy = pyisolate.Policy().grant(pyisolate.ConnectTCP("127.0.0.1", port))
        with supervisor.spawn("network", policy=policy, allowed_imports=["socket"]) as cell:
            source = (
                f"import socket\ns = socket.create_connection(('127.0.0.1', {port}), timeout=20)\n"
                "data = bytes(range(256)) * 1000\ns.sendall(data)\nresult = b''\n"
                "while len(result) < len(data): result += s.recv(1 << 16)\n"
                "result = result == data, s.getpeername()[1]"
            )
            assert sent(cell, source) == (True, port)
            with pytest.raises(pyisolate.PolicyError):
                run(cell, f"socket.create_connection(('127.0.0.1', {port - 1}))")


def test_its_figures(supervisor):
    with supervisor.spawn("figures") as cell:
        before = cell.stats
        run(cell, "data = bytes(range(256)) * (40 << 12); data = bytearray(data)")
        run(cell, "for _ in range(3_000_000): pass\nprint('x' * 1000)")
        after = cell.stats
        assert before.wall_ms < after.wall_ms < 60_000
        assert before.cpu_ms + 50 < after.cpu_ms <= after.wall_ms * 2
        assert after.mem_bytes - before.mem_bytes > 30 * MIB
        assert after.mem_bytes < 600 * MIB
        assert after.output_bytes >= 1000
        assert after.received > before.received
        assert after.sent > before.sent
        assert cell.pid in children()
        assert "qemu" in Path(f"/proc/{cell.pid}/comm").read_text()


# --- what confines it


def test_the_report_says_what_kind_of_machine_it_is(supervisor):
    with supervisor.spawn("seen") as cell:
        layers = {layer.name: layer for layer in cell.confinement}
    machine = layers["virtual-machine"]
    assert machine.status == "partial"
    assert "no hardware boundary" in machine.detail
    assert "QEMU" in machine.detail
    for name in ("seccomp", "capabilities", "no-new-privileges", "root", "network-namespace"):
        assert layers[name].status == "enforced", layers[name]


def test_emulation_is_not_hardened(supervisor):
    with pytest.raises(pyisolate.ConfinementError) as caught:
        supervisor.spawn("hard", require="hardened")
    assert "virtual-machine" in [layer.name for layer in caught.value.layers]
    assert "virtual-machine" in str(caught.value)
    with pytest.raises(pyisolate.ConfinementError, match="virtual-machine"):
        supervisor.spawn("named", require=["virtual-machine"])
    with supervisor.spawn("default", require="default") as cell:
        assert cell.confinement.require == "default"
    assert_serves(supervisor)


# --- templates and pools


def test_a_template(supervisor):
    template = supervisor.template(imports=["json", "numpy"], setup="state = [json.dumps(1)]")
    assert template.alive
    with (
        supervisor.spawn("a", template=template) as first,
        supervisor.spawn("b", template=template) as second,
    ):
        run(first, "state.append(2)")
        assert sent(first, "result = state") == ["1", 2]
        assert sent(second, "result = state, int(numpy.ones(4).sum())") == (["1"], 4)
        with pytest.raises(pyisolate.PolicyError, match="json"):
            run(second, "import json")
    with (
        supervisor.spawn("c", template=template, mem_bytes=64 * MIB) as cell,
        pytest.raises(pyisolate.MemoryExceeded),
    ):
        cell.exec("data = bytearray(10**9)").wait(PATIENCE)
    with pytest.raises(pyisolate.SandboxError, match="process"):
        supervisor.spawn("d", template=template, backend="process")
    other = supervisor.template(setup="x = 1", backend="process")
    with pytest.raises(pyisolate.SandboxError, match="microvm"):
        supervisor.spawn("e", template=other)


@pytest.mark.parametrize(
    ("setup", "error"),
    [
        ("x = 1\nraise ValueError('no good')", pyisolate.GuestError),
        ("def", pyisolate.GuestError),
        ("import os; os._exit(3)", pyisolate.SandboxError),
    ],
)
def test_a_set_up_that_fails(supervisor, setup, error):
    with pytest.raises(error) as caught:
        supervisor.template(setup=setup)
    if "no good" in setup:
        assert (caught.value.type, caught.value.message) == ("ValueError", "no good")
        assert "line 2" in caught.value.traceback
    assert_serves(supervisor)


def test_a_warm_pool():
    with pyisolate.Supervisor(2, backend="microvm") as supervisor:
        assert until(lambda: supervisor.pool_ready == 2)
        for number in range(4):
            with supervisor.spawn(f"warm-{number}", allowed_imports=["math"]) as cell:
                assert cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
        assert until(lambda: supervisor.pool_ready == 2)


def test_two_supervisors_and_two_backends_at_once(supervisor):
    with (
        pyisolate.Supervisor(backend="microvm") as other,
        supervisor.spawn("same") as first,
        other.spawn("same") as second,
        supervisor.spawn("process", backend="process") as third,
    ):
        for number, cell in enumerate((first, second, third)):
            run(cell, f"x = {number}")
        assert [sent(cell, "result = x") for cell in (first, second, third)] == [0, 1, 2]
    assert_serves(supervisor)


# --- what every copy of a snapshot must have for itself

FRESH = {
    "os.urandom": "os.urandom(16)",
    "random.random": "random.random()",
    "random.SystemRandom": "random.SystemRandom().random()",
    "uuid4": "str(uuid.uuid4())",
    "uuid1": "str(uuid.uuid1())",
    "uuid1's node and sequence": "(uuid.uuid1().node, uuid.uuid1().clock_seq)",
    "secrets": "secrets.token_bytes(16)",
    "ssl": "ssl.RAND_bytes(16)",
    "numpy.random.random": "float(numpy.random.random())",
    "numpy.random.default_rng": "float(numpy.random.default_rng().random())",
    "tempfile": "next(tempfile._get_candidate_names())",
}
IMPORTS = ["numpy", "os", "random", "secrets", "ssl", "tempfile", "time", "uuid"]
DRAW_ONCE = "\n".join(["import numpy.random", *FRESH.values()])
"""So that whatever keeps a state has one when the snapshot is made."""


@pytest.mark.parametrize("is_templated", [False, True], ids=["image", "template"])
def test_copies_share_no_randomness(supervisor, is_templated):
    options = {"policy": {"random": True, "clock": True}, "allowed_imports": IMPORTS}
    if is_templated:
        options["template"] = supervisor.template(imports=IMPORTS, setup=DRAW_ONCE)
    drawn = []
    for number in range(COPIES):
        with supervisor.spawn(f"copy-{number}", **options) as cell:
            source = f"import numpy.random, {', '.join(IMPORTS)}\n"
            source += f"result = [{', '.join(FRESH.values())}]"
            drawn.append(sent(cell, source))
    for name, values in zip(FRESH, zip(*drawn, strict=True), strict=True):
        assert len(set(values)) == COPIES, f"{name} repeats: {values}"


def test_copies_know_the_time(supervisor):
    source = (
        "import time\ntimes = [(time.time(), time.monotonic()) for _ in range(200)]\n"
        "result = [times[0][0], times[-1][0], all(a[0] <= b[0] and a[1] <= b[1] "
        "for a, b in zip(times, times[1:]))]"
    )
    options = {"policy": {"clock": True}, "allowed_imports": ["time"]}
    template = supervisor.template(imports=["time"])
    time.sleep(3)  # by which a clock that went on from the snapshot would be late
    for given in ({}, {"template": template}):
        with supervisor.spawn("clock", **options, **given) as cell:
            before = time.time()
            first, last, is_monotonic = sent(cell, source)
            after = time.time()
            assert is_monotonic
            assert before - 1.5 <= first <= last <= after + 1.5
            time.sleep(2)
            before = time.time()
            first, last, _ = sent(cell, source)
            assert before - 1.5 <= first <= last <= time.time() + 1.5


# --- what is missing is named, and nothing takes its place


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """An empty cache."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("PYISOLATE_CACHE", str(folder))
    yield folder
    shutil.rmtree(folder)


def refusal(**options):
    """What a supervisor says that makes no machine. It still makes processes."""
    before = set(children())
    with pyisolate.Supervisor(backend="microvm", **options) as supervisor:
        texts = []
        for attempt in (lambda: supervisor.spawn("none"), supervisor.template):
            with pytest.raises(pyisolate.SandboxError) as caught:
                attempt()
            texts.append(str(caught.value))
        assert supervisor.list_active() == []
        with supervisor.spawn("other", backend="process", allowed_imports=["math"]) as cell:
            assert cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
        assert texts[0] == texts[1]
    assert until(lambda: set(children()) <= before)
    return texts[0]


def test_no_image(bare):
    assert "pyisolate image build" in refusal()
    assert "'none'" in refusal(image="none").replace('"', "'")


def test_a_hash_that_there_is_not():
    assert "pyisolate image build" in refusal(image="0123456789abcdef")


def test_no_qemu(monkeypatch):
    monkeypatch.setenv("PYISOLATE_QEMU", "/nowhere")
    said = refusal()
    assert "/nowhere" in said
    assert "PYISOLATE_QEMU" in said
    assert "install" in said


@pytest.mark.parametrize(
    ("said", "told"),
    [("nonsense", "does not tell its version"), ("QEMU emulator version 5.2.0", "too old")],
)
def test_what_is_no_fitting_qemu(monkeypatch, tmp_path, said, told):
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\necho {said}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PYISOLATE_QEMU", str(program))
    assert told in refusal()


def test_no_kvm_is_no_emulation(monkeypatch):
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("kvm: there is a device, which may work")
    monkeypatch.delenv("PYISOLATE_MICROVM_ACCEL")
    for said in (refusal(), refusal(accel="kvm")):
        assert "/dev/kvm" in said
        assert 'accel="tcg"' in said


def test_an_accelerator_that_there_is_not(monkeypatch):
    monkeypatch.setenv("PYISOLATE_MICROVM_ACCEL", "fast")
    assert '"fast"' in refusal()


def test_an_image_of_another_build(machines, bare):
    source = folder_of(machines)
    put(bare, "default", source, runtime_sha256="0" * 64)
    said = refusal()
    assert "another build" in said
    assert "pyisolate image build" in said


def test_an_image_that_is_cut_off(machines, bare):
    source = folder_of(machines)
    put(bare, "default", source)
    os.truncate(folder_of(bare) / "initramfs", 1_000_000)
    assert "build the image again" in refusal()
    assert image(machines, "verify").returncode == 0


def test_two_threads_spawn_at_once(machines):
    """Both wait for the one snapshot."""
    with pyisolate.Supervisor(backend="microvm") as supervisor:
        answers = []

        def one(name):
            with supervisor.spawn(name, allowed_imports=["math"]) as cell:
                answers.append(cell.call("math.gcd", 12, 18, timeout=PATIENCE))

        threads = [threading.Thread(target=one, args=[f"t{number}"]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == [6] * 4


def test_a_cell_that_is_gone_stays_gone(supervisor):
    """There is one stream, and nothing to come back to."""
    cell = supervisor.spawn("gone")
    cell.kill()
    for _ in range(3):
        with pytest.raises(pyisolate.CellDied, match="killed"):
            cell.recv(PATIENCE)
    with pytest.raises(pyisolate.CellDied):
        cell.exec("pass").wait(PATIENCE)
    with contextlib.suppress(pyisolate.SandboxError):
        cell.close()
    assert_serves(supervisor)
