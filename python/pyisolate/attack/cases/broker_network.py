"""Hosts, URLs and requests that lead where no policy lets them."""

import textwrap

from pyisolate.attack.asked import Asked, Ways
from pyisolate.attack.texts import BROKER, NAIVE

# --- hosts ---------------------------------------------------------------------------------------

REACHING = {
    "loopback": "127.0.0.1",
    "short": "127.1",
    "two parts": "127.0.1",
    "octal": "0177.0.0.1",
    "octal with zeros": "0000177.0.0.01",
    "hex": "0x7f.0.0.1",
    "hex capitals": "0X7F.0.0.1",
    "mixed": "0x7f.0.1",
    "decimal": "2130706433",
    "hex whole": "0x7f000001",
    "octal whole": "017700000001",
    "zero": "0",
    "zeros": "0.0.0.0",
    "mapped": "::ffff:127.0.0.1",
    "mapped hex": "::ffff:7f00:1",
    "mapped long": "0:0:0:0:0:ffff:7f00:0001",
    "name": "localhost",
    "capitals": "LOCALHOST",
    "wide digits": "１２７.0.0.1",
}
"""Spellings of loopback with which plain Python reaches a listener on this machine."""

OTHERS = {
    "another loopback": "127.0.0.2",
    "trailing dot": "127.0.0.1.",
    "name with a dot": "localhost.",
    "name in wide letters": "ｌｏｃａｌｈｏｓｔ",
    "circled digits": "①②⑦.0.0.1",
    "ideographic dots": "127。0。0。1",
    "soft hyphen": "local\u00adhost",
    "zero width": "local\u200bhost",
    "brackets": "[::1]",
    "brackets around four": "[127.0.0.1]",
    "six": "::1",
    "six long": "0:0:0:0:0:0:0:1",
    "compatible": "::127.0.0.1",
    "unspecified six": "::",
    "nat64": "64:ff9b::127.0.0.1",
    "nat64 hex": "64:ff9b::7f00:1",
    "6to4": "2002:7f00:1::",
    "teredo": "2001:0:7f00:1::80ff:fffe",
    "zone": "::1%lo",
    "zone number": "fe80::1%1",
    "link-local six": "fe80::1",
    "unique local": "fd00::1",
    "site-local": "fec0::1",
    "multicast six": "ff02::1",
    "metadata": "169.254.169.254",
    "metadata decimal": "2852039166",
    "metadata hex": "0xa9fea9fe",
    "metadata octal": "0251.0376.0251.0376",
    "metadata mapped": "::ffff:169.254.169.254",
    "metadata six": "fd00:ec2::254",
    "metadata nat64": "64:ff9b::a9fe:a9fe",
    "metadata of azure": "168.63.129.16",
    "link-local": "169.254.1.1",
    "private ten": "10.0.0.1",
    "private short": "10.1",
    "private 172": "172.16.0.1",
    "private 192": "192.168.0.1",
    "shared": "100.64.0.1",
    "benchmark": "198.18.0.1",
    "documentation": "203.0.113.1",
    "broadcast": "255.255.255.255",
    "multicast": "224.0.0.1",
    "this network": "0.0.0.1",
    "five parts": "127.0.0.1.1",
    "too large": "127.0.0.256",
    "overflow": "4294967296",
    "overflow to loopback": "6425673729",
    "userinfo": "example.org@127.0.0.1",
    "a port in it": "127.0.0.1:80",
    "percent": "%31%32%37.0.0.1",
    "percent dot": "127%2e0%2e0%2e1",
    "fragment": "127.0.0.1#.example.org",
    "question": "127.0.0.1?.example.org",
    "slash": "127.0.0.1/.example.org",
    "backslash": "127.0.0.1\\.example.org",
    "nul": "127.0.0.1\0.example.org",
    "line": "127.0.0.1\r\nx: .example.org",
    "tab": "127.0.0.1\t",
    "space": " 127.0.0.1",
    "space after": "127.0.0.1 ",
    "empty": "",
    "dot": ".",
    "dots": "127..0.0.1",
    "star": "*",
    "long": "a." * 600,
    "long label": "a" * 70 + ".example.org",
}
"""Spellings of what is not public, and of nothing."""

HOSTS = REACHING | OTHERS

_REFUSED = (
    "DENIED URLDenied ValueError UnicodeError UnicodeEncodeError gaierror URLError InvalidURL "
    "LookupError OverflowError TypeError LocationParseError"
)

WAYS = {
    "connect": "return net('connect', host=HOST, port=PORT, timeout=2)",
    "resolve": "need(net('resolve', host=HOST))",
    "http": "return net('http', method='GET', url=f'http://{HOST}:{PORT}/', timeout=2)",
    "create_connection": "socket.create_connection((HOST, PORT), 2).recv(9)",
    "connect_ex": "need(socket.socket().connect_ex((HOST, PORT)) == 0)",
    "urlopen": "urllib.request.urlopen(f'http://{HOST}:{PORT}/', timeout=2).read()",
    "http.client": "import http.client\n"
    "c = http.client.HTTPConnection(HOST, PORT, timeout=2); c.request('GET', '/')\n"
    "c.getresponse().read()",
}
HOST_REFUSED = _REFUSED

# --- ports ---------------------------------------------------------------------------------------

PORTS = [
    "0",
    "-1",
    "65536",
    "65536 + PORT",
    "'80'",
    "'PORT'",
    "None",
    "1.5",
    "b'80'",
    "1 << 70",
    "[80]",
]

# --- a request under a grant of GET below /v1 ----------------------------------------------------

_GET = "return net('http', method={m}, url={u}, headers={h}, body={b}, timeout=2)['status']"


def _request(
    url: str = "URL + '/v1/x'", method: str = "'GET'", headers: str = "[]", body: str = "b''"
) -> str:
    return _GET.format(m=method, u=url, h=headers, b=body)


_BAD = "DENIED ValueError"
PATHS = {
    "another folder": "/admin",
    "the folder above": "/",
    "a longer name": "/v1x",
    "a longer name with a dot": "/v1.bak",
    "dotdot": "/v1/../admin",
    "dotdot at the end": "/v1/..",
    "encoded dotdot": "/v1/%2e%2e/admin",
    "encoded capitals": "/v1/%2E%2E/admin",
    "half encoded": "/v1/.%2e/admin",
    "encoded slash": "/v1/..%2fadmin",
    "encoded slash, capitals": "/v1/..%2Fadmin",
    "encoded both": "/v1/%2e%2e%2fadmin",
    "encoded backslash": "/v1/..%5cadmin",
    "encoded both backslash": "/v1/%2e%2e%5cadmin",
    "backslash": "/v1/..\\admin",
    "backslashes": "\\admin",
    "semicolon": "/v1/..;/admin",
    "semicolon and more": "/v1/..;x=y/admin",
    "dotdot twice": "/v1/x/../../admin",
    "dot and dotdot": "/v1/./../admin",
    "slashes": "/v1//../admin",
    "many slashes": "/v1////../../../../admin",
    "first slashes": "//admin",
    "first slashes and host": "//127.0.0.1/admin",
    "capitals": "/V1/x",
    "encoded letter": "/%761/../admin",
    "twice encoded": "/%2576%31/x",
    "tab": "/v1/\t../admin",
    "line": "/v1/\r\n../admin",
    "nul": "/v1/\0/../admin",
    "encoded nul": "/v1/..%00/admin",
    "space": "/v1/../admin HTTP/1.1\r\nX: y",
    "wide dots": "/v1/．．/../admin",
    "overlong dots": "/v1/%c0%ae%c0%ae/../admin",
    "fragment": "/admin#/v1/",
    "query": "/admin?/v1/",
    "no digits": "/v1/%zz/../admin",
    "a user": "@127.0.0.1/v1/../admin",
}
"""Paths behind the site's address, under a grant of `/v1/`."""

SMUGGLED = [
    Asked(name, _request(**given), _BAD, recorded=None)
    for name, given in {
        "CONNECT": {"method": "'CONNECT'"},
        "TRACE": {"method": "'TRACE'"},
        "trace": {"method": "'trace'"},
        "another method": {"method": "'DELETE'"},
        "another method in small letters": {"method": "'delete'"},
        "a method with a space": {"method": "'GET '"},
        "a method with a path": {"method": "'GET /admin HTTP/1.1\\r\\nX:'"},
        "a method with a line": {"method": "'DELETE\\r\\n'"},
        "an empty method": {"method": "''"},
        "a method with NUL": {"method": "'GET\\0'"},
        "a method of another alphabet": {"method": "'ＧＥＴ'"},
        "a method with a dotless i": {"method": "'PATCH\\u0131'"},
        "a long method": {"method": "'G' * 10_000"},
        "a line in a value": {"headers": "[['X', 'a\\r\\nX-Injected: b']]"},
        "a line feed in a value": {"headers": "[['X', 'a\\nX-Injected: b']]"},
        "a return in a value": {"headers": "[['X', 'a\\rX-Injected: b']]"},
        "NUL in a value": {"headers": "[['X', 'a\\0X-Injected: b']]"},
        "a wide line feed": {"headers": "[['X', 'a\\u010aX-Injected: b']]"},
        "a wide return": {"headers": "[['X', 'a\\u560d\\u560aX-Injected: b']]"},
        "a line separator": {"headers": "[['X', 'a\\u2028X-Injected: b']]"},
        "a folded line": {"headers": "[['X', 'a\\r\\n b']]"},
        "a whole request in a value":
            {"headers": "[['X', 'a\\r\\n\\r\\nDELETE /admin HTTP/1.1\\r\\nHost: x']]"},
        "a line in a name": {"headers": "[['X\\r\\nX-Injected', 'b']]"},
        "a colon in a name": {"headers": "[['X-Injected: a\\r\\nY', 'b']]"},
        "a space in a name": {"headers": "[['X-Injected ', 'b']]"},
        "an empty name": {"headers": "[['', 'b']]"},
        "a name of another alphabet": {"headers": "[['X-Ínjected', 'b']]"},
        "another host": {"headers": "[['Host', 'example.org']]"},
        "another host's port": {"headers": "[['Host', '127.0.0.1:1']]"},
        "two hosts": {"headers": "[['Host', URL[7:]], ['HOST', 'example.org']]"},
        "a host with a space": {"headers": "[['Host ', 'example.org']]"},
        "a host with a user": {"headers": "[['host', 'x@' + URL[7:]]]"},
        "an empty host": {"headers": "[['host', '']]"},
        "chunks": {"method": "'POST'", "headers": "[['Transfer-Encoding', 'chunked']]",
                   "body": "b'0\\r\\n\\r\\nDELETE /admin HTTP/1.1\\r\\n\\r\\n'"},
        "chunks in capitals": {"headers": "[['TRANSFER-ENCODING', 'identity']]"},
        "chunks with a space": {"headers": "[['Transfer-Encoding ', 'chunked']]"},
        "chunks with an underscore":
            {"method": "'POST'", "headers": "[['Transfer-Encoding', ' chunked']]"},
        "an upgrade": {"headers": "[['Upgrade', 'h2c'], ['Connection', 'Upgrade']]"},
        "settings": {"headers": "[['HTTP2-Settings', 'AAMAAABk']]"},
        "te": {"headers": "[['TE', 'trailers']]"},
        "a trailer": {"headers": "[['Trailer', 'X']]"},
        "an expectation": {"headers": "[['Expect', '100-continue']]"},
        "a proxy's header": {"headers": "[['Proxy-Authorization', 'Basic eA==']]"},
        "too many headers": {"headers": "[['X', 'y']] * 5000"},
        "too long a header": {"headers": "[['X', 'y' * 1_000_000]]"},
        "a header of bytes": {"headers": "[[b'X', b'y']]"},
        "a header of three": {"headers": "[['X', 'y', 'z']]"},
        "headers as a dict": {"headers": "{'X': 'y'}"},
        "a url of bytes": {"url": "b'http://127.0.0.1/'"},
        "a url of a user": {"url": "URL.replace('//', '//user:pw@') + '/v1/x'"},
        "a url of an empty user": {"url": "URL.replace('//', '//@') + '/v1/x'"},
        "a url of two hosts": {"url": "URL + '@127.0.0.1:1/v1/x'"},
        "a url with a backslash for a host":
            {"url": "'http://127.0.0.1:1\\\\@' + URL[7:] + '/v1/'"},
        "a url with a line": {"url": "URL + '/v1/x HTTP/1.1\\r\\nX-Injected: b\\r\\n\\r\\n'"},
        "a url with a space": {"url": "URL + '/v1/x X-Injected'"},
        "a query with a line": {"url": "URL + '/v1/x?a\\r\\nX-Injected: b'"},
        "a url without slashes": {"url": "URL.replace('//', '') + '/v1/x'"},
        "a url with too many slashes": {"url": "URL.replace('//', '////') + '/v1/x'"},
        "a url with a long path": {"url": "URL + '/v1/' + 'x' * 100_000"},
        "another scheme": {"url": "'ftp' + URL[4:] + '/v1/x'"},
        "a file": {"url": "'file:///etc/passwd'"},
        "data": {"url": "'data:text/plain,x'"},
        "a local socket": {"url": "'http+unix://%2Ftmp%2Fs/v1/x'"},
        "https where http is granted": {"url": "'https' + URL[4:] + '/v1/x'"},
        "another port": {"url": "f'http://127.0.0.1:{CANARY}/v1/x'"},
        "a port with a plus": {"url": "'http://127.0.0.1:+' + URL[17:] + '/v1/x'"},
        "another address": {"url": "URL.replace('127.0.0.1', '127.0.0.2') + '/v1/x'"},
        "a name": {"url": "URL.replace('127.0.0.1', 'localhost') + '/v1/x'"},
        "an unknown key": {"body": "b'', proxy='http://127.0.0.1:1'"},
        "no certificate": {"body": "b'', verify=False"},
        "a body of text": {"body": "'x'"},
        "too many redirects": {"body": "b'', redirects=21"},
        "fewer redirects than none": {"body": "b'', redirects=-1"},
        "a body that is too long": {"method": "'POST'", "body": "b'x' * (40 << 20)"},
    }.items()
]  # fmt: skip

REACHES_THE_NAIVE = [
    "a line in a value", "a line feed in a value", "a line in a name", "a whole request in a value",
    "a method with a path", "a url with a line", "another host", "chunks", "a colon in a name",
    "another method", "TRACE", "a query with a line", "two hosts", "an upgrade",
]  # fmt: skip
"""Those that a client which writes what it is told sends as they are."""

REDIRECTS = {
    "another port": "http://127.0.0.1:{CANARY}/v1/",
    "another address": "http://127.0.0.2:{SITE}/v1/x",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "a name": "http://localhost:{SITE}/v1/x",
    "a decimal": "http://2130706433:{CANARY}/v1/x",
    "another path": "/admin",
    "a path above": "../admin",
    "an encoded path": "/v1/%2e%2e/admin",
    "no scheme": "//127.0.0.1:{CANARY}/v1/x",
    "backslashes": "\\\\127.0.0.1:{CANARY}\\v1",
    "a mixed slash": "/\\127.0.0.1:{CANARY}/v1",
    "a user": "http://user@127.0.0.1:{SITE}/v1/x",
    "another scheme": "https://127.0.0.1:{SITE}/v1/x",
    "a file": "file:///etc/passwd",
    "ftp": "ftp://127.0.0.1:{CANARY}/v1/x",
    "gopher": "gopher://127.0.0.1:{CANARY}/_x",
    "script": "javascript:alert(1)",
    "data": "data:text/plain,x",
    "nowhere": "http://",
    "itself": "/v1/itself",
    "a space": "http://127.0.0.1:{CANARY} /v1/",
    "a port over all": "http://127.0.0.1:99999/v1/",
}

# --- a connected socket --------------------------------------------------------------------------

_STREAM = (
    "s = socket.create_connection(('127.0.0.1', ECHO), 5)\n"
    "s.recv(7); s.settimeout(None); fd = s.fileno()\n"
)
_TO = (
    "to = struct.pack('=HH4s8x', 2, socket.htons(CANARY), bytes([127, 0, 0, 1]))\n"
    "nowhere = bytes(16)\n"
)
REAIMED = [
    Asked(name, _STREAM + _TO + "with s:\n" + textwrap.indent(body, "    "), refused, False, plain)
    for name, plain, body, refused in (
        ("connect again", False, "s.connect(('127.0.0.1', CANARY))", "EISCONN EPERM"),
        ("connect by libc", False, "of_libc('connect', fd, to, 16)", "EISCONN EPERM"),
        ("disconnect", True, "of_libc('connect', fd, nowhere, 16)", "EPERM"),
        ("disconnect and connect", True,
         "of_libc('connect', fd, nowhere, 16); of_libc('connect', fd, to, 16)", "EPERM"),
        ("shut down, disconnect, connect", True,
         "of_libc('shutdown', fd, 2)\nof_libc('connect', fd, nowhere, 16)\n"
         "of_libc('connect', fd, to, 16)", "EPERM"),
        ("disconnect and listen", True,
         "of_libc('connect', fd, nowhere, 16); of_libc('listen', fd, 5)", "EPERM"),
        ("listen", False, "of_libc('listen', fd, 5)", "EPERM EINVAL"),
        ("bind", False, "of_libc('bind', fd, struct.pack('=HH12x', 2, 0), 16)", "EPERM EINVAL"),
        ("bind by Python", False, "s.bind(('127.0.0.1', 0))", "EPERM EINVAL"),
        ("fast open", False,
         "s2 = socket.socket(); of_libc('sendto', s2.fileno(), b'x', 1, 0x20000000, to, 16)",
         "EPERM EOPNOTSUPP ENOTSUP EPIPE EISCONN ECONNRESET"),
        ("fast open of the stream", False,
         "of_libc('sendto', fd, b'x', 1, 0x20000000, to, 16)", "EPERM EISCONN EOPNOTSUPP ENOTSUP"),
        ("sendto elsewhere", False,
         "n = of_libc('sendto', fd, b'echo', 4, 0, to, 16)\n"
         "need(s.recv(9) != b'echo')", "EPERM EISCONN LookupError"),
        ("accept", False, "of_libc('accept', fd, None, None)", "EPERM EINVAL"),
        ("accept4", False, "of_libc('accept4', fd, None, None, 0)", "EPERM EINVAL"),
        ("repair", False,
         "s.setsockopt, of_libc('setsockopt', fd, 6, 19, b'\\1\\0\\0\\0', 4)",
         "EPERM ENOPROTOOPT EINVAL"),
        ("a device", False, "of_libc('setsockopt', fd, 1, 25, b'lo\\0', 3)", "EPERM"),
        ("marks", False, "of_libc('setsockopt', fd, 1, 36, b'\\1\\0\\0\\0', 4)", "EPERM"),
        ("source routes", False, "of_libc('setsockopt', fd, 0, 4, b'\\x01' * 4, 4)", "EPERM"),
        ("a protocol over it", False,
         "of_libc('setsockopt', fd, 6, 31, b'tls\\0', 4)", "EPERM ENOENT ENOPROTOOPT"),
        ("a stream of its own", True,
         "n = _socket.socket(2, 1); n.connect(('127.0.0.1', CANARY))", "EPERM EACCES"),
        ("a socket by libc", True,
         "n = of_libc('socket', 2, 1, 0); of_libc('connect', n, to, 16)", "EPERM EACCES"),
        ("datagrams", True,
         "_socket.socket(2, 2).sendto(b'x', ('127.0.0.1', CANARY))", "EPERM EACCES"),
        ("local sockets", True, "_socket.socket(1, 1)", "EPERM EACCES"),
        ("raw sockets", False, "_socket.socket(2, 3, 1)", "EPERM EACCES"),
        ("packets", False, "_socket.socket(17, 3, 0)", "EPERM EACCES EAFNOSUPPORT"),
        ("netlink", False, "_socket.socket(16, 3, 0)", "EPERM EACCES EAFNOSUPPORT"),
        ("datagrams by Python", True, "socket.socket(type=socket.SOCK_DGRAM)", "EPERM"),
        ("listening by Python", True, "socket.create_server(('127.0.0.1', 0))", "EPERM"),
        ("interfaces", False, "fcntl.ioctl(fd, 0x8912, bytes(40))", "EPERM"),
    )
]  # fmt: skip

# --- hosts as trials ------------------------------------------------------------------------------

_STAGE = """
import builtins
def fresh():
    return lambda: False
builtins.request = NaiveNetwork()
PORT = serve()
"""


def _way(name: str, body: str, host: str) -> Asked:
    # The function of a stand-in answers with a number; that it refused is no error of its own.
    refused = HOST_REFUSED + (" LookupError" if name == "connect_ex" else "")
    return Asked(name, f"HOST = {host!r}\n{body}", refused)


def _plain(name: str, host: str) -> bool:
    """Whether plain Python has this way to this host."""
    by_url = name in ("http", "urlopen")
    return host.isascii() or not (by_url or name == "http.client")


TRIALS = [
    Ways(
        f"host {spelling}",
        "hosts",
        tuple(_way(name, body, host) for name, body in WAYS.items() if _plain(name, host)),
        (BROKER, NAIVE, _STAGE),
        lambda asked, value, changed, token: True,
        "EAFNOSUPPORT EADDRNOTAVAIL gaierror",
    )
    for spelling, host in REACHING.items()
]
