"""Hosts that lack what others have: cells run with what is there, or are refused by name.

Each host is a process of its own under a restriction of the real kernel's: see `poor_hosts.py`.
"""

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import missing, require
from poor_hosts import CannotSimulateError, command, on_host
from pyisolate.attack.numbers import NUMBERS

Answer = Any

_SPAWN = """
import pyisolate

def layers(cell):
    return {layer.name: [layer.status, layer.detail] for layer in cell.confinement}

def spawned(supervisor, **options):
    return supervisor.spawn("poor", allowed_imports=["math", "os", "threading"], **options)
"""


def ask(restrictions: str, source: str, **given: Any) -> Answer:
    """What a host with these restrictions, separated by spaces, gives to `answer`."""
    require("seccomp")
    try:
        return on_host(restrictions.split(), _SPAWN + source, **given)
    except CannotSimulateError as error:
        missing("simulation", f"this machine cannot be made such a host: {error}")


def landlock_abi() -> int:
    """This kernel's own version; 0 without Landlock."""
    return max(0, ctypes.CDLL(None).syscall(NUMBERS["landlock_create_ruleset"], None, 0, 1))


# --- the simulations themselves

_PROBES = {
    "docker": ("os.unshare(os.CLONE_FILES)", "EPERM"),
    "user-namespaces-used-up": ("os.unshare(os.CLONE_NEWUSER)", "ENOSPC"),
    "no-user-namespaces": ("raw('clone', 0x10000011, 0, 0, 0, 0)", "EPERM"),
    "apparmor": ("raw('fsopen', b'tmpfs', 0)", "EACCES"),
    "no-mounts": ("raw('fsopen', b'tmpfs', 0)", "EACCES"),
    "no-landlock": ("raw('landlock_create_ruleset', None, 0, 1)", "ENOSYS"),
    "landlock-off": ("raw('landlock_create_ruleset', None, 0, 1)", "ENOTSUP"),
    "landlock-unknown": ("raw('landlock_create_ruleset', None, 0, 1)", "EPERM"),
    "no-pidfds": ("os.pidfd_open(os.getpid())", "ENOSYS"),
    "no-memory-files": ("os.memfd_create('x')", "ENOSYS"),
    "no-capabilities": ("os.chroot('/')", "EPERM"),
    "read-only-sys": (
        "if os.statvfs('/sys').f_flag & os.ST_RDONLY: raise OSError(errno.EROFS, '/sys')",
        "EROFS",
    ),
}
"""What is tried on a host, and how it is refused there. Harmless where it is not."""

_PROBE = """
import ctypes, errno
me = os.getpid()
def raw(call, *arguments):
    if (result := ctypes.CDLL(None, use_errno=True).syscall(numbers[call], *arguments)) < 0:
        raise OSError(ctypes.get_errno(), call)
    return result
try:
    exec(probe)
    os.getpid() == me or os._exit(0)  # a process that the probe made
    answer("done")
except OSError as error:
    answer(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize("restriction", _PROBES)
def test_a_restriction_is_there(restriction: str):
    """The kernel answers as on such a host, and without the restriction otherwise."""
    probe, refusal = _PROBES[restriction]
    assert ask(restriction, _PROBE, probe=probe, numbers=NUMBERS) == refusal
    plain = ask("", _PROBE, probe=probe, numbers=NUMBERS)
    if plain == refusal:
        missing(restriction, f"this machine is such a host: {plain}")


def test_an_old_landlock_says_its_version():
    require("landlock")
    source = _PROBE.replace('answer("done")', "")
    for version in (1, 3):
        probe = "answer(raw('landlock_create_ruleset', None, 0, 1))"
        assert ask(f"landlock-abi-{version}", source, probe=probe, numbers=NUMBERS) == version


# --- what holds

_NAMESPACES = (
    "user-namespace",
    "pid-namespace",
    "mount-namespace",
    "ipc-namespace",
    "uts-namespace",
)
_NO_NAMESPACES = {
    **dict.fromkeys(_NAMESPACES, "missing"),
    "network-namespace": "missing",
    "root": "missing",
    "rlimits": "partial",
}
_HOST_TREE = {**dict.fromkeys(_NAMESPACES, "partial"), "root": "missing", "rlimits": "partial"}
_NO_LANDLOCK = {"landlock": "missing"}
_SOME_LANDLOCK = {"landlock": "partial"}

HOLDS: dict[str, tuple[dict[str, str], str]] = {
    # What is not enforced, and a part of the reason.
    "read-only-sys": ({}, ""),
    "no-user-namespaces": (_NO_NAMESPACES, "clone into new namespaces: Operation not permitted"),
    "user-namespaces-used-up": (_NO_NAMESPACES, "clone into new namespaces: No space left"),
    "no-capabilities no-user-namespaces": (_NO_NAMESPACES, "clone into new namespaces"),
    # A container without a seccomp profile: the kernel does not limit root's threads.
    "containers-root": ({"rlimits": "partial"}, ""),
    "containers-root docker": (_NO_NAMESPACES, "clone into new namespaces"),
    "docker": (_NO_NAMESPACES, "clone into new namespaces: Operation not permitted"),
    "docker no-capabilities": (_NO_NAMESPACES, "clone into new namespaces"),
    "docker landlock-unknown": (_NO_NAMESPACES | _NO_LANDLOCK, "other processes' memory"),
    "docker landlock-abi-1": (_NO_NAMESPACES | _SOME_LANDLOCK, "stat sees its names"),
    "apparmor": (_HOST_TREE, "(os error"),
    "no-mounts": (_HOST_TREE, "Permission denied"),
    "no-mounts no-landlock": (_HOST_TREE | _NO_LANDLOCK, "other processes' memory"),
    "no-landlock": (_NO_LANDLOCK, ""),
    "landlock-off": (_NO_LANDLOCK, ""),
    "landlock-abi-1": (_SOME_LANDLOCK, ""),
    "landlock-abi-3": (_SOME_LANDLOCK, ""),
}

_HOST = """
with pyisolate.Supervisor(require=require) as supervisor, spawned(supervisor) as cell:
    cell.exec(
        "import threading\\n"
        "thread = threading.Thread(target=post, args=('from a thread',))\\n"
        "thread.start(); thread.join()"
    ).wait(20)
    answer({
        "posted": cell.recv(20), "gcd": cell.call("math.gcd", 12, 18), "layers": layers(cell),
    })
"""


def _require_for(restrictions: str) -> None:
    if "landlock-abi" in restrictions:
        require("landlock")
    if not {"no-user-namespaces", "docker", "user-namespaces-used-up"} & {*restrictions.split()}:
        require("userns")


@pytest.mark.parametrize("restrictions", HOLDS)
def test_cells_run_with_what_there_is(restrictions: str):
    """A cell works, and its report says which layers do not hold, and why."""
    _require_for(restrictions)
    expected, why = HOLDS[restrictions]
    nothing_guards_files = expected.get("root") == expected.get("landlock") == "missing"
    require_ = "none" if nothing_guards_files else "default"
    found = ask(restrictions, _HOST, require=require_)
    assert found["posted"] == "from a thread"
    assert found["gcd"] == 6
    lacking = {
        name: status
        for name, (status, _) in found["layers"].items()
        # Those two are no matter of these hosts; and who may not empty the bounding set says so.
        if status != "enforced" and name not in ("clock", "cgroup", "capabilities")
    }
    if landlock_abi() < 6 and "landlock" not in expected:
        expected = expected | {"landlock": "partial" if landlock_abi() else "missing"}
    if expected.get("root") == "missing" and "LD_LIBRARY_PATH" in os.environ:
        expected = expected | {"environment": "partial"}  # the interpreter's libraries lie there
    assert lacking == expected
    assert why in found["layers"]["root"][1]


def test_an_ordinary_user_gets_every_layer():
    """Without any capability, where user namespaces are to be had."""
    require("userns", "landlock")
    found = ask("ordinary-user", _HOST, require="default")
    lacking = {name for name, (status, _) in found["layers"].items() if status != "enforced"}
    assert lacking <= {"clock", "cgroup", *({"landlock"} if landlock_abi() < 6 else set())}


@pytest.mark.parametrize(
    ("restrictions", "holds"),
    [
        ("no-user-namespaces", "require=default: holds"),
        ("docker no-landlock", "require=default: lacks root"),
    ],
)
def test_the_doctor_says_what_is_missing(restrictions: str, holds: str):
    require("seccomp")
    python = command(restrictions.split(), "-m", "pyisolate", "doctor")
    said = subprocess.run(python, capture_output=True, text=True, timeout=50, check=False).stdout
    assert "root is missing" in said or "file worked in a cell" in said
    assert "clone into new namespaces: Operation not permitted" in said
    assert holds in said


# --- what is refused

_REFUSED = """
try:
    with pyisolate.Supervisor() as supervisor, spawned(supervisor, backend=backend) as cell:
        answer(["made", str(cell.confinement)])
except pyisolate.SandboxError as error:
    answer([type(error).__name__, str(error)])
"""


@pytest.mark.parametrize(
    ("restriction", "backend", "says"),
    [
        ("no-pidfds", "process", "pidfd_send_signal"),
        ("no-close-range", "process", "close_range"),
        ("no-memory-files", "process", "memfd_create"),
        ("no-seccomp", "process", "filter"),
        # A wrong argument of ours is no refusal of the host's: nothing is made of it.
        ("broken-pivot", "process", "pivot_root"),
        ("no-close-range", "subinterpreter", "close_range"),
        ("no-memory-files", "subinterpreter", "memory file"),
        ("no-seccomp", "subinterpreter", "filter"),
    ],
)
def test_what_no_cell_can_do_without_is_refused(restriction: str, backend: str, says: str):
    """No cell, and an error that names what is lacking."""
    require("userns")
    kind, text = ask(restriction, _REFUSED, backend=backend)
    assert kind in ("SandboxError", "CellDied"), text
    assert says in text


@pytest.mark.parametrize("backend", ["process", "subinterpreter"])
def test_a_cell_with_nothing_around_the_files_is_refused(backend: str):
    """By default: the error names the layer, why it is missing, and what to do."""
    kind, text = ask("docker no-capabilities no-landlock", _REFUSED, backend=backend)
    assert kind == "ConfinementError", text
    assert "root" in text
    assert "no Landlock" in text
    assert "permit user namespaces" in text


@pytest.mark.parametrize("layer", ["pid-namespace", "root", "rlimits"])
def test_a_layer_that_a_host_lacks_can_be_required(layer: str):
    """Then there is no cell there, and the error has the kernel's reason."""
    source = _REFUSED.replace("backend=backend", "backend=backend, require=[layer]")
    kind, text = ask("no-user-namespaces", source, backend="process", layer=layer)
    assert kind == "ConfinementError", text
    assert layer in text


@pytest.mark.parametrize("restriction", ["no-user-namespaces", "no-mounts"])
def test_a_template_is_refused_without_namespaces_of_its_own(restriction: str):
    """What its set-up starts could outlive it. Other cells go on."""
    require("userns")
    source = """
with pyisolate.Supervisor() as supervisor:
    try:
        supervisor.template(imports=["math"])
        refusal = "none"
    except pyisolate.SandboxError as error:
        refusal = str(error)
    with spawned(supervisor) as cell:
        answer([refusal, cell.call("math.gcd", 12, 18)])
"""
    refusal, gcd = ask(restriction, source)
    assert "namespaces: a template needs its own" in refusal
    assert gcd == 6


_PROGRAM = """
policy = pyisolate.Policy().grant(pyisolate.Command("true"))
with pyisolate.Supervisor() as supervisor:
    with supervisor.spawn("run", policy=policy, allowed_imports=["math", "subprocess"]) as cell:
        try:
            cell.exec("import subprocess; subprocess.run(['true'])").wait(20)
            refusal = "none"
        except pyisolate.SandboxError as error:
            refusal = str(error)
        answer([refusal, cell.call("math.gcd", 12, 18)])
"""


@pytest.mark.parametrize("restrictions", ["no-user-namespaces", "no-mounts", "containers-root"])
def test_a_program_is_refused_without_its_jail(restrictions: str):
    """A granted one too. The guest is told, and goes on."""
    require("userns")
    refusal, gcd = ask(restrictions, _PROGRAM)
    assert "its jail could not be built" in refusal
    assert gcd == 6


# --- what is there

_SIGNALS = """
import signal
guest = '''
import os
def send(pid, thread, number=0):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(tgkill, pid, thread, number) == 0:
        return "sent"
    return os.strerror(ctypes.get_errno())
def itself():
    return send(os.getpid(), os.getpid())
def parent():
    return send(os.getppid(), os.getppid())
'''
with pyisolate.Supervisor(require="none") as supervisor:
    options = dict(allowed_imports=["ctypes", "os"])
    one, other = (supervisor.spawn(name, **options) for name in ("one", "other"))
    for cell in (one, other):
        cell.exec(f"{tgkill=}\\n" + guest).wait(20)
    cell_pid = other.call("os.getpid")
    control = {"tgkill": tgkill}
    exec(guest, control)
    answer({
        "control": control["parent"](),
        "itself": one.call("__main__.itself"),
        "the zygote": one.call("__main__.parent"),
        "another cell": one.call("__main__.send", cell_pid, cell_pid),
        "the host": one.call("__main__.send", os.getpid(), os.getpid()),
    })
"""


@pytest.mark.parametrize("restrictions", ["no-user-namespaces", "no-mounts", "docker no-landlock"])
def test_a_cell_signals_itself_and_nobody_else(restrictions: str):
    """Though it shares the numbers of processes with others; signal 0 harms nobody."""
    require("userns")
    found = ask(restrictions, _SIGNALS, tgkill=NUMBERS["tgkill"])
    assert found.pop("control") == "sent"
    assert found.pop("itself") == "sent"
    assert set(found.values()) == {"Operation not permitted"}, found


_NULL = """
with pyisolate.Supervisor() as supervisor, spawned(supervisor) as cell:
    cell.exec("import os\\nwith open(os.devnull, 'w') as file: post(file.write('gone'))").wait(20)
    answer(cell.recv(20))
"""


def test_dev_null_can_be_written():
    require("landlock")
    if landlock_abi() < 3:
        missing("landlock", "before version 3 no file is opened to write")
    assert ask("no-user-namespaces", _NULL) == 4


_GRANTED = """
with pyisolate.Supervisor() as supervisor:
    policy = pyisolate.Policy().grant(pyisolate.ReadPath(f"{folder}/**"))
    cell = supervisor.spawn("reader", policy=policy)
    with cell:
        cell.exec(f"post(open({path!r}).read())").wait(20)
        granted = cell.recv(20)
        try:
            cell.exec("open('/etc/passwd').read()").wait(20)
            refused = "nothing"
        except pyisolate.SandboxError as error:
            refused = str(error)
        answer([granted, refused])
"""


@pytest.mark.parametrize("restrictions", ["no-user-namespaces", "no-mounts"])
def test_the_broker_opens_what_is_granted(restrictions: str, tmp_path: Path):
    """A file that Landlock refuses is asked for, as one that a root does not have."""
    require("userns", "landlock")
    file = tmp_path / "granted.txt"
    file.write_text("for the guest")
    granted, refused = ask(restrictions, _GRANTED, folder=str(tmp_path), path=str(file))
    assert granted == "for the guest"
    assert "filesystem.read /etc/passwd is not granted" in refused


# --- limits and ends

_THREADS = """
guest = '''
import threading, time
def start(count):
    for _ in range(count):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    time.sleep(20)
'''
with pyisolate.Supervisor() as supervisor:
    options = dict(allowed_imports=["threading", "time"], child_work_max=8)
    with supervisor.spawn("few", **options) as cell:
        cell.exec(guest).wait(20)
        try:
            cell.call("__main__.start", count, timeout=2)
            answer("done")
        except (TimeoutError, pyisolate.SandboxError) as error:
            answer(type(error).__name__)
"""


@pytest.mark.parametrize(
    "restrictions",
    ["no-user-namespaces", "user-namespaces-used-up", "no-mounts", "containers-root"],
)
@pytest.mark.parametrize(("count", "how"), [(6, "TimeoutError"), (12, "ChildWorkExceeded")])
def test_threads_are_counted_from_outside(restrictions: str, count: int, how: str):
    """Where the kernel counts others or nobody: fewer than allowed run, more end the cell."""
    if restrictions != "no-user-namespaces":
        require("userns")
    assert ask(restrictions, _THREADS, count=count) == how


_ORPHANS = """
import signal, subprocess
from pathlib import Path

def below(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in children for found in (int(child), *below(child))]

supervisor = pyisolate.Supervisor()
cell = spawned(supervisor)
cell.call("math.gcd", 12, 18)
found = []
for task in Path("/proc/self/task").iterdir():
    for child in (task / "children").read_text().split():
        found += [int(child), *below(child)]
answer(found)
"""


@pytest.mark.parametrize("victim", ["host", "zygote"])
def test_no_cell_outlives_its_host(victim: str):
    """Without a pid namespace that would end them: launcher, zygote and cell go with who dies."""
    end = {
        "host": "os.kill(os.getpid(), signal.SIGKILL)",
        # The launcher is a child of the host's, the zygote of the launcher's.
        "zygote": "os.kill(found[1], signal.SIGKILL)",
    }[victim]
    wait = """
import time
deadline = time.monotonic() + 20
while cell.termination_reason is None and time.monotonic() < deadline:
    time.sleep(0.01)
"""
    try:
        found = on_host(
            ["no-user-namespaces"],
            _SPAWN + _ORPHANS + end + (wait if victim == "zygote" else ""),
            ends=-signal.SIGKILL if victim == "host" else 0,
        )
    except CannotSimulateError as error:
        missing("simulation", str(error))
    assert len(found) == 3, found
    deadline = time.monotonic() + 20
    while alive := [pid for pid in found if _lives(pid)]:
        assert time.monotonic() < deadline, f"still alive: {alive}"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


# --- cells in sub-interpreters, which need nothing of this but lose it too

_OF_A_THREAD = _NO_NAMESPACES | {"rlimits": "missing", "process": "missing"}
"""What no thread has, or none of a host without rights."""

INTERPRETER_HOLDS: dict[str, tuple[dict[str, str], str]] = {
    "docker": (_OF_A_THREAD, "Landlock refuses"),
    "user-namespaces-used-up": (_OF_A_THREAD, "Landlock refuses"),
    "no-pidfds no-capabilities": (_OF_A_THREAD, "Landlock refuses"),
    "no-capabilities no-landlock": (
        _OF_A_THREAD | _NO_LANDLOCK,
        "what the host's user may read is read",
    ),
}

_INTERPRETER = """
supervisor = pyisolate.Supervisor(require=require)
with supervisor, spawned(supervisor, backend="subinterpreter") as cell:
    answer({"gcd": cell.call("math.gcd", 12, 18), "layers": layers(cell)})
"""


@pytest.mark.parametrize("restrictions", INTERPRETER_HOLDS)
def test_sub_interpreters_run_with_what_there_is(restrictions: str):
    """They work, and their report says which layers do not hold, and why."""
    if "no-landlock" not in restrictions:
        require("landlock")
    expected, why = INTERPRETER_HOLDS[restrictions]
    found = ask(
        restrictions, _INTERPRETER, require="none" if "no-land" in restrictions else "default"
    )
    assert found["gcd"] == 6
    lacking = {
        name: status
        for name, (status, _) in found["layers"].items()
        if status != "enforced" and name not in ("clock", "cgroup", "capabilities", "environment")
    }
    if landlock_abi() < 6 and "landlock" not in expected:
        expected = expected | {"landlock": "partial"}
    assert lacking == expected
    assert why in found["layers"]["root"][1]
