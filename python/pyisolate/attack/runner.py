"""Runs cases in cells and without the wall, and says what each shows."""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Literal, Self

from pyisolate.attack.case import Fate, Finding, Trial
from pyisolate.attack.places import BackendName, Place, Stage, batches
from pyisolate.attack.suite import Case
from pyisolate.errors import SandboxError

type Verdict = Literal["held", "leaked", "not applicable", "unexpected"]
VERDICTS: tuple[Verdict, ...] = ("held", "leaked", "not applicable", "unexpected")


@dataclasses.dataclass(frozen=True)
class Result:
    """What one case shows on this host."""

    case: Case
    verdict: Verdict
    told: str
    """How that was seen."""
    confined: Finding
    control: Finding | None
    """None where no control was run."""


def judge(confined: Finding, control: Finding | None) -> tuple[Verdict, str]:
    """What two runs of a case show together."""
    match confined.how:
        case "reached":
            return "leaked", confined.told
        case "odd":
            return "unexpected", confined.told
        case "lacking":
            return "not applicable", confined.told
    if control is None or control.how == "reached":
        return "held", confined.told
    if control.how == "lacking":
        return "not applicable", control.told
    return "not applicable", f"it does not work here without the wall either: {control.told}"


class Runner:
    """One backend, and a stage for all cases.

    Raises `pyisolate.SandboxError` if this host cannot make a cell of that backend.
    """

    def __init__(self, backend: BackendName, *, controls: bool = True) -> None:
        self.controls = controls
        self.stage = Stage(backend)
        self._pool = concurrent.futures.ThreadPoolExecutor(1)

    def run(self, cases: Iterable[Case]) -> Iterator[Result]:
        """Run cases, in their order; several at once."""
        for place, group in itertools.groupby(cases, lambda case: case.place):
            by_trial: dict[Trial, list[Case]] = {}
            for case in group:
                by_trial.setdefault(case.trial, []).append(case)
            for batch in batches(place, list(by_trial)):
                confined, bare = self._run_batch(place, batch)
                for case in (case for trial in batch for case in by_trial[trial]):
                    control = bare[case.name] if bare is not None else None
                    verdict, told = judge(confined[case.name], control)
                    yield Result(case, verdict, told, confined[case.name], control)

    def _run_batch(
        self, place: Place, trials: Sequence[Trial]
    ) -> tuple[dict[str, Finding], dict[str, Finding] | None]:
        stage = self.stage
        confined: dict[str, Finding] = {}
        without: dict[str, Finding] = {}
        fit = []
        for trial in trials:
            if reason := trial.unfit.get(stage.backend):
                unfit = dict.fromkeys(trial.cases, Finding("lacking", reason))
                confined |= unfit
                without |= unfit
            else:
                fit.append(trial)
        waits = self._pool.submit(place.bare, stage, fit) if self.controls else None
        try:
            fates = place.confined(stage, fit)
        except SandboxError as error:  # a supervisor that makes no more cells, for instance
            told = f"{type(error).__name__}: {error}"
            fates = {trial.name: Fate(error=told) for trial in fit}
        for trial in fit:
            confined |= trial.confined(fates[trial.name], stage.plant.token, stage.backend)
        if waits is None:
            return confined, None
        fates = waits.result()
        for trial in fit:
            without |= trial.bare(fates[trial.name], stage.spare.token)
        return confined, without

    def close(self) -> None:
        """End everything."""
        self._pool.shutdown()
        self.stage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
