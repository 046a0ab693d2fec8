"""The labelled set, agreement with it, and a rate without the judge's errors: against closed forms and simulated judges."""

import dataclasses
import json
import math

import numpy as np
import pytest

from jaxpolya.evaluation.judge_quality import (
    JudgeQuality,
    as_facts,
    compare,
    corrected_rate,
    from_facts,
    kappa,
    kappa_interval,
    labelled_half,
    labelled_set,
    measure,
)
from jaxpolya.evaluation.judges import SEVERAL, Acts, Markers
from jaxpolya.polya.catalogue import load_catalogue

HEURISTICS = load_catalogue().heuristics
KEYS = [heuristic.key for heuristic in HEURISTICS]


def test_the_labelled_set_has_every_heuristic_in_both_halves():
    assert len(labelled_set()) >= 200 and len({one.id for one in labelled_set()}) == len(labelled_set())
    problems = {half: {one.problem for one in labelled_half(half)} for half in ("development", "held_out")}
    assert not problems["development"] & problems["held_out"]
    for half in ("development", "held_out"):
        shown = labelled_half(half)
        assert {key for one in shown for key in one.labels} == set(KEYS)
        assert sum(len(one.labels) >= SEVERAL for one in shown) >= 20 and sum(not one.labels for one in shown) >= 30
    for one in labelled_set():  # what both labellings say, and nothing that neither does
        assert set(one.first) & set(one.second) <= set(one.labels) <= set(one.first) | set(one.second) <= set(KEYS)


def test_the_default_judge_agrees_with_the_labels_and_markers_do_not():
    acts, markers = (measure(judge(HEURISTICS), KEYS) for judge in (Acts, Markers))
    assert acts.kappa.mean >= 0.6 and acts.kappa.low > markers.kappa.high
    assert acts.sensitivity + acts.specificity > 1.2


def test_kappa_is_cohens():
    # Cohen 1960's formula by hand: p_o = 0.7, p_e = 0.5 · 0.6 + 0.5 · 0.4.
    first, second = np.repeat([1, 1, 0, 0], [20, 5, 10, 15]).astype(bool), np.repeat([1, 0, 1, 0], [20, 5, 10, 15]).astype(bool)
    assert kappa(first, second) == pytest.approx((0.7 - 0.5) / 0.5)
    assert kappa(first, first) == 1 and math.isnan(kappa(np.ones(3, bool), np.ones(3, bool)))
    assert kappa_interval(np.ones((3, 1), bool), np.ones((3, 1), bool)) is None


def test_a_judge_is_compared_on_what_it_can_name():
    shown = [
        dataclasses.replace(one, labels=labels) for one, labels in zip(labelled_set(), (["a", "b"], ["a"], [], ["b", "z"]), strict=False)
    ]
    quality = compare([["a", "b"], ["a", "b"], [], ["b"]], shown, ["a", "b"])
    assert (quality.composed, quality.others, quality.solutions) == ((1, 1), (2, 3), 4)
    assert quality.sensitivity == 1 and quality.specificity == pytest.approx(2 / 3)


def test_only_as_many_are_shown_as_the_judge_reaches():
    class Near:
        name, reach = "near", (7, 2)

        def label(self, solutions):
            self.seen = len(solutions)
            return [[] for _ in solutions]

    judge = Near()
    assert measure(judge, KEYS).solutions == judge.seen == 7


def quality(hits=45, composed=50, left=190, others=200):
    return JudgeQuality(composed + others, None, None, (hits, composed), (left, others))


@pytest.mark.parametrize("true", [0.1, 0.5, 0.9])
def test_the_correction_takes_a_judges_errors_out(true):
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(15):  # a judge of sensitivity 0.9 and specificity 0.95, whose quality was measured on other solutions
        composed = rng.random(100) < true
        rates = np.where(composed, rng.random(100) < 0.9, rng.random(100) < 0.05).astype(float)
        known = quality(rng.binomial(50, 0.9), 50, rng.binomial(200, 0.95), 200)
        interval = corrected_rate(rates, known, seed=0)
        hits.append(interval.low <= true <= interval.high)
    exact = corrected_rate(np.array([0.9 * true + 0.05 * (1 - true)]), quality(), seed=0)
    assert exact.mean == pytest.approx(true) and np.mean(hits) >= 0.8


def test_a_judge_that_knows_nothing_corrects_nothing():
    rates = np.array([0.2, 0.4])
    assert corrected_rate(rates, quality(10, 50, 160, 200), seed=0) is None  # yes to a fifth of either
    assert corrected_rate(rates, quality(2, 2, 3, 3), seed=0) is None or corrected_rate(rates, quality(2, 2, 3, 3), seed=0).high > 0.5
    assert corrected_rate(rates, quality(0, 0, 3, 3), seed=0) is None
    assert corrected_rate(np.zeros(5), quality(), seed=0).mean == 0, "never below nothing"


def test_quality_is_read_back_from_a_manifest():
    known = measure(Markers(HEURISTICS), KEYS)
    assert from_facts(json.loads(json.dumps(as_facts(known)))) == known
