"""Guest code that goes around the guest runtime and writes into the shared memory itself.

What it sends must end with `rest()`: the runtime knows nothing of it, and would send over it.
"""

from pyisolate.attack.cases.worker import MODULES
from pyisolate.attack.texts import CHANNEL as SOURCE

__all__ = ["MODULES", "SOURCE"]
