"""Attacks on the host whose process a cell shares: its descriptors, signals, limits, settings.

Each is tried in a sub-interpreter cell with all that it has, wall and guards, and in a process of
its own without: there it takes the secret, changes what `interpreter_host.portrait` sees, or ends
it.
"""

import dataclasses
import textwrap

from pyisolate.attack.case import Attempt, Fate, Finding, Trial, judged


@dataclasses.dataclass(frozen=True, eq=False)
class Own(Trial):
    """One attack, as guest source text: a function's body, as `Attack` has it.

    `refused`: the errors by which a cell may refuse it, by `errno` or type; `QUIET`, which may come
    back, for the host is as before; `DIES`, by which the cell ends. `shows`: how the control shows
    that it works: `loot`, the secret; `changed`, the host is another; `done`, it comes back; or the
    status it ends with.
    """

    name: str
    body: str
    refused: str
    shows: str | int = "done"
    kind: str = "shared"

    def __str__(self) -> str:
        return self.name

    def attempt(self) -> Attempt:
        """The attack, as both sides execute it."""
        body = textwrap.indent(textwrap.dedent(self.body).strip(), "    ")
        source = f"def attack():\n{body}\npost(attempt(attack))\n"
        return Attempt(self.name, source, seconds=10)

    def confined(self, fate: Fate, token: str, backend: str) -> dict[str, Finding]:
        """Refused as expected; the host is alive and as before."""
        refused = self.refused.replace("SystemExit", "DIES")
        return {self.name: judged(fate, token, refused)}

    def bare(self, fate: Fate, token: str) -> dict[str, Finding]:
        """It reaches what it aims at."""
        return {self.name: self._bare(fate, token)}

    def _bare(self, fate: Fate, token: str) -> Finding:
        if fate.lacking:
            return Finding("lacking", fate.lacking)
        works = Finding("reached", "it works without the wall")
        seen = Finding("odd", f"{fate.posted!r}, {fate.changed}, ended with {fate.host}")
        if isinstance(self.shows, int):
            return works if fate.host == self.shows else seen
        if self.shows == "ends":
            return works if fate.posted is None else seen
        if fate.host != 0 or fate.posted is None or fate.posted[0] != "done":
            return seen
        if (self.shows == "changed" and not fate.changed) or (
            self.shows == "loot" and fate.posted[1] != token
        ):
            return seen
        return works


_BY_NUMBER = """
for number in range(3, 512):
    try:
        {act}
    except OSError:
        continue
raise LookupError("no number leads there")
"""

DESCRIPTORS = [
    Own(
        "descriptor: read the host's file",
        _BY_NUMBER.format(
            act="if len(found := os.pread(number, 25, 0)) == 24: return found.decode()"
        ),
        "LookupError",
        "loot",
    ),
    Own(
        "descriptor: open below the host's folder",
        _BY_NUMBER.format(
            act="return os.read(os.open('secret.txt', os.O_RDONLY, dir_fd=number), 64).decode()"
        ),
        "LookupError",
        "loot",
    ),
    Own(
        "descriptor: stat below the host's folder",
        _BY_NUMBER.format(act="return os.stat('secret.txt', dir_fd=number).st_size"),
        "LookupError",
    ),
    Own(
        "descriptor: change to the host's folder",
        _BY_NUMBER.format(act="os.fchdir(number); return os.listdir('.')[0]"),
        "LookupError",
        "changed",
    ),
    Own(
        "descriptor: move its offset",
        "os.lseek(world['planted_fd'], 7, os.SEEK_SET)",
        "EBADF",
        "changed",
    ),
    Own(
        "descriptor: change its flags",
        "import fcntl; fcntl.fcntl(world['planted_fd'], fcntl.F_SETFL, os.O_NONBLOCK)",
        "EBADF",
        "changed",
    ),
    Own("descriptor: close it", "os.close(world['planted_fd'])", "EBADF", "changed"),
    Own("descriptor: close the lot", "os.closerange(0, 512)", "DIES QUIET", "ends"),
    Own("descriptor: replace it", "os.dup2(0, world['planted_fd'])", "QUIET", "changed"),
    Own(
        "descriptor: make it inheritable", "os.set_inheritable(world['planted_fd'], True)", "EBADF"
    ),
    Own(
        "descriptor: replace the standard output",
        "os.dup2(0, 2)",
        "QUIET",
        "changed",
    ),
    Own(
        "descriptor: lock the host's file",
        "import fcntl; fcntl.flock(world['planted_fd'], fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "EBADF EPERM",
    ),
    Own(
        "descriptor: take the process's file locks away",
        "import fcntl; fcntl.lockf(os.open(os.__file__, 0), fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "EPERM",
    ),
    Own("descriptor: listed", "return os.listdir('/proc/self/fd')[0]", "ENOENT EACCES EPERM"),
    Own(
        "descriptor: by the host's /proc",
        'return open(f\'/proc/{world["host"]}/fd/{world["planted_fd"]}\').read()',
        "ENOENT EACCES EPERM",
        "loot",
    ),
]

PROC = [
    Own(
        f"/proc: {name} of {whose}",
        f"return len(open(f'/proc/{pid}/{name}', 'rb').read(64))",
        "ENOENT EACCES EPERM",
    )
    for whose, pid in (("itself", "self"), ("the host", '{world["host"]}'))
    for name in ("environ", "cmdline", "maps", "stat", "mountinfo")
] + [
    Own(
        "/proc: memory of the process",
        "return os.open('/proc/self/mem', os.O_RDWR)",
        "ENOENT EACCES EPERM",
    ),
    Own("/proc: threads", "return len(os.listdir('/proc/self/task'))", "ENOENT EACCES EPERM"),
]

_VARIABLE = "PLANTED"

VARIABLES = [
    Own("variables: os.environ", f"return os.environ[{_VARIABLE!r}]", "KeyError", "loot"),
    Own(
        "variables: of a second posix module",
        f"""
        import sys
        sys.modules.pop("posix")
        import posix
        return posix.environ[b"{_VARIABLE}"].decode()
        """,
        "ImportError",
        "loot",
    ),
    Own(
        "variables: of one that is made by hand",
        f"""
        import _imp, importlib.machinery
        made = _imp.create_builtin(importlib.machinery.ModuleSpec("posix", None))
        _imp.exec_builtin(made)
        return made.environ[b"{_VARIABLE}"].decode()
        """,
        "ImportError",
        "loot",
    ),
    Own(
        "variables: of one that its importer makes",
        f"""
        from importlib.machinery import BuiltinImporter, ModuleSpec
        made = BuiltinImporter.create_module(ModuleSpec("posix", BuiltinImporter))
        BuiltinImporter.exec_module(made)
        return made.environ[b"{_VARIABLE}"].decode()
        """,
        "ImportError",
        "loot",
    ),
    Own("variables: os.putenv", "os.putenv('GUEST', '1')", "QUIET", "changed"),
    Own("variables: os.environ, set", "os.environ['GUEST'] = '1'", "QUIET", "changed"),
    Own("variables: os.unsetenv", f"os.unsetenv({_VARIABLE!r})", "QUIET", "changed"),
    Own(
        "variables: putenv of a second posix module",
        """
        import sys
        sys.modules.pop("posix")
        import posix
        posix.putenv("GUEST", "1")
        """,
        "ImportError",
        "changed",
    ),
    Own(
        "variables: the time zone",
        "import time; os.environ['TZ'] = 'GUEST-5'; time.tzset()",
        "QUIET",
        "changed",
    ),
    Own(
        "settings: the locale",
        "import locale; locale.setlocale(locale.LC_ALL, 'C')",
        "QUIET",
        "changed",
    ),
    Own(
        "settings: the locale, in C",
        "import _locale; _locale.setlocale(_locale.LC_CTYPE, 'C')",
        "QUIET",
        "changed",
    ),
    Own("settings: the folder", "os.chdir(os.path.dirname(os.__file__))", "QUIET", "changed"),
    Own("settings: the umask", "os.umask(0)", "QUIET", "changed"),
    Own("settings: nice", "os.nice(1)", "EPERM", "changed"),
    Own("settings: priority", "os.setpriority(os.PRIO_PROCESS, 0, 3)", "EPERM", "changed"),
    Own("settings: processors", "os.sched_setaffinity(0, {0})", "EPERM"),
    Own("settings: a session", "os.setsid()", "EPERM", "changed"),
    Own("settings: a group of processes", "os.setpgid(0, 0)", "EPERM", "changed"),
    Own(
        "settings: the host's name", "import socket; socket.sethostname('mine')", "EPERM", "changed"
    ),
]

SIGNALS = [
    Own(
        "signal: a handler",
        "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "ValueError",
        "changed",
    ),
    Own(
        "signal: a handler, made interrupting",
        "import signal; signal.siginterrupt(signal.SIGUSR1, True)",
        "EPERM",
    ),
    Own(
        "signal: the mask",
        "import signal; signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR1})",
        "EPERM",
        "changed",
    ),
    Own("signal: alarm", "import signal; signal.alarm(1000)", "EPERM QUIET", "changed"),
    Own(
        "signal: setitimer",
        "import signal; signal.setitimer(signal.ITIMER_REAL, 5.0, 1000)",
        "EPERM",
        "changed",
    ),
    Own(
        "signal: the profiling timer",
        "import signal; signal.setitimer(signal.ITIMER_PROF, 5.0, 1000)",
        "EPERM",
        "changed",
    ),
    Own("signal: take one", "import signal; signal.sigtimedwait([signal.SIGUSR1], 0)", "EPERM"),
    Own("signal: look", "import signal; signal.sigpending()", "EPERM"),
    Own("signal: kill", "os.kill(world['host'], 15)", "EPERM", -15),
    Own("signal: kill its parent", "os.kill(os.getpid(), 9)", "EPERM", -9),
    Own("signal: kill everybody in the group", "os.setpgid(0, 0); os.killpg(0, 15)", "EPERM", -15),
    Own("signal: raise", "import signal; signal.raise_signal(15)", "EPERM DIES", -15),
    Own(
        "signal: to the main thread",
        "import signal; signal.pthread_kill(world['main'], 15)",
        "PermissionError",
        -15,
    ),
    Own(
        "signal: by a pidfd",
        "import signal; signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 15)",
        "EPERM",
        -15,
    ),
    Own(
        "signal: interrupt the main thread",
        "import _thread; _thread.interrupt_main()\nfor _ in range(1000): pass",
        "RuntimeError",
        "ends",
    ),
    Own(
        "signal: interrupt the main thread, by the second module",
        """
        import sys
        sys.modules.pop("_thread")
        import _thread
        _thread.interrupt_main()
        for _ in range(1000): pass
        """,
        "ImportError",
        "ends",
    ),
    Own(
        "signal: the wakeup descriptor",
        "import signal; signal.set_wakeup_fd(-1)",
        "ValueError",
    ),
]

LIMITS = [
    Own(
        "limits: lower them",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
        "PermissionError",
        "changed",
    ),
    Own(
        "limits: lower them for a process",
        "import resource; resource.prlimit(0, resource.RLIMIT_NOFILE, (64, 64))",
        "PermissionError",
        "changed",
    ),
    *(
        Own(f"identity: {name}", f"os.{name}({arguments})", "EPERM")
        for name, arguments in {
            "setuid": "os.getuid()", "setgid": "os.getgid()", "seteuid": "os.getuid()",
            "setegid": "os.getgid()", "setreuid": "-1, -1", "setregid": "-1, -1",
            "setresuid": "-1, -1, -1", "setresgid": "-1, -1, -1",
        }.items()
    ),
    Own(
        "process: a namespace",
        "os.unshare(os.CLONE_NEWUTS)",
        "EPERM",
        "changed",
    ),
    Own(
        "process: join a namespace",
        "os.setns(os.open('/proc/self/ns/uts', os.O_RDONLY), 0)",
        "ENOENT EACCES EPERM",
    ),
]  # fmt: skip

ENDINGS = [
    Own("end: os._exit", "os._exit(7)", "DIES", 7),
    Own("end: os.abort", "os.abort()", "DIES", -6),
    Own("end: sys.exit", "import sys; sys.exit(7)", "DIES SystemExit", "ends"),
    Own("end: SystemExit", "raise SystemExit(7)", "DIES SystemExit", "ends"),
    Own(
        "end: quit", "import _sitebuiltins; _sitebuiltins.Quitter('q', '')(7)", "SystemExit", "ends"
    ),
    Own("end: signal itself, killed", "import signal; signal.raise_signal(9)", "EPERM DIES", -9),
    Own(
        "end: another program",
        "import sys; os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(42)'])",
        "RuntimeError EPERM",
        42,
    ),
    Own(
        "fork: os.fork of the process",
        "if os.fork() == 0: os._exit(0)\nos.wait()",
        "RuntimeError EPERM",
    ),
    Own(
        "fork: os.forkpty", "pid, _ = os.forkpty()\nif pid == 0: os._exit(0)", "RuntimeError EPERM"
    ),
    Own(
        "fork: posix_spawn of the process",
        "import sys; os.waitpid(os.posix_spawn(sys.executable, ['python', '-c', ''], {}), 0)",
        "EPERM",
    ),
    Own(
        "fork: _posixsubprocess",
        """
        import _posixsubprocess, sys
        reader, writer = os.pipe()
        arguments = [
            [b"python", b"-c", b""], [os.fsencode(sys.executable)], True, (writer,), None, None,
            -1, -1, -1, -1, -1, -1, reader, writer, True, False, -1, None, None, None, -1, None,
        ]
        if sys.version_info < (3, 14):
            arguments.append(True)
        os.waitpid(_posixsubprocess.fork_exec(*arguments), 0)
        """,
        "RuntimeError EPERM",
    ),
    Own("thread: _thread", "import _thread; _thread.start_new_thread(int, ())", "RuntimeError"),
    Own(
        "thread: threading",
        "import threading; threading.Thread(target=int).start()",
        "RuntimeError",
    ),
    Own(
        "thread: a pool",
        "from concurrent.futures import ThreadPoolExecutor as T; return T(1).submit(int).result()",
        "RuntimeError",
    ),
]

ATTACKS = [*DESCRIPTORS, *PROC, *VARIABLES, *SIGNALS, *LIMITS, *ENDINGS]
