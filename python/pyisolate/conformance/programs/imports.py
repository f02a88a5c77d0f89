"""Imports: what is allowed with what is below it, what is refused, and with which words."""

from typing import Any

from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("imports")

REFUSED = (
    "os", "sys", "builtins", "math", "socket", "subprocess", "ctypes", "importlib", "threading",
    "_thread", "posix", "numpy", "no_such_module", "pyisolate", "pyisolate._core", "os.path",
    "_guest", "gc", "__main__", "multiprocessing", "signal", "mmap", "_io", "_interpreters",
)  # fmt: skip


def _refused(module: str) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn(allowed_imports=["json"])
        cell.exec(f"import {module}")
        cell.run(f"try: import {module}\nexcept ImportError as e: post((type(e).__name__, e.name))")
        cell.denials()

    return steps


for _module in REFUSED:
    GROUP.add(f"refused/{_module}", _refused(_module))

_ALLOWED = {
    "plain": "import math",
    "as": "import math as m",
    "from": "from math import sqrt",
    "star": "from math import *",
    "several": "import json, math",
    "below": "import json.decoder",
    "from below": "from json.decoder import JSONDecoder",
    "a module from its package": "from json import decoder",
    "far below as": "import xml.etree.ElementTree as tree",
    "far below from": "from xml.etree import ElementTree",
    "by function": "__import__('math')",
    "by function with names": "__import__('xml.etree', fromlist=['ElementTree'])",
    "in a function": "def f():\n    import math\n    return math\nf()",
    "in a class": "class C:\n    import math",
    "in evaluated code": "exec('import math')\neval('__import__(\"math\")')",
    "twice": "import math\nimport math",
}
GROUP.sources(
    {f"allowed/{name}": f"{source}\npost('fine')" for name, source in _ALLOWED.items()},
    imports=["math", "json", "xml"],
)

_BESIDE = (
    "import os", "from os import path", "import mathx", "import xml.dom", "from xml import dom",
    "from xml import etree, dom", "import xml", "__import__('os')", "exec('import os')",
    "class C:\n    import os", "[__import__('os') for _ in 'x']", "from . import x",
    "from .x import y", "from .. import x", "import math, os", "from os import *",
)  # fmt: skip
GROUP.sources(
    {f"beside/{source.splitlines()[0]} {len(source)}": source for source in _BESIDE},
    imports=["math", "xml.etree"],
)


@GROUP.program()
def nothing_by_default(host: Host) -> None:
    given: list[dict[str, Any]] = [{}, {"allowed_imports": []}, {"allowed_imports": None}]
    for options in given:
        host.spawn(**options).run("import math")


@GROUP.program()
def a_modules_own_imports_are_its_own_business(host: Host) -> None:
    cell = host.spawn(allowed_imports=["json", "statistics"])
    cell.run("import json, statistics\npost(statistics.mean([1, 2, 3]))")
    for module in ("re", "io", "fractions", "os"):
        cell.exec(f"import {module}")


@GROUP.program()
def allowed_and_missing(host: Host) -> None:
    cell = host.spawn(allowed_imports=["no_such_module"])
    cell.exec("import no_such_module")
    cell.run("post('still here')")


@GROUP.program()
def by_the_policy(host: Host) -> None:
    cell = host.spawn(policy={"version": 1, "imports": ["math"]})
    cell.run("import math\npost(math.gcd(4, 6))")
    cell.exec("import os")
    cell.denials()


@GROUP.program()
def what_is_no_module_name(host: Host) -> None:
    for name in ("", "*", "os.*", "a b", ".os", "os.", "1a", "a\n", "a-b"):
        host.write(f"allowed_imports=[{name!r}]")
        host.refuse_spawn(allowed_imports=[name], says=["module name"])
    for names in ("math", [5], [None], 5):
        host.write(f"allowed_imports={names!r}")
        host.refuse_spawn(allowed_imports=names)
    host.still_serves()
