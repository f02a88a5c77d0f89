"""What a guest is answered."""

from typing import Any

import pyisolate
from cells import PATIENCE


def ask(cell: pyisolate.Cell, *request: Any) -> Any:
    """Have the guest call `request`: the value, or its exception's type and text."""
    cell.exec(f"""
try: answer = ["value", request(*{request!r})]
except BaseException as error: answer = [type(error).__name__, str(error)]
post(answer)
""")
    kind, value = cell.recv(PATIENCE)
    return value if kind == "value" else (kind, value)
