"""Files: what a policy does not grant is neither read, changed nor told of, in any way.

Most of these attacks are in the attack suite too, with their controls. Here the host's side is
looked at as well: that a denial was recorded, and is complete.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pyisolate
from pyisolate.attack.asked import Asked
from pyisolate.attack.cases.broker_files import (
    HANDED,
    NAMES,
    NO_PATHS,
    ODD_READ,
    PAYLOADS,
    READS,
    TWINS,
    WRITES,
    policy_of,
)
from pyisolate.attack.texts.tree import Tree

from .broker_harness import BACKENDS, PATIENCE, Held

pytestmark = pytest.mark.filterwarnings(
    # Attacks close nothing, in the control too.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

CASES = [*NAMES, *HANDED]
SPELLED = {"read": READS, "written": WRITES}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module", params=BACKENDS)
def held(
    request: pytest.FixtureRequest, supervisor: pyisolate.Supervisor, tree: Tree
) -> Iterator[Held]:
    options = {"open_files_max": 64, "fresh": True, "backend": request.param}
    held = Held(supervisor, policy_of(tree), tree.world, **options)
    yield held
    held.close()


def _possible(case: Asked, held: Held) -> None:
    native = "ctypes" in case.body or "of_libc" in case.body
    if native and held.options.get("backend") == "subinterpreter":
        pytest.skip("ctypes: a sub-interpreter cell has none")


def _privileged(case: Asked) -> None:
    if case.privileged and os.getuid() != 0:
        pytest.skip("only root makes device nodes")


def _spellings() -> list[tuple[str, str]]:
    return [(how, spelling) for how, table in SPELLED.items() for spelling in table]


@pytest.mark.parametrize(("how", "spelling"), _spellings())
def test_what_is_not_granted_is_refused_in_every_way(
    how: str, spelling: str, held: Held, tree: Tree
):
    before = tree.state()
    outcomes = held.refuses_all(SPELLED[how][spelling])
    assert tree.token not in repr(outcomes)
    after = tree.state()
    after.pop("made/copy", None)
    assert after == before


@pytest.mark.parametrize("case", [*CASES, *ODD_READ], ids=str)
def test_a_file_that_is_not_granted_is_refused(case: Asked, held: Held, tree: Tree):
    _privileged(case)
    _possible(case, held)
    before = tree.state()
    outcome = held.refuses(case)
    assert tree.token not in repr(outcome)
    assert tree.state() == before


@pytest.mark.parametrize("name", TWINS, ids=ascii)
@pytest.mark.parametrize("way", ["open({path}, 'rb').read()", "fs('read', path={path})"])
def test_the_twin_of_a_denied_name_is_not_it(name: str, way: str, held: Held, tree: Tree):
    path = f"GIVEN + '/' + {name!r}"
    outcome = held.attempt("return " + way.format(path=path))
    assert outcome[0] == "refused", outcome
    assert set(outcome[1]) & {"CapabilityDenied", "ENOENT", "ValueError", "ENOTDIR"}
    assert tree.token not in repr(outcome)


@pytest.mark.parametrize("path", NO_PATHS, ids=lambda path: ascii(path)[:60])
def test_what_is_no_path(path: str, held: Held, tree: Tree):
    for action in ("read", "stat", "list", "write"):
        before = tree.state()
        text = repr(path).replace("{GIVEN}", "' + GIVEN + '").replace("{SECRET}", "' + SECRET + '")
        data = ", data=b'x'" if action == "write" else ""
        outcome = held.attempt(f"return fs({action!r}, path={text}{data})")
        assert tree.token not in repr(outcome)
        expected = NO_PATHS[path].replace("DENIED", "CapabilityDenied").split()
        if action == "write":
            expected.append("CapabilityDenied")
        names = ["ok"] if outcome[0] == "done" else outcome[1]
        assert set(names) & set(expected), (action, outcome)
        assert tree.state() == before
    held.assert_alive()


@pytest.mark.parametrize("named", PAYLOADS)
def test_a_payload_that_is_none(named: str, held: Held):
    action, payload, expected = PAYLOADS[named]
    denied = held.cell.stats.denied
    outcome = held.attempt(f"return request('filesystem', {action!r}, {payload!r})")
    assert outcome[0] == "refused", outcome
    assert set(outcome[1]) & set(expected.split()), outcome
    assert held.cell.stats.denied == denied
    held.assert_alive()


def _soon(condition: Callable[[], bool]) -> bool:
    return any(condition() or time.sleep(0.02) for _ in range(100))


# --- handles --------------------------------------------------------------------------------------


def test_a_handle_is_of_its_cell_alone(supervisor: pyisolate.Supervisor, tmp_path: Path):
    tree = Tree(tmp_path)
    one = Held(supervisor, policy_of(tree), tree.world)
    other = Held(supervisor, pyisolate.Policy().grant(pyisolate.ReadWritePath("/nowhere")), {})
    try:
        kind, number = one.attempt("return handle_of(MADE + '/plain.txt', 'r+')")
        assert kind == "done"
        for act in ("fs('read', handle=N)", "fs('write', handle=N, offset=0, data=b'x')",
                    "fs('close', handle=N)", "fs('truncate', handle=N, size=0)"):  # fmt: skip
            outcome = other.attempt("return " + act.replace("N", str(number)))
            assert outcome[0] == "refused"
            assert "EBADF" in outcome[1]
        assert one.attempt(f"return fs('read', handle={number})") == ["done", b"original"]
    finally:
        one.close()
        other.close()


def test_handle_numbers_cannot_be_guessed_or_used_again(held: Held):
    body = """
n = handle_of(MADE + '/plain.txt', 'r+')
fs('close', handle=n)
names = set()
for number in [n, *range(-3, 300), n + 1, n - 1, 1 << 32, (1 << 32) + n, (1 << 62)]:
    for act in (lambda: fs('read', handle=number), lambda: fs('close', handle=number),
                lambda: fs('append', handle=number, data=b'x')):
        names.update(attempt(act)[1])
return sorted(names)
"""
    kind, names = held.attempt(body)
    assert kind == "done"
    assert set(names) <= {"OSError", "EBADF", "ValueError"}


def test_a_handle_that_was_opened_for_writing_reads_nothing(held: Held, tree: Tree):
    for mode in ("a", "w"):
        outcome = held.attempt(
            f"n = handle_of(DROP + '/new.txt', {mode!r})\n"
            "try: return fs('read', handle=n)\n"
            "finally: fs('close', handle=n)"
        )
        assert outcome[0] == "refused", outcome
    (tree.base / "drop" / "new.txt").unlink()


def test_a_thousand_opens_end_at_a_limit_and_only_for_the_cell(
    supervisor: pyisolate.Supervisor, tmp_path: Path
):
    tree = Tree(tmp_path)
    greedy = Held(supervisor, policy_of(tree), tree.world)
    before = len(os.listdir("/proc/self/fd"))
    try:
        outcome = greedy.attempt(
            "count = 0\ntry:\n"
            "    for _ in range(1000): handle_of(MADE + '/plain.txt', 'r+'); count += 1\n"
            "except OSError as error: return [count, errno.errorcode.get(error.errno)]\n"
            "return [count, None]"
        )
        assert outcome[0] == "done"
        count, error = outcome[1]
        assert count <= 100
        assert error == "EMFILE"
        assert len(os.listdir("/proc/self/fd")) - before <= 120
        greedy.assert_alive()
        assert greedy.attempt("return fs('read', path=GIVEN + '/text')") == ["done", b"original"]
    finally:
        greedy.close()
    # The host's own handle of the cell lives on, for its denials.
    assert _soon(lambda: len(os.listdir("/proc/self/fd")) <= before + 10), "files of a dead cell"
    assert greedy.ended.denials == []


# --- quotas ---------------------------------------------------------------------------------------

QUOTA = 100_000
FILLERS = {
    "one write": "fs('write', path=MADE + '/new', data=b'x' * 200_000)",
    "one file": "f = open(MADE + '/new', 'wb')\n"
    "for _ in range(400): f.write(b'x' * 1000)\nf.close()",
    "appending": "for _ in range(400): fs('append', path=MADE + '/new', data=b'x' * 1000)",
    "many files": "for n in range(400): fs('write', path=f'{MADE}/new{n}', data=b'x' * 1000)",
    "a longer file": "fs('write', path=MADE + '/new', data=b'')\n"
    "fs('truncate', path=MADE + '/new', size=1 << 40)",
    "by os.truncate": "open(MADE + '/new', 'w').close(); os.truncate(MADE + '/new', 1 << 30)",
    "a hole": "n = handle_of(MADE + '/new', 'w')\n"
    "for at in range(1, 60): fs('write', handle=n, offset=at << 30, data=b'x')",
    "seeking": "f = open(MADE + '/new', 'wb'); f.seek(1 << 40); f.write(b'x'); f.close()",
    "the same bytes again": "n = handle_of(MADE + '/new', 'w')\n"
    "for _ in range(400): fs('write', handle=n, offset=0, data=b'x' * 1000)",
    "writing and removing": "for _ in range(400):\n"
    "    fs('write', path=MADE + '/new', data=b'x' * 1000); fs('remove', path=MADE + '/new')",
    "empty files": "for n in range(2000): fs('write', path=f'{MADE}/new{n}', data=b'')",
    "empty folders": "for n in range(2000): fs('mkdir', path=f'{MADE}/new{n}')",
    "many handles": "ns = [handle_of(f'{MADE}/new{n}', 'w') for n in range(20)]\n"
    "for n in ns * 20: fs('append', handle=n, data=b'x' * 1000)",
    "from threads": "errors = []\n"
    "def work(n):\n"
    "    try:\n"
    "        for _ in range(60): fs('append', path=f'{MADE}/new{n}', data=b'x' * 1000)\n"
    "    except OSError as error: errors.append(error)\n"
    "ts = [threading.Thread(target=work, args=(n,)) for n in range(8)]\n"
    "for t in ts: t.start()\n"
    "for t in ts: t.join()\n"
    "if errors: raise errors[0]",
}


@pytest.mark.parametrize("named", FILLERS)
def test_a_disk_is_not_filled(named: str, supervisor: pyisolate.Supervisor, tmp_path: Path):
    tree = Tree(tmp_path)
    held = Held(supervisor, policy_of(tree), tree.world, disk_bytes_max=QUOTA)
    try:
        outcome = held.attempt(FILLERS[named])
        assert outcome[0] == "refused", outcome
        assert set(outcome[1]) & {"ENOSPC", "EDQUOT", "EFBIG"}, outcome
        held.assert_alive()
        assert held.attempt("return fs('read', path=GIVEN + '/text')") == ["done", b"original"]
    finally:
        held.close()
    new = [path for path in (tmp_path / "made").iterdir() if path.name.startswith("new")]
    sizes = [path.stat().st_size for path in new if path.is_file()]
    assert sum(sizes) <= QUOTA or named in ("a hole", "seeking")
    assert sum(path.stat().st_blocks * 512 for path in new) <= QUOTA + 8192 * len(new)


@pytest.mark.parametrize("named", FILLERS)
def test_without_a_quota_it_would_be(named: str, supervisor: pyisolate.Supervisor, tmp_path: Path):
    tree = Tree(tmp_path)
    held = Held(supervisor, policy_of(tree), tree.world, disk_bytes_max=1 << 46)
    try:
        assert held.attempt(FILLERS[named], PATIENCE)[0] == "done"
    finally:
        held.close()
