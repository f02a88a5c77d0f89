"""What the attacks aim at: planted on the host, so that a hit hurts nobody and is seen."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pyisolate.attack.numbers import NUMBERS

_NAMES = {"secret.txt", "victim.txt", "mount", "root", "s", "d"}
_CANARY = """
import ctypes, os, sys
token, path = sys.argv[1:]
memory = ctypes.create_string_buffer(token.encode())
file = os.open(path, os.O_RDONLY)
print(ctypes.addressof(memory), file, flush=True)
sys.stdin.read()
"""


class Plant:
    """A secret, a file to change, listeners, and a process: all named in `world`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.token = secrets.token_hex(12)
        self.secret = folder / "secret.txt"
        self.secret.write_text(self.token)
        self.victim = folder / "victim.txt"
        self.victim.write_text("original")
        for name in ("mount", "root"):
            (folder / name).mkdir()
        abstract = f"pyisolate-escape-{secrets.token_hex(6)}"
        self._listeners: list[socket.socket] = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))),
            stack.enter_context(_bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))),
            stack.enter_context(_bound(socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "s"))),
            stack.enter_context(_bound(socket.AF_UNIX, socket.SOCK_DGRAM, str(folder / "d"))),
            stack.enter_context(_bound(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + abstract)),
        ]
        for listener in self._listeners:
            listener.setblocking(False)
        self.canary = stack.enter_context(_started_canary(self.token, self.secret))
        assert self.canary.stdout is not None
        address, file = self.canary.stdout.readline().split()
        self.world: dict[str, Any] = {
            "numbers": NUMBERS,
            "uid": os.getuid(),
            "hostname": socket.gethostname(),
            "host_prefix": sys.base_prefix,
            "folder": str(folder),
            "secret": str(self.secret),
            "victim": str(self.victim),
            "mount_point": str(folder / "mount"),
            "unix_stream": str(folder / "s"),
            "unix_datagram": str(folder / "d"),
            "abstract": abstract,
            "tcp_port": self._listeners[0].getsockname()[1],
            "udp_port": self._listeners[1].getsockname()[1],
            "canary": self.canary.pid,
            "canary_address": int(address),
            "canary_fd": int(file),
        }

    def visitors(self) -> list[str]:
        """Take what reached the listeners since the last call."""
        seen = []
        for listener in self._listeners:
            try:
                if listener.type == socket.SOCK_DGRAM:
                    seen.append(repr(listener.recv(64)))
                else:
                    connection, _ = listener.accept()
                    connection.close()
                    seen.append(f"a connection to {listener.getsockname()!r}")
            except BlockingIOError:
                continue
        return seen

    def changes(self) -> list[str]:
        """What of it was changed, reached or hurt since the last call."""
        found = self.visitors()
        for path, text in ((self.secret, self.token), (self.victim, "original")):
            if not path.is_file() or path.read_text() != text:
                found.append(f"{path.name} is another")
        names = {path.name for path in self.folder.iterdir()}
        found += [f"{name} is there" for name in sorted(names - _NAMES)]
        found += [f"{name} is gone" for name in sorted(_NAMES - names)]
        if self.canary.poll() is not None:
            return [*found, "the canary is dead"]
        with contextlib.suppress(OSError):  # where there is no /proc, it tells nothing
            status = Path(f"/proc/{self.canary.pid}/status").read_text()
            if "\nTracerPid:\t0\n" not in status:
                found.append("the canary is traced")
            if "\nState:\tS" not in status:
                found.append("the canary does not wait")
        return found

    def restore(self) -> None:
        """Undo what an attack did that got through; not the end of the canary."""
        self.secret.write_text(self.token)
        self.victim.write_text("original")
        for path in self.folder.iterdir():
            if path.name not in _NAMES:
                path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()
        self.visitors()


def _bound(family: int, kind: int, address: Any) -> socket.socket:
    """A socket that may be connected or sent to."""
    bound = socket.socket(family, kind)
    bound.bind(address)
    if kind == socket.SOCK_STREAM:
        bound.listen()
    return bound


@contextmanager
def _started_canary(token: str, secret: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-I", "-S", "-c", _CANARY, token, str(secret)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as canary:
        yield canary
        assert canary.stdin is not None
        canary.stdin.close()
