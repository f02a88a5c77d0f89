"""Where C code or a library looks past the broker: it works, or a clear error says what would."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyisolate
from cells import PATIENCE, run

IMPORTS = [
    "io",
    "locale",
    "mmap",
    "multiprocessing",
    "numpy",
    "os",
    "pandas",
    "platform",
    "shelve",
    "sqlite3",
    "ssl",
    "tempfile",
    "zoneinfo",
]


@pytest.fixture
def guest(cell: Callable[..., pyisolate.Cell], tmp_path: Path) -> pyisolate.Cell:
    """A cell that may read and write one folder, which it knows as `HERE`."""
    (tmp_path / "text").write_text("één\n", encoding="utf-8")
    policy = pyisolate.Policy().grant(pyisolate.ReadWritePath(tmp_path))
    made = cell(policy=policy, allowed_imports=IMPORTS)
    run(made, f"HERE = {str(tmp_path)!r}")
    return made


def outcome(guest: pyisolate.Cell, source: str) -> Any:
    run(guest, f"{source}\npost(result)")
    return guest.recv(PATIENCE)


# --- SQLite


@pytest.fixture(params=["delete", "wal"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "a b.db"
    made = sqlite3.connect(path)
    made.execute(f"PRAGMA journal_mode = {request.param}").close()
    made.execute("CREATE TABLE t (n)")
    made.execute("INSERT INTO t VALUES (1), (2)")
    made.commit()
    made.close()
    return path


@pytest.mark.parametrize("options", ["", ", uri=True", ", timeout=1, isolation_level=None"])
def test_a_granted_database_is_read(guest, database, options):
    name = f"file:{database.parent}/a%20b.db?mode=ro" if "uri" in options else str(database)
    total = outcome(
        guest,
        f"import sqlite3; c = sqlite3.connect({name!r}{options})\n"
        "result = c.execute('SELECT sum(n) FROM t').fetchone()[0]",
    )
    assert total == 3


def test_pandas_reads_a_granted_database(guest, database):
    source = "import pandas, sqlite3\nresult = pandas.read_sql('SELECT n FROM t', C).n.to_list()"
    assert outcome(guest, source.replace("C)", f"sqlite3.connect({str(database)!r}))")) == [1, 2]


def test_writing_to_a_granted_database_fails_and_says_so(guest, database):
    before = database.read_bytes()
    told = outcome(
        guest,
        f"import sqlite3; c = sqlite3.connect({str(database)!r})\n"
        "try: c.execute('INSERT INTO t VALUES (3)')\n"
        "except sqlite3.OperationalError as error: result = str(error)",
    )
    assert "readonly" in told
    assert database.read_bytes() == before


def test_a_database_whose_latest_changes_are_beside_it_is_not_read(guest, tmp_path):
    path = tmp_path / "open.db"
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = wal").close()
    writer.execute("CREATE TABLE t (n)")
    writer.commit()
    told = outcome(
        guest,
        f"import sqlite3\ntry: sqlite3.connect({str(path)!r})\n"
        "except sqlite3.OperationalError as error: result = str(error)",
    )
    writer.close()
    assert "log beside it" in told


@pytest.mark.parametrize(("path", "named"), [("/none", "no such file"), ("/../x", "not granted")])
def test_a_database_that_cannot_be_read_says_why(guest, path, named):
    told = outcome(
        guest,
        f"import sqlite3\ntry: sqlite3.connect(HERE + {path!r})\n"
        "except sqlite3.OperationalError as error: result = str(error)",
    )
    assert "unable to open database file" in told
    assert named in told


# --- files


WAYS = {
    "reading": (
        "with io.FileIO(HERE + '/text') as f: result = f.read(), f.name == HERE + '/text', f.mode",
        ("één\n".encode(), True, "rb"),
    ),
    "writing": (
        "with io.FileIO(HERE + '/new', 'w') as f: n = f.write(b'new')\n"
        "result = n, open(HERE + '/new').read()",
        (3, "new"),
    ),
    "buffered": (
        "result = io.TextIOWrapper(io.BufferedReader(io.FileIO(HERE + '/text'))).readline()",
        "één\n",
    ),
    "a subclass": (
        "class Own(io.FileIO): pass\n"
        "with Own(HERE + '/text') as f: result = f.read(1), type(f) is Own, f.name[-5:]",
        (b"\xc3", True, "/text"),
    ),
    "kinds": (
        "class Own(io.FileIO): pass\n"
        "with open('/dev/null', 'rb', 0) as f:\n"
        "    result = isinstance(f, io.FileIO), isinstance(f, Own), issubclass(type(f), io.FileIO)",
        (True, False, True),
    ),
    "the encoding of the locale": (
        "with open(HERE + '/text', encoding='locale') as f: result = f.read(), f.encoding",
        ("één\n", "utf-8"),
    ),
    "locale": (
        "import locale; result = locale.getencoding(), locale.getpreferredencoding()",
        ("utf-8", "utf-8"),
    ),
    "tofile": (
        "import numpy\n"
        "try: numpy.arange(9).tofile(HERE + '/new')\n"
        "except OSError as error: result = 'numpy.save' in str(error)",
        True,
    ),
}


@pytest.mark.parametrize(("source", "expected"), WAYS.values(), ids=WAYS)
def test_other_ways_to_a_file(guest, source, expected):
    assert outcome(guest, f"import io\n{source}") == expected


WORKS = {
    "shelve": """
import os, shelve
with shelve.open(HERE + '/shelf') as shelf: shelf['a'] = [1]
with shelve.open(HERE + '/shelf') as shelf: result = shelf['a'] == [1] and len(os.listdir(HERE)) > 2
""",
    "a pool of threads": """
from multiprocessing.pool import ThreadPool
with ThreadPool(2) as pool: result = pool.map(len, ['a', 'bb']) == [1, 2]
""",
    "locks of multiprocessing": """
import multiprocessing
with multiprocessing.Lock() as held: result = held
queue = multiprocessing.Queue(2); queue.put(1); result = queue.get(timeout=10) == 1
queue.close(); queue.join_thread()
""",
    "the platform": "import platform; result = 'Linux' in platform.platform()",
}


@pytest.mark.parametrize("source", WORKS.values(), ids=WORKS)
def test_what_c_code_would_do_by_itself(guest, source):
    assert outcome(guest, source) is True
    assert guest.denials == []


CANNOT = {
    "chdir": "os.chdir(HERE)",
    "chmod": "os.chmod(HERE + '/text', 0o600)",
    "utime": "os.utime(HERE + '/text')",
    "symlink": "os.symlink(HERE + '/text', HERE + '/link')",
    "link": "os.link(HERE + '/text', HERE + '/link')",
    "statvfs": "os.statvfs(HERE)",
    "mapping what is written": "mmap.mmap((f := open(HERE + '/text', 'r+b')).fileno(), 0)",
}


@pytest.mark.parametrize("source", CANNOT.values(), ids=CANNOT)
def test_what_has_no_action_says_so(guest, source):
    told = outcome(
        guest,
        f"import mmap, os\ntry: {source}\n"
        "except PermissionError as error: result = error.errno, error.strerror",
    )
    assert told[0] == 1
    assert "cell" in told[1] or "broker" in told[1]


def test_a_write_that_fails_leaves_its_buffer_alone(cell, tmp_path):
    policy = pyisolate.Policy().grant(pyisolate.WritePath(tmp_path))
    guest = cell(policy=policy, disk_bytes_max=1 << 20)
    told = outcome(
        guest,
        f"data = bytearray(2 << 20)\nwith open({str(tmp_path)!r} + '/f', 'wb', 0) as f:\n"
        "    try: f.write(data)\n    except OSError as error: result = type(error).__name__\n"
        "data.extend(b'x')",
    )
    assert told == "OSError"


def test_temporary_files_ask_for_one_folder(guest):
    told = outcome(
        guest,
        "import tempfile\ntry: tempfile.gettempdir()\n"
        "except PermissionError as error: result = str(error)",
    )
    assert [denial.grant for denial in guest.denials] == ["fs: {read: [/tmp]}"]
    assert "dir=" in told


def test_temporary_files_in_a_granted_folder(cell, tmp_path):
    policy = pyisolate.Policy().grant(pyisolate.ReadWritePath(tmp_path))
    guest = cell(policy=policy, allowed_imports=["os", "tempfile"])
    told = outcome(
        guest,
        f"import os, tempfile; os.environ['TMPDIR'] = {str(tmp_path)!r}\n"
        "with tempfile.NamedTemporaryFile('w+') as f:\n"
        "    f.write('x'); f.seek(0); result = f.read(), os.path.dirname(f.name)",
    )
    assert told == ("x", str(tmp_path))
    assert guest.denials == []


# --- what libraries look at by the way


def test_pandas_looks_at_nothing_that_it_was_not_asked_to(guest, tmp_path):
    (tmp_path / "t.csv").write_text("when,n\n2024-01-01,1\n2024-01-08,2\n")
    told = outcome(
        guest,
        "import pandas; t = pandas.read_csv(HERE + '/t.csv', parse_dates=['when'])\n"
        "result = t.set_index('when').tz_localize('UTC').resample('W').n.sum().to_list()",
    )
    assert told == [1, 2]
    assert guest.denials == []


def test_a_zone_that_is_nowhere_is_one_denial(guest):
    told = outcome(
        guest,
        "import zoneinfo\ntry: zoneinfo.ZoneInfo('Europe/Berlin'); result = 'found'\n"
        "except zoneinfo.ZoneInfoNotFoundError: result = 'not found'",
    )
    if told == "found":
        assert guest.denials == []  # a package of the cell's has it
    else:
        assert [denial.capability for denial in guest.denials] == ["filesystem"]


def test_tls_has_the_certificates_of_a_package(guest):
    pytest.importorskip("certifi")
    source = "import ssl; result = ssl.create_default_context().cert_store_stats()['x509_ca']"
    assert outcome(guest, source) > 10
