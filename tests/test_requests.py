"""`request` without a grant is refused in the guest and recorded on the host."""

import pytest

import pyisolate
from cells import PATIENCE, assert_serves, new_cell, run
from pyisolate import DenialEvent


@pytest.fixture
def cell():
    with new_cell(allowed_imports=["threading"]) as cell:
        yield cell


def test_a_request_without_a_grant_is_a_permission_error(cell):
    run(
        cell,
        """
try:
    request("filesystem", "read", {"path": "/etc/passwd"})
except PermissionError as error:
    post([type(error).__name__, str(error)])
""",
    )
    name, message = cell.recv(PATIENCE)
    assert name == "CapabilityDenied"
    assert "filesystem" in message
    assert "not granted" in message


def test_the_host_records_it(cell):
    assert cell.denials == []
    run(
        cell,
        """
for number in range(3):
    try: request(f"cap{number}", f"act{number}")
    except PermissionError: pass
""",
    )
    denials = cell.denials
    assert [(event.capability, event.attempted_action) for event in denials] == [
        (f"cap{number}", f"act{number}") for number in range(3)
    ]
    assert all(isinstance(event, DenialEvent) for event in denials)
    assert {event.cell for event in denials} == {cell.name}
    assert all("not granted" in event.reason for event in denials)
    assert cell.stats.denied == 3
    with pytest.raises(AttributeError):
        denials[0].cell = "other"


def test_an_uncaught_one_is_a_policy_error_and_the_cell_goes_on(cell):
    with pytest.raises(pyisolate.PolicyError, match="network") as caught:
        run(cell, "request('network', 'connect', ('example.org', 80))")
    assert "line 1" in caught.value.traceback
    with pytest.raises(pyisolate.PolicyError):
        run(cell, "def f(): request('clock', 'now')\nf()")
    run(cell, "def g(): request('clock', 'now')")
    with pytest.raises(pyisolate.PolicyError):
        cell.call("__main__.g", timeout=PATIENCE)
    run(cell, "post('still here')")
    assert cell.recv(PATIENCE) == "still here"


def test_requests_from_many_threads_are_each_answered(cell):
    run(
        cell,
        """
import threading
refused = []
def work(number):
    for turn in range(50):
        try:
            request(f"cap-{number}", f"act-{turn}")
        except PermissionError as error:
            refused.append(f"cap-{number}" in str(error) and f"act-{turn}" in str(error))
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
post([len(refused), all(refused)])
""",
    )
    assert cell.recv(PATIENCE) == [400, True]
    assert cell.stats.denied == 400


def test_a_flood_of_requests(cell):
    cell.exec(
        """
refused = 0
for number in range(10_000):
    try: request("filesystem", "read")
    except PermissionError: refused += 1
post(refused)
""",
    )
    assert cell.recv(PATIENCE) == 10_000
    assert cell.stats.denied == 10_000
    assert 0 < len(cell.denials) <= 10_000
    assert_serves()


def test_requests_while_the_channel_is_full_of_unread_messages():
    with new_cell(unread_bytes_max=64 << 10) as cell:
        cell.exec(
            """
for number in range(500):
    post("x" * 100)
    try: request("filesystem", "read")
    except PermissionError: post(number)
"""
        )
        for number in range(500):
            assert cell.recv(PATIENCE) == "x" * 100
            assert cell.recv(PATIENCE) == number


def test_requests_while_the_host_waits_for_nothing(cell):
    handle = cell.exec("try: request('a', 'b')\nexcept PermissionError: post('refused')")
    handle.wait(PATIENCE)
    assert cell.recv(PATIENCE) == "refused"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("request(5, 'a')", "TypeError"),
        ("request('c', None)", "TypeError"),
        ("request('', 'a')", "ValueError"),
        ("request('c' * 2000, 'a')", "ValueError"),
        ("request('c', 'a', object())", "TypeError"),
        ("request('c')", "TypeError"),
        ("request('\\udc80', 'a')", "Error"),
    ],
)
def test_bad_requests_are_the_guests_own_error(cell, source, error):
    with pytest.raises(pyisolate.GuestError, match=error):
        run(cell, source)
    assert cell.denials == []


@pytest.mark.parametrize("name", ["é" * 500, "a\nb", "'\"", "x" * 1024, "\0"])
def test_any_name_can_be_asked_for_and_refused(cell, name):
    with pytest.raises(pyisolate.PolicyError):
        run(cell, f"request({name!r}, {name!r})")
    assert cell.denials[0].capability == name


def test_a_large_payload_is_refused_like_a_small_one(cell):
    with pytest.raises(pyisolate.PolicyError):
        run(cell, "request('filesystem', 'write', b'x' * 5_000_000)")
    for _ in range(40):
        with pytest.raises(pyisolate.PolicyError):
            run(cell, "request('filesystem', 'write', b'x' * 1_000_000)")


def test_denials_of_a_dead_cell_can_still_be_read():
    cell = new_cell()
    with pytest.raises(pyisolate.PolicyError):
        run(cell, "request('a', 'b')")
    cell.kill()
    assert len(cell.denials) == 1


def test_what_the_kernel_refuses_past_the_shims_is_recorded():
    with new_cell(allowed_imports=["posix"]) as past:
        with pytest.raises(pyisolate.GuestError, match="not permitted"):
            run(past, "import posix\nposix.mkdir('/new')")
        [event] = past.denials
    assert (event.layer, event.capability) == ("kernel", "system call")
    assert "Operation not permitted" in event.reason


def test_a_refused_import_is_recorded(cell):
    with pytest.raises(pyisolate.PolicyError, match="not granted"):
        run(cell, "import subprocess")
    [event] = cell.denials
    assert (event.capability, event.target, event.layer) == (
        "import",
        "import subprocess",
        "policy",
    )
