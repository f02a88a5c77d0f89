# ruff: noqa: D103, PTH118
# A stand-in's documentation is the native one's: see `Broker.like`.
"""Folders, and what is told about files: the functions of `os` that take paths.

Each tries the native call first. What that does not find, or may not do, is asked for.
"""

import errno
import os
import stat as modes
import sys

broker = None
descriptors = None
native = {}


def install(link, table):
    """Replaces the functions. `table` is the module of descriptors."""
    global broker, descriptors
    broker, descriptors = link, table
    for function in (
        stat,
        lstat,
        access,
        readlink,
        listdir,
        scandir,
        mkdir,
        makedirs,
        remove,
        unlink,
        rmdir,
        rename,
        replace,
        truncate,
    ):
        original = native[function.__name__] = getattr(os, function.__name__)
        link.like(function, original)
        setattr(os, function.__name__, function)
        # What the native call takes besides paths, its stand-in takes too. Not `supports_dir_fd`:
        # a tree that is walked by descriptors is the cell's own or nobody's.
        for able in (os.supports_fd, os.supports_follow_symlinks):
            if original in able:
                able.add(function)

    for name, what in _NOT_ASKED.items():
        setattr(os, name, _refusing(getattr(os, name), what))
    native["realpath"] = link.quietly(os.path.realpath)
    os.path.realpath = link.like(realpath, os.path.realpath)


def overlook_the_host():
    """Where the cell has no root of its own, the host's names are there to be seen, though not opened.
    What is there and not the cell's is asked for, as everywhere else.
    """
    for name in ("access", "lstat", "readlink", "stat"):
        native[name] = _of_its_own(native[name])


def _of_its_own(looks):
    def asked_elsewhere(path, *args, **kwargs):
        if isinstance(path, int) or broker.is_own(path):
            return looks(path, *args, **kwargs)
        if looks.__name__ == "access":
            return False
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    return broker.like(asked_elsewhere, looks)


# What has no action at the broker.
_NOT_ASKED = {
    "chdir": "a cell's working folder is its own: use absolute paths",
    "chmod": "modes are the host's to set",
    "chown": "owners are the host's to set",
    "lchown": "owners are the host's to set",
    "link": "links are the host's to make",
    "statvfs": "what a file system has left is the host's to know",
    "symlink": "links are the host's to make",
    "utime": "times are the host's to set",
}


def _refusing(function, what):
    def refuse(path, *args, **kwargs):
        try:
            return function(path, *args, **kwargs)
        except OSError as error:
            if broker.path_elsewhere(path, error) is None:
                raise
        text = f"os.{function.__name__} outside the cell: {what}"
        raise PermissionError(errno.EPERM, text, os.fspath(path))

    for able in (os.supports_fd, os.supports_follow_symlinks):
        if function in able:
            able.add(refuse)
    return broker.like(refuse, function)


def realpath(filename, *, strict=False):
    # Links are followed in the cell alone: the folders above a granted one are not looked at, and
    # the broker resolves what lies below.
    found = native["realpath"](filename)
    if strict is True:
        stat(found)
    return found


def result_of(told):
    """`os.stat_result` from what the broker told. It does not tell whose a file is."""
    times = [told[f"{name}_ns"] for name in ("atime", "mtime", "ctime")]
    first = [told[name] for name in ("mode", "ino", "dev", "nlink")]
    whole = [*first, os.getuid(), os.getgid(), told["size"], *(time // 10**9 for time in times)]
    named = {"st_blksize": 4096, "st_blocks": -(-told["size"] // 512), "st_rdev": 0}
    for name, time in zip(("st_atime", "st_mtime", "st_ctime"), times, strict=True):
        named |= {name: time / 1e9, f"{name}_ns": time}
    return os.stat_result(whole, named)


def _stat_elsewhere(path, follow, name):
    payload = {"path": path, "follow": follow}
    return result_of(broker.ask("filesystem", "stat", payload, name))


def stat(path, *, dir_fd=None, follow_symlinks=True):
    if isinstance(path, int) and (handle := descriptors.of(path)) is not None:
        return result_of(handle.stat())
    try:
        return native["stat"](path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    except OSError as error:
        asked = broker.path_elsewhere(path, error, dir_fd)
        if asked is None:
            raise
    return _stat_elsewhere(asked, bool(follow_symlinks), path)


def lstat(path, *, dir_fd=None):
    try:
        return native["lstat"](path, dir_fd=dir_fd)
    except OSError as error:
        asked = broker.path_elsewhere(path, error, dir_fd)
        if asked is None:
            raise
    return _stat_elsewhere(asked, False, path)


def access(path, mode, *, dir_fd=None, effective_ids=False, follow_symlinks=True):
    options = {"effective_ids": effective_ids, "follow_symlinks": follow_symlinks}
    if native["access"](path, mode, dir_fd=dir_fd, **options):
        return True
    if isinstance(path, int) or dir_fd is not None:
        return False
    try:
        # The cell has it, and the answer was no.
        native["stat"](path, follow_symlinks=follow_symlinks)
        return False
    except OSError as error:
        asked = broker.path_elsewhere(path, error)
    if asked is None:
        return False
    try:
        told = _stat_elsewhere(asked, bool(follow_symlinks), path).st_mode
    except OSError:
        return False
    # Whoever opens it knows; until then any of the three kinds of users will do.
    return (told >> 6 | told >> 3 | told) & mode == mode


def readlink(path, *, dir_fd=None):
    try:
        return native["readlink"](path, dir_fd=dir_fd)
    except OSError as error:
        asked = broker.path_elsewhere(path, error, dir_fd)
        if asked is None:
            raise
    if modes.S_ISLNK(_stat_elsewhere(asked, False, path).st_mode):
        raise OSError(errno.EOPNOTSUPP, "where a link leads is not told outside the cell", path)
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)


class DirEntry:
    """One entry of a folder outside the cell, as `os.scandir` gives it."""

    __slots__ = ("_followed", "_ino", "_kind", "_own", "name", "path")

    def __init__(self, name, path, kind, ino):
        self.name = name
        self.path = path
        self._kind = kind
        self._ino = ino
        self._own = self._followed = None

    def __repr__(self):
        return f"<DirEntry {self.name!r}>"

    def __fspath__(self):
        return self.path

    def inode(self):
        """The entry's number in its file system."""
        return self._ino

    def is_symlink(self):
        """Whether it is a symbolic link."""
        return self._kind == "link"

    def is_junction(self):
        """Never: only another operating system has them."""
        return False

    def is_dir(self, *, follow_symlinks=True):
        """Whether it is a folder, or a link to one."""
        return self._is("dir", modes.S_ISDIR, follow_symlinks)

    def is_file(self, *, follow_symlinks=True):
        """Whether it is a regular file, or a link to one."""
        return self._is("file", modes.S_ISREG, follow_symlinks)

    def _is(self, kind, told, follow_symlinks):
        if self._kind != "link" or not follow_symlinks:
            return self._kind == kind
        try:
            return told(self.stat().st_mode)
        except FileNotFoundError:
            return False

    def stat(self, *, follow_symlinks=True):
        """Its status, asked for once."""
        if self._kind == "link" and follow_symlinks:
            if self._followed is None:
                self._followed = stat(self.path)
            return self._followed
        if self._own is None:
            self._own = lstat(self.path)
        return self._own


class _Entries:
    """What `os.scandir` returns: an iterator that can be closed."""

    def __init__(self, entries):
        self._entries = iter(entries)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._entries)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends it."""
        self._entries = iter(())


def _list(asked, path):
    entries = broker.ask("filesystem", "list", {"path": asked}, path)
    if isinstance(os.fspath(path), bytes):
        return [(os.fsencode(name), kind, ino) for name, kind, ino in entries]
    return entries


def listdir(path=None):
    try:
        return native["listdir"](path)
    except OSError as error:
        asked = broker.path_elsewhere("." if path is None else path, error)
        if asked is None:
            raise
    return [name for name, _, _ in _list(asked, path)]


def scandir(path=None):
    try:
        return native["scandir"](path)
    except OSError as error:
        asked = broker.path_elsewhere("." if path is None else path, error)
        if asked is None:
            raise
    folder = os.fspath(path)
    return _Entries(
        DirEntry(name, os.path.join(folder, name), kind, ino)
        for name, kind, ino in _list(asked, path)
    )


def mkdir(path, mode=0o777, *, dir_fd=None):
    try:
        return native["mkdir"](path, mode, dir_fd=dir_fd)
    except OSError as error:
        asked = broker.path_elsewhere(path, error, dir_fd)
        if asked is None:
            raise
    return broker.ask("filesystem", "mkdir", {"path": asked}, path)


def makedirs(name, mode=0o777, exist_ok=False):
    try:
        native["stat"](name)
    except OSError as error:
        asked = broker.path_elsewhere(name, error)
    else:
        asked = None
    if asked is None:
        return native["makedirs"](name, mode, exist_ok)
    # In one request: the folders above may be none that the policy lets the guest look at.
    payload = {"path": asked, "parents": True, "exist_ok": bool(exist_ok)}
    return broker.ask("filesystem", "mkdir", payload, name)


def _remove(function, path, dir_fd, directory):
    try:
        return function(path, dir_fd=dir_fd)
    except OSError as error:
        asked = broker.path_elsewhere(path, error, dir_fd)
        if asked is None:
            raise
    return broker.ask("filesystem", "remove", {"path": asked, "directory": directory}, path)


def remove(path, *, dir_fd=None):
    return _remove(native["remove"], path, dir_fd, False)


def unlink(path, *, dir_fd=None):
    return _remove(native["unlink"], path, dir_fd, False)


def rmdir(path, *, dir_fd=None):
    return _remove(native["rmdir"], path, dir_fd, True)


def _rename(function, src, dst, folders):
    try:
        return function(src, dst, src_dir_fd=folders[0], dst_dir_fd=folders[1])
    except OSError as error:
        asked = broker.path_elsewhere(src, error, *folders)
        to = broker.path_elsewhere(dst, error, *folders)
        if asked is None or to is None:
            raise
    return broker.ask("filesystem", "rename", {"path": asked, "to": to}, src, dst)


def rename(src, dst, *, src_dir_fd=None, dst_dir_fd=None):
    return _rename(native["rename"], src, dst, (src_dir_fd, dst_dir_fd))


def replace(src, dst, *, src_dir_fd=None, dst_dir_fd=None):
    return _rename(native["replace"], src, dst, (src_dir_fd, dst_dir_fd))


def truncate(path, length):
    if isinstance(path, int):
        return os.ftruncate(path, length)
    try:
        return native["truncate"](path, length)
    except OSError as error:
        asked = broker.path_elsewhere(path, error)
        if asked is None:
            raise
    return broker.ask("filesystem", "truncate", {"path": asked, "size": length}, path)


def patch_mimetypes(mimetypes):
    """The tables of other programs, in nine places, are looked for in the cell alone."""
    mimetypes.init = broker.quietly(mimetypes.init)


def _for_an_import():
    """Whether a module is being loaded: what it looks at by the way is not worth a denial."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def patch_tzpath(tzpath):
    """Zones are looked for in the cell: packages have them too. Then, if files are granted, in the
    host's first folder for them that says no or has the zone."""
    native_find = tzpath.find_tzfile
    quiet = broker.quietly(native_find)

    def find_tzfile(key):
        found = quiet(key)
        if found or "filesystem" not in broker.capabilities or _for_an_import():
            return found
        for folder in tzpath.TZPATH:
            path = os.path.join(folder, key)
            try:
                if modes.S_ISREG(stat(path).st_mode):
                    return path
            except PermissionError:
                return None
            except OSError:
                continue
        return None

    tzpath.find_tzfile = broker.like(find_tzfile, native_find)


def patch_dateutil(tz):
    """The same for the package that pandas brings."""
    native_find = tz.gettz.nocache
    quiet = broker.quietly(native_find)

    def nocache(name=None):
        asks = "filesystem" in broker.capabilities and not _for_an_import()
        return (native_find if asks else quiet)(name)

    tz.gettz.nocache = broker.like(nocache, native_find)


def patch_pandas_cpu(cpu):
    """How many processors there are is no business of the host's files."""
    cpu._cgroup_cpu_quota = broker.quietly(cpu._cgroup_cpu_quota)


def patch_tempfile(tempfile):
    """Without a folder that the cell has itself, the first that programs would try is asked for."""
    native_find = tempfile._get_default_tempdir
    quiet = broker.quietly(native_find)

    def find(*args):
        try:
            return quiet(*args)
        except FileNotFoundError:
            folder = tempfile._candidate_tempdir_list()[0]
        try:
            broker.ask("filesystem", "stat", {"path": folder}, folder)
            broker.ask("filesystem", "mkdir", {"path": folder, "exist_ok": True}, folder)
        except OSError as error:
            error.strerror = (
                f"{error.strerror or error} Temporary files go there unless dir= or "
                "tempfile.tempdir names another folder."
            )
            raise
        return folder

    tempfile._get_default_tempdir = broker.like(find, native_find)


def patch_shutil(shutil):
    """Copies of files are copies of their bytes: modes and times are the host's to set."""

    def lenient(function):
        def copy(src, dst, *, follow_symlinks=True):
            try:
                return function(src, dst, follow_symlinks=follow_symlinks)
            except OSError as error:
                if broker.path_elsewhere(dst, error) is None:
                    raise

        return broker.like(copy, function)

    shutil.copymode = lenient(shutil.copymode)
    shutil.copystat = lenient(shutil.copystat)
