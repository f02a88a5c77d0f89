"""`exec`: one namespace for the cell's life, one operation after another."""

from pyisolate.conformance.host import SHORT, Host
from pyisolate.conformance.program import Group

GROUP = Group("namespace")

GROUP.sources(
    {
        "nothing": "",
        "a comment": "# nothing",
        "only line ends": "\n\n",
        "one value": "post(6 * 7)",
        "a name of its own": "post(__name__)",
        "no names of ours": ("post(sorted(n for n in globals() if not n.startswith('__')))"),
        "the operations are builtins": (
            "post([f.__module__ for f in (post, recv, log, metric, request)])"
        ),
        "no host operations": (
            "import builtins as b\nfor name in ('spawn', 'kill', 'close', 'set_policy', 'limits'):\n"
            "    post((name, name in globals() or hasattr(b, name)))"
        ),
        "unicode names": "größe = 1\nпривет = 2\npost(größe + привет)",
        "line ends of windows": "x = 1\r\npost(x)\r\n",
        "a tab": "if True:\n\tpost('tab')",
        "a source that ends in a backslash continuation": "post(1 + \\\n  2)",
        "a docstring": '"""What it does."""\npost(__doc__)',
        "a future": "from __future__ import annotations\nx: Nothing = 1\npost(x)",
        "annotations": "x: int = 1\npost(x)",
        "global statement": "def f():\n    global g\n    g = 5\nf()\npost(g)",
        "del": "x = 1\ndel x\npost('x' in globals())",
        "eval and exec": "post(eval('1 + 1'))\nexec('y = 3')\npost(y)",
        "compile": "code = compile('z = 4', 'f', 'exec')\nexec(code)\npost(z)",
        "class scope": "try:\n    class C:\n        x = 1\n        y = [x for _ in range(2)]\nexcept NameError: post('no x')",
        "overwriting a builtin": "len = lambda x: 42\npost(len([]))",
        "overwriting an operation": "send = post\npost = None\nsend('fine')",
        "walrus": "post([y := 5, y ** 2])",
        "match": "match {'a': [1, 2]}:\n    case {'a': [x, *rest]}: post((x, rest))",
        "type alias": "type Pair[T] = tuple[T, T]\npost(Pair.__name__)",
        "lambda default": "post([f() for f in [lambda i=i: i for i in range(3)]])",
    },
    imports=["builtins", "__future__"],
)


@GROUP.program()
def names_stay_from_one_exec_to_the_next(host: Host) -> None:
    cell = host.spawn(allowed_imports=["math"])
    cell.exec("import math\nx = [1]\ndef f(): return x + [y]")
    cell.exec("y = 2")
    cell.run("post(f())\npost(math.floor(2.5))")


@GROUP.program()
def names_stay_between_exec_and_call(host: Host) -> None:
    cell = host.spawn()
    cell.exec("total = 0\ndef add(n):\n    global total\n    total += n\n    return total")
    for number in range(4):
        cell.call("__main__.add", number)
    cell.run("post(total)")


@GROUP.program()
def what_was_done_before_an_error_stays(host: Host) -> None:
    cell = host.spawn()
    cell.exec("x = 1\nraise ValueError('after x')\ny = 2")
    cell.run("post(x)\npost('y' in globals())")


@GROUP.program()
def cells_share_no_names(host: Host) -> None:
    one, two = host.spawn(allowed_imports=["math"]), host.spawn(allowed_imports=["math"])
    one.exec("import math\nx = 1\nmath.pi = 3")
    two.run("import math\npost('x' in globals())\npost(math.pi > 3)")
    one.run("post(math.pi)")


@GROUP.program()
def cells_share_no_state_of_the_interpreter(host: Host) -> None:
    one, two = host.spawn(allowed_imports=["sys"]), host.spawn(allowed_imports=["sys"])
    one.exec("import sys\nsys.setrecursionlimit(500)\nsys.path.append('/mine')\nsys.mine = 1")
    two.run(
        "import sys\npost([sys.getrecursionlimit() == 500, '/mine' in sys.path,"
        " hasattr(sys, 'mine')])"
    )


@GROUP.program()
def operations_run_one_after_another(host: Host) -> None:
    cell = host.spawn()
    handles = [cell.start(f"post({number})") for number in range(30)]
    for handle in handles:
        cell.wait(handle)
    cell.recv(30)


@GROUP.program()
def exec_returns_at_once(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("value = recv(20)")
    host.told("done", handle.done())
    cell.wait(handle, SHORT)
    cell.post(1)
    cell.wait(handle)
    host.told("done", handle.done())
    cell.wait(handle, 0)


@GROUP.program()
def done_needs_no_waiting(host: Host) -> None:
    cell = host.spawn()
    cell.until(cell.start("pass"))
    handle = cell.start("raise ValueError('seen later')")
    cell.until(handle)
    cell.wait(handle)


@GROUP.program()
def a_call_waits_for_the_exec_before_it(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("recv(20); x = 5\ndef f(): return x")
    cell.post("go")
    cell.call("__main__.f")
    cell.wait(handle)


@GROUP.program()
def a_source_is_text(host: Host) -> None:
    cell = host.spawn()
    for source in (None, 5, b"pass"):
        host.write(f"exec of {source!r}")
        host.attempt(lambda source=source: cell.cell.exec(source))  # type: ignore[misc]
    host.write("exec of a surrogate")
    host.attempt(lambda: cell.cell.exec("'\udc80'"))
    cell.run("post('still here')")


@GROUP.program()
def two_cells_at_once(host: Host) -> None:
    one, two = host.spawn(), host.spawn()
    first = one.start("post(('one', recv(20)))")
    second = two.start("post(('two', recv(20)))")
    two.post("b")
    two.recv()
    one.post("a")
    one.recv()
    one.wait(first)
    two.wait(second)


@GROUP.program()
def ten_cells_at_once(host: Host) -> None:
    cells = [host.spawn() for _ in range(10)]
    handles = [cell.start("post(recv(20) * 2)") for cell in cells]
    for number, cell in enumerate(cells):
        cell.post(number)
    for cell, handle in zip(cells, handles, strict=True):
        cell.wait(handle)
        cell.recv()
