"""What a cell gets from the host: nothing that is the host's."""

import dataclasses
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyisolate
from cells import assert_serves
from pyisolate.attack import Attack
from pyisolate.attack.bare import run_bare
from pyisolate.attack.case import Attempt
from pyisolate.attack.cells import Cells
from pyisolate.attack.plant import Plant

VARIABLE = "PYISOLATE_PLANTED"

ATTACKS = [
    Attack(
        "descriptor: a file",
        """
        for descriptor in range(3, 1024):
            try:
                found = os.pread(descriptor, 25, 0)
            except OSError:
                continue
            if len(found) == 24:
                return found.decode()
        raise LookupError("no descriptor leads to the secret")
        """,
        "LookupError",
        loot=True,
    ),
    Attack(
        "descriptor: a file, raw",
        """
        found = ctypes.create_string_buffer(25)
        for descriptor in range(3, 1024):
            try:
                raw("lseek", descriptor, 0, 0)
                if raw("read", descriptor, found, 25) == 24:
                    return found.value.decode()
            except OSError:
                continue
        raise LookupError("no descriptor leads to the secret")
        """,
        "LookupError",
        loot=True,
    ),
    Attack(
        "descriptor: a folder",
        """
        for descriptor in range(3, 1024):
            try:
                return read_out(os.open("secret.txt", os.O_RDONLY, dir_fd=descriptor))
            except OSError:
                continue
        raise LookupError("no descriptor leads to the folder")
        """,
        "LookupError",
        loot=True,
    ),
    Attack(
        "descriptor: a folder, raw",
        """
        for descriptor in range(3, 1024):
            try:
                return read_out(raw("openat", descriptor, path("secret.txt"), os.O_RDONLY))
            except OSError:
                continue
        raise LookupError("no descriptor leads to the folder")
        """,
        "LookupError",
        loot=True,
    ),
    Attack(
        "descriptor: a listening socket",
        """
        import socket
        for descriptor in range(3, 1024):
            try:
                with socket.socket(fileno=os.dup(descriptor)) as found:
                    if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        return "listening"
            except OSError:
                continue
        raise LookupError("no descriptor listens")
        """,
        "LookupError",
    ),
    Attack("environment: os.environ", f"return os.environ[{VARIABLE!r}]", "KeyError", loot=True),
    Attack(
        "environment: os.environ, all of it",
        "need('PATH' in os.environ or 'HOME' in os.environ, 'a name of the host')",
        "LookupError",
    ),
    Attack(
        "environment: libc",
        f"""
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_char_p
        need(found := getenv(b"{VARIABLE}"), "it")
        return found.decode()
        """,
        "LookupError",
        loot=True,
    ),
    Attack(
        "environment: libc's array",
        f"""
        array = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
        index = 0
        while entry := array[index]:
            if entry.startswith(b"{VARIABLE}="):
                return entry.decode().partition("=")[2]
            index += 1
        raise LookupError("it")
        """,
        "LookupError",
        loot=True,
    ),
]


@pytest.fixture(scope="module")
def descriptors(plant: Plant) -> Iterator[tuple[int, ...]]:
    """Descriptors that a careless child of this process would inherit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sources = [
            os.open(plant.secret, os.O_RDONLY),
            os.open(plant.folder, os.O_RDONLY | os.O_DIRECTORY),
            os.dup(listener.fileno()),
        ]
        # F_DUPFD leaves close-on-exec off; from 200, where nothing of the launcher's can land.
        inheritable = tuple(fcntl.fcntl(source, fcntl.F_DUPFD, 200) for source in sources)
        yield inheritable
        for descriptor in (*sources, *inheritable):
            os.close(descriptor)


@pytest.fixture(scope="module", params=[0, 1], ids=["fresh", "pooled"])
def heir(
    request: pytest.FixtureRequest, require, plant: Plant, descriptors: tuple[int, ...]
) -> Iterator[Cells]:
    """A cell whose supervisor was made by a host full of secrets."""
    require("userns", "seccomp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, plant.token)
        with pyisolate.Supervisor(warm_pool=request.param) as supervisor:
            yield Cells(supervisor, plant)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_cell_inherits_nothing(attack: Attack, heir: Cells):
    for runner in ("attempt", "attempt_in_thread"):
        outcome = heir.run(dataclasses.replace(attack, runner=runner).source())
        assert outcome[0] == "refused", outcome
        assert outcome[1] in attack.refused.split(), outcome
    assert_serves(heir.supervisor)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_child_of_the_host_would_inherit_it(
    attack: Attack, plant: Plant, descriptors: tuple[int, ...]
):
    fate = run_bare(
        plant,
        [attack.attempt()],
        environment={**os.environ, VARIABLE: plant.token},
        descriptors=descriptors,
    )[attack.name]
    finding = attack.bare(fate, plant.token)[attack.name]
    assert finding.how == "reached", finding


# What a guest can ask, and what the host's own answer is.
FACTS = {
    "host name": ("os.uname().nodename", os.uname().nodename),
    "host name, socket": ("__import__('socket').gethostname()", socket.gethostname()),
    "host name, raw": (
        "raw('uname', buffer := ctypes.create_string_buffer(400)) or buffer.raw[65:].split(b'\\0')"
        "[0].decode()",
        os.uname().nodename,
    ),
    "user": ("os.getuid()", os.getuid()),
    "user, raw": ("raw('getuid')", os.getuid()),
    "group": ("os.getgid()", os.getgid()),
    "owner of a file": ("os.stat('/').st_uid", Path("/").stat().st_uid),
    "interpreter": ("__import__('sys').base_prefix", sys.base_prefix),
    "standard library": ("os.__file__", os.__file__),
}


@pytest.mark.parametrize("fact", FACTS)
def test_a_cell_does_not_learn(fact: str, hostile: Cells, plant: Plant):
    """The host's own answer comes from the control, and another one from the cell."""
    expression, of_host = FACTS[fact]
    source = f"post(attempt(lambda: {expression}))"
    control = run_bare(plant, [Attempt("", source)])[""].posted
    if fact == "owner of a file" and os.getuid() != of_host:
        pytest.skip("owner: files of somebody else are nobody's in the control, too")
    assert control == ["done", of_host]
    told, answer = hostile.run(source)
    assert told == "done"
    assert answer != of_host


# Every text that the interpreter has about itself, but for what `sysconfig` recorded when the
# interpreter was built.
_TEXTS = """
import os, sys, sysconfig
def texts(value, depth=0):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and depth < 3:
        for item in [*value.keys(), *value.values()]:
            yield from texts(item, depth + 1)
    elif isinstance(value, (list, tuple)) and depth < 3:
        for item in value:
            yield from texts(item, depth + 1)
everything = [dict(vars(sys)), dict(os.environ), os.getcwd(), sysconfig.get_paths()]
for module in list(sys.modules.values()):
    spec = getattr(module, "__spec__", None)
    functions = [item for item in vars(module).values() if hasattr(item, "__code__")]
    functions = [item for item in functions if isinstance(item, type(texts))]
    everything.append([
        getattr(module, "__file__", None), getattr(module, "__cached__", None),
        getattr(module, "__path__", None) and list(module.__path__),
        spec and [spec.origin, spec.cached], [item.__code__.co_filename for item in functions],
    ])
found = sorted({text for text in texts(everything) if "/" in text})
"""


def test_no_path_of_the_host_is_in_the_interpreter(hostile: Cells, plant: Plant):
    places = {sys.base_prefix, sys.prefix, str(Path.cwd()), str(Path.home())} - {"/"}
    look = f"{_TEXTS}post([text for text in found if text.startswith({tuple(places)!r})])"
    assert run_bare(plant, [Attempt("", look)])[""].posted != []
    assert hostile.run(look) == []
