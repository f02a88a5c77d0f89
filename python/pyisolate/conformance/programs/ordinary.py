"""Ordinary small programs of the language itself, as people and models write them."""

from pyisolate.conformance.program import Group

GROUP = Group("ordinary")

GROUP.sources(
    {
        "primes": (
            "def primes(n):\n    sieve = bytearray([1]) * (n + 1)\n    sieve[:2] = b'\\0\\0'\n"
            "    for i in range(2, int(n ** 0.5) + 1):\n        if sieve[i]: sieve[i*i::i] ="
            " bytes(len(sieve[i*i::i]))\n    return [i for i, is_prime in enumerate(sieve) if is_prime]\n"
            "post(primes(100))"
        ),
        "fibonacci": "a, b = 0, 1\nfor _ in range(100): a, b = b, a + b\npost(a)",
        "factorial": "import math\npost(math.factorial(200))",
        "gcd": "def gcd(a, b):\n    while b: a, b = b, a % b\n    return a\npost(gcd(2**40 * 9, 6**20))",
        "quick sort": (
            "def sort(a):\n    if len(a) < 2: return a\n    p, *rest = a\n"
            "    return sort([x for x in rest if x < p]) + [p] + sort([x for x in rest if x >= p])\n"
            "post(sort([5, 3, 8, 1, 9, 2, 7]))"
        ),
        "stable sort by key": (
            "rows = [('b', 2), ('a', 2), ('c', 1)]\npost(sorted(rows, key=lambda r: r[1]))\n"
            "post(sorted(rows, key=lambda r: (-r[1], r[0])))"
        ),
        "sort of mixed types": "try: sorted([1, 'a'])\nexcept TypeError: post('refused')",
        "word count": (
            "text = 'the cat and the dog and the bird'\ncounts = {}\n"
            "for word in text.split(): counts[word] = counts.get(word, 0) + 1\npost(counts)"
        ),
        "fizz buzz": (
            "post(['Fizz' * (n % 3 == 0) + 'Buzz' * (n % 5 == 0) or n for n in range(1, 16)])"
        ),
        "matrix product": (
            "a, b = [[1, 2], [3, 4]], [[5, 6], [7, 8]]\n"
            "post([[sum(x * y for x, y in zip(r, c)) for c in zip(*b)] for r in a])"
        ),
        "towers of hanoi": (
            "def move(n, a, b, c):\n    return 0 if n == 0 else move(n-1, a, c, b) + 1 + move(n-1, c, b, a)\n"
            "post(move(10, 'a', 'b', 'c'))"
        ),
        "eight queens": (
            "def queens(n, row=0, cols=(), d1=(), d2=()):\n    if row == n: return 1\n"
            "    return sum(queens(n, row+1, cols+(c,), d1+(row-c,), d2+(row+c,)) for c in range(n)\n"
            "        if c not in cols and row-c not in d1 and row+c not in d2)\npost(queens(6))"
        ),
        "collatz": (
            "def steps(n):\n    k = 0\n    while n > 1: n, k = (n // 2 if n % 2 == 0 else 3 * n + 1), k + 1\n"
            "    return k\npost(max(range(1, 1000), key=steps))"
        ),
        "roman numerals": (
            "def roman(n):\n    out = ''\n    for v, s in [(1000,'M'),(900,'CM'),(500,'D'),(400,'CD'),(100,'C'),"
            "(90,'XC'),(50,'L'),(40,'XL'),(10,'X'),(9,'IX'),(5,'V'),(4,'IV'),(1,'I')]:\n"
            "        out += s * (n // v); n %= v\n    return out\npost([roman(n) for n in (4, 1994, 2024)])"
        ),
        "caesar": "post(''.join(chr((ord(c) - 97 + 3) % 26 + 97) for c in 'xyzabc'))",
        "graph search": (
            "graph = {'a': ['b', 'c'], 'b': ['d'], 'c': ['d'], 'd': []}\nseen, todo = [], ['a']\n"
            "while todo:\n    node = todo.pop(0)\n    if node not in seen: seen.append(node); todo += graph[node]\n"
            "post(seen)"
        ),
        "edit distance": (
            "def distance(a, b):\n    row = list(range(len(b) + 1))\n    for i, x in enumerate(a, 1):\n"
            "        last, row[0] = row[0], i\n        for j, y in enumerate(b, 1):\n"
            "            last, row[j] = row[j], min(row[j] + 1, row[j-1] + 1, last + (x != y))\n"
            "    return row[-1]\npost(distance('kitten', 'sitting'))"
        ),
        "generators": (
            "def count(n):\n    try:\n        for i in range(n): got = yield i\n    finally: post('closed')\n"
            "g = count(5)\npost([next(g), next(g)])\ng.close()"
        ),
        "send and throw": (
            "def echo():\n    x = yield 'ready'\n    try: x = yield ('got', x)\n"
            "    except ValueError as e: yield ('caught', str(e))\n"
            "g = echo(); post(next(g)); post(g.send(1)); post(g.throw(ValueError('x')))"
        ),
        "yield from": (
            "def inner():\n    yield 1\n    return 'result'\ndef outer():\n    r = yield from inner()\n    yield r\n"
            "post(list(outer()))"
        ),
        "generator expression": "post(sum(x * x for x in range(10) if x % 2))",
        "closures": (
            "def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n"
            "    return up\nc = counter(); post([c(), c(), c()])"
        ),
        "decorators": (
            "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(*a): return f(f(*a))\n    return g\n"
            "@twice\ndef add(n): return n + 1\npost((add(1), add.__name__))"
        ),
        "context managers": (
            "class C:\n    def __enter__(self): post('in'); return 5\n"
            "    def __exit__(self, kind, *_): post(kind.__name__); return True\n"
            "with C() as x: raise KeyError(x)\npost(x)"
        ),
        "inheritance": (
            "class A:\n    def who(self): return ['A']\nclass B(A):\n    def who(self): return ['B'] + super().who()\n"
            "class C(A):\n    def who(self): return ['C'] + super().who()\nclass D(B, C): pass\n"
            "post(D().who()); post([k.__name__ for k in D.__mro__])"
        ),
        "properties and slots": (
            "class P:\n    __slots__ = ('_x',)\n    @property\n    def x(self): return self._x\n"
            "    @x.setter\n    def x(self, v): self._x = v * 2\np = P(); p.x = 4; post(p.x)\n"
            "try: p.y = 1\nexcept AttributeError: post('no y')"
        ),
        "metaclass": (
            "class M(type):\n    def __new__(m, n, b, d): return super().__new__(m, n, b, d | {'tag': n.lower()})\n"
            "class Thing(metaclass=M): pass\npost(Thing.tag)"
        ),
        "operators": (
            "class V:\n    def __init__(self, *x): self.x = x\n"
            "    def __add__(self, o): return V(*map(sum, zip(self.x, o.x)))\n"
            "    def __matmul__(self, o): return sum(a * b for a, b in zip(self.x, o.x))\n"
            "    def __eq__(self, o): return self.x == o.x\n    def __getitem__(self, i): return self.x[i]\n"
            "v = V(1, 2) + V(3, 4)\npost([v.x, v @ V(1, 1), v == V(4, 6), v[0]])"
        ),
        "exceptions in order": (
            "def f():\n    try:\n        post('try'); raise ValueError(1)\n    except ValueError: post('except'); return 'returned'\n"
            "    finally: post('finally')\npost(f())"
        ),
        "except star": (
            "try: raise ExceptionGroup('g', [ValueError(1), KeyError(2)])\n"
            "except* ValueError as e: post(len(e.exceptions))\nexcept* KeyError: post('key')"
        ),
        "match statement": (
            "def kind(x):\n    match x:\n        case 0 | 1: return 'small'\n        case [a, *_, b]: return ('ends', a, b)\n"
            "        case {'type': t, **rest}: return (t, rest)\n        case str() as s if s: return s.upper()\n"
            "        case _: return None\npost([kind(x) for x in (1, [1, 2, 3], {'type': 't', 'k': 1}, 'a', '')])"
        ),
        "unpacking": "a, *b, c = range(6)\npost((a, b, c))\npost({**{'x': 1}, 'y': 2})\npost([*'ab', *(1,)])",
        "string methods": (
            "s = '  Hello, World  '\npost([s.strip(), s.lower().split(','), s.replace('l', 'L'),"
            " 'a-b'.partition('-'), 'abc'.center(9, '*'), 'ß'.upper(), 'x'.zfill(3), 'ab' * 2])"
        ),
        "formatting": (
            "post([f'{3.14159:.2f}', f'{1234567:,}', f'{255:#x} {255:08b}', f'{\"a\":>5}|{\"b\":^5}|',"
            " f'{0.5:%}', f'{1e10:e}', '%s %r %05d' % ('a', 'b', 42), '{0}-{k}'.format(1, k=2)])"
        ),
        "nested f-strings": "x = {'a': [1]}\npost(f'{x[\"a\"][0]=} {x!r:>12}')",
        "bytes methods": "post([b'a,b'.split(b','), b'\\xff'.hex(), bytes.fromhex('00ff'), b'ab'[::-1]])",
        "encodings": (
            "post(['grüße'.encode(e) for e in ('utf-8', 'latin-1', 'utf-16-le', 'cp1252')])\n"
            "try: 'ü'.encode('ascii')\nexcept UnicodeEncodeError as e: post((e.start, e.end, e.encoding))"
        ),
        "slicing": "x = list(range(10))\nx[2:5] = 'ab'\ndel x[::3]\npost(x)\npost('python'[-3:])",
        "sets": "a, b = {1, 2, 3}, {3, 4}\npost([a & b, a | b, a - b, a ^ b, a <= b])",
        "dict order": "d = {'b': 1}\nd['a'] = 2\nd['b'] = 3\nd |= {'c': 4}\npost(d)\npost(list(reversed(d)))",
        "big integers": "post([2 ** 200, -7 // 2, -7 % 3, divmod(-7, 2), pow(3, 100, 7), (10**30).bit_length()])",
        "floats": "post([0.1 + 0.2, round(2.5), round(2.675, 2), 1e308 * 10, float('1e-400'), 7.0 // 2])",
        "float text": "post([repr(x) for x in (0.1, 1e16, 1e-5, 123456789.123456789)])",
        "comparisons": "post([1 < 2 < 3, 'a' < 'b', [1, 2] < [1, 3], (1,) == (1.0,), float('nan') != float('nan')])",
        "truth": "post([bool(x) for x in (0, '', [], {}, None, 'x', [0], 0.0)])\npost(not [] or 5)",
        "identity": "a = []\nb = a\npost([a is b, a is [], None is None])",
        "scopes": "x = 1\ndef f():\n    try: return x\n    finally: pass\ndef g():\n    x = 2\n    return f()\npost(g())",
        "default argument kept": "def f(x, seen=[]):\n    seen.append(x)\n    return seen\nf(1)\npost(f(2))",
        "recursion limit is caught": "def f(): return f()\ntry: f()\nexcept RecursionError: post('caught')",
        "deep but fine": "def f(n): return 0 if n == 0 else 1 + f(n - 1)\npost(f(500))",
        "enumerate zip map": (
            "post(list(enumerate('ab', 1)))\npost(list(zip('ab', [1, 2], strict=True)))\n"
            "post(list(map(lambda a, b: a + b, [1, 2], [3, 4])))\npost(list(filter(None, [0, 1])))"
        ),
        "any all min max": "post([any([]), all([]), min('hello'), max([3, 1], default=0), sum([[1], [2]], [])])",
        "iterators": (
            "class Up:\n    def __init__(self): self.n = 0\n    def __iter__(self): return self\n"
            "    def __next__(self):\n        self.n += 1\n        if self.n > 3: raise StopIteration\n        return self.n\n"
            "post(list(Up()))\npost(next(iter([]), 'end'))"
        ),
        "late binding": "fs = [lambda: i for i in range(3)]\npost([f() for f in fs])",
        "introspection": "post([type(1).__name__, isinstance(True, int), callable(len), hasattr([], 'append')])",
        "text of lists": "post(str([1, 'a', None, {'k': (1,)}]))\npost(repr('it\\'s \\n'))",
        "globals and locals": "def f(a):\n    b = 2\n    return sorted(locals())\npost(f(1))",
        "star arguments": "def f(a, /, b, *c, d=4, **e): return (a, b, c, d, e)\npost(f(1, 2, 3, d=5, z=6))",
        "conditional import": "try:\n    import os\nexcept ImportError: os = None\npost(os)",
        "while else": "for n in range(2, 8):\n    for d in range(2, n):\n        if n % d == 0: break\n    else: post(n)",
    },
    imports=["math", "functools"],
)
