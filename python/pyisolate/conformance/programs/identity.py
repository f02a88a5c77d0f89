"""What was one object is one object on the other side, and messages share nothing."""

from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group

GROUP = Group("identity")

GROUP.sources(
    {
        "a list twice": "shared = [1]\npost([shared, shared])",
        "equal lists are two": "post([[1], [1]])",
        "a dict below a list": "shared = {'a': 1}\npost([shared, {'again': shared}])",
        "a set twice": "shared = {1}\npost((shared, [shared]))",
        "a bytearray twice": "shared = bytearray(b'ab')\npost([shared, shared])",
        "a large bytearray twice": "shared = bytearray(100_000)\npost([shared, shared])",
        "a chain": "one = []\ntwo = [one]\nthree = [one, two]\npost([three, two, one])",
        "wide sharing": "level = [0]\nfor _ in range(12): level = [level, level]\npost(level)",
        "messages share nothing": "shared = [1]\npost(shared)\nshared.append(2)\npost(shared)",
        "log and post share nothing": "shared = [1]\nlog('info', 'm', a=shared)\npost(shared)",
        "a list changed after its post": "data = [1]\npost(data)\ndata.append(2)",
        "a large bytearray changed after its post": (
            "data = bytearray(200_000)\npost(data)\ndata[0] = 1\npost(data)"
        ),
    }
)


@GROUP.program()
def identity_survives_the_way_in(host: Host) -> None:
    cell = host.spawn()
    shared = [1]
    cell.post([shared, {"again": shared}, [1]])
    cell.exec("a, b, c = recv(10)\npost([a is b['again'], a is c, a == c])")
    cell.recv()


@GROUP.program()
def arguments_share(host: Host) -> None:
    cell = host.spawn()
    cell.exec("def f(a, b, *, c): return [a is b, a is c]")
    shared = {"k": 1}
    cell.call("__main__.f", shared, shared, c=shared)


@GROUP.program()
def the_host_may_change_what_it_got(host: Host) -> None:
    cell = host.spawn()
    cell.exec("data = [[1], {'a': set()}, bytearray(b'x'), bytearray(100_000)]\npost(data)")
    got = cell.recv()
    got[0].append(2)
    got[1]["a"].add(3)
    got[2].extend(b"yz")
    got[3][0] = 9
    host.told("changed", got)
    cell.run("post(data)")


@GROUP.program()
def the_guest_may_change_what_it_got(host: Host) -> None:
    cell = host.spawn()
    data = [[1], bytearray(100_000)]
    cell.post(data)
    cell.exec("got = recv(10)\ngot[0].append(2)\ngot[1][0] = 9\npost([got[0], got[1][0]])")
    cell.recv()
    host.told("the host's own", [data[0], data[1][0]])
