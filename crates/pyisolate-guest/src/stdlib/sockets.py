# ruff: noqa: D103
# A stand-in's documentation is the native one's: see `Broker.like`.
"""Sockets: `socket`, over connections that the broker makes.

A cell cannot make a socket. `socket.socket` holds a descriptor that leads nowhere until `connect`
asks for a connection; what comes back takes its place, under the same number, and is native from
then on. Where the cell is handed no descriptors, one end of a pair takes it; see `streams`. A name is resolved by the broker, once, when it connects. Where the policy grants no
connection but requests by HTTP, the socket becomes one that understands nothing else; see `http`.
"""

import _socket
import errno
import os

broker = None
http = None
streams = None  # gives the module of that name

# A cell has no /etc/services.
_SERVICES = {
    "ftp": 21,
    "ssh": 22,
    "smtp": 25,
    "domain": 53,
    "http": 80,
    "pop3": 110,
    "imap": 143,
    "https": 443,
    "smtps": 465,
    "imaps": 993,
    "pop3s": 995,
    "postgresql": 5432,
}


def install(link, exchanges, by_messages):
    """Keeps what `patch` needs: the module of HTTP over the broker, and what gives that of
    connections by messages.
    """
    global broker, http, streams
    broker, http, streams = link, exchanges, by_messages


def patch(module):
    """Replaces what `socket` makes connections with."""
    module.socket = _socket_class(module)
    for function in (getaddrinfo, gethostbyname, gethostbyname_ex):
        broker.like(function, getattr(module, function.__name__))
        setattr(module, function.__name__, function)


def patch_urllib_request(module):
    """Makes a denial that `urlopen` wraps a PermissionError as well as the URLError that it is."""
    handler = module.AbstractHTTPHandler
    native = handler.do_open

    class URLDenied(module.URLError, PermissionError):
        pass

    URLDenied.__module__, URLDenied.__qualname__ = "urllib.error", "URLError"

    def do_open(self, http_class, req, **http_conn_args):
        try:
            return native(self, http_class, req, **http_conn_args)
        except module.URLError as error:
            if not isinstance(error.reason, PermissionError):
                raise
            denied = URLDenied(error.reason)
        denied.errno, denied.strerror = denied.reason.errno, denied.reason.strerror
        raise denied from denied.reason

    handler.do_open = broker.like(do_open, native)


# --- names ------------------------------------------------------------------------------------


def _is_number(host):
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return True
    return False


def _name(host):
    if isinstance(host, (bytes, bytearray)):
        host = bytes(host).decode("ascii")
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _port(port):
    if isinstance(port, (bytes, bytearray)):
        port = bytes(port).decode("ascii")
    if not isinstance(port, str):
        return port or 0
    if port.isdecimal() or port == "":
        return int(port or 0)
    if port not in _SERVICES:
        raise _socket.gaierror(_socket.EAI_SERVICE, f"a cell knows no service {port!r}: say a port")
    return _SERVICES[port]


def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
    host = None if host is None else _name(host)
    port = _port(port)
    if host is None or _is_number(host) or flags & _socket.AI_NUMERICHOST:
        flags &= ~_socket.AI_ADDRCONFIG
        found = _socket.getaddrinfo(host, port, family, type, proto, flags)
    else:
        # The name stands for its address: the broker resolves it when it connects.
        kind = type or _socket.SOCK_STREAM
        number = proto or {_socket.SOCK_STREAM: 6, _socket.SOCK_DGRAM: 17}.get(kind, 0)
        six = family == _socket.AF_INET6
        address = (host, port, 0, 0) if six else (host, port)
        canonical = host if flags & _socket.AI_CANONNAME else ""
        family = _socket.AF_INET6 if six else _socket.AF_INET
        found = [(family, kind, number, canonical, address)]
    import socket

    return [
        (socket.AddressFamily(family), socket.SocketKind(kind), *rest)
        for family, kind, *rest in found
    ]


def _resolve(name):
    try:
        addresses = broker.ask("network", "resolve", {"host": name})
    except OSError as error:
        raise _of_name(error, name) from None
    found = [address for address in addresses if ":" not in address]
    if not found:
        raise _socket.gaierror(_socket.EAI_NONAME, f"{name} has no IPv4 address")
    return found


def _of_name(error, name):
    """What does not resolve is a `gaierror`, which has no number of the kernel's."""
    if type(error) is not OSError or (error.errno or -1) > 0:
        return error
    text = (error.strerror or str(error)).rpartition("] ")[2]
    return _socket.gaierror(_socket.EAI_NONAME, text or f"{name} is not known")


def gethostbyname(hostname, /):
    return gethostbyname_ex(hostname)[2][0]


def gethostbyname_ex(hostname, /):
    name = _name(hostname)
    return (name, [], [name] if _is_number(name) else _resolve(name))


# --- connections ------------------------------------------------------------------------------

# Number to the socket that is not connected yet, weakly: `ssl` moves sockets by their number.
_unconnected = {}


def _leading_nowhere():
    """A socket whose other end is closed: it reads as ended and refuses writes."""
    ours, theirs = _socket.socketpair()
    theirs.close()
    return ours.detach()


def _socket_class(module):
    from _weakref import ref
    from contextlib import suppress

    native = module.socket
    flags = module.SOCK_NONBLOCK | module.SOCK_CLOEXEC

    class socket(native):  # noqa: N801
        def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
            self._postponed = None  # a list of what to set, until it is connected
            if fileno is not None:
                super().__init__(family, type, proto, fileno)
                before = _unconnected.get(fileno, lambda: None)()
                if before is not None and before.fileno() == fileno:
                    self._postponed = before._postponed
                    _unconnected[fileno] = ref(self)
                return
            family = module.AF_INET if family == -1 else family
            kind = module.SOCK_STREAM if type == -1 else type & ~flags
            if family not in (module.AF_INET, module.AF_INET6) or kind != module.SOCK_STREAM:
                raise broker.refusal("a cell has TCP connections, and no other sockets")
            super().__init__(family, kind, max(proto, 0), _leading_nowhere())
            self._postponed = []
            _unconnected[self.fileno()] = ref(self)
            if type != -1 and type & module.SOCK_NONBLOCK:
                self.setblocking(False)

        def _real_close(self, *args):
            if self._postponed is not None:
                _unconnected.pop(self.fileno(), None)
            else:
                self._end()
            super()._real_close(*args)

        def _end(self):
            # The broker holds the connection too, so closing it here tells the peer nothing.
            if self.family in (module.AF_INET, module.AF_INET6):
                with suppress(OSError):
                    native.shutdown(self, module.SHUT_RDWR)

        def __del__(self):
            # Of a socket that nobody closed the descriptor goes by itself, the connection does not.
            if getattr(self, "_postponed", self) is None and self.fileno() >= 0:
                self._end()
            native.__del__(self)

        def connect(self, address, /):
            if self._postponed is None:
                return super().connect(address)
            host, port = _name(address[0]) or "0.0.0.0", _port(address[1])
            payload = {"host": host, "port": port}
            if timeout := self.gettimeout():
                payload["timeout"] = timeout
            try:
                value, descriptor = broker.ask_for_descriptor("network", "connect", payload)
            except OSError as error:
                told = _of_name(error, host)
            else:
                return self._take_connection(value, descriptor, host, port)
            raise told

        def _take_connection(self, value, descriptor, host, port):
            if descriptor is None and "handle" in value:
                streams().adopt(self, value)
            elif descriptor is None:
                http.adopt(self, host, port)
            else:
                try:
                    os.dup2(descriptor, self.fileno(), inheritable=False)
                finally:
                    os.close(descriptor)
            options, self._postponed = self._postponed, None
            _unconnected.pop(self.fileno(), None)
            self.settimeout(self.gettimeout())  # the number leads to another file now
            for option in options:
                self.setsockopt(*option)

        def connect_ex(self, address, /):
            try:
                self.connect(address)
            except TimeoutError:
                return errno.ETIMEDOUT
            except OSError as error:
                return error.errno or errno.EACCES
            return 0

        def bind(self, address, /):
            raise broker.refusal(
                "a cell cannot listen, or choose the address that it connects from"
            )

        def listen(self, backlog=0, /):
            raise broker.refusal("a cell cannot listen: it has the connections that it makes")

        def getpeername(self):
            if self._postponed is not None:
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            told = super().getpeername()
            # One end of a pair has no name of its own.
            return told if isinstance(told, tuple) else streams().peer(self.fileno())

        def getsockname(self):
            if self._postponed is not None:
                six = self.family == module.AF_INET6
                return ("::", 0, 0, 0) if six else ("0.0.0.0", 0)
            told = super().getsockname()
            return told if isinstance(told, tuple) else streams().own(self.fileno())

        def setsockopt(self, *option):
            if self._postponed is not None:
                self._postponed.append(option)
                return
            try:
                super().setsockopt(*option)
            except OSError as error:
                # The jail lets a few options through. The others tune what works without them.
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOPROTOOPT):
                    raise

        def getsockopt(self, level, name, *length):
            if self._postponed is not None:
                for option in reversed(self._postponed):
                    if option[:2] == (level, name):
                        return option[2]
                if level != module.SOL_SOCKET:
                    return bytes(*length) if length else 0
            return super().getsockopt(level, name, *length)

    broker.like(socket, native)
    return socket
