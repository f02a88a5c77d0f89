"""`Supervisor`, and the module-level functions that use one of their own."""

import atexit
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pyisolate import _core
from pyisolate._core import Cell, Template
from pyisolate._watch import PolicyWatch
from pyisolate.authorities import PathText
from pyisolate.capabilities import SecretText, supplied
from pyisolate.events import DenialEvent
from pyisolate.policy import Policy, PolicyLike, is_path, read_document, resolve_policy

BackendMode = Literal["subinterpreter", "process", "microvm"]
"""The walls that the contract names."""
SUPPORTED_BACKENDS: tuple[BackendMode, ...] = ("subinterpreter", "process", "microvm")
"""Every name that `backend=` takes."""
Require = Literal["default", "hardened", "none"] | Iterable[str]
"""What `require=` takes: a set of layers by its name, or names of layers."""
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
    `backend`: where the wall of its cells stands if `spawn` does not say; the pool's are of this
    kind.
    `environment`: the folder of a virtual environment whose interpreter and packages cells get,
    instead of the host's own. It needs no pyisolate. Sub-interpreters are always the host's own.
    `policy_token`: what `reload_policy` asks for; without one no policy can be reloaded.
    `journal`: a file to which every crossing is written, as lines that are linked by hashes;
    `pyisolate journal verify` finds a change. One that is there is gone on with.
    `journal_payloads`: what it keeps of payloads: `full`, `hash` or `none`.
    `on_denial`: called with each `DenialEvent`, one after another, in a thread of its own. It
    holds no cell up: while a thousand wait to be told, further ones are on `cell.denials` alone.

    `require`: which layers of confinement must hold for every cell, unless `spawn` says otherwise:
    `"default"`, those without which the backend's promise is false; `"hardened"`, all that the
    backend has; names of layers, which must be enforced beside the default ones; or `"none"`,
    whatever this host gives, with a warning. `pyisolate doctor` shows what there is.

    `accel`: what runs the instructions of `microvm` cells: `"kvm"`, or `"tcg"` for emulation, which
    is slow and no boundary of the hardware's. `PYISOLATE_MICROVM_ACCEL` says it too; else it is
    KVM, and where that does not work nothing takes its place.
    `image`: what `microvm` cells are made of, by the name or hash of `pyisolate image build`;
    `PYISOLATE_MICROVM_IMAGE` says it too; else the image named `default`.

    Raises `SandboxError` if there is no fitting interpreter, or no journal can be kept.
    """

    def __init__(
        self,
        warm_pool: int = 0,
        *,
        backend: BackendMode = DEFAULT_BACKEND,
        environment: str | os.PathLike[str] | None = None,
        policy_token: str | bytes | None = None,
        journal: str | os.PathLike[str] | None = None,
        journal_payloads: Literal["full", "hash", "none"] = "hash",
        on_denial: Callable[[DenialEvent], object] | None = None,
        require: Require = "default",
        accel: Literal["kvm", "tcg"] | None = None,
        image: str | None = None,
    ) -> None:
        if warm_pool < 0:
            raise ValueError(f"warm_pool={warm_pool} is below 0")
        if on_denial is not None and not callable(on_denial):
            raise TypeError(f"on_denial={on_denial!r} cannot be called")
        self._backend = _checked(backend, environment is not None)
        folder = None if environment is None else Path(environment).absolute()
        self._has_environment = folder is not None
        self._core = _core.Supervisor(
            _describe() if folder is None else "",
            _core.__file__,
            warm_pool,
            self._backend,
            folder,
            on_denial,
            journal,
            journal_payloads,
            _required(require),
            accel,
            image,
        )
        self._watches: list[PolicyWatch] = []
        if policy_token is not None:
            self.set_policy_token(policy_token)

    def spawn(
        self,
        name: str,
        *,
        backend: BackendMode | None = None,
        policy: PolicyLike | None = None,
        allowed_imports: Iterable[str] | None = None,
        capabilities: Mapping[str, object] | None = None,
        secrets: Mapping[str, SecretText] | None = None,
        trusted_types: Iterable[type] | None = None,
        template: Template | None = None,
        require: Require | None = None,
        descriptors: bool = True,
        wall_time_ms: int | None = None,
        cpu_ms: int | None = None,
        cpu_rate_max: float | None = None,
        mem_bytes: int | None = None,
        output_bytes_max: int | None = None,
        output_bytes_per_second: int | None = None,
        message_bytes_max: int | None = None,
        unread_bytes_max: int | None = None,
        unread_messages_max: int | None = None,
        requests_per_second_max: int | None = None,
        open_files_max: int | None = None,
        child_work_max: int | None = None,
        network_ops_max: int | None = None,
        network_bytes_max: int | None = None,
        disk_bytes_max: int | None = None,
        scratch_bytes: int | None = None,
    ) -> Cell:
        """Make a cell.

        `backend`: where its wall stands, unless as the supervisor's: `process`; `subinterpreter`
        for code that is trusted somewhat, in an interpreter of this process behind a thread's wall;
        or `microvm`, a virtual machine that goes on from a snapshot.
        `name`: 1 to 64 of letters, digits, `_`, `-` and `.`; a live cell's name is taken.
        `policy`: what the cell may have: a template's name, the path of a policy document (text
        with a slash in it, or that ends in .yml, .yaml, .toml or .json), a document as a dict, or a
        `Policy`. Of a document the cell has its `defaults` and what it lists under the cell's name.
        Nothing is granted by default.
        `allowed_imports`: further modules that guest code may import and call, with what is below
        them. What they import for themselves is their own business.
        `capabilities`: under the names of built-in ones, objects such as `FilesystemCapability`
        that grant more than the policy does; under any other name a capability of the host's own,
        as a function or a `HostCapability`. That is granted whole unless the policy speaks of it.
        `secrets`: the values behind names. The policy says what may be done with them.
        `trusted_types`: classes whose instances the guest may send; they are rebuilt from their
        fields, without running anything that the guest chose.
        `template`: start from what a template of this supervisor has imported and set up.
        `require`: which layers must hold, instead of what the supervisor requires;
        `ConfinementError` if one does not, before any guest code runs.
        `descriptors`: whether files to read and connections come as descriptors, at the kernel's
        speed. If not, every byte of them passes the broker: slower, but counted exactly, and a
        changed policy holds for the next piece of a file that is being read.

        Limits, each but `cpu_rate_max` on by default; a cell that reaches one with an error is
        ended, and past a rate it waits. One that is given here wins over the policy's:

        - `wall_time_ms` (60,000): wall time of one `exec` or `call`; `WallTimeExceeded`
        - `cpu_ms` (60,000): CPU time of the cell's life; `CPUExceeded`
        - `cpu_rate_max` (none): cores that it may keep busy, such as 0.5; process cells alone
        - `mem_bytes` (512 MiB): memory of its own, page tables included; `MemoryExceeded`
        - `output_bytes_max` (16 MiB): printed and logged over the cell's life; `OutputExceeded`
        - `output_bytes_per_second` (16 MiB): of that a second, one second's saved up
        - `message_bytes_max` (128 MiB): one message; the sender gets a `ValueError`
        - `unread_bytes_max` (256 MiB): sent and not received; past it the guest waits
        - `unread_messages_max` (250,000): the same by number
        - `requests_per_second_max` (50,000): requests a second, one second's saved up
        - `open_files_max` (64): descriptors; `OpenFilesExceeded`
        - `child_work_max` (16): threads; `ChildWorkExceeded`
        - `network_ops_max` (1,000): connections and HTTP requests; `NetworkExceeded`
        - `network_bytes_max` (256 MiB): bytes over the network, both ways; `NetworkExceeded`
        - `disk_bytes_max` (1 GiB): bytes written to files; the writer gets an `OSError`
        - `scratch_bytes` (0, none): private files at `/tmp` in memory, which count as the cell's;
          past it the writer gets an `OSError`. The host needs `CAP_SYS_ADMIN`

        Raises `ValueError` for a bad name, limit or backend, `PolicyError` for a policy that is
        none, `SandboxError` and its kinds if no cell could be made.
        """
        chosen = self._backend if backend is None else _checked(backend, self._has_environment)
        limits = {
            "wall_time_ms": wall_time_ms,
            "cpu_ms": cpu_ms,
            "cpu_rate_max": cpu_rate_max,
            "mem_bytes": mem_bytes,
            "output_bytes_max": output_bytes_max,
            "output_bytes_per_second": output_bytes_per_second,
            "message_bytes_max": message_bytes_max,
            "unread_bytes_max": unread_bytes_max,
            "unread_messages_max": unread_messages_max,
            "requests_per_second_max": requests_per_second_max,
            "open_files_max": open_files_max,
            "child_work_max": child_work_max,
            "network_ops_max": network_ops_max,
            "network_bytes_max": network_bytes_max,
            "disk_bytes_max": disk_bytes_max,
            "scratch_bytes": scratch_bytes,
        }
        if isinstance(allowed_imports, str):
            raise TypeError("allowed_imports is a list of module names, not one string")
        handed = supplied(capabilities)
        resolved = None if policy is None else resolve_policy(policy, name)
        return self._core.spawn(
            name,
            {limit: value for limit, value in limits.items() if value is not None},
            list(allowed_imports or ()),
            list(trusted_types or ()),
            template,
            backend=chosen,
            policy=None if resolved is None else resolved._inner,
            follows_document=_is_document(policy),
            granted=Policy().grant(*handed.grants)._inner,
            secrets={**handed.secrets, **(secrets or {})},
            capabilities=handed.own,
            require=None if require is None else _required(require),
            descriptors=descriptors,
        )

    def template(
        self,
        imports: Iterable[str] = (),
        setup: str = "",
        *,
        backend: BackendMode | None = None,
    ) -> Template:
        """Make a template, which has imported `imports` and run the source text `setup`: a process
        in a jail of its own, or the snapshot of a virtual machine. Cells of its `backend` that are
        spawned from it start with that, and share its memory. Without `backend` it is the
        supervisor's own, if that has templates, else `process`.

        Raises `GuestError` if the set-up raised.
        """
        if isinstance(imports, str):
            raise TypeError("imports is a list of module names, not one string")
        if backend is None:
            backend = "microvm" if self._backend == "microvm" else "process"
        return self._core.template(list(imports), setup, _checked(backend, self._has_environment))

    def set_policy_token(self, token: str | bytes) -> None:
        """Set the token that `reload_policy` and `watch_policy` ask for."""
        self._core.set_policy_token(_token(token))

    def reload_policy(self, path: PathText, token: str | bytes) -> list[str]:
        """Load a policy document, and put it in force for every cell whose policy came from a file:
        from its next request on, and for every handle it holds. Its numeric limits stay as they
        were, and so do what it could import already and what `spawn` was given beside the policy.
        Connections that are no longer granted end; a file that was opened for reading cannot be
        taken back but by killing: see `cell.handed_out`.

        Returns the names of those cells. Raises `PolicyAuthError` for a wrong token, `PolicyError`
        for a document that cannot be read; then everything stays as it was.
        """
        return self._core.reload_policy(*read_document(path), _token(token))

    def watch_policy(
        self, path: PathText, token: str | bytes, interval: float = 1.0
    ) -> PolicyWatch:
        """Load a policy document now and, until `stop()` of what this returns, again whenever the
        file's content has changed, looked at every `interval` seconds. A content that cannot be
        loaded is logged once, and changes nothing.

        Raises what `reload_policy` raises.
        """
        watch = PolicyWatch(path, interval, lambda: self.reload_policy(path, token))
        self._watches.append(watch)
        return watch

    def list_active(self) -> list[str]:
        """The names of the cells that are alive, sorted."""
        return self._core.list_active()

    @property
    def pool_ready(self) -> int:
        """How many confined cells are ready in the pool."""
        return self._core.pool_ready

    def shutdown(self) -> None:
        """End every cell, template, zygote and watch, and wait until they are gone.

        Raises `SandboxError` if the end of the journal cannot be written.
        """
        while self._watches:
            self._watches.pop().stop()
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


def _checked(backend: BackendMode, has_environment: bool) -> BackendMode:
    if backend not in SUPPORTED_BACKENDS:
        names = ", ".join(SUPPORTED_BACKENDS)
        raise ValueError(f"unknown backend {backend!r}: choose one of {names}")
    if backend == "microvm" and has_environment:
        raise ValueError(
            "a machine's packages are in its image: leave environment= out, and run "
            "`pyisolate image build --python ENVIRONMENT/bin/python --package NAME`"
        )
    if backend == "subinterpreter" and has_environment:
        raise ValueError(
            "a sub-interpreter is the host's own: leave environment= out, or use backend='process'"
        )
    return backend


def _required(require: Require) -> str:
    """The requirement as the core takes it."""
    if require == "none":
        warnings.warn(
            "require='none': cells run with whatever walls this host gives; look at "
            "cell.confinement",
            RuntimeWarning,
            stacklevel=3,
        )
    return require if isinstance(require, str) else ",".join(require)


def _is_document(policy: object) -> bool:
    """Whether the policy is a file, which `reload_policy` replaces."""
    return is_path(policy) if isinstance(policy, str) else isinstance(policy, os.PathLike)


def _token(token: str | bytes) -> bytes:
    if not token:
        raise ValueError("an empty policy token would be everybody's")
    return token.encode() if isinstance(token, str) else token


# Handlers are called in threads that the interpreter does not wait for by itself.
atexit.register(_core.end)
# CPython cannot fork beside sub-interpreters: those of cells are hidden from it meanwhile.
os.register_at_fork(
    before=_core.before_fork,
    after_in_parent=_core.after_fork_in_parent,
    after_in_child=_core.after_fork_in_child,
)

_lock = threading.Lock()
_default: Supervisor | None = None


def _default_supervisor() -> Supervisor:
    global _default
    with _lock:
        if _default is None:
            _default = Supervisor()
        return _default


def spawn(name: str, **options: Any) -> Cell:
    """Make a cell with the package's own supervisor. Takes what `Supervisor.spawn` takes."""
    return _default_supervisor().spawn(name, **options)


def set_policy_token(token: str | bytes) -> None:
    """Set the policy token of the package's own supervisor."""
    _default_supervisor().set_policy_token(token)


def reload_policy(path: PathText, token: str | bytes) -> list[str]:
    """Reload the policies of the package's own supervisor, as `Supervisor.reload_policy` does."""
    return _default_supervisor().reload_policy(path, token)


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
