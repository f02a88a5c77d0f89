"""The `pyisolate` command."""

import sys

from pyisolate import _core
from pyisolate._supervisor import _describe


def main() -> int:
    """Run the command with this process's arguments; returns its exit status."""
    return _core.run_command(sys.argv, _describe())


if __name__ == "__main__":
    sys.exit(main())
