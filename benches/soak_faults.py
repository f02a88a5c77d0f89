"""What is taken away from a host while its cells live."""

import contextlib
import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import hosts
import pyisolate
from cells import children, until
from hosts import in_host_of_its_own, is_alive, parent

POOR_SECONDS = 10.0
"""How long after the descriptors came back an operation may still tell of their want."""

HOST = """
import pyisolate, sys
supervisor = pyisolate.Supervisor(warm_pool=1)
template = supervisor.template(setup="x = 1")
cells = [supervisor.spawn(f"c{number}", template=template) for number in range(2)]
cells.append(supervisor.spawn("busy"))
cells[2].exec("while True: pass")
print("ready", flush=True)
cells[0].recv()
"""


class End(BaseException):
    """What a thread dies of."""


class Faults:
    """One after the other."""

    def __init__(self, supervisor: Any, tally: Any, dice: random.Random) -> None:
        self.supervisor, self.tally, self.dice = supervisor, tally, dice
        self.names = iter(range(10**9))
        # The dear ones come round in turn, the others by chance.
        self.dear = [
            ("hosts killed", self.host_killed),
            ("hosts without memory", lambda: self.host(hosts.MEMORY)),
            ("hosts without threads", lambda: self.host(hosts.THREADS)),
            ("hosts with a full disk", lambda: self.host(hosts.FULL_DISK)),
            ("hosts without descriptors", lambda: self.host(hosts.DESCRIPTORS)),
        ]

    def one(self) -> None:
        """Takes something away."""
        time.sleep(self.dice.uniform(0.1, 0.6))
        cheap = {
            "cells killed": (lambda: self.kill("cell"), 8),
            "zygotes killed": (lambda: self.kill("zygote"), 3),
            "launchers killed": (lambda: self.kill("launcher"), 3),
            "zygotes stopped for a while": (self.stop_zygote, 1),
            "host threads ended": (self.thread, 2),
            "times without descriptors": (self.descriptors, 2),
        }
        if self.dice.random() < 0.1:
            name, fault = self.dear[0]
            self.dear.append(self.dear.pop(0))
        else:
            name = self.dice.choices(list(cheap), [weight for _, weight in cheap.values()])[0]
            fault = cheap[name][0]
        try:
            if fault() is not False:
                self.tally.add(f"faults: {name}")
        except BaseException as error:
            self.tally.problem(f"{name}: {error!r}")

    # --- processes

    def _found(self, what: str) -> int | None:
        """One of this host's processes of that kind."""
        found = []
        with contextlib.suppress(OSError, IndexError):
            launchers = [pid for pid in children() if parent(pid) == os.getpid()]
            # Not the helper that writes a template's user map, which is the launcher's child too.
            zygotes = [
                pid
                for pid in children()
                if parent(pid) in launchers
                and b"runtime.zygote(" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
            cells = [pid for pid in children() if parent(pid) in zygotes]
            found = {"launcher": launchers, "zygote": zygotes, "cell": cells}[what]
        return self.dice.choice(found) if found else None

    def _send(self, what: str, number: int) -> int | None:
        pid = self._found(what)
        if pid is None:
            return None
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                if pid in children():  # its number was not given to another meanwhile
                    signal.pidfd_send_signal(handle, number)
                    return pid
            finally:
                os.close(handle)
        return None

    def kill(self, what: str) -> bool:
        return self._send(what, signal.SIGKILL) is not None

    def stop_zygote(self) -> bool:
        pid = self._send("zygote", signal.SIGSTOP)
        if pid is None:
            return False
        time.sleep(self.dice.random() / 2)
        with contextlib.suppress(ProcessLookupError):
            if pid in children():
                os.kill(pid, signal.SIGCONT)
        return True

    # --- the host's own

    def thread(self) -> None:
        """A thread that made a cell dies while it waits for it."""

        def work() -> None:
            try:
                cells.append(self.supervisor.spawn(f"thread-{next(self.names)}"))
                started.set()
                cells[0].recv()
            except (End, pyisolate.SandboxError):
                started.set()

        cells: list[Any] = []
        started = threading.Event()
        thread = threading.Thread(target=work)
        thread.start()
        started.wait(30)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(End)
        )
        with contextlib.suppress(pyisolate.CellDied):
            for cell in cells:
                cell.exec("post(1)\npost(2)").wait(30)
        thread.join(30)
        if thread.is_alive():
            self.tally.problem("a thread that was to end waits on")
        for cell in cells:
            cell.kill()

    def descriptors(self) -> None:
        """None is left for a while."""
        lives = self.tally.lives
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken: list[int] = []
        lives.poor_until = time.monotonic() + 3600
        try:
            most = len(os.listdir("/proc/self/fd")) + self.dice.randrange(2, 40)  # noqa: PTH208
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            end = time.monotonic() + self.dice.uniform(0.05, 0.5)
            while time.monotonic() < end:
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(os.open("/dev/null", os.O_RDONLY))
        finally:
            for fd in taken:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            lives.poor_until = time.monotonic() + POOR_SECONDS

    # --- other hosts

    def host(self, program: str) -> None:
        in_host_of_its_own(program)

    def host_killed(self) -> None:
        """Nothing outlives a host that is killed at any moment."""
        host = subprocess.Popen(
            [sys.executable, "-c", HOST], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        if self.dice.random() < 0.5:
            assert host.stdout is not None
            host.stdout.readline()
        time.sleep(self.dice.random() / 2)
        family = children(host.pid)
        host.kill()
        host.communicate()
        if not until(lambda: not any(map(is_alive, family))):
            self.tally.problem(f"a killed host left {[pid for pid in family if is_alive(pid)]}")
        for pid in family:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}").exists() and parent(pid) == os.getpid():
                    os.waitpid(pid, 0)
