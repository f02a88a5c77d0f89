"""Every case of every generated family, confined and not."""

import functools
from collections.abc import Callable

import pytest

from cells import assert_serves
from conftest import missing

from .families import FAMILIES, Family
from .harness import Hostile, run_control
from .plant import Plant

Answers = dict[str, str]


@pytest.fixture(scope="module")
def confined(hostile: Hostile, plant: Plant) -> Callable[[Family], Answers]:
    """The answers of a family in a cell. Each family is run once."""

    @functools.cache
    def run(family: Family) -> Answers:
        plant.restore()
        answers = hostile.run(family.source())
        plant.assert_untouched()
        assert hostile.cell.call("math.gcd", 12, 18) == 6
        assert_serves(hostile.supervisor)
        return answers

    return run


@pytest.fixture(scope="module")
def unconfined(plant: Plant) -> Callable[[Family], Answers]:
    """The answers of a family in its control. Each family is run once."""

    @functools.cache
    def run(family: Family) -> Answers:
        control = run_control(plant, family.source(control=True), privileged=family.privileged)
        assert control.exit_status == 0
        walled = [label for label, answer in control.outcome.items() if answer == family.answer]
        assert len(walled) <= len(control.outcome) // 4, "something else walls off the control"
        return control.outcome

    return run


CASES = [
    pytest.param(family, label, id=f"{family}: {label}")
    for family in FAMILIES
    for label in family.cases
]
CONTROLS = [
    pytest.param(family, label, id=f"{family}: {label}")
    for family in FAMILIES
    for label in family.cases
    if family.controlled is None or label in family.controlled
]


@pytest.mark.parametrize(("family", "label"), CASES)
def test_a_cell_is_refused(family: Family, label: str, confined: Callable[[Family], Answers]):
    """The wall answers."""
    assert confined(family)[label] == family.answer


@pytest.mark.parametrize(("family", "label"), CONTROLS)
def test_without_the_wall_something_else_answers(
    family: Family, label: str, unconfined: Callable[[Family], Answers]
):
    """What the cell was refused by is the wall and not the kernel behind it."""
    answer = unconfined(family)[label]
    if answer == family.answer:
        missing(f"{family}: {label}", f"this kernel answers {answer} to anybody")
