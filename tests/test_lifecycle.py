"""A cell's life: its name, its end, and that nothing of it stays behind."""

import contextlib
import gc
import logging
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, children, drain, new_cell, run, until


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "x" * 64, "-", "..", "0"])
def test_good_names(name):
    with pyisolate.spawn(name) as cell:
        assert cell.name == name
        assert name in pyisolate.list_active()
    assert name not in pyisolate.list_active()


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "é", "a\n", "a\0b", "🐧"])
def test_bad_names_are_refused(name):
    with pytest.raises(ValueError, match="1 to 64"):
        pyisolate.spawn(name)


@pytest.mark.parametrize("name", [None, 5, b"a"])
def test_names_of_another_type_are_refused(name):
    with pytest.raises(TypeError):
        pyisolate.spawn(name)


def test_a_live_name_is_taken_and_free_again_after_the_end():
    for end in (pyisolate.Cell.close, pyisolate.Cell.kill, lambda cell: run_and_die(cell)):
        cell = pyisolate.spawn("twin")
        with pytest.raises(ValueError, match="twin"):
            pyisolate.spawn("twin")
        assert pyisolate.list_active().count("twin") == 1
        end(cell)
    pyisolate.spawn("twin").close()


def run_and_die(cell):
    cell.exec("import os")
    cell.kill()


def test_of_many_spawns_of_one_name_one_succeeds():
    def attempt(_):
        try:
            return pyisolate.spawn("one-of-many")
        except ValueError:
            return None

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            cells = [cell for cell in pool.map(attempt, range(8)) if cell is not None]
            for cell in cells:
                cell.kill()
            assert len(cells) == 1


def test_a_name_is_free_after_a_failed_spawn():
    with pytest.raises(ValueError, match="mem_bytes"):
        pyisolate.spawn("phoenix", mem_bytes=1)
    pyisolate.spawn("phoenix").close()


def test_supervisors_have_names_of_their_own():
    with pyisolate.Supervisor() as supervisor, new_cell() as cell, supervisor.spawn(cell.name):
        assert supervisor.list_active() == [cell.name]


@pytest.mark.parametrize("backend", ["docker", "", "PROCESS", 1])
def test_unknown_backends_are_refused(backend):
    with pytest.raises(ValueError, match="backend"):
        pyisolate.spawn("backend", backend=backend)


def test_what_a_cell_shows():
    with new_cell() as cell:
        assert cell.backend == "process"
        assert cell.pid in children()
        assert cell.termination_reason is None
        assert "alive" in repr(cell)
        run(cell, "post(1)")
        stats = cell.stats
        assert stats.mem_bytes > 0
        assert stats.received >= 1
        assert {layer.status for layer in cell.confinement} <= {"enforced", "partial", "missing"}
    assert cell.pid is None
    assert cell.stats.mem_bytes == 0
    assert "closed" in cell.termination_reason


def test_a_new_cells_process_is_known():
    for _ in range(500):
        cell = new_cell()
        pid = cell.pid
        cell.kill()
        assert pid is not None


def test_leaving_the_block_ends_the_cell():
    with new_cell() as cell:
        pid = cell.pid
    assert pid not in children()


def test_leaving_the_block_by_an_error_ends_the_cell_too():
    with contextlib.suppress(KeyError), new_cell() as cell:
        cell.exec("while True: pass")
        raise KeyError
    with pytest.raises(pyisolate.CellDied):
        cell.recv(PATIENCE)


def test_closing_waits_for_what_runs():
    cell = new_cell(allowed_imports=["time"])
    cell.exec("import time; time.sleep(0.3); post('finished')")
    cell.close(timeout=PATIENCE)
    assert drain(cell) == ["finished"]


def test_closing_kills_what_does_not_end():
    cell = new_cell()
    handle = cell.exec("while True: pass")
    cell.close(timeout=0.1)
    with pytest.raises(pyisolate.CellDied):
        handle.wait(PATIENCE)
    assert_serves()


def test_closing_and_killing_twice_is_fine():
    cell = new_cell()
    for _ in range(2):
        cell.close()
        cell.kill()
        cell.close(timeout=0)
    assert "closed" in cell.termination_reason


def test_after_the_end_everything_says_so():
    for end in (pyisolate.Cell.close, pyisolate.Cell.kill):
        cell = new_cell()
        end(cell)
        for operation in (
            lambda cell: cell.exec("pass"),
            lambda cell: cell.call("math.sqrt", 2),
            lambda cell: cell.post(1),
            lambda cell: cell.recv(),
            lambda cell: cell.recv(0),
        ):
            with pytest.raises(pyisolate.CellDied):
                operation(cell)
        assert cell.denials == []
        assert cell.name


def test_a_handle_outlives_its_cell():
    cell = new_cell()
    good = cell.exec("pass")
    good.wait(PATIENCE)
    bad = cell.exec("1 / 0")
    until(bad.done)
    running = cell.exec("while True: pass")
    cell.kill()
    good.wait(PATIENCE)
    with pytest.raises(pyisolate.GuestError):
        bad.wait(PATIENCE)
    with pytest.raises(pyisolate.CellDied):
        running.wait(PATIENCE)
    assert running.done()


@pytest.mark.parametrize("ending", ["kill", "close"])
@pytest.mark.parametrize("waiting", ["recv", "call", "wait", "post"])
def test_a_host_thread_that_waits_is_woken_when_the_cell_ends(waiting, ending):
    cell = new_cell(allowed_imports=["time"])
    handle = None if waiting == "recv" else cell.exec("import time; time.sleep(50)")

    def flood():
        while True:
            cell.post("x" * 10_000, timeout=60)

    operations = {
        "recv": cell.recv,
        "call": lambda: cell.call("time.sleep", 50),
        "wait": lambda: handle.wait(),
        "post": flood,
    }
    with ThreadPoolExecutor(4) as pool:
        waits = [pool.submit(operations[waiting]) for _ in range(3)]
        assert not until_done(waits, 0.3)
        end = cell.kill if ending == "kill" else lambda: cell.close(timeout=0.1)
        pool.submit(end).result(PATIENCE)
        for wait in waits:
            with pytest.raises(pyisolate.CellDied):
                wait.result(PATIENCE)
    assert_serves()


def until_done(futures, seconds):
    gate = threading.Event()
    gate.wait(seconds)
    return any(future.done() for future in futures)


def test_a_host_thread_in_recv_is_woken_when_the_guest_ends_itself():
    with new_cell(allowed_imports=["os", "time"]) as cell, ThreadPoolExecutor() as pool:
        wait = pool.submit(cell.recv)
        cell.exec("import os, time; time.sleep(0.2); os._exit(5)")
        with pytest.raises(pyisolate.CellDied, match="status 5"):
            wait.result(PATIENCE)


def test_a_cell_that_is_forgotten_is_killed():
    cell = new_cell()
    cell.exec("while True: pass")
    name, pid, gone = cell.name, cell.pid, weakref.ref(cell)
    del cell
    gc.collect()
    assert gone() is None
    assert until(lambda: pid not in children())
    assert name not in pyisolate.list_active()


def test_a_handle_keeps_no_forgotten_cell_alive():
    handle = new_cell().exec("while True: pass")
    gc.collect()
    with pytest.raises(pyisolate.CellDied):
        handle.wait(PATIENCE)


def test_ten_cells_work_at_once():
    cells = [new_cell(allowed_imports=["time", "math"]) for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(lambda cell: cell.call("math.factorial", 2000), cells))
    assert len(set(results)) == 1
    for number, cell in enumerate(cells):
        cell.exec(f"post({number}); post(recv(20)); post('end')")
    # Each is half way through when the last has begun.
    for number, cell in enumerate(cells):
        assert cell.recv(PATIENCE) == number
    for number, cell in enumerate(cells):
        cell.post(number * 10)
    for number, cell in enumerate(cells):
        assert cell.recv(PATIENCE) == number * 10
        assert cell.recv(PATIENCE) == "end"
        cell.close()


def test_one_cells_end_is_no_others():
    with new_cell(allowed_imports=["os"]) as victim, new_cell() as neighbour:
        victim.exec("import os; os._exit(1)")
        with pytest.raises(pyisolate.CellDied):
            victim.recv(PATIENCE)
        run(neighbour, "post('well')")
        assert neighbour.recv(PATIENCE) == "well"


def test_an_error_that_nobody_saw_is_logged_at_the_end(caplog):
    cell = new_cell()
    until(cell.exec("raise ValueError('unseen')").done)
    with caplog.at_level(logging.WARNING, "pyisolate"):
        cell.close()
        cell.close()
    said = [record.getMessage() for record in caplog.records if "unseen" in record.getMessage()]
    assert len(said) == 1
    assert cell.name in said[0]
    assert "Traceback" in said[0]


def test_an_error_that_was_seen_is_not_logged_at_the_end(caplog):
    with new_cell() as cell:
        for take in (lambda handle: handle.wait(PATIENCE), lambda _: cell.recv(PATIENCE)):
            with pytest.raises(pyisolate.GuestError):
                take(cell.exec("raise ValueError('seen')"))
    assert "seen" not in caplog.text


def test_shutdown_ends_every_cell_and_can_be_done_twice():
    supervisor = pyisolate.Supervisor()
    before = set(children())
    cells = [supervisor.spawn(f"c{number}") for number in range(3)]
    cells[0].exec("while True: pass")
    assert supervisor.list_active() == ["c0", "c1", "c2"]
    supervisor.shutdown()
    supervisor.shutdown()
    assert supervisor.list_active() == []
    assert set(children()) <= before
    for cell in cells:
        with pytest.raises(pyisolate.CellDied):
            cell.recv(PATIENCE)
        cell.close()
    with pytest.raises(pyisolate.SandboxError, match="shut down"):
        supervisor.spawn("late")
    with pytest.raises(pyisolate.SandboxError, match="shut down"):
        supervisor.template()


def test_a_supervisor_ends_when_it_and_its_cells_are_forgotten():
    before = set(children())
    supervisor = pyisolate.Supervisor()
    cell = supervisor.spawn("orphan")
    assert set(children()) > before
    del supervisor, cell
    gc.collect()
    assert until(lambda: set(children()) <= before)


def test_the_packages_own_supervisor_starts_afresh_after_shutdown():
    cell = new_cell()
    pyisolate.shutdown()
    pyisolate.shutdown()
    assert pyisolate.list_active() == []
    with pytest.raises(pyisolate.CellDied):
        cell.exec("pass")
    assert_serves()
