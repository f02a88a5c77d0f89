"""A guest that speaks outside the contract ends itself, and nobody else."""

import contextlib
from pathlib import Path

import pytest

import pyisolate
import raw_channel
from cells import PATIENCE, assert_serves, new_cell, run
from pyisolate.attack.cases.worker import WORDS


@pytest.fixture
def cell():
    cell = new_cell(allowed_imports=[*raw_channel.MODULES, "array", "socket", "threading", "time"])
    run(cell, raw_channel.SOURCE)
    yield cell
    cell.kill()


def test_the_raw_channel_reaches_the_host(cell):
    """The control: what a test below sends does arrive."""
    cell.exec(
        """
send(POSTED, pickle.dumps("raw", 5))
send(LOG, b"info", b"m", pickle.dumps({}, 5))
send(METRIC, b"m", pickle.dumps((1, None), 5))
rest()
"""
    )
    assert cell.recv(PATIENCE) == "raw"
    assert cell.recv(PATIENCE) == pyisolate.LogEvent("info", "m", {})
    assert cell.recv(PATIENCE) == pyisolate.MetricEvent("m", 1, None)


# What the host says of each.
REASONS = {
    "no frame": "frame",
    "half a frame": "frame",
    "more than a frame": "frame",
    "an unknown kind": "frame kind 26",
    "kind zero": "frame kind 0",
    "the host's own kind": "frame kind 7",
    "unknown flags": "flags",
    "too many parts": "frame of 300 parts",
    "too few parts": "has 0 parts",
    "parts too many": "has 1 parts",
    "a frame too long": "frame",
    "a part in no buffer": "lies in a store, but",
    "a buffer that was not lent": "buffer 9, which it was not",
    "a second report": "second report",
    "an end that was not asked for": "operation 4000",
    "an end of nothing": "operation 0",
    "a result that was not asked for": "operation 4000",
    "a result for an exec": "operation 2",
    "a failure that was not asked for": "operation 4000",
    "an end twice": "operation 2",
    "a failure's text that is none": "UTF-8",
    "a name that is no text": "UTF-8",
    "a long name": "part 0",
    "a long text": "part 1",
    "fields that are no dict": "no dict",
    "fields with numbers for names": "no dict of names",
    "a sample that is no pair": "no pair",
    "a sample of three": "no pair",
    "a value that is no number": "no number",
    "tags that are no dict": "no dict",
    "many buffers": "shared buffers asked for",
    "the same buffer twice": "shared buffers asked for",
    "a buffer that was never filled": "pickle",
    "outside of a buffer": "ends at byte 5000 of a shared buffer of 4096",
    "far outside of a buffer": "of a shared buffer of 4096",
    "a record of no length": "frame",
    "a record of great length": "claims 4294967295 bytes",
    "a record of impossible length": "the largest has",
}


def drain(cell):
    """Take what a cell sends until it is dead."""
    with contextlib.suppress(pyisolate.CellDied):
        while True:
            cell.recv(PATIENCE)


def test_nothing_behind_a_violation_is_delivered(cell):
    cell.exec("send(26)\nsend(POSTED, pickle.dumps('behind', 5))\nrest()")
    with pytest.raises(pyisolate.ProtocolViolation):
        cell.recv(PATIENCE)


@pytest.mark.parametrize("name", WORDS)
def test_words_outside_the_contract(cell, name):
    why = REASONS[name]
    cell.exec(WORDS[name] + "\nsend(POSTED, pickle.dumps('behind', 5))\nrest()")
    drain(cell)
    with pytest.raises(pyisolate.ProtocolViolation, match=f"contract: .*{why}"):
        cell.recv(PATIENCE)
    assert_serves()


def test_a_guest_that_ends_its_exec_early_fools_itself_alone(cell):
    handle = cell.exec("send(DONE, id=2); rest()")
    handle.wait(PATIENCE)
    assert handle.done()
    cell.kill()
    assert_serves()


@pytest.mark.parametrize(
    "source",
    [
        "for fd in range(64): os.close(fd)",
        "os.closerange(0, 64)",
        "for fd in range(64): os.write(fd, b'garbage' * 100)",
        "for fd in range(64): os.write(fd, b'\\x00')",
        "for fd in range(64): os.write(fd, b'')",
        "for fd in range(64): os.ftruncate(fd, 0)",
        "for fd in range(64): os.pwrite(fd, b'\\xff' * 4096, 0)",
        "for fd in range(64): os.pwrite(fd, os.urandom(1 << 19), 0)",
        "for fd in range(64): os.dup2(0, fd)",
        "import socket; socket.socket(fileno=FD).shutdown(socket.SHUT_RDWR)",
        "import socket; socket.socket(fileno=FD).shutdown(socket.SHUT_WR)",
        "import socket, array; socket.socket(fileno=FD).sendmsg([b'x'], [(socket.SOL_SOCKET, "
        "socket.SCM_RIGHTS, array.array('i', [0] * 60))])",
        "import os\nwhile True: os.write(FD, b'\\x00')",
    ],
)
def test_descriptors_that_are_tampered_with(cell, source):
    run(cell, "import os")
    for fd in range(3, 9):
        attack = source.replace("FD", str(fd))
        one_by_one = attack.replace("range(64): ", "range(64):\n  try: ")
        if one_by_one != attack:
            one_by_one += "\n  except OSError: pass"
        try:
            cell.exec(f"try:\n  exec({one_by_one!r})\nexcept (OSError, ValueError): pass").wait(0.2)
        except pyisolate.TimeoutError:
            pass
        except pyisolate.CellDied:
            break
    cell.kill()
    assert_serves()


def death(cell):
    """What every operation on a dead cell raises."""
    with pytest.raises(pyisolate.CellDied) as caught:
        cell.exec("pass")
    return caught.value


SCRIBBLES = {
    "ones": "ctypes.memset(page, 0xff, 4096)",
    "zeros": "ctypes.memset(page, 0, 4096)",
    "everything": "ctypes.memset(page, 0xff, 4096 + 2 * 262144)",
    "head far ahead": "ctypes.c_uint32.from_address(page + 640).value += 1 << 30",
    "head odd": "ctypes.c_uint32.from_address(page + 640).value += 3",
    "head behind": "ctypes.c_uint32.from_address(page + 640).value -= 8",
    "tail far ahead": "ctypes.c_uint32.from_address(page + 256).value += 1 << 30",
    "host's tail": "ctypes.c_uint32.from_address(page + 768).value += 1 << 20",
    "announcements": "ctypes.memset(page + 384, 0xff, 4); ctypes.memset(page + 1024, 0xff, 4)",
    "lengths": "ctypes.memset(page + 4096 + 262144, 0xff, 262144); "
    "ctypes.c_uint32.from_address(page + 640).value += 4096",
    "zero lengths": "ctypes.memset(page + 4096 + 262144, 0, 262144); "
    "ctypes.c_uint32.from_address(page + 640).value += 4096",
    "random": "ctypes.memmove(page, os.urandom(4096), 4096)",
}


@pytest.mark.parametrize("scribble", SCRIBBLES.values(), ids=SCRIBBLES)
def test_shared_memory_that_is_scribbled_over(cell, scribble):
    with contextlib.suppress(pyisolate.SandboxError):
        cell.exec(scribble).wait(1)
        cell.call("os.getpid", timeout=1)
    cell.kill()
    assert_serves()


def test_shared_memory_that_changes_all_the_time(cell):
    cell.exec("while True: ctypes.memmove(page + 128, os.urandom(1024), 1024); post(1)")
    operations = (
        lambda: cell.recv(0.1),
        lambda: cell.post("x" * 1000, timeout=0.1),
        lambda: cell.call("os.getpid", timeout=0.1),
    )
    for number in range(300):
        with contextlib.suppress(pyisolate.SandboxError):
            operations[number % 3]()
    assert isinstance(death(cell), pyisolate.ProtocolViolation)
    cell.kill()
    assert_serves()


FLOODS = {
    "requests": "send(REQUEST, b'n' * 1000, b'a' * 1000, NONE, id=n)",
    "wishes that are refused": "want(n, 1 << 37)",
    "bells": "os.write(socket_fd, b'x')",
}


@pytest.mark.parametrize("word", FLOODS.values(), ids=FLOODS)
def test_a_guest_that_takes_no_answers_makes_the_host_keep_few(word):
    with new_cell(allowed_imports=raw_channel.MODULES, wall_time_ms=2000) as cell:
        run(cell, raw_channel.SOURCE)
        before = resident_kib()
        cell.exec(f"n = 0\nwhile True:\n    n += 1\n    {word}")
        with pytest.raises(pyisolate.SandboxError):
            cell.recv(PATIENCE)
        grown = resident_kib() - before
        assert grown < 32 * 1024, f"{grown} KiB"
    assert_serves()


def resident_kib():
    """This process's resident size."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
