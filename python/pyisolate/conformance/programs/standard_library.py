"""What the standard library computes is computed in a cell as anywhere."""

from pyisolate.conformance.program import Group

GROUP = Group("standard library")

_MODULES = (
    "asyncio", "base64", "binascii", "bisect", "calendar", "cmath", "collections", "colorsys",
    "configparser", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib",
    "enum", "fractions", "functools", "graphlib", "hashlib", "heapq", "hmac", "html", "inspect",
    "io", "itertools", "json", "keyword", "math", "numbers", "operator", "pickle", "pprint",
    "queue", "random", "re", "shlex", "sqlite3", "statistics", "string", "struct", "textwrap",
    "tokenize", "tomllib", "types", "typing", "unicodedata", "urllib", "uuid", "weakref", "xml",
    "zlib", "array", "ast", "bz2", "lzma", "gzip", "zipfile", "secrets", "time", "abc", "zoneinfo",
    "email", "ipaddress", "traceback", "locale", "codecs", "contextvars", "copyreg", "marshal",
    "stringprep", "unittest", "argparse", "sched", "fnmatch", "ntpath", "posixpath", "reprlib",
)  # fmt: skip

_PROGRAMS = {
    "asyncio": (
        "import asyncio\nasync def work(n):\n    await asyncio.sleep(0)\n    return n * 2\n"
        "async def main(): return await asyncio.gather(*map(work, range(5)))\npost(asyncio.run(main()))"
    ),
    "asyncio queue": (
        "import asyncio\nasync def main():\n    q, out = asyncio.Queue(2), []\n"
        "    async def make():\n        for n in range(5): await q.put(n)\n        await q.put(None)\n"
        "    async def take():\n        while (n := await q.get()) is not None: out.append(n)\n"
        "    async with asyncio.TaskGroup() as g: g.create_task(make()); g.create_task(take())\n"
        "    return out\npost(asyncio.run(main()))"
    ),
    "asyncio errors": (
        "import asyncio\nasync def bad(): raise ValueError('in a task')\n"
        "async def main():\n    r = await asyncio.gather(bad(), return_exceptions=True)\n    return str(r[0])\n"
        "post(asyncio.run(main()))\ntry: asyncio.run(bad())\nexcept ValueError as e: post(str(e))"
    ),
    "asyncio timeout": (
        "import asyncio\nasync def main():\n    try:\n        async with asyncio.timeout(0.01): await asyncio.sleep(10)\n"
        "    except TimeoutError: return 'timed out'\npost(asyncio.run(main()))"
    ),
    "async generators": (
        "import asyncio\nasync def count():\n    for n in range(3): yield n\n"
        "async def main(): return [n async for n in count()]\npost(asyncio.run(main()))"
    ),
    "contextvars": (
        "import contextvars\nv = contextvars.ContextVar('v', default=1)\ntoken = v.set(2)\npost(v.get())\n"
        "v.reset(token)\npost(v.get())"
    ),
    "array": "import array\na = array.array('i', [1, 2]); a.append(3); post([a.tolist(), a.tobytes(), a.itemsize])",
    "ast": "import ast\npost(ast.unparse(ast.parse('x=1+2')))\npost(ast.literal_eval(\"{'a': [1, (2,)]}\"))",
    "base64": "import base64\npost([base64.b64encode(b'hello'), base64.b32decode(b'NBSWY3DP'), base64.b85encode(b'ab')])",
    "binascii": "import binascii\npost([binascii.hexlify(b'\\0\\xff'), binascii.crc32(b'hello')])",
    "bisect": "import bisect\na = [1, 3, 5]; bisect.insort(a, 4); post([a, bisect.bisect_left(a, 3)])",
    "calendar": "import calendar\npost([calendar.isleap(2024), calendar.monthrange(2024, 2)])",
    "cmath": "import cmath\npost([cmath.sqrt(-4), cmath.phase(1j) > 1.57])",
    "collections": (
        "from collections import *\nc = Counter('mississippi'); post(c.most_common(2))\n"
        "d = defaultdict(list); d['a'].append(1); post(dict(d))\nq = deque([1, 2, 3], 2); q.append(4); post(q)\n"
        "post(dict(ChainMap({'a': 1}, {'a': 2, 'b': 3})))\nP = namedtuple('P', 'x y'); post(tuple(P(1, y=2)))"
    ),
    "colorsys": "import colorsys\npost(colorsys.rgb_to_hsv(1.0, 0.0, 0.0))",
    "configparser": (
        "import configparser\nc = configparser.ConfigParser(); c.read_string('[a]\\nx = 1\\n')\n"
        "post({s: dict(c[s]) for s in c.sections()})"
    ),
    "contextlib": (
        "import contextlib\n@contextlib.contextmanager\ndef c():\n    post('in')\n    try: yield 5\n    finally: post('out')\n"
        "with c() as x: post(x)\nwith contextlib.suppress(KeyError): {}['x']"
    ),
    "copy": "import copy\na = [[1]]; b = copy.deepcopy(a); b[0].append(2); post([a, b])",
    "csv": (
        "import csv, io\nf = io.StringIO(); csv.writer(f).writerows([['a', 'b,c'], [1, 'q\"']])\npost(f.getvalue())\n"
        "post(list(csv.DictReader(io.StringIO('x,y\\n1,2\\n'))))"
    ),
    "dataclasses": (
        "import dataclasses\n@dataclasses.dataclass(order=True, frozen=True)\nclass P:\n    x: int\n    y: int = 2\n"
        "post([dataclasses.asdict(P(1)), P(1) < P(2), repr(P(1)), dataclasses.astuple(dataclasses.replace(P(1), y=5))])\n"
        "try: P(1).x = 2\nexcept dataclasses.FrozenInstanceError: post('frozen')"
    ),
    "datetime": (
        "from datetime import *\nd = datetime(2024, 2, 28, 23, 0, tzinfo=timezone.utc)\n"
        "post([d + timedelta(hours=2), d.isoformat(), d.strftime('%Y/%j'), date(2024, 1, 1).isocalendar()[1],"
        " d.astimezone(timezone(timedelta(hours=5))), datetime.fromisoformat('2024-01-02T03:04:05+01:00')])"
    ),
    "strptime": "from datetime import datetime\npost(datetime.strptime('3 Mar 2021 04:05', '%d %b %Y %H:%M'))",
    "decimal": (
        "from decimal import *\ngetcontext().prec = 30\npost([Decimal(1) / 7, Decimal('1.10') + 1, Decimal(2).sqrt(),"
        " Decimal('2.675').quantize(Decimal('0.01'), ROUND_HALF_UP)])\n"
        "try: Decimal(1) / 0\nexcept DivisionByZero: post('division')"
    ),
    "difflib": "import difflib\npost(list(difflib.unified_diff(['a', 'b'], ['a', 'c'], lineterm='')))",
    "enum": (
        "import enum\nclass C(enum.Enum):\n    RED = 1\n    BLUE = enum.auto()\npost([C.BLUE.value, C(1).name, [c.name for c in C]])\n"
        "class F(enum.Flag):\n    A = 1\n    B = 2\npost((F.A | F.B).value)"
    ),
    "fractions": "from fractions import Fraction as F\npost([F(1, 3) + F(1, 6), F('0.125'), F(3.5).limit_denominator(10)])",
    "functools": (
        "import functools\n@functools.cache\ndef fib(n): return n if n < 2 else fib(n-1) + fib(n-2)\n"
        "post([fib(80), functools.reduce(lambda a, b: a * b, [1, 2, 3]), functools.partial(int, base=2)('101')])\n"
        "@functools.singledispatch\ndef f(x): return 'other'\n@f.register\ndef _(x: int): return 'int'\npost([f(1), f('a')])"
    ),
    "graphlib": "import graphlib\npost(list(graphlib.TopologicalSorter({'c': ['b'], 'b': ['a']}).static_order()))",
    "hashlib": (
        "import hashlib\npost([hashlib.new(n, b'abc').hexdigest() for n in ('md5', 'sha1', 'sha256', 'sha3_256', 'blake2b')])\n"
        "post(hashlib.pbkdf2_hmac('sha256', b'p', b's', 10).hex())"
    ),
    "heapq": "import heapq\nh = [5, 1, 4]; heapq.heapify(h); heapq.heappush(h, 0); post([heapq.heappop(h), heapq.nlargest(2, h)])",
    "hmac": "import hmac\npost(hmac.new(b'k', b'm', 'sha256').hexdigest())",
    "html": "import html\npost([html.escape('<a>&'), html.unescape('&eacute;&#65;')])",
    "inspect": "import inspect\ndef f(a, *, b=2): pass\npost(str(inspect.signature(f)))",
    "io": "import io\ns = io.StringIO(); print('x', 1, file=s); post(s.getvalue())\nb = io.BytesIO(b'abc'); b.seek(1); post(b.read())",
    "ipaddress": "import ipaddress as i\npost([str(i.ip_network('10.0.0.0/30')[2]), i.ip_address('::1').is_loopback])",
    "itertools": (
        "from itertools import *\npost([list(permutations('abc', 2)), list(combinations(range(4), 2)), list(accumulate([1, 2, 3])),"
        " list(islice(count(5), 3)), [(k, len(list(g))) for k, g in groupby('aab')], list(batched('abcde', 2)),"
        " list(product([0, 1], repeat=2)), list(pairwise('abc')), list(zip_longest('ab', 'c'))])"
    ),
    "json": (
        "import json\npost(json.dumps({'b': [1, 2.5, None, True], 'a': 'ü\"'}, sort_keys=True, ensure_ascii=False, indent=1))\n"
        'post(json.loads(\'{"x": [1e3, -0.0, "\\\\u00fc"], "y": {}}\'))\n'
        "try: json.loads('{')\nexcept json.JSONDecodeError as e: post((e.lineno, e.colno))"
    ),
    "keyword": "import keyword\npost([keyword.iskeyword('for'), keyword.issoftkeyword('match')])",
    "math": "import math\npost([math.isqrt(99), math.comb(10, 3), math.hypot(3, 4), math.fsum([0.1] * 10), math.gcd(12, 18), math.floor(-1.5)])",
    "operator": "import operator as o\npost([o.itemgetter(1, 0)('ab'), o.attrgetter('real')(5), o.methodcaller('upper')('a')])",
    "pickle": "import pickle\npost(pickle.loads(pickle.dumps({'a': (1, {2}), 'b': b'x'}, 5)))",
    "pprint": "import pprint\npost(pprint.pformat({'b': list(range(30)), 'a': 1}))",
    "queue": "import queue\nq = queue.PriorityQueue(); q.put(2); q.put(1); post([q.get(), q.qsize()])\ntry: queue.Queue().get_nowait()\nexcept queue.Empty: post('empty')",
    "random": "import random\nr = random.Random(42)\npost([r.random(), r.randint(1, 6), r.choice('abc'), r.sample(range(10), 3), r.gauss(0, 1)])\nx = [1, 2, 3]; r.shuffle(x); post(x)",
    "re": (
        "import re\npost([re.findall(r'(\\w+)@(\\w+)', 'a@b c@d'), re.sub(r'(?P<n>\\d+)', lambda m: str(int(m['n']) * 2), 'x1y22'),"
        " re.split(r'[,;]\\s*', 'a, b;c'), re.fullmatch(r'\\d{3}', '123').span(), re.search('(?i)B', 'abc').start()])\n"
        "try: re.compile('(')\nexcept re.error: post('bad pattern')"
    ),
    "shlex": 'import shlex\npost([shlex.split(\'a "b c" d\'), shlex.quote("it\'s")])',
    "sqlite3": (
        "import sqlite3\nc = sqlite3.connect(':memory:')\nc.execute('create table t (a integer, b text)')\n"
        "c.executemany('insert into t values (?, ?)', [(1, 'x'), (2, 'ü'), (3, None)])\n"
        "post(c.execute('select sum(a), count(b) from t').fetchone())\npost(c.execute('select * from t order by a desc').fetchall())\n"
        "try: c.execute('select nope from t')\nexcept sqlite3.OperationalError: post('no column')"
    ),
    "sqlite3 functions": (
        "import sqlite3\nc = sqlite3.connect(':memory:')\nc.create_function('twice', 1, lambda x: x * 2)\n"
        "post(c.execute('select twice(21), upper(?)', ('abc',)).fetchone())\n"
        "with c: c.execute('create table t (b blob)'); c.execute('insert into t values (?)', (b'\\0\\1',))\n"
        "post(c.execute('select b from t').fetchall())"
    ),
    "statistics": "import statistics as s\npost([s.mean([1, 2, 4]), s.median([3, 1, 2]), s.stdev([1, 2, 3]), s.mode('aab')])",
    "string": "import string\npost([string.Template('$a-${b}').substitute(a=1, b=2), string.capwords('a bc')])",
    "struct": "import struct\npost([struct.pack('<IhB', 1, -2, 3), struct.unpack('>d', b'\\x3f\\xf0' + bytes(6)), struct.calcsize('<qi')])",
    "textwrap": "import textwrap\npost([textwrap.wrap('the quick brown fox', 10), textwrap.dedent('  a\\n    b'), textwrap.shorten('a b c d', 6)])",
    "tokenize": "import io, tokenize\npost([t.string for t in tokenize.generate_tokens(io.StringIO('x = 1').readline)])",
    "tomllib": "import tomllib\npost(tomllib.loads('a = 1\\n[b]\\nc = [1.5, \"x\"]\\nd = 2024-01-02'))",
    "types": "import types\nn = types.SimpleNamespace(a=1); n.b = 2; post(vars(n))\npost(dict(types.MappingProxyType({'x': 1})))",
    "typing": "import typing\nclass T(typing.NamedTuple):\n    x: int\n    y: str = 'a'\npost(tuple(T(1)))\npost(str(typing.Optional[int]) in ('typing.Optional[int]', 'int | None'))",
    "unicodedata": "import unicodedata as u\npost([u.normalize('NFD', 'é'), u.name('é'), u.category('1')])",
    "urllib.parse": "from urllib.parse import *\npost([urlparse('http://h:1/p?q=1#f').query, quote('a b/ü'), parse_qs('a=1&a=2'), urljoin('http://h/a/b', '../c')])",
    "uuid": "import uuid\npost([uuid.uuid5(uuid.NAMESPACE_URL, 'x'), uuid.UUID('12345678123456781234567812345678').version])",
    "weakref": "import weakref\nclass C: pass\nc = C(); r = weakref.ref(c); post(r() is c); del c; post(r())",
    "xml": "import xml.etree.ElementTree as t\nr = t.fromstring('<a x=\"1\"><b>t</b><b/></a>'); post([r.attrib, [b.text for b in r.iter('b')], t.tostring(r)])",
    "zlib": "import zlib\ndata = b'abc' * 1000\npost([zlib.decompress(zlib.compress(data)) == data, zlib.crc32(data), zlib.adler32(data)])",
    "bz2 and lzma": "import bz2, lzma\npost([bz2.decompress(bz2.compress(b'abc')), lzma.decompress(lzma.compress(b'abc'))])",
    "gzip": "import gzip\npost(gzip.decompress(gzip.compress(b'abc', mtime=0)))",
    "zipfile in memory": "import io, zipfile\nf = io.BytesIO()\nwith zipfile.ZipFile(f, 'w') as z: z.writestr('a', 'x')\npost(zipfile.ZipFile(f).namelist())",
    "abc": "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\ntry: A()\nexcept TypeError: post('abstract')",
    "email": "import email\nm = email.message_from_string('Subject: x\\n\\nbody'); post([m['subject'], m.get_payload()])",
    "argparse": "import argparse\np = argparse.ArgumentParser(prog='p'); p.add_argument('-n', type=int); p.add_argument('f')\npost(vars(p.parse_args(['-n', '3', 'x'])))",
    "traceback": "import traceback\ntry: raise ValueError('x')\nexcept ValueError as e: post(traceback.format_exception_only(e))",
    "unittest": (
        "import io, unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(1, 1)\n    def test_b(self): self.fail()\n"
        "r = unittest.TextTestRunner(io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(T))\n"
        "post([r.testsRun, len(r.failures)])"
    ),
    "unittest.mock": "from unittest import mock\nm = mock.Mock(return_value=3); post([m(1), m.call_args.args])",
    "codecs": "import codecs\npost([codecs.encode('hello', 'rot13'), codecs.decode(b'\\xef\\xbb\\xbfa', 'utf-8-sig')])",
    "marshal": "import marshal\npost(marshal.loads(marshal.dumps([1, 'a', (2.5,)])))",
    "sched": "import sched\nt = [0]\ndef wait(n): t[0] += n\ns = sched.scheduler(lambda: t[0], wait); s.enter(2, 1, post, ('second',)); s.enter(1, 1, post, ('first',)); s.run()",
    "fnmatch and paths": "import fnmatch, ntpath, posixpath\npost([fnmatch.fnmatch('a.py', '*.py'), ntpath.splitdrive('C:/a'), posixpath.normpath('/a/../b')])",
    "reprlib": "import reprlib\npost(reprlib.repr(list(range(100))))",
    "locale": "import locale\npost(locale.getencoding())",
    "process_time": "import time\npost(time.process_time() >= 0)",
}
GROUP.sources(_PROGRAMS, imports=_MODULES)
