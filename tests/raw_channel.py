"""Guest code that goes around the guest runtime and writes into the shared memory itself.

What it sends must end with `rest()`: the runtime knows nothing of it, and would send over it.
"""

from pyisolate.attack.cases import worker
from pyisolate.attack.texts import CHANNEL

MODULES = ["_socket", *worker.MODULES, "stat"]
"""What a cell must be allowed to import for it."""

SOURCE = (
    CHANNEL
    + """
def want(id, count):
    # A wish for a buffer of so many bytes, which the frame gives in units of 64.
    send(WANT, id=id, store=count // 64)

def find_socket():
    # The one socket among the cell's descriptors.
    import stat
    for fd in range(64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                return fd
        except OSError:
            pass
    raise LookupError("no socket found")

socket_fd = find_socket()

def say(bytes, *fds):
    # On the socket, with descriptors if there are some.
    import _socket
    AF_UNIX, SEQPACKET, SCM_RIGHTS = 1, 5, 1
    line = _socket.socket(AF_UNIX, SEQPACKET, 0, fileno=socket_fd)
    try:
        rights = [(_socket.SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
        return line.sendmsg([bytes], rights if fds else [])
    finally:
        line.detach()

BUFFER = pickle.dumps(pickle.PickleBuffer(bytearray(8)), 5, buffer_callback=lambda _: None)
"""
)
