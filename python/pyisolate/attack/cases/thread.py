"""What a thread may not do though a process cell may, or because its process is the host's.

libc's calls for identities send every thread a signal, and hold a lock of all threads meanwhile.
The numbers are those of x86-64.
"""

from pyisolate.attack.case import Attack
from pyisolate.attack.numbers import X86_64

_CALLS = {
    "setuid": "os.getuid()", "setgid": "os.getgid()", "seteuid": "os.getuid()",
    "setreuid": "-1, -1", "setregid": "-1, -1", "setresuid": "-1, -1, -1",
}  # fmt: skip
_X86_64 = [
    *(
        Attack(f"identity: libc's {name}", f"libc({name!r}, {arguments})", "EPERM")
        for name, arguments in _CALLS.items()
    ),
    Attack("signal: a raw handler", "raw(13, 10, 0, ctypes.create_string_buffer(32), 8)", "EPERM"),
    Attack("signal: the raw mask", "raw(14, 2, ctypes.create_string_buffer(8), 0, 8)", "EPERM"),
    Attack("signal: where handlers run", "raw(131, 0, ctypes.create_string_buffer(24))", "EPERM"),
    Attack("timer: setitimer", "raw(38, 0, ctypes.create_string_buffer(32), 0)", "EPERM"),
    Attack("thread: whom its end is told", "raw(218, 0)", "EPERM"),
    Attack("end: raw exit_group", "raw(231, 42)", "DIES", exits=42),
    Attack("end: libc's _exit", "libc('_exit', 42)", "DIES", exits=42),
    Attack("end: libc's abort", "libc('abort')", "DIES", exits=-6),
    Attack("end: raw SIGABRT", "raw('tgkill', os.getpid(), raw(186), 6)", "DIES", exits=-6),
    Attack("end: raw SIGKILL", "raw('tgkill', os.getpid(), raw(186), 9)", "EPERM", exits=-9),
]
ATTACKS = _X86_64 if X86_64 else []
