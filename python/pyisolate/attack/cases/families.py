"""Attacks that are generated: every number, flag, family and option of a kind.

A case is one expression. In a cell its answer has to be the wall's; in the control it has to be
any other, which shows that the wall answered and nothing behind it. Arguments are -1 wherever a
call might otherwise do something: no pointer, no descriptor and no flag is valid then.
"""

import errno
import os
import resource
import socket
from pathlib import Path

from pyisolate.attack.family import Family
from pyisolate.attack.numbers import NUMBERS, X86_64

_X32 = 0x4000_0000
_THREAD = 0x003D_0F00  # the flags of glibc's threads
_SIGCHLD = 17

_KNOWN_TO_A_CELL = {
    # Allowed with the right arguments, so covered by families of their own below.
    "fcntl", "ioctl", "mmap", "prctl", "prlimit64", "tgkill", "socketpair", "clone",
    # Allowed: what an attack needs to have something to attack with.
    "read", "write", "open", "openat", "stat", "newfstatat", "statx", "access", "faccessat",
    "readlink", "readlinkat", "getdents64", "chdir", "getpid", "getuid", "uname", "lseek",
    "sendto", "getsockname",
}  # fmt: skip
_ON_ITS_OWN = {"fork", "vfork", "fanotify_init"}  # attacks with the right arguments
_MISSING = {"clone3", "openat2"}  # the libc has to believe that there are none


def _sweep(numbers: dict[str, int]) -> dict[str, str]:
    return {name: f"raw({number}, -1, -1, -1, -1, -1, -1)" for name, number in numbers.items()}


def _constants(module: object, prefix: str) -> dict[str, int]:
    return {name: value for name, value in vars(module).items() if name.startswith(prefix)}


_REFUSED = {
    name: number
    for name, number in NUMBERS.items()
    if name not in _KNOWN_TO_A_CELL | _ON_ITS_OWN | _MISSING
}
SYSTEM_CALLS = Family("system calls", "calls", _sweep(_REFUSED))
MISSING_CALLS = Family(
    "system calls that libc must believe missing",
    "calls",
    _sweep({name: NUMBERS[name] for name in sorted(_MISSING)}),
    answer="ENOSYS",
)
FUTURE_CALLS = Family(
    "system calls that nobody knows yet",
    "calls",
    _sweep({f"number {number}": number for number in (*range(480, 512), 600, 4096, 1 << 31, -1)}),
)
_X32_SAFE = _sweep(
    {f"x32 {name}": _X32 | NUMBERS[name] for name in NUMBERS if name not in _ON_ITS_OWN}
) | _sweep({f"x32 number {number}": _X32 | number for number in range(512, 548)})
X32_CALLS = Family(
    "x32 numbers",
    "calls",
    # Reading a number without its high bit would find the allowed calls, too.
    _X32_SAFE | _sweep({f"x32 number {number}": _X32 | number for number in range(512)}),
    # A kernel that has this table would end the control by some of the others.
    controlled=frozenset(_X32_SAFE),
)

_NAMED = _constants(socket, "AF_")
_SOCKET_FAMILIES = _NAMED | {
    f"AF {number}": number for number in range(47) if number not in _NAMED.values()
}
_SOCKET_TYPES = {"STREAM": 1, "DGRAM": 2, "RAW": 3, "RDM": 4, "SEQPACKET": 5, "PACKET": 10}
SOCKETS = Family(
    "sockets",
    "egress",
    {
        f"{family} {kind}": f"os.close(raw('socket', {number}, {type_number}, 0))"
        for family, number in _SOCKET_FAMILIES.items()
        for kind, type_number in _SOCKET_TYPES.items()
    }
    | {
        "AF_INET STREAM with flags": "os.close(raw('socket', 2, 1 | 0o2004000, 0))",
        "AF_INET STREAM with high bits": "os.close(raw('socket', 2 | 1 << 32, 1 | 1 << 32, 0))",
    },
    # To ask for other families could make the kernel load modules, which stay.
    controlled=frozenset(
        f"{family} {kind}"
        for family in ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET")
        for kind in _SOCKET_TYPES
    )
    | {"AF_INET STREAM with flags", "AF_INET STREAM with high bits"},
)
PAIRS = Family(
    "socket pairs",
    "egress",
    {
        f"{family} {kind}": f"raw('socketpair', {number}, {type_number}, 0, bytes(8))"
        for family, number in _SOCKET_FAMILIES.items()
        for kind, type_number in _SOCKET_TYPES.items()
        if (family, kind) != ("AF_UNIX", "STREAM")
    },
    controlled=frozenset(
        f"{family} {kind}" for family in ("AF_UNIX", "AF_INET") for kind in _SOCKET_TYPES
    )
    - {"AF_UNIX STREAM"},
)

_CLONE_FLAGS = {
    name: value & 0xFFFF_FFFF_FFFF_FFFF for name, value in _constants(os, "CLONE_").items()
} | {"CLONE_PIDFD": 0x1000, "CLONE_PARENT": 0x8000, "CLONE_UNTRACED": 0x800000}
_NAMESPACE_FLAGS = {
    name: value
    for name, value in _CLONE_FLAGS.items()
    if name.startswith("CLONE_NEW") and name != "CLONE_NEWTIME"  # shares bits with the signal
}
UNSHARE = Family(
    "unshare",
    "calls",
    # Last the user namespace, after which the others would fail: nobody is mapped there.
    {
        name: f"raw('unshare', {value})"
        for name, value in sorted(
            (_NAMESPACE_FLAGS | {"CLONE_NEWTIME": 0x80}).items(), key=lambda item: "USER" in item[0]
        )
    }
    | {"CLONE_FILES": "raw('unshare', 0x400)", "CLONE_FS": "raw('unshare', 0x200)"},
)
CLONE = Family(
    "clone",
    "calls",
    {name: f"cloned({value | _SIGCHLD})" for name, value in _NAMESPACE_FLAGS.items()}
    | {"no flags": "cloned(0)", "a signal": f"cloned({_SIGCHLD})"}
    | {f"other: {name}": f"cloned({value | _SIGCHLD})" for name, value in _CLONE_FLAGS.items()}
    | {
        f"thread and {name}": f"cloned({_THREAD | value})"
        for name, value in _NAMESPACE_FLAGS.items()
    }
    | {
        f"thread and bit {bit}": f"cloned({_THREAD | 1 << bit})"
        for bit in range(64)
        if not _THREAD & 1 << bit and 1 << bit != 0x0040_0000  # musl's CLONE_DETACHED
    }
    | {
        f"thread without bit {bit}": f"cloned({_THREAD & ~(1 << bit)})"
        for bit in range(32)
        if _THREAD & 1 << bit
    },
    # A process that shares its memory would run on its parent's stack: the cell alone is asked.
    controlled=frozenset(_NAMESPACE_FLAGS) | {"a signal"},
)

_PRCTL = {
    "PDEATHSIG": 1, "DUMPABLE": 4, "UNALIGN": 6, "KEEPCAPS": 8, "FPEMU": 10, "FPEXC": 12,
    "TIMING": 14, "ENDIAN": 20, "SECCOMP": 22, "CAPBSET_DROP": 24, "TSC": 26, "TIMERSLACK": 29,
    "MCE_KILL": 33, "MM": 35, "CHILD_SUBREAPER": 36, "NO_NEW_PRIVS": 38, "GET_TID_ADDRESS": 40,
    "THP_DISABLE": 41, "CAP_AMBIENT": 47, "SPECULATION_CTRL": 53, "SYSCALL_USER_DISPATCH": 59,
    "SCHED_CORE": 62, "MDWE": 65, "PTRACER": 0x59616D61,
}  # fmt: skip
PRCTL = Family(
    "prctl",
    "rights",
    {name: f"raw('prctl', {value}, -1, -1, -1, -1)" for name, value in _PRCTL.items()}
    | {"SECUREBITS": "raw('prctl', 28, 0, 0, 0, 0)"},
)
_IOCTLS = {
    "TIOCSTI": 0x5412, "TIOCLINUX": 0x541C, "TIOCSCTTY": 0x540E, "TIOCNOTTY": 0x5422,
    "TIOCSETD": 0x5423, "TIOCCONS": 0x541D, "TCSETS": 0x5402, "TIOCSPGRP": 0x5410,
    "TIOCGPTPEER": 0x5441, "FIOASYNC": 0x5452, "FIOQSIZE": 0x5460, "FIOSETOWN": 0x8901,
    "SIOCSPGRP": 0x8902, "SIOCGIFCONF": 0x8912, "SIOCSIFFLAGS": 0x8914,
    "FS_IOC_SETFLAGS": 0x40086602, "FICLONE": 0x40049409, "RNDADDENTROPY": 0x40085203,
    "KVM_CREATE_VM": 0xAE01, "NS_GET_USERNS": 0xB701, "PIDFD_GET_USER_NAMESPACE": 0xFF0A,
}  # fmt: skip
IOCTL = Family(
    "ioctl",
    "calls",
    {
        label: f"raw('ioctl', pipe_ends[0], {number}, -1)"
        for name, value in _IOCTLS.items()
        # The kernel takes 32 bits, so a filter that compares 64 can be told another number.
        for label, number in ((name, value), (f"{name}, high bits", value | 1 << 32))
    },
    setup="pipe_ends = os.pipe()",
)
_FCNTL = {
    "SETOWN": 8, "GETOWN": 9, "SETSIG": 10, "GETSIG": 11, "SETOWN_EX": 15, "GETOWN_EX": 16,
    "SETLEASE": 1024, "GETLEASE": 1025, "NOTIFY": 1026, "SETPIPE_SZ": 1031, "ADD_SEALS": 1033,
    "GET_RW_HINT": 1035, "SET_RW_HINT": 1036, "GETLK": 5, "SETLK": 6, "SETLKW": 7,
    "OFD_GETLK": 36, "OFD_SETLK": 37, "OFD_SETLKW": 38,
}  # fmt: skip
FCNTL = Family(
    "fcntl",
    "calls",
    {name: f"raw('fcntl', pipe_ends[1], {value}, -1)" for name, value in _FCNTL.items()},
    setup="pipe_ends = os.pipe()",
)
_SHARED_KINDS = {"MAP_SHARED": 1, "MAP_SHARED_VALIDATE": 3, "MAP_DROPPABLE": 8}
MMAP = Family(
    "mmap without a file",
    "rights",
    {
        name: f"raw('mmap', 0, 4096, 3, {value | 0x20}, -1, 0)"
        for name, value in _SHARED_KINDS.items()
    }
    | {
        "MAP_HUGETLB": "raw('mmap', 0, 4096, 3, 0x40021, -1, 0)",
        # A stack that grows by itself, which no limit on data counts.
        "MAP_GROWSDOWN": "raw('mmap', 0, 4096, 3, 0x122, -1, 0)",
    },
)
_OPTIONS = {
    "SO_ATTACH_FILTER": 26, "SO_ATTACH_BPF": 50, "SO_PASSCRED": 16, "SO_PASSPIDFD": 76,
    "SO_BINDTODEVICE": 25, "SO_MARK": 36, "SO_RCVBUFFORCE": 33, "SO_SNDBUF": 7, "SO_RCVBUF": 8,
    "SO_BUSY_POLL": 46, "SO_ZEROCOPY": 60, "SO_PEEK_OFF": 42,
}  # fmt: skip
_QUESTIONS = {"SO_PEERCRED": 17, "SO_PEERSEC": 31, "SO_PEERGROUPS": 59, "SO_PEERPIDFD": 77}
OPTIONS = Family(
    "socket options",
    "egress",
    {
        f"set {name}": f"libc('setsockopt', ends[0].fileno(), 1, {value}, -1, 4)"
        for name, value in _OPTIONS.items()
    }
    | {
        f"get {name}": f"libc('getsockopt', ends[0].fileno(), 1, {value}, -1, -1)"
        for name, value in _QUESTIONS.items()
    }
    | {
        f"get at level {level}": f"libc('getsockopt', ends[0].fileno(), {level}, 1, -1, -1)"
        for level in (0, 6, 41, 255, 270, 282)
    },
    setup="import socket; ends = socket.socketpair()",
)
SIGNALS = Family(
    "signals",
    "processes",
    # Process 1 is the cell itself; any other number is not there, or not its own.
    {
        f"tgkill of process {pid}": f"raw('tgkill', {pid}, {pid}, 0)"
        for pid in (0, 2, 3, 1 << 22, -1)
    }
    | {f"kill with {pid}": f"raw('kill', {pid}, 0)" for pid in (0, 1, 2, -1, -2, 1 << 22)},
)
LIMITS = Family(
    "limits of other processes",
    "processes",
    {
        f"{name} of process {pid}": f"raw('prlimit64', {pid}, {value}, 0, bytes(16))"
        for name, value in _constants(resource, "RLIMIT_").items()
        for pid in (1, 2, -1)
    },
)
HOST_FOLDERS = Family(
    "the host's folders",
    "files",
    {
        f"/{entry.name}": f"os.listdir('/{entry.name}')"
        for entry in sorted(Path("/").iterdir())
        if entry.is_dir()
        and entry.name not in {"dev", "lib", "lib64", "packages", "pyisolate", "python"}
        and os.access(entry, os.R_OK | os.X_OK)
    },
    answer=errno.errorcode[errno.ENOENT],
)

FAMILIES = [
    SYSTEM_CALLS, MISSING_CALLS, FUTURE_CALLS, SOCKETS, PAIRS, UNSHARE, CLONE, PRCTL, IOCTL,
    FCNTL, MMAP, OPTIONS, SIGNALS, LIMITS, HOST_FOLDERS,
]  # fmt: skip
if X86_64:
    FAMILIES.append(X32_CALLS)
