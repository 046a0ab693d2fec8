"""Tests that hold the program's objects: methods, attributes, protocols, exceptions, and what can't be forged there."""

import pytest

from jaxpolya.verify import code
from jaxpolya.verify.sandbox.sandbox import SandboxError


@pytest.fixture(scope="module", autouse=True)
def runs_here():
    try:
        code.sandbox()
    except SandboxError as error:
        pytest.skip(f"no program can be run on this machine: {error}")


PROGRAM = """
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple
import collections, functools, contextlib, abc
class Stack:
    "A stack."
    count = 0
    def __init__(self, items=()):
        self.items = list(items); Stack.count += 1
    def push(self, x): self.items.append(x)
    def pop(self):
        if not self.items: raise StackEmpty("empty", 3)
        return self.items.pop()
    @property
    def size(self): return len(self.items)
    @size.setter
    def size(self, n): del self.items[n:]
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __contains__(self, x): return x in self.items
    def __getitem__(self, i): return self.items[i]
    def __setitem__(self, i, v): self.items[i] = v
    def __repr__(self): return f"Stack({self.items})"
    def __eq__(self, o): return isinstance(o, Stack) and self.items == o.items
    @classmethod
    def of(cls, *xs): return cls(xs)
    @staticmethod
    def name(): return "stack"
    def __enter__(self): return self
    def __exit__(self, *a): self.items.clear(); return a[0] is KeyError
    def get_self(self): return self
class StackEmpty(Exception):
    def __init__(self, msg, code): super().__init__(msg); self.code = code
class Low(StackEmpty): pass
class Both(ValueError, KeyError): pass
def boom(kind):
    if kind == 1: raise Low("low", 7)
    if kind == 2: raise Both("b")
    raise OSError(2, "nope")
@dataclass
class Point:
    x: int
    y: int = 0
    def __add__(self, o): return Point(self.x + o.x, self.y + o.y)
    def __mul__(self, k): return Point(self.x * k, self.y * k)
    __rmul__ = __mul__
    def __lt__(self, o): return (self.x, self.y) < (o.x, o.y)
    def __neg__(self): return Point(-self.x, -self.y)
    def __abs__(self): return (self.x**2 + self.y**2) ** .5
    def __hash__(self): return hash((self.x, self.y))
    def __bool__(self): return bool(self.x or self.y)
class Node:
    def __init__(self, val, next=None): self.val, self.next, self.children = val, next, []
def build(vals):
    head = None
    for v in reversed(vals): head = Node(v, head)
    return head
def total(n): return n.val + sum(map(total, n.children))
class Color(Enum):
    RED = 1
    BLUE = 2
class Pt(NamedTuple):
    x: int
    y: int
    def norm(self): return self.x + self.y
class Matrix(list):
    def shape(self): return (len(self), len(self[0]))
class Counter2(dict):
    def inc(self, k): self[k] = self.get(k, 0) + 1
class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...
class Square(Shape):
    def __init__(self, s): self.s = s
    def area(self): return self.s ** 2
def apply(f, x): return f(x)
def sort_in_place(xs): xs.sort()
def rotate(m): m[:] = [list(r) for r in zip(*m[::-1])]
def counter():
    n = 0
    while True:
        got = yield n
        n = got if got is not None else n + 1
def logged(f):
    @functools.wraps(f)
    def inner(*a, **k):
        inner.calls += 1
        return f(*a, **k)
    inner.calls = 0
    return inner
@contextlib.contextmanager
def ctx(log):
    yield 5
class Cd:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        if self.n <= 0: raise StopIteration
        self.n -= 1
        return self.n
TOTAL = 0
LOG = []
def bump():
    global TOTAL
    TOTAL += 1
    LOG.append(TOTAL)
class Temp:
    def __init__(self): self._c = 0
    @property
    def c(self): return self._c
    @c.setter
    def c(self, v):
        if v < -273: raise ValueError("too cold")
        self._c = v
class Frac:
    def __init__(self, a, b):
        import math
        g = math.gcd(a, b); self.a, self.b = a // g, b // g
    def __eq__(self, o): return self.a * o.b == self.b * o.a
    def __lt__(self, o): return self.a * o.b < self.b * o.a
    def __le__(self, o): return self.a * o.b <= self.b * o.a
class Singleton:
    _i = None
    def __new__(cls):
        if cls._i is None: cls._i = super().__new__(cls)
        return cls._i
class Trie:
    def __init__(self): self.w = set()
    def insert(self, w): self.w.add(w)
    def __contains__(self, w): return w in self.w
async def fetch(x): return x * 2
class AStack:
    async def push(self, x): self.x = x; return x
    async def __aenter__(self): return self
    async def __aexit__(self, *a): return False
async def agen(n):
    for i in range(n): yield i
def twice(f): return lambda x: f(f(x))
def fact(name):
    return Stack
"""

USES = {
    "methods": """
s = Stack()
s.push(1)
s.push(2)
assert s.pop() == 2 and s.pop() == 1
""",
    "an exception of its own": """
s = Stack()
try:
    s.pop()
    assert False
except StackEmpty as e:
    assert e.code == 3 and str(e) == 'empty' and e.args == ('empty',)
""",
    "a derived exception": """
try:
    boom(1)
    assert 0
except StackEmpty as e:
    assert type(e).__name__ == 'Low' and isinstance(e, Low)
""",
    "an exception of two kinds": """
for k in (ValueError, KeyError, Both):
    try:
        boom(2)
        assert 0
    except k: pass
""",
    "an exception with a number": """
try:
    boom(3)
except FileNotFoundError as e:
    assert e.errno == 2
""",
    "properties": """
s = Stack([1,2,3])
assert s.size == 3
s.size = 1
assert s.size == 1 and len(s) == 1
""",
    "iteration": """
assert list(Stack([1,2])) == [1,2] and sum(x for x in Stack([1,2])) == 3 and 1 in Stack([1]) and 2 not in Stack([1])
""",
    "items": """
s=Stack([1,2])
assert s[0] == 1 and s[-1] == 2 and s[0:2] == [1,2]
s[0]=9
assert s[0]==9
""",
    "texts": """
assert repr(Stack([1])) == 'Stack([1])' and str(Stack([1])) == 'Stack([1])' and f'{Stack([1])}' == 'Stack([1])'
""",
    "class methods": """
assert Stack.of(1,2).items == [1,2] and Stack.name() == 'stack' and Stack([]).name() == 'stack'
""",
    "class attributes": """
n = Stack.count
Stack()
assert Stack.count == n + 1
Stack.count = 0
assert Stack().count == 1
""",
    "with": """
s = Stack([1])
with s as t:
    assert t is s and len(t) == 1
assert len(s) == 0
with s:
    raise KeyError('x')
""",
    "classes": """
assert isinstance(Stack(), Stack)
assert not isinstance(Stack(), Node)
assert type(Stack()) is Stack
assert Stack.__name__ == 'Stack'
assert Stack().__class__ is Stack
assert type(Stack()).__name__ == 'Stack'
""",
    "equality": """
assert Stack([1]) == Stack([1]) and Stack([1]) != Stack([2]) and not (Stack([1]) == Stack())
""",
    "equality of the empty": """
assert Stack() == Stack()
""",
    "operators": """
assert Point(1,2) + Point(3,4) == Point(4,6)
assert Point(1,2) * 3 == Point(3,6) == 3 * Point(1, 2)
assert -Point(1,2) == Point(-1,-2) and abs(Point(3,4)) == 5
assert Point(1,2) < Point(2,0) and Point(3, 1) > Point(2, 1)
""",
    "order, hash and truth": """
assert sorted([Point(3,1), Point(1,2)])[0].x == 1 and len({Point(1,2), Point(1,2), Point(2,2)}) == 2
assert {Point(1,2): 'a'}[Point(1,2)] == 'a'
assert not Point(0,0) and Point(1)
assert Point(1,2) != Point(2,1)
assert str(Point(1,2)) == 'Point(x=1, y=2)'
assert Point(x=1, y=5) == Point(1, 5)
""",
    "a linked list": """
head = build([1,2,3])
vals = []
while head:
    vals.append(head.val)
    head = head.next
assert vals == [1,2,3]
""",
    "identity": """
a = Node(1)
b = Node(2, a)
assert b.next is a and b.next == a and a != b and a.next is None
""",
    "a container of an object": """
r = Node(1)
r.children.append(Node(2))
r.children.append(Node(3))
assert total(r) == 6 and len(r.children) == 2
""",
    "a container held": """
s = Stack()
xs = s.items
s.push(4)
assert xs == [4] and s.items is xs
""",
    "enumerations": """
assert Color.RED.name == 'RED'
assert Color(2) is Color.BLUE
assert Color['RED'] == Color.RED
assert Color.RED != Color.BLUE
assert [c.value for c in Color] == [1,2]
assert len(Color) == 2
assert isinstance(Color.RED, Color)
assert Color.RED in Color
""",
    "named tuples": """
p = Pt(1,2)
assert p == (1,2) and p.x == 1 and p.norm() == 3 and p[1] == 2 and isinstance(p, tuple) and isinstance(p, Pt)
a, b = p
assert (a, b) == p
assert p == Pt(1, 2)
assert p != Pt(2, 1)
assert hash(p) == hash((1,2))
assert p._replace(x=5) == (5, 2)
assert p._asdict() == {'x':1,'y':2}
""",
    "a derived list": """
m = Matrix([[1,2],[3,4]])
assert m == [[1,2],[3,4]] and m.shape() == (2,2)
m.append([5,6])
assert m.shape() == (3,2) and m[2] == [5,6] and len(m) == 3
""",
    "a derived dictionary": """
c = Counter2()
c.inc('a')
assert c == {'a': 1} and c['a'] == 1 and list(c.items()) == [('a', 1)] and 'a' in c and 'b' not in c
""",
    "abstract classes": """
try:
    Shape()
    assert 0
except TypeError: pass
assert Square(3).area() == 9 and issubclass(Square, Shape) and isinstance(Square(1), Shape)
""",
    "functions of the tests": """
assert apply(lambda x: x + 1, 2) == 3 and apply(len, [1,2]) == 2 and apply(str, 5) == '5' and twice(lambda x: x * 3)(2) == 18
""",
    "exceptions of the tests": """
class E(Exception): pass
def f(x): raise E('q')
try:
    apply(f, 1)
    assert 0
except E as e: assert str(e) == 'q'
try:
    apply(lambda x: 1 / x, 0)
    assert 0
except ZeroDivisionError: pass
""",
    "changes in place": """
xs = [3,1,2]
assert sort_in_place(xs) is None and xs == [1,2,3]
m = [[1,2],[3,4]]
rotate(m)
assert m == [[3,1],[4,2]]
""",
    "generators": """
g = counter()
assert next(g) == 0 and next(g) == 1 and g.send(10) == 10 and next(g) == 11
import itertools
assert list(itertools.islice(counter(), 50)) == list(range(50))
g.close()
try:
    next(g)
    assert 0
except StopIteration: pass
""",
    "decorators": """
@logged
def add(a, b):
    return a + b
assert add(1, b=2) == 3 and add.calls == 1 and add.__name__ == 'add'
""",
    "context managers": """
with ctx([]) as v:
    assert v == 5
""",
    "iterators of its own": """
assert list(Cd(3)) == [2,1,0]
c = Cd(1)
assert next(c) == 0
try:
    next(c)
    assert 0
except StopIteration: pass
assert next(Cd(0), 'x') == 'x'
""",
    "global variables": """
assert TOTAL == 0
bump()
bump()
assert TOTAL == 2 and LOG == [1, 2]
""",
    "a property that refuses": """
t = Temp()
t.c = 5
assert t.c == 5
try:
    t.c = -300
    assert 0
except ValueError as e: assert 'cold' in str(e)
""",
    "equal though different": """
assert Frac(1,2) == Frac(2,4)
assert Frac(1,2) < Frac(2,3)
assert Frac(1,2) <= Frac(1,2)
assert Frac(3,4) > Frac(1,2)
assert not Frac(1, 2) == Frac(1, 3)
""",
    "one object": """
assert Singleton() is Singleton()
""",
    "containment alone": """
t = Trie()
t.insert('apple')
assert 'apple' in t and 'app' not in t
""",
    "coroutines": """
import asyncio
assert asyncio.run(fetch(2)) == 4
async def main():
    s = AStack()
    assert await s.push(3) == 3
    async with AStack() as t: await t.push(1)
    assert [x async for x in agen(3)] == [0,1,2]
    return await asyncio.gather(fetch(1), fetch(2))
assert asyncio.run(main()) == [2, 4]
""",
    "missing attributes": """
assert not hasattr(Stack(), 'nope') and hasattr(Stack(), 'push') and getattr(Stack(), 'zip', 5) == 5
""",
    "copies": """
import copy
s = Stack([1])
t = copy.deepcopy(s)
t.push(2)
assert len(s) == 1 and len(t) == 2 and t is not s
""",
    "what an object holds": """
s = Stack([1])
assert vars(s) == {'items': [1]} and s.__dict__ == {'items': [1]}
assert Stack.__doc__ == 'A stack.'
""",
    "unittest": """
import unittest
class TestStack(unittest.TestCase):
    def setUp(self): self.s = Stack()
    def test_pop(self):
        self.s.push(1)
        self.assertEqual(self.s.pop(), 1)
        with self.assertRaises(StackEmpty): self.s.pop()
        self.assertTrue(self.s.size == 0)
        self.assertIsInstance(self.s, Stack)
        self.assertRaises(ValueError, boom, 2)
        self.assertIn(1, Stack([1]))
""",
    "pytest": """
from solution import Stack
def test_a():
    assert Stack([1]).pop() == 1
""",
    "attributes of functions": """
assert apply.__name__ == 'apply' and callable(apply)
""",
    "classes as values": """
cls = fact('x')
assert cls([2]).pop() == 2 and cls is Stack
""",
    "methods as values": """
s = Stack()
p = s.push
p(1)
p(2)
assert s.items == [1,2]
assert list(map(Stack([5,6]).__getitem__, [0, 1])) == [5, 6]
""",
    "chains": """
assert Stack([1]).get_self().get_self().pop() == 1
""",
    "attributes of the tests": """
s = Stack()
s.extra = 3
assert s.extra == 3
del s.extra
assert not hasattr(s, 'extra')
""",
    "objects as arguments": """
n = Node(1, Node(2))
assert n.next.val == 2
n.next = Node(7)
assert n.next.val == 7
n.val += 1
assert n.val == 2
""",
    "mocks": """
from unittest.mock import Mock
m = Mock(return_value=4)
assert apply(m, 3) == 4
m.assert_called_once_with(3)
""",
    "iterators of the tests": """
import types
def lazy():
    yield 3
assert apply(list, lazy()) == [3] and apply(sorted, map(abs, [-2, 1])) == [1, 2]
""",
}


@pytest.mark.parametrize("tests", USES.values(), ids=USES)
def test_objects_are_used_as_in_python(tests):
    assert code.judge(tests, PROGRAM, 60.0) == ("correct", None)


LIAR = """
class Liar:
    def __init__(self, *arguments): self.arguments = 0
    def always(self, *arguments): return True
    __eq__ = __ge__ = __le__ = __lt__ = __gt__ = __contains__ = always
    __ne__ = lambda self, other: False
    __hash__ = lambda self: hash(4)
    __bool__ = always
    __add__ = __radd__ = __mul__ = __rmul__ = __neg__ = __truediv__ = lambda self, *other: self
    __sub__ = __rsub__ = __abs__ = __mod__ = __round__ = __int__ = __index__ = __len__ = lambda self, *other: 0
    __float__ = lambda self: 0.0
    __iter__ = lambda self: iter(())
    __getattr__ = lambda self, name: self.always
    __array__ = __array_ufunc__ = __array_function__ = always
    __instancecheck__ = __subclasscheck__ = always
    __class__ = int
    __getitem__ = lambda self, key: self
    __enter__ = lambda self: self
    __exit__ = always
"""
EVERYTHING = """
class Everything(ValueError, TypeError, LookupError, AssertionError, StopIteration): pass
"""
FUNCTION = [
    "assert f(2) == 4", "assert 4 == f(2)", "assert not f(2) != 4", "assert f(2) in (4, 5)", "assert f(2) in {4}", "assert {4: 1}[f(2)]",
    "assert abs(f(2) - 4) < 1e-6", "assert abs(4 - f(2)) < 1e-6", "assert f(2) - 4 == 0", "assert not f(2) - 4", "assert -(f(2) - 4) == 0",
    "assert round(f(2) - 4, 7) == 0", "assert f(2) / 4 == 1", "assert f(2) % 4 == 0", "assert 3 < f(2) < 5", "assert f(2) >= 4",
    "assert [f(2)] == [4]", "assert sorted([f(2)]) == [4]", "assert sum([f(2)]) == 4",
    "assert max(f(2), 0) == 4", "assert str(f(2)) == '4'",
    "assert set(f(2)) == {4}", "assert list(f(2)) == [4]", "assert 4 in f(2)", "assert len(f(2)) == 4",
    "assert f(2)[0] == 4",
    "assert f(2).startswith('ab')", "assert f(2).issubset({4})", "assert f(2).count(4) == 1", "assert f(2).index(4) == 0",
    "assert f(2).x == 4",
    "import math\nassert math.isclose(f(2), 4)", "import math\nassert math.isclose(f(2) - 4, 0, abs_tol=1)",
    "assert isinstance(f(2), bytes)",
    "import numpy as np\nassert np.allclose(f(2), [4, 5])", "import numpy as np\nnp.testing.assert_allclose(f(2), [4, 5])",
    "import numpy as np\nassert np.array_equal(f(2), [4])", "import numpy as np\nassert (np.array([4, 5]) == f(2)).all()",
    "import numpy as np\nassert np.equal(f(2), 4)", "import numpy as np\nassert np.sum(np.subtract(f(2), [4, 5])) == 0",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertAlmostEqual(f(2), 4)",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(2), 4)",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertIn(f(2), [4])",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertGreaterEqual(f(2), 4)",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertSequenceEqual(f(2), [4])",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertCountEqual(f(2), [4])",
    "assert all(map(lambda case: f(case[0]) == case[1], [(2, 4)]))", "assert list(map(f, [2])) == [4]",
    "try:\n    f(2)\n    assert False, 'no error'\nexcept OSError:\n    pass",
]  # fmt: skip
LIES = {
    "an object": LIAR + "def f(*a): return Liar()",
    "a class": LIAR + "f = Liar",
    "an integer": LIAR + "class I(int):\n"
    "    vars().update({k: v for k, v in vars(Liar).items() if k not in ('__dict__', '__weakref__', '__init__', '__class__')})"
    "\ndef f(*a): return I(-7)",
    "a text": LIAR + "class S(str):\n    __eq__ = __contains__ = Liar.always\n    __hash__ = Liar.__hash__\n    __sub__ = Liar.__sub__\n"
    "def f(*a): return S('xy')",
    "a list": LIAR + "class L(list):\n    __eq__ = __contains__ = Liar.always\n    __sub__ = Liar.__sub__\ndef f(*a): return L([7])",
    "a metaclass": "class M(type):\n    __eq__ = __contains__ = lambda *a: True\n"
    "    __sub__ = __rsub__ = __abs__ = __len__ = lambda *a: 0\n"
    "    __hash__ = lambda c: hash(4)\nclass A(metaclass=M): pass\ndef f(*a): return A",
    "a mock": "from unittest.mock import MagicMock\ndef f(*a):\n    m = MagicMock()\n"
    "    m.__eq__ = m.__lt__ = m.__gt__ = m.__ge__ = lambda *a: True\n"
    "    m.__sub__ = m.__rsub__ = m.__abs__ = m.__mod__ = lambda *a: 0\n    return m",
    "an exception": EVERYTHING + "def f(*a): raise Everything",
    "an end of the iteration": "def f(*a): raise StopIteration",
    "an end of its own": "class End(StopIteration): pass\ndef f(*a): raise End",
    "an end of the generator": "def f(*a): raise GeneratorExit",
    "an interrupt": "def f(*a): raise KeyboardInterrupt",
    "a skipped test": "import unittest\ndef f(*a): raise unittest.SkipTest('x')",
    "an empty generator": "def f(*a):\n    if 0: yield",
    "nothing": "def f(*a): pass",
    "an exit": "import sys\ndef f(*a): sys.exit(0)",
}


@pytest.mark.parametrize("lie", LIES)
def test_no_object_passes_for_a_value(lie):
    for tests in FUNCTION[list(LIES).index(lie) % 4 :: 4]:
        refused(lie, tests)


@pytest.mark.soak
@pytest.mark.parametrize("lie", LIES)
def test_no_object_passes_for_any_value(lie):
    for tests in FUNCTION:
        refused(lie, tests)


def refused(lie, tests):
    verdict, detail = code.judge(tests, LIES[lie], 60.0)
    assert verdict in ("wrong", "crash"), (tests, verdict, detail)


POINT = """
class Point:
    def __init__(self, x, y=0): {state}
    def __add__(self, other): return {total}
    def get(self): return {get}
    def __eq__(self, other): return {equal}
    def __sub__(self, other): return {minus}
    __hash__ = {hash}
    def __abs__(self): return 0
    def __enter__(self): return self
    def __exit__(self, *problem): return {suppress}
def visit(function, *items):
    for item in items:
        {visit}
"""
HONEST = {
    "state": "self.x, self.y = x, y", "total": "Point(self.x + other.x, self.y + other.y)", "get": "self.x",
    "equal": "(self.x, self.y) == (other.x, other.y)", "minus": "Point(self.x - other, self.y - other)", "hash": "lambda self: 7",
    "suppress": "problem[0] is KeyError", "visit": "function(item)",
}  # fmt: skip
CLASSES = {
    "a sum": "assert Point(1, 2) + Point(3, 4) == Point(4, 6)",
    "a set": "assert {Point(1, 2), Point(1, 2)} == {Point(1, 2)} and len({Point(1, 2), Point(2, 1)}) == 2",
    "a list": "assert [Point(1, 2)] == [Point(1, 2)] and [Point(1, 2)].index(Point(1, 2)) == 0 and Point(1, 3) not in [Point(1, 2)]",
    "an object twice": "p = Point(1, 2)\nassert p == p and p + Point(0, 0) == p",
    "unequal": "assert Point(1, 2) != Point(2, 1) and not Point(1, 2) == Point(2, 1)",
    "a block": "with Point(1, 2) as p:\n    assert p.get() == 1\n    assert p.get() + 1 == 2",
    "a suppressed error": "with Point(1, 2):\n    raise KeyError(1)",
    "a callback": "seen = []\n"
    "def look(item):\n    seen.append(item)\n    assert item == 1\nPoint(1, 2)\nvisit(look, 1, 1)\nassert seen == [1, 1]",
    "a told object": "assert (Point(1, 2) - 1).x == 0",
}


@pytest.mark.parametrize("tests", CLASSES.values(), ids=CLASSES)
def test_an_honest_class_is_believed(tests):
    assert code.judge(tests, POINT.format(**HONEST), 60.0) == ("correct", None)


DISHONEST = {
    "equal to everything": ({"equal": "True", "total": "self"}, ["a sum", "unequal", "a list"]),
    "equal to all of its class": ({"equal": "type(other) is Point", "total": "self"}, ["a sum", "unequal"]),
    "equal without a state": ({"equal": "True", "total": "self", "state": "pass", "get": "1"}, ["a sum", "unequal"]),
    "equal with one state": ({"equal": "True", "total": "self", "state": "self.x = self.y = 1"}, ["a sum", "unequal", "a set"]),
    "equal in turn": ({"equal": "vars(Point).get('n', 0) % 2 == 0 or setattr(Point, 'n', 1)", "total": "self"}, ["unequal"]),
    "equal, in a word": ({"equal": "'yes'", "total": "self"}, ["a sum", "unequal"]),
    "suppressing everything": ({"get": "99", "suppress": "True"}, ["a block"]),
    "suppressing by another type": ({"get": "None", "suppress": "True"}, ["a block"]),
    "raising and suppressing": ({"get": "1 / 0", "suppress": "True"}, ["a block"]),
    "swallowing": (
        {"visit": "\n        try: function(2)\n        except BaseException: pass\n        try: function(2)\n        except: pass"},
        ["a callback"],
    ),
}


@pytest.mark.parametrize("lie", DISHONEST)
def test_a_dishonest_class_is_not_believed(lie):
    changes, caught = DISHONEST[lie]
    for name in caught:
        verdict, detail = code.judge(CLASSES[name], POINT.format(**{**HONEST, **changes}), 60.0)
        assert verdict in ("wrong", "harness_error"), (name, verdict, detail)


def test_an_object_that_was_told_a_value_answers_with_none():
    """`x - 4` of a number would be near 0; what an object makes of the 4 is its own affair, and no evidence."""
    dishonest = POINT.format(**{**HONEST, "get": "self"})
    for tests in (
        "abs(Point(1).get() - 4) < 1e-6",
        "round(Point(1) - 4) == 0",
        "not Point(1) - 4",
        "-(Point(1) - 4) == 0",
        "(Point(1) - 4) == 0",
    ):
        assert code.judge(f"assert {tests}", dishonest, 60.0)[0] in ("wrong", "harness_error"), tests
    returned = POINT.format(**{**HONEST, "minus": "0"})
    assert code.judge("assert Point(1) - 4 == 0", returned, 60.0)[0] == "harness_error"


FORGED = {
    "an object that was never there": 'Made("object", 999, int)',
    "a negative number": 'Made("object", -5, int)',
    "a class never described": 'Made("class", 12345)',
    "a function of the tests'": 'Made("theirs", 0)',
    "a function never given": 'Made("theirs", -1)',
    "an exception of no class": 'Made("error", int, (), "", 0)',
    "an exception that ends all": 'Made("error", KeyboardInterrupt, (), "", 0)',
    "a builtin function": 'Made("builtin", "exec")',
    "a name that is none": 'Made("os.system", "true")',
    "a module's type": 'Made("subprocess.Popen", "true")',
    "an iterator": 'Made("iterator", 3)',
    "an endless list": 'Made("collections.deque", range(1 << 60), None)',
    "an endless text": 'Made("builtins.bytearray", 1 << 60)',
    "a counter of numbers": 'Made("collections.Counter", range(1 << 60))',
    "an array of objects": 'Made("numpy.ndarray", "O", (1,), bytes(8))',
    "a large array": 'Made("numpy.ndarray", "f8", (1 << 40,), b"")',
    "a fraction of nothing": 'Made("fractions.Fraction", 1, 0)',
    "a class like a type": 'Made("object", 7, Made("class", 8, "int", "v", (int,)), 4)',
    "a value that is an object": 'Made("object", 7, Made("class", 8, "X", "", ()), Made("object", 9, Made("class", 10, "Y", "", ())))',
    "flags of all kinds": 'Made("object", 7, Made("class", 8, "X", "ehnobvia" * 9, ()))',
    "a base of the tests'": 'Made("exception", 7, "X", "unittest.case", (int, Made("theirs", 0)))',
    "an exception of many bases": 'Made("exception", 7, "X\\0", "m", (OSError, ImportError, SyntaxError, UnicodeError))',
    "a lent container of another's": 'Made("lent", 0, [4])',
}  # fmt: skip
FORGE = """
import gc, sys
main = sys.modules["__main__"].__dict__ if hasattr(sys.modules["__main__"], "Server") else None
frame = sys._getframe()
while frame and "server" not in frame.f_locals: frame = frame.f_back
server = frame.f_locals["server"]
Made, encode = frame.f_globals["Made"], frame.f_globals["encode"]
def f(*arguments):
    server.line.send(encode(("value", {value}, {{}})))
    return 4
def g(*arguments): return 4
"""


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_forged_descriptions_earn_nothing(forged):
    program = FORGE.format(value=forged)
    for tests in (
        "assert f(len, 2) == 5",
        "assert f(lambda x: 5, 2)(2) == 6",
        "assert f(print, 2).x == 5\nassert 0",
        "for each in f(2): pass\nassert 0",
    ):
        assert code.judge(tests, program, 60.0)[0] in ("wrong", "crash"), tests
    assert code.judge("assert g(2) == 4", program, 60.0) == ("correct", None)  # the forging itself got through


def test_replies_to_calls_that_were_not_made():
    for word in (
        '("callback", 0, (), {})',
        '("callback", -1, (), {})',
        '("callback", 5, (), {})',
        '("result", 4)',
        '"value"',
        "None",
        '("value", 4)',
    ):
        program = FORGE.format(value="4").replace('encode(("value", 4, {}))', f"encode({word})")
        assert code.judge("assert f(2) == 5", program, 60.0)[0] == "crash", word
    flood = FORGE.format(value="4").replace("    return 4\ndef g", "    while True: server.line.send(encode(('value', 4, {})))\ndef g")
    assert code.judge("assert f(2) == 5", flood, 2.0)[0] in ("wrong", "timeout")


def test_endless_answers_end():
    for program in (
        "def f(x):\n    while True: yield x", "import itertools\ndef f(x): return itertools.cycle([x])",
        "class E:\n    def __iter__(self): return self\n    def __next__(self): return 1\ndef f(x): return E()",
        "class E:\n    def __getattr__(self, name): return E()\n    def __iter__(self): return iter([E()])\ndef f(x): return E()",
        "def f(x): return lambda *a: f(x)", "class E(list): pass\ndef f(x):\n    e = E()\n    e.append(e)\n    return e",
        "def f(x):\n    x = []\n    x.append(x)\n    return x",
        "class E(Exception):\n    def __str__(self): return str(self)\ndef f(x): raise E",
        "class E(Exception):\n    def __getattr__(self, name): return E()\ndef f(x): raise E(E(E()))",
    ):  # fmt: skip
        assert code.judge("assert list(f(2)) == [2]", program, 2.0)[0] in ("wrong", "crash", "timeout"), program


def test_a_derived_value_is_judged_by_its_value():
    program = "class S(str):\n    def startswith(self, x): return True\ndef f(): return S('abc')"
    assert code.judge("assert f().startswith('ab') and f().count('a') == 1 and f().upper() == 'ABC'", program, 60.0) == ("correct", None)
    assert code.judge("assert f().startswith('xy')", program, 60.0)[0] == "wrong"


def test_an_entry_point_may_be_a_method():
    tests = {
        "entry_point": "Solution().double",
        "prompt": "class Node:\n    def __init__(self, value): self.value = value\n\n\n"
        "class Solution:\n    def double(self, node: Node) -> int:\n",
        "test": "def check(candidate):\n    assert candidate(node=Node(2)) == 4\n    assert candidate(Node(-1)) == -2",
    }
    for response in ("class Solution:\n    def double(self, node):\n        return 2 * node.value", "        return 2 * node.value"):
        assert code.judge(tests, response, 60.0) == ("correct", None)
    verdict, detail = code.judge(tests, "class Solution:\n    def triple(self, node): return 2 * node.value", 60.0)
    assert verdict == "wrong" and "'Solution' object has no attribute 'double'" in detail
    assert code.judge(tests, "class Solution:\n    def double(self, node): return node", 60.0)[0] == "wrong"


def test_what_is_printed_reaches_tests_that_look():
    program = "import sys\ndef greet(name):\n    print('Hello', name)\n    sys.stdout.write('!')\n    return len(name)"
    redirected = "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    assert greet('Ann') == 3\n"
    assert code.judge(redirected + "assert out.getvalue() == 'Hello Ann\\n!'", program, 60.0) == ("correct", None)
    assert code.judge(redirected + "assert out.getvalue() == 'Hello Bob\\n!'", program, 60.0)[0] == "wrong"
    patched = "from io import StringIO\nfrom unittest.mock import patch\n"
    patched += "with patch('sys.stdout', new_callable=StringIO) as out:\n    greet('Ann')\n"
    assert code.judge(patched + "assert 'Ann' in out.getvalue()", program, 60.0) == ("correct", None)
    assert code.judge(patched + "assert 'Bob' in out.getvalue()", program, 60.0)[0] == "wrong"


def test_a_world_that_only_the_tests_see_is_nobodys_fault():
    program = "def ask(): return input()\ndef load(path): return open(path).read()"
    for tests in (
        "import io, sys\nsys.stdin = io.StringIO('x')\nassert ask() == 'x'",
        "from unittest.mock import patch\nwith patch('builtins.input', return_value='x'):\n    assert ask() == 'x'",
        "import tempfile\nwith tempfile.NamedTemporaryFile() as file:\n    assert load(file.name) == ''",
    ):
        assert code.judge(tests, program, 60.0)[0] == "harness_error", tests
    assert code.judge("for input, open in [(1, 2)]:\n    assert load(input) == open", "def load(x): return x", 60.0)[0] == "wrong"


def test_what_can_not_be_carried_is_nobodys_fault():
    program = "class Animal:\n    pass\ndef f(x): return x\ndef g(): return 1"
    for tests in (
        "class Mine: pass\nassert f(Mine())", "class Dog(Animal): pass\nassert Dog()", "import io\nassert f(io.StringIO())",
        "try:\n    f(object())\nexcept BaseException as e:\n    assert isinstance(e, Exception)", "x = []\nx.append(x)\nf(x)",
        "g\nimport dataclasses\ndataclasses.asdict(Animal())",
    ):  # fmt: skip
        assert code.judge(tests, program, 60.0)[0] == "harness_error", tests
    verdict, detail = code.judge("def helper(): return g()", program, 60.0)
    assert (verdict, detail) == ("harness_error", "the tests asked the program nothing")
