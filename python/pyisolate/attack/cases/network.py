"""Attacks on the network, and on sockets that need none."""

from pyisolate.attack.case import Attack

# No socket of any family can be made.
_NO_SOCKET = "EPERM"
_IPV4 = """
def address():
    # struct sockaddr_in
    return struct.pack("=H", 2) + struct.pack("!H4s8x", world["{port}"], bytes([127, 0, 0, 1]))
"""
_UNIX = """
def address():
    # struct sockaddr_un
    return struct.pack("=H", 1) + {name}.encode() + b"\\0"
"""


def _raw_connect(kind: int, family: int, address: str) -> str:
    return f"""{address}
descriptor = raw("socket", {family}, {kind}, 0)
raw("connect", descriptor, address(), len(address()) - {1 if family == 1 else 0})
return raw("sendto", descriptor, b"hello", 5, 0, 0, 0)
"""


_TCP, _UDP = _IPV4.format(port="tcp_port"), _IPV4.format(port="udp_port")

ATTACKS = [
    Attack(
        "tcp: socket",
        """
        import socket
        with socket.create_connection(("127.0.0.1", world["tcp_port"]), timeout=5) as peer:
            return peer.send(b"hello")
        """,
        _NO_SOCKET,
    ),
    Attack(
        "tcp: asyncio",
        """
        import asyncio
        asyncio.run(asyncio.open_connection("127.0.0.1", world["tcp_port"]))
        """,
        _NO_SOCKET,
    ),
    Attack(
        "tcp: http",
        """
        import http.client
        return http.client.HTTPConnection("127.0.0.1", world["tcp_port"], timeout=5).connect()
        """,
        _NO_SOCKET,
    ),
    Attack("tcp: raw", _raw_connect(1, 2, _TCP), _NO_SOCKET),
    Attack(
        "tcp: listen",
        "import socket; socket.create_server(('127.0.0.1', 0)).close()",
        _NO_SOCKET,
    ),
    Attack(
        "udp: socket",
        """
        import socket
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            return sender.sendto(b"hello", ("127.0.0.1", world["udp_port"]))
        """,
        _NO_SOCKET,
    ),
    Attack("udp: raw", _raw_connect(2, 2, _UDP), _NO_SOCKET),
    Attack(
        "unix: stream",
        """
        import socket
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(world["unix_stream"])
            return peer.send(b"hello")
        """,
        _NO_SOCKET,
    ),
    Attack(
        "unix: datagram",
        """
        import socket
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            return sender.sendto(b"hello", world["unix_datagram"])
        """,
        _NO_SOCKET,
    ),
    Attack("unix: raw", _raw_connect(1, 1, _UNIX.format(name="world['unix_stream']")), _NO_SOCKET),
    Attack(
        "abstract: socket",
        """
        import socket
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect("\\0" + world["abstract"])
            return peer.send(b"hello")
        """,
        _NO_SOCKET,
    ),
    Attack(
        "abstract: raw",
        _raw_connect(1, 1, _UNIX.format(name="('\\0' + world['abstract'])")),
        _NO_SOCKET,
    ),
    Attack(
        "netlink: socket",
        """
        import socket
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as kernel:
            kernel.bind((0, 0))
        """,
        _NO_SOCKET,
    ),
    Attack(
        "netlink: raw",
        """
        descriptor = raw("socket", 16, 3, 0)
        raw("bind", descriptor, struct.pack("=HHII", 16, 0, 0, 0), 12)
        """,
        _NO_SOCKET,
    ),
    Attack(
        "vsock: socket",
        "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()",
        _NO_SOCKET,
        lacking="EAFNOSUPPORT",
    ),
    Attack("vsock: raw", "os.close(raw('socket', 40, 1, 0))", _NO_SOCKET, lacking="EAFNOSUPPORT"),
    Attack(
        "raw ip: socket",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()",
        _NO_SOCKET,
        privileged=True,
    ),
    Attack("raw ip: raw", "os.close(raw('socket', 2, 3, 1))", _NO_SOCKET, privileged=True),
    Attack(
        "packet: socket",
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()",
        _NO_SOCKET,
        privileged=True,
        lacking="EAFNOSUPPORT",
    ),
    Attack(
        "interfaces: their names", "import socket; return socket.if_nameindex()[0][1]", _NO_SOCKET
    ),
    Attack(
        "pair: datagram, which can name another socket",
        """
        import socket
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with left, right:
            return left.sendto(b"hello", world["unix_datagram"])
        """,
        _NO_SOCKET,
    ),
    Attack(
        "pair: datagram, raw",
        "return raw('socketpair', 1, 2, 0, (ctypes.c_int * 2)())",
        _NO_SOCKET,
    ),
    Attack(
        "the channel: connect it elsewhere",
        """
        # Through whatever socket there is, or else one of its own making.
        descriptor = None
        for number in range(3, 64):
            try:
                raw("getsockname", number, bytes(128), ctypes.byref(ctypes.c_int(128)))
            except OSError:
                continue
            descriptor = number
        if descriptor is None:
            descriptor = raw("socket", 1, 1, 0)
        name = struct.pack("=H", 1) + world["unix_stream"].encode()
        raw("connect", descriptor, name, len(name))
        """,
        "EPERM",
    ),
]
