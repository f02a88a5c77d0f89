"""Prints, as JSON, the files of installed packages and of all that they require.

Arguments: the folders of packages, `--`, the packages' names.
"""

import importlib.metadata
import json
import os
import re
import sys


class Unfit(Exception):
    """A package that cannot go into an image, with the reason."""


def plain(name):
    """A name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(distribution):
    """(name, whether it must be there) of what a package requires without extras."""
    for text in distribution.requires or ():
        name, _, marker = text.partition(";")
        if "extra" not in marker:
            found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", name)
            if found:
                # A marker speaks of versions and systems: what it asks for here is installed.
                yield plain(found[1]), not marker.strip()


def describe(name, distribution):
    """What the image needs to know of one package."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        raise Unfit(f"{name} is installed as an editable project; install it without -e")
    folder = os.path.abspath(distribution.locate_file(""))
    if distribution.read_text("RECORD") is None:
        raise Unfit(f"{name} in {folder} has no list of its files (RECORD); install it with pip")
    files = []
    for file in distribution.files or ():
        path = os.path.normpath(file)
        is_inside = not os.path.isabs(path) and not path.startswith("..")
        is_code = "__pycache__" not in file.parts and not path.endswith((".pyc", ".pth"))
        if is_inside and is_code and os.path.isfile(os.path.join(folder, path)):
            files.append(path)
    return {
        "name": name,
        "version": distribution.version,
        "folder": folder,
        "files": sorted(set(files)),
    }


def closure(folders, wanted):
    """The wanted packages with everything that they require, by name."""
    installed = {}
    for distribution in importlib.metadata.distributions(path=folders):
        # The first on the path is the one that is imported.
        if distribution.metadata["Name"]:
            installed.setdefault(plain(distribution.metadata["Name"]), distribution)
    pending = [(plain(name), None, True) for name in wanted]
    found = {}
    while pending:
        name, asked_by, must = pending.pop()
        if name in found:
            continue
        if name not in installed:
            if must:
                why = f", which {asked_by} requires," if asked_by else ""
                raise Unfit(f"{name}{why} is not installed")
            continue
        found[name] = describe(name, installed[name])
        pending += [(other, name, must) for other, must in requirements(installed[name])]
    return [found[name] for name in sorted(found)]


def main(arguments):
    """Prints the packages, or what is wrong with one."""
    cut = arguments.index("--")
    try:
        answer = {"packages": closure(arguments[:cut], arguments[cut + 1 :])}
    except Unfit as why:
        answer = {"unfit": str(why)}
    print(json.dumps(answer))


main(sys.argv[1:])
