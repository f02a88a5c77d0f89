"""The `pyisolate` command."""

import os
import signal
import sys

from pyisolate import _core
from pyisolate._supervisor import _describe


def main() -> int:
    """Run the command with this process's arguments; returns its exit status."""
    if sys.argv[1:2] == ["conformance"]:
        # The suites drive the Python face, so Python runs them. Only here: they are long to import.
        from pyisolate.conformance import command

        return command.main(sys.argv[2:])
    if sys.argv[1:2] == ["attack"]:
        from pyisolate.attack import command as attack_command

        return attack_command.main(sys.argv[2:])
    # Python would only note a Ctrl-C and act on it once the command has returned. This way it
    # ends the process at once, and every cell dies with its host.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A word that is no UTF-8 can only be a path, and is then reported as one that is not there.
    arguments = [os.fsencode(word).decode(errors="replace") for word in sys.argv]
    return _core.run_command(arguments, _describe())


def doctor() -> int:
    """`pyisolate-doctor`, the older name of `pyisolate doctor`."""
    sys.argv[:1] = ["pyisolate", "doctor"]
    return main()


if __name__ == "__main__":
    sys.exit(main())
