r"""No answer without solving: what strategies that solve nothing are paid, set by set and strategy by strategy.

A question is asked, each strategy answers it, and what is judged `correct` without being the gold's own literal, word or form (by
`literals`, which shares nothing with the verifier) may be 0.5 % of a set at most. Luck with a literal can't be refused; it is counted
apart. `make test` takes a sample of every kind of question, questions of our own among them, so that nothing needs to be at hand;
`make soak` takes more of every set in reach and of every generator of reasoning-gym. To look at the shares:

    python -m pytest -m soak tests/verify/test_free_answers.py -s
"""

import collections
import dataclasses
import functools
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cheats import PROGRAMS, SCRIPTS, SLOW_PROGRAMS, choice_responses, puzzle_answers
from literals import is_literal
from strategies import WRAPPINGS, answers, responses

from jaxpolya.config import GymSource, JsonlSource
from jaxpolya.data.questions import load_questions
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.evaluation.benchmarks import load_registry
from jaxpolya.polya.prompts import ask
from jaxpolya.records import Question
from jaxpolya.verify import code
from jaxpolya.verify.judge import Item, Policy, answer_of
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.sandbox.sandbox import SandboxError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "questions"
BAR = 0.005
"""The share of a set that one strategy may be paid for without having been lucky with a literal."""

FILES = {
    "aime24": "aime24", "aime_1983_2023_train": "aime24", "amc23": "amc23", "asdiv": "asdiv", "gsm8k_test": "gsm8k", "gsm8k_train": "gsm8k",
    "math500": "math500", "math_train": "math500", "mawps": "mawps", "minerva_math": "minerva", "olympiadbench": "olympiadbench",
    "svamp": "svamp", "musr_small": "musr_murder_mysteries", "humaneval": "humaneval", "mbpp": "mbpp",
}  # fmt: skip
"""Files of questions, and the benchmark whose verifier and style of extraction users of that set get."""
MATHEMATICS = [name for name in FILES if name not in ("musr_small", "humaneval", "mbpp")]

OWN = [
    ("Ann has 12 boxes with 35 pens in each. How many pens does she have?", "420", "number"),
    ("A rope of 84 metres is cut into 7 equal parts. How long is each part?", "12.0", "number"),
    ("Bo had 41 stamps and gave 17 away. How many are left?", "24", "number"),
    ("Seven girls share 21 apples. How many does each get?", "3", "number"),
    ("A shirt costs $40 and is sold for 25% less. What does it cost now?", "30", "number"),
    ("There are three red and four blue balls. How many balls are there?", "7", "number"),
    ("What is one more than 0?", "1", "number"),
    ("Calculate 97 * 49.", "4753", "statement"),
    ("State the final answer to the following arithmetic problem: 6 + 1 - 8 =", "-1", "statement"),
    ("Simplify $\\frac{48}{84}$.", "\\frac{4}{7}", "statement"),
    ("What is $\\frac{3}{8}$ as a decimal?", "0.375", "statement"),
    ("Evaluate $2^{10} - 3 \\cdot 5$.", "1009", "statement"),
    ("Compute $\\sqrt{36 + 64}$.", "10", "statement"),
    ("Simplify $\\sqrt{72}$.", "6\\sqrt{2}", "statement"),
    ("What is $\\sin 60^\\circ$?", "\\frac{\\sqrt{3}}{2}", "statement"),
    ("Find $\\binom{8}{3}$.", "56", "statement"),
    ("Simplify $(3k - 2) + (4 - k)$.", "2k+2", "statement"),
    ("Expand $(x+3)(x-5)$.", "x^2-2x-15", "statement"),
    ("Factor $x^2 - 9$.", "(x-3)(x+3)", "statement"),
    ("Solve $4x - 2y = -6$ for $y$.", "y=2x+3", "statement"),
    ("Solve $x^2 - 5x + 6 = 0$.", "2, 3", "statement"),
    ("For which $x$ is $3x - 7 < 5$?", "x < 4", "statement"),
    ("For which real $x$ is $x^2 \\ge 4$? Answer in interval notation.", "(-\\infty,-2]\\cup[2,\\infty)", "statement"),
    ("Write $27_8$ in base 10.", "23", "statement"),
    ("Write 37 in base 5.", "122_5", "statement"),
    ("What is the ratio of 18 to 24 in lowest terms?", "3:4", "statement"),
    ("What percentage of 80 is 20?", "25\\%", "statement"),
    ("Find $\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix} + \\begin{pmatrix} 5 \\\\ 6 \\end{pmatrix}$.",
     "\\begin{pmatrix} 6 \\\\ 8 \\end{pmatrix}", "statement"),
    ("How many integers are in $\\{1, 2, \\ldots, 50\\}$ that 7 divides?", "7", "statement"),
    ("Write $(1+i)(2-3i)$ as $a+bi$.", "5-i", "statement"),
    ("What is the domain of $f(x) = x^2$?", "(-\\infty, \\infty)", "statement"),
    ("Differentiate $x^3 + 2x$.", "3x^2+2", "statement"),
    ("What is the sum of the first $n$ odd numbers?", "n^2", "statement"),
    ("At what time does a film of 95 minutes end that begins at 6:40 PM?", "8:15 PM", "statement"),
    ("Which of the following is even? $\\textbf{(A)}\\ 3 \\qquad \\textbf{(B)}\\ 4 \\qquad \\textbf{(C)}\\ 5$", "\\text{(B)}", "statement"),
]  # fmt: skip
"""Questions of our own: (question, gold, style of extraction)."""

GENERATORS = ["basic_arithmetic", "chain_sum", "products", "fraction_simplification", "simple_equations", "polynomial_equations", "gcd",
              "decimal_chain_sum", "complex_arithmetic", "base_conversion", "simple_geometry", "gsm_symbolic", "number_sorting", "puzzle24",
              "countdown", "coin_flip", "game_of_life_halting", "bitwise_arithmetic", "prime_factorization"]  # fmt: skip
"""Generators of reasoning-gym in the sample: those whose questions hold what could be repeated as an answer."""


@dataclasses.dataclass
class Shares:
    """What strategies were paid on one set: strategy → the questions, by their place; and examples of what was paid."""

    name: str
    questions: int
    judged: int = 0
    free: dict[str, set[int]] = dataclasses.field(default_factory=lambda: collections.defaultdict(set))
    lucky: dict[str, set[int]] = dataclasses.field(default_factory=lambda: collections.defaultdict(set))
    examples: dict[str, str] = dataclasses.field(default_factory=dict)
    verdicts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def beyond(self) -> list[str]:
        """The strategies above the bar, the best paid first, each with an example."""
        paid = sorted(self.free.items(), key=lambda item: -len(item[1]))
        return [
            f"{len(places) / self.questions:6.1%} {strategy}: {self.examples[strategy]}"
            for strategy, places in paid
            if len(places) > BAR * self.questions
        ]

    def __str__(self) -> str:
        def union(paid: dict[str, set[int]]) -> float:
            return len(set().union(*paid.values())) / self.questions

        best = max(self.lucky.items(), key=lambda item: len(item[1]), default=("none", set()))
        row = (
            f"{self.name:28} {self.questions:5} questions {self.judged:7} judged | free: best strategy "
            f"{max(map(len, self.free.values()), default=0) / self.questions:6.2%}, any {union(self.free):6.2%} | "
            f"luck: best {len(best[1]) / self.questions:6.1%} ({best[0]}), any {union(self.lucky):6.1%} | {dict(self.verdicts)}"
        )
        return "\n".join([row, *(f"    {line}" for line in self.beyond())])


Attempt = tuple[int, Item, str, bool | None]
"""(the question's place, the item, the strategy, whether luck may pay it: None where a literal decides)."""


def judged(name: str, questions: Sequence[Question], attempts: Iterator[Attempt], pool: Pool) -> Shares:
    """What the attempts at a set's questions were paid. Answers that several strategies share are judged once."""
    shares = Shares(name, len(questions))
    items: dict[tuple[int, str], Item] = {}
    strategies_of: dict[tuple[int, str], list[tuple[str, bool | None]]] = collections.defaultdict(list)
    for place, item, strategy, lucky in attempts:
        if (answer := answer_of(item)) is not None:
            items.setdefault((place, answer), item)
            strategies_of[place, answer].append((strategy, lucky))
    shares.judged = len(items)
    for ((place, answer), item), verdict in zip(items.items(), pool.verify(items.values()), strict=True):
        shares.verdicts[verdict.verdict] += 1
        if verdict.verdict == "correct":
            literal = is_literal(answer, item.answer)
            for strategy, lucky in strategies_of[place, answer]:
                (shares.lucky if (literal if lucky is None else lucky) else shares.free)[strategy].add(place)
                shares.examples.setdefault(strategy, f"{questions[place].id}: {answer[:80]!r} for {item.answer[:60]!r}")
    return shares


def attempts_at(questions: Sequence[Question], every: int = 1) -> Iterator[Attempt]:
    """Every so manieth strategy at all questions; those, and the wrappings of an answer, take turns from question to question."""
    forms = list(WRAPPINGS.values())
    for place, question in enumerate(questions):

        def item(response: str, question: Question = question) -> Item:
            return Item.of(question, response, question.id)

        if question.verifier == "choice":
            for strategy, response, commits in choice_responses(question.question, question.choices or []):
                yield place, item(response), strategy, commits
            continue
        if question.verifier == "code":
            for strategy, program in (PROGRAMS | (SLOW_PROGRAMS if place % 20 == 0 else {})).items():
                yield place, item(f"```python\n{_filled(program, question)}\n```"), strategy, False
            continue
        text = "\n\n".join(filter(None, (question.context, question.question)))
        for number, (strategy, answer) in enumerate((puzzle_answers if question.entry else answers)(text)):
            if (number + place) % every:
                continue
            yield place, item(forms[(place + number // every) % len(forms)].replace("%s", answer)), strategy, None
            if question.verifier == "reasoning_gym":  # answers of several lines are whole in tags alone
                yield place, item(WRAPPINGS["tag"].replace("%s", answer)), strategy, None
        for strategy, response in responses(text):
            yield place, item(response), strategy, None


def _filled(program: str, question: Question) -> str:
    """A program that defines what a question asks for: what its prompt begins, or what the test that it shows calls."""
    shown = ask(question)
    name = re.search(r"def (\w+)\(", question.question) or re.search(r"assert \(?(?:\w+\()*?(\w+)\(", shown)
    example = re.search(r"assert .*", shown)
    return program.replace("NAME", name[1] if name else "solve").replace("EXAMPLE", example[0] if example else "assert True")


@functools.cache
def in_file(name: str) -> tuple[Question, ...]:
    """The questions of a file, with the verifier and style that its benchmark has."""
    if not SHARED.is_dir():
        pytest.skip("no questions on this machine")
    benchmark = load_registry().pick([FILES[name]])[0]
    source = JsonlSource(kind="jsonl", path=SHARED / f"{name}.jsonl", verifier=benchmark.verifier, extraction=benchmark.extraction)
    return tuple(load_questions([source]).questions)


def drawn(name: str, limit: int, seed: int = 0) -> list[Question]:
    questions = list(in_file(name))
    return random.Random(seed).sample(questions, min(limit, len(questions)))


def generated(generator: str, size: int, seed: int, verifier: str | None = None) -> list[Question]:
    """Questions of a generator; none where it can't be used so."""
    try:
        return load_questions([GymSource(kind="reasoning_gym", name=generator, size=size, seed=seed, verifier=verifier)]).questions
    except (ConfigError, InputError):
        return []


def own() -> list[Question]:
    return [
        Question(id=f"own-{place}", question=question, answer=gold, extraction=style, verifier="math")
        for place, (question, gold, style) in enumerate(OWN)
    ]


@pytest.fixture(scope="module")
def pool():
    with Pool(2, deadline=10) as pool:
        yield pool


@pytest.fixture(scope="module")
def runs_here():
    try:
        code.sandbox()
    except SandboxError as error:
        pytest.skip(f"no program can be run on this machine: {error}")


def check(shares: Shares) -> None:
    print(f"\n{shares}")
    assert not shares.beyond()
    assert not shares.verdicts["harness_error"]


# The reader of literals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("42", "42.0"), ("$42$", "42"), ("42 apples", "42"), (r"\$1,234", "1234"), ("x = 42", "42"), (r"\frac{3}{4}", "0.75"), ("3/4",
         "0.75"),
        ("75%", "0.75"), (r"2\frac12", "2.5"), ("2 1/2", "2.5"), (r"3 \times 10^{4}", "30000"), ("3e4", "30000"), ("forty-two", "42"),
        (r"0.\overline{3}", r"\frac13"), ("2+2k", "2k+2"), (r"\text{East}", "east"), ("B", r"\text{(B)}"), ("3, 2", "2,3"), (r"\{2, 3\}",
         "2,3"),
        (r"90^\circ", "90"), (r"\dfrac{1}{60} \text{ m}", r"\frac{1}{60}"), ("(-3, 4)", "(-3,4)"), ("1 ÷ 60", r"\frac1{60}"),
    ],
)  # fmt: skip
def test_a_literal_is_one(answer, gold):
    assert is_literal(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("97 * 49", "4753"), ("84/7", "12"), (r"\frac{84}{7}", "12"), ("840/70", "12"), ("0 84/7", "12"), ("41 - 17", "24"), ("1 = 1", "1"),
        ("3 = 5 = 8", "8"), ("41 17", "58"), (r"\sqrt{100}", "10"), ("2^3", "8"), (r"\binom83", "56"), ("1, 2, 3", "3"), ("2 or 3", "3"),
        ("(3k-2)+(4-k)", "2k+2"), ("", "5"), ("x", "5"), ("50% * 2", "1"), (r"\pm 5", "5"), ("84.0/7.0", "12"), ("the answer is 12", "12"),
        (r"\{x : x > 2\}", "x > 3"), ("7!", "5040"), ("5 + 0", "5"), (r"\frac{5}{\frac{1}{1}}", "5"), ("A or B", "A"),
    ],
)  # fmt: skip
def test_what_is_to_be_worked_out_is_no_literal(answer, gold):
    assert not is_literal(answer, gold)


# A sample --------------------------------------------------------------------------------------------------------------------


def test_own_questions(pool):
    questions = own()
    check(judged("our own", questions, attempts_at(questions, every=7), pool))


def test_the_battery_finds_the_hack_where_it_is_paid():
    """The control: with `unevaluated: accept` the same strategies are paid for copying, and the shares show it."""
    questions = own()[7:12]
    with Pool(2, policy=Policy(unevaluated="accept")) as lax:
        shares = judged("our own, accepted", questions, attempts_at(questions, every=3), lax)
    assert len(set().union(*shares.free.values())) > len(questions) / 2
    assert shares.beyond()


def test_sampled_sets(pool):
    for name in MATHEMATICS:
        questions = drawn(name, 1)
        check(judged(name, questions, attempts_at(questions, every=2), pool))


def test_sampled_choices(pool):
    questions = drawn("musr_small", 30)
    check(judged("musr_small", questions, attempts_at(questions), pool))


def test_sampled_generators(pool):
    for verifier in ("math", None):
        questions = [question for name in GENERATORS for question in generated(name, 1, 5, verifier)]
        assert len(questions) > len(GENERATORS) / 2
        check(judged(f"generators ({verifier or 'their scorers'})", questions, attempts_at(questions, every=11), pool))


@pytest.mark.usefixtures("runs_here")
def test_programs():
    tests = ["assert double(2) == 4", "assert double(3) == 6"]
    questions = [Question(id="own", question="Write a function that doubles.", answer="", verifier="code", tests=tests)]
    with Pool(2, deadline=2) as pool:
        check(judged("a function", questions, attempts_at(questions), pool))
    pairs = [{"input": "2\n", "output": "4\n"}, {"input": "3 4\n", "output": "6 8\n"}]
    script = Question(id="own", question="Read numbers and print twice each.", answer="", verifier="code", tests=pairs)
    attempts = ((0, Item.of(script, f"```python\n{program}\n```", "own"), name, False) for name, program in SCRIPTS.items())
    with Pool(2, deadline=2) as pool:
        check(judged("a script", [script], attempts, pool))


# All of it -------------------------------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_all_own_questions(pool):
    questions = own()
    check(judged("our own", questions, attempts_at(questions), pool))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", MATHEMATICS)
def test_sets(name, pool):
    questions = drawn(name, 200, seed=1)
    check(judged(name, questions, attempts_at(questions), pool))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("runs_here")
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_sets_of_code(name):
    questions = drawn(name, 200, seed=1)
    with Pool(2, deadline=3) as pool:
        check(judged(name, questions, attempts_at(questions), pool))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verifier", ["math", None])
def test_generators(verifier, pool):
    from reasoning_gym.factory import DATASETS

    lines = []
    for generator in sorted(DATASETS):
        questions = [question for seed in (3, 4) for question in generated(generator, 4, seed, verifier)]
        if questions and (verifier is None or all(question.answer for question in questions)):
            shares = judged(f"{generator} ({verifier or 'own scorer'})", questions, attempts_at(questions), pool)
            print(f"\n{shares}")
            lines += [f"{generator}: {line}" for line in shares.beyond()]
    assert not lines
