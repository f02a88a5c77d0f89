"""What hostile code does first: takes the runtime's stand-ins out, so that it meets the kernel."""

import _io
import builtins
import io
import sys

for _finder in [it for it in sys.meta_path if getattr(it, "__module__", "") == "_pyisolate_hooks"]:
    sys.meta_path.remove(_finder)
# Modules that were loaded already have stand-ins in them, or the old `os`.
for _name in [name for name in sys.modules if name in ("os", "random", "socket", "shutil", "ssl")]:
    del sys.modules[_name]
builtins.open = io.open = __builtins__["open"] = _io.open
