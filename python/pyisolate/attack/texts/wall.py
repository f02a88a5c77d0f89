"""What attacks on the wall are written with: executed in the cell, and in the control."""

import ctypes
import errno
import gc
import mmap
import os
import struct
import threading
import weakref

world = {}  # what the attack aims at; filled in by the harness

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def attempt(action):
    """Run an attack; say how it ended, as plain data."""
    try:
        value = action()
    except OSError as error:
        return ["refused", errno.errorcode.get(error.errno, type(error).__name__), str(error)]
    except Exception as error:
        return ["refused", type(error).__name__, str(error)]
    return ["done", value if isinstance(value, (str, int, dict)) else repr(value)]


def attempt_in_thread(action):
    """The same from a thread that is not the main one."""
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(attempt(action)))
    thread.start()
    thread.join()
    return outcomes[0]


def attempt_in_finalizer(action):
    """The same from `__del__`."""
    outcomes = []

    class Final:
        def __del__(self):
            outcomes.append(attempt(action))

    Final()
    return outcomes[0]


def attempt_when_collected(action):
    """The same from `weakref.finalize`, when the garbage collector finds a cycle."""

    class Node:
        pass

    outcomes = []
    one, other = Node(), Node()
    one.other, other.other = other, one
    weakref.finalize(one, lambda: outcomes.append(attempt(action)))
    del one, other
    gc.collect()
    return outcomes[0]


def attempt_after_limits(action):
    """The same once memory, descriptors and the stack have run out, one after the other."""

    def use_up(take, error):
        taken = []
        try:
            while True:
                taken.append(take())
        except error:
            return taken

    use_up(lambda: bytes(64 << 20), MemoryError)

    def deeper():
        deeper()

    use_up(deeper, RecursionError)
    for descriptor in use_up(lambda: os.open("/", os.O_RDONLY), OSError):
        os.close(descriptor)
    return attempt(action)


def answers(cases):
    """How each of many attacks ended: `ok`, or the name of its error."""
    outcomes = {label: attempt(action) for label, action in cases.items()}
    return {label: "ok" if how == "done" else what for label, (how, what, *_) in outcomes.items()}


def need(condition, what):
    """Turn an attack's quiet failure into a loud one."""
    if not condition:
        raise LookupError(what)


def _word(argument):
    if isinstance(argument, int):
        return ctypes.c_ulong(argument & 0xFFFF_FFFF_FFFF_FFFF)
    return argument


def _checked(result):
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def raw(call, *arguments):
    """Make a system call, by name or number, through nothing but libc's `syscall`."""
    number = world["numbers"][call] if isinstance(call, str) else call
    ctypes.set_errno(0)
    return _checked(_libc.syscall(ctypes.c_long(number), *map(_word, arguments)))


def libc(function, *arguments):
    """Call a function of libc's."""
    ctypes.set_errno(0)
    return _checked(_libc[function](*map(_word, arguments)))


def path(text):
    """A path as a system call takes it."""
    return ctypes.c_char_p(os.fsencode(text))


def read_out(descriptor):
    """The text behind a descriptor."""
    return os.read(descriptor, 64).decode()


def reaped(pid):
    """End the new process, or wait for it; true in the parent."""
    if pid == 0:
        os._exit(42)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42


def cloned(flags):
    """Make a process by a raw `clone`, and end it."""
    return reaped(raw("clone", flags, 0, 0, 0, 0))


def machine_code(code):
    """Run instructions, which see nothing of libc. The result is a system call's."""
    page = mmap.mmap(
        -1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
    )  # fmt: skip
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result = ctypes.CFUNCTYPE(ctypes.c_long)(address)()
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def by_machine(call, *arguments):
    """A system call by its instruction, with nothing of libc's."""
    code = bytes.fromhex("4889f8 4889f7 4889d6 4889ca 4d89c2 4d89c8 4c8b4c2408 0f05 c3")
    page = mmap.mmap(
        -1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
    )  # fmt: skip
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    number = ctypes.c_long(world["numbers"][call])
    result = ctypes.CFUNCTYPE(ctypes.c_long)(address)(number, *map(_word, arguments))
    if -4096 < result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def vforked(number):
    """Make a process by `vfork`, which ends before it could touch the stack that it shares."""
    code = (
        b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"  # mov eax, number; syscall
        b"\x85\xc0\x75\x0c"  # test eax, eax; jne to the last line
        b"\xbf\x2a\0\0\0\xb8\x3c\0\0\0\x0f\x05"  # exit(42)
        b"\x48\x98\xc3"  # cdqe; ret
    )
    return reaped(machine_code(code))
