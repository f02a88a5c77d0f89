# ruff: noqa: F821
"""Guest code that goes around the guest runtime and writes into the shared memory itself.

What it sends must end with `rest()`: the runtime knows nothing of it, and would send over it.
Offsets are as the channel's layout page has them.
"""

import ctypes
import os
import pickle
import struct

libc = ctypes.CDLL(None, use_errno=True)
libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]


def find_channel():
    # Over pointers from the module's state to the page that begins with the channel's magic.
    inlet, outlet = os.pipe()

    def read(address, count):
        return os.read(inlet, count) if libc.write(outlet, address, count) == count else b""

    state = ctypes.pythonapi.PyModule_GetState
    state.restype, state.argtypes = ctypes.c_void_p, [ctypes.py_object]
    seen, front = set(), [state(recv.__globals__["native"])]
    for _ in range(6):
        reached = []
        for address in front:
            data = read(address, 1024) or read(address, 256) or read(address, 8)
            for word in struct.unpack(f"{len(data) // 8}Q", data):
                if word % 8 == 0 and 4096 < word < 1 << 47 and word not in seen:
                    seen.add(word)
                    if word % 4096 == 0 and read(word, 7) == b"PYICHAN":
                        os.close(inlet)
                        os.close(outlet)
                        return word
                    reached.append(word)
        front = reached
    raise LookupError("no channel found")


page = find_channel()
RING = ctypes.c_uint32.from_address(page + 8).value
ring = page + 4096 + RING
to_guest_tail, head, tail = (ctypes.c_uint32.from_address(page + at) for at in (256, 640, 768))
READY, DONE, RESULT, FAILED, POSTED, LOG, METRIC, REQUEST, WANT = range(17, 26)


def send_record(record, length=None):
    data = struct.pack("<Q", len(record) if length is None else length) + record
    data += bytes(-len(data) % 8)
    while (head.value - tail.value) % 2**32 + len(data) > RING:
        pass
    place = head.value % RING
    first, rest = data[: RING - place], data[RING - place :]
    ctypes.memmove(ring + place, first, len(first))
    ctypes.memmove(ring, rest, len(rest))
    head.value += len(data)


def rest():
    # The runtime knows nothing of what was sent here, and must not send any more.
    import time

    while True:
        time.sleep(1)


def frame(kind, *parts, id=0, store=0, flags=0):
    table = b"".join(
        struct.pack("<II", *((len(part), 0xFFFFFFFF) if type(part) is bytes else part))
        for part in parts
    )
    inline = b"".join(part for part in parts if type(part) is bytes)
    return struct.pack("<BBHII", kind, flags, len(parts), id, store) + table + inline


def send(kind, *parts, **numbers):
    send_record(frame(kind, *parts, **numbers))


NONE = pickle.dumps(None, 5)
