"""What is executed in cells, in controls and in hosts that are thrown away, as text.

`control.py` and `host.py` are programs; the others are guest code.
"""

from pathlib import Path

_HERE = Path(__file__).parent


def _text(name: str) -> str:
    return (_HERE / f"{name}.py").read_text(encoding="utf-8")


WALL = _text("wall")
"""What attacks on the wall are written with."""
UNWIRED = _text("unwired")
"""What hostile code does first."""
INTERPRETER = _text("interpreter")
"""What attacks on the process that a sub-interpreter cell shares are written with."""
BROKER = _text("broker")
"""What attacks on the broker are written with."""
NAIVE = _text("naive")
"""A broker that looks at a request's text and believes it."""
TREE = _text("tree")
"""The files that a policy grants some of."""
CHANNEL = _text("channel")
"""What writes into the channel itself."""
PLAIN = _text("plain")
"""What the simplest attacks are written with: it imports nothing."""
