"""`post` and `recv` in both directions: all of it, in order, once; and what happens at the ends."""

import math
from typing import Any

from pyisolate.conformance.host import SHORT, Host
from pyisolate.conformance.program import Group, Steps

GROUP = Group("messages")


@GROUP.program()
def both_ways(host: Host) -> None:
    cell = host.spawn()
    handle = cell.start("while (message := recv()) != 'stop': post(('echo', message))")
    for number in range(20):
        cell.post(number)
        cell.recv()
    cell.post("stop")
    cell.wait(handle)


@GROUP.program()
def posted_before_the_guest_asks(host: Host) -> None:
    cell = host.spawn()
    for number in range(20):
        cell.post(number)
    cell.run("post([recv(5) for _ in range(20)])")


@GROUP.program()
def left_by_one_exec_for_the_next(host: Host) -> None:
    cell = host.spawn()
    cell.post("first")
    cell.post("second")
    cell.run("post(recv(5))")
    cell.run("post(recv(5))")
    cell.run("try: recv(0)\nexcept TimeoutError: post('nothing is left')")


@GROUP.program()
def the_hosts_recv_past_its_timeout(host: Host) -> None:
    cell = host.spawn()
    for timeout in (0.0, SHORT, -1.0):
        cell.recv(timeout=timeout)
    cell.run("post('still here')")


@GROUP.program()
def the_error_is_the_builtin_one_too(host: Host) -> None:
    cell = host.spawn()
    try:
        cell.cell.recv(0)
    except TimeoutError as error:
        host.told("kinds", [kind.__name__ for kind in type(error).__mro__])


@GROUP.program()
def the_guests_recv_past_its_timeout(host: Host) -> None:
    cell = host.spawn()
    cell.run(
        """
for timeout in (0, 0.05, -3):
    try: recv(timeout)
    except TimeoutError as error: post((type(error).__name__, str(error)))
"""
    )
    cell.exec("recv(0)")
    cell.run("post('still here')")


@GROUP.program()
def timeouts_that_are_none(host: Host) -> None:
    cell = host.spawn()
    cell.exec("post(1); post(2)")
    cell.recv(timeout=math.inf)
    cell.recv(timeout=1e300)
    host.write("recv of no number")
    host.attempt(lambda: cell.cell.recv(math.nan))
    host.attempt(lambda: cell.cell.recv("soon"))  # type: ignore[arg-type]


@GROUP.program()
def a_guests_recv_of_what_is_no_number(host: Host) -> None:
    cell = host.spawn()
    cell.exec("recv('soon')", message=False)
    cell.run("post('still here')")


def _flood(count: int, size: int, unread: int | None) -> Steps:
    """A guest that is far ahead waits, and nothing is lost."""

    def steps(host: Host) -> None:
        options = {} if unread is None else {"unread_bytes_max": unread}
        cell = host.spawn(**options)
        handle = cell.start(
            f"for number in range({count}): post((number, 'x' * {size}))\npost('end')"
        )
        got = []
        while (item := cell.cell.recv(20)) != "end":
            got.append(item)
        host.told("all of them, in order", [number for number, _ in got] == [*range(count)])
        host.told("whole", all(len(text) == size for _, text in got))
        cell.wait(handle)

    return steps


for _count, _size in ((10, 0), (1000, 10), (20_000, 0), (5_000, 1000), (30, 300_000)):
    for _unread in (None, 64 << 10):
        _bound = "" if _unread is None else f" of which {_unread} bytes may wait"
        GROUP.add(f"flood/{_count} of {_size} characters{_bound}", _flood(_count, _size, _unread))


@GROUP.program()
def a_flood_of_which_ten_messages_may_wait(host: Host) -> None:
    cell = host.spawn(unread_messages_max=10)
    handle = cell.start("for number in range(20_000): post(number)")
    got = [cell.cell.recv(20) for _ in range(20_000)]
    host.told("all of them, in order", got == [*range(20_000)])
    cell.wait(handle)


@GROUP.program()
def a_result_behind_more_messages_than_may_wait(host: Host) -> None:
    cell = host.spawn(unread_messages_max=10)
    cell.exec("def work():\n    for number in range(50): post(number)\n    return 'done'")
    cell.failing_call("__main__.work", says=["recv() them, or raise unread_messages_max"])
    taken = [cell.cell.recv(20) for _ in range(50)]
    host.told("all of them", taken == [*range(50)])
    cell.run("post('on')")


@GROUP.program()
def a_result_behind_messages_that_nobody_takes(host: Host) -> None:
    cell = host.spawn(unread_bytes_max=64 << 10)
    cell.exec("def work():\n    for _ in range(2000): post('x' * 200)\n    return 'done'")
    cell.failing_call("__main__.work", says=["recv() them, or raise unread_bytes_max"])
    taken = [cell.cell.recv(20) for _ in range(2000)]
    host.told("all of them", taken == ["x" * 200] * 2000)
    cell.run("post('on')")


@GROUP.program()
def a_host_that_is_far_ahead_is_told(host: Host) -> None:
    cell = host.spawn(mem_bytes=64 << 20, allowed_imports=["time"])
    handle = cell.start("import time\ntime.sleep(2)\nwhile recv() != 'end': pass\npost('end')")
    sent = 0
    try:
        while sent < 1000:
            cell.cell.post(b"x" * 1_000_000, timeout=0.3)
            sent += 1
    except TimeoutError as error:
        host.error(error)
    host.told("it was told before it had sent everything", sent < 1000)
    host.told("after it had sent something", sent > 0)
    cell.cell.post("end", timeout=20)
    cell.wait(handle)
    cell.take_all()


def _limit(size: int) -> Steps:
    """A message over `message_bytes_max` is refused where it is sent, and the cell goes on."""

    def steps(host: Host) -> None:
        cell = host.spawn(message_bytes_max=100_000)
        host.write(f"post of {size} bytes")
        host.attempt(lambda: cell.cell.post(b"x" * size), says=["message_bytes_max=100000"])
        shown: dict[str, Any] = {"says": ["message_bytes_max=100000"], "message": False}
        cell.exec(f"def f(n): return b'y' * n\npost(f({size}))", **shown)
        cell.failing_call("__main__.f", (size,), **shown)
        cell.run("post(b'z' * 90_000)")

    return steps


for _size in (100_001, 200_000, 5_000_000):
    GROUP.add(f"too large/{_size} bytes", _limit(_size))


@GROUP.program()
def a_source_over_the_limit(host: Host) -> None:
    cell = host.spawn(message_bytes_max=10_000)
    host.write("exec of 20000 characters")
    host.attempt(lambda: cell.cell.exec("#" * 20_000), says=["message_bytes_max=10000"])
    cell.run("post('still here')")


@GROUP.program()
def a_log_over_the_limit(host: Host) -> None:
    cell = host.spawn(message_bytes_max=10_000)
    cell.exec("log('info', 'm', data=b'x' * 20_000)", message=False)
    cell.exec("metric('m', 1, {'data': b'x' * 20_000})", message=False)
    cell.run("post('still here')")


@GROUP.program("threads")
def messages_from_several_threads(host: Host) -> None:
    cell = host.spawn(allowed_imports=["threading"])
    cell.exec(
        """
import threading
def send(letter):
    for number in range(50): post((letter, number))
threads = [threading.Thread(target=send, args=(letter,)) for letter in "abcd"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    )
    got = [cell.cell.recv(20) for _ in range(200)]
    for letter in "abcd":
        host.told(letter, [number for who, number in got if who == letter] == [*range(50)])
