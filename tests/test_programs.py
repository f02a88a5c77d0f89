"""Programs that know nothing of cells run in one, with grants and nothing else.

Each program runs twice, by plain CPython and in a cell, and what it prints and writes is the same.
Then it runs with one grant missing: it fails with a denial that says which, and with what that
denial suggests it runs again.
"""

import os
import random
import shutil
import socketserver
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import pyisolate
from cells import PATIENCE
from pyisolate import (
    Authority,
    Clock,
    Command,
    ConnectTCP,
    Http,
    Import,
    Policy,
    Random,
    ReadPath,
    Secret,
    WritePath,
)
from website import Echo, Server, serving

PROGRAMS = Path(__file__).parent / "programs"
DENIALS_MAX = 60
"""How often a program may fail before all that it lacks was suggested."""

pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True)
class Program:
    """A program, where it writes, and what it needs."""

    name: str
    arguments: Sequence[object]
    imports: Sequence[str]
    grants: Sequence[Authority] = ()
    target: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        return self.policy_without(None)

    def policy_without(self, missing: Authority | None) -> Policy:
        grants = (grant for grant in self.grants if grant is not missing)
        return Policy().grant(*map(Import, ["sys", *self.imports]), *grants)


@dataclass(frozen=True)
class Outcome:
    """What a program printed and wrote, and what it failed with."""

    printed: str
    written: dict[str, bytes]
    failed: str = ""


def written_to(folder: Path | None) -> dict[str, bytes]:
    if folder is None:
        return {}
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def clear(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()


def run_plainly(program: Program) -> Outcome:
    """The control: the same program without any cell."""
    clear(program.target)
    environment = {"PATH": os.environ["PATH"], "PYTHONUTF8": "1", **program.environment}
    command = [sys.executable, "-B", PROGRAMS / f"{program.name}.py", *program.arguments]
    done = subprocess.run(
        [os.fspath(part) if isinstance(part, Path) else str(part) for part in command],
        env=environment,
        capture_output=True,
        timeout=120,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return Outcome(done.stdout, written_to(program.target))


type Run = Callable[..., tuple[Outcome, pyisolate.Cell]]


@pytest.fixture
def descriptors() -> bool:
    """Whether cells are handed descriptors."""
    return True


either_way = pytest.mark.parametrize("descriptors", [True, False], ids=["descriptors", "messages"])


@pytest.fixture
def run_in_cell(cell: Callable[..., pyisolate.Cell], descriptors: bool) -> Run:
    """Runs a program in a cell: its outcome, and the cell."""

    def run(program: Program, policy: Policy) -> tuple[Outcome, pyisolate.Cell]:
        clear(program.target)
        guest = cell(policy=policy, secrets=program.secrets, descriptors=descriptors)
        argv = [program.name, *map(str, program.arguments)]
        guest.exec(f"import sys; sys.argv = {argv!r}").wait(PATIENCE)
        source = (PROGRAMS / f"{program.name}.py").read_text(encoding="utf-8")
        failed = ""
        try:
            guest.exec(source).wait(120)
        except pyisolate.SandboxError as error:
            failed = str(error)
        guest.exec("post('the end')")
        lines = []
        while (event := guest.recv(PATIENCE)) != "the end":
            assert event.fields == {"stream": "stdout"}, event
            lines.append(event.message)
        printed = "".join(f"{line}\n" for line in lines)
        return Outcome(printed, written_to(program.target), failed), guest

    return run


def assert_same(run_in_cell: Run, program: Program) -> None:
    """A program does the same in a cell as out of it, and is denied nothing there."""
    plain = run_plainly(program)
    assert plain.printed
    in_cell, guest = run_in_cell(program, program.policy)
    assert in_cell.failed == ""
    assert in_cell.printed == plain.printed
    assert in_cell.written == plain.written
    assert [str(denial.target) for denial in guest.denials] == []


def target_of(grant: Authority) -> str:
    """What a denial of this grant's must name."""
    fields = grant.fields()
    if "url" in fields:
        return urlsplit(fields["url"]).netloc
    named = (fields[name] for name in ("path", "port", "program", "name") if name in fields)
    return str(next(named, grant.kind))  # there is but one clock


def suggestions(guest: pyisolate.Cell, missing: Authority) -> list[str]:
    """What the denials of a cell suggest. Each is about the grant that was missing."""
    found = []
    for denial in guest.denials:
        assert (denial.layer, denial.rule) == ("policy", "no rule matched"), denial
        assert denial.grant is not None
        assert denial.grant in denial.reason
        assert target_of(missing) in denial.grant
        found.append(denial.grant)
    return found


def with_grants(policy: Policy, texts: Sequence[str]) -> Policy:
    """A policy with what denials suggested."""
    for text in texts:
        policy |= Policy.from_text(f"version: 1\n{text}", source="suggested")
    return policy


def assert_names_what_is_missing(run_in_cell: Run, program: Program, missing: Authority) -> None:
    """Without one grant a program fails, and with what its denials suggest it does not."""
    plain = run_plainly(program)
    policy = program.policy_without(missing)
    outcome, guest = run_in_cell(program, policy)
    assert guest.denials
    for _ in range(DENIALS_MAX):
        texts = suggestions(guest, missing)
        guest.close()
        if not texts:
            break
        policy = with_grants(policy, texts)
        outcome, guest = run_in_cell(program, policy)
    assert outcome == plain


def assert_each_suggestion_helps(run_in_cell: Run, program: Program, missing: Authority) -> None:
    """Without one grant a program fails, and with what its denial suggests it comes further."""
    policy = program.policy_without(missing)
    outcome, guest = run_in_cell(program, policy)
    assert outcome.failed
    texts = suggestions(guest, missing)
    assert texts
    _, guest = run_in_cell(program, with_grants(policy, texts))
    assert not {denial.grant for denial in guest.denials} & set(texts)


# --- tables of files


@pytest.fixture
def sales_report(tmp_path: Path) -> Program:
    source, target = tmp_path / "given", tmp_path / "reports"
    (source / "sales").mkdir(parents=True)
    dice, products = random.Random(1), ["A1", "B2", "C3", "D4"]
    for month in range(1, 7):
        rows = (
            f"2024-{month:02}-{day:02},{dice.choice(products)},{dice.randint(1, 99)}"
            for day in range(1, 29)
            for _ in range(20)
        )
        (source / "sales" / f"2024-{month:02}.csv").write_text(
            "\n".join(["date,product,units", *rows, ""])
        )
    (source / "products.csv").write_text(
        "product,category,price\nA1,Bücher,12.5\nB2,Bücher,3.25\nC3,Musik,9.99\nD4,Musik,0.5\n"
    )
    (source / "sales" / "README").write_text("not a table")
    return Program(
        "sales_report",
        [source, target],
        ["glob", "json", "numpy", "os", "pandas", "pathlib"],
        [ReadPath(source), ReadPath(target), WritePath(target)],
        target,
    )


def test_a_report_from_a_folder_of_tables(run_in_cell, sales_report):
    assert_same(run_in_cell, sales_report)


def test_a_report_from_a_folder_of_tables_names_what_it_lacks(run_in_cell, sales_report):
    assert_names_what_is_missing(run_in_cell, sales_report, sales_report.grants[0])


@pytest.mark.parametrize("missing", [1, 2], ids=["reading what was written", "writing"])
def test_a_report_is_told_what_to_grant_next(run_in_cell, sales_report, missing):
    # File by file it would not end well: what is a rule of its own is neither moved nor removed.
    assert_each_suggestion_helps(run_in_cell, sales_report, sales_report.grants[missing])


# --- the web


@pytest.fixture(scope="module")
def sites() -> Iterator[tuple[Server, Server]]:
    with serving(Server()) as site, serving(Server()) as mirror:
        site.mirror = mirror.url
        site.key = "k-7b1e5c-not-in-the-cell"
        yield site, mirror


type Reach = Callable[[Server], Authority]


@pytest.fixture(params=["streams", "http"])
def reach(request: pytest.FixtureRequest) -> Reach:
    """The grant that reaches a site: by a stream, or by HTTP requests alone."""
    if request.param == "streams":
        return lambda site: ConnectTCP("127.0.0.1", site.server_address[1])
    return lambda site: Http(f"{site.url}/", methods=["*"])


def browsing(name: str, imports: Sequence[str], sites: Sequence[Server], reach: Reach) -> Program:
    return Program(name, [site.url for site in sites], imports, [reach(site) for site in sites])


@pytest.fixture
def fetch_urllib(sites: tuple[Server, Server], reach: Reach) -> Program:
    imports = ["gzip", "hashlib", "http", "io", "json", "urllib"]
    return browsing("fetch_urllib", imports, sites, reach)


@pytest.fixture
def fetch_requests(sites: tuple[Server, Server], reach: Reach) -> Program:
    return browsing("fetch_requests", ["hashlib", "io", "requests", "urllib3"], sites, reach)


@either_way
def test_pages_by_urllib(run_in_cell, fetch_urllib):
    assert_same(run_in_cell, fetch_urllib)


@pytest.mark.parametrize("missing", range(2), ids=["the site", "its mirror"])
def test_pages_by_urllib_name_what_they_lack(run_in_cell, fetch_urllib, missing):
    assert_names_what_is_missing(run_in_cell, fetch_urllib, fetch_urllib.grants[missing])


@either_way
def test_pages_by_requests(run_in_cell, fetch_requests):
    assert_same(run_in_cell, fetch_requests)


@pytest.mark.parametrize("missing", range(2), ids=["the site", "its mirror"])
def test_pages_by_requests_name_what_they_lack(run_in_cell, fetch_requests, missing):
    assert_names_what_is_missing(run_in_cell, fetch_requests, fetch_requests.grants[missing])


# --- programs of the system


@pytest.fixture
def git_history(tmp_path: Path) -> Program:
    if shutil.which("git") is None:
        pytest.skip("this host has no git")
    folder = tmp_path / "repository"
    folder.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        **{f"GIT_{who}_{what}": f"Zoë{at}example.org"
           for who in ("AUTHOR", "COMMITTER") for what, at in (("NAME", " at "), ("EMAIL", "@"))},
        **{f"GIT_{who}_DATE": "2024-01-02T03:04:05Z" for who in ("AUTHOR", "COMMITTER")},
    }  # fmt: skip
    for number in range(3):
        (folder / "file.txt").write_text(f"{number}\n")
        for command in (["init", "-q"], ["add", "file.txt"], ["commit", "-qm", f"Step {number}"]):
            subprocess.run(["git", "-C", folder, *command], check=True, env=environment)
    commands = [
        ["log", "--format=%an %s"],
        ["show", "--stat", "--format=%h"],
        ["rev-parse", "nothing"],
        ["show", "gone"],
    ]
    grants = [Command("git", args=["--version"])]
    grants += [Command("git", args=["-C", str(folder), *one], read=[folder]) for one in commands]
    return Program("git_history", [folder], ["subprocess"], grants)


def test_a_repositorys_history_by_git(run_in_cell, git_history):
    assert_same(run_in_cell, git_history)


def test_a_repositorys_history_by_git_names_what_it_lacks(run_in_cell, git_history):
    assert_names_what_is_missing(run_in_cell, git_history, git_history.grants[0])


# --- a key


@pytest.fixture
def api_key(sites: tuple[Server, Server]) -> Program:
    site = sites[0]
    return Program(
        "api_key",
        [site.url],
        ["json", "os", "requests", "urllib"],
        [
            Http(f"{site.url}/", methods=["GET", "POST"]),
            Secret("api_key", use=["127.0.0.1"]),
            Secret("another", use=["127.0.0.1"]),
        ],
        environment={"API_KEY": site.key},
        secrets={"api_key": site.key, "another": "unused"},
    )


def test_a_key_that_the_program_never_has(run_in_cell, api_key):
    plain = run_plainly(api_key)
    in_cell, guest = run_in_cell(api_key, api_key.policy)
    assert in_cell == plain
    assert "urllib 200" in in_cell.printed
    guest.exec("post([key, str(headers), str(request.headers), str(session.headers)])")
    assert not any(api_key.secrets["api_key"] in text for text in guest.recv(PATIENCE))


def test_a_key_names_what_it_lacks(run_in_cell, api_key):
    assert_names_what_is_missing(run_in_cell, api_key, api_key.grants[1])


def test_the_service_of_a_key_is_named(run_in_cell, api_key):
    # What is suggested is a stream, and a broker puts keys into HTTP requests alone.
    assert_each_suggestion_helps(run_in_cell, api_key, api_key.grants[0])


# --- everything at once


@pytest.fixture
def mixture(tmp_path: Path) -> Iterator[Program]:
    source, target = tmp_path / "given", tmp_path / "made"
    (source / "notes" / "deep").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "notes" / "a.txt").write_text("première ligne\nzweite Zeile\n", encoding="utf-8")
    (source / "notes" / "b.txt").write_text("b\n")
    (source / "notes" / "deep" / "c.txt").write_text("c" * 100_000)
    (source / "numbers.bin").write_bytes(bytes(range(256)) * 40)
    (source / "table.csv").write_text("day,amount\n2024-01-01,1.5\n2024-01-02,2.25\n2024-02-01,4\n")
    imports = [
        "asyncio",
        "collections",
        "concurrent",
        "contextlib",
        "csv",
        "functools",
        "glob",
        "hashlib",
        "io",
        "json",
        "logging",
        "mmap",
        "os",
        "pathlib",
        "random",
        "secrets",
        "shutil",
        "sqlite3",
        "struct",
        "tempfile",
        "time",
        "zipfile",
    ]
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    with serving(server):
        port = server.server_address[1]
        reading = [ReadPath(source), ReadPath(target), WritePath(target)]
        grants = [*reading, ConnectTCP("127.0.0.1", port), Clock()]
        grants.append(Random(seed=1))  # so that temporary files have the same names in every run
        yield Program("mixture", [source, target, "127.0.0.1", port], imports, grants, target)


def test_a_mixture(run_in_cell, mixture):
    assert_same(run_in_cell, mixture)


@pytest.mark.parametrize("missing", [0, 3, 4, 5], ids=["reading", "a stream", "clock", "random"])
def test_a_mixture_names_what_it_lacks(run_in_cell, mixture, missing):
    assert_names_what_is_missing(run_in_cell, mixture, mixture.grants[missing])


@pytest.mark.parametrize("missing", [1, 2], ids=["reading what was written", "writing"])
def test_a_mixture_is_told_what_to_grant_next(run_in_cell, mixture, missing):
    assert_each_suggestion_helps(run_in_cell, mixture, mixture.grants[missing])
