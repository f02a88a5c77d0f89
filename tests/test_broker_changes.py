"""Policies that change under requests, listeners that misbehave, journals that end badly."""

import logging
import os
import signal
import threading
from collections import Counter

import pytest

import pyisolate
from asking import ask
from cells import PATIENCE, assert_serves, run, until
from command import call
from plumbing import ask_in_threads, gate_fixture, host, nothing_is_left  # noqa: F401
from pyisolate import Supervisor

TOKEN = "a long enough token"


@pytest.fixture
def supervisor():
    with Supervisor(policy_token=TOKEN) as supervisor:
        yield supervisor


# --- policies that change -------------------------------------------------------------------------


def test_each_answer_is_by_one_policy_or_the_other(supervisor, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    documents = []
    for name in ("one", "two"):
        document = tmp_path / f"{name}.yml"
        document.write_text(f"version: 1\nfs: {{read: {tmp_path / name}}}\n")
        documents.append(document)
    is_over = threading.Event()
    asked = []

    def is_told(payload):
        asked.append(payload)
        return is_over.is_set()

    cells = [
        supervisor.spawn(
            f"a-{number}",
            policy=documents[0],
            capabilities={"state": is_told},
            allowed_imports=["threading"],
        )
        for number in range(3)
    ]
    for cell in cells:
        cell.exec(f"""
import threading
counts = {{}}
def count(name):
    while not request("state", "over"):
        try: answer = request("filesystem", "read", {{"path": {str(tmp_path)!r} + "/" + name}})
        except PermissionError as error:
            answer = b"denied" if name in str(error) and "no rule matched" in str(error) else error
        key = f"{{name}}: {{answer!r}}"
        counts[key] = counts.get(key, 0) + 1
threads = [threading.Thread(target=count, args=(name,)) for name in ("one", "two")]
for thread in threads: thread.start()
for thread in threads: thread.join()
post(counts)
""")
    for turn in range(400):
        if turn % 10 == 9:  # now and then each policy is in force for a while
            goal = len(asked) + 60
            assert until(lambda goal=goal: len(asked) >= goal)
        changed = supervisor.reload_policy(documents[(turn + turn // 10) % 2], TOKEN)
        assert changed == ["a-0", "a-1", "a-2"]
        with pytest.raises(pyisolate.PolicyAuthError):
            supervisor.reload_policy(documents[turn % 2], "wrong")
    is_over.set()
    counts = Counter()
    for cell in cells:
        counts.update(cell.recv(PATIENCE))
        cell.close()
    both = [
        f"{name}: {answer!r}" for name in ("one", "two") for answer in (b"denied", name.encode())
    ]
    assert sorted(counts) == sorted(both)


def test_a_later_policy_narrows_what_was_granted_whole(supervisor, tmp_path):
    document = tmp_path / "policy.yml"
    document.write_text("version: 1\n")
    own = {"db": lambda action, payload: action, "other": lambda action, payload: action}
    with supervisor.spawn("a", policy=document, capabilities=own) as cell:
        assert ask(cell, "db", "drop") == "drop"
        document.write_text("version: 1\ncapabilities: {db: [query]}\n")
        supervisor.reload_policy(document, TOKEN)
        assert ask(cell, "db", "query") == "query"
        assert ask(cell, "db", "drop")[0] == "CapabilityDenied"
        assert ask(cell, "other", "x") == "x"


def test_a_watched_file_may_become_anything(supervisor, tmp_path, caplog):
    document = tmp_path / "policy.yml"
    document.write_text("version: 1\n")
    with (
        supervisor.spawn("a", policy=document) as cell,
        supervisor.watch_policy(document, TOKEN, interval=0.01) as watch,
    ):

        def complaints():
            return len([it for it in caplog.records if it.levelno == logging.ERROR])

        for count, content in enumerate((b"\xff\xfe", b"fs: [", b"\0", b"5", None), 1):
            if content is None:
                document.unlink()
                document.mkdir()
            else:
                document.write_bytes(content)
            assert until(lambda count=count: complaints() == count), content
        document.rmdir()
        document.write_text("version: 1\nclock: [time]\n")
        assert until(lambda: cell.policy.rules)
        assert ask(cell, "clock", "time") > 0
        assert watch._thread.is_alive()
    caplog.clear()  # the errors lead to the supervisor


# --- those who listen -----------------------------------------------------------------------------


def test_a_listener_that_raises_hears_of_the_next(caplog):
    heard = []

    def listener(event):
        heard.append(event.attempted_action)
        raise (ValueError, SystemExit, KeyboardInterrupt)[len(heard) % 3]

    with Supervisor(on_denial=listener) as supervisor, supervisor.spawn("a") as cell:
        for number in range(9):
            ask(cell, "nothing", f"x{number}")
        assert until(lambda: len(heard) == 9)
    assert heard == [f"x{number}" for number in range(9)]


def test_a_listener_that_hangs_holds_nobody_up(gate):
    with Supervisor(on_denial=gate) as supervisor, supervisor.spawn("a") as cell:
        run(
            cell,
            """
for number in range(3000):
    try: request("nothing", "x")
    except PermissionError: pass
""",
        )
        assert cell.stats.denied == 3000
        assert len(gate.begun) == 1
        supervisor.shutdown()
        gate.opened.set()


# --- the journal ----------------------------------------------------------------------------------


def test_a_journal_that_finds_no_room(tmp_path):
    program = """
        import os, resource, sys, time, pyisolate
        supervisor = pyisolate.Supervisor(journal=sys.argv[1])
        cell = supervisor.spawn("a", capabilities={"own": lambda payload: payload})
        size = os.stat(sys.argv[1]).st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, -1))
        cell.exec("for number in range(500): assert request('own', 'x', number) == number")\\
            .wait(20)
        time.sleep(0.5)  # until it is written
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        print("it goes on")
        try: supervisor.shutdown()
        except pyisolate.SandboxError as error: print(error)
        else: print("nobody was told")
    """
    journal = tmp_path / "journal"
    code, said, _ = host(program, str(journal))
    assert code == 0
    assert said.startswith("it goes on\nthe journal cannot be written to")
    # What is there is what was written; the want of an end shows.
    assert call("journal", "verify", str(journal)).returncode == 1


def test_a_journal_of_cells_that_are_killed(tmp_path, gate):
    journal = tmp_path / "journal"
    with Supervisor(journal=journal) as supervisor:
        for number in range(10):
            cell = supervisor.spawn(
                f"a-{number}", capabilities={"hang": gate}, allowed_imports=["threading"]
            )
            run(cell, ask_in_threads(4))
            os.kill(cell.pid, signal.SIGKILL) if number % 2 else cell.kill()
    assert call("journal", "verify", str(journal)).returncode == 0


def test_a_journal_of_a_host_that_is_killed(tmp_path):
    program = """
        import os, sys, time, pyisolate
        supervisor = pyisolate.Supervisor(journal=sys.argv[1])
        cell = supervisor.spawn("a", capabilities={"own": lambda payload: payload})
        cell.exec("while True: request('own', 'x', 'y' * 100)")
        time.sleep(0.5)
        os.kill(os.getpid(), 9)
    """
    journal = tmp_path / "journal"
    assert host(program, str(journal))[0] == -signal.SIGKILL
    assert journal.stat().st_size > 10_000
    assert call("journal", "verify", str(journal)).returncode == 1
    done = call("journal", "verify", "--allow-open", str(journal))
    # A kill may come in the middle of a line, which nobody can vouch for.
    assert done.returncode == 0 or "line" in done.stderr + done.stdout


def test_one_journal_is_one_supervisors(tmp_path):
    journal = tmp_path / "journal"
    with (
        Supervisor(journal=journal) as supervisor,
        pytest.raises(pyisolate.SandboxError, match="being written by another"),
    ):
        Supervisor(journal=journal)
    assert supervisor.list_active() == []
    for path in ("/dev/full", "/dev/null", tmp_path):
        with pytest.raises(pyisolate.SandboxError, match="no regular file"):
            Supervisor(journal=path)
    with Supervisor(journal=journal) as supervisor:
        assert_serves(supervisor)
    assert call("journal", "verify", str(journal)).returncode == 0
