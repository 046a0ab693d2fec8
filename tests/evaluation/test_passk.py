"""pass@k against exact fractions, and intervals against what they claim."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from jaxpolya.errors import InputError
from jaxpolya.evaluation.passk import (
    Interval,
    bootstrap,
    bootstrap_seeds,
    mean_interval,
    paired_difference,
    pass_at_k,
    reported_ks,
    summarise,
)


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1000])
def test_pass_at_k_is_exact(n):
    for k in {1, 2, n // 2, n} - {0}:
        if k > n:
            continue
        c = np.arange(0, n + 1, max(1, n // 20))
        exact = [float(1 - Fraction(comb(n - int(x), k), comb(n, k))) for x in c]
        np.testing.assert_allclose(pass_at_k(np.full(len(c), n), c, k), exact, rtol=0, atol=1e-13)


def test_pass_at_k_takes_differing_n_and_any_shape():
    shares = pass_at_k(np.array([[4, 2], [3, 8]]), np.array([[1, 0], [3, 4]]), 2)
    np.testing.assert_allclose(shares, [[0.5, 0.0], [1.0, 1 - 6 / 28]])


def test_pass_at_k_refuses_k_beyond_n():
    with pytest.raises(ValueError, match="at least 4 responses"):
        pass_at_k(np.array([8, 3]), np.array([1, 1]), 4)


def test_every_k_is_reported_up_to_64_and_then_few():
    assert [reported_ks(n) for n in (1, 2, 7, 64)] == [[1], [1, 2], [1, 2, 3, 4, 5, 6, 7], list(range(1, 65))]
    assert reported_ks(300) == [*range(1, 65), 128, 256, 300]


def test_a_single_measure_has_the_interval_that_pass_at_1_of_one_response_has():
    values = [float(i % 3 == 0) for i in range(60)]
    alike = summarise({f"q{i:02}": (1, int(value)) for i, value in enumerate(values)}, resamples=300, seed=5)["1"]
    assert mean_interval(values, resamples=300, seed=5) == alike
    with pytest.raises(InputError, match="no questions"):
        mean_interval([], resamples=10, seed=0)


def counts(questions, n=8, seed=0):
    rng = np.random.default_rng(seed)
    return {f"q{i}": (n, int(rng.binomial(n, rng.beta(0.5, 1)))) for i in range(questions)}


def test_summary_is_plain_ordered_and_repeatable():
    data = counts(50)
    first = summarise(data, resamples=200, seed=3)
    assert list(first) == [str(k) for k in range(1, 9)]
    assert first == summarise(dict(reversed(data.items())), resamples=200, seed=3)
    assert first != summarise(data, resamples=200, seed=4)
    assert first["1"].mean == pytest.approx(np.mean([c / 8 for _, c in data.values()]))
    assert first["8"].mean == pytest.approx(np.mean([c > 0 for _, c in data.values()]))
    assert all(entry.low < entry.mean < entry.high for entry in first.values())


def test_k_stops_at_the_question_with_fewest_responses():
    assert list(summarise({"a": (8, 1), "b": (3, 1)}, resamples=10, seed=0)) == ["1", "2", "3"]


def test_the_interval_is_the_exact_one():
    # With one response each, a resampled mean is a binomial share, whose quantiles are known. At 30 of 100 the distribution
    # function keeps 5 standard errors of 50,000 resamples away from both tails' mass, so no seed can miss.
    questions, solved = 100, 30
    probability = [
        comb(questions, x) * (solved / questions) ** x * (1 - solved / questions) ** (questions - x) for x in range(questions + 1)
    ]
    low, high = (np.searchsorted(np.cumsum(probability), mass) / questions for mass in (0.025, 0.975))
    interval = summarise({str(i): (1, int(i < solved)) for i in range(questions)}, resamples=50_000, seed=0)["1"]
    assert (interval.mean, interval.low, interval.high) == (solved / questions, pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_a_paired_interval_is_narrower_than_two_single_ones():
    baseline = counts(60)
    better = {i: (n, min(n, c + 1)) for i, (n, c) in baseline.items()}
    settings = {"resamples": 400, "seed": 0}
    difference = paired_difference(better, baseline, **settings)["1"]
    single = summarise(baseline, **settings)["1"]
    assert difference.mean == pytest.approx(np.mean([better[i][1] - baseline[i][1] for i in baseline]) / 8)
    assert difference.low > 0
    assert difference.high - difference.low < (single.high - single.low) / 3
    reverse = paired_difference(baseline, better, **settings)["1"]
    assert reverse.mean == -difference.mean and reverse.high < 0


def test_a_pair_uses_shared_questions_and_shared_k_only():
    difference = paired_difference({"a": (4, 4), "b": (4, 0)}, {"a": (2, 0), "c": (2, 2)}, resamples=10, seed=0)
    assert list(difference) == ["1", "2"] and difference["1"] == Interval(mean=1.0, low=1.0, high=1.0)


def test_no_questions_is_said():
    with pytest.raises(InputError, match="no questions"):
        summarise({}, resamples=10, seed=0)
    with pytest.raises(InputError, match="no questions"):
        paired_difference({"a": (1, 1)}, {"b": (1, 1)}, resamples=10, seed=0)


def test_intervals_over_seeds_and_questions():
    rng = np.random.default_rng(0)
    values = rng.random((4, 30))
    one = bootstrap_seeds([{"x": values[0]}], 500, 3)
    assert one == bootstrap({"x": values[0]}, 500, 3)
    alike = bootstrap_seeds([{"x": values[0]}] * 4, 500, 3)["x"]
    assert (alike.mean, alike.low, alike.high) == pytest.approx((one["x"].mean, one["x"].low, one["x"].high)), (
        "seeds that agree add nothing"
    )
    # Seeds that differ by a constant on all questions: the spread is that of a mean of four draws from them.
    shifts = np.array([0.0, 0.1, 0.2, 0.5])
    interval = bootstrap_seeds([{"x": np.full(30, shift)} for shift in shifts], 20_000, 0)["x"]
    drawn = np.sort(shifts[rng.integers(0, 4, (200_000, 4))].mean(1))
    assert interval.mean == pytest.approx(0.2) and (interval.low, interval.high) == pytest.approx((drawn[5_000], drawn[195_000]), abs=0.013)
    both = bootstrap_seeds([{"x": shift + values[0]} for shift in shifts], 5_000, 0)["x"]
    width = np.hypot(interval.high - interval.low, one["x"].high - one["x"].low)
    assert both.high - both.low == pytest.approx(width, rel=0.1), "independent spreads add as squares"
