"""`pyisolate policy`, `pyisolate journal`, and the flags of `pyisolate run` that go with them."""

import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from cells import PATIENCE
from command import MODULE, call, script_runner

POLICY = """\
version: 1
defaults:
  fs:
    read: /data
    deny: /data/private
  net:
    connect: ["*:443"]
  imports: [csv]
cells:
  worker:
    fs:
      write: /out
"""

READS = """\
for path in ({0!r}, "/etc/hostname"):
    try:
        post(request("filesystem", "read", {{"path": path}}))
    except PermissionError as error:
        post(str(error))
"""


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yml"
    path.write_text(POLICY, encoding="utf-8")
    return path


@pytest.fixture
def run(require, tmp_path):
    require("userns", "seccomp")
    return script_runner(tmp_path)


@pytest.fixture
def recorded(run, tmp_path):
    """The journal of a run that read one granted file and asked for another."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("hello")
    (tmp_path / "own.yml").write_text(f"version: 1\nfs: {{read: {tmp_path}/data}}\n")
    source = READS.format(f"{tmp_path}/data/a.txt")
    done = run(source, "--policy", tmp_path / "own.yml", "--journal", tmp_path / "run.journal")
    assert done.stdout.startswith("b'hello'\n'filesystem.read /etc/hostname is not granted")
    assert done.returncode == 0
    return tmp_path / "run.journal"


# --- check ----------------------------------------------------------------------------------------


def test_a_policy_in_order_is_summed_up(policy):
    done = call("policy", "check", policy)
    assert done.stdout == f"{policy}: ok: 4 rules, 0 limits; cell worker: 1 rule, 0 limits\n"
    assert (done.stderr, done.returncode) == ("", 0)
    done = call("policy", "check", "-", input=POLICY)
    assert done.stdout.startswith("<stdin>: ok")


def test_what_is_wrong_is_shown_where_it_stands(policy, tmp_path):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("version: 1\nfs:\n  reed: /data\n")
    done = call("policy", "check", wrong, policy)
    assert f"{wrong}:3:3: unknown key" in done.stderr
    assert "  |   ^^^^\n" in done.stderr
    assert 'did you mean "read"?' in done.stderr
    assert done.stdout.startswith(f"{policy}: ok")
    assert done.returncode == 1


def test_a_file_that_cannot_be_read(policy, tmp_path):
    done = call("policy", "check", tmp_path / "missing.yml", policy)
    assert "missing.yml: No such file" in done.stderr
    assert done.stdout.startswith(f"{policy}: ok")
    assert done.returncode == 2


# --- explain --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["read", "/data/x"], True),
        (["read", "/data/private/x"], False),
        (["write", "/out/x"], False),
        (["--cell", "worker", "write", "/out/x"], True),
        (["connect", "example.org:443"], True),
        (["connect", "10.0.0.1:443"], False),
        (["import", "csv"], True),
        (["run", "git", "--version"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_explain_answers_by_text_and_status(policy, words, allowed):
    done = call("policy", "explain", policy, *words)
    assert done.stdout.startswith("allowed: " if allowed else "denied: ")
    assert done.returncode == (0 if allowed else 3)
    told = json.loads(call("policy", "explain", policy, "--json", *words).stdout)
    assert told["allowed"] is allowed


def test_explain_names_the_rule_and_the_smallest_grant(policy):
    assert f"{policy}:4" in call("policy", "explain", policy, "read", "/data/x").stdout
    told = json.loads(call("policy", "explain", policy, "--json", "read", "/etc/x").stdout)
    assert told["rule"] is None
    assert told["grant_python"] == 'ReadPath("/etc/x")'
    assert "/etc/x" in told["grant_yaml"]


def test_explain_takes_a_template_by_name():
    done = call("policy", "explain", "readonly-fs", "read", "/data/x")
    assert done.returncode == 0
    done = call("policy", "explain", "readonly-f", "read", "/data/x")
    assert 'did you mean "readonly-fs"?' in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["fly", "moon"], "is no act: use read, write"),
        (["read"], "write it as: read PATH"),
        (["read", "relative"], "is not absolute"),
        (["read", "/x", "--json"], "options stand before the verb"),
        (["--cell", "a b", "read", "/x"], "--cell: cell name"),
        ([], "required arguments"),
    ],
)
def test_explain_says_how_to_ask(policy, words, why):
    done = call("policy", "explain", policy, *words)
    assert why in done.stderr
    assert (done.stdout, done.returncode) == ("", 2)


def test_explain_notes_a_cell_that_the_policy_does_not_name(policy):
    done = call("policy", "explain", policy, "--cell", "wroker", "read", "/data/x")
    assert 'says nothing of a cell "wroker"' in done.stderr
    assert done.returncode == 0


# --- diff and templates ---------------------------------------------------------------------------


def test_diff_tells_both_directions_and_each_cell(policy, tmp_path):
    new = tmp_path / "new.yml"
    new.write_text(POLICY.replace("[csv]", "[json]").replace("/out", "/away"), encoding="utf-8")
    done = call("policy", "diff", policy, new)
    assert done.returncode == 1
    every, worker = done.stdout.split("cell worker:\n")
    assert every.startswith("every cell:\n  newly allowed:\n    + imports: [json]")
    assert "    - imports: [csv]" in every
    assert "/away" in worker
    assert "json" not in worker
    told = json.loads(call("policy", "diff", policy, new, "--json").stdout)
    assert told["same"] is False
    assert [part["cell"] for part in told["differences"]] == [None, "worker"]
    done = call("policy", "diff", policy, new, "--cell", "other")
    assert "/away" not in done.stdout


def test_the_same_policy_makes_no_difference(policy):
    done = call("policy", "diff", policy, "-", input=POLICY)
    assert (done.stdout, done.returncode) == ("no difference\n", 0)


def test_templates_are_listed_and_printed(tmp_path):
    listed = call("policy", "templates")
    assert listed.returncode == 0
    names = [line.split()[0] for line in listed.stdout.splitlines() if not line.startswith(" ")]
    assert "compute-only" in names
    for name in names:
        path = tmp_path / f"{name}.yml"
        path.write_text(call("policy", "templates", name).stdout, encoding="utf-8")
        assert call("policy", "check", path).returncode == 0
        assert call("policy", "diff", path, name).returncode == 0
    assert call("policy", "templates", "nothing").returncode == 2


# --- run ------------------------------------------------------------------------------------------


def test_flags_win_over_the_policy_and_add_to_it(run, tmp_path):
    (tmp_path / "own.yml").write_text(
        "version: 1\nimports: [csv]\nlimits: {output_bytes_max: 10}\n"
    )
    source = "import csv, json\nprint('x' * 1000)"
    done = run(source, "--policy", tmp_path / "own.yml", "--import", "json")
    assert "output_bytes_max=10" in done.stderr
    assert done.returncode == 4
    more = ["--limit", "output_bytes_max=1MiB"]
    assert run(source, "--policy", tmp_path / "own.yml", "--import", "json", *more).returncode == 0
    assert run(source, "--policy", tmp_path / "own.yml", *more).returncode == 3


def test_a_cell_has_what_the_policy_says_of_it(run, tmp_path):
    (tmp_path / "own.yml").write_text("version: 1\ncells: {worker: {clock: [time]}}\n")
    source = "post(request('clock', 'time', {}) > 0)"
    flags = ["--policy", tmp_path / "own.yml"]
    assert run(source, *flags, "--cell", "worker").stdout == "True\n"
    assert run(source, *flags).returncode == 3
    done = run(source, *flags, "--cell", "wroker")
    assert 'says nothing of a cell "wroker"' in done.stderr
    assert done.returncode == 2


def test_secrets_come_from_files_and_variables(run, tmp_path):
    (tmp_path / "own.yml").write_text("version: 1\nsecrets: {key: {reveal: true}}\n")
    (tmp_path / "key").write_text("from a file\n")
    source = "post(request('secret', 'reveal', {'name': 'key'}))"
    flags = ["--policy", tmp_path / "own.yml"]
    assert run(source, *flags, "--secret", f"key=@{tmp_path}/key").stdout == "'from a file'\n"
    env = {**os.environ, "KEY": "from outside"}
    assert run(source, *flags, "--secret", "key=env:KEY", env=env).stdout == "'from outside'\n"
    done = run(source, *flags, "--secret", "key=hunter2")
    assert "NAME=@FILE or NAME=env:VARIABLE" in done.stderr
    assert "hunter2" not in done.stderr
    assert done.returncode == 2


def test_a_revealed_secret_is_not_in_the_journal(run, tmp_path):
    (tmp_path / "own.yml").write_text("version: 1\nsecrets: {key: {reveal: true}}\n")
    (tmp_path / "key").write_text("correct horse battery")
    journal = tmp_path / "run.journal"
    flags = ["--policy", tmp_path / "own.yml", "--secret", f"key=@{tmp_path}/key"]
    flags += ["--journal", journal, "--journal-payloads", "full"]
    done = run("post(len(request('secret', 'reveal', {'name': 'key'})))", *flags)
    assert done.stdout == "21\n"
    told = [json.loads(line) for line in journal.read_text().splitlines()]
    [answer] = [entry for entry in told if entry["kind"] == "answer" and entry.get("capability")]
    assert answer["sensitive"] is True
    assert "payload" not in answer
    digest = hashlib.sha256(b"correct horse battery").hexdigest()
    assert digest not in journal.read_text()
    # In any encoding of a pickle the text itself would stand as it is.
    for entry in told:
        kept = entry.get("payload", {})
        assert "Y29ycmVjdCBob3JzZ" not in kept.get("base64", "")
        assert "correct horse" not in kept.get("text", "")


# --- journals -------------------------------------------------------------------------------------


def test_a_run_is_recorded_and_verifies(recorded):
    assert stat.S_IMODE(recorded.stat().st_mode) == 0o600
    done = call("journal", "verify", recorded)
    assert done.stdout.startswith(f"{recorded}: ok\n")
    assert done.returncode == 0
    told = json.loads(call("journal", "verify", recorded, "--json").stdout)
    assert told["closed"] is True
    assert told["lines"] == len(recorded.read_text().splitlines())
    assert call("journal", "verify", recorded, "--head", told["head"]).returncode == 0
    done = call("journal", "verify", recorded, "--head", "0" * 64)
    assert "no line has the hash" in done.stdout
    assert done.returncode == 1


def test_a_line_is_checked_by_hand(recorded):
    line = recorded.read_text().splitlines()[4]
    body, told = line.removesuffix('"}').split(',"hash":"')
    assert hashlib.sha256(body.encode()).hexdigest() == told


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: [*rows[:3], rows[3].replace("e", "3", 1), *rows[4:]], "line 4 was changed"),
        (lambda rows: rows[:3] + rows[4:], "before line 4 records are missing"),
        (lambda rows: [*rows[:3], rows[4], rows[3], *rows[5:]], "before line 4 records"),
        (lambda rows: rows[:4] + rows[3:], "line 5 was put in or moved"),
        (lambda rows: rows[:-1], "does not end with the line that closes it"),
        (lambda rows: [*rows[:-1], rows[-1][:20]], "has no end"),
        (lambda rows: rows[1:], "line 1 is not the head"),
    ],
    ids=["changed", "dropped", "swapped", "repeated", "cut", "torn", "beheaded"],
)
def test_what_was_done_to_a_journal_is_named(recorded, change, why):
    rows = recorded.read_text().splitlines(keepends=True)
    done = call("journal", "verify", "-", input="".join(change(rows)))
    assert why in done.stdout
    assert done.returncode == 1
    assert call("journal", "verify", "-", input="".join(rows)).returncode == 0


def test_a_key_is_needed_to_verify(run, tmp_path):
    (tmp_path / "key").write_bytes(os.urandom(32))
    (tmp_path / "other").write_bytes(os.urandom(32))
    (tmp_path / "short").write_bytes(b"short")
    journal = tmp_path / "run.journal"
    flags = ["--journal", journal, "--journal-key-file"]
    assert run("post(1)", *flags, tmp_path / "short").returncode == 2
    assert run("post(1)", *flags, tmp_path / "key").returncode == 0
    assert "made with a key" in call("journal", "verify", journal).stdout
    other = call("journal", "verify", journal, "--key-file", tmp_path / "other")
    assert (other.returncode, "or the key is another" in other.stdout) == (1, True)
    assert call("journal", "verify", journal, "--key-file", tmp_path / "key").returncode == 0
    # It is gone on with under the same key alone.
    assert run("post(1)", "--journal", journal).returncode == 2
    assert run("post(1)", *flags, tmp_path / "key").returncode == 0
    assert call("journal", "verify", journal, "--key-file", tmp_path / "key").returncode == 0


def test_a_journal_has_to_be_a_file_of_its_own(run, tmp_path):
    (tmp_path / "text").write_text("something else\n")
    for path, why in [("/dev/full", "no regular file"), (tmp_path / "text", "cannot be gone on")]:
        done = run("post(1)", "--journal", path)
        assert why in done.stderr
        assert (done.stdout, done.returncode) == ("", 2)
    assert (tmp_path / "text").read_text() == "something else\n"


def test_records_are_listed_one_a_line(recorded):
    done = call("journal", "show", recorded, "--kind", "request")
    granted, denied = done.stdout.splitlines()
    assert "filesystem: read " in granted
    assert " granted" in granted
    assert "read /etc/hostname denied by policy" in denied
    rows = call("journal", "show", recorded, "--json", "--cell", "script").stdout.splitlines()
    entries = [json.loads(row) for row in rows]
    assert {entry["cell"] for entry in entries} == {"script"}
    kinds = [entry["kind"] for entry in entries]
    assert kinds[0] in ("spawn", "configure")
    assert kinds[-1] == "end"
    assert call("journal", "show", recorded, "--cell", "nobody").stdout == ""
    assert call("journal", "show", recorded, "--kind", "nothing").returncode == 2


def test_a_listing_commands_no_terminal(run, tmp_path):
    journal = tmp_path / "run.journal"
    source = "request('files', '\\x1b]0;owned\\x07\\n  99 forged\\x9b')"
    assert run(source, "--journal", journal).returncode != 0
    shown = call("journal", "show", journal).stdout
    assert "\\x1b]0;owned\\x07\\n  99 forged\\x9b" in shown
    shown += call("journal", "show", journal, "--json").stdout
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown if c != "\n")


# --- learn and replay -----------------------------------------------------------------------------


def test_a_run_passes_under_what_was_learnt_from_it(recorded, run, tmp_path):
    learnt = tmp_path / "learnt.yml"
    done = call("policy", "learn", recorded, "-o", learnt)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert "# refused once" in learnt.read_text()
    assert call("policy", "check", learnt).returncode == 0
    done = run(READS.format(f"{tmp_path}/data/a.txt"), "--policy", learnt)
    assert "not granted" not in done.stdout
    done = call("policy", "replay", learnt, recorded)
    assert done.stdout.startswith("newly allowed: 1\n  + script: read /etc/hostname")
    assert done.returncode == 1
    only = call("policy", "learn", recorded, "--granted-only").stdout
    assert "hostname" not in only
    done = call("policy", "replay", "-", recorded, input=only)
    assert (done.stdout, done.returncode) == ("unchanged: 2\n", 0)


def test_imports_are_learnt_too(run, tmp_path):
    source = "import csv\ntry:\n    import json\nexcept ImportError:\n    post('no json')"
    done = run(source, "--import", "csv", "--journal", tmp_path / "run.journal")
    assert (done.stdout, done.stderr, done.returncode) == ("'no json'\n", "", 0)
    learnt = tmp_path / "learnt.yml"
    call("policy", "learn", tmp_path / "run.journal", "-o", learnt)
    done = run(source, "--policy", learnt)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_folders_can_be_learnt_for_their_files(recorded, tmp_path):
    assert "a.txt" in call("policy", "learn", recorded, "--fold", "1").stdout
    folded = call("policy", "learn", recorded, "--fold", "0", "--granted-only").stdout
    assert f"{tmp_path}/data]" in folded
    assert "a.txt" not in folded


def test_replay_tells_what_a_template_would_refuse(recorded, tmp_path):
    done = call("policy", "replay", "compute-only", recorded)
    assert f"  - script: read {tmp_path}/data/a.txt" in done.stdout
    assert "to allow it: fs: {read: " in done.stdout
    assert done.returncode == 1
    told = json.loads(call("policy", "replay", "compute-only", recorded, "--json").stdout)
    assert (told["same"], told["denied"]["decisions"], told["unchanged"]) == (False, 1, 1)


def test_a_line_that_is_no_record_is_named(recorded, tmp_path):
    bad = tmp_path / "bad.journal"
    bad.write_text(recorded.read_text() + "{}\n")
    line = len(bad.read_text().splitlines())
    for words in (["learn", bad], ["replay", "compute-only", bad]):
        done = call("policy", *words)
        assert f"bad.journal: line {line} is no record" in done.stderr
        assert done.returncode == 2


@pytest.mark.parametrize(
    "words",
    [
        ["policy"],
        ["policy", "check"],
        ["policy", "explain"],
        ["policy", "diff"],
        ["policy", "templates"],
        ["policy", "learn"],
        ["policy", "replay"],
        ["journal"],
        ["journal", "verify"],
        ["journal", "show"],
    ],
    ids=" ".join,
)
def test_help_is_there_and_within_a_terminals_width(words):
    done = call(*words, "--help", env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == 0
    assert f"Usage: pyisolate {' '.join(words)}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_an_answer_that_cannot_be_printed_is_trouble():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [*MODULE, "policy", "templates"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert "cannot write to stdout" in done.stderr
    assert done.returncode == 6
