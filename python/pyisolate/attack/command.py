"""`pyisolate attack`: the attack suite on the command line."""

import argparse
import fnmatch
import json
import os
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from pyisolate._supervisor import SUPPORTED_BACKENDS, BackendMode
from pyisolate.attack.classes import CLASSES
from pyisolate.attack.places import BackendName
from pyisolate.attack.runner import VERDICTS, Result, Runner
from pyisolate.attack.suite import Case, cases
from pyisolate.errors import SandboxError

HELD, BROKEN, USAGE, NO_CELL, INTERRUPTED, UNREAD = 0, 1, 2, 6, 130, 141
"""Exit statuses; from 2 on they mean what they mean for `pyisolate run`."""
_NAMED = 20
"""So many cases that are not applicable for one reason are counted, and the first few named."""

_ABOUT = """\
Attack cells of a backend on this host, and show what held. Each case is run twice: in a cell,
which has to refuse it in the way that is expected, and as a control, the same text without the
wall, where it has to succeed; so no case passes because it is empty.

Everything is harmless by construction: attacks aim at a planted file, at listeners on loopback and
at a process that waits to be killed; controls run in user, pid, mount, ipc, uts and network
namespaces that are thrown away, with every file of the host read-only. No root is needed.
"""
_MORE = """\
what is told of a case:
  held            refused as expected in the cell, and its control succeeded
  leaked          it got through: what it took or changed is printed
  unexpected      an error, a hang or a death that the case does not expect; it may be a leak
  not applicable  it proves nothing here: the reason is told, such as a control that fails

examples:
  pyisolate attack
  pyisolate attack --backend subinterpreter
  pyisolate attack --class egress --class calls
  pyisolate attack -k 'read: *' --json
  pyisolate attack --list

exit status:
  0    nothing leaked, and nothing unexpected happened
  1    a case leaked, or ended in a way that nobody expects
  2    the command line makes no sense
  6    this machine cannot make a cell of that backend, or nothing that attacks aim at
  130  Ctrl-C
  141  nobody reads stdout any more
"""
_WITHOUT = """\
NO CONTROLS WERE RUN (--no-controls). "held" below says only that an attack failed, not that it
could have succeeded: an attack that does not work on this host at all is held, too.
"""


def _flags() -> argparse.ArgumentParser:
    width = max(map(len, CLASSES))
    listed = "\n".join(
        textwrap.fill(
            text,
            width=96,
            initial_indent=f"  {name:{width}}  ",
            subsequent_indent=" " * (width + 4),
        )
        for name, text in CLASSES.items()
    )
    flags = argparse.ArgumentParser(
        prog="pyisolate attack",
        description=_ABOUT,
        epilog=f"classes:\n{listed}\n\n{_MORE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument(
        "--backend",
        metavar="NAME",
        # `none` is no backend: it shows that the suite tells of attacks that succeed.
        choices=[*SUPPORTED_BACKENDS, "none"],
        default="process",
        help=f"whose cells: {', '.join(get_args(BackendMode))}; without it, process",
    )
    flags.add_argument(
        "-k",
        dest="pattern",
        metavar="PATTERN",
        default="",
        help="only cases whose name has this in it; * and ? stand for anything",
    )
    flags.add_argument(
        "--class",
        dest="kinds",
        metavar="NAME",
        action="append",
        choices=list(CLASSES),
        help="only cases of this class; may be given more than once",
    )
    flags.add_argument("--list", action="store_true", help="print the cases' names, run nothing")
    flags.add_argument("--json", action="store_true", help="print a line of JSON for each case")
    flags.add_argument(
        "--no-controls",
        action="store_true",
        help="run no controls: quicker, and proves less; the result says so",
    )
    return flags


def main(words: Sequence[str]) -> int:
    """Run the command with these words; returns its exit status."""
    flags = _flags()
    try:
        asked = flags.parse_args(words)
    except SystemExit as end:  # the help, or a line that makes no sense; both were printed
        return end.code if isinstance(end.code, int) else USAGE
    backend: BackendName = asked.backend
    chosen = [
        case
        for case in cases(backend)
        if (asked.kinds is None or case.kind in asked.kinds)
        and fnmatch.fnmatchcase(case.name, f"*{_escaped(asked.pattern)}*")
    ]
    if not chosen:
        return _complain(USAGE, f"no case for {backend} is what you asked for; see --list")
    try:
        if asked.list:
            _list(chosen, asked.json)
            return HELD
        # Whoever is stopped takes its processes with it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with Runner(backend, controls=not asked.no_controls) as runner:
            return _run(runner, chosen, asked)
    except BrokenPipeError:
        # Nobody reads stdout any more, so the interpreter's last flush has to go elsewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except (SandboxError, OSError) as error:
        return _complain(NO_CELL, f"nothing can be attacked with backend={backend!r}: {error}")
    except KeyboardInterrupt:
        return INTERRUPTED


def _escaped(pattern: str) -> str:
    # Names have brackets in them, which are no pattern.
    return pattern.replace("[", "[[]")


def _complain(status: int, message: str) -> int:
    print(f"pyisolate attack: {message}", file=sys.stderr)
    return status


def _list(chosen: Sequence[Case], as_json: bool) -> None:
    for case in chosen:
        if as_json:
            print(json.dumps({"case": case.name, "class": case.kind}))
        else:
            print(f"{case.kind:10} {case.name}")


def _run(runner: Runner, chosen: Sequence[Case], asked: argparse.Namespace) -> int:
    """Run the chosen cases; returns the exit status."""
    begun = time.monotonic()
    results: list[Result] = []
    shows_progress = sys.stderr.isatty() and not asked.json
    if asked.no_controls:
        print(_WITHOUT, file=sys.stderr if asked.json else sys.stdout)
    for result in runner.run(chosen):
        results.append(result)
        if asked.json:
            _print_json(result)
        elif shows_progress:
            line = f"{len(results)}/{len(chosen)} {result.case.kind}: {result.case.name}"
            print(f"\r\x1b[K{line[:100]}", end="", file=sys.stderr, flush=True)
    if shows_progress:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    counts = Counter(result.verdict for result in results)
    seconds = round(time.monotonic() - begun, 1)
    if asked.json:
        end: dict[str, object] = {"backend": asked.backend, "controls": not asked.no_controls}
        end |= {verdict: counts[verdict] for verdict in VERDICTS}
        print(json.dumps({**end, "seconds": seconds}))
    else:
        _print_table(results)
        _print_reasons(results)
        told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
        print(f"\n{asked.backend}: {len(results)} cases: {told}; {seconds} s")
        if asked.no_controls:
            print(f"\n{_WITHOUT}", end="")
    return BROKEN if counts["leaked"] or counts["unexpected"] else HELD


def _print_json(result: Result) -> None:
    line = {
        "case": result.case.name,
        "class": result.case.kind,
        "verdict": result.verdict,
        "told": result.told,
        "control": result.control.told if result.control else None,
    }
    print(json.dumps(line), flush=True)


def _print_table(results: Sequence[Result]) -> None:
    counts = Counter((result.case.kind, result.verdict) for result in results)
    print(f"{'class':10} {'cases':>6} " + " ".join(f"{name:>14}" for name in VERDICTS))
    for kind in CLASSES:
        row = [counts[kind, verdict] for verdict in VERDICTS]
        if sum(row):
            print(f"{kind:10} {sum(row):>6} " + " ".join(f"{count:>14}" for count in row))


def _print_reasons(results: Sequence[Result]) -> None:
    for result in results:
        if result.verdict in ("leaked", "unexpected"):
            print(f"\n{result.verdict.upper()} {result.case.kind}: {result.case.name}")
            print(textwrap.indent(result.told, "  "))
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.verdict == "not applicable":
            reasons.setdefault(result.told, []).append(result.case.name)
    for reason, names in reasons.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        print(f"\nnot applicable: {reason}")
        print(textwrap.indent("\n".join(names[:_NAMED]), "  ") + more)
