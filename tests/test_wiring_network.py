"""The network in a cell, by the standard library as it is: streams where they are granted, and
HTTP alone where only that is."""

import gzip
import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pyisolate
from cells import PATIENCE, run

IMPORTS = [
    "asyncio",
    "gc",
    "http",
    "json",
    "os",
    "requests",
    "selectors",
    "socket",
    "ssl",
    "urllib",
]
BIG = b"0123456789" * 300_000


class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self) -> None:
        body, headers, status = self.body(), [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], 200
        told = {"path": self.path, "method": self.command, "length": len(body)}
        told["headers"] = {name.lower(): value for name, value in self.headers.items()}
        data = json.dumps(told).encode()
        match self.path:
            case "/chunked":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for _ in range(50):
                    self.wfile.write(b"10000\r\n" + b"c" * 0x10000 + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")
                return
            case "/big":
                data = BIG
            case "/gzip":
                data = gzip.compress(b"zipped" * 1000)
                headers.append(("Content-Encoding", "gzip"))
            case "/missing":
                status, data = 404, b"nothing here"
            case "/redirect":
                status, data = 302, b""
                headers.append(("Location", "/there"))
            case "/away":
                status, data = 302, b""
                headers.append(("Location", "http://127.0.0.1:1/"))
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(data)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while line := self.rfile.readline():
            self.wfile.write(b"echo " + line)


def served(server: socketserver.BaseServer) -> Iterator[int]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        pass  # a client that goes away early is part of the tests


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    yield from served(Quiet(("127.0.0.1", 0), Site))


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    yield from served(server)


def outcome_in(guest: pyisolate.Cell, source: str, **names: object) -> Any:
    """What `result` is in a cell after this source."""
    given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    run(guest, given + source + "\npost(result)")
    return guest.recv(PATIENCE)


@pytest.fixture(params=["streams", "messages", "http"])
def browse(
    request: pytest.FixtureRequest, cell: Callable[..., pyisolate.Cell], site: int
) -> Callable[[str], Any]:
    """What `result` is in a cell that may speak with the site: by a stream, as a descriptor or by
    messages, or by HTTP alone."""
    grant = (
        pyisolate.Http(f"http://127.0.0.1:{site}/", methods=["*"])
        if request.param == "http"
        else pyisolate.ConnectTCP("127.0.0.1", site)
    )
    guest = cell(
        policy=pyisolate.Policy().grant(grant),
        allowed_imports=IMPORTS,
        descriptors=request.param != "messages",
    )
    return lambda source: outcome_in(guest, source, PORT=site, URL=f"http://127.0.0.1:{site}")


BROWSED = {
    "urlopen": (
        "import json, urllib.request\n"
        "with urllib.request.urlopen(URL + '/a?b=c', timeout=10) as r:\n"
        "    told = json.load(r); result = r.status, told['path'], told['headers']['host'] in URL",
        (200, "/a?b=c", True),
    ),
    "a redirect": (
        "import urllib.request\n"
        "with urllib.request.urlopen(URL + '/redirect') as r: result = r.url == URL + '/there'",
        True,
    ),
    "an error": (
        "import urllib.error, urllib.request\ntry: urllib.request.urlopen(URL + '/missing')\n"
        "except urllib.error.HTTPError as e: result = e.code, e.read()",
        (404, b"nothing here"),
    ),
    "posting": (
        "import json, urllib.request\n"
        "with urllib.request.urlopen(URL, b'x' * 200_000) as r: told = json.load(r)\n"
        "result = told['method'], told['length']",
        ("POST", 200_000),
    ),
    "several requests of one connection": (
        "import http.client, json\nc = http.client.HTTPConnection('127.0.0.1', PORT, timeout=10)\n"
        "result = []\nfor n in range(4):\n"
        "    c.request('PUT', f'/{n}', b'x' * n, {'X-Mine': 'é'}); r = c.getresponse()\n"
        "    told = json.load(r); result.append((told['path'], told['length']))",
        [("/0", 0), ("/1", 1), ("/2", 2), ("/3", 3)],
    ),
    "headers that come twice": (
        "import http.client\nc = http.client.HTTPConnection('127.0.0.1', PORT)\n"
        "c.request('GET', '/'); result = c.getresponse().msg.get_all('Set-Cookie'); c.close()",
        ["a=1", "b=2"],
    ),
    "HEAD": (
        "import http.client\nc = http.client.HTTPConnection('127.0.0.1', PORT)\n"
        "c.request('HEAD', '/big'); r = c.getresponse()\n"
        "result = [r.headers['Content-Length'], r.read()]\n"
        "c.request('GET', '/missing'); result.append(c.getresponse().read())",
        [str(len(BIG)), b"", b"nothing here"],
    ),
    "a large body": (
        "import urllib.request\nwith urllib.request.urlopen(URL + '/big') as r:\n"
        "    result = int(r.headers['Content-Length']), len(r.read())",
        (len(BIG), len(BIG)),
    ),
    "a body in chunks": (
        "import urllib.request\nresult = len(urllib.request.urlopen(URL + '/chunked').read())",
        50 * 0x10000,
    ),
    "sending chunks": (
        "import http.client, json\nc = http.client.HTTPConnection('127.0.0.1', PORT)\n"
        "c.request('POST', '/', iter([b'ab', b'c' * 5000]), encode_chunked=True,"
        " headers={'Transfer-Encoding': 'chunked'})\n"
        "result = json.load(c.getresponse())['length']",
        5002,
    ),
    "a body left unread": (
        "import gc, http.client\n"
        "for _ in range(20):\n"
        "    c = http.client.HTTPConnection('127.0.0.1', PORT); c.request('GET', '/big')\n"
        "    c.getresponse().read(10); c.close(); gc.collect()\nresult = True",
        True,
    ),
    "bytes by hand": (
        "import socket\ns = socket.create_connection(('127.0.0.1', PORT), timeout=10)\n"
        "s.sendall(f'GET /x HTTP/1.0\\r\\nHost: 127.0.0.1:{PORT}\\r\\n\\r\\n'.encode())\n"
        "data = b''\nwhile part := s.recv(100): data += part\n"
        "head, _, body = data.partition(b'\\r\\n\\r\\n')\n"
        "result = head[:15], b'\"/x\"' in body, s.getpeername() == ('127.0.0.1', PORT)",
        (b"HTTP/1.1 200 OK", True, True),
    ),
    "makefile": (
        "import socket\ns = socket.create_connection(('127.0.0.1', PORT)); f = s.makefile('rwb')\n"
        "f.write(f'GET / HTTP/1.1\\r\\nHost: 127.0.0.1:{PORT}\\r\\n\\r\\n'.encode()); f.flush()\n"
        "result = f.readline()",
        b"HTTP/1.1 200 OK\r\n",
    ),
}


@pytest.mark.parametrize(("source", "expected"), BROWSED.values(), ids=BROWSED)
def test_http_clients_work(browse, source, expected):
    assert browse(source) == expected


REQUESTS = {
    "get": ("result = requests.get(URL + '/a').json()['path']", "/a"),
    "post": ("result = requests.post(URL, json={'a': 1}).json()['length']", 8),
    "redirect": ("result = requests.get(URL + '/redirect').url == URL + '/there'", True),
    "gzip": ("result = requests.get(URL + '/gzip').text == 'zipped' * 1000", True),
    "stream": (
        "with requests.get(URL + '/big', stream=True) as r:\n"
        "    result = sum(map(len, r.iter_content(100_000)))",
        len(BIG),
    ),
    "session": (
        "with requests.Session() as s:\n"
        "    result = [s.get(f'{URL}/{n}').status_code for n in range(3)], dict(s.cookies)",
        ([200] * 3, {"a": "1", "b": "2"}),
    ),
}


@pytest.mark.parametrize(("source", "expected"), REQUESTS.values(), ids=REQUESTS)
def test_requests_works(browse, source, expected):
    pytest.importorskip("requests")
    assert browse("import requests\n" + source) == expected


DENIED = {
    "create_connection": "import socket; socket.create_connection(('127.0.0.1', 1))",
    "a name": "import socket; socket.create_connection(('example.org', 80))",
    "connect": "import socket; socket.socket().connect(('10.0.0.1', 22))",
    "http.client": "import http.client; http.client.HTTPConnection('127.0.0.1', 1).connect()",
    "urlopen": "import urllib.request; urllib.request.urlopen('http://example.org/')",
    "urlopen with TLS": "import urllib.request; urllib.request.urlopen('https://example.org/')",
    "a redirect": "import urllib.request; urllib.request.urlopen(URL + '/away')",
    "resolving": "import socket; socket.gethostbyname('example.org')",
    "asyncio": "import asyncio; asyncio.run(asyncio.open_connection('127.0.0.1', 1))",
    "net.http": "net.http('GET', 'http://127.0.0.1:1/')",
    "net.connect": "net.connect('127.0.0.1', 1)",
}


@pytest.mark.parametrize("source", DENIED.values(), ids=DENIED)
def test_what_is_not_granted_is_a_permission_error(browse, source):
    *before, last = source.split("; ")
    number, text = browse(
        "\n".join(before) + f"\ntry: {last}\n"
        "except PermissionError as error: result = error.errno, str(error)"
    )
    assert number == 13
    assert "network" in text or "connect" in text


def test_what_urlopen_raises_is_still_an_url_error(browse):
    source = """
import urllib.error, urllib.request
try: urllib.request.urlopen("http://127.0.0.1:1/")
except urllib.error.URLError as error: result = isinstance(error.reason, PermissionError)
"""
    assert browse(source) is True


def test_connect_ex_tells_the_number(browse):
    source = """
import socket
result = [socket.socket().connect_ex(("127.0.0.1", port)) for port in (1, PORT)]
"""
    assert browse(source) == [13, 0]


def test_net_http(cell, site):
    policy = pyisolate.Policy().grant(pyisolate.Http(f"http://127.0.0.1:{site}/", methods=["*"]))
    guest = cell(policy=policy)
    source = """
r = net.http("POST", URL + "/redirect", json={"k": 1}, redirects=0)
big = net.http("GET", URL + "/big")
result = [r.status, r.headers["location"], r.ok, net.http("GET", URL + "/redirect").json()["path"],
          len(big.read(10)), sum(map(len, big.iter())), big.headers["set-cookie"]]
"""
    told = outcome_in(guest, source, URL=f"http://127.0.0.1:{site}")
    assert told == [302, "/there", True, "/there", 10, len(BIG) - 10, "a=1, b=2"]


@pytest.fixture(params=["descriptors", "messages"])
def speak(
    request: pytest.FixtureRequest, cell: Callable[..., pyisolate.Cell], echo: int
) -> Callable[[str], Any]:
    """What `result` is in a cell that may connect to the echo."""
    policy = pyisolate.Policy().grant(
        pyisolate.ConnectTCP("127.0.0.1", echo),
        pyisolate.ConnectTCP("localhost", echo, private=True),
    )
    descriptors = request.param == "descriptors"
    guest = cell(policy=policy, allowed_imports=IMPORTS, descriptors=descriptors)
    return lambda source: outcome_in(guest, source, PORT=echo)


STREAMS = {
    "a stream": (
        "import socket\ns = socket.create_connection(('127.0.0.1', PORT), timeout=9)\n"
        "s.sendall(b'hello\\n')\n"
        "result = s.recv(100), s.getpeername() == ('127.0.0.1', PORT), s.gettimeout()",
        (b"echo hello\n", True, 9.0),
    ),
    "a name": (
        "import socket\ns = socket.create_connection(('localhost', PORT)); s.send(b'n\\n')\n"
        "result = s.recv(100)",
        b"echo n\n",
    ),
    "options before the connection": (
        "import socket\ns = socket.socket(); s.settimeout(5)\n"
        "s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)\n"
        "try: s.getpeername()\nexcept OSError as error: result = error.errno\n"
        "s.connect(('127.0.0.1', PORT)); s.send(b'o\\n')\n"
        "result = result, s.recv(9), s.gettimeout(),"
        " s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)",
        (107, b"echo o\n", 5.0, 1),
    ),
    "makefile": (
        "import socket\nwith socket.create_connection(('127.0.0.1', PORT)) as s:\n"
        "    f = s.makefile('rw'); f.write('f\\n'); f.flush(); result = f.readline()",
        "echo f\n",
    ),
    "selectors": (
        "import selectors, socket\ns = socket.create_connection(('127.0.0.1', PORT))\n"
        "s.setblocking(False); s.send(b's\\n')\nwith selectors.DefaultSelector() as ready:\n"
        "    ready.register(s, selectors.EVENT_READ); ready.select(9); result = s.recv(99)",
        b"echo s\n",
    ),
    "a timeout": (
        "import socket\ns = socket.create_connection(('127.0.0.1', PORT), timeout=0.05)\n"
        "try: s.recv(1)\nexcept TimeoutError: result = 'timed out'",
        "timed out",
    ),
    "asyncio": (
        "import asyncio\nasync def main():\n"
        "    reader, writer = await asyncio.open_connection('localhost', PORT)\n"
        "    writer.write(b'a\\n'); await writer.drain(); line = await reader.readline()\n"
        "    writer.close(); await writer.wait_closed(); return line\n"
        "result = asyncio.run(main())",
        b"echo a\n",
    ),
    "getaddrinfo": (
        "import socket\nresult = []\n"
        "for host, port in [('example.org', 'https'), ('127.0.0.1', 80), ('::1', '80')]:\n"
        "    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)\n"
        "    result.append((int(found[0][0]), found[0][2], found[0][4]))",
        [
            (2, 6, ("example.org", 443)),
            (2, 6, ("127.0.0.1", 80)),
            (10, 6, ("::1", 80, 0, 0)),
        ],
    ),
    "gethostbyname": ("import socket; result = socket.gethostbyname('127.0.0.1')", "127.0.0.1"),
    "a pair": (
        "import socket\na, b = socket.socketpair(); a.send(b'x'); result = b.recv(9)",
        b"x",
    ),
    "net.connect": (
        "s = net.connect('127.0.0.1', PORT); s.send(b'c\\n'); result = s.recv(9)",
        b"echo c\n",
    ),
}


@pytest.mark.parametrize(("source", "expected"), STREAMS.values(), ids=STREAMS)
def test_streams_work(speak, source, expected):
    assert speak(source) == expected


REFUSED = {
    "datagrams": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "local sockets": "socket.socket(socket.AF_UNIX)",
    "binding": "socket.socket().bind(('127.0.0.1', 0))",
    "listening": "socket.create_server(('127.0.0.1', 0))",
}


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_no_other_sockets_are_made(speak, source):
    told = speak(f"import socket\ntry: {source}\nexcept PermissionError: result = 'refused'")
    assert told == "refused"


def test_what_is_not_http_is_told_so_where_only_http_is_granted(cell, site):
    policy = pyisolate.Policy().grant(pyisolate.Http(f"http://127.0.0.1:{site}/"))
    guest = cell(policy=policy, allowed_imports=IMPORTS)
    source = """
import socket
s = socket.create_connection(("127.0.0.1", PORT)); s.sendall(b"EHLO there\\r\\n")
try: s.recv(100)
except ConnectionError as error: result = str(error)
"""
    assert "HTTP" in outcome_in(guest, source, PORT=site)
    with pytest.raises(pyisolate.PolicyError, match="POST"):
        run(
            guest, f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{site}', b'x')"
        )


def test_the_refused_connection_of_a_granted_port_is_the_hosts(cell):
    policy = pyisolate.Policy().grant(pyisolate.ConnectTCP("127.0.0.1", 1))
    guest = cell(policy=policy, allowed_imports=IMPORTS)
    source = """
import socket
try: socket.create_connection(("127.0.0.1", 1))
except ConnectionRefusedError as error: result = error.errno
"""
    assert outcome_in(guest, source) == 111
