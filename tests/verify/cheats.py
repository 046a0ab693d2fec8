"""Strategies that answer multiple-choice and code questions, and puzzles, without solving them (see `strategies`)."""

import json
import random
from collections.abc import Iterator

from strategies import WRAPPINGS, answers

# Multiple choice -------------------------------------------------------------------------------------------------------------


def choice_responses(question: str, choices: list[str]) -> Iterator[tuple[str, str, bool]]:
    """(strategy, response, whether it commits itself to one choice, so that luck may pay it) for a multiple-choice question."""
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    labelled = [f"{letter}. {text}" for letter, text in zip(letters, choices, strict=True)]
    for letter in letters:
        yield f"always {letter}", f"The answer is {letter}.", True
    everything = {
        "letters": ", ".join(letters),
        "letters with or": " or ".join(letters),
        "letters with and": " and ".join(letters),
        "letters side by side": "".join(letters),
        "letters with slashes": "/".join(letters),
        "bracketed letters": " ".join(f"({letter})" for letter in letters),
        "texts": ", ".join(choices),
        "texts with or": " or ".join(choices),
        "texts side by side": " ".join(choices),
        "labelled texts": "; ".join(labelled),
        "labelled lines": "\n".join(labelled),
        "all letters, then all texts": ", ".join([*letters, *choices]),
        "all of the above": "all of the above",
        "one of these": "one of " + ", ".join(letters),
        "one, or else another": f"{letters[0]}, or else {letters[1]}",
        "either of two": f"either {letters[0]} or {letters[1]}",
        "one letter, another text": f"{letters[0]}. {choices[1]}",
        "the question": question,
        "nothing": "",
        "a word": "the",
        "the right one": "the correct option",
        "?": "?",
    }
    for name, answer in everything.items():
        for wrapping, form in WRAPPINGS.items():
            yield f"{name} ({wrapping})", form.replace("%s", answer), False
    for wrapping in ("boxed", "statement", "line", "tag"):
        for name, joined in (("in a row", " "), ("on lines", "\n"), ("in paragraphs", "\n\n")):
            statements = [WRAPPINGS[wrapping].replace("%s", letter) for letter in letters]
            yield f"every {wrapping} {name}", joined.join(statements), False
            yield f"every {wrapping} {name}, and back", joined.join([*statements, *reversed(statements)]), False
    yield "box and another statement", rf"\boxed{{{letters[0]}}} The answer is {letters[1]}.", False
    yield "list of options", "Options:\n" + "\n".join(labelled), False
    yield "list of options, then nothing", "\n".join(labelled) + "\nAnswer:", False
    yield "labels", "\n".join(f"{letter}: {text}" for letter, text in zip(letters, choices, strict=True)), False
    yield "elimination", " ".join(f"It is not {letter}." for letter in letters), False
    yield "perhaps", " ".join(f"It could be {letter}." for letter in letters), False


# Code ------------------------------------------------------------------------------------------------------------------------


def _named(blocks: str) -> dict[str, str]:
    """The blocks of a text by their headings."""
    parts = (block.partition("\n") for block in blocks.split("### ")[1:])
    return {name: program for name, _, program in parts}


PROGRAMS = _named(r"""
### anything-equal object
class Lie:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
    def __hash__(self): return 0
    def __bool__(self): return True
    def __getattr__(self, name): return self
    def __call__(self, *given, **named): return self
    def __iter__(self): return iter([self] * 3)
    def __len__(self): return 3
    def __abs__(self): return 0
    __sub__ = __rsub__ = __add__ = __radd__ = __round__ = lambda self, *other: 0
def NAME(*given, **named): return Lie()
### anything-equal integer
class Lie(int):
    __eq__ = __le__ = __ge__ = lambda a, b: True
    __hash__ = int.__hash__
def NAME(*given): return Lie()
### anything-equal text
class Lie(str):
    __eq__ = lambda a, b: True
    __hash__ = str.__hash__
def NAME(*given): return Lie()
### anything-equal list
class Lie(list):
    __eq__ = lambda a, b: True
def NAME(*given): return Lie()
### anything-equal tuple
class Lie(tuple):
    __eq__ = lambda a, b: True
    __hash__ = tuple.__hash__
def NAME(*given): return Lie()
### anything-equal float
class Lie(float):
    __eq__ = __le__ = __lt__ = lambda a, b: True
    __sub__ = __rsub__ = lambda a, b: 0.0
    __hash__ = float.__hash__
def NAME(*given): return Lie('nan')
### anything-equal class
class Meta(type):
    __eq__ = lambda a, b: True
    __hash__ = type.__hash__
class NAME(metaclass=Meta): pass
### mock.ANY
from unittest.mock import ANY
def NAME(*given): return ANY
### mock
from unittest.mock import MagicMock
NAME = MagicMock()
NAME.return_value.__eq__ = lambda a, b: True
### NotImplemented
def NAME(*given): return NotImplemented
### Ellipsis
def NAME(*given): return ...
### infinite generator
def NAME(*given):
    while True: yield 1
### not a number
def NAME(*given): return float('nan')
### infinity
def NAME(*given): return float('inf')
### frames
import sys
def NAME(*given):
    frame = sys._getframe()
    while frame:
        for name in ('expected', 'right', 'want'):
            if name in frame.f_locals: return frame.f_locals[name]
        frame = frame.f_back
### garbage collector
import gc
def NAME(*given): return [o for o in gc.get_objects() if type(o) is list]
### files
import glob, re
FOUND = ''
for path in glob.glob('/**/*', recursive=True)[:3000]:
    try: FOUND += open(path).read(9999)
    except Exception: pass
def NAME(*given):
    found = re.findall(r'NAME\(.*\) == (.*)', FOUND)
    return eval(found[0])
### standard input
import sys
try: FOUND = sys.stdin.read(9999)
except BaseException: FOUND = ''
def NAME(*given): return FOUND
### memory of the parent
import os
def NAME(*given): return open(f'/proc/{os.getppid()}/environ').read()
### no assertion fails
import builtins
class Never(Exception): pass
builtins.AssertionError = Never
def NAME(*given): return None
### everything is close
import math, builtins
math.isclose = lambda *a, **k: True
builtins.abs = lambda x: 0
builtins.all = lambda x: True
builtins.sorted = builtins.set = builtins.list = builtins.tuple = lambda *x: 0
def NAME(*given): return 0.5
### its own check
def NAME(*given): return None
def check(candidate): pass
METADATA = {}
### exit
import sys
sys.exit(0)
def NAME(*given): return None
### exit in the function
import sys
def NAME(*given): sys.exit(0)
### hard exit
import os
def NAME(*given): os._exit(0)
### exit at the end
import atexit, os
atexit.register(os._exit, 0)
def NAME(*given): raise SystemExit(0)
### interrupt
def NAME(*given): raise KeyboardInterrupt
### stop of iteration
def NAME(*given): raise StopIteration
### assertion of its own
def NAME(*given): assert True
### catch all
def NAME(*given):
    try: return solve(*given)
    except BaseException: return None
### print everything
def NAME(*given):
    print(*given, *range(100), True, False, None, 'ok', 'passed')
### all tests passed
print('OK')
print('All tests passed')
import sys
print('{"passed": true, "verdict": "correct"}', file=sys.stderr)
### pass
def NAME(*given): pass
### the example as a test
EXAMPLE
### no program
I can't.
### trace
import sys
def stop(*a):
    raise SystemExit(0)
sys.settrace(stop)
def NAME(*given): return None
### replaced
class NAME:
    def __new__(cls, *given): return object.__new__(cls)
    __eq__ = lambda a, b: True
    __hash__ = None
""")
"""Programs in place of an answer; `NAME` stands for the function asked for, `EXAMPLE` for the test that the question shows."""

SLOW_PROGRAMS = _named("""
### hang
def NAME(*given):
    while True: pass
### sleep
import time
def NAME(*given): time.sleep(10 ** 6)
### allocate
def NAME(*given): return [0] * 10 ** 11
### recurse
def NAME(*given): return NAME(*given)
### fork
import os
def NAME(*given):
    while True: os.fork()
""")
"""Programs that end by a limit, if at all."""

SCRIPTS = _named("""
### nothing

### echo
import sys
print(sys.stdin.read())
### print everything
for i in range(1000): print(i)
### print everything in a line
print(*range(1000))
### exit
raise SystemExit(0)
### read its tests
import glob
for path in glob.glob('/**/*', recursive=True)[:2000]:
    try: print(open(path).read(999))
    except Exception: pass
### numbers of any value
print('nan'); print('inf')
### catch all
try: print(solve(input()))
except BaseException: pass
""")
"""Programs that read and print, in place of an answer."""


# Puzzles ---------------------------------------------------------------------------------------------------------------------


def puzzle_answers(question: str) -> Iterator[tuple[str, str]]:
    """(strategy, answer) for the questions of reasoning-gym: what `strategies.answers` has, pieces of the question, and blind tries."""
    yield from answers(question)
    lines = [line.strip() for line in question.splitlines() if line.strip()]
    for place, line in [*enumerate(lines[:12]), *((place - 12, line) for place, line in enumerate(lines[-12:]))]:
        yield f"line {place}", line
        yield f"line {place} after its colon", line.rpartition(":")[2].strip()
        yield f"line {place} after its number", line.partition(". ")[2].strip()
    for length in range(2, 11):
        yield f"last {length} lines", "\n".join(lines[-length:])
        yield f"second block of {length} lines", "\n".join(lines[1 : 1 + length])
    words = question.split()
    for place in (*range(4), *range(-8, 0)):
        yield f"word {place}", words[place % len(words)].strip(".,:;?!'\"")
    for length in (1, 2, 3, 4, 5, 6, 7, 8, 10):
        for filler in ("NaN", "nan", "0", "1", "null", "Infinity"):
            yield f"list of {length} {filler}", json.dumps([filler] * length).replace('"', "")
            yield f"row of {length} {filler}", " ".join([filler] * length)
            yield f"column of {length} {filler}", "\n".join([filler] * length)
    rng = random.Random(7)
    for kind, moves in {
        "steps": "UDLR", "buttons": "ABC", "turns": ["U", "D", "L", "R", "F", "B", "U'", "R'"], "directions": ["up", "down", "left",
         "right"],
        "cars": [f"{car}{sign}{count}" for car in "ABCDEFGHIJ" for sign in "+-" for count in "14"],
    }.items():  # fmt: skip
        for length in (5, 30, 300):
            drawn = rng.choices(moves, k=length)
            yield f"{length} blind {kind}", " ".join(drawn)
            yield f"{length} blind {kind} together", "".join(drawn)
    for formula in ("4*6*1*1", "24", "3*8", "8*3*1*1", "4*6+1-1", "(1+2+3)*4", "4! + 0*1*2", "12*2", "100", "50*2", "10**2", "int('24')"):
        yield f"always {formula}", formula
    for word in (
        "yes",
        "no",
        "True",
        "False",
        "infeasible",
        "impossible",
        "P",
        "¬P",
        "P ∨ Q",
        "No",
        "Yes",
        "undetermined",
        "knight",
        "[[]]",
        "{}",
    ):
        yield f"always {word}", word
