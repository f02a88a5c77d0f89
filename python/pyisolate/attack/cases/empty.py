"""An empty list, or none at all, grants nothing."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pyisolate import Policy
from pyisolate.attack.asked import Asked, Ways
from pyisolate.attack.texts import BROKER, NAIVE, PLAIN

POLICIES: dict[str, Policy | Mapping[str, Any] | None] = {
    "no policy": None,
    "a policy object": Policy(),
    "a grant of nothing": Policy().grant(),
    "an empty document": {},
    "a version alone": {"version": 1},
    "empty lists": {
        "version": 1,
        "fs": {"read": [], "write": []},
        "net": {"connect": [], "http": [], "resolve": []},
        "subprocess": {"run": []},
        "imports": [],
    },
    "empty tables": {"version": 1, "fs": {}, "net": {}, "subprocess": {}, "secrets": {}},
    "nothing under each key": {"version": 1, "fs": None, "net": None, "subprocess": None},
}
_REFUSED = "DENIED ENOENT EACCES EPERM gaierror URLError LookupError"
_ACTS = {
    "a file": "return open(SECRET).read()",
    "a file, asked": "return fs('read', path=SECRET)",
    "a folder": "need(os.listdir(BASE))",
    "a folder, asked": "need(fs('list', path=BASE))",
    "the root": "need(fs('list', path='/'))",
    "writing": "open(BASE + '/new', 'w').write('x')",
    "writing, asked": "fs('write', path=BASE + '/new', data=b'x')",
    "a connection": "socket.create_connection(('127.0.0.1', PORT), 2).close()",
    "a connection, asked": "net('connect', host='127.0.0.1', port=PORT)",
    "a name": "need(net('resolve', host='localhost'))",
    "http": "urllib.request.urlopen(f'http://127.0.0.1:{PORT}/', timeout=2).read()",
    "http, asked": "net('http', method='GET', url=f'http://127.0.0.1:{PORT}/')",
    "a program": "request('subprocess', 'run', {'program': 'true', 'args': []})",
    "a secret": "request('secret', 'use', {'name': 'key'})",
    "revealing a secret": "request('secret', 'reveal', {'name': 'key'})",
    "the clock": "request('clock', 'time', {})",
    "randomness": "request('random', 'bytes', {'length': 4})",
    "a channel": "request('ipc', 'send', {'channel': 'c', 'message': 1})",
    "what no host has": "request('own', 'act', 1)",
}
_MODULES = ("ctypes", "os", "posix", "socket", "_socket", "subprocess", "sys", "importlib", "math")

_STAGE = """
import builtins
def fresh():
    return lambda: False
SECRET, BASE = world["secret"], world["folder"]
builtins.request = NaiveList([])
PORT = serve()
"""
_NOTHING = """
def fresh():
    return lambda: False
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Ungranted(Ways):
    """Everything that there is to ask for, under a policy that grants nothing."""

    policy: Policy | Mapping[str, Any] | None = None
    imports: bool = False
    """Whether it is about what may be imported, and nothing may be."""


TRIALS = [
    Ungranted(
        f"under {name}",
        "empty",
        tuple(Asked(act, body, _REFUSED) for act, body in _ACTS.items()),
        (BROKER, NAIVE, _STAGE),
        lambda asked, value, changed, token: True,
        policy=policy,
    )
    for name, policy in POLICIES.items()
] + [
    Ungranted(
        f"importing under {name}",
        "empty",
        tuple(Asked(module, f"import {module}", "ImportDenied ImportError") for module in _MODULES),
        (PLAIN, _NOTHING),
        lambda asked, value, changed, token: True,
        policy=policy,
        imports=True,
    )
    for name, policy in POLICIES.items()
]
