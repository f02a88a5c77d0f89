"""A worker that answers its host with nonsense, past its own runtime."""

import dataclasses
import pickle
from collections.abc import Callable

from pyisolate.attack.case import Attempt, Fate, Finding, Trial

MODULES = ["ctypes", "os", "pickle", "struct", "time"]
"""What a cell must be allowed to import to write into its channel itself."""

WORDS = {
    "no frame": "send_record(b'')",
    "half a frame": "send_record(frame(POSTED, NONE)[:-3])",
    "more than a frame": "send_record(frame(POSTED, NONE) + b'x')",
    "an unknown kind": "send(26)",
    "kind zero": "send(0)",
    "the host's own kind": "send(7)",
    "unknown flags": "send(POSTED, NONE, flags=1)",
    "too many parts": "send(POSTED, *[NONE] * 300)",
    "too few parts": "send(POSTED)",
    "parts too many": "send(DONE, b'', id=2)",
    "a frame too long": "send(POSTED, b'x' * 70_000)",
    "a part in no buffer": "send(POSTED, (5, 0))",
    "a buffer that was not lent": "send(POSTED, (5, 0), store=9)",
    "a second report": "send(READY, b'seccomp enforced')",
    "an end that was not asked for": "send(DONE, id=4000)",
    "an end of nothing": "send(DONE)",
    "a result that was not asked for": "send(RESULT, NONE, id=4000)",
    "a result for an exec": "send(RESULT, NONE, id=2)",
    "a failure that was not asked for": "send(FAILED, b'E', b'm', b't', id=4000)",
    "an end twice": "send(DONE, id=2); send(DONE, id=2)",
    "a failure's text that is none": "send(FAILED, b'E', b'\\xff', b't', id=2)",
    "a name that is no text": "send(METRIC, b'\\xff', pickle.dumps((1, None), 5))",
    "a long name": "send(METRIC, b'm' * 5000, pickle.dumps((1, None), 5))",
    "a long text": "send(LOG, b'info', b'm' * 50_000, pickle.dumps({}, 5))",
    "fields that are no dict": "send(LOG, b'info', b'm', pickle.dumps(5, 5))",
    "fields with numbers for names": "send(LOG, b'info', b'm', pickle.dumps({1: 2}, 5))",
    "a sample that is no pair": "send(METRIC, b'm', pickle.dumps(5, 5))",
    "a sample of three": "send(METRIC, b'm', pickle.dumps((1, 2, 3), 5))",
    "a value that is no number": "send(METRIC, b'm', pickle.dumps(('x', None), 5))",
    "tags that are no dict": "send(METRIC, b'm', pickle.dumps((1, 5), 5))",
    "many buffers": "for n in range(40): send(WANT, id=n, store=1 << 14)",
    "the same buffer twice": "for n in range(2): send(WANT, id=5, store=1 << 14)",
    "a buffer that was never filled": "send(WANT, id=5, store=64)\nsend(POSTED, (5, 0), store=5)",
    "outside of a buffer": "send(WANT, id=5, store=64)\nsend(POSTED, (5000, 0), store=5)",
    "far outside of a buffer": "send(WANT, id=5, store=64)\n"
    "send(POSTED, (0xFFFFFFFF, 0xFFFFFFFE), store=5)",
    "a record of no length": "send_record(b'', 0)",
    "a record of great length": "send_record(b'x' * 64, 2**32 - 1)",
    "a record of impossible length": "send_record(b'x' * 64, 2**64 - 1)",
}
"""Frames and records outside the contract."""

_HONEST = "send(POSTED, pickle.dumps('behind', 5))"
"""What a host does take, sent in the same way."""


def reduced(function: Callable[..., object], *arguments: object) -> bytes:
    """The pickle of a class whose instances unpickle by a call."""
    return pickle.dumps(type("Evil", (), {"__reduce__": lambda self: (function, arguments)})(), 5)


CALLS = {
    "os.system": b"\x80\x05\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "eval": reduced(eval, "1 + 1"),
    "exec": reduced(exec, "import sys; sys.pyisolate_was_here = 1"),
    "getattr": reduced(getattr, int, "__subclasses__"),
    "__import__": reduced(__import__, "os"),
    "open": reduced(open, "/etc/passwd"),
    "global opcode": b"\x80\x05cos\nsystem\n(S'true'\ntR.",
    "inst opcode": b"\x80\x05(S'true'\nios\nsystem\n.",
    "a name alone": b"\x80\x05\x8c\x02os\x8c\x06system\x93.",
    "a dotted name": b"\x80\x05\x8c\x08datetime\x8c\x0asys.exit.x\x93.",
    "build": b"\x80\x05\x8c\x08datetime\x8c\x04date\x93}\x8c\x01x\x8c\x01y\x73b.",
}
"""Pickles that call."""

BOMBS = {
    "doubling": "b']\\x94' + b''.join(b'](' + b'h%c' % n * 50 + b'e\\x94' for n in range(200))",
    "pairs of pairs": "b'N' + b'2\\x86' * 400",
    "deep lists": "b']' * 500_000 + b'a' * 499_999",
    "deep tuples": "b'N' + b'\\x85' * 5_000_000",
    "marks": "b'(' * 50_000_000",
    "many nones": "b'(' + b'N' * 60_000_000 + b't'",
    "many dicts": "b'(' + b'}' * 30_000_000 + b't'",
    "many memos": "b'N' + b'\\x94' * 60_000_000",
    "many pops": "b'N' + b'N0' * 30_000_000",
    "equal hashes": "b'}(' + b''.join(\n"
    "    b'\\x8a\\x0a' + (n * (2**61 - 1)).to_bytes(10, 'little') + b'N' for n in range(100_000)\n"
    ") + b'u'",
    "a long integer": "b'\\x8b' + struct.pack('<I', 50_000_000) + b'\\x01' * 50_000_000",
    "a long text integer": "b'I' + b'9' * 10_000_000 + b'\\n'",
    "a long decimal": "b'cdecimal\\nDecimal\\n(V1E' + b'9' * 1000 + b'\\ntR'",
    "a long range": "b'cbuiltins\\nrange\\n(K\\x00\\x8a\\x08' + b'\\xff' * 7 + b'\\x7fK\\x01tR'",
}
"""Pickles that grow, as expressions that make them; without their head and their end."""

_HARMFUL = ("many nones", "many dicts", "many memos")
"""Those by which CPython's own unpickler takes more memory than a host should give."""


@dataclasses.dataclass(frozen=True, eq=False)
class Answer(Trial):
    """What a worker sends to its host."""

    name: str
    source: str
    """Sends it."""
    bare_source: str = ""
    """What a host does with it that knows nothing better: posts if that is what the worker wanted.
    Without it the control is an honest message, sent by the same means."""
    kind: str = "worker"

    @property
    def cannot(self) -> dict[str, str]:
        """As `unfit`."""
        return {"subinterpreter": "it needs ctypes, which a sub-interpreter cell has not"}

    @property
    def unfit(self) -> dict[str, str]:
        """Where its channel cannot be written."""
        return self.cannot

    def attempt(self) -> Attempt:
        """It is sent, and something behind it."""
        return Attempt(self.name, f"{self.source}\n{_HONEST}\nrest()\n", seconds=30)

    def control(self) -> Attempt:
        """As `bare_source`."""
        return Attempt(self.name, self.bare_source or f"{_HONEST}\nrest()\n", seconds=30)

    def confined(self, fate: Fate, token: str, backend: str) -> dict[str, Finding]:
        """The host refuses it, and takes nothing behind it but after a message of its own."""
        return {self.name: self._confined(fate)}

    def _confined(self, fate: Fate) -> Finding:
        if fate.changed:
            return Finding("reached", f"{', '.join(fate.changed)}: {fate.changed}")
        if fate.error.startswith(("ProtocolViolation:", "GuestError:")):
            return Finding("refused", fate.error)
        if fate.posted is not None:
            return Finding("reached", f"the host took {fate.posted!r}")
        return Finding("odd", fate.error or "it said nothing")

    def bare(self, fate: Fate, token: str) -> dict[str, Finding]:
        """A host that knows nothing better does what the worker wants."""
        if fate.lacking:
            return {self.name: Finding("lacking", fate.lacking)}
        wanted = ["done", "it did"] if self.bare_source else "behind"
        if fate.posted != wanted:
            return {self.name: Finding("odd", f"{fate.posted!r}: {fate.error}")}
        return {self.name: Finding("reached", "it works without the wall")}


def _loading(data: str) -> str:
    return f"""
import pickle
def attack():
    pickle.loads({data})
    return "it did"
post(attempt(attack))
"""


_GROWS = """
import pickle
data = b"\\x80\\x05" + {bomb} + b"."
def peak():
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0])
def attack():
    before = peak()
    try:
        held = pickle.loads(data)
    except MemoryError:
        return "it did"
    need(peak() - before > 256 * 1024, "it takes little")
    return "it did"
post(attempt(attack))
"""

WORDS_SENT = [Answer(f"frame: {name}", source) for name, source in WORDS.items()]
PICKLES_SENT = [
    Answer(f"pickle: {name}", f"send(POSTED, {data!r})", _loading(repr(data)))
    for name, data in CALLS.items()
    if name not in ("a dotted name", "build", "a name alone")  # CPython does nothing by them
] + [
    Answer(
        f"pickle: {name}",
        f"data = b'\\x80\\x05' + {BOMBS[name]} + b'.'\n"
        # As a log's fields, which the guest's runtime takes as bytes of any length.
        "recv.__globals__['native'].send_log('info', 'm', data, [])",
        _GROWS.replace("{bomb}", BOMBS[name]),
    )
    for name in _HARMFUL
]
