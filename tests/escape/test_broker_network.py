"""The network: what a policy does not grant is not reached, however it is spelled or wrapped."""

import contextlib
import posixpath
import socket
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

import pyisolate
from pyisolate import ConnectTCP, Http, Policy, Resolve
from pyisolate.attack.asked import Asked
from pyisolate.attack.cases.broker_network import (
    HOST_REFUSED,
    HOSTS,
    PATHS,
    PORTS,
    REACHES_THE_NAIVE,
    REACHING,
    REAIMED,
    REDIRECTS,
    SMUGGLED,
    WAYS,
)

from .broker_harness import BACKENDS, PATIENCE, Held, assert_complete, run_plain
from .broker_site import Listener, Site, listening, page, redirect, silent, trickle

pytestmark = pytest.mark.filterwarnings(
    # Attacks close nothing, in the control too.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

MANY = {"network_ops_max": 100_000}


@pytest.fixture(scope="module")
def canary() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture(scope="module")
def echo() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with listening(Site) as listener:
        yield listener


@pytest.fixture(autouse=True)
def _unvisited(canary: Listener, site: Site) -> None:
    time.sleep(0)
    canary.visits = 0
    site.forget()


# --- hosts ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["*", "*.example.org"])
def anywhere(
    request: pytest.FixtureRequest, supervisor: pyisolate.Supervisor, canary: Listener
) -> Iterator[Held]:
    """All that is public, or all below a name: neither is this machine."""
    host = request.param
    grants = (
        ConnectTCP(host, canary.port),
        Http(f"http://{host}:{canary.port}/", methods=["*"]),
        Resolve(host),
    )
    held = Held(supervisor, Policy().grant(*grants), {"PORT": canary.port}, **MANY)
    yield held
    held.close()


def _ways(host: str) -> str:
    cases = "".join(
        f"def {name.replace('.', '_')}():\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
        for name, body in WAYS.items()
    )
    table = ", ".join(f"{name!r}: {name.replace('.', '_')}" for name in WAYS)
    return f"HOST = {host!r}\n{cases}return answers({{{table}}})"


@pytest.mark.parametrize("spelling", HOSTS)
def test_what_is_not_public_is_not_reached(spelling: str, anywhere: Held, canary: Listener):
    kind, told = anywhere.attempt(_ways(HOSTS[spelling]))
    assert kind == "done"
    for way, names in told.items():
        if way == "connect_ex":
            assert names != "ok"
            continue
        assert set(names) & set(HOST_REFUSED.replace("DENIED", "CapabilityDenied").split()), (
            way,
            names,
        )
    assert canary.visits == 0
    for event in anywhere.cell.denials[-8:]:
        assert_complete(event)
    anywhere.assert_alive()


@pytest.mark.parametrize("spelling", REACHING)
def test_a_grant_of_the_address_reaches_it(
    spelling: str, supervisor: pyisolate.Supervisor, canary: Listener
):
    """The control: the same text in a cell whose policy names this machine."""
    networks = ("127.0.0.0/8", "0.0.0.0", "localhost")
    policy = Policy().grant(*(ConnectTCP(it, canary.port, private=True) for it in networks))
    held = Held(supervisor, policy, {"HOST": REACHING[spelling], "PORT": canary.port})
    try:
        outcome = held.attempt(
            "need(socket.create_connection((HOST, PORT), 5).recv(6) == b'canary')"
        )
        assert outcome[0] == "done", outcome
    finally:
        held.close()


def test_a_name_that_leads_to_this_machine_is_refused_there(
    supervisor: pyisolate.Supervisor, canary: Listener
):
    """A name is granted, but not where it leads: only the name of loopback itself means it."""
    own = socket.gethostname()
    with contextlib.suppress(OSError):
        if not socket.gethostbyname(own).startswith("127."):
            pytest.skip("this machine's name leads elsewhere")
    try:
        socket.gethostbyname(own)
    except OSError:
        pytest.skip("this machine's name leads nowhere")
    grants = ConnectTCP(own, canary.port), Http(f"http://{own}:{canary.port}/"), Resolve(own)
    held = Held(supervisor, Policy().grant(*grants), {"PORT": canary.port})
    try:
        kind, told = held.attempt(_ways(own))
        assert kind == "done"
        assert "ok" not in told.values(), told
        assert canary.visits == 0
        event = held.cell.denials[-1]
        assert event.grant, event
        assert "loopback" in " ".join(event.reason for event in held.cell.denials)
    finally:
        held.close()


@pytest.mark.parametrize("port", PORTS)
def test_what_is_no_port(
    port: str, supervisor: pyisolate.Supervisor, anywhere: Held, canary: Listener
):
    for body in (
        f"return net('connect', host='127.0.0.1', port={port})",
        f"return net('http', method='GET', url='http://127.0.0.1:' + str({port}) + '/')",
        f"socket.create_connection(('127.0.0.1', {port}), 2)",
    ):
        outcome = anywhere.attempt(body)
        assert outcome[0] == "refused", outcome
        assert "ProtocolViolation" not in repr(outcome)
    assert canary.visits == 0
    anywhere.assert_alive()


# --- requests ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=BACKENDS)
def narrow(
    request: pytest.FixtureRequest,
    supervisor: pyisolate.Supervisor,
    site: Site,
    canary: Listener,
) -> Iterator[Held]:
    """GET and POST below one path of the site's."""
    grant = Http(f"{site.url}/v1/", methods=["GET", "POST"])
    world = {"URL": site.url, "CANARY": canary.port, "SITE": site.port}
    options = MANY | {"fresh": True, "backend": request.param}
    held = Held(supervisor, Policy().grant(grant), world, **options)
    yield held
    held.close()


@pytest.mark.parametrize("case", SMUGGLED, ids=str)
def test_a_request_is_not_smuggled(case: Asked, narrow: Held, site: Site, canary: Listener):
    outcome = narrow.attempt(case.body)
    assert outcome[0] == "refused", outcome
    expected = ["CapabilityDenied", "ValueError", "TypeError", "OSError"]
    assert set(outcome[1]) & set(expected), outcome
    assert site.heads == []
    assert canary.visits == 0
    narrow.assert_alive()


@pytest.mark.parametrize(
    "case", [case for case in SMUGGLED if case.name in REACHES_THE_NAIVE], ids=str
)
def test_a_client_that_writes_what_it_is_told_sends_it(case: Asked, site: Site):
    """The control: what a broker would do that puts a request together as text."""

    def naive(capability: str, action: str, payload: dict[str, Any]) -> Any:
        address = urllib.parse.urlsplit(site.url)
        target = payload["url"].removeprefix(site.url)
        lines = [f"{payload['method']} {target} HTTP/1.1", f"Host: {address.netloc}"]
        lines += [f"{name}: {value}" for name, value in payload["headers"]]
        lines += [f"Content-Length: {len(payload['body'])}"] * bool(payload["body"])
        text = "\r\n".join([*lines, "", ""]).encode("latin-1") + payload["body"]
        with socket.create_connection((address.hostname, address.port), 5) as connection:
            connection.sendall(text)
            return {"status": int(connection.recv(99).split()[1])}

    outcome = run_plain(case, {"URL": site.url, "CANARY": 1}, naive)
    assert outcome[0] == "done", outcome
    assert site.heads
    sent = site.heads[0] + site.bodies[0]
    assert any(
        sign in sent
        for sign in (b"\r\nX-Injected", b"\nX-Injected", b"/admin", b"example.org", b"DELETE",
                     b"TRACE", b"chunked", b"h2c")
    ), sent  # fmt: skip


@pytest.mark.parametrize("named", PATHS)
def test_a_path_does_not_leave_its_prefix(named: str, narrow: Held, site: Site):
    for body in (
        "return net('http', method='GET', url=URL + PATH, timeout=2)['status']",
        "return urllib.request.urlopen(URL + PATH, timeout=2).status",
    ):
        outcome = narrow.attempt(f"PATH = {PATHS[named]!r}\n{body}")
        for path in site.paths:  # whatever was sent stays below, however a server reads it
            decoded = path
            for _ in range(3):
                decoded = urllib.parse.unquote(decoded)
            assert path.startswith("/v1/"), (path, outcome)
            lands = posixpath.normpath(decoded.replace("\\", "/").replace(";", "/"))
            assert lands.startswith("/v1"), (path, outcome)
            assert ".." not in decoded, (path, outcome)
    narrow.assert_alive()


@pytest.mark.parametrize("named", REDIRECTS)
@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_leads_nowhere_else(
    named: str, status: int, narrow: Held, site: Site, canary: Listener
):
    to = REDIRECTS[named].format(CANARY=canary.port, SITE=site.port)
    site.pages["/v1/start"] = redirect(to, status)
    site.pages["/v1/itself"] = redirect("/v1/itself", status)
    followed = "net('http', method='GET', url=URL + '/v1/start', redirects=20, timeout=3)"
    for body in (
        f"answer = {followed}; need(answer['status'] == 200); return answer",
        "return urllib.request.urlopen(URL + '/v1/start', timeout=3).read()",
    ):
        outcome = narrow.attempt(body)
        assert outcome[0] == "refused", outcome
        assert "admin" not in "".join(site.paths)
        assert canary.visits == 0
    narrow.assert_alive()


def test_plain_urllib_follows_a_redirect(site: Site, canary: Listener):
    """The control."""
    site.pages["/v1/start"] = redirect("/admin")
    world = {"URL": site.url}
    body = "return urllib.request.urlopen(URL + '/v1/start', timeout=3).read()"
    assert run_plain(body, world) == ["done", b"page /admin"]


def test_answers_that_smuggle(narrow: Held, site: Site):
    """A server's answer that could be read in two ways is read in none, or in the safe one."""
    ok = b"HTTP/1.1 200 OK\r\n"
    answers = {
        "two lengths": ok + b"Content-Length: 3\r\nContent-Length: 30\r\n\r\nabc" + b"x" * 27,
        "a length and chunks": ok
        + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "a negative length": ok + b"Content-Length: -1\r\n\r\nabc",
        "a length over all": ok + b"Content-Length: 99999999999999999999\r\n\r\nabc",
        "a length that is none": ok + b"Content-Length: 3x\r\n\r\nabc",
        "a chunk over all": ok + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
        "a chunk that is none": ok + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
        "a chunk that is negative": ok + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n",
        "no head": b"abc",
        "a head without an end": ok + b"X: " + b"x" * 300_000,
        "too many headers": ok + b"X: y\r\n" * 20_000 + b"\r\n",
        "another protocol": b"SSH-2.0-x\r\n\r\n",
        "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
        "a status that is none": b"HTTP/1.1 999999 OK\r\n\r\n",
        "nothing": b"",
        "many interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
        "a switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\nabc",
        "a short body": ok + b"Content-Length: 300\r\n\r\nabc",
    }
    for named, answer in answers.items():
        site.pages["/v1/odd"] = answer
        kind, *told = narrow.attempt(
            "a = net('http', method='GET', url=URL + '/v1/odd', timeout=3)\n"
            "body = a['body']\n"
            "while a['handle'] is not None and (part := net('receive', handle=a['handle'])):\n"
            "    body += part\n"
            "return body"
        )
        assert kind == "refused" or told[0] in (b"abc", b""), (named, told)
        narrow.assert_alive()


@pytest.mark.parametrize("page_of", ["silent", "trickle"])
def test_a_server_that_never_answers_holds_nobody_up(page_of: str, narrow: Held, site: Site):
    site.pages["/v1/slow"] = {"silent": silent, "trickle": trickle}[page_of]
    ask = "net('http', method='GET', url=URL + '/v1/slow', timeout=0.4)"
    outcome = narrow.attempt(f"return {ask}")
    assert outcome[0] == "refused"
    assert "TimeoutError" in outcome[1]
    outcome = narrow.attempt("urllib.request.urlopen(URL + '/v1/slow', timeout=0.4).read()")
    assert outcome[0] == "refused"
    assert set(outcome[1]) & {"TimeoutError", "URLError"}, outcome
    narrow.assert_alive()


def test_a_cell_that_ends_leaves_its_requests(supervisor: pyisolate.Supervisor, site: Site):
    """No request of a dead cell's goes on."""
    site.pages["/v1/slow"] = silent
    held = Held(supervisor, Policy().grant(Http(site.url + "/v1/")), {"URL": site.url})
    held.cell.exec("net('http', method='GET', url=URL + '/v1/slow', timeout=1000)")
    end = time.monotonic() + PATIENCE
    while not site.heads and time.monotonic() < end:
        time.sleep(0.01)
    held.close()
    with pytest.raises(pyisolate.CellDied):
        held.ended.recv(PATIENCE)
    with supervisor.spawn("after-the-slow", allowed_imports=["math"]) as cell:
        assert cell.call("math.gcd", 4, 6) == 2


# --- connected sockets ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def connected(supervisor: pyisolate.Supervisor, echo: Listener, canary: Listener) -> Iterator[Held]:
    policy = Policy().grant(ConnectTCP("127.0.0.1", echo.port))
    held = Held(supervisor, policy, {"ECHO": echo.port, "CANARY": canary.port}, **MANY)
    yield held
    held.close()


@pytest.mark.parametrize("case", REAIMED, ids=str)
def test_a_connection_is_not_aimed_elsewhere(case: Asked, connected: Held, canary: Listener):
    outcome = connected.attempt(case.body)
    assert outcome[0] == "refused", outcome
    assert set(outcome[1]) & set(case.refused.split()), outcome
    time.sleep(0.02)
    assert canary.visits == 0
    connected.assert_alive()
    body = (
        "s = socket.create_connection(('127.0.0.1', ECHO), 5)\n"
        "s.recv(7); s.send(b'x'); return s.recv(1)"
    )
    assert connected.attempt(body) == ["done", b"x"]


@pytest.mark.parametrize("case", [case for case in REAIMED if case.plain], ids=str)
def test_plain_python_aims_it_elsewhere(case: Asked, echo: Listener, canary: Listener):
    """The control: the same text outside of a cell."""
    outcome = run_plain(case, {"ECHO": echo.port, "CANARY": canary.port})
    assert outcome[0] == "done", outcome


# --- limits --------------------------------------------------------------------------------------

_CONNECTS = "for _ in range(30): socket.create_connection(('127.0.0.1', ECHO), 5).close()"
_REQUESTS = "for _ in range(30): net('http', method='GET', url=URL + '/v1/x')"
_BODIES = "for _ in range(30): net('http', method='POST', url=URL + '/v1/x', body=b'x' * 100_000)"
LIMITS = {
    "connections": (_CONNECTS, {"network_ops_max": 10}),
    "requests": (_REQUESTS, {"network_ops_max": 10}),
    "bodies": (_BODIES, {"network_bytes_max": 500_000}),
    "redirects": (
        "net('http', method='GET', url=URL + '/v1/itself', redirects=20)",
        {"network_ops_max": 5},
    ),
    "answers": (
        "for _ in range(30): net('http', method='GET', url=URL + '/v1/large')",
        {"network_bytes_max": 500_000},
    ),
    "bytes of streams": (
        "import time\ns = socket.create_connection(('127.0.0.1', ECHO), 5)\n"
        "for _ in range(300):\n    s.sendall(b'x' * 10_000)\n    s.recv(1 << 20)\n"
        "    time.sleep(0.004)",
        {"network_bytes_max": 500_000},
    ),
}


def _limited(supervisor: pyisolate.Supervisor, echo: Listener, site: Site, **limits: int) -> Held:
    grants = (
        ConnectTCP("127.0.0.1", echo.port),
        Http(f"{site.url}/v1/", methods=["*"]),
        Resolve("localhost"),
        pyisolate.Clock(),
    )
    world = {"ECHO": echo.port, "URL": site.url}
    return Held(supervisor, Policy().grant(*grants), world, **limits)


@pytest.mark.parametrize("named", LIMITS)
@pytest.mark.parametrize("limited", [True, False], ids=["limited", "control"])
def test_the_network_is_bounded(
    named: str, limited: bool, supervisor: pyisolate.Supervisor, echo: Listener, site: Site
):
    body, limits = LIMITS[named]
    site.pages["/v1/itself"] = redirect("/v1/itself")
    site.pages["/v1/large"] = page(b"x" * 100_000)
    held = _limited(supervisor, echo, site, **(limits if limited else MANY))
    try:
        cell = held.cell
        try:
            outcome = held.attempt(body)
        except pyisolate.NetworkExceeded:
            outcome = ["exceeded"]
        except pyisolate.CellDied as error:
            outcome = ["exceeded", str(error)]
            assert "network" in (cell.termination_reason or "")
        if limited:
            assert outcome[0] != "done", outcome
            if named in ("connections", "requests", "redirects", "bodies", "answers"):
                assert "network" in (cell.termination_reason or repr(outcome)).lower()
        else:
            assert outcome[0] == "done" or named == "redirects", outcome
    finally:
        held.close()
    with supervisor.spawn("after-the-limit", allowed_imports=["math"]) as other:
        assert other.call("math.gcd", 4, 6) == 2


def test_a_hundred_connections_at_once(
    supervisor: pyisolate.Supervisor, echo: Listener, site: Site
):
    """They end at the limit on descriptors; the host keeps none of them after the cell."""
    held = _limited(supervisor, echo, site)
    try:
        outcome = held.attempt(
            "kept = []\n"
            "try:\n"
            "    for _ in range(100):\n"
            "        kept.append(socket.create_connection(('127.0.0.1', ECHO), 5))\n"
            "except OSError as error: return [len(kept), type(error).__name__]\n"
            "return [len(kept), '']"
        )
        assert outcome[0] == "done"
        assert outcome[1][0] < 64, outcome
        held.run("post(1)")  # what was kept is dropped
        held.assert_alive()
    except (pyisolate.OpenFilesExceeded, pyisolate.NetworkExceeded):
        pass
    finally:
        held.close()
    with supervisor.spawn("after-a-hundred", allowed_imports=["math"]) as other:
        assert other.call("math.gcd", 4, 6) == 2


def test_connections_that_are_dropped_are_closed(
    supervisor: pyisolate.Supervisor, echo: Listener, site: Site
):
    """Ordinary code forgets sockets; outside of a cell their end closes them."""
    held = _limited(supervisor, echo, site)
    body = (
        "for number in range(60):\n"
        "    need(socket.create_connection(('127.0.0.1', ECHO), 5).recv(6) == b'canary')\n"
        "return number"
    )
    try:
        assert run_plain(body, held.world) == ["done", 59]
        assert held.attempt(body) == ["done", 59]
    finally:
        held.close()


def test_a_body_that_never_ends_is_bounded(supervisor: pyisolate.Supervisor, site: Site):
    def endless(connection: socket.socket, head: bytes, body: bytes) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(20_000):
                connection.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")

    site.pages["/v1/endless"] = endless
    policy = Policy().grant(Http(site.url + "/v1/"))
    held = Held(supervisor, policy, {"URL": site.url}, network_bytes_max=5_000_000)
    try:
        with pytest.raises((pyisolate.NetworkExceeded, pyisolate.CellDied)):
            held.attempt(
                "a = net('http', method='GET', url=URL + '/v1/endless')\n"
                "while net('receive', handle=a['handle']): pass"
            )
        assert "network" in (held.ended.termination_reason or "").lower()
    finally:
        held.close()


def test_handles_of_answers_are_the_cells_own(
    supervisor: pyisolate.Supervisor, narrow: Held, site: Site
):
    site.pages["/v1/long"] = page(b"x" * (3 << 20))
    kind, handle = narrow.attempt(
        "return net('http', method='GET', url=URL + '/v1/long')['handle']"
    )
    assert kind == "done"
    other = Held(supervisor, narrow.policy, narrow.world)
    try:
        assert other.attempt(f"net('close', handle={handle})") is not None
        outcome = other.attempt(f"return net('receive', handle={handle})")
        assert outcome[0] == "refused"
        assert "EBADF" in outcome[1]
    finally:
        other.close()
    kind, part = narrow.attempt(f"return net('receive', handle={handle})")
    assert (kind, part[:1]) == ("done", b"x")
    assert narrow.attempt(f"net('close', handle={handle})")[0] == "done"
    for body in (f"net('receive', handle={handle})", "net('receive', handle=-1)",
                 "net('receive', handle=1 << 70)", "net('close', handle='x')"):  # fmt: skip
        assert narrow.attempt(f"return {body}")[0] == "refused"
