"""Policies change while their cells run, for whoever has the token; limits come with a policy."""

import logging
import socket

import pytest

import pyisolate
from asking import ask
from cells import PATIENCE, new_cell, run, until
from pyisolate import (
    ConnectTCP,
    FilesystemCapability,
    Policy,
    PolicyAuthError,
    PolicyError,
    ReadPath,
    Supervisor,
)

TOKEN = "a long enough token"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "file").write_bytes(b"content")
    return folder


@pytest.fixture
def document(tmp_path):
    """A policy document, and a way to write it."""
    file = tmp_path / "policy.yml"

    def write(*lines):
        new = tmp_path / "policy.new"
        new.write_text("version: 1\n" + "\n".join(lines) + "\n")
        new.replace(file)
        return file

    write.file = file
    write()
    return write


@pytest.fixture
def supervisor():
    with Supervisor(policy_token=TOKEN) as supervisor:
        yield supervisor


def may_read(cell, folder):
    answer = ask(cell, "filesystem", "read", {"path": str(folder / "file")})
    return answer == b"content"


def test_a_new_document_holds_for_the_next_request(supervisor, document, data):
    with supervisor.spawn("a", policy=document.file) as cell:
        assert not may_read(cell, data)
        document(f"fs: {{read: {data}}}")
        assert supervisor.reload_policy(document.file, TOKEN) == ["a"]
        assert may_read(cell, data)
        assert cell.policy.rules == (("allow", ReadPath(data)),)
        document("fs: {}")
        supervisor.reload_policy(str(document.file), TOKEN.encode())
        assert not may_read(cell, data)
        assert cell.denials[-1].rule == "no rule matched"


def test_a_handle_is_asked_about_at_each_use(supervisor, document, data):
    document(f"fs: {{allow: {data}}}")
    with supervisor.spawn("a", policy=document.file) as cell:
        opened = ask(cell, "filesystem", "open", {"path": str(data / "file"), "mode": "r+"})
        read = {"handle": opened["handle"], "length": 3}
        assert ask(cell, "filesystem", "read", read) == b"con"
        document("fs: {}")
        supervisor.reload_policy(document.file, TOKEN)
        assert ask(cell, "filesystem", "read", read)[0] == "CapabilityDenied"


def test_each_cell_has_its_own_part(supervisor, document, data):
    document("defaults: {}")
    with (
        supervisor.spawn("a", policy=document.file) as a,
        supervisor.spawn("b", policy=document.file) as b,
    ):
        document(f"cells: {{a: {{fs: {{read: {data}}}}}}}")
        assert sorted(supervisor.reload_policy(document.file, TOKEN)) == ["a", "b"]
        assert may_read(a, data)
        assert not may_read(b, data)


def test_cells_without_a_document_keep_what_they_have(supervisor, document, data):
    document(f"fs: {{read: {data}}}")
    with (
        supervisor.spawn("object", policy=Policy()) as of_object,
        supervisor.spawn("template", policy="compute-only") as of_template,
        supervisor.spawn("none") as of_none,
    ):
        assert supervisor.reload_policy(document.file, TOKEN) == []
        for cell in (of_object, of_template, of_none):
            assert not may_read(cell, data)


def test_what_spawn_granted_beside_the_policy_stays(supervisor, document, data):
    own = {
        "own": lambda payload: payload,
        "filesystem": FilesystemCapability.from_paths(data),
    }
    options = {"capabilities": own, "allowed_imports": ["math"]}
    with supervisor.spawn("a", policy=document.file, **options) as cell:
        document("imports: [json]")
        supervisor.reload_policy(document.file, TOKEN)
        assert ask(cell, "own", "x", 5) == 5
        assert cell.call("math.gcd", 4, 6, timeout=PATIENCE) == 2
        assert may_read(cell, data)


@pytest.mark.parametrize(
    "lines", ["fs: {raed: /x}", "fs: [", "extends: nope"], ids=["key", "syntax", "template"]
)
def test_a_document_that_is_none_changes_nothing(supervisor, document, data, lines):
    document(f"fs: {{read: {data}}}")
    with supervisor.spawn("a", policy=document.file) as cell:
        document(lines)
        with pytest.raises(PolicyError, match=r"policy\.yml:") as caught:
            supervisor.reload_policy(document.file, TOKEN)
        assert not isinstance(caught.value, PolicyAuthError)
        assert may_read(cell, data)
        document.file.unlink()
        with pytest.raises(PolicyError, match="cannot be read"):
            supervisor.reload_policy(document.file, TOKEN)
        assert may_read(cell, data)


@pytest.mark.parametrize("token", ["wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), b"\0"])
def test_a_wrong_token_changes_nothing(supervisor, document, data, token):
    with supervisor.spawn("a", policy=document.file) as cell:
        document(f"fs: {{read: {data}}}")
        with pytest.raises(PolicyAuthError, match="wrong"):
            supervisor.reload_policy(document.file, token)
        assert not may_read(cell, data)


def test_without_a_token_nobody_may(document):
    with Supervisor() as supervisor:
        with pytest.raises(PolicyAuthError, match="no policy token"):
            supervisor.reload_policy(document.file, "guess")
        supervisor.set_policy_token("later")
        assert supervisor.reload_policy(document.file, "later") == []
        supervisor.set_policy_token("newer")
        with pytest.raises(PolicyAuthError):
            supervisor.reload_policy(document.file, "later")


def test_an_empty_token_is_none(document):
    with pytest.raises(ValueError, match="empty"):
        Supervisor(policy_token="")
    with Supervisor() as supervisor, pytest.raises(ValueError, match="empty"):
        supervisor.set_policy_token(b"")


def test_the_token_is_asked_for_before_the_document_is_read_out(supervisor, document):
    document("fs: {raed: /x}")
    with pytest.raises(PolicyAuthError) as caught:
        supervisor.reload_policy(document.file, "wrong")
    assert "raed" not in str(caught.value)


def test_the_packages_own_supervisor(document, data):
    pyisolate.set_policy_token(TOKEN)
    with new_cell(policy=document.file) as cell:
        document(f"fs: {{read: {data}}}")
        assert pyisolate.reload_policy(document.file, TOKEN) == [cell.name]
        assert may_read(cell, data)


# --- watching -----------------------------------------------------------------------------------


def test_a_watched_file_is_loaded_when_it_changes(supervisor, document, data):
    with (
        supervisor.spawn("a", policy=document.file) as cell,
        supervisor.watch_policy(document.file, TOKEN, interval=0.01),
    ):
        assert not may_read(cell, data)
        document(f"fs: {{read: {data}}}")
        assert until(lambda: cell.policy.rules)
        assert may_read(cell, data)


def test_watching_loads_at_once_and_stops(supervisor, document, data):
    with supervisor.spawn("a", policy=document.file) as cell:
        document(f"fs: {{read: {data}}}")
        watch = supervisor.watch_policy(document.file, TOKEN, interval=0.01)
        assert may_read(cell, data)
        watch.stop()
        watch.stop()
        document("fs: {}")
        assert may_read(cell, data)


def test_a_mistake_is_logged_once_and_the_old_policy_kept(supervisor, document, data, caplog):
    document(f"fs: {{read: {data}}}")

    def complaints():
        return [it for it in caplog.records if it.levelno == logging.ERROR]

    with (
        supervisor.spawn("a", policy=document.file) as cell,
        supervisor.watch_policy(document.file, TOKEN, interval=0.005),
    ):
        document("fs: {raed: /x}")
        assert until(complaints)
        assert may_read(cell, data)
        document("fs: {}")
        assert until(lambda: not cell.policy.rules)
        assert len(complaints()) == 1
        assert "raed" in complaints()[0].getMessage()


def test_only_who_has_the_token_can_watch(supervisor, document):
    with pytest.raises(PolicyAuthError):
        supervisor.watch_policy(document.file, "wrong")
    with pytest.raises(ValueError, match="interval"):
        supervisor.watch_policy(document.file, TOKEN, interval=0)


# --- by the host, for one cell --------------------------------------------------------------------


def test_whoever_holds_the_cell_may_change_its_policy(data):
    with new_cell(policy=Policy()) as cell:
        assert not may_read(cell, data)
        cell.set_policy(Policy().allow_read(data))
        assert may_read(cell, data)
        cell.set_policy({"fs": {"read": []}})
        assert not may_read(cell, data)
        with pytest.raises(PolicyError):
            cell.set_policy("nope")
        assert cell.handed_out == []


# --- limits ---------------------------------------------------------------------------------------


def test_a_policys_limits_hold():
    cell = new_cell(policy={"limits": {"output_bytes_max": 1000}})
    with pytest.raises(pyisolate.OutputExceeded, match="output_bytes_max=1000"):
        run(cell, "while True: print('x' * 100)")


def test_a_keyword_wins_over_the_policy():
    policy = Policy().limit(output_bytes_max=1000)
    with new_cell(policy=policy, output_bytes_max=1 << 20) as cell:
        run(cell, "for _ in range(50): print('x' * 100)")


def test_the_disk_limit_is_an_error_in_the_guest(data):
    policy = Policy().allow_fs(data)
    with new_cell(policy=policy, disk_bytes_max=10) as cell:
        write = {"path": str(data / "new"), "data": b"x" * 11}
        kind, text = ask(cell, "filesystem", "write", write)
        assert kind == "OSError"
        assert "disk_bytes_max" in text
        assert ask(cell, "filesystem", "write", {**write, "data": b"x" * 10}) == 10


def test_a_journal_is_kept_and_closed(tmp_path, data):
    journal = tmp_path / "run.journal"
    with (
        Supervisor(journal=journal) as supervisor,
        supervisor.spawn("a", policy=Policy().allow_read(data)) as cell,
    ):
        assert may_read(cell, data)
        run(cell, "post('a secret thing')")
    text = journal.read_text()
    assert '"cell":"a"' in text
    assert "a secret thing" not in text
    with Supervisor(journal=journal):
        pass
    assert journal.read_text().startswith(text)
    with pytest.raises(ValueError, match="journal_payloads"):
        Supervisor(journal=tmp_path / "other", journal_payloads="some")
    with pytest.raises(pyisolate.SandboxError, match="journal"):
        Supervisor(journal=tmp_path / "no" / "folder")


# --- what was handed over -------------------------------------------------------------------------


def test_descriptors_are_listed_and_connections_end_with_their_grant(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("0123456789")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        policy = Policy().grant(ReadPath(path), ConnectTCP("127.0.0.1", port))
        with new_cell(policy=policy, allowed_imports=["socket"]) as cell:
            run(
                cell,
                f"""
import socket
file = open({str(path)!r})
line = socket.create_connection(("127.0.0.1", {port}), 10)
""",
            )
            peer, _ = server.accept()
            with peer:
                peer.settimeout(10)
                assert sorted(cell.handed_out) == [
                    f"file {path} (to be read)",
                    f"tcp 127.0.0.1:{port} (127.0.0.1)",
                ]
                cell.set_policy(Policy())
                assert peer.recv(1) == b""  # the guest's end was shut
            run(cell, "post([line.recv(1), file.read(4)])")
            assert cell.recv(PATIENCE) == [b"", "0123"]
            assert cell.handed_out == [f"file {path} (to be read)"]
            with pytest.raises(PolicyError):
                run(cell, f"open({str(path)!r})")
