"""All programs of the suite."""

from pyisolate.conformance.program import Program
from pyisolate.conformance.programs import GROUPS


def programs() -> list[Program]:
    """Every program, in the order in which they run. Their names are unique."""
    return [program for group in GROUPS for program in group.programs]
