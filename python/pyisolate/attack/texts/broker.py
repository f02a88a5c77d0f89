# ruff: noqa: F401, F821
"""What attacks on the broker are written with: executed in the cell, and by the control."""

import _socket
import contextlib
import errno
import fcntl
import gc
import mmap
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import threading
import urllib.error
import urllib.request

try:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
except ImportError:
    libc = None  # a sub-interpreter cell has none


def attempt(action):
    """Run an attack; say how it ended, as plain data."""
    try:
        value = action()
    except OSError as error:
        names = [type(error).__name__, errno.errorcode.get(error.errno, "")]
        return ["refused", names, str(error)]
    except Exception as error:
        return ["refused", [type(error).__name__], str(error)]
    return ["done", value if isinstance(value, (str, bytes, int, list, dict)) else repr(value)]


def need(condition, what="it had no effect"):
    """Turn an attack's quiet failure into a loud one."""
    if not condition:
        raise LookupError(what)


def answers(cases):
    """How each of many acts ended: `ok`, or its error's names."""
    outcomes = {label: attempt(action) for label, action in cases.items()}
    return {label: "ok" if how == "done" else what for label, (how, what, *_) in outcomes.items()}


def fs(action, **payload):
    """One request for files, past the standard library."""
    return request("filesystem", action, payload)


def handle_of(path, mode):
    """The broker's number for a file that is open for writing."""
    return fs("open", path=path, mode=mode)["handle"]


def of_libc(name, *arguments):
    """Call a function of libc's, past Python."""
    ctypes.set_errno(0)
    result = libc[name](*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def net(action, **payload):
    """One request for the network, past the standard library."""
    return request("network", action, payload)
