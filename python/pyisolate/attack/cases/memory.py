"""Memory and code of the interpreter's own, changed under its feet.

Machine code makes system calls that nothing of libc's or Python's stands before. A fault ends the
interpreter, and has to end the cell alone.
"""

from pyisolate.attack.case import Attack
from pyisolate.attack.numbers import X86_64

_NOT_KEPT = {
    "subinterpreter": "a fault of native code or of the interpreter ends the host's process, as "
    "SECURITY.md says"
}


def _machine(name: str, body: str, refused: str = "EPERM") -> Attack:
    return Attack(f"machine code: {name}", body, refused)


_MACHINE = [
    Attack(
        "machine code: openat",
        """
        found = ctypes.create_string_buffer(64)
        file = by_machine("openat", -100, path(world["secret"]), 0, 0)
        count = by_machine("read", file, found, 64)
        return found.raw[:count].decode()
        """,
        "ENOENT",
        loot=True,
    ),
    Attack(
        "machine code: openat2",
        """
        how = ctypes.create_string_buffer(24)
        return read_out(by_machine("openat2", -100, path(world["secret"]), how, 24))
        """,
        "ENOSYS",
        loot=True,
    ),
    _machine(
        "openat to write", "by_machine('openat', -100, path(world['victim']), 1, 0)", "ENOENT"
    ),
    _machine("unlinkat", "by_machine('unlinkat', -100, path(world['victim']), 0)"),
    _machine("socket", "os.close(by_machine('socket', 2, 1, 0))"),
    _machine("unix socket", "os.close(by_machine('socket', 1, 1, 0))"),
    _machine("fork", "need(reaped(by_machine('clone', 17, 0, 0, 0, 0)), 'child')"),
    Attack(
        "machine code: execve",
        """
        import sys
        words = [sys.executable, "-I", "-S", "-c", "raise SystemExit(42)"]
        argv = (ctypes.c_char_p * 6)(*map(os.fsencode, words), None)
        by_machine("execve", path(sys.executable), argv, (ctypes.c_char_p * 1)(None))
        """,
        "EPERM",
        exits=42,
    ),
    Attack(
        "machine code: kill",
        "by_machine('kill', world['canary'], 9)",
        "EPERM",
        kills=True,
    ),
    Attack(
        "machine code: process_vm_readv",
        """
        found = ctypes.create_string_buffer(24)
        here = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(found), 24), 16)
        there = ctypes.create_string_buffer(struct.pack("QQ", world["canary_address"], 24), 16)
        by_machine("process_vm_readv", world["canary"], here, 1, there, 1, 0)
        return found.raw.decode()
        """,
        "EPERM",
        loot=True,
        privileged=True,
    ),
    Attack(
        "machine code: mount",
        "by_machine('mount', path('x'), path(world['mount_point']), path('tmpfs'), 0, 0)",
        "EPERM",
        privileged=True,
    ),
    Attack("machine code: unshare", "by_machine('unshare', 1 << 28)", "EPERM", lone=True),
    # getpid of the 32-bit table, by its own door: mov eax, 20; int 0x80; ret
    Attack(
        "machine code: the system call table of 32 bits",
        r"return machine_code(b'\xb8\x14\0\0\0\xcd\x80\xc3')",
        "DIES",
        lacking="KILLED",
    ),
]

FAULTS = [
    Attack("fault: read at no address", "ctypes.string_at(8)", "DIES", exits=-11, cannot=_NOT_KEPT),
    Attack(
        "fault: write at no address",
        "ctypes.memset(8, 0, 8)",
        "DIES",
        exits=-11,
        cannot=_NOT_KEPT,
    ),
    Attack(
        "fault: call at no address",
        "ctypes.CFUNCTYPE(ctypes.c_int)(8)()",
        "DIES",
        exits=-11,
        cannot=_NOT_KEPT,
    ),
    Attack(
        "fault: an object that is none",
        "return str(ctypes.cast(8, ctypes.py_object).value)",
        "DIES",
        exits=-11,
        cannot=_NOT_KEPT,
    ),
    Attack(
        "fault: bytecode that reads far behind its constants",
        """
        import opcode
        words = ["RESUME", 0, *["EXTENDED_ARG", 0x7F] * 3, "LOAD_CONST", 0xFF, "RETURN_VALUE", 0]
        code = bytes(opcode.opmap[word] if isinstance(word, str) else word for word in words)
        def function(): pass
        function.__code__ = function.__code__.replace(co_code=code, co_stacksize=9)
        return function()
        """,
        "DIES",
        exits=-11,
        cannot=_NOT_KEPT,
    ),
    Attack("fault: abort", "libc('abort')", "DIES", exits=-6, cannot=_NOT_KEPT),
]

ATTACKS = (_MACHINE if X86_64 else []) + FAULTS
