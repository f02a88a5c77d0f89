"""What the documents show is what happens: files, commands, programs and their output.

A document is walked from its beginning to its end in a folder of its own:

- A block whose first line is `# NAME` is a file of that name. Other blocks are run in their place.
- Python runs; shell lines run one by one; YAML, TOML and JSON have to be policies. TOML and JSON
  say the same as the YAML before them.
- Lines that begin with `#> ` are the output. In them `...` stands for anything on the line; alone
  it stands for any lines.

The folder and port that a document names are replaced by those of the test.
"""

import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyisolate import Policy
from test_readme import BLOCK, ROOT

FOLDER = "/srv/report"
PORT = "8765"
PATIENCE = 250
NAME = re.compile(r"# ([\w./-]+\.\w+)\n")


@dataclass(frozen=True)
class Block:
    """One example of a document."""

    language: str
    source: str
    line: int
    heading: str

    @property
    def file(self):
        """The name of the file that it is; None if it is none."""
        found = NAME.match(self.source)
        return found[1] if found else None


def blocks(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        above = [it for it in text[: match.start()].splitlines() if re.match(r"#+ ", it)]
        heading = above[-1].lstrip("# ") if above else ""
        line = text[: match.start()].count("\n") + 1
        found.append(Block(match[1], match[2], line, heading))
    return found


def expected(source):
    return re.findall(r"^ *#> ?(.*)$", source, re.MULTILINE)


def pattern(lines):
    """What an output has to match, with `...` for what differs from run to run."""
    parts = []
    for line in lines:
        if line == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*".join(map(re.escape, line.rstrip().split("..."))) + r"[ ]*\n")
    return "".join(parts)


class Walk:
    """A document that is being walked."""

    def __init__(self, document, folder):
        self.document = document
        self.folder = folder
        self.blocks = blocks(document)
        self.servers = []
        self.failures = {}
        self.next = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        scripts = sysconfig.get_path("scripts")
        self.environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}

    def to(self, number):
        """Does everything up to a block; raises what is wrong with that block alone."""
        while self.next <= number:
            block = self.blocks[self.next]
            try:
                self.do(block)
            except AssertionError as error:
                self.failures[self.next] = error
            self.next += 1
        if number in self.failures:
            raise self.failures[number]

    def here(self, text):
        return text.replace(FOLDER, str(self.folder)).replace(PORT, self.port)

    def there(self, text):
        return text.replace(str(self.folder), FOLDER).replace(self.port, PORT)

    def do(self, block):
        if block.file is not None:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            source = block.source
            if path.suffix in (".csv", ".txt"):
                source = source.partition("\n")[2]
            path.write_text(self.here(source), encoding="utf-8")
            if path.suffix in (".py", ".yml", ".toml"):
                self.read(block)
            return
        match block.language:
            case "python":
                self.python(block)
            case "sh":
                for command, lines in commands(block.source):
                    self.shell(block, command, lines)
            case "yaml" | "toml" | "json":
                self.read(block)
            case language:
                assert language in ("text", "csv"), f"line {block.line}: a block of {language}"

    def read(self, block):
        if block.language == "python":
            compile(block.source, block.file, "exec")
            return
        policy = Policy.from_text(block.source, block.language)
        if block.language != "yaml":
            before = [it for it in self.blocks if it.language == "yaml" and it.line < block.line]
            assert policy == Policy.from_text(before[-1].source), f"line {block.line} differs"

    def python(self, block):
        script = self.folder / f"line-{block.line}.py"
        script.write_text("\n" * block.line + self.here(block.source), encoding="utf-8")
        self.run(block, [sys.executable, "-W", "error", script], expected(block.source))

    def shell(self, block, command, lines):
        if command.endswith("&"):
            self.serve(command)
            return
        if command.startswith(("cargo ", "pip ")):
            return
        self.run(block, ["bash", "-c", self.here(command)], lines)

    def run(self, block, command, lines):
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        output = self.there(done.stdout)
        where = f"{self.document}, line {block.line}: {self.there(str(command[-1]))}\n{output}"
        assert done.returncode == 0, where
        if lines:
            text = "".join(f"{it.rstrip()}\n" for it in output.splitlines())
            assert re.fullmatch(pattern(lines), text), where

    def serve(self, command):
        """Starts what a shell would leave in the background, and waits until it listens."""
        name = command.removesuffix("&").split()[-1]
        self.servers.append(
            subprocess.Popen(
                [sys.executable, name],
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(self.port))) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{command} does not listen")

    def end(self):
        for server in self.servers:
            server.kill()
            server.wait()


def commands(source):
    """The commands of a shell block, each with its output."""
    found = []
    for line in source.replace("\\\n", "").splitlines():
        if line.startswith("#>"):
            found[-1][1].append(line[3:])
        elif line and not line.startswith("#"):
            found.append((line.partition("  # ")[0].rstrip(), []))
    return found


def walked(document):
    """A fixture that walks a document once for all of its tests."""

    @pytest.fixture(scope="module")
    def walk(tmp_path_factory):
        walk = Walk(document, tmp_path_factory.mktemp("docs"))
        yield walk
        walk.end()

    return walk


def cases(document):
    return [
        pytest.param(number, id=f"{block.line}: {block.heading}")
        for number, block in enumerate(blocks(document))
    ]


policy_walk = walked("docs/policy.md")
interpreter_walk = walked("docs/subinterpreter.md")
readme_walk = walked("README.md")


@pytest.mark.parametrize("number", cases("docs/policy.md"))
def test_the_policy_document_is_true(policy_walk, number):
    policy_walk.to(number)


@pytest.mark.parametrize("number", cases("docs/subinterpreter.md"))
def test_the_document_on_sub_interpreters_is_true(interpreter_walk, number):
    interpreter_walk.to(number)


README_FILES = {
    "penguins.csv": "species,mass\nAdelie,3700\n",
    "report.py": "import csv, statistics\nprint(recv()['name'])\n",
    "job.py": "print('done')\n",
}


@pytest.mark.parametrize("number", cases("README.md"))
def test_the_readme_is_true(readme_walk, number):
    for name, text in README_FILES.items():
        (readme_walk.folder / name).write_text(text, encoding="utf-8")
    if readme_walk.blocks[number].language != "python":  # those have tests of their own
        readme_walk.next = number
        readme_walk.to(number)


def rows(document, key):
    """The rows of the table whose first column has names in backticks and whose head begins so."""
    text = (ROOT / document).read_text(encoding="utf-8")
    table = text[text.index(f"| {key} |") :].partition("\n\n")[0]
    cells = [[it.strip() for it in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells[2:]}


def amount(text):
    number, _, unit = text.replace(",", "").partition(" ")
    value = float(number) if "." in number else int(number)
    return value * {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]


def test_the_limits_are_those_of_the_command():
    manual = rows("docs/policy.md", "limit")
    readme = rows("README.md", "limit")
    said = subprocess.run(
        [sys.executable, "-m", "pyisolate", "run", "--help"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout
    told = dict(re.findall(r"^ +(\w+)=(\d\S*)  ", said, re.MULTILINE))
    assert manual.keys() == readme.keys() == told.keys()
    for name, value in told.items():
        default = amount(re.sub(r"([KMG]iB)", r" \1", value.replace("60s", "60000")))
        assert amount(manual[name][1]) == amount(readme[name][0]) == default, name
        least = amount(manual[name][2])
        Policy().limit(**{name: least})
        if least:
            with pytest.raises(ValueError, match=f"outside {least}"):
                Policy().limit(**{name: least - (1 if least >= 1 else least / 10)})


def test_the_table_of_templates_is_theirs():
    for name, row in rows("docs/policy.md", "template").items():
        policy = Policy.template(name)
        named = zip(("wall_time_ms", "cpu_ms", "mem_bytes"), row[3:], strict=True)
        for limit, told in named:
            assert policy.limits[limit] == amount(told), (name, limit)
        assert policy.limits["network_ops_max"] == (2000 if name == "web-scraper" else 0)
        assert not any(policy.allows("get", url) for url in ("https://a.example/", "http://b/"))


def test_links_of_the_documents_lead_somewhere():
    for paper in (ROOT / "docs").glob("*.md"):
        text = paper.read_text(encoding="utf-8")
        missing = []
        for path, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
            if "://" in path:
                continue
            target = paper.parent / path if path else paper
            if not target.exists():
                missing.append(path)
            elif anchor and anchor not in anchors(target):
                missing.append(f"{path}#{anchor}")
        assert missing == [], paper.name


def anchors(paper: Path):
    titles = re.findall(r"^#+ (.*)$", paper.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_no_performance_figure_is_typed_into_the_documents():
    figure = re.compile(r"\d\s*(µs|us|GB/s|GiB/s|messages/s|cells/s|requests/s)\b")
    for paper in (ROOT / "docs").glob("*.md"):
        assert figure.findall(paper.read_text(encoding="utf-8")) == []


def test_the_microvm_paper_shows_what_happens(machines, tmp_path):
    """Its shell lines install programs and are not run here."""
    walk = Walk("docs/microvm.md", tmp_path)
    shown = [block for block in walk.blocks if block.language == "python"]
    assert shown
    for block in shown:
        walk.python(block)
