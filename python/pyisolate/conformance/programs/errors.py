"""A guest's error is told once, to whoever asks first, with its type, its message and its frames."""

import logging

from pyisolate.conformance.host import SHORT, Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("errors")

_SYNTAX = {
    "unfinished": "def",
    "indented": "  x = 1",
    "return outside": "x = 1\nreturn 1",
    "await outside": "\n\nawait x",
    "break outside": "break",
    "unbalanced": "x = (1,\ny = 2",
    "unterminated": "x = 'abc",
    "bad character": "x = 1 ? 2",
    "nonlocal": "def f():\n    nonlocal missing",
    "tabs and spaces": "if 1:\n\tx = 1\n        y = 2",
    "assignment to a call": "f() = 1",
    "two stars": "def f(**a, b): pass",
    "a null byte": "x = 1\0",
}


def _syntax(source: str) -> Steps:
    """The interpreter's words differ from release to release; that it is one does not."""

    def steps(host: Host) -> None:
        cell = host.spawn()
        cell.exec(source, message=False)
        cell.exec(f"try: exec({source!r})\nexcept SyntaxError as e: post(type(e).__name__)")
        cell.recv()

    return steps


for _name, _source in _SYNTAX.items():
    GROUP.add(f"syntax/{_name}", _syntax(_source))

_CUSTOM = {
    "own class": "class Own(Exception): pass\nraise Own('mine')",
    "own class without arguments": "class Own(Exception): pass\nraise Own",
    "own class of two arguments": "raise ValueError(1, 'two')",
    "nested class": "class A:\n    class B(Exception): pass\nraise A.B('deep')",
    "own base": "class Own(BaseException): pass\nraise Own('base')",
    "own str": "class Own(Exception):\n    def __str__(self): return 'spelled'\nraise Own('raw')",
    "own message of unicode": "raise ValueError('größer als 🐍\\x00')",
    "message with a surrogate": "raise ValueError('a\\udc80')",
    "message of lines": "raise ValueError('one\\ntwo')",
    "empty message": "raise ValueError('')",
    "message of None": "raise ValueError(None)",
    "long message": "raise ValueError('x' * 1000)",
    "huge message": "raise ValueError('x' * 5_000_000)",
    "str that raises": "class E(Exception):\n    def __str__(self): 1 / 0\nraise E()",
    "str that is no str": "class E(Exception):\n    def __str__(self): return 5\nraise E()",
    "str that exits": "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E()",
    "module is None": "class E(Exception): __module__ = None\nraise E('m')",
    "module of another": "class E(Exception): __module__ = 'other.place'\nraise E('m')",
    "name of another": "class E(Exception): pass\nE.__qualname__ = 'Renamed'\nraise E('m')",
    "pretends to be ours": (
        "class TimeoutError(Exception): __module__ = 'pyisolate'\nraise TimeoutError('m')"
    ),
    "group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
    "group in a group": "raise ExceptionGroup('a', [ExceptionGroup('b', [KeyError(1)])])",
    "base group": "raise BaseExceptionGroup('several', [KeyboardInterrupt()])",
    "raise from": "try: raise KeyError('first')\nexcept KeyError as e: raise ValueError('next') from e",
    "raise from None": "try: raise KeyError('x')\nexcept KeyError: raise ValueError('y') from None",
    "in a handler": "try: raise KeyError('first')\nexcept KeyError: raise ValueError('second')",
    "again": "try: raise KeyError('first')\nexcept KeyError: raise",
    "cause is a circle": (
        "class E(Exception):\n    def __init__(self): self.__cause__ = self\nraise E()"
    ),
    "in finally": "try: raise KeyError('lost')\nfinally: raise ValueError('kept')",
    "notes": "e = ValueError('noted')\ne.add_note('first note')\nraise e",
    "strange notes": "e = ValueError('noted')\ne.__notes__ = 5\nraise e",
    "in a class body": "class C:\n    raise ValueError('in the body')",
    "in a comprehension": "[1 // x for x in (1, 0)]",
    "in a generator": "def g():\n    yield 1\n    raise ValueError('second')\nfor _ in g(): pass",
    "in a property": ("class C:\n    @property\n    def p(self): raise ValueError('p')\nC().p"),
    "in a with": (
        "class C:\n    def __enter__(self): return self\n"
        "    def __exit__(self, *a): raise ValueError('exit')\nwith C(): pass"
    ),
    "assert": "assert 1 == 2, 'told why'",
    "raise of no exception": "raise 5",
    "an exit": "raise SystemExit(3)",
    "an exit with words": "raise SystemExit('bye')",
    "an interrupt": "raise KeyboardInterrupt",
    "a generator's exit": "raise GeneratorExit",
    "a name that is missing": "missing",
    "an attribute that is missing": "None.missing",
    "a division": "1 / 0",
    "an index": "[][0]",
    "an overflow": "2.0 ** 10_000",
    "a recursion": "def down(): return down()\ndown()",
    "a recursion of repr": "x = []\nfor _ in range(100_000): x = [x]\nrepr(x)",
    "a huge int as text": "str(10 ** 5000)",
    "a memory error of its own": "raise MemoryError('own')",
}
_INTERPRETERS_WORDS = (
    "in a comprehension", "raise of no exception", "a name that is missing",
    "an attribute that is missing", "a division", "an index", "an overflow", "a recursion",
    "a recursion of repr", "a huge int as text", "str that is no str",
)  # fmt: skip
_ENDS_BY_LIMIT = ("a memory error of its own",)


def _raising(source: str, message: bool) -> Steps:
    """In `exec` the error is the handle's, in `call` the call's; the cell goes on after both."""

    def steps(host: Host) -> None:
        cell = host.spawn()
        cell.exec(source, message=message)
        body = "".join(f"    {line}\n" for line in source.splitlines())
        cell.exec(f"def f():\n{body}")
        cell.failing_call("__main__.f", message=message)
        cell.recv(timeout=0)
        cell.run("post('still here')")

    return steps


for _name, _source in _CUSTOM.items():
    if _name not in _ENDS_BY_LIMIT:
        GROUP.add(_name, _raising(_source, _name not in _INTERPRETERS_WORDS))


@GROUP.program()
def told_by_the_handle_is_not_received_again(host: Host) -> None:
    cell = host.spawn()
    cell.exec("raise ValueError('once')")
    cell.run("post('next')")


@GROUP.program()
def received_is_not_told_by_the_handle_again(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("raise ValueError('once')")
    cell.recv()
    cell.wait(handle)
    cell.recv(timeout=SHORT)


@GROUP.program()
def a_handle_tells_once(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("raise ValueError('once')")
    cell.wait(handle)
    cell.wait(handle)


@GROUP.program()
def behind_what_was_posted_before(host: Host) -> None:
    cell = host.spawn()
    cell.start("post(1); post(2); raise ValueError('third')")
    cell.start("post(4)")
    cell.recv(4)


@GROUP.program()
def each_of_many_is_told_once(host: Host) -> None:
    cell = host.spawn()
    handles = [cell.start(f"raise ValueError({number})") for number in range(10)]
    for handle in handles[::2]:
        cell.wait(handle)
    cell.recv(5)
    cell.recv(timeout=SHORT)


@GROUP.program()
def unseen_ones_are_logged_when_the_cell_is_closed(host: Host) -> None:
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pyisolate")
    logger.addHandler(handler)
    was_passed_on, logger.propagate = logger.propagate, False
    try:
        cell = host.spawn()
        cell.until(cell.start("raise ValueError('unseen')"))
        cell.exec("raise ValueError('seen')")
        cell.close()
    finally:
        logger.removeHandler(handler)
        logger.propagate = was_passed_on
    told = "\n".join(seen)
    host.told("lines", len(seen))
    host.told("says unseen", "ValueError: unseen" in told)
    host.told("says seen", "ValueError: seen" in told)
    host.told("names the cell", cell.cell.name in told)


@GROUP.program()
def an_error_seen_after_the_end(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("raise ValueError('late')")
    cell.until(handle)
    cell.kill()
    cell.wait(handle)


@GROUP.program()
def frames_are_the_guests(host: Host) -> None:
    cell = host.spawn()
    error = cell.exec("def inner():\n    raise KeyError('gone')\n\ndef outer(): inner()\n\nouter()")
    cell.traceback(error)
    cell.traceback(cell.call("__main__.outer"))


@GROUP.program()
def frames_of_a_second_exec(host: Host) -> None:
    cell = host.spawn()
    cell.exec("\n\ndef first(): raise ValueError('from the first')")
    cell.traceback(cell.exec("# one\nfirst()"))


@GROUP.program()
def frames_of_methods_and_comprehensions(host: Host) -> None:
    cell = host.spawn()
    cell.traceback(
        cell.exec(
            "class C:\n    def m(self):\n        return [self.n(x) for x in (1, 2)]\n"
            "    def n(self, x):\n        raise ValueError(x)\nC().m()"
        )
    )


@GROUP.program()
def frames_of_a_refusal(host: Host) -> None:
    cell = host.spawn()
    cell.traceback(cell.exec("x = 1\ndef f():\n    import os\nf()"))
    cell.traceback(cell.exec("def g():\n    request('none', 'such')\ng()"))


@GROUP.program()
def the_source_line_is_in_the_traceback(host: Host) -> None:
    cell = host.spawn()
    error = cell.exec("number = 5\nraise ValueError('told')  # here")
    host.told("source line", "raise ValueError('told')  # here" in getattr(error, "traceback", ""))


@GROUP.program()
def notes_and_causes_are_in_the_traceback(host: Host) -> None:
    cell = host.spawn()
    error = cell.exec(
        "try: raise KeyError('the cause')\nexcept KeyError as e:\n"
        "    new = ValueError('the effect'); new.add_note('a note'); raise new from e"
    )
    text = getattr(error, "traceback", "")
    for word in ("KeyError: 'the cause'", "ValueError: the effect", "a note", "direct cause"):
        host.told(word, word in text)


@GROUP.program()
def a_huge_traceback_is_cut(host: Host) -> None:
    cell = host.spawn(allowed_imports=["sys"])
    error = cell.exec(
        "import sys; sys.setrecursionlimit(5000)\n"
        + "".join(f"def f{n}(): f{n + 1}()\n" for n in range(1500))
        + "def f1500(): raise ValueError('deep')\nf0()"
    )
    text = getattr(error, "traceback", "")
    host.told("bounded", len(text.encode()) <= 30 * 1024)
    host.told("its end is there", text.rstrip().endswith("ValueError: deep"))


@GROUP.program("threads")
def what_a_thread_raises_is_printed(host: Host) -> None:
    cell = host.spawn(allowed_imports=["threading"])
    cell.exec(
        "import threading\ndef work(): raise ValueError('in a thread')\n"
        "t = threading.Thread(target=work); t.start(); t.join()"
    )
    cell.close()
    text = []
    try:
        while True:
            text.append(cell.cell.recv(5).message)
    except Exception as error:
        host.error(error)
    host.told("printed", "ValueError: in a thread" in "\n".join(text))
