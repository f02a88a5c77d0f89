"""Fixtures of the attacks."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import pyisolate
from conftest import require

from .harness import Hostile
from .plant import Plant


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """What the attacks aim at. Neither cells nor controls go without these features."""
    require("userns", "seccomp")
    with ExitStack() as stack:
        yield Plant(tmp_path_factory.mktemp("plant"), stack)


@pytest.fixture(scope="module")
def hostile(supervisor: pyisolate.Supervisor, plant: Plant) -> Iterator[Hostile]:
    """The cell that a module's attacks share."""
    shared = Hostile(supervisor, plant)
    yield shared
    shared.close()
