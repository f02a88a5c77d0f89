"""`pyisolate conformance`: the suite on the command line."""

import argparse
import fnmatch
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pyisolate.conformance import recorded
from pyisolate.conformance.backends import BACKENDS, FEATURES
from pyisolate.conformance.program import Program
from pyisolate.conformance.runner import Outcome, Runners
from pyisolate.conformance.suite import programs
from pyisolate.errors import SandboxError

SAME, DIFFERENT, USAGE, NO_CELL, INTERRUPTED, UNREAD = 0, 1, 2, 6, 130, 141
"""Exit statuses; from 2 on they mean what they mean for `pyisolate run`."""

_ABOUT = """\
Show on this host that a backend keeps the contract: several hundred small programs drive the seven
operations, and what the host sees must be, byte for byte, what is recorded for every backend.
"""
_MORE = """\
examples:
  pyisolate conformance
  pyisolate conformance --backend process -k 'values/*' --json
  PYISOLATE_MICROVM_ACCEL=tcg pyisolate conformance --backend microvm
  pyisolate conformance --transcripts before; pyisolate conformance --list

exit status:
  0    every program that applies gave the recorded transcript
  1    one did not; the difference is printed
  2    the command line makes no sense, or a file cannot be read or written
  6    this machine cannot make a cell of that backend
  130  Ctrl-C
  141  nobody reads stdout any more
"""


def _flags() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="pyisolate conformance",
        description=_ABOUT,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument(
        "--backend",
        metavar="NAME",
        choices=list(BACKENDS),
        default="process",
        help=f"where the wall stands: {', '.join(BACKENDS)}; without it, process",
    )
    flags.add_argument(
        "-k",
        dest="pattern",
        metavar="PATTERN",
        default="",
        help="only programs whose name has this in it; * and ? stand for anything",
    )
    flags.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        default=0,
        help="programs at once; without it one, and one for each CPU where cells are machines",
    )
    flags.add_argument("--list", action="store_true", help="print the programs' names, run nothing")
    flags.add_argument("--json", action="store_true", help="print a line of JSON for each program")
    flags.add_argument(
        "--transcripts",
        metavar="DIR",
        type=Path,
        help="write each transcript there, as PROMISE/NAME.txt",
    )
    flags.add_argument(
        "--expected",
        metavar="FILE",
        type=Path,
        help="compare with this recording instead of the one that comes with the suite",
    )
    flags.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="compare with nothing: write what the programs gave to this file",
    )
    return flags


def main(words: Sequence[str]) -> int:
    """Run the command with these words; returns its exit status."""
    flags = _flags()
    try:
        asked = flags.parse_args(words)
    except SystemExit as end:  # the help, or a line that makes no sense; both were printed
        return end.code if isinstance(end.code, int) else USAGE
    chosen = [one for one in programs() if fnmatch.fnmatchcase(one.name, f"*{asked.pattern}*")]
    if not chosen:
        return _complain(USAGE, f"no program's name has {asked.pattern!r} in it; see --list")
    if asked.jobs < 0:
        return _complain(USAGE, f"--jobs {asked.jobs} is below 1")
    if asked.record and asked.pattern:
        return _complain(USAGE, "--record writes the whole file: leave out -k")
    try:
        return _do(chosen, asked)
    except BrokenPipeError:
        # Nobody reads stdout any more, so the interpreter's last flush has to go elsewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except (OSError, ValueError) as error:
        return _complain(USAGE, str(error))
    except SandboxError as error:
        return _complain(NO_CELL, f"no cell can be made with backend={asked.backend!r}: {error}")
    except KeyboardInterrupt:
        return INTERRUPTED


def _do(chosen: list[Program], asked: argparse.Namespace) -> int:
    if asked.list:
        _list(chosen, asked.json)
        return SAME
    # A recording that is being replaced need not be there.
    expected = {} if asked.record else _expected(asked.expected)
    ready = BACKENDS[asked.backend].ready
    jobs = asked.jobs or (os.process_cpu_count() if ready else None) or 1
    with Runners(asked.backend, expected, jobs) as runners:
        return _run(runners, chosen, asked)


def _complain(status: int, message: str) -> int:
    print(f"pyisolate conformance: {message}", file=sys.stderr)
    return status


def _expected(path: Path | None) -> dict[str, str]:
    return recorded.load(None if path is None else path.read_text(encoding="utf-8"))


def _list(chosen: list[Program], as_json: bool) -> None:
    for program in chosen:
        needs = sorted(program.needs)
        if as_json:
            print(json.dumps({"program": program.name, "needs": needs}))
        else:
            print(program.name + (f"  (needs {', '.join(needs)})" if needs else ""))


def _run(runners: Runners, chosen: list[Program], asked: argparse.Namespace) -> int:
    """Run the chosen programs; returns the exit status."""
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    given: dict[str, str] = {}
    shows_progress = sys.stderr.isatty() and not asked.json
    started = [runners.start(program) for program in chosen]
    for number, (program, running) in enumerate(zip(chosen, started, strict=True), 1):
        if shows_progress:
            print(f"\r\x1b[K{number}/{len(chosen)} {program.name}", end="", file=sys.stderr)
        outcome = running.result()
        counts[outcome.verdict] += 1
        if outcome.verdict != "not applicable":
            given[program.name] = outcome.transcript
        if asked.transcripts and outcome.transcript:
            _write(asked.transcripts, outcome)
        if asked.json:
            _print_json(outcome)
        elif not asked.record:
            if shows_progress:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            _print(outcome)
    if shows_progress:
        print("\r\x1b[K", end="", file=sys.stderr)
    if asked.record:
        recorded.save(asked.record, given)
        _say(f"{len(given)} transcripts are in {asked.record}", asked.json)
        return SAME
    _print_end(runners.backend.name, counts, time.monotonic() - begun, asked.json)
    return DIFFERENT if counts["different"] else SAME


def _write(folder: Path, outcome: Outcome) -> None:
    path = folder / f"{outcome.program}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(outcome.transcript, encoding="utf-8")


def _print(outcome: Outcome) -> None:
    if outcome.verdict == "different":
        print(f"DIFFERENT {outcome.program}\n{outcome.diff()}", flush=True)
    elif outcome.verdict == "not applicable":
        lacking = "; ".join(f"{name}: {FEATURES[name]}" for name in outcome.missing)
        print(f"not applicable: {outcome.program} (needs {lacking})")


def _print_json(outcome: Outcome) -> None:
    line: dict[str, object] = {"program": outcome.program, "verdict": outcome.verdict}
    if outcome.verdict == "not applicable":
        line["missing"] = outcome.missing
    else:
        line["sha256"] = outcome.sha256
    if outcome.verdict == "different":
        line["diff"] = outcome.diff()
    print(json.dumps(line), flush=True)


def _print_end(backend: str, counts: Counter[str], seconds: float, as_json: bool) -> None:
    verdicts = ("same", "different", "not applicable")
    if as_json:
        numbers = {verdict: counts[verdict] for verdict in verdicts}
        print(json.dumps({"backend": backend, **numbers, "seconds": round(seconds, 1)}))
        return
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in verdicts)
    print(f"{backend}: {told}; {seconds:.1f} s")


def _say(line: str, as_json: bool) -> None:
    print(line, file=sys.stderr if as_json else sys.stdout)
