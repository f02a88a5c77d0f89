"""A template's cells start with what it did, and are strangers to each other."""

import gc

import numpy as np
import pytest

import pyisolate
from cells import PATIENCE, assert_serves, children, run, until


@pytest.fixture
def supervisor():
    with pyisolate.Supervisor() as supervisor:
        yield supervisor


def test_cells_start_with_what_the_template_did(supervisor):
    template = supervisor.template(
        imports=["json"], setup="import math\nanswer = 42\ndef f(): return answer"
    )
    assert template.alive
    for name in ("a", "b"):
        with supervisor.spawn(name, template=template) as cell:
            assert cell.call("__main__.f", timeout=PATIENCE) == 42
            run(cell, "post([answer, json.loads('[1]'), math.gcd(4, 6)])")
            assert cell.recv(PATIENCE) == [42, [1], 2]


def test_cells_of_one_template_are_independent(supervisor):
    template = supervisor.template(setup="state = [1]")
    with (
        supervisor.spawn("a", template=template) as first,
        supervisor.spawn("b", template=template) as second,
    ):
        run(first, "state.append(2); other = 3")
        run(second, "post([state, 'other' in globals()])")
        assert second.recv(PATIENCE)[0] == [1]
    with supervisor.spawn("c", template=template) as third:
        run(third, "post(state)")
        assert third.recv(PATIENCE) == [1]


def test_a_templates_imports_give_its_cells_no_right_to_import(supervisor):
    template = supervisor.template(imports=["json", "os.path"], setup="import socket")
    with supervisor.spawn("a", template=template) as cell:
        for module in ("csv", "json", "socket"):
            with pytest.raises(pyisolate.PolicyError, match=module):
                run(cell, f"import {module}")
        with pytest.raises(pyisolate.PolicyError):
            cell.call("csv.reader", [])
    with supervisor.spawn("b", template=template, allowed_imports=["csv"]) as cell:
        run(cell, "import csv")


def test_a_cell_of_a_template_has_its_limits_and_its_jail(supervisor):
    template = supervisor.template(setup="pass")
    with supervisor.spawn("a", template=template, mem_bytes=64 << 20, cpu_ms=200) as cell:
        lacking = {layer.name for layer in cell.confinement if layer.status != "enforced"}
        assert lacking == {"clock"}, cell.confinement
        with pytest.raises(pyisolate.CPUExceeded):
            cell.exec("while True: pass").wait(PATIENCE)
    with (
        supervisor.spawn("b", template=template, mem_bytes=64 << 20) as cell,
        pytest.raises(pyisolate.MemoryExceeded),
    ):
        cell.exec("data = bytearray(10**9)").wait(PATIENCE)
    with (
        supervisor.spawn("c", template=template, allowed_imports=["os"]) as cell,
        pytest.raises(pyisolate.GuestError),
    ):
        run(cell, "import os; os.fork()")


def test_a_set_up_that_raises(supervisor):
    with pytest.raises(pyisolate.GuestError) as caught:
        supervisor.template(setup="x = 1\nraise ValueError('no good')")
    assert caught.value.type == "ValueError"
    assert caught.value.message == "no good"
    assert "line 2" in caught.value.traceback
    assert_serves(supervisor)


@pytest.mark.parametrize("module", ["no_such_module", "os.no_such_module"])
def test_an_import_that_is_not_there(supervisor, module):
    with pytest.raises(pyisolate.GuestError, match="no_such_module"):
        supervisor.template(imports=[module])


@pytest.mark.parametrize("module", ["", "a b", "os; print()", "os\nprint()", "a..b"])
def test_what_is_no_module_name_is_refused(supervisor, module):
    with pytest.raises(ValueError, match="module name"):
        supervisor.template(imports=[module])


def test_one_text_is_no_list_of_modules(supervisor):
    with pytest.raises(TypeError):
        supervisor.template(imports="json")
    with pytest.raises(TypeError):
        supervisor.spawn("a", allowed_imports="json")


def test_a_syntax_error_in_the_set_up(supervisor):
    with pytest.raises(pyisolate.GuestError, match="SyntaxError"):
        supervisor.template(setup="def")


def test_a_set_up_that_leaves_threads_is_refused(supervisor):
    with pytest.raises(pyisolate.SandboxError, match="threads"):
        supervisor.template(
            setup="import threading, time\n"
            "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
        )
    assert_serves(supervisor)


def test_a_set_up_that_ends_its_threads_is_fine(supervisor):
    template = supervisor.template(
        setup="import threading\nthread = threading.Thread(target=print)\n"
        "thread.start(); thread.join()"
    )
    with supervisor.spawn("a", template=template, allowed_imports=["threading"]) as cell:
        run(cell, "import threading; post(threading.active_count())")
        assert cell.recv(PATIENCE) == 1


@pytest.mark.parametrize(
    "setup",
    [
        "import os; os._exit(1)",
        "import os; os.kill(os.getpid(), 9)",
        "import ctypes; ctypes.string_at(0)",
    ],
)
def test_a_set_up_that_ends_its_process(supervisor, setup):
    with pytest.raises(pyisolate.SandboxError):
        supervisor.template(setup=setup)
    assert_serves(supervisor)


@pytest.mark.parametrize(
    "attack",
    [
        "open('/etc/passwd')",
        "open('/tmp/x', 'w')",
        "__import__('os').listdir('/proc')",
        "__import__('_socket').socket()",
        "__import__('socket').socket(__import__('socket').AF_UNIX)",
        "__import__('os').fork()",
        "__import__('subprocess').run(['true'])",
    ],
)
def test_a_set_up_is_jailed(supervisor, attack):
    template = supervisor.template(
        setup=f"try:\n    {attack}\n    outcome = 'done'\nexcept BaseException as error:\n"
        "    outcome = type(error).__name__"
    )
    with supervisor.spawn("a", template=template) as cell:
        run(cell, "post(outcome)")
        assert cell.recv(PATIENCE) != "done"


def test_a_set_up_cannot_use_the_channel_of_its_cells(supervisor):
    template = supervisor.template(setup="post('hello'); print('printed'); log('info', 'x')")
    with supervisor.spawn("a", template=template) as cell:
        run(cell, "post('first')")
        assert cell.recv(PATIENCE) == "first"


def test_a_set_up_that_asks_for_a_capability(supervisor):
    with pytest.raises(pyisolate.SandboxError):
        supervisor.template(setup="request('filesystem', 'read')")
    assert_serves(supervisor)


def test_a_template_ends_when_it_and_its_cells_are_forgotten(supervisor):
    supervisor.spawn("warm").close()
    before = set(children())
    template = supervisor.template(setup="x = 1")
    cell = supervisor.spawn("a", template=template)
    del template
    gc.collect()
    assert cell.call("__main__.x.bit_length", timeout=PATIENCE) == 1
    del cell
    gc.collect()
    assert until(lambda: set(children()) <= before)
    assert_serves(supervisor)


def test_a_template_is_its_supervisors(supervisor):
    template = supervisor.template()
    with pyisolate.Supervisor() as other, pytest.raises(TypeError, match="another supervisor"):
        other.spawn("a", template=template)


def test_a_template_ends_with_its_supervisor(supervisor):
    before = set(children())
    template = supervisor.template()
    supervisor.spawn("a", template=template)
    supervisor.shutdown()
    assert not template.alive
    assert set(children()) <= before
    with pytest.raises(pyisolate.SandboxError):
        supervisor.spawn("b", template=template)


def test_a_hostile_template_harms_its_own_cells_alone(supervisor):
    setup = """
import os
for fd in range(3, 64):
    for message in (b"garbage", b"\\xff" * 64):
        try: os.write(fd, message)
        except OSError: pass
"""
    with pytest.raises(pyisolate.SandboxError):
        spawn_from(supervisor, setup)
    assert_serves(supervisor)


def spawn_from(supervisor, setup):
    return supervisor.spawn("a", template=supervisor.template(setup=setup))


def test_a_template_that_closes_its_descriptors(supervisor):
    close = "import os\nfor fd in range(3, 64):\n    try: os.close(fd)\n    except OSError: pass"
    with pytest.raises(pyisolate.SandboxError):
        spawn_from(supervisor, close)
    assert_serves(supervisor)


def test_numpy_is_loaded_and_works(supervisor):
    template = supervisor.template(imports=["numpy"], setup="base = numpy.arange(1000.0)")
    with supervisor.spawn("a", template=template, allowed_imports=["numpy"]) as cell:
        cell.exec("import numpy; post(base * recv(5) @ base)")
        cell.post(np.array([2.0]))
        assert float(cell.recv(PATIENCE)) == 2 * sum(number**2 for number in range(1000))
        run(cell, "post(float(numpy.linalg.inv(numpy.eye(300)).sum()))")
        assert cell.recv(PATIENCE) == 300.0


def test_many_templates_at_once(supervisor):
    templates = [supervisor.template(setup=f"number = {number}") for number in range(5)]
    for number, template in enumerate(templates):
        with supervisor.spawn("a", template=template) as cell:
            run(cell, "post(number)")
            assert cell.recv(PATIENCE) == number


def test_set_up_code_that_takes_too_much_memory_is_ended(supervisor):
    with pytest.raises(pyisolate.MemoryExceeded):
        supervisor.template(setup="kept = []\nwhile True: kept.append(b'x' * (1 << 20))")
    with supervisor.spawn("after", template=supervisor.template(setup="x = 1")) as cell:
        assert cell.call("__main__.x.bit_length") == 1
