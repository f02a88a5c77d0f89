"""`pyisolate attack` tells what holds; and of what does not, that it does not."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import require
from pyisolate.attack import CLASSES, Attack, Case, Runner, cases
from pyisolate.attack.case import Attempt
from pyisolate.attack.runner import VERDICTS
from pyisolate.attack.suite import WALL

SOME = "read: io"


def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyisolate", "attack", *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        stdin=subprocess.DEVNULL,
        env=env,
    )


@pytest.fixture
def _cells() -> None:
    require("userns", "seccomp")


@pytest.mark.usefixtures("_cells")
def test_what_holds_is_told_by_class():
    done = run("-k", SOME)
    assert (done.returncode, done.stderr) == (0, "")
    header, row, *_ = done.stdout.splitlines()
    assert header.split(maxsplit=2)[:2] == ["class", "cases"]
    count = len([case for case in cases("process") if SOME in case.name])
    assert row.split() == ["files", str(count), str(count), "0", "0", "0"]
    assert f"process: {count} cases: {count} held, 0 leaked" in done.stdout


@pytest.mark.usefixtures("_cells")
def test_json_has_a_line_for_each_case_and_a_summary():
    done = run("-k", SOME, "--class", "files", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    *lines, end = map(json.loads, done.stdout.splitlines())
    assert [line["case"] for line in lines] == [
        case.name for case in cases("process") if SOME in case.name
    ]
    for line in lines:
        assert set(line) == {"case", "class", "verdict", "told", "control"}
        assert (line["class"], line["verdict"]) == ("files", "held")
        assert line["told"].startswith("ENOENT")
        assert line["control"]
    assert end.pop("seconds") >= 0
    numbers = dict.fromkeys(VERDICTS, 0) | {"held": len(lines)}
    assert end == {"backend": "process", "controls": True, **numbers}


@pytest.mark.usefixtures("_cells")
def test_without_a_wall_it_leaks():
    """The control of the command: what succeeds is told as such."""
    done = run("--backend", "none", "-k", SOME)
    assert done.returncode == 1
    assert "LEAKED files: read: io.open_code" in done.stdout
    assert "it took the planted secret" in done.stdout
    assert ": 0 held, " in done.stdout


@pytest.mark.usefixtures("_cells")
@pytest.mark.parametrize(
    "pattern", ["signal: raw kill", "exec: os.execv", "write: unlink", "sockets: AF_INET ", "x32 o"]
)
def test_every_kind_of_success_is_a_leak_without_a_wall(pattern: str):
    done = run("--backend", "none", "--no-controls", "-k", pattern, "--json")
    assert done.returncode == 1
    *lines, end = map(json.loads, done.stdout.splitlines())
    assert end["leaked"] > 0
    assert {line["verdict"] for line in lines} <= {"leaked", "not applicable"}
    assert end["held"] == end["unexpected"] == 0


@pytest.mark.usefixtures("_cells")
def test_that_no_controls_were_run_is_said_loudly():
    done = run("-k", "read: pathlib", "--no-controls")
    assert done.returncode == 0
    assert done.stdout.count("NO CONTROLS WERE RUN") == 2
    done = run("-k", "read: pathlib", "--no-controls", "--json")
    assert "NO CONTROLS WERE RUN" in done.stderr
    *lines, end = map(json.loads, done.stdout.splitlines())
    assert end["controls"] is False
    assert {line["control"] for line in lines} == {None}


def test_the_list_is_all_of_them():
    for backend in ("process", "subinterpreter"):
        done = run("--backend", backend, "--list", "--json")
        assert done.returncode == 0
        listed = [json.loads(line) for line in done.stdout.splitlines()]
        assert listed == [{"case": case.name, "class": case.kind} for case in cases(backend)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backend", "docker"], "docker"),
        (["--bakend", "process"], "--bakend"),
        (["-k", "no such case"], "--list"),
        (["--class", "no-such-class"], "no-such-class"),
        (["word"], "word"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_exit_status_2(words: list[str], said: str):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_backend_that_is_not_there_is_exit_status_6(tmp_path: Path):
    done = run(
        "--backend", "microvm", "-k", SOME, env={**os.environ, "PYISOLATE_CACHE": str(tmp_path)}
    )
    assert (done.returncode, done.stdout) == (6, "")
    assert "microvm" in done.stderr
    assert "pyisolate image build" in done.stderr


def test_the_help_says_how_and_what():
    done = run("--help")
    assert done.returncode == 0
    for word in ("--backend", "-k PATTERN", "--class", "--json", "--no-controls", "exit status"):
        assert word in done.stdout
    for name in CLASSES:
        assert f"\n  {name} " in done.stdout


# --- verdicts -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    require("userns", "seccomp")
    with Runner("process") as runner:
        yield runner


class Impatient(Attack):
    """An attack that may take a second."""

    def attempt(self) -> Attempt:
        return dataclasses.replace(super().attempt(), seconds=1)


READ = "return open(world['secret']).read()"


@pytest.mark.parametrize(
    ("attack", "verdict", "told"),
    [
        (Attack("own", READ, "ENOENT", loot=True), "held", "ENOENT"),
        (Attack("own", READ, "ENOSYS", loot=True), "unexpected", "not by ENOSYS"),
        (Attack("own", "return 'anything'", "EPERM"), "leaked", "anything"),
        (Attack("own", "ctypes.string_at(8)", "EPERM"), "unexpected", "segmentation fault"),
        (Attack("own", "raise SystemExit(0)", "EPERM"), "unexpected", "SystemExit"),
        (Impatient("own", "while True: pass", "EPERM"), "unexpected", "did not end in 1 s"),
        (
            Attack("own", "raise PermissionError(1, 'always')", "EPERM"),
            "not applicable",
            "without the wall either",
        ),
        (
            Attack("own", "raise PermissionError(1, 'always')", "EPERM", lacking="EPERM"),
            "not applicable",
            "this kernel answers EPERM to anybody",
        ),
        (
            Attack("own", READ, "ENOENT", cannot={"process": "of no use there"}),
            "not applicable",
            "of no use there",
        ),
    ],
)
def test_what_is_made_of_a_case(attack: Attack, verdict: str, told: str, runner: Runner):
    (result,) = runner.run([Case("files", attack.name, attack, WALL)])
    assert (result.verdict, told in result.told) == (verdict, True), result
    (after,) = runner.run([Case("files", "own", Attack("own", READ, "ENOENT", loot=True), WALL)])
    assert after.verdict == "held"


def test_what_touches_something_planted_is_a_leak(runner: Runner):
    plant = runner.stage.plant
    plant.victim.write_text("another")
    attack = Attack("own", READ, "ENOENT", loot=True)
    (result,) = runner.run([Case("files", "own", attack, WALL)])
    assert (result.verdict, "victim.txt" in result.told) == ("leaked", True), result
    assert plant.changes() == []
