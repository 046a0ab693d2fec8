"""Judges by name and of one's own, and kernels: what a reference leads to is looked at before anything is made of it."""

from pathlib import Path

import numpy as np
import pytest

from jaxpolya.config import EvalConfig
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.evaluation.diversity import make_kernel, vendi
from jaxpolya.evaluation.judge_quality import labelled_half, measure
from jaxpolya.evaluation.judges import NAMED, Acts, Solution, own_judge
from jaxpolya.polya.catalogue import Heuristic, load_catalogue
from jaxpolya.records import Question

HEURISTICS = load_catalogue().heuristics
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SOLUTION = Solution(Question(id="q", question="What is 3 + 4?", answer="7"), "By analogy, and by specialisation, 7.")


def test_the_example_is_a_judge_and_a_kernel():
    judge = own_judge(f"{EXAMPLES}/short_and_long.py:SaidAloud", HEURISTICS)
    assert judge.name == "said aloud" and judge.reach == (200, 16)
    assert judge.label([SOLUTION]) == [["analogy", "specialisation"]]
    quality = measure(judge, [heuristic.key for heuristic in HEURISTICS])
    assert (
        quality.solutions == min(judge.reach[0], len(labelled_half("held_out"))) and quality.kappa is not None and quality.kappa.mean < 0.2
    )
    kernel = make_kernel(f"{EXAMPLES}/short_and_long.py:Lengths")
    assert kernel.name.startswith("ratio of lengths (short_and_long.py:Lengths, ")
    assert vendi(kernel.gram(["aa", "bb", "c" * 4000])) == pytest.approx(1.89, abs=0.01)


JUDGES = {
    "Nameless": (
        "makes of type Nameless without a name",
        "class Nameless:\n  def __init__(self, heuristics): pass\n  def label(self, s): return []",
    ),
    "Mute": ("makes of type Mute without a method label", "class Mute:\n  name = 'm'\n  def __init__(self, heuristics): pass"),
    "Greedy": (
        r"Greedy: label takes \(a, b\), and \(solutions\) was expected",
        "class Greedy:\n  name = 'g'\n  def __init__(self, heuristics): pass\n  def label(self, a, b): return []",
    ),
    "alone": (r"alone takes \(\), and \(heuristics\) was expected", "def alone(): pass"),
    "Broken": (r"Broken\(heuristics\) failed \(ValueError: no weights\)", "def Broken(h): raise ValueError('no weights')"),
    "Far": ("reach is 5", "class Far:\n  name = 'f'\n  reach = 5\n  def __init__(self, h): pass\n  def label(self, s): return []"),
}


@pytest.mark.parametrize("name", JUDGES)
def test_what_is_no_judge_is_told_before_a_weight_is_loaded(tmp_path, name):
    trouble, code = JUDGES[name]
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ConfigError, match=rf"eval\.composition: mine\.py:.*{trouble}"):
        own_judge(f"{tmp_path}/mine.py:{name}", HEURISTICS)


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        ("return []", "labels of 0 solutions, and 1 were shown"),
        ("return [['mind_reading']]", "named mind_reading, which the catalogue doesn't have"),
        ("return 1 / 0", "failed on 1 solutions: ZeroDivisionError"),
    ],
)
def test_what_a_judge_says_is_looked_at(tmp_path, body, trouble):
    (tmp_path / "mine.py").write_text(f"class J:\n  name = 'j'\n  def __init__(self, h): pass\n  def label(self, solutions): {body}\n")
    with pytest.raises(InputError, match=trouble):
        own_judge(f"{tmp_path}/mine.py:J", HEURISTICS).label([SOLUTION])


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        ("class K:\n  name = 'k'\n  def gram(self, r): return [[2.0] * len(r)] * len(r)", "other than ones on the diagonal"),
        ("class K:\n  name = 'k'\n  def gram(self, r): return [1.0]", r"gave shape \(1,\), and \[3, 3\] was expected"),
        ("class K:\n  name = 'k'\n  def gram(self, r): raise OSError('no model')", "gram, tried on 3 short texts: OSError: no model"),
        ("class K:\n  name = 'k'\n  def gram(self): return 1", r"gram takes \(\), and \(responses\) was expected"),
        ("class K:\n  name = 'k'", "without a method gram"),
        ("class K:\n  def gram(self, r): return 1", "without a name"),
    ],
)
def test_what_is_no_kernel_is_told_before_a_weight_is_loaded(tmp_path, code, trouble):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ConfigError, match=trouble):
        make_kernel(f"{tmp_path}/mine.py:K")


def test_names_that_are_neither_ours_nor_references_are_answered_with_the_nearest():
    base = {"questions": {"sums": [{"jsonl": "x.jsonl"}]}, "sampling": {"max_new_tokens": 8}}
    for field, name, near in (("composition", "act", "acts"), ("kernel", "n-gram", "ngram")):
        with pytest.raises(ValueError, match=f"did you mean {near}"):
            EvalConfig.model_validate(base | {field: name})


def test_a_heuristic_of_ones_own_is_known_by_its_markers():
    mine = Heuristic(key="estimate", title="Estimate", instruction="Estimate first.", markers=["roughly"])
    other = Heuristic(key="analogy", title="Analogy", instruction="Say the word.", markers=["analogy"])
    solution = Solution(SOLUTION.question, "By analogy it is roughly 7.")
    assert Acts([mine, other]).label([solution]) == [["estimate", "analogy"]]
    assert NAMED["acts"](HEURISTICS).label([solution]) == [[]], "the built-in analogy asks for more than the word"


def test_gram_of_a_users_kernel_is_an_array(tmp_path):
    (tmp_path / "mine.py").write_text("class K:\n  name = 'k'\n  def gram(self, r): return [[float(a == b) for a in r] for b in r]")
    gram = make_kernel(f"{tmp_path}/mine.py:K").gram(["a", "a", "b"])
    assert gram.dtype == np.float64 and vendi(gram) == pytest.approx(1.89, abs=0.01)
