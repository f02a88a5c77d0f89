"""Rates: a guest that goes over one waits, nothing it sends is lost, and nobody else waits."""

import contextlib
import threading
import time

import pytest

import pyisolate
import raw_channel
from cells import PATIENCE, assert_serves, death_of, new_cell, run, until

BACKENDS = ["process", "subinterpreter"]
# What a rate saves up, in seconds; what one look late lets by, in seconds of a busy core.
SAVED, LATE = 1.0, 0.25


@pytest.fixture(params=BACKENDS)
def spawn(request):
    def spawn(**options):
        return new_cell(backend=request.param, **options)

    return spawn


def printed(cell, seconds):
    """How many bytes arrive in so many seconds, line ends among them, and how long that was."""
    begun, count = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        with contextlib.suppress(pyisolate.TimeoutError):
            count += len(cell.recv(0.05).message) + 1
    return count, time.monotonic() - begun


# --- output

FLOODS = {
    "print": "while True: print('x' * 99)",
    "one write": "import sys\nwhile True: sys.stdout.write('x' * 99 + '\\n')",
    "stderr": "import sys\nwhile True: print('x' * 99, file=sys.stderr)",
    "log": "while True: log('info', 'x' * 99)",
}


@pytest.mark.parametrize("flood", FLOODS)
def test_output_keeps_to_its_rate(spawn, flood):
    with spawn(output_bytes_per_second=50_000, allowed_imports=["sys"]) as cell:
        cell.exec(FLOODS[flood])
        count, took = printed(cell, 2)
        assert 50_000 <= count <= 50_000 * (took + SAVED) + 1000
        # The host took what it gave on, and a little that waits for its turn: no more than that.
        assert cell.stats.received <= cell.stats.output_bytes / 100 + 10
        assert cell.stats.throttled_ms > 0
        cell.kill()


def test_without_a_rate_the_same_flood_is_faster(spawn):
    with spawn(output_bytes_max=1 << 30, output_bytes_per_second=1 << 30) as cell:
        cell.exec(FLOODS["print"])
        count, took = printed(cell, 2)
        assert count > 2 * 50_000 * (took + SAVED)
        assert cell.stats.throttled_ms == 0
        cell.kill()


def test_fields_count_as_output_too(spawn):
    with spawn(output_bytes_per_second=50_000) as cell:
        cell.exec("while True: log('info', '', data='x' * 999)")
        begun, count = time.monotonic(), 0
        while time.monotonic() < begun + 2:
            with contextlib.suppress(pyisolate.TimeoutError):
                count += len(cell.recv(0.05).fields["data"])
        assert 40_000 <= count <= 50_000 * (time.monotonic() - begun + SAVED) + 1000
        cell.kill()


@pytest.mark.parametrize(
    "source",
    [
        "while True: log('info', '', data='x' * 10_000)",
        "while True: log('info', '', **{'x' * 1000: 1})",
        "while True: log('info', '', data=bytearray(100_000))",
    ],
)
def test_fields_count_for_the_total(spawn, source):
    with spawn(output_bytes_max=100_000) as cell:
        cell.exec(source)
        error = death_of(cell)
        assert isinstance(error, pyisolate.OutputExceeded)
        assert error.limit == "output_bytes_max"
        assert error.allowed == 100_000 < error.reached
        # Ten of a length of ten thousand, not a hundred thousand of an empty text.
        assert cell.stats.received < 1000


def test_what_print_says_of_itself_is_no_output(spawn):
    with spawn() as cell:
        run(cell, "for _ in range(10): print('x' * 9)")
        assert cell.stats.output_bytes == 100


def test_paced_output_arrives_whole_while_nobody_receives(spawn):
    with spawn(output_bytes_per_second=20_000) as cell:
        begun = time.monotonic()
        run(cell, "for number in range(600): print(f'{number:99}')")
        # A second's was saved up; the result comes behind the rest.
        assert time.monotonic() - begun > 1.5
        assert [int(cell.recv(PATIENCE).message) for _ in range(600)] == [*range(600)]


def test_one_line_larger_than_a_seconds_passes_and_is_paid_off(spawn):
    with spawn(output_bytes_per_second=10_000) as cell:
        begun = time.monotonic()
        run(cell, "log('info', 'x' * 25_000); print('after')")
        assert len(cell.recv(PATIENCE).message) == 25_000
        assert cell.recv(PATIENCE).message == "after"
        assert time.monotonic() - begun > 1.4


def test_output_within_the_rate_does_not_wait(spawn):
    with spawn(output_bytes_per_second=100_000) as cell:
        run(cell, "for _ in range(900): print('x' * 99)\npost('end')")
        assert cell.stats.throttled_ms == 0


def test_the_total_still_ends_a_paced_cell(spawn):
    with spawn(output_bytes_per_second=1_000_000, output_bytes_max=1_500_000) as cell:
        cell.exec(FLOODS["print"])
        assert isinstance(death_of(cell), pyisolate.OutputExceeded)
    assert_serves()


def test_a_paced_guest_is_ended_by_its_other_limits(spawn):
    with spawn(output_bytes_per_second=1024, wall_time_ms=1500) as cell:
        cell.exec("print('first')\n" + FLOODS["print"])
        assert cell.recv(PATIENCE).message == "first"
        assert isinstance(death_of(cell), pyisolate.WallTimeExceeded)
        assert not cell.stats.abandoned


def test_a_paced_guest_can_be_killed_and_closed(spawn):
    for end in ("kill", "close"):
        cell = spawn(output_bytes_per_second=1024)
        cell.exec(FLOODS["print"])
        cell.recv(PATIENCE)
        cell.close(0.5) if end == "close" else cell.kill()
        assert isinstance(death_of(cell), pyisolate.CellDied)


def test_a_paced_cell_holds_no_other_up(spawn):
    with spawn(output_bytes_per_second=1024) as slow, spawn() as other:
        slow.exec(FLOODS["print"])
        slow.recv(PATIENCE)
        for number in range(200):
            run(other, f"print({number})")
            assert other.recv(PATIENCE).message == str(number)
        assert other.stats.throttled_ms == 0
        slow.kill()


def test_the_time_that_a_guest_waited_is_counted_as_it_passes_and_not_after_its_end(spawn):
    with spawn(output_bytes_per_second=1024) as cell:
        cell.exec("log('info', 'x' * 1_000_000); print('half a minute later')")
        begun = time.monotonic()
        assert len(cell.recv(PATIENCE).message) > 10_000
        assert until(lambda: cell.stats.throttled_ms > 100)
        assert cell.stats.throttled_ms <= 1000 * (time.monotonic() - begun) + 100
        cell.kill()
        death_of(cell)
        waited = cell.stats.throttled_ms
        time.sleep(0.1)
        assert cell.stats.throttled_ms == waited >= 100


def test_a_request_that_waits_alone_is_answered_when_it_is_due(spawn):
    with spawn(requests_per_second_max=10, capabilities={"echo": lambda it: it}) as cell:
        # Each comes into an empty channel, and nobody here reads.
        cell.exec("for number in range(40): request('echo', 'x', number)\npost('all')")
        assert until(lambda: cell.stats.received >= 40)
        assert cell.recv(PATIENCE) == "all"


# --- messages by number


def test_unread_messages_by_number_make_the_guest_wait(spawn):
    with spawn(unread_messages_max=10) as cell:
        handle = cell.exec("for number in range(100_000): post(number)")
        with pytest.raises(
            pyisolate.SandboxError, match=r"recv\(\) them, or raise unread_messages"
        ):
            handle.wait(PATIENCE)
        # What it is ahead is ten messages, and a ring full.
        assert not handle.done()
        assert cell.stats.received < 20
        assert [cell.recv(PATIENCE) for _ in range(100_000)] == [*range(100_000)]
        handle.wait(PATIENCE)


def test_without_the_limit_more_messages_wait(spawn):
    with spawn() as cell:
        run(cell, "for number in range(20_000): post(number)")
        assert cell.stats.received > 20_000


def test_one_message_in_flight(spawn):
    with spawn(unread_messages_max=1) as cell:
        handle = cell.exec("for number in range(500): print(number)")
        assert [int(cell.recv(PATIENCE).message) for _ in range(500)] == [*range(500)]
        handle.wait(PATIENCE)
        run(cell, "post('on')")
        assert cell.recv(PATIENCE) == "on"


def test_a_guest_that_waits_for_room_is_ended_by_its_other_limits(spawn):
    with spawn(unread_messages_max=5, wall_time_ms=500) as cell:
        handle = cell.exec("while True: post(1)")
        with pytest.raises(pyisolate.WallTimeExceeded):
            handle.wait(PATIENCE)
        assert not cell.stats.abandoned


# --- requests


ASKING = {
    "one after another": "while True: request('echo', 'x')",
    "in vain": """
while True:
    request('echo', 'x')
    for _ in range(9):
        try: request('filesystem', 'open', {'path': '/etc/passwd', 'mode': 'r'})
        except PermissionError: pass
""",
}


@pytest.mark.parametrize(("asking", "each"), [("one after another", 1), ("in vain", 10)])
def test_requests_keep_to_their_rate(spawn, asking, each):
    stamps = []
    echo = {"echo": lambda _payload: stamps.append(time.monotonic())}
    with spawn(requests_per_second_max=50, capabilities=echo) as cell:
        begun = time.monotonic()
        cell.exec(ASKING[asking])
        time.sleep(2.5)
        count, took = len(stamps) * each, time.monotonic() - begun
        assert 50 <= count <= 50 * (took + SAVED) + each
        assert cell.stats.received <= 50 * (took + SAVED) + 5
        cell.kill()


def test_without_a_rate_the_same_guest_asks_more(spawn):
    stamps = []
    with spawn(capabilities={"echo": lambda _payload: stamps.append(1)}) as cell:
        begun = time.monotonic()
        cell.exec(ASKING["one after another"])
        assert until(lambda: len(stamps) > 50 * (time.monotonic() - begun + SAVED) + 100)
        cell.kill()


def test_every_request_is_answered_in_the_end():
    with new_cell(requests_per_second_max=20, capabilities={"echo": lambda it: it}) as cell:
        begun = time.monotonic()
        run(cell, "post([request('echo', 'x', number) for number in range(50)])")
        assert cell.recv(PATIENCE) == [*range(50)]
        assert time.monotonic() - begun > 1.4


def test_threads_share_the_rate():
    source = """
import threading
def ask():
    while True: request('echo', 'x')
for _ in range(8): threading.Thread(target=ask, daemon=True).start()
ask()
"""
    stamps = []
    echo = {"echo": lambda _payload: stamps.append(1)}
    with new_cell(
        requests_per_second_max=50, capabilities=echo, allowed_imports=["threading"]
    ) as cell:
        begun = time.monotonic()
        cell.exec(source)
        time.sleep(2)
        assert 50 <= len(stamps) <= 50 * (time.monotonic() - begun + SAVED) + 1
        cell.kill()


def test_requests_that_wait_take_no_thread_of_the_hosts(spawn):
    with spawn(requests_per_second_max=1, capabilities={"echo": lambda it: it}) as cell:
        run(cell, "request('echo', 'x')")
        before = threading.active_count()
        cell.exec("while True: request('echo', 'x')")
        assert until(lambda: cell.stats.throttled_ms > 0)
        assert threading.active_count() <= before
        assert cell.stats.received < 10
        cell.kill()


# --- whoever goes round the runtime

RAW = {
    "logs": (
        "fields = pickle.dumps({}, 5)\nwhile True: send(LOG, b'info', b'x' * 99, fields)",
        {"output_bytes_per_second": 10_000},
    ),
    "requests": (
        """
number = 0
while True:
    number += 1
    send(REQUEST, b'nothing', b'x', NONE, id=number)
""",
        {"requests_per_second_max": 100},
    ),
}


def crossed(flood, seconds, **options):
    """How many records of a guest that writes into the channel itself are taken, and how long that
    was."""
    with new_cell(allowed_imports=raw_channel.MODULES, **options) as cell:
        run(cell, raw_channel.SOURCE)
        before, begun = cell.stats.received, time.monotonic()
        cell.exec(flood)
        while time.monotonic() < begun + seconds:
            with contextlib.suppress(pyisolate.TimeoutError, pyisolate.CellDied):
                cell.recv(0.05)
        count, took = cell.stats.received - before, time.monotonic() - begun
        cell.kill()
        return count, took


@pytest.mark.parametrize("raw", RAW)
def test_a_guest_that_goes_round_its_runtime_keeps_to_the_rate(raw):
    flood, rate = RAW[raw]
    count, took = crossed(flood, 2, **rate)
    assert 100 <= count <= 100 * (took + SAVED) + 5
    assert_serves()


@pytest.mark.parametrize("raw", RAW)
def test_without_a_rate_it_sends_more(raw):
    count, took = crossed(RAW[raw][0], 2)
    assert count > 2 * 100 * (took + SAVED)


# --- CPU

BUSY = {
    "a loop": "while True: pass",
    "one long call": "x = 7 ** (7 ** 9)",
    "threads": """
import threading
def burn():
    while True: sum(range(10_000))
for _ in range(4): threading.Thread(target=burn).start()
""",
    "threads without the lock": """
import hashlib, threading
data = bytes(1 << 20)
def burn():
    while True: hashlib.sha256(data).digest()
for _ in range(4): threading.Thread(target=burn).start()
""",
    "a handler for every signal": """
import signal
for number in range(1, 65):
    try: signal.signal(number, lambda *_: None)
    except (OSError, ValueError): pass
while True: pass
""",
}


@pytest.mark.parametrize("busy", BUSY)
def test_cpu_keeps_to_its_rate(busy):
    options = {"allowed_imports": ["threading", "signal", "hashlib"]}
    with new_cell(cpu_rate_max=0.2, **options) as cell:
        before, begun = cell.stats.cpu_ms, time.monotonic()
        cell.exec(BUSY[busy])
        # Time enough to make up for a start that nobody looked at.
        time.sleep(3)
        used, took = cell.stats.cpu_ms - before, time.monotonic() - begun
        # Four threads may use two cores or more for as long as a look is late.
        assert 0 < used <= 1000 * (0.2 * took + 4 * LATE)
        assert cell.stats.throttled_ms > 0
        cell.kill()
        assert isinstance(death_of(cell), pyisolate.CellDied)
    assert_serves()


def test_without_a_rate_the_same_guest_uses_more():
    with new_cell() as cell:
        begun = time.monotonic()
        cell.exec(BUSY["a loop"])
        more = 1000 * 4 * LATE + 500
        assert until(lambda: cell.stats.cpu_ms > 200 * (time.monotonic() - begun) + more)
        assert cell.stats.throttled_ms == 0
        cell.kill()


def test_a_throttled_cell_does_all_its_work():
    with new_cell(cpu_rate_max=0.05, allowed_imports=["time", "threading"]) as cell:
        handle = cell.exec(
            """
import threading, time
def work(number):
    for _ in range(30): sum(range(50_000))
    post(number)
    time.sleep(0.01)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for number in range(200):
    post(recv(5))
    sum(range(20_000))
for thread in threads: thread.join()
"""
        )
        for number in range(200):
            cell.post(1000 + number)
        got = [cell.recv(PATIENCE) for _ in range(208)]
        assert sorted(it for it in got if it < 1000) == [*range(8)]
        assert [it for it in got if it >= 1000] == [*range(1000, 1200)]
        handle.wait(PATIENCE)
        assert cell.stats.throttled_ms > 0


def test_a_cell_that_stands_still_meets_its_other_ends():
    with new_cell(cpu_rate_max=0.01, wall_time_ms=1500) as cell:
        handle = cell.exec("while True: pass")
        with pytest.raises(pyisolate.WallTimeExceeded):
            handle.wait(PATIENCE)
    with new_cell(cpu_rate_max=0.01) as cell:
        cell.exec("while True: pass")
        assert until(lambda: cell.stats.cpu_ms > 20)
        cell.close(0.3)
        assert isinstance(death_of(cell), pyisolate.CellDied)
    assert_serves()


def test_threads_that_outlive_their_operation_keep_to_the_rate():
    with new_cell(cpu_rate_max=0.2, allowed_imports=["threading"]) as cell:
        before, begun = cell.stats.cpu_ms, time.monotonic()
        run(
            cell,
            """
import threading
def burn():
    while True: pass
threading.Thread(target=burn, daemon=True).start()
""",
        )
        time.sleep(5)
        used, took = cell.stats.cpu_ms - before, time.monotonic() - begun
        assert used <= 1000 * (0.2 * took + LATE)
        assert cell.stats.throttled_ms > 0
        run(cell, "post('still here')")
        assert cell.recv(PATIENCE) == "still here"


def test_a_cell_below_its_rate_is_not_stopped():
    with new_cell(cpu_rate_max=0.9, allowed_imports=["time"]) as cell:
        run(cell, "import time\nfor _ in range(50):\n    sum(range(2000)); time.sleep(0.01)")
        assert cell.stats.throttled_ms == 0


def test_an_interpreter_of_the_hosts_process_cannot_be_throttled():
    for options in ({"cpu_rate_max": 0.5}, {"policy": {"limits": {"cpu_rate_max": 0.5}}}):
        with pytest.raises(ValueError, match="cpu_rate_max holds for process cells alone"):
            new_cell(backend="subinterpreter", **options)
    with new_cell(backend="subinterpreter", cpu_rate_max=1000) as cell:
        run(cell, "pass")


# --- the numbers


@pytest.mark.parametrize(
    "name", ["output_bytes_per_second", "unread_messages_max", "requests_per_second_max"]
)
@pytest.mark.parametrize("value", [0, -1, 2**64, 2**63, "many", 1.5])
def test_senseless_rates_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        new_cell(**{name: value})


@pytest.mark.parametrize(
    "value", [0, 0.0, 0.001, -1, 1001, 0.12345, float("nan"), float("inf"), "half", None, True, [1]]
)
def test_senseless_cpu_rates_are_refused(value):
    if value is None or value is True:  # none is set; one core
        with new_cell(cpu_rate_max=value) as cell:
            run(cell, "pass")
        return
    with pytest.raises(ValueError, match="cpu_rate_max"):
        new_cell(cpu_rate_max=value)


@pytest.mark.parametrize(
    "options",
    [
        {"output_bytes_per_second": 1024, "unread_messages_max": 2},
        {"requests_per_second_max": 1},
        {"cpu_rate_max": 0.05},
        {"cpu_rate_max": 1000},
        {
            "output_bytes_per_second": 1 << 46,
            "unread_messages_max": 1 << 46,
            "requests_per_second_max": 1 << 46,
        },
    ],
)
def test_a_cell_lives_with_the_smallest_and_the_largest(options):
    with new_cell(**options, allowed_imports=["math"]) as cell:
        run(cell, "print('hello'); post([1, 2])")
        assert cell.recv(PATIENCE).message == "hello"
        assert cell.recv(PATIENCE) == [1, 2]
        assert cell.call("math.gcd", 12, 18, timeout=PATIENCE) == 6


def test_rates_in_a_policy():
    text = {"limits": {"output_bytes_per_second": "50kB", "cpu_rate_max": 0.25}}
    policy = pyisolate.Policy.from_dict({"version": 1, **text})
    assert policy.limits == {"output_bytes_per_second": 50_000, "cpu_rate_max": 0.25}
    assert "cpu_rate_max: 0.25" in policy.to_yaml()
    assert pyisolate.Policy().limit(cpu_rate_max=0.25, output_bytes_per_second=50_000) == policy
    with pytest.raises(ValueError, match="cpu_rate_max"):
        pyisolate.Policy().limit(cpu_rate_max=0.0001)
    with pytest.raises(pyisolate.PolicyError, match="at most three decimal places"):
        new_cell(policy={"limits": {"cpu_rate_max": "50%"}})
    with new_cell(policy=policy) as cell:
        cell.exec("while True: pass")
        assert until(lambda: cell.stats.throttled_ms > 0)
        cell.kill()


@pytest.mark.parametrize(
    ("source", "options", "kind"),
    [
        ("while True: pass", {"wall_time_ms": 200}, pyisolate.WallTimeExceeded),
        ("while True: pass", {"cpu_ms": 200}, pyisolate.CPUExceeded),
        ("x = bytes(10**9)", {"mem_bytes": 64 << 20}, pyisolate.MemoryExceeded),
        ("while True: print('x' * 99)", {"output_bytes_max": 5000}, pyisolate.OutputExceeded),
    ],
)
def test_an_error_carries_the_limit_and_the_figure(spawn, source, options, kind):
    with spawn(**options) as cell:
        handle = cell.exec(source)
        with pytest.raises(kind) as raised:
            handle.wait(PATIENCE)
        error = raised.value
        assert {error.limit: error.allowed} == options
        assert error.reached is None or error.reached >= error.allowed
        assert (error.reached is None) <= (error.limit == "mem_bytes")
