"""`pyisolate image`: real images, built as users build them."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cells import PATIENCE
from command import MODULE
from conftest import missing
from machines import image


def answer(done, status=0):
    """The object of JSON that a command printed."""
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache with an image of numpy, called `default`."""
    folder = tmp_path_factory.mktemp("images")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        missing("apt", "no apt-get to fetch a kernel with")
    done = image(folder, "build", "--package", "numpy")
    if "no kernel:" in done.stderr:
        missing("apt", done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def built(cache):
    (listed,) = answer(image(cache, "list", "--json"))["images"]
    return listed


def archived(built):
    """The names in the image's file tree."""
    names = set()
    with Path(built["initramfs"]).open("rb") as archive:
        while header := archive.read(110):
            size, length = int(header[54:62], 16), int(header[94:102], 16)
            names.add(archive.read(length)[:-1].decode())
            archive.seek(-(110 + length) % 4, os.SEEK_CUR)
            archive.seek(size + -size % 4, os.SEEK_CUR)
            if "TRAILER!!!" in names:
                return names
    raise AssertionError("the archive has no end")


def test_it_has_the_interpreter_numpy_and_the_modules_of_its_line(built):
    names = archived(built)
    assert {"init", "python/bin/python3", "pyisolate/_core.abi3.so", "dev/console"} <= names
    assert any(name.startswith("packages/0/numpy.libs/") for name in names)
    assert any(name.startswith("packages/0/numpy/__pycache__/__init__.") for name in names)
    assert not any(name.startswith("packages/0/pytest") for name in names)
    library = next(name for name in names if name.endswith("/json/__init__.py")).split("/json/")[0]
    assert not {f"{library}/test", f"{library}/idlelib", f"{library}/site-packages"} & names
    manifest = built["manifest"]
    modules = [path.rsplit("/", 1)[1] for path in manifest["modules"]]
    assert modules[-2:] == ["virtio_mmio.ko", "virtio_console.ko"]
    assert modules.index("virtio.ko") < modules.index("virtio_mmio.ko")
    assert {path[1:] for path in manifest["modules"]} <= names
    assert manifest["kernel_release"] in manifest["modules"][0]
    assert "numpy" in [package["name"] for package in manifest["packages"]]


def test_built_again_it_is_the_same(cache, built, tmp_path):
    # Another cache, whose kernel is the fetched one: nothing of the first is at hand.
    again = tmp_path / "again"
    again.mkdir(mode=0o700)
    shutil.copytree(cache / "kernels", again / "kernels")
    done = image(again, "build", "--package", "numpy", "--name", "other", "--json")
    assert answer(done)["hash"] == built["hash"]
    assert "fetching" not in done.stderr
    assert "compiling" in done.stderr


def test_it_is_listed_and_verified(cache, built):
    done = image(cache, "list")
    assert done.stdout.startswith(built["hash"][:12])
    assert "default" in done.stdout
    assert answer(image(cache, "verify", "--json"))["ok"]
    assert image(cache, "verify", built["hash"][:8]).stdout == f"ok {built['hash']}\n"


def test_a_changed_byte_is_found(cache, built, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(cache, copy)
    path = copy / "images" / built["hash"] / "initramfs"
    with path.open("r+b") as archive:
        archive.seek(1_000_000)
        (byte,) = archive.read(1)
        archive.seek(1_000_000)
        archive.write(bytes([byte ^ 1]))
    done = image(copy, "verify")
    assert done.returncode == 1
    assert done.stdout.startswith("DAMAGED")
    assert image(cache, "verify").returncode == 0


def test_a_killed_build_leaves_nothing_that_is_used(cache, tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir(mode=0o700)
    shutil.copytree(cache / "kernels", folder / "kernels")
    with subprocess.Popen(
        [*MODULE, "image", "build"],
        env={**os.environ, "PYISOLATE_CACHE": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as building:
        deadline = time.monotonic() + PATIENCE
        while "compiling" not in building.stderr.readline():
            assert time.monotonic() < deadline
        building.send_signal(signal.SIGKILL)
        building.wait(PATIENCE)
    assert (folder / "building").exists()
    assert answer(image(folder, "list", "--json"))["images"] == []
    assert answer(image(folder, "build", "--json"))["names"] == ["default"]
    assert not (folder / "building").exists()


def test_it_is_removed_by_name(cache, built, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(cache, copy)
    assert answer(image(copy, "rm", "default", "--json"))["hash"] == built["hash"]
    assert answer(image(copy, "list", "--json"))["images"] == []
    done = image(copy, "rm", "default")
    assert done.returncode == 2
    assert "pyisolate image build" in done.stderr


def test_a_cache_that_others_can_write_is_refused(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    done = image(folder, "list")
    assert done.returncode == 6
    assert "chmod go-w" in done.stderr


def test_a_package_that_is_not_there_is_named_with_how_to_have_it(tmp_path):
    done = image(tmp_path / "cache", "build", "--package", "no-such-package")
    assert done.returncode == 6
    assert "no-such-package is not installed" in done.stderr
    assert "pip install" in done.stderr


def test_an_editable_project_is_refused(tmp_path):
    # This project itself, as its own set-up installs it.
    done = image(tmp_path / "cache", "build", "--package", "pyisolate")
    assert done.returncode == 6
    assert "without -e" in done.stderr


def test_without_apt_the_error_names_the_flag(tmp_path):
    environment = {**os.environ, "PYISOLATE_CACHE": str(tmp_path / "cache"), "PATH": str(tmp_path)}
    done = subprocess.run(
        [*MODULE, "image", "build"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 6
    assert "apt-cache" in done.stderr
    assert "--kernel PATH [--modules DIR]" in done.stderr


def test_a_kernel_of_ones_own(cache, built, tmp_path):
    # Without modules: all is taken to be built in.
    folder = tmp_path / "own"
    done = image(folder, "build", "--kernel", built["kernel"], "--json")
    manifest = answer(done)["manifest"]
    assert manifest["modules"] == []
    assert manifest["kernel"] == built["manifest"]["kernel"]
    if os.uname().machine == "x86_64":
        assert manifest["kernel_release"] == built["manifest"]["kernel_release"]
    done = image(folder, "build", "--kernel", built["kernel"], "--modules", "/nowhere")
    assert done.returncode == 6
    assert "/nowhere" in done.stderr
