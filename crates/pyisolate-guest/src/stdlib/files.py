# ruff: noqa: D101, D102, D103, PTH116
# A stand-in's documentation is the native one's: see `Broker.like`.
"""Files: `open`, and the file objects over what the broker opened.

What the cell has itself is opened natively. Anything else is asked for. A file to read comes as a
descriptor where the backend can pass one, and is read at full speed from then on. A file to write
is a number at the broker, which counts every byte; `RawFile` is its raw layer.
"""

import builtins
import io
import os
import sys
from _pickle import PickleBuffer

# Between a guest's small writes and the broker's messages, in bytes: large enough that the cost of
# a message, some 20 microseconds, is spread over many.
BUFFER_BYTES = 512 * 1024
# The most that is read or written by one request, in bytes. The broker answers with up to 8 MiB.
CHUNK_BYTES = 4 << 20

_HAS_IT_OPEN = "the broker has this file open, and C code can neither"
_NO_READING = (
    f"{_HAS_IT_OPEN} read nor map it: use file.read(), as in numpy.frombuffer(file.read())"
)
_NO_WRITING = (
    f"{_HAS_IT_OPEN} write to it nor map it: "
    "use numpy.save(file, array) or file.write(array.tobytes())"
)

broker = None
descriptors = None
native_open = None
NativeFileIO = io.FileIO


def install(link, table):
    """Replaces `open`. `table` is the module of descriptors that stand for the broker's files."""
    global broker, descriptors, native_open
    broker, descriptors = link, table
    native_open = io.open
    link.like(open, native_open)
    io.open = builtins.open = open
    io.FileIO = link.like(FileIO, NativeFileIO)


def patch_locale(locale):
    """The cell's encoding is UTF-8, whatever C code finds without the tables of locales."""
    locale.getencoding = broker.like(lambda: "utf-8", locale.getencoding)


def patch_mmap(module):
    """Says why what the broker has open is not mapped."""
    native = module.mmap

    class mmap(native):  # noqa: N801
        def __new__(cls, fileno, *args, **kwargs):
            if (handle := descriptors.of(fileno)) is not None:
                raise broker.refusal(handle.no_descriptor())
            return super().__new__(cls, fileno, *args, **kwargs)

    module.mmap = broker.like(mmap, native)


def patch_sqlite3(dbapi2):
    """SQLite opens files itself, in C, past the broker. A file that the cell may read is read into
    memory and answers queries from there; writing to it fails, as to one that is only for reading.
    """
    native = dbapi2.connect

    def connect(database, *args, **kwargs):
        try:
            return native(database, *args, **kwargs)
        except (dbapi2.OperationalError, PermissionError) as error:
            path = _database_path(database, kwargs.get("uri", False))
            # A sub-interpreter may not even try: it has no files of its own.
            refused = isinstance(error, PermissionError)
            if path is None or not (refused or "unable to open" in str(error)):
                raise
        try:
            content = _database(path)
        except OSError as error:
            why = error.strerror or error
            if isinstance(error, FileNotFoundError):
                why = "there is no such file, and a cell cannot make one for SQLite"
            raise dbapi2.OperationalError(
                f"unable to open database file {os.fspath(database)!r}: {why}"
            ) from error
        connection = native(":memory:", *args, **{**kwargs, "uri": False})
        if content:
            connection.deserialize(content)
        connection.execute("PRAGMA query_only = ON").close()
        return connection

    dbapi2.connect = broker.like(connect, native)


def patch_dbm(dbm):
    """Makes new ones in plain files: C code would open the others."""
    dbm._names.sort(key=lambda name: name != "dbm.dumb")


def patch_dbm_dumb(dumb):
    """The mode of its files is the host's to set."""
    dumb._Database._chmod = lambda self, file: None


def _database_path(database, uri):
    path = os.fsdecode(database)
    if uri and path.startswith("file:"):
        from urllib.parse import unquote, urlsplit

        path = unquote(urlsplit(path).path)
    return None if path in ("", ":memory:") else path


def _database(path):
    with open(path, "rb") as file:
        content = bytearray(file.read())
    if content[18:20] == b"\2\2":  # changes are written to a file beside it first
        try:
            beside = os.stat(f"{path}-wal").st_size
        except FileNotFoundError:
            beside = 0
        if beside:
            raise OSError(16, "its latest changes are in the log beside it: close it elsewhere")
        content[18:20] = b"\1\1"  # memory has no room beside it
    return bytes(content)


class Handle:
    """A file that the broker has open, and a position in it that descriptors may share."""

    def __init__(self, number, kind, name, size):
        self.number = number
        self.name = name
        self.append = "a" in kind
        self.readable = "+" in kind or "r" in kind
        self.writable = "+" in kind or "r" not in kind
        self.references = 1
        self.position = size if self.append else 0

    def no_descriptor(self):
        """Why C code cannot use it, and what can."""
        return _NO_WRITING if self.writable else _NO_READING

    def _ask(self, action, **payload):
        return broker.ask("filesystem", action, {"handle": self.number, **payload}, self.name)

    def _chunk(self):
        return max(512, min(CHUNK_BYTES, broker.message_bytes // 2))

    def read(self, length, offset=None):
        """Up to `length` bytes, at the position or at an offset that leaves it alone."""
        start = self.position if offset is None else offset
        data = self._ask("read", offset=start, length=min(length, self._chunk()))
        if offset is None:
            self.position = start + len(data)
        return data

    def write(self, data, offset=None):
        """Writes some of the bytes, at the position or at an offset; how many."""
        # Not copied before it is sent: what is large goes past its pickle.
        with memoryview(data) as view, view.cast("B") as octets, octets[: self._chunk()] as part:
            sent = PickleBuffer(part)
            try:
                if self.append:
                    self.position = self._ask("append", data=sent)
                    return len(part)
                start = self.position if offset is None else offset
                count = self._ask("write", offset=start, data=sent)
            finally:
                sent.release()  # an error's traceback would hold on to it
        if offset is None:
            self.position = start + count
        return count

    def seek(self, offset, whence=0):
        """Moves the position; what it is then."""
        if whence not in (0, 1, 2):
            raise ValueError(f"invalid whence value: {whence}")
        start = (0, self.position, None)[whence]
        position = (self.size() if start is None else start) + offset
        if position < 0:
            raise OSError(22, "Invalid argument")
        self.position = position
        return position

    def stat(self):
        """What the broker tells about the file."""
        return self._ask("stat")

    def size(self):
        """Its length in bytes."""
        return self.stat()["size"]

    def truncate(self, size):
        """Sets its length."""
        self._ask("truncate", size=size)

    def close(self):
        """Gives up one reference; the last one closes the file."""
        self.references -= 1
        if self.references == 0:
            self._ask("close")


class RawFile(io.RawIOBase):
    """The raw layer of a file that the broker has open."""

    def __init__(self, handle, name, descriptor=None, closefd=True):
        self._handle = handle
        self._descriptor = descriptor
        self._closefd = closefd
        self.name = name
        kind = "a" if handle.append else "r" if handle.readable else "w"
        self.mode = f"{kind}b+" if handle.readable and handle.writable else f"{kind}b"

    def _open(self, able=True, what=""):
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if not able:
            raise io.UnsupportedOperation(f"File not open for {what}")
        return self._handle

    def __repr__(self):
        return f"<{type(self).__name__} name={self.name!r} mode={self.mode!r}>"

    def readable(self):
        return self._open().readable

    def writable(self):
        return self._open().writable

    def seekable(self):
        return self._open() is not None

    def fileno(self):
        handle = self._open()
        caller = sys._getframe(1)
        if caller.f_globals.get("__name__", "").startswith("numpy."):
            # Its C code would use the number itself. Told that there is none, it comes by `write`.
            raise io.UnsupportedOperation(handle.no_descriptor())
        names = caller.f_code.co_names
        if ("tofile" in names or "fromfile" in names) and "fileno" not in names:
            raise io.UnsupportedOperation(handle.no_descriptor())
        if self._descriptor is None:
            self._descriptor = descriptors.stand_for(handle)
        return self._descriptor

    def readinto(self, buffer):
        handle = self._open(self._handle.readable, "reading")
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = handle.read(len(octets))
            octets[: len(data)] = data
        return len(data)

    def readall(self):
        handle = self._open(self._handle.readable, "reading")
        parts = []
        while data := handle.read(CHUNK_BYTES):
            parts.append(data)
        return b"".join(parts)

    def write(self, data):
        return self._open(self._handle.writable, "writing").write(data)

    def seek(self, offset, whence=0):
        return self._open().seek(offset, whence)

    def tell(self):
        return self._open().position

    def truncate(self, size=None):
        handle = self._open(self._handle.writable, "writing")
        size = handle.position if size is None else size
        handle.truncate(size)
        return size

    def close(self):
        if self.closed:
            return
        try:
            super().close()
        finally:
            if self._descriptor is None:
                self._handle.close()
            elif self._closefd:
                os.close(self._descriptor)


def open(
    file,
    mode="r",
    buffering=-1,
    encoding=None,
    errors=None,
    newline=None,
    closefd=True,
    opener=None,
):
    if encoding == "locale" and "b" not in mode:
        encoding = "utf-8"
    rest = (buffering, encoding, errors, newline)
    if isinstance(file, int) and not isinstance(file, bool):
        if (handle := descriptors.of(file)) is None:
            return native_open(file, mode, *rest, closefd, opener)
        return _stack(RawFile(handle, file, file, closefd), mode, *rest)
    file = os.fspath(file)
    if opener is not None:
        descriptor = opener(file, _flags(mode))
        if (handle := descriptors.of(descriptor)) is None:
            return native_open(file, mode, *rest, closefd, lambda path, flags: descriptor)
        return _stack(RawFile(handle, file, descriptor), mode, *rest)
    try:
        return native_open(file, mode, *rest, closefd)
    except OSError as error:
        path = broker.path_elsewhere(file, error)
        if path is None:
            raise
    return open_path(path, mode, *rest, name=file)


class _FileKind(type):
    """What the native class made is an instance of its stand-in, too."""

    def __instancecheck__(cls, instance):
        return type.__instancecheck__(NativeFileIO if cls is FileIO else cls, instance)

    def __subclasscheck__(cls, subclass):
        return type.__subclasscheck__(NativeFileIO if cls is FileIO else cls, subclass)


class FileIO(NativeFileIO, metaclass=_FileKind):
    def __new__(cls, file, mode="r", closefd=True, opener=None):
        if cls is not FileIO:
            return super().__new__(cls, file, mode, closefd, opener)
        mode = mode if "b" in mode else f"{mode}b"
        return open(file, mode, 0, closefd=closefd, opener=opener)

    def __init__(self, file, mode="r", closefd=True, opener=None):
        # Only for the guest's own kinds of it: the others are what `open` made.
        try:
            super().__init__(file, mode, closefd, opener)
            return
        except OSError as error:
            path = broker.path_elsewhere(file, error)
            if path is None or opener is not None:
                raise
        if set(mode) - set("rb"):
            raise broker.refusal("a subclass of FileIO outside the cell can only read: use open()")
        handle, descriptor = ask_open(path, "r", file)
        if descriptor is None:
            handle.close()
            raise broker.refusal("this cell is handed no files as descriptors: use open()")
        super().__init__(descriptor, mode)
        self.name = file


def open_path(path, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *, name=None):
    """A file object over a file that is asked for, whether or not the cell has one of its name."""
    name = path if name is None else os.fspath(name)
    opened, descriptor = ask_open(path, _kind(mode), name)
    if descriptor is None:
        raw = RawFile(opened, name)
    else:
        raw = NativeFileIO(descriptor, "r")
        raw.name = name
    return _stack(raw, mode, buffering, encoding, errors, newline)


def ask_open(path, kind, name):
    """Asks for an open file: `(handle, None)`, or `(None, descriptor)` if it came as one."""
    payload = {"path": path, "mode": kind}
    value, descriptor = broker.ask_for_descriptor("filesystem", "open", payload, name)
    if descriptor is not None:
        return None, descriptor
    return Handle(value["handle"], kind, name, value["size"]), None


def _kind(mode):
    kinds = [letter for letter in mode if letter in "rwax"]
    if len(kinds) != 1 or set(mode) - set("rwaxbt+"):
        raise ValueError(f"invalid mode: {mode!r}")
    return kinds[0] + "+" * ("+" in mode)


def _flags(mode):
    kind = _kind(mode)
    ways = {"r": 0, "w": os.O_CREAT | os.O_TRUNC, "x": os.O_CREAT | os.O_EXCL}
    access = os.O_RDWR if "+" in kind else os.O_RDONLY if kind == "r" else os.O_WRONLY
    return access | os.O_CLOEXEC | ways.get(kind[0], os.O_CREAT | os.O_APPEND)


def _stack(raw, mode, buffering, encoding, errors, newline):
    """The layers over a raw file, as the native `open` makes them."""
    text = "b" not in mode
    line_buffering = text and buffering == 1
    try:
        if buffering == 0:
            if text:
                raise ValueError("can't have unbuffered text I/O")
            return raw
        size = buffering
        if buffering in (-1, 1):
            size = BUFFER_BYTES if isinstance(raw, RawFile) else 2 * io.DEFAULT_BUFFER_SIZE
        if "+" in mode:
            buffer = io.BufferedRandom(raw, size)
        elif "r" in mode:
            buffer = io.BufferedReader(raw, size)
        else:
            buffer = io.BufferedWriter(raw, size)
        if not text:
            return buffer
        file = io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering)
        file.mode = mode
    except BaseException:
        raw.close()
        raise
    return file
