"""A cell in an interpreter of the host's process changes nothing of the host's, and finds nothing
of it by ordinary means."""

import builtins
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import pyisolate
from cells import PATIENCE, death_of, run
from interpreters import host, new_interpreter
from posted import sent

IMPORTS = ["_signal", "fcntl", "gc", "json", "os", "posix", "signal", "stat", "sys", "threading"]


@pytest.fixture(scope="module")
def shared_guest():
    with new_interpreter(allowed_imports=IMPORTS) as cell:
        run(cell, f"import {', '.join(IMPORTS)}")
        yield cell


@pytest.fixture
def guest(shared_guest):
    """A cell that has imported much; what it changes is its own."""
    return shared_guest


def raised(cell, source):
    """What source text raises in a cell, which lives on."""
    with pytest.raises((pyisolate.GuestError, pyisolate.PolicyError)) as caught:
        run(cell, source)
    return caught.value


# --- Python's own state


def test_modules_are_the_cells_own(guest):
    sys.modules["only_the_hosts"] = json
    json.left_by_the_host = True
    try:
        assert sent(guest, "'only_the_hosts' in sys.modules") is False
        assert sent(guest, "hasattr(json, 'left_by_the_host')") is False
        assert sent(guest, "'pyisolate' in sys.modules or '_pytest' in sys.modules") is False
        run(guest, "sys.modules['only_the_cells'] = json\njson.left_by_the_cell = True")
        assert "only_the_cells" not in sys.modules
        assert not hasattr(json, "left_by_the_cell")
    finally:
        del sys.modules["only_the_hosts"], json.left_by_the_host


def test_builtins_that_the_host_patched_are_not_the_cells(guest, monkeypatch):
    monkeypatch.setattr(builtins, "len", lambda _: -1)
    monkeypatch.setattr(builtins, "patched_by_the_host", 1, raising=False)
    assert sent(guest, "len('abc')") == 3
    with new_interpreter() as cell:
        assert sent(cell, "(len('abc'), 'patched_by_the_host' in dir(__builtins__))") == (3, False)


def test_builtins_that_the_cell_patched_are_not_the_hosts():
    with new_interpreter(allowed_imports=["builtins"]) as cell, new_interpreter() as other:
        run(cell, "import builtins\nbuiltins.sum = __builtins__['sum'] = lambda _: -1")
        assert sent(cell, "sum([1, 2])") == -1
        assert sum([1, 2]) == 3
        assert sent(other, "sum([1, 2])") == 3


def test_no_cell_sees_anothers_state():
    with new_interpreter(allowed_imports=["os", "sys"]) as one:
        run(one, "import os, sys\nmine = 1\nos.mine = sys.mine = 1\nsys.argv.append('mine')")
        with new_interpreter(allowed_imports=["os", "sys"]) as other:
            run(other, "import os, sys")
            assert sent(other, "'mine' in globals() or hasattr(os, 'mine')") is False
            assert sent(other, "hasattr(sys, 'mine') or 'mine' in sys.argv") is False


def test_an_interpreter_is_used_once():
    with pyisolate.Supervisor(warm_pool=1, backend="subinterpreter") as supervisor:
        for _ in range(8):
            with supervisor.spawn("again", allowed_imports=["sys", "gc"]) as cell:
                run(cell, "import gc, sys")
                assert sent(cell, "hasattr(sys, 'used')") is False
                run(cell, "sys.used = gc.used = 1")


def test_words_of_the_hosts_stay_with_it(guest):
    assert sent(guest, "(sys.argv, sys.orig_argv)") == ([""], [])
    path = sent(guest, "sys.path")
    assert "" not in path
    assert str(Path(__file__).parent) not in path
    run(guest, "sys.path.append('/nowhere')\nsys.argv[:] = ['x']\nsys.setrecursionlimit(700)")
    assert "/nowhere" not in sys.path
    assert sys.argv != ["x"]
    assert sys.getrecursionlimit() != 700


def test_streams_are_the_cells(guest, capfd):
    run(guest, "sys.stdout.write('out\\n')\nsys.stderr.write('err\\n')")
    assert [guest.recv(PATIENCE).message, guest.recv(PATIENCE).message] == ["out", "err"]
    assert sent(guest, "sys.stdin.read()") == ""
    run(guest, "for number in (1, 2): os.write(number, b'by number')")
    assert capfd.readouterr() == ("", "")


# --- what a process has one of


def test_environment_variables(guest, monkeypatch):
    monkeypatch.setenv("OF_THE_HOST", "secret")
    with new_interpreter(allowed_imports=["os", "posix"]) as cell:
        run(cell, "import os, posix")
        expression = "('OF_THE_HOST' in os.environ, os.getenv('PATH'), len(posix.environ))"
        assert sent(cell, expression) == (False, None, 1)
        before = dict(os.environ)
        run(
            cell,
            """
os.environ["MINE"] = "1"
os.putenv("MINE", "2")
posix.putenv("MINE", "3")
os.unsetenv("OF_THE_HOST")
posix.unsetenv("PATH")
os.environ.clear()
os.environ["MINE"] = "4"
""",
        )
        assert sent(cell, "os.environ['MINE']") == "4"
        assert sent(guest, "'MINE' in os.environ") is False
    assert dict(os.environ) == before
    seen = subprocess.run(["/usr/bin/env"], capture_output=True, text=True, check=True).stdout
    assert "MINE=" not in seen
    assert "OF_THE_HOST=secret" in seen


def test_directory_and_umask(guest):
    before = Path.cwd()
    mask = os.umask(0o022)
    try:
        assert sent(guest, "os.getcwd()") == "/"
        run(guest, "os.umask(0o007)")
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(mask)
    assert Path.cwd() == before


def test_a_change_of_directory_is_the_threads_own(guest):
    before = Path.cwd()
    folder = sys.base_prefix
    run(guest, f"try: os.chdir({folder!r})\nexcept OSError: pass")
    assert Path.cwd() == before
    with new_interpreter(allowed_imports=["os"]) as other:
        run(other, "import os")
        assert sent(other, "os.getcwd()") == "/"


def test_descriptors_of_the_hosts_are_not_there_by_number(guest, tmp_path):
    (tmp_path / "file").write_bytes(b"secret")
    ours, theirs = socket.socketpair()
    with (tmp_path / "file").open("r+b", buffering=0) as file, ours, theirs:
        numbers = [file.fileno(), ours.fileno(), theirs.fileno()]
        run(
            guest,
            f"""
found = []
for number in {numbers}:
    for use in (lambda: os.pread(number, 1, 0), lambda: os.write(number, b"x")):
        try: found.append(use())
        except OSError as error: found.append(error.errno)
""",
        )
        answers = sent(guest, "found")
        assert b"s" not in answers
        assert (tmp_path / "file").read_bytes() == b"secret"
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_closing_every_number_closes_none_of_the_hosts():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        cell = new_interpreter(allowed_imports=["os"])
        cell.exec("import os\nos.closerange(0, 4096)")
        assert isinstance(death_of(cell), pyisolate.CellDied)
        ours.send(b"x")
        assert theirs.recv(1) == b"x"
        cell.close()


def test_signals(guest):
    came = []
    before = signal.signal(signal.SIGUSR1, lambda *_: came.append(1))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        for source in (
            "signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
            "os.kill(os.getpid(), signal.SIGUSR1)",
            "os.kill(os.getppid(), 0)",
            "os.killpg(0, signal.SIGUSR1)",
            "signal.setitimer(signal.ITIMER_REAL, 0.01)",
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])",
            "signal.sigwait([signal.SIGUSR1])",
            "signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)",
        ):
            raised(guest, source)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
        assert came == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert came == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_alarm_is_not_the_hosts():
    host("""
        import signal
        with new_interpreter(allowed_imports=["signal"]) as cell:
            run(cell, "import signal\\ntry: signal.alarm(100)\\nexcept OSError: pass")
        assert signal.alarm(0) == 0
    """)


def test_limits_of_the_process_stay(guest):
    import resource

    nice = os.getpriority(os.PRIO_PROCESS, 0)
    before = {kind: resource.getrlimit(kind) for kind in range(16)}
    with new_interpreter(allowed_imports=["resource", "os"]) as cell:
        run(cell, "import os, resource")
        raised(cell, "resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))")
        raised(cell, "resource.prlimit(0, resource.RLIMIT_CORE, (0, 0))")
        raised(cell, "os.setpriority(os.PRIO_PROCESS, 0, 5)")
        raised(cell, "os.nice(5)")
    assert {kind: resource.getrlimit(kind) for kind in range(16)} == before
    assert os.getpriority(os.PRIO_PROCESS, 0) == nice


def test_the_locale_and_the_time_zone_stay(monkeypatch):
    import locale
    import time

    before = locale.setlocale(locale.LC_ALL), time.tzname
    with new_interpreter(allowed_imports=["locale", "time", "os"]) as cell:
        run(
            cell,
            """
import locale, os, time
os.environ["TZ"] = "Asia/Tokyo"
for change in (lambda: locale.setlocale(locale.LC_ALL, ""), time.tzset):
    try: change()
    except Exception: pass
""",
        )
    assert (locale.setlocale(locale.LC_ALL), time.tzname) == before


# --- the host's threads stay as they were


def confined():
    """What the kernel says of this thread's confinement."""
    names = {"Seccomp", "NoNewPrivs", "CapEff", "CapPrm", "CapBnd", "SigBlk"}
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    spaces = {name: os.readlink(f"/proc/thread-self/ns/{name}") for name in ("mnt", "net", "ipc")}  # noqa: PTH115
    return {name: found[name] for name in names} | spaces


def test_threads_of_the_host_are_unconfined_as_before(tmp_path):
    before = confined()
    inside, later = [], []
    go = threading.Event()
    waiting = threading.Thread(target=lambda: (go.wait(PATIENCE), inside.append(confined())))
    waiting.start()
    with new_interpreter() as cell:
        run(cell, "post(1)")
        go.set()
        waiting.join()
        after = threading.Thread(target=lambda: later.append(confined()))
        after.start()
        after.join()
        assert [confined()] == inside == later == [before]
        (tmp_path / "file").write_text("host")
        assert subprocess.run(["true"], check=False).returncode == 0
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()


def test_the_main_thread_of_a_plain_host_is_unconfined():
    if confined()["Seccomp"] != "0":
        pytest.skip("these tests run confined themselves")
    said = host("""
        with new_interpreter() as cell: run(cell, "pass")
        lines = open("/proc/self/task/%d/status" % os.getpid()).read().splitlines()
        print([line for line in lines if line.startswith(("Seccomp:", "NoNewPrivs:"))])
        print(os.system("true"))
    """)
    assert said == "['NoNewPrivs:\\t0', 'Seccomp:\\t0']\n0\n"


def test_a_handler_of_the_hosts_runs_unconfined(tmp_path):
    def write(payload):
        (tmp_path / payload).write_text("by the host")
        return confined()["Seccomp"]

    with new_interpreter(capabilities={"write": write}) as cell:
        assert sent(cell, "request('write', 'x', 'file')") == confined()["Seccomp"]
    assert (tmp_path / "file").read_text() == "by the host"


# --- the file system, the network, other processes


@pytest.mark.parametrize(
    "source",
    [
        "open('/etc/passwd').read()",
        "open('/proc/self/environ', 'rb').read()",
        "open('/proc/self/mem', 'r+b')",
        "os.listdir('/proc/self/fd')",
        "os.listdir('/root')",
        "open('/tmp/of-a-cell', 'w')",
        "os.mkdir('/tmp/of-a-cell')",
        "os.unlink('/etc/hostname')",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.system('true')",
        "os.popen('true').read()",
        "os.setuid(0)",
        "os.sethostname('cell')",
        "os.chroot('/')",
        "os.mkfifo('/tmp/of-a-cell')",
        "os.pidfd_open(os.getpid())",
        "os.setns(0)",
        "os.unshare(os.CLONE_NEWUSER)",
    ],
)
def test_the_kernel_or_the_runtime_refuses(guest, source):
    raised(guest, source)
    assert not Path("/tmp/of-a-cell").exists()


def test_sockets_are_refused():
    with new_interpreter(allowed_imports=["socket", "_socket"]) as cell:
        run(cell, "import socket, _socket")
        raised(cell, "socket.create_connection(('127.0.0.1', 80), timeout=1)")
        raised(cell, "_socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)")
        raised(cell, "_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)")
