"""The `pyisolate` command: what it prints, and what its exit status tells."""

import hashlib
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

import pyisolate
from cells import PATIENCE, children, until
from command import MODULE, SCRIPT, call, lines, script_runner


@pytest.fixture
def run(require, tmp_path):
    require("userns", "seccomp")
    return script_runner(tmp_path)


# --- what comes out -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["python -m", "script"])
def test_prints_and_posts_go_to_stdout_and_the_rest_to_stderr(run, command):
    done = run(
        """
import sys
print("hello")
print("oops", file=sys.stderr)
post({"answer": 42, "why": None})
log("warning", "odd rows", rows=3, why="NA")
metric("rows", 344, {"table": "penguins"})
metric("ratio", 0.5)
print("bye")
""",
        "--import",
        "sys",
        command=command,
    )
    assert done.stdout == "hello\n{'answer': 42, 'why': None}\nbye\n"
    assert done.stderr == (
        "oops\nwarning odd rows rows=3 why='NA'\nmetric rows=344 table='penguins'\n"
        "metric ratio=0.5\n"
    )
    assert done.returncode == 0


@pytest.mark.usefixtures("run")
def test_a_script_comes_from_stdin():
    done = call("run", "-", input="post(6 * 7)")
    assert (done.stdout, done.stderr, done.returncode) == ("42\n", "", 0)
    done = call("run", "-", input="1 / 0")
    assert 'File "<stdin>", line 1' in done.stderr


def test_inputs_arrive_in_order_before_the_script_begins(run, tmp_path):
    contents = {"a.csv": b"x,y\n1,2\n", "empty": b"", "large.bin": os.urandom(300_000)}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    flags = [word for name in contents for word in ("--input", tmp_path / name)]
    done = run(
        """
import hashlib
while True:
    try:
        item = recv(timeout=0)
    except TimeoutError:
        break
    post((item["name"], len(item["data"]), hashlib.sha256(item["data"]).hexdigest()))
""",
        "--import",
        "hashlib",
        "--json",
        *flags,
    )
    events, _ = lines(done)
    assert [event["value"] for event in events] == [
        [name, len(data), hashlib.sha256(data).hexdigest()] for name, data in contents.items()
    ]


def test_an_input_can_be_stdin(run):
    done = run("post(recv())", "--input", "-", input="from outside")
    assert done.stdout == "{'name': '<stdin>', 'data': b'from outside'}\n"


def test_many_small_inputs(run, tmp_path):
    (tmp_path / "x").write_bytes(b"x" * 1000)
    done = run(
        "post(sum(len(recv()['data']) for _ in range(500)))", *["--input", tmp_path / "x"] * 500
    )
    assert (done.stdout, done.stderr) == ("500000\n", "")


@pytest.mark.usefixtures("run")
def test_a_terminal_is_not_commanded_by_the_guest():
    near, far = pty.openpty()
    source = (
        "print('\\x1b]0;owned\\x07')\nlog('info', '\\x9b31m', a='\\x1b')\nraise OSError('\\x1b')"
    )
    with subprocess.Popen(
        [*MODULE, "run", "-"], stdin=subprocess.PIPE, stdout=far, stderr=far
    ) as running:
        running.communicate(source.encode(), timeout=PATIENCE)
    os.close(far)
    shown = b""
    while select.select([near], [], [], 1)[0]:
        try:
            shown += os.read(near, 4096)
        except OSError:
            break  # nobody holds the other end any more
    os.close(near)
    assert b"\\x1b]0;owned\\x07" in shown
    assert b"\\x9b31m" in shown
    assert b"OSError: \\x1b" in shown
    assert not set(shown) & {0x1B, 0x07, 0x9B}


# --- how it ends ----------------------------------------------------------------------------------


def test_a_guest_error_prints_its_traceback(run):
    done = run("post(1)\ndef f(x):\n    return 1 / x\nf(0)\npost(2)")
    assert done.stdout == "1\n"
    first, *middle, last = done.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert middle[0].endswith('script.py", line 4, in <module>')
    assert "    return 1 / x" in middle
    assert last == "ZeroDivisionError: division by zero"
    assert done.returncode == 1
    [_, error], end = lines(run("post(1)\n1 / 0", "--json"))
    assert error["status"] == end["status"] == "guest"
    assert error["exception"] == "ZeroDivisionError"
    assert error["message"] == "ZeroDivisionError: division by zero"
    assert error["traceback"].startswith("Traceback")


def test_a_syntax_error_is_the_guests(run):
    done = run("def f(:")
    assert done.stderr.endswith("SyntaxError: invalid syntax\n")
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("code", "status"), [("", 0), ("0", 0), ("None", 0), ("3", 1), ("'bad input'", 1)]
)
def test_a_script_may_end_itself(run, code, status):
    done = run(f"raise SystemExit({code})")
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert (done.stderr == "") == (status == 0)


def test_a_refused_import_names_the_flag(run):
    done = run("import json.decoder")
    assert "ImportDenied" in done.stderr
    assert done.stderr.endswith("pyisolate: to allow it: --import json\n")
    assert done.returncode == 3
    assert run("import json.decoder", "--import", "json").returncode == 0


def test_a_refused_request_is_policy(run):
    done = run("request('files', 'open')")
    assert "CapabilityDenied" in done.stderr
    assert "pyisolate: refused files.open" in done.stderr
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("source", "flags", "limit"),
    [
        ("while True: pass", ["--limit", "wall_time_ms=300"], "wall_time_ms=300"),
        ("while True: pass", ["--timeout", "0.3"], "wall_time_ms=300"),
        ("recv()", ["--timeout", "300ms"], "wall_time_ms=300"),
        ("while True: pass", ["--limit", "cpu_ms=0.3s"], "cpu_ms=300"),
        ("x = bytearray(10**9)", ["--limit", "mem_bytes=64MiB"], "mem_bytes=64MiB"),
        ("while True: print('x' * 99)", ["--limit", "output_bytes_max=10KiB"], "output_bytes_max"),
    ],
)
def test_a_limit_is_named_with_how_to_raise_it(run, source, flags, limit):
    done = run("post('before')\n" + source, *flags)
    assert done.stdout.startswith("'before'\n")
    assert f"pyisolate: the script used up {limit}" in done.stderr
    assert "to allow more: --limit " in done.stderr
    assert done.returncode == 4


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import os\npost(1)\nos._exit(0)", "exit status 0"),
        ("import ctypes\npost(1)\nctypes.string_at(0)", "segmentation fault"),
    ],
)
def test_a_cell_that_dies_is_told_from_a_script_that_ends(run, source, why):
    done = run(source, "--import", "os,ctypes")
    assert done.stdout == "1\n"
    assert why in done.stderr
    assert done.returncode == 5


def test_a_thread_that_outlives_the_script_ends_with_it(run):
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=[60]).start()"
    done = run(source + "\npost('end')", "--import", "threading,time")
    assert (done.stdout, done.stderr, done.returncode) == ("'end'\n", "", 0)


@pytest.mark.usefixtures("run")
def test_stdout_that_nobody_reads_ends_the_run():
    with subprocess.Popen(
        [*MODULE, "run", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        running.stdin.write("while True: print('y')")
        running.stdin.close()
        assert running.stdout.readline() == "y\n"
        running.stdout.close()
        assert running.wait(PATIENCE) == 141
        assert running.stderr.read() == ""


@pytest.mark.usefixtures("run")
def test_full_disks_are_reported():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*MODULE, "run", "-"],
            input="post(1)",
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.stderr.startswith("pyisolate: cannot write to stdout: No space left")
    assert done.returncode == 6


@pytest.mark.usefixtures("run")
def test_ctrl_c_ends_the_command_and_its_cell():
    with subprocess.Popen(
        [*MODULE, "run", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        running.stdin.write("print('up')\nwhile True: pass")
        running.stdin.close()
        assert running.stdout.readline() == "up\n"
        below = descendants(running.pid)
        assert len(below) >= 2
        running.send_signal(signal.SIGINT)
        start = time.monotonic()
        assert running.wait(PATIENCE) == -signal.SIGINT
        assert time.monotonic() - start < 5
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below))


def descendants(pid):
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--bogus"], "unexpected argument '--bogus'"),
        (["--backend", "docker"], "invalid value 'docker'"),
        (["--limit", "mem=1GiB"], "did you mean 'mem_bytes'?"),
        (["--limit", "mem_bytes"], "NAME=VALUE"),
        (["--limit", "mem_bytes=5s"], "is not a size"),
        (["--limit", "mem_bytes=1"], "mem_bytes=1 is outside"),
        (["--timeout", "soon"], "is not a time"),
        (["--timeout", "1", "--limit", "wall_time_ms=1s"], "are the same"),
        (["--import", "not a name"], "not a dotted module name"),
        (["--input", "/nonexistent"], "cannot read /nonexistent"),
        (["--input", "/dev/zero", "--limit", "message_bytes_max=1MiB"], "too long for an input"),
        (["--input", "-", "--input", "-"], "`-` is given twice"),
    ],
)
def test_a_command_line_that_makes_no_sense_runs_nothing(run, flags, why):
    done = run("post(1)", *flags)
    assert why in done.stderr
    assert done.stdout == ""
    assert done.returncode == 2


def test_scripts_that_cannot_be_read(tmp_path):
    done = call("run", tmp_path / "missing.py")
    assert "missing.py: No such file" in done.stderr
    assert done.returncode == 2
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    done = call("run", tmp_path / "latin.py")
    assert "not UTF-8: see byte 5" in done.stderr
    assert done.returncode == 2
    done = call("run", b"\xff.py")
    assert "cannot read" in done.stderr
    assert done.returncode == 2


def test_trouble_before_the_start_is_json_too(run):
    done = run("post(1)", "--json", "--input", "/nonexistent")
    [error], end = lines(done)
    assert error["status"] == end["status"] == "usage"
    assert "/nonexistent" in error["message"]
    assert end["stats"] is None


def test_a_machine_without_an_image_says_how_to_make_one(run, tmp_path):
    nowhere = {**os.environ, "PYISOLATE_CACHE": str(tmp_path / "cache")}
    done = run("post(1)", "--backend", "microvm", env=nowhere)
    assert done.stderr.startswith("pyisolate: there is no image")
    assert "pyisolate image build" in done.stderr
    assert (done.stdout, done.returncode) == ("", 6)


def test_a_script_runs_in_a_sub_interpreter(run):
    done = run("import threading\nthreading.Thread()", "--backend", "subinterpreter")
    assert "allowed_imports" in done.stderr
    done = run("print(6 * 7)", "--backend", "subinterpreter")
    assert (done.stdout, done.stderr, done.returncode) == ("42\n", "", 0)


@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["python -m", "script"])
def test_version_and_help(command):
    done = call("--version", command=command)
    assert (done.stdout, done.returncode) == (f"pyisolate {pyisolate.__version__}\n", 0)
    done = call("--help", command=command)
    assert "Usage: pyisolate <COMMAND>" in done.stdout
    assert done.returncode == 0
    done = call("run", "--help", command=command)
    for word in ("Examples:", "Exit status:", "--input", "--limit", "mem_bytes=512MiB", "recv("):
        assert word in done.stdout
    assert done.returncode == 0
    assert call(command=command).returncode == 2


def test_the_help_is_within_a_terminals_width():
    done = call("run", "--help", env={**os.environ, "COLUMNS": "100"})
    assert max(map(len, done.stdout.splitlines())) <= 100
