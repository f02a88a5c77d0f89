"""`log`, `metric` and what is printed: events among the messages, in the guest's order."""

from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("events")

GROUP.sources(
    {
        "all kinds in order": (
            "for number in range(10):\n    post(number)\n"
            "    log('warning', f'log {number}', number=number)\n"
            "    metric('count', number, {'unit': '1'})\n    print('line', number)"
        ),
        "print": "print('hello')",
        "print of several": "print(1, 'two', None, sep='-')",
        "print of nothing": "print()",
        "print without a line end": "print('a', end='')",
        "print in pieces": "print('a', end='')\nprint('b', end='')\nprint('c')\nprint('d', end='')",
        "print of several lines": "print('a\\nb\\n\\nc')",
        "print then post": "print('before')\npost('after')",
        "half a line then post": "print('half', end='')\npost('after')",
        "half a line flushed": "print('half', end='', flush=True)\npost('after')\nprint('more')",
        "print to stderr": "import sys\nprint('err', file=sys.stderr)",
        "half a line to stderr": "import sys\nprint('err', end='', file=sys.stderr)",
        "both streams": ("import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three')"),
        "unicode": "print('ünïcödé 🐧 \\u2028 \\x00 \\x1b')",
        "surrogates are escaped": "print('a\\udc80b')\nlog('info', 'a\\udc80b')",
        "carriage returns": "print('a\\rb\\r\\nc')",
        "write": "import sys\nsys.stdout.write('written\\n')\npost(sys.stdout.write('x'))",
        "writelines": "import sys\nsys.stdout.writelines(['d', 'e', '\\n'])",
        "bytes to the buffer": (
            "import sys\nsys.stdout.buffer.write(b'raw\\n')\nsys.stdout.flush()"
        ),
        "bytes that are no text": (
            "import sys\nsys.stdout.buffer.write(b'\\xff\\n')\nsys.stdout.flush()"
        ),
        "what the streams say of themselves": (
            "import sys\npost([sys.stdout.writable(), sys.stdout.isatty(), sys.stdout.encoding])"
        ),
        "stdin is empty": "import sys\npost(sys.stdin.read())",
        "input meets the end": "try: input()\nexcept EOFError: post('end')",
        "prompt of input": "try: input('name? ')\nexcept EOFError: post('end')",
        "print to a broken stream": "import sys\nsys.stdout = None\nprint('lost')\npost('on')",
        "print to one's own stream": (
            "import io, sys\nsys.stdout = io.StringIO()\nprint('kept')\npost(sys.stdout.getvalue())"
        ),
        "redirect_stdout": (
            "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n"
            "    print('inside')\nprint('outside')\npost(out.getvalue())"
        ),
        "a warning": "import warnings\nwarnings.simplefilter('always')\nwarnings.warn('careful')\n"
        "post('on')",
        "pprint": "import pprint\npprint.pprint({'b': 1, 'a': [1, 2]})",
        "logging module": (
            "import logging\nlogging.basicConfig(format='%(levelname)s %(message)s')\n"
            "logging.warning('told %d', 5)"
        ),
        "log without fields": "log('info', 'm')",
        "log with fields": "log('debug', 'm', a=1, b=[1, {'c': None}], message_id='x')",
        "log with a level of one's own": "log('über', 'm')",
        "log of an empty message": "log('info', '')",
        "log of what is no text": "log('info', 5)\nlog('info', None)\nlog('info', [1])",
        "log of a long message": "log('info', 'x' * 30_000)",
        "log of lines": "log('info', 'a\\nb')",
        "log by keywords": "log(level='info', message='m', stream='mine')",
        "metric": "metric('m', 1)",
        "metric of a float": "metric('m', 2.5, {'a': 'b'})",
        "metric of a large int": "metric('m', 10 ** 30)",
        "metric of a negative zero": "metric('m', -0.0)",
        "metric of infinity": "metric('m', float('inf'))",
        "metric of nan": "metric('m', float('nan'))",
        "metric without tags": "metric('m', 1, None)",
        "metric with empty tags": "metric('m', 1, {})",
        "metric with pairs": "metric('m', 1, [('a', 1)])",
        "metric by keywords": "metric(name='m', value=3, tags={'k': [1]})",
        "what the operations return": "post([post(1), log('info', 'm'), metric('m', 1)])",
    },
    imports=["sys", "io", "contextlib", "warnings", "pprint", "logging"],
)

BAD = {
    "log of a level that is no text": "log(5, 'm')",
    "log of an empty level": "log('', 'm')",
    "log of a long level": "log('x' * 2000, 'm')",
    "log of nothing": "log()",
    "metric of text": "metric('m', 'many')",
    "metric of a bool": "metric('m', True)",
    "metric of None": "metric('m', None)",
    "metric without a name": "metric(None, 1)",
    "metric of an empty name": "metric('', 1)",
    "metric of a long name": "metric('x' * 2000, 1)",
    "metric of strange tags": "metric('m', 1, 5)",
    "metric of a surrogate": "metric('\\udc80', 1)",
    "log of a surrogate": "log('\\udc80', 'm')",
}


def _bad(source: str) -> Steps:
    """A bad event is the guest's own error, and the cell goes on."""

    def steps(host: Host) -> None:
        cell = host.spawn()
        cell.run(source, message=False)
        cell.run("metric('fine', 1)")

    return steps


for _name, _source in BAD.items():
    GROUP.add(f"bad/{_name}", _bad(_source))


def _long(letter: str, length: int) -> Steps:
    """A long line arrives whole, in however many events."""

    def steps(host: Host) -> None:
        cell = host.spawn()
        cell.exec(f"print({letter!a} * {length}); post('end')")
        text = ""
        while (event := cell.cell.recv(20)) != "end":
            text += event.message
        host.told("text", text)

    return steps


for _letter in ("x", "é", "🐧"):
    for _length in (3000, 30 * 1024, 30 * 1024 + 1, 300_000):
        _code = f"U+{ord(_letter):04X}"
        GROUP.add(f"long lines/{_length} of {_code}", _long(_letter, _length))


@GROUP.program()
def a_call_that_logs(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def f(n):\n    log('info', 'called', n=n)\n    metric('n', n)\n    return n")
    cell.call("__main__.f", 3)
    cell.take_all()


@GROUP.program()
def what_is_printed_before_an_error(host: Host) -> None:
    cell = host.spawn()
    cell.run("print('whole')\nprint('half', end='')\nraise ValueError('then')")
    cell.run("print('next')")


@GROUP.program()
def what_is_printed_by_the_last_words(host: Host) -> None:
    cell = host.spawn()
    cell.exec("print('unfinished', end='')")
    cell.close()
    cell.death()


@GROUP.program("threads")
def what_a_thread_prints(host: Host) -> None:
    cell = host.spawn(allowed_imports=["threading"])
    cell.run(
        "import threading\nt = threading.Thread(target=print, args=('in a thread',))\n"
        "t.start(); t.join()"
    )
