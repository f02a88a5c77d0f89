"""Each limit ends its own cell, with its own error that names it, and nobody else's."""

from typing import Any

from pyisolate.conformance.host import Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("limits")
MIB = 1 << 20


def _ended(source: str, says: str, imports: tuple[str, ...] = (), **limits: int) -> Steps:
    """An `exec` that runs into a limit: its handle, every later operation, and the next cell."""

    def steps(host: Host) -> None:
        cell = host.spawn(allowed_imports=imports, **limits)
        handle = cell.start(source)
        cell.wait(handle, says=[says])
        cell.death(says=[says], quiet=True)
        _all_say_so(host, cell.cell)
        host.still_serves()

    return steps


def _all_say_so(host: Host, cell: Any) -> None:
    """Every operation on a cell that ended raises the reason."""
    for name, operation in (
        ("recv", lambda: cell.recv(0)),
        ("exec", lambda: cell.exec("pass")),
        ("call", lambda: cell.call("math.sqrt", 2)),
        ("post", lambda: cell.post(1)),
    ):
        host.write(f"{name} after the end")
        host.attempt(operation)


# The last one is a single C call. It ends by itself after seconds, so that a wall that cannot cut
# it short does not leave a busy thread with whoever runs this suite.
_WALL = {
    "spinning": "while True: pass",
    "waiting for a message": "recv()",
    "a slow int": "x = 7 ** (7 ** 8)",
}
_CPU = {"spinning": "while True: pass", "computing": "x = 0\nwhile True: x = (x * 7 + 1) % 1000"}
_MEMORY = {
    "all at once": "data = bytearray(10**9)",
    "by pieces": "data = []\nwhile True: data.append(bytearray(1 << 20))",
    "by doubling": "data = 'x'\nwhile True: data += data",
    "by a dict": "data = {}\nfor number in range(10**9): data[number] = str(number)",
    "by a list": "data = [0] * 10**9",
    "by an int": "x = 1 << (8 * 10**9)",
    "in a function": "def f(): return bytes(10**9)\nf()",
}
_OUTPUT = {
    "lines": "while True: print('x' * 1000)",
    "line ends": "while True: print()",
    "stderr": "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
    "logs": "while True: log('info', 'x' * 1000)",
    "one line": "print('x' * 5_000_000)",
}
for _name, _source in _WALL.items():
    GROUP.add(f"wall time/{_name}", _ended(_source, "wall_time_ms=200", wall_time_ms=200))
for _name, _source in _CPU.items():
    GROUP.add(f"cpu time/{_name}", _ended(_source, "cpu_ms=200", cpu_ms=200))
for _name, _source in _MEMORY.items():
    GROUP.add(f"memory/{_name}", _ended(_source, f"mem_bytes={64 * MIB}", mem_bytes=64 * MIB))
for _name, _source in _OUTPUT.items():
    GROUP.add(
        f"output/{_name}",
        _ended(_source, "output_bytes_max=50000", ("sys",), output_bytes_max=50_000),
    )

_CHILDREN = """\
import threading
gate = threading.Event()
while True: threading.Thread(target=gate.wait, daemon=True).start()
"""
GROUP.add(
    "threads/one after another",
    _ended(_CHILDREN, "child_work_max=8", ("threading",), child_work_max=8),
    ["threads"],
)
for _name, _source in {
    "open": "kept = []\nwhile True: kept.append(open('/dev/null'))",
    "os.open": "import os\nwhile True: os.open('/dev/null', os.O_RDONLY)",
    "dup": "import os\nwhile True: os.dup(0)",
    "pipe": "import os\nwhile True: os.pipe()",
}.items():
    GROUP.add(
        f"open files/{_name}",
        _ended(_source, "open_files_max=32", ("os",), open_files_max=32),
        ["descriptor table"],
    )


def _called(source: str, says: str, **limits: int) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn(**limits)
        cell.exec(f"def f():\n    {source}")
        cell.failing_call("__main__.f", says=[says])
        cell.death(says=[says], quiet=True)
        host.still_serves()

    return steps


GROUP.add("call/wall time", _called("while True: pass", "wall_time_ms=1000", wall_time_ms=1000))
GROUP.add("call/cpu time", _called("while True: pass", "cpu_ms=1000", cpu_ms=1000))
GROUP.add("call/memory", _called("bytes(10**9)", "mem_bytes=67108864", mem_bytes=64 * MIB))
GROUP.add(
    "call/output", _called("while True: print('x' * 9000)", "output_bytes", output_bytes_max=50_000)
)


@GROUP.program()
def wall_time_is_each_operations_own(host: Host) -> None:
    cell = host.spawn(wall_time_ms=2000)
    for number in range(3):
        cell.exec("try: recv(0.8)\nexcept TimeoutError: pass")
        host.told("number", number)
    cell.run("post('still here')")


@GROUP.program()
def wall_time_does_not_run_while_the_cell_is_idle(host: Host) -> None:
    cell = host.spawn(wall_time_ms=1000)
    cell.exec("pass")
    cell.recv(timeout=1.5)
    cell.run("post('still here')")


@GROUP.program()
def cpu_time_adds_up_over_operations(host: Host) -> None:
    cell = host.spawn(cpu_ms=300)
    for _ in range(2000):
        try:
            cell.cell.exec("for _ in range(100_000): pass")
        except Exception as error:
            host.error(error, says=["cpu_ms=300"])
            break
    cell.death(quiet=True)
    host.still_serves()


@GROUP.program()
def a_guest_may_handle_its_want_of_memory(host: Host) -> None:
    cell = host.spawn(mem_bytes=64 * MIB)
    cell.run("try: bytearray(10**9)\nexcept MemoryError: post('handled')")
    cell.run("post('still here')")


@GROUP.program()
def a_memory_error_without_want_is_taken_for_the_limit(host: Host) -> None:
    cell = host.spawn()
    cell.exec("raise MemoryError('own')")
    cell.death()


@GROUP.program()
def memory_below_the_limit_is_given(host: Host) -> None:
    cell = host.spawn(mem_bytes=256 * MIB)
    cell.run("data = bytearray(150 * 1024 * 1024); post(len(data))")
    cell.run("del data\ndata = bytearray(150 * 1024 * 1024); post(len(data))")


@GROUP.program()
def output_before_the_limit_arrives(host: Host) -> None:
    cell = host.spawn(output_bytes_max=10_000)
    cell.start("print('first')\nprint('second')\nprint('x' * 50_000)")
    cell.recv(2)
    cell.death(says=["output_bytes_max=10000"], quiet=True)


@GROUP.program()
def fields_of_a_log_are_output_when_they_are_taken(host: Host) -> None:
    cell = host.spawn(output_bytes_max=50_000)
    cell.start("while True: log('info', '', data='x' * 10_000)")
    cell.death(says=["output_bytes_max=50000"], quiet=True)


@GROUP.program()
def no_output_at_all(host: Host) -> None:
    cell = host.spawn(output_bytes_max=0)
    cell.run("post('fine')")
    cell.start("print('no')")
    cell.death(says=["output_bytes_max=0"])


@GROUP.program()
def posts_are_no_output(host: Host) -> None:
    cell = host.spawn(output_bytes_max=100)
    cell.run("post('x' * 10_000)")


@GROUP.program()
def what_was_posted_before_a_limit_arrives(host: Host) -> None:
    cell = host.spawn(wall_time_ms=1000)
    cell.start("for number in range(5): post(number)\nwhile True: pass")
    cell.recv(5)
    cell.death(says=["wall_time_ms=1000"])


@GROUP.program()
def operations_that_wait_behind_the_one_that_reached_it(host: Host) -> None:
    cell = host.spawn(wall_time_ms=300)
    first = cell.start("while True: pass")
    second = cell.start("post('never')")
    cell.wait(first)
    cell.wait(second)
    cell.death()


@GROUP.program()
def one_cells_limit_is_no_others(host: Host) -> None:
    victim, neighbour = host.spawn(wall_time_ms=200), host.spawn(wall_time_ms=20_000)
    handle = neighbour.start("post(recv(20))")
    victim.exec("while True: pass")
    neighbour.post("well")
    neighbour.wait(handle)
    neighbour.take_all()


@GROUP.program()
def fields_of_a_log_are_output(host: Host) -> None:
    cell = host.spawn(output_bytes_max=5000)
    cell.run("log('info', 'small', data='x' * 1000)")
    cell.start("log('info', '', data='x' * 10_000)")
    cell.death(says=["output_bytes_max=5000"], quiet=True)


@GROUP.program()
def output_over_its_rate_arrives_later(host: Host) -> None:
    cell = host.spawn(output_bytes_per_second=10_000)
    cell.exec("for number in range(200): print(f'{number:99}')")
    got = [cell.cell.recv(20).message for _ in range(200)]
    host.told("all of it, in order", [int(text) for text in got] == [*range(200)])
    host.told("it waited", cell.cell.stats.throttled_ms > 0)


@GROUP.program()
def requests_over_their_rate_are_answered_later(host: Host) -> None:
    cell = host.spawn(requests_per_second_max=5, capabilities={"echo": lambda it: it})
    cell.exec("answers = [request('echo', 'x', number) for number in range(12)]")
    cell.run("post(answers == [*range(12)])")
    host.told("it waited", cell.cell.stats.throttled_ms > 0)


@GROUP.program()
def a_paced_cell_still_meets_its_limits(host: Host) -> None:
    cell = host.spawn(output_bytes_per_second=1024, wall_time_ms=500)
    cell.start("while True: print('x' * 99)")
    cell.death(says=["wall_time_ms=500"], quiet=True)
    host.still_serves()


@GROUP.program("own process")
def a_share_of_the_processors(host: Host) -> None:
    cell = host.spawn(cpu_rate_max=0.05)
    cell.exec("for _ in range(80): sum(range(20_000))")
    cell.run("post('still here')")
    host.told("it stood still", cell.cell.stats.throttled_ms > 0)
    host.refuse_spawn(says=["cpu_rate_max"], cpu_rate_max=0.001)


_LIMITS = (
    "wall_time_ms", "cpu_ms", "mem_bytes", "message_bytes_max", "unread_bytes_max",
    "unread_messages_max", "output_bytes_per_second", "requests_per_second_max",
    "open_files_max", "child_work_max",
)  # fmt: skip


def _senseless(name: str) -> Steps:
    def steps(host: Host) -> None:
        for value in (0, -1, 2**63, 2**64, "many", 1.5):
            host.write(f"{name}={value!r}")
            host.refuse_spawn(says=[name], **{name: value})
        host.still_serves()

    return steps


for _limit in _LIMITS:
    GROUP.add(f"senseless/{_limit}", _senseless(_limit))

_EXTREME: dict[str, dict[str, Any]] = {
    "little memory": {"mem_bytes": 32 * MIB},
    "small messages": {"message_bytes_max": 1024},
    "little unread": {"unread_bytes_max": 64 << 10},
    "much time": {"wall_time_ms": 366 * 24 * 3600 * 1000, "cpu_ms": 366 * 24 * 3600 * 1000},
    "one unread": {"unread_messages_max": 2},
    "slow": {"output_bytes_per_second": 1024, "requests_per_second_max": 1},
    "large messages": {"message_bytes_max": 2**32 - 2**20 - 1, "unread_bytes_max": 1 << 46},
}


def _lives(limits: dict[str, Any]) -> Steps:
    def steps(host: Host) -> None:
        cell = host.spawn(allowed_imports=["math"], **limits)
        cell.run("print('hello'); post([1, 2])")
        cell.post("x")
        cell.run("post(recv(5))")
        cell.call("math.gcd", 12, 18)

    return steps


for _name, _given in _EXTREME.items():
    GROUP.add(f"extreme/{_name}", _lives(_given))


@GROUP.program()
def a_limit_that_is_none(host: Host) -> None:
    host.refuse_spawn(speed_max=1)


@GROUP.program()
def limits_of_a_policy(host: Host) -> None:
    cell = host.spawn(policy={"version": 1, "limits": {"wall_time_ms": 200}})
    cell.exec("while True: pass", says=["wall_time_ms=200"])


@GROUP.program()
def a_limit_of_spawn_wins_over_the_policys(host: Host) -> None:
    policy = {"version": 1, "limits": {"output_bytes_max": 1_000_000}}
    cell = host.spawn(policy=policy, output_bytes_max=10)
    cell.exec("while True: print('x' * 100)")
    cell.death(says=["output_bytes_max=10"], quiet=True)
