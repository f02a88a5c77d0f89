"""The `pyisolate` command, run as its users run it."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

from cells import PATIENCE

MODULE = (sys.executable, "-m", "pyisolate")
SCRIPT = (str(Path(sysconfig.get_path("scripts"), "pyisolate")),)


def call(*words, command=MODULE, **options):
    """Run the command. Returns the finished process."""
    return subprocess.run(
        [*command, *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
        **({"stdin": subprocess.DEVNULL} if "input" not in options else {}),
        **options,
    )


def lines(done):
    """The events of a run with --json. The last one is its end."""
    *events, end = map(json.loads, done.stdout.splitlines())
    assert end.pop("type") == "done"
    assert end["exit_status"] == done.returncode
    assert done.stderr == ""
    return events, end


def script_runner(folder):
    """`run(source, *flags)`: runs source text as a script file in `folder`."""

    def run(source, *flags, command=MODULE, **options):
        script = folder / "script.py"
        script.write_text(source, encoding="utf-8")
        return call("run", script, *flags, command=command, **options)

    return run
