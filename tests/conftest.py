"""Fixtures for all tests: a supervisor, cells, and what to do where the kernel lacks a feature."""

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

import pyisolate
from cells import assert_serves
from machines import image

_SYS_LANDLOCK_CREATE_RULESET = 444  # the same number on every architecture
_LANDLOCK_CREATE_RULESET_VERSION = 1


def _has_landlock() -> bool:
    call = ctypes.CDLL(None).syscall
    return call(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION) > 0


def _has_seccomp() -> bool:
    return "\nSeccomp:" in Path("/proc/self/status").read_text()


def _has_userns() -> bool:
    source = "import os; os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWUTS)"
    command = [sys.executable, "-I", "-S", "-c", source]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _has_cgroup() -> bool:
    folder = Path("/sys/fs/cgroup")
    return any(os.access(path, os.W_OK) for path in (folder, folder / "memory"))


def _has_qemu() -> bool:
    return any(map(shutil.which, ("qemu-system-x86_64", "qemu-system-aarch64")))


_PROBES: dict[str, Callable[[], bool]] = {
    "landlock": _has_landlock,
    "seccomp": _has_seccomp,
    "userns": _has_userns,
    "cgroup": _has_cgroup,
    "qemu": _has_qemu,
}
_found: dict[str, bool] = {}


def missing(feature: str, why: str) -> NoReturn:
    """End the test: the host lacks `feature`. A skip, unless `PYISOLATE_REQUIRE` lists it."""
    required = os.environ.get("PYISOLATE_REQUIRE", "").split(",")
    if feature in (name.strip() for name in required):
        pytest.fail(f"PYISOLATE_REQUIRE lists {feature}: {why}")
    pytest.skip(f"{feature}: {why}")


def require(*features: str) -> None:
    """End the test, as `missing` does, if this host lacks one of the features."""
    for feature in features:
        if feature not in _found:
            _found[feature] = _PROBES[feature]()
        if not _found[feature]:
            missing(feature, f"this host lacks {feature}")


@pytest.fixture(scope="session", name="require")
def require_fixture() -> Callable[..., None]:
    """`require("landlock")`: go on only where the host has it."""
    return require


@pytest.fixture(scope="session")
def supervisor() -> Iterator[pyisolate.Supervisor]:
    """A supervisor that all tests share."""
    require("userns", "seccomp")
    with pyisolate.Supervisor() as shared:
        yield shared


_names = (f"cell-{number}" for number in itertools.count(1))


@pytest.fixture
def cell(supervisor: pyisolate.Supervisor) -> Iterator[Callable[..., pyisolate.Cell]]:
    """`cell(**options)`: makes a cell with a name of its own, closed after the test."""
    made = []

    def make(**options: object) -> pyisolate.Cell:
        made.append(supervisor.spawn(next(_names), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache with an image of numpy: the environment's, if that has one, else a new one."""
    require("qemu", "userns", "seccomp")
    given = os.environ.get("PYISOLATE_CACHE")
    if given and (Path(given) / "names" / "default").is_file():
        yield Path(given)
        return
    folder = tmp_path_factory.mktemp("machines")
    folder.chmod(0o700)
    built = image(folder, "build", "--package", "numpy")
    if "no kernel:" in built.stderr:
        missing("qemu", built.stderr.strip().splitlines()[-1])
    assert built.returncode == 0, built.stderr
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def machines(image_cache: Path) -> Iterator[Path]:
    """For a module's tests, cells in virtual machines: of that image, and by emulation."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYISOLATE_CACHE", str(image_cache))
        environment.setenv("PYISOLATE_MICROVM_ACCEL", "tcg")
        environment.delenv("PYISOLATE_MICROVM_IMAGE", raising=False)
        environment.delenv("PYISOLATE_MICROVM_MEMORY", raising=False)
        yield image_cache


@pytest.fixture
def still_serves(supervisor: pyisolate.Supervisor) -> Callable[[], None]:
    """`still_serves()`: the shared supervisor still makes cells that work."""
    return lambda: assert_serves(supervisor)
