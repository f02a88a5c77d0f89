"""What runs inside a cell: the guest's half of the seven operations.

Every backend loads this same source. It is compiled into the module `_guest`, which hands it
`native`: the channel, and the few calls that need one. Nothing here is a wall. The jail holds
whatever this interpreter does; this file makes the contract pleasant to use and its refusals
clear.
"""

import _pickle
import _thread
import builtins
import codecs
import errno
import gc
import io
import linecache
import mmap
import os
import sys
import traceback
import types

PROTOCOL = 5
# Below this many bytes a buffer travels inside its pickle: a shared buffer costs two system calls
# on each side and a page of memory.
BUFFER_BYTES_MIN = 16 * 1024
# Frames have at most 256 parts, of which a message's own strings take up to four.
BUFFERS_MAX = 240
# The channel's own caps, in bytes: see NAME_BYTES_MAX and TEXT_BYTES_MAX of the contract.
NAME_BYTES_MAX = 1024
TEXT_BYTES_MAX = 30 * 1024

native = None  # set by the module that compiles this source
post = None  # likewise: `post(message)`, written in Rust
wiring = None  # likewise: the standard library's stand-ins, and their parts as marshalled code
wiring_codes = None


class CapabilityDenied(PermissionError):
    """A `request` that the policy does not allow."""

    def __init__(self, why, filename=None):
        super().__init__(errno.EACCES, why, filename)

    def __str__(self):
        return self.strerror


class ImportDenied(ImportError):
    """An import that the policy does not allow."""


CapabilityDenied.__module__ = ImportDenied.__module__ = "pyisolate"


# --- what crosses ---------------------------------------------------------------------------

_SENT_TYPES = {
    "builtins": {"complex", "range", "slice", "bytearray", "ellipsis", "NotImplementedType"},
    "datetime": {"date", "time", "datetime", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "uuid": {"UUID", "SafeUUID"},
    "pathlib": {"PurePosixPath", "PureWindowsPath"},
    "pathlib._local": {"PurePosixPath", "PureWindowsPath"},
    "collections": {"Counter", "OrderedDict", "deque", "defaultdict"},
    "_pickle": {"PickleBuffer"},
    "pickle": {"PickleBuffer"},
}
# What the pickles of those types name besides the types themselves.
_SENT_GLOBALS = {
    ("_codecs", "encode"),
    ("builtins", "getattr"),
    ("copyreg", "__newobj__"),
    ("copyreg", "__newobj_ex__"),
    ("copyreg", "_reconstructor"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
}
_trusted_names = frozenset()


def _is_sent(module, name):
    return (
        name in _SENT_TYPES.get(module, ())
        or (module, name) in _SENT_GLOBALS
        or (module, name) in _trusted_names
        or module.partition(".")[0] == "numpy"
    )


class _Pickler(_pickle.Pickler):
    """Refuses early what the host would refuse, so that the error points at the guest's line."""

    def __init__(self):
        self.file = io.BytesIO()
        self.buffers = []
        super().__init__(self.file, PROTOCOL, buffer_callback=self._keep)

    def _keep(self, buffer):
        view = buffer.raw()
        if view.nbytes < BUFFER_BYTES_MIN or len(self.buffers) >= BUFFERS_MAX:
            return True
        self.buffers.append(view)
        return False

    def reducer_override(self, obj):
        named = (type, types.FunctionType, types.BuiltinFunctionType)
        kind = obj if isinstance(obj, named) else type(obj)
        module = getattr(kind, "__module__", None) or "builtins"
        name = getattr(kind, "__qualname__", "?")
        if not _is_sent(module, name):
            what = f"{module}.{name}"
            raise TypeError(
                f"cannot send {what!r} out of the cell: send plain data, or have the host "
                f"register the class with trusted_types="
            )
        return NotImplemented

    def run(self, obj):
        self.dump(obj)
        data = self.file.getvalue()
        buffers = self.buffers
        self.file.seek(0)
        self.file.truncate()
        self.clear_memo()
        self.buffers = []
        return data, buffers


_picklers = []


def dumps(obj):
    """Pickles `obj` into its bytes and its out-of-band buffers."""
    try:
        pickler = _picklers.pop()
    except IndexError:  # all of them are at work, in other threads or further up
        pickler = _Pickler()
    result = pickler.run(obj)  # a pickler that failed is dropped
    _picklers.append(pickler)
    return result


def loads(payload):
    """Rebuilds an object that the host sent: the host is trusted, its pickles are plain ones."""
    store, data, places = payload
    if store is None:
        return _pickle.loads(data, buffers=places)
    fd, size = store
    try:
        # Private, so that the guest may write into the arrays that it got.
        access = mmap.PROT_READ | mmap.PROT_WRITE
        memory = memoryview(mmap.mmap(fd, size, mmap.MAP_PRIVATE, access, trackfd=False))
    finally:
        os.close(fd)
    parts = [
        memory[part[0] : part[0] + part[1]] if type(part) is tuple else part
        for part in (data, *places)
    ]
    return _pickle.loads(parts[0], buffers=parts[1:])


def _text(value, limit):
    """`str(value)` as UTF-8 of at most `limit` bytes, whatever the guest's object does."""
    try:
        text = str.__str__(value if isinstance(value, str) else str(value))
    except MemoryError:
        raise
    except BaseException:
        text = "<its str() raised>"
    data = text[: limit + 1].encode("utf-8", "backslashreplace")
    if len(data) > limit:
        data = data[: limit - 16].decode("utf-8", "ignore").encode() + b" ... [cut]"
    return data.decode()


# --- the guest's five operations --------------------------------------------------------------


def recv(timeout=None):
    """Take the next message that the host posted; TimeoutError after `timeout` seconds."""
    return loads(native.take_post(-1.0 if timeout is None else max(0.0, float(timeout))))


def log(level, message, **fields):
    """Send a structured log event to the host."""
    native.send_log(_name("level", level), _text(message, TEXT_BYTES_MAX), *dumps(fields))


def metric(name, value, tags=None):
    """Send a numeric metric event to the host."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"a metric's value is an int or a float, not {type(value).__name__}")
    if tags is not None and type(tags) is not dict:
        tags = dict(tags)
    native.send_metric(_name("name", name), *dumps((value, tags)))


def request(capability, action, payload=None):
    """Ask the broker for a privileged action; PermissionError if it is not granted."""
    value, descriptor = request_with_descriptor(capability, action, payload)
    if descriptor is not None:
        value["descriptor"] = descriptor
    return value


def request_with_descriptor(capability, action, payload=None):
    """What a request was answered with, and the descriptor that came with it, if one did."""
    outcome, value = native.request(
        _name("capability", capability), _name("action", action), *dumps(payload)
    )
    if outcome == "granted":
        return loads(value), None
    if outcome == "handed":
        value, descriptor = value
        return loads(value), descriptor
    if outcome == "denied":
        raise CapabilityDenied(value)
    kind, message = value
    error = getattr(builtins, kind, None)
    if not (isinstance(error, type) and issubclass(error, Exception)):
        error = RuntimeError
    if issubclass(error, OSError) and message.startswith("[Errno "):
        number, _, text = message[len("[Errno ") :].partition("] ")
        if number.removeprefix("-").isdecimal():
            raise error(int(number), text)
    raise error(message)


def _name(what, value):
    if type(value) is not str:
        raise TypeError(f"{what} is a str, not {type(value).__name__}")
    if not 0 < len(value.encode("utf-8", "surrogatepass")) <= NAME_BYTES_MAX:
        raise ValueError(f"{what} is 1 to {NAME_BYTES_MAX} bytes long")
    return value


class _Bytes(io.RawIOBase):
    """What `sys.stdout.buffer` is: bytes that are read as UTF-8."""

    def __init__(self, output):
        self._output = output
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode

    def writable(self):
        return True

    def write(self, data):
        data = bytes(data)
        self._output.write(self._decode(data))
        return len(data)

    def flush(self):
        self._output.flush()


class _Output(io.TextIOBase):
    """stdout or stderr: each line is a log event."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, stream, level):
        self._level = level
        self._fields, _ = dumps({"stream": stream})
        self._held = ""
        self._lock = _thread.RLock()
        self.buffer = _Bytes(self)

    def writable(self):
        return True

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            whole, line_end, rest = (self._held + text).rpartition("\n")
            self._held = rest
            if line_end:
                self._send(whole)
            if len(self._held) > TEXT_BYTES_MAX:
                self.flush()
        return len(text)

    def flush(self):
        with self._lock:
            held, self._held = self._held, ""
            if held:
                self._send(held)

    def _send(self, text):
        # A character is at most four bytes, or ten where it has to be escaped.
        for line in text.split("\n"):
            while len(line) * 10 > TEXT_BYTES_MAX and len(
                line.encode("utf-8", "backslashreplace")
            ) > TEXT_BYTES_MAX:
                self._emit(line[: TEXT_BYTES_MAX // 10])
                line = line[TEXT_BYTES_MAX // 10 :]
            self._emit(line)

    def _emit(self, line):
        native.send_log(
            self._level, line.encode("utf-8", "backslashreplace").decode(), self._fields, []
        )


# --- the namespace that guest code runs in ------------------------------------------------------

_imports = frozenset()
_imports_denied = frozenset()
_has_policy = False


def _import_listed(name, names):
    while name:
        if name in names:
            return True
        name = name.rpartition(".")[0]
    return False


def _import_allowed(name):
    if _imports is None:  # a template's set-up: the host's own code
        return True
    return _import_listed(name, _imports) and not _import_listed(name, _imports_denied)


def _check_import(what, name, module):
    """Asks the host where the list says no: the policy may have changed, and a refusal is kept."""
    try:
        request("import", "import", {"module": module})
    except CapabilityDenied as error:
        refusal = str(error)
    else:
        return
    first = name.partition(".")[0]
    if not _has_policy:
        refusal = (
            f"{what} of {name!r} is not granted: add it with allowed_imports=[{first!r}]"
        )
    raise ImportDenied(refusal, name=first)


def _guest_import(name, globals=None, locals=None, fromlist=(), level=0):
    if type(fromlist) is list and globals is locals is not None:
        # C code imports like this, with the globals of whoever called it: `strptime` its parser, the
        # pickler a class. What an allowed module imports is its own business.
        return builtins.__import__(name, globals, locals, fromlist, level)
    if level:
        raise ImportDenied("guest code is no package: relative imports have nothing to refer to")
    if not _import_allowed(name):
        below = [f"{name}.{item}" for item in fromlist or ()]
        if not (below and all(map(_import_allowed, below))):
            _check_import("import", name, name)
    module = builtins.__import__(name, globals, locals, fromlist, level)
    return wiring.guest_module(name, module)


def _make_main():
    """The cell's persistent namespace: a `__main__` whose builtins are the guest's."""
    guest_builtins = dict(vars(builtins))
    guest_builtins["__import__"] = _guest_import
    for operation in (recv, log, metric, request):
        operation.__module__ = "builtins"
    for operation in (post, recv, log, metric, request):
        guest_builtins[operation.__name__] = operation
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = guest_builtins
    sys.modules["__main__"] = main
    return main


def _resolve(target):
    """The object that a dotted name stands for: in `__main__`, or in a module that is allowed."""
    first, *path = target.split(".")
    if first == "__main__":
        found = main
    elif first in main.__dict__ and not first.startswith("__"):
        found = main.__dict__[first]
    else:
        module = first
        while path and not _import_allowed(module):
            module = f"{module}.{path.pop(0)}"
        if not _import_allowed(module):
            _check_import("call", target, module)
        found = builtins.__import__(module, fromlist=("*",))
        found = wiring.guest_module(module, found)
    for attribute in path:
        try:
            found = getattr(found, attribute)
        except AttributeError:
            if not isinstance(found, types.ModuleType) or found is main:
                raise
            try:
                found = builtins.__import__(f"{found.__name__}.{attribute}", fromlist=("*",))
            except ModuleNotFoundError:
                raise AttributeError(
                    f"module {found.__name__!r} has no attribute {attribute!r}"
                ) from None
    return found


# --- the loop ---------------------------------------------------------------------------------

# How many source texts are kept for tracebacks, and how long each may be, in characters.
SOURCES_KEPT = 32
SOURCE_KEPT_CHARS = 256 * 1024

# Memory that is given back when there is no more: enough to say so.
_reserve = bytearray(1 << 20)

_sources = 0
_capabilities = ()
main = None


def _run_source(source):
    global _sources
    _sources += 1
    file = f"<cell {_sources}>"
    if len(source) <= SOURCE_KEPT_CHARS:
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
        linecache.cache.pop(f"<cell {_sources - SOURCES_KEPT}>", None)
    exec(compile(source, file, "exec", dont_inherit=True), main.__dict__)


def _type_name(kind):
    """The name of an exception's type, with its module unless that is `builtins`."""
    try:
        names = (kind.__module__, kind.__qualname__)
        module, name = (_text(text, NAME_BYTES_MAX // 2) for text in names)
    except MemoryError:
        raise
    except BaseException:
        return "Exception"
    return name if module == "builtins" else f"{module}.{name}"


def _failure(error):
    """The exception's type, message and traceback, each within its cap, whatever it is made of."""
    try:
        # The slot itself: the guest's class may have hidden it.
        trace = BaseException.__traceback__.__get__(error)
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
            trace = trace.tb_next
        lines = traceback.format_exception(type(error), error, trace)
        text = "".join(line for line in lines if f'File "{_OURS}' not in line)
    except MemoryError:
        raise
    except BaseException:
        text = "<no traceback: formatting it raised>\n"
    if len(text) > TEXT_BYTES_MAX // 2:
        head, tail = text[: TEXT_BYTES_MAX // 8], text[-TEXT_BYTES_MAX // 8 :]
        text = f"{head}\n  [... {len(text)} characters in all ...]\n{tail}"
    return (
        _type_name(type(error)),
        _text(error, TEXT_BYTES_MAX // 2),
        _text(text, TEXT_BYTES_MAX),
    )


# What the file names of this source and of the stand-ins begin with: their frames are not the guest's.
_OURS = "<pyisolate "


def _flush():
    """Sends what the operation wrote and nothing has taken yet."""
    wiring.settle()
    for stream in (sys.stdout, sys.stderr):
        try:
            if type(stream) is not _Output or stream._held:
                stream.flush()
        except BaseException:
            pass  # the guest put its own object there


def _do(command):
    """Runs one `exec` or `call` and reports how it ended."""
    operation, number, *rest = command
    try:
        if operation == "exec":
            _run_source(rest[0])
            _flush()
            native.send_done(number)
        else:
            target, arguments = rest
            args, kwargs = loads(arguments)
            result = _resolve(target)(*args, **kwargs)
            _flush()
            native.send_result(number, result)
    except MemoryError:
        # There may be none left to say more with than this.
        _reserve.clear()
        native.send_failed(number, "MemoryError", "", "")
    except BaseException as error:
        _flush()
        native.send_failed(number, *_failure(error))


def configure(settings):
    """Takes the cell's settings: the last thing that happens before guest code may run.

    False if they are only those of a cell that was restored, and nobody's yet: then it renews its
    randomness, and goes where the caller's settings will go.
    """
    global _imports, _imports_denied, _has_policy, _trusted_names
    settings = _pickle.loads(settings)
    _imports = frozenset(settings["imports"]) if settings["limited"] else None
    _imports_denied = frozenset(settings["imports_denied"])
    _has_policy = settings["policy"]
    _trusted_names = frozenset(map(tuple, settings["trusted"]))
    native.limit(
        settings["limited"],
        settings["message_bytes"],
        settings["mem_bytes"],
        settings["open_files"],
        settings["threads"],
        settings["cpu_seconds"],
    )
    wiring.configure(settings)
    _show_capabilities(wiring.names())
    if settings["restored"]:
        after_restore()
    return not settings["restored"]


def _show_capabilities(objects):
    """Puts the capability objects among the guest's builtins, instead of those of a template."""
    global _capabilities
    guest_builtins = main.__dict__["__builtins__"]
    for name in _capabilities:
        guest_builtins.pop(name, None)
    guest_builtins.update(objects)
    _capabilities = tuple(objects)


def serve():
    """Runs the host's operations one after another until it says stop."""
    _rehearse()
    while (command := native.take_command()) is not None:
        if command[0] == "configure":
            if configure(command[1]):
                native.send_done(0)  # CONFIGURED
        else:
            _do(command)
    _flush()


def prepare(packages):
    """Makes this interpreter ready to be forked: called once, in the zygote."""
    global main
    sys.path.extend(packages)
    sys.argv = [""]
    sys.orig_argv = []
    sys.stdin = io.StringIO()
    sys.stdout = _Output("stdout", "info")
    sys.stderr = _Output("stderr", "error")
    sys.__stdin__ = sys.__stdout__ = sys.__stderr__ = None
    wiring.install(dict(wiring_codes), request, request_with_descriptor)
    wiring.compile_all()
    main = _make_main()
    # What most guests import, once for all cells. It is there for those alone whose policy says so.
    for name in ("datetime", "json", "math"):
        builtins.__import__(name)
    _picklers.append(_Pickler())
    _failure(ValueError("warm"))
    _rehearse()


def prepare_in_host_tree(packages):
    """The same where the host refuses a root: its names are there to be seen."""
    prepare(packages)
    wiring.overlook_the_host(sys.path)


def prepare_interpreter(packages):
    """Makes a sub-interpreter of the host's process ready: called once, in each."""
    sys.path[:] = [folder for folder in sys.path if folder.startswith(f"{sys.base_prefix}/")]
    sys.path_importer_cache.clear()
    prepare([folder for folder in packages if folder not in sys.path])
    wiring.isolate()


def _rehearse():
    """Goes where a cell's first operation will go, without a channel.

    In the zygote that fills what CPython fills on first use. In a new cell it makes the pages that
    the operation will write to the cell's own while nobody is waiting for it.
    """
    settings = _pickle.dumps({"imports": ["math"], "trusted": [("a", "b")]}, PROTOCOL)
    frozenset(_pickle.loads(settings)["imports"])
    args, kwargs = loads((None, _pickle.dumps(((1,), {"base": 2}), PROTOCOL), []))
    namespace = {"__builtins__": main.__dict__["__builtins__"]}
    exec(compile("def warm(*args, **kwargs): return str(args)", "<warm>", "exec"), namespace)
    dumps([namespace["warm"](*args, **kwargs), 1.5, None])
    _flush()


def freeze():
    """Keeps the collector's hands off what cells will share."""
    gc.collect()
    gc.freeze()


def after_fork():
    """Gives a new cell randomness of its own. CPython reseeds `random` by itself."""
    wiring.renew_randomness()


def after_restore():
    """The same for one that goes on from a snapshot, as others do, without a fork between."""
    after_fork()
    if (random := sys.modules.get("random")) is not None:
        random.seed()
    _rehearse()
    _resolve("math.floor")(1.5)
