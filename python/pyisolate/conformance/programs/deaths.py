"""How cells end: closed, killed, or by themselves; and what of them can still be had."""

from collections.abc import Callable

import pyisolate
from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("deaths")


def _after(host: Host, cell: pyisolate.Cell) -> None:
    """Every operation on a cell that ended raises its end."""
    operations: dict[str, Callable[[], object]] = {
        "exec": lambda: cell.exec("pass"),
        "call": lambda: cell.call("math.sqrt", 2),
        "post": lambda: cell.post(1),
        "recv": lambda: cell.recv(),
        "recv without waiting": lambda: cell.recv(0),
    }
    for name, operation in operations.items():
        host.write(name)
        host.attempt(operation)


def _ending(way: str) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn()
        cell.exec("for number in range(20): post(number)\nprint('printed')")
        getattr(cell, way)()
        cell.death()
        _after(host, cell.cell)
        getattr(cell, way)()
        host.told("denials", len(cell.cell.denials))
        host.told("it is listed", cell.cell.name in host.supervisor.list_active())
        host.told("it says why", cell.cell.termination_reason is not None)
        host.still_serves()

    return steps


for _way in ("kill", "close"):
    GROUP.add(f"{_way}/what was sent before", _ending(_way))


@GROUP.program()
def closing_waits_for_what_runs(host: Host) -> None:
    cell = host.spawn(allowed_imports=["time"])
    cell.start("import time\ntime.sleep(0.3)\npost('finished')")
    cell.close()
    cell.death()


@GROUP.program()
def closing_waits_for_everything_that_was_sent(host: Host) -> None:
    cell = host.spawn()
    for number in range(10):
        cell.start(f"post({number})")
    cell.close()
    cell.death()


@GROUP.program()
def closing_kills_what_does_not_end(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("while True: pass")
    cell.close(timeout=0.1)
    cell.wait(handle)
    cell.death()
    host.still_serves()


@GROUP.program()
def killing_does_not_wait(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("post('begun')\nwhile True: pass")
    cell.recv()
    cell.kill()
    cell.wait(handle)
    host.told("done", handle.done())
    cell.death()


@GROUP.program()
def killing_a_guest_that_waits(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("post('begun')\nrecv()")
    cell.recv()
    cell.kill()
    cell.wait(handle)
    host.still_serves()


@GROUP.program()
def handles_outlive_their_cell(host: Host) -> None:
    cell = host.spawn()
    good = cell.start("pass")
    bad = cell.start("raise ValueError('told late')")
    cell.until(good)
    cell.until(bad)
    running = cell.start("while True: pass")
    cell.kill()
    cell.wait(good)
    cell.wait(bad)
    cell.wait(running)


@GROUP.program()
def an_error_that_nobody_saw_is_received_after_the_end(host: Host) -> None:
    cell = host.spawn()
    cell.until(cell.start("post(1)\nraise ValueError('unseen')"))
    cell.kill()
    cell.death()


@GROUP.program()
def the_block_ends_the_cell(host: Host) -> None:
    with host.supervisor.spawn("block", backend=host.backend) as cell:
        cell.exec("post(1)").wait(20)
    host.told("received", cell.recv(0))
    _after(host, cell)


@GROUP.program()
def the_block_left_by_an_error_ends_the_cell(host: Host) -> None:
    cell = host.supervisor.spawn("block", backend=host.backend)
    try:
        with cell:
            cell.exec("while True: pass")
            raise KeyError("the host's own")
    except KeyError as error:
        host.told("the host's error", str(error))
    _after(host, cell)


@GROUP.program()
def a_name_is_taken_and_free_again(host: Host) -> None:
    cell = host.spawn()
    host.write("spawn under the same name")
    host.attempt(
        lambda: host.supervisor.spawn(cell.cell.name, backend=host.backend), says=[cell.cell.name]
    )
    cell.kill()
    with host.supervisor.spawn(cell.cell.name, backend=host.backend) as again:
        host.told("name", again.name)


@GROUP.program()
def names_that_are_none(host: Host) -> None:
    for name in ("", "x" * 65, "a b", "a/b", "é", "a\n", "a\0b"):
        host.write(f"spawn of {name!a}")
        host.attempt(lambda name=name: host.supervisor.spawn(name, backend=host.backend))  # type: ignore[misc]
    for good in ("a", "A-1_b.c", "x" * 64, "-", "0"):
        with host.supervisor.spawn(good, backend=host.backend) as cell:
            host.told("name", cell.name)


@GROUP.program()
def what_a_cell_shows(host: Host) -> None:
    cell = host.spawn()
    cell.exec("post(1)")
    host.told("backend", cell.cell.backend == host.backend)
    host.told("termination_reason", cell.cell.termination_reason)
    host.told("denied", cell.cell.stats.denied)
    host.told("listed", cell.cell.name in host.supervisor.list_active())
    statuses = {layer.status for layer in cell.cell.confinement}
    host.told("layers say how far", statuses <= {"enforced", "partial", "missing"})


@GROUP.program()
def one_cells_end_is_no_others(host: Host) -> None:
    victim, neighbour = host.spawn(), host.spawn()
    handle = neighbour.start("post(recv(20))")
    victim.start("while True: pass")
    victim.kill()
    neighbour.post("well")
    neighbour.wait(handle)
    neighbour.take_all()


@GROUP.program()
def many_cells_one_after_another(host: Host) -> None:
    for number in range(20):
        with host.supervisor.spawn("again", backend=host.backend) as cell:
            cell.exec(f"post({number} ** 2)")
            host.told("square", cell.recv(20))


@GROUP.program()
def a_guest_that_clears_its_namespace(host: Host) -> None:
    cell = host.spawn()
    cell.start("globals().clear()")
    cell.kill()
    host.still_serves()


_BY_ITSELF = {
    "os._exit": "import os; os._exit(3)",
    "abort": "import os; os.abort()",
    "a null pointer": "import ctypes; ctypes.string_at(0)",
}


def _itself(source: str) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn(allowed_imports=["os", "ctypes"])
        handle = cell.start(f"for number in range(100): post(number)\n{source}")
        cell.wait(handle)
        cell.death()
        host.still_serves()

    return steps


for _name, _source in _BY_ITSELF.items():
    GROUP.add(f"by itself/{_name}", _itself(_source), ["own process"])


@GROUP.program("own process")
def no_signal_is_sent(host: Host) -> None:
    cell = host.spawn(allowed_imports=["os", "signal"])
    cell.exec("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", message=False)
    cell.run("post('still here')")
