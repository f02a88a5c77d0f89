"""What the README shows is what happens."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    (match[1], match[2], README[: match.start()].count("\n") + 1)
    for match in BLOCK.finditer(README)
]
PATIENCE = 250
"""How long an example may take, in seconds: one runs the whole conformance suite."""
PYTHON = [(source, line) for language, source, line in BLOCKS if language == "python"]


def heading(line):
    """The heading above a line of the README: the name of its example."""
    above = [text for text in README.splitlines()[:line] if text.startswith("#")]
    return f"{line}: {above[-1].lstrip('# ')}"


def test_there_are_examples():
    assert len(PYTHON) >= 6
    assert sum("#> " in source for source, _ in PYTHON) >= 5


@pytest.mark.parametrize(("source", "line"), PYTHON, ids=[heading(line) for _, line in PYTHON])
def test_an_example_runs_and_prints_what_it_says(source, line, tmp_path):
    script = tmp_path / "example.py"
    # The example keeps its place in the README, so that a traceback's line numbers are its own.
    script.write_text("\n" * line + source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"README.md, line {line}:\n{done.stdout}{done.stderr}"
    assert done.stderr == ""
    expected = re.findall(r"^ *#> (.*)$", source, re.MULTILINE)
    if expected:
        assert done.stdout.splitlines() == expected


def test_the_first_two_commands_exist():
    language, source, _ = BLOCKS[0]
    assert language == "sh"
    commands = [line.partition("#")[0].split() for line in source.splitlines()]
    assert commands == [["cargo", "xtask", "demo"], ["cargo", "xtask", "test"]]
    cargo = os.environ.get("CARGO") or shutil.which("cargo")
    if cargo is None:
        pytest.skip("cargo is not installed")
    for _, *chore in commands:
        done = subprocess.run(
            [cargo, *chore, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"cargo xtask {chore[-1]}" in done.stdout


def test_links_within_the_repository_lead_somewhere():
    for paper in ROOT.glob("*.md"):
        targets = re.findall(r"\]\(([^)#]+)", paper.read_text(encoding="utf-8"))
        missing = [it for it in targets if "://" not in it and not (ROOT / it).exists()]
        assert missing == [], paper.name


def test_no_performance_figure_is_typed_into_the_readme():
    figure = re.compile(r"\d\s*(µs|us|ms|GB/s|GiB/s|messages/s|cells/s)\b")
    assert figure.findall(README) == []
