"""`call`: what its target may be, what it returns, and how it fails."""

from pyisolate.conformance.host import SHORT, Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("calls")

_IMPORTS = ("math", "os.path", "json", "collections", "operator")

_CALLS: dict[str, tuple[str, tuple[object, ...], dict[str, object]]] = {
    "a function": ("math.sqrt", (16,), {}),
    "a function of a module below": ("os.path.join", ("a", "b"), {}),
    "a function of a module that is imported for it": ("json.decoder.scanstring", ('x"', 0), {}),
    "keywords": ("json.dumps", ({"b": 1, "a": 2},), {"sort_keys": True}),
    "a class": ("collections.Counter", ("aab",), {}),
    "a method of a class": ("collections.OrderedDict.fromkeys", (["a", "b"],), {}),
    "a result of None": ("operator.setitem", ({}, 1, 2), {}),
    "a bool": ("operator.lt", (1, 2), {}),
    "a large int": ("math.factorial", (100,), {}),
}
_NOT_THERE = (
    "math.no_such",
    "math.sqrt.no_such",
    "math.pi",
    "collections.no_such.f",
    "__main__.no_such",
    "no_such.f",
)
_NOT_GRANTED = (
    "os.remove",
    "os.getpid",
    "subprocess.run",
    "no_such_module.f",
    "builtins.eval",
    "__builtins__.eval",
    "sys.exit",
    "importlib.import_module",
    "_thread.start_new_thread",
    "pyisolate.spawn",
)
_MALFORMED = ("sqrt", "", "post", "eval")
_ODD = (".", "..", ".math.sqrt", "math.", "math..sqrt", "math .sqrt", "a\0.b", "ü.ï", " . ")


def _call(target: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Steps:
    def steps(host: Host) -> None:
        host.spawn(allowed_imports=_IMPORTS).call(target, *args, **kwargs)

    return steps


def _failing(target: str, message: bool) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn(allowed_imports=_IMPORTS)
        cell.failing_call(target, (1,), message=message)
        cell.call("math.sqrt", 4)
        cell.denials()

    return steps


for _name, (_target, _args, _kwargs) in _CALLS.items():
    GROUP.add(_name, _call(_target, _args, _kwargs))
for _target in _NOT_THERE:
    GROUP.add(f"not there/{_target}", _failing(_target, message=False))
for _target in _NOT_GRANTED:
    GROUP.add(f"not granted/{_target}", _failing(_target, message=True))
for _target in _MALFORMED:
    GROUP.add(f"no dot/{_target!a}", _failing(_target, message=True))
for _target in _ODD:
    GROUP.add(f"odd/{_target!a}".replace("\\", "-"), _failing(_target, message=False))


@GROUP.program()
def a_target_without_a_dot_is_told_what_is_missing(host: Host) -> None:
    cell = host.spawn()
    cell.failing_call(
        "sqrt", says=["call target 'sqrt' must include a module path (e.g. 'module.func')"]
    )


@GROUP.program()
def a_target_that_is_too_long(host: Host) -> None:
    cell = host.spawn()
    host.write("call of a target of 2002 characters")
    host.attempt(lambda: cell.cell.call("m." + "x" * 2000), says=["1024"])
    cell.run("post('still here')")


@GROUP.program()
def functions_methods_and_classes_of_the_guest(host: Host) -> None:
    cell = host.spawn()
    cell.exec(
        """
class Adder:
    def __init__(self, n): self.n = n
    @staticmethod
    def add(a, b): return a + b
    @classmethod
    def name(cls): return cls.__name__
    def more(self, m): return self.n + m
    def __call__(self, m): return self.n * m
five = Adder(5)
"""
    )
    cell.call("__main__.Adder.add", 1, 2)
    cell.call("__main__.Adder.name")
    cell.call("__main__.five.more", 3)
    cell.call("five.more", 4)
    cell.call("__main__.five", 4)
    cell.failing_call("__main__.five.n", message=False)
    cell.call("__main__.Adder", 1)


@GROUP.program()
def any_name_of_an_argument(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def f(*args, **kwargs): return [list(args), kwargs]")
    cell.call("__main__.f")
    cell.call("__main__.f", 1, a=2, func=5, args=6, kwargs=7)
    cell.call("__main__.f", **{"not a name": 1, "": 2, "ü": 3})


@GROUP.program()
def wrong_arguments(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def f(a, *, b): return a, b")
    cell.failing_call("__main__.f", message=False)
    cell.failing_call("__main__.f", (1, 2), message=False)
    cell.failing_call("__main__.f", (1,), {"c": 3}, message=False)
    cell.call("__main__.f", 1, b=2)


@GROUP.program()
def private_names_of_the_guest(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def _hidden(): return 1\nclass C:\n    @staticmethod\n    def __x(): return 2")
    cell.call("__main__._hidden")
    cell.failing_call("__main__._C__x", message=False)
    cell.call("__main__.C._C__x")


@GROUP.program()
def recursion_and_posts_from_a_call(host: Host) -> None:
    cell = host.spawn()
    cell.exec(
        "def fib(n):\n    if n == 0: post('bottom')\n"
        "    return n if n < 2 else fib(n - 1) + fib(n - 2)"
    )
    cell.call("__main__.fib", 5)
    cell.take_all()


@GROUP.program()
def prints_from_a_call(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def f():\n    print('working', end='')\n    return 1")
    cell.call("__main__.f")
    cell.take_all()


@GROUP.program()
def a_call_that_receives(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def f(): return [recv(10), recv(10)]")
    cell.post("one")
    cell.post("two")
    cell.call("__main__.f")


@GROUP.program()
def a_timeout_leaves_the_cell_and_nobody_gets_the_late_result(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def slow(n): return recv(20), n")
    cell.failing_call("__main__.slow", (1,), timeout=SHORT)
    cell.post("go")
    cell.exec("def quick(): return 'quick'")
    cell.call("__main__.quick")
    cell.recv(timeout=SHORT)


@GROUP.program()
def a_late_error_is_nobodys(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def slow():\n    recv(20)\n    raise ValueError('late')\ndef quick(): return 1")
    cell.failing_call("__main__.slow", timeout=SHORT)
    cell.post("go")
    cell.call("__main__.quick")
    cell.recv(timeout=SHORT)


@GROUP.program()
def a_generator_is_no_result(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def f(): yield 1\ndef g(): return list(f())")
    cell.failing_call("__main__.f", message=False)
    cell.call("__main__.g")


@GROUP.program()
def a_coroutine_is_no_result(host: Host) -> None:
    cell = host.spawn()
    cell.exec("class C:\n    def __await__(self): yield\ndef f(): return C()")
    cell.call("__main__.f")


@GROUP.program()
def a_hundred_calls(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def square(n): return n * n")
    host.told("squares", [cell.cell.call("__main__.square", n, timeout=20) for n in range(100)])
