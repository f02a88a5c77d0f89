"""A deliberately naive stand-in for the broker: it looks at a request's text and believes it."""

import itertools
import os
import re
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
