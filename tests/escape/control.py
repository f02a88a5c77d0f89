"""Runs an attack without the wall, in throw-away namespaces. A program of its own.

Reads a job as JSON from standard input; writes a line of JSON for each thing that the attack
posted, and `["proc", bool]`, `["exited", status]` and `["canary", "alive" | "dead"]`.
"""

import builtins
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time

SECONDS_MAX = 15
"""No attack takes longer."""

_libc = ctypes.CDLL(None, use_errno=True)

_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY = 1
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def main():
    """Make the namespaces, and the process 1 in them."""
    job = json.load(sys.stdin)
    uid, gid = os.geteuid(), os.getegid()
    os.unshare(
        os.CLONE_NEWUSER | os.CLONE_NEWPID | os.CLONE_NEWNS
        | os.CLONE_NEWIPC | os.CLONE_NEWUTS | os.CLONE_NEWNET
    )  # fmt: skip
    # Nobody is mapped but who runs the tests, as himself.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    init = os.fork()
    if init == 0:
        in_child(lambda: run_init(job))
    return os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])


def in_child(action):
    """Do one thing and end this process, whatever happens."""
    status = 1
    try:
        checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        action()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def say(*message):
    """Write one line to the test. What the host could not read is made a string."""
    os.write(1, (json.dumps(message, default=repr) + "\n").encode())


def checked(result, call):
    """Raise the error that a function of libc's answered with."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def run_init(job):
    """Process 1: set the stage, run the attacker, report."""
    say("proc", prepare_mounts(job["folder"]))
    listeners = listen(job["world"])
    world = job["world"] | start_canary(job)
    attacker = os.fork()
    if attacker == 0:
        for listener in listeners:
            listener.close()
        in_child(lambda: attack(job, world))
    status = os.waitpid(attacker, 0)[1]
    say("exited", os.waitstatus_to_exitcode(status))
    end = time.monotonic() + (5 if job["kills"] else 0)
    while (gone := os.waitpid(world["canary"], os.WNOHANG)[0]) == 0 and time.monotonic() < end:
        time.sleep(0.01)
    say("canary", "dead" if gone else "alive")


def mount(source, target, kind, flags):
    """`mount`, by libc."""
    target = os.fsencode(target)
    checked(_libc.mount(source and os.fsencode(source), target, kind, flags, None), "mount")


def set_read_only(target, read_only, flags):
    """`mount_setattr`: put the read-only flag on mounts, or take it off."""
    change = (_MOUNT_ATTR_RDONLY, 0) if read_only else (0, _MOUNT_ATTR_RDONLY)
    attributes = ctypes.create_string_buffer(struct.pack("4Q", *change, 0, 0), 32)
    target = ctypes.c_char_p(os.fsencode(target))
    result = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, target, flags, attributes, 32)
    checked(result, "mount_setattr")


def prepare_mounts(folder):
    """Make everything read-only but the planted folder. Says whether there is a new /proc."""
    mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    mount(folder, folder, None, _MS_BIND)
    set_read_only("/", True, _AT_RECURSIVE)
    set_read_only(folder, False, 0)
    if os.path.isdir("/dev/shm"):
        mount("tmpfs", "/dev/shm", b"tmpfs", 0)
    try:
        mount("proc", "/proc", b"proc", 0)
    except OSError:
        return False  # a container that hides parts of its own /proc
    return True


def listen(world):
    """Listen in the empty network as the test does in the host's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", _IFF_UP)
        fcntl.ioctl(control, _SIOCSIFFLAGS, request)
    stream = socket.create_server(("127.0.0.1", world["tcp_port"]))
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.bind(("127.0.0.1", world["udp_port"]))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0" + world["abstract"])
    abstract.listen()
    return [stream, datagram, abstract]


def start_canary(job):
    """Start the process that attacks aim at. It holds the secret in memory and in a file."""
    memory = ctypes.create_string_buffer(job["token"].encode())
    file = os.open(os.path.join(job["folder"], "secret.txt"), os.O_RDONLY)
    canary = os.fork()
    if canary == 0:
        in_child(signal.pause)
    os.close(file)
    return {"canary": canary, "canary_address": ctypes.addressof(memory), "canary_fd": file}


def attack(job, world):
    """The attacker: set up as a cell is, but for the wall, then the attack's own text."""
    signal.alarm(SECONDS_MAX)
    builtins.post = lambda message: say("posted", message)
    namespace = {"__name__": "__main__"}
    exec(compile(job["guest"], "<guest>", "exec"), namespace)
    namespace["world"].update(world)
    if job["fresh_root"]:
        enter_fresh_root(os.path.join(job["folder"], "root"))
    if not job["privileged"]:
        drop_capabilities()
        checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    exec(compile(job["source"], "<attack>", "exec"), namespace)


def enter_fresh_root(root):
    """Make a root that may be written, with the places that a cell's has."""
    mount("tmpfs", root, b"tmpfs", 0)
    for folder in ("/dev", os.path.dirname(os.__file__), *sys.path):
        os.makedirs(root + folder, exist_ok=True)
    with open(root + os.__file__, "w") as file:
        file.write("original")
    os.chroot(root)
    os.chdir("/")


def drop_capabilities():
    """Have no capability in any set."""
    capability = 0
    while _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    header = struct.pack("Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    checked(_libc.capset(header, bytes(24)), "capset")


if __name__ == "__main__":
    sys.exit(main())
