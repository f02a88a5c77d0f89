"""`Supervisor`, and the module-level functions that use one of their own."""

import atexit
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pyisolate import _core
from pyisolate._core import Cell, Template
from pyisolate.errors import PolicyError, SandboxError

BackendMode = Literal["subinterpreter", "process", "microvm"]
"""The walls that the contract names."""
SUPPORTED_BACKENDS: tuple[BackendMode, ...] = ("subinterpreter", "process", "microvm")
"""Every name that `backend=` takes. This release has `process`; the others are refused clearly."""
DEFAULT_BACKEND: BackendMode = "process"


def _describe() -> str:
    """What a cell's root needs to know of this interpreter, as JSON."""
    namespace: dict[str, Any] = {"__name__": "pyisolate._describe"}
    exec(compile(_core.DESCRIBE, "<describe>", "exec"), namespace)
    return str(namespace["description"])


class Supervisor:
    """Owns cells, and ends them when it is shut down. It lives as long as its cells do.

    `warm_pool`: how many cells to keep forked and confined; `spawn` takes one, whatever its
    policy, and it is replaced in the background.
    `environment`: the folder of a virtual environment whose interpreter and packages cells get,
    instead of the host's own. It needs no pyisolate.

    Raises `SandboxError` if there is no fitting interpreter.
    """

    def __init__(
        self, warm_pool: int = 0, *, environment: str | os.PathLike[str] | None = None
    ) -> None:
        if warm_pool < 0:
            raise ValueError(f"warm_pool={warm_pool} is below 0")
        folder = None if environment is None else Path(environment).absolute()
        self._core = _core.Supervisor(
            _describe() if folder is None else "", _core.__file__, warm_pool, folder
        )

    def spawn(
        self,
        name: str,
        *,
        backend: BackendMode = DEFAULT_BACKEND,
        policy: object = None,
        allowed_imports: Iterable[str] | None = None,
        capabilities: object = None,
        trusted_types: Iterable[type] | None = None,
        template: Template | None = None,
        wall_time_ms: int | None = None,
        cpu_ms: int | None = None,
        mem_bytes: int | None = None,
        output_bytes_max: int | None = None,
        message_bytes_max: int | None = None,
        unread_bytes_max: int | None = None,
        open_files_max: int | None = None,
        child_work_max: int | None = None,
    ) -> Cell:
        """Make a cell.

        `name`: 1 to 64 of letters, digits, `_`, `-` and `.`; a live cell's name is taken.
        `allowed_imports`: the modules that guest code may import and call, with what is below
        them. Nothing by default. What they import for themselves is their own business.
        `trusted_types`: classes whose instances the guest may send; they are rebuilt from their
        fields, without running anything that the guest chose.
        `template`: start from what a template of this supervisor has imported and set up.

        Limits, each on by default and each with an error of its own:

        - `wall_time_ms` (60,000): wall time of one `exec` or `call`; `WallTimeExceeded`
        - `cpu_ms` (60,000): CPU time of the cell's life; `CPUExceeded`
        - `mem_bytes` (512 MiB): memory of its own, page tables included; `MemoryExceeded`
        - `output_bytes_max` (16 MiB): printed and logged over the cell's life; `OutputExceeded`
        - `message_bytes_max` (128 MiB): one message; the sender gets a `ValueError`
        - `unread_bytes_max` (256 MiB): sent and not received; past it the guest waits
        - `open_files_max` (64): descriptors; `OpenFilesExceeded`
        - `child_work_max` (16): threads; `ChildWorkExceeded`

        Raises `ValueError` for a bad name, limit or backend, `SandboxError` and its kinds if no
        cell could be made.
        """
        if backend not in SUPPORTED_BACKENDS:
            names = ", ".join(SUPPORTED_BACKENDS)
            raise ValueError(f"unknown backend {backend!r}: choose one of {names}")
        if backend != "process":
            raise SandboxError(f"backend={backend!r} is not in this release: use backend='process'")
        if policy is not None or capabilities:
            raise PolicyError(
                "policies and capabilities are not in this release, so none can be granted: "
                "leave them out, and send what the guest needs with post() or call()"
            )
        limits = {
            "wall_time_ms": wall_time_ms,
            "cpu_ms": cpu_ms,
            "mem_bytes": mem_bytes,
            "output_bytes_max": output_bytes_max,
            "message_bytes_max": message_bytes_max,
            "unread_bytes_max": unread_bytes_max,
            "open_files_max": open_files_max,
            "child_work_max": child_work_max,
        }
        if isinstance(allowed_imports, str):
            raise TypeError("allowed_imports is a list of module names, not one string")
        return self._core.spawn(
            name,
            {limit: value for limit, value in limits.items() if value is not None},
            list(allowed_imports or ()),
            list(trusted_types or ()),
            template,
        )

    def template(self, imports: Iterable[str] = (), setup: str = "") -> Template:
        """Make a template: a process, in a jail of its own, that has imported `imports` and run
        the source text `setup`. Cells spawned from it start with that, and share its memory.

        Raises `GuestError` if the set-up raised.
        """
        if isinstance(imports, str):
            raise TypeError("imports is a list of module names, not one string")
        return self._core.template(list(imports), setup)

    def list_active(self) -> list[str]:
        """The names of the cells that are alive, sorted."""
        return self._core.list_active()

    @property
    def pool_ready(self) -> int:
        """How many confined cells are ready in the pool."""
        return self._core.pool_ready

    def shutdown(self) -> None:
        """End every cell, template and zygote, and wait until they are gone."""
        self._core.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()


_lock = threading.Lock()
_default: Supervisor | None = None


def _default_supervisor() -> Supervisor:
    global _default
    with _lock:
        if _default is None:
            _default = Supervisor()
            atexit.register(shutdown)
        return _default


def spawn(name: str, **options: Any) -> Cell:
    """Make a cell with the package's own supervisor. Takes what `Supervisor.spawn` takes."""
    return _default_supervisor().spawn(name, **options)


def list_active() -> list[str]:
    """The names of the live cells of the package's own supervisor, sorted."""
    return [] if _default is None else _default.list_active()


def shutdown() -> None:
    """End every cell of the package's own supervisor. The next `spawn` starts afresh."""
    global _default
    with _lock:
        supervisor, _default = _default, None
    if supervisor is not None:
        supervisor.shutdown()
