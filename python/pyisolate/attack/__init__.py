"""The attack suite: ways out of a cell, each with a control that shows that it is one.

An attack is guest source text. It is run in a cell, where it has to be refused in the way that the
attack names, with everything that is planted untouched; and without the wall, where it has to
succeed, so that no case is empty. `pyisolate attack` runs the suite on your host, and says by class
what held.

The control is the same text run by the same interpreter in a throw-away process, in user, pid,
mount, ipc, uts and network namespaces of its own, with every host file read-only and, unless the
attack says `privileged`, with no capabilities and `no_new_privs`. What it lacks, compared with a
cell, is the small root, Landlock and the system call filters. It touches planted things only, and
those are in memory of its own.

What only the host's root may do at all (modules, kexec, reboot, swap, settimeofday) has no case:
no harmless control could succeed.
"""

from pyisolate.attack.case import Attack, Finding
from pyisolate.attack.classes import CLASSES
from pyisolate.attack.runner import Result, Runner, Verdict
from pyisolate.attack.suite import Case, cases

__all__ = ["CLASSES", "Attack", "Case", "Finding", "Result", "Runner", "Verdict", "cases"]
