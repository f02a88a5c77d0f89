"""The conformance suite: small programs that show that a backend keeps the contract.

Each program drives cells and writes a *transcript*: what the host did and what came back. A
transcript holds nothing that may differ between two backends that both keep the contract, so all of
them must give the recorded one, byte for byte. `pyisolate conformance --backend process` runs the
suite on your host.

It judges behaviour, not walls: how well a backend confines is no matter of this suite.
"""

from pyisolate.conformance.backends import BACKENDS, Backend
from pyisolate.conformance.program import Program
from pyisolate.conformance.runner import Outcome, Runner, Runners
from pyisolate.conformance.suite import programs

__all__ = ["BACKENDS", "Backend", "Outcome", "Program", "Runner", "Runners", "programs"]
