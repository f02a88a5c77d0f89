"""Grants that work: what a policy gives is had, by requests, by objects and by the standard library."""

import pyisolate
from pyisolate import Channel, Clock, Command, Policy, Random, ReadPath, Secret, WritePath
from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("grants")

_IMPORTS = (
    "bz2", "csv", "glob", "gzip", "io", "json", "os", "pathlib", "random", "secrets", "shutil",
    "subprocess", "tarfile", "tempfile", "time", "zipfile", "configparser", "sqlite3", "datetime",
    "linecache", "lzma",
)  # fmt: skip


def _folders(host: Host) -> str:
    """A folder to read, one to write, and a file beside them; as names for the guest."""
    given, made = host.folder / "given", host.folder / "made"
    (given / "below").mkdir(parents=True)
    made.mkdir()
    (given / "text").write_bytes("één\ntwo\r\nthree".encode())
    (given / "bytes").write_bytes(bytes(range(256)) * 64)
    (given / "below" / "table.csv").write_text("a,b\n1,2\n3,4\n")
    (given / "link").symlink_to("text")
    (given / "out").symlink_to(host.folder / "beside")
    (host.folder / "beside").write_text("beside")
    return f"IN, OUT, BESIDE = {str(given)!r}, {str(made)!r}, {str(host.folder)!r}\n"


def _with_files(source: str) -> Steps:
    def steps(host: Host) -> None:
        names = _folders(host)
        given, made = host.folder / "given", host.folder / "made"
        policy = Policy().grant(ReadPath(given), ReadPath(made), WritePath(made))
        cell = host.spawn(policy=policy, allowed_imports=_IMPORTS)
        cell.exec(names)
        cell.run(source)
        cell.denials()
        for path in sorted(made.rglob("*")):
            if path.is_file():
                host.told(f"on the host {path.relative_to(made)}", path.read_bytes())

    return steps


_FILES = {
    "read text": "post(open(IN + '/text', encoding='utf-8').read())",
    "read lines": "post([len(line) for line in open(IN + '/text')])",
    "read bytes": "post(open(IN + '/bytes', 'rb').read())",
    "read unbuffered": "post(open(IN + '/bytes', 'rb', 0).read(3))",
    "seek and tell": "with open(IN + '/bytes', 'rb') as f: f.seek(-2, 2); post((f.read(), f.tell()))",
    "a file's name and mode": (
        "with open(IN + '/text') as f: post((f.name == IN + '/text', f.mode, f.readable()))"
    ),
    "by request": "post(request('filesystem', 'read', {'path': IN + '/text'}))",
    "by request a part": (
        "post(request('filesystem', 'read', {'path': IN + '/bytes', 'offset': 3, 'length': 4}))"
    ),
    "by request list": (
        "post(sorted((n, k) for n, k, _ in request('filesystem', 'list', {'path': IN})))"
    ),
    "by request stat": "post(request('filesystem', 'stat', {'path': IN + '/text'})['size'])",
    "by request exists": (
        "post([request('filesystem', 'exists', {'path': IN + p}) for p in ('/text', '/none')])"
    ),
    "by object read": "post(fs.read_text(IN + '/text'))",
    "by object list": "post(fs.list(IN))",
    "by object write": "post(fs.write(OUT + '/f', b'abc'))\npost(fs.append(OUT + '/f', b'def'))",
    "by object stat": "post(fs.stat(IN + '/text').st_size)",
    "by object exists": "post([fs.exists(IN + '/text'), fs.exists(IN + '/none')])",
    "by object mkdir": "fs.mkdir(OUT + '/a/b', parents=True)\npost(fs.list(OUT + '/a'))",
    "pathlib": (
        "import pathlib; p = pathlib.Path(IN)\n"
        "post([(p / 'text').read_bytes()[-5:], (p / 'bytes').stat().st_size, p.is_dir()])"
    ),
    "pathlib iterdir": ("import pathlib; post(sorted(p.name for p in pathlib.Path(IN).iterdir()))"),
    "pathlib rglob": "import pathlib; post([p.name for p in pathlib.Path(IN).rglob('*.csv')])",
    "glob": "import glob; post([p[len(IN):] for p in glob.glob(IN + '/**/*.csv', recursive=True)])",
    "walk": "import os; post([(sorted(a), sorted(b)) for _, a, b in os.walk(IN)])",
    "scandir": (
        "import os\nwith os.scandir(IN) as entries:\n"
        "    post(sorted((e.name, e.is_dir(), e.is_symlink()) for e in entries if e.name != 'out'))"
    ),
    "os.path": (
        "from os import path\npost([path.getsize(IN + '/text'), path.exists(IN + '/none'),"
        " path.isdir(IN), path.isfile(IN + '/link'), path.islink(IN + '/link')])"
    ),
    "os.open": (
        "import os; fd = os.open(IN + '/bytes', os.O_RDONLY)\n"
        "post([os.read(fd, 2), os.pread(fd, 2, 255), os.fstat(fd).st_size]); os.close(fd)"
    ),
    "csv": "import csv; post(list(csv.reader(open(IN + '/below/table.csv', newline=''))))",
    "linecache": "import linecache; post(linecache.getline(IN + '/below/table.csv', 2))",
    "write text": "with open(OUT + '/f', 'w') as f: post(f.write('é\\n'))",
    "append": "for c in 'ab':\n    with open(OUT + '/f', 'a') as f: f.write(c)",
    "exclusive": (
        "with open(OUT + '/f', 'x') as f: f.write('new')\n"
        "try: open(OUT + '/f', 'x')\nexcept FileExistsError as e: post(e.errno)"
    ),
    "update": (
        "with open(OUT + '/f', 'w+') as f:\n"
        "    f.write('hello world'); f.seek(0); f.write('HELLO'); f.seek(0); post(f.read())\n"
        "    f.truncate(5)"
    ),
    "reopened": (
        "with open(OUT + '/f', 'w') as f: f.write('12345')\n"
        "with open(OUT + '/f', 'r+') as f: f.seek(2); f.write('x')"
    ),
    "much": "with open(OUT + '/f', 'w') as f:\n    for _ in range(3000): f.write('x' * 100)",
    "pathlib write": "import pathlib; post(pathlib.Path(OUT, 'f').write_text('p'))",
    "mkdir and rmdir": (
        "import os; os.mkdir(OUT + '/d'); os.makedirs(OUT + '/d/e/f'); os.removedirs(OUT + '/d/e/f')"
        "\npost(os.path.exists(OUT + '/d'))"
    ),
    "rename": "import os; open(OUT + '/a', 'w').close(); os.rename(OUT + '/a', OUT + '/b')",
    "remove": "import os; open(OUT + '/a', 'w').close(); os.remove(OUT + '/a'); post(os.listdir(OUT))",
    "json": "import json; json.dump({'a': [1]}, open(OUT + '/f', 'w')); post(json.load(open(OUT + '/f')))",
    "gzip": (
        "import gzip, os\nwith gzip.open(OUT + '/f', 'wb') as f: f.write(b'abc')\n"
        "post(gzip.open(OUT + '/f').read())\nos.remove(OUT + '/f')"
    ),
    "zipfile": (
        "import io, zipfile\nwith zipfile.ZipFile(OUT + '/z', 'w') as z: z.writestr(zipfile.ZipInfo('a'), 'x')\n"
        "post(zipfile.ZipFile(OUT + '/z').read('a'))"
    ),
    "shutil copy": "import shutil; shutil.copyfile(IN + '/text', OUT + '/copy')",
    "sqlite3 to read": (
        "import sqlite3\ntry: sqlite3.connect(IN + '/none')\n"
        "except sqlite3.OperationalError as e: post('refused')"
    ),
    "missing": "try: open(IN + '/none')\nexcept FileNotFoundError as e: post((e.errno, e.strerror))",
    "a folder as a file": "try: open(IN)\nexcept IsADirectoryError as e: post(e.errno)",
    "a file as a folder": "import os\ntry: os.listdir(IN + '/text')\nexcept NotADirectoryError as e: post(e.errno)",
    "beside": "try: open(BESIDE + '/beside')\nexcept PermissionError as e: post(str(e))",
    "by dots": "try: open(IN + '/../beside')\nexcept PermissionError as e: post(str(e))",
    "by a link": "try: open(IN + '/out')\nexcept PermissionError as e: post(type(e).__name__)",
    "write where only reading is granted": (
        "try: open(IN + '/text', 'w')\nexcept PermissionError as e: post(str(e))"
    ),
    "list beside": "import os\ntry: os.listdir(BESIDE)\nexcept PermissionError as e: post(str(e))",
    "remove what is only read": (
        "import os\ntry: os.remove(IN + '/text')\nexcept PermissionError as e: post(str(e))"
    ),
    "uncaught": "open(BESIDE + '/beside')",
    "wrong payload": (
        "for payload in (None, 5, {}, {'path': 5}, {'path': IN, 'more': 1}):\n"
        "    try: request('filesystem', 'read', payload)\n"
        "    except Exception as e: post(type(e).__name__)"
    ),
    "no such action": (
        "try: request('filesystem', 'format', {'path': IN})\n"
        "except Exception as e: post(type(e).__name__)"
    ),
    "a handle that is none": (
        "try: request('filesystem', 'read', {'handle': 99})\n"
        "except Exception as e: post(type(e).__name__)"
    ),
    "a handle to write": (
        "h = request('filesystem', 'open', {'path': OUT + '/f', 'mode': 'w+'})['handle']\n"
        "post(request('filesystem', 'write', {'handle': h, 'offset': 0, 'data': b'abc'}))\n"
        "post(request('filesystem', 'read', {'handle': h, 'length': 2}))\n"
        "request('filesystem', 'truncate', {'handle': h, 'size': 1})\n"
        "request('filesystem', 'close', {'handle': h})"
    ),
}
for _name, _source in _FILES.items():
    GROUP.add(f"files/{_name}", _with_files(_source))


def _granted(source: str, *grants: pyisolate.Authority, **options: object) -> Steps:
    def steps(host: Host) -> None:
        policy = Policy().grant(*grants)
        cell = host.spawn(policy=policy, allowed_imports=_IMPORTS, **options)
        cell.run(source)
        cell.denials()

    return steps


_DENIED = "try: {}\nexcept PermissionError as e: post(str(e))"
_CLOCKS = {
    "time": "import time; post(time.time() > 1.7e9)",
    "monotonic": "import time; a = time.monotonic(); post(time.monotonic() >= a)",
    "sleep": "import time; post(time.sleep(0.01))",
    "datetime": "import datetime; post(datetime.datetime.now().year > 2020)",
    "by request": "post(request('clock', 'time', {}) > 10 ** 18)",
    "by object": "post([clock.time() > 1.7e9, clock.monotonic() > 0, clock.sleep(0)])",
    "wrong payload": "try: request('clock', 'sleep', {'seconds': 'x'})\n"
    "except Exception as e: post(type(e).__name__)",
}
for _name, _source in _CLOCKS.items():
    GROUP.add(f"clock/{_name}", _granted(_source, Clock()))
GROUP.add(
    "clock/one of three",
    _granted(
        "import time\npost(time.monotonic() > 0)\n"
        "for f in (time.time, time.localtime, lambda: time.sleep(0)):\n"
        "    try: f()\n    except PermissionError as e: post(str(e))",
        Clock("monotonic"),
    ),
)
for _name, _call in {
    "time": "time.time()",
    "sleep": "time.sleep(0)",
    "localtime": "time.localtime()",
    "perf_counter": "time.perf_counter()",
}.items():
    GROUP.add(f"clock/not granted {_name}", _granted("import time\n" + _DENIED.format(_call)))
GROUP.add(
    "clock/what needs none",
    _granted("import time\npost([time.gmtime(0).tm_year, time.strptime('1999', '%Y').tm_year])"),
)

_RANDOM = {
    "urandom": "import os; post(len(os.urandom(16)))",
    "secrets": "import secrets; post([len(secrets.token_bytes(5)), len(secrets.token_hex(4))])",
    "SystemRandom": "import random; post(0 <= random.SystemRandom().random() < 1)",
    "by request": "post(len(request('random', 'bytes', {'length': 9})))",
    "by object": "post(len(entropy.bytes(9)))",
    "nothing": "post(request('random', 'bytes', {'length': 0}))",
    "too much": "try: request('random', 'bytes', {'length': 2 << 20})\n"
    "except Exception as e: post(type(e).__name__)",
    "differs": "post(request('random', 'bytes', {'length': 16}) != request('random', 'bytes', {'length': 16}))",
}
for _name, _source in _RANDOM.items():
    GROUP.add(f"random/{_name}", _granted(_source, Random()))
for _name, _call in {
    "urandom": "os.urandom(4)",
    "token_bytes": "secrets.token_bytes(4)",
    "SystemRandom": "random.SystemRandom().random()",
}.items():
    GROUP.add(
        f"random/not granted {_name}",
        _granted("import os, random, secrets\n" + _DENIED.format(_call)),
    )
GROUP.add(
    "random/with a seed it is the same everywhere",
    _granted("post(request('random', 'bytes', {'length': 16}).hex())", Random(7)),
)
GROUP.add(
    "random/seeded generators need none", _granted("import random; post(random.Random(1).random())")
)

_SECRETS: dict[str, object] = {"secrets": {"token": "value of the token", "raw": b"\0\1"}}
_REVEAL = "post(request('secret', 'reveal', {'name': 'token'}))"
GROUP.add("secret/reveal", _granted(_REVEAL, Secret("token", reveal=True), **_SECRETS))
GROUP.add(
    "secret/reveal bytes",
    _granted(
        "post(request('secret', 'reveal', {'name': 'raw'}))", Secret("raw", reveal=True), **_SECRETS
    ),
)
GROUP.add(
    "secret/use is not reveal",
    _granted(
        "post('value of' not in request('secret', 'use', {'name': 'token'}))\n"
        + _DENIED.format(_REVEAL),
        Secret("token", use=["api.example.org"]),
        **_SECRETS,
    ),
)
GROUP.add(
    "secret/another name",
    _granted(
        _DENIED.format("request('secret', 'reveal', {'name': 'raw'})"),
        Secret("token", reveal=True),
        **_SECRETS,
    ),
)
GROUP.add(
    "secret/without a value",
    _granted(
        "try: request('secret', 'reveal', {'name': 'token'})\n"
        "except Exception as e: post(type(e).__name__)",
        Secret("token", reveal=True),
    ),
)
GROUP.add("secret/not granted", _granted(_DENIED.format(_REVEAL), **_SECRETS))
GROUP.add(
    "programs/echo",
    _granted(
        "import subprocess\npost(subprocess.check_output(['echo', 'checked'], text=True))",
        Command("echo", ["*"]),
    ),
    ["programs"],
)
GROUP.add(
    "programs/another argument",
    _granted("import subprocess\nsubprocess.run(['echo', 'other'])", Command("echo", ["checked"])),
    ["programs"],
)


@GROUP.program()
def channels_between_cells(host: Host) -> None:
    sender = host.spawn(policy=Policy().grant(Channel("jobs", "send")))
    receiver = host.spawn(policy=Policy().grant(Channel("jobs", "receive")))
    sender.run(
        "for job in ([1, {'a': (2,)}], 'two', b'three'):\n"
        "    post(request('ipc', 'send', {'channel': 'jobs', 'message': job}))\n"
        + _DENIED.format("request('ipc', 'receive', {'channel': 'jobs'})")
    )
    receiver.run(
        "for _ in range(3): post(request('ipc', 'receive', {'channel': 'jobs', 'timeout': 10.0}))\n"
        + _DENIED.format("request('ipc', 'send', {'channel': 'jobs', 'message': 1})")
    )
    sender.denials()
    receiver.denials()


@GROUP.program()
def a_channel_on_which_nothing_comes(host: Host) -> None:
    cell = host.spawn(policy=Policy().grant(Channel("quiet")))
    cell.run(
        "try: request('ipc', 'receive', {'channel': 'quiet', 'timeout': 0.05})\n"
        "except Exception as e: post(type(e).__name__)\n"
        + _DENIED.format("request('ipc', 'receive', {'channel': 'other'})")
    )


@GROUP.program()
def bytes_written_are_bounded(host: Host) -> None:
    names = _folders(host)
    made = host.folder / "made"
    policy = Policy().grant(ReadPath(made), WritePath(made))
    cell = host.spawn(policy=policy, disk_bytes_max=10)
    cell.exec(names)
    cell.run(
        "for size in (11, 10, 1):\n"
        "    try: post(request('filesystem', 'write', {'path': f'{OUT}/{size}', 'data': b'x' * size}))\n"
        "    except OSError as e: post((type(e).__name__, 'disk_bytes_max' in str(e)))"
    )
    cell.run("post('still here')")
