"""All attacks, by class and place."""

import dataclasses
import functools
from collections.abc import Sequence

from pyisolate.attack.asking import (
    Clones,
    Elsewhere,
    Files,
    Nothing,
    Programs,
    Worker,
)
from pyisolate.attack.case import Attack, Trial, of_class
from pyisolate.attack.cases import (
    broker_files,
    broker_network,
    broker_programs,
    clones,
    empty,
    families,
    files,
    interpreter,
    interpreter_python,
    kernel,
    memory,
    mounts,
    names,
    network,
    outlive,
    processes,
    thread,
    worker,
)
from pyisolate.attack.places import BackendName, Ends, Place, Shared, Thread, Wall


@dataclasses.dataclass(frozen=True)
class Case:
    """One case: a class, a name of its own, and the trial that decides it."""

    kind: str
    name: str
    trial: Trial
    place: Place


CONTEXTS = {
    "another thread": "attempt_in_thread",
    "__del__": "attempt_in_finalizer",
    "weakref.finalize": "attempt_when_collected",
    "after limits": "attempt_after_limits",
}
"""From where, and after what, attacks are made besides the main thread."""

WALL = Wall()


def _in_contexts(attacks: Sequence[Attack]) -> list[Attack]:
    return [
        dataclasses.replace(attack, name=f"{attack.name} [{context}]", runner=runner)
        for context, runner in CONTEXTS.items()
        for attack in attacks
        if not (attack.lone and context == "another thread")
    ]


WALL_ATTACKS = [
    *of_class("names", names.ATTACKS),
    *of_class("memory", memory.ATTACKS),
    *of_class(
        "files", files.READING + files.LISTING + files.LOOKING + files.WRITING + files.KERNEL
    ),
    *of_class("egress", network.ATTACKS),
    *of_class("later", files.OWN_TREE),
    *of_class("processes", processes.ATTACKS),
    *of_class("calls", kernel.MOUNTING + kernel.NAMESPACES + kernel.RARE),
    *of_class("rights", kernel.IDENTITY + kernel.LIMITS + kernel.MEMORY),
]
"""Each way out of a cell, from the main thread."""


@functools.cache
def trials() -> tuple[tuple[Place, tuple[Trial, ...]], ...]:
    """Every trial, by the place where it is run."""
    return (
        (WALL, (*WALL_ATTACKS, *_in_contexts(WALL_ATTACKS), *families.FAMILIES, *mounts.FAMILIES)),
        (Elsewhere(), tuple(broker_network.TRIALS)),
        (Files(), tuple(broker_files.TRIALS)),
        (Programs(), tuple(broker_programs.TRIALS)),
        (Worker(), (*worker.WORDS_SENT, *worker.PICKLES_SENT)),
        (Clones(), tuple(clones.TRIALS)),
        (Nothing(), tuple(empty.TRIALS)),
        (Ends(), tuple(outlive.SURVIVING)),
        (Thread(), tuple(of_class("shared", thread.ATTACKS))),
        (Shared(), (*interpreter.ATTACKS, *interpreter_python.ATTACKS)),
    )


@functools.cache
def cases(backend: BackendName) -> tuple[Case, ...]:
    """Every case for a backend, in the order in which they run. Their names are unique."""
    return tuple(
        Case(trial.kind, name, trial, place)
        for place, group in trials()
        if backend in place.backends
        for trial in group
        for name in trial.cases
    )
