"""Fixtures of the attacks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import pyisolate
from conftest import require
from pyisolate.attack import Case, Result, Runner, cases
from pyisolate.attack.cells import Cells
from pyisolate.attack.places import BackendName
from pyisolate.attack.plant import Plant


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """What the attacks aim at. Neither cells nor controls go without these features."""
    require("userns", "seccomp")
    with ExitStack() as stack:
        yield Plant(tmp_path_factory.mktemp("plant"), stack)


@pytest.fixture(scope="module")
def hostile(supervisor: pyisolate.Supervisor, plant: Plant) -> Iterator[Cells]:
    """The cell that a module's attacks share."""
    shared = Cells(supervisor, plant)
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def result_of() -> Iterator[Callable[[BackendName, Case], Result]]:
    """What a case shows. A batch of cases is run at once, and each batch once."""
    require("userns", "seccomp")
    with ExitStack() as stack:
        runners: dict[BackendName, Runner] = {}
        results: dict[tuple[BackendName, str], Result] = {}

        def run(backend: BackendName, case: Case) -> Result:
            if backend not in runners:
                runners[backend] = stack.enter_context(Runner(backend))
            if (backend, case.name) not in results:
                near = [it for it in cases(backend) if it.place is case.place]
                trials = list(dict.fromkeys(it.trial for it in near))
                start = trials.index(case.trial) // case.place.batch * case.place.batch
                batch = set(trials[start : start + case.place.batch])
                for result in runners[backend].run([it for it in near if it.trial in batch]):
                    results[backend, result.case.name] = result
            return results[backend, case.name]

        yield run
