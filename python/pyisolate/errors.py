"""What can go wrong.

    SandboxError
    ├── PolicyError            the policy does not allow it
    │   └── PolicyAuthError    the token for changing the policy is wrong
    ├── TimeoutError           the time that the caller gave is over; the cell goes on
    ├── GuestError             guest code raised
    ├── ConfinementError       a layer that `require` names does not hold on this host
    ├── CellDied               the cell is gone
    │   ├── ProtocolViolation  it sent what no cell sends, and was killed
    │   └── LimitExceeded      it used up a limit, and was killed
    │       ├── WallTimeExceeded, CPUExceeded, MemoryExceeded, OutputExceeded
    │       └── OpenFilesExceeded, NetworkExceeded, ChildWorkExceeded

Every message says what to do next.
"""

import builtins

from pyisolate._core import Layer
from pyisolate.events import DenialEvent


class SandboxError(Exception):
    """The root of everything that this package raises by itself."""


class _FromGuest(SandboxError):
    """An exception that was raised by guest code. All three texts are the guest's own words."""

    type: str = ""
    """The exception's type, with its module unless that is `builtins`."""
    message: str = ""
    """`str(exception)`"""
    traceback: str = ""
    """The formatted traceback: guest frames only."""


class GuestError(_FromGuest):
    """Guest code raised. The cell goes on."""


class PolicyError(_FromGuest):
    """The policy does not allow it, and the message names what to grant; or it is no policy, and
    the message says where and why. Every cell goes on."""

    denial_event: DenialEvent | None = None
    """The request that was refused, where the guest let that error through."""


class PolicyAuthError(PolicyError):
    """The token for changing the policy is wrong."""


class ConfinementError(SandboxError):
    """A layer that `require` names does not hold, and no guest code ran. The message says why, and
    how to get it."""

    layers: tuple[Layer, ...] = ()
    """The layers that are lacking."""


class TimeoutError(SandboxError, builtins.TimeoutError):
    """The time that the caller gave is over. The cell goes on with what it was doing."""


class CellDied(SandboxError):
    """The cell is gone; what it sent before can still be received."""


class ProtocolViolation(CellDied):
    """The cell sent what no cell sends, and was killed."""


class LimitExceeded(CellDied):
    """The cell used up a limit, and was killed."""

    limit: str = ""
    """The limit, by its keyword in `spawn`."""
    allowed: float = 0
    """The limit's value, in the unit of its keyword."""
    reached: float | None = None
    """What was reached when the host looked; `None` where the kernel refused the excess first."""


class WallTimeExceeded(LimitExceeded):
    """An operation took longer than `wall_time_ms`."""


class CPUExceeded(LimitExceeded):
    """The cell used more CPU time than `cpu_ms`."""


class MemoryExceeded(LimitExceeded):
    """The cell wanted more memory than `mem_bytes`."""


class OutputExceeded(LimitExceeded):
    """The cell printed and logged more than `output_bytes_max`."""


class OpenFilesExceeded(LimitExceeded):
    """The cell wanted more descriptors than `open_files_max`."""


class NetworkExceeded(LimitExceeded):
    """The cell used more of the network than it may."""


class ChildWorkExceeded(LimitExceeded):
    """The cell wanted more threads than `child_work_max`."""
