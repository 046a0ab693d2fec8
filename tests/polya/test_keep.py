"""Which of a question's responses are kept, on samples written by hand, and the doors for scorers and rules of one's own."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from jaxpolya.config import KEEPS, SelectConfig
from jaxpolya.config.file import parse_config
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.ngrams import NgramKernel
from jaxpolya.polya.catalogue import load_catalogue, slots
from jaxpolya.polya.keep import Candidates, _Volume, make_keep, needs_scores
from jaxpolya.progress import Display
from jaxpolya.records import Question, Sample, SftRow, read_records
from jaxpolya.runs import pipeline
from jaxpolya.runs.identity import stage_fields
from jaxpolya.runs.select import select_fields
from jaxpolya.score.adherence import Case, Own, own_adherence

EXAMPLE = Path(__file__).parents[2] / "examples" / "brief_and_apart.py"


def sample(index: int, slot: int | None = 0, tokens=None, text: str = "", question: str = "q") -> Sample:
    tokens = tokens if tokens is not None else list(range(100 * index, 100 * index + 12))
    return Sample(
        id=f"{question}/{slot}#{index}", question_id=question, arm="polya", stage="generate", index=index, prompt="p",
        response=text or f"r{index}", token_ids=tokens, logprobs=[], finish="stop", seed=0, slot=slot, verdict="correct",
    )  # fmt: skip


def candidates(samples, scores=None, n=4, overlap=0.9, seed=0, question="q") -> Candidates:
    return Candidates(Question(id=question, question="?", answer="1"), samples, scores or {}, n, overlap, seed)


def kept(samples, scores=None, keep="best", quality=0.5, **changes) -> list[str]:
    rule, _ = make_keep(SelectConfig(keep=keep, quality=quality))
    return [s.id for s in rule(candidates(samples, scores, **changes))]


def test_the_best_of_each_slot_is_kept_best_first():
    samples = [sample(0, 0), sample(1, 0), sample(2, 1), sample(3, 1), sample(4, 2)]
    scores = {"q/0#0": 0.1, "q/0#1": 0.5, "q/1#2": 0.9, "q/1#3": 0.2, "q/2#4": -1.0}
    assert kept(samples, scores) == ["q/1#2", "q/0#1", "q/2#4"]
    assert kept(samples, scores, n=2) == ["q/1#2", "q/0#1"]


@pytest.mark.parametrize("keep", KEEPS)
def test_no_rule_keeps_two_of_a_slot_or_near_duplicates(keep):
    same = list(range(20))
    samples = [sample(0, 0, same), sample(1, 1, [*same[:-1], 99]), sample(2, 1)]
    scores = {"q/0#0": 0.9, "q/1#1": 0.8, "q/1#2": 0.1}
    assert kept(samples, scores, keep, overlap=0.8) in (["q/0#0", "q/1#2"], ["q/1#2", "q/0#0"], ["q/1#1"])
    assert len(kept(samples, scores, keep, overlap=1.0)) == 2
    assert len(kept([sample(0, 0, [1, 2]), sample(1, 1, [1, 2])], {}, keep, overlap=1.0)) == 1
    assert kept(samples, scores, keep, n=1)[0] in {s.id for s in samples}


def test_a_near_duplicate_of_another_slot_gives_way_to_the_next_best_of_its_own():
    same = list(range(20))
    samples = [sample(0, 0, same), sample(1, 1, [*same[:-1], 99]), sample(2, 1)]
    scores = {"q/0#0": 0.9, "q/1#1": 0.8, "q/1#2": 0.1}
    assert kept(samples, scores, overlap=0.8) == ["q/0#0", "q/1#2"]
    assert kept(samples, scores, overlap=1.0) == ["q/0#0", "q/1#1"]


def test_scores_are_asked_for_only_where_they_decide():
    one_each, two_of_a_slot = [sample(0, 0), sample(1, 1)], [sample(0, 0), sample(1, 0)]
    for keep, quality, decide in (("best", 0.5, True), ("diverse", 0.5, True), ("diverse", 0.0, False), ("random", 0.5, False)):
        config = {n: SelectConfig(keep=keep, quality=quality, n=n) for n in (1, 2)}
        assert not needs_scores(config[2], one_each)
        assert needs_scores(config[2], two_of_a_slot) == needs_scores(config[1], one_each) == decide


def test_a_random_draw_hangs_on_its_place_alone():
    samples = [sample(10 * slot + index, slot) for slot in range(6) for index in range(3)]
    drawn = kept(samples, keep="random", n=6)
    assert len(drawn) == 6 and kept(samples, {s.id: s.index for s in samples}, "random", n=6) == drawn
    assert kept(random.Random(0).sample(samples, 18), keep="random", n=6) == drawn, "the order of the records is no matter"
    without = [s for s in samples if s.slot != 3]
    assert kept(without, keep="random", n=6) == [name for name in drawn if "/3#" not in name], "nor is what other slots have"
    assert kept(samples, keep="random", n=2) == drawn[:2]
    assert kept(samples, keep="random", n=6, seed=1) != drawn != kept(samples, keep="random", n=6, question="other")


def test_a_random_draw_is_even_over_slots_whatever_they_hold():
    """Of two slots, one with a single right response and one with four, each is first half of the time, and the four alike."""
    samples = [sample(0, 0), *[sample(1 + index, 1) for index in range(4)]]
    first = [kept(samples, keep="random", n=1, question=f"q{i}")[0] for i in range(2000)]
    for name, share in ((f"{samples[0].id}", 1 / 2), *((s.id, 1 / 8) for s in samples[1:])):
        assert first.count(name) / 2000 == pytest.approx(share, abs=4 * math.sqrt(share / 2000))


WORDED = [
    "add the numbers one by one and check",
    "add the numbers one by one and look",
    "draw a picture of two heaps of stones",
    "swap them since a sum is symmetric",
]


def test_what_differs_goes_before_what_is_good_and_alike():
    samples = [sample(i, i, text=text) for i, text in enumerate(WORDED)]
    scores = {"q/0#0": 1.0, "q/1#1": 0.9, "q/2#2": 0.2, "q/3#3": 0.1}
    assert kept(samples, scores, n=2) == ["q/0#0", "q/1#1"]
    assert kept(samples, scores, "diverse", 1.0, n=4) == kept(samples, scores, n=4)
    assert kept(samples, scores, "diverse", 0.3, n=2) == ["q/0#0", "q/2#2"]
    assert kept(samples, scores, "diverse", 0.0, n=4)[-1] == "q/1#1"
    assert kept(samples, {}, "diverse", n=3) == kept(samples, {s.id: 2.0 for s in samples}, "diverse", n=3), "without scores, all alike"
    same = [sample(i, i, text="the same") for i in range(3)]
    assert len(kept(same, {}, "diverse", overlap=1.0)) == 3, "a copy in other tokens adds nothing, and is no error"


def test_the_greedy_gain_is_that_of_the_determinant():
    gram_MM = NgramKernel().gram(WORDED)
    volume, chosen = _Volume(gram_MM), []
    for place in (2, 0, 3):
        for i in range(len(WORDED)):
            with_i, without = [*chosen, i], chosen
            if i not in chosen:
                ratio = np.linalg.det(gram_MM[np.ix_(with_i, with_i)]) / (
                    np.linalg.det(gram_MM[np.ix_(without, without)]) if without else 1
                )
                assert volume.added_M[i] == pytest.approx(ratio, rel=1e-9)
        volume.add(place)
        chosen.append(place)


def test_adherence_has_no_scale_of_its_own():
    samples = [sample(i, i, text=text) for i, text in enumerate(WORDED)]
    scores = {"q/0#0": 1.0, "q/1#1": 0.9, "q/2#2": 0.2, "q/3#3": 0.1}
    scaled = {name: 1e4 * value - 7 for name, value in scores.items()}
    assert kept(samples, scores, "diverse", n=3) == kept(samples, scaled, "diverse", n=3)


def test_a_selection_of_an_older_run_is_found():
    assert select_fields(SelectConfig()) == stage_fields(SelectConfig()) == {
        "n": 4, "adherence": "pmi", "duplicate_overlap": 0.9, "max_questions": None, "match": "none", "external_verdicts": "correct",
        "seed": 0,
    }  # fmt: skip
    assert select_fields(SelectConfig(keep="diverse", quality=0.3))["quality"] == 0.3


# Doors -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "own.py").write_text(text)
        return f"{tmp_path / 'own.py'}:own"

    return write


def test_a_selection_is_known_by_the_files_of_its_rules(own):
    reference = own("def own(given): return list(given.samples)[:given.n]")
    before = select_fields(SelectConfig(keep=reference))
    assert before["keep"][0] == "own" and len(before["keep"][1]) == 64
    own("def own(given): return list(given.samples)[-given.n:]")
    assert select_fields(SelectConfig(keep=reference)) != before
    assert select_fields(SelectConfig(adherence=reference))["adherence"] == select_fields(SelectConfig(keep=reference))["keep"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return given.samples", r"it keeps 3 responses, 3 different ones; at most n \(2\)"),
        ("return [given.samples[0]] * 2", "it keeps 2 responses, 1 different ones"),
        ("return given.smaples", r"AttributeError: .*smaples.* \(.*own\.py:1\)"),
        ("return None", "TypeError: 'NoneType' object is not iterable"),
        ("import dataclasses; return [dataclasses.replace(given.samples[0], id='x')]", "it keeps x, which is none of its candidates"),
    ],
)
def test_a_rule_that_keeps_what_it_cant_is_named(own, body, message):
    with pytest.raises(InputError, match=rf"^select\.keep: own\.py:own, on question q: {message}"):
        kept([sample(i, i) for i in range(3)], keep=own(f"def own(given): {body}"), n=2)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1.0]", r"gave shape \(1,\) for 2 cases"),
        ("return [1.0, float('nan')]", "gave numbers that are not finite for 2 cases"),
        ("return [len(case.response) for case in cases]", r"AttributeError: .*\(.*own\.py:1\)"),
        ("return ['good', 'bad']", "ValueError: could not convert"),
    ],
)
def test_a_scorer_that_gives_something_else_is_named(own, body, message):
    (slot, *_) = slots(load_catalogue().pick(["analogy"]), None, 0, 0)
    cases = [Case(Question(id="q", question="?", answer="1"), slot, sample(i)) for i in range(2)]
    with pytest.raises(InputError, match=rf"^select\.adherence: own\.py:own:? {message}"):
        Own(own_adherence(own(f"def own(cases): {body}"))).score(cases)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("keep", "bset", "did you mean best"),
        ("adherence", "pim", "did you mean pmi"),
        ("adherence", "own.py", "behind a colon, own.py:NAME"),
    ],
)
def test_an_unknown_name_is_answered(field, value, message):
    with pytest.raises(ValueError, match=message):
        SelectConfig(**{field: value})


@pytest.mark.parametrize("field", ["keep", "adherence"])
def test_another_signature_is_an_error_before_a_weight_is_loaded(tiny_run, own, field):
    tree = tiny_run(arms=["polya"], select={field: own("def own(): pass")})
    with pytest.raises(ConfigError, match=rf"^select\.{field}: own\.py:own takes \(\), and \((candidates|cases)\) was expected"):
        pipeline.run(parse_config(tree), Display(quiet=True))


def test_the_example_selects(tiny_run):
    """A scorer and a rule of a user's own through a run's selection, each alone; what was generated is asked for once."""
    chosen = {}
    for field, name in (("adherence", "names_it"), ("keep", "brief")):
        tree = tiny_run(arms=["polya"], export=False, select={"n": 1, field: f"{EXAMPLE}:{name}"})
        tree["generate"]["samples"] = 4
        for phase in ("questions", "generate", "select"):
            pipeline.run(parse_config(tree), Display(quiet=True), only=phase)
        stages = tiny_run.directory / "runs" / "tiny" / "stages"
        (stage,) = (path for path in stages.glob("select-*") if path not in {place for place, _ in chosen.values()})
        chosen[name] = stage, read_records(stage / "polya.jsonl", SftRow)
        identity = json.loads((stage / "manifest.json").read_text())["identity"]["select"][field]
        assert identity[0] == name and len(identity[1]) == 64
    generated = [s for s in read_records(next(stages.glob("generate-polya-*/samples.jsonl")), Sample) if s.verdict == "correct"]
    assert {row.adherence for row in chosen["brief"][1]} == {None}
    assert any(row.adherence is not None and 0 <= row.adherence <= 1 for row in chosen["names_it"][1])
    for row in chosen["brief"][1]:
        right = [s for s in generated if s.question_id == row.question_id]
        assert row.response in {s.response for s in right if len(s.token_ids) == min(len(other.token_ids) for other in right)}
