"""What is different in an interpreter that shares its process with the host.

The process's environment variables, its search path and its locale are the host's. The guest gets
its own, and what would change the host's does nothing to it.
"""

import _imp
import _locale
import _thread
import errno
import os
import posix
import sys
import time

THREADS = (
    "a sub-interpreter cell has no threads: spawn the cell with backend='process' to use them"
)
# The longest single sleep, in seconds: a twentieth, by which the end of a sleeping cell may be late.
SLEEP_SECONDS = 0.05
_broker = None


def install(broker, folders):
    global _broker
    _broker = broker
    folders.overlook_the_host()
    # In place: `posix.environ` is what `os.environ` wraps. Its methods would change the host's.
    posix.environ.clear()
    posix.environ[b"LC_ALL"] = b"C.UTF-8"
    for name in ("putenv", "unsetenv"):
        native = getattr(posix, name)
        nothing = broker.like(lambda *_: None, native)
        setattr(posix, name, nothing)
        setattr(os, name, nothing)
    _refuse_threads()
    _sleep_lightly()
    _keep_the_process()
    _refuse_second_copies()


def _refuse_threads():
    def refuse(*args, **kwargs):
        raise RuntimeError(THREADS)

    native = _thread.start_new_thread
    _broker.like(refuse, native)
    modules = (_thread, sys.modules.get("threading"))
    names = ("start_new", "start_new_thread", "start_joinable_thread", "_start_joinable_thread")
    for module in modules:
        for name in names:
            if hasattr(module, name):
                setattr(module, name, refuse)
        # So that a daemon thread is refused when it starts, by the same words.
        for name in ("daemon_threads_allowed", "_daemon_threads_allowed"):
            if hasattr(module, name):
                setattr(module, name, lambda: True)


def _sleep_lightly():
    """A call that sleeps cannot be ended from outside: so one that is long becomes many that are not."""
    native, monotonic = time.sleep, time.monotonic

    def sleep(seconds, /):
        if not (isinstance(seconds, (int, float)) and seconds > SLEEP_SECONDS):
            return native(seconds)
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            native(min(left, SLEEP_SECONDS))
        return None

    time.sleep = _broker.like(sleep, native)


# libc changes the identity of all threads, by a signal to each, under a lock of the host's.
_IDENTITY = (
    "initgroups", "setegid", "seteuid", "setgid", "setgroups", "setregid", "setresgid", "setresuid",
    "setreuid", "setuid",
)  # fmt: skip
# Built in everywhere, and imported by some ordinary code after the cell has begun.
_BUILT_IN = (
    "_ast", "_functools", "_operator", "_signal", "_stat", "_string", "_symtable", "_sysconfig",
    "_tokenize", "_typing", "atexit", "gc", "itertools", "pwd",
)  # fmt: skip
# Their code starts in the host's own interpreter, or has no business in a cell.
_NEVER = frozenset((
    "_ctypes", "_interpchannels", "_interpqueues", "_interpreters", "_suggestions",
    "_tracemalloc", "faulthandler", "readline", "syslog",
))  # fmt: skip


def _keep_the_process():
    """Takes away what acts on the whole process without asking the kernel, or before it does. No
    reference to the native functions is kept, so that there is none to find.
    """

    def locale(category, locale=None):
        if locale in (None, "", "C", "POSIX", "C.UTF-8", "C.utf8"):
            return "C.UTF-8"
        raise _locale.Error("unsupported locale setting")

    def refuse_interrupt(*args):
        raise RuntimeError("signals are the host's: raise KeyboardInterrupt to end this code")

    def refuse_identity(*args):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def refuse_trampoline(*args):
        raise ValueError("stack trampolines are the host's")

    for modules, names, stand_in in (
        ((_locale, sys.modules.get("locale")), ("setlocale", "_setlocale"), locale),
        ((time,), ("tzset",), lambda: None),
        ((sys,), ("setswitchinterval",), lambda _: None),  # the host waits one to end a cell
        ((sys,), ("activate_stack_trampoline", "deactivate_stack_trampoline"), refuse_trampoline),
        ((_thread, sys.modules.get("signal")), ("interrupt_main",), refuse_interrupt),
        ((posix, os), _IDENTITY, refuse_identity),
    ):
        for module in modules:
            for name in names:
                if hasattr(module, name):
                    setattr(module, name, _named(stand_in, getattr(module, name)))


def _named(stand_in, native):
    def function(*args, **kwargs):
        return stand_in(*args, **kwargs)

    return _broker.like(function, native)


def _refuse_second_copies():
    """A built-in module that is made a second time has all that was taken from the first, and
    `posix` the host's variables; the guard hears of none. So all are loaded, and then no more are.
    """
    for name in _BUILT_IN:
        if name in sys.builtin_module_names:
            __import__(name)
    wanted, create = set(), None
    if "_socket" in sys.builtin_module_names:  # extension modules are built in, too
        wanted = set(sys.builtin_module_names) - set(sys.modules) - _NEVER
        create = _imp.create_builtin

    def create_builtin(spec):
        name = spec.name
        if type(name) is not str or name not in wanted:
            raise ImportError(f"{name} is loaded once in a sub-interpreter cell", name=name)
        wanted.discard(name)
        return create(spec)

    _imp.create_builtin = create_builtin
