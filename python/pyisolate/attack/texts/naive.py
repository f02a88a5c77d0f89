"""Deliberately naive stand-ins for the broker: they look at a request and believe it."""

import contextlib
import fnmatch
import itertools
import os
import re
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any


class NaiveFiles:
    """Answers `filesystem` as one would at first: does the path begin with a granted one?"""

    def __init__(self, *roots: Path | str, denied: str = r"(?!)", checks: bool = True) -> None:
        self._roots = tuple(map(str, roots))
        self._denied = re.compile(denied)
        self.checks = checks
        self._open: dict[int, int] = {}
        self._numbers = itertools.count(1)

    def _checked(self, path: str) -> str:
        if not self.checks:
            return path
        if not path.startswith(self._roots) or self._denied.search(path):
            raise PermissionError(13, f"{path} is not granted")
        return path

    def __call__(self, capability: str, action: str, payload: dict[str, Any]) -> Any:
        assert capability == "filesystem"
        handle = payload.get("handle")
        path = self._checked(payload["path"]) if "path" in payload else ""
        match action:
            case "read" if handle is not None:
                return os.pread(self._open[handle], payload.get("length") or 1 << 20, 0)
            case "read":
                return Path(path).read_bytes()
            case "write" if handle is not None:
                return os.pwrite(self._open[handle], payload["data"], payload["offset"])
            case "write":
                return Path(path).write_bytes(payload["data"])
            case "append":
                with open(path, "ab") as file:
                    return file.write(payload["data"])
            case "open":
                flags = {"r": os.O_RDONLY, "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC}
                flags |= {"a": os.O_WRONLY | os.O_APPEND, "r+": os.O_RDWR}
                number = next(self._numbers)
                self._open[number] = os.open(path, flags[payload.get("mode", "r")])
                return {"handle": number, "size": os.fstat(self._open[number]).st_size}
            case "close":
                return os.close(self._open.pop(handle))
            case "truncate":
                return os.truncate(path or self._open[handle], payload["size"])
            case "list":
                return [[name, "file", 0] for name in os.listdir(path)]
            case "stat":
                found = os.stat(path)
                return {"size": found.st_size, "mode": found.st_mode}
            case "exists":
                return os.path.exists(path)
            case "mkdir":
                return os.mkdir(path)
            case "remove":
                return os.rmdir(path) if payload.get("directory") else os.remove(path)
            case "rename":
                return os.rename(path, self._checked(payload["to"]))
        raise LookupError(action)

    def close(self) -> None:
        """Close what is open."""
        for descriptor in self._open.values():
            os.close(descriptor)


def naive_request(base: Path, denied: str = r"/denied(/|$)|\.key$"):
    """`request` of a broker that believes texts; and checks nothing where even it would refuse."""
    naive = NaiveFiles(*(base / name for name in ("given", "made", "drop")), denied=denied)

    def request(capability, action, payload=None):
        try:
            return naive(capability, action, payload)
        except PermissionError:
            naive.checks = False
            return naive(capability, action, payload)

    return request


class NaiveNetwork:
    """Answers `network` for whoever asks."""

    def __call__(self, capability, action, payload=None):
        host = payload.get("host", "")
        match action:
            case "resolve":
                return [info[4][0] for info in socket.getaddrinfo(host, None)]
            case "connect":
                with socket.create_connection((host, payload["port"]), 2) as connection:
                    return connection.recv(99)
            case "http":
                with urllib.request.urlopen(payload["url"], timeout=2) as answer:
                    return answer.read()
        raise LookupError(action)


class NaiveList:
    """Answers whoever is on its list; and, if the list is empty, everybody."""

    def __init__(self, allowed):
        self._allowed = allowed
        self._files = NaiveFiles(checks=False)
        self._network = NaiveNetwork()

    def __call__(self, capability, action, payload=None):
        if self._allowed and capability not in self._allowed:
            raise PermissionError(capability)
        match capability:
            case "filesystem":
                return self._files(capability, action, payload)
            case "network":
                return self._network(capability, action, payload)
            case "subprocess":
                return subprocess.run([payload["program"], *payload["args"]], check=True).returncode
        return "as you wish"


def naive_programs(patterns):
    """`request` of a broker that compares each word with a pattern."""

    def request(capability, action, payload=None):
        words = [payload["program"], *payload["args"]]
        for pattern in patterns:
            if len(words) == len(pattern) and all(map(fnmatch.fnmatchcase, words, pattern)):
                return "would run"
        raise PermissionError(words)

    return request


def serve():
    """Answer every connection to a port of loopback's, as a server of HTTP does; the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncanary")
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(1)
                while connection.recv(4096):
                    continue

    threading.Thread(target=answer, daemon=True).start()
    return listener.getsockname()[1]
