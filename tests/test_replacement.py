"""Who kills the processes that cells come from costs the next caller time, and nothing else.

So does a host thread that ends, and a host that has run out of descriptors, memory or disk: every
operation says so, and works again once there is room.
"""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

import hosts
import pyisolate
from cells import PATIENCE, assert_serves, children, until
from hosts import in_host_of_its_own, is_alive, parent


def family(before):
    """This test's launcher and zygote, while there are no cells."""
    found = [pid for pid in children() if pid not in before]
    launcher = next(pid for pid in found if parent(pid) == os.getpid())
    return {"launcher": launcher, "zygote": next(pid for pid in found if parent(pid) == launcher)}


def end(pid):
    """Kill a process, and wait until the kernel has ended it: the supervisor may not know yet."""
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not is_alive(pid))


@pytest.fixture
def before():
    return set(children())


@pytest.mark.parametrize("victim", ["zygote", "launcher"])
def test_the_next_spawn_works(before, victim):
    """At once: nobody waits until the death has been noticed."""
    with pyisolate.Supervisor() as supervisor:
        supervisor.spawn("first").close()
        for number in range(10):
            end(family(before)[victim])
            with supervisor.spawn(f"c{number}", allowed_imports=["math"]) as cell:
                assert cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6
                assert cell.pid is not None
        del cell


@pytest.mark.parametrize("victim", ["zygote", "launcher"])
def test_cells_of_a_dead_zygote_say_what_they_died_of(before, victim):
    with pyisolate.Supervisor() as supervisor:
        supervisor.spawn("first").close()
        pids = family(before)
        cells = [supervisor.spawn(f"c{number}") for number in range(3)]
        for cell in cells:
            cell.exec("post('said before')").wait(PATIENCE)
        end(pids[victim])
        for cell in cells:
            assert cell.recv(PATIENCE) == "said before"
            with pytest.raises(pyisolate.CellDied, match="the cell's zygote ended"):
                cell.recv(PATIENCE)
        assert_serves(supervisor)


@pytest.mark.parametrize("victim", ["zygote", "launcher"])
def test_a_template_of_a_dead_zygote_says_what_to_do(before, victim):
    with pyisolate.Supervisor() as supervisor:
        template = supervisor.template(setup="x = 1")
        pids = family(before)
        end(pids[victim])
        assert until(lambda: not is_alive(pids["zygote"]))
        with pytest.raises(pyisolate.SandboxError, match="make it anew"):
            supervisor.spawn("c", template=template)
        template = supervisor.template(setup="x = 2")
        with supervisor.spawn("c", template=template) as cell:
            cell.exec("post(x)")
            assert cell.recv(PATIENCE) == 2


class Killer:
    """Kills a launcher or zygote at random moments, some right after they were born.

    Between two kills something is made: who kills whatever is started leaves nothing to promise.
    """

    def __init__(self, before, dice):
        self.before, self.dice = before, dice
        self.kills, self.made, self.stopped = 0, 0, False
        self.thread = threading.Thread(target=self.work)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped = True
        self.thread.join(PATIENCE)

    def work(self):
        while not self.stopped:
            made = self.made
            time.sleep(self.dice.uniform(0, 0.3))
            with contextlib.suppress(OSError, StopIteration, IndexError, ValueError):
                os.kill(family(self.before)[self.dice.choice(["zygote", "launcher"])], 9)
                self.kills += 1
            until(lambda made=made: self.made > made + 1 or self.stopped)


@pytest.mark.parametrize("pool", [0, 2])
def test_no_spawn_fails_while_zygotes_are_killed(before, pool):
    with (
        pyisolate.Supervisor(warm_pool=pool) as supervisor,
        Killer(before, random.Random(pool)) as killer,
    ):
        number = 0
        while killer.kills < 12:
            number += 1
            cell = supervisor.spawn(f"c{number}")
            killer.made += 1
            # It may be killed right after; then it says so.
            with contextlib.suppress(pyisolate.CellDied):
                cell.exec("post(1)").wait(PATIENCE)
            cell.kill()
        del cell
    assert until(lambda: set(children()) <= before)


def test_no_template_fails_while_zygotes_are_killed(before):
    with pyisolate.Supervisor() as supervisor, Killer(before, random.Random(5)) as killer:
        while killer.kills < 5:
            supervisor.template(setup="x = [n for n in range(100_000)]")
            killer.made += 1
    assert until(lambda: set(children()) <= before)


# --- host threads


def test_the_thread_that_spawned_first_may_end():
    with pyisolate.Supervisor() as supervisor:
        cells = []
        thread = threading.Thread(target=lambda: cells.append(supervisor.spawn("c")))
        thread.start()
        thread.join(PATIENCE)
        cells[0].exec("post(1)")
        assert cells[0].recv(PATIENCE) == 1
        assert_serves(supervisor)


@pytest.mark.parametrize("waiting", ["recv", "call"])
def test_a_thread_that_dies_while_it_reads_leaves_the_channel_to_others(waiting):
    class End(BaseException):
        pass

    def work():
        try:
            if waiting == "recv":
                cell.recv()
            else:
                cell.call("time.sleep", 1)
            raise End
        except End:
            pass

    import ctypes

    with pyisolate.Supervisor() as supervisor:
        cell = supervisor.spawn("c", allowed_imports=["time"])
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.1)
        raised = ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(End)
        )
        assert raised == 1
        cell.exec("post('one')\npost('two')")
        if waiting == "call":
            assert cell.recv(PATIENCE) == "one"
        assert cell.recv(PATIENCE) in ("one", "two")
        thread.join(PATIENCE)
        assert not thread.is_alive()
        cell.kill()


# --- a host that runs out


def test_a_host_without_descriptors():
    first, again, answer = in_host_of_its_own(hosts.DESCRIPTORS)
    assert answer == 6, "the cell that was there lives"
    assert again == {}, "there is room again, and something still fails"
    assert "call" not in first, first["call"]
    assert {"spawn", "template", "large", "supervisor"} <= set(first)
    for errors in first.values():
        for error in errors:
            assert "os error 24" in error or "descriptor" in error or "Errno 24" in error, error


def test_a_host_without_memory():
    errors, received, answer = in_host_of_its_own(hosts.MEMORY)
    assert set(errors) == {"large"}
    kind, text = errors["large"]
    # The guest did nothing wrong, and is not told off for it.
    assert kind == "CellDied"
    assert "the host could not go on with it: cannot map" in text
    assert "Cannot allocate memory" in text
    assert (received, answer) == (100_000_000, 6)


def test_a_host_without_threads_answers_a_request_with_an_error():
    refused, answered = in_host_of_its_own(hosts.THREADS)
    assert "the host has no thread left to answer" in refused
    assert answered == "answered"


def test_a_host_whose_disk_is_full():
    said, *figures = in_host_of_its_own(hosts.FULL_DISK)
    if said != "ok":
        pytest.skip(said)
    full, fits, answered, broken, more = figures
    assert full == 28, "ENOSPC reaches the guest"
    assert fits is None
    assert answered, "a journal holds nobody up that does not ask the broker"
    assert "the journal cannot be written to: No space left on device" in broken
    assert more is None
