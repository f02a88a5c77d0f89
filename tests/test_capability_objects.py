"""The objects for built-in capabilities grant what they are called for, and refusals are told."""

import threading

import pytest

import pyisolate
from asking import ask
from cells import PATIENCE, new_cell, run, until
from pyisolate import (
    Channel,
    Clock,
    ClockCapability,
    Command,
    ConnectTCP,
    FilesystemCapability,
    HostCapability,
    IPCChannelCapability,
    NetworkCapability,
    Policy,
    Random,
    RandomCapability,
    ReadPath,
    ReadWritePath,
    Secret,
    SecretCapability,
    SubprocessCapability,
    Supervisor,
)


def granted(**capabilities):
    with new_cell(capabilities=capabilities) as cell:
        return {authority for effect, authority in cell.policy.rules if effect == "allow"}


def test_the_older_objects_grant_what_they_are_called_for():
    assert granted(filesystem=FilesystemCapability.from_paths("/data", "/more")) == {
        ReadPath("/data"),
        ReadPath("/more"),
    }
    assert granted(filesystem=FilesystemCapability.from_paths("/out", write=True)) == {
        ReadWritePath("/out")
    }
    assert granted(network=NetworkCapability.from_destinations("h:80", "[::1]:443")) == {
        ConnectTCP("h", 80),
        ConnectTCP("::1", 443),
    }
    assert granted(
        subprocess=SubprocessCapability.from_commands("git", "ls -l", Command("id"))
    ) == {Command("git", ["**"]), Command("ls", ["-l"]), Command("id", [])}
    assert granted(clock=ClockCapability()) == {Clock()}
    assert granted(random=RandomCapability(seed=7)) == {Random(7)}
    assert granted(ipc=IPCChannelCapability("jobs")) == {Channel("jobs")}
    assert granted(ipc=IPCChannelCapability()) == {Channel("default")}
    secret = SecretCapability.from_mapping({"a": "1", "b": "2"}).usable({"b": ["h"]})
    assert granted(secret=secret) == {Secret("a", reveal=True), Secret("b", use=["h"])}
    assert "1" not in repr(secret)


def test_they_work(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    capabilities = {
        "filesystem": FilesystemCapability.from_paths(tmp_path),
        "clock": ClockCapability(),
        "random": RandomCapability(),
        "secret": SecretCapability.from_mapping({"token": "value", "raw": b"\0"}),
    }
    with new_cell(capabilities=capabilities) as cell:
        assert ask(cell, "filesystem", "read", {"path": str(file)}) == b"content"
        assert ask(cell, "filesystem", "write", {"path": str(file), "data": b""})[0] == (
            "CapabilityDenied"
        )
        assert ask(cell, "clock", "time") > 10**18
        assert len(ask(cell, "random", "bytes", {"length": 5})) == 5
        assert ask(cell, "secret", "reveal", {"name": "token"}) == "value"
        assert ask(cell, "secret", "reveal", {"name": "raw"}) == b"\0"
    assert file.read_bytes() == b"content"


def test_a_secrets_value_does_nothing_without_a_grant():
    with new_cell(secrets={"token": "value"}) as cell:
        assert ask(cell, "secret", "reveal", {"name": "token"})[0] == "CapabilityDenied"
    policy = Policy().grant(Secret("token", reveal=True))
    with new_cell(secrets={"token": "value"}, policy=policy) as cell:
        assert ask(cell, "secret", "reveal", {"name": "token"}) == "value"
    with pytest.raises(TypeError, match="neither str nor bytes") as caught:
        new_cell(secrets={"token": 12345})
    assert "12345" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("filesystem", print),
        ("filesystem", ClockCapability()),
        ("network", HostCapability(print)),
        ("fs", FilesystemCapability.from_paths("/data")),
    ],
)
def test_a_built_in_name_is_for_its_own_object(name, given):
    with pytest.raises((TypeError, ValueError), match=r"filesystem|network"):
        new_cell(capabilities={name: given})


def test_the_policy_and_the_objects_add_up():
    capabilities = {"filesystem": FilesystemCapability.from_paths("/more")}
    policy = Policy().allow_read("/data").limit(mem_bytes=128 << 20)
    with new_cell(policy=policy, capabilities=capabilities, allowed_imports=["math"]) as cell:
        for path in ("/data", "/more"):
            assert cell.policy.allows("read", path)
        assert cell.call("math.gcd", 4, 6, timeout=PATIENCE) == 2


# --- refusals -------------------------------------------------------------------------------------


def test_the_error_carries_the_refusal():
    with new_cell() as cell:
        for attempt in range(3):
            with pytest.raises(pyisolate.PolicyError) as caught:
                run(cell, f"request('own{attempt}', 'x')")
            assert caught.value.denial_event == cell.denials[-1]
            assert caught.value.denial_event.capability == f"own{attempt}"
        with pytest.raises(pyisolate.PolicyError) as caught:
            run(cell, "import socket")
        with pytest.raises(pyisolate.GuestError) as other:
            run(cell, "1/0")
        assert not hasattr(other.value, "denial_event")
        assert cell.get_denial_events() == cell.denials


def test_the_older_names_of_a_refusal():
    with new_cell() as cell:
        with pytest.raises(pyisolate.PolicyError):
            run(cell, "request('filesystem', 'read', {'path': '/x'})")
        (denial,) = cell.denials
    assert denial.policy_rule == denial.rule == "no rule matched"
    assert denial.broker_decision == "denied"
    assert denial.kernel_decision is None
    assert denial.target == "read /x"
    assert "/x" in denial.grant
    assert denial.grant in denial.reason


def test_refusals_are_told_as_they_happen():
    told = []
    with Supervisor(on_denial=told.append) as supervisor, supervisor.spawn("a") as cell:
        for attempt in range(5):
            assert ask(cell, "own", f"act{attempt}")[0] == "CapabilityDenied"
        assert until(lambda: len(told) == 5)
        assert told == cell.denials


def test_a_listener_that_raises_or_hangs_holds_nobody_up(caplog):
    release = threading.Event()

    def listener(event):
        if event.attempted_action == "raise":
            raise ValueError("listener")
        release.wait(PATIENCE)

    with Supervisor(on_denial=listener) as supervisor, supervisor.spawn("a") as cell:
        assert ask(cell, "own", "raise")[0] == "CapabilityDenied"
        assert until(lambda: any("on_denial" in it.getMessage() for it in caplog.records))
        run(
            cell,
            """
for number in range(3000):
    try: request("own", "hang")
    except PermissionError: pass
post("done")
""",
        )
        assert cell.recv(PATIENCE) == "done"
        assert cell.stats.denied == 3001
        release.set()


def test_a_listener_is_something_that_can_be_called():
    with pytest.raises(TypeError, match="on_denial"):
        Supervisor(on_denial=5)
