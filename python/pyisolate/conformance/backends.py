"""What each backend offers beside the contract: the one place that a new backend is added to."""

from dataclasses import dataclass

from pyisolate._supervisor import BackendMode

FEATURES = {
    "threads": "guest code can start threads",
    "numpy": "numpy can be imported, and its arrays cross",
    "programs": "the subprocess capability runs programs of the host's",
    "own process": "guest code can end the process or signal it, and ends only its cell",
    "descriptor table": "open_files_max bounds descriptors that belong to the cell alone",
}
"""What a program may need, and what it means that a backend offers it."""


@dataclass(frozen=True)
class Backend:
    """A backend that the suite can run against."""

    name: BackendMode
    offers: frozenset[str]
    ready: int = 0
    """Cells that each runner keeps ready, where one takes longer to make than a program to run."""


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("process", frozenset(FEATURES)),
        # One interpreter among others in the host's process, on one thread of its own.
        Backend("subinterpreter", frozenset()),
        Backend("microvm", frozenset(FEATURES), ready=1),
    )
}
