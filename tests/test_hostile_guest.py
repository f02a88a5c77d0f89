"""A guest that owns its ring and its socket and sends nonsense ends itself, and nobody else.

Each attack runs in a real cell, which takes its own channel over (see `raw_channel`). The host's
memory and descriptors are measured at their peak. Another cell of the same supervisor answers calls
all the while, and a third is ended by its clock while the attack goes on.
"""

import gc
import os
import random
import struct
import threading
import time
from pathlib import Path

import pytest

import pyisolate
import raw_channel
from cells import PATIENCE, assert_serves, until

MIB = 1 << 20
UNREAD = 4 * MIB
MESSAGE = MIB

HOST_BYTES_MAX = UNREAD + 8 * MESSAGE + 16 * MIB
"""How much a hostile cell with these limits may make the host grow, at the peak: what it sent and
nobody took, the messages on their way, what waits for it to be taken, and what a supervisor needs
for a cell and the tests for themselves."""

HOST_BYTES_MAX_DECODING = HOST_BYTES_MAX + 40 * MESSAGE
"""The same where the bytes are a pickle: a value of one byte takes some 40 while it is decoded."""

HOST_DESCRIPTORS_MAX = 16 + 64 + 40 + 4
"""How many of the host's descriptors one cell may take: buffers that it was lent, answers that wait
with one, some more at the same moment on their way, and its own."""


def in_host(name):
    """A figure of this process, in bytes."""
    return int(Path("/proc/self/status").read_text().split(name)[1].split()[0]) * 1024


def descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class Neighbour:
    """A cell that answers calls in a thread of its own, without end."""

    def __init__(self, supervisor):
        self.cell = supervisor.spawn("neighbour", allowed_imports=["math"], cpu_ms=600_000)
        self.answered = 0
        self.error = None
        self.stopped = False
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        try:
            while not self.stopped:
                assert self.cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
                self.answered += 1
                time.sleep(0.001)
        except BaseException as error:
            self.error = error

    def check(self, before):
        """It answered since `before`, and goes on to."""
        assert until(lambda: self.answered > before + 1 or self.error), "the neighbour hangs"
        assert self.error is None, self.error


@pytest.fixture(scope="module")
def supervisor():
    with pyisolate.Supervisor() as supervisor:
        yield supervisor


@pytest.fixture(scope="module")
def neighbour(supervisor):
    neighbour = Neighbour(supervisor)
    yield neighbour
    neighbour.stopped = True
    neighbour.thread.join(PATIENCE)
    assert neighbour.error is None, neighbour.error


def assert_clocks_run(supervisor):
    """The supervisor's own thread is not held up: it ends another cell in time."""
    with (
        supervisor.spawn("clocked", wall_time_ms=100) as clocked,
        pytest.raises(pyisolate.WallTimeExceeded),
    ):
        clocked.exec("while True: pass").wait(PATIENCE)


@pytest.fixture
def attack(supervisor, neighbour):
    """`attack(source)`: the error that the cell ends with; nobody else notices anything."""

    def run(source, *, take=True, clocks=False, most=HOST_BYTES_MAX, imports=(), **limits):
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        before = in_host("VmRSS:"), descriptors(), neighbour.answered
        peak_descriptors = before[1]
        limits = {
            "unread_bytes_max": UNREAD,
            "message_bytes_max": MESSAGE,
            "wall_time_ms": 10_000,
            "mem_bytes": 64 * MIB,
            **limits,
        }
        modules = [*raw_channel.MODULES, "threading", *imports]
        cell = supervisor.spawn("hostile", allowed_imports=modules, **limits)
        try:
            cell.exec(raw_channel.SOURCE).wait(PATIENCE)
            cell.exec(source)
            if clocks:
                assert_clocks_run(supervisor)
            end = time.monotonic() + PATIENCE
            while True:
                peak_descriptors = max(peak_descriptors, descriptors())
                assert time.monotonic() < end, "it goes on"
                if not take and "hostile" in supervisor.list_active():
                    time.sleep(0.002)
                    continue
                try:
                    cell.recv(PATIENCE)
                except pyisolate.CellDied as error:
                    died = error
                    break
                except pyisolate.SandboxError:
                    pass  # a message that may not cross
        finally:
            cell.kill()
        del cell  # which holds its channel, also once it is dead
        neighbour.check(before[2])
        grown = in_host("VmHWM:") - before[0]
        assert grown < most, f"the host grew by {grown / MIB:.1f} MiB"
        assert peak_descriptors - before[1] <= HOST_DESCRIPTORS_MAX
        assert until(lambda: descriptors() <= before[1]), "descriptors stay"
        assert_serves(supervisor)
        return died

    return run


def ring_bell(source):
    """The same, and the host is made to look, since nobody receives."""
    return f"{source}\nsay(b'\\1')\nrest()"


dice = random.Random(8)

# --- tags


TAGS = [kind for kind in range(256) if not 17 <= kind <= 25]


@pytest.mark.parametrize("kind", dice.sample(TAGS, 16))
def test_tags(attack, kind):
    shape = dice.choice(["NONE", "b''", "NONE, NONE", "b'x' * 30_000"])
    died = attack(ring_bell(f"send({kind}, {shape}, id={dice.randrange(1 << 32)})"), take=False)
    assert isinstance(died, pyisolate.ProtocolViolation)
    assert f"frame kind {kind}" in str(died)


@pytest.mark.parametrize("seed", range(16))
def test_noise(attack, seed):
    """Bytes without any meaning, some behind a good beginning."""
    noise = random.Random(seed)
    records = []
    for _ in range(30):
        length = noise.choice([1, 7, 12, 40, 1000, 20_000])
        kind = noise.choice([noise.randrange(256), noise.randrange(17, 25)])
        records.append(bytes([kind]) + noise.randbytes(length))
    source = f"import pickle\nfor record in pickle.loads({_pickled(records)}): send_record(record)"
    died = attack(ring_bell(source), take=bool(seed % 2))
    assert isinstance(died, pyisolate.ProtocolViolation)


def _pickled(value):
    import pickle

    return repr(pickle.dumps(value, 5))


# --- lengths


RECORD_MAX = 262_144 // 2 - 8
LENGTHS = [0, 1, 8, 11, RECORD_MAX + 1, 1 << 18, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("written", [0, 16, 4096])
def test_lengths_of_records(attack, length, written):
    source = f"send_record(b'\\x15' * {written}, {length})\nsend(26)"
    died = attack(ring_bell(source), take=bool(length % 2))
    assert isinstance(died, pyisolate.ProtocolViolation)


PARTS = ["(0, 1)", "(1, 0)", "(0xFFFFFFFF, 0)", "(0xFFFFFFFF, 0xFFFFFFFE)", "(64, 0x02000000)"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("store", [0, 5, 9, 0xFFFFFFFF])
def test_lengths_of_parts(attack, part, store):
    """Parts that lie in no buffer, in one that is too short, or in one of somebody else's."""
    source = f"want(5, 64)\nsend(POSTED, BUFFER, {part}, store={store})\nsend(26)"
    died = attack(ring_bell(source), take=False)
    assert isinstance(died, pyisolate.ProtocolViolation)


@pytest.mark.parametrize("kind", range(17, 26))
def test_half_frames(attack, kind):
    """Every beginning of a good frame, and each with more behind it."""
    source = f"""
whole = frame({kind}, b"info", b"m", NONE, id=2)
cuts = [*range(len(whole)), len(whole) + 1, len(whole) + 9]
send_record((whole + bytes(9))[: cuts[{dice.randrange(12)}]])
"""
    died = attack(ring_bell(source))
    assert isinstance(died, pyisolate.ProtocolViolation)


# --- indices, at rest and on the move


WORDS = {"to_guest_head": 128, "to_guest_tail": 256, "head": 640, "tail": 768}
MOVES = ["+= 3", "+= 1 << 18", "+= 1 << 30", "-= 1 << 31", "= 0xFFFFFFF8"]
# A small step of the guest's own tail is one that a guest may make: it loses what lies between.
STEPS = [("to_guest_tail", move) for move in MOVES]
STEPS += [("head", move) for move in [*MOVES, "+= 8", "-= 8"]]


@pytest.mark.parametrize(("word", "move"), STEPS)
def test_indices(attack, word, move):
    """The two that are the guest's to write, where no guest writes them."""
    # The host looks at the one when it reads, at the other when its ring seems to be full.
    answers = "for n in range(6000): want(n, 1 << 37)" if word == "to_guest_tail" else ""
    answered = ring_bell(answers)
    source = f"""
word = ctypes.c_uint32.from_address(page + {WORDS[word]})
word.value {move}
{answered}
"""
    died = attack(source, take=False)
    assert isinstance(died, pyisolate.ProtocolViolation)


RACES = {
    "head": "head.value = os.getpid() * 8 + (n * 8) % (1 << 17)",
    "head and back": "was = head.value; head.value = was + (1 << 20); head.value = was",
    "tail of the other ring": "to_guest_tail.value = (n * 8) % (1 << 32)",
    "lengths": "ctypes.memset(ring + (n * 8) % RING, 0xFF, 4096)",
    "everything that was sent": "ctypes.memmove(ring, noise, RING)",
    "positions": "ctypes.memmove(page + 128, noise, 1024)",
    "whole": "ctypes.memmove(page, noise, 4096 + 2 * RING)",
}


@pytest.mark.parametrize("race", RACES.values(), ids=RACES)
@pytest.mark.parametrize("threads", [1, 3])
def test_indices_that_move_while_they_are_read(attack, race, threads):
    """Threads spin over the shared memory while the main one sends."""
    source = f"""
import threading
noise = os.urandom(4096 + 2 * RING)
def spin():
    n = 0
    while True:
        n += 1
        {race}
for _ in range({threads}):
    threading.Thread(target=spin).start()
k = 0
while True:
    k += 1
    k % 64 or say(b"\\1")
    at = head.value % RING
    ctypes.memmove(ring + at, struct.pack("<Q", 40), min(8, RING - at))
    head.value += 48
"""
    died = attack(source, clocks=True)
    assert isinstance(died, pyisolate.ProtocolViolation)


# --- replies to nothing


REPLIES = ["DONE", "RESULT, NONE", "FAILED, b'E', b'm', b't'"]


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("id", [0, 1, 3, 4000, 0xFFFFFFFF])
def test_replies_to_nothing(attack, reply, id):
    died = attack(ring_bell(f"send({reply}, id={id})"), take=bool(id % 2))
    assert isinstance(died, pyisolate.ProtocolViolation)
    assert f"operation {id}" in str(died) or id == 0


@pytest.mark.parametrize("id", [0, 7])
def test_one_question_asked_twice(attack, supervisor, id):
    def slow(action, payload):
        until(lambda: "hostile" not in supervisor.list_active())

    source = "\n".join([f"send(REQUEST, b'slow', b'do', NONE, id={id})"] * 3)
    died = attack(ring_bell(source), capabilities={"slow": slow})
    assert isinstance(died, pyisolate.ProtocolViolation)
    assert "second request" in str(died)


# --- the socket


@pytest.mark.parametrize("count", [1, 2, 64, 253])
@pytest.mark.parametrize("what", ["0", "socket_fd", "os.open('/dev/null', 0)", "os.pipe()[1]"])
def test_descriptors_that_nobody_asked_for(attack, what, count):
    died = attack(f"fd = {what}\nsay(b'\\1', *[fd] * {count})\nrest()", take=count == 2)
    assert isinstance(died, pyisolate.ProtocolViolation)
    assert "carries no descriptors" in str(died)


def test_what_the_socket_takes(attack):
    """The control: a bell without descriptors is heard, and no harm."""
    died = attack("say(b'\\1')\nsend(26)\nsay(b'\\1')\nrest()", take=False)
    assert "frame kind 26" in str(died)


@pytest.mark.parametrize("size", [2, 100, 60_000])
def test_datagrams_that_are_no_bell(attack, size):
    died = attack(f"say(b'\\1' * {size})\nrest()", take=False)
    assert isinstance(died, pyisolate.ProtocolViolation)
    assert f"sent {size}" in str(died)


@pytest.mark.parametrize("take", [True, False])
def test_descriptors_that_it_asks_for_and_does_not_take(attack, take):
    """It takes every record and none of the descriptors, so that they fill the socket for good."""
    source = """
to_guest_head = ctypes.c_uint32.from_address(page + 128)
n = 1000
while True:
    n += 1
    want(n, 4096)
    for _ in range(100):
        to_guest_tail.value = to_guest_head.value
    send(POSTED, BUFFER, (8, 0), store=n)
    libc.write(socket_fd, b"x", 1)
"""
    died = attack(source, take=take, clocks=True)
    assert isinstance(died, pyisolate.ProtocolViolation)
    assert "buffer" in str(died) or "does not take" in str(died)


# --- floods


FLOODS = {
    "tiny": "send(POSTED, NONE)",
    "tiny logs": "send(LOG, b'info', b'', pickle.dumps({}, 5))",
    "large": "send(POSTED, LARGE)",
    "wishes": "want(n, 1 << 37)",
    "questions": "send(REQUEST, b'n' * 1000, b'a' * 1000, NONE, id=n)",
    "questions with long payloads": "send(REQUEST, b'filesystem', b'open', PATH, id=n)",
    "metrics": "send(METRIC, b'm', SAMPLE)",
    "bells": "libc.write(socket_fd, b'x', 1)",
    "bells and messages": "send(POSTED, NONE); libc.write(socket_fd, b'x', 1)",
    "violations": "send(26)",
}


@pytest.mark.parametrize("take", [True, False], ids=["taken", "left"])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_floods(attack, flood, take):
    source = f"""
LARGE = pickle.dumps(b"x" * 60_000, 5)
PATH = pickle.dumps({{"path": "/" + "x" * 30_000, "mode": "r"}}, 5)
SAMPLE = pickle.dumps((1, None), 5)
n = 0
while True:
    n += 1
    {flood}
"""
    died = attack(source, take=take, clocks=True, wall_time_ms=1500, output_bytes_max=100_000)
    expected = (
        pyisolate.ProtocolViolation,  # it takes no answers
        pyisolate.WallTimeExceeded,
        pyisolate.OutputExceeded,
        pyisolate.CPUExceeded,
    )
    assert isinstance(died, expected), died


@pytest.mark.parametrize("sender", ["post(n)", "send(POSTED, pickle.dumps(n, 5))"])
def test_a_million_tiny_messages_that_nobody_takes(attack, sender):
    source = f"for n in range(1_000_000): {sender}"
    died = attack(source, take=False, clocks=True, wall_time_ms=1500)
    assert isinstance(died, pyisolate.WallTimeExceeded)


def test_a_million_tiny_messages(supervisor, neighbour):
    """All of them arrive, in order, and the host keeps none."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = in_host("VmRSS:"), neighbour.answered
    with supervisor.spawn("tiny", unread_bytes_max=UNREAD, cpu_ms=600_000) as cell:
        cell.exec("for n in range(1_000_000): post(n)")
        for n in range(1_000_000):
            assert cell.recv(PATIENCE) == n
    assert in_host("VmHWM:") - before[0] < HOST_BYTES_MAX
    neighbour.check(before[1])


def test_one_enormous_message(attack):
    """The runtime refuses it, the host lends nothing for it, and a ring has no room."""
    source = f"""
for count in ({MESSAGE} + 1, 8 * {MESSAGE}):
    try:
        post(b"x" * count)
    except ValueError:
        post("refused")
    else:
        post("sent")
want(70, 1 << 37)
send_record(b"x" * 64, 1 << 62)
"""
    died = attack(ring_bell(source))
    assert isinstance(died, pyisolate.ProtocolViolation)


BOMBS = {
    "ones": "b'N' * COUNT",
    "lists": "b']' * COUNT",
    "dicts": "b'}' * COUNT",
    "memo": "(b'N' + bytes([0x94])) * (COUNT // 2)",
    "deep": "b'(' * COUNT",
    "long text": "b'X' + struct.pack('<I', 0xFFFFFFFF)",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_one_message_that_is_large_once_it_is_read(attack, bomb):
    """The largest pickle that fits, in a buffer of its own, of the smallest values there are."""
    source = f"""
COUNT = {MESSAGE} - 4096
body = b"\\x80\\x05(" + {bomb} + b"l."
want(5, {MESSAGE})
import _socket
line = _socket.socket(1, 5, 0, fileno=socket_fd)
rights = line.recvmsg(4, 64)[1]
fd = struct.unpack("i", rights[0][2][:4])[0]
os.pwrite(fd, body, 0)
send(POSTED, (len(body), 0), store=5)
send(26)
"""
    died = attack(ring_bell(source), most=HOST_BYTES_MAX_DECODING)
    assert isinstance(died, pyisolate.ProtocolViolation)


def test_many_at_once(supervisor, neighbour):
    """Eight hostile cells of one supervisor, each by another way, beside one that works."""
    before = neighbour.answered
    ways = ["send(26)", "head.value += 3", *list(FLOODS.values())[:6]]
    cells = []
    for number, way in enumerate(ways):
        cell = supervisor.spawn(
            f"many-{number}",
            allowed_imports=raw_channel.MODULES,
            wall_time_ms=3000,
            unread_bytes_max=UNREAD,
            output_bytes_max=100_000,
        )
        cells.append(cell)
        cell.exec(raw_channel.SOURCE).wait(PATIENCE)
        preface = "LARGE = pickle.dumps(b'x' * 60_000, 5)\nPATH = SAMPLE = NONE\nn = 0\n"
        cell.exec(preface + f"while True:\n    n += 1\n    {way}\n    say(b'\\1')")
    assert_clocks_run(supervisor)
    assert until(lambda: supervisor.list_active() == ["neighbour"]), supervisor.list_active()
    for cell in cells:
        with pytest.raises(pyisolate.CellDied):
            cell.exec("pass")
    neighbour.check(before)
    assert_serves(supervisor)


def test_the_measure_measures():
    """The control of the memory bound: a host that keeps what it is sent is over it."""
    Path("/proc/self/clear_refs").write_text("5")
    before = in_host("VmRSS:")
    kept = [struct.pack("<Q", n) * 1000 for n in range(4 * HOST_BYTES_MAX // 8000)]
    assert len(kept) > 0
    assert in_host("VmHWM:") - before > HOST_BYTES_MAX
