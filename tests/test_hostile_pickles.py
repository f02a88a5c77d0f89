"""Pickles that no honest guest makes: refused, within bounds, and nothing runs on the host."""

import gc
import pickle
from pathlib import Path

import pytest

import pyisolate
import raw_channel
from cells import PATIENCE, assert_serves, new_cell, run
from pyisolate.attack.cases import worker
from pyisolate.attack.cases.worker import BOMBS


@pytest.fixture
def cell():
    cell = new_cell(allowed_imports=raw_channel.MODULES)
    run(cell, raw_channel.SOURCE)
    yield cell
    cell.kill()


def outcome(cell, data):
    """What the host is told of these bytes; then proof that it serves."""
    cell.exec(f"send(POSTED, {data!r})\nrest()")
    with pytest.raises(pyisolate.SandboxError) as caught:
        cell.recv(PATIENCE)
    assert isinstance(caught.value, (pyisolate.ProtocolViolation, pyisolate.GuestError))
    assert_serves()
    return caught.value


GARBAGE = {
    "empty": b"",
    "noise": b"garbage",
    "no stop": b"\x80\x05K\x01",
    "no value": b"\x80\x05.",
    "two values": b"\x80\x05K\x01K\x02.",
    "old protocol": b"\x80\x02K\x01.",
    "new protocol": b"\x80\x06K\x01.",
    "behind the stop": b"\x80\x05K\x01.xx",
    "unknown opcode": b"\x80\x05\xff.",
    "memo that is not there": b"\x80\x05h\x05.",
    "huge memo index": b"\x80\x05K\x01r\xff\xff\xff\x7f.",
    "negative length": b"\x80\x05T\xff\xff\xff\xff.",
    "claim of gigabytes": b"\x80\x05B\xff\xff\xff\x7f.",
    "claim of exabytes": b"\x80\x05\x8e" + b"\xff" * 7 + b"\x7f.",
    "buffer that is not there": b"\x80\x05\x97.",
    "append to nothing": b"\x80\x05K\x01a.",
    "mark that is not there": b"\x80\x05t.",
    "bad text": b"\x80\x05\x8c\x02\xff\xfe.",
    "persistent id": b"\x80\x05K\x01Q.",
    "extension code": b"\x80\x05\x82\x01.",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_pickles_that_are_none(cell, data):
    outcome(cell, data)


class Marker:
    """What no host may ever make for a guest."""

    made = 0

    def __init__(self):
        type(self).made += 1

    def __setstate__(self, state):
        type(self).made += 1


CALLS = worker.CALLS | {"a class of the host": pickle.dumps(Marker(), 5)}


@pytest.mark.parametrize("data", CALLS.values(), ids=CALLS)
def test_pickles_that_call_are_refused(cell, data):
    made = Marker.made
    outcome(cell, data)
    assert Marker.made == made


def test_a_refusal_names_the_class(cell):
    error = outcome(cell, CALLS["os.system"])
    assert "posix.system" in str(error)


def test_a_refused_message_ends_nothing(cell):
    cell.exec(f"send(POSTED, {CALLS['os.system']!r})\nsend(POSTED, NONE)\nrest()")
    with pytest.raises(pyisolate.GuestError):
        cell.recv(PATIENCE)
    assert cell.recv(PATIENCE) is None


def peak_kib():
    """The largest resident size since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS)
def test_pickles_that_grow_stay_within_bounds(source):
    with new_cell(allowed_imports=raw_channel.MODULES, mem_bytes=2 << 30) as cell:
        run(cell, raw_channel.SOURCE)
        run(cell, f"data = b'\\x80\\x05' + {source} + b'.'")
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = peak_kib()
        refused_by_the_guest = False
        # As a log's fields, which the guest's runtime takes as bytes of any length.
        cell.exec("recv.__globals__['native'].send_log('info', 'm', data, [])")
        try:
            item = cell.recv(PATIENCE)
        except pyisolate.GuestError as error:
            # With a traceback it would be the guest that could not send it.
            refused_by_the_guest = error.traceback != ""
        except pyisolate.ProtocolViolation:
            pass
        else:
            del item
        assert not refused_by_the_guest
        assert peak_kib() - before < 1024 * 1024
    assert_serves()
