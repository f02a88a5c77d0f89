"""Cells are clones of one process: whatever was random in it must not be the same in each."""

import dataclasses

from pyisolate.attack.case import Attempt, Fate, Finding, Trial

DRAWS = {
    "random.random": "random.random()",
    "random.getrandbits": "random.getrandbits(128)",
    "random.randbytes": "random.randbytes(16)",
    "random.sample": "random.sample(range(1 << 60), 3)",
    "random.gauss": "random.gauss(0, 1)",
    "random.choices": "random.choices(range(1 << 60), k=3)",
    "the state of random": "hash(random.getstate())",
}
_FORKED = """
import random
random.random()
drawn = []
for _ in range(2):
    inlet, outlet = os.pipe()
    if (child := libc("fork")) == 0:  # past what Python does after a fork
        os.write(outlet, repr({draw}).encode())
        os._exit(0)
    os.waitpid(child, 0)
    drawn.append(os.read(inlet, 4096).decode())
post(drawn)
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Twins(Trial):
    """What several cells draw, each by itself."""

    name: str
    draw: str
    templated: bool = False
    """Whether the cells come of a template that had drawn before."""
    kind: str = "clones"

    @property
    def unfit(self) -> dict[str, str]:
        """Where there are no templates."""
        if self.templated:
            return {"subinterpreter": "templates are of the process backend"}
        return {}

    def attempt(self) -> Attempt:
        """What one cell draws."""
        return Attempt(self.name, f"import random\npost(repr({self.draw}))\n")

    def control(self) -> Attempt:
        """What two forks of one process draw."""
        return Attempt(self.name, _FORKED.replace("{draw}", self.draw))

    def confined(self, fate: Fate, token: str, backend: str) -> dict[str, Finding]:
        """No two drew the same."""
        drawn = fate.posted
        if not isinstance(drawn, list) or len(drawn) < 2:
            return {self.name: Finding("odd", fate.error or "nothing was drawn")}
        if len(set(drawn)) < len(drawn):
            return {self.name: Finding("reached", f"cells drew the same: {drawn}")}
        return {self.name: Finding("refused", f"{len(drawn)} cells drew different values")}

    def bare(self, fate: Fate, token: str) -> dict[str, Finding]:
        """Both drew the same."""
        if fate.lacking:
            return {self.name: Finding("lacking", fate.lacking)}
        drawn = fate.posted
        if isinstance(drawn, list) and len(drawn) == 2 and drawn[0] == drawn[1]:
            return {self.name: Finding("reached", "two forks drew the same")}
        return {self.name: Finding("odd", f"{drawn!r}: {fate.error}")}


TRIALS = [
    Twins(f"clones{of}: {name}", draw, templated)
    for of, templated in (("", False), (" of a template", True))
    for name, draw in DRAWS.items()
]
