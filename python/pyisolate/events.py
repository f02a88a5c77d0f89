"""What a host is told beside the messages of its guests."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DenialEvent:
    """A request that was refused."""

    cell: str
    """The cell's name."""
    capability: str
    """The capability that was asked for."""
    attempted_action: str
    """What was to be done with it."""
    reason: str
    """Why it was refused."""
