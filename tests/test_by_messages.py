"""Cells that are handed no descriptors: files and connections work all the same, by messages."""

import contextlib
import hashlib
import http.server
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pyisolate
from cells import PATIENCE, death_of, run, until

CERTIFICATE = Path(__file__).with_name("loopback.pem")
"""Of 127.0.0.1, signed by itself, with its key."""

IMPORTS = ["asyncio", "errno", "hashlib", "requests", "select", "socket", "ssl", "sys", "threading"]
IMPORTS += ["urllib"]

Handler = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(handler: Handler) -> Iterator[int]:
    """A server on the loopback interface; its port. Each connection has a thread."""
    threads = []

    def handle(line: socket.socket) -> None:
        line.settimeout(PATIENCE)
        with line, contextlib.suppress(OSError):
            handler(line)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=handle, args=[listener.accept()[0]]))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


def echo(line: socket.socket) -> None:
    while data := line.recv(1 << 16):
        line.sendall(data)


def digest(line: socket.socket) -> None:
    """Answers once the other side has said everything."""
    told = hashlib.sha256()
    while data := line.recv(1 << 20):
        told.update(data)
    line.sendall(told.hexdigest().encode())


@pytest.fixture
def guest(cell: Callable[..., pyisolate.Cell]) -> Callable[..., pyisolate.Cell]:
    """`guest(port)`: a cell by messages that may connect to it, as `PORT`."""

    def make(port: int, **options: Any) -> pyisolate.Cell:
        policy = pyisolate.Policy().grant(pyisolate.ConnectTCP("127.0.0.1", port))
        given = {"policy": policy, "allowed_imports": IMPORTS, "descriptors": False}
        made = cell(**{**given, **options})
        run(made, f"PORT = {port}\nimport socket\n")
        return made

    return make


def result_in(guest: pyisolate.Cell, source: str) -> Any:
    run(guest, f"{source}\npost(result)")
    return guest.recv(PATIENCE)


CONNECT = "s = socket.create_connection(('127.0.0.1', PORT), timeout=20)\n"

SPOKEN = {
    "names of both ends": (
        "a, b = s.getpeername(), s.getsockname()\n"
        "result = a == ('127.0.0.1', PORT), b[0], b[1] > 1024, s.dup().getpeername() == a",
        (True, "127.0.0.1", True, True),
    ),
    "megabytes": (
        "import hashlib, threading\ndata = bytes(range(256)) * (20 << 12)\n"
        "threading.Thread(target=s.sendall, args=[data]).start()\n"
        "told, left = hashlib.sha256(), len(data)\n"
        "while left: part = s.recv(left); told.update(part); left -= len(part)\n"
        "result = told.digest() == hashlib.sha256(data).digest()",
        True,
    ),
    "a file object": (
        "with s, s.makefile('rw') as f: f.write('line\\n'); f.flush(); result = f.readline()",
        "line\n",
    ),
    "select and no waiting": (
        "import select\ns.setblocking(False)\n"
        "try: s.recv(1)\nexcept BlockingIOError: result = True\n"
        "s.send(b'x'); result = result, select.select([s], [], [], 20)[0] == [s], s.recv(9)",
        (True, True, b"x"),
    ),
    "a timeout": (
        "s.settimeout(0.01)\ntry: s.recv(1)\nexcept TimeoutError: s.settimeout(20); s.send(b'y')\n"
        "result = s.recv(9)",
        b"y",
    ),
    "the end of one way": (
        "s.sendall(b'all of it'); s.shutdown(socket.SHUT_WR); result = b''\n"
        "while part := s.recv(2): result += part",
        b"all of it",
    ),
    "asyncio": (
        "import asyncio\nasync def main():\n"
        "    reader, writer = await asyncio.open_connection('127.0.0.1', PORT)\n"
        "    writer.write(bytes(1_000_000)); writer.write_eof()\n"
        "    result = await reader.read(); writer.close(); await writer.wait_closed()\n"
        "    return len(result)\n"
        "result = asyncio.run(main())",
        1_000_000,
    ),
    "one after another": (
        "result = b''\nfor i in range(100):\n"
        "    s.close(); s = socket.create_connection(('127.0.0.1', PORT)); s.send(b'%d,' % i)\n"
        "    result += s.recv(9)",
        b"".join(b"%d," % i for i in range(100)),
    ),
    "many at once": (
        "import threading\nfine = []\n"
        "def speak(i):\n"
        "    with socket.create_connection(('127.0.0.1', PORT), timeout=20) as one:\n"
        "        one.sendall(bytes([i]) * 100_000)\n"
        "        fine.append(one.makefile('rb').read(100_000) == bytes([i]) * 100_000)\n"
        "threads = [threading.Thread(target=speak, args=[i]) for i in range(12)]\n"
        "for t in threads: t.start()\nfor t in threads: t.join()\nresult = fine == [True] * 12",
        True,
    ),
    "among quiet ones": (
        "quiet = [socket.create_connection(('127.0.0.1', PORT)) for _ in range(20)]\n"
        "result = 0\n"
        "for _ in range(200): s.send(b'x'); result += len(s.recv(9))",
        200,
    ),
    "too many": (
        "lines, place = [], ('127.0.0.1', PORT)\n"
        "try:\n    while True: lines.append(socket.create_connection(place))\n"
        "except OSError as error: result = error.errno, len(lines)",
        (24, 31),
    ),
}


@pytest.mark.parametrize(("source", "expected"), SPOKEN.values(), ids=SPOKEN)
def test_connections_are_as_they_are_by_descriptors(guest, source, expected):
    limits = {"open_files_max": 100}
    with serving(echo) as port:
        for descriptors in (False, True):
            one = guest(port, descriptors=descriptors, **limits)
            assert result_in(one, CONNECT + source) == expected, f"{descriptors=}"
            assert descriptors or one.handed_out == []
            one.close()


def test_a_server_that_says_the_end_first_is_still_spoken_to(guest):
    heard = []

    def ends_first(line: socket.socket) -> None:
        line.shutdown(socket.SHUT_WR)
        while data := line.recv(100):
            heard.append(data)

    with serving(ends_first) as port:
        source = CONNECT + "result = s.recv(1); s.sendall(b'still'); s.close()"
        assert result_in(guest(port), source) == b""
    assert b"".join(heard) == b"still"


def test_a_reset_is_a_reset(guest):
    def resets(line: socket.socket) -> None:
        line.recv(100)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    source = CONNECT + (
        "s.send(b'go')\ntry: result = s.recv(1)\nexcept ConnectionResetError: result = 'reset'\n"
        "try: s.send(b'x')\nexcept BrokenPipeError: result += ', broken'"
    )
    with serving(resets) as port:
        for descriptors in (True, False):
            told = result_in(guest(port, descriptors=descriptors), source)
            assert told == "reset, broken", f"{descriptors=}"


def test_who_is_not_listened_to_waits(guest):
    go_on = threading.Event()

    def reluctant(line: socket.socket) -> None:
        go_on.wait(PATIENCE)
        digest(line)

    with serving(reluctant) as port:
        one = guest(port)
        source = CONNECT + (
            "data = bytes(8 << 20); s.setblocking(False); sent = 0\n"
            "import select\n"
            "while select.select([], [s], [], 1)[1]: sent += s.send(data[sent:])\n"
            "s.settimeout(20); result = sent < len(data)"
        )
        assert result_in(one, source) is True
        go_on.set()
        source = "s.sendall(data[sent:]); s.shutdown(socket.SHUT_WR); result = s.makefile().read()"
        assert result_in(one, source) == hashlib.sha256(bytes(8 << 20)).hexdigest()


@pytest.mark.parametrize("end", ["s.close()", "", "del s"])
def test_what_was_written_at_the_end_of_an_operation_arrives(guest, end):
    heard = hashlib.sha256()
    done = threading.Event()

    def listens(line: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while data := line.recv(1 << 20):
                heard.update(data)
        done.set()

    with serving(listens) as port:
        one = guest(port)
        run(one, CONNECT + f"s.sendall(bytes(3_000_000))\n{end}")
        one.close()
        assert done.wait(PATIENCE)
    assert heard.hexdigest() == hashlib.sha256(bytes(3_000_000)).hexdigest()


def test_its_threads_are_there_while_there_are_connections(guest):
    count = "import sys; result = len(sys._current_frames())"
    with serving(echo) as port:
        one = guest(port)
        before = result_in(one, count)
        run(one, CONNECT + "t = socket.create_connection(('127.0.0.1', PORT))")
        assert until(lambda: result_in(one, count) == before + 2)
        run(one, "s.close(); t.close()")
        assert until(lambda: result_in(one, count) == before)
        source = CONNECT + "s.send(b'again'); result = s.recv(9); s.close()"
        assert result_in(one, source) == b"again"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_cell_without_threads_to_spare_is_told(guest, threads):
    with serving(echo) as port:
        one = guest(port, child_work_max=threads)
        source = f"try:\n    {CONNECT}except OSError as error: result = error.errno, str(error)"
        number, text = result_in(one, source)
        assert number == 105
        assert "two threads" in text
        assert result_in(one, "result = 'goes on'") == "goes on"


def test_a_sub_interpreter_has_no_threads_for_it(guest, tmp_path):
    path = tmp_path / "file"
    path.write_text("read by messages")
    with serving(echo) as port:
        grants = pyisolate.ConnectTCP("127.0.0.1", port), pyisolate.ReadPath(path)
        policy = pyisolate.Policy().grant(*grants)
        one = guest(port, backend="subinterpreter", policy=policy)
        source = f"try:\n    {CONNECT}except OSError as error: result = error.errno, str(error)"
        number, text = result_in(one, source)
        assert number == 105
        assert "backend='process'" in text
        assert result_in(one, f"result = open({str(path)!r}).read()") == "read by messages"
        assert one.handed_out == []


def test_tls_over_it_is_the_guests_own(guest):
    class Page(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[::-1])

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)

    def serve(line: socket.socket) -> None:
        with context.wrap_socket(line, server_side=True) as secure:
            Page(secure, secure.getpeername(), None)  # type: ignore[arg-type]

    certificate = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(certificate_text()))
    source = f"""
import ssl, urllib.request
trusting = ssl.create_default_context(cadata={certificate!r})
data = bytes(range(256)) * 8000
url = f"https://127.0.0.1:{{PORT}}/"
with urllib.request.urlopen(url, data, timeout=20, context=trusting) as answer:
    result = [answer.read() == data[::-1]]
with socket.create_connection(("127.0.0.1", PORT)) as plain:
    with trusting.wrap_socket(plain, server_hostname="127.0.0.1") as s:
        result += [s.getpeername() == ("127.0.0.1", PORT), s.version()]
try: urllib.request.urlopen(url, timeout=20)
except urllib.error.URLError as error: result += [type(error.reason).__name__]
"""
    with serving(serve) as port:
        told = result_in(guest(port), source)
    assert told == [True, True, "TLSv1.3", "SSLCertVerificationError"]


def certificate_text() -> str:
    text = CERTIFICATE.read_text()
    return text[text.index("-----BEGIN CERTIFICATE") :]


def test_every_byte_counts_at_once(guest):
    with serving(echo) as port:
        one = guest(port, network_bytes_max=100_000)
        run(one, CONNECT)
        with contextlib.suppress(pyisolate.SandboxError):
            run(one, "while True: s.sendall(bytes(1000)); s.recv(1000)")
        death = death_of(one)
        assert isinstance(death, pyisolate.NetworkExceeded)
        assert death.allowed == 100_000
        # By one piece at the most, which is what was on its way.
        assert death.reached <= 101_000


def test_a_policy_that_denies_it_cuts_a_connection(guest):
    with serving(echo) as port:
        one = guest(port)
        assert result_in(one, CONNECT + "s.send(b'x'); result = s.recv(1)") == b"x"
        one.set_policy(pyisolate.Policy())
        source = (
            "result = s.recv(1)\ntry:\n    while True: s.send(b'x')\n"
            "except BrokenPipeError: result = result, 'broken'"
        )
        assert result_in(one, source) == (b"", "broken")
        with pytest.raises(pyisolate.PolicyError):
            run(one, CONNECT)


@pytest.mark.parametrize("descriptors", [True, False])
def test_a_policy_that_denies_it_ends_the_reading_of_a_file(cell, tmp_path, descriptors):
    path = tmp_path / "long"
    path.write_bytes(bytes(4 << 20))
    policy = pyisolate.Policy().grant(pyisolate.ReadPath(path))
    one = cell(policy=policy, descriptors=descriptors)
    run(one, f"file = open({str(path)!r}, 'rb', 0); file.read(1000)")
    assert (one.handed_out == []) is not descriptors
    one.set_policy(pyisolate.Policy())
    source = (
        "try: result = len(file.read(1000))\nexcept PermissionError as error: result = error.errno"
    )
    assert result_in(one, source) == (1000 if descriptors else 13)


def test_c_code_is_told_what_to_use_instead(cell, tmp_path):
    path = tmp_path / "numbers"
    path.write_bytes(bytes(range(100)))
    policy = pyisolate.Policy().grant(pyisolate.ReadPath(path))
    one = cell(policy=policy, allowed_imports=["io", "mmap", "numpy"], descriptors=False)
    source = f"""
import io, mmap, numpy
class Own(io.FileIO): pass
file = open({str(path)!r}, 'rb')
result = []
for attempt in (
    lambda: numpy.fromfile({str(path)!r}, 'u1'),
    lambda: numpy.memmap({str(path)!r}, 'u1', 'r'),
    lambda: mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ),
    lambda: Own({str(path)!r}),
):
    try: attempt()
    except OSError as error: result.append(str(error))
"""
    told = result_in(one, source)
    assert len(told) == 4
    assert all("use file.read()" in text or "use open()" in text for text in told), told


def holdings() -> tuple[int, int]:
    """The descriptors and the threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208


def test_a_cell_that_is_killed_leaves_nothing(still_serves):
    policy = pyisolate.Policy()
    with serving(echo) as port, pyisolate.Supervisor() as supervisor:
        policy = policy.grant(pyisolate.ConnectTCP("127.0.0.1", port))
        supervisor.spawn("warm").close()
        before = holdings()
        held = []
        for number in range(4):
            one = supervisor.spawn(
                f"busy-{number}",
                policy=policy,
                allowed_imports=["socket", "threading"],
                descriptors=False,
                network_bytes_max=1 << 40,
            )
            run(one, f"import socket, threading\nPORT = {port}\n{CONNECT}")
            run(
                one,
                "threading.Thread(target=lambda: [s.sendall(bytes(99999)) for _ in s], daemon=1)",
            )
            one.exec(
                "lines = [socket.create_connection(('127.0.0.1', PORT)) for _ in range(9)]\n"
                "post(1)\nwhile True: s.sendall(bytes(99999)); s.recv(99999)"
            )
            assert one.recv(PATIENCE) == 1
            one.kill()
            held.append(one)  # a handle that is kept keeps nothing else
        # The server's threads have heard the end; the broker's go after ten seconds without work.
        assert until(lambda: holdings()[1] <= before[1])
        held.clear()
        assert until(lambda: holdings()[0] <= before[0])
    still_serves()
