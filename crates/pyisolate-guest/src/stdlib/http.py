# ruff: noqa: PTH123
"""HTTP through the broker, for programs that talk to sockets.

Where the policy grants requests and no connections, a socket collects the bytes that a client
writes, takes the request apart, has the broker do it, and serves the answer as HTTP/1.1 bytes. Over
`https` the broker speaks TLS, and the client's wrapping of the socket only says so.
"""

import _socket
import errno
import os

broker = None

# What belongs to the client's connection and not to the request.
_OF_THE_CONNECTION = frozenset(
    (
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
# The longest head of a request that is still looked at, in bytes.
HEAD_BYTES_MAX = 1 << 20


def install(link):
    """Keeps the broker."""
    global broker
    broker = link


class Exchange:
    """The requests and answers of one connection."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.scheme = "http"
        self._asked = bytearray()
        self._answer = bytearray()
        self._body = None  # the rest of the answer's body, at the broker
        self._chunked = False
        self._left = None  # how many bytes of the body are still to come, if that was said
        self._last = False  # after this answer the connection ends
        self._ended = False
        self._continued = False

    def write(self, data):
        """Takes bytes of a request."""
        if self._ended:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        self._asked += data

    def read(self, length, timeout, peek=False):
        """Up to `length` bytes of an answer; none at the end of the connection."""
        while not self._answer:
            if self._body is not None:
                self._more()
            elif self._ended:
                return b""
            else:
                self._next(timeout)
        data = bytes(self._answer[:length])
        if not peek:
            del self._answer[:length]
        return data

    def end(self):
        """Lets go of what the broker holds for this connection."""
        self._ended = True
        self._asked.clear()
        self._answer.clear()
        handle, self._body = self._body, None
        if handle is not None:
            broker.ask("network", "close", {"handle": handle})

    def _next(self, timeout):
        request = self._take()
        if request is not None:
            self._do(*request, timeout)
        elif self._answer:
            return
        elif timeout == 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        else:
            raise ConnectionAbortedError(
                errno.ECONNABORTED,
                "reading before a whole HTTP request was sent: the policy grants requests by HTTP "
                f"to {self.host}:{self.port}, and no connection for anything else",
            )

    # --- requests -----------------------------------------------------------------------------

    def _take(self):
        """Takes one whole request out of the bytes; None if it is not whole yet."""
        end = self._asked.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        if end < 0:
            if len(self._asked) > HEAD_BYTES_MAX:
                raise OSError(errno.EMSGSIZE, "the head of the HTTP request is too long")
            return None
        first, *lines = self._asked[:end].decode("latin-1").split("\r\n")
        method, target, version = [*first.split(" "), "", ""][:3]
        if not version.startswith("HTTP/1."):
            raise OSError(errno.EPROTO, f"this is no HTTP/1 request: {first[:80]!r}")
        headers = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise OSError(errno.EPROTO, f"this is no HTTP header: {line[:80]!r}")
            headers.append((name, value.strip(" \t")))
        told = {name.lower(): value for name, value in headers}
        if "chunked" in told.get("transfer-encoding", "").lower():
            taken = _dechunk(self._asked, end + 4)
        else:
            taken = self._counted(end + 4, told.get("content-length", "0"))
        if taken is None:
            if not self._continued and "100-continue" in told.get("expect", "").lower():
                self._continued = True
                self._answer += b"HTTP/1.1 100 Continue\r\n\r\n"
            return None
        body, end = taken
        del self._asked[:end]
        self._continued = False
        return method, target, version, told, headers, body

    def _counted(self, start, length):
        if not (length.isascii() and length.isdecimal()):
            raise OSError(errno.EPROTO, f"this is no length: {length[:80]!r}")
        end = start + int(length)
        return None if len(self._asked) < end else (bytes(self._asked[start:end]), end)

    def _url(self, target):
        if not target.startswith("/"):
            if "://" in target:
                return target
            raise OSError(errno.EPROTO, f"this is no target of a request: {target[:80]!r}")
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        port = "" if self.port == usual else f":{self.port}"
        return f"{self.scheme}://{host}{port}{target}"

    def _do(self, method, target, version, told, headers, body, timeout):
        payload = {
            "method": method,
            "url": self._url(target),
            "headers": [
                [name, value] for name, value in headers if name.lower() not in _OF_THE_CONNECTION
            ],
            "body": body,
            "redirects": 0,
        }
        if timeout:
            payload["timeout"] = timeout
        try:
            answer = broker.ask("network", "http", payload)
        except BaseException:
            self._ended = True
            raise
        wish = told.get("connection", "").lower()
        self._last = "close" in wish or (version == "HTTP/1.0" and "keep-alive" not in wish)
        self._serve(answer, method, version)

    # --- answers ------------------------------------------------------------------------------

    def _serve(self, answer, method, version):
        status, body, handle = answer["status"], answer["body"], answer["handle"]
        given, lines = None, []
        for name, value in answer["headers"]:
            if name.lower() == "content-length":
                given = value
            if name.lower() not in _OF_THE_CONNECTION:
                lines.append(f"{name}: {value}")
        bodiless = method == "HEAD" or status in (204, 304) or status < 200
        self._chunked, self._left = False, None
        if bodiless:
            if given is not None:
                lines.append(f"Content-Length: {given}")
        elif handle is None:
            lines.append(f"Content-Length: {len(body)}")
        elif given is not None and given.isdecimal():
            lines.append(f"Content-Length: {given}")
            self._left = int(given)
        elif version == "HTTP/1.0":
            self._last = True
        else:
            lines.append("Transfer-Encoding: chunked")
            self._chunked = True
        if self._last:
            lines.append("Connection: close")
        head = "\r\n".join([f"HTTP/1.1 {status} {answer.get('reason') or ''}", *lines, "", ""])
        self._answer += head.encode("latin-1", "replace")
        self._body = handle
        if not bodiless:
            self._add(body)
        if handle is None:
            self._finish()
        elif bodiless:
            self._body = None
            broker.ask("network", "close", {"handle": handle})
            self._finish()

    def _add(self, data):
        if not data:
            return
        if self._left is not None:
            self._left -= len(data)
        if self._chunked:
            self._answer += b"%x\r\n" % len(data)
        self._answer += data
        if self._chunked:
            self._answer += b"\r\n"

    def _more(self):
        try:
            data = broker.ask("network", "receive", {"handle": self._body})
        except TimeoutError:
            raise  # it can be asked for again
        except BaseException:
            self._body = None
            self._ended = True
            raise
        if data:
            self._add(data)
            return
        self._body = None
        if self._chunked:
            self._answer += b"0\r\n\r\n"
        self._finish()

    def _finish(self):
        # A body that ended before its length was reached ends the connection, which says so.
        if self._last or self._left:
            self._ended = True


def _dechunk(data, at):
    """The body in chunks that begins at `at`, and where it ends; None if it is not whole."""
    body = bytearray()
    while (end := data.find(b"\r\n", at)) >= 0:
        try:
            size = int(bytes(data[at:end]).partition(b";")[0], 16)
        except ValueError:
            raise OSError(errno.EPROTO, "this is no chunk of a body") from None
        at = end + 2
        if size == 0:
            # Trailers, which a request has no use for, and the empty line.
            while (end := data.find(b"\r\n", at)) >= 0:
                if end == at:
                    return bytes(body), end + 2
                at = end + 2
            return None
        if len(data) < at + size + 2:
            return None
        body += data[at : at + size]
        at += size + 2
    return None


# --- the sockets ------------------------------------------------------------------------------

_classes = {}


def _become(socket, kind):
    """Makes a socket one of another kind, whatever the class that the guest made of it."""
    old = type(socket)
    new = _classes.get((kind, old))
    if new is None:
        new = _classes[kind, old] = type(old.__name__, (kind, old), {"__module__": old.__module__})
    socket.__class__ = new


def adopt(socket, host, port):
    """Makes an unconnected socket one that does requests through the broker."""
    if hasattr(socket, "_sslobj"):
        raise broker.refusal(
            f"the policy grants requests by HTTP to {host}:{port}, and no connection: "
            "wrap the socket after it is connected"
        )
    # A pair whose other end stays open: a client that looks sees a connection that is quiet.
    ours, socket._other_end = _socket.socketpair()
    os.dup2(ours.fileno(), socket.fileno(), inheritable=False)
    ours.close()
    socket._exchange = Exchange(host, port)
    _become(socket, _HttpSocket)


class _HttpSocket:
    __slots__ = ()

    def send(self, data, flags=0, /):
        with memoryview(data) as view:
            self._exchange.write(view)
            return view.nbytes

    def sendall(self, data, flags=0, /):
        self.send(data)

    def sendmsg(self, buffers, *rest):
        return sum(map(self.send, buffers))

    def sendfile(self, file, offset=0, count=None):
        return self._sendfile_use_send(file, offset, count)

    def recv(self, size, flags=0, /):
        return self._exchange.read(size, self.gettimeout(), bool(flags & _socket.MSG_PEEK))

    def recv_into(self, buffer, nbytes=0, flags=0):
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = self.recv(nbytes or len(octets), flags)
            octets[: len(data)] = data
        return len(data)

    def recvfrom(self, size, flags=0, /):
        return self.recv(size, flags), None

    def shutdown(self, how, /):
        if how != _socket.SHUT_WR:
            self._exchange.end()

    def getpeername(self):
        return (self._exchange.host, self._exchange.port)

    def getsockname(self):
        return ("0.0.0.0", 0)

    def setsockopt(self, *option):
        pass  # it would tune a connection that is not there

    def _real_close(self, *args):
        exchange = self._exchange
        self._other_end.close()
        super()._real_close(*args)
        exchange.end()


def patch_ssl(ssl):
    """Has `wrap_socket` leave the encryption of the broker's requests to the broker."""
    native = ssl.SSLContext.wrap_socket
    native_load = ssl.SSLContext.load_verify_locations

    def wrap_socket(self, sock, server_side=False, *args, server_hostname=None, **options):
        if not isinstance(sock, _HttpSocket):
            return native(
                self, sock, server_side, *args, server_hostname=server_hostname, **options
            )
        sock._exchange.scheme = "https"
        sock.context, sock.server_hostname = self, server_hostname
        _become(sock, _SecureSocket)
        return sock

    def load_verify_locations(self, cafile=None, capath=None, cadata=None):
        try:
            return native_load(self, cafile, capath, cadata)
        except OSError as error:
            # C code opens the file, which may be one that is asked for.
            if cafile is None or broker.path_elsewhere(cafile, error) is None:
                raise
        with open(cafile, encoding="ascii", errors="ignore") as file:
            found = file.read()
        native_load(self, None, capath, found)
        if cadata is not None:
            native_load(self, None, None, cadata)
        return None

    native_defaults = ssl.SSLContext.load_default_certs

    def load_default_certs(self, purpose=ssl.Purpose.SERVER_AUTH):
        native_defaults(self, purpose)
        if self.cert_store_stats()["x509_ca"]:
            return
        # A cell has no store of certificates, except that of a package.
        try:
            import certifi
        except ImportError:
            return
        native_load(self, certifi.where())

    ssl.SSLContext.load_default_certs = broker.like(load_default_certs, native_defaults)
    ssl.SSLContext.wrap_socket = broker.like(wrap_socket, native)
    ssl.SSLContext.load_verify_locations = broker.like(load_verify_locations, native_load)


class _SecureSocket:
    """Answers what clients ask a TLS socket. The broker has checked the server's certificate."""

    __slots__ = ()
    server_side = False
    session = None
    session_reused = False

    def version(self):
        return "TLSv1.3"

    def getpeercert(self, binary_form=False):
        return None if binary_form else {}

    def get_verified_chain(self):
        return []

    def get_unverified_chain(self):
        return []

    def cipher(self):
        return None

    def shared_ciphers(self):
        return None

    def compression(self):
        return None

    def selected_alpn_protocol(self):
        return None

    def selected_npn_protocol(self):
        return None

    def get_channel_binding(self, cb_type="tls-unique"):
        return None

    def pending(self):
        return 0

    def do_handshake(self, block=False):
        pass

    def unwrap(self):
        return self

    def read(self, len=1024, buffer=None):
        return self.recv(len) if buffer is None else self.recv_into(buffer, len)

    def write(self, data):
        return self.send(data)
