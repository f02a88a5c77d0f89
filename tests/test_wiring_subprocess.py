"""Programs in a cell, by `subprocess` as it is: the policy's programs, as the policy has them."""

from collections.abc import Callable
from typing import Any

import pytest

import pyisolate
from cells import PATIENCE, run


@pytest.fixture
def outcome(cell: Callable[..., pyisolate.Cell]) -> Callable[[str], Any]:
    """What `result` is in a cell that may run a few programs, after this source."""
    policy = pyisolate.Policy().grant(
        pyisolate.Command("echo", args=["**"]),
        pyisolate.Command("cat"),
        pyisolate.Command("sh", args=["-c", "*"]),
        pyisolate.Command("sleep", args=["*"]),
        pyisolate.Command("false"),
        pyisolate.Command("no-such-program"),
    )
    guest = cell(policy=policy, allowed_imports=["io", "os", "subprocess"])

    def run_it(source: str) -> Any:
        run(guest, f"import io, os, subprocess\n{source}\npost(result)")
        return guest.recv(PATIENCE)

    return run_it


RUN = {
    "run": (
        "r = subprocess.run(['echo', 'hi'], capture_output=True)\n"
        "result = r.returncode, r.stdout, r.stderr, r.args",
        (0, b"hi\n", b"", ["echo", "hi"]),
    ),
    "text": (
        "result = subprocess.run(['echo', 'é'], capture_output=True, text=True).stdout",
        "é\n",
    ),
    "encoding": (
        "result = subprocess.check_output(['cat'], input='ü', encoding='utf-16')",
        "ü",
    ),
    "input": ("result = subprocess.check_output(['cat'], input=b'in')", b"in"),
    "no input": ("result = subprocess.check_output(['cat'], stdin=subprocess.DEVNULL)", b""),
    "a file as input": ("result = subprocess.check_output(['cat'], stdin=io.BytesIO(b'f'))", b"f"),
    "call": ("result = subprocess.call(['false'])", 1),
    "status": ("result = subprocess.run(['sh', '-c', 'exit 7']).returncode", 7),
    "a signal": ("result = subprocess.run(['sh', '-c', 'kill -15 $$']).returncode", -15),
    "check": (
        "try: subprocess.run(['sh', '-c', 'echo o; echo e >&2; exit 3'], check=True,"
        " capture_output=True)\n"
        "except subprocess.CalledProcessError as e: result = e.returncode, e.stdout, e.stderr",
        (3, b"o\n", b"e\n"),
    ),
    "check_call": (
        "try: subprocess.check_call(['false'])\n"
        "except subprocess.CalledProcessError as e: result = e.cmd",
        ["false"],
    ),
    "both in one": (
        "result = subprocess.check_output(['sh', '-c', 'echo o; echo e >&2'],"
        " stderr=subprocess.STDOUT)",
        b"o\ne\n",
    ),
    "a timeout": (
        "try: subprocess.run(['sleep', '60'], timeout=0.2)\n"
        "except subprocess.TimeoutExpired as e: result = e.cmd, e.timeout",
        (["sleep", "60"], 0.2),
    ),
    "communicate": (
        "with subprocess.Popen(['cat'], stdin=-1, stdout=-1) as p: result = p.communicate(b'x')",
        (b"x", None),
    ),
    "pipes": (
        "p = subprocess.Popen(['cat'], stdin=-1, stdout=-1, text=True)\n"
        "p.stdin.write('a\\nb\\n'); p.stdin.close(); result = list(p.stdout), p.wait(), p.poll()",
        (["a\n", "b\n"], 0, 0),
    ),
    "killed": ("p = subprocess.Popen(['sleep', '60']); p.kill(); result = p.wait()", -9),
    "into an object": (
        "b = io.BytesIO(); subprocess.run(['echo', 'b'], stdout=b); result = b.getvalue()",
        b"b\n",
    ),
    "into a descriptor": (
        "r, w = os.pipe(); subprocess.run(['echo', 'd'], stdout=w); result = os.read(r, 9)",
        b"d\n",
    ),
    "a bare name": ("result = subprocess.check_output('echo')", b"\n"),
    "its own environment": ("result = subprocess.call(['false'], env=dict(os.environ))", 1),
    "isinstance": (
        "p = subprocess.Popen(['false']); result = isinstance(p, subprocess.Popen), p.wait()",
        (True, 1),
    ),
    "commands": (
        "r = commands.run('cat', input='c'); result = r.returncode, r.text(), r.stderr",
        (0, "c", b""),
    ),
}


@pytest.mark.parametrize(("source", "expected"), RUN.values(), ids=RUN)
def test_granted_programs_run(outcome, source, expected):
    assert outcome(source) == expected


REFUSED = {
    "a shell": ("subprocess.run('echo hi', shell=True)", "shell"),
    "getoutput": ("subprocess.getoutput('echo hi')", "shell"),
    "os.system": ("os.system('echo hi')", "shell"),
    "os.popen": ("os.popen('echo hi')", "shell"),
    "an environment": ("subprocess.run(['echo'], env={'A': 'b'})", "env"),
    "a folder": ("subprocess.run(['echo'], cwd='/tmp')", "cwd"),
    "a function before it": ("subprocess.run(['echo'], preexec_fn=print)", "preexec_fn"),
    "another program": ("subprocess.run(['ls'])", "ls"),
    "other arguments": ("subprocess.run(['cat', '/etc/passwd'])", "cat"),
    "commands": ("commands.run('ls')", "ls"),
}


@pytest.mark.parametrize(("source", "named"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_granted_is_refused_clearly(outcome, source, named):
    assert named in outcome(f"try: {source}\nexcept PermissionError as error: result = str(error)")


def test_a_denial_is_recorded_and_names_the_grant(cell):
    guest = cell(policy=pyisolate.Policy(), allowed_imports=["subprocess"])
    with pytest.raises(pyisolate.PolicyError, match="subprocess"):
        run(guest, "import subprocess; subprocess.run(['ls', '-l'])")
    assert [event.capability for event in guest.denials] == ["subprocess"]


def test_a_granted_program_that_is_not_there(outcome):
    told = outcome(
        "try: subprocess.run(['no-such-program'])\n"
        "except FileNotFoundError as error: result = error.errno, error.filename"
    )
    assert told == (2, "no-such-program")


def test_its_output_is_the_cells_output(cell):
    policy = pyisolate.Policy().grant(pyisolate.Command("echo", args=["**"]))
    guest = cell(policy=policy, allowed_imports=["subprocess"])
    run(guest, "import subprocess; subprocess.run(['echo', 'shown'])")
    event = guest.recv(PATIENCE)
    assert (event.message, event.fields) == ("shown", {"stream": "stdout"})
