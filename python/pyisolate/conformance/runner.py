"""Runs programs against one backend, and compares what they gave."""

import difflib
import logging
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Literal, Self

import pyisolate
from pyisolate.conformance.backends import BACKENDS
from pyisolate.conformance.host import TOKEN, Host
from pyisolate.conformance.program import Program
from pyisolate.conformance.recorded import digest

TIMEOUT_S = 60.0
"""How long one program may take, in seconds. Each takes far less; its steps have shorter ends."""
GRACE_S = 10.0
"""How long a program that was stopped may take to notice, in seconds."""

type Verdict = Literal["same", "different", "not applicable"]


@dataclass(frozen=True)
class Outcome:
    """What became of one program."""

    program: str
    verdict: Verdict
    transcript: str = ""
    recorded: str = ""
    missing: tuple[str, ...] = field(default=())
    """Why it is not applicable: what the backend does not offer."""

    @property
    def sha256(self) -> str:
        """The canonical hash of the transcript."""
        return digest(self.transcript)

    def diff(self) -> str:
        """How the transcript differs from the recorded one."""
        lines = difflib.unified_diff(
            self.recorded.splitlines(keepends=True),
            self.transcript.splitlines(keepends=True),
            f"recorded {self.program}",
            f"now {self.program}",
        )
        return "".join(lines)


class Runner:
    """One backend, and a supervisor for all programs.

    Raises `pyisolate.SandboxError` if this host cannot make a cell of that backend.
    """

    def __init__(self, backend: str, recorded: Mapping[str, str]) -> None:
        self.backend = BACKENDS[backend]
        self.recorded = recorded
        # What the supervisor logs for people is no part of a transcript.
        logging.getLogger("pyisolate").addHandler(logging.NullHandler())
        self.supervisor = pyisolate.Supervisor(
            self.backend.ready, backend=self.backend.name, policy_token=TOKEN
        )
        try:
            self.supervisor.spawn("probe").kill()
        except BaseException:
            self.supervisor.shutdown()
            raise

    def run(self, program: Program) -> Outcome:
        """Run one program and compare its transcript with the recorded one."""
        missing = tuple(sorted(program.needs - self.backend.offers))
        if missing:
            return Outcome(program.name, "not applicable", missing=missing)
        transcript = self.transcript(program)
        # A program that was never recorded has nothing that it could be the same as.
        recorded = self.recorded.get(program.name, "")
        verdict: Verdict = "same" if transcript == recorded else "different"
        return Outcome(program.name, verdict, transcript, recorded)

    def transcript(self, program: Program) -> str:
        """Run one program to its end, which comes in any case."""
        with tempfile.TemporaryDirectory(prefix="pyisolate-conformance-") as name:
            host = Host(self.supervisor, self.backend.name, Path(name).resolve())
            trouble: list[str] = []
            thread = threading.Thread(target=_drive, args=(program, host, trouble), daemon=True)
            thread.start()
            thread.join(TIMEOUT_S)
            if thread.is_alive():
                trouble.append(f"the program did not end in {TIMEOUT_S:g} s\n")
                host.end(kill=True)  # wakes every wait of the program
                thread.join(GRACE_S)
            return host.transcript + "".join(trouble[:1])

    def close(self) -> None:
        """End the supervisor."""
        self.supervisor.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Runners:
    """Several runners of one backend, for as many programs at once.

    Raises `pyisolate.SandboxError` if this host cannot make a cell of that backend.
    """

    def __init__(self, backend: str, recorded: Mapping[str, str], jobs: int) -> None:
        self.backend = BACKENDS[backend]
        self._idle: SimpleQueue[Runner] = SimpleQueue()
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="pyisolate-conformance")
        with ExitStack() as made:
            for _ in range(jobs):
                self._idle.put(made.enter_context(Runner(backend, recorded)))
            self._runners = made.pop_all()

    def start(self, program: Program) -> Future[Outcome]:
        """Have a program run once a runner is free. Programs start in the order of the calls."""
        return self._threads.submit(self._run, program)

    def _run(self, program: Program) -> Outcome:
        runner = self._idle.get()
        try:
            return runner.run(program)
        finally:
            self._idle.put(runner)

    def close(self) -> None:
        """Start no further program, wait for those that run, and end the supervisors."""
        self._threads.shutdown(cancel_futures=True)
        self._runners.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _drive(program: Program, host: Host, trouble: list[str]) -> None:
    """The thread of one program."""
    try:
        program.steps(host)
    except Exception as error:
        # A step that a program did not expect to fail. Its words help whoever reads the diff.
        trouble.append(f"the program stopped: {type(error).__name__}: {error}\n")
    try:
        host.end()
    except pyisolate.SandboxError as error:
        trouble.append(f"a cell could not be ended: {error}\n")
