"""Cells can run on another virtual environment than the host's own."""

import subprocess
import sys

import pytest

import pyisolate
from cells import PATIENCE, assert_serves


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    """A virtual environment with one private module and nothing else."""
    folder = tmp_path_factory.mktemp("environments") / "their venv"
    interpreter = sys._base_executable
    subprocess.run([interpreter, "-m", "venv", "--without-pip", folder], check=True)
    packages = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (packages / "private_module.py").write_text(
        "import json\ndef answer(): return json.loads('42')\n"
    )
    (packages / "private_package").mkdir()
    (packages / "private_package" / "__init__.py").write_text("")
    (packages / "private_package" / "data.py").write_text("x = 1")
    return folder


def test_cells_see_that_environments_modules(venv):
    with pyisolate.Supervisor(environment=venv) as supervisor:
        allowed = ["private_module", "private_package", "math"]
        with supervisor.spawn("a", allowed_imports=allowed) as cell:
            assert cell.call("private_module.answer", timeout=PATIENCE) == 42
            cell.exec("import private_package.data\npost(private_package.data.x)")
            assert cell.recv(PATIENCE) == 1
        assert_serves(supervisor)


def test_cells_do_not_see_the_hosts_packages(venv):
    with pyisolate.Supervisor(environment=str(venv)) as supervisor:
        names = ["numpy", "pytest", "pyisolate", "hypothesis"]
        with supervisor.spawn("a", allowed_imports=names) as cell:
            for name in names:
                with pytest.raises(pyisolate.GuestError, match="ModuleNotFoundError"):
                    cell.exec(f"import {name}").wait(PATIENCE)


def test_the_hosts_own_cells_do_not_see_that_environment(venv):
    with (
        pyisolate.spawn("host-side", allowed_imports=["private_module"]) as cell,
        pytest.raises(pyisolate.GuestError, match="ModuleNotFoundError"),
    ):
        cell.exec("import private_module").wait(PATIENCE)


def test_templates_and_pools_use_it_too(venv):
    with pyisolate.Supervisor(warm_pool=1, environment=venv) as supervisor:
        template = supervisor.template(imports=["private_module"])
        for options in ({"template": template}, {}):
            with supervisor.spawn("a", allowed_imports=["private_module"], **options) as cell:
                assert cell.call("private_module.answer", timeout=PATIENCE) == 42


def test_a_relative_folder(venv, monkeypatch):
    monkeypatch.chdir(venv.parent)
    with pyisolate.Supervisor(environment=venv.name) as supervisor:
        monkeypatch.chdir("/")
        assert_serves(supervisor)


def test_a_link_to_an_environment(venv, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(venv)
    with (
        pyisolate.Supervisor(environment=link) as supervisor,
        supervisor.spawn("a", allowed_imports=["private_module"]) as cell,
    ):
        assert cell.call("private_module.answer", timeout=PATIENCE) == 42


def test_a_folder_that_is_no_environment(tmp_path):
    with pytest.raises(pyisolate.SandboxError, match="virtual environment"):
        pyisolate.Supervisor(environment=tmp_path)
    with pytest.raises(pyisolate.SandboxError, match="virtual environment"):
        pyisolate.Supervisor(environment=tmp_path / "no such folder")
    with pytest.raises(TypeError):
        pyisolate.Supervisor(environment=5)


@pytest.mark.parametrize(
    "program", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho hello\n", "#!/no/such/program\n", "garbage"]
)
def test_an_environment_whose_interpreter_is_none(tmp_path, program):
    (tmp_path / "bin").mkdir()
    interpreter = tmp_path / "bin" / "python"
    interpreter.write_text(program)
    interpreter.chmod(0o755)
    with pytest.raises(pyisolate.SandboxError, match="python"):
        pyisolate.Supervisor(environment=tmp_path)
    interpreter.chmod(0o644)
    with pytest.raises(pyisolate.SandboxError, match="python"):
        pyisolate.Supervisor(environment=tmp_path)


def test_an_interpreter_that_is_too_old(tmp_path):
    (tmp_path / "bin").mkdir()
    interpreter = tmp_path / "bin" / "python"
    interpreter.write_text(
        '#!/bin/sh\necho \'{"implementation": "cpython", "version": [3, 9], "gil": true, '
        '"executable": "/x", "stdlib": "/x", "platstdlib": "/x", '
        '"platlibdir": "lib", "packages": [], "runtime": null}\'\n'
    )
    interpreter.chmod(0o755)
    with pytest.raises(pyisolate.SandboxError, match=r"3\.13"):
        pyisolate.Supervisor(environment=tmp_path)


def test_an_environment_that_goes_away(tmp_path, venv):
    link = tmp_path / "link"
    link.symlink_to(venv)
    with pyisolate.Supervisor(environment=link) as supervisor:
        link.unlink()
        with pytest.raises(pyisolate.SandboxError):
            supervisor.spawn("a", allowed_imports=["private_module"]).call(
                "private_module.answer", timeout=PATIENCE
            )
    assert_serves()
