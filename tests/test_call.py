"""`call`: gets the result of a dotted function, or its error."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

import pyisolate
from cells import PATIENCE, new_cell, run


@pytest.fixture
def cell():
    with new_cell(
        allowed_imports=["math", "os.path", "collections", "json", "time", "types", "threading"]
    ) as cell:
        yield cell


def call(cell, target, /, *args, **kwargs):
    return cell.call(target, *args, timeout=PATIENCE, **kwargs)


def test_functions_of_modules(cell):
    assert call(cell, "math.sqrt", 16) == 4.0
    assert call(cell, "os.path.join", "a", "b") == "a/b"
    assert call(cell, "json.decoder.scanstring", 'x"', 0) == ("x", 2)
    assert call(cell, "json.dumps", {"b": 1, "a": 2}, sort_keys=True) == '{"a": 2, "b": 1}'


def test_classes_and_methods(cell):
    run(
        cell,
        "class Adder:\n  def __init__(self, n): self.n = n\n  @staticmethod\n"
        "  def add(a, b): return a + b\n  def more(self, m): return self.n + m\nfive = Adder(5)",
    )
    assert call(cell, "__main__.Adder.add", 1, 2) == 3
    assert call(cell, "__main__.five.more", 3) == 8
    assert call(cell, "five.more", 4) == 9


def test_functions_of_the_namespace_keep_its_state(cell):
    run(cell, "total = 0\ndef add(n):\n    global total\n    total += n\n    return total")
    assert [call(cell, "__main__.add", number) for number in range(5)] == [0, 1, 3, 6, 10]


def test_keyword_arguments(cell):
    run(cell, "def f(*args, **kwargs): return [list(args), kwargs]")
    assert call(cell, "__main__.f", 1, a=2, self=3, target=4, func=5) == [
        [1],
        {"a": 2, "self": 3, "target": 4, "func": 5},
    ]


def test_recursion_and_calls_that_post(cell):
    run(
        cell,
        "def fib(n):\n    if n == 0: post('bottom')\n"
        "    return n if n < 2 else fib(n - 1) + fib(n - 2)",
    )
    assert call(cell, "__main__.fib", 5) == 5
    assert cell.recv(PATIENCE) == "bottom"


def test_a_target_needs_a_dot(cell):
    message = "call target 'sqrt' must include a module path (e.g. 'module.func')"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(cell, "sqrt", 2)


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("math.no_such", pyisolate.GuestError),
        ("math.sqrt.no_such", pyisolate.GuestError),
        ("math.pi", pyisolate.GuestError),
        ("__main__.no_such", pyisolate.GuestError),
        ("collections.no_such.f", pyisolate.GuestError),
        ("os.remove", pyisolate.PolicyError),
        ("subprocess.run", pyisolate.PolicyError),
        ("no_such_module.f", pyisolate.PolicyError),
        ("builtins.eval", pyisolate.PolicyError),
        ("__builtins__.eval", pyisolate.PolicyError),
        (".", pyisolate.SandboxError),
        ("..", pyisolate.SandboxError),
        (".math.sqrt", pyisolate.SandboxError),
        ("math.", pyisolate.SandboxError),
        ("math..sqrt", pyisolate.SandboxError),
        ("math .sqrt", pyisolate.SandboxError),
        ("a\0.b", pyisolate.SandboxError),
        ("ü.ï", pyisolate.SandboxError),
    ],
)
def test_targets_that_are_not_there_or_not_granted(cell, target, error):
    with pytest.raises(error):
        call(cell, target, 1)
    assert call(cell, "math.sqrt", 4) == 2.0


def test_a_target_that_is_too_long(cell):
    with pytest.raises(ValueError, match="1024"):
        call(cell, "m." + "x" * 2000)
    assert call(cell, "math.sqrt", 4) == 2.0


def test_a_refused_call_names_the_grant(cell):
    with pytest.raises(pyisolate.PolicyError, match=r"allowed_imports=\['shutil'\]"):
        call(cell, "shutil.rmtree", "/")


def test_an_error_is_raised_with_its_traceback(cell):
    run(cell, "def f(): raise LookupError('lost')")
    with pytest.raises(pyisolate.GuestError) as caught:
        call(cell, "__main__.f")
    assert (caught.value.type, caught.value.message) == ("LookupError", "lost")
    assert "in f" in caught.value.traceback
    with pytest.raises(pyisolate.TimeoutError):
        cell.recv(0.05)


@pytest.mark.parametrize(
    "error", ["SystemExit(1)", "KeyboardInterrupt()", "StopIteration(5)", "GeneratorExit()"]
)
def test_every_exception_is_the_calls_error(cell, error):
    run(cell, f"def f(): raise {error}")
    with pytest.raises(pyisolate.GuestError, match=error.partition("(")[0]):
        call(cell, "__main__.f")
    assert call(cell, "math.sqrt", 4) == 2.0


UNSENDABLE = {
    "a lambda": ("lambda: 0", "lambda"),
    "an instance": ("Own()", "Own"),
    "a class": ("Own", "Own"),
    "a namespace": ("types.SimpleNamespace(a=1)", "SimpleNamespace"),
    "a module": ("types", "module"),
    "a generator": ("(x for x in ())", "generator"),
    "a lock": ("threading.Lock()", "lock"),
    "an exception": ("ValueError(1)", "ValueError"),
    "a builtin": ("len", "len"),
    "a named tuple": ("collections.namedtuple('P', 'x')(1)", "P"),
    "one deep inside": ("{'a': [1, (2, Own())]}", "Own"),
    "a subclass of dict": ("Sub(a=1)", "Sub"),
    "one that lies": ("Liar()", "Liar"),
}


@pytest.mark.parametrize(("value", "name"), UNSENDABLE.values(), ids=UNSENDABLE)
@pytest.mark.parametrize("way", ["call", "post", "log", "metric"])
def test_what_cannot_be_sent_is_refused_by_name_where_it_is_sent(cell, value, name, way):
    run(
        cell,
        "import types, threading, collections\nclass Own: pass\nclass Sub(dict): pass\n"
        "class Liar:\n  def __reduce__(self): return dict, ()\n"
        f"def f(): return {value}",
    )
    sources = {
        "post": "post(f())",
        "log": "log('i', 'm', x=f())",
        "metric": "metric('m', 1, {'x': f()})",
    }
    send = (lambda: run(cell, sources[way])) if way in sources else lambda: call(cell, "__main__.f")
    with pytest.raises(pyisolate.GuestError, match=name) as caught:
        send()
    assert caught.value.type in ("TypeError", "_pickle.PicklingError")
    if way != "call":
        assert "line 1" in caught.value.traceback
    assert call(cell, "math.sqrt", 4) == 2.0


def test_an_object_that_fails_to_pickle(cell):
    run(
        cell, "class Bad:\n  def __reduce_ex__(self, n): raise OSError('no')\ndef f(): return Bad()"
    )
    with pytest.raises(pyisolate.GuestError):
        call(cell, "__main__.f")
    assert call(cell, "math.sqrt", 4) == 2.0


def test_arguments_that_the_host_cannot_pickle(cell):
    with pytest.raises(Exception, match=r"(?i)pickle"):
        call(cell, "math.sqrt", lambda: 0)
    assert call(cell, "math.sqrt", 4) == 2.0


class Local:
    """A class that no cell can import."""


def test_arguments_that_the_guest_cannot_unpickle(cell):
    with pytest.raises(pyisolate.GuestError):
        call(cell, "math.sqrt", Local())
    assert call(cell, "math.sqrt", 4) == 2.0


def test_a_message_that_the_guest_cannot_unpickle(cell):
    cell.post(Local())
    cell.post("next")
    with pytest.raises(pyisolate.GuestError):
        run(cell, "recv(5)")
    run(cell, "post(recv(5))")
    assert cell.recv(PATIENCE) == "next"


def test_after_its_timeout_the_cell_serves_and_the_late_result_is_nobodys(cell):
    run(cell, "import time\ndef slow(n):\n    time.sleep(0.4)\n    return ('late', n)")
    for number in range(3):
        with pytest.raises(pyisolate.TimeoutError, match="call"):
            cell.call("__main__.slow", number, timeout=0.05)
    assert call(cell, "math.sqrt", 9) == 3.0
    with pytest.raises(pyisolate.TimeoutError):
        cell.recv(0.05)


def test_a_late_error_is_nobodys_result(cell):
    run(cell, "import time\ndef slow():\n    time.sleep(0.3)\n    raise ValueError('late')")
    with pytest.raises(TimeoutError):
        cell.call("__main__.slow", timeout=0.05)
    assert call(cell, "math.sqrt", 9) == 3.0


def test_calls_from_many_host_threads_get_their_own_results(cell):
    run(cell, "def f(n): return n * n")
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda n: call(cell, "__main__.f", n), range(2000)))
    assert results == [number * number for number in range(2000)]


def test_calls_execs_and_messages_from_many_host_threads(cell):
    run(cell, "def f(n):\n    post(n)\n    return n")

    def work(number):
        assert call(cell, "__main__.f", number) == number
        cell.exec(f"post({number})").wait(PATIENCE)
        return cell.recv(PATIENCE)

    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(work, range(200)))
    rest = [cell.recv(PATIENCE) for _ in range(200)]
    assert sorted(first + rest) == sorted([*range(200), *range(200)])


def test_a_call_during_an_exec_waits_for_its_end(cell):
    cell.exec("import time; time.sleep(0.2); x = 5\ndef f(): return x")
    assert call(cell, "__main__.f") == 5


def test_a_result_of_none(cell):
    run(cell, "def f(): pass")
    assert call(cell, "__main__.f") is None
