"""What a host is told beside the messages of its guests."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class DenialEvent:
    """A request that was refused."""

    cell: str
    """The cell's name."""
    capability: str
    """The capability that was asked for."""
    attempted_action: str
    """What was to be done with it."""
    target: str = ""
    """What it was aimed at, for people: `read /etc/passwd`. Empty if it was never understood."""
    rule: str = "no rule matched"
    """Where the rule that refused was written, as `policy.yml:7`, or `no rule matched`."""
    layer: str = "policy"
    """Who decided: `policy`, `broker` (no grant could allow it) or `kernel`."""
    grant: str | None = None
    """The smallest grant that would allow it, as policy text; `None` if there is none."""
    reason: str = ""
    """Why it was refused, as the guest was told."""
    at_s: float = 0.0
    """When, in seconds from the cell's start."""

    @property
    def policy_rule(self) -> str:
        """The older name of `rule`."""
        return self.rule

    @property
    def kernel_decision(self) -> Literal["denied"] | None:
        """`denied` if the kernel refused it, past the broker."""
        return "denied" if self.layer == "kernel" else None

    @property
    def broker_decision(self) -> Literal["denied"] | None:
        """`denied` if the policy or the broker refused it."""
        return None if self.layer == "kernel" else "denied"
