"""Run Python that you do not trust.

A *cell* holds guest code behind a wall that the caller names. Seven operations cross it and no
more; every privilege is a capability that the host answers for.

    import pyisolate

    with pyisolate.spawn("demo", allowed_imports=["math"]) as cell:
        print(cell.call("math.sqrt", 2))
"""

from pyisolate._core import Cell, Confinement, ExecHandle, Layer, Stats, Template, __version__
from pyisolate._supervisor import (
    DEFAULT_BACKEND,
    SUPPORTED_BACKENDS,
    BackendMode,
    Supervisor,
    list_active,
    reload_policy,
    set_policy_token,
    shutdown,
    spawn,
)
from pyisolate._watch import PolicyWatch
from pyisolate.authorities import (
    Authority,
    AuthoritySet,
    Capability,
    Channel,
    Clock,
    Command,
    ConnectTCP,
    CpuBudget,
    Http,
    Import,
    Limit,
    Random,
    ReadPath,
    ReadWritePath,
    Resolve,
    Secret,
    WritePath,
)
from pyisolate.capabilities import (
    ClockCapability,
    FilesystemCapability,
    HostCapability,
    IPCChannelCapability,
    NetworkCapability,
    RandomCapability,
    SecretCapability,
    SubprocessCapability,
)
from pyisolate.errors import (
    CellDied,
    ChildWorkExceeded,
    ConfinementError,
    CPUExceeded,
    GuestError,
    LimitExceeded,
    MemoryExceeded,
    NetworkExceeded,
    OpenFilesExceeded,
    OutputExceeded,
    PolicyAuthError,
    PolicyError,
    ProtocolViolation,
    SandboxError,
    TimeoutError,
    WallTimeExceeded,
)
from pyisolate.events import DenialEvent
from pyisolate.policy import Difference, Explanation, Policy, resolve_policy
from pyisolate.runtime.protocol import LogEvent, MetricEvent

Sandbox = Cell
"""The older name of `Cell`."""

__all__ = [
    "DEFAULT_BACKEND",
    "SUPPORTED_BACKENDS",
    "Authority",
    "AuthoritySet",
    "BackendMode",
    "CPUExceeded",
    "Capability",
    "Cell",
    "CellDied",
    "Channel",
    "ChildWorkExceeded",
    "Clock",
    "ClockCapability",
    "Command",
    "Confinement",
    "ConfinementError",
    "ConnectTCP",
    "CpuBudget",
    "DenialEvent",
    "Difference",
    "ExecHandle",
    "Explanation",
    "FilesystemCapability",
    "GuestError",
    "HostCapability",
    "Http",
    "IPCChannelCapability",
    "Import",
    "Layer",
    "Limit",
    "LimitExceeded",
    "LogEvent",
    "MemoryExceeded",
    "MetricEvent",
    "NetworkCapability",
    "NetworkExceeded",
    "OpenFilesExceeded",
    "OutputExceeded",
    "Policy",
    "PolicyAuthError",
    "PolicyError",
    "PolicyWatch",
    "ProtocolViolation",
    "Random",
    "RandomCapability",
    "ReadPath",
    "ReadWritePath",
    "Resolve",
    "Sandbox",
    "SandboxError",
    "Secret",
    "SecretCapability",
    "Stats",
    "SubprocessCapability",
    "Supervisor",
    "Template",
    "TimeoutError",
    "WallTimeExceeded",
    "WritePath",
    "__version__",
    "list_active",
    "reload_policy",
    "resolve_policy",
    "set_policy_token",
    "shutdown",
    "spawn",
]
