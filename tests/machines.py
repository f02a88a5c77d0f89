"""Images for tests of cells in virtual machines, and a look at what such a cell leaves behind."""

import contextlib
import gc
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyisolate
from cells import children, run
from command import MODULE

BUILD_SECONDS = 600
ALIGNMENT = 4
HEADER_BYTES = 110


def image(cache: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `pyisolate image` on a cache. Returns the finished process."""
    return subprocess.run(
        [*MODULE, "image", *words],
        env={**os.environ, "PYISOLATE_CACHE": str(cache)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
        **options,
    )


def folder_of(cache: Path, name: str = "default") -> Path:
    """Where an image is in a cache."""
    return cache / "images" / (cache / "names" / name).read_text()


def entry(initramfs: Path, wanted: str) -> bytes:
    """The bytes of a file in an archive."""
    with initramfs.open("rb") as archive:
        while header := archive.read(HEADER_BYTES):
            size, length = int(header[54:62], 16), int(header[94:102], 16)
            name = archive.read(length)[:-1].decode()
            archive.seek(-(HEADER_BYTES + length) % ALIGNMENT, os.SEEK_CUR)
            if name == wanted:
                return archive.read(size)
            archive.seek(size + -size % ALIGNMENT, os.SEEK_CUR)
    raise LookupError(wanted)


def archive(name: str, bytes: bytes) -> bytes:
    """An archive of one program, which a kernel unpacks over what came before."""

    def one(name: str, mode: int, data: bytes) -> bytes:
        numbers = [1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name.encode() + b"\0"
        return head + bytes_to_align(head) + data + bytes_to_align(data)

    def bytes_to_align(data: bytes) -> bytes:
        return b"\0" * (-len(data) % ALIGNMENT)

    return one(name, 0o100755, bytes) + one("TRAILER!!!", 0, b"")


def put(
    cache: Path,
    name: str,
    source: Path,
    lay: Callable[..., object] = shutil.copyfile,
    **changes: Any,
) -> None:
    """A variant of an image: its files, laid down by `lay`, and a manifest with other values."""
    manifest = json.loads((source / "manifest.json").read_text()) | changes
    text = json.dumps(manifest).encode()
    hash = hashlib.sha256(text).hexdigest()
    folder = cache / "images" / hash
    for made in (cache, cache / "images", cache / "names", folder):
        made.mkdir(mode=0o700, exist_ok=True)
    for file in ("kernel", "initramfs"):
        lay(source / file, folder / file)
    (folder / "manifest.json").write_bytes(text)
    (cache / "names" / name).write_text(hash)


def with_init(source: Path, folder: Path, program: str) -> dict[str, Any]:
    """Lay a copy of an image down whose first process is a program in Python, which is root in it.
    Returns what changes in its manifest."""
    folder.mkdir(mode=0o700)
    interpreter = entry(source / "initramfs", "init").partition(b"\n")[0]
    shutil.copyfile(source / "kernel", folder / "kernel")
    shutil.copyfile(source / "initramfs", folder / "initramfs")
    shutil.copyfile(source / "manifest.json", folder / "manifest.json")
    with (folder / "initramfs").open("r+b") as out:
        out.seek(0, os.SEEK_END)
        out.write(archive("init", interpreter + b"\n" + program.encode()))
    with (folder / "initramfs").open("rb") as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
        return {"initramfs": {"bytes": whole.seek(0, os.SEEK_END), "sha256": digest}}


def sent(cell: pyisolate.Cell, source: str, patience: float = 20) -> Any:
    """What a guest posts as `result`."""
    run(cell, source + "\npost(result)")
    return cell.recv(patience)


def groups() -> set[str]:
    """The control groups of this process's cells."""
    mine = Path("/sys/fs/cgroup").glob(f"**/pyisolate-*-{os.getpid()}-*/*")
    return {str(path) for path in mine if path.is_dir()}


def holdings() -> dict[str, Any]:
    """What a cell could leave behind."""
    gc.collect()
    links = descriptors()
    return {
        "processes": set(children()),
        "descriptors": len(links),
        "memory files": sum("memfd:" in link for link in links),
        "mapped memory files": Path("/proc/self/maps").read_text().count("memfd:"),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "groups": groups(),
    }


def descriptors() -> list[str]:
    """What this process's descriptors are of."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them
            found.append(str(path.readlink()))
    return found


def left(before: dict[str, Any]) -> dict[str, Any]:
    """What there is more of than before."""
    more = {}
    for name, now in holdings().items():
        was = before[name]
        excess = now - was if isinstance(now, set) else max(0, now - was)
        if excess:
            more[name] = excess
    return more


def in_host(name: str) -> int:
    """A figure of this process, in bytes."""
    return int(Path("/proc/self/status").read_text().split(name)[1].split()[0]) * 1024
