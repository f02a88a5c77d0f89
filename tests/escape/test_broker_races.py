"""Files and links that are swapped under the broker's hands while a guest asks for them."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyisolate
from pyisolate import Clock, Policy, ReadPath, ReadWritePath

from .broker_harness import Held

_SWAPPER = """
import ctypes, os, select, sys
libc = ctypes.CDLL(None, use_errno=True)
one, other = (os.fsencode(path) for path in sys.argv[1:])
rounds = 0
print("ready", flush=True)
while True:
    for _ in range(200):
        if libc.renameat2(-100, one, -100, other, 2):  # RENAME_EXCHANGE
            # A file system without it: one after the other, by a third name.
            os.rename(one, one + b"3"); os.rename(other, one); os.rename(one + b"3", other)
    rounds += 200
    if select.select([0], [], [], 0)[0]:
        break
print(rounds, flush=True)
"""

SECONDS = 1.0
"""For each race: so many swaps a second happen that more time finds nothing more."""


@dataclasses.dataclass(frozen=True)
class Race:
    """What is asked for while `swapped` is now itself, now a link out."""

    name: str
    swapped: str
    target: str
    body: str
    naive: str
    """What a host does that looks first and opens then."""

    def __str__(self) -> str:
        return self.name


_LOOK = "if not os.path.islink({path!r}) and os.path.realpath({path!r}).startswith({base!r}): "
RACES = [
    Race("a file, read", "given/file", "../secret.txt", "fs('read', path=BASE + '/given/file')",
         "given/file"),
    Race("a file, opened", "given/file", "../secret.txt",
         "open(BASE + '/given/file', 'rb').read()", "given/file"),
    Race("a folder on the way", "given/folder", "../outside",
         "fs('read', path=BASE + '/given/folder/inner.txt')", "given/folder/inner.txt"),
    Race("a folder, twice", "given/folder", "../outside",
         "open(BASE + '/given/folder/../folder/inner.txt', 'rb').read()",
         "given/folder/inner.txt"),
    Race("a denied folder", "given/folder", "denied",
         "fs('read', path=BASE + '/given/folder/inner.txt')", "given/folder/inner.txt"),
    Race("a file's size", "given/file", "../secret.txt",
         "b'secret' * (fs('stat', path=BASE + '/given/file')['size'] == SIZE)", "given/file"),
]  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("given/folder", "given/denied", "outside", "made/folder", "safe"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("secret.txt", "outside/inner.txt", "given/denied/inner.txt"):
        (tmp_path / name).write_text("this is the secret")
    for name in ("given/file", "given/folder/inner.txt"):
        (tmp_path / name).write_text("open")
    return tmp_path


@contextlib.contextmanager
def _swapping(one: Path, other: Path) -> Iterator[list[int]]:
    """Swap two names as fast as it goes. The list has the number of swaps in the end."""
    command = [sys.executable, "-I", "-S", "-c", _SWAPPER, str(one), str(other)]
    rounds: list[int] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout.readline() == b"ready\n"
        try:
            yield rounds
        finally:
            swapper.stdin.close()
            rounds.append(int(swapper.stdout.read()))


def _policy(base: Path) -> Policy:
    given = base / "given"
    grants = ReadPath(given), ReadWritePath(base / "made"), Clock("monotonic")
    return Policy().grant(*grants).deny(ReadPath(given / "denied"))


_LOOP = """
import time
seen, asked, end = {{}}, 0, time.monotonic() + {seconds}
# A busy machine gets the time that it needs to try often enough.
while time.monotonic() < end or asked <= {least}:
    for _ in range(20):
        asked += 1
        try: got = {body}
        except OSError as error: got = type(error).__name__
        seen[got] = seen.get(got, 0) + 1
return [asked, [[key, count] for key, count in seen.items()]]
"""


@pytest.mark.parametrize("race", RACES, ids=str)
def test_no_byte_gets_through_a_race(race: Race, supervisor: pyisolate.Supervisor, base: Path):
    link = base / "safe" / "link"
    link.symlink_to((base / "given" / race.target).resolve())
    held = Held(supervisor, _policy(base), {"BASE": str(base), "SIZE": 18})
    try:
        held.run("post(attempt(lambda: 1))")
        with _swapping(base / race.swapped, link) as rounds:
            kind, told = held.attempt(_LOOP.format(body=race.body, seconds=SECONDS, least=200))
        assert kind == "done", told
        asked, seen = told
        assert not any(isinstance(got, bytes) and b"secret" in got for got, _ in seen), seen
        names = {got for got, _ in seen}
        assert names <= {
            b"open", b"", "CapabilityDenied", "FileNotFoundError", "OSError", "BlockingIOError",
        }, seen  # fmt: skip
        assert asked > 200
        assert rounds[0] > 200
        held.assert_alive()
    finally:
        held.close()


@pytest.mark.parametrize("race", RACES, ids=str)
def test_a_host_that_looks_first_loses_the_race(race: Race, base: Path):
    """The control: within the same time, opening after a check reads the secret."""
    link = base / "safe" / "link"
    link.symlink_to((base / "given" / race.target).resolve())
    path, granted = base / race.naive, str(base / race.naive)
    leaked = 0
    with _swapping(base / race.swapped, link):
        end = time.monotonic() + 15
        while time.monotonic() < end and not leaked:
            if os.path.realpath(path) != granted:
                continue
            with contextlib.suppress(OSError):
                leaked += b"secret" in path.read_bytes()
    assert leaked, "no race: the case is empty"


WRITES = {
    "a new file": ("made/folder", "fs('write', path=BASE + '/made/folder/new', data=b'x')"),
    "opening to write": ("made/folder", "open(BASE + '/made/folder/new2', 'wb').close()"),
    "appending": ("made/folder", "fs('append', path=BASE + '/made/folder/new', data=b'x')"),
    "a new folder": (
        "made/folder",
        "fs('mkdir', path=BASE + '/made/folder/sub', exist_ok=True)",
    ),
    "moving": (
        "made/folder",
        "[fs('write', path=BASE + '/made/a', data=b'x'),"
        " fs('rename', path=BASE + '/made/a', to=BASE + '/made/folder/b')]",
    ),
    "removing": ("made/folder", "fs('remove', path=BASE + '/made/folder/inner.txt')"),
}


@pytest.mark.parametrize("named", WRITES)
def test_nothing_is_changed_outside_by_a_race(
    named: str, supervisor: pyisolate.Supervisor, base: Path
):
    swapped, body = WRITES[named]
    link = base / "safe" / "link"
    link.symlink_to(base / "outside")
    held = Held(supervisor, _policy(base), {"BASE": str(base)})
    try:
        held.run("post(attempt(lambda: 1))")
        with _swapping(base / swapped, link):
            kind, told = held.attempt(
                _LOOP.format(body=f"str({body})[:9]", seconds=SECONDS / 2, least=50)
            )
        assert kind == "done", told
        assert told[0] > 50
        held.assert_alive()
    finally:
        held.close()
    assert [path.name for path in (base / "outside").iterdir()] == ["inner.txt"]
    assert (base / "outside" / "inner.txt").read_text() == "this is the secret"


def test_a_host_that_looks_first_writes_outside(base: Path):
    """The control of the writes."""
    link = base / "safe" / "link"
    link.symlink_to(base / "outside")
    folder = base / "made" / "folder"
    with _swapping(folder, link):
        end = time.monotonic() + 15
        while time.monotonic() < end and not (base / "outside" / "new").exists():
            if os.path.realpath(folder) == str(folder):
                with contextlib.suppress(OSError):
                    (folder / "new").write_text("x")
    assert (base / "outside" / "new").exists(), "no race: the case is empty"
