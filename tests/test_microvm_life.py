"""Machines whose monitor, launcher or host is killed, and snapshots that cannot be kept or used."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, children, death_of, until
from hosts import in_host_of_its_own, is_alive, parent
from machines import folder_of, holdings, left, put

START_SECONDS = 60
"""How long a host of its own may take to boot an image."""

pytestmark = [pytest.mark.usefixtures("machines"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def supervisor(machines):
    with pyisolate.Supervisor(backend="microvm") as supervisor:
        supervisor.spawn("first").close()
        yield supervisor


def monitors(pids):
    """Those among processes that are QEMU."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if "qemu" in Path(f"/proc/{pid}/comm").read_text():
                found.add(pid)
    return found


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_monitor_that_is_killed(supervisor, sig):
    before = holdings()
    cell = supervisor.spawn("victim")
    handle = cell.exec("while True: pass")
    assert cell.pid in monitors(children())
    os.kill(cell.pid, sig)
    with pytest.raises(pyisolate.CellDied, match="machine"):
        handle.wait(PATIENCE)
    assert str(int(sig)) in str(death_of(cell)) or "killed" in str(death_of(cell))
    assert_serves(supervisor)
    del cell, handle
    assert until(lambda: not left(before)), left(before)


def test_a_jail_that_is_killed(supervisor):
    """The first process of it, with which all others end."""
    cell = supervisor.spawn("victim")
    os.kill(parent(cell.pid), signal.SIGKILL)
    assert "machine" in str(death_of(cell))
    assert_serves(supervisor)


def test_a_monitor_that_stands_still(supervisor):
    """Its clock does not."""
    cell = supervisor.spawn("stuck", wall_time_ms=1000)
    pid = cell.pid
    cell.exec("while True: pass")
    os.kill(pid, signal.SIGSTOP)
    assert isinstance(death_of(cell), pyisolate.WallTimeExceeded)
    assert until(lambda: not is_alive(pid))
    assert_serves(supervisor)


def test_a_launcher_that_is_killed():
    before = holdings()
    kill_a_launcher()
    assert until(lambda: not left(before)), left(before)


def kill_a_launcher():
    outside = set(children())
    with pyisolate.Supervisor(1, backend="microvm") as supervisor:
        cell = supervisor.spawn("victim")
        family = set(children()) - outside
        launcher = next(pid for pid in family if parent(pid) == os.getpid())
        os.kill(launcher, signal.SIGKILL)
        assert str(death_of(cell))
        assert until(lambda: not any(map(is_alive, family)))
        assert until(lambda: serves(supervisor))


def serves(supervisor):
    with contextlib.suppress(pyisolate.SandboxError):
        assert_serves(supervisor)
        return True
    return False


def test_machines_leave_nothing_behind(supervisor):
    before = holdings()
    for number in range(8):
        cell = supervisor.spawn(f"c{number}")
        cell.exec(["pass", "while True: pass", "post(b'x' * 1_000_000)", "1 / 0"][number % 4])
        cell.kill() if number % 2 else cell.close(timeout=0)
    supervisor.template(setup="x = 1")
    with pytest.raises(pyisolate.GuestError):
        supervisor.template(setup="1 / 0")
    del cell
    assert until(lambda: not left(before)), left(before)


HOST = """
import os, pyisolate, sys
supervisor = pyisolate.Supervisor(1, backend="microvm")
template = supervisor.template(setup="x = 1")
cells = [supervisor.spawn(f"c{number}") for number in range(2)]
cells.append(supervisor.spawn("t", template=template))
cells[0].exec("while True: pass")
print("ready", flush=True)
"""


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "os._exit(0)", "raise ValueError"])
def test_nothing_outlives_a_host(end):
    last = "cells[1].recv()" if end.startswith("SIG") else f"sys.stdin.readline()\n{end}"
    with subprocess.Popen(
        [sys.executable, "-c", HOST + last],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as host:
        assert host.stdout.readline() == "ready\n", host.stderr.read()
        family = children(host.pid)
        assert len(monitors(family)) >= 3
        if end.startswith("SIG"):
            host.send_signal(signal.Signals[end])
        host.communicate("\n", timeout=PATIENCE)
    assert until(lambda: not any(map(is_alive, family)))


# --- snapshots in the cache


@pytest.fixture
def cache(machines, tmp_path):
    """One with the image alone."""
    folder = tmp_path / "cache"
    put(folder, "default", folder_of(machines))
    yield folder
    shutil.rmtree(folder)


def start_host(cache, program):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYISOLATE_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


ONE_CELL = """
import json, pyisolate
with pyisolate.Supervisor(backend="microvm") as supervisor:
    with supervisor.spawn("one", allowed_imports=["math"]) as cell:
        print(json.dumps(cell.call("math.gcd", 12, 18, timeout=20)))
"""


def in_a_host(cache):
    """Have a host make one cell."""
    with start_host(cache, ONE_CELL) as host:
        out, err = host.communicate(timeout=START_SECONDS)
    assert (host.returncode, out) == (0, "6\n"), err


def test_two_hosts_make_the_snapshot_at_once(cache):
    with start_host(cache, ONE_CELL) as first, start_host(cache, ONE_CELL) as second:
        for host in (first, second):
            out, err = host.communicate(timeout=START_SECONDS)
            assert (host.returncode, out) == (0, "6\n"), err
    (kept,) = (cache / "snapshots").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["memory", "snapshot.json", "state"]


def damage_memory(folder):
    os.truncate(folder / "memory", 1_000_000)


def damage_state(folder):
    os.truncate(folder / "state", 10)


def damage_facts(folder):
    (folder / "snapshot.json").write_text("{")


def remove_memory(folder):
    (folder / "memory").unlink()


DAMAGES = [damage_memory, damage_state, damage_facts, remove_memory]


def test_damaged_snapshots_are_made_anew(cache):
    in_a_host(cache)
    (kept,) = (cache / "snapshots").iterdir()
    for damage in DAMAGES:
        damage(kept)
        in_a_host(cache)
        sizes = [(kept / name).stat().st_size for name in ("memory", "state")]
        assert sizes[0] > 1 << 30, damage
        assert sizes[1] > 1000, damage


FULL = """
import ctypes, json, os, pathlib, shutil, sys
import pyisolate
libc = ctypes.CDLL(None, use_errno=True)
source, folder = os.environ["FULL_DISK"].split(":")
def mount(*arguments):
    if libc.mount(*arguments):
        print(json.dumps(f"mount: {os.strerror(ctypes.get_errno())}"))
        sys.exit()
try:
    os.unshare(os.CLONE_NEWNS)
except OSError as error:
    print(json.dumps(f"unshare: {error}"))
    sys.exit()
mount(b"none", b"/", None, 1 << 18 | 1 << 14, None)  # MS_PRIVATE | MS_REC
size = sum(path.stat().st_size for path in pathlib.Path(source).rglob("*") if path.is_file())
mount(b"tmpfs", folder.encode(), b"tmpfs", 0, f"size={size + (16 << 20)},mode=0700".encode())
shutil.copytree(source, folder, dirs_exist_ok=True)
os.environ["PYISOLATE_CACHE"] = folder
with pyisolate.Supervisor(backend="microvm") as supervisor:
    answers = []
    for name in "ab":
        with supervisor.spawn(name, allowed_imports=["math"]) as cell:
            answers.append(cell.call("math.gcd", 12, 18, timeout=20))
stays = sorted(path.name for path in pathlib.Path(folder, "snapshots").glob("*"))
print(json.dumps([answers, stays]))
os.chdir("/")
libc.umount2(folder.encode(), 2)
"""


def test_a_full_disk_costs_the_next_host_a_boot(cache, tmp_path, monkeypatch):
    place = tmp_path / "small"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("FULL_DISK", f"{cache}:{place}")
    told = in_host_of_its_own(FULL)
    if isinstance(told, str):
        pytest.skip(f"tmpfs: {told}")
    assert told == [[6, 6], []]
