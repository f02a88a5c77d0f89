"""What is denied under a wider grant is denied in every spelling; a changed policy holds."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyisolate
from pyisolate import Command, ConnectTCP, Http, Policy, ReadPath, ReadWritePath, Resolve, WritePath

from .broker_harness import BACKENDS, Held
from .broker_site import Site, listening


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with listening(Site) as site:
        yield site


# --- URLs ----------------------------------------------------------------------------------------

DENIED_PATHS = [
    "/v1/admin", "/v1//admin", "/v1///admin", "/v1/admin/", "/v1/admin//", "/v1/admin/x",
    "/v1//admin/x",
    "/v1/%61dmin", "/v1/adm%69n", "/v1/./admin", "/v1/%2e/admin", "/v1/.%2fadmin", "/v1/x/../admin",
    "/v1/x/%2e%2e/admin", "/v1/x/..%2fadmin", "/v1/x%2f..%2fadmin", "/v1/%2fadmin", "/v1/%5cadmin",
    "/v1/admin;x", "/v1/admin;x/y", "/v1/;/admin", "/v1/;x=y/admin", "/v1/admin%2f", "/v1/admin%00",
    "/v1/admin%3bx", "/v1/admin?x", "/v1/admin#x", "/v2/../v1/admin", "/../v1/admin", "//v1/admin",
]  # fmt: skip
"""Paths that some server takes for `/v1/admin`."""


@pytest.fixture(scope="module", params=BACKENDS)
def browsing(
    request: pytest.FixtureRequest, supervisor: pyisolate.Supervisor, site: Site
) -> Iterator[Held]:
    policy = Policy().grant(Http(f"{site.url}/", methods=["*"])).deny(Http(f"{site.url}/v1/admin"))
    options = {"network_ops_max": 10_000, "fresh": True, "backend": request.param}
    held = Held(supervisor, policy, {"URL": site.url}, **options)
    yield held
    held.close()


@pytest.mark.parametrize("path", DENIED_PATHS)
@pytest.mark.parametrize("method", ["GET", "post", "PROPFIND"])
def test_a_denied_path_is_not_asked_for(path: str, method: str, browsing: Held, site: Site):
    site.forget()
    outcome = browsing.attempt(
        f"return net('http', method={method!r}, url=URL + {path!r}, timeout=3)['status']"
    )
    if path == "//v1/admin" and outcome[0] == "done":
        assert site.paths != ["/v1/admin"]
        return
    assert outcome[0] == "refused", outcome
    assert "CapabilityDenied" in outcome[1]
    assert site.heads == []
    browsing.assert_alive()


@pytest.mark.parametrize("path", ["/v1/x", "/v1/administration", "/", "/v1/x?admin"])
def test_what_is_beside_it_is_asked_for(path: str, browsing: Held):
    """The control: the grant is in force."""
    body = f"return net('http', method='GET', url=URL + {path!r}, timeout=3)['status']"
    assert browsing.attempt(body) == ["done", 200]


# --- hosts ---------------------------------------------------------------------------------------

SPELLINGS = [
    "127.0.0.1", "127.1", "0x7f.1", "2130706433", "::ffff:127.0.0.1", "127.0.0.1.", "localhost",
    "LOCALHOST", "localhost.", socket.gethostname(),
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
def test_a_denied_address_is_not_reached_by_another_name(
    host: str, supervisor: pyisolate.Supervisor, site: Site
):
    port = site.port
    wide = (
        ConnectTCP("*", port, private=True),
        Http(f"http://*:{port}/", methods=["*"], private=True),
        Resolve("*"),
    )
    narrow = ConnectTCP("127.0.0.0/8", port), Http(f"http://[127.0.0.0/8]:{port}/")
    held = Held(supervisor, Policy().grant(*wide).deny(*narrow), {"PORT": port, "HOST": host})
    open_ = Held(supervisor, Policy().grant(*wide), {"PORT": port, "HOST": host})
    bodies = (
        "net('connect', host=HOST, port=PORT, timeout=3)",
        "net('http', method='GET', url=f'http://{HOST}:{PORT}/', timeout=3)",
        "socket.create_connection((HOST, PORT), 3)",
    )
    try:
        site.forget()
        for body in bodies:
            outcome = held.attempt(f"return {body}")
            if "gaierror" not in repr(outcome) and "not known" not in repr(outcome):
                assert set(outcome[1]) & {"CapabilityDenied", "ValueError"}, outcome
        assert site.visits == 0
        if host != socket.gethostname():
            assert open_.attempt(f"return {bodies[0]}")[0] == "done"
    finally:
        held.close()
        open_.close()


# --- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["sort", "/usr/bin/sort", "/usr/bin/../bin/sort", "/bin/sort"])
def test_a_denied_program_has_no_other_path(program: str, supervisor: pyisolate.Supervisor):
    granted = [Command(name, args=["**"]) for name in ("sort", "/usr/bin/sort", "/bin/sort")]
    policy = Policy().grant(*granted).deny(Command("sort"))
    held = Held(supervisor, policy, {})
    control = Held(supervisor, Policy().grant(*granted), {})
    body = (
        "return request('subprocess', 'run', {'program': PROGRAM, 'args': ['/dev/null']})"
        "['returncode']"
    ).replace("PROGRAM", repr(program))
    try:
        outcome = held.attempt(body)
        assert "CapabilityDenied" in outcome[1], outcome
        if ".." not in program and os.path.exists("/bin/sort"):
            assert control.attempt(body) == ["done", 0]
    finally:
        held.close()
        control.close()


# --- files ---------------------------------------------------------------------------------------


def test_a_listing_shows_nothing_that_is_denied(supervisor: pyisolate.Supervisor, tmp_path: Path):
    for name in ("a.txt", "b.key", "hidden/x", "sub/c.key", "sub/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    policy = (
        Policy()
        .grant(ReadPath(tmp_path))
        .deny(ReadPath(f"{tmp_path}/**/*.key"), ReadPath(tmp_path / "hidden"))
    )
    held = Held(supervisor, policy, {"HERE": str(tmp_path)})
    try:
        kind, told = held.attempt(
            "return [sorted(os.listdir(HERE)), sorted(e.name for e in os.scandir(HERE)),"
            " sorted(e[0] for e in fs('list', path=HERE)), sorted(os.listdir(HERE + '/sub')),"
            " sorted(str(p) for p in pathlib.Path(HERE).rglob('*key*'))]"
        )
        assert kind == "done", told
        assert told == [["a.txt", "sub"]] * 3 + [["d.txt"], []]
    finally:
        held.close()


def test_a_changed_policy_holds_at_once(supervisor: pyisolate.Supervisor, tmp_path: Path):
    (tmp_path / "file").write_text("text")
    both = Policy().grant(ReadWritePath(tmp_path))
    held = Held(supervisor, both, {"FILE": str(tmp_path / "file")})
    try:
        assert held.attempt(
            "globals()['n'] = handle_of(FILE, 'r+'); globals()['f'] = open(FILE, 'r+')"
        )[0] == "done"  # fmt: skip
        held.cell.set_policy(Policy().grant(ReadPath(tmp_path)))
        for body in (
            "fs('write', handle=n, offset=0, data=b'X')",
            "fs('append', handle=n, data=b'X')",
            "fs('truncate', handle=n, size=0)",
            "f.write('X'); f.flush()",
            "open(FILE, 'w')",
        ):
            outcome = held.attempt(body)
            assert "CapabilityDenied" in outcome[1], (body, outcome)
        assert held.attempt("return fs('read', handle=n)") == ["done", b"text"]
        held.cell.set_policy(Policy())
        for body in ("fs('read', handle=n)", "fs('stat', handle=n)", "fs('read', path=FILE)"):
            assert "CapabilityDenied" in held.attempt(body)[1], body
        assert held.attempt("fs('close', handle=n)")[0] == "done"
        assert (tmp_path / "file").read_text() == "text"
        held.cell.set_policy(both)
        assert held.attempt("open(FILE, 'w').write('X')")[0] == "done"
    finally:
        held.close()


def test_the_whole_host_granted_is_still_no_window_into_processes(
    supervisor: pyisolate.Supervisor,
):
    """Not even a grant of everything reads the kernel's own file systems or writes through them."""
    held = Held(supervisor, Policy().grant(ReadPath("/"), WritePath("/proc")), {"PID": os.getpid()})
    try:
        for path in (
            "/proc/self/environ", "/proc/{PID}/environ", "/proc/{PID}/mem", "/proc/{PID}/maps",
            "/proc/{PID}/fd/0", "/proc/{PID}/root/etc/passwd", "/proc/{PID}/cwd", "/proc/cpuinfo",
            "/proc/1/cmdline", "/proc/self/fd", "/proc/self/task", "/proc/sys/kernel/hostname",
            "/sys/kernel/mm", "/sys/power/state", "/dev/null", "/dev/zero", "/dev/tty", "/dev/ptmx",
            "/dev/fd/0", "/dev/stdin", "/dev/mem", "/dev/kmsg",
        ):  # fmt: skip
            for act in ("read", "list", "stat"):
                outcome = held.attempt(f"return fs({act!r}, path=f{path!r})")
                if act != "stat" or path.startswith(("/proc", "/sys")):
                    assert outcome[0] == "refused", (path, act, outcome)
        for path in ("/proc/self/oom_score_adj", "/proc/self/mem", "/proc/self/fd/1"):
            outcome = held.attempt(f"fs('write', path={path!r}, data=b'0')")
            assert outcome[0] == "refused", (path, outcome)
            assert "CapabilityDenied" in outcome[1], (path, outcome)
        assert held.attempt("return fs('read', path='/etc/passwd', length=4)")[0] == "done"
    finally:
        held.close()


# --- HTTP by a stream ----------------------------------------------------------------------------

STREAMS = {
    "another target": "GET http://127.0.0.1:1/v1/ HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "another host": "GET /v1/a HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "a user": "GET @127.0.0.1:1/v1/ HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "CONNECT": "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "another path": "GET /admin HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "a path above": "GET /v1/../admin HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "a second request": "GET /v1/a HTTP/1.1\r\nHost: {H}\r\n\r\n"
    "GET /admin HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "a length and chunks": "POST /v1/a HTTP/1.1\r\nHost: {H}\r\nContent-Length: 40\r\n"
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "two lengths": "POST /v1/a HTTP/1.1\r\nHost: {H}\r\nContent-Length: 0\r\nContent-Length: 40\r\n"
    "\r\nGET /admin HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "line feeds alone": "GET /v1/a HTTP/1.1\nHost: {H}\nX: y\n\nGET /admin HTTP/1.1\nHost: {H}\n\n",
    "a folded header": "GET /v1/a HTTP/1.1\r\nHost: {H}\r\nX: y\r\n GET: /admin\r\n\r\n",
    "an old protocol": "GET /v1/a\r\n\r\n",
    "another protocol": "SSH-2.0-x\r\n",
    "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no end": "GET /v1/" + "x" * 200_000,
}


@pytest.mark.parametrize("named", STREAMS)
def test_a_stream_that_stands_for_http_speaks_nothing_else(
    named: str, supervisor: pyisolate.Supervisor, site: Site
):
    policy = Policy().grant(Http(f"{site.url}/v1/", methods=["GET", "POST"]))
    held = Held(supervisor, policy, {"PORT": site.port})
    text = STREAMS[named].replace("{H}", f"127.0.0.1:{site.port}").encode()
    try:
        site.forget()
        held.attempt(
            "with socket.create_connection(('127.0.0.1', PORT), 3) as s:\n"
            f"    s.settimeout(1); s.sendall({text!r}); return s.recv(300)"
        )
        for path in site.paths:
            assert path.startswith("/v1/")
        assert not any(b"admin" in head for head in site.heads), site.heads
        assert not any(b"example.org" in head for head in site.heads)
        held.assert_alive()
    finally:
        held.close()


def test_plain_sockets_send_it(site: Site):
    """The control."""
    site.forget()
    text = STREAMS["another path"].replace("{H}", "x").encode()
    with socket.create_connection(("127.0.0.1", site.port), 3) as connection:
        connection.sendall(text)
        assert connection.recv(300)
    assert site.paths == ["/admin"]
