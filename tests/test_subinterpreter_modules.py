"""Which modules work in a cell in an interpreter of the host's process, and what is said of those
that do not."""

import pytest

import pyisolate
from cells import PATIENCE, death_of, run
from interpreters import new_interpreter

USES = {
    "argparse": "p = argparse.ArgumentParser(); p.add_argument('--n', type=int)\n"
    "assert p.parse_args(['--n', '3']).n == 3",
    "array": "assert array.array('i', [1, 2]).tobytes()[:1] == b'\\1'",
    "ast": "assert ast.literal_eval('[1, {2: 3}]') == [1, {2: 3}]",
    "asyncio": "async def one(): await asyncio.sleep(0); return 1\n"
    "async def both(): return await asyncio.gather(one(), one())\n"
    "assert asyncio.run(both()) == [1, 1]",
    "base64": "assert base64.b64decode(base64.b64encode(b'x')) == b'x'",
    "bisect": "assert bisect.bisect([1, 2, 3], 2) == 2",
    "bz2": "assert bz2.decompress(bz2.compress(b'x' * 999)) == b'x' * 999",
    "collections": "assert collections.Counter('aab').most_common(1) == [('a', 2)]",
    "configparser": "c = configparser.ConfigParser(); c.read_string('[a]\\nb = 1')\n"
    "assert c['a'].getint('b') == 1",
    "contextvars": "v = contextvars.ContextVar('v'); v.set(1)\n"
    "assert contextvars.copy_context()[v] == 1",
    "csv": "import io\nassert list(csv.reader(io.StringIO('a,b\\n1,\"2,3\"'))) == "
    "[['a', 'b'], ['1', '2,3']]",
    "dataclasses": "@dataclasses.dataclass(frozen=True)\nclass P: x: int = 1\n"
    "assert dataclasses.asdict(P(2)) == {'x': 2}",
    "datetime": "d = datetime.datetime(2024, 2, 28) + datetime.timedelta(days=1)\n"
    "assert d.strftime('%Y-%m-%d') == '2024-02-29'\n"
    "assert datetime.datetime.strptime('29.02.2024', '%d.%m.%Y') == d\n"
    "post(d)",
    "decimal": "assert str(decimal.Decimal('0.1') + decimal.Decimal('0.2')) == '0.3'\n"
    "with decimal.localcontext() as c: c.prec = 5; assert str(decimal.Decimal(1) / 3) == '0.33333'",
    "difflib": "assert difflib.get_close_matches('appel', ['apple']) == ['apple']",
    "email": "import email.message\nm = email.message_from_string('Subject: x\\n\\nbody')\n"
    "assert m['subject'] == 'x' and m.get_payload() == 'body'",
    "enum": "class C(enum.Enum): A = 1\nassert C(1) is C.A and C.A.name == 'A'",
    "fractions": "assert fractions.Fraction(1, 3) + fractions.Fraction(1, 6) == 0.5",
    "functools": "assert functools.reduce(lambda a, b: a * b, [1, 2, 3]) == 6\n"
    "assert functools.lru_cache(lambda: 5)() == 5",
    "hashlib": "assert hashlib.sha256(b'').hexdigest().startswith('e3b0c442')\n"
    "assert hashlib.blake2b(b'x').digest_size == 64 and hashlib.sha3_256(b'').name == 'sha3_256'\n"
    "assert len(hashlib.pbkdf2_hmac('sha256', b'p', b's', 10)) == 32",
    "heapq": "assert heapq.nsmallest(1, [3, 1, 2]) == [1]",
    "hmac": "assert len(hmac.new(b'k', b'm', 'sha256').digest()) == 32",
    "html": "import html.parser\nassert html.unescape(html.escape('<&>')) == '<&>'",
    "http.client": "assert http.client.responses[404] == 'Not Found'\n"
    "http.client.HTTPConnection('h')",
    "inspect": "def f(a, *, b=1): pass\nassert str(inspect.signature(f)) == '(a, *, b=1)'",
    "io": "assert io.TextIOWrapper(io.BytesIO('é'.encode()), 'utf-8').read() == 'é'",
    "itertools": "assert list(itertools.pairwise([1, 2, 3])) == [(1, 2), (2, 3)]",
    "json": "v = {'a': [1, 2.5, None, 'é']}; assert json.loads(json.dumps(v)) == v",
    "logging": "logging.basicConfig(level=logging.INFO); logging.getLogger('a').info('logged')",
    "lzma": "assert lzma.decompress(lzma.compress(b'x' * 999)) == b'x' * 999",
    "math": "assert math.isclose(math.sin(math.pi / 2), 1)",
    "pathlib": "assert (pathlib.PurePosixPath('/a') / 'b').name == 'b'",
    "pickle": "assert pickle.loads(pickle.dumps([1, {'a': (2,)}])) == [1, {'a': (2,)}]",
    "pprint": "assert pprint.pformat({'a': 1}) == \"{'a': 1}\"",
    "queue": "q = queue.Queue(); q.put(1); assert q.get() == 1",
    "random": "r = random.Random(5); assert r.random() == random.Random(5).random()\n"
    "random.shuffle([1, 2]); assert 0 <= random.random() < 1",
    "re": "assert re.sub(r'(\\w+) (\\w+)', r'\\2 \\1', 'a b') == 'b a'",
    "secrets": "assert len(secrets.token_bytes(8)) == 8\n"
    "assert secrets.token_hex() != secrets.token_hex()",
    "shlex": "assert shlex.split('a \"b c\"') == ['a', 'b c']",
    "sqlite3": "d = sqlite3.connect(':memory:'); d.execute('create table t(a)')\n"
    "d.executemany('insert into t values (?)', [(1,), (2,)])\n"
    "d.create_function('double', 1, lambda a: 2 * a)\n"
    "assert d.execute('select sum(double(a)) from t').fetchone() == (6,)",
    "ssl": "c = ssl.create_default_context(); assert c.check_hostname\n"
    "assert len(ssl.RAND_bytes(8)) == 8",
    "statistics": "assert statistics.median([1, 2, 9]) == 2 and statistics.stdev([1, 2, 3]) == 1\n"
    "assert round(statistics.NormalDist().inv_cdf(0.5), 9) == 0",
    "string": "assert string.Template('$a').substitute(a=1) == '1'",
    "struct": "assert struct.unpack('<I', struct.pack('<I', 7)) == (7,)",
    "textwrap": "assert textwrap.dedent('  a') == 'a'",
    "time": "import os\nt = time.monotonic(); time.sleep(0.01)\nassert time.monotonic() > t",
    "traceback": "try: 1 / 0\nexcept ZeroDivisionError: assert 'by zero' in traceback.format_exc()",
    "types": "assert types.SimpleNamespace(a=1).a == 1",
    "typing": "class N(typing.NamedTuple): a: int\nassert N(1).a == 1\n"
    "assert typing.get_type_hints(N) == {'a': int}",
    "unicodedata": "assert unicodedata.normalize('NFD', 'é') == 'e\\u0301'",
    "unittest": "import io\nclass T(unittest.TestCase):\n"
    "    def test(self): self.assertEqual(1, 1)\n"
    "s = unittest.defaultTestLoader.loadTestsFromTestCase(T)\n"
    "assert unittest.TextTestRunner(io.StringIO()).run(s).wasSuccessful()",
    "urllib.parse": "assert urllib.parse.urlsplit('http://h:1/p?q=1').port == 1\n"
    "assert urllib.parse.quote('a b/é') == 'a%20b/%C3%A9'",
    "uuid": "assert uuid.uuid4() != uuid.uuid4()\nassert uuid.UUID(int=5).int == 5; uuid.uuid1()",
    "weakref": "class A: pass\na = A(); w = weakref.ref(a); assert w() is a\n"
    "del a; assert w() is None",
    "xml": "import xml.etree.ElementTree as E, xml.dom.minidom, xml.sax\n"
    "assert E.fromstring('<a><b x=\"1\"/></a>')[0].get('x') == '1'\n"
    "assert xml.dom.minidom.parseString('<a/>').documentElement.tagName == 'a'",
    "zipfile": "import io\nb = io.BytesIO()\n"
    "with zipfile.ZipFile(b, 'w') as z: z.writestr('a', 'x')\n"
    "assert zipfile.ZipFile(b).read('a') == b'x'",
    "zlib": "assert zlib.decompress(zlib.compress(b'x' * 999)) == b'x' * 999\n"
    "assert zlib.crc32(b'x') == 2363233923",
    "zoneinfo": "import io\ndata = b'TZif' + bytes(16) + bytes([0] * 19 + [1, 0, 0, 0, 4])\n"
    "z = zoneinfo.ZoneInfo.from_file(io.BytesIO(data + bytes(6) + b'UTC\\0'))\n"
    "assert z.utcoffset(None) is None or z.utcoffset(None).seconds == 0\nzoneinfo.TZPATH",
}


@pytest.mark.parametrize("module", USES)
def test_a_module_works(module):
    policy = pyisolate.Policy().grant(pyisolate.Clock(), pyisolate.Random())
    imports = [module, "io", "datetime", "os"]
    with new_interpreter(allowed_imports=imports, policy=policy) as cell:
        run(cell, f"import {module}")
        run(cell, USES[module])


def test_all_of_them_in_one_cell():
    policy = pyisolate.Policy().grant(pyisolate.Clock(), pyisolate.Random())
    with new_interpreter(allowed_imports=[*USES, "io", "os"], policy=policy) as cell:
        for module, use in USES.items():
            run(cell, f"import {module}\n{use}")


def refusal(source, *imports, **options):
    """What a cell says of source text that it cannot run."""
    with new_interpreter(allowed_imports=imports, **options) as cell:
        with pytest.raises((pyisolate.GuestError, pyisolate.PolicyError)) as caught:
            run(cell, source)
        run(cell, "post('lives')")
        assert cell.recv(PATIENCE) == "lives"
    return str(caught.value)


@pytest.mark.parametrize(
    "module",
    [
        "numpy",
        "ctypes",
        "_ctypes",
        "_interpreters",
        "_interpqueues",
        "_testcapi",
        "_testinternalcapi",
        "faulthandler",
        "readline",
        "tracemalloc",
    ],
)
def test_a_module_is_refused_and_the_other_backend_named(module):
    assert "backend='process'" in refusal(f"import {module}", module)
    again = f"import importlib; importlib.import_module({module!r})"
    assert "subinterpreter" in refusal(again, module, "importlib").replace("-", "")


@pytest.mark.parametrize(
    "source",
    [
        "import threading; threading.Thread(target=print).start()",
        "import threading; threading.Timer(1, print).start()",
        "import _thread; _thread.start_new_thread(print, ())",
        "import _thread; _thread.start_joinable_thread(print)",
        "import concurrent.futures as f; f.ThreadPoolExecutor().submit(print)",
        "import asyncio\nasync def go(): await asyncio.to_thread(print)\nasyncio.run(go())",
        "import multiprocessing.dummy as m; m.Pool(1)",
        "import queue, logging.handlers as l; l.QueueListener(queue.Queue()).start()",
    ],
)
def test_threads_are_refused_and_the_other_backend_named(source):
    modules = ("threading", "_thread", "concurrent", "asyncio", "multiprocessing", "queue")
    assert "backend='process'" in refusal(source, *modules, "logging")


@pytest.mark.parametrize(
    "source",
    [
        "import concurrent.futures as f; f.ProcessPoolExecutor().submit(print)",
        "import multiprocessing as m; m.Process(target=print).start()",
        "import multiprocessing as m; m.Pool(1)",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'], check=True)",
        "import subprocess; subprocess.Popen('true', shell=True)",
        "import os; os.system('true')",
        "import os; os.popen('true').read()",
    ],
)
def test_processes_are_refused_with_what_to_do(source):
    said = refusal(source, "concurrent", "multiprocessing", "os", "subprocess")
    told = ("backend='process'", "grant", "subprocess.run", "a cell has no shell", "fork not supp")
    assert any(words in said for words in told)


def test_what_the_host_ends_a_cell_with_is_not_the_guests():
    for name in ("settrace", "setprofile"):
        assert "backend='process'" in refusal(f"import sys; sys.{name}(print)", "sys")
    with new_interpreter(allowed_imports=["sys", "threading"], wall_time_ms=1000) as cell:
        run(
            cell,
            """
import sys, threading
seen = []
def watch(*event): seen.append(event)
for name in ("settrace_all_threads", "setprofile_all_threads"):
    try: getattr(threading, name)(watch)
    except PermissionError: pass
try: sys.addaudithook(watch)
except PermissionError: pass
def work(): return sys.intern("x")
work()
import sys
post(len(seen))
""",
        )
        items = [cell.recv(PATIENCE)]
        while not isinstance(items[-1], int):
            items.append(cell.recv(PATIENCE))
        assert items[-1] == 0
        cell.exec("while True: pass")
        assert isinstance(death_of(cell), pyisolate.WallTimeExceeded)
        assert cell.stats.abandoned is False


def test_what_guests_may_import_is_the_policys():
    assert "allowed_imports=['json']" in refusal("import json")
    with new_interpreter(allowed_imports=["math"]) as cell:
        assert cell.call("math.gcd", 4, 6, timeout=PATIENCE) == 2
