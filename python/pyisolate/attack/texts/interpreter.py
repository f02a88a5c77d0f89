"""What attacks on sub-interpreter cells are written with: run in the cell and in the control."""

import errno
import os  # noqa: F401  (attacks use it)

world = {}  # what the attack aims at; filled in by the host


def attempt(action):
    """Run an attack; say how it ended, as plain data."""
    try:
        value = action()
    except OSError as error:
        names = [type(error).__name__, errno.errorcode.get(error.errno, "")]
        return ["refused", names, str(error)]
    except Exception as error:
        return ["refused", [type(error).__name__], str(error)]
    return ["done", value if isinstance(value, (str, int, list, dict)) else repr(value)]


def need(condition, what):
    """Turn an attack's quiet failure into a loud one."""
    if not condition:
        raise LookupError(what)
