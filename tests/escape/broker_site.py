"""Loopback listeners: one that counts who comes, and an HTTP server that answers by table."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

type Answer = bytes | Callable[[socket.socket, bytes, bytes], None]


class Listener:
    """Listens on loopback, takes whoever comes, and remembers."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=256)
        self.port: int = self._socket.getsockname()[1]
        self.visits = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stopped:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self._stopped:
                connection.close()
                return
            self.visits += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            self.meet(connection)

    def meet(self, connection: socket.socket) -> None:
        """Greet, and say back whatever comes."""
        connection.sendall(b"canary\n")
        while data := connection.recv(65536):
            connection.sendall(data)

    def close(self) -> None:
        """Stop."""
        self._stopped = True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            pass
        self._socket.close()


class Site(Listener):
    """Answers HTTP from a table of paths, and keeps every head and body as it came."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.pages: dict[str, Answer] = {}
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        super().__init__(host)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        """The targets of the requests so far, as they were written."""
        return [head.split(b" ")[1].decode("latin-1") for head in self.heads if b" " in head]

    def meet(self, connection: socket.socket) -> None:
        """One request."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (part := connection.recv(65536)):
                break
            data += part
        if not data:
            return
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(body) < length and (part := connection.recv(65536)):
            body += part
        # What is smuggled comes at once, behind the body.
        connection.settimeout(0.02)
        with contextlib.suppress(TimeoutError):
            body += connection.recv(65536)
        connection.settimeout(20)
        self.heads.append(head)
        self.bodies.append(body)
        path = head.split(b" ")[1].decode("latin-1") if b" " in head else ""
        answer = self.pages.get(path, page(b"page " + path.encode("latin-1")))
        if callable(answer):
            answer(connection, head, body)
        else:
            connection.sendall(answer)

    def forget(self) -> None:
        """Before the next attack."""
        self.heads.clear()
        self.bodies.clear()
        self.visits = 0


def page(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """An answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def redirect(to: str, status: int = 302) -> bytes:
    """An answer that leads elsewhere."""
    return page(b"", f"{status} Elsewhere", Location=to)


def trickle(connection: socket.socket, head: bytes, body: bytes) -> None:
    """An answer that never ends: a byte now and then."""
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(400):
            connection.sendall(b"x")
            time.sleep(0.05)


def silent(connection: socket.socket, head: bytes, body: bytes) -> None:
    """No answer: until the other side has had enough."""
    with contextlib.suppress(OSError):
        connection.recv(1)


@contextlib.contextmanager
def listening(kind: type[Listener] = Listener) -> Iterator[Listener]:
    """A listener for a while."""
    listener = kind()
    try:
        yield listener
    finally:
        listener.close()
