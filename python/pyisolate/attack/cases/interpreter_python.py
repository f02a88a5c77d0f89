"""Attacks by Python's own means: forbidden modules, the host's objects, ways to outlive the end."""

from pyisolate.attack.cases.interpreter import Own

_FOLDER = """
import sys
folder = next(folder for folder in sys.path if folder.endswith("lib-dynload"))
def file_of(name):
    return next(folder + "/" + file for file in os.listdir(folder) if file.startswith(name + "."))
"""
_LOADER = "from importlib.machinery import ExtensionFileLoader, ModuleSpec"

# How a module is asked for, where `{0}` is its name.
_SPELLINGS = {
    "import": "import {0}",
    "__import__": "__import__('{0}')",
    "the interpreter's __import__": "import builtins; builtins.__import__('{0}')",
    "importlib": "import importlib; importlib.import_module('{0}')",
    "a second time": "import sys; sys.modules.pop('{0}', None); import {0}",
    "a loaded name": "import sys; sys.modules.pop('math', None); sys.modules['math'] = None\n"
    "import {0}",
    "its spec": "import importlib.util as u; u.module_from_spec(u.find_spec('{0}'))",
    "_imp.create_dynamic": "import _imp, types\n"
    "_imp.create_dynamic(types.SimpleNamespace(name='{0}', origin=file_of('{0}')))",
    "a loader": f"{_LOADER}\nfile = file_of('{{0}}')\n"
    "loader = ExtensionFileLoader('{0}', file)\n"
    "loader.create_module(ModuleSpec('{0}', loader, origin=file))",
    "the path by ..": "import _imp, types; folder += '/../lib-dynload'\n"
    "_imp.create_dynamic(types.SimpleNamespace(name='{0}', origin=file_of('{0}')))",
    "the path by //": "import _imp, types; folder += '/'\n"
    "_imp.create_dynamic(types.SimpleNamespace(name='{0}', origin=file_of('{0}')))",
    "below a package": "import _imp, types\n"
    "_imp.create_dynamic(types.SimpleNamespace(name='math.{0}', origin=file_of('{0}')))",
}
_BY_FILE = "_interpreters"
_NAMES = ("_interpchannels", "_interpqueues", "_ctypes", "syslog", "readline")
MODULES = [
    Own(
        f"module: {_BY_FILE} by {how}",
        f"{_FOLDER}\n{spelling.format(_BY_FILE)}",
        "ImportError StopIteration ENOENT",
    )
    for how, spelling in _SPELLINGS.items()
] + [
    Own(f"module: {name} by {how}", f"{_FOLDER}\n{_SPELLINGS[how].format(name)}", "ImportError")
    for name in _NAMES
    for how in ("import", "_imp.create_dynamic")
] + [
    Own("module: faulthandler", "import faulthandler; faulthandler.enable()", "ImportError"),
    Own("module: tracemalloc", "import tracemalloc; tracemalloc.start()", "ImportError", "changed"),
    Own(
        "module: tracemalloc, past the guard",
        """
        import _imp, importlib.machinery
        _imp.create_builtin(importlib.machinery.ModuleSpec("_tracemalloc", None)).start()
        """,
        "ImportError",
        "changed",
    ),
    Own("module: the test module of C", "import _testcapi", "ImportError"),
    Own("module: concurrent interpreters", "import _interpreters as i; i.create()", "ImportError"),
]  # fmt: skip

_WALK = """
seen, waiting = set(), [{roots}]
for value in waiting:  # which grows meanwhile
    if id(value) in seen or isinstance(value, (str, bytes, int, float, type(None))):
        continue
    if len(seen) > 50_000:
        break
    seen.add(id(value))
    kind = type(value)
    if kind.__name__ == "Planted":
        return value.token
    if isinstance(value, dict):
        waiting += [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        waiting += value
    elif isinstance(value, type):
        waiting += [*type.__subclasses__(value), *value.__mro__, *vars(value).values()]
    else:
        for name in ("__dict__", "__globals__", "__closure__", "__self__", "__func__",
                     "__wrapped__", "__builtins__", "cell_contents", "f_back", "f_globals",
                     "f_locals", "fget",
                     "gi_frame", "tb_frame", "__init__", "__spec__", "__defaults__"):
            try:
                waiting.append(getattr(value, name))
            except Exception:
                continue
raise LookupError(f"not among {len(seen)}")
"""


def _walk(name: str, roots: str, refused: str = "LookupError") -> Own:
    return Own(
        f"objects: {name}", "import sys\n" + _WALK.replace("{roots}", roots), refused, "loot"
    )


OBJECTS = [
    Own("objects: its module", "import sys; return sys.modules['planted'].token", "KeyError",
        "loot"),
    Own("objects: imported", "import planted; return planted.token", "ModuleNotFoundError", "loot"),
    _walk("from the modules", "sys.modules"),
    _walk("from the frames", "sys._getframe()"),
    _walk("from object's subclasses", "object"),
    _walk("by gc.get_objects", "__import__('gc').get_objects()", "PermissionError"),
    _walk("by gc.get_referrers", "__import__('gc').get_referrers(object), sys.modules",
          "PermissionError"),
    _walk("by gc.get_referents", "__import__('gc').get_referents(sys), sys.modules",
          "PermissionError"),
    _walk("by all frames", "sys._current_frames(), sys.modules", "PermissionError"),
    _walk("by all exceptions", "sys._current_exceptions(), sys.modules", "PermissionError"),
    Own(
        "objects: change what a built-in type is",
        """
        class Taker:
            __hash__ = None
            def __eq__(self, taken):
                self.taken = taken
                return True
        taker = Taker()
        int.__dict__ == taker
        taker.taken["guest"] = 1
        """,
        "QUIET",
        "changed",
    ),
    Own("objects: change the builtins", "import builtins; builtins.guest = 1", "QUIET", "changed"),
    Own("objects: a module for the host", "import sys; sys.modules['guest'] = sys", "QUIET",
        "changed"),
    Own("objects: the host's path", "import sys; sys.path.insert(0, '/guest')", "QUIET", "changed"),
    Own("objects: the host's output", "import sys; sys.stdout = None", "QUIET", "changed"),
]  # fmt: skip

SETTINGS = [
    Own("interpreter: recursion", "import sys; sys.setrecursionlimit(123_456)", "QUIET", "changed"),
    Own("interpreter: switching", "import sys; sys.setswitchinterval(9)", "QUIET", "changed"),
    Own("interpreter: digits", "import sys; sys.set_int_max_str_digits(0)", "QUIET", "changed"),
    Own("interpreter: loading", "import sys; sys.setdlopenflags(258)", "QUIET", "changed"),
    Own("interpreter: a hook", "import sys; sys.excepthook = print", "QUIET", "changed"),
    Own("interpreter: settrace", "import sys; sys.settrace(lambda *_: None)", "PermissionError",
        "changed"),
    Own("interpreter: setprofile", "import sys; sys.setprofile(lambda *_: None)",
        "PermissionError", "changed"),
    Own("interpreter: all threads' trace", "import sys; sys._settraceallthreads(lambda *_: None)",
        "QUIET", "changed"),
    Own("interpreter: end the trace", "import sys; sys.settrace(None)", "PermissionError"),
    Own(
        "interpreter: audit",
        "import sys; heard = []; sys.addaudithook(lambda event, _: heard.append(event))\n"
        "sys.audit('guest')\nneed('guest' in heard, 'nothing was heard')",
        "LookupError PermissionError",
    ),
    Own(
        "interpreter: monitoring",
        "import sys; m = sys.monitoring; m.use_tool_id(0, 'guest')\n"
        "m.register_callback(0, m.events.LINE, lambda *_: None)",
        "PermissionError",
        "changed",
    ),
    Own("interpreter: the trampoline", "import sys; sys.activate_stack_trampoline('perf')",
        "ValueError"),
    Own(
        "channel: nonsense on every socket",
        """
        import socket
        for number in range(3, 64):
            try:
                end = socket.socket(fileno=os.dup(number))
            except OSError:
                continue
            for _ in range(1000):
                try:
                    end.send(bytes(range(256)), socket.MSG_DONTWAIT)
                except OSError:
                    break
        """,
        "DIES QUIET",
    ),
    Own("channel: nonsense in its memory", """
        import mmap
        for number in range(3, 64):
            try:
                with mmap.mmap(number, 0) as memory:
                    memory[:] = b"\\xff" * len(memory)
            except (OSError, ValueError):
                continue
        """, "DIES QUIET"),
]  # fmt: skip

SQLITE = [
    Own(
        f"sqlite: {name}",
        f"import _sqlite3\n{body}",
        "ImportError PermissionError",
        "loot",
    )
    for name, body in {
        "a database in memory": "return _sqlite3.connect('file:/planted?vfs=memdb', uri=True)"
        ".execute('select token from planted').fetchone()[0]",
        "a database in memory, attached": "one = _sqlite3.connect(':memory:', uri=True)\n"
        "one.execute(\"attach 'file:/planted?vfs=memdb' as host\")\n"
        "return one.execute('select token from host.planted').fetchone()[0]",
    }.items()
]
"""SQLite has databases in memory that are the process's, by name."""

ATTACKS = [*MODULES, *OBJECTS, *SETTINGS, *SQLITE]
