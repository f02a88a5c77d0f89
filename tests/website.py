"""Web sites on the loopback interface for programs that browse, and an echo server."""

import base64
import contextlib
import gzip
import hashlib
import http.server
import json
import re
import socketserver
import threading
from collections.abc import Iterator

LARGE = bytes(range(256)) * (5 << 12)
"""Five mebibytes."""
LINES = "".join(f"line {number}\n" for number in range(20_000)).encode()


class Site(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked, and with pages of several kinds."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: "Server"

    def log_message(self, *_: object) -> None:
        pass

    def asked_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self) -> None:
        body = self.asked_body()
        path, *rest = self.path.partition("?")[0].strip("/").split("/")
        page = getattr(self, f"page_{path.replace('-', '_')}", None)
        if page is None:
            self.send(b"nothing here", 404)
        else:
            page(body, *rest)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815

    def send(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_json(self, told: object, status: int = 200, **headers: str) -> None:
        kind = "application/json; charset=utf-8"
        self.send(json.dumps(told).encode(), status, Content_Type=kind, **headers)

    # --- pages

    def page_page(self, body: bytes) -> None:
        told = {"method": self.command, "path": self.path, "body": body.decode("latin-1")}
        told["headers"] = {name.lower(): value for name, value in self.headers.items()}
        data = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("X-Several", "one")
        self.send_header("X-Several", "two")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def page_redirect(self, _: bytes, status: str, kind: str) -> None:
        here = f"http://127.0.0.1:{self.server.server_address[1]}"
        target = {
            "path": "/page?redirected",
            "absolute": f"{here}/page?absolute",
            "relative": "../../page?relative",
            "mirror": f"{self.server.mirror}/page?mirror",
            "twice": "/redirect/307/path",
            "loop": "/redirect/302/loop",
        }[kind]
        self.send(b"moved", int(status), Location=target)

    def page_status(self, _: bytes, status: str) -> None:
        self.send(f"status {status}".encode(), int(status), Content_Type="text/plain")

    def page_digest(self, body: bytes) -> None:
        self.send(f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode())

    def page_parts(self, body: bytes) -> None:
        kind, _, boundary = self.headers["Content-Type"].partition("; boundary=")
        names = re.findall(rb'name="(\w+)"', body)
        count = body.count(b"--" + boundary.encode())
        self.send_json([kind, [name.decode() for name in names], count, b"\0" * 9000 in body])

    def page_gzip(self, _: bytes) -> None:
        data = gzip.compress(b"squeezed " * 1000, mtime=1)
        self.send(data, Content_Encoding="gzip", Content_Type="text/plain; charset=ascii")

    def page_empty(self, _: bytes) -> None:
        self.send_response(204)
        self.end_headers()

    def page_large(self, _: bytes) -> None:
        self.send(LARGE, Content_Type="application/octet-stream")

    def page_lines(self, _: bytes) -> None:
        self.send(LINES, Content_Type="text/plain; charset=ascii")

    def page_chunked(self, _: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(LARGE), 100_000):
            part = LARGE[at : at + 100_000]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def page_until_close(self, _: bytes) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(LARGE)
        self.close_connection = True

    def page_slow(self, _: bytes) -> None:
        self.server.patience_ended.wait()
        self.close_connection = True

    def page_slow_body(self, _: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"begun")
        self.wfile.flush()
        self.page_slow(b"")

    def page_cookies(self, _: bytes, action: str) -> None:
        self.send_response(200)
        self.send_header("Set-Cookie", f"{action}=yes; Path=/")
        self.send_header("Set-Cookie", "second=2; Path=/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def page_auth(self, _: bytes) -> None:
        wanted = "Basic " + base64.b64encode(b"user:pass").decode()
        if self.headers["Authorization"] == wanted:
            self.send(b"welcome")
        else:
            self.send(b"who?", 401, WWW_Authenticate='Basic realm="site"')

    def page_flaky(self, _: bytes) -> None:
        """Fails twice out of three times."""
        self.server.flaky_asked += 1
        if self.server.flaky_asked % 3:
            self.send(b"not now", 503)
        else:
            self.send(b"at last")

    def page_balance(self, _: bytes) -> None:
        if self._knows_the_key():
            self.send_json({"balance": 12.5})

    def page_orders(self, body: bytes) -> None:
        if self._knows_the_key():
            self.send_json({"ordered": json.loads(body)}, 201)

    def _knows_the_key(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {self.server.key}":
            return True
        self.send_json({"error": "no key"}, 401)
        return False


class Server(http.server.ThreadingHTTPServer):
    """A site. Another one is its mirror."""

    mirror = ""
    key = ""
    flaky_asked = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Site)
        self.patience_ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        pass  # a client that goes away early is part of the tests


class Echo(socketserver.StreamRequestHandler):
    """Sends back every line."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            self.wfile.write(b"echo: " + line)


@contextlib.contextmanager
def serving[S: socketserver.BaseServer](server: S) -> Iterator[S]:
    """A server that serves in a thread until the block's end."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            if isinstance(server, Server):
                server.patience_ended.set()
            server.shutdown()
            thread.join()
