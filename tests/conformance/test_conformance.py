"""Every backend gives the recorded transcripts, and the suite is able to fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyisolate.conformance import Program, Runner, Runners, programs
from pyisolate.conformance.backends import FEATURES
from pyisolate.conformance.canonical import canonical
from pyisolate.conformance.host import Host
from pyisolate.conformance.recorded import digest, dump, load

PROGRAMS = programs()
MACHINES = pytest.param("microvm", marks=[pytest.mark.slow, pytest.mark.timeout(180)])
BACKENDS = ["process", "subinterpreter", MACHINES]
"""Those that the suite is run against."""


@pytest.fixture(scope="module", params=BACKENDS)
def outcomes(request, require):
    """`outcomes(program)`: what became of it. Machines run ahead of the tests, one for each CPU."""
    backend = request.param
    require("userns", "seccomp")
    if backend == "microvm":
        request.getfixturevalue("machines")
    chosen = [
        item.callspec.params["program"]
        for item in request.session.items
        if item.path == Path(__file__) and getattr(item, "callspec", None)
        if item.callspec.params.get("outcomes") == backend
    ]
    jobs = os.process_cpu_count() if backend == "microvm" else 1
    with Runners(backend, load(), jobs) as runners:
        running = {program.name: runners.start(program) for program in chosen}
        yield lambda program: running[program.name].result(100)


@pytest.fixture(scope="module")
def process(require):
    require("userns", "seccomp")
    with Runner("process", {}) as runner:
        yield runner


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.name for program in PROGRAMS])
def test_the_transcript_is_the_recorded_one(outcomes, program):
    outcome = outcomes(program)
    if outcome.verdict == "not applicable":
        pytest.skip(f"the backend does not offer {', '.join(outcome.missing)}")
    assert outcome.sha256 == digest(load_once()[program.name]), outcome.diff()


def load_once(kept=[]):  # noqa: B006
    if not kept:
        kept.append(load())
    return kept[0]


# --- the suite itself -----------------------------------------------------------------------------


def test_names_are_unique_and_every_program_is_recorded():
    names = [program.name for program in PROGRAMS]
    assert len(set(names)) == len(names)
    assert set(load()) == set(names)


def test_no_transcript_is_empty_or_says_that_a_program_failed():
    for name, transcript in load().items():
        assert len(transcript.splitlines()) > 1, name
        assert "\nthe program " not in transcript, name
        assert "DOES NOT SAY" not in transcript, name


def test_transcripts_tell_nothing_of_the_host():
    text = dump(load())
    assert text.isascii()
    for word in ("pyisolate-conformance-", "/home/", " at 0x", sys.prefix):
        assert word not in text.replace("/home/host/file", ""), word


def test_a_recording_that_was_changed_by_hand_is_noticed():
    text = dump({"a/b": "one\ntwo\n", "c/d": "three\n"})
    assert load(text) == {"a/b": "one\ntwo\n", "c/d": "three\n"}
    with pytest.raises(ValueError, match="a/b"):
        load(text.replace("two", "2"))


def test_what_programs_need_is_what_backends_offer():
    assert {need for program in PROGRAMS for need in program.needs} == set(FEATURES)


def test_a_program_that_needs_what_is_not_offered_is_named_as_such(process):
    outcome = process.run(Program("own/name", lambda host: None, frozenset({"wings"})))
    assert (outcome.verdict, outcome.missing) == ("not applicable", ("wings",))


def test_a_program_that_stops_says_so(process):
    def steps(host: Host) -> None:
        host.write("begun")
        raise KeyError("own")

    outcome = process.run(Program("own/name", steps))
    assert outcome.verdict == "different"
    assert outcome.transcript == "begun\nthe program stopped: KeyError: 'own'\n"


def test_a_program_that_does_not_end_is_ended(process, monkeypatch):
    monkeypatch.setattr("pyisolate.conformance.runner.TIMEOUT_S", 0.5)
    outcome = process.run(Program("own/name", lambda host: host.spawn().run("while True: pass")))
    assert outcome.transcript.endswith("the program did not end in 0.5 s\n")
    outcome = process.run(Program("own/name", lambda host: host.spawn().run("post(1)")))
    assert outcome.transcript.endswith("> int 1\n")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True), (1, 1.0), (0.0, -0.0), ("a", b"a"), (b"a", bytearray(b"a")), ([1], (1,)),
        ({1}, frozenset({1})), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ("x" * 1000, "x" * 999 + "y"),
        ([same := [1], same], [[1], [1]]), ([2] * 999, [*[2] * 998, 3]),
    ],
)  # fmt: skip
def test_values_that_differ_have_texts_that_differ(one, other):
    assert canonical(one) != canonical(other)


def test_a_value_has_one_text():
    assert canonical({"b", "a"}) == canonical({"a", "b"}) == "set{str 'a', str 'b'}"
    assert canonical("in /my/place", "/my/place") == "str 'in $FOLDER'"
    with pytest.raises(TypeError, match="no canonical text"):
        canonical(object())


# --- the command ----------------------------------------------------------------------------------

SOME = "namespace/o*"


def run(*words, **options):
    command = [sys.executable, "-m", "pyisolate", "conformance", *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,
    )


@pytest.fixture
def _cells(require):
    require("userns", "seccomp")


@pytest.mark.usefixtures("_cells")
def test_the_command_runs_what_it_is_asked_for():
    done = run("--backend", "process", "-k", SOME)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("process: ")
    assert " 0 different, 0 not applicable" in done.stdout


@pytest.mark.usefixtures("_cells")
def test_a_difference_is_printed_and_is_exit_status_1(tmp_path):
    wrong = load()
    name = "namespace/one value"
    wrong[name] = wrong[name].replace("int 42", "int 43")
    recording = tmp_path / "recording.txt"
    recording.write_text(dump(wrong))
    done = run("--expected", recording, "-k", "namespace/o*")
    assert done.returncode == 1
    assert f"--- recorded {name}" in done.stdout
    assert "-  > int 43\n+  > int 42\n" in done.stdout
    done = run("--expected", recording, "-k", name, "--json")
    assert done.returncode == 1
    outcome, end = map(json.loads, done.stdout.splitlines())
    assert (outcome["program"], outcome["verdict"], end["different"]) == (name, "different", 1)
    assert outcome["sha256"] == digest(load()[name])
    assert "-  > int 43" in outcome["diff"]


@pytest.mark.usefixtures("_cells")
def test_json_transcripts_and_hashes(tmp_path):
    done = run("-k", SOME, "--json", "--transcripts", tmp_path)
    assert done.returncode == 0
    *outcomes, end = map(json.loads, done.stdout.splitlines())
    recorded = load()
    assert end["same"] == len(outcomes) > 1
    for outcome in outcomes:
        assert outcome["verdict"] == "same"
        assert outcome["sha256"] == digest(recorded[outcome["program"]])
        text = (tmp_path / f"{outcome['program']}.txt").read_text()
        assert text == recorded[outcome["program"]]


def test_the_list_is_all_of_them():
    done = run("--list")
    assert done.returncode == 0
    names = [line.partition("  (needs ")[0] for line in done.stdout.splitlines()]
    assert names == [program.name for program in PROGRAMS]
    listed = [json.loads(line) for line in run("--list", "--json").stdout.splitlines()]
    assert [line["program"] for line in listed] == names
    assert any(line["needs"] == ["numpy"] for line in listed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backend", "docker"], "docker"),
        (["--bakend", "process"], "--bakend"),
        (["-k", "no such program"], "no such program"),
        (["--record", "/tmp/x", "-k", "values"], "leave out -k"),
        (["--expected", "/no/such/file", "-k", SOME], "/no/such/file"),
        (["--jobs", "-1"], "-1"),
        (["word"], "word"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_exit_status_2(words, said):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_backend_that_is_not_there_is_exit_status_6(tmp_path):
    done = run(
        "--backend", "microvm", "-k", SOME, env={**os.environ, "PYISOLATE_CACHE": str(tmp_path)}
    )
    assert (done.returncode, done.stdout) == (6, "")
    assert "microvm" in done.stderr
    assert "pyisolate image build" in done.stderr


@pytest.mark.usefixtures("_cells")
def test_several_jobs_give_what_one_gives():
    one = run("-k", SOME, "--json")
    four = run("-k", SOME, "--json", "--jobs", "4")
    assert one.returncode == four.returncode == 0
    assert one.stdout.splitlines()[:-1] == four.stdout.splitlines()[:-1]


def test_the_help_says_how():
    done = run("--help")
    assert done.returncode == 0
    for word in ("--backend", "-k PATTERN", "--list", "--json", "--transcripts", "exit status"):
        assert word in done.stdout
