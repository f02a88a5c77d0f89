"""Runs attacks without the wall, each in throw-away namespaces. A program of its own.

Reads a job as JSON from standard input: `guest`, the text that attacks are written with, and
`attacks`, each with its `name`, `source` and settings. Writes a line of JSON for each thing that
happens: `[name, what, value]`, where `what` is `posted`, `proc`, `exited`, `canary`, or `failed` if
the stage could not be set. What an attack aims at is planted anew in each attack's own namespaces.
"""

import builtins
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time

GRACE_SECONDS = 10
"""How long setting a stage, and taking it down, may take besides the attack's own time."""
MEMORY_BYTES_MAX, FILES_MAX = 1 << 30, 256
"""What an attacker may use, so that those that use up a limit meet one."""

_libc = ctypes.CDLL(None, use_errno=True)

_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY = 1
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1

_name = ""
"""Of the attack at hand."""


def main():
    """Set a stage for each attack, one after the other."""
    job = json.load(sys.stdin)
    guest = compile(job["guest"], "<guest>", "exec")
    for attack in job["attacks"]:
        global _name
        _name = attack["name"]
        started = os.fork()
        if started == 0:
            in_child(lambda attack=attack: enter_namespaces(attack, guest))
        status = wait_for(started, attack["seconds"] + GRACE_SECONDS)
        if status != 0:
            say("failed", f"the stage ended with {status}")
    return 0


def wait_for(child, seconds):
    """How a child ended; it is killed once its time is over."""
    end = time.monotonic() + seconds
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1])


def enter_namespaces(job, guest):
    """Make the namespaces, and the process 1 in them."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        os.unshare(
            os.CLONE_NEWUSER | os.CLONE_NEWPID | os.CLONE_NEWNS
            | os.CLONE_NEWIPC | os.CLONE_NEWUTS | os.CLONE_NEWNET
        )  # fmt: skip
        # Nobody is mapped but who runs this, as himself.
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError as error:
        say("failed", f"no namespaces: {error}")
        return
    init = os.fork()
    if init == 0:
        in_child(lambda: run_init(job, guest))
    if status := os.waitstatus_to_exitcode(os.waitpid(init, 0)[1]):
        say("failed", f"process 1 ended with {status}")


def in_child(action):
    """Do one thing and end this process, whatever happens."""
    status = 1
    try:
        checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        action()
        status = 0
    except BaseException as error:
        say("failed", f"{type(error).__name__}: {error}")
    finally:
        os._exit(status)


def say(what, value):
    """Write one line about the attack at hand. What the host could not read is made a string."""
    data = (json.dumps([_name, what, value], default=repr) + "\n").encode()
    while data:
        data = data[os.write(1, data) :]


def checked(result, call):
    """Raise the error that a function of libc's answered with."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def run_init(job, guest):
    """Process 1: set the stage, run the attacker, report."""
    say("proc", prepare_mounts(job["folder"]))
    plant(job)
    listeners = listen(job["world"])
    world = job["world"] | start_canary(job)
    attacker = os.fork()
    if attacker == 0:
        for listener in listeners:
            listener.close()
        in_child(lambda: attack(job, world, guest))
    say("exited", wait_for(attacker, job["seconds"]))
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
    """Make everything read-only, with a folder in memory over the planted one.

    Says whether there is a new /proc.
    """
    mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    set_read_only("/", True, _AT_RECURSIVE)
    mount("tmpfs", folder, b"tmpfs", 0)
    if os.path.isdir("/dev/shm"):
        mount("tmpfs", "/dev/shm", b"tmpfs", 0)
    try:
        mount("proc", "/proc", b"proc", 0)
    except OSError:
        return False  # a container that hides parts of its own /proc
    return True


def plant(job):
    """The planted folder's files, as the host has them."""
    for name in ("mount", "root"):
        os.mkdir(os.path.join(job["folder"], name))
    for name, text in (("secret.txt", job["token"]), ("victim.txt", "original")):
        with open(os.path.join(job["folder"], name), "w") as file:
            file.write(text)


def listen(world):
    """Listen in the empty network, and in the folder, as the host does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", _IFF_UP)
        fcntl.ioctl(control, _SIOCSIFFLAGS, request)
    stream = socket.create_server(("127.0.0.1", world["tcp_port"]))
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.bind(("127.0.0.1", world["udp_port"]))
    listeners = [stream, datagram]
    for kind, name in (
        (socket.SOCK_STREAM, world["unix_stream"]),
        (socket.SOCK_DGRAM, world["unix_datagram"]),
        (socket.SOCK_STREAM, "\0" + world["abstract"]),
    ):
        listeners.append(socket.socket(socket.AF_UNIX, kind))
        listeners[-1].bind(name)
        if kind == socket.SOCK_STREAM:
            listeners[-1].listen()
    return listeners


def start_canary(job):
    """Start the process that attacks aim at. It holds the secret in memory and in a file."""
    memory = ctypes.create_string_buffer(job["token"].encode())
    file = os.open(os.path.join(job["folder"], "secret.txt"), os.O_RDONLY)
    canary = os.fork()
    if canary == 0:
        in_child(signal.pause)
    os.close(file)
    return {"canary": canary, "canary_address": ctypes.addressof(memory), "canary_fd": file}


def attack(job, world, guest):
    """The attacker: set up as a cell is, but for the wall, then the attack's own text."""
    builtins.post = lambda message: say("posted", message)
    namespace = {"__name__": "__main__"}
    exec(guest, namespace)
    namespace["world"].update(world)
    for text in job["prelude"]:
        exec(compile(text, "<prelude>", "exec"), namespace)
    if job["fresh_root"]:
        enter_fresh_root(os.path.join(job["folder"], "root"))
    if not job["privileged"]:
        drop_capabilities()
        checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))
    code = compile(job["source"], "<attack>", "exec")
    if job["interrupts"]:
        # What a host without a better way does once time is up: raise an exception.
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        exec(code, namespace)
    except BaseException as error:
        say("raised", f"{type(error).__name__}: {error}")
    if job["interrupts"]:
        while threading.active_count() > 1:  # as an interpreter waits that ends
            time.sleep(0.01)


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
