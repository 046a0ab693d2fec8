"""Which heuristics a solution uses: the built-in markers on the catalogue's own exemplars, and the model asked."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from growth import assert_linear

from jaxpolya.errors import ConfigError
from jaxpolya.evaluation.composition import summarise_composition
from jaxpolya.evaluation.judges import SEVERAL, Markers, Solution
from jaxpolya.hf.checkpoint import load_checkpoint
from jaxpolya.models.decoder import init_params
from jaxpolya.models.forward import Forward
from jaxpolya.polya.catalogue import Catalogue, Heuristic, load_catalogue
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.records import Question, Sample
from jaxpolya.score.heuristic_judge import ModelJudge, check_room

CATALOGUE = load_catalogue()
JUDGE = Markers(CATALOGUE.heuristics)
SOLUTIONS = Path(__file__).resolve().parents[3] / "shared" / "oracles" / "verifier" / "gsm8k_model_solutions.jsonl"
QUESTION = Question(id="q", question="What is 3 + 4?", answer="7")


def label(text):
    return JUDGE.label([Solution(QUESTION, text)])[0]


# Markers -----------------------------------------------------------------------------------------------------------------


def test_markers_find_the_exemplars_of_their_heuristic_and_few_others():
    by_heuristic = {h.key: [label(exemplar.response) for exemplar in h.exemplars] for h in CATALOGUE.heuristics}
    for key, labels in by_heuristic.items():
        assert sum(key in of_one for of_one in labels) >= 0.6 * len(labels), key
    own = sum(key in of_one for key, labels in by_heuristic.items() for of_one in labels)
    other = sum(len(set(of_one) - {key}) for key, labels in by_heuristic.items() for of_one in labels)
    exemplars = sum(map(len, by_heuristic.values()))
    assert own >= 0.9 * exemplars and other <= 0.08 * exemplars


def test_plain_solutions_have_few_labels():
    assert label("She sells 16 - 3 - 4 = 9 eggs a day, so she makes 9 * 2 = 18 dollars. The answer is 18.") == []
    assert label("Step 1: add 3 and 4. Step 2: the answer is 7. I figured out that there are too many eggs.") == []


@pytest.mark.skipif(not SOLUTIONS.exists(), reason="the solutions are not here")
def test_solutions_written_without_heuristics_are_rarely_composed():
    with SOLUTIONS.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["response"] for _, line in zip(range(500), lines, strict=False)]
    labels = [label(text) for text in texts]
    assert sum(len(keys) >= SEVERAL for keys in labels) <= 5 and sum(map(bool, labels)) <= 50


def test_one_solution_may_use_several():
    text = "Let x be the number of hens. The equation is 2x + 4(10 - x) = 28. I guess x = 5, which is too large.\nLook at the pattern."
    assert label(text) == ["guess_and_check", "pattern", "setting_up_equations"]


@pytest.mark.parametrize("hostile", ["\n", "plan:\n", "let x be ", "a per b ", "draw "])
def test_no_text_holds_the_markers_up(hostile):
    assert_linear(lambda size: label(hostile * (size // len(hostile))), 30_000)


def test_markers_are_no_part_of_a_catalogues_identity():
    def fingerprint(markers):
        return Catalogue(heuristics=[Heuristic(key="a", title="A", instruction="Do.", markers=markers)]).fingerprint

    assert fingerprint([]) == fingerprint(["done"])
    # The identity that the built-in catalogue had before there were markers: stages of earlier runs are still found.
    assert CATALOGUE.fingerprint == "154cd30b81f0f50be1ceb05ff39bb304cb08161f0c657fa360604fc6272785f0"


@pytest.mark.parametrize(("marker", "trouble"), [("(", "not a regular expression"), ("a*", "fits every text")])
def test_a_bad_marker_is_named(tmp_path, marker, trouble):
    path = tmp_path / "mine.yaml"
    path.write_text(f"heuristics:\n  - {{key: mine, title: Mine, instruction: Do., markers: ['{marker}']}}\n")
    with pytest.raises(ConfigError, match=rf"mine\.yaml: heuristic mine: .*{trouble}"):
        load_catalogue(path)


# The rate ----------------------------------------------------------------------------------------------------------------


def sample(question, index, verdict="correct"):
    return Sample(
        id=f"{question}#{index}", question_id=question, index=index, verdict=verdict, arm="base", stage="eval", prompt="?", response="!",
        token_ids=[], logprobs=[], finish="stop", seed=0,
    )  # fmt: skip


def test_the_rate_is_a_mean_over_questions_of_correct_solutions():
    samples = [sample("a", 0), sample("a", 1), sample("a", 2, "wrong"), sample("b", 0), sample("c", 0, "wrong"), sample("d", 0)]
    labels = {"a#0": ["x", "y"], "a#1": ["x"], "a#2": ["x", "y"], "b#0": [], "c#0": ["x", "y"]}  # d#0 was not judged
    composition = summarise_composition(samples, labels, judge="markers", resamples=20, seed=0)
    assert composition["rate"].mean == 0.25 and composition["rate"].low <= 0.25 <= composition["rate"].high
    assert {key: composition[key] for key in ("judge", "questions", "solutions")} == {"judge": "markers", "questions": 2, "solutions": 3}
    assert composition["by_heuristic"] == {"x": 2 / 3, "y": 1 / 3}
    assert summarise_composition(samples[4:5], labels, judge="markers", resamples=20, seed=0) is None


# The model ---------------------------------------------------------------------------------------------------------------

SHORT = [Heuristic(key=f"h{i}", title=f"H{i}", instruction=text) for i, text in enumerate(["Add.", "Check the answer.", "Then 42."])]


@pytest.fixture
def tiny(tiny_checkpoint, mesh1):
    return load_checkpoint(str(tiny_checkpoint), mesh=mesh1)


@pytest.mark.parametrize(("chat", "seed"), [("auto", 2), ("never", 1)])
def test_the_model_says_yes_where_yes_is_likelier(tiny, mesh1, chat, seed):
    # Random weights hardly tell two answers apart; larger ones say something, and these seeds say yes and no.
    params = jax.tree.map(lambda weight: 4 * weight, init_params(tiny.meta.config, jax.random.key(seed)))
    builder = PromptBuilder(tiny.meta.tokenizer, chat=chat)
    forward = Forward(tiny.meta.config, jnp.float32)
    solutions = [Solution(QUESTION, text) for text in ("Add 12 plus 30.", "The answer is 42.", "What is 12?", "30" * 500)]
    judge = ModelJudge(params, forward, mesh1, builder, SHORT)
    labels_of_all = judge.label(solutions)
    program = jax.jit(lambda batch: forward.logprobs(params, batch)[0])

    def log_odds(question, response, heuristic):
        """One unpacked row each for yes and no; log-probs of the whole texts, whose common part cancels."""
        logp = []
        for answer in ("Yes", "No") if builder.chat else (" yes", " no"):
            message = (
                f"Problem: {question}\n\nSolution: {response}\n\nHeuristic: {heuristic.title}. {heuristic.instruction}\n\n"
                "Does the solution use this heuristic? Answer yes or no."
            )
            ids = builder.say(message, answer)
            tokens = np.zeros((1, 256), np.int32)
            tokens[0, : len(ids)] = ids
            positions = np.arange(256, dtype=np.int32)[None]
            batch = {"tokens": tokens, "positions": positions, "segment_ids": (positions < len(ids)).astype(np.int32)}
            logp.append(float(program(batch)[0, : len(ids) - 1].sum()))
        return logp[0] - logp[1]

    one = ModelJudge(params, forward, mesh1, builder, SHORT[1:2]).label(solutions[:3])
    assert one == [[key for key in labels if key == "h1"] for labels in labels_of_all[:3]], "a catalogue of one heuristic"
    for heuristic in SHORT:
        threshold = max(0.0, log_odds("N/A", "N/A", heuristic))
        for solution, labels in zip(solutions[:3], labels_of_all, strict=False):
            odds = log_odds(QUESTION.question, solution.response, heuristic)
            assert (heuristic.key in labels) == (odds > threshold), (odds, threshold)
    assert 0 < sum(map(len, labels_of_all)) < len(SHORT) * len(solutions), "all answers are alike: nothing was compared"
    assert judge.label(solutions) == labels_of_all and judge.label([]) == []


def test_yes_must_beat_no_and_the_answer_about_nothing(monkeypatch, tiny, mesh1):
    odds = np.array([[1.0, -8.0], [0.5, -7.0], [1.5, 0.5], [-1.0, 0.0]])  # about nothing, then about three solutions
    judge = ModelJudge(tiny.params, Forward(tiny.meta.config, jnp.float32), mesh1, PromptBuilder(tiny.meta.tokenizer), SHORT[:2])

    def scored(params, forward, mesh, examples, **_):
        for value, example in zip(np.stack([odds.ravel(), np.zeros(odds.size)], 1).ravel(), examples, strict=True):
            yield np.where(np.arange(len(example)) == len(example) - 1, value, 0.0)

    monkeypatch.setattr("jaxpolya.score.heuristic_judge.score_examples", scored)
    assert judge.label([Solution(QUESTION, text) for text in "abc"]) == [[], ["h0", "h1"], []]


def test_a_model_without_room_is_told_before_the_run(tiny_tokenizer):
    builder = PromptBuilder(tiny_tokenizer)
    with pytest.raises(ConfigError, match=r"eval\.composition model: asking about .* the model has 128 positions"):
        check_room(builder, CATALOGUE.heuristics, 128)
    check_room(builder, SHORT, 512)
