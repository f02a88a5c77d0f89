"""Scratch files: private, in memory, bounded, off unless asked for, gone with their cell."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, death_of, run
from conftest import missing

IMPORTS = ["errno", "os", "pathlib", "shutil", "tempfile"]
MIB = 1 << 20


@pytest.fixture(scope="module", params=["process", "subinterpreter"])
def supervisor(request: pytest.FixtureRequest, require) -> Iterator[pyisolate.Supervisor]:
    """A supervisor of each backend, where this process may make file systems."""
    require("userns", "seccomp")
    if os.geteuid() != 0:
        missing("root", "only root makes a file system in memory")
    with pyisolate.Supervisor(backend=request.param) as made:
        yield made


def scratch(supervisor: pyisolate.Supervisor, name: str, size: int = MIB, **more: Any) -> Any:
    """A cell with scratch files."""
    return supervisor.spawn(name, scratch_bytes=size, allowed_imports=IMPORTS, **more)


def told(cell: pyisolate.Cell, source: str) -> Any:
    """What source text posts."""
    run(cell, source)
    return cell.recv(PATIENCE)


def names_in(folder: str | Path) -> list[str]:
    """The names in a folder of the host's, sorted."""
    return sorted(path.name for path in Path(folder).iterdir())


def test_ordinary_code_has_files(supervisor):
    with scratch(supervisor, "files") as cell:
        assert told(
            cell,
            """if True:
            import os, pathlib, shutil, tempfile
            folder = pathlib.Path("/tmp/work")
            folder.mkdir()
            (folder / "a.txt").write_text("a")
            with open("/tmp/work/a.txt", "a") as file: file.write("b")
            os.replace("/tmp/work/a.txt", "/tmp/b.txt")
            shutil.copy("/tmp/b.txt", folder / "c.txt")
            with tempfile.TemporaryDirectory() as made:
                pathlib.Path(made, "x").write_bytes(bytes(1000))
            with tempfile.NamedTemporaryFile() as named:
                named.write(b"text")
                named.seek(0)
                back = named.read()
            shutil.rmtree(folder)
            post((sorted(os.listdir("/tmp")), open("/tmp/b.txt").read(), back))
            """,
        ) == (["b.txt"], "ab", b"text")
        assert not Path("/tmp/b.txt").exists()


def test_they_are_full_at_the_limit(supervisor):
    with scratch(supervisor, "full") as cell:
        assert told(
            cell,
            """if True:
            import errno, os
            try:
                with open("/tmp/big", "wb") as file:
                    for _ in range(64): file.write(bytes(1 << 16))
            except OSError as error:
                post((error.errno == errno.ENOSPC, os.stat("/tmp/big").st_size <= 1 << 20))
            os.remove("/tmp/big")
            """,
        ) == (True, True)
        many = told(
            cell,
            """if True:
            made = 0
            try:
                for number in range(10_000):
                    open(f"/tmp/{number}", "w").close()
                    made += 1
            except OSError: pass
            post(made)
            """,
        )
        assert 100 < many < 1000
        assert told(cell, "os.remove('/tmp/1'); open('/tmp/x', 'w').close(); post(1)") == 1


def test_they_count_as_memory(supervisor):
    cell = scratch(supervisor, "counted", 256 * MIB, mem_bytes=64 * MIB)
    cell.exec("with open('/tmp/x', 'wb') as file:\n    while True: file.write(bytes(1 << 20))")
    died = death_of(cell)
    assert isinstance(died, pyisolate.MemoryExceeded)
    assert died.reached >= died.allowed == 64 * MIB
    assert_serves(supervisor)


def test_they_are_private(supervisor, tmp_path):
    planted = Path("/tmp") / f"planted-{os.getpid()}"
    planted.write_text("the host's")
    try:
        with scratch(supervisor, "one") as one, scratch(supervisor, "other") as other:
            run(one, "open('/tmp/mine', 'w').write('x')")
            for cell, names in ((one, ["mine"]), (other, [])):
                assert told(cell, "import os; post(os.listdir('/tmp'))") == names
            for path in (planted, "/tmp/mine"):
                told_so = told(
                    other,
                    f"try: post(open({str(path)!r}).read())\n"
                    "except OSError as error: post(type(error).__name__)",
                )
                assert told_so == "FileNotFoundError"
    finally:
        planted.unlink()


def test_they_hide_what_the_host_has_there(supervisor):
    """A rule for a folder of the host's below /tmp leads into the scratch files, too."""
    folder = Path("/tmp") / f"granted-{os.getpid()}"
    folder.mkdir()
    (folder / "secret").write_text("the host's")
    policy = {"fs": {"allow": [str(folder)], "deny": ["/tmp/denied"]}}
    source = f"""if True:
        import os
        try: got = open("{folder}/secret").read()
        except OSError as error: got = type(error).__name__
        os.makedirs("{folder}", exist_ok=True)
        open("{folder}/made", "w").write("x")
        post(got)
    """
    try:
        with scratch(supervisor, "hidden", policy=policy) as cell:
            assert told(cell, source) == "FileNotFoundError"
            assert names_in(folder) == ["secret"]
            refused = told(
                cell,
                "try: post(open('/tmp/denied', 'w'))\n"
                "except PermissionError as error: post(str(error))",
            )
            assert "denied" in refused
        with supervisor.spawn("control", policy=policy, allowed_imports=IMPORTS) as cell:
            assert told(cell, source) == "the host's"
            assert names_in(folder) == ["made", "secret"]
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "attack",
    [
        "open('/tmp/../etc/passwd')",
        "os.rename('/tmp', '/tmp2')",
        "os.rmdir('/tmp')",
        "os.remove('/tmp')",
        "os.symlink('/etc/passwd', '/tmp/link')",
        "os.link('/etc/passwd', '/tmp/link')",
        "os.rename('/etc/passwd', '/tmp/passwd')",
        "os.chmod('/tmp', 0o777)",
        "os.mkfifo('/tmp/fifo')",
        "os.mknod('/tmp/device', 0o20666, 0x103)",
        "os.execv('/tmp/program', ['program'])",
    ],
)
def test_nothing_leads_out(supervisor, attack):
    with scratch(supervisor, "out") as cell:
        outcome = told(
            cell,
            f"import os\nopen('/tmp/program', 'w').write('#!/bin/sh')\n"
            f"try: {attack}; post('worked')\n"
            "except (OSError, RuntimeError, AttributeError) as error: post(type(error).__name__)",
        )
        assert outcome != "worked"
        assert told(cell, "post(sorted(os.listdir('/tmp')))") == ["program"]


def test_they_are_gone_with_the_cell(supervisor):
    # Once for what is opened only once.
    scratch(supervisor, "first").close()
    before = len(names_in("/proc/self/fd"))
    for ending in ("close", "kill"):
        cell = scratch(supervisor, "gone", 64 * MIB)
        run(cell, "open('/tmp/x', 'wb').write(bytes(32 << 20))")
        assert "pyisolate" not in Path("/proc/self/mountinfo").read_text()
        getattr(cell, ending)()
        del cell
    assert len(names_in("/proc/self/fd")) <= before + 2


def test_they_are_off_by_default(supervisor):
    with supervisor.spawn("off", allowed_imports=IMPORTS) as cell:
        refused = told(
            cell,
            "try: post(open('/tmp/x', 'w'))\nexcept PermissionError as error: post(str(error))",
        )
        assert "/tmp/x" in refused


def test_a_policy_asks_for_them(supervisor):
    policy = {"limits": {"scratch_bytes": "1MiB"}}
    with supervisor.spawn("asked", policy=policy) as cell:
        assert told(cell, "open('/tmp/x', 'w').write('x'); post(open('/tmp/x').read())") == "x"
        cell.set_policy({"imports": ["os"]})
        assert told(cell, "post(open('/tmp/x').read())") == "x", "what spawn gave stays"


def test_without_the_right_there_is_no_cell(supervisor):
    """Root without CAP_SYS_ADMIN, as in a container, is refused and told what to do."""
    source = """if True:
        import pyisolate
        try: pyisolate.spawn("none", scratch_bytes=1 << 20)
        except pyisolate.SandboxError as error: print(error)
        print(pyisolate.list_active())
    """
    command = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", sys.executable, "-c"]
    ended = subprocess.run(
        [*command, source], capture_output=True, text=True, timeout=60, check=False
    )
    assert "CAP_SYS_ADMIN" in ended.stdout, ended
    assert "Operation not permitted" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"
