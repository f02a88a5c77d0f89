"""The layers, read from outside: what the kernel says of a cell's process."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyisolate
from cells import until
from pyisolate.attack.cells import PATIENCE
from pyisolate.attack.plant import Plant

NAMESPACES = ("user", "pid", "mnt", "ipc", "uts", "net")
ENTRIES = {"dev", "lib", "lib64", "packages", "pyisolate", "python"}


@pytest.fixture(scope="module", params=["fresh", "pooled", "of a template"])
def process(request: pytest.FixtureRequest, require) -> Iterator[Path]:
    """The `/proc` folder of a cell that has several threads, by each way to make a cell."""
    require("userns", "seccomp")
    with pyisolate.Supervisor(warm_pool=int(request.param == "pooled")) as supervisor:
        template = supervisor.template() if request.param == "of a template" else None
        imports = ["threading"]
        with supervisor.spawn("seen", allowed_imports=imports, template=template) as cell:
            cell.exec(
                "import threading\nend = threading.Event()\n"
                "for _ in range(3): threading.Thread(target=end.wait, daemon=True).start()"
            ).wait(PATIENCE)
            yield folder_of(cell)


def folder_of(cell: pyisolate.Cell) -> Path:
    """A cell's folder in the host's `/proc`."""
    assert until(lambda: cell.pid is not None)
    return Path(f"/proc/{cell.pid}")


def status_of(process: Path) -> dict[str, str]:
    """The fields of a `status` file."""
    lines = (process / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_every_thread_is_confined(process: Path):
    tasks = list((process / "task").iterdir())
    assert len(tasks) == 4
    for task in tasks:
        status = status_of(task)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert int(status["Seccomp_filters"]) >= 3
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[capabilities], 16) == 0, capabilities
        assert status["TracerPid"] == "0"


def test_who_it_is(process: Path):
    status = status_of(process)
    assert int(status["PPid"]) != os.getpid()
    assert status["NSpid"].split()[-1] == "1"
    if os.getuid() == 0:
        assert set(status["Uid"].split()) == {"65534"}
        assert set(status["Gid"].split()) == {"65534"}
        assert status["Groups"] == ""


@pytest.mark.parametrize("kind", NAMESPACES)
def test_its_namespaces_are_not_the_hosts(kind: str, process: Path, plant: Plant):
    own, of_host = (os.readlink(folder / "ns" / kind) for folder in (process, Path("/proc/self")))
    assert own != of_host
    # A child of the test's is in the same ones as the test, so that the comparison means something.
    assert os.readlink(f"/proc/{plant.canary.pid}/ns/{kind}") == of_host


def test_cells_share_no_namespace_but_the_empty_network(cell):
    one, other = folder_of(cell()), folder_of(cell())
    shared = {
        kind
        for kind in NAMESPACES
        if os.readlink(one / "ns" / kind) == os.readlink(other / "ns" / kind)
    }
    assert shared <= {"net"}


def test_its_network_has_no_way_out(process: Path, plant: Plant):
    def interfaces(text: str) -> set[str]:
        return {line.partition(":")[0].strip() for line in text.splitlines()[2:]}

    assert interfaces((process / "net/dev").read_text()) <= {"lo"}
    for table in ("route", "tcp", "udp", "unix"):
        lines = (process / "net" / table).read_text().splitlines()
        assert len(lines) <= 1, table
    # Elsewhere these files do have entries.
    assert len(Path(f"/proc/{plant.canary.pid}/net/unix").read_text().splitlines()) > 1


def test_its_root_holds_the_runtime_alone(process: Path):
    assert {entry.name for entry in (process / "root").iterdir()} <= ENTRIES
    devices = {entry.name for entry in (process / "root/dev").iterdir()}
    assert devices == {"null", "urandom"}


def test_every_mount_is_sealed(process: Path):
    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    assert len(mounts) > 5
    for _, _, _, _, place, options, *_ in mounts:
        flags = set(options.split(","))
        assert {"ro", "nosuid"} <= flags, place
        assert "nodev" in flags or place.startswith("/dev/"), place


def test_its_descriptors_are_the_channel(process: Path):
    leads = {int(entry.name): os.readlink(entry) for entry in (process / "fd").iterdir()}
    assert [leads.pop(standard) for standard in (0, 1, 2)] == ["/dev/null"] * 3
    kinds = sorted(lead.partition(":")[0] for lead in leads.values())
    assert kinds in (["socket"], ["/memfd", "socket"])


def test_its_environment_is_made_of_nothing(process: Path):
    lines = (process / "environ").read_bytes().split(b"\0")
    names = {line.partition(b"=")[0].decode() for line in lines if line}
    assert names == {
        "LD_LIBRARY_PATH",
        "LC_ALL",
        "MKL_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "PYTHONHOME",
    }


def test_its_limits(process: Path):
    lines = (process / "limits").read_text().splitlines()[1:]
    limits = {line[:25].strip(): line[25:].split()[:2] for line in lines}
    for name in ("Max core file size", "Max locked memory", "Max msgqueue size"):
        assert limits[name] == ["0", "0"], name
    for name in ("Max open files", "Max processes", "Max data size", "Max cpu time"):
        soft, hard = limits[name]
        assert soft == hard != "unlimited", name


def test_the_report_says_so(cell, require):
    layers = {layer.name: layer for layer in cell().confinement}
    assert set(layers) >= {
        "user-namespace", "pid-namespace", "mount-namespace", "ipc-namespace", "uts-namespace",
        "network-namespace", "root", "capabilities", "no-new-privileges", "process", "rlimits",
        "descriptors", "environment", "seccomp", "landlock",
    }  # fmt: skip
    assert layers["clock"].status == "missing"  # no kernel walls it off
    for name, layer in layers.items():
        assert layer.detail
        if name not in ("landlock", "cgroup", "clock"):
            assert layer.status == "enforced", name
    require("landlock")
    assert layers["landlock"].status in ("enforced", "partial")
