"""What stands behind the names that a filter would look for, found without them.

Each way finds the built-in functions as a dict; each act uses them. A filter on names or syntax
would have to know every way, so there is none that is a wall: the kernel refuses the act.
"""

import textwrap

from pyisolate.attack.case import Attack

_WAYS = {
    "their name": "found = vars(__import__('builtins'))",
    "a class walk": """
        for kind in ().__class__.__base__.__subclasses__():
            if kind.__name__ == "_wrap_close":
                found = kind.__init__.__globals__["__builtins__"]
        """,
    "a class walk by getattr": """
        part = "__sub" + "classes__"
        kinds = getattr(getattr(getattr((), "__cl" + "ass__"), "__ba" + "se__"), part)()
        loader = [kind for kind in kinds if kind.__name__ == "BuiltinImporter"][0]
        found = vars(loader.load_module("builtins"))
        """,
    "a class walk by attrgetter": """
        import operator
        kinds = operator.attrgetter("__class__.__base__.__subclasses__")("")()
        loader = [kind for kind in kinds if kind.__name__ == "BuiltinImporter"][0]
        found = vars(loader.load_module("builtins"))
        """,
    "a format string": """
        import string
        found, _ = string.Formatter().get_field("0.__globals__[__builtins__]", [attempt], {})
        found = found if isinstance(found, dict) else vars(found)
        """,
    "a traceback": """
        try:
            1 / 0
        except ZeroDivisionError as error:
            found = error.__traceback__.tb_frame.f_builtins
        """,
    "except*": """
        try:
            raise ExceptionGroup("x", [ValueError()])
        except* ValueError as group:
            found = group.__traceback__.tb_frame.f_builtins
        """,
    "an exception's context": """
        try:
            try:
                1 / 0
            finally:
                [][1]
        except IndexError as error:
            found = error.__context__.__traceback__.tb_frame.f_builtins
        """,
    "a frame": "import sys; found = sys._getframe().f_back.f_builtins",
    "a generator's frame": "found = (one for one in ()).gi_frame.f_builtins",
    "a coroutine's frame": """
        async def nothing():
            pass
        made = nothing()
        found = made.cr_frame.f_builtins
        made.close()
        """,
    "an asynchronous generator's frame": """
        async def nothing():
            yield
        found = nothing().ag_frame.f_builtins
        """,
    "a function": "found = (lambda: 0).__builtins__",
    "a function's globals": "found = vars(__import__('types'))['FunctionType'](attack.__code__, {})"
    ".__globals__.get('__builtins__') or attack.__builtins__",
    "a method's function": "import string; found = string.Formatter.format.__builtins__",
    "a pattern": """
        match attempt:
            case object(__builtins__=found):
                pass
        """,
    "a class statement": """
        class Taker(type):
            def __prepare__(name, bases):
                import sys
                return {"found": sys._getframe().f_builtins}
        class Taken(metaclass=Taker):
            pass
        found = Taken.found
        """,
    "a decorator": """
        @lambda function: function.__builtins__
        def found(): pass
        """,
    "letters that look alike": "exec('found = ｖars(__ｉmport__(\"builtins\"))', given := {})\n"
    "found = given['found']",
    "text made of numbers": "found = eval(''.join(map(chr, [95, 95, 105, 109, 112, 111, 114, 116,"
    " 95, 95, 40, 39, 98, 117, 105, 108, 116, 105, 110, 115, 39, 41]))).__dict__",
    "sys.modules": "import sys; found = vars(sys.modules['builtins'])",
    "the garbage collector": """
        import gc
        behind = gc.get_referents(attempt)
        found = [it for it in behind if type(it) is dict and "__build_class__" in it][0]
        """,
    "a pickle": """
        import pickle
        found = pickle.loads(b"cbuiltins\\nvars\\n(cbuiltins\\n__import__\\n(S'builtins'\\ntRtR.")
        """,
    "an address": """
        import builtins
        found = vars(ctypes.cast(id(builtins), ctypes.py_object).value)
        """,
}
_ACTS: dict[str, tuple[str, bool]] = {
    "read": ("return found['open'](world['secret']).read()", True),
    "write": ("found['open'](world['victim'], 'w').write('gone')", False),
    "connect": (
        "found['__import__']('_socket').socket(2, 1, 0).connect(('127.0.0.1', world['tcp_port']))",
        False,
    ),
    "fork": ("need(reaped(found['__import__']('posix').fork()), 'child')", False),
}
_REFUSED = "ENOENT EPERM EACCES"

_BY_FOUND = [
    Attack(
        f"names: {act} by {way}",
        f"{textwrap.dedent(finding).strip()}\n{acting}",
        _REFUSED + (" RuntimeError" if act == "fork" else ""),
        loot=loot,
    )
    for way, finding in _WAYS.items()
    for act, (acting, loot) in _ACTS.items()
]

_DEPUTIES = {
    "linecache": "import linecache; return linecache.getlines(world['secret'])[0].strip()",
    "tokenize": "import tokenize; return tokenize.open(world['secret']).read()",
    "codecs": "import codecs; return codecs.open(world['secret'], encoding='ascii').read()",
    "fileinput": "import fileinput; return next(fileinput.input(world['secret']))",
    "the licence's printer": """
        import _sitebuiltins
        printer = _sitebuiltins._Printer("n", "nothing", ["secret.txt"], [world["folder"]])
        printer._Printer__setup()
        need(printer._Printer__lines != ["nothing"], "it was not there")
        return printer._Printer__lines[0]
        """,
    "netrc's error": """
        import netrc
        try:
            netrc.netrc(world["secret"])
        except netrc.NetrcParseError as error:
            return error.msg.split("'")[1]
        """,
    "configparser's error": """
        import configparser
        try:
            need(configparser.ConfigParser().read(world["secret"]), "nothing was read")
        except configparser.MissingSectionHeaderError as error:
            return error.line.strip()
        """,
    "urllib's file scheme": "import urllib.request\n"
    "return urllib.request.urlopen('file://' + world['secret']).read().decode()",
    "a loader": "import importlib.machinery as machinery\n"
    "loader = machinery.SourcelessFileLoader('x', world['secret'])\n"
    "return loader.get_data(world['secret']).decode()",
}
_BY_DEPUTY = [
    Attack(
        f"names: read by {name}",
        body,
        f"{_REFUSED} IndexError LookupError URLError",
        loot=True,
    )
    for name, body in _DEPUTIES.items()
]

ATTACKS = _BY_FOUND + _BY_DEPUTY
