"""`exec`: returns at once, keeps its namespace, and tells an error once."""

import contextlib
import time

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, new_cell, run, until


@pytest.fixture
def cell():
    with new_cell(allowed_imports=["sys", "time", "types", "traceback", "threading", "gc"]) as cell:
        yield cell


def error_of(cell, source):
    with pytest.raises(pyisolate.GuestError) as caught:
        run(cell, source)
    return caught.value


def test_it_returns_at_once_with_a_handle(cell):
    handle = cell.exec("value = recv(20)")
    assert handle.done() is False
    with pytest.raises(pyisolate.TimeoutError, match="exec"):
        handle.wait(0.05)
    with pytest.raises(TimeoutError):
        handle.wait(timeout=0)
    cell.post(1)
    assert handle.wait(PATIENCE) is None
    assert handle.done() is True
    assert handle.wait(0) is None


def test_done_needs_no_waiting(cell):
    assert until(cell.exec("pass").done)
    assert until(cell.exec("1 / 0").done)


def test_the_namespace_persists(cell):
    run(cell, "import sys\nx = [1]\ndef f(): return x + [y]")
    run(cell, "y = 2")
    run(cell, "post(f()); post(__name__); post(sys.modules['__main__'].x)")
    assert [cell.recv(PATIENCE) for _ in range(3)] == [[1, 2], "__main__", [1]]


def test_operations_run_one_after_another(cell):
    handles = [cell.exec(f"post({number})") for number in range(300)]
    for handle in handles:
        handle.wait(PATIENCE)
    assert [cell.recv(PATIENCE) for _ in range(300)] == list(range(300))


def test_an_error_says_type_message_and_traceback(cell):
    error = error_of(cell, "def inner():\n    raise KeyError('gone')\n\ninner()\n")
    assert (error.type, error.message) == ("KeyError", "'gone'")
    assert str(error) == "KeyError: 'gone'"
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert "raise KeyError('gone')" in error.traceback
    assert "line 2, in inner" in error.traceback
    assert "pyisolate runtime" not in error.traceback


def test_an_error_told_by_the_handle_is_not_received_again(cell):
    error_of(cell, "1 / 0")
    run(cell, "post('next')")
    assert cell.recv(PATIENCE) == "next"


def test_an_error_that_was_received_is_not_told_by_the_handle_again(cell):
    handle = cell.exec("1 / 0")
    with pytest.raises(pyisolate.GuestError, match="ZeroDivisionError"):
        cell.recv(PATIENCE)
    handle.wait(PATIENCE)


def test_an_error_comes_behind_what_was_posted_before_it(cell):
    cell.exec("post(1); post(2); raise ValueError('third')")
    cell.exec("post(4)")
    assert [cell.recv(PATIENCE) for _ in range(2)] == [1, 2]
    with pytest.raises(pyisolate.GuestError, match="third"):
        cell.recv(PATIENCE)
    assert cell.recv(PATIENCE) == 4


def test_each_of_many_errors_is_told_once(cell):
    handles = [cell.exec(f"raise ValueError({number})") for number in range(20)]
    for handle in handles[::2]:
        with pytest.raises(pyisolate.GuestError):
            handle.wait(PATIENCE)
    told = []
    for _ in handles[1::2]:
        with pytest.raises(pyisolate.GuestError) as caught:
            cell.recv(PATIENCE)
        told.append(caught.value.message)
    assert told == [str(number) for number in range(1, 20, 2)]
    with pytest.raises(pyisolate.TimeoutError):
        cell.recv(0.05)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("raise SystemExit(3)", "SystemExit"),
        ("import sys; sys.exit()", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise BaseException('base')", "BaseException"),
        ("def", "SyntaxError"),
        ("  x = 1", "IndentationError"),
        ("x = '\\x00'", None),
        ("return 1", "SyntaxError"),
        ("await x", "SyntaxError"),
        ("raise ExceptionGroup('several', [ValueError(1), TypeError(2)])", "ExceptionGroup"),
        ("assert False", "AssertionError"),
        ("class Own(Exception): pass\nraise Own('mine')", "__main__.Own"),
    ],
)
def test_the_cell_survives_every_exception(cell, source, kind):
    if kind is None:
        run(cell, source)
    else:
        assert error_of(cell, source).type == kind
    run(cell, "post('still here')")
    assert cell.recv(PATIENCE) == "still here"


BROKEN = {
    "str raises": "class E(Exception):\n  def __str__(self): 1 / 0",
    "str is no str": "class E(Exception):\n  def __str__(self): return 5",
    "str exits": "class E(Exception):\n  def __str__(self): raise SystemExit",
    "str is a hostile str": "class S(str):\n  def __getitem__(self, i): 1 / 0\n"
    "  encode = None\nclass E(Exception):\n  def __str__(self): return S('x')",
    "str is huge": "class E(Exception):\n  def __str__(self): return 'x' * 50_000_000",
    "str is surrogates": "class E(Exception):\n  def __str__(self): return '\\udc80' * 100_000",
    "repr raises": "class E(Exception):\n  def __repr__(self): 1 / 0",
    "no module": "class E(Exception): __module__ = None",
    "strange module": "class E(Exception): __module__ = 5",
    "metaclass module raises": "class M(type):\n  @property\n  def __module__(self): 1 / 0\n"
    "class E(Exception, metaclass=M): pass",
    "metaclass name raises": "class M(type):\n  @property\n  def __qualname__(self): 1 / 0\n"
    "class E(Exception, metaclass=M): pass",
    "module's equality raises": "class S(str):\n  def __eq__(self, other): 1 / 0\n"
    "  __hash__ = str.__hash__\nclass E(Exception): __module__ = S('m')",
    "traceback raises": "class E(Exception):\n  __traceback__ = property(lambda self: 1 / 0)",
    "traceback is none": "class E(Exception):\n  __traceback__ = 5",
    "cause is a circle": "class E(Exception):\n  def __init__(self): self.__cause__ = self",
    "notes are strange": "class E(Exception): __notes__ = 5",
    "a huge name": "E = type('E' * 1_000_000, (Exception,), {})",
    "a name of surrogates": "E = type('E', (Exception,), {})\nE.__qualname__ = 'E\\udc80'",
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
def test_exceptions_that_are_broken_break_nothing(cell, source):
    error = error_of(cell, source + "\nraise E()")
    assert error.type
    assert len(error.message) + len(error.traceback) < 100_000
    run(cell, "post('still here')")
    assert cell.recv(PATIENCE) == "still here"


def test_a_huge_traceback_is_cut(cell):
    error = error_of(
        cell,
        "import sys; sys.setrecursionlimit(5000)\n"
        + "".join(f"def f{n}(): f{n + 1}()\n" for n in range(1500))
        + "def f1500(): raise ValueError('deep')\nf0()",
    )
    assert error.type == "ValueError"
    assert 1000 < len(error.traceback.encode()) <= 30 * 1024
    assert error.traceback.rstrip().endswith("ValueError: deep")


def test_a_long_chain_of_exceptions_is_cut(cell):
    error = error_of(
        cell,
        "error = ValueError('first')\nfor n in range(3000):\n"
        "    following = ValueError(n)\n    following.__cause__ = error\n    error = following\n"
        "raise error",
    )
    assert error.type == "ValueError"
    assert len(error.traceback.encode()) <= 30 * 1024


def test_the_traceback_module_may_be_broken_by_the_guest(cell):
    error = error_of(cell, "import traceback\ntraceback.format_exception = None\n1 / 0")
    assert error.type == "ZeroDivisionError"


def test_large_sources_run(cell):
    run(cell, "x = 1\n" * 200_000 + "post(x)")
    assert cell.recv(PATIENCE) == 1


def test_a_source_over_the_message_limit_is_refused():
    with new_cell(message_bytes_max=10_000) as cell:
        with pytest.raises(ValueError, match="message_bytes_max=10000"):
            cell.exec("#" * 20_000)
        run(cell, "pass")


@pytest.mark.parametrize("source", ["", "\n", "# nothing", "'ünïcödé 🐧'", "x = '''\r\n'''"])
def test_small_sources_run(cell, source):
    run(cell, source)


def test_a_source_with_a_null_byte_is_the_guests_error(cell):
    assert error_of(cell, "x = 1\0").type in ("SyntaxError", "ValueError")


def test_a_source_with_a_surrogate_is_refused(cell):
    with pytest.raises(UnicodeEncodeError):
        cell.exec("'\udc80'")
    run(cell, "pass")


@pytest.mark.parametrize("source", [None, 5, b"pass"])
def test_a_source_is_text(cell, source):
    with pytest.raises(TypeError):
        cell.exec(source)


def test_the_operations_are_builtins_and_nothing_else_of_ours_is_seen(cell):
    run(cell, "post(sorted(name for name in globals() if name != '__builtins__'))")
    seen = cell.recv(PATIENCE)
    assert not [name for name in seen if not name.startswith("__")]
    run(
        cell,
        "import sys\npost([name for name in sys.modules if 'isolate' in name or 'guest' in name])",
    )
    assert cell.recv(PATIENCE) == []
    run(cell, "post([f.__module__ for f in (post, recv, log, metric, request)])")
    assert set(cell.recv(PATIENCE)) == {"builtins"}


def test_a_name_that_the_guest_overwrites_is_its_own_affair(cell):
    run(cell, "send = post\npost = None\n__builtins__['print'] = None")
    run(cell, "send('fine')")
    assert cell.recv(PATIENCE) == "fine"


def test_deleting_the_whole_namespace_harms_that_cell_alone(cell):
    run(cell, "globals().clear()")
    with contextlib.suppress(pyisolate.SandboxError):
        run(cell, "x = 1")
    assert_serves()


def test_threads_go_on_after_their_exec(cell):
    run(
        cell,
        """
import threading, time
def work():
    for number in range(5):
        time.sleep(0.02)
        post(number)
threading.Thread(target=work).start()
""",
    )
    assert [cell.recv(PATIENCE) for _ in range(5)] == list(range(5))


def test_many_sources_leave_no_memory_behind(cell):
    source = "text = " + repr("x" * 20_000)
    for _ in range(50):
        run(cell, source)
    before = cell.stats.mem_bytes
    for _ in range(2000):
        cell.exec(source)
    run(cell, "pass")
    assert cell.stats.mem_bytes - before < 20 << 20


def test_a_handle_waits_without_a_busy_loop(cell):
    handle = cell.exec("import time; time.sleep(0.5)")
    before = time.thread_time()
    handle.wait(PATIENCE)
    assert time.thread_time() - before < 0.4
