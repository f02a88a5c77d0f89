"""A denial names the grant that would allow it, and that grant does."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyisolate
from pyisolate import DenialEvent, Policy

from .broker_harness import Held, assert_complete
from .broker_site import Site, listening

GRANTS_MAX = 4
"""How many denials one act may meet, one after the other."""

ACTS: dict[str, str] = {
    "open": "need(open(FILE).read() == 'text')",
    "read": "need(fs('read', path=FILE) == b'text')",
    "part": "need(fs('read', path=FILE, offset=1, length=2) == b'ex')",
    "pathlib": "need(pathlib.Path(FILE).read_text() == 'text')",
    "listdir": "need('file' in os.listdir(FOLDER))",
    "scandir": "need([entry.name for entry in os.scandir(FOLDER)])",
    "list": "need(fs('list', path=FOLDER))",
    "stat": "need(os.stat(FILE).st_size == 4)",
    "exists": "need(fs('exists', path=FILE))",
    "odd names": "need(open(ODD).read() == 'odd')",
    "a star": "need(open(FOLDER + '/a*b').read() == 'star')",
    "brackets": "need(fs('read', path=FOLDER + '/[x]') == b'brackets')",
    "a colon": "need(fs('read', path=FOLDER + '/a: b #c') == b'colon')",
    "quotes": "need(fs('read', path=FOLDER + '/\"q\\'') == b'quotes')",
    "a line": "need(fs('read', path=FOLDER + '/a\\nb') == b'line')",
    "write": "fs('write', path=FOLDER + '/new', data=b'x')",
    "open to write": "f = open(FOLDER + '/new2', 'w'); f.write('x'); f.close()",
    "open to change": "f = open(FILE, 'r+'); need(f.read() == 'text'); f.close()",
    "append": "fs('append', path=FOLDER + '/new', data=b'x')",
    "truncate": "os.truncate(FOLDER + '/cut', 1)",
    "mkdir": "os.mkdir(FOLDER + '/sub')",
    "makedirs": "os.makedirs(FOLDER + '/sub2/one/two')",
    "rename": "os.rename(FOLDER + '/cut', FOLDER + '/moved')",
    "remove": "os.remove(FOLDER + '/gone')",
    "rmdir": "os.rmdir(FOLDER + '/empty')",
    "copy": "shutil.copyfile(FILE, FOLDER + '/copied')",
    "connect": "socket.create_connection(('127.0.0.1', PORT), 5).close()",
    "connect, asked": "net('connect', host='127.0.0.1', port=PORT)",
    "connect to a name": "net('connect', host='localhost', port=PORT)",
    "connect to a number": "net('connect', host='2130706433', port=PORT)",
    "resolve": "need(net('resolve', host='localhost'))",
    "get": "need(net('http', method='GET', url=URL + '/a/b?c')['status'] == 200)",
    "post": "need(net('http', method='POST', url=URL + '/a', body=b'x')['status'] == 200)",
    "another method": "need(net('http', method='M-SEARCH', url=URL + '/')['status'] == 200)",
    "get of a name": "need(net('http', method='GET', url=NAMED + '/a')['status'] == 200)",
    "an odd path": "need(net('http', method='GET', url=URL + '/a%20b/%2f;x?y=%20')"
    "['status'] == 200)",
    "urlopen": "need(urllib.request.urlopen(URL + '/x', timeout=5).status == 200)",
    "run": "need(request('subprocess', 'run', {'program': 'true'})['returncode'] == 0)",
    "run with words": "need(subprocess.check_output(['echo', 'a', '-n', 'b c']) == b'a -n b c\\n')",
    "run with stars": "need(subprocess.check_output(['echo', '*', '[x]', '**']) == b'* [x] **\\n')",
    "run with quotes": "told = subprocess.check_output(['echo', '\"', \"'\", ': #'])\n"
    "need(told == b'\" \\' : #\\n')",
    "run with lines": "need(subprocess.check_output(['echo', 'a\\nb', '']) == b'a\\nb \\n')",
    "run by path": "told = request('subprocess', 'run', {'program': '/bin/true'})\n"
    "need(told['returncode'] == 0)",
    "reveal": "need(request('secret', 'reveal', {'name': 'key'}) == 'a long value')",
    "use": "need(request('secret', 'use', {'name': 'key'}).startswith('pyisolate'))",
    "use it": "k = request('secret', 'use', {'name': 'key'})\n"
    "need(net('http', method='GET', url=URL + '/', headers=[['X', k]])['status'] == 200)",
    "time": "need(request('clock', 'time', {}) > 0)",
    "time of a module": "import time\nneed(time.time() > 0)",
    "monotonic": "need(request('clock', 'monotonic', {}) > 0)",
    "sleep": "request('clock', 'sleep', {'seconds': 0})",
    "random": "need(len(request('random', 'bytes', {'length': 4})) == 4)",
    "secrets": "import secrets\nneed(len(secrets.token_bytes(4)) == 4)",
    "send": "request('ipc', 'send', {'channel': 'a channel', 'message': 1})",
    "receive": "request('ipc', 'send', {'channel': 'c', 'message': 1})\n"
    "need(request('ipc', 'receive', {'channel': 'c'}) == 1)",
    "own": "need(request('own', 'double', 2) == 4)",
    "own of an odd action": "need(request('own', 'a: b', 2) == 4)",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with listening(Site) as site:
        folder = tmp_path_factory.mktemp("grants").resolve()
        for name, text in {
            "file": "text", "cut": "text", "gone": "x", "a*b": "star", "[x]": "brackets",
            "a: b #c": "colon", "\"q'": "quotes", "a\nb": "line", "é {x}, y": "odd",
        }.items():  # fmt: skip
            (folder / name).write_text(text)
        (folder / "empty").mkdir()
        yield {
            "FOLDER": str(folder),
            "FILE": str(folder / "file"),
            "ODD": str(folder / "é {x}, y"),
            "PORT": site.port,
            "URL": site.url,
            "NAMED": f"http://localhost:{site.port}",
        }


def _options() -> dict[str, Any]:
    from pyisolate import HostCapability

    return {
        "secrets": {"key": "a long value"},
        # What is granted by naming it would not be denied: the policy speaks of it.
        "capabilities": {"own": HostCapability(lambda action, payload: payload * 2)},
    }


_BASE = "version: 1\ncapabilities: {own: [nothing]}\n"


def _policy(events: list[DenialEvent]) -> Policy:
    policy = Policy.from_text(_BASE)
    for event in events:
        assert event.grant is not None, event
        policy |= Policy.from_text("version: 1\n" + event.grant)
    return policy


@pytest.mark.parametrize("named", ACTS)
def test_the_grant_that_a_denial_names_allows_it(
    named: str, supervisor: pyisolate.Supervisor, world: dict[str, Any]
):
    events: list[DenialEvent] = []
    for _ in range(GRANTS_MAX):
        held = Held(supervisor, _policy(events), world, **_options())
        try:
            outcome = held.attempt(ACTS[named])
            if outcome[0] == "done":
                break
            assert events or "CapabilityDenied" in outcome[1] or "EACCES" in outcome[1], outcome
            assert held.cell.denials, outcome
            event = held.cell.denials[0]
            assert_complete(event)
            assert event.layer == "policy"
            assert event.grant not in [before.grant for before in events], (outcome, event)
            events.append(event)
        finally:
            held.close()
    else:
        pytest.fail(f"{GRANTS_MAX} grants did not allow it: {events}")
    assert events, "it was never denied"
    # And no more than that: another file, port, program or name stays denied.
    held = Held(supervisor, _policy(events), world, **_options())
    try:
        told = held.attempt(
            "return answers({'file': lambda: fs('read', path='/etc/passwd'),"
            " 'host': lambda: net('connect', host='127.0.0.2', port=PORT),"
            " 'program': lambda: request('subprocess', 'run', {'program': 'ls'}),"
            " 'secret': lambda: request('secret', 'reveal', {'name': 'other'}),"
            " 'own': lambda: request('own', 'other', 1)})"
        )
        assert all("CapabilityDenied" in names for names in told[1].values()), told
    finally:
        held.close()


def test_a_rule_that_denies_is_named_with_its_place(
    supervisor: pyisolate.Supervisor, world: dict[str, Any]
):
    text = f"version: 1\nfs:\n  read: [{world['FOLDER']}]\n  deny: [{world['FOLDER']}/cut]\n"
    policy = Policy.from_text(text, source="house.yml")
    held = Held(supervisor, policy, world)
    try:
        outcome = held.attempt("open(FOLDER + '/cut').read()")
        assert "CapabilityDenied" in outcome[1]
        (event,) = held.cell.denials
        assert event.rule.startswith("house.yml:4"), event
        assert event.layer == "policy"
        assert event.capability == "filesystem"
        assert "house.yml:4" in outcome[2]
    finally:
        held.close()


def test_what_no_grant_could_allow_names_none(supervisor: pyisolate.Supervisor, tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/proc/self/environ")
    held = Held(supervisor, Policy().allow_fs(tmp_path, "/proc"), {"FOLDER": str(tmp_path)})
    try:
        for body in ("open(FOLDER + '/fifo').read()", "open(FOLDER + '/link').read()",
                     "fs('read', path='/proc/self/environ')"):  # fmt: skip
            outcome = held.attempt(body)
            assert "CapabilityDenied" in outcome[1], outcome
            event = held.cell.denials[-1]
            assert event.layer == "broker", event
            assert event.grant is None
    finally:
        held.close()
