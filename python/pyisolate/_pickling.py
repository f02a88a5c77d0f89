"""Host objects on their way into a cell."""

import pickle
from typing import Any

# Below this many bytes a buffer travels inside its pickle: a shared buffer costs two system calls
# on each side and a page of memory.
_BUFFER_BYTES_MIN = 16 * 1024
# Frames have at most 256 parts, of which a message's own strings take up to four.
_BUFFERS_MAX = 240


def dumps(message: Any) -> tuple[bytes, list[memoryview]]:
    """Pickles `message` into its bytes and its out-of-band buffers."""
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < _BUFFER_BYTES_MIN or len(buffers) >= _BUFFERS_MAX:
            return True
        buffers.append(view)
        return False

    return pickle.dumps(message, 5, buffer_callback=keep), buffers
