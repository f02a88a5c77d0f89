"""Imports are denied unless their root is allowed, and the refusal says what to grant."""

import pytest

import pyisolate
from cells import PATIENCE, new_cell, run


def refused(cell, source):
    with pytest.raises(pyisolate.PolicyError) as caught:
        run(cell, source)
    return caught.value


@pytest.mark.parametrize("allowed", [None, [], (), set()])
@pytest.mark.parametrize("module", ["math", "os", "sys", "builtins", "no_such_module", "numpy"])
def test_nothing_is_allowed_by_default(allowed, module):
    with new_cell(allowed_imports=allowed) as cell:
        error = refused(cell, f"import {module}")
        assert f"allowed_imports=['{module}']" in str(error)
        run(cell, "post('still here')")
        assert cell.recv(PATIENCE) == "still here"


def test_a_refusal_carries_type_message_and_traceback():
    with new_cell() as cell:
        error = refused(cell, "x = 1\nimport os.path")
        assert error.type == "pyisolate.ImportDenied"
        assert "'os.path'" in error.message
        assert "line 2" in error.traceback
        assert "import os.path" in error.traceback
        assert "pyisolate runtime" not in error.traceback


@pytest.mark.parametrize(
    "statement",
    [
        "import math",
        "import math as m",
        "from math import sqrt",
        "from math import *",
        "import json, math",
        "import json.decoder",
        "from json import decoder",
        "from json.decoder import JSONDecoder",
        "import xml.etree.ElementTree as tree",
        "from xml.etree import ElementTree",
        "__import__('math')",
        "__import__('xml.etree', fromlist=['ElementTree'])",
    ],
)
def test_a_root_allows_what_is_below_it(statement):
    with new_cell(allowed_imports=["math", "json", "xml"]) as cell:
        run(cell, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "import os",
        "from os import path",
        "import mathx",
        "import xml.dom",
        "from xml import dom",
        "from xml import etree, dom",
        "import xml",
        "__import__('os')",
    ],
)
def test_a_module_below_allows_nothing_beside_it(statement):
    with new_cell(allowed_imports=["math", "xml.etree"]) as cell:
        refused(cell, statement)
        run(cell, "from xml import etree; import xml.etree.ElementTree")


def test_an_allowed_modules_own_imports_are_its_own_business():
    with new_cell(allowed_imports=["json", "csv", "statistics", "argparse"]) as cell:
        run(cell, "import json, csv, statistics, argparse\npost(statistics.mean([1, 2, 3]))")
        assert cell.recv(PATIENCE) == 2
        for module in ("re", "io", "fractions", "os"):
            refused(cell, f"import {module}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("datetime", "datetime.datetime.strptime('2024-01-02', '%Y-%m-%d')"),
        ("time", "time.strptime('2024', '%Y')"),
        ("pickle", "pickle.loads(pickle.dumps([range(3), complex(1, 2), Ellipsis]))"),
        ("copy", "copy.deepcopy([range(3)])"),
        ("decimal", "hash(decimal.Decimal('1.5')); format(decimal.Decimal(1), 'n')"),
        ("re", "re.sub('(a)', r'\\\\1b', 'aa'); re.split(',', 'a,b')"),
        ("asyncio", "asyncio.Future"),
        (
            "numpy",
            "numpy.array([1.5]).astype(str); repr(numpy.arange(3)); numpy.linalg.norm([3, 4])",
        ),
        ("numpy", "numpy.array([b'x']); numpy.fft.fft([1, 2]); str(numpy.array([1 + 2j]))"),
        ("numpy", "numpy.datetime64('2024-01-02').astype(object)"),
        ("io", "io.TextIOWrapper(io.BytesIO(), 'latin-1').write('x')"),
        ("codecs", "codecs.encode('x', 'rot13')"),
        ("collections", "collections.namedtuple('P', 'x y')(1, 2)"),
        ("warnings", "warnings.warn('x')"),
        ("sys", "'ü'.encode('latin-1'), 'x'.encode('idna'), 'x'.encode('cp437')"),
        ("math", "eval('1 + 1'), compile('x', 'f', 'eval'), exec('y = 1')"),
        ("math", "int.from_bytes(b'x'), '%s %r' % (1, 2), sorted([3, 1]), print"),
    ],
)
def test_what_an_allowed_module_imports_later_is_its_own_business(module, source):
    with new_cell(allowed_imports=[module]) as cell:
        run(cell, f"import {module}\n{source}")


@pytest.mark.parametrize("statement", ["from . import x", "from .x import y", "from .. import x"])
def test_relative_imports_refer_to_nothing(statement):
    with new_cell(allowed_imports=["math"]) as cell:
        assert "relative" in str(refused(cell, statement))


def test_a_module_that_is_allowed_and_missing():
    with (
        new_cell(allowed_imports=["no_such_module"]) as cell,
        pytest.raises(pyisolate.GuestError, match="ModuleNotFoundError"),
    ):
        run(cell, "import no_such_module")


def test_a_guest_can_handle_a_refusal():
    with new_cell() as cell:
        run(cell, "try:\n    import os\nexcept ImportError as error:\n    post(error.name)")
        assert cell.recv(PATIENCE) == "os"


def test_imports_in_functions_threads_and_evaluated_code():
    with new_cell(allowed_imports=["threading"]) as cell:
        for source in (
            "def f():\n    import os\nf()",
            "exec('import os')",
            "eval('__import__(\"os\")')",
            "class C:\n    import os",
            "[__import__('os') for _ in 'x']",
        ):
            refused(cell, source)
        run(
            cell,
            """
import threading
def work():
    try:
        import os
    except ImportError:
        post("refused")
thread = threading.Thread(target=work); thread.start(); thread.join()
""",
        )
        assert cell.recv(PATIENCE) == "refused"


def test_a_call_checks_the_same_grants():
    with new_cell(allowed_imports=["os.path"]) as cell:
        assert cell.call("os.path.basename", "a/b", timeout=PATIENCE) == "b"
        with pytest.raises(pyisolate.PolicyError, match="'os'"):
            cell.call("os.getpid", timeout=PATIENCE)
        with pytest.raises(pyisolate.PolicyError):
            cell.call("sys.exit", timeout=PATIENCE)


@pytest.mark.parametrize("name", ["", "*", "os.*", "a b", ".os", "os.", "1a", "a\n", "a-b"])
def test_what_is_no_module_name_is_refused(name):
    with pytest.raises(ValueError, match="module name"):
        new_cell(allowed_imports=[name])


@pytest.mark.parametrize("names", ["math", [5], [None], 5])
def test_names_of_another_type_are_refused(names):
    with pytest.raises(TypeError):
        new_cell(allowed_imports=names)


def test_any_iterable_of_names_is_taken():
    with new_cell(allowed_imports=(name for name in ("math", "json"))) as cell:
        run(cell, "import math, json")
