"""The demo: real work, and three hostile scripts that get nowhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"


def demo(*flags, **options):
    return subprocess.run(
        [sys.executable, "-W", "error", DEMO, *flags],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        **options,
    )


def test_everything_holds(require, tmp_path):
    require("userns", "seccomp", "landlock")
    done = demo(cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    assert "BROKEN" not in done.stdout
    assert "344 penguins" in done.stdout
    for species, count in [("Adelie", "152"), ("Chinstrap", "68"), ("Gentoo", "124")]:
        [row] = [line for line in done.stdout.splitlines() if line.strip().startswith(species)]
        assert row.split()[1] == count
    named = ("root: not in", "seccomp: system call", "landlock", "policy: no rule", "pid-namespace")
    for layer in named:
        assert layer in done.stdout
    assert "0 from the cell" in done.stdout
    assert done.stdout.rstrip().endswith("checks held.")


def test_everything_holds_in_a_sub_interpreter(require, tmp_path):
    require("seccomp", "landlock")
    done = demo("--backend", "subinterpreter", cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    assert "BROKEN" not in done.stdout
    assert "guard: not in a sub-interpreter" in done.stdout
    assert done.stdout.rstrip().endswith("checks held.")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("machines")
def test_everything_holds_in_a_virtual_machine(require, tmp_path):
    require("landlock")
    done = demo("--backend", "microvm", "--accel", "tcg", cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    assert "BROKEN" not in done.stdout
    assert "virtual-machine" in done.stdout
    assert done.stdout.rstrip().endswith("checks held.")


def test_nothing_is_left_behind(require, tmp_path):
    require("userns", "seccomp")
    done = demo(env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("backend", "why"), [("microvm", "pyisolate image build"), ("docker", "unknown backend")]
)
def test_a_backend_that_is_not_there_is_refused_clearly(backend, why, tmp_path):
    done = demo("--backend", backend, env={**os.environ, "PYISOLATE_CACHE": str(tmp_path)})
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr
