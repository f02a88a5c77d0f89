"""Attacks by new processes and programs, and on processes that are there."""

from pyisolate.attack.case import Attack
from pyisolate.attack.numbers import X86_64

_BODY_OF_EXEC = "[sys.executable, '-I', '-S', '-c', 'raise SystemExit(42)']"

MAKING = [
    Attack("fork: os.fork", "need(reaped(os.fork()), 'child')", "EPERM"),
    Attack(
        "fork: multiprocessing",
        """
        import multiprocessing
        process = multiprocessing.get_context("fork").Process(target=os._exit, args=(42,))
        process.start()
        process.join()
        need(process.exitcode == 42, "child")
        """,
        "EPERM",
    ),
    Attack(
        "fork: subprocess",
        f"""
        import subprocess, sys
        need(subprocess.run({_BODY_OF_EXEC}).returncode == 42, "child")
        """,
        "EPERM",
    ),
    Attack(
        "fork: posix_spawn",
        f"""
        import sys
        pid = os.posix_spawn(sys.executable, {_BODY_OF_EXEC}, {{}})
        need(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42, "child")
        """,
        "EPERM",
    ),
    # The C function reports a failure as an exit status.
    Attack(
        "fork: os.system",
        "need(os.waitstatus_to_exitcode(os.system('exit 42')) == 42, 'shell')",
        "LookupError ValueError",
    ),
    Attack("fork: os.popen", "need(os.popen('echo hello').read(), 'shell')", "EPERM"),
    Attack("fork: raw clone", "need(cloned(17), 'child')", "EPERM", lone=True),
    Attack(
        "fork: raw clone3",
        """
        arguments = struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
        need(reaped(raw("clone3", arguments, len(arguments))), "child")
        """,
        "ENOSYS",
        kind="calls",
        # Outside, its child has the other thread's locks and nobody to release them.
        lone=True,
    ),
    Attack("fork: libc", "need(reaped(libc('fork')), 'child')", "EPERM", lone=True),
]
if X86_64:
    MAKING += [
        Attack("fork: raw fork", "need(reaped(raw('fork')), 'child')", "EPERM", lone=True),
        Attack(
            "fork: vfork in machine code", "need(vforked(world['numbers']['vfork']), '')", "EPERM"
        ),
        Attack(
            "fork: fork in machine code", "need(vforked(world['numbers']['fork']), '')", "EPERM"
        ),
    ]

EXECUTING = [
    Attack(
        "exec: os.execv",
        f"import sys; os.execv(sys.executable, {_BODY_OF_EXEC})",
        "EPERM",
        exits=42,
    ),
    Attack(
        "exec: raw execve",
        f"""
        import sys
        words = {_BODY_OF_EXEC}
        argv = (ctypes.c_char_p * 6)(*map(os.fsencode, words), None)
        raw("execve", path(sys.executable), argv, (ctypes.c_char_p * 1)(None))
        """,
        "EPERM",
        exits=42,
    ),
    Attack(
        "exec: raw execveat",
        f"""
        import sys
        words = {_BODY_OF_EXEC}
        argv = (ctypes.c_char_p * 6)(*map(os.fsencode, words), None)
        program = os.open(sys.executable, os.O_PATH)
        raw("execveat", program, path(""), argv, (ctypes.c_char_p * 1)(None), 0x1000)
        """,
        "EPERM",
        exits=42,
    ),
    Attack(
        "exec: memory file",
        """
        file = os.memfd_create("program", 0)
        os.write(file, b"#!/bin/sh\\nexit 42\\n")
        os.execve(file, ["program"], {})
        """,
        "EPERM",
        exits=42,
    ),
    Attack(
        "exec: memory file, raw",
        """
        file = raw("memfd_create", path("program"), 0)
        raw("write", file, b"#!/bin/sh\\nexit 42\\n", 18)
        argv = (ctypes.c_char_p * 2)(b"program", None)
        raw("execveat", file, path(""), argv, (ctypes.c_char_p * 1)(None), 0x1000)
        """,
        "EPERM",
        exits=42,
    ),
]

_PIDFD = """
try:
    pidfd = os.pidfd_open(world["canary"])
except OSError:
    pidfd = 0  # no door, but the next call is tried all the same
"""

INSPECTING = [
    Attack(
        "inspect: ptrace",
        """
        raw("ptrace", 16, world["canary"], 0, 0)  # PTRACE_ATTACH
        os.waitpid(world["canary"], 0x40000000)  # __WALL
        """,
        "EPERM",
        privileged=True,
        lacking="ECHILD",
    ),
    Attack(
        "inspect: ptrace by libc",
        "libc('ptrace', 0x4206, world['canary'], 0, 0)",
        "EPERM",
        privileged=True,
    ),
    Attack("inspect: ptrace of itself", "raw('ptrace', 0, 0, 0, 0)", "EPERM", lone=True),
    Attack(
        "inspect: process_vm_readv",
        """
        found = ctypes.create_string_buffer(24)
        here = struct.pack("QQ", ctypes.addressof(found), 24)
        there = struct.pack("QQ", world["canary_address"], 24)
        raw("process_vm_readv", world["canary"], here, 1, there, 1, 0)
        return found.raw.decode()
        """,
        "EPERM",
        loot=True,
        privileged=True,
    ),
    Attack(
        "inspect: process_vm_readv by libc",
        """
        found = ctypes.create_string_buffer(24)
        here = struct.pack("QQ", ctypes.addressof(found), 24)
        there = struct.pack("QQ", world["canary_address"], 24)
        libc("process_vm_readv", world["canary"], here, 1, there, 1, 0)
        return found.raw.decode()
        """,
        "EPERM",
        loot=True,
        privileged=True,
    ),
    Attack(
        "inspect: process_vm_writev",
        """
        same = ctypes.create_string_buffer(b"x", 1)
        here = struct.pack("QQ", ctypes.addressof(same), 1)
        there = struct.pack("QQ", world["canary_address"] + 24, 1)
        raw("process_vm_writev", world["canary"], here, 1, there, 1, 0)
        """,
        "EPERM",
        privileged=True,
    ),
    Attack("inspect: os.pidfd_open", "os.pidfd_open(world['canary'])", "EPERM"),
    Attack("inspect: raw pidfd_open", "raw('pidfd_open', world['canary'], 0)", "EPERM"),
    Attack("inspect: pidfd_open of itself", "os.pidfd_open(os.getpid())", "EPERM"),
    Attack(
        "inspect: pidfd_getfd",
        f"""{_PIDFD}
stolen = raw("pidfd_getfd", pidfd, world["canary_fd"], 0)
return os.pread(stolen, 64, 0).decode()
""",
        "EPERM",
        loot=True,
        privileged=True,
        kind="calls",
    ),
    Attack(
        "inspect: kcmp",
        "raw('kcmp', os.getpid(), world['canary'], 0, 0, 0)",
        "EPERM",
        privileged=True,
    ),
    Attack(
        "inspect: another's limits",
        "import resource; resource.prlimit(world['canary'], resource.RLIMIT_NOFILE)",
        "EPERM",
    ),
    Attack(
        "inspect: another's limits, raw",
        "raw('prlimit64', world['canary'], 7, 0, bytes(16))",
        "EPERM",
    ),
]

SIGNALLING = [
    Attack("signal: os.kill", "os.kill(world['canary'], 9)", "EPERM", kills=True),
    Attack("signal: is it there", "os.kill(world['canary'], 0)", "EPERM"),
    Attack("signal: everybody", "os.kill(-1, 9)", "EPERM", kills=True),
    Attack("signal: its own group", "os.killpg(0, 0)", "EPERM"),
    Attack("signal: its parent", "os.kill(os.getppid(), 0)", "EPERM"),
    Attack("signal: raw kill", "raw('kill', world['canary'], 9)", "EPERM", kills=True),
    Attack("signal: raw kill of everybody", "raw('kill', -1, 9)", "EPERM", kills=True),
    Attack(
        "signal: raw tgkill",
        "raw('tgkill', world['canary'], world['canary'], 9)",
        "EPERM",
        kills=True,
    ),
    Attack("signal: raw tkill", "raw('tkill', world['canary'], 9)", "EPERM", kills=True),
    Attack(
        "signal: raw rt_sigqueueinfo",
        """
        information = struct.pack("3i116x", 15, 0, -1)  # SI_QUEUE
        raw("rt_sigqueueinfo", world["canary"], 15, information)
        """,
        "EPERM",
        kills=True,
    ),
    Attack(
        "signal: pidfd",
        f"""{_PIDFD}
import signal
signal.pidfd_send_signal(pidfd, 9)
""",
        "EPERM",
        kills=True,
    ),
    Attack(
        "signal: raw pidfd_send_signal",
        f"""{_PIDFD}
raw("pidfd_send_signal", pidfd, 9, 0, 0)
""",
        "EPERM",
        kills=True,
    ),
    Attack(
        "signal: by input on a pipe",
        """
        reading, writing = os.pipe()
        raw("fcntl", reading, 8, world["canary"])  # F_SETOWN
        raw("fcntl", reading, 10, 9)  # F_SETSIG
        raw("fcntl", reading, 4, 0o20000)  # F_SETFL, O_ASYNC
        os.write(writing, b"x")
        """,
        "EPERM",
        kills=True,
    ),
]

ATTACKS = MAKING + EXECUTING + INSPECTING + SIGNALLING
