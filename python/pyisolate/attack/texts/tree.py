"""Files of a host's, some of which a policy grants. Built for cells, and anew in controls."""

import contextlib
import os
import secrets
import socket
import stat
import unicodedata
from pathlib import Path
from typing import Any


class Tree:
    """Files of a host's: granted, denied and neither."""

    def __init__(self, base: Path, token: str = "") -> None:
        self.base = base.resolve()
        self.token = token or f"token-{secrets.token_hex(12)}"
        self._folders()
        self._links()
        self._odd()

    @property
    def world(self) -> dict[str, Any]:
        """What guest code is told of it."""
        places = {name.upper(): str(self.base / name) for name in ("given", "made", "drop")}
        return places | {
            "BASE": str(self.base),
            "SECRET": str(self.base / "secret.txt"),
            "HOST_PID": os.getpid(),
            "SIZE": len(self.token),
        }

    def _write(self, path: str, text: str) -> None:
        file = self.base / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def _folders(self) -> None:
        for path in (
            "secret.txt", "outside/inner.txt", "given/denied/inner.txt", "given/x.key",
            "given/below/y.key", "made/denied/inner.txt", "made/x.key", "made/sub/y.key",
            "made/sub/deeper/z.key", "drop/box.txt", "given2/near.txt", "given.txt",
            f"given/{unicodedata.normalize('NFC', 'é.key')}",
        ):  # fmt: skip
            self._write(path, self.token)
        for path in ("given/text", "given/below/deep", "made/plain.txt", "victim.txt"):
            self._write(path, "original")
        self._write("folder/victim.txt", "original")
        (self.base / "given" / "text").chmod(0o600)

    def _links(self) -> None:
        given, made = self.base / "given", self.base / "made"
        for link, target in {
            "abs": self.base / "secret.txt",
            "rel": "../secret.txt",
            "dir": "../outside",
            "dir_abs": self.base / "outside",
            "up": "..",
            "root": "/",
            "below/link": "../../secret.txt",
            "below/up": "../..",
            "dots": "./.././../" + self.base.name + "/secret.txt",
            "denied_link": "denied/inner.txt",
            "key_link": "x.key",
            "denied_dir": "denied",
            "proc": "/proc/self/root",
            "proc_fd": "/proc/self/fd",
            "proc_environ": "/proc/self/environ",
            "device": "/dev/zero",
            "loop_a": "loop_b",
            "loop_b": "loop_a",
            "itself": "itself",
            "into_itself": "into_itself/x",
            "slash": f"//{self.base}//secret.txt",
        }.items():
            (given / link).symlink_to(str(target))
        for number in range(6):
            (given / f"chain{number}").symlink_to(f"chain{number + 1}")
        (given / "chain6").symlink_to("below/link")
        for number in range(60):
            (given / f"long{number}").symlink_to(f"long{number + 1}")
        (given / "long60").symlink_to("text")
        for link, target in {
            "to_victim": "../victim.txt",
            "to_victim_abs": self.base / "victim.txt",
            "to_folder": "../folder",
            "to_given": "../given",
            "to_nothing": "../new_by_link.txt",
            "up": "..",
            "to_key": "x.key",
        }.items():
            (made / link).symlink_to(str(target))
        (made / "hard").hardlink_to(self.base / "victim.txt")

    def _odd(self) -> None:
        given, made = self.base / "given", self.base / "made"
        os.mkfifo(given / "fifo")
        os.mkfifo(made / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            folder = os.getcwd()
            os.chdir(given)  # the path of a socket is short
            try:
                listener.bind("sock")
            finally:
                os.chdir(folder)
        with contextlib.suppress(PermissionError):  # only root makes these
            os.mknod(given / "zero", 0o020666, os.makedev(1, 5))
            os.mknod(made / "null", 0o020666, os.makedev(1, 3))

    def state(self) -> dict[str, Any]:
        """Everything about it that an attack could change: by path, what lies there."""
        found: dict[str, Any] = {}
        for folder, folders, files in os.walk(self.base):
            for name in [*folders, *files]:
                path = Path(folder, name)
                status = path.lstat()
                key = str(path.relative_to(self.base))
                regular = stat.S_ISREG(status.st_mode)
                found[key] = (status.st_mode, status.st_nlink if regular else 0)
                if stat.S_ISLNK(status.st_mode):
                    found[key] += (os.readlink(path),)
                elif regular:
                    found[key] += (path.read_bytes(), status.st_mtime_ns, os.listxattr(path))
        return found
