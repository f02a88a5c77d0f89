"""`request` without a grant: refused in the guest by one error, kept on the host with its rule."""

from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("denials")

_PATH = {"path": "/data/in"}
REQUESTS: dict[str, dict[str, object]] = {
    "filesystem": {
        "read": _PATH,
        "write": {**_PATH, "data": b"x"},
        "append": {**_PATH, "data": b"x"},
        "list": _PATH,
        "stat": _PATH,
        "exists": _PATH,
        "mkdir": _PATH,
        "remove": _PATH,
        "open": {**_PATH, "mode": "r"},
    },
    "network": {
        "connect": {"host": "example.org", "port": 443},
        "resolve": {"host": "example.org"},
        "http": {"method": "GET", "url": "https://example.org/"},
    },
    "subprocess": {"run": {"program": "echo", "args": ["x"]}},
    "secret": {"reveal": {"name": "token"}, "use": {"name": "token"}},
    "clock": {"time": {}, "monotonic": {}, "sleep": {"seconds": 0.0}},
    "random": {"bytes": {"length": 4}},
    "ipc": {"send": {"channel": "jobs", "message": 1}, "receive": {"channel": "jobs"}},
    "own": {"anything": None, "else": {"a": 1}},
    "import": {"import": {"module": "os"}},
}


def _denied(capability: str, action: str, payload: object, policy: object) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn(policy=policy)
        asked = f"request({capability!r}, {action!r}, {payload!r})"
        cell.run(
            f"try: {asked}\nexcept Exception as error:\n"
            "    post([type(error).__name__, isinstance(error, PermissionError), str(error)])"
        )
        cell.exec(asked)
        cell.exec(f"def f(): {asked}")
        cell.call("__main__.f")
        cell.denials()
        cell.run("post('still here')")

    return steps


_EMPTY: dict[str, object] = {"version": 1}
for _capability, _actions in REQUESTS.items():
    for _action, _payload in _actions.items():
        _name = f"{_capability}.{_action}"
        GROUP.add(f"without a policy/{_name}", _denied(_capability, _action, _payload, None))
        GROUP.add(f"by an empty policy/{_name}", _denied(_capability, _action, _payload, _EMPTY))

_BAD = {
    "a capability that is no text": "request(5, 'a')",
    "an action that is no text": "request('c', None)",
    "an empty name": "request('', 'a')",
    "a long name": "request('c' * 2000, 'a')",
    "a payload that cannot be sent": "request('c', 'a', object())",
    "no action": "request('c')",
    "a surrogate": "request('\\udc80', 'a')",
}


def _bad(source: str) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn()
        cell.exec(source, message=False)
        cell.denials()

    return steps


for _name, _source in _BAD.items():
    GROUP.add(f"bad/{_name}", _bad(_source))


def _odd_name(name: str) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn()
        cell.exec(f"request({name!r}, {name!r})")
        host.told("capability", [event.capability for event in cell.cell.denials])

    return steps


for _number, _odd in enumerate(("é" * 500, "a\nb", "'\"", "x" * 1024, "\0", "none.such", "🐍")):
    GROUP.add(f"any name/{_number}", _odd_name(_odd))

_STANDARD = {
    "open": "open('/etc/passwd')",
    "open to write": "open('/tmp/x', 'w')",
    "os.listdir": "import os; os.listdir('/data')",
    "os.mkdir": "import os; os.mkdir('/data/new')",
    "os.remove": "import os; os.remove('/data/old')",
    "os.stat": "import os; os.stat('/data')",
    "os.rename": "import os; os.rename('/data/a', '/data/b')",
    "pathlib": "import pathlib; pathlib.Path('/etc/hosts').read_text()",
    "shutil": "import shutil; shutil.copy('/data/a', '/data/b')",
    "socket": "import socket; socket.create_connection(('192.0.2.1', 80))",
    "urllib": "import urllib.request; urllib.request.urlopen('http://192.0.2.1/')",
    "subprocess": "import subprocess; subprocess.run(['echo', 'x'])",
    "os.system": "import os; os.system('echo')",
}


def _standard(source: str) -> Steps:
    """Ordinary code is refused by the same words, which name the missing grant."""

    def steps(host: Host) -> None:
        cell = host.spawn(
            allowed_imports=["os", "pathlib", "shutil", "socket", "urllib", "subprocess"]
        )
        cell.exec(source)
        cell.run("post('still here')")
        cell.denials()

    return steps


for _name, _source in _STANDARD.items():
    GROUP.add(f"standard library/{_name}", _standard(_source))


@GROUP.program()
def many(host: Host) -> None:
    cell = host.spawn()
    cell.run(
        "refused = 0\nfor number in range(1500):\n    try: request('none', 'such')\n"
        "    except PermissionError: refused += 1\npost(refused)"
    )
    host.told("denied", cell.cell.stats.denied)
    host.told("kept", len(cell.cell.denials))


@GROUP.program()
def a_large_payload_is_refused_like_a_small_one(host: Host) -> None:
    cell = host.spawn()
    cell.exec("request('filesystem', 'write', b'x' * 1_000_000)")
    cell.run("post('still here')")


@GROUP.program()
def can_be_read_after_the_end(host: Host) -> None:
    cell = host.spawn()
    cell.exec("request('none', 'such')")
    cell.kill()
    cell.denials()


@GROUP.program()
def the_error_carries_the_event(host: Host) -> None:
    cell = host.spawn()
    error = cell.exec("request('none', 'such', 1)")
    event = getattr(error, "denial_event", None)
    host.told("event", None if event is None else [event.capability, event.attempted_action])
    host.told("names the cell", event is not None and event.cell == cell.cell.name)


@GROUP.program()
def one_cells_denials_are_no_others(host: Host) -> None:
    one, two = host.spawn(), host.spawn()
    one.exec("request('none', 'such')")
    two.denials()
    one.denials()


@GROUP.program()
def order_among_messages(host: Host) -> None:
    cell = host.spawn()
    cell.run(
        "post('before')\ntry: request('none', 'such')\nexcept PermissionError: post('refused')\n"
        "post('after')"
    )


@GROUP.program()
def a_denying_rule_is_named(host: Host) -> None:
    policy = host.folder / "policy.yml"
    policy.write_text(
        "version: 1\nfs:\n  read: [/data]\n  deny: [/data/private]\n", encoding="utf-8"
    )
    cell = host.spawn(policy=policy)
    cell.exec("open('/data/private/x')")
    cell.denials()
