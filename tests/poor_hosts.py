"""Makes a process the host that others have, by the real kernel, and runs Python there.

As a program: applies the restrictions before `--` in its arguments to itself, for good, and
executes Python with the arguments behind it. A seccomp filter stands for what a kernel lacks or a
container forbids; everything else is the thing itself.
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from errno import EACCES, ENOSYS, EOPNOTSUPP, EPERM
from pathlib import Path
from typing import Any, NoReturn

from pyisolate.attack.numbers import NUMBERS

SECONDS_MAX = 50.0
"""How long one host may take: a guard against hanging, below a test's limit."""

CANNOT = 77
"""The status of a host that could not be made."""

_HERE = Path(__file__).parent
_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 1, 24, 28, 38
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_NEW_LISTENER = 1, 8
_ALLOW, _ERRNO, _USER_NOTIF = 0x7FFF_0000, 0x0005_0000, 0x7FC0_0000
_NOTIF_RECEIVE, _NOTIF_SEND, _NOTIF_BYTES = 0xC050_2100, 0xC018_2101, 80
_NUMBERS = NUMBERS | {"close_range": 436}

_DOCKER_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
"""chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw,
sys_chroot, mknod, audit_write, setfcap: what containers have unless they are told otherwise."""

_NAMESPACES = 0x7E02_0000
"""Every flag of `clone` that makes a namespace, as Docker's profile has it."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One system call that is answered and not made: always, or if an argument is so."""

    call: str
    answer: int
    """What a seccomp filter returns: an error, or a question to the parent."""
    argument: int | None = None
    """The argument that is looked at; the lower half of it."""
    equal: int | None = None
    """It is this."""
    any_of: int | None = None
    """It has one of these bits."""


def _refused(error: int, *calls: str) -> list[Rule]:
    return [Rule(call, _ERRNO | error) for call in calls if call in _NUMBERS]


_MOUNTS = ("mount", "umount2", "open_tree", "move_mount", "fsopen", "fsmount", "mount_setattr")
_NO_CLONE = [Rule("clone", _ERRNO | EPERM, 0, any_of=_NAMESPACES)]

FILTERS: dict[str, list[Rule]] = {
    # A kernel or a container without user namespaces.
    "no-user-namespaces": [*_NO_CLONE, *_refused(ENOSYS, "clone3")],
    # What Docker's default profile refuses of what we or a guest might ask for.
    "docker": [
        *_NO_CLONE,
        *_refused(ENOSYS, "clone3"),
        *_refused(EPERM, *_MOUNTS, "fsconfig", "fspick", "pivot_root", "chroot"),
        *_refused(EPERM, "unshare", "setns", "sethostname", "setdomainname", "keyctl", "add_key"),
        *_refused(EPERM, "request_key", "bpf", "perf_event_open", "userfaultfd", "quotactl"),
        *_refused(EPERM, "open_by_handle_at", "lookup_dcookie", "fanotify_init", "kcmp"),
        *_refused(EPERM, "io_uring_setup", "io_uring_enter", "io_uring_register"),
    ],
    # Ubuntu's rule: the namespaces are made, the capabilities in them are worth nothing.
    "apparmor": [
        *_refused(EPERM, "sethostname", "setdomainname"),
        *_refused(EACCES, *_MOUNTS, "pivot_root"),
        Rule("prctl", _ERRNO | EPERM, 0, equal=_PR_CAPBSET_DROP),
        Rule("prctl", _ERRNO | EPERM, 0, equal=_PR_SET_SECUREBITS),
    ],
    # Docker's AppArmor profile on its own, without its seccomp profile.
    "no-mounts": _refused(EACCES, *_MOUNTS, "pivot_root"),
    # Fails where only a fault of ours would: the pivot is refused as a wrong argument is.
    "broken-pivot": _refused(22, "pivot_root"),
    "no-landlock": _refused(ENOSYS, *(name for name in _NUMBERS if name.startswith("landlock"))),
    "landlock-off": _refused(EOPNOTSUPP, "landlock_create_ruleset"),
    # As a container's older profile does, which knows no such call.
    "landlock-unknown": _refused(EPERM, *(name for name in _NUMBERS if "landlock" in name)),
    "no-pidfds": _refused(ENOSYS, "pidfd_open", "pidfd_send_signal", "pidfd_getfd"),
    "no-close-range": _refused(ENOSYS, "close_range"),
    "no-memory-files": _refused(ENOSYS, "memfd_create"),
    "no-seccomp": [
        *_refused(22, "seccomp"),
        Rule("prctl", _ERRNO | 22, 0, equal=22),  # PR_SET_SECCOMP
    ],
}  # fmt: skip


class CannotSimulateError(Exception):
    """This machine does not let the restriction be made. Names the feature that it lacks."""


# --- what a test calls


def command(restrictions: list[str], *arguments: str) -> list[str]:
    """What runs Python with these arguments on a host with these restrictions."""
    return [sys.executable, __file__, *restrictions, "--", *arguments]


def on_host(restrictions: list[str], source: str, *, ends: int = 0, **given: Any) -> Any:
    """Run Python on a host with these restrictions; what it gives to `answer`.

    The names in `given`, which are sent as JSON, are variables there. `ends`: the status with which
    the host has to end, as `subprocess` has it.
    """
    preamble = (
        "import json, os, sys\n"
        f"sys.path.insert(0, {str(_HERE)!r})\n"
        f"globals().update(json.loads({json.dumps(given)!r}))\n"
        "def answer(value): print('answer:', json.dumps(value), flush=True)\n"
    )
    ended = subprocess.run(
        command(restrictions, "-P", "-"),
        input=preamble + source,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    said = [line.removeprefix("answer: ") for line in ended.stdout.splitlines()]
    if ended.returncode == CANNOT:
        raise CannotSimulateError(ended.stderr.strip().splitlines()[-1])
    assert ended.returncode == ends, f"the host ended with {ended.returncode}:\n{ended.stderr}"
    return json.loads(said[-1])


# --- what the program does


def main() -> NoReturn:
    """Become the host, and run Python there."""
    split = sys.argv.index("--")
    names, arguments = sys.argv[1:split], sys.argv[split + 1 :]
    try:
        rules = [rule for name in names for rule in _become(name)]
        serve = None
        if any(rule.answer == _USER_NOTIF for rule in rules):
            serve = _fork_behind_a_listener()
        _set(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        listener = _install(rules, listens=serve is not None) if rules else -1
        if serve is not None:
            serve(listener)
    except OSError as error:
        sys.stderr.write(f"{' '.join(names)}: {error}\n")
        os._exit(CANNOT)
    # A program of its own: nothing of this one is in it.
    os.execv(sys.executable, [sys.executable, *arguments])


def _become(name: str) -> list[Rule]:
    """Apply what is no filter at once; the rules of what is one."""
    if name in FILTERS:
        return FILTERS[name]
    if name.startswith("landlock-abi-"):
        # Asked for its version, the parent says it. A ruleset is made as ever.
        return [Rule("landlock_create_ruleset", _USER_NOTIF, 2, equal=1)]
    _PLAIN[name]()
    return []


def _keep_capabilities(*kept: int) -> None:
    for capability in range(64):
        if capability not in kept and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    header = struct.pack("Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    mask = sum(1 << capability for capability in kept)
    _set(_libc.capset(header, struct.pack("6I", mask, mask, 0, 0, 0, 0)))


def _without_capabilities() -> None:
    _keep_capabilities()


def _containers_root() -> None:
    """Root with the capabilities that Docker leaves it, which make no namespace."""
    if os.geteuid() != 0:
        raise OSError(EPERM, "only root can be a container's root")
    _keep_capabilities(*_DOCKER_CAPABILITIES)


def _unshare(flags: int, user: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    os.unshare(os.CLONE_NEWUSER | flags)
    for file, text in (
        ("setgroups", "deny"), ("uid_map", f"{user} {uid} 1"), ("gid_map", f"{user} {gid} 1")
    ):  # fmt: skip
        Path("/proc/self", file).write_text(text)


def _no_room_for_user_namespaces() -> None:
    """An ordinary user where the kernel gives out no user namespace: a limit of this one alone."""
    _unshare(0, 1000)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    _without_capabilities()


def _read_only_sys() -> None:
    if os.geteuid() == 0:
        os.unshare(os.CLONE_NEWNS)
    else:
        _unshare(os.CLONE_NEWNS, os.geteuid())
    _set(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    attributes = struct.pack("4Q", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    number = ctypes.c_long(_NUMBERS["mount_setattr"])
    _set(_libc.syscall(number, _AT_FDCWD, b"/sys", _AT_RECURSIVE, attributes, 32))


def _ordinary_user() -> None:
    if os.geteuid() != 0:
        return
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    if not os.access(sys.executable, os.X_OK):
        raise OSError(EACCES, "another user may not execute the interpreter of these tests")


_PLAIN: dict[str, Callable[[], None]] = {
    "no-capabilities": _without_capabilities,
    "containers-root": _containers_root,
    "user-namespaces-used-up": _no_room_for_user_namespaces,
    "read-only-sys": _read_only_sys,
    "ordinary-user": _ordinary_user,
}


def _set(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _install(rules: list[Rule], *, listens: bool) -> int:
    code = b"".join(_compiled(rule) for rule in rules) + _instruction(0x06, _ALLOW)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    flags = _FILTER_FLAG_NEW_LISTENER if listens else 0
    number = ctypes.c_long(_NUMBERS["seccomp"])
    return _set(_libc.syscall(number, _SECCOMP_SET_MODE_FILTER, flags, program))


def _instruction(code: int, operand: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, operand)


def _compiled(rule: Rule) -> bytes:
    """The rule as instructions that fall through where it does not hold."""
    answer = _instruction(0x06, rule.answer)
    if rule.argument is not None:
        load = _instruction(0x20, 16 + 8 * rule.argument)
        if rule.equal is not None:
            test = _instruction(0x15, rule.equal, no=1)
        else:
            test = _instruction(0x45, rule.any_of or 0, no=1)
        answer = load + test + answer
    number = _instruction(0x20, 0)
    return number + _instruction(0x15, _NUMBERS[rule.call], no=len(answer) // 8) + answer


def _fork_behind_a_listener() -> Callable[[int], None]:
    """Fork: the child goes on, and hands its listener to the parent, which answers."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _set(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))

        def hand_over(listener: int) -> None:
            socket.send_fds(theirs, [b"."], [listener])
            os.close(listener)
            theirs.close()

        return hand_over
    theirs.close()
    version = next(int(name[13:]) for name in sys.argv if name.startswith("landlock-abi-"))
    _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if not listeners or not select.select(listeners, [], [], 0.05)[0]:
            continue
        asked = bytearray(_NOTIF_BYTES)
        with contextlib.suppress(OSError):  # who asked may be gone
            fcntl.ioctl(listeners[0], _NOTIF_RECEIVE, asked)
            identity = struct.unpack_from("Q", asked)[0]
            fcntl.ioctl(listeners[0], _NOTIF_SEND, struct.pack("QqiI", identity, version, 0, 0))
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)


if __name__ == "__main__":
    main()
