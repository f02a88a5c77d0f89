"""Run Python that you do not trust.

A *cell* holds guest code behind a wall that the caller names. Seven operations cross it and no
more; every privilege is a capability that the host answers for.

    import pyisolate

    with pyisolate.spawn("demo", allowed_imports=["math"]) as cell:
        print(cell.call("math.sqrt", 2))
"""

from pyisolate._core import Cell, ExecHandle, Layer, Stats, Template, __version__
from pyisolate._supervisor import (
    DEFAULT_BACKEND,
    SUPPORTED_BACKENDS,
    BackendMode,
    Supervisor,
    list_active,
    shutdown,
    spawn,
)
from pyisolate.errors import (
    CellDied,
    ChildWorkExceeded,
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
from pyisolate.runtime.protocol import LogEvent, MetricEvent

Sandbox = Cell
"""The older name of `Cell`."""

__all__ = [
    "DEFAULT_BACKEND",
    "SUPPORTED_BACKENDS",
    "BackendMode",
    "CPUExceeded",
    "Cell",
    "CellDied",
    "ChildWorkExceeded",
    "DenialEvent",
    "ExecHandle",
    "GuestError",
    "Layer",
    "LimitExceeded",
    "LogEvent",
    "MemoryExceeded",
    "MetricEvent",
    "NetworkExceeded",
    "OpenFilesExceeded",
    "OutputExceeded",
    "PolicyAuthError",
    "PolicyError",
    "ProtocolViolation",
    "Sandbox",
    "SandboxError",
    "Stats",
    "Supervisor",
    "Template",
    "TimeoutError",
    "WallTimeExceeded",
    "__version__",
    "list_active",
    "shutdown",
    "spawn",
]
