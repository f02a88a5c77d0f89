"""The minimal cell ABI: seven operations, version 1, frozen.

Everything that crosses the wall of a cell is one of these, whatever the backend. The names and
their order come from the Rust enumeration that both sides are built from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from pyisolate import _core

ABI_VERSION: int = _core.ABI_VERSION
"""The version of the contract. It changes only if an operation's meaning does."""

CellOp = StrEnum(  # type: ignore[misc]  # its members come from Rust
    "CellOp", [(name.upper(), name) for name in _core.OPERATIONS]
)
CellOp.__doc__ = "The name of an operation."


@dataclass(frozen=True, slots=True)
class CellABI:
    """A version of the contract."""

    version: int
    operations: tuple[CellOp, ...]

    def allows(self, operation: object) -> bool:
        """Whether `operation` (a `CellOp` or its name) is in the contract."""
        return isinstance(operation, str) and operation in self.operations


CELL_ABI: tuple[CellOp, ...] = tuple(CellOp)
"""The seven operations in their frozen order."""
CELL_ABI_NAMES: tuple[str, ...] = tuple(op.value for op in CELL_ABI)
"""Their names."""
MINIMAL_CELL_ABI = CellABI(ABI_VERSION, CELL_ABI)
"""The contract itself."""


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """`exec(source)`: run source text in the cell's persistent namespace."""

    op: ClassVar[CellOp] = CellOp("exec")
    source: str


@dataclass(frozen=True, slots=True)
class CallRequest:
    """`call(dotted_function, *args, **kwargs)`: call `module.func` inside the cell."""

    op: ClassVar[CellOp] = CellOp("call")
    target: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PostEvent:
    """`post(message)`: one message to the other side's channel."""

    op: ClassVar[CellOp] = CellOp("post")
    message: Any


@dataclass(frozen=True, slots=True)
class RecvRequest:
    """`recv(timeout=None)`: take the next item from the channel; `timeout` in seconds."""

    op: ClassVar[CellOp] = CellOp("recv")
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class LogEvent:
    """`log(level, message, **fields)`: a structured log event."""

    op: ClassVar[CellOp] = CellOp("log")
    level: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricEvent:
    """`metric(name, value, tags=None)`: a numeric metric event."""

    op: ClassVar[CellOp] = CellOp("metric")
    name: str
    value: float
    tags: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BrokerRequest:
    """`request(capability, action, payload=None)`: ask the broker for a privileged action."""

    op: ClassVar[CellOp] = CellOp("request")
    capability: str
    action: str
    payload: Any = None
