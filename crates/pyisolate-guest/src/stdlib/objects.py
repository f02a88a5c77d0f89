"""Capability objects: what the policy grants, as names in the guest's builtins.

Each method is one request. Nothing is tried in the cell first, so that `fs.read(path)` always means
the host's file.
"""

import builtins
import json as _json
import keyword
import os

broker = None
files = None
folders = None


def install(link, opened, told):
    """Keeps what the objects use: the module of files, and that of folders."""
    global broker, files, folders
    broker, files, folders = link, opened, told


def granted():
    """The objects of a configured cell, by name."""
    found = {name: kind() for capability, name, kind in _OWN if capability in broker.capabilities}
    for name in broker.host_capabilities:
        # Others are reached by `request`: a builtin is never replaced.
        taken = name in found or hasattr(builtins, name) or keyword.iskeyword(name)
        if name.isidentifier() and not taken:
            found[name] = HostCapability(name)
    return found


def _path(path):
    found = broker.absolute(path)
    if found is None:
        raise ValueError("the path is empty")
    return found


class _Object:
    __slots__ = ()
    _name = ""

    def __repr__(self):
        return f"<capability {self._name}>"


class Filesystem(_Object):
    """The host's files that the policy grants. Paths are the host's."""

    __slots__ = ()
    _name = "fs"

    @staticmethod
    def _ask(action, path, **payload):
        return broker.ask("filesystem", action, {"path": _path(path), **payload}, path)

    def open(
        self,
        path: str | os.PathLike,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ):
        """Open a file, as the builtin `open` does."""
        return files.open_path(
            _path(path), mode, buffering, encoding, errors, newline, name=path
        )  # fmt: skip

    def read(self, path: str | os.PathLike, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes of a file, or `length` of them from `offset` on."""
        with self.open(path, "rb", 0) as file:
            if offset:
                file.seek(offset)
            if length is None:
                return file.readall()
            parts = []
            while length > 0 and (part := file.read(length)):
                parts.append(part)
                length -= len(part)
            return b"".join(parts)

    def read_text(self, path: str | os.PathLike, encoding: str = "utf-8") -> str:
        """The text of a file."""
        return self.read(path).decode(encoding)

    def write(self, path: str | os.PathLike, data: bytes) -> int:
        """Make these bytes the whole content of a file; how many they are."""
        with self.open(path, "wb") as file:
            return file.write(data)

    def write_text(self, path: str | os.PathLike, text: str, encoding: str = "utf-8") -> int:
        """Make this text the whole content of a file; how many bytes it is."""
        return self.write(path, text.encode(encoding))

    def append(self, path: str | os.PathLike, data: bytes | str) -> int:
        """Add to the end of a file; its new length in bytes. Text is added as UTF-8."""
        return self._ask("append", path, data=data.encode() if isinstance(data, str) else data)

    def list(self, path: str | os.PathLike) -> list[str]:
        """The names in a folder, sorted."""
        return sorted(name for name, _, _ in self._ask("list", path))

    def stat(self, path: str | os.PathLike, *, follow_symlinks: bool = True) -> os.stat_result:
        """What `os.stat` tells, except whose the file is."""
        return folders.result_of(self._ask("stat", path, follow=follow_symlinks))

    def exists(self, path: str | os.PathLike) -> bool:
        """Whether there is such a file or folder."""
        return self._ask("exists", path)

    def mkdir(
        self, path: str | os.PathLike, *, parents: bool = False, exist_ok: bool = False
    ) -> None:
        """Make a folder."""
        self._ask("mkdir", path, parents=parents, exist_ok=exist_ok)

    def remove(self, path: str | os.PathLike, *, directory: bool = False) -> None:
        """Remove a file, a link, or with `directory` an empty folder."""
        self._ask("remove", path, directory=directory)

    def rename(
        self, path: str | os.PathLike, to: str | os.PathLike, *, replace: bool = True
    ) -> None:
        """Give a file or folder another name."""
        payload = {"path": _path(path), "to": _path(to), "replace": replace}
        broker.ask("filesystem", "rename", payload, path, to)


class Response:
    """The answer to an HTTP request. Its body is read as it is asked for."""

    def __init__(self, told):
        self.status: int = told["status"]
        self.reason: str = told.get("reason") or ""
        self.url: str = told["url"]
        self.header_list: list[tuple[str, str]] = [tuple(pair) for pair in told["headers"]]
        self._ahead = told["body"]
        self._handle = told["handle"]
        self._kept = None

    def __repr__(self):
        return f"<Response {self.status} {self.url}>"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def ok(self) -> bool:
        """Whether the status says that the request succeeded."""
        return self.status < 400

    @property
    def headers(self) -> dict[str, str]:
        """The headers by name in lower case; those that came repeatedly are joined by commas."""
        found: dict[str, str] = {}
        for name, value in self.header_list:
            name = name.lower()
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found

    def iter(self):
        """The rest of the body, piece by piece as it arrives."""
        while True:
            piece, self._ahead = self._ahead, b""
            if not piece:
                if self._handle is None:
                    return
                piece = broker.ask("network", "receive", {"handle": self._handle})
                if not piece:
                    self._handle = None
                    return
            yield piece

    def read(self, length: int = -1) -> bytes:
        """Up to `length` bytes of the rest of the body, or all of it."""
        parts, missing = [], length
        for piece in self.iter():
            if length >= 0 and missing <= len(piece):
                parts.append(piece[:missing])
                self._ahead = piece[missing:]
                break
            parts.append(piece)
            missing -= len(piece)
        return b"".join(parts)

    @property
    def body(self) -> bytes:
        """The body, kept once it was read."""
        if self._kept is None:
            self._kept = self.read()
        return self._kept

    def text(self, encoding: str | None = None) -> str:
        """The body as text: in `encoding`, or in what the answer says, or in UTF-8."""
        said = self.headers.get("content-type", "").lower().partition("charset=")[2]
        return self.body.decode(encoding or said.partition(";")[0].strip(' "') or "utf-8")

    def json(self):
        """The body, decoded from JSON."""
        return _json.loads(self.body)

    def close(self) -> None:
        """Let go of the rest of the body."""
        handle, self._handle, self._ahead = self._handle, None, b""
        if handle is not None:
            broker.ask("network", "close", {"handle": handle})


class Network(_Object):
    """The network destinations that the policy grants."""

    __slots__ = ()
    _name = "net"

    def connect(self, host: str, port: int, timeout: float = 30.0):
        """A connected TCP socket."""
        import socket

        return socket.create_connection((host, port), timeout)

    def resolve(self, host: str) -> list[str]:
        """The addresses of a host that the policy lets the cell connect to."""
        return broker.ask("network", "resolve", {"host": host})

    def http(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | str = b"",
        json: object = None,
        timeout: float = 30.0,
        redirects: int = 10,
    ) -> Response:
        """Do an HTTP request and up to so many redirects, each of which is checked."""
        lines = [[name, value] for name, value in (headers or {}).items()]
        if json is not None:
            if body:
                raise ValueError("body= and json= cannot both be given")
            body = _json.dumps(json).encode()
            if not any(name.lower() == "content-type" for name, _ in lines):
                lines.append(["Content-Type", "application/json"])
        payload = {
            "method": method,
            "url": url,
            "headers": lines,
            "body": body.encode() if isinstance(body, str) else body,
            "timeout": float(timeout),
            "redirects": redirects,
        }
        return Response(broker.ask("network", "http", payload))


class Completed:
    """How a program ended: `returncode` (negative: the signal), `stdout`, `stderr`."""

    def __init__(self, command, told):
        self.command: list[str] = command
        self.returncode: int = told["returncode"]
        self.stdout: bytes = told["stdout"]
        self.stderr: bytes = told["stderr"]

    def __repr__(self):
        return f"<Completed {self.returncode} {self.command!r}>"

    def text(self, encoding: str = "utf-8") -> str:
        """What it wrote to its output, as text."""
        return self.stdout.decode(encoding)


class Commands(_Object):
    """The programs that the policy grants."""

    __slots__ = ()
    _name = "commands"

    def run(
        self,
        program: str,
        *args: str,
        input: bytes | str = b"",
        timeout: float | None = None,
        check: bool = False,
    ) -> Completed:
        """Run a program to its end; with `check`, a RuntimeError if it failed."""
        payload = {
            "program": program,
            "args": list(args),
            "stdin": input.encode() if isinstance(input, str) else input,
        }
        if timeout is not None:
            payload["timeout"] = float(timeout)
        completed = Completed([program, *args], broker.ask("subprocess", "run", payload, program))
        if check and completed.returncode:
            said = completed.stderr.decode("utf-8", "replace").strip()
            raise RuntimeError(f"{program} ended with {completed.returncode}: {said}")
        return completed


class Vault(_Object):
    """The secrets that the policy grants."""

    __slots__ = ()
    _name = "vault"

    def reveal(self, name: str) -> str | bytes:
        """The secret itself."""
        return broker.ask("secret", "reveal", {"name": name})

    def use(self, name: str) -> str:
        """What to write into a request's header, where the broker puts the secret in its place."""
        return broker.ask("secret", "use", {"name": name})


class Clock(_Object):
    """The host's clocks."""

    __slots__ = ()
    _name = "clock"

    def time(self) -> float:
        """Seconds since the epoch."""
        return self.time_ns() / 1e9

    def time_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return broker.ask("clock", "time", {})

    def monotonic(self) -> float:
        """Seconds since some moment, never fewer than before."""
        return broker.ask("clock", "monotonic", {}) / 1e9

    def sleep(self, seconds: float) -> None:
        """Wait."""
        broker.ask("clock", "sleep", {"seconds": float(seconds)})


class Entropy(_Object):
    """Randomness of the host's, or made from the policy's seed."""

    __slots__ = ()
    _name = "entropy"

    def bytes(self, length: int) -> bytes:
        """Random bytes, a million or so at the most."""
        return broker.ask("random", "bytes", {"length": length})


class Channels(_Object):
    """Channels to other cells and to the host."""

    __slots__ = ()
    _name = "channels"

    def send(self, channel: str, message: object, timeout: float | None = None) -> None:
        """Put a message into a channel; TimeoutError if it stays full for so many seconds."""
        broker.ask("ipc", "send", {"channel": channel, "message": message, "timeout": timeout})

    def receive(self, channel: str, timeout: float | None = None):
        """Take the next message of a channel; TimeoutError if none comes for so many seconds."""
        return broker.ask("ipc", "receive", {"channel": channel, "timeout": timeout})


class HostCapability(_Object):
    """A capability of the host's own: `db.query(x, limit=3)` asks for the action `query`."""

    __slots__ = ("_name",)

    def __init__(self, name):
        self._name = name

    def __getattr__(self, action):
        if action.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {action!r}")
        capability = self._name

        def ask(*args, **kwargs):
            return broker.ask(capability, action, {"args": list(args), "kwargs": kwargs})

        ask.__name__ = action
        ask.__qualname__ = f"{capability}.{action}"
        ask.__module__ = "builtins"
        return ask

    def __call__(self, payload=None):
        """Ask for the action `call` with this payload."""
        return broker.ask(self._name, "call", payload)


# Which capability is which object.
_OWN = (
    ("filesystem", "fs", Filesystem),
    ("network", "net", Network),
    ("subprocess", "commands", Commands),
    ("secret", "vault", Vault),
    ("clock", "clock", Clock),
    ("random", "entropy", Entropy),
    ("ipc", "channels", Channels),
)
