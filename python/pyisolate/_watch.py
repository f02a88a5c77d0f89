"""Loads a policy document again whenever its file changes."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from pyisolate.authorities import PathText
from pyisolate.errors import PolicyError

# Editors take a moment between emptying a file and filling it again.
_SETTLING_S = 0.1


class PolicyWatch:
    """A file that is being watched. `Supervisor.watch_policy` makes them; `stop` ends them."""

    def __init__(self, path: PathText, interval: float, load: Callable[[], object]) -> None:
        if not interval > 0:
            raise ValueError(f"interval={interval} is not a time in seconds")
        self._path = Path(path)
        self._interval = interval
        self._load = load
        self._stopped = threading.Event()
        self._seen = self._content()
        load()
        self._thread = threading.Thread(target=self._watch, name="pyisolate-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. What was loaded stays in force."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _content(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except OSError:
            return None

    def _watch(self) -> None:
        while not self._stopped.wait(self._interval):
            content = self._content()
            if content == self._seen:
                continue
            # It may still be being written.
            self._stopped.wait(min(self._interval, _SETTLING_S))
            if self._content() != content:
                continue
            # Said once for each content: the next look finds nothing new.
            self._seen = content
            try:
                self._load()
            except PolicyError as error:
                import logging

                log = logging.getLogger("pyisolate")
                log.error("%s is not loaded, the old policy is kept: %s", self._path, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
