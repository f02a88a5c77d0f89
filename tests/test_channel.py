"""What a guest sends arrives: whole, in order, and once."""

import builtins
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pyisolate
from cells import PATIENCE, assert_serves, drain, new_cell, run
from pyisolate import LogEvent, MetricEvent


@pytest.fixture
def cell():
    with new_cell(allowed_imports=["os", "sys", "threading", "time"]) as cell:
        yield cell


def test_posts_logs_metrics_and_prints_keep_their_order(cell):
    run(
        cell,
        """
for number in range(50):
    post(number)
    log("warning", f"log {number}", number=number)
    metric("count", number, {"unit": "1"})
    print("line", number)
""",
    )
    for number in range(50):
        assert cell.recv(PATIENCE) == number
        assert cell.recv(PATIENCE) == LogEvent("warning", f"log {number}", {"number": number})
        assert cell.recv(PATIENCE) == MetricEvent("count", number, {"unit": "1"})
        assert cell.recv(PATIENCE) == LogEvent("info", f"line {number}", {"stream": "stdout"})


@pytest.mark.parametrize(
    "end",
    [
        "os._exit(3)",
        "os.abort()",
        "import ctypes; ctypes.string_at(0)",
        "os.kill(os.getpid(), 9)",
        "1 / 0",
    ],
)
def test_what_was_posted_before_the_end_arrives(end):
    with new_cell(allowed_imports=["os", "ctypes"]) as cell:
        cell.exec(f"import os\nfor number in range(1000): post(number)\n{end}")
        got = [cell.recv(PATIENCE) for _ in range(1000)]
        assert got == list(range(1000))
        with pytest.raises(pyisolate.SandboxError):
            cell.recv(PATIENCE)
    assert_serves()


def test_what_was_posted_before_the_host_killed_it_arrives(cell):
    run(cell, "for number in range(1000): post(number)")
    cell.kill()
    assert drain(cell) == list(range(1000))
    with pytest.raises(pyisolate.CellDied):
        cell.recv(PATIENCE)


def test_what_was_posted_before_closing_arrives(cell):
    cell.exec("for number in range(1000): post(number)")
    cell.close()
    assert drain(cell) == list(range(1000))


@pytest.mark.parametrize("error", [pyisolate.TimeoutError, builtins.TimeoutError])
@pytest.mark.parametrize("timeout", [0, 0.05, -1])
def test_recv_past_its_timeout_raises(cell, error, timeout):
    with pytest.raises(error):
        cell.recv(timeout)
    run(cell, "post('still here')")
    assert cell.recv(PATIENCE) == "still here"


def test_a_timeout_that_is_no_number_is_refused(cell):
    with pytest.raises(ValueError, match="not a number"):
        cell.recv(float("nan"))
    with pytest.raises(TypeError):
        cell.recv("soon")


def test_a_timeout_beyond_every_clock_is_none(cell):
    run(cell, "post(1)")
    assert cell.recv(float("inf")) == 1
    run(cell, "post(2)")
    assert cell.recv(1e300) == 2


def test_a_guests_recv_past_its_timeout_raises_timeout_error(cell):
    run(
        cell,
        """
for timeout in (0, 0.05, -3):
    try:
        recv(timeout)
    except TimeoutError as error:
        post(str(error))
""",
    )
    for _ in range(3):
        assert "nothing came" in cell.recv(PATIENCE)


def test_messages_go_both_ways(cell):
    cell.exec("while (message := recv()) != 'stop': post(('echo', message))")
    for number in range(500):
        cell.post(number)
        assert cell.recv(PATIENCE) == ("echo", number)
    cell.post("stop")


def test_messages_posted_before_the_guest_asks_wait_for_it(cell):
    for number in range(100):
        cell.post(number)
    run(cell, "post([recv(5) for _ in range(100)])")
    assert cell.recv(PATIENCE) == list(range(100))


def test_a_guest_that_is_ahead_waits_and_nothing_is_lost(cell):
    handle = cell.exec("for number in range(100_000): post(number)")
    time.sleep(0.3)
    assert [cell.recv(PATIENCE) for _ in range(100_000)] == list(range(100_000))
    handle.wait(PATIENCE)


def test_a_small_cap_on_unread_messages_loses_nothing():
    with new_cell(unread_bytes_max=64 << 10) as cell:
        handle = cell.exec("for number in range(20_000): post((number, 'x' * 100))")
        time.sleep(0.3)
        for number in range(20_000):
            assert cell.recv(PATIENCE) == (number, "x" * 100)
        handle.wait(PATIENCE)


def test_a_small_cap_on_unread_messages_takes_large_ones():
    with new_cell(unread_bytes_max=64 << 10) as cell:
        handle = cell.exec("for number in range(20): post(bytes([number]) * 1_000_000)")
        for number in range(20):
            assert cell.recv(PATIENCE) == bytes([number]) * 1_000_000
        handle.wait(PATIENCE)


def test_a_result_behind_messages_that_nobody_takes_is_an_error_that_says_so():
    with new_cell(unread_bytes_max=64 << 10) as cell:
        run(cell, "def work():\n    for _ in range(2000): post('x' * 200)\n    return 'done'")
        with pytest.raises(
            pyisolate.SandboxError, match=r"recv\(\) them, or raise unread_bytes_max"
        ):
            cell.call("__main__.work", timeout=PATIENCE)
        assert [cell.recv(PATIENCE) for _ in range(2000)] == ["x" * 200] * 2000
        run(cell, "post('on')")
        assert cell.recv(PATIENCE) == "on"


def test_a_result_comes_while_another_thread_takes_the_messages():
    with new_cell(unread_bytes_max=64 << 10) as cell:
        run(cell, "def work():\n    for _ in range(2000): post('x' * 200)\n    return 'done'")
        with ThreadPoolExecutor(1) as pool:
            taken = pool.submit(lambda: [cell.recv(PATIENCE) for _ in range(2000)])
            assert cell.call("__main__.work", timeout=PATIENCE) == "done"
            assert taken.result(PATIENCE) == ["x" * 200] * 2000


def flood(cell):
    for number in range(100_000):
        cell.post((number, "x" * 1000), timeout=0.1)


def test_posting_to_a_guest_that_takes_nothing_is_an_error_in_the_end(cell):
    cell.exec("import time; time.sleep(30)")
    with pytest.raises(pyisolate.TimeoutError, match="took no message"):
        flood(cell)
    cell.kill()
    assert_serves()


def test_what_was_accepted_before_the_channel_was_full_arrives(cell):
    cell.exec("import time; time.sleep(0.5)")
    time.sleep(0.1)
    sent = cell.stats.sent
    with pytest.raises(pyisolate.TimeoutError):
        flood(cell)
    sent = cell.stats.sent - sent
    cell.exec(f"for _ in range({sent}): post(recv(5)[0])")
    assert [cell.recv(PATIENCE) for _ in range(sent)] == list(range(sent))
    run(cell, "try:\n    recv(0.1)\nexcept TimeoutError:\n    post('no more')")
    assert cell.recv(PATIENCE) == "no more"


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 65_500, 65_536, 1 << 20, 64 << 20])
def test_bytes_of_every_size_go_both_ways(size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with new_cell() as cell:
        cell.exec("data = recv(); post(len(data)); post(data)")
        cell.post(data)
        assert cell.recv(PATIENCE) == size
        assert cell.recv(PATIENCE) == data


def test_a_large_text_goes_both_ways():
    text = "ünï" * 1_000_000
    with new_cell() as cell:
        cell.exec("post(recv())")
        cell.post(text)
        assert cell.recv(PATIENCE) == text


def test_large_arrays_go_both_ways():
    array = np.arange(8 << 20, dtype=np.float64)
    with new_cell(allowed_imports=["numpy"]) as cell:
        cell.exec("array = recv(); array[0] = -1; post(array); post(array[::2])")
        cell.post(array)
        expected = array.copy()
        expected[0] = -1
        np.testing.assert_array_equal(cell.recv(PATIENCE), expected)
        np.testing.assert_array_equal(cell.recv(PATIENCE), expected[::2])


def test_a_received_array_can_be_written():
    with new_cell(allowed_imports=["numpy"]) as cell:
        run(cell, "import numpy; post(numpy.zeros(100_000)); post(numpy.zeros(10))")
        for _ in range(2):
            array = cell.recv(PATIENCE)
            array += 1
            assert array.min() == 1


def test_many_large_messages_in_a_row(cell):
    cell.exec("for number in range(200): post(bytes([number]) * 300_000)")
    for number in range(200):
        assert cell.recv(PATIENCE) == bytes([number]) * 300_000


def test_large_messages_from_many_threads(cell):
    cell.exec(
        """
import threading
def send(letter):
    for number in range(10):
        post((letter, number, letter * 500_000))
threads = [threading.Thread(target=send, args=(letter,)) for letter in "abcdefgh"]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    )
    got = {letter: [] for letter in "abcdefgh"}
    for _ in range(80):
        letter, number, text = cell.recv(PATIENCE)
        assert text == letter * 500_000
        got[letter].append(number)
    assert all(numbers == list(range(10)) for numbers in got.values())


def test_a_message_over_the_limit_is_refused_where_it_is_sent():
    with new_cell(message_bytes_max=100_000) as cell:
        with pytest.raises(ValueError, match="message_bytes_max=100000"):
            cell.post(b"x" * 200_000)
        run(
            cell,
            """
try:
    post(b"x" * 200_000)
except ValueError as error:
    post(str(error))
post(b"x" * 90_000)
""",
        )
        assert "message_bytes_max=100000" in cell.recv(PATIENCE)
        assert cell.recv(PATIENCE) == b"x" * 90_000
        cell.post(b"y" * 90_000)
        run(cell, "post(len(recv(5)))")
        assert cell.recv(PATIENCE) == 90_000


def test_a_small_message_limit_holds_below_a_frame_too():
    with new_cell(message_bytes_max=2000) as cell:
        for size in (3000, 30_000):
            with pytest.raises(ValueError, match="message_bytes_max=2000"):
                cell.post(b"x" * size)
            with pytest.raises(pyisolate.GuestError, match="message_bytes_max=2000"):
                run(cell, f"post(b'x' * {size})")


def test_a_result_over_the_limit_is_the_calls_error():
    with new_cell(message_bytes_max=100_000) as cell:
        run(cell, "def big(): return b'x' * 200_000")
        with pytest.raises(pyisolate.GuestError, match="message_bytes_max=100000"):
            cell.call("__main__.big", timeout=PATIENCE)
        run(cell, "post('still here')")
        assert cell.recv(PATIENCE) == "still here"
