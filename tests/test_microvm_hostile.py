"""Who is root in a machine, and whoever speaks for it, ends that machine and nobody else.

The machine's first process is `hostile_init`, which says to the host what it likes, and does what
it likes to every device that the machine has. Other cells of the host answer calls all the while.
"""

import contextlib
import gc
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

import pyisolate
from cells import PATIENCE, until
from machines import folder_of, holdings, in_host, left, put, with_init

MIB = 1 << 20
LIMITS = {"unread_bytes_max": 4 * MIB, "message_bytes_max": MIB, "wall_time_ms": 3000}
HOST_BYTES_MAX = 48 * MIB
"""How much the host may grow: what was sent and not taken, messages on their way, a cell."""
BIRTH_SECONDS = 45
"""The patience of `spawn` is 30 s; the rest is for a starved host."""

pytestmark = [pytest.mark.usefixtures("machines"), pytest.mark.timeout(180)]


class Neighbours:
    """A process and an honest machine that answer calls, without end."""

    def __init__(self, supervisor):
        self.cells = [
            supervisor.spawn(f"neighbour-{backend}", backend=backend, allowed_imports=["math"])
            for backend in ("process", "microvm")
        ]
        self.answered = 0
        self.error = None
        self.stopped = False
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        cell = self.cells[0]
        try:
            while not self.stopped:
                for cell in self.cells:
                    assert cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
                self.answered += 1
                time.sleep(0.05)
        except BaseException as error:
            error.add_note(f"{cell.name}: {cell.stats}")
            self.error = error

    def check(self):
        """They answer now."""
        before = self.answered
        assert until(lambda: self.answered > before + 1 or self.error), "a neighbour hangs"
        assert self.error is None, (self.error, self.error.__notes__)


@pytest.fixture(scope="module")
def neighbours(machines):
    with pyisolate.Supervisor(backend="microvm") as supervisor:
        neighbours = Neighbours(supervisor)
        yield neighbours
        neighbours.stopped = True
        neighbours.thread.join(PATIENCE)
        assert neighbours.error is None, (neighbours.error, neighbours.error.__notes__)


@pytest.fixture(scope="module")
def hostile_files(machines, tmp_path_factory):
    """The files of an image with that first process, and what its manifest says of them."""
    folder = tmp_path_factory.mktemp("hostile") / "image"
    program = Path(__file__).with_name("hostile_init.py").read_text()
    yield folder, with_init(folder_of(machines), folder, program)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def make_image(hostile_files, machines, tmp_path_factory):
    """`make_image(**environment)`: the cache of an image with words on its kernel's line."""
    folder, changes = hostile_files
    made = []

    def make(**environment):
        cache = tmp_path_factory.mktemp("cache")
        cache.chmod(0o700)
        manifest = folder / "manifest.json"
        words = json.loads(manifest.read_text())["environment"]
        words += [[name, value] for name, value in environment.items()]
        put(cache, "default", folder, os.link, environment=words, **changes)
        made.append(cache)
        return cache

    yield make
    for cache in made:
        shutil.rmtree(cache)


@pytest.fixture(scope="module")
def supervisor(make_image):
    """One whose cells are hostile."""
    with pytest.MonkeyPatch.context() as patch:
        # Its registers are there for whoever asks, which a kernel of one's own can have as well.
        patch.setenv("PYISOLATE_CACHE", str(make_image(iomem="relaxed")))
        supervisor = pyisolate.Supervisor(backend="microvm")
        supervisor.spawn("first").kill()  # which is when it looks for its image
    with supervisor:
        yield supervisor


@pytest.fixture
def watched(neighbours):
    """Nobody else notices, and nothing stays."""
    neighbours.check()
    gc.collect()
    before = holdings()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    resident = in_host("VmRSS:")
    yield
    neighbours.check()
    assert in_host("VmHWM:") - resident < HOST_BYTES_MAX
    assert until(lambda: not left(before)), left(before)


def end_of(cell, patience=PATIENCE):
    """The error of its end; whatever it sent before is dropped."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            cell.recv(1)
        except pyisolate.CellDied as error:
            return error
        except pyisolate.SandboxError:
            pass
    raise AssertionError("it has no end")


VIOLATIONS = {
    "random bytes": "import random; write(random.Random(5).randbytes(100_000))",
    "zeros": "write(bytes(100_000))",
    "no such kind": "tell(b'X')",
    "a head that is none": "write(b'R' + b'\\xff' * 11)",
    "a record that is no frame": "tell(b'R', b'\\xff' * 100)",
    "an empty record": "tell(b'R')",
    "a frame of no kind": "send(99)",
    "a frame for guests": "send(EXEC, b'x = 1', id=1)",
    "a frame with flags": "send(POSTED, NONE, flags=1)",
    "a pickle that is none": "send(POSTED, b'garbage')",
    "a message in a buffer that nobody lent": "send(POSTED, (64, 0), store=7)",
    "bytes for a buffer that nobody lent": "tell(b'S', b'x' * 1000, number=7)",
    "bytes without end for none": "while True: tell(b'S', b'x' * 262_144, number=7)",
    "a buffer": "tell(b'L', struct.pack('<Q', 1 << 40), number=7)",
    "a giant length": "write(struct.pack('<c3xII', b'R', 0, 2**32 - 1))",
    "a record that is too long": "tell(b'R', bytes(65_537))",
    "a piece that is too long": "tell(b'S', bytes(262_145), number=1)",
    "a number that is cut off": "tell(b'E', b'abc')",
    "what only a host says": "tell(b'W', bytes(73))",
    "ready twice": "send(READY, b'')",
    "an answer that nobody waits for": "send(DONE, id=12345)",
    "more buffers than there is use for": "for id in range(1, 2000): send(WANT, id=id, store=1024)",
}

ENDS = {
    "ended": "tell(b'E', struct.pack('<Q', 5))",
    "ended twice": "tell(b'E', struct.pack('<Q', 5)); tell(b'E', struct.pack('<Q', 2**64 - 1))",
    "ended by a status that is none": "tell(b'E', bytes(8), number=2**32 - 1)",
    "ended and goes on": ("tell(b'E', bytes(8))\nwhile True: send(POSTED, b'\\x80\\x05K\\x01.')"),
    "fatal": "tell(b'!', b'no \\x1b[31m reason \\xff')",
    "booted": "tell(b'B')",
    "booted twice": "tell(b'B'); tell(b'B')",
    "panic": "open('/proc/sysrq-trigger', 'w').write('c')",
    "the end of its first process": "os._exit(0)",
    "power off": "libc.sync(); libc.reboot(0x4321FEDC)",
    "reboot": "libc.reboot(0x1234567)",
}

SILENCES = {
    "half a head": "write(b'R\\0\\0\\0\\0\\0')",
    "half a record": "write(struct.pack('<c3xII', b'R', 0, 60_000) + bytes(30_000))",
    "a closed port": "os.close(port)",
    "nothing": "pass",
    "halt": "libc.reboot(0xCDEF0123)",
}


@pytest.fixture
def attack(supervisor, watched):
    """`attack(source)`: the error that a machine ends with whose root does this."""

    def run(source, *, take=True, **limits):
        with supervisor.spawn("hostile", **{**LIMITS, **limits}) as cell:
            cell.exec(source)
            if not take:
                time.sleep(2)
            return end_of(cell)

    return run


@pytest.mark.parametrize("source", VIOLATIONS.values(), ids=VIOLATIONS)
def test_what_no_cell_says(attack, source):
    died = attack(source + "\nrest()")
    assert isinstance(died, pyisolate.ProtocolViolation), repr(died)


@pytest.mark.parametrize("source", ENDS.values(), ids=ENDS)
def test_machines_that_end(attack, source):
    died = attack(source + "\nrest()")
    assert isinstance(died, pyisolate.CellDied), repr(died)
    assert not isinstance(died, pyisolate.LimitExceeded), died
    assert str(died)


@pytest.mark.parametrize("source", SILENCES.values(), ids=SILENCES)
def test_machines_that_fall_silent(attack, source):
    died = attack(source + "\nrest()")
    assert isinstance(died, pyisolate.WallTimeExceeded), repr(died)


def test_a_flood_that_nobody_takes(attack):
    """The guest waits, and its clock goes on."""
    source = "while True: send(POSTED, b'\\x80\\x05C\\xff' + b'x' * 255 + b'.')"
    died = attack(source, take=False)
    assert isinstance(died, pyisolate.WallTimeExceeded), repr(died)


def test_a_flood_of_output(attack):
    source = "while True: send(LOG, b'info', b'x' * 20_000, b'\\x80\\x05}.')"
    died = attack(source, output_bytes_max=MIB)
    assert isinstance(died, pyisolate.OutputExceeded), repr(died)


def test_a_guest_that_takes_nothing(supervisor, watched):
    """What the host cannot send it is told in time."""
    with supervisor.spawn("deaf", **LIMITS) as cell:
        cell.exec("rest()")
        told = (pyisolate.TimeoutError, pyisolate.WallTimeExceeded)
        with contextlib.suppress(*told):
            for _ in range(1000):
                cell.post(b"x" * 500_000, timeout=0.2)
            pytest.fail("it takes what nobody reads")


DEVICES = {
    "every device node": """
import stat
for name in sorted(os.listdir("/dev")):
    path = "/dev/" + name
    try:
        if path == f"/dev/vport{0}p1" or not stat.S_ISCHR(os.stat(path).st_mode): continue
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        continue
    for data in (b"\\xff" * 4096, bytes(4096), os.urandom(4096)):
        try: os.write(fd, data); wrote += 1
        except OSError: pass
    os.close(fd)
""",
    "every port": """
import mmap
if libc.iopl(3): raise OSError(ctypes.get_errno(), "iopl")
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("89fa89f0eec3"))  # mov edx, edi; mov eax, esi; out dx, al; ret
place = ctypes.addressof(ctypes.c_char.from_buffer(code))
out = ctypes.CFUNCTYPE(None, ctypes.c_uint, ctypes.c_uint)(place)
ends = {0x61, 0x64, 0x92, 0x604, 0xcf9, *range(0x3f8, 0x400)}  # of the machine, or its console
for number in [number for number in range(0x10000) if number not in ends] + sorted(ends):
    for value in (0, 255, 254):
        out(number, value); wrote += 1
""",
    "the registers of its devices": """
import mmap, re
fd = os.open("/dev/mem", os.O_RDWR | os.O_SYNC)
ranges = [
    (int(begin, 16), int(end, 16))
    for begin, end, name in re.findall("([0-9a-f]+)-([0-9a-f]+) : (.*)", open("/proc/iomem").read())
    if "virtio" in name.lower() or "LNRO" in name
]
for begin, end in ranges:
    page = begin & ~4095
    try: memory = mmap.mmap(fd, 4096, offset=page)
    except OSError: continue
    for value in (0, 1, 0xffffffff, 0x7fffffff, 0xdeadbeef, 7, 15):
        for at in range(0x10, 0x100, 4):
            ctypes.c_uint32.from_buffer(memory, begin - page + at).value = value
            wrote += 1
    # A queue of its own, in the middle of nowhere, and a ring of the bell.
    for at, value in ((0x70, 0), (0x70, 1), (0x70, 3), (0x70, 11), (0x30, 2), (0x38, 32768),
                      (0x80, 0xfffff000), (0x84, 0xffffffff), (0x90, 0xfffff000), (0x44, 1),
                      (0x70, 15), (0x50, 0), (0x50, 2), (0x50, 65535)):
        ctypes.c_uint32.from_buffer(memory, begin - page + at).value = value
        wrote += 1
""",
}


@pytest.mark.parametrize("source", DEVICES.values(), ids=DEVICES)
def test_devices(supervisor, watched, source):
    """What they do to its own machine is its own affair. The control: something was written."""
    if "iopl" in source and os.uname().machine != "x86_64":
        pytest.skip("x86_64: this architecture has no ports")
    report = "\nsend(LOG, b'info', str(wrote).encode(), b'\\x80\\x05}.')\n"
    with supervisor.spawn("devices", **{**LIMITS, "wall_time_ms": 15_000}) as cell:
        # Told from time to time, since the end may come at any moment.
        loud = source.replace("wrote += 1", "wrote += 1; tick()")
        handle = cell.exec(f"""
wrote = 0
def tick():
    if wrote in (1, 100): send(LOG, b"info", str(wrote).encode(), b"\\x80\\x05}}.")
{loud}{report}""")
        told = []
        try:
            while True:
                told.append(cell.recv(PATIENCE).message)
                if handle.done:
                    break
        except (pyisolate.CellDied, pyisolate.TimeoutError) as error:
            told.append(repr(error))
    assert told[0] == "1", told


SET_UPS = {
    "garbage": "write(b'\\xff' * 1000)",
    "ended": "tell(b'E', bytes(8))",
    "it stands still before it is asked to": "tell(b'B')",
    "panic": "open('/proc/sysrq-trigger', 'w').write('c')",
}


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("source", SET_UPS.values(), ids=SET_UPS)
def test_templates_of_hostile_machines(supervisor, source):
    begun = time.monotonic()
    with pytest.raises(pyisolate.SandboxError):
        supervisor.template(setup=source + "\nrest()")
    assert time.monotonic() - begun < BIRTH_SECONDS


AT_WAKE = {
    "garbage": "write(b'\\xff' * 1000)",
    "booted instead of ready": "tell(b'B')",
    "a word for machines": "tell(b'W', bytes(73))",
    "power off": "libc.reboot(0x4321FEDC)",
    "an operation's answer first": "send(DONE, id=1); send(READY, b'')",
    "a report that is none": "send(READY, b'no such layer')",
    "nothing": "pass",
}
AT_BOOT = {
    "garbage": "write(b'\\xff' * 1000)",
    "a record": "send(READY, b'')",
    "panic": "open('/proc/sysrq-trigger', 'w').write('c')",
    "fatal": "tell(b'!', b'no reason')",
}


@pytest.mark.parametrize(
    ("place", "source"),
    [("wake", source) for source in AT_WAKE.values()]
    + [("boot", source) for source in AT_BOOT.values()],
    ids=[f"wake: {name}" for name in AT_WAKE] + [f"boot: {name}" for name in AT_BOOT],
)
def test_machines_that_never_become_cells(make_image, watched, monkeypatch, place, source):
    cache = make_image(AT=place, ATTACK=source.encode().hex())
    monkeypatch.setenv("PYISOLATE_CACHE", str(cache))
    with pyisolate.Supervisor(backend="microvm") as supervisor:
        begun = time.monotonic()
        with pytest.raises(pyisolate.SandboxError) as caught:
            supervisor.spawn("unborn")
        assert time.monotonic() - begun < BIRTH_SECONDS
        assert str(caught.value)
        assert supervisor.list_active() == []
        with supervisor.spawn("other", backend="process", allowed_imports=["math"]) as cell:
            assert cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
    shutil.rmtree(cache / "snapshots", ignore_errors=True)


def test_the_control_serves(supervisor):
    """Played well, the same first process is a cell."""
    with supervisor.spawn("polite", **LIMITS) as cell:
        cell.exec("send(POSTED, b'\\x80\\x05K\\x07.')").wait(PATIENCE)
        assert cell.recv(PATIENCE) == 7
