# ruff: noqa: D103
# A stand-in's documentation is the native one's: see `Broker.like`.
"""Descriptors: `os.open`, and numbers that stand for files at the broker.

A file to read comes as a real descriptor. For a file to write the guest gets the number of a
descriptor that can do nothing, and the functions of `os` that take a number look here first. C code
that uses such a number itself gets an error, never a file that silently loses what it writes.
"""

import errno
import os

broker = None
files = None
folders = None
native = {}

# Number to `Handle`. Python's functions go through here; the kernel's table has the placeholders.
_handles = {}


def install(link, opened, told):
    """Replaces what takes or makes descriptors. `opened` opens files, `told` reads their status."""
    global broker, files, folders
    broker, files, folders = link, opened, told
    for function in (
        open,
        close,
        dup,
        read,
        write,
        pread,
        pwrite,
        lseek,
        fstat,
        ftruncate,
        fsync,
        fdatasync,
        readinto,
        dup2,
        closerange,
        sendfile,
        copy_file_range,
    ):
        if not hasattr(os, function.__name__):
            continue  # `os.readinto` came with Python 3.14
        native[function.__name__] = getattr(os, function.__name__)
        link.like(function, native[function.__name__])
        setattr(os, function.__name__, function)


def of(descriptor):
    """The broker's file that a number stands for, or None."""
    return _handles.get(descriptor)


def stand_for(handle):
    """A number for a file of the broker's: a descriptor with which the kernel does nothing."""
    placeholder = native["open"]("/dev/null", os.O_PATH | os.O_CLOEXEC)
    _handles[placeholder] = handle
    return placeholder


def open(path, flags, mode=0o777, *, dir_fd=None):
    try:
        return native["open"](path, flags, mode, dir_fd=dir_fd)
    except OSError as error:
        asked = broker.path_elsewhere(path, error, dir_fd)
        if asked is None:
            raise
    if flags & (os.O_DIRECTORY | os.O_PATH):  # O_TMPFILE is one of these
        raise OSError(errno.EOPNOTSUPP, "a folder outside the cell has no descriptor", path)
    handle, descriptor = _open_elsewhere(asked, flags, path)
    if descriptor is not None:
        return descriptor
    try:
        return stand_for(handle)
    except BaseException:
        handle.close()
        raise


def _open_elsewhere(path, flags, name):
    access = flags & os.O_ACCMODE
    if access == os.O_RDONLY and not flags & (os.O_CREAT | os.O_TRUNC):
        return files.ask_open(path, "r", name)
    create, plus = flags & os.O_CREAT, "" if access == os.O_WRONLY else "+"
    if create and flags & os.O_EXCL:
        return files.ask_open(path, f"x{plus}", name)
    if flags & os.O_APPEND:
        if not create:
            broker.ask("filesystem", "stat", {"path": path}, name)
        opened = files.ask_open(path, f"a{plus}", name)
    elif create and flags & os.O_TRUNC:
        return files.ask_open(path, f"w{plus}", name)
    else:
        opened = _open_as_it_is(path, create, plus, name)
    if flags & os.O_TRUNC:
        opened[0].truncate(0)
        opened[0].position = 0
    return opened


def _open_as_it_is(path, create, plus, name):
    """Opens for writing without cutting the file short; makes one if there is none."""
    if create:
        try:
            return files.ask_open(path, f"x{plus}", name)
        except FileExistsError:
            pass
    try:
        return files.ask_open(path, "r+", name)
    except PermissionError:
        if plus:
            raise
    # Writing alone may be granted where reading is not.
    return files.ask_open(path, "a", name)


def close(fd):
    handle = _handles.pop(fd, None)
    native["close"](fd)
    if handle is not None:
        handle.close()


def dup(fd, /):
    copy = native["dup"](fd)
    if (handle := _handles.get(fd)) is not None:
        handle.references += 1
        _handles[copy] = handle
    return copy


def dup2(fd, fd2, inheritable=True):
    copy = native["dup2"](fd, fd2, inheritable)
    if fd == fd2:
        return copy
    if (before := _handles.pop(fd2, None)) is not None:
        before.close()
    if (handle := _handles.get(fd)) is not None:
        handle.references += 1
        _handles[fd2] = handle
    return copy


def closerange(fd_low, fd_high, /):
    for descriptor in [number for number in _handles if fd_low <= number < fd_high]:
        close(descriptor)
    native["closerange"](fd_low, fd_high)


def sendfile(out_fd, in_fd, *rest, **named):
    if out_fd in _handles or in_fd in _handles:
        # What those who try this first take as a reason to copy by themselves.
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    return native["sendfile"](out_fd, in_fd, *rest, **named)


def copy_file_range(src, dst, *rest, **named):
    if src in _handles or dst in _handles:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return native["copy_file_range"](src, dst, *rest, **named)


def _checked(able):
    if not able:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def read(fd, length, /):
    if (handle := _handles.get(fd)) is None:
        return native["read"](fd, length)
    _checked(handle.readable)
    return handle.read(length)


def readinto(fd, buffer, /):
    if (handle := _handles.get(fd)) is None:
        return native["readinto"](fd, buffer)
    _checked(handle.readable)
    with memoryview(buffer) as view, view.cast("B") as octets:
        data = handle.read(len(octets))
        octets[: len(data)] = data
    return len(data)


def write(fd, data, /):
    if (handle := _handles.get(fd)) is None:
        return native["write"](fd, data)
    _checked(handle.writable)
    return handle.write(data)


def pread(fd, length, offset, /):
    if (handle := _handles.get(fd)) is None:
        return native["pread"](fd, length, offset)
    _checked(handle.readable)
    return handle.read(length, offset)


def pwrite(fd, buffer, offset, /):
    if (handle := _handles.get(fd)) is None:
        return native["pwrite"](fd, buffer, offset)
    _checked(handle.writable)
    return handle.write(buffer, offset)


def lseek(fd, position, whence, /):
    if (handle := _handles.get(fd)) is None:
        return native["lseek"](fd, position, whence)
    return handle.seek(position, whence)


def fstat(fd):
    if (handle := _handles.get(fd)) is None:
        return native["fstat"](fd)
    return folders.result_of(handle.stat())


def ftruncate(fd, length, /):
    if (handle := _handles.get(fd)) is None:
        return native["ftruncate"](fd, length)
    _checked(handle.writable)
    return handle.truncate(length)


def fsync(fd):
    # The broker's writes are the kernel's by the time that they are answered.
    return native["fsync"](fd) if _handles.get(fd) is None else None


def fdatasync(fd):
    return native["fdatasync"](fd) if _handles.get(fd) is None else None
