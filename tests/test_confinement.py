"""What confines a cell is a value that the kernel vouches for, and can be required."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, death_of, run, until

NAMESPACES = ("user", "pid", "mount", "ipc", "uts", "network")
LAYERS = {f"{name}-namespace" for name in NAMESPACES} | {
    "root", "capabilities", "no-new-privileges", "landlock", "seccomp", "rlimits", "descriptors",
    "environment", "process", "cgroup", "clock",
}  # fmt: skip


@pytest.mark.parametrize("backend", ["process", "subinterpreter"])
def test_every_layer_is_there_once(supervisor, backend):
    with supervisor.spawn("seen", backend=backend) as cell:
        confinement = cell.confinement
    assert {layer.name for layer in confinement} == LAYERS
    assert len(confinement) == len(LAYERS) == len(confinement.layers)
    for number, layer in enumerate(confinement):
        assert confinement[layer.name] == confinement[number] == layer
        assert confinement[number - len(confinement)] == layer
        assert layer.detail
        assert layer.meaning
        assert layer.name in str(confinement)
    assert (confinement.cell, confinement.backend) == ("seen", backend)
    for wrong in ("namespaces", len(confinement), -len(confinement) - 1):
        with pytest.raises(LookupError):
            confinement[wrong]


def test_it_is_json(supervisor):
    with supervisor.spawn("json", policy={"random": True}) as cell:
        value = json.loads(cell.confinement.to_json())
        policy = cell.policy.to_json()
        layers = list(cell.confinement)
    assert value["version"] == 1
    assert (value["cell"], value["backend"], value["require"]) == ("json", "process", "default")
    assert value["policy_sha256"] == hashlib.sha256(policy.encode()).hexdigest()
    assert [row["name"] for row in value["layers"]] == [layer.name for layer in layers]
    for row, layer in zip(value["layers"], layers, strict=True):
        assert (row["status"], row["detail"]) == (layer.status, layer.detail)
        assert row.get("remedy") == (None if layer.status == "enforced" else layer.remedy)


def test_the_journal_has_it(tmp_path):
    path = tmp_path / "journal.jsonl"
    with pyisolate.Supervisor(journal=path) as supervisor:
        for backend in ("process", "subinterpreter"):
            with supervisor.spawn(backend, backend=backend) as cell:
                layers = [layer.name for layer in cell.confinement]
                assert until(lambda: path.read_text().count('"confinement"') > 0)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    written = {row["cell"]: row for row in records if row.get("kind") == "confinement"}
    assert set(written) == {"process", "subinterpreter"}
    assert "landlock" in json.dumps(written["process"])
    assert len(layers) == len(LAYERS)


# --- control groups


def group_of(cell: pyisolate.Cell) -> list[str]:
    """The lines of a cell's process in `/proc/PID/cgroup` that name a group of ours."""
    lines = Path(f"/proc/{cell.pid}/cgroup").read_text().splitlines()
    return [line for line in lines if "/pyisolate-" in line]


def test_a_cell_is_in_a_group_of_its_own(supervisor, require):
    require("cgroup")
    with supervisor.spawn("one") as one, supervisor.spawn("other") as other:
        layer = one.confinement["cgroup"]
        assert layer.status in ("enforced", "partial"), layer
        other.confinement  # noqa: B018  waits until it is in its group
        assert group_of(one)
        assert not set(group_of(one)) & set(group_of(other))
        control = Path("/proc/self/cgroup").read_text()
        assert "/pyisolate-" not in control


def test_pooled_cells_are_in_groups_of_their_own(require):
    require("cgroup")
    with pyisolate.Supervisor(warm_pool=2) as supervisor:
        assert until(lambda: supervisor.pool_ready == 2)
        with supervisor.spawn("pooled", child_work_max=5) as cell:
            assert group_of(cell), "a pooled cell is placed before it is anybody's"
            assert "pids 5" in cell.confinement["cgroup"].detail


def test_groups_go_with_their_cells(require):
    require("cgroup")
    with pyisolate.Supervisor() as supervisor:
        cell = supervisor.spawn("gone", require=["cgroup"])
        line = group_of(cell)[0]
        kind, path = line.split(":")[1:]
        folders = [
            Path(row.split()[4] + path.removeprefix(row.split()[3].rstrip("/")))
            for row in Path("/proc/self/mountinfo").read_text().splitlines()
            if " - cgroup" in row and (not kind or kind.split(",")[0] in row.split(" - ")[1])
        ]
        there = [folder for folder in folders if folder.is_dir()]
        assert there, folders
        cell.close()
        assert until(lambda: not any(folder.is_dir() for folder in there))
    assert not any(folder.parent.is_dir() for folder in there)


def test_a_group_that_ran_out_of_memory_is_told(supervisor, require):
    """Memory that is made read-only again is none that the process's own limit counts."""
    require("cgroup")
    cell = supervisor.spawn(
        "hungry", allowed_imports=["ctypes"], require=["cgroup"], mem_bytes=64 << 20,
        unread_bytes_max=64 << 10, message_bytes_max=1024,
    )  # fmt: skip
    cell.exec("""if True:
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        libc.mmap.argtypes = [address, size, number, number, number, ctypes.c_long]
        libc.mprotect.argtypes = [address, size, number]
        while True:
            place = libc.mmap(None, 8 << 20, 3, 0x22, -1, 0)
            ctypes.memset(place, 1, 8 << 20)
            libc.mprotect(place, 8 << 20, 1)
        """)
    died = death_of(cell)
    assert isinstance(died, pyisolate.MemoryExceeded)
    assert "mem_bytes=67108864" in str(died)
    assert_serves(supervisor)


# --- requirements


def test_what_is_not_there_fails_closed(supervisor):
    for backend, require, lacking in (
        ("process", ["clock"], ["clock"]),
        ("subinterpreter", ["process", "seccomp", "cgroup"], ["process", "cgroup"]),
    ):
        with pytest.raises(pyisolate.ConfinementError) as caught:
            supervisor.spawn("closed", backend=backend, require=require)
        assert [layer.name for layer in caught.value.layers] == lacking
        for name in lacking:
            assert name in str(caught.value)
        assert "require=" in str(caught.value)
        assert "closed" not in supervisor.list_active()
    assert isinstance(caught.value, pyisolate.SandboxError)
    assert_serves(supervisor)


def test_guest_code_does_not_run_before_the_check(tmp_path):
    path = tmp_path / "journal.jsonl"
    with pyisolate.Supervisor(journal=path) as supervisor:
        with pytest.raises(pyisolate.ConfinementError):
            supervisor.spawn("closed", require=["clock"])
        supervisor.spawn("open").close()
    cells = {json.loads(line).get("cell") for line in path.read_text().splitlines()}
    assert "open" in cells
    assert "closed" not in cells


def test_names_of_layers_come_beside_the_default(supervisor):
    with supervisor.spawn("named", require=["seccomp", "root"]) as cell:
        assert cell.confinement.require == "seccomp,root"
        run(cell, "post(1)")
        assert cell.recv(PATIENCE) == 1
    for wrong in ("hardend", ["landlock", "selinux"], []):
        with pytest.raises(ValueError, match="hardened"):
            supervisor.spawn("wrong", require=wrong)


def test_hardened(supervisor, require):
    require("cgroup", "landlock")
    with supervisor.spawn("hard", require="hardened") as cell:
        weak = {layer.name for layer in cell.confinement if layer.status != "enforced"}
        assert weak <= {"clock", "landlock"}
        assert group_of(cell), "it is in its group before guest code runs"


def test_a_supervisor_requires_for_all(require):
    require("cgroup", "landlock")
    with pyisolate.Supervisor(require="hardened", warm_pool=1) as supervisor:
        with supervisor.spawn("a") as cell:
            assert cell.confinement.require == "hardened"
        template = supervisor.template()
        with supervisor.spawn("of-template", template=template) as cell:
            assert group_of(cell)
        with supervisor.spawn("b", require="default") as cell:
            assert cell.confinement.require == "default"


def test_none_is_loud_and_in_the_report(supervisor):
    with (
        pytest.warns(RuntimeWarning, match="whatever walls"),
        supervisor.spawn("none", require="none") as cell,
    ):
        assert cell.confinement.require == "none"
    with pytest.warns(RuntimeWarning, match="whatever walls"):
        pyisolate.Supervisor(require="none").shutdown()


def test_the_command_requires():
    command = [sys.executable, "-m", "pyisolate", "run", "-", "--require"]
    ended = subprocess.run(
        [*command, "clock"], input="print(1)", capture_output=True, text=True, check=False
    )
    assert ended.returncode == 6
    assert "clock is missing" in ended.stderr
    assert ended.stdout == ""
    wrong = subprocess.run(
        [*command, "locks"], input="", capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "landlock" in wrong.stderr
