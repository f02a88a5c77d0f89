"""Files that a policy does not grant, asked for in every way and spelling.

`GIVEN` may be read, `MADE` read and written, `DROP` written only. What is denied lies in folders
called `denied` and in files that end in `.key`. All else is outside.
"""

import unicodedata

from pyisolate import Policy, ReadPath, ReadWritePath, WritePath
from pyisolate.attack.asked import Asked, Ways
from pyisolate.attack.texts import BROKER, NAIVE, TREE
from pyisolate.attack.texts.tree import Tree


def policy_of(tree: Tree) -> Policy:
    """What the guest may have of it."""
    given, made, drop = (tree.base / name for name in ("given", "made", "drop"))
    return (
        Policy()
        .grant(ReadPath(given), ReadWritePath(made), WritePath(drop))
        .deny(
            ReadWritePath(f"{given}/**/*.key"),
            ReadWritePath(f"{made}/**/*.key"),
            ReadWritePath(given / "denied"),
            ReadWritePath(made / "denied"),
        )
    )


# --- reading what is outside ---------------------------------------------------------------------

READ_SPELLINGS = {
    "plain": "{BASE}/secret.txt",
    "sibling folder": "{BASE}/given2/near.txt",
    "sibling file": "{BASE}/given.txt",
    "dotdot": "{GIVEN}/../secret.txt",
    "dot dotdot": "{GIVEN}/./../secret.txt",
    "slashes": "{GIVEN}//..//secret.txt",
    "below": "{GIVEN}/below/../../secret.txt",
    "dots everywhere": "{GIVEN}/./below/././.././../secret.txt",
    "there and back": "{GIVEN}/../given/../secret.txt",
    "far up": "{GIVEN}/../../../../../../../../../..{SECRET}",
    "above the root": "/../..{SECRET}",
    "two slashes": "/{SECRET}",
    "three slashes": "//{SECRET}",
    "dot first": "/.{SECRET}",
    "absolute link": "{GIVEN}/abs",
    "relative link": "{GIVEN}/rel",
    "link of slashes": "{GIVEN}/slash",
    "link of dots": "{GIVEN}/dots",
    "link below": "{GIVEN}/below/link",
    "chain": "{GIVEN}/chain0",
    "folder link": "{GIVEN}/dir/inner.txt",
    "absolute folder link": "{GIVEN}/dir_abs/inner.txt",
    "link up": "{GIVEN}/up/secret.txt",
    "link far up": "{GIVEN}/below/up/secret.txt",
    "link to the root": "{GIVEN}/root{SECRET}",
    "links over links": "{GIVEN}/up/given/up/given/dir/inner.txt",
    "dotdot behind a link": "{GIVEN}/dir/../secret.txt",
    "a denied folder": "{GIVEN}/denied/inner.txt",
    "a denied name": "{GIVEN}/x.key",
    "a denied name below": "{GIVEN}/below/y.key",
    "a link to a denied folder": "{GIVEN}/denied_dir/inner.txt",
    "a link to a denied file": "{GIVEN}/denied_link",
    "a link to a denied name": "{GIVEN}/key_link",
    "a denied name by dotdot": "{GIVEN}/below/../denied/inner.txt",
    "a denied name by slashes": "{GIVEN}//.//denied//inner.txt",
    "what may only be written": "{DROP}/box.txt",
    "a link into the granted other": "{MADE}/to_given/denied/inner.txt",
    "the root of a process": "/proc/self/root{SECRET}",
    "the root of the host": "/proc/{HOST_PID}/root{SECRET}",
    "a thread's root": "/proc/thread-self/root{SECRET}",
    "a link to a root": "{GIVEN}/proc{SECRET}",
}

READ_WAYS = {
    "open": "return open(f'{path}', 'rb').read()",
    "pathlib": "return pathlib.Path(f'{path}').read_bytes()",
    "os.open": "return os.read(os.open(f'{path}', os.O_RDONLY), 99)",
    "bytes": "return open(f'{path}'.encode(), 'rb').read()",
    "read": "return fs('read', path=f'{path}')",
    "part": "return fs('read', path=f'{path}', offset=0, length=99)",
    "size": "need(os.stat(f'{path}').st_size == SIZE)",
    "told": "need(fs('stat', path=f'{path}')['size'] == SIZE)",
    "existence": "need(fs('exists', path=f'{path}'))",
    "copy": "shutil.copyfile(f'{path}', MADE + '/copy'); return open(MADE + '/copy', 'rb').read()",
}
# What dotdot behind a link says by its text need not be there.
_HANDLED = "DENIED ENOENT LookupError"

READS = {
    spelling: [
        Asked(way, text.replace("{path}", path), _HANDLED) for way, text in READ_WAYS.items()
    ]
    for spelling, path in READ_SPELLINGS.items()
}
"""By spelling, every way."""

# --- writing what is outside, or may only be read ------------------------------------------------

WRITE_SPELLINGS = {
    "plain": "{BASE}/victim.txt",
    "dotdot": "{MADE}/../victim.txt",
    "slashes": "{MADE}//.//..//victim.txt",
    "below": "{MADE}/sub/../../victim.txt",
    "link": "{MADE}/to_victim",
    "absolute link": "{MADE}/to_victim_abs",
    "folder link": "{MADE}/to_folder/victim.txt",
    "link up": "{MADE}/up/victim.txt",
    "hard link": "{MADE}/hard",
    "what may only be read": "{GIVEN}/text",
    "by a link": "{MADE}/to_given/text",
    "a denied name": "{MADE}/x.key",
    "a denied name below": "{MADE}/sub/deeper/z.key",
    "a link to a denied name": "{MADE}/to_key",
    "a denied folder": "{MADE}/denied/inner.txt",
    "by a root": "/proc/self/root{BASE}/victim.txt",
}

WRITE_WAYS = {
    "open w": "open(f'{path}', 'w').write('changed')",
    "open r+": "f = open(f'{path}', 'r+'); f.write('changed'); f.close()",
    "open a": "f = open(f'{path}', 'a'); f.write('changed'); f.close()",
    "open w+": "open(f'{path}', 'w+b').close()",
    "pathlib": "pathlib.Path(f'{path}').write_text('changed')",
    "O_TRUNC": "os.close(os.open(f'{path}', os.O_RDONLY | os.O_TRUNC))",
    "O_RDWR": "os.write(os.open(f'{path}', os.O_RDWR), b'changed')",
    "O_APPEND": "os.write(os.open(f'{path}', os.O_WRONLY | os.O_APPEND), b'changed')",
    "truncate": "os.truncate(f'{path}', 1)",
    "write": "fs('write', path=f'{path}', data=b'changed')",
    "append": "fs('append', path=f'{path}', data=b'changed')",
    "cut": "fs('truncate', path=f'{path}', size=0)",
    "handle": "fs('write', handle=handle_of(f'{path}', 'r+'), offset=0, data=b'changed')",
    "opened for appending": "fs('write', handle=handle_of(f'{path}', 'a'), offset=0, data=b'c')",
    "chmod": "os.chmod(f'{path}', 0o4777)",
    "times": "os.utime(f'{path}', (1, 1))",
}
_UNCHANGED = "DENIED ENOENT EROFS EACCES EPERM ELOOP PermissionError ENOTSUP EOPNOTSUPP ENOSYS"

WRITES = {
    spelling: [
        Asked(way, text.replace("{path}", path), _UNCHANGED) for way, text in WRITE_WAYS.items()
    ]
    for spelling, path in WRITE_SPELLINGS.items()
}
"""By spelling, every way."""

# --- names: making, moving and removing ----------------------------------------------------------

NAMES = [
    Asked(name, body, _UNCHANGED)
    for name, body in {
        "a new file by a link": "open(MADE + '/to_nothing', 'w').write('x')",
        "a new file by a link, asked": "fs('write', path=MADE + '/to_nothing', data=b'x')",
        "a new file outside": "open(BASE + '/new', 'x').write('x')",
        "a new file beside": "open(MADE + '/../new', 'w').write('x')",
        "a new file of a denied name": "open(MADE + '/new.key', 'w').write('x')",
        "a new folder outside": "os.mkdir(MADE + '/../new')",
        "a new folder by a link": "os.mkdir(MADE + '/to_folder/new')",
        "new folders by a link": "os.makedirs(MADE + '/to_folder/new/one')",
        "a new folder, asked": "fs('mkdir', path=MADE + '/up/new')",
        "a new folder where it is read": "os.mkdir(GIVEN + '/new')",
        "a new folder of a denied name": "fs('mkdir', path=MADE + '/new.key')",
        "removing outside": "os.remove(MADE + '/../victim.txt')",
        "removing by a link": "os.remove(MADE + '/to_folder/victim.txt')",
        "removing, asked": "fs('remove', path=MADE + '/to_folder/victim.txt')",
        "removing what is read": "os.remove(GIVEN + '/text')",
        "removing a denied name": "os.remove(MADE + '/x.key')",
        "removing a folder outside": "shutil.rmtree(MADE + '/../folder')",
        "moving out": "os.rename(MADE + '/plain.txt', BASE + '/new')",
        "moving out by a link": "os.rename(MADE + '/plain.txt', MADE + '/to_folder/new')",
        "moving over a victim": "os.replace(MADE + '/plain.txt', MADE + '/../victim.txt')",
        "moving over what is read": "os.replace(MADE + '/plain.txt', GIVEN + '/text')",
        "moving in": "os.rename(SECRET, MADE + '/new'); return open(MADE + '/new').read()",
        "moving in by a link": "os.rename(MADE + '/up/secret.txt', MADE + '/new')",
        "moving what is read": "os.rename(GIVEN + '/text', MADE + '/new')",
        "moving out of a denied name": "os.rename(MADE + '/x.key', MADE + '/new.txt')",
        "moving out of a denied folder":
            "fs('rename', path=MADE + '/denied/inner.txt', to=MADE + '/new.txt')",
        "moving into a denied name": "os.rename(MADE + '/plain.txt', MADE + '/new.key')",
        "moving over a denied name": "os.replace(MADE + '/plain.txt', MADE + '/x.key')",
        "moving a folder above a denied name": "os.rename(MADE + '/sub', MADE + '/new')",
        "moving a folder far above a denied name":
            "fs('rename', path=MADE + '/sub/deeper', to=MADE + '/sub/new')",
        "moving a denied folder": "os.rename(MADE + '/denied', MADE + '/new')",
        "moving the granted folder": "os.rename(MADE, BASE + '/new')",
        "moving what is only written": "os.rename(DROP + '/box.txt', MADE + '/new')",
        "moving, as shutil does": "shutil.move(DROP + '/box.txt', MADE + '/new')",
        "a hard link in": "os.link(SECRET, MADE + '/new')",
        "a hard link in of what is read": "os.link(GIVEN + '/text', MADE + '/new')",
        "a link out": "os.symlink(SECRET, MADE + '/new'); return open(MADE + '/new').read()",
        "a FIFO": "os.mkfifo(MADE + '/new')",
    }.items()
]  # fmt: skip

# --- what is no regular file ---------------------------------------------------------------------

ODD_READ = [
    Asked(name, body, refused, plain=False, privileged="zero" in body or "null" in body)
    for name, body, refused in (
        ("a FIFO, read", "return fs('read', path=GIVEN + '/fifo')", "DENIED"),
        ("a FIFO, opened", "return open(GIVEN + '/fifo').read()", "DENIED"),
        ("a FIFO, written", "open(MADE + '/fifo', 'w').write('x')", "DENIED"),
        ("a FIFO, asked to be written", "fs('write', path=MADE + '/fifo', data=b'x')", "DENIED"),
        ("a socket", "return open(GIVEN + '/sock').read()", "DENIED ENXIO"),
        ("a device", "return open(GIVEN + '/zero', 'rb').read(9)", "DENIED"),
        ("a device, asked", "return fs('read', path=GIVEN + '/zero', length=9)", "DENIED"),
        ("a device, written", "open(MADE + '/null', 'w').write('x')", "DENIED"),
        ("a link to a device", "return open(GIVEN + '/device', 'rb').read(9)", "DENIED"),
        ("a link to descriptors", "return os.listdir(GIVEN + '/proc_fd')", "DENIED"),
        ("a link to variables", "return open(GIVEN + '/proc_environ').read()", "DENIED"),
        ("a folder, read", "return open(GIVEN + '/below').read()", "EISDIR"),
        ("a folder, asked", "return fs('read', path=GIVEN + '/below')", "EISDIR"),
        ("a loop", "return open(GIVEN + '/loop_a').read()", "ELOOP"),
        ("itself", "return fs('read', path=GIVEN + '/itself')", "ELOOP"),
        ("into itself", "return fs('stat', path=GIVEN + '/into_itself')", "ELOOP"),
        ("a long chain", "return open(GIVEN + '/long0').read()", "ELOOP"),
        ("below a file", "return fs('read', path=GIVEN + '/text/x')", "ENOTDIR ENOENT"),
        ("through a FIFO", "return fs('read', path=GIVEN + '/fifo/x')", "ENOTDIR ENOENT"),
        ("a listing through a link", "return os.listdir(GIVEN + '/dir')", "DENIED"),
        ("a listing of the folder above", "return os.listdir(GIVEN + '/..')", "DENIED"),
        ("a listing of a denied folder", "return os.listdir(GIVEN + '/denied')", "DENIED"),
        ("a listing of the root", "return fs('list', path='/')", "DENIED"),
        ("what is written alone, listed", "return os.listdir(DROP)", "DENIED"),
    )
]

# --- paths that are none -------------------------------------------------------------------------

TWINS = [
    "x.KEY", "X.key", "x.key.", "x.key ", " x.key", "x.key\t", "x.key\u200b", "x\u200b.key",
    "x.k\u0435y", "x.key\u0000", "x%2ekey", "x.key::$DATA", "X~1.KEY", "x.key\\",
    "denied\\inner.txt",
    "DENIED/inner.txt", "denied /inner.txt", "denied./inner.txt", "denied%2finner.txt",
    "\uff44enied/inner.txt", unicodedata.normalize("NFD", "é.key"), "\u00e9.KEY",
]  # fmt: skip
"""Names that other systems would take for a denied one."""

NO_PATHS = {
    "": "ValueError",
    "relative": "ValueError",
    "../secret.txt": "ValueError",
    "./x": "ValueError",
    "~/x": "ValueError",
    "file:///etc/passwd": "ValueError",
    "\0": "ValueError",
    "{GIVEN}/text\0/../../secret.txt": "ValueError",
    "{GIVEN}\0": "ValueError",
    "{GIVEN}/" + "a" * 256: "ENAMETOOLONG",
    "{GIVEN}/" + "a" * 100_000: "ENAMETOOLONG",
    "/" + "x/" * 4000: "ENAMETOOLONG",
    "{GIVEN}" + "/.." * 3000 + "{SECRET}": "ENAMETOOLONG DENIED",
    "{GIVEN}" + "/below/.." * 1000 + "/../secret.txt": "ENAMETOOLONG DENIED",
    "{GIVEN}/\\..\\secret.txt": "ENOENT",
    "{GIVEN}/..\\secret.txt": "ENOENT",
    "{GIVEN}/%2e%2e/secret.txt": "ENOENT",
    "{GIVEN}/\u2025/secret.txt": "ENOENT",
    "{GIVEN}/\uff0e\uff0e/secret.txt": "ENOENT",
    "{GIVEN}/.. /secret.txt": "ENOENT",
    "{GIVEN}/.../secret.txt": "ENOENT",
    "{GIVEN}/$HOME": "ENOENT",
    "{GIVEN}/*": "ENOENT",
    "{GIVEN}/text/": "ENOTDIR ok",
    "{GIVEN}/text/.": "ENOTDIR ok",
}
"""Each with what a raw request for it may be answered; none is answered with the secret."""

PAYLOADS = {
    "no payload": ("read", None, "ValueError"),
    "a list": ("read", [1], "ValueError"),
    "a text": ("read", "/etc/passwd", "ValueError"),
    "a path of bytes": ("read", {"path": b"/etc/passwd"}, "ValueError"),
    "a path that is a number": ("read", {"path": 3}, "ValueError"),
    "a path in a list": ("read", {"path": ["/etc/passwd"]}, "ValueError"),
    "two ways": ("read", {"path": "/etc/passwd", "handle": 1}, "ValueError"),
    "an unknown key": ("read", {"path": "/etc/passwd", "follow": False}, "ValueError"),
    "a key of another type": ("read", {1: "/etc/passwd"}, "ValueError"),
    "a negative offset": ("read", {"path": "/etc/passwd", "offset": -1}, "ValueError"),
    "a large offset": ("read", {"path": "/etc/passwd", "offset": 1 << 80}, "ValueError"),
    "a negative length": ("read", {"path": "/etc/passwd", "length": -1}, "ValueError"),
    "a float": ("read", {"path": "/etc/passwd", "offset": 1.5}, "ValueError"),
    "true for a number": ("read", {"path": "/etc/passwd", "offset": True}, "ValueError"),
    "another mode": ("open", {"path": "/etc/passwd", "mode": "rb"}, "ValueError"),
    "an empty mode": ("open", {"path": "/etc/passwd", "mode": ""}, "ValueError"),
    "flags": ("open", {"path": "/etc/passwd", "mode": 2}, "ValueError"),
    "text for data": ("write", {"path": "/tmp/x", "data": "x"}, "ValueError"),
    "no data": ("write", {"path": "/tmp/x"}, "ValueError"),
    "another action": ("chmod", {"path": "/etc/passwd", "mode": 511}, "LookupError"),
    "an action in capitals": ("READ", {"path": "/etc/passwd"}, "LookupError"),
    "an action with a space": ("read ", {"path": "/etc/passwd"}, "LookupError"),
    "an empty action": ("", {"path": "/etc/passwd"}, "LookupError ValueError"),
    "a handle that is none": ("read", {"handle": 12345}, "EBADF"),
    "handle zero": ("read", {"handle": 0}, "EBADF"),
    "a handle of the kernel's": ("write", {"handle": 2, "offset": 0, "data": b"x"}, "EBADF"),
    "a negative handle": ("close", {"handle": -1}, "ValueError"),
    "a large handle": ("stat", {"handle": (1 << 63) - 1}, "EBADF"),
    "a handle over all": ("stat", {"handle": 1 << 63}, "ValueError"),
    "a size over all": ("truncate", {"path": "/tmp/x", "size": 1 << 63}, "ValueError"),
    "a deep payload": ("read", {"path": [[[[[[[[[[["x"]]]]]]]]]]]}, "ValueError"),
}
"""Action, payload, and how it is answered."""

# --- a descriptor that was handed over for reading -----------------------------------------------

_FD = "fd = os.open(GIVEN + '/text', os.O_RDONLY)\n"
HANDED = [
    Asked(name, _FD + body, refused, recorded=None, plain=plain)
    for name, plain, body, refused in (
        ("reopened by /proc", True,
         "os.write(os.open(f'/proc/self/fd/{fd}', os.O_RDWR), b'changed')",
         "DENIED EACCES EPERM ENOENT EROFS ELOOP"),
        ("reopened by /dev/fd", True,
         "os.write(os.open(f'/dev/fd/{fd}', os.O_WRONLY), b'changed')",
         "DENIED EACCES EPERM ENOENT EROFS ELOOP"),
        ("cut by /proc", True, "os.truncate(f'/proc/self/fd/{fd}', 0)",
         "DENIED EACCES EPERM ENOENT EROFS ELOOP"),
        ("fchmod", True, "of_libc('fchmod', fd, 0o4777)", "EPERM"),
        ("fchown", True, "of_libc('fchown', fd, os.getuid(), os.getgid())", "EPERM EINVAL"),
        ("futimens", True, "of_libc('futimens', fd, None)", "EPERM"),
        ("fsetxattr", False, "of_libc('fsetxattr', fd, b'user.x', b'y', 1, 0)", "EPERM"),
        ("ftruncate", False, "of_libc('ftruncate', fd, 0)", "EINVAL EBADF EPERM"),
        ("write", False, "of_libc('write', fd, b'changed', 7)", "EBADF"),
        ("pwrite", False, "of_libc('pwrite64', fd, b'changed', 7, 0)", "EBADF"),
        ("F_SETFL", False,
         "fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR)\nof_libc('write', fd, b'changed', 7)",
         "EBADF EPERM"),
        ("a lock", True, "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "EPERM EACCES"),
        ("a lease", True, "fcntl.fcntl(fd, 1024, 0)", "EPERM EACCES EINVAL"),
        ("shared memory to write", False,
         "m = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)\nm[0:1] = b'X'",
         "EACCES EPERM"),
        ("fallocate", False, "of_libc('fallocate', fd, 3, 0, 4096)", "EBADF EPERM"),
        ("a folder by it", False, "return os.open('../secret.txt', os.O_RDONLY, dir_fd=fd)",
         "ENOTDIR EPERM EACCES"),
        ("its own path by it", False, "return os.open('..', os.O_RDONLY, dir_fd=fd)",
         "ENOTDIR EPERM EACCES"),
        ("openat of nothing", False,
         "return of_libc('openat', fd, b'', 0o10000000)", "ENOENT EPERM EACCES ENOTDIR"),
        ("a hard link of it", True,
         "of_libc('linkat', -100, f'/proc/self/fd/{fd}'.encode(), -100,"
         " (MADE + '/new').encode(), 0x400)", "EPERM ENOENT EACCES EROFS EXDEV"),
        ("a folder as a descriptor", True,
         "folder = os.open(GIVEN, os.O_RDONLY | os.O_DIRECTORY)\n"
         "return os.read(os.open('../secret.txt', os.O_RDONLY, dir_fd=folder), 99)",
         "ENOTSUP EOPNOTSUPP DENIED EISDIR"),
        ("a path as a descriptor", True,
         "folder = os.open(GIVEN, os.O_PATH)\n"
         "return os.read(os.open('../secret.txt', os.O_RDONLY, dir_fd=folder), 99)",
         "ENOTSUP EOPNOTSUPP DENIED EISDIR"),
        ("flags of the file", True,
         "fcntl.ioctl(fd, 0x40086602, (0x40).to_bytes(8, 'little'))", "EPERM EACCES ENOTTY"),
    )
]  # fmt: skip

# --- as trials ------------------------------------------------------------------------------------

_STAGE = """
import builtins
from pathlib import Path
def fresh():
    base = Path(world["folder"]) / "tree"
    if base.exists():
        shutil.rmtree(base)
    base.mkdir()
    tree = Tree(base, Path(world["secret"]).read_text())
    globals().update(tree.world)
    builtins.request = naive_request(tree.base)
    before = tree.state()
    return lambda: tree.state() != before
fresh()
"""
_PRELUDE = (BROKER, NAIVE, TREE, _STAGE)
_NATIVE = {"subinterpreter": "ctypes: a sub-interpreter cell has none"}


def _read(asked: Asked, value: object, changed: bool, token: str) -> bool:
    return token in repr(value) or "need(" in asked.body


def _changed(asked: Asked, value: object, changed: bool, token: str) -> bool:
    return changed


def _done(asked: Asked, value: object, changed: bool, token: str) -> bool:
    return True


_SHOWN = [asked for asked in HANDED if asked.plain]
TRIALS = [
    *(
        Ways(f"read {spelling}", "paths", tuple(asked), _PRELUDE, _read)
        for spelling, asked in READS.items()
    ),
    *(
        Ways(f"write {spelling}", "paths", tuple(asked), _PRELUDE, _changed)
        for spelling, asked in WRITES.items()
    ),
    Ways("names of files", "paths", tuple(NAMES), _PRELUDE, _changed),
    Ways(
        "a descriptor that was handed over",
        "paths",
        tuple(asked for asked in _SHOWN if "of_libc" not in asked.body),
        _PRELUDE,
        _done,
        "ENOTTY EOPNOTSUPP EPERM",
    ),
    Ways(
        "a descriptor that was handed over, by libc",
        "paths",
        tuple(asked for asked in _SHOWN if "of_libc" in asked.body),
        _PRELUDE,
        _done,
        cannot=_NATIVE,
    ),
]
