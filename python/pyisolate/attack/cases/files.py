"""Attacks on files: the host's, the kernel's, and the cell's own read-only tree."""

from pyisolate.attack.case import Attack
from pyisolate.attack.numbers import X86_64

# A planted path is not there at all; what the calls of newer kernels ask for has no call.
_GONE = "ENOENT"

READING = [
    Attack("read: open", "return open(world['secret']).read()", _GONE, loot=True),
    Attack(
        "read: pathlib",
        "import pathlib; return pathlib.Path(world['secret']).read_text()",
        _GONE,
        loot=True,
    ),
    Attack(
        "read: io.open_code",
        "import io; return io.open_code(world['secret']).read().decode()",
        _GONE,
        loot=True,
    ),
    Attack(
        "read: the import system",
        """
        from importlib.machinery import SourceFileLoader
        return SourceFileLoader("x", world["secret"]).get_data(world["secret"]).decode()
        """,
        _GONE,
        loot=True,
    ),
    Attack(
        "read: past the top by ..",
        "return open('/dev' + '/..' * 30 + world['secret']).read()",
        _GONE,
        loot=True,
    ),
    Attack(
        "read: beside a directory",
        """
        top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        return read_out(os.open("../.." + world["secret"], os.O_RDONLY, dir_fd=top))
        """,
        _GONE,
        loot=True,
    ),
    Attack(
        "read: chdir first",
        "os.chdir(world['folder']); return open('secret.txt').read()",
        _GONE,
        loot=True,
    ),
    Attack(
        "read: raw openat",
        "return read_out(raw('openat', -100, path(world['secret']), os.O_RDONLY))",
        _GONE,
        loot=True,
    ),
    Attack(
        "read: raw openat below /",
        """
        top = raw("openat", -100, path("/"), os.O_PATH)
        return read_out(raw("openat", top, path("../.." + world["secret"]), os.O_RDONLY))
        """,
        _GONE,
        loot=True,
    ),
    Attack(
        "read: raw openat2",
        """
        how = ctypes.create_string_buffer(struct.pack("3Q", os.O_RDONLY, 0, 0), 24)
        return read_out(raw("openat2", -100, path(world["secret"]), how, 24))
        """,
        "ENOSYS",
        loot=True,
        kind="calls",
    ),
    Attack(
        "read: raw open_by_handle_at",
        """
        handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
        number = ctypes.c_int()
        raw("name_to_handle_at", -100, path(world["secret"]), handle, ctypes.byref(number), 0)
        return "a handle"
        """,
        "EPERM",
        lacking="EOPNOTSUPP ENOSYS",
        kind="calls",
    ),
    Attack("read: /etc/passwd", "return open('/etc/passwd').read(4)", _GONE),
    Attack(
        "read: /etc/passwd, raw",
        "return read_out(raw('openat', -100, path('/etc/passwd'), os.O_RDONLY))",
        _GONE,
    ),
]

LISTING = [
    Attack("list: os.listdir", "need('secret.txt' in os.listdir(world['folder']), 'it')", _GONE),
    Attack(
        "list: os.scandir",
        "need(any(e.name == 'secret.txt' for e in os.scandir(world['folder'])), 'it')",
        _GONE,
    ),
    Attack(
        "list: glob",
        "import glob; need(glob.glob(world['folder'] + '/*'), 'nothing')",
        "LookupError",
    ),
    Attack(
        "list: raw getdents64",
        """
        folder = raw("openat", -100, path(world["folder"]), os.O_RDONLY | os.O_DIRECTORY)
        entries = ctypes.create_string_buffer(4096)
        raw("getdents64", folder, entries, 4096)
        need(b"secret.txt" in entries.raw, "it")
        """,
        _GONE,
    ),
    Attack("list: the host's interpreter", "return len(os.listdir(world['host_prefix']))", _GONE),
    Attack(
        "list: the host's interpreter, raw",
        "return raw('openat', -100, path(world['host_prefix']), os.O_RDONLY | os.O_DIRECTORY)",
        _GONE,
    ),
]

LOOKING = [
    Attack("stat: os.stat", "return os.stat(world['secret']).st_size", _GONE),
    Attack("stat: os.access", "need(os.access(world['secret'], os.F_OK), 'it')", "LookupError"),
    Attack("stat: pathlib", "import pathlib; pathlib.Path(world['secret']).lstat()", _GONE),
    Attack(
        "stat: raw newfstatat",
        "return raw('newfstatat', -100, path(world['secret']), bytes(256), 0)",
        _GONE,
    ),
    Attack(
        "stat: raw statx",
        "return raw('statx', -100, path(world['secret']), 0, 0x7ff, bytes(256))",
        _GONE,
    ),
    Attack("stat: raw faccessat", "return raw('faccessat', -100, path(world['secret']), 0)", _GONE),
    Attack("stat: raw statfs", "return raw('statfs', path(world['secret']), bytes(256))", "EPERM"),
    Attack("stat: O_PATH", "return os.fstat(os.open(world['secret'], os.O_PATH)).st_size", _GONE),
]

WRITING = [
    Attack("write: open", "open(world['victim'], 'w').write('gone')", _GONE),
    Attack("write: append", "open(world['victim'], 'a').write('more')", _GONE),
    Attack(
        "write: pathlib",
        "import pathlib; pathlib.Path(world['victim']).write_text('gone')",
        _GONE,
    ),
    Attack("write: a new file", "open(world['folder'] + '/new', 'x').write('here')", _GONE),
    Attack(
        "write: raw openat",
        "raw('write', raw('openat', -100, path(world['victim']), os.O_WRONLY), b'gone', 4)",
        _GONE,
    ),
    Attack(
        "write: raw openat O_CREAT",
        "raw('openat', -100, path(world['folder'] + '/new'), os.O_CREAT | os.O_RDWR, 0o600)",
        _GONE,
    ),
    Attack("write: mkdir", "os.mkdir(world['folder'] + '/new')", "EPERM"),
    Attack("write: symlink", "os.symlink('/etc/passwd', world['folder'] + '/new')", "EPERM"),
    Attack("write: hard link", "os.link(world['victim'], world['folder'] + '/new')", "EPERM"),
    Attack(
        "write: rename",
        "os.rename(world['victim'], world['folder'] + '/new')",
        "EPERM",
    ),
    Attack("write: mkfifo", "os.mkfifo(world['folder'] + '/new')", "EPERM"),
    Attack("write: truncate", "os.truncate(world['victim'], 0)", "EPERM"),
    Attack("write: chmod", "os.chmod(world['victim'], 0o600)", "EPERM"),
    Attack("write: utime", "os.utime(world['victim'], (1, 1))", "EPERM"),
    Attack(
        "write: tempfile",
        "import tempfile; tempfile.NamedTemporaryFile(dir=world['folder']).close()",
        _GONE,
    ),
    Attack("write: unlink", "os.unlink(world['victim'])", "EPERM"),
    Attack("write: raw unlinkat", "raw('unlinkat', -100, path(world['victim']), 0)", "EPERM"),
    Attack(
        "write: raw mkdirat",
        "raw('mkdirat', -100, path(world['folder'] + '/new'), 0o700)",
        "EPERM",
    ),
    Attack(
        "write: raw symlinkat",
        "raw('symlinkat', path('/'), -100, path(world['folder'] + '/new'))",
        "EPERM",
    ),
    Attack(
        "write: raw renameat2",
        """
        new = path(world["folder"] + "/new")
        raw("renameat2", -100, path(world["victim"]), -100, new, 0)
        """,
        "EPERM",
    ),
    Attack(
        "write: raw mknodat",
        "raw('mknodat', -100, path(world['folder'] + '/new'), 0o100600, 0)",
        "EPERM",
    ),
    Attack("write: raw fchmodat", "raw('fchmodat', -100, path(world['victim']), 0o600)", "EPERM"),
]
if X86_64:
    # The older names are other numbers, which a list may forget.
    READING += [
        Attack(
            "read: raw open", "return read_out(raw('open', path(world['secret']), 0))", _GONE, True
        ),
    ]
    LOOKING += [
        Attack("stat: raw stat", "return raw('stat', path(world['secret']), bytes(256))", _GONE),
        Attack("stat: raw access", "return raw('access', path(world['secret']), 0)", _GONE),
    ]
    WRITING += [
        Attack("write: raw creat", "raw('creat', path(world['victim']), 0o600)", "EPERM"),
        Attack("write: raw unlink", "raw('unlink', path(world['victim']))", "EPERM"),
        Attack("write: raw mkdir", "raw('mkdir', path(world['folder'] + '/new'), 0)", "EPERM"),
    ]

# A read-only file system says EROFS, Landlock EACCES; which one is asked first is the kernel's.
_SEALED = "EROFS EACCES"
_OWN_TREE = {
    "the root": "'/new'",
    "the standard library": "os.path.dirname(os.__file__) + '/new.py'",
    "the last of sys.path": "sys.path[-1] + '/new.py'",
    "/dev": "'/dev/new'",
}
OWN_TREE = [
    attack
    for place, new in _OWN_TREE.items()
    for attack in (
        Attack(
            f"own tree: create in {place}",
            f"import sys; open({new}, 'x').write('run me')",
            _SEALED,
            fresh_root=True,
        ),
        Attack(
            f"own tree: create in {place}, raw",
            f"import sys; raw('openat', -100, path({new}), os.O_CREAT | os.O_WRONLY, 0o600)",
            _SEALED,
            fresh_root=True,
        ),
        Attack(
            f"own tree: mkdir in {place}",
            f"import sys; os.mkdir({new})",
            "EPERM",
            fresh_root=True,
        ),
    )
] + [
    Attack(
        "own tree: change the standard library",
        "open(os.__file__, 'r+').write('#')",
        _SEALED,
        fresh_root=True,
    ),
    Attack(
        "own tree: change the standard library, raw",
        "raw('openat', -100, path(os.__file__), os.O_WRONLY)",
        _SEALED,
        fresh_root=True,
    ),
    Attack(
        "own tree: O_TMPFILE", "os.open('/', os.O_TMPFILE | os.O_RDWR)", _SEALED, fresh_root=True
    ),
    Attack("own tree: unlink", "os.unlink(os.__file__)", "EPERM", fresh_root=True),
    Attack(
        "own tree: write to the random device",
        "os.write(os.open('/dev/urandom', os.O_WRONLY), b'x')",
        _SEALED,
    ),
]

KERNEL = [
    Attack("/proc: list", "return len(os.listdir('/proc'))", _GONE),
    Attack("/proc: environ", "return len(open('/proc/self/environ', 'rb').read())", _GONE),
    Attack("/proc: memory", "return os.open('/proc/self/mem', os.O_RDWR)", _GONE),
    Attack("/proc: descriptors", "return os.listdir('/proc/self/fd')[0]", _GONE),
    Attack(
        "/proc: another process's root",
        "return open(f'/proc/{world[\"canary\"]}/root' + world['secret']).read()",
        _GONE,
        loot=True,
        privileged=True,
    ),
    Attack("/proc: the interpreter's path", "return os.readlink('/proc/self/exe')", _GONE),
    Attack("/proc: mounts", "return open('/proc/self/mountinfo').read(9)", _GONE),
    Attack("/proc: write", "open('/proc/self/oom_score_adj', 'w').write('1000')", _GONE),
    Attack(
        "/proc: raw",
        "return read_out(raw('openat', -100, path('/proc/self/status'), os.O_RDONLY))",
        _GONE,
    ),
    Attack("/sys: list", "return len(os.listdir('/sys'))", _GONE),
    Attack(
        "/sys: raw",
        "return raw('openat', -100, path('/sys'), os.O_RDONLY | os.O_DIRECTORY)",
        _GONE,
    ),
    Attack("/dev: zero, which is memory", "return os.open('/dev/zero', os.O_RDWR)", _GONE),
    Attack("/dev: a terminal", "return os.openpty()[0]", _GONE),
    Attack("/dev: shared memory", "return len(os.listdir('/dev/shm'))", _GONE),
]

ATTACKS = READING + LISTING + LOOKING + WRITING + OWN_TREE + KERNEL
