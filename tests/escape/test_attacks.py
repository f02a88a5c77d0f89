"""Every attack, confined and not."""

import pytest

from cells import assert_serves
from conftest import missing

from . import attacks_files, attacks_kernel, attacks_network, attacks_processes
from .harness import Attack, Hostile, run_control
from .plant import Plant

ATTACKS = [
    attack
    for group in (attacks_files, attacks_network, attacks_processes, attacks_kernel)
    for attack in group.ATTACKS
]


@pytest.fixture(autouse=True)
def _restored(plant: Plant):
    plant.restore()


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_cell_refuses(attack: Attack, hostile: Hostile, plant: Plant):
    """Refused as expected, from any thread; and the cell and its supervisor go on."""
    for runner in ("attempt", "attempt_in_thread"):
        outcome = hostile.run(attack.source(runner))
        assert outcome[0] == "refused", outcome
        assert outcome[1] in attack.refused.split(), outcome
    plant.assert_untouched()
    assert hostile.cell.termination_reason is None
    assert hostile.cell.call("math.gcd", 12, 18) == 6
    assert_serves(hostile.supervisor)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_it_works_without_the_wall(attack: Attack, plant: Plant):
    """The same text succeeds in the control, so that the case is not empty."""
    control = run_control(
        plant,
        attack.source(),
        privileged=attack.privileged,
        fresh_root=attack.fresh_root,
        kills=attack.kills,
    )
    outcome = control.outcome
    if outcome and outcome[0] == "refused" and outcome[1] in attack.lacking.split():
        missing(attack.name, f"this kernel answers {outcome[1]} to anybody: {outcome[2]}")
    if not control.has_proc and "/proc" in attack.body:
        missing("proc", "this container hides parts of /proc, so that no new one may be mounted")
    assert control.exit_status == (attack.exits or 0), control
    if attack.exits is None:
        assert outcome[0] == "done", outcome
    if attack.loot:
        assert outcome[1] == plant.token
    assert control.canary_died == attack.kills
