"""Connections by messages, for cells that are handed no descriptors.

The guest's socket is one end of a pair, so that whatever C code does with it is native. A thread of
the runtime, the mover, carries bytes between the other end and the broker, whose connection never
blocks. What it can do nothing about yet a second thread, the waiter, waits for at the broker, for all
connections at once. Both are there while there are connections.
"""

import _socket
import _thread
import errno
import os
import select
from _pickle import PickleBuffer
from _queue import SimpleQueue

# The most that is carried at a time, in bytes: about what the pair's buffer holds.
PIECE_BYTES = 256 * 1024
# After so many bytes more is likely to have come meanwhile, and is asked for without waiting.
STREAMING_BYTES = 16 * 1024
# How long the end of an operation waits for what it wrote to be on its way, in milliseconds.
SETTLE_MS = 500

broker = None
_lock = _thread.allocate_lock()
_mover = None
_held = _thread.allocate_lock()  # never released: what is tried on it takes its time
_held.acquire()


def install(link):
    """Keeps the broker."""
    global broker
    broker = link


def adopt(socket, value):
    """Makes an unconnected socket one whose bytes go by messages."""
    ours, theirs = _socket.socketpair()
    ours.setblocking(False)
    os.dup2(theirs.fileno(), socket.fileno(), inheritable=False)
    theirs.close()
    six = value["family"] == "inet6"
    connection = _Connection(value["handle"], ours, socket.fileno())
    connection.peer = _address(value["address"], value["port"], six)
    connection.own = _address(value["own_address"], value["own_port"], six)
    try:
        _add(connection)
    except RuntimeError as error:
        connection.close()
        text = f"{error}: a cell's connections by messages take two threads more"
        raise OSError(errno.ENOBUFS, text) from None


def peer(descriptor):
    """What `getpeername` is to say of one end of a pair."""
    return _of(descriptor).peer


def own(descriptor):
    """What `getsockname` is to say."""
    return _of(descriptor).own


def settle():
    """Waits a little for what was written to be on its way: the cell may end next."""
    for _ in range(SETTLE_MS):
        mover = _mover
        if mover is None or not any(connection.is_sending() for connection in mover.all()):
            return
        _held.acquire(timeout=0.001)


def _address(address, port, six):
    return (address, port, 0, 0) if six else (address, port)


def _of(descriptor):
    inode = os.fstat(descriptor).st_ino
    for connection in _mover.all() if _mover else ():
        if connection.inode == inode:
            return connection
    raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


def _add(connection):
    global _mover
    with _lock:
        if _mover is None:
            _mover = _Mover()
        _mover.add(connection)


class _Connection:
    """One of them: what is on its way, and what there is to wait for."""

    def __init__(self, handle, ours, number):
        self.handle = handle
        self.ours = ours
        # Under which the guest has its end, unless it moved it; and which file that is.
        self.number, self.inode = number, os.fstat(number).st_ino
        self.sending, self.receiving = True, True  # until the end of either direction
        self.taking = False
        self.outgoing = b""  # from the guest
        self.incoming = b""  # to it
        self.blocked = False  # the broker's connection takes no more for now
        self.quiet = True  # nothing has come for now
        self.can_read = False  # our end of the pair
        self.hung_up = False  # the guest closed its own

    def _ask(self, action, **payload):
        return broker.ask("network", action, {"handle": self.handle, **payload})

    def is_sending(self):
        """Whether the guest wrote what the broker has not."""
        if self.taking or self.outgoing:
            return True
        poll = select.poll()
        try:
            poll.register(self.ours, select.POLLIN)
            return self.sending and bool(poll.poll(0))
        except (OSError, ValueError):
            return False  # it was closed meanwhile

    def is_over(self):
        """Whether nothing more will go either way."""
        if self.sending or self.outgoing:
            return False
        return self.hung_up or not (self.receiving or self.incoming)

    def events(self):
        """What our end is to be polled for; 0 for nothing, not even that the guest hung up."""
        events = select.POLLIN if self.sending and not self.outgoing else 0
        if self.incoming:
            events |= select.POLLOUT
        return events if self.hung_up else events | select.POLLHUP

    def move(self):
        """Carries a piece either way; whether there may be more at once."""
        try:
            self._send()
            self._receive()
        except (OSError, RuntimeError) as error:
            self.fail(error)
            return False
        asks = self.receiving and not (self.quiet or self.incoming or self.hung_up)
        return asks or (bool(self.outgoing) and not self.blocked)

    def _send(self):
        if self.can_read and self.sending and not self.outgoing:
            self.can_read = False
            self.taking = True
            try:
                self.outgoing = memoryview(self.ours.recv(PIECE_BYTES))
                self.sending = bool(self.outgoing)
            except BlockingIOError:
                pass
            except OSError:  # the guest closed its end with something unread in it
                self.sending, self.hung_up = False, True
            finally:
                self.taking = False
            if not self.sending and not self.hung_up:
                self._ask("shutdown", how="write")
        if self.outgoing and not self.blocked:
            data = self.outgoing[: _piece_bytes()]
            sent = PickleBuffer(data)
            try:
                count = self._ask("send", data=sent)
            except BrokenPipeError:
                # The other side hears no more, but may have something to say.
                count, self.sending = len(self.outgoing), False
                self.ours.shutdown(_socket.SHUT_RD)
            finally:
                sent.release()
            self.blocked = count < len(data)
            self.outgoing = self.outgoing[count:]

    def _receive(self):
        if self.receiving and not (self.incoming or self.quiet or self.hung_up):
            data = self._ask("receive", length=_piece_bytes())
            self.quiet = data is None or 0 < len(data) < STREAMING_BYTES
            self.incoming = memoryview(data or b"")
            if data is not None and not data:
                self.receiving = False
                self.ours.shutdown(_socket.SHUT_WR)
        if self.incoming:
            try:
                self.incoming = self.incoming[self.ours.send(self.incoming) :]
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                # The guest reads no more.
                self.incoming, self.receiving = b"", False

    def fail(self, error):
        """Ends it as the error would end the guest's own: what broke off is never taken for whole.

        One that a new policy denies ends without an error, as one by descriptor does.
        """
        self.sending = self.receiving = False
        self.outgoing = self.incoming = b""
        if getattr(error, "errno", None) not in (errno.EACCES, errno.EBADF):
            self._reset()

    def _reset(self):
        """Leaves a byte unread at our end, so that its end is a reset to the guest."""
        try:
            theirs = _socket.socket(
                _socket.AF_UNIX, _socket.SOCK_STREAM, 0, fileno=os.dup(self.number)
            )
        except OSError:
            return
        try:
            # Its number may be another file's by now.
            if os.fstat(theirs.fileno()).st_ino == self.inode:
                theirs.send(b"\0", _socket.MSG_DONTWAIT)
        except OSError:
            pass
        finally:
            theirs.close()

    def close(self):
        """Lets go of both ends."""
        self.ours.close()
        try:
            self._ask("close")
        except (OSError, RuntimeError):
            pass  # the cell ends


def _piece_bytes():
    return max(512, min(PIECE_BYTES, broker.message_bytes // 2))


class _Mover:
    """The two threads, and the connections that they serve."""

    def __init__(self):
        self._connections = {}  # by the number of our end
        self._nudge, self._nudged = _socket.socketpair()
        self._nudge.setblocking(False)
        self._nudged.setblocking(False)
        # What the waiter is to wait for, handles to read from and handles to write to; None to end.
        self._asked = SimpleQueue()
        self._waiting = None  # the same while it does
        self._found = None  # what came of it
        self._begun = False

    def all(self):
        """The connections."""
        return list(self._connections.values())

    def add(self, connection):
        """Serves a connection. `RuntimeError` if there can be no threads."""
        global _mover
        self._connections[connection.ours.fileno()] = connection
        try:
            if not self._begun:
                _thread.start_new_thread(self._wait, ())
                _thread.start_new_thread(self._move, ())
                self._begun = True
        except RuntimeError:
            _mover = None
            self._end()
            raise
        self._wake()

    def _wake(self):
        try:
            self._nudge.send(b"\0")
        except OSError:
            pass  # full wakes, too; or it is over

    def _end(self):
        self._asked.put(None)
        self._nudge.close()
        self._nudged.close()

    def _move(self):
        global _mover
        try:
            while self._turn():
                pass
        finally:
            with _lock:
                if _mover is self:
                    _mover = None
            for connection in self.all():
                connection.close()
            self._connections.clear()
            self._ask_to_wake()
            self._end()

    def _turn(self):
        """Does what can be done and waits for more; whether there is anybody to do it for."""
        global _mover
        more = False
        for number, connection in list(self._connections.items()):
            more |= connection.move()
            if connection.is_over():
                del self._connections[number]  # first, since the number may be another's at once
                connection.close()
        with _lock:
            if not self._connections:
                _mover = None
                return False
        self._have_waited()
        poll = select.poll()
        poll.register(self._nudged, select.POLLIN)
        for number, connection in list(self._connections.items()):
            if events := connection.events():
                poll.register(number, events)
        for number, events in poll.poll(0 if more else None):
            if number == self._nudged.fileno():
                self._nudged.recv(4096)
                self._look_at_what_was_found()
            elif (connection := self._connections.get(number)) is not None:
                hung_up = bool(events & (select.POLLHUP | select.POLLERR))
                connection.hung_up |= hung_up
                connection.can_read |= hung_up or bool(events & select.POLLIN)
        return True

    # --- waiting at the broker

    def _have_waited(self):
        """Has the waiter wait for what is to be waited for now."""
        reads, writes = [], []
        for connection in self.all():
            if connection.receiving and connection.quiet and not connection.hung_up:
                reads.append(connection.handle)
            if connection.outgoing and connection.blocked:
                writes.append(connection.handle)
        if self._waiting is None:
            if reads or writes:
                self._waiting = reads, writes
                self._asked.put(self._waiting)
        elif not (set(reads) <= set(self._waiting[0]) and set(writes) <= set(self._waiting[1])):
            self._ask_to_wake()

    def _ask_to_wake(self):
        try:
            broker.ask("network", "wake", None)
        except (OSError, RuntimeError):
            pass  # the cell ends

    def _wait(self):
        while (asked := self._asked.get()) is not None:
            reads, writes = asked
            try:
                payload = {"readable": reads, "writable": writes}
                self._found = broker.ask("network", "wait", payload)
            except (OSError, RuntimeError):
                # Whoever is told to go on hears why.
                self._found = {"readable": reads, "writable": writes}
            self._wake()

    def _look_at_what_was_found(self):
        found, self._found = self._found, None
        if found is None:
            return
        self._waiting = None
        for connection in self.all():
            connection.quiet &= connection.handle not in found["readable"]
            connection.blocked &= connection.handle not in found["writable"]
