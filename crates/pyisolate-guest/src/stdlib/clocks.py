# ruff: noqa: D103
# A stand-in's documentation is the native one's: see `Broker.like`.
"""Clocks and randomness, as the policy has them.

The kernel walls neither off, so this is no wall. Where a policy is in force that does not grant a
clock, guest code that imports `time` gets a stand-in whose clocks ask and are denied; likewise
`random` and `secrets`. Libraries have the real modules. Where the policy gives a seed, everything
that is random in the cell comes from the broker, so that two runs agree.
"""

import os
import sys
import types

# The most random bytes of one request.
RANDOM_BYTES_MAX = 1 << 20
# How many bytes a generator is seeded with: the 256 bits of numpy and more than CPython asks for.
SEED_BYTES = 32

broker = None
native_urandom = None
_stand_ins = {}


def install(link):
    """Replaces `os.urandom`, from which most of the randomness in Python is made."""
    global broker, native_urandom
    broker = link
    native_urandom = os.urandom
    os.urandom = link.like(urandom, native_urandom)


def configure():
    """Takes the cell's settings into effect."""
    _stand_ins.clear()
    if not broker.seeded:
        return
    # Loaded by a template's set-up, and seeded there.
    if (random := sys.modules.get("random")) is not None:
        random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        seed = asked_bytes(SEED_BYTES)
        numpy_random.seed([int.from_bytes(seed[at : at + 4]) for at in range(0, SEED_BYTES, 4)])


def guest_module(name, real):
    """What guest code gets for `import name`."""
    make = _MAKERS.get(name)
    if make is None or not broker.policy:
        return real
    if (found := _stand_ins.get(name)) is None:
        found = _stand_ins[name] = make(real)
    return found


def _with(real, replaced):
    module = types.ModuleType(real.__name__, real.__doc__)
    module.__dict__.update(vars(real))
    for name, replacement in replaced.items():
        if (original := getattr(real, name, None)) is not None:
            broker.like(replacement, original)
            setattr(module, name, replacement)
    return module


# --- clocks -----------------------------------------------------------------------------------


def _clock_ns(action):
    return broker.ask("clock", action, {})


def _make_time(real):
    wall, steady, pause = (name not in broker.clock for name in ("time", "monotonic", "sleep"))
    now = (lambda: _clock_ns("time") / 1e9) if wall else real.time

    def clock_ns(clock):
        if clock in (real.CLOCK_PROCESS_CPUTIME_ID, real.CLOCK_THREAD_CPUTIME_ID):
            return real.clock_gettime_ns(clock)
        action = "time" if clock == real.CLOCK_REALTIME else "monotonic"
        granted = action in broker.clock
        return real.clock_gettime_ns(clock) if granted else _clock_ns(action)

    replaced = {}
    if wall:
        replaced |= {
            "time": lambda: now(),
            "time_ns": lambda: _clock_ns("time"),
            "localtime": lambda seconds=None, /: real.localtime(
                now() if seconds is None else seconds
            ),
            "gmtime": lambda seconds=None, /: real.gmtime(now() if seconds is None else seconds),
            "ctime": lambda seconds=None, /: real.ctime(now() if seconds is None else seconds),
            "asctime": lambda when=None, /: real.asctime(
                real.localtime(now()) if when is None else when
            ),
            "strftime": lambda form, when=None, /: real.strftime(
                form, real.localtime(now()) if when is None else when
            ),
        }
    if steady:
        for name in ("monotonic", "perf_counter"):
            replaced[name] = lambda: _clock_ns("monotonic") / 1e9
            replaced[f"{name}_ns"] = lambda: _clock_ns("monotonic")
    if wall or steady:
        replaced["clock_gettime"] = lambda clock, /: clock_ns(clock) / 1e9
        replaced["clock_gettime_ns"] = lambda clock, /: clock_ns(clock)
    if pause:
        replaced["sleep"] = lambda seconds, /: broker.ask(
            "clock", "sleep", {"seconds": float(seconds)}
        )
    return _with(real, replaced) if replaced else real


# --- randomness -------------------------------------------------------------------------------


def asked_bytes(length):
    """Random bytes from the broker."""
    parts = []
    while True:
        part = broker.ask("random", "bytes", {"length": min(length, RANDOM_BYTES_MAX)})
        parts.append(part)
        length -= len(part)
        if length <= 0:
            return b"".join(parts)


def urandom(size, /):
    if size > 0:
        if broker.seeded:
            return asked_bytes(size)
        if _guarded() and sys._getframe(1).f_globals.get("__name__") == "__main__":
            return asked_bytes(size)
    return native_urandom(size)


def _guarded():
    return broker.policy and not broker.random


def _system_random(real):
    class SystemRandom(real.SystemRandom):
        def random(self):
            return (int.from_bytes(asked_bytes(7)) >> 3) * 2**-53

        def getrandbits(self, k):
            if k < 0:
                raise ValueError("number of bits must be non-negative")
            count = (k + 7) // 8
            return int.from_bytes(asked_bytes(count)) >> (count * 8 - k) if k else 0

        def randbytes(self, n):
            return asked_bytes(n) if n else b""

    return SystemRandom


def _make_random(real):
    return _with(real, {"SystemRandom": _system_random(real)}) if _guarded() else real


def _make_secrets(real):
    if not _guarded():
        return real
    source = _system_random(sys.modules["random"])

    def token_bytes(nbytes=None):
        return source().randbytes(real.DEFAULT_ENTROPY if nbytes is None else nbytes)

    def token_urlsafe(nbytes=None):
        return real.base64.urlsafe_b64encode(token_bytes(nbytes)).rstrip(b"=").decode("ascii")

    def randbelow(exclusive_upper_bound):
        if exclusive_upper_bound <= 0:
            raise ValueError("Upper bound must be positive.")
        return source()._randbelow(exclusive_upper_bound)

    replaced = {
        "SystemRandom": source,
        "token_bytes": token_bytes,
        "token_hex": lambda nbytes=None: token_bytes(nbytes).hex(),
        "token_urlsafe": token_urlsafe,
        "randbelow": randbelow,
        "randbits": lambda k: source().getrandbits(k),
        "choice": lambda seq: source().choice(seq),
    }
    return _with(real, replaced)


def patch_random(random):
    """Generators that nobody gave a seed take theirs from `os.urandom`'s stand-in, if seeded."""
    native_seed = random.Random.seed

    def seed(self, a=None, version=2):
        if a is None and broker.seeded:
            a = int.from_bytes(asked_bytes(SEED_BYTES))
        native_seed(self, a, version)

    random.Random.seed = broker.like(seed, native_seed)
    random.seed = random._inst.seed
    if broker.seeded:
        random.seed()


_MAKERS = {"time": _make_time, "random": _make_random, "secrets": _make_secrets}
