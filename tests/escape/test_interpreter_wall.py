"""What confines a sub-interpreter's thread, without the guards: the attacks on process cells.

The guards, which are no wall, are taken away in a throw-away host: so guest code gets ctypes, and
the same text makes the same raw system calls as in a process cell. Unless a control is here, it is
that of `test_attacks.py` or `test_families.py`, which run the same text.
"""

import functools
from collections.abc import Callable

import pytest

from conftest import missing, require

from .families import FAMILIES, HOST_FOLDERS, Family
from .harness import GUEST, IMPORTS, UNWIRED, Attack, run_control
from .interpreter_harness import Fate, Try, assert_host_unharmed, run_tries
from .numbers import X86_64
from .plant import Plant
from .test_attacks import ATTACKS

OTHERWISE = {
    # Above the interpreter's folders there are names, in a root that is bound to the host's.
    "read: beside a directory": "EACCES",
    "list: the host's interpreter": "EACCES",
    "list: the host's interpreter, raw": "EACCES",
    "exec: raw execveat": "ENOENT",
    # The interpreter says no before the kernel is asked.
    "fork: os.fork": "RuntimeError",
    "fork: multiprocessing": "RuntimeError",
    "exec: os.execv": "RuntimeError",
    "limits: many files all the same": "EACCES EMFILE",
}
"""How the thread's wall refuses, where it is not as a process cell's does."""

NAMES_ARE_SEEN = {
    attack.name for attack in ATTACKS if attack.name.startswith(("stat: ", "list: "))
} | {"/proc: the interpreter's path"}
"""Without a root of its own a thread sees the host's names, as the report says."""

OWN = [
    # libc sends every thread a signal for these, and holds a lock of all threads meanwhile.
    *(
        Attack(f"identity: libc's {name}", f"libc({name!r}, {arguments})", "EPERM")
        for name, arguments in {
            "setuid": "os.getuid()", "setgid": "os.getgid()", "seteuid": "os.getuid()",
            "setreuid": "-1, -1", "setregid": "-1, -1", "setresuid": "-1, -1, -1",
        }.items()
    ),
    Attack("signal: a handler", "raw(13, 10, 0, ctypes.create_string_buffer(32), 8)", "EPERM"),
    Attack("signal: the mask", "raw(14, 2, ctypes.create_string_buffer(8), 0, 8)", "EPERM"),
    Attack("signal: where handlers run", "raw(131, 0, ctypes.create_string_buffer(24))", "EPERM"),
    Attack("timer: setitimer", "raw(38, 0, ctypes.create_string_buffer(32), 0)", "EPERM"),
    Attack("thread: whom its end is told", "raw(218, 0)", "EPERM"),
    Attack("end: raw exit_group", "raw(231, 42)", "DIES", exits=42),
    Attack("end: libc's _exit", "libc('_exit', 42)", "DIES", exits=42),
    Attack("end: libc's abort", "libc('abort')", "DIES", exits=-6),
    Attack("end: SIGABRT", "raw('tgkill', os.getpid(), raw(186), 6)", "DIES", exits=-6),
    Attack("end: SIGKILL", "raw('tgkill', os.getpid(), raw(186), 9)", "EPERM", exits=-9),
]  # fmt: skip
"""What a thread may not do though a process cell may, or because the process is the host's. The
numbers are those of x86-64."""

Fates = dict[str, Fate]


@pytest.fixture(scope="module")
def fates(plant: Plant) -> Callable[[bool], Fates]:
    """What became of every attack. Each is run once, by a host with rights and by one without."""

    @functools.cache
    def run(unprivileged: bool) -> Fates:
        require("landlock")
        plant.restore()
        attacks = ATTACKS + (OWN if X86_64 else [])
        tries = [Try(attack.name, attack.source()) for attack in attacks]
        found = run_tries(
            plant, tries, [UNWIRED, GUEST], IMPORTS, guarded=False, unprivileged=unprivileged
        )
        plant.assert_untouched()
        return found

    return run


def _assert_refused(attack: Attack, fate: Fate, more: str = "") -> None:
    assert_host_unharmed(fate)
    expected = f"{attack.refused} {OTHERWISE.get(attack.name, '')} {more}".split()
    if fate.posted is None:
        assert "DIES" in expected, fate
        assert "CellDied" in fate.error
    else:
        assert fate.posted[0] == "refused", fate
        assert fate.posted[1] in expected, fate


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_thread_refuses(attack: Attack, fates: Callable[[bool], Fates], plant: Plant):
    """Refused as expected; the host is alive and unchanged."""
    fate = fates(False)[attack.name]
    _assert_refused(attack, fate)
    assert plant.token not in repr(fate)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_thread_of_a_host_without_rights_refuses(
    attack: Attack, fates: Callable[[bool], Fates], plant: Plant
):
    """The same by Landlock and seccomp alone: there, names are to be seen and nothing else."""
    fate = fates(True)[attack.name]
    assert plant.token not in repr(fate)
    if attack.name in NAMES_ARE_SEEN and fate.posted[0] == "done":
        assert_host_unharmed(fate)
    else:
        _assert_refused(attack, fate, "EACCES ENOENT")


@pytest.mark.skipif(not X86_64, reason="x86-64: the numbers are its own")
@pytest.mark.parametrize("attack", OWN, ids=str)
def test_a_thread_keeps_the_process(attack: Attack, fates: Callable[[bool], Fates]):
    """What would be done to the host ends the cell at most, and the host makes another."""
    _assert_refused(attack, fates(False)[attack.name])


@pytest.mark.skipif(not X86_64, reason="x86-64: the numbers are its own")
@pytest.mark.parametrize("attack", OWN, ids=str)
def test_without_the_wall_the_process_is_at_its_mercy(attack: Attack, plant: Plant):
    """The same text does it in the control."""
    control = run_control(plant, attack.source())
    assert control.exit_status == (attack.exits or 0), control
    if attack.exits is None:
        assert control.outcome[0] == "done", control


@pytest.fixture(scope="module")
def answers(plant: Plant) -> Callable[[], Fates]:
    """The answers of every family, each run once."""

    @functools.cache
    def run() -> Fates:
        plant.restore()
        tries = [Try(family.name, family.source()) for family in FAMILIES]
        found = run_tries(plant, tries, [UNWIRED, GUEST], IMPORTS, guarded=False)
        plant.assert_untouched()
        return found

    return run


@pytest.mark.parametrize(
    ("family", "label"),
    [
        pytest.param(family, label, id=f"{family}: {label}")
        for family in FAMILIES
        for label in family.cases
    ],
)
def test_a_thread_is_answered_as_a_cell(family: Family, label: str, answers: Callable[[], Fates]):
    """The wall answers."""
    fate = answers()[family.name]
    assert_host_unharmed(fate)
    expected = {family.answer} | ({"EACCES"} if family is HOST_FOLDERS else set())
    assert fate.posted[label] in expected


# getpid of the 32-bit table, by its own door: mov eax, 20; int 0x80; ret
_FOREIGN = r"post(attempt(lambda: machine_code(b'\xb8\x14\0\0\0\xcd\x80\xc3')))"


@pytest.mark.skipif(not X86_64, reason="x86-64: no other processor has this second table")
def test_a_foreign_system_call_table_ends_the_cell_alone(plant: Plant):
    tries = [Try("foreign", _FOREIGN)]
    fate = run_tries(plant, tries, [UNWIRED, GUEST], IMPORTS, guarded=False)["foreign"]
    assert_host_unharmed(fate)
    assert fate.posted is None
    assert "CellDied" in fate.error
    if run_control(plant, _FOREIGN).exit_status < 0:
        missing("ia32", "this kernel has no table for 32-bit programs")
