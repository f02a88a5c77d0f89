"""Secrets that a cell may use and not have: no copy of one comes back, or lies anywhere."""

import base64
import contextlib
import gzip
import json
import os
import secrets
import socket
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pyisolate
from pyisolate import Http, Policy, Resolve, Secret

from .broker_harness import Held
from .broker_site import Site, listening, page, redirect

HOST = "127.0.0.1"


def _new_value() -> str:
    return f"sk-+/'\"&<{secrets.token_hex(12)}>~="


@pytest.fixture(scope="module")
def value() -> str:
    return _new_value()


def _authorization(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        name, _, rest = line.partition(b":")
        if name.lower() == b"authorization":
            return rest.strip().decode("latin-1")
    return ""


def _chunked(parts: list[bytes]) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def _json(text: str) -> bytes:
    return json.dumps({"headers": {"authorization": text}}).encode()


ECHOES: dict[str, Callable[[str], bytes]] = {
    "body": lambda it: page(f"you sent {it} and {it}".encode()),
    "json": lambda it: page(_json(it)),
    "json with slashes": lambda it: page(_json(it).replace(b"/", b"\\/")),
    "html": lambda it: page(
        it.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        .replace('"', "&quot;").replace("'", "&#x27;").encode()
    ),
    "header": lambda it: page(b"x", X_Echo=it),
    "cookie": lambda it: page(b"x", Set_Cookie=f"auth={it}; Path=/"),
    "reason": lambda it: page(b"x", f"200 {it}"),
    "name of a header": lambda it: page(b"x", **{it.split("-")[-1].strip("\"'<>&~="): "x"}),
    "chunks": lambda it: _chunked([b"a", it.encode(), b"b"]),
    "chunks of one": lambda it: _chunked([bytes([byte]) for byte in it.encode()]),
    "chunks of three": lambda it: _chunked(
        [it.encode()[at : at + 3] for at in range(0, len(it), 3)]
    ),
    "base64": lambda it: page(base64.b64encode(it.encode())),
    "base64, one off": lambda it: page(base64.b64encode(b"x" + it.encode())),
    "base64, two off": lambda it: page(base64.b64encode(b"xy" + it.encode())),
    "base64 for URLs": lambda it: page(base64.urlsafe_b64encode(it.encode())),
    "base64 in a header": lambda it: page(
        b"x", WWW_Authenticate="Basic " + base64.b64encode(b"user:" + it.encode()).decode()
    ),
    "hex": lambda it: page(it.encode().hex().encode()),
    "hex in capitals": lambda it: page(it.encode().hex().upper().encode()),
    "percent": lambda it: page(urllib.parse.quote(it).encode()),
    "percent, all": lambda it: page(urllib.parse.quote(it, safe="").encode()),
    "percent, plus": lambda it: page(urllib.parse.quote_plus(it).encode()),
    "percent, each": lambda it: page("".join(f"%{byte:02x}" for byte in it.encode()).encode()),
    "gzip": lambda it: page(gzip.compress(it.encode()), Content_Encoding="gzip"),
    "deflate": lambda it: page(zlib.compress(it.encode()), Content_Encoding="deflate"),
    "gzip in capitals": lambda it: page(gzip.compress(it.encode()), Content_Encoding="GZIP"),
    "gzip, transferred": lambda it: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    + b"%x\r\n%s\r\n0\r\n\r\n" % (len(gzip.compress(it.encode())), gzip.compress(it.encode())),
    "an error": lambda it: page(it.encode(), "401 Unauthorized"),
    "a redirect": lambda it: redirect(f"/v1/there?{urllib.parse.quote(it)}"),
    "a redirect as it is": lambda it: redirect("/v1/there?" + it),
    "cut off": lambda it: b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + it.encode(),
    "without a length": lambda it: b"HTTP/1.1 200 OK\r\n\r\n" + it.encode(),
    "broken status": lambda it: b"HTTP/1.1 " + it.encode() + b" OK\r\n\r\n",
    "broken head": lambda it: b"HTTP/1.1 200 OK\r\n" + it.encode() + b"\r\n\r\n",
    "broken length": lambda it: b"HTTP/1.1 200 OK\r\nContent-Length: " + it.encode() + b"\r\n\r\n",
    "broken chunks": lambda it: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + it.encode() + b"\r\n",
    "long": lambda it: page((b"x" * 100_000 + it.encode()) * 20),
}  # fmt: skip
"""Answers that give the header's value back."""


def _forms(value: str) -> list[bytes]:
    """A value as it could be found."""
    raw = value.encode()
    core = value.split("<")[1].split(">")[0].encode()  # what every quoting leaves as it is
    return [
        raw,
        core,
        core.hex().encode(),
        core.hex().upper().encode(),
        base64.b64encode(core)[2:-4],
        *(base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)),
        "".join(f"%{byte:02x}" for byte in core).encode(),
        "".join(f"%{byte:02X}" for byte in core).encode(),
    ]


def _finds(value: str, *places: object) -> bool:
    """Whether the value is anywhere in what can be written down, however it is encoded."""
    for place in places:
        text = place if isinstance(place, bytes) else repr(place).encode("utf-8", "replace")
        if any(form in text for form in _forms(value)):
            return True
        at = text.find(b"\x1f\x8b")
        if at >= 0 and b"gzip" not in text:
            with contextlib.suppress(OSError, zlib.error, EOFError):
                if _finds(value, zlib.decompressobj(31).decompress(text[at:])):
                    return True
    return False


@pytest.fixture(scope="module")
def site(value: str) -> Iterator[Site]:
    with listening(Site) as site:
        for name, echo in ECHOES.items():

            def answer(
                connection: socket.socket,
                head: bytes,
                body: bytes,
                echo: Callable[[str], bytes] = echo,
            ) -> None:
                connection.sendall(echo(_authorization(head).removeprefix("Bearer ")))

            site.pages[f"/v1/{urllib.parse.quote(name)}"] = answer
        yield site


@pytest.fixture(scope="module")
def other() -> Iterator[Site]:
    with listening(Site) as site:
        yield site


def _policy(site: Site, other: Site, reveal: bool = False) -> Policy:
    return Policy().grant(
        Http(f"{site.url}/v1/", methods=["*"]),
        Http(f"http://localhost:{other.port}/", methods=["*"]),
        Resolve("localhost"),
        Secret("key", use=[HOST], reveal=reveal),
    )


@pytest.fixture(scope="module")
def held(supervisor: pyisolate.Supervisor, site: Site, other: Site, value: str) -> Iterator[Held]:
    world = {"URL": site.url, "OTHER": f"http://localhost:{other.port}"}
    held = Held(
        supervisor,
        _policy(site, other),
        world,
        secrets={"key": value},
        network_ops_max=100_000,
    )
    yield held
    held.close()


_USE = "key = request('secret', 'use', {'name': 'key'})\n"
_FETCH = (
    _USE + "answer = net('http', method='GET', url=URL + PATH, redirects=5,"
    " headers=[['Authorization', 'Bearer ' + key]], timeout=5)\n"
    "body = answer['body']\n"
    "try:\n"
    "    handle = answer['handle']\n"
    "    while handle is not None and (part := net('receive', handle=handle)):\n"
    "        body += part\n"
    "except OSError as error: answer['error'] = str(error)\n"
    "answer['body'] = body\n"
    "return answer\n"
)


@pytest.mark.parametrize("named", ECHOES)
def test_what_comes_back_holds_no_copy(named: str, held: Held, site: Site, value: str):
    site.forget()
    path = "/v1/" + urllib.parse.quote(named)
    outcome = held.attempt(f"PATH = {path!r}\n{_FETCH}")
    assert _authorization(site.heads[0]) == f"Bearer {value}", "the server has it"
    assert not _finds(value, outcome, held.cell.denials), named
    assert not any(value in head.decode("latin-1") for head in site.heads[1:] if b"?" in head[:99])
    body = (
        f"PATH = {path!r}\n"
        + _USE
        + (
            "r = urllib.request.Request(URL + PATH, headers={'Authorization': 'Bearer ' + key})\n"
            "try: r = urllib.request.urlopen(r, timeout=5)\n"
            "except urllib.error.HTTPError as error: r = error\n"
            "return [r.read(), str(r.headers), r.reason, r.url]"
        )
    )
    assert not _finds(value, held.attempt(body), held.cell.denials)
    held.assert_alive()


@pytest.mark.parametrize("named", ["body", "header", "base64", "gzip", "chunks of one", "hex"])
def test_the_same_search_finds_what_is_sent_as_it_is(named: str, site: Site, value: str):
    """The control: outside of a cell, with the value itself in the header."""
    path = urllib.parse.quote(f"/v1/{named}")
    request = urllib.request.Request(site.url + path, headers={"Authorization": f"Bearer {value}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        body = answer.read()
        body = gzip.decompress(body) if named == "gzip" else body
        assert _finds(value, [body, str(answer.headers)])


# --- where a placeholder leads nowhere ------------------------------------------------------------

MISPLACED = {
    "the URL's path": "net('http', method='GET', url=URL + '/v1/' + key)",
    "the URL's query": "net('http', method='GET', url=URL + '/v1/x?k=' + key)",
    "the URL, percent-encoded":
        "net('http', method='GET', url=URL + '/v1/x?k=%70' + key[1:])",
    "the body": "net('http', method='POST', url=URL + '/v1/x', body=key.encode())",
    "the name of a header": "net('http', method='GET', url=URL + '/v1/x', headers=[[key, 'x']])",
    "another host": "net('http', method='GET', url=OTHER + '/', headers=[['Authorization', key]])",
    "another host, encoded":
        "net('http', method='GET', url=OTHER + '/', headers=[['Authorization',"
        " 'Basic ' + __import__('base64').b64encode(b'u:' + key.encode()).decode()]])",
    "the host": "net('http', method='GET', url='http://' + key + '/')",
    "the method": "net('http', method=key, url=URL + '/v1/x')",
    "a part of an answer": "net('http', method='GET', url=URL + '/v1/body',"
        " headers=[['Authorization', key], ['Range', 'bytes=0-3']])",
    "urlopen of another host":
        "urllib.request.urlopen(urllib.request.Request(OTHER, headers={'X': key})).read()",
}  # fmt: skip


@pytest.mark.parametrize("named", MISPLACED)
def test_a_placeholder_elsewhere_is_refused_or_stays_one(
    named: str, held: Held, site: Site, other: Site, value: str
):
    site.forget()
    other.forget()
    outcome = held.attempt(f"{_USE}return {MISPLACED[named]}")
    assert not _finds(value, outcome, site.bodies, other.heads, other.bodies)
    assert not any(_finds(value, head) for head in site.heads)
    if named != "the URL, percent-encoded":
        assert outcome[0] == "refused", outcome
        assert other.heads == []
    held.assert_alive()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key", "Cookie"])
def test_a_redirect_takes_no_secret_along(
    status: int, header: str, held: Held, site: Site, other: Site, value: str
):
    other.forget()
    site.pages["/v1/away"] = redirect(f"http://localhost:{other.port}/", status)
    held.attempt(
        f"{_USE}return net('http', method='GET', url=URL + '/v1/away', redirects=5,"
        f" headers=[[{header!r}, key]])"
    )
    assert not _finds(value, other.heads, other.bodies)


def test_plain_urllib_takes_it_along(site: Site, other: Site, value: str):
    """The control."""
    other.forget()
    site.pages["/v1/away"] = redirect(f"http://localhost:{other.port}/")
    request = urllib.request.Request(site.url + "/v1/away", headers={"X-Api-Key": value})
    urllib.request.urlopen(request, timeout=5).close()
    assert _finds(value, other.heads)


def test_the_placeholder_of_another_cell_is_only_text(
    supervisor: pyisolate.Supervisor, held: Held, site: Site, other: Site, value: str
):
    kind, placeholder = held.attempt(_USE + "return key")
    assert kind == "done"
    second = Held(supervisor, held.policy, held.world, secrets={"key": _new_value()})
    none = Held(supervisor, Policy().grant(Http(f"{site.url}/v1/")), held.world)
    try:
        for one in (second, none):
            site.forget()
            outcome = one.attempt(
                "return net('http', method='GET', url=URL + '/v1/body',"
                f" headers=[['Authorization', {placeholder!r}]])"
            )
            assert not _finds(value, outcome, site.heads)
        guesses = [
            placeholder[:-1],
            placeholder + "0",
            placeholder.upper(),
            "pyisolate-secret-key-",
        ]
        for guess in guesses:
            site.forget()
            second.attempt(
                "return net('http', method='GET', url=URL + '/v1/x',"
                f" headers=[['Authorization', {guess!r}]])"
            )
            assert not _finds(value, site.heads)
    finally:
        second.close()
        none.close()


NOT_GRANTED = {
    "reveal": "request('secret', 'reveal', {'name': 'key'})",
    "another name": "request('secret', 'reveal', {'name': 'other'})",
    "a name in capitals": "request('secret', 'use', {'name': 'KEY'})",
    "a name with a space": "request('secret', 'use', {'name': 'key '})",
    "a name with NUL": "request('secret', 'use', {'name': 'key\\0'})",
    "a pattern": "request('secret', 'reveal', {'name': '*'})",
    "no name": "request('secret', 'reveal', {'name': ''})",
    "a name of bytes": "request('secret', 'reveal', {'name': b'key'})",
    "a list of names": "request('secret', 'reveal', {'name': ['key']})",
    "another action": "request('secret', 'list', {})",
    "an action in capitals": "request('secret', 'REVEAL', {'name': 'key'})",
    "the object": "vault.reveal('key')",
    "a value of its own": "request('secret', 'use', {'name': 'key', 'value': 'x'})",
}


@pytest.mark.parametrize("named", NOT_GRANTED)
def test_what_is_not_granted_is_not_revealed(named: str, held: Held, value: str):
    outcome = held.attempt(f"return {NOT_GRANTED[named]}")
    assert outcome[0] == "refused", outcome
    assert not _finds(value, outcome, held.cell.denials)
    held.assert_alive()


# --- where a copy could lie ----------------------------------------------------------------------

_GC = """
found = []
def look(it):
    try: text = it if isinstance(it, str) else it.decode('latin-1')
    except Exception: return
    if len(text) < 10_000_000 and MIRRORED in text[::-1]: found.append(type(it).__name__)
seen, todo = set(), [*gc.get_objects(), dict(os.environ), globals(), locals()]
while todo:
    it = todo.pop()
    if id(it) in seen: continue
    seen.add(id(it))
    if isinstance(it, (str, bytes, bytearray)): look(it)
    elif isinstance(it, (dict, list, tuple, set, frozenset)) or gc.is_tracked(it):
        todo.extend(gc.get_referents(it))
return found
"""


def _memory(pid: int, needles: list[bytes]) -> list[str]:
    """The mappings of a process in which something is found."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            begin, end = (int(it, 16) for it in span.split("-"))
            if "r" not in rights or end - begin > 1 << 30:
                continue
            with contextlib.suppress(OSError, ValueError, OverflowError):
                memory.seek(begin)
                data = memory.read(end - begin)
                found += [line for needle in needles if needle in data]
    return found


def _exercise(held: Held, first: str) -> None:
    """Use the secret in every way, and fail with it in some."""
    for named in ("body", "header", "chunks of one", "base64", "gzip", "broken status", "json"):
        path = "/v1/" + urllib.parse.quote(named)
        held.attempt(f"PATH = {path!r}\n{first}{_FETCH}")
    for body in MISPLACED.values():
        held.attempt(f"{_USE}return {body}")


def _searched(held: Held, value: str, first: str = "") -> dict[str, Any]:
    _exercise(held, first)
    core = value.split("<")[1].split(">")[0]
    found: dict[str, Any] = {}
    pid = held.cell.pid
    if pid is not None and os.getuid() == 0:
        found["memory"] = _memory(pid, [core.encode(), base64.b64encode(core.encode())[2:-4]])
        found["environment"] = core.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    found["denials"] = _finds(value, held.cell.denials)
    # Last, since it makes copies while it looks.
    found["objects"] = held.attempt(f"MIRRORED = {core[::-1]!r}\n{_GC}")[1]
    return found


@pytest.mark.parametrize("payloads", ["full", "hash"])
def test_no_copy_is_left_anywhere(site: Site, other: Site, tmp_path: Path, payloads: Any):
    value, shown = _new_value(), _new_value()
    journal = tmp_path / "journal"
    world = {"URL": site.url, "OTHER": f"http://localhost:{other.port}"}
    with pyisolate.Supervisor(journal=journal, journal_payloads=payloads) as supervisor:
        held = Held(supervisor, _policy(site, other), world, secrets={"key": value})
        found = _searched(held, value)
        assert not any(found.values()), found
        # The control: what is revealed is found by the same search.
        revealing = Held(
            supervisor, _policy(site, other, reveal=True), world, secrets={"key": shown}
        )
        first = "kept = globals()['kept'] = request('secret', 'reveal', {'name': 'key'})\n"
        found = _searched(revealing, shown, first)
        assert found["objects"], found
        if os.getuid() == 0:
            assert found["memory"]
        held.close()
        revealing.close()
    assert not _finds(value, journal.read_bytes())


def test_a_policy_that_changes_takes_it_away(
    supervisor: pyisolate.Supervisor, site: Site, other: Site, value: str
):
    world = {"URL": site.url}
    held = Held(supervisor, _policy(site, other), world, secrets={"key": value})
    try:
        kind, key = held.attempt(_USE + "return key")
        assert kind == "done"
        held.cell.set_policy(Policy().grant(Http(f"{site.url}/v1/", methods=["*"])))
        site.forget()
        outcome = held.attempt(
            "return net('http', method='GET', url=URL + '/v1/body',"
            f" headers=[['Authorization', {key!r}]])"
        )
        assert outcome[0] == "refused", outcome
        assert not _finds(value, outcome, site.heads)
    finally:
        held.close()
