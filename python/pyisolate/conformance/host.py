"""What a program drives cells with. Everything it does, and what comes of it, is written down.

What may differ between backends that keep the contract is left out here, by construction: times,
process numbers, and the words of errors that the host makes for people. Of those a program names
the words that are part of a promise, and the transcript says whether they are there.
"""

import functools
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyisolate
from pyisolate.conformance.canonical import canonical

PATIENCE = 20.0
"""How long a step waits for what must come, in seconds: a guard against hanging, no promise."""
SHORT = 0.05
"""How long a step waits for what must not come, in seconds."""
SOURCE_CHARS_MAX = 3000
"""Longer sources are told by their digest."""
ITEMS_MAX = 5000
"""More items than this from one step are a mistake of the backend's."""
TOKEN = "the token of the conformance suite"
"""For reloading policies."""


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}


def _visible(line: str) -> str:
    """The line in printable ASCII, so that every editor shows what is there."""
    return line.translate(_CONTROLS).encode("ascii", "backslashreplace").decode()


class Host:
    """The host's side of one program: makes cells and keeps the transcript."""

    def __init__(self, supervisor: pyisolate.Supervisor, backend: str, folder: Path) -> None:
        self.supervisor = supervisor
        self.backend: Any = backend
        self.folder = folder
        """A folder of the program's own. Transcripts say `$FOLDER` for it."""
        self._lines: list[str] = []
        self._cells: list[pyisolate.Cell] = []
        self._lock = threading.Lock()
        self._is_over = False

    @property
    def transcript(self) -> str:
        """What happened so far."""
        return "".join(f"{line}\n" for line in self._lines)

    def write(self, line: str) -> None:
        """Add a line."""
        if not self._is_over:
            # The one path of the host's that a program sees is that of its own folder.
            self._lines.append(_visible(line.replace(str(self.folder), "$FOLDER")))

    def text(self, value: object) -> str:
        """The canonical text of a value, without the program's folder."""
        return canonical(value, str(self.folder))

    def told(self, what: str, value: object) -> None:
        """Add a value under a name of the program's choice."""
        self.write(f"{what} = {self.text(value)}")

    def attempt[T](self, operation: Callable[[], T], *, says: Iterable[str] = ()) -> T | None:
        """Do something and add what it returned or raised."""
        try:
            result = operation()
        except Exception as error:
            self.error(error, says=says)
            return None
        self.write("  = done" if result is None else f"  = {self.text(result)}")
        return result

    def error(
        self, error: BaseException, *, says: Iterable[str] = (), message: bool = True
    ) -> None:
        """Add an error: its class, for one of guest code its type and its message too.

        `says`: words that its message promises. `message`: whether the guest's message is its own,
        and not the interpreter's, which words some things differently in each release.
        """
        line = f"  ! {type(error).__name__}"
        if isinstance(error, (pyisolate.GuestError, pyisolate.PolicyError)) and error.type:
            line += f" {error.type}"
            if message:
                line += f": {error.message!a}"
        self.write(line)
        for word in says:
            self.write(f"    {'says' if word in str(error) else 'DOES NOT SAY'} {word!r}")

    def spawn(self, **options: Any) -> "Driven":
        """Make a cell."""
        cell = self.supervisor.spawn(self._name(), backend=self.backend, **options)
        with self._lock:
            self._cells.append(cell)
            if self._is_over:
                cell.kill()
        self.write(f"spawn {cell.name}")
        return Driven(self, cell)

    def refuse_spawn(self, *, says: Iterable[str] = (), **options: Any) -> None:
        """Add what comes of making a cell that cannot be had."""
        self.write("spawn what cannot be had")
        try:
            cell = self.supervisor.spawn(self._name(), backend=self.backend, **options)
        except Exception as error:
            self.error(error, says=says)
            return
        cell.kill()
        self.write("  = a cell")

    def _name(self) -> str:
        return f"cell-{len(self._cells) + 1}"

    def still_serves(self) -> None:
        """Add that another cell works."""
        with self.supervisor.spawn("after", backend=self.backend) as cell:
            cell.exec("post(recv() * 2)")
            cell.post(21)
            self.told("another cell", cell.recv(PATIENCE))

    def end(self, *, kill: bool = False) -> None:
        """End every cell that the program left. What comes later is no part of the transcript."""
        with self._lock:
            self._is_over = True
            for cell in self._cells:
                if kill:
                    cell.kill()
                else:
                    cell.close()


class Driven:
    """A cell; each method is an operation, written down with its outcome."""

    def __init__(self, host: Host, cell: pyisolate.Cell) -> None:
        self.host = host
        self.cell = cell

    def _step(self, operation: str) -> None:
        self.host.write(f"{operation} {self.cell.name}")

    def _source(self, source: str) -> None:
        if len(source) > SOURCE_CHARS_MAX:
            digest = hashlib.sha256(source.encode()).hexdigest()
            self.host.write(f"  | {len(source)} characters sha256:{digest}")
            return
        for line in source.strip("\n").split("\n"):
            self.host.write(f"  | {line}".rstrip(" "))

    def start(self, source: str) -> pyisolate.ExecHandle:
        """`exec` without waiting."""
        self._step("start")
        self._source(source)
        return self.cell.exec(source)

    def exec(self, source: str, **shown: Any) -> pyisolate.SandboxError | None:
        """`exec`, waited for. Returns its error, if there was one."""
        self._step("exec")
        self._source(source)
        return self._waited(self.cell.exec(source), PATIENCE, shown)

    def wait(
        self, handle: pyisolate.ExecHandle, timeout: float = PATIENCE, **shown: Any
    ) -> pyisolate.SandboxError | None:
        """Wait for an `exec`."""
        self._step("wait")
        return self._waited(handle, timeout, shown)

    def _waited(
        self, handle: pyisolate.ExecHandle, timeout: float, shown: Mapping[str, Any]
    ) -> pyisolate.SandboxError | None:
        try:
            handle.wait(timeout)
        except pyisolate.SandboxError as error:
            self.host.error(error, **shown)
            return error
        self.host.write("  = done")
        return None

    def run(self, source: str, **shown: Any) -> None:
        """`exec`, waited for, and everything that it sent."""
        self.exec(source, **shown)
        self.take_all()

    def take_all(self) -> None:
        """`recv` until nothing is left of what was sent before."""
        for _ in range(ITEMS_MAX):
            try:
                item = self.cell.recv(0)
            except pyisolate.TimeoutError:
                return
            except Exception as error:
                self.host.error(error)
                if isinstance(error, pyisolate.CellDied):
                    return
            else:
                self.host.write(f"  > {self.host.text(item)}")
        self.host.write(f"  more than {ITEMS_MAX} items")

    def recv(self, count: int = 1, timeout: float = PATIENCE, **shown: Any) -> Any:
        """`recv`, once or several times. Returns the last item."""
        item = None
        for _ in range(count):
            self._step("recv")
            try:
                item = self.cell.recv(timeout)
            except Exception as error:
                self.host.error(error, **shown)
            else:
                self.host.write(f"  > {self.host.text(item)}")
        return item

    def post(self, message: object, *, says: Iterable[str] = ()) -> None:
        """`post`."""
        self.host.write(f"post {self.cell.name} {self._told(message)}")
        self.host.attempt(functools.partial(self.cell.post, message), says=says)

    def _told(self, value: object) -> str:
        """What the host sends: its canonical text, if it has one."""
        try:
            return self.host.text(value)
        except TypeError:
            return "what has no canonical text"

    def call(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """`call`. Returns its result, or the error."""
        return self.failing_call(target, args, kwargs)

    def failing_call(
        self,
        target: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float = PATIENCE,
        **shown: Any,
    ) -> Any:
        """`call`, with what is to be shown of its error."""
        named = dict(kwargs or {})
        told = self._told((args, named)) if args or named else ""
        self.host.write(f"call {self.cell.name} {target!a} {told}".rstrip())
        try:
            result = self.cell.call(target, *args, timeout=timeout, **named)
        except Exception as error:
            self.host.error(error, **shown)
            return error
        self.host.write(f"  = {self.host.text(result)}")
        return result

    def kill(self) -> None:
        """End it now."""
        self._step("kill")
        self.cell.kill()

    def close(self, timeout: float = PATIENCE) -> None:
        """Let it finish, then end it."""
        self._step("close")
        self.cell.close(timeout)

    def death(self, *, says: Iterable[str] = (), quiet: bool = False) -> None:
        """Take everything that it sent, then add how it ended.

        `quiet`: how much had been sent is no promise, so what was sent is left out.
        """
        self._step("until the end of")
        for _ in range(1_000_000):
            try:
                item = self.cell.recv(PATIENCE)
            except pyisolate.CellDied as error:
                self.host.error(error, says=says)
                return
            except pyisolate.TimeoutError as error:
                self.host.error(error)
                return
            except pyisolate.SandboxError as error:
                if not quiet:
                    self.host.error(error)
            else:
                if not quiet:
                    self.host.write(f"  > {self.host.text(item)}")

    def until(self, handle: pyisolate.ExecHandle) -> None:
        """Wait until an `exec` ended, without asking how: an error of it stays untold."""
        end = time.monotonic() + PATIENCE
        while not handle.done() and time.monotonic() < end:
            time.sleep(0.002)
        self.host.told("done", handle.done())

    def traceback(self, error: object) -> None:
        """Add the frames of a guest's error: file, line and function of each."""
        text = getattr(error, "traceback", "")
        for line in text.splitlines():
            if line.startswith('  File "'):
                self.host.write(f"  frame {line.strip()}")

    def denials(self) -> None:
        """Add what was refused: everything that a denial tells but when."""
        self._step("denials of")
        for event in self.cell.denials:
            self.host.write(
                f"  {event.capability}.{event.attempted_action} | {event.target} | {event.rule}"
                f" | {event.layer} | {event.grant}"
            )
        self.host.told("  denied", self.cell.stats.denied)
