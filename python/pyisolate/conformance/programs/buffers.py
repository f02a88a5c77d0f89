"""Large contents arrive whole, in both directions, whichever way a backend carries them."""

from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("buffers")

SIZES = (
    0, 1, 4095, 4096, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 1 << 20, (4 << 20) + 1,
)  # fmt: skip
"""In bytes: around the places where something carries them another way."""

KINDS = {
    "bytes": "data",
    "bytearray": "bytearray(data)",
    "str": "data.decode('latin-1')",
    "a list of three": "[data[:-1], bytearray(data), data]",
}


def _out(size: int, made: str) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn()
        cell.exec(f"data = (bytes(range(251)) * {size // 251 + 1})[:{size}]\npost({made})")
        cell.recv()

    return steps


def _there_and_back(size: int, made: str) -> Steps:
    def steps(host: Host) -> None:
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        cell = host.spawn()
        cell.exec("def back(value): return value")
        cell.call("__main__.back", eval(made, {"data": data, "bytearray": bytearray}))

    return steps


for _kind, _made in KINDS.items():
    for _size in SIZES:
        GROUP.add(f"out/{_kind} of {_size}", _out(_size, _made))
        GROUP.add(f"there and back/{_kind} of {_size}", _there_and_back(_size, _made))


@GROUP.program()
def many_in_a_row(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("for number in range(40): post(bytes([number]) * 300_000)")
    cell.recv(40)
    cell.wait(handle)


@GROUP.program()
def many_in_a_row_to_the_guest(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("for _ in range(20):\n  got = recv(20)\n  post((len(got), got[:1]))")
    for number in range(20):
        cell.post(bytes([number]) * 300_000)
        cell.recv()
    cell.wait(handle)


@GROUP.program()
def large_sources_run(host: Host) -> None:
    cell = host.spawn()
    cell.exec("x = 1\n" * 100_000 + "post(x)")
    cell.recv()


@GROUP.program()
def a_log_with_large_fields(host: Host) -> None:
    host.spawn().run("log('info', 'm', data=b'x' * 200_000, text='y' * 200_000)")


@GROUP.program()
def a_request_with_large_contents(host: Host) -> None:
    cell = host.spawn(capabilities={"echo": lambda payload: payload})
    cell.run("data = bytes(range(256)) * 4000\npost(request('echo', 'x', data) == data)")


_ARRAYS = {
    "float64": "numpy.arange(12, dtype='f8').reshape(3, 4)",
    "int of each size": "[numpy.arange(-2, 3).astype(f'i{n}') for n in (1, 2, 4, 8)]",
    "bool": "numpy.array([True, False])",
    "complex": "numpy.array([1j, 2])",
    "text": "numpy.array(['a', 'bcd'])",
    "times": "numpy.array(['2024-01-01', 'NaT'], dtype='M8[D]')",
    "records": "numpy.array([(1, 2.5)], dtype=[('a', 'i4'), ('b', 'f8')])",
    "empty": "numpy.zeros((0, 3))",
    "fortran order": "numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3))",
    "every second": "numpy.arange(10.0)[::2]",
    "large": "numpy.arange(200_000.0)",
    "scalars": "[numpy.float32(1.5), numpy.int64(-1), numpy.bool_(True)]",
    "big endian": "numpy.arange(3, dtype='>i4')",
}
GROUP.sources(
    {f"numpy/{name}": f"import numpy\npost({made})" for name, made in _ARRAYS.items()},
    imports=["numpy"],
    needs=["numpy"],
)
