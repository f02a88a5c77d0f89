"""What guest code prints reaches the host as log events, whole and in order."""

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, drain, new_cell, run
from pyisolate import LogEvent

STDOUT = {"stream": "stdout"}
STDERR = {"stream": "stderr"}


@pytest.fixture
def cell():
    with new_cell(allowed_imports=["sys", "os", "threading", "warnings", "time"]) as cell:
        yield cell


def text_of(events, stream=STDOUT):
    return "\n".join(event.message for event in events if event.fields == stream)


def test_both_streams_say_which_they_are(cell):
    run(cell, "import sys\nprint('out')\nprint('err', file=sys.stderr)")
    assert cell.recv(PATIENCE) == LogEvent("info", "out", STDOUT)
    assert cell.recv(PATIENCE) == LogEvent("error", "err", STDERR)


def test_a_call_that_prints(cell):
    run(cell, "def work():\n    print('working', end='')\n    return 1")
    assert cell.call("__main__.work", timeout=PATIENCE) == 1
    assert cell.recv(PATIENCE) == LogEvent("info", "working", STDOUT)


def test_a_line_in_pieces_is_one_event(cell):
    run(cell, "print('a', end='')\nprint('b', end='')\nprint('c')\nprint('d', end='')")
    assert cell.recv(PATIENCE).message == "abc"
    assert cell.recv(PATIENCE).message == "d"


def test_a_flush_sends_what_there_is(cell):
    cell.exec("import time\nprint('half', end='', flush=True)\npost('after')\ntime.sleep(30)")
    assert cell.recv(PATIENCE).message == "half"
    assert cell.recv(PATIENCE) == "after"
    cell.kill()


def test_several_lines_at_once_are_several_events(cell):
    run(cell, "print('a\\nb\\n\\nc')")
    assert [cell.recv(PATIENCE).message for _ in range(4)] == ["a", "b", "", "c"]


def test_any_text_can_be_printed(cell):
    run(cell, r"print('ünïcödé 🐧 \x00 \u2028 \r x')")
    assert cell.recv(PATIENCE).message == "ünïcödé 🐧 \x00 \u2028 \r x"


@pytest.mark.parametrize("source", ["print(text)", "log('info', text)", "print(text * 20_000)"])
def test_surrogates_are_escaped(cell, source):
    run(cell, f"text = 'a\\udc80b'\n{source}")
    assert cell.recv(PATIENCE).message.startswith(r"a\udc80b")


@pytest.mark.parametrize("letter", ["x", "é", "🐧"])
@pytest.mark.parametrize("length", [3000, 30 * 1024, 30 * 1024 + 1, 500_000])
def test_a_long_line_arrives_whole(cell, letter, length):
    run(cell, f"print({letter!r} * {length}); post('end')")
    text = ""
    while (event := cell.recv(PATIENCE)) != "end":
        text += event.message
    assert text == letter * length


def test_a_line_of_megabytes_takes_no_quadratic_time():
    with new_cell(output_bytes_max=64 << 20) as cell:
        cell.exec("print('x' * (16 << 20)); post('end')")
        length = 0
        while (event := cell.recv(PATIENCE)) != "end":
            length += len(event.message)
        assert length == 16 << 20


@pytest.mark.parametrize(
    "end",
    ["raise SystemExit(3)", "1 / 0", "import sys; sys.exit('bye')", "raise KeyboardInterrupt"],
)
def test_output_before_an_error_arrives(cell, end):
    handle = cell.exec(f"print('before', end='')\n{end}")
    with pytest.raises(pyisolate.GuestError):
        handle.wait(PATIENCE)
    assert cell.recv(PATIENCE).message == "before"


def test_output_before_death_arrives(cell):
    cell.exec("import os\nfor number in range(500): print(number)\nos._exit(0)")
    assert text_of(drain(cell)) == "\n".join(map(str, range(500)))
    assert_serves()


def test_output_of_the_last_words_at_closing(cell):
    run(cell, "import sys\nsys.stdout.write('x' * 10)")
    cell.close()
    assert text_of(drain(cell)) == "x" * 10


def test_threads_that_print_at_once_lose_nothing(cell):
    cell.exec(
        """
import sys, threading
sys.setswitchinterval(1e-6)
def work(letter):
    for _ in range(3000): print(letter)
threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcdefgh"]
for thread in threads: thread.start()
for thread in threads: thread.join()
post("end")
""",
    )
    text = ""
    while (event := cell.recv(PATIENCE)) != "end":
        text += event.message
    assert {letter: text.count(letter) for letter in "abcdefgh"} == dict.fromkeys("abcdefgh", 3000)


def test_what_a_thread_dies_of_is_printed(cell):
    run(
        cell,
        """
import threading
def work(): raise ValueError("in a thread")
thread = threading.Thread(target=work); thread.start(); thread.join()
""",
    )
    cell.close()
    assert "ValueError: in a thread" in text_of(drain(cell), STDERR)


def test_warnings_are_printed(cell):
    run(cell, "import warnings\nwarnings.warn('careful')")
    assert "careful" in cell.recv(PATIENCE).message


def test_streams_behave_like_files(cell):
    run(
        cell,
        """
import sys
post([sys.stdout.writable(), sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.write("abc\\n")])
sys.stdout.writelines(["d", "e", "\\n"])
post(sys.stdin.read())
""",
    )
    assert cell.recv(PATIENCE).message == "abc"
    assert cell.recv(PATIENCE) == [True, False, "utf-8", 4]
    assert cell.recv(PATIENCE).message == "de"
    assert cell.recv(PATIENCE) == ""


def test_bytes_can_be_written_to_a_streams_buffer(cell):
    run(cell, "import sys\nsys.stdout.buffer.write(b'raw\\n')\nsys.stdout.flush()")
    assert cell.recv(PATIENCE).message == "raw"


def test_a_guest_that_breaks_its_own_streams_harms_itself_alone(cell):
    with pytest.raises(pyisolate.GuestError):
        run(cell, "import sys\nsys.stdout = sys.stderr = None\nprint('lost')\n1 / 0")
    run(cell, "sys.stdout = 5\npost('still here')")
    assert cell.recv(PATIENCE) == "still here"


def test_input_meets_the_end_of_file(cell):
    with pytest.raises(pyisolate.GuestError, match="EOFError"):
        run(cell, "input('name? ')")


def test_a_log_event_carries_any_fields(cell):
    run(cell, "log('debug', 'm', a=1, b=[1, {'c': None}], message_id='x')")
    event = cell.recv(PATIENCE)
    assert event == LogEvent("debug", "m", {"a": 1, "b": [1, {"c": None}], "message_id": "x"})


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("log(5, 'm')", "TypeError"),
        ("log('', 'm')", "ValueError"),
        ("log('x' * 2000, 'm')", "ValueError"),
        ("metric('m', 'many')", "TypeError"),
        ("metric('m', True)", "TypeError"),
        ("metric(None, 1)", "TypeError"),
        ("metric('', 1)", "ValueError"),
        ("metric('m', 1, 5)", "TypeError"),
        ("log('\\udc80', 'm')", "Error"),
        ("metric('\\udc80', 1)", "Error"),
    ],
)
def test_bad_events_are_the_guests_own_error(cell, source, error):
    with pytest.raises(pyisolate.GuestError, match=error):
        run(cell, source)
    run(cell, "metric('fine', 1)")
    assert cell.recv(PATIENCE).name == "fine"


def test_a_metrics_value_keeps_its_type(cell):
    run(cell, "metric('m', 1); metric('m', 2.5, {'a': 'b'}); metric('m', 10 ** 30)")
    assert [cell.recv(PATIENCE).value for _ in range(3)] == [1, 2.5, 10**30]
