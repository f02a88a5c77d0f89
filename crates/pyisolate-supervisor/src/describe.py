"""Prints, as JSON, what a cell's root needs to know of the interpreter that runs this."""

import json
import os
import site
import sys
import sysconfig


def package_dirs():
    """site-packages and what its .pth files add, in the order of sys.path."""
    found = []
    for directory in site.getsitepackages():
        if not os.path.isdir(directory):
            continue
        found.append(directory)
        for name in sorted(os.listdir(directory)):
            if not name.endswith(".pth"):
                continue
            with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as lines:
                for line in map(str.strip, lines):
                    path = os.path.join(directory, line)
                    if line and not line.startswith(("#", "import ", "import\t")):
                        if os.path.isdir(path):
                            found.append(path)
    return list(dict.fromkeys(map(os.path.abspath, found)))


def runtime():
    """The shared object that carries the guest runtime, if this interpreter has pyisolate."""
    for directory in [*sys.path, *package_dirs()]:
        package = os.path.join(directory, "pyisolate")
        if os.path.isdir(package):
            for name in sorted(os.listdir(package)):
                if name.startswith("_core.") and name.endswith(".so"):
                    return os.path.abspath(os.path.join(package, name))
    return None


def venv_config():
    """What makes this interpreter one of a virtual environment, if it is that."""
    path = os.path.join(os.path.dirname(os.path.dirname(sys.executable)), "pyvenv.cfg")
    return path if os.path.isfile(path) else None


description = json.dumps(
    {
        "implementation": sys.implementation.name,
        "version": list(sys.version_info[:2]),
        "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
        "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
        "stdlib": os.path.dirname(os.path.abspath(os.__file__)),
        "platstdlib": sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix}),
        "platlibdir": sys.platlibdir,
        "packages": package_dirs(),
        "runtime": runtime(),
        "venv_config": venv_config(),
    }
)
if __name__ == "__main__":
    print(description)
