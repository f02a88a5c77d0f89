"""Puts the stand-ins where guest code and its libraries look for them.

`open` and `os` are there in every interpreter and are seen to at once. Other modules are seen to
right after they were loaded, if they ever are: a cell that opens no socket pays for none.

Called by the runtime: `install` in the zygote, before the guest's builtins are copied; `configure`
with each cell's settings; `guest_module` for what guest code imports; `names` for its builtins.
"""

import _thread
import linecache
import marshal
import os
import sys
import types

# Compiled when a module that needs it is loaded. The rest is compiled at once.
_LATER = ("http", "processes", "sockets", "streams")

# What is done to a module after it was loaded: part and function.
_PATCHES = {
    "dateutil.tz.tz": ("folders", "patch_dateutil"),
    "dbm": ("files", "patch_dbm"),
    "dbm.dumb": ("files", "patch_dbm_dumb"),
    "locale": ("files", "patch_locale"),
    "mimetypes": ("folders", "patch_mimetypes"),
    "mmap": ("files", "patch_mmap"),
    "multiprocessing.synchronize": ("processes", "patch_synchronize"),
    "pandas.compat._cpu": ("folders", "patch_pandas_cpu"),
    "platform": ("processes", "patch_platform"),
    "random": ("clocks", "patch_random"),
    "shutil": ("folders", "patch_shutil"),
    "socket": ("sockets", "patch"),
    "sqlite3.dbapi2": ("files", "patch_sqlite3"),
    "ssl": ("http", "patch_ssl"),
    "subprocess": ("processes", "patch"),
    "tempfile": ("folders", "patch_tempfile"),
    "urllib.request": ("sockets", "patch_urllib_request"),
    "zoneinfo._tzpath": ("folders", "patch_tzpath"),
}

_marshalled = {}
_codes = {}
_parts = {}
_loading = _thread.RLock()  # two threads may import at once
_broker = None


def install(marshalled, request, request_with_descriptor):
    """Wires this interpreter's standard library. `marshalled` has each part's code."""
    global _broker
    _marshalled.update(marshalled)
    _broker = _part("broker").Broker(request, request_with_descriptor)
    files, descriptors, folders = map(_part, ("files", "descriptors", "folders"))
    files.install(_broker, descriptors)
    descriptors.install(_broker, files, folders)
    folders.install(_broker, descriptors)
    _part("objects").install(_broker, files, folders)
    _part("clocks").install(_broker)
    os.system = _broker.like(_system, os.system)
    # A traceback looks for source text in places that the guest has no business in.
    linecache.updatecache = _broker.quietly(linecache.updatecache)
    linecache.checkcache = _broker.quietly(linecache.checkcache)
    for name in _PATCHES:
        if (module := sys.modules.get(name)) is not None:
            _patch(name, module)
    sys.meta_path.insert(0, _Finder)


def _system(command):
    raise _broker.refusal("a cell has no shell: run a granted program with subprocess.run([...])")


def compile_all():
    """Compiles what would otherwise be compiled in the first cell that needs it."""
    for name in _marshalled:
        _code(name)


def configure(settings):
    """Takes a cell's settings, after those of the template that it came from, if it did."""
    _broker.configure(settings)
    _part("clocks").configure()


def settle():
    """Waits a little for what the guest's connections were given. Called after each operation."""
    if (streams := _parts.get("streams")) is not None:
        streams.settle()


def isolate():
    """Sees to what a sub-interpreter shares with the host's process."""
    _part("interpreter").install(_broker, _part("folders"))


def overlook_the_host(folders):
    """Sees to what a cell without a root of its own shares with the host. `folders` are its own."""
    _broker.own(folders)
    _part("folders").overlook_the_host()


def names():
    """The capability objects that the guest's builtins get, by name."""
    return _part("objects").granted()


def guest_module(name, module):
    """What guest code gets for an import of `name`."""
    return _part("clocks").guest_module(name, module)


def _code(name):
    if name not in _codes:
        _codes[name] = marshal.loads(_marshalled[name])
    return _codes[name]


def _part(name):
    with _loading:
        return _parts.get(name) or _loaded(name)


def _loaded(name):
    part = types.ModuleType(f"_pyisolate_{name}")
    exec(_code(name), part.__dict__)
    if name == "sockets":
        part.install(_broker, _part("http"), lambda: _part("streams"))
    elif name in _LATER:
        part.install(_broker)
    _parts[name] = part
    return part


def _patch(name, module):
    part, function = _PATCHES[name]
    getattr(_part(part), function)(module)


class _Loader:
    """A module's own loader, and a patch after it."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _patch(module.__spec__.name, module)


class _Finder:
    """First in `sys.meta_path`. It stays there, since a module may be loaded a second time."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in _PATCHES:
            return None
        for finder in sys.meta_path:
            if finder is not _Finder and (found := finder.find_spec(name, path, target)):
                found.loader = _Loader(found.loader)
                return found
        return None


def renew_randomness():
    """Renews what a new cell would share with others of the same zygote or snapshot: OpenSSL tells
    processes apart by their id, and every cell is process 1 of its own namespace.
    """
    modules = sys.modules
    if (ssl := modules.get("_ssl")) is not None:
        ssl.RAND_add(os.urandom(48), 48.0)
    if (numpy_random := modules.get("numpy.random")) is not None:
        numpy_random.seed()
    if (uuid := modules.get("uuid")) is not None:
        uuid._node = uuid._last_timestamp = None
        _renew_uuid1(uuid)
    if (tempfile := modules.get("tempfile")) is not None:
        tempfile._name_sequence = None


def _renew_uuid1(uuid):
    """Gives `uuid1` a sequence and a node of its own: those that libuuid made up it keeps for good."""
    native = getattr(uuid._generate_time_safe, "native", uuid._generate_time_safe)
    if native is None:
        return
    own = bytearray(os.urandom(8))
    own[0] = own[0] & 0x3F | 0x80  # the variant
    own[2] |= 1  # no network card's

    def generate():
        made, safe = native()
        return made[:8] + own, safe

    generate.native = native
    uuid._generate_time_safe = generate
