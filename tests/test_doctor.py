"""`pyisolate doctor` tries what a host gives, and says what it lacks and how to get it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import missing

DOCTOR = [sys.executable, "-m", "pyisolate", "doctor"]
WITHOUT_GROUPS = ["unshare", "-m", "sh", "-c", 'umount -l -R /sys/fs/cgroup; exec "$@"', "sh"]
"""Runs a command where no control group is mounted."""


@pytest.fixture(autouse=True)
def _no_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an image nothing is booted."""
    monkeypatch.setenv("PYISOLATE_CACHE", str(tmp_path / "cache"))


def doctor(*flags: str, within: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [*(within or []), *DOCTOR, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def examined(*flags: str, within: list[str] | None = None) -> tuple[int, dict[str, Any]]:
    """Its exit status and its JSON."""
    ended = doctor("--json", *flags, within=within)
    assert ended.stderr == ""
    return ended.returncode, json.loads(ended.stdout)


def test_ten_points(require):
    require("userns", "seccomp", "landlock", "cgroup")
    status, found = examined("--least", "10", "--require", "hardened")
    lost = [point for point in found["points"] if not point["held"]]
    assert not lost
    assert (status, found["passed"], found["grade"], found["lacking"]) == (0, True, 10, [])
    assert len(found["points"]) == 10
    assert all(point["detail"] for point in found["points"])
    assert {row["name"]: row["works"] for row in found["backends"]} == {
        "process": True,
        "subinterpreter": True,
        "microvm": False,
    }
    lacking = {part["name"]: part["remedy"] for part in found["microvm"] if not part["held"]}
    assert lacking["image"] == "pyisolate image build"
    layers = {row["name"]: row["status"] for row in found["confinement"]["layers"]}
    assert layers["cgroup"] == layers["seccomp"] == "enforced"


def test_a_lost_point_has_its_remedy(require):
    require("userns", "seccomp")
    if os.geteuid() != 0:
        missing("root", "only root takes mounts away")
    status, found = examined("--require", "cgroup", within=WITHOUT_GROUPS)
    [lost] = [point for point in found["points"] if not point["held"]]
    assert lost["name"] == "whole-cell"
    assert "Delegate=yes" in lost["remedy"]
    assert "no control group" in lost["detail"]
    assert (status, found["passed"], found["grade"]) == (1, False, 9)
    assert found["lacking"][0].startswith("cgroup")
    assert examined(within=WITHOUT_GROUPS)[0] == 0, "cells work there by what is left"
    assert examined("--least", "10", within=WITHOUT_GROUPS)[0] == 1


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_machine_is_tried(image_cache, monkeypatch):
    monkeypatch.setenv("PYISOLATE_CACHE", str(image_cache))
    monkeypatch.setenv("PYISOLATE_MICROVM_ACCEL", "tcg")
    status, found = examined()
    parts = {part["name"]: part for part in found["microvm"]}
    assert list(parts) == ["qemu", "image", "kernel", "kvm", "emulation"]
    for name, said in [("qemu", "QEMU "), ("kernel", "Linux "), ("emulation", "a cell answered")]:
        assert parts[name]["held"], parts[name]
        assert said in parts[name]["detail"]
    assert parts["image"]["held"], parts["image"]
    assert parts["kvm"]["held"] or parts["kvm"]["remedy"]
    [row] = [row for row in found["backends"] if row["name"] == "microvm"]
    assert row["works"], row
    assert "no boundary" in row["detail"]
    # Emulation counts for nothing.
    assert ("machine" in [point["name"] for point in found["points"]]) == parts["kvm"]["held"]
    assert status == 0


def test_no_monitor_has_its_remedy(require, monkeypatch, tmp_path):
    require("userns", "seccomp")
    monkeypatch.setenv("PYISOLATE_QEMU", str(tmp_path / "qemu"))
    _, found = examined()
    parts = {part["name"]: part for part in found["microvm"]}
    assert not parts["qemu"]["held"]
    assert "qemu-system-x86" in parts["qemu"]["remedy"]
    assert not parts["emulation"]["held"]


def test_the_table(require):
    require("userns", "seccomp")
    ended = doctor()
    assert ended.returncode == 0, ended.stdout
    assert "Grade: " in ended.stdout
    assert "require=default: holds" in ended.stdout
    for name in ("cells", "network", "whole-cell", "user-namespace", "microvm"):
        assert name in ended.stdout
    assert Path(sys.prefix, "bin/pyisolate-doctor").exists()


@pytest.mark.parametrize("flags", [["--least", "12"], ["--require", "walls"], ["--wat"]])
def test_what_makes_no_sense(flags):
    ended = doctor(*flags)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert flags[0] in ended.stderr
