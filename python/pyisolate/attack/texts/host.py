"""A host of sub-interpreter cells, to be attacked: a process of its own, thrown away afterwards.

Reads a job as JSON from standard input; writes a line of JSON before and after each attack. What it
says of one: what the guest posted, how the cell ended if it did, and what of the host is not as
before. As a control it runs the same text in a copy of itself, without cell and wall.
"""

import builtins
import contextlib
import ctypes
import faulthandler
import fcntl
import json
import locale
import os
import resource
import signal
import sqlite3
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pyisolate

_libc = ctypes.CDLL(None)
_PR_GET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_GET_NAME = 2, 3, 16
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_STATUS = (
    "Name", "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "Cap", "NoNewPrivs",
    "Seccomp",
)  # fmt: skip


class Planted:
    """Holds a secret in the host's interpreter, where the guest has no business."""

    def __init__(self, token):
        self.token = token


def portrait(world):
    """Everything of the process that a guest in it might change."""
    status = Path("/proc/self/status").read_text().splitlines()
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    _libc.getenv.restype = ctypes.c_char_p
    environment = {name: _libc.getenv(name) for name in (b"TZ", b"PLANTED", b"GUEST", b"LC_ALL")}
    return {
        "status": [line for line in status if line.startswith(_STATUS)],
        "limits": Path("/proc/self/limits").read_text(),
        "folder": os.getcwd(),
        "root": os.readlink("/proc/self/root"),
        "namespaces": {name: _link(f"ns/{name}") for name in os.listdir("/proc/self/ns")},
        "descriptors": {
            name: link
            for name in os.listdir("/proc/self/fd")
            # Those of cells come and go, and so does who looks at them.
            if (link := _link(f"fd/{name}"))
            and not link.startswith(("socket:", "/memfd:", "/proc/"))
        },
        "file": _of_descriptor(world["planted_fd"]),
        "handlers": repr(handlers),
        "timers": [signal.getitimer(which)[0] > 0 for which in (0, 1, 2)],
        "environment": repr([dict(os.environ), environment]),
        "locale": locale.setlocale(locale.LC_ALL),
        "zone": [*time.tzname, time.localtime(0).tm_gmtoff],
        "priority": [os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))],
        "names": [*os.uname(), os.getsid(0), os.getpgid(0)],
        "attributes": [_libc.prctl(_PR_GET_DUMPABLE), _of_prctl(_PR_GET_PDEATHSIG)],
        "interpreter": [
            sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits(),
            sys.gettrace() is None, sys.getprofile() is None, tracemalloc.is_tracing(),
            faulthandler.is_enabled(), list(sys.path), len(threading.enumerate()),
            sys.getdlopenflags(),
            resource.getrlimit(resource.RLIMIT_NOFILE), repr(sys.stdout), repr(sys.excepthook),
            sorted(vars(int)), sys.monitoring.get_tool(0),
            sys.get_coroutine_origin_tracking_depth(),
            sorted(vars(__builtins__)), sys.flags.dev_mode, "guest" in sys.modules,
        ],
        "files": {
            path.name: path.read_text() for path in Path(world["folder"]).glob("*.txt")
        },
    }  # fmt: skip


def _link(name):
    # The descriptor that lists them is gone when it is asked for.
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/{name}")
    return None


def _of_descriptor(number):
    with contextlib.suppress(OSError):
        return [os.lseek(number, 0, os.SEEK_CUR), fcntl.fcntl(number, fcntl.F_GETFL)]
    return None


def _of_prctl(which):
    value = ctypes.c_int()
    _libc.prctl(which, ctypes.byref(value))
    return value.value


def say(*message):
    """Write one line to the test. What it could not read is made a string."""
    os.write(1, (json.dumps(message, default=repr) + "\n").encode())


def drop_capabilities():
    """Be a host without rights."""
    header = ctypes.create_string_buffer(8)
    ctypes.memmove(header, _LINUX_CAPABILITY_VERSION_3.to_bytes(4, "little"), 4)
    assert _libc.capset(header, bytes(24)) == 0


def take_guards_away():
    """Leave the wall alone to stand: a hook that refuses others keeps the guards' out."""

    def refuse(event, _):
        if event == "sys.addaudithook":
            raise RuntimeError("no other hook")

    sys.addaudithook(refuse)


class Target:
    """The cell that is attacked; a new one once it is dead."""

    def __init__(self, job):
        self.job = job
        self.supervisor = pyisolate.Supervisor(backend="subinterpreter", require=job["require"])
        self._cell = None
        self._number = 0

    def cell(self):
        """The cell, alive, with the prelude executed in it."""
        if self._cell is None or self._cell.termination_reason is not None:
            self._number += 1
            self._cell = self.supervisor.spawn(
                f"hostile-{self._number}", allowed_imports=self.job["imports"], **self.job["limits"]
            )
            for source in self.job["prelude"]:
                self._cell.exec(source).wait(20)
        return self._cell

    def attack(self, source, seconds, posts):
        """How one attack ended: what it posted, and the error that the host was told."""
        cell = self.cell()
        with contextlib.suppress(TimeoutError):
            while True:
                cell.recv(0)
        posted, error = None, ""
        try:
            cell.exec(source).wait(seconds)
            while posts and isinstance(posted := cell.recv(seconds), pyisolate.LogEvent):
                continue
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}"
        return posted, error

    def end(self):
        """End the cell, whatever runs in it."""
        cell, self._cell = self._cell, None
        if cell is not None:
            cell.kill()

    def end_timed(self):
        """End it; how long it took until no processor was at it."""
        started = time.monotonic()
        self.end()
        while _is_busy() and time.monotonic() - started < 5:
            continue
        return time.monotonic() - started

    def serves(self):
        """Whether the host makes another cell that works."""
        with self.supervisor.spawn(f"after-{self._number}", allowed_imports=["math"]) as cell:
            return cell.call("math.gcd", 12, 18, timeout=20) == 6


def _is_busy():
    before = time.process_time()
    time.sleep(0.05)
    return time.process_time() - before > 0.025


def run_controls(job, world):
    """Run every attack in a child of its own, which has namespaces of its own."""
    uid, gid = os.geteuid(), os.getegid()
    os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNS | os.CLONE_NEWIPC | os.CLONE_NEWUTS)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(text)
    for label, source, seconds, *_ in job["cases"]:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                run_control(job, world, label, source)
            finally:
                os._exit(90)
        end = time.monotonic() + seconds
        while (status := os.waitpid(child, os.WNOHANG))[0] == 0:
            time.sleep(0.002)
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                status = os.waitpid(child, 0)
                break
        say("ended", label, os.waitstatus_to_exitcode(status[1]))
    say("done")


def run_control(job, world, label, source):
    """Execute one attack in this process, and say what it changed. Ends with 0 if it came back."""
    world |= {"host": os.getpid(), "main": threading.main_thread().ident}
    posted = []
    builtins.post = posted.append
    namespace = {"__name__": "__main__"}
    for text in job["prelude"]:
        exec(compile(text, "<guest>", "exec"), namespace)
    namespace["world"].update(world)
    code = compile(source, "<attack>", "exec")
    if job["interrupts"]:
        # What a host without a better way does: raise an exception, once.
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
    report = os.dup(1)
    before = portrait(world)
    exec(code, namespace)
    after = portrait(world)
    os.dup2(report, 1)
    changed = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
    say("end", label, posted[0] if posted else None, "", changed, 0.0)
    os._exit(0)


def main():
    """Make the stage, and let the guest do its worst."""
    job = json.load(sys.stdin)
    world = job["world"]
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    os.environ["PLANTED"] = world["token"]
    sys.modules["planted"] = Planted(world["token"])
    database = sqlite3.connect("file:/planted?vfs=memdb", uri=True)
    with database:
        database.execute("create table planted (token)")
        database.execute("insert into planted values (?)", [world["token"]])
    world["planted_fd"] = fcntl.fcntl(os.open(world["secret"], os.O_RDONLY), fcntl.F_DUPFD, 200)
    folder = os.open(world["folder"], os.O_RDONLY | os.O_DIRECTORY)
    fcntl.fcntl(folder, fcntl.F_DUPFD, 201)
    world["host"] = os.getpid()
    world["main"] = threading.main_thread().ident
    del world["token"]
    if job["control"]:
        run_controls(job, world)
        return
    job["prelude"].append(f"world.update({world!r})")
    if job["unprivileged"]:
        drop_capabilities()
    if not job["guarded"]:
        take_guards_away()
    target = Target(job)
    target.cell()
    target.serves()
    for label, source, seconds, posts, ends in job["cases"]:
        target.cell()
        before = portrait(world)
        say("begin", label)
        posted, error = target.attack(source, seconds, posts)
        seconds_to_end = target.end_timed() if ends else 0.0
        after = portrait(world)
        changed = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
        if job["fresh"]:
            target.end()
        if error or ends:
            assert target.serves(), "no other cell could be made"
        say("end", label, posted, error, changed, seconds_to_end)
    assert target.serves()
    target.end()
    target.supervisor.shutdown()
    say("done")


if __name__ == "__main__":
    main()
