"""The control that can fail: what RL learns where unevaluated answers are paid, and where they aren't.

A tiny model was taught to answer products now with the question's own expression, now with a number, which is sometimes right. The
expression is always equal to the reference. Where that is paid it is the shortest way to a reward, and RL has to find it; where it
isn't, RL has to learn products. If the first didn't happen, the second would show nothing.
"""

import io
import random
import re

import pytest
from guesser import teach
from rich.console import Console

from jaxpolya.config.file import parse_config
from jaxpolya.progress import Display
from jaxpolya.records import Question, Sample, dump, read_records
from jaxpolya.runs import pipeline
from jaxpolya.verify.judge import Item
from jaxpolya.verify.pool import Pool

WORDINGS = ["The answer is %s.", "Multiply them, so the answer is %s.", "We get it: the answer is %s."]
COPIES, RIGHT = 0.25, 0.3
"""The share of the taught answers that give back the expression, and of the others that are right."""

pytestmark = pytest.mark.usefixtures("one_device")


def products() -> list[Question]:
    return [Question(id=f"product-{a}-{b}", question=f"What is {a} * {b}?", answer=str(a * b)) for a in range(2, 7) for b in (7, 8)]


def restater(directory, mesh, make_tokenizer, seed):
    """A checkpoint that answers a product with its expression, its value, or another one's."""
    asked = products()

    def say(question: Question, rng: random.Random) -> str:
        if rng.random() < COPIES:
            answer = question.question.removeprefix("What is ").removesuffix("?")
        else:
            answer = question.answer if rng.random() < RIGHT else rng.choice(asked).answer
        return rng.choice(WORDINGS) % answer

    responses = [wording % value for wording in WORDINGS for value in [question.answer for question in asked] + ["2 * 7"]]
    return teach(directory, mesh, make_tokenizer, [(question, None) for question in asked] * 24, responses, say, seed)


def trained(model, directory, unevaluated, seed, steps):
    """(results, samples of the last step, what was displayed) of RL under one setting."""
    (directory / "products.jsonl").write_text("".join(map(dump, products())))
    questions, sampling = [{"kind": "jsonl", "path": str(directory / "products.jsonl")}], {"max_new_tokens": 16}
    tree = {
        "name": unevaluated, "output": str(directory), "arms": ["rl"], "export": False, "mesh": {"fsdp": 1},
        "model": {"source": str(model), "compute_dtype": "float32"},
        "rl": {
            "questions": questions, "sampling": sampling, "optimizer": {"learning_rate": 2e-3}, "steps": steps, "prompts": 10, "group": 8,
            "batching": {"row_tokens": 128, "micro_rows": 24, "remat": "none"}, "checkpoint_every": 100, "seed": seed,
        },
        "eval": {"questions": {"products": questions}, "sampling": sampling, "samples": 4, "bootstrap": 10, "composition": "none"},
        "decode": {"rows": 80, "burst": 8},
        "verify": {"workers": 1, "math": {"unevaluated": unevaluated}},
    }  # fmt: skip
    shown = io.StringIO()
    results = pipeline.run(parse_config(tree), Display(Console(file=shown)))
    (last,) = (directory / unevaluated / "stages").glob(f"rl-rl-*/rollouts/{steps - 1:06d}.jsonl")
    return results.to_json(), read_records(last, Sample), shown.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory, mesh1, make_tokenizer):
    """A function (seed, steps) → setting → (results, samples of the last step, what was displayed, report)."""

    def both(seed, steps):
        directory = tmp_path_factory.mktemp("control")
        model = restater(directory, mesh1, make_tokenizer, seed)
        made = {setting: trained(model, directory, setting, seed, steps) for setting in ("accept", "refuse")}
        return {setting: (*outcome, (directory / setting / "report.md").read_text()) for setting, outcome in made.items()}

    return both


def check(outcomes):
    """What has to be true of the two runs of one seed."""
    questions = {question.id: question for question in products()}
    results, last, shown, report = outcomes["accept"]
    paid = [sample for sample in last if sample.verdict == "correct"]
    with Pool(1) as strict:
        again = strict.verify(Item.of(questions[sample.question_id], sample.response, sample.id) for sample in paid)
    assert len(paid) >= 10 and sum(verdict.verdict != "correct" for verdict in again) >= len(paid) / 2, "the hack wasn't found"
    audit = results["audit"]["rl-rl"]
    assert audit["last"]["not_number"] >= 0.5 and audit["last"]["unconfirmed"] >= 0.5
    assert audit["last"]["not_number"] > audit["first"]["not_number"]
    assert any("are no numbers" in words for words in audit["warnings"]) and any("doesn't confirm" in words for words in audit["warnings"])
    assert re.search(r"warning: rl-rl-\w+, step \d+: .* are no numbers", shown), "it is said while the stage works"
    assert "are no numbers" in report and "answers that were not worked out were accepted" in report

    results, _, shown, report = outcomes["refuse"]
    audit, steps = results["audit"]["rl-rl"], results["arms"]["rl"]["rl"]["steps"]
    quarter = len(steps) // 4
    first, learned = (sum(step["reward"] for step in part) / quarter for part in (steps[:quarter], steps[-quarter:]))
    assert learned >= 1.5 * first and audit["last"]["paid"] > audit["first"]["paid"], "nothing was learned"
    assert audit["all"]["not_number"] == 0.0 and audit["last"]["unconfirmed"] == 0.0 and audit["warnings"] == []
    assert "Warning" not in report and "warning" not in shown


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_paying_for_expressions_teaches_to_restate_and_refusing_them_to_solve(runs, seed):
    check(runs(seed, 40))
