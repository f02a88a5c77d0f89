# ruff: noqa: PTH109
"""How the standard library's stand-ins ask the broker.

A request's errors come out as the standard library would raise them: with a number, a text, and the
name of the file that the guest itself used.
"""

import _thread
import errno
import os
import sys

# What a native call says about a path that the cell does not have. Whatever else it says is final.
ELSEWHERE = frozenset((errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS))


class Broker:
    """Asks, and knows what the cell was told about its own policy."""

    def __init__(self, request, request_with_descriptor):
        self.request = request
        self._request_with_descriptor = request_with_descriptor
        self.own(_own_folders())
        self._quiet = _thread._local()
        self.configure({})

    def own(self, folders):
        """Takes the interpreter's own folders, in which nothing is asked for."""
        self._own = tuple(f"{folder.rstrip('/')}/" for folder in folders)

    def configure(self, settings):
        """Takes the cell's settings. A template's cells take theirs after the template's."""
        self.capabilities = frozenset(settings.get("capabilities", ()))
        self.host_capabilities = tuple(settings.get("host_capabilities", ()))
        self.policy = bool(settings.get("policy"))
        self.clock = frozenset(settings.get("clock", ()))
        self.random = bool(settings.get("random"))
        self.seeded = bool(settings.get("seeded"))
        self.message_bytes = settings.get("message_bytes", 128 << 20)

    def ask(self, capability, action, payload, *names):
        """The request's value. `names` are one or two file names that its errors will carry."""
        try:
            return self.request(capability, action, payload)
        except OSError as error:
            _explain(error, *names)
            raise

    def ask_for_descriptor(self, capability, action, payload, *names):
        """The request's value, and the descriptor that came with it or None."""
        try:
            return self._request_with_descriptor(capability, action, payload)
        except OSError as error:
            _explain(error, *names)
            raise

    def path_elsewhere(self, path, error, *descriptors):
        """The absolute path to ask for after a native call failed; None if its answer stands."""
        if error.errno not in ELSEWHERE or isinstance(path, int):
            return None
        if any(descriptor is not None for descriptor in descriptors):
            return None
        given, path = os.fsdecode(path), self.absolute(path)
        if path is None or given.startswith("~"):  # a home that could not be found: there is none
            return None
        if getattr(self._quiet, "depth", 0):
            return None
        if error.errno == errno.ENOENT and path.startswith(self._own) and "/.." not in path:
            return None  # the interpreter's own tree is whole: what is not there is nowhere
        return path

    def is_own(self, path):
        """Whether a path is of the interpreter's own tree, or a device that every cell has."""
        path = self.absolute(path) or ""
        return f"{path}/".startswith((*self._own, "/dev/null/", "/dev/urandom/")) and "/.." not in path

    def quietly(self, function):
        """The same function, which finds what the cell has and never asks for more."""

        def quiet(*args, **kwargs):
            local = self._quiet
            local.depth = getattr(local, "depth", 0) + 1
            try:
                return function(*args, **kwargs)
            finally:
                local.depth -= 1

        return self.like(quiet, function)

    @staticmethod
    def absolute(path):
        """The path as the broker takes it, or None for the empty path."""
        path = os.fsdecode(path)
        if path.startswith("/"):
            return path
        return f"{os.getcwd().rstrip('/')}/{path}" if path else None

    @staticmethod
    def refusal(text):
        """The error for what no policy can grant."""
        return PermissionError(errno.EPERM, text)

    @staticmethod
    def like(function, native):
        """Names a stand-in after what it stands in for."""
        for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(function, attribute, getattr(native, attribute, None))
        return function


def _own_folders():
    """The interpreter's own folders: where packages lie, but not whatever else is on the path."""
    packages = ("/site-packages", "/dist-packages")
    folders = {sys.prefix, sys.exec_prefix, sys.base_prefix}
    return folders | {
        folder
        for folder in sys.path
        if folder.endswith(packages) or folder.startswith("/packages/")
    }


def _explain(error, *names):
    """Gives an error what the standard library's own would have."""
    if isinstance(error, PermissionError) and error.errno is None:
        error.errno, error.strerror = errno.EACCES, str(error)
    if names and error.errno is not None:
        error.filename = os.fspath(names[0])
        if len(names) > 1:
            error.filename2 = os.fspath(names[1])
