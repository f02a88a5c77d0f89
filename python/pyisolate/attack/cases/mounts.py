"""Mount calls, old and new, by flag, type and command; other calls by their flags and requests."""

from pyisolate.attack.family import Family

_POINT = "path(world['mount_point'])"
_TYPES = (
    "tmpfs", "ramfs", "mqueue", "devpts", "proc", "sysfs",
    "overlay", "fuse", "bpf", "cgroup2", "debugfs", "tracefs", "securityfs", "devtmpfs",
    "binfmt_misc",
)  # fmt: skip
_TYPES_HERE = frozenset(_TYPES[:6])
"""Those that no module has to be loaded for, which would stay."""

_MOUNT = {
    "MS_RDONLY": 1, "MS_NOSUID": 2, "MS_NODEV": 4, "MS_NOEXEC": 8, "MS_SYNCHRONOUS": 16,
    "MS_REMOUNT": 32, "MS_MANDLOCK": 64, "MS_DIRSYNC": 128, "MS_NOSYMFOLLOW": 256,
    "MS_NOATIME": 1024, "MS_NODIRATIME": 2048, "MS_BIND": 4096, "MS_MOVE": 8192, "MS_REC": 1 << 14,
    "MS_SILENT": 1 << 15, "MS_POSIXACL": 1 << 16, "MS_UNBINDABLE": 1 << 17, "MS_PRIVATE": 1 << 18,
    "MS_SLAVE": 1 << 19, "MS_SHARED": 1 << 20, "MS_RELATIME": 1 << 21, "MS_STRICTATIME": 1 << 24,
    "MS_LAZYTIME": 1 << 25, "the magic number": 0xC0ED0000,
}  # fmt: skip
_ATTRIBUTES = {
    "RDONLY": 1, "NOSUID": 2, "NODEV": 4, "NOEXEC": 8, "NOATIME": 0x10, "STRICTATIME": 0x20,
    "NODIRATIME": 0x80, "IDMAP": 0x10_0000, "NOSYMFOLLOW": 0x20_0000,
}  # fmt: skip
_TREE = {
    "no flags": 0, "CLONE": 1, "CLOEXEC": 0x80000, "EMPTY_PATH": 0x1000, "RECURSIVE": 0x8001,
    "NO_AUTOMOUNT": 0x800, "NOFOLLOW": 0x100,
}  # fmt: skip
_MOVE = {
    "no flags": 0, "from links": 1, "from automounts": 2, "from a descriptor": 4, "to links": 0x10,
    "to automounts": 0x20, "to a descriptor": 0x40, "a group": 0x100, "beneath": 0x200,
}  # fmt: skip
_NAMESPACES = {
    "any": 0, "CLONE_NEWTIME": 0x80, "CLONE_NEWNS": 0x20000, "CLONE_NEWCGROUP": 0x2000000,
    "CLONE_NEWUTS": 0x4000000, "CLONE_NEWIPC": 0x8000000, "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000, "CLONE_NEWNET": 0x40000000,
}  # fmt: skip
_CLONE3 = {name: flag for name, flag in _NAMESPACES.items() if flag} | {
    "no flags": 0, "CLONE_CLEAR_SIGHAND": 1 << 32, "CLONE_PARENT_SETTID": 0x100000,
    "CLONE_CHILD_CLEARTID": 0x200000,
}  # fmt: skip
_CLONE3_ALONE = {
    "CLONE_VM": 0x100, "CLONE_FS": 0x200, "CLONE_FILES": 0x400, "CLONE_SIGHAND": 0x900,
    "CLONE_PIDFD": 0x1000, "CLONE_PTRACE": 0x2000, "CLONE_VFORK": 0x4000, "CLONE_PARENT": 0x8000,
    "CLONE_THREAD": 0x10900, "CLONE_SYSVSEM": 0x40000, "CLONE_SETTLS": 0x80000,
    "CLONE_UNTRACED": 0x800000, "CLONE_IO": 0x80000000, "CLONE_INTO_CGROUP": 1 << 33,
    "a thread": 0x3D0F00, "everything": 0xFFFFFFFFFFFFFFFF,
}  # fmt: skip
_KEYCTL = [number for number in range(33) if number not in (13, 18)]
"""Without what is answered EPERM to anybody, and what changes the parent's keyring for good."""

FAMILIES = [
    Family(
        "mount by flag",
        "calls",
        {
            name: f"raw('mount', path('none'), {_POINT}, path('tmpfs'), {flag}, 0)"
            for name, flag in _MOUNT.items()
        },
    ),
    Family(
        "mount by type",
        "calls",
        {name: f"raw('mount', path('none'), {_POINT}, path('{name}'), 0, 0)" for name in _TYPES},
        controlled=_TYPES_HERE,
    ),
    Family(
        "umount2 by flag",
        "calls",
        {
            name: f"raw('umount2', {_POINT}, {flag})"
            for name, flag in {"no flags": 0, "DETACH": 2, "EXPIRE": 4, "NOFOLLOW": 8}.items()
        },
    ),
    Family(
        "fsopen by type",
        "calls",
        {name: f"os.close(raw('fsopen', path('{name}'), 1))" for name in _TYPES},
        controlled=_TYPES_HERE,
    ),
    Family(
        "fsconfig by command",
        "calls",
        {f"command {number}": f"raw('fsconfig', -1, {number}, 0, 0, 0)" for number in range(9)},
    ),
    Family(
        "fsmount by attribute",
        "calls",
        {name: f"raw('fsmount', -1, 1, {flag})" for name, flag in _ATTRIBUTES.items()},
    ),
    Family(
        "fspick by flag",
        "calls",
        {
            f"flag {flag}": f"os.close(raw('fspick', -100, {_POINT}, {flag}))"
            for flag in (0, 1, 2, 4, 8)
        },
    ),
    Family(
        "open_tree by flag",
        "calls",
        {
            name: f"os.close(raw('open_tree', -100, {_POINT}, {flag}))"
            for name, flag in _TREE.items()
        },
    ),
    Family(
        "move_mount by flag",
        "calls",
        {
            name: f"raw('move_mount', -1, path(''), -100, {_POINT}, {flag})"
            for name, flag in _MOVE.items()
        },
    ),
    Family(
        "mount_setattr by attribute",
        "calls",
        {
            f"{how} {name}": f"raw('mount_setattr', -100, {_POINT}, 0, "
            f"struct.pack('4Q', {set_}, {clear}, 0, 0), 32)"
            for name, flag in _ATTRIBUTES.items()
            for how, set_, clear in (("set", flag, 0), ("clear", 0, flag))
        },
    ),
    Family(
        "setns by kind",
        "calls",
        {name: f"raw('setns', -1, {flag})" for name, flag in _NAMESPACES.items()},
    ),
    Family(
        "clone3 by flag",
        "calls",
        {name: f"cloned3({flag})" for name, flag in (_CLONE3 | _CLONE3_ALONE).items()}
        | {f"size {size}": f"cloned3(0, {size})" for size in (64, 80, 88, 96, 4096)},
        answer="ENOSYS",
        setup="""
def cloned3(flags, size=88):
    arguments = struct.pack("11Q", flags, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)[:size]
    return reaped(raw("clone3", ctypes.create_string_buffer(arguments, size), size))
""",
        # Whoever shares its parent's memory would run on its stack: the cell alone is asked.
        controlled=frozenset(_CLONE3) | {f"size {size}" for size in (64, 80, 88, 96, 4096)},
    ),
    Family(
        "keyctl by operation",
        "calls",
        {f"operation {number}": f"raw('keyctl', {number}, -1, -1, -1, -1)" for number in _KEYCTL},
    ),
    Family(
        "ptrace by request",
        "processes",
        {
            f"request {number:#x}": f"raw('ptrace', {number}, -1, 0, 0)"
            for number in (*range(1, 33), *range(0x4200, 0x4214))
        },
    ),
    Family(
        "io_uring by flag",
        "calls",
        {
            f"setup, bit {bit}": f"os.close(raw('io_uring_setup', 1, "
            f"ctypes.create_string_buffer(struct.pack('3I', 0, 0, {1 << bit}), 120)))"
            for bit in range(18)
        }
        | {
            f"register, operation {number}": f"raw('io_uring_register', -1, {number}, 0, 0)"
            for number in range(35)
        },
    ),
    Family(
        "userfaultfd by flag",
        "calls",
        {
            f"flags {flags:#x}": f"os.close(raw('userfaultfd', {flags}))"
            for flags in (1, 0x801, 0x80001, 0x80801)
        },
    ),
    Family(
        "memfd_create by flag",
        "rights",
        {
            f"flags {flags:#x}": f"os.close(raw('memfd_create', path('x'), {flags}))"
            for flags in (0, 1, 2, 8, 0x10, 3)
        },
    ),
]
