"""Files in a cell, by the standard library as it is: granted, they are the host's files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyisolate
from cells import PATIENCE, run

IMPORTS = [
    "bz2",
    "csv",
    "fileinput",
    "glob",
    "gzip",
    "json",
    "linecache",
    "logging",
    "lzma",
    "numpy",
    "os",
    "pandas",
    "pathlib",
    "pickle",
    "shutil",
    "tarfile",
    "tempfile",
    "traceback",
    "zipfile",
]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder to read and one to write, with a file beside them that neither reaches."""
    given, made = tmp_path / "given", tmp_path / "made"
    (given / "below").mkdir(parents=True)
    made.mkdir()
    (given / "text").write_bytes("één\ntwo\r\nthree".encode())
    (given / "bytes").write_bytes(bytes(range(256)) * 4096)
    (given / "below" / "table.csv").write_text("a,b\n1,2\n3,4\n")
    (given / "link").symlink_to("text")
    (tmp_path / "secret").write_text("secret")
    return given, made


@pytest.fixture
def descriptors() -> bool:
    """Whether the cell is handed descriptors."""
    return True


@pytest.fixture
def outcome(
    cell: Callable[..., pyisolate.Cell], folders: tuple[Path, Path], descriptors: bool
) -> Callable[[str], Any]:
    """`outcome(source)`: what `result` is in a cell after this source."""
    given, made = folders
    policy = pyisolate.Policy().grant(
        pyisolate.ReadPath(given), pyisolate.ReadPath(made), pyisolate.WritePath(made)
    )
    guest = cell(policy=policy, allowed_imports=IMPORTS, descriptors=descriptors)

    def run_it(source: str) -> Any:
        places = f"IN, OUT, BESIDE = {str(given)!r}, {str(made)!r}, {str(given.parent)!r}\n"
        run(guest, places + source + "\npost(result)")
        return guest.recv(PATIENCE)

    return run_it


READS = {
    "text": ("result = open(IN + '/text', encoding='utf-8').read()", "één\ntwo\nthree"),
    "newline": ("result = open(IN + '/text', newline='').read()[-10:]", "two\r\nthree"),
    "lines": ("result = [len(line) for line in open(IN + '/text')]", [4, 4, 5]),
    "binary": ("result = len(open(IN + '/bytes', 'rb').read())", 1 << 20),
    "unbuffered": ("result = open(IN + '/bytes', 'rb', 0).read(3)", b"\0\1\2"),
    "seek": (
        "with open(IN + '/bytes', 'rb') as f: f.seek(-2, 2); result = f.read(), f.tell()",
        (b"\xfe\xff", 1 << 20),
    ),
    "name and mode": (
        "with open(IN + '/text') as f: result = f.name == IN + '/text', f.mode, f.readable()",
        (True, "r", True),
    ),
    "a path of bytes": ("result = open((IN + '/text').encode(), 'rb').read(1)", b"\xc3"),
    "pathlib": (
        "import pathlib; p = pathlib.Path(IN)\n"
        "result = (p / 'text').read_bytes()[-5:], (p / 'bytes').stat().st_size, p.is_dir()",
        (b"three", 1 << 20, True),
    ),
    "iterdir": (
        "import pathlib; result = sorted(p.name for p in pathlib.Path(IN).iterdir())",
        ["below", "bytes", "link", "text"],
    ),
    "pathlib glob": (
        "import pathlib; result = [p.name for p in pathlib.Path(IN).rglob('*.csv')]",
        ["table.csv"],
    ),
    "glob": (
        "import glob; result = [p[len(IN):] for p in glob.glob(IN + '/**/*.csv', recursive=True)]",
        ["/below/table.csv"],
    ),
    "resolve": (
        "import pathlib; result = pathlib.Path(IN, 'below/../text').resolve().name",
        "text",
    ),
    "walk": (
        "import os; result = [(sorted(a), sorted(b)) for _, a, b in os.walk(IN)]",
        [(["below"], ["bytes", "link", "text"]), ([], ["table.csv"])],
    ),
    "scandir": (
        "import os\n"
        "with os.scandir(IN) as entries:\n"
        "    result = sorted((e.name, e.is_dir(), e.is_symlink()) for e in entries)",
        [
            ("below", True, False),
            ("bytes", False, False),
            ("link", False, True),
            ("text", False, False),
        ],
    ),
    "listdir of bytes": (
        "import os; result = sorted(os.listdir(IN.encode()))",
        [b"below", b"bytes", b"link", b"text"],
    ),
    "os.path": (
        "from os import path\n"
        "result = path.getsize(IN + '/bytes'), path.exists(IN + '/none'), path.isdir(IN),"
        " path.isfile(IN + '/link'), path.islink(IN + '/link')",
        (1 << 20, False, True, True, True),
    ),
    "access": (
        "import os; result = os.access(IN + '/text', os.R_OK), os.access(IN + '/none', os.F_OK)",
        (True, False),
    ),
    "os.open": (
        "import os; fd = os.open(IN + '/bytes', os.O_RDONLY)\n"
        "result = os.read(fd, 2), os.pread(fd, 2, 255), os.fstat(fd).st_size; os.close(fd)",
        (b"\0\1", b"\xff\0", 1 << 20),
    ),
    "fdopen": (
        "import os\n"
        "with os.fdopen(os.open(IN + '/text', os.O_RDONLY), 'rb') as f: result = f.read()[-3:]",
        b"ree",
    ),
    "fileinput": (
        "import fileinput; result = len(list(fileinput.input([IN + '/below/table.csv'])))",
        3,
    ),
    "csv": (
        "import csv; result = list(csv.reader(open(IN + '/below/table.csv', newline='')))",
        [["a", "b"], ["1", "2"], ["3", "4"]],
    ),
    "numpy": (
        "import numpy\n"
        "result = numpy.loadtxt(IN + '/below/table.csv', delimiter=',', skiprows=1).sum()",
        10.0,
    ),
}


@pytest.mark.parametrize("descriptors", [True, False], ids=["descriptors", "messages"])
@pytest.mark.parametrize(("source", "expected"), READS.values(), ids=READS)
def test_what_is_granted_is_read(outcome, source, expected):
    assert outcome(source) == expected


def test_numpy_reads_by_a_descriptor(outcome):
    source = "import numpy; result = int(numpy.fromfile(IN + '/bytes', dtype='u1').sum())"
    assert outcome(source) == 255 * 128 * 4096


WRITES = {
    "text": ("with open(OUT + '/f', 'w') as f: result = f.write('é\\n')", "é\n"),
    "append": ("for _ in 'ab':\n with open(OUT + '/f', 'a') as f: result = f.write(_)", "ab"),
    "exclusive": ("with open(OUT + '/f', 'x') as f: result = f.write('new')", "new"),
    "update": (
        "with open(OUT + '/f', 'w+') as f:\n"
        "    f.write('hello world'); f.seek(0); f.write('HELLO'); f.seek(0); result = f.read()\n"
        "    f.truncate(5)",
        "HELLO",
    ),
    "reopened": (
        "with open(OUT + '/f', 'w') as f: f.write('12345')\n"
        "with open(OUT + '/f', 'r+') as f: f.seek(2); f.write('x')\nresult = None",
        "12x45",
    ),
    "unbuffered": ("with open(OUT + '/f', 'wb', 0) as f: result = f.write(b'now')", "now"),
    "by the line": (
        "f = open(OUT + '/f', 'w', 1); f.write('a\\nb'); result = open(OUT + '/f').read()\n"
        "f.close()",
        "a\nb",
    ),
    "much": (
        "with open(OUT + '/f', 'w') as f:\n"
        "    for _ in range(3000): f.write('x' * 1000)\nresult = None",
        "x" * 3_000_000,
    ),
    "pathlib": ("import pathlib; result = pathlib.Path(OUT, 'f').write_text('p')", "p"),
    "touch": (
        "import pathlib; p = pathlib.Path(OUT, 'f'); p.touch(); p.write_text('kept'); p.touch()\n"
        "result = None",
        "kept",
    ),
    "os.open": (
        "import os; fd = os.open(OUT + '/f', os.O_RDWR | os.O_CREAT | os.O_EXCL)\n"
        "os.write(fd, b'hello'); os.lseek(fd, 0, 0); result = os.read(fd, 2)\n"
        "os.pwrite(fd, b'J', 0); os.ftruncate(fd, 4); os.fsync(fd); os.close(fd)",
        "Jell",
    ),
    "fsync": (
        "import os\n"
        "with open(OUT + '/f', 'w') as f: f.write('kept'); f.flush(); os.fsync(f.fileno())\n"
        "result = None",
        "kept",
    ),
    "a descriptor over another": (
        "import os; fd = os.open(OUT + '/f', os.O_WRONLY | os.O_CREAT); os.dup2(fd, 40)\n"
        "os.close(fd); os.write(40, b'over'); os.closerange(40, 50); result = None",
        "over",
    ),
    "a copied descriptor": (
        "import os; fd = os.open(OUT + '/f', os.O_WRONLY | os.O_CREAT); copy = os.dup(fd)\n"
        "os.close(fd); os.write(copy, b'still'); os.close(copy); result = None",
        "still",
    ),
    "opener": (
        "import os\n"
        "with open(OUT + '/f', 'w', opener=lambda p, flags: os.open(p, flags)) as f:\n"
        "    result = f.write('opened')",
        "opened",
    ),
    "mkstemp": (
        "import os, tempfile; fd, name = tempfile.mkstemp(dir=OUT)\n"
        "with os.fdopen(fd, 'w') as f: f.write('temporary')\n"
        "os.replace(name, OUT + '/f'); result = None",
        "temporary",
    ),
    "copyfile": ("import shutil; shutil.copyfile(IN + '/link', OUT + '/f'); result = None", None),
    "copy2": ("import shutil; shutil.copy2(IN + '/text', OUT + '/f'); result = None", None),
    "move": (
        "import shutil; open(OUT + '/g', 'w').close(); shutil.move(OUT + '/g', OUT + '/f')\n"
        "result = None",
        "",
    ),
    "json": ("import json; json.dump([1], open(OUT + '/f', 'w')); result = None", "[1]"),
    "logging": (
        "import logging; handler = logging.FileHandler(OUT + '/f')\n"
        "handler.emit(logging.LogRecord('n', 20, 'p', 1, 'said', None, None)); handler.close()\n"
        "result = None",
        "said\n",
    ),
    "savetxt": (
        "import numpy; numpy.savetxt(OUT + '/f', [1, 2], fmt='%d'); result = None",
        "1\n2\n",
    ),
    "fs": ("result = fs.write(OUT + '/f', b'12'), fs.append(OUT + '/f', '3')", "123"),
}


@pytest.mark.parametrize(("source", "expected"), WRITES.values(), ids=WRITES)
def test_what_is_granted_is_written(outcome, folders, source, expected):
    given, made = folders
    outcome(source)
    expected = (given / "text").read_bytes() if expected is None else expected.encode()
    assert (made / "f").read_bytes() == expected


ROUND_TRIPS = {
    "zipfile": """
import zipfile
with zipfile.ZipFile(OUT + '/z', 'w', zipfile.ZIP_DEFLATED) as z: z.write(IN + '/bytes', 'a')
with zipfile.ZipFile(OUT + '/z', 'a') as z: z.writestr('b', 'b')
with zipfile.ZipFile(OUT + '/z') as z: result = z.testzip() is None and z.namelist() == ['a', 'b']
""",
    "tarfile": """
import os, tarfile
with tarfile.open(OUT + '/t', 'w:gz') as t: t.add(IN + '/below', 'below')
with tarfile.open(OUT + '/t') as t: t.extractall(OUT, filter='data')
result = os.listdir(OUT + '/below') == ['table.csv']
""",
    "compressed": """
import bz2, gzip, lzma
result = True
for kind in (bz2, gzip, lzma):
    with kind.open(OUT + '/c', 'wt') as f: f.write('text' * 10_000)
    with kind.open(OUT + '/c', 'rt') as f: result = result and f.read() == 'text' * 10_000
""",
    "numpy": """
import numpy
numpy.save(OUT + '/a.npy', numpy.arange(200_000)); numpy.savez(OUT + '/a.npz', a=numpy.ones(3))
result = bool(numpy.load(OUT + '/a.npy')[-1] == 199_999 and numpy.load(OUT + '/a.npz')['a'][2] == 1)
""",
    "numpy by a descriptor": """
import numpy, os
with os.fdopen(os.open(OUT + '/a', os.O_WRONLY | os.O_CREAT), 'wb') as f:
    numpy.save(f, numpy.arange(9))
result = bool(numpy.load(OUT + '/a')[8] == 8)
""",
    "pickle": """
import pickle
with open(OUT + '/p', 'wb') as f: pickle.dump([1] * 100_000, f)
with open(OUT + '/p', 'rb') as f: result = len(pickle.load(f)) == 100_000
""",
    "folders": """
import os, pathlib, shutil
os.mkdir(OUT + '/a'); os.makedirs(OUT + '/b/c/d'); os.makedirs(OUT + '/b/c/d', exist_ok=True)
pathlib.Path(OUT, 'b/e/f').mkdir(parents=True); os.rename(OUT + '/a', OUT + '/b/a')
result = sorted(os.listdir(OUT + '/b')) == ['a', 'c', 'e']
os.rmdir(OUT + '/b/a'); shutil.rmtree(OUT + '/b'); result = result and not os.listdir(OUT)
""",
    "a granted folder that is there": """
import os
os.makedirs(OUT, exist_ok=True); result = os.path.isdir(OUT)
""",
    "a tree": """
import os, shutil
shutil.copytree(IN + '/below', OUT + '/tree'); result = os.listdir(OUT + '/tree') == ['table.csv']
""",
    "named temporary files": """
import os, tempfile
with tempfile.NamedTemporaryFile('w+', dir=OUT) as f:
    f.write('x'); f.flush(); f.seek(0); result = f.read() == open(f.name).read() == 'x'
with tempfile.TemporaryFile(dir=OUT) as f: f.write(b'y'); f.seek(0); result &= f.read() == b'y'
with tempfile.TemporaryDirectory(dir=OUT) as folder: open(folder + '/z', 'w').close()
result = result and os.listdir(OUT) == []
""",
    "removing": """
import os, pathlib
for remove in (os.remove, os.unlink, lambda path: pathlib.Path(path).unlink()):
    open(OUT + '/r', 'w').close(); remove(OUT + '/r')
result = not os.path.exists(OUT + '/r')
""",
    "what is closed": """
import os
fd = os.open(OUT + '/f', os.O_WRONLY | os.O_CREAT); os.close(fd)
try: os.write(fd, b'x')
except OSError as error: result = error.errno == 9
f = open(OUT + '/f', 'w'); f.close()
try: f.write('x')
except ValueError: result = result and f.closed
""",
    "fs": """
fs.mkdir(OUT + '/a/b', parents=True); fs.write_text(OUT + '/a/t', 'text')
fs.rename(OUT + '/a/t', OUT + '/t'); fs.remove(OUT + '/a/b', directory=True)
with fs.open(OUT + '/t') as f: result = f.read() == fs.read_text(OUT + '/t') == 'text'
result = result and fs.list(OUT) == ['a', 't'] and fs.stat(OUT + '/t').st_size == 4
result = result and fs.exists(OUT) and fs.read(OUT + '/t', 1, 2) == b'ex'
""",
}


@pytest.mark.parametrize("descriptors", [True, False], ids=["descriptors", "messages"])
@pytest.mark.parametrize("source", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_what_was_written_is_read_again(outcome, source):
    assert outcome(source) is True


REFUSED = {
    "open": "open(BESIDE + '/secret')",
    "a relative path": "open('secret')",
    "writing what is only read": "open(IN + '/text', 'w')",
    "appending": "open(IN + '/text', 'a')",
    "os.open": "import os; os.open(BESIDE + '/secret', os.O_RDONLY)",
    "os.open to write": "import os; os.open(BESIDE + '/new', os.O_WRONLY | os.O_CREAT)",
    "stat": "import os; os.stat(BESIDE + '/secret')",
    "listdir": "import os; os.listdir('/etc')",
    "mkdir": "import os; os.mkdir(IN + '/new')",
    "remove": "import os; os.remove(IN + '/text')",
    "rename": "import os; os.rename(IN + '/text', OUT + '/text')",
    "pathlib": "import pathlib; pathlib.Path(BESIDE, 'secret').read_text()",
    "rmtree": "import shutil; shutil.rmtree(IN + '/below')",
    "up and out": "open(IN + '/../secret')",
    "fs": "fs.read(BESIDE + '/secret')",
}


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_what_is_not_granted_is_a_permission_error_that_names_it(outcome, folders, source):
    *before, last = source.split("; ")
    kind, number, text, name = outcome(
        "\n".join(before) + f"\ntry: {last}\n"
        "except PermissionError as error:\n"
        "    result = type(error).__name__, error.errno, str(error), error.filename"
    )
    assert (kind, number) == ("CapabilityDenied", 13)
    assert "filesystem" in text or "read" in text or "write" in text
    assert name is not None
    given, made = folders
    assert (given / "text").exists()
    assert os.listdir(made) == []  # noqa: PTH208


ERRORS = {
    "missing": ("open(IN + '/none')", "FileNotFoundError", 2, "/none"),
    "a folder": ("open(IN + '/below')", "IsADirectoryError", 21, "/below"),
    "a file as a folder": ("os.listdir(IN + '/text')", "NotADirectoryError", 20, "/text"),
    "exclusive": ("[open(OUT + '/f', 'x') for _ in 'ab']", "FileExistsError", 17, "/f"),
    "mkdir": ("os.mkdir(OUT)", "FileExistsError", 17, "/made"),
    "makedirs": ("os.makedirs(OUT)", "FileExistsError", 17, "/made"),
    "not empty": (
        "os.mkdir(OUT + '/d') or open(OUT + '/d/x', 'w').close() or os.rmdir(OUT + '/d')",
        "OSError",
        39,
        "/d",
    ),
    "missing in the interpreter": ("open(os.__file__ + 'x')", "FileNotFoundError", 2, "os.pyx"),
}


@pytest.mark.parametrize(("source", "kind", "number", "name"), ERRORS.values(), ids=ERRORS)
def test_errors_are_those_of_the_host_with_the_guests_own_name(outcome, source, kind, number, name):
    told = outcome(
        f"import os\ntry: {source}\n"
        "except OSError as error: result = type(error).__name__, error.errno, error.filename"
    )
    assert told[:2] == (kind, number)
    assert told[2].endswith(name)


def test_what_is_the_cells_own_is_not_asked_for(cell):
    names = ["os", "pathlib", "linecache", "mimetypes", "zoneinfo"]
    guest = cell(policy=pyisolate.Policy(), allowed_imports=names)
    run(
        guest,
        """
import linecache, mimetypes, os, pathlib, zoneinfo
try: zoneinfo.ZoneInfo("Europe/Berlin")
except zoneinfo.ZoneInfoNotFoundError: pass
post([
    mimetypes.guess_type("a.txt")[0],
    str(pathlib.Path("/data/x").resolve()),
    os.path.exists(os.path.expanduser("~/.netrc")),
    len(open(os.__file__).read()) > 1000,
    pathlib.Path(os.__file__).parent.joinpath("none.py").exists(),
    open("/dev/null").read(),
    linecache.getlines("some/where.pyx"),
])
""",
    )
    assert guest.recv(PATIENCE) == [
        "text/plain", "/data/x", False, True, False, "", [],
    ]  # fmt: skip
    assert guest.denials == []


def test_without_any_policy_it_is_refused_and_recorded(cell):
    guest = cell(allowed_imports=["os"])
    run(
        guest,
        "import os\ntry: open('/etc/passwd')\nexcept PermissionError as error: post(str(error))\n"
        "post(os.path.exists('/etc/passwd'))",
    )
    assert "filesystem" in guest.recv(PATIENCE)
    assert guest.recv(PATIENCE) is False
    assert {event.capability for event in guest.denials} == {"filesystem"}


def test_arguments_are_checked_as_ever(outcome):
    source = """
result = []
for arguments in [("q",), ("rb", -1, "utf-8"), ("rw",), ("r", 0), ("br+x",)]:
    try: open(IN + "/text", *arguments)
    except ValueError: result.append(arguments[0])
"""
    assert outcome(source) == ["q", "rb", "rw", "r", "br+x"]


def test_what_a_dropped_file_had_buffered_is_written(outcome, folders):
    outcome("open(OUT + '/f', 'w').write('dropped'); result = None")
    assert (folders[1] / "f").read_text() == "dropped"


def test_the_frames_of_the_stand_ins_are_not_shown(outcome):
    told = outcome(
        "import traceback\ndef f(): open(IN + '/none')\n"
        "try: f()\nexcept OSError: result = traceback.format_exc()"
    )
    assert "in f" in told
    with pytest.raises(pyisolate.GuestError, match="No such file") as caught:
        outcome("open(IN + '/none')")
    assert "<pyisolate" not in caught.value.traceback


def test_pandas_reads_and_writes(outcome, folders):
    pytest.importorskip("pandas")
    source = """
import pandas
frame = pandas.read_csv(IN + "/below/table.csv")
frame.to_csv(OUT + "/t.csv", index=False)
frame.to_csv(OUT + "/t.csv.gz")
result = frame.equals(pandas.read_csv(OUT + "/t.csv")) and len(pandas.read_csv(OUT + "/t.csv.gz"))
"""
    assert outcome(source) == 2
    given, made = folders
    assert (made / "t.csv").read_text() == (given / "below" / "table.csv").read_text()


def test_threads_write_files_of_their_own(cell, folders):
    guest = cell(
        policy=pyisolate.Policy().grant(pyisolate.WritePath(folders[1])),
        allowed_imports=["threading"],
    )
    run(
        guest,
        f"""
import threading
def work(number):
    with open({str(folders[1])!r} + f"/{{number}}", "w") as file:
        for line in range(1000): file.write(f"{{number}} {{line}}\\n")
threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    )
    for number in range(6):
        lines = (folders[1] / str(number)).read_text().splitlines()
        assert lines == [f"{number} {line}" for line in range(1000)]
