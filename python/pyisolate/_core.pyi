"""The Python face of the supervisor, which is written in Rust. Use it through `pyisolate`."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, final

from pyisolate import policy as _policy
from pyisolate.capabilities import HostCapability
from pyisolate.events import DenialEvent

__all__ = [
    "ABI_VERSION",
    "COMMAND_MEM_BYTES",
    "COMMAND_OUTPUT_BYTES",
    "COMMAND_WALL_TIME_MS",
    "DESCRIBE",
    "OPERATIONS",
    "Cell",
    "Confinement",
    "ExecHandle",
    "Layer",
    "Policy",
    "Stats",
    "Supervisor",
    "Template",
    "__version__",
    "after_fork_in_child",
    "after_fork_in_parent",
    "before_fork",
    "checked",
    "end",
    "run_command",
    "split_address",
]

__version__: Final[str]
ABI_VERSION: Final[int]
OPERATIONS: Final[tuple[str, ...]]
"""The names of the seven operations, in their frozen order."""
DESCRIBE: Final[str]
"""A program that leaves in `description` what cells need to know of the interpreter it runs in."""
COMMAND_WALL_TIME_MS: Final[int]
"""How long a command may run, unless its authority says otherwise."""
COMMAND_OUTPUT_BYTES: Final[int]
"""What a command may write to stdout and stderr together, unless its authority says otherwise."""
COMMAND_MEM_BYTES: Final[int]
"""A command's memory, unless its authority says otherwise."""

@final
class Cell:
    """A cell: guest code behind a wall. `Supervisor.spawn` makes them.

    As a context manager it is closed at the end of the block, and killed if the block raised.
    Forgotten, it is killed. Every method can be called from any thread.

    After its end every operation raises `CellDied` or one of its kinds; `recv` does so once
    everything that the cell had sent is taken.
    """

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def backend(self) -> str:
        """Where its wall stands: `process` or `subinterpreter`."""

    @property
    def pid(self) -> int | None:
        """Its process as the host numbers it; `None` after its end."""

    @property
    def stats(self) -> Stats:
        """What it used so far."""

    @property
    def confinement(self) -> Confinement:
        """The layers that confine it, as it read them from the kernel before guest code ran."""

    @property
    def denials(self) -> list[DenialEvent]:
        """The requests that were refused, oldest first; past a thousand they are only counted."""

    def get_denial_events(self) -> list[DenialEvent]:
        """The older name of `denials`."""

    @property
    def policy(self) -> _policy.Policy:
        """The policy that is in force, with what `spawn` granted beside it."""

    def set_policy(self, policy: _policy.PolicyLike) -> None:
        """Put another policy in force, from the next request on and for every handle.

        What `spawn` granted beside the policy stays, and so do numeric limits and what the cell
        could import already. Raises what `resolve_policy` raises; then the old one stays.
        """

    @property
    def handed_out(self) -> list[str]:
        """What the guest was given as descriptors: connections, `tcp example.org:443 (192.0.2.1)`,
        which end when the policy no longer grants them; and files, `file /data/in (to be read)`,
        which it may have closed since, and which only killing the cell takes back."""

    @property
    def termination_reason(self) -> str | None:
        """Why it ended, in one sentence; `None` while it lives."""

    def exec(self, source: str) -> ExecHandle:
        """Run source text in the cell's persistent namespace. Returns at once.

        If the guest raises, the error is told once: by the handle's `wait` or by `recv`, whichever
        is asked first. Raises `TimeoutError` if the cell takes nothing for ten seconds.
        """

    def call(self, target: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Call `module.func` inside the cell and return its result.

        The guest's own functions are in `__main__`. Raises `GuestError` if it raised, `PolicyError`
        if the module is not allowed, `TimeoutError` after `timeout` seconds with the guest still at
        it, `ValueError` for a target without a dot or a message over `message_bytes_max`.
        """

    def post(self, message: Any, *, timeout: float | None = None) -> None:
        """Send a picklable message, which the guest takes with `recv`.

        Waits for room in the cell's channel: `TimeoutError` after `timeout` seconds, by default
        ten. Raises `ValueError` for a message over `message_bytes_max`.
        """

    def recv(self, timeout: float | None = None) -> Any:
        """Take the next posted message, `LogEvent` or `MetricEvent`, in the guest's order.

        Raises `TimeoutError` after `timeout` seconds, `GuestError` or `PolicyError` for an `exec`
        that raised and whose handle was not asked.
        """

    def close(self, timeout: float | None = None) -> None:
        """Let the cell finish what it was sent, then end it; kill it after `timeout` seconds.

        The default is two seconds. Errors that nobody was told of go to the logger `pyisolate`.
        """

    def kill(self) -> None:
        """End the cell now. What it sent before can still be received."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None: ...

@final
class ExecHandle:
    """A running or ended `exec`."""

    def done(self) -> bool:
        """Whether it ended, well or not."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end.

        Raises `GuestError` or `PolicyError` if it raised and nobody was told yet, `TimeoutError`
        after `timeout` seconds, `CellDied` or one of its kinds if the cell ended first.
        """

@final
class Stats:
    """What a cell used so far, at the moment it was asked."""

    @property
    def cpu_ms(self) -> int:
        """CPU time of all its threads, in milliseconds; after its end the last figure known."""

    @property
    def mem_bytes(self) -> int:
        """Resident memory, pages shared with its zygote included; of a sub-interpreter, what it was
        given. 0 after its end."""

    @property
    def wall_ms(self) -> int:
        """Time since it was spawned, in milliseconds."""

    @property
    def received(self) -> int:
        """Frames that crossed to the host."""

    @property
    def sent(self) -> int:
        """Frames that crossed to the guest."""

    @property
    def output_bytes(self) -> int:
        """What `output_bytes_max` counts."""

    @property
    def denied(self) -> int:
        """Requests that were refused."""

    @property
    def throttled_ms(self) -> int:
        """For how long rates made it wait, in milliseconds: `cpu_rate_max`,
        `output_bytes_per_second`, `requests_per_second_max`."""

    @property
    def abandoned(self) -> bool:
        """It was a sub-interpreter's and could not be ended, in a call into C that does not return:
        its thread and its memory stay until this process ends."""

@final
class Confinement:
    """What confines a cell: its layers, in the order in which they were applied, as the kernel said
    afterwards. `confinement["landlock"]` is the layer of that name; `str()` is a table."""

    @property
    def cell(self) -> str:
        """The cell's name."""

    @property
    def backend(self) -> str:
        """Where its wall stands."""

    @property
    def require(self) -> str:
        """What was required: `default`, `hardened`, `none`, or names of layers with commas."""

    @property
    def policy_sha256(self) -> str:
        """The SHA-256 of the policy in force, as JSON, in hexadecimal digits."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers."""

    def to_json(self) -> str:
        """The whole as a JSON object: `version` (1), `cell`, `backend`, `require`, `policy_sha256`
        and `layers`, each with `name`, `status`, `detail`, `meaning` and, if it is not enforced,
        `remedy`. The journal has the same."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: int | str, /) -> Layer: ...
    def __iter__(self) -> Iterator[Layer]: ...

@final
class Layer:
    """One layer of a cell's confinement."""

    @property
    def name(self) -> str:
        """For instance `landlock`."""

    @property
    def status(self) -> Literal["enforced", "partial", "missing"]:
        """How far the kernel enforces it."""

    @property
    def detail(self) -> str:
        """What exactly is enforced, or what is lacking and why."""

    @property
    def meaning(self) -> str:
        """What it means that the layer holds."""

    @property
    def remedy(self) -> str | None:
        """How a host that lacks it gets it."""

@final
class Supervisor:
    """Owns cells. `pyisolate.Supervisor` is the public face."""

    def __new__(
        cls,
        description: str,
        runtime: str | os.PathLike[str],
        warm_pool: int,
        pool_of: str,
        environment: str | os.PathLike[str] | None = None,
        on_denial: Callable[[DenialEvent], object] | None = None,
        journal: str | os.PathLike[str] | None = None,
        journal_payloads: str = "hash",
        require: str = "default",
        accel: str | None = None,
        image: str | None = None,
    ) -> Self: ...
    def spawn(
        self,
        name: str,
        limits: Mapping[str, float],
        imports: list[str],
        trusted: list[type],
        template: Template | None = None,
        *,
        backend: str = "process",
        policy: Policy | None = None,
        follows_document: bool = False,
        granted: Policy | None = None,
        secrets: Mapping[str, str | bytes] | None = None,
        capabilities: Mapping[str, HostCapability] | None = None,
        require: str | None = None,
        descriptors: bool = True,
    ) -> Cell: ...
    def set_policy_token(self, token: bytes) -> None: ...
    def reload_policy(self, text: str, source: str, format: str, token: bytes) -> list[str]: ...
    def template(self, imports: list[str], setup: str, backend: str = "process") -> Template: ...
    def list_active(self) -> list[str]: ...
    @property
    def pool_ready(self) -> int: ...
    def shutdown(self) -> None: ...

@final
class Template:
    """What has imported modules or run set-up code, and cells start from: a process, or a snapshot.

    `Supervisor.template` makes them. Forgotten, it ends, and its cells with it.
    """

    @property
    def alive(self) -> bool:
        """Whether cells can be spawned from it."""

@final
class Policy:
    """Rules and limits. `pyisolate.Policy` is the public face."""

    def __new__(cls) -> Self: ...
    @staticmethod
    def from_text(text: str, source: str, format: str, cell: str | None = None) -> Policy: ...
    @staticmethod
    def template(name: str) -> Policy: ...
    def with_rules(self, effect: str, rules: Sequence[tuple[str, Mapping[str, Any]]]) -> Policy: ...
    def extended(self, more: Policy) -> Policy: ...
    def rules(self) -> list[tuple[Literal["allow", "deny"], str, dict[str, Any]]]: ...
    def limits(self) -> dict[str, float]: ...
    def to_yaml(self) -> str: ...
    def to_toml(self) -> str: ...
    def to_json(self) -> str: ...
    def allows(self, verb: str, target: Sequence[str]) -> bool: ...
    def explain(
        self, verb: str, target: Sequence[str]
    ) -> tuple[bool, str, str | None, str | None, str, tuple[str, ...], str | None, str | None]: ...
    def diff(
        self, new: Policy
    ) -> tuple[
        list[tuple[str, str, str]], list[tuple[str, str, str]], list[tuple[str, int, int]], str
    ]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def before_fork() -> None: ...
def after_fork_in_parent() -> None: ...
def after_fork_in_child() -> None: ...
def end() -> None:
    """End every supervisor; from here on no handler of the host's is called. For `atexit`."""

def checked(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check an authority's fields; returns them in their one spelling."""

def split_address(address: str) -> tuple[str, int | tuple[int, int]]:
    """Split `host:port`, `host:first-last`, `host:*` or `[address]:port`."""

def run_command(arguments: list[str], environment: str) -> int:
    """Run the `pyisolate` command; returns its exit status."""
