"""The recorded transcripts, which every backend must give: one text file that ships with the suite.

A program's part begins with a line `== name sha256`. The hash is that of the lines below it, which
begin with two spaces each: so the file can be reviewed as it is, and a change by hand is noticed.
"""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

NAME = "recorded.txt"


def digest(transcript: str) -> str:
    """The canonical hash of a transcript."""
    return hashlib.sha256(transcript.encode()).hexdigest()


def load(text: str | None = None) -> dict[str, str]:
    """The recorded transcripts by their programs' names.

    Raises `ValueError` if the file was changed by hand.
    """
    if text is None:
        text = files(__package__).joinpath(NAME).read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for part in text.split("\n== ")[1:]:
        head, _, body = part.partition("\n")
        name, _, expected = head.rpartition(" ")
        transcript = "".join(f"{line[2:]}\n" for line in body.removesuffix("\n").split("\n"))
        if digest(transcript) != expected:
            raise ValueError(f"{NAME}: the lines of {name!r} are not those of its hash")
        found[name] = transcript
    return found


def dump(transcripts: Mapping[str, str]) -> str:
    """The text of the file."""
    parts = ["What every backend must give. `pyisolate conformance --record` writes this file.\n"]
    for name, transcript in transcripts.items():
        body = "".join(f"  {line}\n" for line in transcript.removesuffix("\n").split("\n"))
        parts.append(f"== {name} {digest(transcript)}\n{body}")
    return "".join(parts)


def save(path: Path, transcripts: Mapping[str, str]) -> None:
    """Write the file."""
    path.write_text(dump(transcripts), encoding="utf-8")
