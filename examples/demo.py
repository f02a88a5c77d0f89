"""Untrusted Python at work behind a real wall.

Analyses the Palmer penguins table inside a cell. Then three hostile scripts try to get out of
cells, with `os`, `socket` and `ctypes` allowed even so: each is refused, and the layer that refused
it is named. Each is also run once without a cell, to show that it would have worked.

    cargo xtask demo
    python examples/demo.py --backend process

Exits with 0 only if everything held.
"""

import argparse
import errno
import importlib.metadata
import importlib.util
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyisolate

PATIENCE = 30.0
"""How long to wait for a cell before giving up, in seconds."""

# --- what runs in cells --------------------------------------------------------------------------

ANALYSIS = """
import csv
import io
import statistics

table = recv()
rows = list(csv.DictReader(io.StringIO(table["data"].decode())))
print(f"{table['name']}: {len(rows)} rows of {', '.join(rows[0])}")
metric("rows", len(rows))


def summary(rows, column):
    numbers = [float(row[column]) for row in rows if row[column] != "NA"]
    return {"mean": statistics.fmean(numbers), "sd": statistics.stdev(numbers)}


for species in sorted({row["species"] for row in rows}):
    group = [row for row in rows if row["species"] == species]
    post(
        {
            "species": species,
            "count": len(group),
            "missing": sum(value == "NA" for row in group for value in row.values()),
            "mass": summary(group, "body_mass_g"),
            "flipper": summary(group, "flipper_length_mm"),
            "bill": summary(group, "bill_length_mm"),
        }
    )
"""

# Each hostile script posts what came of each attempt: its name, the number of the error or None,
# and what it got. It is told what to attack by `recv`.
ATTEMPT = """
import os


def libc():
    global ctypes
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def attempt(name, attack):
    try:
        got = attack()
    except OSError as error:
        post((name, error.errno, type(error).__name__))
    except (ImportError, RuntimeError) as error:
        post((name, "guard", type(error).__name__))
    else:
        post((name, None, got))
"""

READ_SECRET = (
    ATTEMPT
    + """
path = recv()
attempt("open(path)", lambda: open(path).read())
attempt("open(2) by ctypes", lambda: os.read(checked(libc().open(path.encode(), 0)), 99).decode())
attempt("list its folder", lambda: str(os.listdir(os.path.dirname(path))))
"""
)

CALL_OUT = (
    ATTEMPT
    + """
import socket

address = ("127.0.0.1", recv())


def by_hand():
    number = checked(libc().syscall(41 if os.uname().machine == "x86_64" else 198, 2, 1, 0))
    with socket.socket(fileno=number) as raw:
        raw.connect(address)
    return "connected"


attempt("create_connection()", lambda: socket.create_connection(address, 5).close() or "connected")
attempt("socket(2) by ctypes", by_hand)
"""
)

# Bounded, and its children end at once: were there a hole in the wall, nobody would be hurt.
FORK_BOMB = (
    ATTEMPT
    + """
most = recv()


def by(fork):
    def attack():
        for number in range(most):
            if (child := checked(fork())) == 0:
                os._exit(0)
            os.waitpid(child, 0)
        return f"{most} processes"

    return attack


attempt("os.fork()", by(os.fork))
attempt("fork(3) by ctypes", by(lambda: libc().fork()))
attempt("posix_spawn()", by(lambda: os.posix_spawn("/bin/sh", ["sh", "-c", ":"], {})))
"""
)

LAYERS = {
    errno.ENOENT: ("root", "not in the cell's file tree"),
    errno.EACCES: ("landlock", "no rule allows it"),
    errno.ENETUNREACH: ("network-namespace", "no way out"),
    errno.EPERM: ("seccomp", "system call not on the list"),
    # No wall: what the interpreter refuses, and native code would walk past.
    "guard": ("guard", "not in a sub-interpreter"),
}
"""Which layer answers with which error, and what that means."""

LACKING = {
    "process": {"clock"},
    "subinterpreter": {"clock", "process", "rlimits", "user-namespace", "pid-namespace"},
    "microvm": {"clock"},
}
"""The layers that a backend cannot have."""

# What stands in for the cell's builtins where a script is run without a cell.
WITHOUT_A_CELL = """
import json, sys
def recv(): return json.loads(sys.argv[1])
def post(item): print(json.dumps(item), flush=True)
"""


# --- the host ------------------------------------------------------------------------------------


class Verdict:
    """What held and what did not."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.checked = 0

    def check(self, holds: bool, claim: str) -> None:
        self.checked += 1
        if not holds:
            self.broken.append(claim)
        mark = styled("32", "held") if holds else styled("1;31", "BROKEN")
        print(f"     {mark}: {claim}")


def styled(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() else text


def heading(text: str) -> None:
    print(f"\n{styled('1', text)}\n")


def penguins() -> tuple[Path, str]:
    """The table, and whose it is. The package is not imported: it would import pandas."""
    spec = importlib.util.find_spec("palmerpenguins")
    if spec is None or spec.origin is None:
        sys.exit(
            "demo: the table is missing: run `cargo xtask demo`, or "
            "`pip install --no-deps palmerpenguins`"
        )
    package = importlib.metadata.distribution("palmerpenguins")
    licence = package.metadata["License"]
    data = "CC-0" if "CC-0" in (package.read_text("METADATA") or "") else "as its page says"
    source = (
        f"palmerpenguins {package.version} from PyPI (the package is {licence}, the data {data})"
    )
    return Path(spec.origin).parent / "data" / "penguins.csv", source


def items(cell: pyisolate.Cell) -> Iterator[Any]:
    """What the cell sends until it has nothing more to send."""
    try:
        while True:
            yield cell.recv(PATIENCE)
    except pyisolate.CellDied:
        return


def analyse(backend: Any, verdict: Verdict) -> None:
    path, source = penguins()
    table = path.read_bytes()
    heading(f"1. Real work: {len(table):,} bytes of CSV go into a {backend} cell")
    start = time.perf_counter()
    with pyisolate.spawn(
        "analysis", backend=backend, allowed_imports=["csv", "io", "statistics"]
    ) as cell:
        cell.post({"name": path.name, "data": table})
        cell.exec(ANALYSIS).wait(PATIENCE)
        layers = cell.confinement
    rows: dict[str, dict[str, Any]] = {}
    total: float = 0
    for item in items(cell):
        match item:
            case pyisolate.LogEvent():
                print(f"   guest: {item.message}")
            case pyisolate.MetricEvent(name="rows"):
                total = item.value
            case {"species": species}:
                rows[species] = item
    took = (time.perf_counter() - start) * 1000
    print_table(rows)
    print(f"\n   Answered after {took:.0f} ms, the start of the first process included.")
    print(f"   Data: {source};")
    print("   Gorman, Williams and Fraser (2014), doi:10.1371/journal.pone.0090081\n")
    counted = sum(row["count"] for row in rows.values())
    verdict.check(len(rows) == 3 and counted == total == 344, "3 species, 344 penguins")

    if backend == "microvm":
        heading("2. What confines a cell: its machine, and the jail of the machine's monitor")
    else:
        heading("2. What confines a cell, as the kernel reported it from inside")
    for layer in layers:
        print(f"   {layer.name:<18} {layer.status:<9} {layer.detail}")
    print()
    # Not every host hands out control groups; the other limits hold without them.
    missing = {layer.name for layer in layers if layer.status == "missing"} - {"cgroup"}
    verdict.check(
        missing == LACKING[backend],
        f"no layer is missing that {backend} cells can have ({', '.join(sorted(missing))})",
    )


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    print()
    print("   species     penguins  missing   body mass, g  flipper, mm     bill, mm")
    print("                          values      mean ± sd    mean ± sd    mean ± sd")
    for species, row in rows.items():
        mass, flipper, bill = row["mass"], row["flipper"], row["bill"]
        print(
            f"   {species:<10}{row['count']:>10}{row['missing']:>9}"
            f"{mass['mean']:>11,.0f} ± {mass['sd']:>3.0f}"
            f"{flipper['mean']:>8.1f} ± {flipper['sd']:.1f}"
            f"{bill['mean']:>8.1f} ± {bill['sd']:.1f}"
        )


def outside(source: str, target: object) -> set[str]:
    """Run a hostile script without a cell. Returns the names of the attempts that worked."""
    free = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_A_CELL + source, json.dumps(target)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    results = map(json.loads, free.stdout.splitlines())
    return {name for name, code, _ in results if code is None}


def inside(backend: Any, source: str, target: object) -> tuple[list[Any], set[str]]:
    """Run a hostile script in a cell. Returns all that it sent, and the layers that held it."""
    with pyisolate.spawn(
        "hostile", backend=backend, allowed_imports=["os", "socket", "ctypes"]
    ) as cell:
        cell.post(target)
        cell.exec(source).wait(PATIENCE)
        enforced = {layer.name for layer in cell.confinement if layer.status == "enforced"}
    return list(items(cell)), enforced


def judge(got: list[Any], enforced: set[str], worked: set[str], verdict: Verdict) -> None:
    """Print what came of each attempt, and check that it was the cell that made the difference."""
    print(f"     {'attempt':<22}{'outside':<10}{'in the cell':<32}stopped by")
    refused = 0
    for name, code, detail in got:
        layer, meaning = LAYERS.get(code, ("nothing", "it worked" if code is None else "who knows"))
        if detail == "CapabilityDenied":  # ordinary Python asks the broker
            layer, meaning = "policy", "no rule grants it"
        refused += layer in enforced | {"policy", "guard"}
        there = "works" if name in worked else "fails"
        here = detail if code is None else f"{detail} ({errno.errorcode.get(code, code)})"
        print(f"     {name:<22}{there:<10}{here:<32}{styled('1', layer)}: {meaning}")
    names = {name for name, *_ in got}
    verdict.check(bool(names) and names == worked, "every attempt works outside a cell")
    verdict.check(refused == len(got) > 0, "none works in the cell")


@contextmanager
def listener() -> Iterator[tuple[int, Callable[[], int]]]:
    """A port on the loopback interface, and a function that counts who connected since."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        def connections() -> int:
            count = 0
            while select.select([server], [], [], 0.2)[0]:
                server.accept()[0].close()
                count += 1
            return count

        yield server.getsockname()[1], connections


def attacks(backend: Any, verdict: Verdict) -> None:
    heading("3. Three hostile scripts, which may import os, socket and ctypes")

    print(f"   {styled('1', 'Read a planted secret')}")
    with tempfile.TemporaryDirectory(prefix="pyisolate-demo-") as folder:
        secret = secrets.token_hex(16)
        path = Path(folder) / "secret.txt"
        path.write_text(secret)
        worked = outside(READ_SECRET, os.fspath(path))
        got, enforced = inside(backend, READ_SECRET, os.fspath(path))
        judge(got, enforced, worked, verdict)
        verdict.check(secret not in repr(got), "the secret is in nothing that the cell sent")

    print(f"\n   {styled('1', 'Connect to a planted listener')}")
    with listener() as (port, connections):
        worked = outside(CALL_OUT, port)
        heard_outside = connections()
        got, enforced = inside(backend, CALL_OUT, port)
        heard_inside = connections()
        judge(got, enforced, worked, verdict)
        verdict.check(
            heard_outside == len(worked) and heard_inside == 0,
            f"the listener heard {heard_outside} connections from outside, "
            f"{heard_inside} from the cell",
        )

    print(f"\n   {styled('1', 'Fork bomb')}")
    worked = outside(FORK_BOMB, 100)
    got, enforced = inside(backend, FORK_BOMB, 100)
    judge(got, enforced, worked, verdict)


# Ordinary Python, with a grant for two folders and nothing else.
REPORT = """
import csv, os
table, report, private = recv()
with open(table, newline="") as file:
    rows = list(csv.DictReader(file))
with open(os.path.join(report, "islands.txt"), "w") as file:
    for island in sorted({row["island"] for row in rows}):
        print(island, sum(row["island"] == island for row in rows), file=file)
try:
    open(private)
except PermissionError as error:
    post(str(error))
"""


def privileges(backend: Any, verdict: Verdict) -> None:
    heading("4. Files that a policy grants, with open() as ever, and one that it does not")
    table, _ = penguins()
    with tempfile.TemporaryDirectory(prefix="pyisolate-demo-") as folder:
        report, private = Path(folder) / "report", Path(folder) / "private.txt"
        report.mkdir()
        private.write_text("not for guests")
        policy = pyisolate.Policy().grant(
            pyisolate.ReadPath(table), pyisolate.WritePath(report), pyisolate.Import("csv")
        )
        with pyisolate.spawn(
            "reporter", backend=backend, policy=policy, allowed_imports=["os"]
        ) as cell:
            cell.post([os.fspath(table), os.fspath(report), os.fspath(private)])
            cell.exec(REPORT).wait(PATIENCE)
            denied = list(cell.denials)
        written = (report / "islands.txt").read_text()
        print("   " + written.rstrip().replace("\n", "\n   "))
        for denial in denied:
            print(f"   refused: {denial.target.replace(folder, '...')}: {denial.rule}")
            print(f"   to allow it: {(denial.grant or '').replace(folder, '...')}\n")
        counted = sum(int(line.split()[1]) for line in written.splitlines())
        verdict.check(counted == 344, "the report that the guest wrote counts 344 penguins")
        targets = [denial.target for denial in denied]
        verdict.check(targets == [f"read {private}"], "the file beside it was refused, once")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--backend", default="process", help="where the wall stands (%(default)s)")
    parser.add_argument(
        "--accel",
        choices=["kvm", "tcg"],
        help="what runs a microvm cell: the processor, or emulation, which is no boundary of its",
    )
    asked = parser.parse_args()
    backend = asked.backend
    if asked.accel is not None:
        os.environ["PYISOLATE_MICROVM_ACCEL"] = asked.accel
    verdict = Verdict()
    print(f"PyIsolate {pyisolate.__version__}")
    try:
        analyse(backend, verdict)
        attacks(backend, verdict)
        privileges(backend, verdict)
    except (pyisolate.SandboxError, ValueError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    if verdict.broken:
        heading(f"{len(verdict.broken)} of {verdict.checked} did NOT hold:")
        for claim in verdict.broken:
            print(f"   {claim}")
        return 1
    heading(f"All {verdict.checked} checks held.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
